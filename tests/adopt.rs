//! `system adopt`: the images and volumes of a data root that a real dockerd has filled, with each of its storage drivers that
//! works here; and what is no such data root, or is damaged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use outcrop::image::Digest;
use serde_json::{Value, json};

use crate::judge_kit::Daemon;
use crate::registry_kit::RealRegistry;
use crate::sandbox::{Outcome, Sandbox, find_on_path, tool};

/// Layers of all kinds: hard links, whiteouts, a replaced directory, files that become something else, a capability, long
/// names, one that stands twice, an empty one.
const DOCKERFILE: &str = "FROM base\n\
    RUN mkdir -p /d/e /gone /long && echo a > /d/a && ln /d/a /d/b && ln -s a /d/l && mkfifo /d/p && echo x > /gone/x\n\
    RUN head -c 300000 /dev/urandom > /d/noise && truncate -s 3M /d/sparse && touch /d/empty\n\
    RUN n=$(printf 'n%.0s' $(seq 200)) && mkdir /long/$n && echo long > /long/$n/$n && chmod 4755 /d/a\n\
    ADD capable.tar /bin/\n\
    RUN mkdir /t && echo 1 > /t/dir && echo 2 > /t/link && echo 3 > /t/pipe && mkdir /t/file && echo 4 > /t/file/x\n\
    RUN cd /t && rm -r * && mkdir dir && echo 5 > dir/x && ln -s dir link && mkfifo pipe && echo 6 > file\n\
    RUN rm -r /gone && rm -r /d/e && mkdir /d/e && echo new > /d/e/new && rm /d/b && chown 7:8 /d/noise\n\
    COPY one /one\n\
    RUN rm /one\n\
    COPY one /one\n\
    ENV A=b\n\
    CMD [\"cat\", \"/one\"]\n";

/// What dockerd says of its images while it runs.
struct Said {
    driver: String,
    /// Lines of names, digests and ids.
    images: Vec<String>,
    /// Of each tag the entries of its history.
    histories: BTreeMap<String, Vec<String>>,
    /// Of each tag the digests of what it saves.
    saved: BTreeMap<String, Saved>,
}

/// A data root in `data`, filled with that storage driver; the daemon has ended.
fn filled(sandbox: &Sandbox, data: &Path, driver: &str) -> Said {
    let registry = RealRegistry::start(sandbox);
    let daemon = Daemon::start(sandbox.dir(), data, driver);
    let docker = |args: &[&str]| Outcome::of(daemon.docker(args).current_dir(sandbox.context())).ok();
    let base = sandbox.busybox_archive();
    docker(&["import", base.to_str().unwrap(), "base"]);
    docker(&["import", marked(sandbox).to_str().unwrap(), "marked"]);
    capable(sandbox);
    sandbox.file("one", "one");
    sandbox.dockerfile(DOCKERFILE);
    let build = |kit: &str, name: &str, args: &[&str]| {
        let mut command = daemon.docker(&["build", "-q", "--network", "none", "-t", name]);
        Outcome::of(command.args(args).arg(".").env("DOCKER_BUILDKIT", kit).current_dir(sandbox.context()))
            .ok();
    };
    build("0", "classic:1", &[]);
    build("1", "kit/app:1", &["--label", "built=kit"]);
    docker(&["tag", "kit/app:1", "kit/app:2"]);
    let pushed = format!("{}/pushed/app:1", registry.address);
    docker(&["tag", "classic:1", &pushed]);
    docker(&["push", "-q", &pushed]);
    docker(&[
        "run",
        "--name",
        "done",
        "--network",
        "none",
        "kit/app:1",
        "sh",
        "-c",
        "rm /one; echo 7 >> /t/file",
    ]);
    docker(&["commit", "done", "committed:1"]);
    docker(&["rm", "done"]);
    docker(&["create", "--name", "kept", "classic:1"]);
    docker(&["volume", "create", "data"]);
    docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        "data:/v",
        "classic:1",
        "sh",
        "-c",
        "echo kept > /v/file; ln /v/file /v/again",
    ]);
    let names = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines();
    let history = |name: &String| {
        docker(&["history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}", name]).lines()
    };
    let histories = names.iter().map(|name| (name.clone(), history(name))).collect();
    let saved = |name: &String| {
        Saved::by(sandbox, |archive| drop(docker(&["save", "-o", archive.to_str().unwrap(), name])))
    };
    let saved = names.iter().map(|name| (name.clone(), saved(name))).collect();
    Said { driver: driver.to_owned(), images: images(|args| docker(args)), histories, saved }
}

