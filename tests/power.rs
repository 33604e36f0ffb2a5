//! The power is cut while a store is worked on. When it comes back nothing that was reported is lost, of what was
//! under way there is all or nothing, `system check` finds no damage, and after a sweep nothing is left over.
//!
//! Two ways, both in a virtual machine whose disk is a file here. Its power is really cut: what the guest had in
//! memory is gone, what the disk was given stays. And every write of a disk is logged, in the order in which it came
//! to be durable; then each moment of that log is looked at on the host: a disk that lost its volatile cache.
//!
//! That both find a missing barrier was tried by taking out the syncfs(2) of the barrier by hand: the first cut left blobs and
//! trees empty, and so did the log at the mark behind the first act that was reported. The log has found trees that were no
//! damage and counted as such (`Writer::drop_suspects`).

mod guest;
mod history;
mod log;
mod replay;

use std::collections::{BTreeMap, HashMap};
use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use guest::{AGREED, Ground, Guest, Seen, lines};
use history::{Act, History};
use log::Log;
use replay::Told;

use crate::differential::number;
use crate::differential::random::Random;
use crate::sandbox::forget_mounts_of_others;
use crate::vm_kit::Running;

/// Acts of which the last is cut off.
struct Cut {
    acts: Vec<Act>,
    /// After this part of the time that it takes; from 1 on, when it is reported.
    at: f64,
}

/// A guest whose power is cut again and again.
struct Series {
    guest: Guest,
    history: History,
    /// How long things take here.
    times: HashMap<Discriminant<Act>, Duration>,
    /// The same of what has not come to its end yet.
    guesses: HashMap<Discriminant<Act>, Duration>,
    /// What the last cut cut off.
    cut_off: Option<Act>,
    cuts: usize,
    /// Containers that may be there: who was to remove them did not come to it.
    boxes: Vec<String>,
    /// How often what was under way.
    hits: BTreeMap<&'static str, usize>,
}

impl Series {
    fn new(ground: Ground) -> Self {
        let guest = Guest::new(ground);
        let history = History::new(guest.images.clone());
        Series {
            guest,
            history,
            times: HashMap::new(),
            guesses: HashMap::new(),
            cut_off: None,
            cuts: 0,
            boxes: Vec::new(),
            hits: BTreeMap::new(),
        }
    }

    #[allow(clippy::print_stdout, reason = "how far a soak is")]
    fn cut(&mut self, cut: &Cut) {
        let mut running = self.start(&lines(&cut.acts));
        let last = cut.acts.len() - 1;
        self.wait_for(&mut running, cut, last);
        let said = running.cut();
        self.cuts += 1;
        self.cut_off = None;
        for line in &said {
            if let Some(number) = line.strip_prefix("begin ") {
                self.cut_off = Some(cut.acts[number.parse::<usize>().unwrap()].clone());
            } else if let Some((_, what)) = done(line) {
                let act = self.cut_off.take().expect("what is done was begun");
                self.history.done(&act, what.unwrap_or_else(|| panic!("{act:?}: {}", said.join("\n"))));
            }
        }
        self.history.is_cut_off(self.cut_off.as_ref());
        let hit = self.cut_off.as_ref().map_or("nothing", Act::verb);
        println!(
            "{} with {}: cut {} in {hit}",
            self.guest.ground.filesystem, self.guest.ground.driver, self.cuts
        );
        *self.hits.entry(hit).or_default() += 1;
        if let Some(Act::Commit(number)) = self.cut_off {
            self.boxes.push(format!("box{number}"));
        }
    }

    /// The machine with its store looked at, and these lines under way.
    fn start(&mut self, lines: &str) -> Running {
        let look = if self.cuts > 0 { "look\n" } else { "" };
        let prepare = self.guest.prepare(self.cuts == 0);
        let script = format!("place\n{prepare}{look}{lines}");
        let settled = !self.history.names.is_empty();
        let mut running = self.guest.start(&self.guest.machine(), settled, &script);
        if self.cuts > 0 {
            let seen = Seen::told(&mut running);
            let cut = format!("cut {} on {:?}, {:?} under way", self.cuts, self.guest.ground, self.cut_off);
            assert!(!seen.damaged, "{cut}: {}", seen.check);
            let gone = seen.containers.iter().find(|name| !self.boxes.contains(name));
            assert_eq!(gone, None, "{cut}: what went, or goes when it ends, is there again");
            if let Err(wrong) = self.history.found(&seen.names, self.cut_off.take().as_ref()) {
                panic!("{cut}: {wrong}");
            }
        }
        running
    }

