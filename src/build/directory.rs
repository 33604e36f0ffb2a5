//! A stage that stands on a directory: one layer of its files, as a COPY of all of it would make.

use std::os::fd::AsFd as _;

use super::stage::Stage;
use super::{Base, Context, image, record};
use crate::context::{Digests, Input, Tree, copy};
use crate::error::{Context as _, Error, Result};
use crate::image::{History, Platform};
use crate::rootfs::{self, Known, Made, Stack};
use crate::snapshot::Purpose;

pub(super) fn base(
    stage: &Stage<'_>,
    context: &Context<'_>,
    name: &str,
    platform: &Platform,
) -> Result<Base> {
    let say = || format!("the build context `{name}`");
    for _ in 0..3 {
        let tree = tree(context, name)?;
        let selection = tree.subtree("", stage.job)?;
        let input = Input { tree, selection, identity: None };
        let draft = stage.engine.snapshots.draft(None, Purpose::Layer)?;
        let copied = {
            let root = draft.mounted()?;
            copy::into(root.as_fd(), "/", &[input.reference()], &[], copy::Options::default(), stage.job)
                .context(say)?
        };
        let created_by = format!("FROM {name}");
        let made = Made {
            instruction: Some(&created_by),
            build: Some(stage.inputs.record),
            epoch: stage.inputs.epoch,
        };
        let files = copied.files.iter().map(|file| (&file.path[..], file.digest)).collect();
        let known = Known { files, ..Known::default() };
        let below = Stack::default();
        let packed = rootfs::pack(stage.engine, draft, &below, &made, known, stage.inputs.lease, stage.job)?;
        let rootfs::Outcome::Layer(layer) = packed else { continue };
        let mut config = image::scratch(platform);
        // No time of its own: equal files are an equal image.
        config.history.push(History { created_by: Some(created_by), ..History::default() });
        config.rootfs.diff_ids.push(layer.diff_id);
        config.config.working_dir = "/".into();
        let stack = below.with(layer);
        let id = record::publish_image(stage.engine, &config, None, &stack, stage.inputs.record)?;
        return Ok(Base { image: Some(id), config, stack });
    }
    Err(Error::unavailable(format!("the files of {} keep changing while they are copied", say())))
}

/// Its files, without what its `.dockerignore` leaves out.
pub(super) fn tree<'b>(context: &Context<'b>, name: &str) -> Result<Tree<'b>> {
    let root = crate::context::open(context.dir)?;
    let what = format!("the build context `{name}`");
    Ok(Tree::new(root, what, Digests::Stat(context.stats)).excluding(context.ignore))
}
