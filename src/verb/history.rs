//! `history`: every instruction of an image, each with an image of its own.
//!
//! A build leaves an image after each instruction. Of an image that came from elsewhere only the last is here; the
//! others follow from its config, cut off after the instruction: [`entries`] says their ids, [`image_at`] makes them.

use crate::db::{ImageRow, LayerNumber, NewImage};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{DiffId, Digest, History, ImageConfig, ImageId, MediaType, RunConfig};
use crate::verb::images;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 1, the oldest.
    pub n: usize,
    /// The image after it. [`image_at`] brings it about where it is not here.
    pub id: ImageId,
    /// RFC 3339.
    pub created: Option<String>,
    pub created_by: String,
    /// Of its layer, in bytes.
    pub size: u64,
    /// `None` for an instruction that changed no file.
    pub layer: Option<DiffId>,
    pub layer_number: Option<LayerNumber>,
    pub comment: String,
}

/// Oldest first.
pub fn entries(engine: &Engine, image: &ImageId) -> Result<Vec<Entry>> {
    let line = Line::of(engine, image)?;
    let row = images::row(engine, image)?;
    let layers = engine.db.read(|index| index.stack(row.chain.as_ref()))?;
    let mut layers = layers.into_iter();
    let steps = line.config().steps();
    let entries = steps.iter().enumerate().map(|(before, step)| {
        let n = before + 1;
        let layer = step.layer.and_then(|_| layers.next());
        let said = step.history.cloned().unwrap_or_default();
        let made_by = layer.as_ref().and_then(|layer| layer.made_by.clone());
        Entry {
            n,
            id: line.at(n).id(),
            created: said.created,
            created_by: said.created_by.or(made_by).unwrap_or_default(),
            size: layer.as_ref().map_or(0, |layer| layer.size),
            layer: step.layer.copied(),
            layer_number: layer.map(|layer| layer.number),
            comment: said.comment.unwrap_or_default(),
        }
    });
    Ok(entries.collect())
}

/// The image after instruction `n`, counted from 1; published where it is not here. `Invalid` where there is no such
/// instruction.
pub fn image_at(engine: &Engine, image: &ImageId, n: usize) -> Result<ImageId> {
    let line = Line::of(engine, image)?;
    let count = line.config().steps().len();
    if n == 0 || n > count {
        let has = if count == 1 { "one instruction".to_owned() } else { format!("{count} instructions") };
        return Err(Error::invalid(format!("image {} has {has}, not {n}", image.short()))
            .hint("`outcrop history` shows them; they are counted from the oldest, which is 1"));
    }
    match line.at(n) {
        At::Here(id) => Ok(id),
        At::Made(config) => publish(engine, &images::row(engine, image)?, &config),
    }
}

/// The image whose id begins with these hex digits, among those that no row says but a history does; published.
/// `Invalid` where several do.
pub fn find(engine: &Engine, hex: &str) -> Result<Option<ImageId>> {
    let mut found: Vec<(ImageId, ImageId, usize)> = Vec::new();
    for row in engine.db.read(|index| index.images())?.into_iter().filter(|row| row.parent.is_none()) {
        let line = Line { known: vec![(row.id, images::config(engine, &row.id)?.0)] };
        for n in 1..line.config().steps().len() {
            let id = line.at(n).id();
            if id.hex().starts_with(hex) && found.iter().all(|(known, ..)| *known != id) {
                found.push((id, row.id, n));
            }
        }
    }
    match found[..] {
        [] => Ok(None),
        [(_, image, n)] => image_at(engine, &image, n).map(Some),
        _ => Err(images::ambiguous(hex, found.len())),
    }
}

/// An image and those it was made from, as far as each is the next one without its last instructions.
struct Line {
    /// The latest first; at least one.
    known: Vec<(ImageId, ImageConfig)>,
}

enum At {
    Here(ImageId),
    Made(Box<ImageConfig>),
}

impl At {
    fn id(&self) -> ImageId {
        match self {
            At::Here(id) => *id,
            At::Made(config) => ImageId(Digest::of(&config.to_bytes())),
        }
    }
}

impl Line {
    fn of(engine: &Engine, image: &ImageId) -> Result<Line> {
        let ancestry = engine.db.read(|index| index.ancestry(image))?;
        let mut known: Vec<(ImageId, ImageConfig)> = Vec::with_capacity(ancestry.len());
        for row in ancestry {
            let (config, _) = images::config(engine, &row.id)?;
            // What a squashed image was made of lies on another way to the same base.
            if known.last().is_some_and(|(_, later)| !begins(later, &config)) {
                continue;
            }
            known.push((row.id, config));
        }
        match known.is_empty() {
            true => Err(Error::not_found(format!("No such image: {image}"))),
            false => Ok(Line { known }),
        }
    }

    fn config(&self) -> &ImageConfig {
        &self.known[0].1
    }

    fn at(&self, n: usize) -> At {
        let reaching = self.known.iter().rev().find(|(_, config)| config.steps().len() >= n);
        let (id, config) = reaching.unwrap_or(&self.known[0]);
        match config.steps().len() == n {
            true => At::Here(*id),
            false => At::Made(Box::new(cut(config, n))),
        }
    }
}