fn images(tool: impl Fn(&[&str]) -> Outcome) -> Vec<String> {
    let format = "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}";
    let mut lines = tool(&["images", "--no-trunc", "--digests", "--format", format]).lines();
    lines.sort();
    lines
}

/// A program with a capability, in an archive.
fn capable(sandbox: &Sandbox) {
    let dir = sandbox.dir().join("capable");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("capable"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("capable"), fs::Permissions::from_mode(0o755)).unwrap();
    tool(sandbox, &["setcap", "cap_net_raw+ep", dir.join("capable").to_str().unwrap()]);
    let archive = sandbox.context().join("capable.tar");
    let dir = dir.to_str().unwrap();
    tool(
        sandbox,
        &[
            "tar",
            "--xattrs",
            "--xattrs-include=security.capability",
            "-cf",
            archive.to_str().unwrap(),
            "-C",
            dir,
            "capable",
        ],
    );
}

/// Two files that are one, and a directory, with attributes that dockerd keeps where it did not make them, in an archive.
fn marked(sandbox: &Sandbox) -> PathBuf {
    let dir = sandbox.dir().join("marked");
    fs::create_dir_all(dir.join("m")).unwrap();
    fs::write(dir.join("m/file"), "marked\n").unwrap();
    fs::hard_link(dir.join("m/file"), dir.join("m/same")).unwrap();
    for name in ["m", "m/file"] {
        let path = dir.join(name);
        tool(sandbox, &["setfattr", "-n", "user.mark", "-v", name, path.to_str().unwrap()]);
    }
    let archive = sandbox.dir().join("marked.tar");
    let (into, from) = (archive.to_str().unwrap(), dir.to_str().unwrap());
    tool(sandbox, &["tar", "--xattrs", "-cf", into, "-C", from, "m"]);
    archive
}

/// All that stands below, to the byte and the nanosecond; not when it was read last.
fn fingerprint(dir: &Path) -> Digest {
    let mut text = String::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        write!(text, "{} {:o} {}:{} ", path.display(), stat.mode(), stat.uid(), stat.gid()).unwrap();
        write!(text, "{} {} {} {} ", stat.ino(), stat.nlink(), stat.size(), stat.rdev()).unwrap();
        write!(text, "{}.{} {}.{} ", stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec())
            .unwrap();
        if stat.is_dir() {
            let mut names: Vec<PathBuf> =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            open.extend(names);
        } else if stat.is_file() {
            write!(text, "{}", Digest::of(&fs::read(&path).unwrap())).unwrap();
        } else if stat.is_symlink() {
            write!(text, "{}", fs::read_link(&path).unwrap().display()).unwrap();
        }
        text.push('\n');
    }
    Digest::of(text.as_bytes())
}

fn adopt(sandbox: &Sandbox, data: &Path, more: &[&str]) -> Outcome {
    sandbox.outcrop(&[&["system", "adopt", data.to_str().unwrap()], more].concat())
}

/// Everything came over, the data root is as it was, and the store is right.
fn comes_over(sandbox: &Sandbox, data: &Path, said: &Said) {
    let before = fingerprint(data);
    let dry = adopt(sandbox, data, &["--dry-run"]).ok();
    assert!(dry.stdout().contains("Would adopt: classic:1 ("), "{}", dry.stdout());
    assert_eq!(sandbox.outcrop(&["images", "-aq"]).ok().stdout(), "");
    let outcome = adopt(sandbox, data, &[]).ok();
    for line in [
        "Adopted: classic:1 (",
        "Adopted: kit/app:2 (",
        "Adopted: volume data",
        "Not taken: 1 container: kept",
    ] {
        assert!(outcome.stdout().contains(line), "{line}: {}", outcome.stdout());
    }
    assert_eq!(fingerprint(data), before);
    assert_eq!(images(|args| sandbox.outcrop(args).ok()), said.images);
    for (name, history) in &said.histories {
        let format = "{{.ID}} {{.CreatedBy}}";
        let ours = sandbox.outcrop(&["history", "--no-trunc", "--format", format, name]).ok().lines();
        assert_eq!(ours.len(), history.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(history) {
            // outcrop gives an id where Docker has none to say.
            let (our_id, our_text) = ours.split_once(' ').unwrap();
            let (their_id, their_text) = theirs.split_once(' ').unwrap();
            assert_eq!(our_text, their_text, "{name}");
            assert!(their_id == "<missing>" || our_id == their_id, "{name}: {ours} {theirs}");
        }
    }
    for name in ["classic:1", "kit/app:2"] {
        assert_eq!(sandbox.outcrop(&["run", "--rm", "--network", "none", name]).ok().line(), "one");
    }
    for (name, theirs) in &said.saved {
        let ours = Saved::by(sandbox, |archive| {
            let archive = archive.to_str().unwrap();
            sandbox.outcrop(&["save", "--format", "docker-archive", "-o", archive, name]).ok();
        });
        assert_eq!(&ours, theirs, "{name}");
    }
    let look = "cat /v/file; stat -c %h /v/file; ls /d/b /gone /d/e; stat -c '%A %U' /d/a; ls -l /d/sparse | wc -l; \
        cd /t; find . | sort; cat dir/x link/x file; stat -c %F link pipe";
    let seen = sandbox.outcrop(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        "data:/v",
        "classic:1",
        "sh",
        "-c",
        look,
    ]);
    let mode = said.saved["classic:1"].mode.as_deref().unwrap();
    assert!(mode == "-rwsr-xr-x" || said.driver == "fuse-overlayfs", "{mode}");
    let expected = format!(
        "kept\n2\n/d/e:\nnew\n{mode} root\n1\n\
        .\n./dir\n./dir/x\n./file\n./link\n./pipe\n5\n5\n6\nsymbolic link\nfifo\n"
    );
    assert_eq!(seen.stdout(), expected);
    sandbox.check();
    // Once more: nothing is read, nothing changes.
    adopt(sandbox, data, &[]).ok().says("Already here: classic:1 (").says("Adopted 0 images with 0 layers");
    sandbox.check();
}

