//! `rmi`: names are taken away, and images that nothing needs any more.
//!
//! The rules are Docker's. By name: the name goes, and with its last name the image, unless something stands on it. By
//! id: all names go where they are of one repository, and the image must be one that nothing needs.

use crate::db::{Condemned, ContainerRow, ContainerState, Durable, ImageRow};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{ChainId, ImageId, Reference};
use crate::verb::images;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Also what has several names, or a stopped container.
    pub force: bool,
    /// Images without a name that it was made from stay.
    pub keep_parents: bool,
}

/// What went, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name, or a repository's digest, as people write it.
    Name(String),
    Image(ImageId),
    /// A layer, by the stack it was the top of.
    Layer(ChainId),
}

pub fn rmi(engine: &Engine, text: &str, options: Options) -> Result<Vec<Removed>> {
    let image = images::resolve(engine, text)?;
    let name = text.parse::<Reference>().ok();
    // One transaction: what is found is still so when it is acted upon.
    let removed = engine.db.durable(|index| {
        let names = Names::of(index, &image.id)?;
        match name.filter(|name| names.has(name)) {
            Some(name) => by_name(index, &image, &name, names, options),
            None => by_id(index, &image, names, options),
        }
    })?;
    engine.sweep()?;
    Ok(removed)
}

/// What an image is called.
struct Names {
    tags: Vec<Reference>,
    /// Repositories with a digest.
    digests: Vec<Reference>,
}

impl Names {
    fn of(index: &Durable<'_>, image: &ImageId) -> Result<Names> {
        let tags = index.tags_of(image)?.iter().map(|tag| tag.name.parse()).collect::<Result<_>>()?;
        let digests = index.repo_digests_of(image)?;
        let digests = digests.iter().map(|known| format!("{}@{}", known.repository, known.digest).parse());
        Ok(Names { tags, digests: digests.collect::<Result<_>>()? })
    }

    fn has(&self, name: &Reference) -> bool {
        match name.digest() {
            Some(_) => self.digests.iter().any(|known| same_digest(known, name)),
            None => self.tags.contains(name),
        }
    }

    fn repositories(&self) -> usize {
        let mut names: Vec<String> = self.tags.iter().chain(&self.digests).map(Reference::name).collect();
        names.sort();
        names.dedup();
        names.len()
    }

    /// To take it away is to take the image's last name away: digests of the same repository go along.
    fn is_one(&self) -> bool {
        self.tags.len() <= 1 && self.repositories() <= 1
    }

    fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.digests.is_empty()
    }
}

/// Of the same repository; a tag beside the digest says nothing.
fn same_digest(known: &Reference, name: &Reference) -> bool {
    known.name() == name.name() && known.digest() == name.digest()
}

fn by_name(
    index: &Durable<'_>,
    image: &ImageRow,
    name: &Reference,
    mut names: Names,
    options: Options,
) -> Result<Vec<Removed>> {
    let users = index.containers_of(&image.id)?;
    if let Some(user) = users.first().filter(|_| !options.force && names.is_one()) {
        return Err(Error::conflict(format!(
            "conflict: unable to remove repository reference \"{}\" (must force) - container {} is using its \
             referenced image {}",
            name.familiar(),
            user.id.short(),
            image.id.short()
        ))
        .hint(remove_container(user)));
    }
    let mut removed = Vec::new();
    if name.digest().is_some() {
        let at = names.digests.iter().position(|known| same_digest(known, name));
        removed.push(remove_digest(index, &names.digests.remove(at.expect("the caller looked")))?);
    } else {
        names.tags.retain(|tag| tag != name);
        removed.push(remove_tag(index, name)?);
        if !names.tags.iter().any(|tag| tag.name() == name.name()) {
            let (here, elsewhere) = names.digests.into_iter().partition(|known| known.name() == name.name());
            names.digests = elsewhere;
            let here: Vec<Reference> = here;
            for digest in &here {
                removed.push(remove_digest(index, digest)?);
            }
        }
    }
    // Without a name, what something stands on stays silently; so does what an index with a name has.
    if names.is_empty() && index.image_is_unused(&image.id)? {
        delete(index, image, options, &mut removed)?;
    }
    Ok(removed)
}

