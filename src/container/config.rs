//! What was said of a container when it was created: the JSON in its row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FailedStep;
use crate::db::ContainerRow;
use crate::error::{Context as _, Error, Result};
use crate::image::RunConfig;
use crate::runtime::{Capability, Limits, Rlimit};

/// Filled from the command line, then from the image by [`Config::on`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The image as the user named it.
    pub image: String,
    pub hostname: Option<String>,
    /// `[""]` takes the image's away.
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    /// `NAME=value`; a bare `NAME` takes the image's away.
    pub env: Vec<String>,
    pub user: String,
    pub groups: Vec<String>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    /// `port/proto`, of the image.
    pub exposed_ports: Vec<String>,
    /// Paths that the image wants to be volumes.
    pub volumes: Vec<String>,

    pub tty: bool,
    pub open_stdin: bool,
    pub attach: Attach,

    pub mounts: Vec<Mount>,
    pub tmpfs: Vec<Tmpfs>,
    pub network: String,
    /// Names and addresses, in order.
    pub hosts: Vec<(String, String)>,
    pub read_only_root: bool,
    /// Without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub seccomp_unconfined: bool,
    pub no_new_privileges: bool,
    /// Nothing of /proc and /sys is masked or read-only.
    pub system_paths_unconfined: bool,
    pub rlimits: Vec<Rlimit>,
    pub limits: Limits,
    /// Bytes; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// Bytes that its writable layer may take, where that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_size: Option<u64>,
    /// The step of a build that failed in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<FailedStep>,
}

/// Which of the container's streams whoever starts it in the foreground gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: MountKind,
    /// Absolute, in the container.
    pub target: String,
    pub read_only: bool,
}

/// Closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        /// Absolute, on the host.
        source: String,
        /// Make a directory where there is nothing (`-v`).
        create: bool,
    },
    Volume {
        /// `None`: one of its own without a name, which goes with the container.
        name: Option<String>,
        /// Without the files that the image has there.
        no_copy: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: String,
    /// Bytes.
    pub size: Option<u64>,
    /// Permission bits of its root.
    pub mode: u32,
}

impl Config {
    pub fn of(row: &ContainerRow) -> Result<Config> {
        serde_json::from_str(&row.config)
            .context(|| format!("reading the configuration of container {}", row.id.short()))
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context(|| "writing a container's configuration")
    }

    /// What the image says where the user said nothing. An entrypoint of the user's own leaves the image's CMD out.
    #[must_use]
    pub fn on(mut self, image: &RunConfig) -> Config {
        if self.entrypoint.as_ref().is_none_or(Vec::is_empty) {
            if self.cmd.as_ref().is_none_or(Vec::is_empty) {
                self.cmd.clone_from(&image.cmd);
            }
            if self.entrypoint.is_none() {
                self.entrypoint.clone_from(&image.entrypoint);
            }
        }
        if self.entrypoint.as_ref().is_some_and(|words| *words == [""]) {
            self.entrypoint = None;
        }
        for variable in image.env.iter().flatten() {
            if !self.env.iter().any(|own| name_of(own) == name_of(variable)) {
                self.env.push(variable.clone());
            }
        }
        if self.user.is_empty() {
            self.user.clone_from(&image.user);
        }
        if self.working_dir.is_empty() {
            self.working_dir.clone_from(&image.working_dir);
        }
        for (key, value) in image.labels.iter().flatten() {
            self.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if self.stop_signal.is_none() {
            self.stop_signal.clone_from(&image.stop_signal);
        }
        self.exposed_ports = image.exposed_ports.iter().flatten().map(|(port, _)| port.clone()).collect();
        self.volumes = image.volumes.iter().flatten().map(|(path, _)| path.clone()).collect();
        self
    }

    /// The command and its arguments.
    pub fn args(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).flatten().cloned().collect()
    }

