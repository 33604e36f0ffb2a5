//! `system migrate`: a store goes from one storage driver to another with all that it keeps, is killed on the way, meets
//! others on the way, and is the same in the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use outcrop::image::Digest;
use rustix::process::{Pid, Signal, kill_process};

use crate::registry_kit::{Image, Layout, config_for};
use crate::sandbox::{Outcome, Sandbox, tool, wait_until};
use crate::zfs::{Pool, datasets};

/// Layers of all kinds: hard links, whiteouts, a replaced directory, attributes, capabilities, a root of its own mode, one
/// that stands twice.
const DOCKERFILE: &str = "FROM base AS tools\n\
    RUN mkdir -p /d/e /gone && echo a > /d/a && ln /d/a /d/e/b && ln -s a /d/l && mkfifo /d/p && echo x > /gone/x\n\
    RUN rm -r /gone && rm -r /d/e && mkdir /d/e && echo new > /d/e/new && chmod 4711 /d/a && chown 7:8 /d/p\n\
    RUN head -c 300000 /dev/urandom > /d/noise && truncate -s 5M /d/sparse && touch -d @1700000000 /d/noise\n\
    FROM base\n\
    RUN chmod 700 / && touch /touched\n\
    COPY --from=tools /d /d\n\
    COPY one /one\n\
    RUN rm /d/noise && echo z > '/d/a b'\n\
    ENV A=b\n\
    COPY one /one\n\
    CMD [\"cat\", \"/one\"]\n";

/// A store with images, intermediate and dangling ones too, a tag that moved, the build cache, and two containers.
fn filled(driver: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.outcrop(&["--storage-driver", driver, "info"]).ok();
    fill(&sandbox);
    sandbox
}

fn fill(sandbox: &Sandbox) {
    sandbox.base_image("base");
    sandbox.file("one", "first");
    sandbox.dockerfile(DOCKERFILE);
    build(sandbox).ok();
    sandbox.file("one", "one");
    build(sandbox).ok();
    let changes = "echo written > /written; rm /one; ln /written /linked; mv /d/e /d/moved; chmod 600 /d/a; \
        mkdir /d/empty; rm -r /home; echo home > /home";
    sandbox.outcrop(&["run", "--name", "ended", "--network", "none", "app", "sh", "-c", changes]).ok();
    sandbox.outcrop(&["create", "--name", "new", "app"]).ok();
    sandbox.check();
}

fn build(sandbox: &Sandbox) -> Outcome {
    sandbox.outcrop(&["build", "--progress", "plain", "--network", "none", "-t", "app", "."])
}

fn migrate(sandbox: &Sandbox, to: &str) -> Outcome {
    sandbox.outcrop(&["system", "migrate", "--to", to])
}

fn driver(sandbox: &Sandbox) -> String {
    sandbox.outcrop(&["info", "--format", "{{.Driver}}"]).ok().line()
}

/// All that has to stay as it is, each part by its name.
fn everything(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut say = |args: &[&str]| drop(all.insert(args.join(" "), sandbox.outcrop(args).ok().stdout()));
    say(&[
        "images",
        "-a",
        "--no-trunc",
        "--digests",
        "--format",
        "{{.ID}} {{.Repository}}:{{.Tag}} {{.Digest}} {{.Size}}",
    ]);
    say(&["history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}}", "app"]);
    say(&["inspect", "--format", "{{json .RootFS}} {{json .Config}}", "app"]);
    say(&["layers", "app"]);
    say(&["log", "--format", "{{.Place}} {{.Verb}} {{.From}} {{.To}}", "app"]);
    say(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Command}}"]);
    say(&["diff", "ended"]);
    say(&["diff", "new"]);
    // By their last use, which a build that hits is.
    let mut cache = sandbox
        .outcrop(&["cache", "ls", "--format", "{{.ID}} {{.Key}} {{.Size}} {{.Instruction}}"])
        .ok()
        .lines();
    cache.sort();
    all.insert("cache ls".into(), cache.join("\n"));
    let save = sandbox.outcrop(&["save", "app", "base"]).ok().output.stdout;
    all.insert("save".into(), Digest::of(&save).to_string());
    for container in ["ended", "new"] {
        let tar = sandbox.outcrop(&["export", container]).ok().output.stdout;
        all.insert(format!("export {container}"), Digest::of(&tar).to_string());
    }
    all
}

