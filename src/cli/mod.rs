//! The command line: one verb per file; flags in, text out. Nothing is decided here.
//!
//! To add a verb: a file with an `Args` that is a [`Verb`], `mod` and a line in [`TABLE`].

mod format;
mod frame;
mod progress;

mod bake;
mod bootstrap;
mod build;
mod cache;
mod check;
mod commit;
mod confirm;
mod container;
mod container_prune;
mod copy;
mod create;
mod debug;
mod diff;
mod explain;
mod export;
mod foreground;
mod history;
mod image_prune;
mod images;
mod import;
mod info;
mod inspect;
mod layers;
mod load;
mod log;
mod login;
mod logout;
mod manifest;
mod mounts;
mod ps;
mod pull;
mod push;
mod registry;
mod rm;
mod rmi;
mod rollback;
mod run;
mod save;
mod start;
mod system_adopt;
mod system_df;
mod system_migrate;
mod system_prune;
mod tag;
mod undo;
mod version;

pub(crate) use frame::{Context, Verb, main};

use frame::{Entry, complain};

/// In the order `--help` lists them.
const TABLE: &[Entry] = &[
    Entry::of::<build::Args>(),
    Entry::of::<bake::Args>(),
    Entry::of::<debug::Args>(),
    Entry::of::<pull::Args>(),
    Entry::of::<push::Args>(),
    Entry::of::<copy::Args>(),
    Entry::of::<login::Args>(),
    Entry::of::<logout::Args>(),
    Entry::of::<run::Args>(),
    Entry::of::<create::Args>(),
    Entry::of::<start::Args>(),
    Entry::of::<ps::Args>(),
    Entry::of::<rm::Args>(),
    Entry::of::<diff::Args>(),
    Entry::of::<commit::Args>(),
    Entry::of::<export::Args>(),
    Entry::of::<images::Args>(),
    Entry::of::<history::Args>(),
    Entry::of::<layers::Args>(),
    Entry::of::<inspect::Args>(),
    Entry::of::<tag::Args>(),
    Entry::of::<rmi::Args>(),
    Entry::of::<log::Args>(),
    Entry::of::<rollback::Args>(),
    Entry::of::<undo::Args>(),
    Entry::of::<save::Args>(),
    Entry::of::<load::Args>(),
    Entry::of::<import::Args>(),
    Entry::of::<bootstrap::Args>(),
    Entry::of::<info::Args>(),
    Entry::of::<system_df::Args>(),
    Entry::of::<system_prune::Args>(),
    Entry::of::<system_migrate::Args>(),
    Entry::of::<system_adopt::Args>(),
    Entry::of::<explain::Args>(),
    Entry::of::<cache::Ls>(),
    Entry::of::<cache::Inspect>(),
    Entry::of::<cache::Prune>(),
    Entry::of::<check::Args>(),
    Entry::of::<image_prune::Args>(),
    Entry::of::<manifest::Create>(),
    Entry::of::<manifest::Annotate>(),
    Entry::of::<manifest::Inspect>(),
    Entry::of::<manifest::Push>(),
    Entry::of::<manifest::Remove>(),
    Entry::of::<inspect::ImageArgs>(),
    Entry::of::<container_prune::Args>(),
    Entry::of::<inspect::ContainerArgs>(),
    Entry::of::<version::Args>(),
];

/// What stands before the verb in a management form, and what `--help` says of it.
const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage builds"),
    ("cache", "Manage the build cache"),
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("manifest", "Manage image manifests and indexes"),
    ("network", "Manage networks"),
    ("system", "Manage outcrop"),
    ("volume", "Manage volumes"),
];
