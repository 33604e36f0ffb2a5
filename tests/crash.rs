//! Verbs that die before each of their visible steps: whatever they came to, the store opens and `system check` finds no
//! damage, after a sweep nothing is left over, and the verb again comes to what it would have come to at once.
//!
//! `OUTCROP_CRASHES` is how many steps of each verb are tried (`make soak`: all of them); `OUTCROP_SEED` decides which.

pub(crate) mod steps;

use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use outcrop::image::Platform;

use crate::differential::number;
use crate::differential::random::Random;
use crate::registry_kit::{Image, Layout, RealRegistry, config_for, tar_of_files};
use crate::sandbox::{Outcome, Sandbox, find_on_path, forget_mounts_of_others, wait_until};
use crate::zfs::Pool;

/// A store with what the verbs need.
struct Stage {
    driver: &'static str,
    // Dropped before the sandbox in which it is mounted.
    _pool: Option<Pool>,
    sandbox: Sandbox,
    registry: RealRegistry,
    _beside: Sandbox,
}

const DOCKERFILE: &str = "FROM base AS first
COPY files /files
RUN echo x > /files/new; rm /files/1
FROM base
COPY --from=first /files /files
RUN chmod 711 /files
WORKDIR /work
";

/// `$registry` stands for where it is.
struct Verb {
    line: &'static str,
    /// What brings the store to where the verb begins, wherever it is: those that have been done already fail.
    before: &'static [&'static str],
    /// Done, it cannot be done again.
    once: bool,
}

const BUILD: &str = "build -q -t it --network none --build-arg SOURCE_DATE_EPOCH=1700000000 .";
const PRUNE: &str = "system prune -f";

const VERBS: [Verb; 10] = [
    Verb { line: BUILD, before: &["rmi it", PRUNE], once: false },
    Verb { line: "load -q -i it.tar", before: &["rmi it", PRUNE], once: false },
    Verb { line: "pull -q $registry/noise:1", before: &["rmi $registry/noise:1", PRUNE], once: false },
    Verb { line: "import base.tar imported", before: &["rmi imported"], once: false },
    Verb {
        line: "commit box committed",
        before: &["run --name box --network none base sh -c echo>/made", "rmi committed"],
        once: false,
    },
    Verb { line: "rm gone", before: &["create --name gone base true"], once: true },
    Verb { line: "rmi it", before: &["load -q -i it.tar"], once: true },
    Verb {
        line: PRUNE,
        before: &["load -q -i it.tar", "tag base it", "create --name gone base true"],
        once: false,
    },
    Verb { line: "tag base other:1", before: &["rmi other:1"], once: false },
    Verb {
        line: "rollback rolled --to base",
        before: &["load -q -i it.tar", "tag base rolled", "tag it rolled"],
        once: false,
    },
];

impl Stage {
    fn new(driver: &'static str) -> Stage {
        // It sees nothing of what is mounted for the store.
        let beside = Sandbox::new();
        let registry = RealRegistry::start(&beside);
        outcrop::sys::namespace::unshare_mounts().unwrap();
        forget_mounts_of_others();
        let mut sandbox = Sandbox::new().driver(driver);
        let pool = (driver == "zfs").then(|| Pool::new(&sandbox));
        match driver {
            "zfs" => sandbox = sandbox.variable("OUTCROP_STORAGE_OPTS", "zfs.fsname=pool/store"),
            "btrfs" => on_btrfs(&sandbox),
            _ => {}
        }
        let image = Image::made(
            &[tar_of_files(&[("one", 5000), ("two", 10)]), tar_of_files(&[("three", 100)])],
            config_for(&Platform::host()),
        );
        registry.push(&Layout::single(&beside.dir().join("layout"), &image), "noise:1");
        for n in 0..4_u32 {
            sandbox.file(format!("files/{n}"), n.to_string().repeat(1000));
        }
        sandbox.dockerfile(DOCKERFILE);
        sandbox.file(".dockerignore", "*.tar\n");
        base_tar(&sandbox);
        let stage = Stage { driver, _pool: pool, sandbox, registry, _beside: beside };
        stage.done("import base.tar base");
        stage.done(BUILD);
        stage.done("save -o it.tar it");
        stage
    }

