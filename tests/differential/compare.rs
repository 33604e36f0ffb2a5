//! A project built twice: where all earlier builds are remembered, and where none is.

use outcrop::engine::Engine;
use outcrop::error::Error;
use outcrop::image::{ImageConfig, ImageId};
use outcrop::job::Job;
use outcrop::rootfs::Stack;
use outcrop::verb::build::{self, Options};
use outcrop::verb::images;

use super::project::Project;
use super::random::Random;
use super::stores::{Store, Stores};

pub(super) struct Case<'s> {
    stores: &'s Stores,
    number: u64,
    incremental: Store,
    hole: Option<&'static str>,
    /// With SOURCE_DATE_EPOCH images must be equal to the byte.
    epoch: bool,
    /// Such a project is now and then built without it, too.
    checks: usize,
}

impl<'s> Case<'s> {
    pub(super) fn new(
        stores: &'s Stores,
        number: u64,
        random: &mut Random,
        hole: Option<&'static str>,
    ) -> Self {
        let incremental = stores.fresh(&format!("incremental-{number}"));
        Case { stores, number, incremental, hole, epoch: random.one_in(3), checks: 0 }
    }

    /// Says how the two results differ, with all it takes to see it again.
    pub(super) fn check(&mut self, project: &Project, ask: fn(&mut Options)) -> Result<(), String> {
        let context = self.stores.place(&format!("context-{}", self.number));
        project.write(&context);
        let mut options = Options::new("Dockerfile", project.dockerfile());
        options.context = Some(context.clone());
        options.build_args.clone_from(&project.args);
        self.checks += 1;
        let epoch = self.epoch && !self.checks.is_multiple_of(3);
        if epoch {
            options.build_args.insert("SOURCE_DATE_EPOCH".into(), "1".into());
        }
        ask(&mut options);
        let clean = self.stores.fresh(&format!("clean-{}", self.number));
        let expected = build(clean.engine(), &options);
        #[cfg(debug_assertions)]
        {
            options.hole = self.hole;
        }
        let got = build(self.incremental.engine(), &options);
        let same = match (&expected, &got) {
            (Ok(expected), Ok(got)) if epoch => expected == got,
            (Ok(expected), Ok(got)) => expected.same_but_for_times(got),
            (Err(expected), Err(got)) => expected.kind() == got.kind(),
            _ => false,
        };
        drop(std::fs::remove_dir_all(&context));
        if same {
            return Ok(());
        }
        Err(format!(
            "built from nothing: {}\nbuilt on what was there: {}\nwith {:?}\n{}{project:?}",
            told(&expected),
            told(&got),
            options.build_args,
            project.dockerfile()
        ))
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    image: ImageId,
    contents: Vec<String>,
    config: ImageConfig,
}

impl Outcome {
    fn same_but_for_times(&self, other: &Outcome) -> bool {
        self.contents == other.contents && timeless(&self.config) == timeless(&other.config)
    }
}

/// A line for each entry of the history.
fn told(result: &Result<Outcome, Error>) -> String {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => return format!("{error:?}"),
    };
    let mut contents = outcome.contents.iter();
    let lines = outcome.config.history.iter().map(|entry| {
        let content = if entry.empty_layer { "-" } else { contents.next().map_or("?", |id| &id[7..19]) };
        format!("\n  {content:12}  {}", entry.created_by.as_deref().unwrap_or_default())
    });
    format!("{}{}", lines.collect::<String>(), format_args!("\n  {:?}", outcome.config.config))
}

fn timeless(config: &ImageConfig) -> ImageConfig {
    let mut config = config.clone();
    config.created = None;
    config.rootfs.diff_ids.clear();
    config.history.iter_mut().for_each(|entry| entry.created = None);
    config
}

fn build(engine: &Engine, options: &Options) -> Result<Outcome, Error> {
    let built = build::build(engine, options, &Job::silent())?;
    let (config, _) = images::config(engine, &built.image)?;
    let row = images::row(engine, &built.image)?;
    let stack = Stack::load(engine, row.chain.as_ref())?;
    let contents = stack.content_ids().iter().map(ToString::to_string).collect();
    Ok(Outcome { image: built.image, contents, config })
}
