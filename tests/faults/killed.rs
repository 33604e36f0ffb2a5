//! Processes killed at random moments, many at once on one store: afterwards everything is as if they had never been.
//!
//! `FAULTS_KILLS` is how many are killed (200), `FAULTS_SEED` where the dice begin.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::left::{ask, half_written};
use crate::sandbox::{Sandbox, wait_until};

const AT_ONCE: u64 = 8;

const DOCKERFILE: &str = "FROM base
ARG SALT
COPY files /files
RUN mkdir -p /made/deep && for n in 0 1 2 3 4 5 6 7 8 9; do echo $n$SALT > /made/deep/$n; done
ENV A=b
RUN rm /files/7 && ln /files/3 /made/link && chmod 711 /made
WORKDIR /work/place
COPY --chown=5:6 files/1 two/
RUN rm -r /files && mkdir /files && touch /files/new
CMD [\"true\"]
";

/// xorshift64: the same seed throws the same dice.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A store with an image `base`, and a context.
pub(super) fn prepared(driver: &str) -> Sandbox {
    let sandbox = Sandbox::new().driver(driver);
    sandbox.base_image("base");
    for n in 0..10_u32 {
        sandbox.file(format!("files/{n}"), n.to_string().repeat(1000));
    }
    sandbox.dockerfile(DOCKERFILE);
    sandbox
}

/// Another sandbox with a copy of this one's store and context.
pub(super) fn twin(sandbox: &Sandbox, driver: &str) -> Sandbox {
    let twin = Sandbox::new().driver(driver);
    for name in ["root", "context"] {
        let copied = Command::new("cp").arg("-a").arg(sandbox.dir().join(name)).arg(twin.dir()).status();
        assert!(copied.unwrap().success());
    }
    twin
}

pub(super) fn build(salt: u64) -> Vec<String> {
    let epoch = "SOURCE_DATE_EPOCH=1700000000";
    let args = [
        "build",
        "-q",
        "-t",
        &format!("it:{salt}"),
        "--build-arg",
        &format!("SALT={salt}"),
        "--build-arg",
        epoch,
        ".",
    ];
    args.map(str::to_owned).to_vec()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// What is started and killed.
fn some_command(dice: &mut Dice, archive: &str) -> Vec<String> {
    let salt = dice.throw(12);
    let changes = format!("echo {salt} > /{salt}; rm /etc/group; sleep 0.0{salt}");
    let run = |options: &str| {
        [words(&format!("run --network none{options} base sh -c")), vec![changes.clone()]].concat()
    };
    match dice.throw(20) {
        0 => words(&format!("import {archive} other:{salt}")),
        1..=2 => {
            let mut args = build(salt);
            args.insert(1, "--no-cache".into());
            args
        }
        3..=6 => run(" --rm"),
        7..=8 => run(" --rm -v data:/data"),
        9 => run(""),
        10 => words("container prune -f"),
        _ => build(dice.throw(1000)),
    }
}

/// Kills these many, eight at once, each at a moment between its start and a little after its end.
fn massacre(sandbox: &Sandbox, kills: u64, longest: Duration) {
    let seed = number("FAULTS_SEED", 20_240_229);
    let archive = sandbox.busybox_archive().to_str().unwrap().to_owned();
    let ended_first = AtomicUsize::new(0);
    let killer = |thread: u64| {
        let mut dice = Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (thread + 1));
        for _ in 0..kills / AT_ONCE {
            let args = some_command(&mut dice, &archive);
            let complaint: PathBuf = sandbox.dir().join(format!("complaint-{thread}"));
            let mut command = sandbox.command(&args);
            command.stdout(Stdio::null()).stderr(File::create(&complaint).unwrap());
            let mut child = command.spawn().unwrap();
            let micros = dice.throw(u64::try_from(longest.as_micros()).unwrap());
            let end = Instant::now() + Duration::from_micros(micros);
            while Instant::now() < end && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1).min(end - Instant::now().min(end)));
            }
            if child.try_wait().unwrap().is_some() {
                ended_first.fetch_add(1, Ordering::Relaxed);
            }
            child.kill().unwrap();
            let status = child.wait().unwrap();
            // One that came to its end must not have been disturbed by the dead around it.
            let said = fs::read_to_string(&complaint).unwrap();
            assert!(status.code().is_none_or(|code| code == 0), "{args:?}: {status}\n{said}");
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|thread| drop(scope.spawn(move || killer(thread)))));
    let ended = ended_first.load(Ordering::Relaxed);
    // How many depends on the machine's load; none at all would prove nothing.
    assert!((ended as u64) < kills - kills / 5, "{ended} of {kills} had ended before they were killed");
}

fn killed_processes_leave_nothing(driver: &str, kills: u64) {
    let sandbox = prepared(driver);
    let undisturbed = twin(&sandbox, driver);
    let start = Instant::now();
    let expected = undisturbed.outcrop(&build(2000)).ok().line();
    let alone = start.elapsed();

    massacre(&sandbox, kills, alone * 2);

    assert!(
        wait_until(Duration::from_secs(10), || sandbox.leftovers().is_empty()),
        "{:?}",
        sandbox.leftovers()
    );
    sandbox.outcrop(&["container", "prune", "-f"]).ok();
    let built = sandbox.outcrop(&build(2000)).ok().line();
    assert_eq!(built, expected);
    sandbox.check();
    assert_eq!(half_written(&sandbox), Vec::<String>::new());
    assert_eq!(layers(&sandbox), layers(&undisturbed));
}

/// The content of the layers of the last image, bottom first.
fn layers(sandbox: &Sandbox) -> String {
    let sql = "select content_id from image_layer join layer on layer.id = image_layer.layer
        where image = (select 'sha256:' || lower(hex(image)) from tag where name = 'docker.io/library/it:2000') order by n";
    ask(sandbox, &sql.replace("content_id", "hex(content_id)"))
}

#[test]
fn killed_builds_leave_nothing_on_overlay2() {
    killed_processes_leave_nothing("overlay2", number("FAULTS_KILLS", 200));
}

#[test]
fn killed_builds_leave_nothing_on_vfs() {
    killed_processes_leave_nothing("vfs", number("FAULTS_KILLS", 200) / 4);
}
