//! What is kept of files, and of their names.

use super::*;

pub(super) fn hard_links_stay_one_file(bench: &Bench) {
    let first = bench.base(|root| {
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("one"), "linked").unwrap();
        fs::hard_link(root.at("one"), root.at("dir/two")).unwrap();
        fs::hard_link(root.at("one"), root.at("three")).unwrap();
        symlink("nowhere", root.at("link")).unwrap();
        rustix::fs::linkat(CWD, root.at("link"), CWD, root.at("link2"), rustix::fs::AtFlags::empty())
            .unwrap();
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    for stack in [first, second] {
        let view = bench.view(&stack);
        let inode = |name| view.at(name).symlink_metadata().map(|meta| (meta.ino(), meta.nlink())).unwrap();
        assert_eq!([inode("dir/two"), inode("three")], [inode("one"), inode("one")]);
        // Two trees have it there.
        let shared = if bench.driver.name() == "overlay" { 2 } else { 1 };
        assert_eq!(inode("one").1, 3 * shared);
        assert_eq!(inode("link"), inode("link2"));
    }
}

pub(super) fn devices_fifos_and_sockets_are_kept(bench: &Bench) {
    let first = bench.base(|root| {
        let make = |name, kind, mode, (major, minor)| {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(CWD, root.at(name), kind, Mode::empty(), device).unwrap();
            fs::set_permissions(root.at(name), Permissions::from_mode(mode)).unwrap();
        };
        make("null", FileType::CharacterDevice, 0o666, (1, 3));
        make("loop", FileType::BlockDevice, 0o660, (7, 300));
        make("fifo", FileType::Fifo, 0o640, (0, 0));
        make("socket", FileType::Socket, 0o600, (0, 0));
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    let device = |name| {
        let meta = view.at(name).symlink_metadata().unwrap();
        (meta.mode(), rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
    };
    assert_eq!(device("null"), (0o020_666, 1, 3));
    assert_eq!(device("loop"), (0o060_660, 7, 300));
    assert_eq!(device("fifo"), (0o010_640, 0, 0));
    assert!(view.at("socket").symlink_metadata().unwrap().file_type().is_socket());
}

/// `cap_net_raw+ep`, as `setcap` writes it (capability.h, VFS_CAP_REVISION_2).
const NET_RAW: &[u8] = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

pub(super) fn owners_modes_xattrs_and_capabilities_are_kept(bench: &Bench) {
    let set = |path: PathBuf, name, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    let first = bench.base(|root| {
        fs::write(root.at("program"), "").unwrap();
        chown(root.at("program"), Some(2_097_152), Some(5)).unwrap();
        fs::set_permissions(root.at("program"), Permissions::from_mode(0o6755)).unwrap();
        set(root.at("program"), "security.capability", NET_RAW);
        set(root.at("program"), "user.empty", b"");
        set(root.at("program"), "user.bytes", b"\x00\xff\n");
        fs::create_dir(root.at("dir")).unwrap();
        set(root.at("dir"), "trusted.mark", b"dir");
        fs::set_permissions(root.at("dir"), Permissions::from_mode(0o1000)).unwrap();
        symlink("nowhere", root.at("link")).unwrap();
        set(root.at("link"), "trusted.mark", b"link");
        std::os::unix::fs::lchown(root.at("link"), Some(3), Some(4)).unwrap();
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    let program = view.at("program");
    let meta = program.metadata().unwrap();
    assert_eq!((meta.mode(), meta.uid(), meta.gid()), (0o106_755, 2_097_152, 5));
    assert_eq!(xattr(&program, "security.capability"), NET_RAW);
    assert_eq!(xattr(&program, "user.empty"), b"");
    assert_eq!(xattr(&program, "user.bytes"), b"\x00\xff\n");
    assert_eq!(xattr(&view.at("dir"), "trusted.mark"), b"dir");
    assert_eq!(view.at("dir").metadata().unwrap().mode(), 0o041_000);
    assert_eq!(xattr(&view.at("link"), "trusted.mark"), b"link");
    let link = view.at("link").symlink_metadata().unwrap();
    assert_eq!((link.uid(), link.gid()), (3, 4));
}

pub(super) fn is_zfs_fuse(bench: &Bench) -> bool {
    bench.driver.name() == "zfs" && !crate::zfs::in_the_kernel()
}

pub(super) fn times_are_kept_those_of_directories_too(bench: &Bench) {
    // zfs-fuse keeps whole seconds.
    let nanoseconds = if is_zfs_fuse(bench) { 0 } else { 123_456_789 };
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, nanoseconds);
    let before_1970 = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1_000);
    let first = bench.base(|root| {
        fs::create_dir(root.at("dir")).unwrap();
        fs::write(root.at("dir/file"), "x").unwrap();
        fs::File::open(root.at("dir/file")).unwrap().set_modified(before_1970).unwrap();
        fs::File::open(root.at("dir")).unwrap().set_modified(time).unwrap();
    });
    let second = bench.on(&first, |root| fs::write(root.at("unrelated"), "").unwrap());
    let view = bench.view(&second);
    assert_eq!(view.at("dir").metadata().unwrap().modified().unwrap(), time);
    assert_eq!(view.at("dir/file").metadata().unwrap().modified().unwrap(), before_1970);
}

pub(super) fn holes_stay_holes(bench: &Bench) {
    const SIZE: u64 = 8 << 30;
    let first = bench.base(|root| {
        let mut file = fs::File::create(root.at("sparse")).unwrap();
        file.seek(SeekFrom::Start(SIZE / 2)).unwrap();
        file.write_all(b"middle").unwrap();
        file.set_len(SIZE).unwrap();
        fs::File::create(root.at("empty")).unwrap().set_len(SIZE).unwrap();
    });
    let second = bench.on(&first, |root| {
        fs::set_permissions(root.at("sparse"), Permissions::from_mode(0o600)).unwrap();
    });
    let view = bench.view(&second);
    let meta = view.at("sparse").metadata().unwrap();
    assert_eq!(meta.len(), SIZE);
    // overlayfs copies up in pieces of 1 MiB.
    assert!(meta.blocks() * 512 <= 1 << 20, "{} blocks", meta.blocks());
    let mut middle = [0; 8];
    let file = fs::File::open(view.at("sparse")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut middle, SIZE / 2 - 1).unwrap();
    assert_eq!(&middle, b"\0middle\0");
    // ZFS counts the block of the inode.
    let own = u64::from(bench.driver.name() == "zfs");
    assert_eq!(view.at("empty").metadata().unwrap().blocks(), own);
}

pub(super) fn any_name_is_kept(bench: &Bench) {
    let odd: Vec<OsString> = [
        vec![b'n'; 255],
        b"\xff\xfe not utf-8".to_vec(),
        b"line\nbreak".to_vec(),
        b"colon:comma,back\\slash".to_vec(),
        b" ".to_vec(),
        "\u{1F9F1}".as_bytes().to_vec(),
    ]
    .map(OsString::from_vec)
    .into();
    let first = bench.base(|root| {
        for name in &odd {
            fs::create_dir(root.at(name)).unwrap();
            fs::write(root.at(name).join(name), "").unwrap();
        }
    });
    let second = bench.on(&first, |root| fs::remove_file(root.at(&odd[0]).join(&odd[0])).unwrap());
    let view = bench.view(&second);
    let mut seen: Vec<OsString> =
        fs::read_dir(view.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut expected = odd.clone();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    assert!(!view.at(&odd[0]).join(&odd[0]).exists());
    assert!(odd[1..].iter().all(|name| view.at(name).join(name).exists()));
}

pub(super) fn the_root_keeps_its_owner_mode_and_xattrs(bench: &Bench) {
    let of = |view: &Seen| {
        let meta = view.path().metadata().unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    let first = bench.base(|root| assert_eq!(of(root), (0o755, 0, 0)));
    let second = bench.on(&first, |root| {
        chown(root.path(), Some(7), Some(8)).unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o3711)).unwrap();
        rustix::fs::setxattr(root.path(), "trusted.mark", b"root", XattrFlags::empty()).unwrap();
    });
    let third = bench.on(&second, |root| fs::write(root.at("unrelated"), "").unwrap());
    assert_eq!(of(&bench.view(&first)), (0o755, 0, 0));
    for stack in [second, third] {
        assert_eq!(of(&bench.view(&stack)), (0o3711, 7, 8));
        assert_eq!(xattr(&bench.view(&stack).path(), "trusted.mark"), b"root");
    }
}