#[track_caller]
fn is_the_same(sandbox: &Sandbox, before: &BTreeMap<String, String>) {
    let after = everything(sandbox);
    for (name, text) in before {
        assert_eq!(after[name], *text, "{name}");
    }
    let check = sandbox.outcrop(&["system", "check"]).ok().lines();
    let left: Vec<&String> = check.iter().filter(|line| line.starts_with("left over")).collect();
    assert!(left.iter().all(|line| line.contains("is not finished")), "{left:#?}");
    let again = build(sandbox).ok();
    assert!(!again.stdout().contains("Running in"), "not all of it is in the cache:\n{}", again.stdout());
}

/// Numbered trees of a driver.
fn trees(sandbox: &Sandbox, dir: &str) -> usize {
    let names = fs::read_dir(sandbox.root().join(dir)).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().parse::<u64>().is_ok()).count()
}

#[test]
fn a_store_goes_to_another_driver_and_back() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    let stacks = sandbox.outcrop(&["system", "migrate", "--to", "vfs", "--dry-run"]).ok();
    assert!(stacks.stdout().starts_with("From overlay2 to vfs: "), "{}", stacks.stdout());
    assert_eq!((driver(&sandbox), trees(&sandbox, "vfs/dir")), ("overlay2".into(), 0));
    migrate(&sandbox, "vfs").ok().says("The store is with vfs now: ").says("2 writable layers");
    assert_eq!((driver(&sandbox), trees(&sandbox, "overlay2")), ("vfs".into(), 0));
    is_the_same(&sandbox, &before);
    migrate(&sandbox, "overlay2").ok().says("The store is with overlay2 now: ");
    assert_eq!((driver(&sandbox), trees(&sandbox, "vfs/dir")), ("overlay2".into(), 0));
    is_the_same(&sandbox, &before);
    // It is no museum: containers start, images are built on.
    sandbox.outcrop(&["start", "-a", "new"]).ok().says("one");
    sandbox.outcrop(&["start", "-a", "ended"]).ok();
    sandbox.file("one", "another");
    build(&sandbox).ok().says("Running in");
    sandbox.check();
}

#[test]
fn times_of_what_a_container_wrote_are_kept_to_the_nanosecond() {
    let sandbox = filled("overlay2");
    let stat = |path: &str| tool(&sandbox, &["stat", "-c", "%y %a %u:%g %h", path]);
    let of = |dir: &str| sandbox.outcrop(&["inspect", "--format", dir, "ended"]).ok().line();
    let upper = of("{{.GraphDriver.Data.UpperDir}}");
    let written = format!("{upper}/written");
    tool(&sandbox, &["touch", "-d", "2020-01-01 00:00:00.123456789 UTC", &written]);
    let before = stat(&written);
    assert!(before.starts_with("2020-01-01 00:00:00.123456789"), "{before}");
    migrate(&sandbox, "vfs").ok();
    let dirs = fs::read_dir(sandbox.root().join("vfs/dir")).unwrap().map(|entry| entry.unwrap().path());
    let written = dirs.map(|dir| dir.join("written")).find(|file| file.exists()).unwrap();
    assert_eq!(stat(written.to_str().unwrap()), before);
}

/// A migration under way.
struct Underway {
    child: Child,
    /// What it says.
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Underway {
    fn start(sandbox: &Sandbox, to: &str) -> Self {
        Underway::start_with(sandbox, &["--to", to])
    }
    fn start_with(sandbox: &Sandbox, words: &[&str]) -> Self {
        let mut command = sandbox.command(&[&["system", "migrate"], words].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Underway { child, lines }
    }
    /// Until it has made so many layers; which.
    fn until_made(&mut self, count: usize) -> Vec<String> {
        let made = self.lines.by_ref().map(Result::unwrap).filter(|line| line.ends_with(": Copied"));
        made.take(count).collect()
    }
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    fn ends(mut self) {
        let said: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success(), "{said:#?}");
    }
}

#[test]
fn a_killed_migration_goes_on_where_it_was() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    let mut first = Underway::start(&sandbox, "vfs");
    let made = first.until_made(3);
    first.kill();
    assert_eq!((made.len(), driver(&sandbox)), (3, "overlay2".into()));
    // The store works as before; of what was begun the next command takes away what is not whole.
    is_the_same(&sandbox, &before);
    assert_eq!(trees(&sandbox, "vfs/dir"), 3);
    sandbox.outcrop(&["run", "--rm", "--network", "none", "app"]).ok().says("one");
    sandbox.outcrop(&["system", "check"]).ok().says("to vfs is not finished");
    let all = sandbox.outcrop(&["system", "migrate", "--to", "vfs"]).ok().stderr();
    let again = all.lines().filter(|line| line.ends_with(": Copied")).count();
    let dry = sandbox.outcrop(&["system", "migrate", "--to", "overlay2", "--dry-run"]).ok();
    assert!(again > 0 && trees(&sandbox, "vfs/dir") == again + 3 + 2, "{again} {}", dry.stdout());
    is_the_same(&sandbox, &before);
}