/// An archive that was saved, by its digests: the image's id, and each layer's, which is what its config promises.
#[derive(Debug, PartialEq)]
struct Saved {
    id: String,
    layers: Vec<String>,
    /// Of the file `/d/a` in the topmost layer that has it, as tar shows it. That is what has to come over: fuse-overlayfs does
    /// not show dockerd every time what was done.
    mode: Option<String>,
}

impl Saved {
    fn by(sandbox: &Sandbox, save: impl FnOnce(&Path)) -> Saved {
        let dir = sandbox.dir().join("saved");
        fs::create_dir(&dir).unwrap();
        let archive = dir.join("saved.tar");
        save(&archive);
        tool(sandbox, &["tar", "-xf", archive.to_str().unwrap(), "-C", dir.to_str().unwrap()]);
        let digest =
            |path: &Value| Digest::of(&fs::read(dir.join(path.as_str().unwrap())).unwrap()).to_string();
        let json =
            |path: &str| -> Value { serde_json::from_slice(&fs::read(dir.join(path)).unwrap()).unwrap() };
        let manifest = &json("manifest.json")[0];
        let layers: Vec<String> = manifest["Layers"].as_array().unwrap().iter().map(digest).collect();
        let config = json(manifest["Config"].as_str().unwrap());
        let mode = manifest["Layers"].as_array().unwrap().iter().rev().find_map(|layer| {
            let layer = dir.join(layer.as_str().unwrap());
            let listed = tool(sandbox, &["tar", "-tvf", layer.to_str().unwrap()]);
            let file = listed.lines().find(|line| line.starts_with('-') && line.ends_with(" d/a"))?;
            file.split(' ').next().map(str::to_owned)
        });
        assert_eq!(json!(layers), config["rootfs"]["diff_ids"]);
        let id = digest(&manifest["Config"]);
        fs::remove_dir_all(dir).unwrap();
        Saved { id, layers, mode }
    }
}

fn overlay2(sandbox: &Sandbox) -> (PathBuf, Said) {
    let data = sandbox.dir().join("data");
    let said = filled(sandbox, &data, "overlay2");
    (data, said)
}

#[test]
fn a_data_root_of_overlay2_comes_over() {
    let sandbox = Sandbox::new();
    let (data, said) = overlay2(&sandbox);
    comes_over(&sandbox, &data, &said);
}

#[test]
fn a_name_that_was_another_images_is_told_of_when_it_moves() {
    let sandbox = Sandbox::new();
    let (data, _) = overlay2(&sandbox);
    sandbox.base_image("classic:1");
    let here = sandbox.outcrop(&["images", "-q", "classic:1"]).ok().line();
    let said = format!("classic:1 named {here} here and ");
    adopt(&sandbox, &data, &["--dry-run"]).ok().complains(&format!("{said}would move to Docker's "));
    adopt(&sandbox, &data, &[]).ok().complains(&format!("{said}moved to Docker's "));
    let again = adopt(&sandbox, &data, &[]).ok();
    assert!(!again.stderr().contains("classic:1 named"), "{}", again.stderr());
    sandbox.outcrop(&["rollback", "classic:1"]).ok();
    assert_eq!(sandbox.outcrop(&["images", "-q", "classic:1"]).ok().line(), here);
}

