//! What a build is going to do: stages of steps, everything expanded and resolved, nothing done yet.
//!
//! The plan never says "Dockerfile" and does no I/O: a front end makes it, `build` carries it out. A step holds
//! all that decides its result but the bytes of its inputs and what it stands on, so a cache key is made of a
//! step alone. Steps refer to stages by number; a stage may use only stages with a smaller number.

mod checksum;
mod chmod;
mod mount;

use std::path::PathBuf;
use std::sync::Arc;

pub use checksum::Checksum;
pub use chmod::Chmod;
pub use mount::{Bind, Cache, Mount, Secret, Sharing, Ssh, Tmpfs};

use crate::image::{Platform, RunConfig};
use crate::runtime::Rlimit;

#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order of the text. Stages that `target` does not need are here too, without steps, and nothing was
    /// looked up for them; see [`Plan::needed`].
    pub stages: Vec<Stage>,
    pub target: StageId,
    /// SOURCE_DATE_EPOCH in seconds, where it was given: what every time in the image is set to.
    pub epoch: Option<i64>,
    /// Sentences for the user, each with its place.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub usize);

#[derive(Clone, Debug)]
pub struct Stage {
    /// As written after `AS`.
    pub name: Option<String>,
    pub base: Base,
    pub platform: Platform,
    /// Where the stage's FROM stands, for progress: counted as the stage's first step.
    pub at: At,
    /// The configuration the first step starts from: the base's, with a PATH, without ONBUILD.
    pub config: Arc<RunConfig>,
    /// The base's author.
    pub author: Option<String>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// No layers, empty config.
    Scratch,
    /// A reference as the user wrote it, expanded.
    Image(String),
    Stage(StageId),
}

/// Where an instruction stands and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// As the user named the file; `-` for standard input.
    pub file: String,
    /// First and last line, from 1.
    pub lines: (usize, usize),
    /// The instruction on one line, as the user wrote it, continuation lines joined.
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub at: At,
    /// For the image's history; BuildKit's form (`RUN /bin/sh -c apt-get update`, `COPY . /app`, `CMD ["a" "b"]`).
    pub created_by: String,
    pub action: Action,
    /// The image's whole run configuration once the step is done.
    pub config: Arc<RunConfig>,
    /// MAINTAINER's value once the step is done.
    pub author: Option<String>,
}

/// Closed: `build` matches all of it.
#[derive(Clone, Debug)]
pub enum Action {
    Run(Run),
    Copy(Copy),
    /// Makes the working directory where it is absent; mode 755, owned by `user` (as in the image's
    /// configuration; empty means root).
    Workdir {
        path: String,
        user: String,
    },
    /// Changes the configuration alone; adds no layer.
    Config,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is executed; the shell of a shell-form is in it.
    pub args: Vec<String>,
    /// `NAME=value`: the image's environment and the declared build arguments; of one name, what was said last.
    pub env: Vec<String>,
    /// `NAME=value` that the process sees and nothing remembers: in neither key, history nor configuration (proxies).
    pub hidden_env: Vec<String>,
    /// As in the image's configuration; empty means root.
    pub user: String,
    /// Absolute; empty means `/`.
    pub working_dir: String,
    pub network: Network,
    /// Asked for by name; else it is the network's.
    pub hostname: Option<String>,
    pub security: Security,
    pub mounts: Vec<Mount>,
    pub resources: Arc<Resources>,
    /// Files made for this step alone outside the layer (a heredoc with a shebang): the path inside, its bytes and mode.
    pub files: Vec<InlineFile>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    #[default]
    Sandbox,
    /// As good as root on the host.
    Insecure,
}