#[test]
fn whenever_a_migration_is_killed_the_store_is_whole() {
    let sandbox = filled("vfs");
    let before = everything(&sandbox);
    let mut to = "overlay2";
    let (mut switched, mut killed) = (0, 0);
    // There and back until it was killed often, each time some milliseconds later; on a busy machine all takes longer.
    let mut round = 0_u64;
    while round < 60 || (round < 300 && switched < 2) {
        let mut child = sandbox
            .command(&["system", "migrate", "--to", to])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ended = false;
        wait_until(Duration::from_millis(13 * round), || {
            ended = child.try_wait().unwrap().is_some();
            ended
        });
        child.kill().unwrap();
        let status = child.wait().unwrap();
        killed += usize::from(!status.success());
        let now = driver(&sandbox);
        assert!(ended || !status.success() || now == to, "it ended well, and did nothing");
        sandbox.outcrop(&["run", "--rm", "--network", "none", "app"]).ok().says("one");
        if now == to {
            switched += 1;
            to = if to == "vfs" { "overlay2" } else { "vfs" };
        }
        if round.is_multiple_of(10) {
            sandbox.check();
        }
        round += 1;
    }
    assert!(killed > 5 && switched > 1, "killed {killed} times, switched {switched} times");
    is_the_same(&sandbox, &before);
}

#[test]
fn an_unfinished_migration_can_be_given_up() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    let mut first = Underway::start(&sandbox, "vfs");
    first.until_made(2);
    first.kill();
    migrate(&sandbox, "overlay2").ok().says("The store stays with overlay2");
    assert_eq!(trees(&sandbox, "vfs/dir"), 0);
    is_the_same(&sandbox, &before);
    migrate(&sandbox, "nonsense").fails(1).complains("unknown storage driver `nonsense`");
}

/// The index as a power cut may leave it.
fn after_a_power_cut(sandbox: &Sandbox, lost: &str) {
    let sql = format!("{lost}; update meta set value = 'another' where key = 'boot'");
    tool(sandbox, &["sqlite3", sandbox.root().join("outcrop.db").to_str().unwrap(), &sql]);
}

#[test]
fn trees_of_the_other_driver_whose_rows_a_power_cut_took_go() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    let mut first = Underway::start(&sandbox, "vfs");
    first.until_made(3);
    first.kill();
    let rows = "delete from snapshot where driver = 'vfs'; \
        delete from snapshot_parent where snapshot not in (select id from snapshot)";
    after_a_power_cut(&sandbox, rows);
    assert!(trees(&sandbox, "vfs/dir") >= 3);
    sandbox.outcrop(&["images"]).ok();
    assert_eq!(trees(&sandbox, "vfs/dir"), 0);
    migrate(&sandbox, "overlay2").ok().says("The store stays with overlay2");
    is_the_same(&sandbox, &before);
}

/// Its row may be on disk by whatever another process made durable, and its bytes are not.
#[test]
fn what_a_container_has_written_is_moved_anew_after_a_power_cut() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    // While somebody has the store open it waits, and all is made.
    let db = outcrop::db::Db::open(&sandbox.root()).unwrap();
    let somebody = db.keep_driver().unwrap();
    let underway = Underway::start(&sandbox, "vfs");
    let moved = || db.read(|index| index.moved()).unwrap();
    assert!(wait_until(Duration::from_secs(60), || moved().len() == 2));
    underway.kill();
    let copies = moved().into_iter().map(|moved| sandbox.root().join(format!("vfs/dir/{}", moved.snapshot)));
    let copies: Vec<_> = copies.map(|copy| copy.join("written")).filter(|copy| copy.exists()).collect();
    assert_eq!(copies.len(), 1);
    fs::File::options().write(true).open(&copies[0]).unwrap().set_len(0).unwrap();
    drop((somebody, db));
    after_a_power_cut(&sandbox, "");
    migrate(&sandbox, "vfs").ok().says("2 writable layers");
    is_the_same(&sandbox, &before);
}

