//! The flags that `create` and `run` share: what a container is to be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use outcrop::container::{Attach, Config, New};
use outcrop::error::{Context as _, Error, Result};
use outcrop::image::Platform;
use outcrop::runtime::{Limits, Rlimit};
use outcrop::verb::create::{Options, Pull};

use super::mounts;

#[derive(clap::Args, Clone, Debug)]
pub(super) struct Flags {
    /// Attach to stdin, stdout or stderr alone
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// The container's name; one is made up where there is none
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove the container, with its nameless volumes, when it ends
    #[arg(long)]
    pub(super) rm: bool,

    /// Set a variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables that stand in a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Where the command starts
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs the command: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A further group of that user
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// In place of the image's ENTRYPOINT; empty for none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The container's host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// A label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Labels from a file, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,

    /// Mount a directory or a volume: HOST:CONTAINER[:ro], NAME:CONTAINER, or CONTAINER for a nameless volume
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    volume: Vec<String>,
    /// The same, in words: type=bind,source=DIR,target=DIR[,readonly]
    #[arg(long, value_name = "WORDS")]
    mount: Vec<String>,
    /// A directory in memory: TARGET[:size=64m,mode=1777]
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Nothing but volumes can be written to
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,

    /// host or none
    #[arg(long, alias = "net", value_name = "NAME", default_value = "host")]
    network: String,
    /// A name that the container is to know: NAME:ADDRESS
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,

    /// Give a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=unconfined, no-new-privileges or systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// A limit of each process: NAME=SOFT[:HARD]
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// The most memory it may use
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// The most memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// The most processors it may use
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Its weight among others; 1024 is usual
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// The processors it may use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The most processes it may have; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,

    /// When to ask registries: missing, always or never
    #[arg(long, value_enum, value_name = "WHEN", default_value = "missing", hide_default_value = true)]
    pull: When,
    /// The image's platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Say nothing of what is pulled
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) cidfile: Option<PathBuf>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    #[arg(value_name = "IMAGE")]
    image: String,
    /// In place of the image's CMD
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum When {
    Missing,
    Always,
    Never,
}