/// The same for every command of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Names for /etc/hosts with their addresses; the addresses decide no result.
    pub hosts: Vec<(String, String)>,
    /// Bytes of /dev/shm.
    pub shm_size: Option<u64>,
    pub ulimits: Vec<Rlimit>,
    /// Of the cgroups; decides no result.
    pub cgroup_parent: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub from: CopyFrom,
    /// In the order written; empty only where `inline` is not.
    pub sources: Vec<Source>,
    /// Heredoc sources: name and bytes; copied after `sources`.
    pub inline: Vec<InlineFile>,
    /// Absolute, the working directory applied; a trailing slash as written is kept (it means a directory).
    pub destination: String,
    /// `user[:group]` as written and expanded.
    pub chown: Option<String>,
    pub chmod: Option<Chmod>,
    /// ADD: what is done with archives.
    pub unpack: Unpack,
    /// What is left out, as lines of an ignore file, below each source.
    pub exclude: Vec<String>,
    /// Sources keep their directories.
    pub parents: bool,
    /// The layer stands on nothing: links and directories below mean nothing to it.
    pub link: bool,
}

/// Which archives ADD unpacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpack {
    #[default]
    None,
    /// Those of the build context.
    Local,
    /// Those from elsewhere, too.
    All,
}

/// Where some of the files of a [`Copy`] are. Closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Below the tree that `from` names, as written and expanded; wildcards not yet matched.
    Path(String),
    Http(HttpSource),
    Git(GitSource),
}

/// A file from a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSource {
    /// As written and expanded.
    pub url: String,
    /// What its bytes must be. Where that is their digest, the server is not asked while they are here.
    pub checksum: Option<Checksum>,
}

/// A commit of a git repository, or a directory in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSource {
    /// As git takes it; it may hold a password.
    pub remote: String,
    /// A branch, tag, full reference or commit; `None` is what the remote calls HEAD.
    pub reference: Option<String>,
    /// Clean, without leading slash; empty for all of it.
    pub subdir: String,
    pub keep_git_dir: bool,
    pub submodules: bool,
    /// The beginning of the commit's id, or of the tag's.
    pub checksum: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFrom {
    Context,
    Stage(StageId),
    /// An image that is no stage, as written and expanded.
    Image(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

impl Plan {
    /// The stages that `target` needs, itself included, in an order in which each stands after what it uses.
    pub fn needed(&self) -> Vec<StageId> {
        let mut needed = vec![false; self.stages.len()];
        let mut open = vec![self.target];
        while let Some(stage) = open.pop() {
            if std::mem::replace(&mut needed[stage.0], true) {
                continue;
            }
            open.extend(self.stages[stage.0].uses());
        }
        (0..self.stages.len()).filter(|n| needed[*n]).map(StageId).collect()
    }

    /// The stages of that name, in any case, or the one of that number.
    pub fn called(&self, name: &str) -> Vec<StageId> {
        let number: Option<usize> = name.parse().ok();
        let meant = |n: &usize| {
            let own = self.stages[*n].name.as_deref();
            number == Some(*n) || own.is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        (0..self.stages.len()).filter(meant).map(StageId).collect()
    }

    /// Steps counted as people see them: one for each FROM and one for each instruction, of the needed stages.
    pub fn step_count(&self) -> usize {
        self.needed().iter().map(|stage| 1 + self.stages[stage.0].steps.len()).sum()
    }
}

impl Stage {
    /// The stages this one stands on, copies from or mounts.
    pub fn uses(&self) -> impl Iterator<Item = StageId> + '_ {
        let base = match self.base {
            Base::Stage(stage) => Some(stage),
            Base::Scratch | Base::Image(_) => None,
        };
        let from = self.steps.iter().flat_map(|step| match &step.action {
            Action::Copy(copy) => vec![&copy.from],
            Action::Run(run) => run.mounts.iter().filter_map(Mount::from).collect(),
            Action::Workdir { .. } | Action::Config => Vec::new(),
        });
        let stages = from.filter_map(|from| match from {
            CopyFrom::Stage(stage) => Some(*stage),
            CopyFrom::Context | CopyFrom::Image(_) => None,
        });
        base.into_iter().chain(stages)
    }
}
