//! How an image's config grows by one instruction.

use crate::image::{DiffId, History, ImageConfig, Platform, RootFs};
use crate::plan;

/// The config of an image without layers.
pub(super) fn scratch(platform: &Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: platform.os.clone(),
        rootfs: RootFs { kind: "layers".into(), ..RootFs::default() },
        ..ImageConfig::default()
    }
}

/// The config after `step`, which left `layer`, made at `created` (RFC 3339). A step's result is the same image
/// whenever `created` is: that is why a cache record keeps it.
pub(super) fn after(
    before: &ImageConfig,
    step: &plan::Step,
    layer: Option<DiffId>,
    created: &str,
) -> ImageConfig {
    let mut config = before.clone();
    config.config = (*step.config).clone();
    config.author.clone_from(&step.author);
    config.created = Some(created.to_owned());
    config.history.push(History {
        created: Some(created.to_owned()),
        created_by: Some(step.created_by.clone()),
        author: step.author.clone(),
        empty_layer: layer.is_none(),
        ..History::default()
    });
    config.rootfs.diff_ids.extend(layer);
    // What described the container that made the base image describes no container of this one.
    for stale in ["container", "container_config", "docker_version", "id", "parent"] {
        config.other.shift_remove(stale);
    }
    crate::cache::forget_inline(&mut config);
    config
}

/// When a step is said to have been made that was made earlier, on something else: no earlier than what it stands on now,
/// so that an image is as new as the newest of its steps. Times that cannot be read are left.
pub(super) fn not_before(below: &ImageConfig, created: String, epoch: Option<i64>) -> String {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    let read = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    match (epoch, &below.created) {
        (None, Some(before)) if read(before) > read(&created) && read(&created).is_some() => before.clone(),
        _ => created,
    }
}

/// What it is built for, where that was asked for: the config says so whatever the image stands on (BuildKit).
pub(super) fn made_for(mut config: ImageConfig, platform: &Platform) -> ImageConfig {
    let platform = platform.normal();
    let own = Platform { variant: String::new(), ..config.platform().normal() };
    if own != (Platform { variant: String::new(), ..platform.clone() }) {
        config.variant.clear();
        for of_another in ["os.version", "os.features"] {
            config.other.shift_remove(of_another);
        }
        (config.os, config.architecture) = (platform.os, platform.architecture);
    }
    if !platform.variant.is_empty() {
        config.variant = platform.variant;
    }
    config
}

/// The bytes whose digest is the image's id.
pub(super) fn to_bytes(config: &ImageConfig) -> Vec<u8> {
    serde_json::to_vec(config).expect("configs are plain data")
}