    fn command(&self, line: &str) -> Command {
        let words = line.replace("$registry", &self.registry.address.to_string());
        // What a shell is to run is one word.
        let words: Vec<OsString> =
            words.split(' ').map(|word| word.replace("echo>", "echo x >").into()).collect();
        self.sandbox.command(&words)
    }

    #[track_caller]
    fn done(&self, line: &str) {
        Outcome::of(&mut self.command(line)).ok();
    }

    fn prepare(&self, verb: &Verb) {
        for line in verb.before {
            Outcome::of(&mut self.command(line));
        }
    }

    /// Names with the contents of their layers, containers with their states.
    fn state(&self) -> String {
        let sql = "select tag.name, hex(content_id) from tag
                join image_layer on image_layer.image = 'sha256:' || lower(hex(tag.image))
                join layer on layer.id = image_layer.layer order by tag.name, n;
            select name, state from container order by name";
        let mut ask = Command::new("sqlite3");
        Outcome::of(ask.arg(self.sandbox.root().join("outcrop.db")).arg(sql)).ok().stdout()
    }

    /// What `system check` finds left over; damage fails the test.
    fn left(&self, when: &str) -> Vec<String> {
        let check = self.sandbox.outcrop(&["system", "check", "--format", "json"]);
        assert_eq!(check.code(), Some(0), "{when}: {}", check.report());
        let left = check.json()["Leftovers"].as_array().unwrap().clone();
        left.iter().map(|left| left.as_str().unwrap().to_owned()).collect()
    }

    /// Dies before this step; false where it ended before it came to that.
    fn crash(&self, verb: &Verb, step: usize, expected: &str) -> bool {
        self.prepare(verb);
        let ran = steps::run(self.command(verb.line), Some(step), self.sandbox.dir());
        let Some(before) = ran.before else {
            assert_eq!(ran.code, Some(0), "{}: {}", verb.line, ran.said);
            return false;
        };
        let when = format!("{}: `{}`, dead before step {step} ({before})", self.driver, verb.line);
        // A container ends when its engine has died, and until then it is at work.
        assert!(wait_until(Duration::from_secs(10), || !self.is_at_work()), "{when}: a process is left");
        self.left(&when);
        // Any verb that writes sweeps.
        self.done("cache prune -f --keep-storage 1g");
        assert_eq!(self.left(&when), Vec::<String>::new(), "{when}, swept");
        let again = Outcome::of(&mut self.command(verb.line));
        assert!(again.code() == Some(0) || verb.once, "{when}: {}", again.report());
        assert_eq!(self.state(), expected, "{when}, again");
        assert_eq!(self.left(&when), Vec::<String>::new(), "{when}, again");
        true
    }

    fn is_at_work(&self) -> bool {
        let dir = self.sandbox.dir().to_str().unwrap();
        fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let ours = fs::read_link(process.path().join("exe"));
            ours.is_ok_and(|program| program.as_path() == std::path::Path::new(env!("CARGO_BIN_EXE_outcrop")))
                && fs::read(process.path().join("environ"))
                    .is_ok_and(|variables| String::from_utf8_lossy(&variables).contains(&format!("{dir}\0")))
        })
    }

    /// How many steps were tried, of how many.
    fn crashes(&self, verb: &Verb, tries: usize, random: &mut Random) -> (usize, usize) {
        self.prepare(verb);
        let whole = steps::run(self.command(verb.line), None, self.sandbox.dir());
        assert_eq!(whole.code, Some(0), "{}: {}", verb.line, whole.said);
        let (expected, total) = (self.state(), whole.steps);
        if tries >= total {
            let mut step = 1;
            while self.crash(verb, step, &expected) {
                step += 1;
            }
            return (step - 1, total);
        }
        for n in 0..tries {
            let (from, to) = (n * total / tries, (n + 1) * total / tries);
            self.crash(verb, from + 1 + random.below(to - from), &expected);
        }
        (tries, total)
    }
}