#[test]
fn others_work_meanwhile_and_a_second_migration_is_refused() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    let mut underway = Underway::start(&sandbox, "vfs");
    underway.until_made(2);
    underway.signal(Signal::STOP);
    migrate(&sandbox, "vfs").fails(1).complains("another migration of this store is under way");
    sandbox.file("one", "meanwhile");
    sandbox.outcrop(&["build", "-q", "--network", "none", "-t", "later", "."]).ok();
    sandbox
        .outcrop(&["run", "--name", "late", "--network", "none", "later", "sh", "-c", "echo late > /late"])
        .ok();
    sandbox.outcrop(&["start", "-a", "ended"]).ok();
    sandbox.outcrop(&["run", "--rm", "--network", "none", "app"]).ok().says("one");
    underway.signal(Signal::CONT);
    underway.ends();
    assert_eq!(driver(&sandbox), "vfs");
    assert_eq!(sandbox.outcrop(&["run", "--rm", "--network", "none", "later"]).ok().line(), "meanwhile");
    sandbox.outcrop(&["diff", "late"]).ok().says("A /late");
    sandbox.outcrop(&["rm", "late"]).ok();
    sandbox.outcrop(&["rmi", "later"]).ok();
    sandbox.file("one", "one");
    assert_eq!(everything(&sandbox)["save"], before["save"]);
    sandbox.outcrop(&["system", "check"]).ok().says_not("left over");
}

/// What it said as long as others were not ready in time, which on a busy machine takes them long.
fn until_moved(sandbox: &Sandbox, to: &str) -> Vec<Outcome> {
    let tries = std::iter::repeat_with(|| migrate(sandbox, to)).take(5);
    tries.take_while(|outcome| outcome.code() != Some(0)).collect()
}

#[test]
fn verbs_without_end_lose_nothing_to_a_migration() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = |n: usize| {
            let (mut round, mut stay) = (0, Vec::new());
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let name = format!("made-{n}-{round}");
                let context = sandbox.dir().join(&name);
                fs::create_dir(&context).unwrap();
                fs::write(
                    context.join("Dockerfile"),
                    format!("FROM app\nRUN echo {name} > /it\nCMD [\"cat\",\"/it\"]\n"),
                )
                .unwrap();
                sandbox
                    .outcrop(&["build", "-q", "--network", "none", "-t", &name, context.to_str().unwrap()])
                    .ok();
                assert_eq!(sandbox.outcrop(&["run", "--rm", "--network", "none", &name]).ok().line(), name);
                // It stands for a moment, runs again, and goes with its image.
                let gone = format!("gone-{n}-{round}");
                sandbox.outcrop(&["tag", &name, &gone]).ok();
                let start = ["run", "--name", &gone, "--network", "none", &gone, "sh", "-c", "echo x > /x"];
                sandbox.outcrop(&start).ok();
                sandbox.outcrop(&["start", "-a", &gone]).ok();
                sandbox.outcrop(&["diff", &gone]).ok().says("A /x");
                sandbox.outcrop(&["rm", &gone]).ok();
                if round % 3 == 2 {
                    sandbox.outcrop(&["rmi", &gone, &name]).ok();
                } else {
                    sandbox.outcrop(&["rmi", &gone]).ok();
                    stay.push(name);
                }
                round += 1;
            }
            stay
        };
        let workers = [scope.spawn(move || work(0)), scope.spawn(move || work(1))];
        let refused: Vec<Outcome> =
            ["vfs", "overlay2", "vfs"].iter().flat_map(|to| until_moved(&sandbox, to)).collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        for outcome in refused {
            let said = outcome.fails(1).stderr();
            let reasons = ["other outcrop processes are using the store", "these containers are running: "];
            assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
        }
        for worker in workers {
            for name in worker.join().unwrap() {
                assert_eq!(sandbox.outcrop(&["run", "--rm", "--network", "none", &name]).ok().line(), name);
                sandbox.outcrop(&["rmi", &name]).ok();
            }
        }
    });
    assert_eq!(everything(&sandbox)["save"], before["save"]);
    sandbox.check();
}

