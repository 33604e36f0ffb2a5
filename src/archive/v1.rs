//! Archives of Docker before 1.10 (moby, image/spec/v1.md): `repositories`, and for each layer a directory named by its
//! id with `json` and `layer.tar`. Their configs are made as Docker makes them, so they get the same image ids.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::tar::{Place, Tar, hash};
use crate::error::{Context as _, Error, Result};
use crate::image::{DiffId, MAX_CONFIG, MAX_MANIFEST, Reference};
use crate::job::Job;
use crate::layer::compress;

/// Layers on each other; filesystems stack far fewer.
const MAX_CHAIN: usize = 1024;

pub(super) struct Image {
    pub(super) config: Vec<u8>,
    /// Bottom first.
    pub(super) layers: Vec<Place>,
    pub(super) names: Vec<Reference>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    container_config: Option<ContainerConfig>,
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(default, rename = "Cmd")]
    cmd: Option<Vec<String>>,
}

/// In the order of Docker's own structure.
#[derive(Serialize)]
struct History {
    created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

/// None, where the archive is not of this kind.
pub(super) fn images(tar: &Tar, job: &Job) -> Result<Vec<Image>> {
    let mut names: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    if let Some(raw) = tar.small("repositories", MAX_MANIFEST)? {
        let repositories: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_slice(&raw).context(|| "reading the archive's `repositories`")?;
        for (repository, tags) in repositories {
            for (tag, id) in tags {
                names.entry(id).or_default().extend(format!("{repository}:{tag}").parse::<Reference>().ok());
            }
        }
    }
    if names.is_empty() {
        for head in heads(tar)? {
            names.insert(head, Vec::new());
        }
    }
    let image = |(id, names)| image(tar, id, names, job);
    names.into_iter().map(image).collect()
}

/// Layers that no other stands on.
fn heads(tar: &Tar) -> Result<BTreeSet<String>> {
    let is_layer = |name: &&str| tar.find_member(&format!("{name}/layer.tar")).is_some();
    let all: BTreeSet<String> = tar
        .member_names()
        .filter_map(|name| name.strip_suffix("/json"))
        .filter(is_layer)
        .map(str::to_owned)
        .collect();
    let mut heads = all.clone();
    for id in &all {
        if let Some(parent) = layer(tar, id)?.1.parent {
            heads.remove(&parent);
        }
    }
    Ok(heads)
}

fn layer(tar: &Tar, id: &str) -> Result<(Vec<u8>, Layer)> {
    let name = format!("{id}/json");
    let raw = tar.small(&name, MAX_CONFIG)?;
    let raw = raw.ok_or_else(|| Error::invalid(format!("the archive names `{id}` and does not hold it")))?;
    let layer = serde_json::from_slice(&raw).context(|| format!("reading `{name}` of the archive"))?;
    Ok((raw, layer))
}

fn image(tar: &Tar, id: String, names: Vec<Reference>, job: &Job) -> Result<Image> {
    let mut chain = Vec::new();
    let mut next = Some(id);
    let mut top = None;
    while let Some(id) = next.filter(|id| !id.is_empty()) {
        if chain.len() == MAX_CHAIN {
            return Err(Error::invalid(format!("the archive stacks more than {MAX_CHAIN} layers")));
        }
        let (raw, layer) = layer(tar, &id)?;
        next = layer.parent.clone();
        top.get_or_insert(raw);
        chain.push((id, layer));
    }
    chain.reverse();
    let (mut layers, mut history) = (Vec::new(), Vec::new());
    for (id, layer) in chain {
        let name = format!("{id}/layer.tar");
        let absent = || Error::invalid(format!("the archive names `{name}` and does not hold it"));
        let (at, size) = tar.find_member(&name).ok_or_else(absent)?;
        let plain: Box<dyn Read + Send> = compress::decoder(Box::new(tar.part(at, size)?))?.1;
        layers.push(Place { at, size, diff_id: DiffId(hash(plain, job)?) });
        let command = layer.container_config.and_then(|config| config.cmd).unwrap_or_default();
        history.push(History {
            created: layer.created.unwrap_or_else(|| "0001-01-01T00:00:00Z".into()),
            author: layer.author.unwrap_or_default(),
            created_by: command.join(" "),
            comment: layer.comment.unwrap_or_default(),
        });
    }
    let top = top.ok_or_else(|| Error::invalid("the archive names an image without an id"))?;
    let config = config(&top, &layers, &history)?;
    Ok(Image { config, layers, names })
}

/// What Docker leaves of a layer's `json`, with what it adds; keys sorted, as Go writes them.
fn config(top: &[u8], layers: &[Place], history: &[History]) -> Result<Vec<u8>> {
    let mut fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(top).context(|| "reading a layer's `json` of the archive")?;
    for gone in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
        fields.remove(gone);
    }
    let rootfs = RootFs {
        kind: "layers",
        diff_ids: layers.iter().map(|layer| layer.diff_id.digest().to_string()).collect(),
    };
    let raw = |value: serde_json::Result<Box<RawValue>>| value.expect("it is plain data");
    fields.insert("rootfs".into(), raw(serde_json::value::to_raw_value(&rootfs)));
    fields.insert("history".into(), raw(serde_json::value::to_raw_value(history)));
    let text = serde_json::to_string(&fields).expect("it is plain data");
    Ok(escaped(&text).into_bytes())
}

/// As Go's encoding/json writes what HTML would take for its own; outside of strings none of it stands in JSON.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            other => out.push(other),
        }
    }
    out
}
