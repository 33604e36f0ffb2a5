//! The flags of `build` that say what RUN steps get and may do.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use outcrop::build::mounts::{Agent, SecretBytes};
use outcrop::error::{Context as _, Error, Result};
use outcrop::plan::Resources;
use outcrop::verb::build::RunOptions;

use super::super::container::{bytes, host, rlimit};

/// BuildKit's bound.
const LARGEST_SECRET: u64 = 500 * 1024;

#[derive(clap::Args)]
pub(super) struct RunFlags {
    /// A secret for `RUN --mount=type=secret`: from a file or, with env=, a variable
    #[arg(long = "secret", value_name = "id=NAME[,src=FILE|,env=VARIABLE]")]
    secrets: Vec<String>,
    /// Go on when a step leaves a secret in its layer
    #[arg(long)]
    allow_secret_leak: bool,
    /// An ssh agent for `RUN --mount=type=ssh`: yours, or one that gets these keys
    #[arg(long, value_name = "default|NAME[=SOCKET|KEY[,KEY]]")]
    ssh: Vec<String>,
    /// What is dangerous and wanted: security.insecure of RUN, buildx.local.delete of outputs; network.host is always allowed
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// A name that RUN steps are to know: NAME:ADDRESS; host-gateway is this host
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
    /// Size of /dev/shm in RUN steps
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// A limit of each process in RUN steps: NAME=SOFT[:HARD]
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
    /// The cgroup below which those of RUN steps are made
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
}

impl RunFlags {
    pub(super) fn options(&self) -> Result<RunOptions> {
        let shm_size = self.shm_size.as_deref().map(|text| bytes("--shm-size", text)).transpose()?;
        Ok(RunOptions {
            secrets: secrets(&self.secrets)?,
            ssh: self.ssh.iter().map(|text| agent(text)).collect::<Result<BTreeMap<_, _>>>()?,
            insecure: self.insecure()?,
            allow_secret_leak: self.allow_secret_leak,
            resources: Resources {
                hosts: self.hosts.iter().map(|text| host(text)).collect::<Result<_>>()?,
                shm_size: shm_size.filter(|bytes| *bytes > 0),
                ulimits: self.ulimits.iter().map(|text| rlimit(text)).collect::<Result<_>>()?,
                cgroup_parent: self.cgroup_parent()?,
            },
        })
    }

    fn cgroup_parent(&self) -> Result<Option<String>> {
        match &self.cgroup_parent {
            Some(path) if path.split('/').any(|part| part == "..") => {
                Err(Error::invalid(format!("`{path}` in --cgroup-parent leads upwards"))
                    .hint("write a path below the top of the hierarchy"))
            }
            parent => Ok(parent.clone().filter(|path| !path.is_empty())),
        }
    }

    /// An output may delete in any directory.
    pub(super) fn may_delete(&self) -> bool {
        let mut given = self.allow.iter().flat_map(|text| text.split(','));
        given.any(|entitlement| entitlement.trim() == "buildx.local.delete")
    }

    fn insecure(&self) -> Result<bool> {
        let mut insecure = false;
        for entitlement in self.allow.iter().flat_map(|text| text.split(',')) {
            match entitlement.trim() {
                "security.insecure" => insecure = true,
                // The host's network is what steps have anyway.
                "network.host" => {}
                // Asked for by `may_delete`.
                "buildx.local.delete" => {}
                other if other == "device" || other.starts_with("device=") => {
                    return Err(Error::unsupported(
                        "`--allow device`: RUN --device is not supported by this version",
                    )
                    .hint("an insecure RUN reaches all devices"));
                }
                other => {
                    return Err(Error::invalid(format!("unknown entitlement `{other}` in --allow"))
                        .hint("there are security.insecure, network.host and buildx.local.delete"));
                }
            }
        }
        Ok(insecure)
    }
}

/// `--secret`, each.
pub(in super::super) fn secrets(texts: &[String]) -> Result<BTreeMap<String, SecretBytes>> {
    texts.iter().map(|text| secret(text)).collect()
}

/// As buildx reads it: without a source, the variable of that name, else the file.
fn secret(text: &str) -> Result<(String, SecretBytes)> {
    let invalid = |why: String| {
        Error::invalid(format!("`{text}` in --secret: {why}"))
            .hint("write `--secret id=NAME,src=FILE` or `--secret id=NAME,env=VARIABLE`")
    };
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| invalid(format!("`{field}` is not KEY=VALUE")))?;
        match key.to_ascii_lowercase().as_str() {
            "type" if !["file", "env"].contains(&value) => {
                return Err(invalid(format!("there is no type `{value}`, only file and env")));
            }
            "type" => kind = Some(value),
            "id" => id = Some(value),
            "source" | "src" => file = Some(value),
            "env" => variable = Some(value),
            _ => return Err(invalid(format!("there is no `{key}`"))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| invalid("it has no id".into()))?;
    if kind == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let bytes = match (variable, file) {
        (Some(name), _) => std::env::var_os(name).unwrap_or_default().into_encoded_bytes(),
        (None, Some(file)) => read(Path::new(file))?,
        (None, None) => match std::env::var_os(id) {
            Some(value) => value.into_encoded_bytes(),
            None => read(Path::new(id))?,
        },
    };
    Ok((id.to_owned(), SecretBytes(bytes)))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let doing = || format!("reading the secret `{}`", file.display());
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).context(doing)?;
    open.take(LARGEST_SECRET + 1).read_to_end(&mut bytes).context(doing)?;
    if bytes.len() as u64 > LARGEST_SECRET {
        return Err(Error::invalid(doing()).because(Error::invalid("it is larger than 500 KiB")));
    }
    Ok(bytes)
}

/// `NAME`, `NAME=SOCKET`, `NAME=KEY,KEY`; no name is `default`.
fn agent(text: &str) -> Result<(String, Agent)> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let hint = "start one with `eval $(ssh-agent)`, or write `--ssh default=SOCKET|KEY`";
    if paths.is_empty() {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        let socket = socket.ok_or_else(|| {
            Error::invalid(format!("`--ssh {text}`: SSH_AUTH_SOCK names no agent")).hint(hint)
        })?;
        return Ok((id.to_owned(), Agent::Socket(PathBuf::from(socket))));
    }
    let mut keys = Vec::new();
    let mut sockets = Vec::new();
    for path in paths.split(',') {
        let doing = || format!("looking at `{path}` in --ssh");
        let path = std::path::absolute(path).context(doing)?;
        let metadata = std::fs::metadata(&path).context(doing)?;
        if metadata.file_type().is_socket() { sockets.push(path) } else { keys.push(path) }
    }
    match (sockets.pop(), sockets.is_empty() && keys.is_empty()) {
        (None, _) => Ok((id.to_owned(), Agent::Keys(keys))),
        (Some(socket), true) => Ok((id.to_owned(), Agent::Socket(socket))),
        (Some(_), false) => Err(Error::invalid(format!("`--ssh {text}` names a socket and more"))
            .hint("give one socket, or keys alone")),
    }
}