/// `base.tar` in the context: busybox with the few names that are needed, which is read fast.
fn base_tar(sandbox: &Sandbox) {
    let tree = sandbox.dir().join("base");
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    fs::copy(find_on_path("busybox"), tree.join("bin/busybox")).unwrap();
    for name in ["sh", "rm", "chmod", "true"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name)).unwrap();
    }
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(sandbox.context().join("base.tar")).arg("-C").arg(&tree).arg(".");
    Outcome::of(&mut tar).ok();
}

/// A disk of its own, where nobody else sees it.
fn on_btrfs(sandbox: &Sandbox) {
    let image = sandbox.dir().join("disk");
    fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
    fs::create_dir(sandbox.root()).unwrap();
    let tool = |command: &mut Command| drop(Outcome::of(command).ok());
    tool(Command::new("mkfs.btrfs").arg("-q").arg(&image));
    tool(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(sandbox.root()));
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.driver == "btrfs" {
            rustix::mount::unmount(self.sandbox.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

#[allow(clippy::print_stdout, reason = "how much a soak has tried")]
fn a_verb_may_die_before_any_step(driver: &'static str, tries: usize) {
    let seed = number("OUTCROP_SEED", 1);
    println!("OUTCROP_SEED={seed}");
    let tries = usize::try_from(number("OUTCROP_CRASHES", tries as u64)).unwrap();
    let mut random = Random::new(seed);
    let stage = Stage::new(driver);
    for verb in &VERBS {
        let (tried, total) = stage.crashes(verb, tries, &mut random);
        println!("{driver}: {tried} of {total} steps of `{}`", verb.line);
    }
}

#[test]
fn a_verb_may_die_before_any_step_on_overlay2() {
    a_verb_may_die_before_any_step("overlay2", 3);
}

#[test]
fn a_verb_may_die_before_any_step_on_vfs() {
    a_verb_may_die_before_any_step("vfs", 2);
}

#[test]
fn a_verb_may_die_before_any_step_on_overlay() {
    a_verb_may_die_before_any_step("overlay", 2);
}

#[test]
fn a_verb_may_die_before_any_step_on_btrfs() {
    a_verb_may_die_before_any_step("btrfs", 2);
}

#[test]
fn a_verb_may_die_before_any_step_on_zfs() {
    a_verb_may_die_before_any_step("zfs", 1);
}

/// The next container takes a volume that holds something for one that holds all.
#[test]
fn a_new_volume_holds_all_that_the_image_has_there_or_is_not() {
    let stage = Stage::new("overlay2");
    let volume = stage.sandbox.root().join("volumes/data");
    let names = || -> Option<Vec<String>> {
        let entries = fs::read_dir(volume.join("_data")).ok()?;
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        Some(names)
    };
    let (mut step, mut without) = (0, 0);
    loop {
        step += 1;
        let ran = steps::run(
            stage.command("create --name box -v data:/files it true"),
            Some(step),
            stage.sandbox.dir(),
        );
        match names() {
            None => without += 1,
            Some(names) => assert_eq!(names, ["0", "2", "3", "new"], "dead before {:?}", ran.before),
        }
        if ran.before.is_none() {
            assert_eq!(ran.code, Some(0), "{}", ran.said);
            break;
        }
        Outcome::of(&mut stage.command("rm box"));
        let _absent = fs::remove_dir_all(&volume);
    }
    assert!(without > 5 && step > without + 5, "{without} of {step} steps");
    stage.done("rm box");
    stage.done("cache prune -f --keep-storage 1g");
    assert_eq!(fs::read_dir(stage.sandbox.root().join("trash")).unwrap().count(), 0);
}
