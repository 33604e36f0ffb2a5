//! Archives made to do harm, imported: each a clear error, nothing outside is touched, nothing half-written stays.

use std::fs;
use std::process::Command;

use super::left::{ask, half_written};
use crate::sandbox::{Outcome, Sandbox};

/// `member(name, **fields)` adds a header, with `data` as its content.
const KIT: &str = "
import sys, tarfile, io, gzip, os
out, outside = sys.argv[1:3]
t = tarfile.open(out, 'w', format=tarfile.PAX_FORMAT)
def member(name, data=b'', **fields):
    m = tarfile.TarInfo(name)
    m.size = len(data)
    for key, value in fields.items(): setattr(m, key, value)
    t.addfile(m, io.BytesIO(data))
def link(name, target, kind=tarfile.SYMTYPE): member(name, type=kind, linkname=target)
";

struct Trap {
    sandbox: Sandbox,
}

impl Trap {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.base_image("base");
        let outside = sandbox.dir().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "precious").unwrap();
        Trap { sandbox }
    }

    fn import(&self, script: &str) -> Outcome {
        let archive = self.sandbox.dir().join("hostile.tar");
        let outside = self.sandbox.dir().join("outside");
        let script = format!("{KIT}{script}\nt.close()\n");
        let made =
            Command::new("python3").arg("-c").arg(script).arg(&archive).arg(&outside).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.sandbox.outcrop(&["import", archive.to_str().unwrap(), "hostile"])
    }

    /// What is said; nothing is left, and nothing outside has changed.
    fn refuses(&self, script: &str) -> String {
        let images = ask(&self.sandbox, "select count(*) from image");
        let refused = self.import(script).fails(1);
        self.is_clean();
        assert_eq!(ask(&self.sandbox, "select count(*) from image"), images);
        let text = refused.stderr().replace(self.sandbox.dir().to_str().unwrap(), "DIR");
        text.strip_prefix("error: importing `DIR/hostile.tar`\n  because: ").unwrap_or(&text).to_owned()
    }

    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(half_written(&self.sandbox), Vec::<String>::new());
        let outside = self.sandbox.dir().join("outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
        assert!(!self.sandbox.dir().join("escaped").exists());
    }
}

#[test]
fn an_archive_that_leads_out_is_refused_and_leaves_nothing() {
    let trap = Trap::new();
    let leads_out = "a name with `..` in it, which may lead out of the layer";
    let hint = "hint: this archive is damaged, or made to do harm\n";
    for (script, expected) in [
        ("member('ok', b'x'); member('../escaped', b'x')", format!("unpacking `../escaped`\n  because: {leads_out}\n{hint}")),
        (
            "member('ok', b'x'); member('/escaped', b'x')",
            "unpacking `/escaped`\n  because: an absolute name\nhint: names in a layer are relative to its root: make the archive without `-P`\n".to_owned(),
        ),
        (
            "link('evil', '../outside/precious', tarfile.LNKTYPE)",
            format!("unpacking `evil`\n  because: following its target `../outside/precious`\n  because: {leads_out}\n{hint}"),
        ),
        (
            "link('evil', outside + '/precious', tarfile.LNKTYPE)",
            "a hard link to `OUTSIDE/precious`, which is in no layer\nhint: this layer belongs on top of another one, or is damaged\n"
                .replace("OUTSIDE", trap.sandbox.dir().join("outside").to_str().unwrap().trim_start_matches('/')),
        ),
    ] {
        assert_eq!(trap.refuses(script), expected, "{script}");
    }
}

#[test]
fn links_and_devices_in_an_archive_mean_what_is_inside() {
    let trap = Trap::new();
    trap.import(
        "
link('out', outside); member('out/new', b'x')
link('up', '../../../../../../..' + outside); member('up/new', b'x')
member('dev/disk', type=tarfile.BLKTYPE, devmajor=8, devminor=0)
member('dev/mem', type=tarfile.CHRTYPE, devmajor=1, devminor=1)",
    )
    .ok();
    trap.is_clean();
    // The nodes are kept, and open nothing: what runs has no access to such devices.
    let refused = |device: &str| format!("(cat < {device}) 2> /dev/null && exit 9 || echo refused");
    let disk = format!("RUN {}; {}", refused("/dev/disk"), refused("/dev/mem"));
    trap.sandbox.dockerfile(&format!("FROM hostile\nCOPY --from=base / /\n{disk}\n"));
    let built = trap.sandbox.outcrop(&["build", "."]).ok();
    let refused = built.lines().iter().filter(|line| *line == "refused").count();
    assert_eq!(refused, 2, "{}", built.stdout());
}

#[test]
fn a_broken_archive_is_refused_and_leaves_nothing() {
    let trap = Trap::new();
    let zipped = "member('a', os.urandom(300000)); t.close(); whole = gzip.compress(open(out, 'rb').read(), 1); t.close = lambda: None\n";
    let write = |bytes: &str| format!("{zipped}open(out, 'wb').write({bytes})");
    let cases = [
        write("whole[:150000]"),
        write("whole[:-4]"),
        write("whole[:1000] + bytes(100) + whole[1100:]"),
        write("os.urandom(100000)"),
        write("b'not a tar at all, only some text\\n' * 100"),
        // A size that lies: more than there is.
        "member('a', b'x' * 5000); t.close(); raw = bytearray(open(out, 'rb').read()); m = tarfile.TarInfo('b'); m.size = 10**12; raw[:512] = m.tobuf(); open(out, 'wb').write(raw); t.close = lambda: None".to_owned(),
        // ... less than nothing, in base 256.
        "t.close(); m = tarfile.TarInfo('b'); h = bytearray(m.tobuf()); h[124:136] = b'\\xff' * 12; h[148:156] = b'%06o\\0 ' % (256 + sum(h[:148]) + sum(h[156:])); open(out, 'wb').write(h + bytes(1024)); t.close = lambda: None".to_owned(),
    ];
    for script in cases {
        let said = trap.refuses(&script);
        println!("{script}\n{said}");
        assert!(said.contains("\nhint: "), "{script}: {said}");
    }
}
