//! `inspect`: one thing of the store as JSON, in Docker's words. One function for each kind; `None` where there is no
//! such thing.

use serde_json::{Map, Value, json};

use crate::container;
use crate::db::{ImageRow, VolumeRow};
use crate::engine::Engine;
use crate::error::{Context as _, Result};
use crate::image::{ImageConfig, Reference};
use crate::job::Job;
use crate::snapshot::driver::Shape;
use crate::verb::{container_inspect, images};

/// What Docker says where there is no time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// By name, or by id.
pub fn image(engine: &Engine, name: &str) -> Result<Option<Value>> {
    let Some(row) = images::find(engine, name)? else { return Ok(None) };
    let (config, _) = images::config(engine, &row.id)?;
    let (tags, digests) =
        engine.db.read(|index| Ok((index.tags_of(&row.id)?, index.repo_digests_of(&row.id)?)))?;
    let familiar = |name: &str| name.parse::<Reference>().map(|name| name.familiar());
    let repo_tags: Vec<String> = tags.iter().map(|tag| familiar(&tag.name)).collect::<Result<_>>()?;
    let repo_digests: Vec<String> = digests
        .iter()
        .map(|known| familiar(&format!("{}@{}", known.repository, known.digest)))
        .collect::<Result<_>>()?;
    let last_tagged = tags.iter().map(|tag| tag.moved_at).max();
    let mut object = json!({
        "Id": row.id.to_string(),
        "RepoTags": repo_tags,
        "RepoDigests": repo_digests,
        "Parent": row.parent.map_or_else(String::new, |parent| parent.to_string()),
        "Comment": config.history.last().and_then(|last| last.comment.clone()).unwrap_or_default(),
        "Created": config.created.as_deref().unwrap_or(NEVER),
        "DockerVersion": config.other.get("docker_version").and_then(Value::as_str).unwrap_or_default(),
        "Author": config.author.as_deref().unwrap_or_default(),
        "Config": run_config(&config)?,
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": row.size,
        "GraphDriver": { "Data": graph_data(engine, &row)?, "Name": engine.snapshots.driver().name() },
        "RootFS": { "Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": last_tagged.map_or_else(|| NEVER.to_owned(), |time| time.to_string()) },
    });
    if !config.variant.is_empty() {
        object["Variant"] = config.variant.into();
    }
    Ok(Some(object))
}

/// With all the fields that templates ask for, whether they hold something or not.
fn run_config(config: &ImageConfig) -> Result<Value> {
    let mut fields = Map::new();
    for (name, empty) in [
        ("Hostname", json!("")),
        ("Domainname", json!("")),
        ("User", json!("")),
        ("AttachStdin", json!(false)),
        ("AttachStdout", json!(false)),
        ("AttachStderr", json!(false)),
        ("ExposedPorts", Value::Null),
        ("Tty", json!(false)),
        ("OpenStdin", json!(false)),
        ("StdinOnce", json!(false)),
        ("Env", Value::Null),
        ("Cmd", Value::Null),
        ("Healthcheck", Value::Null),
        ("ArgsEscaped", Value::Null),
        ("Image", json!("")),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
        ("Entrypoint", Value::Null),
        ("OnBuild", Value::Null),
        ("Labels", Value::Null),
        ("StopSignal", Value::Null),
        ("StopTimeout", Value::Null),
        ("Shell", Value::Null),
    ] {
        fields.insert(name.to_owned(), empty);
    }
    let said = serde_json::to_value(&config.config).context(|| "writing an image's configuration")?;
    if let Value::Object(said) = said {
        fields.extend(said);
    }
    // Docker leaves these out where an image does not say them.
    for optional in ["ExposedPorts", "Healthcheck", "ArgsEscaped", "StopSignal", "StopTimeout", "Shell"] {
        if fields.get(optional).is_some_and(Value::is_null) {
            fields.shift_remove(optional);
        }
    }
    Ok(Value::Object(fields))
}

/// Where the driver keeps the layers.
fn graph_data(engine: &Engine, row: &ImageRow) -> Result<Value> {
    let driver = engine.snapshots.driver();
    let trees = engine.snapshots.stack(row.chain.as_ref()).unwrap_or_default();
    let mut dirs = Vec::with_capacity(trees.len());
    for tree in trees {
        dirs.push(driver.path(tree).to_string_lossy().into_owned());
    }
    let Some((upper, lower)) = dirs.split_first() else { return Ok(Value::Null) };
    Ok(match driver.shape() {
        Shape::Layered if lower.is_empty() => json!({ "UpperDir": upper }),
        Shape::Layered => json!({ "LowerDir": lower.join(":"), "UpperDir": upper }),
        Shape::Stacked => json!({ "Dir": upper }),
    })
}

/// By name or id; with the sizes of its writable layer and of all it sees where `sizes` is set.
pub fn container(engine: &Engine, name: &str, sizes: bool, job: &Job) -> Result<Option<Value>> {
    let Some(row) = container::find(engine, name)? else { return Ok(None) };
    let mut object = container_inspect(engine, &row)?;
    if sizes {
        let own = container::changed_bytes(engine, &row, job)?;
        object["SizeRw"] = own.into();
        object["SizeRootFs"] = (own + images::row(engine, &row.image)?.size).into();
    }
    Ok(Some(object))
}

pub fn volume(engine: &Engine, name: &str) -> Result<Option<Value>> {
    let row = engine.db.read(|index| index.volume(name))?;
    Ok(row.map(|row| volume_object(engine, &row)))
}

fn volume_object(engine: &Engine, row: &VolumeRow) -> Value {
    json!({
        "CreatedAt": row.made_at.to_string(),
        "Driver": "local",
        "Labels": row.labels,
        "Mountpoint": engine.root.join("volumes").join(&row.name).join("_data").to_string_lossy(),
        "Name": row.name,
        "Options": null,
        "Scope": "local",
    })
}
