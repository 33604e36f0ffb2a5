//! `info`: what the store is, what keeps its layers and why, and what the host has.

use std::path::{Path, PathBuf};

use crate::db::{ContainerState, Time};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::Platform;

#[derive(Clone, Debug)]
pub struct Info {
    /// The store's, for good.
    pub id: String,
    pub root: PathBuf,
    pub run_root: PathBuf,
    /// How owners are written on the files.
    pub layout: String,
    pub made_at: Time,
    pub driver: String,
    /// What trying each driver on this root says: what it found, or why it cannot work here.
    pub drivers: Vec<(&'static str, Result<String, String>)>,
    /// What the driver says of itself: a name, a text.
    pub driver_status: Vec<(&'static str, String)>,
    /// Intermediate ones are not counted.
    pub images: u64,
    pub containers: usize,
    pub containers_running: usize,
    pub layers: usize,
    pub cache_records: u64,
    /// The default first; those of them that can be used.
    pub runtimes: Vec<&'static str>,
    pub default_runtime: String,
    pub host: Host,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub operating_system: String,
    pub platform: Platform,
    /// `1`, `2`, or `1 and 2` where both are mounted; `none`.
    pub cgroup_version: &'static str,
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
}

pub fn info(engine: &Engine) -> Result<Info> {
    // Containers whose outcrop was killed do not run.
    engine.sweep()?;
    let (id, layout, made_at, usage, containers, layers) = engine.db.read(|index| {
        Ok((
            index.uuid()?,
            index.layout()?,
            index.store_made_at()?,
            index.usage()?,
            index.containers()?,
            index.layers()?.len(),
        ))
    })?;
    let containers: Vec<_> =
        containers.into_iter().filter(|row| row.state != ContainerState::Removing).collect();
    Ok(Info {
        id,
        root: engine.root.clone(),
        run_root: engine.run.clone(),
        layout,
        made_at,
        driver: engine.snapshots.driver().name().to_owned(),
        driver_status: engine.snapshots.driver().status()?,
        drivers: engine.snapshots.probe_all(),
        images: usage.images,
        containers_running: containers.iter().filter(|row| row.state == ContainerState::Running).count(),
        containers: containers.len(),
        layers,
        cache_records: usage.cache_records,
        runtimes: engine.runtimes(),
        default_runtime: engine.runtime_name().to_owned(),
        host: host(),
    })
}

impl Info {
    /// Why the driver is the one it is.
    pub fn reason(&self) -> &str {
        let own = self.drivers.iter().find(|(name, _)| *name == self.driver);
        match own {
            Some((_, Ok(found))) => found,
            Some((_, Err(refused))) => refused,
            None => "the store was made with it",
        }
    }

    /// The other drivers: what speaks against each.
    pub fn others(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let own = self.drivers.iter().position(|(name, _)| *name == self.driver);
        let others = self.drivers.iter().enumerate().filter(move |(at, _)| Some(*at) != own);
        others.map(move |(at, (name, probed))| match probed {
            Err(refused) => (*name, format!("refused: {refused}")),
            Ok(found) if Some(at) > own => {
                (*name, format!("works here too ({found}); stands after `{}`", self.driver))
            }
            Ok(found) => {
                (*name, format!("works here too ({found}); the store was made with `{}`", self.driver))
            }
        })
    }
}

fn host() -> Host {
    let name = rustix::system::uname();
    Host {
        name: name.nodename().to_string_lossy().into_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        operating_system: operating_system(),
        platform: Platform::host(),
        cgroup_version: cgroup_version(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory: memory(),
    }
}

/// os-release(5)
fn operating_system() -> String {
    let text =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|file| std::fs::read_to_string(file).ok());
    let named = text.as_deref().and_then(|text| {
        let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(name.trim_matches(['"', '\'']).to_owned())
    });
    named.unwrap_or_else(|| "Linux".into())
}

/// cgroups(7): version 2 alone, version 1 alone, or both side by side.
fn cgroup_version() -> &'static str {
    let is_there = |path: &str| Path::new(path).exists();
    match () {
        () if is_there("/sys/fs/cgroup/cgroup.controllers") => "2",
        () if is_there("/sys/fs/cgroup/unified/cgroup.controllers") => "1 and 2",
        () if is_there("/sys/fs/cgroup/memory") || is_there("/sys/fs/cgroup/devices") => "1",
        () => "none",
    }
}

/// proc_meminfo(5)
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
