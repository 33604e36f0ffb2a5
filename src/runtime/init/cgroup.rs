//! The cgroups of a container: what it may use, and which devices. Version 1, version 2, and both side by side
//! (cgroups(7)).
//!
//! A container is in a group of its own only where something is limited: devices always, because a container's root may
//! make device nodes. Groups are `outcrop/<id>`; those whose outer half was killed are removed by the next one.
//!
//! To move a process into a group, the kernel waits until no process forks (10 ms and more on a busy machine); a process
//! that is born in a group costs nothing. That is possible in version 2 only (clone3(2), CLONE_INTO_CGROUP), so devices
//! are limited there even if all other controllers are version 1.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::devices;
use crate::error::{Context, Result};
use crate::runtime::{Limits, Spec};
use crate::sys::device_filter;
use crate::sys::mount::{self, Attributes};

/// Microseconds: the kernel's default.
pub(super) const CPU_PERIOD: u64 = 100_000;

/// Microseconds of processor time in a period.
pub(super) fn quota(nano_cpus: u64) -> u64 {
    nano_cpus.saturating_mul(CPU_PERIOD) / 1_000_000_000
}

const MOUNTED: &str = "/sys/fs/cgroup";
const PARENT: &str = "outcrop";

/// How the host has mounted them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// Version 2: for everything, or beside version 1.
    unified: Option<PathBuf>,
    /// Version 1: a hierarchy for each controller, below this directory.
    separate: Option<PathBuf>,
}

impl Layout {
    fn of_host() -> Self {
        let mounted = Path::new(MOUNTED);
        if kind_of(mounted) == Some(CGROUP2_SUPER_MAGIC) {
            return Layout { unified: Some(mounted.into()), separate: None };
        }
        let beside = Some(mounted.join("unified")).filter(|path| kind_of(path) == Some(CGROUP2_SUPER_MAGIC));
        Layout { unified: beside, separate: Some(mounted.into()) }
    }

    /// The top of the hierarchy with this controller.
    fn of_controller(&self, controller: &str) -> io::Result<PathBuf> {
        let found = match (&self.separate, &self.unified) {
            (Some(below), _) => {
                Some(below.join(controller)).filter(|top| kind_of(top) == Some(CGROUP_SUPER_MAGIC))
            }
            (None, unified) => unified.clone(),
        };
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such controller here"))
    }
}

/// linux/magic.h
const CGROUP_SUPER_MAGIC: u32 = 0x27_e0eb;
const CGROUP2_SUPER_MAGIC: u32 = 0x6367_7270;

fn kind_of(path: &Path) -> Option<u32> {
    rustix::fs::statfs(path).ok().and_then(|stat| u32::try_from(stat.f_type).ok())
}

/// One value of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    /// What the user asked for, in words.
    what: &'static str,
    file: &'static str,
    value: String,
}

fn settings(limits: &Limits, unified: bool) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |controller, what, file, value: String| {
        all.push(Setting { controller, what, file, value });
    };
    if let Some(memory) = limits.memory {
        let swap = limits.memory_swap.unwrap_or(memory.saturating_mul(2));
        if unified {
            set("memory", "memory", "memory.max", memory.to_string());
            set("memory", "swap", "memory.swap.max", swap.saturating_sub(memory).to_string());
        } else {
            set("memory", "memory", "memory.limit_in_bytes", memory.to_string());
            set("memory", "swap", "memory.memsw.limit_in_bytes", swap.to_string());
        }
    }
    if let Some(nano) = limits.nano_cpus {
        let quota = quota(nano);
        if unified {
            set("cpu", "cpus", "cpu.max", format!("{quota} {CPU_PERIOD}"));
        } else {
            set("cpu", "cpus", "cpu.cfs_period_us", CPU_PERIOD.to_string());
            set("cpu", "cpus", "cpu.cfs_quota_us", quota.to_string());
        }
    }
    if let Some(shares) = limits.cpu_shares {
        if unified {
            // 2..=262144 to 1..=10000, as the runtimes do.
            let weight = 1 + shares.clamp(2, 262_144).saturating_sub(2) * 9_999 / 262_142;
            set("cpu", "cpu shares", "cpu.weight", weight.to_string());
        } else {
            set("cpu", "cpu shares", "cpu.shares", shares.to_string());
        }
    }
    if let Some(cpus) = &limits.cpuset {
        set("cpuset", "the set of cpus", "cpuset.cpus", cpus.clone());
    }
    if let Some(pids) = limits.pids {
        set("pids", "processes", "pids.max", pids.to_string());
    }
    all
}