#[test]
fn a_running_container_is_named() {
    let sandbox = filled("overlay2");
    let mut run = sandbox
        .command(&["run", "--name", "busy", "--network", "none", "app", "sleep", "100"])
        .spawn()
        .unwrap();
    let runs = || sandbox.outcrop(&["ps", "--format", "{{.Names}}"]).ok().line() == "busy";
    assert!(wait_until(Duration::from_secs(30), runs));
    migrate(&sandbox, "vfs").fails(1).complains("these containers are running: busy");
    sandbox.outcrop(&["rm", "-f", "busy"]).ok();
    run.wait().unwrap();
    assert_eq!(trees(&sandbox, "vfs/dir"), 0);
    migrate(&sandbox, "vfs").ok();
}

#[test]
fn where_there_is_no_room_nothing_is_changed() {
    // A mount that nobody else sees.
    outcrop::sys::namespace::unshare_mounts().unwrap();
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.root()).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", sandbox.root(), "tmpfs", flags, Some(c"size=120m")).unwrap();
    sandbox.outcrop(&["--storage-driver", "overlay2", "info"]).ok();
    sandbox.base_image("base");
    sandbox.dockerfile(
        "FROM base\nRUN head -c 40000000 /dev/urandom > /noise\nRUN echo a > /a\nRUN echo b > /b\n",
    );
    build(&sandbox).ok();
    let index = || {
        tool(
            &sandbox,
            &["sqlite3", "-readonly", sandbox.root().join("outcrop.db").to_str().unwrap(), ".dump"],
        )
    };
    let before = index();
    migrate(&sandbox, "vfs").fails(1).complains("with `vfs` all that").complains("MB are free");
    assert_eq!((driver(&sandbox), trees(&sandbox, "vfs/dir")), ("overlay2".into(), 0));
    assert_eq!(
        index().lines().filter(|line| !line.contains("epoch")).count(),
        before.lines().filter(|line| !line.contains("epoch")).count()
    );
    sandbox.check();
    rustix::mount::unmount(sandbox.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_damaged_layer_is_named_and_the_store_stays() {
    let sandbox = filled("overlay2");
    let dirs = fs::read_dir(sandbox.root().join("overlay2")).unwrap().map(|entry| entry.unwrap().path());
    let one = dirs.map(|dir| dir.join("diff/one")).find(|file| file.is_file()).unwrap();
    fs::write(&one, "two").unwrap();
    let said = migrate(&sandbox, "vfs").fails(1).complains("making layer ").stderr();
    assert!(said.contains("with `vfs`"), "{said}");
    assert_eq!(driver(&sandbox), "overlay2");
}

#[test]
fn the_databases_are_made_again_after_a_migration_and_in_the_middle_of_one() {
    let sandbox = filled("overlay2");
    let before = everything(&sandbox);
    let stays = ["save", "export ended", "export new", "diff ended"];
    let rebuild = || {
        sandbox.outcrop(&["system", "check", "--rebuild-index"]);
        sandbox.check();
        let after = everything(&sandbox);
        for name in stays {
            assert_eq!(after[name], before[name], "{name}");
        }
    };
    let mut first = Underway::start(&sandbox, "vfs");
    first.until_made(2);
    first.kill();
    rebuild();
    assert_eq!(driver(&sandbox), "overlay2");
    migrate(&sandbox, "vfs").ok();
    rebuild();
    assert_eq!(driver(&sandbox), "vfs");
}

#[test]
fn a_store_goes_to_datasets_and_back() {
    let sandbox = Sandbox::new();
    let pool = Pool::new(&sandbox);
    sandbox.outcrop(&["--storage-driver", "overlay2", "info"]).ok();
    fill(&sandbox);
    let before = everything(&sandbox);
    let option = format!("zfs.fsname={}", Pool::DATASET);
    let to_zfs = ["system", "migrate", "--to", "zfs", "--storage-opt", &option];
    sandbox.outcrop(&[&to_zfs[..], &["--dry-run"]].concat()).ok().says("From overlay2 to zfs: ");
    sandbox.outcrop(&to_zfs).ok().says("The store is with zfs now: ");
    assert_eq!((driver(&sandbox), trees(&sandbox, "overlay2")), ("zfs".into(), 0));
    is_the_same(&sandbox, &before);
    sandbox.outcrop(&["run", "--rm", "--network", "none", "app"]).ok().says("one");
    migrate(&sandbox, "overlay2").ok();
    // Whoever removes them knows what the driver was told.
    assert_eq!(datasets(), [""; 0]);
    is_the_same(&sandbox, &before);
    drop(pool);
}

/// A layer that leaves out a parent directory, hides what stands in another, and deletes what is there and what is not.
fn leaning(sandbox: &Sandbox) -> Image {
    let tar = |names: &[&str]| {
        let dir = fresh(sandbox);
        for name in names {
            let path = dir.join(name);
            match name.strip_suffix('/') {
                Some(_) => fs::create_dir_all(path).unwrap(),
                None => fs::write(path, name).unwrap(),
            }
        }
        let archive = dir.with_extension("tar");
        let words = ["tar", "--no-recursion", "-cf", archive.to_str().unwrap(), "-C", dir.to_str().unwrap()];
        tool(sandbox, &[&words[..], names].concat());
        fs::read(archive).unwrap()
    };
    let below = tar(&["a/", "a/d/", "a/d/x", "a/d/e/", "a/d/e/y", "a/k"]);
    fs::create_dir_all(sandbox.dir().join("made-1/a")).unwrap();
    let above = tar(&["a/d/", "a/d/.wh..wh..opq", "a/d/new", "a/d/e/", "a/d/e/z", "a/.wh.k", "a/.wh.never"]);
    Image::made(&[below, above], config_for(&"linux/amd64".parse().unwrap()))
}

fn fresh(sandbox: &Sandbox) -> std::path::PathBuf {
    let free = (0..)
        .map(|n| sandbox.dir().join(format!("made-{n}")))
        .find(|dir| !dir.with_extension("tar").exists());
    let dir = free.unwrap();
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn a_layer_that_leans_is_what_its_rows_say_however_it_came() {
    for (first, then) in [("overlay2", &["vfs", "overlay2"][..]), ("vfs", &["overlay2"])] {
        let sandbox = Sandbox::new();
        sandbox.outcrop(&["--storage-driver", first, "info"]).ok();
        let layout = sandbox.dir().join("layout");
        Layout::single(&layout, &leaning(&sandbox));
        let said = sandbox.outcrop(&["load", "-i", layout.to_str().unwrap()]).ok().line();
        let id = said.rsplit(' ').next().unwrap().to_owned();
        sandbox.check();
        let export = || {
            let container = sandbox.outcrop(&["create", &id, "/none"]).ok().line();
            let tar = sandbox.outcrop(&["export", &container]).ok().output.stdout;
            sandbox.outcrop(&["rm", &container]).ok();
            Digest::of(&tar)
        };
        let before = export();
        for to in then {
            migrate(&sandbox, to).ok();
            sandbox.check();
            assert_eq!(export(), before, "{first} {to}");
        }
    }
}

/// A disk of its own, where nobody else sees it.
#[test]
fn a_store_on_btrfs_goes_through_all_drivers_that_work_there() {
    outcrop::sys::namespace::unshare_mounts().unwrap();
    let sandbox = Sandbox::new();
    let image = sandbox.dir().join("disk");
    fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
    fs::create_dir(sandbox.root()).unwrap();
    tool(&sandbox, &["mkfs.btrfs", "-q", image.to_str().unwrap()]);
    tool(&sandbox, &["mount", "-o", "loop", image.to_str().unwrap(), sandbox.root().to_str().unwrap()]);
    sandbox.outcrop(&["--storage-driver", "overlay2", "info"]).ok();
    fill(&sandbox);
    let before = everything(&sandbox);
    for to in ["btrfs", "overlay", "vfs", "btrfs", "overlay2"] {
        migrate(&sandbox, to).ok();
        assert_eq!(driver(&sandbox), to);
        is_the_same(&sandbox, &before);
    }
    let left = ["btrfs/subvolumes", "overlay", "vfs/dir"].map(|dir| trees(&sandbox, dir));
    assert_eq!(left, [0, 0, 0]);
    rustix::mount::unmount(sandbox.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

mod in_a_machine {
    use super::*;

    const SIZES: [&str; 3] = ["dm.basesize=256M", "dm.loopdatasize=1G", "dm.loopmetadatasize=16M"];

    fn to_thin_volumes<'w>(options: &[&'w str]) -> Vec<&'w str> {
        let options = options.iter().flat_map(|option| ["--storage-opt", option]);
        ["--to", "devicemapper"].into_iter().chain(options).collect()
    }

    fn migrate(sandbox: &Sandbox, words: &[&str]) -> Outcome {
        sandbox.outcrop(&[&["system", "migrate"], words].concat())
    }

    const VOLUMES: &str = "devicemapper/snapshots";

    #[test]
    #[ignore = "tests/devicemapper.rs runs it in a machine"]
    fn a_store_goes_to_thin_volumes_and_back() {
        let sandbox = filled("overlay2");
        let before = everything(&sandbox);
        let there = to_thin_volumes(&SIZES);
        let dry = migrate(&sandbox, &[&there[..], &["--dry-run"]].concat()).ok();
        dry.says("From overlay2 to devicemapper: ");
        assert!(!sandbox.root().join("devicemapper/data").exists(), "looking makes no pool");
        migrate(&sandbox, &there).ok().says("The store is with devicemapper now: ");
        assert_eq!((driver(&sandbox), trees(&sandbox, "overlay2")), ("devicemapper".into(), 0));
        is_the_same(&sandbox, &before);
        sandbox.outcrop(&["start", "-a", "new"]).ok().says("one");
        migrate(&sandbox, &["--to", "vfs"]).ok();
        assert_eq!((driver(&sandbox), trees(&sandbox, VOLUMES)), ("vfs".into(), 0));
        is_the_same(&sandbox, &before);
        crate::devicemapper::leaves_no_device(sandbox);
    }

    #[test]
    #[ignore = "tests/devicemapper.rs runs it in a machine"]
    fn a_killed_migration_to_thin_volumes_and_from_them_goes_on() {
        let sandbox = filled("overlay2");
        let before = everything(&sandbox);
        let there = to_thin_volumes(&SIZES);
        for (words, to, dir) in
            [(&there[..], "devicemapper", VOLUMES), (&["--to", "overlay2"], "overlay2", "overlay2")]
        {
            let from = driver(&sandbox);
            let mut first = Underway::start_with(&sandbox, words);
            let made = first.until_made(3);
            first.kill();
            assert_eq!((made.len(), driver(&sandbox)), (3, from));
            is_the_same(&sandbox, &before);
            let stand = trees(&sandbox, dir);
            assert!(stand >= 3, "{stand}");
            sandbox.outcrop(&["system", "check"]).ok().says(&format!("to {to} is not finished"));
            let all = migrate(&sandbox, words).ok().stderr();
            let again = all.lines().filter(|line| line.ends_with(": Copied")).count();
            assert!(again > 0 && trees(&sandbox, dir) == stand + again + 2, "{stand} and {again}: {all}");
            assert_eq!(driver(&sandbox), to);
            is_the_same(&sandbox, &before);
        }
        assert_eq!(trees(&sandbox, VOLUMES), 0);
        crate::devicemapper::leaves_no_device(sandbox);
    }

    #[test]
    #[ignore = "tests/devicemapper.rs runs it in a machine"]
    fn where_a_pool_has_no_room_nothing_is_changed() {
        let sandbox = Sandbox::new();
        sandbox.outcrop(&["--storage-driver", "overlay2", "info"]).ok();
        sandbox.base_image("base");
        sandbox.dockerfile("FROM base\nRUN head -c 10000000 /dev/urandom > /noise\n");
        build(&sandbox).ok();
        let of = |size| ["dm.basesize=128M", "dm.loopmetadatasize=16M", size];
        migrate(&sandbox, &to_thin_volumes(&of("dm.loopdatasize=12M")))
            .fails(1)
            .complains("with `devicemapper` all that")
            .complains("and 11 MB are free");
        assert_eq!((driver(&sandbox), trees(&sandbox, VOLUMES)), ("overlay2".into(), 0));
        assert!(!sandbox.root().join("devicemapper/data").exists());
        sandbox.check();
        migrate(&sandbox, &to_thin_volumes(&of("dm.loopdatasize=64M"))).ok();
        sandbox.check();
        crate::devicemapper::leaves_no_device(sandbox);
    }
}
