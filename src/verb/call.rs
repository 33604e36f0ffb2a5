//! `build --call`: a Dockerfile is asked about and nothing is built: what checks find, what it can be told, what it
//! can make.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::dockerfile::{
    self, Checked, Dockerfile, Outline, PlanOptions, Resolver, RunOptions, Scope, Target,
};
use crate::engine::Engine;
use crate::error::Result;
use crate::image::{ImageConfig, Platform, Reference};
use crate::verb::build::{self, Options};
use crate::verb::images;

/// All stages are looked at, unless a target is named.
pub fn check(engine: &Engine, options: &Options) -> Result<Checked> {
    let ignore = build::ignore(options)?;
    let scope = Scope { all_stages: options.target.is_none(), ignore: Some(&ignore) };
    let (name, text) = (&options.dockerfile_name, &options.dockerfile);
    Ok(dockerfile::check(name, text, &plan_options(options), &Here::new(engine), scope))
}

/// What the target can be told.
pub fn outline(engine: &Engine, options: &Options) -> Result<Outline> {
    let dockerfile = Dockerfile::parse(&options.dockerfile_name, &options.dockerfile)?;
    dockerfile.outline(&plan_options(options), &Here::new(engine))
}

/// What can be made.
pub fn targets(options: &Options) -> Result<Vec<Target>> {
    Ok(Dockerfile::parse(&options.dockerfile_name, &options.dockerfile)?.targets())
}

/// Nothing runs: what steps ask for need not have been given.
fn plan_options(options: &Options) -> PlanOptions {
    let run = RunOptions { insecure: true, ..RunOptions::default() };
    PlanOptions { run, ..build::plan_options(options, &options.platform) }
}

/// Base images as far as they are here; of others nothing is known, and nothing is pulled.
struct Here<'e> {
    engine: &'e Engine,
    known: Mutex<BTreeMap<String, bool>>,
}

impl<'e> Here<'e> {
    fn new(engine: &'e Engine) -> Self {
        Here { engine, known: Mutex::default() }
    }
}

impl Resolver for Here<'_> {
    fn base(&self, reference: &str, _: &Platform) -> Result<ImageConfig> {
        let row = images::find(self.engine, reference)?;
        self.known.lock().expect("no holder panics").insert(reference.to_owned(), row.is_some());
        match row {
            Some(row) => Ok(images::config(self.engine, &row.id)?.0),
            None => {
                // A name that cannot be one is an error all the same.
                let _well_formed: Reference = reference.parse()?;
                Ok(ImageConfig::default())
            }
        }
    }

    fn is_known(&self, reference: &str, _: &Platform) -> bool {
        self.known.lock().expect("no holder panics").get(reference).copied().unwrap_or(false)
    }
}