#[test]
fn a_data_root_of_vfs_comes_over_to_vfs() {
    let sandbox = Sandbox::new().driver("vfs");
    let data = sandbox.dir().join("data");
    let said = filled(&sandbox, &data, "vfs");
    comes_over(&sandbox, &data, &said);
}

#[test]
fn a_data_root_of_overlay_comes_over_to_overlay2_and_to_overlay() {
    let filling = Sandbox::new();
    let data = filling.dir().join("data");
    let said = filled(&filling, &data, "overlay");
    for driver in ["overlay2", "overlay"] {
        comes_over(&Sandbox::new().driver(driver), &data, &said);
    }
}

#[test]
fn a_data_root_of_fuse_overlayfs_comes_over() {
    let sandbox = Sandbox::new();
    let data = sandbox.dir().join("data");
    let said = filled(&sandbox, &data, "fuse-overlayfs");
    comes_over(&sandbox, &data, &said);
}

/// A disk of its own in a file, mounted while the value lives.
struct Disk(PathBuf);

impl Disk {
    fn new(sandbox: &Sandbox, kind: &str, at: &Path) -> Self {
        let image = sandbox.dir().join("disk");
        fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
        tool(sandbox, &[&format!("mkfs.{kind}"), "-q", image.to_str().unwrap()]);
        fs::create_dir_all(at).unwrap();
        tool(sandbox, &["mount", "-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Disk(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_data_root_of_btrfs_comes_over_and_shares_its_blocks() {
    // Mounts that nobody else sees.
    outcrop::sys::namespace::unshare_mounts().unwrap();
    let sandbox = Sandbox::new().driver("overlay2");
    let disk = Disk::new(&sandbox, "btrfs", &sandbox.root());
    let data = sandbox.root().join("docker");
    let said = filled(&sandbox, &data, "btrfs");
    comes_over(&sandbox, &data, &said);
    let layers = fs::read_dir(sandbox.root().join("overlay2")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> =
        layers.map(|dir| dir.join("diff/bin/busybox")).filter(|file| file.exists()).collect();
    assert_eq!(files.len(), 1);
    let extents = tool(&sandbox, &["filefrag", "-v", files[0].to_str().unwrap()]);
    assert!(extents.contains("shared"), "{extents}");
    drop(disk);
}

#[test]
fn a_layer_that_is_not_what_it_was_is_refused_with_its_images_alone() {
    let sandbox = Sandbox::new();
    let (data, _) = overlay2(&sandbox);
    let layers = fs::read_dir(data.join("overlay2")).unwrap().map(|entry| entry.unwrap().path());
    let one = layers.map(|dir| dir.join("diff/d/e/new")).filter(|file| file.exists());
    one.for_each(|file| fs::write(file, "NEW\n").unwrap());
    let outcome = adopt(&sandbox, &data, &[]).fails(1);
    let said = outcome.stdout();
    assert!(said.contains("Adopted: base:latest ("), "{said}");
    assert!(said.contains("Refused: image ") && said.contains("classic:1): its layer "), "{said}");
    assert!(said.contains("`d/e/new` is not what it was: its CRC differs"), "{said}");
    assert!(!said.contains("Adopted: classic:1"), "{said}");
    sandbox.check();
    sandbox.outcrop(&["run", "--rm", "--network", "none", "base", "true"]).ok();
}

#[test]
fn a_dockerd_at_work_is_told_of_and_its_volumes_stay() {
    let sandbox = Sandbox::new();
    let (data, _) = overlay2(&sandbox);
    let daemon = Daemon::start(sandbox.dir(), &data, "overlay2");
    let outcome = adopt(&sandbox, &data, &[]).ok().complains("a dockerd is at work in");
    assert!(
        outcome.stdout().contains("Not taken: 1 volume: data (containers may be writing"),
        "{}",
        outcome.stdout()
    );
    drop(daemon);
    adopt(&sandbox, &data, &[]).ok().says("Adopted: volume data");
    sandbox.check();
}

#[test]
fn what_is_no_data_root_is_refused() {
    let sandbox = Sandbox::new();
    let dir = sandbox.context();
    adopt(&sandbox, &dir, &[]).fails(1).complains("is no data root of Docker").complains("docker info");
    adopt(&sandbox, Path::new("/nowhere"), &[]).fails(1).complains("opening /nowhere");
    fs::create_dir_all(dir.join("rootfs/overlayfs")).unwrap();
    adopt(&sandbox, &dir, &[]).fails(1).complains("are in containerd's store").complains("docker-daemon:");
    let mapped = sandbox.dir().join("mapped");
    fs::create_dir_all(mapped.join("1000.1000/image")).unwrap();
    adopt(&sandbox, &mapped, &[]).fails(1).complains("name ").complains("1000.1000");
    assert!(find_on_path("dockerd").exists());
}
