//! `ps`: the containers.

use std::process::ExitCode;
use std::time::Duration;

use outcrop::container::{self, Mount, MountKind};
use outcrop::db::{ContainerRow, ContainerState, Time};
use outcrop::error::{Error, Result};
use outcrop::job::Job;
use outcrop::verb::images;
use outcrop::verb::ps::{self, Listed};

use super::format::{Filters, List, Row, ago, ellipsis, human_duration, quoted, size, time};
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// The last ones that were created, so many; running or not
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        default_value = "-1",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    last: i64,
    /// The last one that was created, running or not
    #[arg(short, long)]
    latest: bool,
    /// Ids alone
    #[arg(short, long)]
    quiet: bool,
    /// How much they have written
    #[arg(short, long)]
    size: bool,
    /// Show ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    /// A Go template, `table` with one, or `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only those that match; repeated keys are alternatives
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

const FILTERS: [&str; 10] =
    ["ancestor", "before", "exited", "id", "label", "name", "network", "since", "status", "volume"];

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["ps", "container ls", "container list", "container ps"];
    const ABOUT: &'static str = "List containers";
    const EXAMPLE: &'static str = "outcrop ps -a\noutcrop ps -aq --filter status=exited\noutcrop ps -a --format '{{.Names}}: {{.Status}}'";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let filters = Filters::parse(&self.filter, &FILTERS)?;
        let engine = context.engine()?;
        let list = if self.quiet && self.format.is_none() {
            List::quiet("ID")
        } else {
            let table = if self.size { format!("{TABLE}\t{{{{.Size}}}}") } else { TABLE.to_owned() };
            List::new(self.format.as_deref(), HEADINGS, &table)?
        };
        let wants_size = self.size || self.format.as_deref().is_some_and(|format| format.contains(".Size"));
        let mut chosen = self.chosen(context, &filters, ps::ps(engine)?)?;
        let last = if self.latest { 1 } else { self.last };
        if let Ok(last) = usize::try_from(last).map(|last| if last == 0 { usize::MAX } else { last }) {
            chosen.truncate(last);
        }
        let job = Job::silent();
        let mut out = context.out();
        let now = Time::now();
        list.write(
            &mut out,
            chosen.iter().map(|listed| {
                let sizes = if wants_size { Some(ps::sizes(engine, listed, &job)?) } else { None };
                Ok(self.row(listed, sizes, now))
            }),
        )?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn chosen(&self, context: &Context, filters: &Filters, all: Vec<Listed>) -> Result<Vec<Listed>> {
        let engine = context.engine()?;
        let every = self.all
            || self.latest
            || self.last >= 0
            || ["status", "exited"].iter().any(|key| filters.values(key).next().is_some());
        for status in filters.values("status") {
            if !["created", "running", "exited", "paused", "restarting", "removing", "dead"].contains(&status)
            {
                return Err(Error::invalid(format!("invalid filter 'status={status}'"))
                    .hint("it is created, running or exited"));
            }
        }
        let bound = |key: &str| -> Result<Option<Time>> {
            let found = filters.values(key).last().map(|name| container::resolve(engine, name));
            Ok(found.transpose()?.map(|row| row.created_at))
        };
        let (before, since) = (bound("before")?, bound("since")?);
        let mut codes = Vec::new();
        for code in filters.values("exited") {
            codes.push(
                code.parse::<i32>().map_err(|cause| {
                    Error::invalid(format!("invalid filter 'exited={code}'")).because(cause)
                })?,
            );
        }
        let mut ancestors = Vec::new();
        for name in filters.values("ancestor") {
            ancestors.extend(images::find(engine, name)?.map(|image| image.id));
        }
        let mut chosen = Vec::new();
        for listed in all {
            let Listed { row, config, .. } = &listed;
            let descends = || -> Result<bool> {
                let line = engine.db.read(|index| index.ancestry(&row.image))?;
                Ok(line.iter().any(|image| ancestors.contains(&image.id)))
            };
            let uses = |wanted: &str| {
                config.mounts.iter().any(|mount| mount.target == wanted || source(mount) == wanted)
            };
            if (every || row.state == ContainerState::Running)
                && filters.any("id", |prefix| row.id.as_str().starts_with(prefix))
                && filters.any("name", |part| row.name.contains(part.trim_start_matches('/')))
                && filters.any("status", |status| row.state.as_str() == status)
                && filters.any("network", |network| config.network == network)
                && filters.any("volume", uses)
                && filters.labels(|key| config.labels.get(key).map(String::as_str))
                && (codes.is_empty()
                    || row.state == ContainerState::Exited
                        && row.exit_code.is_some_and(|code| codes.contains(&code)))
                && before.is_none_or(|before| row.created_at < before)
                && since.is_none_or(|since| row.created_at > since)
                && (filters.values("ancestor").next().is_none() || descends()?)
            {
                chosen.push(listed);
            }
        }
        Ok(chosen)
    }

    fn row(&self, listed: &Listed, sizes: Option<(u64, u64)>, now: Time) -> Row {
        let Listed { row, config, image, .. } = listed;
        let trunc = |text: String, width| if self.no_trunc { text } else { ellipsis(&text, width) };
        let labels: Vec<String> = config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mounts: Vec<String> = config.mounts.iter().map(|mount| trunc(source(mount), 15)).collect();
        let volumes =
            config.mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Volume { .. })).count();
        let shown = match sizes {
            Some((own, all)) => format!("{} (virtual {})", size(own), size(all)),
            None => "0B".into(),
        };
        let values = [
            ("ID", if self.no_trunc { row.id.to_string() } else { row.id.short().to_owned() }),
            ("Names", row.name.clone()),
            ("Image", image.clone()),
            ("Command", quoted(&trunc(config.command_line(), 20))),
            ("CreatedAt", time(row.created_at.seconds())),
            ("RunningFor", ago(elapsed(row.created_at, now))),
            ("Ports", String::new()),
            ("State", row.state.as_str().to_owned()),
            ("Status", status(row, now)),
            ("Size", shown),
            ("Labels", labels.join(",")),
            ("Mounts", mounts.join(",")),
            ("LocalVolumes", volumes.to_string()),
            ("Networks", config.network.clone()),
        ];
        values.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

fn source(mount: &Mount) -> String {
    match &mount.kind {
        MountKind::Bind { source, .. } => source.clone(),
        MountKind::Volume { name, .. } => name.clone().unwrap_or_default(),
    }
}

fn elapsed(since: Time, now: Time) -> Duration {
    Duration::from_nanos(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0))
}

/// Docker's words.
fn status(row: &ContainerRow, now: Time) -> String {
    let since = |time: Option<Time>| elapsed(time.unwrap_or(now), now);
    match row.state {
        ContainerState::Created => "Created".into(),
        ContainerState::Running => format!("Up {}", human_duration(since(row.started_at))),
        ContainerState::Exited => {
            format!("Exited ({}) {}", row.exit_code.unwrap_or(0), ago(since(row.finished_at)))
        }
        ContainerState::Removing => "Removal In Progress".into(),
    }
}