/// A container's groups. Dropped, they are gone.
#[derive(Default)]
pub(super) struct Cgroups {
    dirs: Vec<PathBuf>,
    /// Those of version 1, by controller.
    separate: Vec<(&'static str, PathBuf)>,
    /// The one of version 2.
    unified: Option<OwnedFd>,
    /// It is for all controllers.
    only_unified: bool,
    /// Relative.
    parent: PathBuf,
    /// What could not be limited.
    pub(super) warnings: Vec<String>,
    /// Device nodes that the container makes open nothing of the host's, or are meant to.
    pub(super) devices_limited: bool,
}

impl Cgroups {
    pub(super) fn create(spec: &Spec) -> Result<Self> {
        let layout = Layout::of_host();
        let mut groups = Cgroups::default();
        groups.only_unified = layout.separate.is_none();
        groups.parent = parent_of(spec);
        sweep(&layout, &groups.parent);
        groups.devices_limited = spec.reaches_host || groups.limit_devices(&layout, &spec.id);
        groups.limit(&layout, spec)?;
        Ok(groups)
    }

    fn limit_devices(&mut self, layout: &Layout, id: &str) -> bool {
        let by_program = self.limit_devices_by_program(layout, id);
        let limited = by_program.or_else(|error| {
            tracing::debug!(%error, "no program for devices");
            self.limit_devices_by_rules(layout, id)
        });
        match limited {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "devices cannot be limited by a cgroup");
                false
            }
        }
    }

    fn limit(&mut self, layout: &Layout, spec: &Spec) -> Result<()> {
        for setting in settings(&spec.limits, self.only_unified) {
            let Setting { controller, what, file, value } = setting;
            let done =
                self.group(layout, controller, &spec.id).and_then(|dir| fs::write(dir.join(file), &value));
            match done {
                Ok(()) => {}
                // A number that the kernel does not take is the user's mistake.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    return Err(error).context(|| format!("limiting {what} to {value}"));
                }
                Err(error) => self
                    .warnings
                    .push(format!("this system does not let us limit {what}: cgroup {controller}: {error}")),
            }
        }
        Ok(())
    }

    /// The container's group in the hierarchy that has this controller; made at first need.
    fn group(&mut self, layout: &Layout, controller: &'static str, id: &str) -> io::Result<PathBuf> {
        let top = layout.of_controller(controller)?;
        let parent = top.join(&self.parent);
        if self.only_unified {
            let dir = self.unified_group(&top, id)?;
            let mut above: Vec<&Path> = parent.ancestors().take_while(|dir| dir.starts_with(&top)).collect();
            above.reverse();
            for above in above {
                fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
            return Ok(dir);
        }
        let dir = parent.join(id);
        if !self.separate.iter().any(|(known, _)| *known == controller) {
            make(&dir)?;
            self.dirs.push(dir.clone());
            if controller == "cpuset" {
                // A group without processors and memory nodes takes no process.
                for (from, to) in [(&top, &parent), (&parent, &dir)] {
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        fs::write(to.join(file), fs::read(from.join(file))?)?;
                    }
                }
            }
            self.separate.push((controller, dir.clone()));
        }
        Ok(dir)
    }

    fn unified_group(&mut self, top: &Path, id: &str) -> io::Result<PathBuf> {
        let dir = top.join(&self.parent).join(id);
        if self.unified.is_none() {
            make(&dir)?;
            self.dirs.push(dir.clone());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.unified = Some(rustix::fs::open(&dir, flags, Mode::empty())?);
        }
        Ok(dir)
    }

    fn limit_devices_by_program(&mut self, layout: &Layout, id: &str) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no cgroup v2 here");
        self.unified_group(layout.unified.as_deref().ok_or_else(missing)?, id)?;
        device_filter::attach(self.unified.as_ref().ok_or_else(missing)?.as_fd(), &devices::ALLOWED)
    }

    fn limit_devices_by_rules(&mut self, layout: &Layout, id: &str) -> io::Result<()> {
        if self.only_unified {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "version 2 knows no rules for devices"));
        }
        let dir = self.group(layout, "devices", id)?;
        fs::write(dir.join("devices.deny"), "a")?;
        let mut allow = fs::File::options().write(true).open(dir.join("devices.allow"))?;
        let mut rules = vec!["c *:* m".to_owned(), "b *:* m".to_owned()];
        rules.extend(devices::ALLOWED.iter().map(|(major, minor)| match minor {
            Some(minor) => format!("c {major}:{minor} rwm"),
            None => format!("c {major}:* rwm"),
        }));
        // One rule for each write(2).
        rules.iter().try_for_each(|rule| allow.write_all(rule.as_bytes()))
    }

    /// The group of version 2 that the container is to be born in.
    pub(super) fn cradle(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// What a process writes `0` to, to be in a group of version 1.
    pub(super) fn doors(&self) -> Result<Vec<OwnedFd>> {
        let open = |(_, dir): &(&str, PathBuf)| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::open(dir.join("cgroup.procs"), flags, Mode::empty())
                .context(|| format!("opening the cgroup {}", dir.display()))
        };
        self.separate.iter().map(open).collect()
    }

    /// What is seen of them inside: a mount for each name below /sys/fs/cgroup, or one for all of it. To be called in the
    /// container's cgroup namespace.
    pub(super) fn view(&self) -> Result<View> {
        let attributes = Attributes { read_only: true, ..Attributes::INERT };
        if self.only_unified && self.unified.is_some() {
            return Ok(View::Whole(mount::filesystem("cgroup2", &[], attributes)?));
        }
        if self.separate.is_empty() {
            return Ok(View::Nothing);
        }
        let each = |(name, _): &(&'static str, PathBuf)| {
            Ok((*name, mount::filesystem("cgroup", &[(name, None)], attributes)?))
        };
        Ok(View::Each(self.separate.iter().map(each).collect::<Result<_>>()?))
    }
}

