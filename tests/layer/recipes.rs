//! Recipes that are damaged, and trees that are not what they were; archives damaged at random.

use std::fs;
use std::io::Cursor;
use std::os::fd::AsFd as _;

use outcrop::error::{Error, Kind};
use outcrop::job::Job;
use outcrop::layer::{Extras, Form, Row, apply, replay, scan, verify};

use super::kit::{Raw, assert_same, new_dir, open, packed_tree, python, replayed, shown, sorted};
use crate::sandbox::Sandbox;

fn replay_error(recipe: &[u8], dir: &std::path::Path) -> Option<Error> {
    replay(&Job::silent(), &mut Cursor::new(recipe), open(dir).as_fd(), &mut Vec::new()).err()
}

#[test]
fn a_file_that_is_not_what_it_was_is_found_by_name_or_by_digest() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    fs::write(tree.join("file"), "content").unwrap();
    let layer = packed_tree(&tree);
    fs::write(tree.join("file"), "CONTENT").unwrap();
    let error = replay_error(&layer.recipe, &tree).unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.message().starts_with(&format!("the files of layer {}", layer.packed.diff_id)));
    fs::write(tree.join("file"), "short").unwrap();
    let gone_or_changed = "`file` is not what it was when its layer was made";
    assert_eq!(replay_error(&layer.recipe, &tree).unwrap().message(), gone_or_changed);
    fs::remove_file(tree.join("file")).unwrap();
    assert_eq!(replay_error(&layer.recipe, &tree).unwrap().message(), gone_or_changed);
    std::os::unix::fs::symlink("/etc/passwd", tree.join("file")).unwrap();
    assert_eq!(replay_error(&layer.recipe, &tree).unwrap().message(), gone_or_changed);
}

#[test]
fn a_damaged_recipe_is_an_error_wherever_it_is_damaged() {
    let sandbox = Sandbox::new();
    let tree = new_dir(&sandbox, "tree");
    let tar =
        Raw::default().file(b"a", b"first").file(b"a", b"second").dir(b"d/").file(b"d/b", &[5; 3000]).end();
    let mut recipe = Vec::new();
    let fd = open(&tree);
    apply(&Job::silent(), &mut &tar[..], fd.as_fd(), Form::Whole, &mut (), &mut recipe).unwrap();
    assert!(replayed(&recipe, &tree) == tar);
    for end in 0..recipe.len() {
        let error = replay_error(&recipe[..end], &tree).unwrap_or_else(|| panic!("cut at {end}"));
        assert_eq!(error.kind(), Kind::Corrupt, "cut at {end}: {error:?}");
    }
    for at in 0..recipe.len() {
        let mut damaged = recipe.clone();
        damaged[at] ^= 0x15;
        assert!(replay_error(&damaged, &tree).is_some(), "damaged at {at}");
    }
    recipe[15] = b'2';
    assert_eq!(replay_error(&recipe, &tree).unwrap().kind(), Kind::Unsupported);
}

/// Whatever the bytes are, the answer is an error or a layer that is what its rows say.
#[test]
fn archives_damaged_at_random_are_refused_or_taken_whole() {
    let sandbox = Sandbox::new();
    let script = "for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):\n\
        \x20 tar = tarfile.open(fileobj=out, mode='w', format=format)\n\
        \x20 entry(tar, 'dir', tarfile.DIRTYPE)\n\
        \x20 entry(tar, 'dir/file', data=b'data' * 30, uid=3000000)\n\
        \x20 entry(tar, 'dir/' + 'long' * 40, data=b'x', pax_headers={'SCHILY.xattr.user.a': 'b'})\n\
        \x20 entry(tar, 'link', tarfile.LNKTYPE, linkname='dir/file')\n\
        \x20 entry(tar, 'soft', tarfile.SYMTYPE, linkname='dir')\n\
        \x20 entry(tar, 'soft/.wh.gone')\n\
        \x20 entry(tar, 'dir/.wh..wh..opq')\n\
        \x20 entry(tar, 'dir', data=b'a file now')\n\
        \x20 entry(tar, 'fifo', tarfile.FIFOTYPE)\n\
        \x20 tar.close(); data = out.getvalue(); out.seek(0); out.truncate()\n\
        \x20 open(str(format) + '.tar', 'wb').write(data[:-tarfile.RECORDSIZE // 2])";
    python(script, sandbox.dir());
    let sparse = Raw::default()
        .pax(
            b'x',
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"sparse"),
                ("GNU.sparse.realsize", b"900000"),
            ],
        )
        .file(b"x", &[&b"2\n0\n4\n600000\n2\n"[..], &[0; 496], b"databy"].concat())
        .file(b"sparse", b"again")
        .end();
    let mut archives = vec![sparse];
    for format in 0..3 {
        archives.extend(fs::read(sandbox.dir().join(format!("{format}.tar"))));
    }
    assert_eq!(archives.len(), 3);
    let mut state = 88_172_645_463_325_252u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    let mut taken = 0;
    for round in 0..450 {
        let mut tar = archives[round % archives.len()].clone();
        for _ in 0..=random(3) {
            let block = random(tar.len() / 512) * 512;
            let at = block + [random(512), random(110), 100 + random(60), 156][random(4)];
            tar[at] = [0, b'/', b'.', b'0', b'1', b'2', b'5', b'7', b'S', b'x', 0x80, 0xff][random(12)];
            if tar[block + 257..block + 262] == *b"ustar" {
                tar[block + 148..block + 156].fill(b' ');
                let sum: u32 = tar[block..block + 512].iter().map(|byte| u32::from(*byte)).sum();
                tar[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if random(10) == 0 {
            tar.truncate(random(tar.len()));
        }
        let mut scanned = Vec::new();
        let scan = scan(&Job::silent(), &mut &tar[..], None, &mut scanned);
        for form in [Form::Overlay, Form::Whole] {
            let tree = new_dir(&sandbox, "tree");
            let fd = open(&tree);
            let (mut rows, mut recipe) = (Vec::<Row>::new(), Vec::new());
            let applied = apply(&Job::silent(), &mut &tar[..], fd.as_fd(), form, &mut rows, &mut recipe);
            if let Ok(applied) = applied {
                taken += 1;
                let rows = sorted(rows);
                assert_eq!(applied.rows, rows.len() as u64);
                assert!(replayed(&recipe, &tree) == tar, "round {round}");
                let findings =
                    verify(&Job::silent(), fd.as_fd(), form, Extras::Ignore, rows.iter().cloned().map(Ok));
                assert_eq!(findings.unwrap().list, [], "round {round}");
                let scan = scan.as_ref().expect("what can be written can be read");
                assert_eq!(scan.diff_id, applied.diff_id);
                assert_same(&shown(&sorted(scanned.clone())), &shown(&rows));
            }
            fs::remove_dir_all(&tree).unwrap();
        }
    }
    assert!(taken > 90, "{taken} of 900 were taken: that says little");
}