    fn wait_for(&mut self, running: &mut Running, cut: &Cut, last: usize) {
        for (number, act) in cut.acts.iter().enumerate() {
            running.until(&format!("begin {number}"));
            let begun = Instant::now();
            let usual = self.usual(act);
            let end = match number == last && cut.at < 1.0 {
                true => begun + usual.mul_f64(cut.at),
                false => begun + Duration::from_secs(200),
            };
            while let Some(line) = running.next_until(end) {
                if line.starts_with(&format!("done {number} ")) {
                    self.times.insert(discriminant(act), begun.elapsed());
                    break;
                }
            }
            // Else nobody would ever come to its later half.
            self.guesses.insert(discriminant(act), usual * 2);
        }
    }

    /// What it takes, about.
    fn usual(&self, act: &Act) -> Duration {
        let known = |act: &Act| self.times.get(&discriminant(act)).copied();
        let like = match act {
            // It moves a name, too.
            Act::Rollback { name, .. } => known(&Act::Tag { from: name.clone(), to: name.clone() }),
            _ => None,
        };
        let guess = || self.guesses.get(&discriminant(act)).copied().unwrap_or(Duration::from_secs(2));
        known(act).or(like).unwrap_or_else(guess)
    }

    /// After the last cut: the next who writes sweeps what the dead left, and finds all whole; images run.
    #[allow(clippy::print_stdout, reason = "how much a soak has seen")]
    fn end(mut self) {
        let built = self.history.names.keys().rfind(|name| name.starts_with("it:")).cloned();
        let (name, ran) = match &built {
            Some(name) => (name.as_str(), format!("9{}", &name["it:".len()..])),
            None => ("base", "base".into()),
        };
        let command = built.as_ref().map_or("echo base", |_| "cat /made/9");
        let run = format!("o run --rm --network none {name} {command} | sed 's/^/ran: /'");
        let compare = self.guest.compare();
        let give_up = "o system migrate --to $(o info --format '{{.Driver}}')";
        let mut running = self.start(&format!("{give_up}\no system prune -f\nlook\n{run}\n{compare}"));
        let swept = Seen::told(&mut running);
        assert!(!swept.damaged, "{}", swept.check);
        assert!(!swept.has_leftovers(), "{}", swept.check);
        assert_eq!(swept.names, self.history.names);
        assert_eq!(swept.containers, [""; 0]);
        running.until(&format!("ran: {ran}"));
        running.until("idle");
        let said = running.cut();
        assert!(said.iter().any(|line| line == AGREED), "{}", said.join("\n"));
        println!("{:?}: {} cuts: {:?}", self.guest.ground, self.cuts, self.hits);
    }
}

/// Of a line `done N CODE WHAT IT SAID` the number, and what it said if it succeeded.
fn done(line: &str) -> Option<(usize, Option<&str>)> {
    let mut words = line.strip_prefix("done ")?.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let succeeded = words.next()? == "0";
    Some((number, succeeded.then(|| words.next().unwrap_or_default())))
}

/// The guest's own disk below a target of the device mapper that logs every write, and its marks in that log.
const LOGGED: &str = "export DM_DISABLE_UDEV=1
dmsetup create logged --table \"0 $(blockdev --getsz /dev/vda) log-writes /dev/vda /dev/vdb\" || exit 91
disk=/dev/mapper/logged
mark() { dmsetup message logged 0 mark $1; }
place
";

/// Does these things with every write logged, and looks at the disk as it was at each moment.
#[allow(clippy::print_stdout, reason = "how much a soak has seen")]
fn every_moment(ground: Ground, acts: usize, seed: u64, some: bool) {
    let mut random = Random::new(seed);
    let guest = Guest::new(ground);
    let mut history = History::new(guest.images.clone());
    let acts = history.plan(acts, &mut random);
    let (empty, log) = (guest.sandbox.dir().join("empty"), guest.sandbox.dir().join("log"));
    replay::copy(&guest.disk(), &empty);
    std::fs::File::create(&log).unwrap().set_len(2 << 30).unwrap();
    let machine = guest.machine().modules("dm-log-writes").disk(&log);
    let mut running = guest.start(
        &machine,
        false,
        &format!("{LOGGED}{}\numount /mnt; dmsetup remove logged", lines(&acts)),
    );
    running.until("idle");
    let mut histories = vec![history.clone()];
    let said = running.cut();
    for (number, what) in said.iter().filter_map(|line| done(line)) {
        history
            .done(&acts[number], what.unwrap_or_else(|| panic!("{:?}: {}", acts[number], said.join("\n"))));
        histories.push(history.clone());
    }
    assert_eq!(histories.len(), acts.len() + 1, "{}", said.join("\n"));
    let told = Told { acts: &acts, histories: &histories };
    let looked = replay::every_moment(&guest, &empty, &Log::read(&log), &told, some.then_some(random));
    println!("{ground:?}: {looked} moments of {acts:?}");
}

