//! A spec as an OCI config.json (runtime-spec config.md, config-linux.md).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::devices::{ALLOWED, loop_devices, node_type};
use crate::runtime::user::User;
use crate::runtime::{Network, Seccomp, Spec, seccomp};
use crate::sys::process;

/// Something of the host that goes on a target in the container, just as it is.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) target: String,
    pub(super) read_only: bool,
}

pub(super) fn config(spec: &Spec, user: &User, root: &Path, sources: &[Source]) -> Value {
    let mut env = spec.env.clone();
    if !env.iter().any(|pair| pair.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    // Runtimes refuse to give what they do not have.
    let held = process::permitted_capabilities().unwrap_or(u64::MAX);
    let capabilities: Vec<String> = spec
        .capabilities
        .iter()
        .filter(|capability| held & (1 << capability.0) != 0)
        .filter_map(|capability| capability.name().map(|name| format!("CAP_{name}")))
        .collect();
    let rlimits: Vec<Value> = spec
        .rlimits
        .iter()
        .map(|one| {
            let kind = format!("RLIMIT_{}", one.name.to_ascii_uppercase());
            json!({"type": kind, "soft": one.soft, "hard": one.hard})
        })
        .collect();
    let mut command = json!({
        "terminal": spec.terminal.is_some(),
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups, "umask": 0o022},
        "args": spec.args,
        "env": env,
        "cwd": spec.cwd,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "rlimits": rlimits,
        "noNewPrivileges": spec.no_new_privileges,
    });
    if let Some(size) = spec.terminal {
        command["consoleSize"] = json!({"height": size.rows, "width": size.columns});
    }
    let mut namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    if spec.network == Network::None {
        namespaces.push(json!({"type": "network"}));
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": Path::new("/").join(super::cgroup::parent_of(spec)).join(&spec.id),
        "resources": resources(spec),
        "maskedPaths": spec.masked_paths,
        "readonlyPaths": spec.read_only_paths,
    });
    if spec.reaches_host {
        let device = |(name, major, minor): &(String, u32, u32)| {
            let path = format!("/dev/{name}");
            json!({"path": path, "type": node_type(name), "major": major, "minor": minor, "fileMode": 0o660})
        };
        linux["devices"] = loop_devices().iter().map(device).collect();
    }
    if spec.seccomp == Seccomp::Default {
        linux["seccomp"] = seccomp::document(&spec.capabilities);
    }
    json!({
        "ociVersion": "1.0.2",
        "process": command,
        "root": {"path": root, "readonly": spec.read_only_root},
        "hostname": spec.hostname,
        "mounts": mounts(spec, sources),
        "linux": linux,
    })
}

fn mounts(spec: &Spec, sources: &[Source]) -> Vec<Value> {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let inert = ["nosuid", "noexec", "nodev"];
    let shm_size = format!("size={}", spec.shm_size);
    let mut mounts = vec![
        mount("/proc", "proc", &inert),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", if spec.reaches_host { "rw" } else { "ro" }]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        mount("/dev/mqueue", "mqueue", &inert),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ];
    mounts.extend(sources.iter().map(|source| {
        let access = if source.read_only { "ro" } else { "rw" };
        json!({
            "destination": source.target,
            "type": "bind",
            "source": source.path,
            "options": ["rbind", "rprivate", access],
        })
    }));
    mounts
}

fn resources(spec: &Spec) -> Value {
    let mut devices = vec![json!({"allow": spec.reaches_host, "access": "rwm"})];
    devices.extend(["c", "b"].map(|kind| json!({"allow": true, "type": kind, "access": "m"})));
    let node = |major: u32, minor: Option<u32>| {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rule
    };
    devices.extend(ALLOWED.iter().map(|(major, minor)| node(*major, *minor)));

    let limits = &spec.limits;
    let mut resources = json!({"devices": devices});
    if let Some(memory) = limits.memory {
        let swap = limits.memory_swap.unwrap_or(memory.saturating_mul(2));
        resources["memory"] = json!({"limit": memory, "swap": swap});
    }
    let mut cpu = json!({});
    if let Some(nano) = limits.nano_cpus {
        cpu["period"] = super::cgroup::CPU_PERIOD.into();
        cpu["quota"] = super::cgroup::quota(nano).into();
    }
    if let Some(shares) = limits.cpu_shares {
        cpu["shares"] = shares.into();
    }
    if let Some(set) = &limits.cpuset {
        cpu["cpus"] = set.as_str().into();
    }
    resources["cpu"] = cpu;
    if let Some(pids) = limits.pids {
        resources["pids"] = json!({"limit": pids});
    }
    resources
}
