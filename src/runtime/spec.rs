//! What to run, complete: a value that can be sent to another process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::mount::Mount;

/// One container or build step. `Spec::new` fills in Docker's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Names the cgroup and the OCI container: letters, digits, `_`, `.`, `-`.
    pub id: String,
    pub root: Mount,
    pub read_only_root: bool,
    /// The command; a name without a slash is looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// `KEY=VALUE`. `HOME`, where absent, is the user's.
    pub env: Vec<String>,
    /// Absolute; made if it is not there.
    pub cwd: String,
    /// Docker's `USER`: `""`, `name`, `uid`, each with `:group` or `:gid`. Names are looked up in the container's own
    /// /etc/passwd and /etc/group.
    pub user: String,
    /// More groups, by name or number.
    pub groups: Vec<String>,
    pub hostname: String,
    pub capabilities: Vec<Capability>,
    pub seccomp: Seccomp,
    pub masked_paths: Vec<String>,
    pub read_only_paths: Vec<String>,
    pub binds: Vec<Bind>,
    pub trees: Vec<Tree>,
    pub tmpfs: Vec<Tmpfs>,
    /// Small files laid over the root: resolv.conf, hosts, hostname.
    pub files: Vec<File>,
    pub network: Network,
    /// A terminal of that size as standard input, output and error.
    pub terminal: Option<Size>,
    pub rlimits: Vec<Rlimit>,
    pub limits: Limits,
    /// Below which cgroup of the host its own are made, as a path without `..`; `None`: `outcrop`.
    pub cgroup_parent: Option<String>,
    /// All devices of the host can be opened, and /sys can be written to.
    pub reaches_host: bool,
    pub no_new_privileges: bool,
    /// Bytes of /dev/shm.
    pub shm_size: u64,
    /// Where to note the mount points that were made, until they are gone again: what `mountpoints::recover` reads
    /// after a crash. `None` where nobody looks at the writable layer after one.
    pub journal: Option<PathBuf>,
}

impl Spec {
    /// A command with Docker's defaults and no network.
    pub fn new(id: impl Into<String>, root: Mount, args: Vec<String>) -> Self {
        let id = id.into();
        Spec {
            hostname: id.chars().take(12).collect(),
            id,
            root,
            read_only_root: false,
            args,
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
            cwd: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            capabilities: DEFAULT_CAPABILITIES.to_vec(),
            seccomp: Seccomp::Default,
            masked_paths: MASKED_PATHS.iter().map(|path| (*path).into()).collect(),
            read_only_paths: READ_ONLY_PATHS.iter().map(|path| (*path).into()).collect(),
            binds: Vec::new(),
            trees: Vec::new(),
            tmpfs: Vec::new(),
            files: Vec::new(),
            network: Network::None,
            terminal: None,
            rlimits: Vec::new(),
            limits: Limits::default(),
            cgroup_parent: None,
            reaches_host: false,
            no_new_privileges: false,
            shm_size: 64 << 20,
            journal: None,
        }
    }
}

/// `-v source:target[:ro]`. What is mounted below the source comes along; nothing propagates either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute, on the host; must be there.
    pub source: PathBuf,
    /// Absolute, in the container; made for the time of the run if it is not there.
    pub target: String,
    /// For all that is mounted below, too.
    pub read_only: bool,
}

/// A part of a tree that is mounted for this container alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    pub tree: Mount,
    /// A file or directory in it, links followed inside; empty for all of it.
    pub source: String,
    pub target: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: String,
    /// Bytes; `None`: the kernel's half of the memory.
    pub size: Option<u64>,
    /// Permission bits of its root; `None`: those of what it covers, else 1777.
    pub mode: Option<u32>,
    pub read_only: bool,
    /// Programs in it can be executed.
    pub exec: bool,
}

/// A regular file in memory, laid over `target`; changes to it are lost.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub target: String,
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Numbers of user and group.
    pub owner: (u32, u32),
    pub read_only: bool,
}

impl File {
    /// Root's, with mode 644.
    pub fn plain(target: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        File { target: target.into(), content: content.into(), mode: 0o644, owner: (0, 0), read_only: false }
    }
}

/// Without the content: it may be a secret.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({} {:o} {:?})", self.target, self.mode, self.owner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A network namespace of its own with nothing but `lo`.
    None,
    /// The host's.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default profile.
    Default,
    Unconfined,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// `--ulimit name=soft:hard`; name as in getrlimit(2), lower case, without `RLIMIT_`. Clamped, with a warning, to what
/// the engine itself may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// cgroup limits. What the system does not let us limit is a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; `None`: twice `memory`, as Docker.
    pub memory_swap: Option<u64>,
    /// Billionths of a processor.
    pub nano_cpus: Option<u64>,
    pub cpu_shares: Option<u64>,
    /// `0-3,7`.
    pub cpuset: Option<String>,
    pub pids: Option<u64>,
}

impl Limits {
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }
}

/// capabilities(7); the number is the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Capability(pub u8);

/// In the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capability {
    pub const SYS_CHROOT: Capability = Capability(18);
    pub const SYS_PTRACE: Capability = Capability(19);
    pub const SYS_ADMIN: Capability = Capability(21);
    pub const SYS_BOOT: Capability = Capability(22);
    pub const SYS_NICE: Capability = Capability(23);
    pub const SYS_TIME: Capability = Capability(25);
    pub const SYS_TTY_CONFIG: Capability = Capability(26);
    pub const SYS_MODULE: Capability = Capability(16);
    pub const SYS_RAWIO: Capability = Capability(17);
    pub const SYS_PACCT: Capability = Capability(20);
    pub const DAC_READ_SEARCH: Capability = Capability(2);
    pub const MKNOD: Capability = Capability(27);
    pub const SYSLOG: Capability = Capability(34);
    pub const PERFMON: Capability = Capability(38);
    pub const BPF: Capability = Capability(39);

    /// `CAP_NET_RAW`, `NET_RAW`, `net_raw`.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let number = NAMES.iter().position(|known| *known == name)?;
        u8::try_from(number).ok().map(Capability)
    }

    /// Without `CAP_`.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }

    pub fn all() -> impl Iterator<Item = Capability> {
        (0u8..).take(NAMES.len()).map(Capability)
    }
}

/// What Docker leaves a container: 0xa80425fb.
pub const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability(0),
    Capability(1),
    Capability(3),
    Capability(4),
    Capability(5),
    Capability(6),
    Capability(7),
    Capability(8),
    Capability(10),
    Capability(13),
    Capability(18),
    Capability(27),
    Capability(29),
    Capability(31),
];

/// Docker's: files hidden behind /dev/null, directories behind an empty one. Those that are not there are left out.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Docker's: what stays readable in /proc.
pub const READ_ONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_capabilities_are_dockers() {
        let bits = DEFAULT_CAPABILITIES.iter().fold(0u64, |bits, capability| bits | 1 << capability.0);
        assert_eq!(format!("{bits:016x}"), "00000000a80425fb");
    }

    #[test]
    fn a_capability_is_known_by_all_its_spellings() {
        for name in ["CAP_SYS_ADMIN", "SYS_ADMIN", "sys_admin"] {
            assert_eq!(Capability::parse(name), Some(Capability::SYS_ADMIN));
        }
        assert_eq!(Capability::parse("SYS_ADMINISTRATOR"), None);
    }
}