/// Whether `later` is `earlier` and more instructions.
fn begins(later: &ImageConfig, earlier: &ImageConfig) -> bool {
    later.history.starts_with(&earlier.history)
        && later.rootfs.diff_ids.starts_with(&earlier.rootfs.diff_ids)
        && later.steps().len() > earlier.steps().len()
}

/// The config after the first `n` instructions. Cut twice it is what it is cut once.
///
/// How the image was to run then is said nowhere; what a later instruction set is left out, so that nothing is run
/// that is not there yet.
fn cut(config: &ImageConfig, n: usize) -> ImageConfig {
    let steps = config.steps();
    let (kept, gone) = steps.split_at(n);
    let mut cut = config.clone();
    cut.history = kept.iter().filter_map(|step| step.history.cloned()).collect();
    cut.rootfs.diff_ids = kept.iter().filter_map(|step| step.layer.copied()).collect();
    let last = cut.history.last().cloned().unwrap_or_default();
    cut.created = last.created;
    cut.author = last.author;
    for History { created_by, .. } in gone.iter().filter_map(|step| step.history) {
        unset(&mut cut.config, created_by.as_deref().unwrap_or_default());
    }
    // What builders say of how they came to the whole image.
    for stale in ["container", "container_config", "docker_version", "id", "parent"] {
        cut.other.shift_remove(stale);
    }
    cut.other.retain(|key, _| !key.starts_with("moby."));
    cut
}

/// `instruction` as a history says it: `CMD ["sh"]`, or `/bin/sh -c #(nop)  CMD ["sh"]` by the classic builder.
fn unset(config: &mut RunConfig, instruction: &str) {
    let instruction = instruction.strip_prefix("/bin/sh -c #(nop)").unwrap_or(instruction).trim_start();
    let (keyword, rest) = instruction.split_once(' ').unwrap_or((instruction, ""));
    match keyword {
        "CMD" => config.cmd = None,
        "ENTRYPOINT" => config.entrypoint = None,
        "USER" => config.user.clear(),
        "WORKDIR" => config.working_dir.clear(),
        "VOLUME" => config.volumes = None,
        "EXPOSE" => config.exposed_ports = None,
        "STOPSIGNAL" => config.stop_signal = None,
        "HEALTHCHECK" => config.healthcheck = None,
        "SHELL" => config.shell = None,
        "ONBUILD" => config.on_build = None,
        "ENV" => {
            let name = rest.split(['=', ' ']).next().unwrap_or_default();
            if let Some(env) = &mut config.env {
                env.retain(|pair| pair.split('=').next() != Some(name) || name == "PATH");
            }
        }
        _ => {}
    }
}

fn publish(engine: &Engine, whole: &ImageRow, config: &ImageConfig) -> Result<ImageId> {
    let staged = engine.blobs.stage(&config.to_bytes())?;
    let id = ImageId(staged.digest());
    engine.db.write(|index| {
        staged.publish(index, Some(&MediaType::OciConfig.to_string()))?;
        index.insert_image(&NewImage {
            id,
            parent: None,
            chain: config.chain(),
            platform: whole.platform.clone(),
            created: config.created.clone(),
            created_by: config.history.last().and_then(|last| last.created_by.clone()),
            origin: whole.origin,
            build: whole.build,
        })
    })?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageConfig;

    fn config() -> ImageConfig {
        let hex = |digit: char| format!("sha256:{}", digit.to_string().repeat(64));
        let text = serde_json::json!({
            "architecture": "amd64", "os": "linux", "created": "2024-03-03T00:00:00Z",
            "config": { "Env": ["PATH=/bin", "A=1", "B=2"], "Cmd": ["b"], "Entrypoint": ["/e"], "User": "app" },
            "rootfs": { "type": "layers", "diff_ids": [hex('1'), hex('2')] },
            "history": [
                { "created": "2024-03-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:1 in / " },
                { "created_by": "ENV A=1", "empty_layer": true },
                { "created_by": "/bin/sh -c #(nop)  ENTRYPOINT [\"/e\"]", "empty_layer": true },
                { "created_by": "RUN /bin/sh -c true", "author": "me" },
                { "created_by": "ENV B=2", "empty_layer": true },
            ],
            "moby.buildkit.cache.v0": "x",
        });
        ImageConfig::parse(text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_config_is_cut_off_after_an_instruction() {
        let two = cut(&config(), 2);
        assert_eq!(two.steps().len(), 2);
        assert_eq!(two.rootfs.diff_ids.len(), 1);
        assert_eq!(two.config.env, Some(vec!["PATH=/bin".into(), "A=1".into()]));
        assert_eq!(two.config.entrypoint, None);
        assert_eq!(two.config.user, "app");
        assert_eq!(two.other, serde_json::Map::new());
        let four = cut(&config(), 4);
        assert_eq!(four.rootfs.diff_ids.len(), 2);
        assert_eq!(four.author.as_deref(), Some("me"));
        assert_eq!(four.config.entrypoint, Some(vec!["/e".into()]));
    }

    #[test]
    fn cut_twice_is_cut_once() {
        assert_eq!(cut(&cut(&config(), 4), 1).to_bytes(), cut(&config(), 1).to_bytes());
    }
}