pub(super) enum View {
    Nothing,
    Whole(OwnedFd),
    Each(Vec<(&'static str, OwnedFd)>),
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in &self.dirs {
            if let Err(error) = remove(dir) {
                tracing::warn!(%error, dir = %dir.display(), "a cgroup stays");
            }
        }
    }
}

/// Relative, to be below the top of a hierarchy.
pub(super) fn parent_of(spec: &Spec) -> PathBuf {
    let parent = spec.cgroup_parent.as_deref().unwrap_or_default();
    let plain: PathBuf =
        Path::new(parent).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if plain.as_os_str().is_empty() { PARENT.into() } else { plain }
}

/// Another one may remove the parent at this moment, when it is empty.
fn make(dir: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::create_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 10 => tries += 1,
            done => return done,
        }
    }
}

/// Its processes have ended, but the kernel may take a moment to notice.
fn remove(dir: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < 50 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
}

/// Groups whose outer half was killed. One with processes in it refuses to go, and a young one may be about to get some.
fn sweep(layout: &Layout, parent: &Path) {
    const YOUNG: Duration = Duration::from_secs(60);
    let separate = ["devices", "memory", "cpu", "cpuset", "pids"];
    let separate = layout.separate.iter().flat_map(|below| separate.map(|name| below.join(name)));
    let all: Vec<PathBuf> =
        layout.unified.iter().cloned().chain(separate).map(|top| top.join(parent)).collect();
    // Every container has a group in the first one of them, or in the next where that is not there.
    let Some(entries) = all.iter().find_map(|parent| fs::read_dir(parent).ok()) else { return };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let old = meta.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > YOUNG);
        // In a parent that is not ours alone stand groups of others.
        let name = entry.file_name();
        let ours = parent == Path::new(PARENT)
            || (name.len() == 64 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit));
        if meta.is_dir() && old && ours {
            for parent in &all {
                let _still_used = fs::remove_dir(parent.join(entry.file_name()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limits: &Limits, unified: bool) -> Vec<String> {
        settings(limits, unified).iter().map(|one| format!("{}={}", one.file, one.value)).collect()
    }

    #[test]
    fn limits_are_what_each_version_calls_them() {
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: None,
            nano_cpus: Some(1_500_000_000),
            cpu_shares: Some(1024),
            cpuset: Some("0".into()),
            pids: Some(10),
        };
        assert_eq!(
            lines(&limits, true),
            [
                "memory.max=67108864",
                "memory.swap.max=67108864",
                "cpu.max=150000 100000",
                "cpu.weight=39",
                "cpuset.cpus=0",
                "pids.max=10"
            ]
        );
        assert_eq!(
            lines(&limits, false),
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=134217728",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=150000",
                "cpu.shares=1024",
                "cpuset.cpus=0",
                "pids.max=10"
            ]
        );
    }

    #[test]
    fn no_limit_writes_nothing() {
        assert_eq!(settings(&Limits::default(), true), []);
    }
}
