//! Cache keys as printable structs: all that a step's result depends on, and nothing else.
//!
//! A key is kept as its JSON next to its digest, so that two keys can be compared field by field. What never
//! enters: times, proxy variables, the stage's name, places in the Dockerfile, labels and the like for a RUN.

use serde::Serialize;

use crate::image::{CacheKey, ContentId, Digest, Platform, RunConfig};
use crate::plan;

/// Raised when a step of the same key may give another result than it used to.
const VERSION: u32 = 2;

#[derive(Clone, Debug, Serialize)]
pub struct Key<'k> {
    version: u32,
    platform: String,
    /// What the step stands on: content, bottom first. Times are not in it. `None`: wherever it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'k [ContentId]>,
    /// SOURCE_DATE_EPOCH: it stands in the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<i64>,
    #[serde(flatten)]
    step: Step<'k>,
    #[cfg(debug_assertions)]
    #[serde(skip)]
    hole: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step<'k> {
    Run(Run<'k>),
    Copy(Copy<'k>),
    Workdir {
        path: &'k str,
        user: &'k str,
    },
    /// Metadata steps: their result is the configuration itself.
    Config {
        created_by: &'k str,
        author: Option<&'k str>,
        config: &'k RunConfig,
    },
}

#[derive(Clone, Debug, Serialize)]
pub struct Run<'k> {
    args: &'k [String],
    env: &'k [String],
    user: &'k str,
    working_dir: &'k str,
    network: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount<'k>>,
    /// What runs programs of another processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    interpreter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'k str>,
    #[serde(skip_serializing_if = "is_false")]
    insecure: bool,
    /// Without their addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<&'k str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shm_size: Option<u64>,
    /// Name, soft and hard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ulimits: Vec<(&'k str, u64, u64)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Not what a secret is, or what a cache holds, is called or shares. `content`: nothing is mounted where it is `None`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mount<'k> {
    Bind {
        target: &'k str,
        read_only: bool,
        content: Option<Digest>,
    },
    /// `content`, `mode` and `owner` of what a new one begins with.
    Cache {
        target: &'k str,
        read_only: bool,
        content: Option<Digest>,
        mode: u32,
        owner: (u32, u32),
    },
    Tmpfs {
        target: &'k str,
        size: Option<u64>,
        read_only: bool,
    },
    Secret {
        id: &'k str,
        target: Option<&'k str>,
        env: Option<&'k str>,
        mode: u32,
        owner: (u32, u32),
    },
    Ssh {
        id: &'k str,
        target: &'k str,
        mode: u32,
        owner: (u32, u32),
    },
}

#[derive(Clone, Debug, Serialize)]
pub struct Copy<'k> {
    /// The digests of what is copied, a source each: names, kinds, modes, bytes; owners where they are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    content: Vec<Digest>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<File>,
    destination: &'k str,
    /// What the name or number came to in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    chown: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chmod: Option<&'k str>,
    unpack: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    parents: bool,
    #[serde(skip_serializing_if = "is_false")]
    link: bool,
}

#[derive(Clone, Debug, Serialize)]
struct File {
    path: String,
    mode: u32,
    digest: Digest,
}

fn files(files: &[plan::InlineFile]) -> Vec<File> {
    let file = |file: &plan::InlineFile| File {
        path: file.path.to_string_lossy().into_owned(),
        mode: file.mode,
        digest: Digest::of(&file.bytes),
    };
    files.iter().map(file).collect()
}

impl<'k> Step<'k> {
    pub fn run(run: &'k plan::Run, mounts: Vec<Mount<'k>>, interpreter: Option<String>) -> Self {
        let network = match run.network {
            plan::Network::Default => "default",
            plan::Network::None => "none",
            plan::Network::Host => "host",
        };
        Step::Run(Run {
            args: &run.args,
            env: &run.env,
            user: &run.user,
            working_dir: &run.working_dir,
            network,
            files: files(&run.files),
            mounts,
            interpreter,
            hostname: run.hostname.as_deref(),
            insecure: run.security == plan::Security::Insecure,
            hosts: run.resources.hosts.iter().map(|(name, _)| name.as_str()).collect(),
            shm_size: run.resources.shm_size,
            ulimits: run.resources.ulimits.iter().map(|one| (&*one.name, one.soft, one.hard)).collect(),
        })
    }

    /// What is excluded is not in `content`.
    pub fn copy(copy: &'k plan::Copy, content: Vec<Digest>, owner: Option<(u32, u32)>) -> Self {
        Step::Copy(Copy {
            content,
            files: files(&copy.inline),
            destination: &copy.destination,
            chown: owner,
            chmod: copy.chmod.as_ref().map(plan::Chmod::text),
            unpack: match copy.unpack {
                plan::Unpack::None => "none",
                plan::Unpack::Local => "local",
                plan::Unpack::All => "all",
            },
            parents: copy.parents,
            link: copy.link,
        })
    }
}

impl<'k> Key<'k> {
    /// `parent`: `None` for a step whose layer stands on nothing.
    pub fn new(
        platform: &Platform,
        parent: Option<&'k [ContentId]>,
        step: Step<'k>,
        epoch: Option<i64>,
    ) -> Self {
        Key {
            version: VERSION,
            platform: platform.to_string(),
            parent,
            epoch,
            step,
            #[cfg(debug_assertions)]
            hole: None,
        }
    }

    /// The step alone, wherever it stands.
    pub fn step(&self) -> CacheKey {
        Key { parent: None, ..self.clone() }.digest().0
    }

    /// The same without one of its parts: a key that is wrong, for tests that are to find that out.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn without(mut self, hole: Option<&'static str>) -> Self {
        self.hole = hole;
        self
    }

    /// The key, and the text it is the digest of.
    pub fn digest(&self) -> (CacheKey, String) {
        let text = serde_json::to_string(self).expect("keys are plain data");
        #[cfg(debug_assertions)]
        let text = self.hole.map_or(text.clone(), |hole| without(&text, hole));
        (CacheKey(Digest::of(text.as_bytes())), text)
    }
}

/// JSON without what stands at a path like `run.env`.
#[cfg(debug_assertions)]
fn without(text: &str, path: &str) -> String {
    let mut whole: serde_json::Value = serde_json::from_str(text).expect("it was just written");
    let (above, name) = path.split_once('.').map_or((None, path), |(above, name)| (Some(above), name));
    let object = match above {
        None => Some(&mut whole),
        Some(above) => whole.get_mut(above),
    };
    if let Some(object) = object.and_then(serde_json::Value::as_object_mut) {
        object.shift_remove(name);
    }
    whole.to_string()
}

#[cfg(test)]
mod tests;