impl Flags {
    pub(super) fn options(&self) -> Result<Options> {
        if let Some(file) = &self.cidfile
            && file.exists()
        {
            return Err(Error::conflict(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                file.display()
            )));
        }
        let config = self.config()?;
        Ok(Options {
            image: self.image.clone(),
            new: New { name: self.name.clone(), config, auto_remove: self.rm },
            pull: match self.pull {
                When::Missing => Pull::Missing,
                When::Always => Pull::Always,
                When::Never => Pull::Never,
            },
            platform: self.platform.clone(),
            registry: super::registry::options(),
        })
    }

    fn config(&self) -> Result<Config> {
        let mut mounts = Vec::new();
        for text in &self.volume {
            mounts.push(mounts::volume(text)?);
        }
        let mut tmpfs = self.tmpfs.iter().map(|text| mounts::tmpfs(text)).collect::<Result<Vec<_>>>()?;
        for text in &self.mount {
            match mounts::mount(text)? {
                mounts::Parsed::Mount(mount) => mounts.push(mount),
                mounts::Parsed::Tmpfs(one) => tmpfs.push(one),
            }
        }
        let mut config = Config {
            hostname: self.hostname.clone(),
            entrypoint: self.entrypoint.clone().map(|word| vec![word]),
            cmd: Some(self.command.clone()).filter(|words| !words.is_empty()),
            env: self.env()?,
            user: self.user.clone().unwrap_or_default(),
            groups: self.group_add.clone(),
            working_dir: self.workdir.clone().unwrap_or_default(),
            labels: self.labels()?,
            stop_signal: self.stop_signal.clone(),
            tty: self.tty,
            open_stdin: self.interactive,
            attach: self.attach()?,
            mounts,
            tmpfs,
            network: if self.network == "default" { "host".into() } else { self.network.clone() },
            hosts: self.add_host.iter().map(|text| host(text)).collect::<Result<_>>()?,
            read_only_root: self.read_only,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            rlimits: self.ulimit.iter().map(|text| rlimit(text)).collect::<Result<_>>()?,
            limits: self.limits()?,
            shm_size: self.shm_size.as_deref().map(|text| bytes("--shm-size", text)).transpose()?,
            ..Config::default()
        };
        for option in &self.security_opt {
            security(option, &mut config)?;
        }
        Ok(config)
    }

    /// Those of files first, so that what is said on the command line counts.
    fn env(&self) -> Result<Vec<String>> {
        let mut env: Vec<String> = Vec::new();
        for file in &self.env_file {
            for line in lines(file)? {
                let (name, _) = line.split_once('=').unwrap_or((&line, ""));
                if name.is_empty() || name.contains(char::is_whitespace) {
                    return Err(Error::invalid(format!("{}: `{line}` is not NAME=VALUE", file.display())));
                }
                // A bare name in a file means the caller's value, and nothing where there is none.
                if line.contains('=') {
                    env.push(line);
                } else if let Ok(value) = std::env::var(&line) {
                    env.push(format!("{line}={value}"));
                }
            }
        }
        for given in &self.env {
            if given.is_empty() || given.starts_with('=') {
                return Err(Error::invalid(format!("invalid environment variable: {given}")));
            }
            match std::env::var(given) {
                Ok(value) if !given.contains('=') => env.push(format!("{given}={value}")),
                _ => env.push(given.clone()),
            }
        }
        // Of one name, what was said last.
        let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        let mut kept: Vec<String> = Vec::new();
        for variable in env {
            match kept.iter_mut().find(|known| name(known) == name(&variable)) {
                Some(known) => *known = variable,
                None => kept.push(variable),
            }
        }
        Ok(kept)
    }

    fn labels(&self) -> Result<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        let mut given = Vec::new();
        for file in &self.label_file {
            given.extend(lines(file)?);
        }
        given.extend(self.label.iter().cloned());
        for text in given {
            let (key, value) = text.split_once('=').unwrap_or((&text, ""));
            if key.is_empty() {
                return Err(Error::invalid(format!("the label `{text}` has no key")));
            }
            labels.insert(key.to_owned(), value.to_owned());
        }
        Ok(labels)
    }

    /// Output, and input where it is kept open, unless something else is said.
    fn attach(&self) -> Result<Attach> {
        if self.attach.is_empty() {
            return Ok(Attach { stdin: self.interactive, stdout: true, stderr: true });
        }
        let mut attach = Attach::default();
        for stream in &self.attach {
            match stream.to_ascii_lowercase().as_str() {
                "stdin" => attach.stdin = true,
                "stdout" => attach.stdout = true,
                "stderr" => attach.stderr = true,
                _ => {
                    return Err(Error::invalid("valid streams are STDIN, STDOUT and STDERR"));
                }
            }
        }
        Ok(attach)
    }

    fn limits(&self) -> Result<Limits> {
        const LEAST_MEMORY: u64 = 6 << 20;
        let memory = self.memory.as_deref().map(|text| bytes("--memory", text)).transpose()?;
        let memory = memory.filter(|memory| *memory != 0);
        if memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
        }
        let memory_swap = match self.memory_swap.as_deref() {
            None => None,
            Some("-1") => Some(u64::MAX),
            Some(text) => Some(bytes("--memory-swap", text)?),
        };
        if let (Some(memory), Some(both)) = (memory, memory_swap)
            && both < memory
        {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        Ok(Limits {
            memory,
            memory_swap,
            nano_cpus: self.cpus.as_deref().map(nano_cpus).transpose()?,
            cpu_shares: self.cpu_shares,
            cpuset: self.cpuset_cpus.clone(),
            pids: self.pids_limit.and_then(|most| u64::try_from(most).ok()).filter(|most| *most > 0),
        })
    }
}