const GROUNDS: [Ground; 8] = [
    Ground::new("ext4", "overlay2"),
    Ground::new("xfs", "overlay2"),
    Ground::new("btrfs", "overlay2"),
    Ground::new("ext4", "vfs"),
    Ground::new("btrfs", "btrfs"),
    THIN,
    Ground {
        filesystem: "xfs",
        driver: "devicemapper",
        options: "dm.datadev=/dev/vdb dm.metadatadev=/dev/vdc dm.basesize=128M",
    },
    Ground { filesystem: "ext4", driver: "zfs", options: "zfs.fsname=pool/store" },
];

/// In files on the disk.
const THIN: Ground = Ground {
    filesystem: "ext4",
    driver: "devicemapper",
    options: "dm.basesize=128M dm.loopdatasize=384M dm.loopmetadatasize=16M",
};

/// Those that were asked for: `OUTCROP_GROUNDS=xfs vfs btrfs/btrfs` are all with one of the first two words, and one.
fn grounds() -> Vec<Ground> {
    let said = std::env::var("OUTCROP_GROUNDS").unwrap_or_default();
    let words: Vec<&str> = said.split(' ').filter(|word| !word.is_empty()).collect();
    let asked = |ground: &&Ground| {
        let both = format!("{}/{}", ground.filesystem, ground.driver);
        words.is_empty() || words.iter().any(|word| [ground.filesystem, ground.driver, &both].contains(word))
    };
    GROUNDS.iter().filter(asked).copied().collect()
}

/// `OUTCROP_SEED` asks for other moments than those of every day.
#[allow(clippy::print_stdout, reason = "a failure comes again with it")]
fn seed() -> u64 {
    let seed = number("OUTCROP_SEED", 1);
    println!("OUTCROP_SEED={seed}");
    seed
}

/// In a build, in a pull, when a name goes back, and at the moment when a container runs that was created before.
#[test]
fn four_power_cuts_lose_nothing_that_was_reported() {
    let mut random = Random::new(seed());
    let mut part = || random.below(1000) as f64 / 1000.0;
    let mut series = Series::new(GROUNDS[0]);
    let first = vec![Act::Import, Act::Pull(0), series.history.build(), Act::Start];
    series.cut(&Cut { acts: first, at: 1.0 });
    let second = vec![Act::Pull(1), series.history.build()];
    series.cut(&Cut { acts: second, at: part() });
    let third = vec![series.history.build(), Act::Pull(2)];
    series.cut(&Cut { acts: third, at: part() });
    let fourth = series.history.rollback("it:1", "moving:0");
    series.cut(&Cut { acts: fourth, at: part() });
    series.end();
}

#[test]
fn a_power_cut_loses_nothing_of_thin_volumes() {
    let mut random = Random::new(seed());
    let mut series = Series::new(THIN);
    let acts = vec![Act::Import, series.history.build()];
    series.cut(&Cut { acts, at: random.below(1000) as f64 / 1000.0 });
    series.end();
}

/// `OUTCROP_CUTS` of them (none every day): `make soak`. `OUTCROP_VERBS=migrate commit` prefers these.
#[test]
fn power_cuts_at_any_moment_of_any_command_lose_nothing() {
    let mut random = Random::new(seed());
    let mut left = number("OUTCROP_CUTS", 0);
    let verbs = std::env::var("OUTCROP_VERBS").unwrap_or_default();
    let verbs: Vec<&str> = verbs.split(' ').filter(|verb| !verb.is_empty()).collect();
    for ground in grounds().into_iter().cycle() {
        if left == 0 {
            break;
        }
        let mut series = Series::new(ground);
        for _ in 0..left.min(10) {
            let acts = 1 + random.below(3);
            let acts = series.history.plan_for_a_cut(acts, &verbs, &mut random);
            series.cut(&Cut { acts, at: random.below(1200) as f64 / 1000.0 });
            left -= 1;
        }
        series.end();
    }
}

/// Every ground that this host can mount gets `OUTCROP_LOGS` histories.
#[test]
fn any_moment_of_what_a_disk_writes_may_be_the_last() {
    let (seed, logs) = (seed(), number("OUTCROP_LOGS", 0));
    if logs == 0 {
        return in_own_mounts(move || every_moment(GROUNDS[0], 3, seed, false));
    }
    for log in 0..logs {
        for ground in grounds().into_iter().filter(|ground| !ground.is_foreign()) {
            in_own_mounts(move || every_moment(ground, 12, seed + log, true));
        }
    }
}

/// What is mounted there goes with it, however it ends. It may take hours.
fn in_own_mounts(look: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        outcrop::sys::namespace::unshare_mounts().unwrap();
        forget_mounts_of_others();
        look();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn what_succeeds_need_not_say_anything() {
    assert_eq!(done("done 3 0"), Some((3, Some(""))));
    assert_eq!(done("done 4 0 committed 0 1"), Some((4, Some("committed 0 1"))));
    assert_eq!(done("done 5 1 error"), Some((5, None)));
    assert_eq!(done("begin 5"), None);
}
