//! The container's part of `inspect`, in Docker's words.

use serde_json::{Map, Value, json};

use super::images;
use crate::container::{self, Config, MountKind};
use crate::db::{ContainerRow, ContainerState, Time};
use crate::engine::Engine;
use crate::error::Result;

/// What Docker says where there is no time.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub fn container_inspect(engine: &Engine, row: &ContainerRow) -> Result<Value> {
    let config = Config::of(row)?;
    let args = config.args();
    let pid = container::process_id(engine, row).unwrap_or(0);
    let platform = engine.db.read(|index| index.image(&row.image))?.map(|image| image.platform);
    let os = platform.as_deref().and_then(|platform| platform.split('/').next()).unwrap_or("linux");
    let (path, rest) = args.split_first().map_or(("", &[][..]), |(path, rest)| (path.as_str(), rest));
    Ok(json!({
        "Id": row.id.as_str(),
        "Created": row.created_at.to_string(),
        "Path": path,
        "Args": rest,
        "State": state(row, pid),
        "Image": row.image.to_string(),
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": format!("/{}", row.name),
        "RestartCount": 0,
        "Driver": engine.snapshots.driver().name(),
        "Platform": os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(&config, row.auto_remove),
        "GraphDriver": {
            "Name": engine.snapshots.driver().name(),
            "Data": graph_data(engine, row),
        },
        "Mounts": mounts(engine, &config),
        "Config": run_config(engine, row, &config)?,
        "NetworkSettings": {
            "Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": {},
            "EndpointID": "", "Gateway": "", "IPAddress": "", "MacAddress": "",
            "Networks": { config.network.clone(): { "IPAddress": "", "Gateway": "", "NetworkID": "" } },
        },
    }))
}

fn state(row: &ContainerRow, pid: u32) -> Value {
    let time = |time: Option<Time>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_string());
    json!({
        "Status": row.state.as_str(),
        "Running": row.state == ContainerState::Running,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": false,
        "Dead": row.state == ContainerState::Removing,
        "Pid": pid,
        "ExitCode": row.exit_code.unwrap_or(0),
        "Error": "",
        "StartedAt": time(row.started_at),
        "FinishedAt": time(row.finished_at),
    })
}

fn host_config(config: &Config, auto_remove: bool) -> Value {
    let binds: Vec<String> = config
        .mounts
        .iter()
        .filter_map(|mount| {
            let source = match &mount.kind {
                MountKind::Bind { source, .. } => source.clone(),
                MountKind::Volume { name, .. } => name.clone()?,
            };
            let access = if mount.read_only { ":ro" } else { "" };
            Some(format!("{source}:{}{access}", mount.target))
        })
        .collect();
    let tmpfs: Map<String, Value> = config
        .tmpfs
        .iter()
        .map(|tmpfs| {
            let size = tmpfs.size.map(|size| format!(",size={size}")).unwrap_or_default();
            (tmpfs.target.clone(), format!("mode={:o}{size}", tmpfs.mode).into())
        })
        .collect();
    let mut security = Vec::new();
    if config.seccomp_unconfined {
        security.push("seccomp=unconfined");
    }
    if config.no_new_privileges {
        security.push("no-new-privileges");
    }
    if config.system_paths_unconfined {
        security.push("systempaths=unconfined");
    }
    let ulimits: Vec<Value> = config
        .rlimits
        .iter()
        .map(|limit| json!({ "Name": limit.name, "Soft": limit.soft, "Hard": limit.hard }))
        .collect();
    let hosts: Vec<String> = config.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect();
    json!({
        "Binds": some(&binds),
        "ContainerIDFile": "",
        "LogConfig": { "Type": "none", "Config": {} },
        "NetworkMode": config.network,
        "PortBindings": {},
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": auto_remove,
        "CapAdd": some(&config.cap_add),
        "CapDrop": some(&config.cap_drop),
        "ExtraHosts": some(&hosts),
        "GroupAdd": some(&config.groups),
        "IpcMode": "private",
        "PidMode": "",
        "Privileged": false,
        "PublishAllPorts": false,
        "ReadonlyRootfs": config.read_only_root,
        "SecurityOpt": some(&security),
        "Tmpfs": tmpfs,
        "StorageOpt": config.storage_size.map(|bytes| json!({ "size": bytes.to_string() })),
        "ShmSize": config.shm_size.unwrap_or(64 << 20),
        "CpuShares": config.limits.cpu_shares.unwrap_or(0),
        "Memory": config.limits.memory.unwrap_or(0),
        "MemorySwap": config.limits.memory_swap.unwrap_or(0),
        "NanoCpus": config.limits.nano_cpus.unwrap_or(0),
        "CpusetCpus": config.limits.cpuset.clone().unwrap_or_default(),
        "PidsLimit": config.limits.pids,
        "Ulimits": ulimits,
    })
}

/// `null` for none, as Docker does.
fn some<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn graph_data(engine: &Engine, row: &ContainerRow) -> Value {
    match engine.snapshots.driver().delta(row.snapshot) {
        Some(delta) => json!({ "UpperDir": delta.dir.display().to_string() }),
        None => Value::Null,
    }
}

fn mounts(engine: &Engine, config: &Config) -> Vec<Value> {
    let shown = |mount: &container::Mount| match &mount.kind {
        MountKind::Bind { source, .. } => json!({
            "Type": "bind",
            "Source": source,
            "Destination": mount.target,
            "Mode": if mount.read_only { "ro" } else { "" },
            "RW": !mount.read_only,
            "Propagation": "rprivate",
        }),
        MountKind::Volume { name, .. } => {
            let name = name.as_deref().unwrap_or_default();
            json!({
                "Type": "volume",
                "Name": name,
                "Source": engine.root.join("volumes").join(name).join("_data").display().to_string(),
                "Destination": mount.target,
                "Driver": "local",
                "Mode": if mount.read_only { "ro" } else { "z" },
                "RW": !mount.read_only,
                "Propagation": "",
            })
        }
    };
    config.mounts.iter().map(shown).collect()
}

fn run_config(engine: &Engine, row: &ContainerRow, config: &Config) -> Result<Value> {
    let (image, _) = images::config(engine, &row.image)?;
    let set = |keys: &[String]| match keys {
        [] => Value::Null,
        keys => keys.iter().map(|key| (key.clone(), json!({}))).collect::<Map<_, _>>().into(),
    };
    let mut shown = json!({
        "Hostname": config.hostname.clone().unwrap_or_else(|| row.id.short().to_owned()),
        "Domainname": "",
        "User": config.user,
        "AttachStdin": config.attach.stdin,
        "AttachStdout": config.attach.stdout,
        "AttachStderr": config.attach.stderr,
        "ExposedPorts": set(&config.exposed_ports),
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.attach.stdin,
        "Env": config.env,
        "Cmd": config.cmd,
        "Image": config.image,
        "Volumes": set(&config.volumes),
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": image.config.on_build,
        "Labels": config.labels,
    });
    let known = shown.as_object_mut().expect("it is written as one above");
    if known["ExposedPorts"].is_null() {
        known.shift_remove("ExposedPorts");
    }
    if let Some(signal) = &config.stop_signal {
        known.insert("StopSignal".into(), signal.clone().into());
    }
    Ok(shown)
}