    /// As lists show it: words with spaces in quotes, but for the first.
    pub fn command_line(&self) -> String {
        let args = self.args();
        let shown = args.iter().enumerate().map(|(n, word)| match n > 0 && word.contains(' ') {
            true => format!("'{word}'"),
            false => word.clone(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    /// What the process sees, in Docker's order: its defaults, then the user's and the image's in place of them.
    pub fn environment(&self, hostname: &str) -> Vec<String> {
        let mut env = vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            format!("HOSTNAME={hostname}"),
        ];
        if self.tty {
            env.push("TERM=xterm".into());
        }
        for variable in &self.env {
            let at = env.iter().position(|known| name_of(known) == name_of(variable));
            match (at, variable.contains('=')) {
                (Some(at), true) => env[at].clone_from(variable),
                (None, true) => env.push(variable.clone()),
                (Some(at), false) => drop(env.remove(at)),
                (None, false) => {}
            }
        }
        env
    }

    /// As moby does it: all but the dropped ones with `--cap-add ALL`, the added ones alone with `--cap-drop ALL`.
    pub fn capabilities(&self) -> Result<Vec<Capability>> {
        let parse = |names: &[String], flag: &str| -> Result<Vec<Capability>> {
            let named = names.iter().filter(|name| !is_all(name));
            named
                .map(|name| {
                    Capability::parse(name).ok_or_else(|| {
                        Error::invalid(format!("invalid {flag}: unknown capability: \"{name}\""))
                            .hint("names are those of capabilities(7), with or without `CAP_`")
                    })
                })
                .collect()
        };
        let (add, drop) = (parse(&self.cap_add, "CapAdd")?, parse(&self.cap_drop, "CapDrop")?);
        let mut kept: Vec<Capability> = if self.cap_add.iter().any(|name| is_all(name)) {
            Capability::all().filter(|one| !drop.contains(one)).collect()
        } else if self.cap_drop.iter().any(|name| is_all(name)) {
            add
        } else {
            let default = crate::runtime::DEFAULT_CAPABILITIES.iter().copied();
            default.filter(|one| !drop.contains(one)).chain(add).collect()
        };
        kept.sort_unstable();
        kept.dedup();
        Ok(kept)
    }
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all")
}

fn name_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split(' ').map(str::to_owned).collect())
    }

    fn image() -> RunConfig {
        RunConfig {
            entrypoint: words("/entry -x"),
            cmd: words("serve --all"),
            env: Some(vec!["PATH=/image".into(), "A=image".into(), "B=image".into()]),
            user: "web".into(),
            working_dir: "/srv".into(),
            labels: Some(BTreeMap::from([("a".into(), "image".into()), ("b".into(), "image".into())])),
            ..RunConfig::default()
        }
    }

    fn args(entrypoint: Option<&str>, cmd: Option<&str>) -> String {
        let own = Config {
            entrypoint: entrypoint.map(|word| vec![word.to_owned()]),
            cmd: cmd.and_then(words),
            ..Config::default()
        };
        own.on(&image()).args().join(" ")
    }

    #[test]
    fn an_own_entrypoint_leaves_the_images_command_out() {
        assert_eq!(args(None, None), "/entry -x serve --all");
        assert_eq!(args(None, Some("ls -l")), "/entry -x ls -l");
        assert_eq!(args(Some("/bin/sh"), None), "/bin/sh");
        assert_eq!(args(Some("/bin/sh"), Some("-c true")), "/bin/sh -c true");
        assert_eq!(args(Some(""), Some("ls")), "ls");
        assert_eq!(args(Some(""), None), "");
    }

    #[test]
    fn what_the_user_says_comes_before_what_the_image_says() {
        let labels = BTreeMap::from([("a".into(), "mine".into())]);
        let env = vec!["A=mine".into(), "B".into(), "C=new".into()];
        let config = Config { env, labels, user: "1:2".into(), ..Config::default() }.on(&image());
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1:2", "/srv"));
        assert_eq!(
            config.labels,
            BTreeMap::from([("a".into(), "mine".into()), ("b".into(), "image".into())])
        );
        assert_eq!(config.environment("box"), ["PATH=/image", "HOSTNAME=box", "A=mine", "C=new"]);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let caps = |add: &[&str], drop: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let config = Config { cap_add: own(add), cap_drop: own(drop), ..Config::default() };
            config.capabilities().map(|kept| kept.iter().fold(0_u64, |bits, one| bits | 1 << one.0))
        };
        assert_eq!(caps(&[], &[]).unwrap(), 0xa804_25fb);
        assert_eq!(caps(&["NET_ADMIN"], &["cap_chown"]).unwrap(), 0xa804_35fa);
        assert_eq!(caps(&["chown"], &["ALL"]).unwrap(), 1);
        assert_eq!(caps(&["all"], &["CHOWN"]).unwrap(), (1 << 41) - 2);
        let error = caps(&["FLY"], &[]).unwrap_err();
        assert_eq!(error.message(), "invalid CapAdd: unknown capability: \"FLY\"");
    }

    #[test]
    fn a_command_line_shows_which_words_belong_together() {
        let config =
            Config { cmd: Some(vec!["sh".into(), "-c".into(), "echo a".into()]), ..Config::default() };
        assert_eq!(config.command_line(), "sh -c 'echo a'");
    }

    #[test]
    fn a_configuration_survives_its_json() {
        let config = Config { image: "a".into(), tty: true, ..Config::default() };
        assert_eq!(serde_json::from_str::<Config>(&config.to_json().unwrap()).unwrap(), config);
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    }
}