fn by_id(index: &Durable<'_>, image: &ImageRow, names: Names, options: Options) -> Result<Vec<Removed>> {
    let short = image.id.short();
    let conflict =
        |how: &str, why: &str| Error::conflict(format!("conflict: unable to delete {short} ({how}) - {why}"));
    if !index.children_of(&image.id)?.is_empty() {
        return Err(conflict("cannot be forced", "image has dependent child images")
            .hint("remove the images made from it first: `outcrop images -a` shows them"));
    }
    let users = index.containers_of(&image.id)?;
    if let Some(user) = users.iter().find(|user| user.state == ContainerState::Running) {
        return Err(conflict(
            "cannot be forced",
            &format!("image is being used by running container {}", user.id.short()),
        )
        .hint(remove_container(user)));
    }
    if !options.force {
        if !names.is_one() {
            return Err(conflict("must be forced", "image is referenced in multiple repositories")
                .hint("remove its names one by one, or all of them with --force"));
        }
        if let Some(user) = users.first() {
            return Err(conflict(
                "must be forced",
                &format!("image is being used by stopped container {}", user.id.short()),
            )
            .hint(remove_container(user)));
        }
    }
    let mut removed = Vec::new();
    for tag in &names.tags {
        removed.push(remove_tag(index, tag)?);
    }
    for digest in &names.digests {
        removed.push(remove_digest(index, digest)?);
    }
    // A stopped container needs its image: that goes, without a name, when the container does.
    if users.is_empty() {
        delete(index, image, options, &mut removed)?;
    }
    Ok(removed)
}

fn remove_container(user: &ContainerRow) -> String {
    let force = if user.state == ContainerState::Running { "-f " } else { "" };
    format!("remove the container first: `outcrop rm {force}{}`", user.id.short())
}

fn remove_tag(index: &Durable<'_>, name: &Reference) -> Result<Removed> {
    index.remove_tag(&name.to_string(), "rmi", None)?;
    Ok(Removed::Name(name.familiar()))
}

fn remove_digest(index: &Durable<'_>, name: &Reference) -> Result<Removed> {
    let digest = name.digest().expect("a repository's digest has one");
    index.remove_repo_digest(&name.name(), digest)?;
    Ok(Removed::Name(name.familiar()))
}

fn delete(index: &Durable<'_>, image: &ImageRow, options: Options, removed: &mut Vec<Removed>) -> Result<()> {
    let before = Stacks::of(index, &image.id)?;
    let gone = match options.keep_parents {
        false => index.condemn_images(&[image.id])?,
        true => index.condemn_image_alone(&image.id)?,
    };
    removed.extend(before.told(&gone));
    Ok(())
}

/// What images stood on, asked before they went.
pub(super) struct Stacks(Vec<(ImageRow, Vec<(ChainId, crate::db::LayerNumber)>)>);

impl Stacks {
    /// Of an image and all it was made from.
    pub(super) fn of(index: &crate::db::Reader<'_>, image: &ImageId) -> Result<Stacks> {
        Self::of_all(index, std::slice::from_ref(image))
    }

    pub(super) fn of_all(index: &crate::db::Reader<'_>, images: &[ImageId]) -> Result<Stacks> {
        let mut stacks: Vec<(ImageRow, _)> = Vec::new();
        for image in images {
            for row in index.ancestry(image)? {
                if stacks.iter().any(|(known, _)| known.id == row.id) {
                    break;
                }
                let chains = index.chain_ids(row.chain.as_ref())?;
                let layers = index.stack(row.chain.as_ref())?;
                let pairs = chains.into_iter().zip(layers.iter().map(|layer| layer.number));
                stacks.push((row, pairs.collect()));
            }
        }
        Ok(Stacks(stacks))
    }

    /// Each image, and the layers that went with it, the topmost first.
    pub(super) fn told(&self, gone: &Condemned) -> Vec<Removed> {
        let mut told = Vec::new();
        for id in &gone.images {
            told.push(Removed::Image(*id));
            let stack = self.0.iter().find(|(row, _)| row.id == *id);
            for (chain, number) in stack.iter().flat_map(|(_, stack)| stack.iter().rev()) {
                let went = gone.layers.iter().any(|(layer, _)| layer == number);
                // With the last image that had it: an image below may have it too.
                let later = gone.images.iter().skip_while(|other| *other != id).skip(1);
                let mut later = later.filter_map(|other| self.0.iter().find(|(row, _)| row.id == *other));
                if went && !later.any(|(_, stack)| stack.iter().any(|(other, _)| other == chain)) {
                    told.push(Removed::Layer(*chain));
                }
            }
        }
        told
    }
}