/// Without empty ones and comments.
fn lines(file: &std::path::Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).context(|| format!("reading `{}`", file.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let useful = |line: &&str| !line.is_empty() && !line.starts_with('#');
    Ok(text.lines().map(str::trim_start).filter(useful).map(str::to_owned).collect())
}

/// `NAME:ADDRESS`, `NAME=ADDRESS`, an IPv6 address in brackets or not; `host-gateway` is the host.
pub(super) fn host(text: &str) -> Result<(String, String)> {
    let wrong = || Error::invalid(format!("bad format for add-host: \"{text}\"")).hint("write NAME:ADDRESS");
    let at = text.find([':', '=']).ok_or_else(wrong)?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if name.is_empty() {
        return Err(wrong());
    }
    // Whoever has the host's network reaches it there; nobody else does.
    let address = if address == "host-gateway" { "127.0.0.1" } else { address };
    if address.parse::<std::net::IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\"")));
    }
    Ok((name.to_owned(), address.to_owned()))
}

pub(super) fn bytes(flag: &str, text: &str) -> Result<u64> {
    outcrop::size::parse(text).context(|| format!("reading `{flag}`"))
}

/// `1.5` is 1,500,000,000.
fn nano_cpus(text: &str) -> Result<u64> {
    let wrong =
        || Error::invalid(format!("\"{text}\" is no number of processors")).hint("write `--cpus 1.5`");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 =
        if whole.is_empty() { 0 } else { whole.parse().map_err(|cause| wrong().because(cause))? };
    let part: u64 = format!("{part:0<9}").parse().map_err(|cause| wrong().because(cause))?;
    whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

/// `nofile=1024:2048`; -1 is no limit.
pub(super) fn rlimit(text: &str) -> Result<Rlimit> {
    let wrong = || Error::invalid(format!("invalid ulimit argument: {text}")).hint("write NAME=SOFT[:HARD]");
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number.parse().map_err(|cause| wrong().because(cause)),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    if soft > hard {
        return Err(Error::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Rlimit { name: name.to_owned(), soft, hard })
}

fn security(option: &str, config: &mut Config) -> Result<()> {
    let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match (key, value) {
        ("seccomp", "unconfined") => config.seccomp_unconfined = true,
        ("seccomp", "builtin" | "default") => config.seccomp_unconfined = false,
        ("no-new-privileges", "" | "true") => config.no_new_privileges = true,
        ("no-new-privileges", "false") => config.no_new_privileges = false,
        ("systempaths", "unconfined") => config.system_paths_unconfined = true,
        // There is no such confinement here to be lifted.
        ("apparmor", "unconfined") | ("label", "disable") => {}
        _ => {
            return Err(Error::unsupported(format!("invalid --security-opt: \"{option}\""))
                .hint("there are seccomp=unconfined, no-new-privileges and systempaths=unconfined"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_billionths() {
        assert_eq!(nano_cpus("1.5").unwrap(), 1_500_000_000);
        assert_eq!(nano_cpus(".25").unwrap(), 250_000_000);
        assert_eq!(nano_cpus("2").unwrap(), 2_000_000_000);
        for text in ["", ".", "-1", "1e3"] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_and_hosts_are_taken_apart() {
        let limit = rlimit("nofile=1024:-1").unwrap();
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("nofile", 1024, u64::MAX));
        assert!(rlimit("nofile=3:2").is_err() && rlimit("nofile").is_err());
        assert_eq!(host("db:10.0.0.1").unwrap(), ("db".into(), "10.0.0.1".into()));
        assert_eq!(host("db:::1").unwrap(), ("db".into(), "::1".into()));
        assert_eq!(host("db=[::1]").unwrap().1, "::1");
        assert_eq!(host("up:host-gateway").unwrap().1, "127.0.0.1");
        assert!(host("db:nowhere").is_err() && host("db").is_err());
    }
}
