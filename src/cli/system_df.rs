//! `system df`: what takes how much room.

use std::process::ExitCode;

use outcrop::db::{ContainerState, Time};
use outcrop::error::Result;
use outcrop::job::Job;
use outcrop::verb::disk_usage::{self, DiskUsage};

use super::format::{List, Row, ago_at, ellipsis, percent, size, size_exact};
use super::frame::Out;
use super::history::one_line;
use super::images::NONE;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, `table` and a template, or `json`
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    format: Option<String>,
    /// Show each image, container, volume and cache record
    #[arg(short, long)]
    verbose: bool,
}

const HEADINGS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const TABLE: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["system df"];
    const ABOUT: &'static str = "Show how much room everything takes";
    const EXAMPLE: &'static str = "outcrop system df\noutcrop system df -v";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let list = List::new(self.format.as_deref(), HEADINGS, TABLE)?;
        let usage = disk_usage::disk_usage(context.engine()?, &Job::silent())?;
        let mut out = context.out();
        match self.verbose {
            false => list.write(&mut out, summary(&usage).into_iter().map(Ok))?,
            true => verbose(&mut out, &usage)?,
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn summary(usage: &DiskUsage) -> Vec<Row> {
    let index = &usage.index;
    let of = |part: u64, whole: u64| match whole {
        0 => size_exact(part),
        _ => format!("{} ({})", size_exact(part), percent(part, whole)),
    };
    let lines = [
        (
            "Images",
            index.images,
            index.active_images,
            index.image_bytes,
            of(index.reclaimable_image_bytes, index.image_bytes),
        ),
        (
            "Containers",
            index.containers,
            index.running_containers,
            usage.container_bytes(),
            of(usage.reclaimable_container_bytes(), usage.container_bytes()),
        ),
        (
            "Local Volumes",
            index.volumes,
            index.active_volumes,
            usage.volume_bytes(),
            of(usage.reclaimable_volume_bytes(), usage.volume_bytes()),
        ),
        // Layers that images have too are counted there.
        (
            "Build Cache",
            index.cache_records + usage.kept.len() as u64,
            usage.kept.iter().filter(|used| used.in_use).count() as u64,
            index.cache_bytes + usage.kept_bytes(),
            size_exact(index.cache_bytes + usage.reclaimable_kept_bytes()),
        ),
    ];
    let line = |(kind, total, active, bytes, reclaimable): (&str, u64, u64, u64, String)| {
        row([
            ("Type", kind.to_owned()),
            ("TotalCount", total.to_string()),
            ("Active", active.to_string()),
            ("Size", size_exact(bytes)),
            ("Reclaimable", reclaimable),
        ])
    };
    lines.into_iter().map(line).collect()
}

fn row<const N: usize>(fields: [(&str, String); N]) -> Row {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

const IMAGES: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("Created", "CREATED"),
    ("Size", "SIZE"),
    ("Shared", "SHARED SIZE"),
    ("Unique", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];
const CONTAINERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("Volumes", "LOCAL VOLUMES"),
    ("Size", "SIZE"),
    ("Created", "CREATED"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
];
/// As Docker cuts a command off.
const COMMAND_WIDTH: usize = 20;
const VOLUMES: &[(&str, &str)] = &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
const CACHE: &[(&str, &str)] = &[
    ("ID", "CACHE ID"),
    ("Kind", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("Created", "CREATED"),
    ("Used", "LAST USED"),
    ("Usage", "USAGE"),
    ("Shared", "SHARED"),
];

fn verbose(out: &mut Out, usage: &DiskUsage) -> Result<()> {
    out.line("Images space usage:\n")?;
    table(
        out,
        IMAGES,
        usage.images.iter().map(|used| {
            let name = used.image.tags.first();
            let text = |part: Option<String>| part.unwrap_or_else(|| NONE.to_owned());
            row([
                ("Repository", text(name.map(|name| name.familiar_name()))),
                ("Tag", text(name.and_then(|name| name.tag().map(str::to_owned)))),
                ("ID", used.image.row.id.short()),
                ("Created", used.image.created.map_or_else(|| "N/A".into(), ago)),
                ("Size", size(used.image.row.size)),
                ("Shared", size(used.image.row.size.saturating_sub(used.unique))),
                ("Unique", size(used.unique)),
                ("Containers", used.image.containers.to_string()),
            ])
        }),
    )?;
    out.line("\nContainers space usage:\n")?;
    table(
        out,
        CONTAINERS,
        usage.containers.iter().map(|used| {
            let status = match used.row.state {
                ContainerState::Created => "Created",
                ContainerState::Running => "Up",
                ContainerState::Exited => "Exited",
                ContainerState::Removing => "Removing",
            };
            row([
                ("ID", used.row.id.short().to_owned()),
                ("Image", used.image.clone()),
                ("Command", format!("\"{}\"", ellipsis(&one_line(&used.command), COMMAND_WIDTH))),
                ("Volumes", used.volumes.to_string()),
                ("Size", size(used.bytes)),
                ("Created", ago(used.row.created_at)),
                ("Status", status.to_owned()),
                ("Names", used.row.name.clone()),
            ])
        }),
    )?;
    out.line("\nLocal Volumes space usage:\n")?;
    table(
        out,
        VOLUMES,
        usage.volumes.iter().map(|used| {
            row([
                ("Name", used.row.name.clone()),
                ("Links", used.links.to_string()),
                ("Size", size(used.bytes)),
            ])
        }),
    )?;
    let kept = usage.kept.iter().map(|used| {
        row([
            ("ID", used.name.clone()),
            ("Kind", used.kind.name().to_owned()),
            ("Size", size(used.bytes)),
            ("Created", ago(used.made_at)),
            ("Used", ago(used.used_at)),
            ("Usage", String::new()),
            ("Shared", "false".to_owned()),
        ])
    });
    out.line(format_args!(
        "\nBuild cache usage: {}\n",
        size_exact(usage.index.cache_bytes + usage.kept_bytes())
    ))?;
    table(
        out,
        CACHE,
        usage
            .cache
            .iter()
            .map(|used| {
                row([
                    ("ID", used.record.id.to_string()),
                    ("Kind", used.record.kind.to_string()),
                    ("Size", size(used.bytes)),
                    ("Created", ago(used.record.made_at)),
                    ("Used", ago(used.record.last_used_at)),
                    ("Usage", used.record.uses.to_string()),
                    ("Shared", used.shared.to_string()),
                ])
            })
            .chain(kept),
    )?;
    out.line(format_args!(
        "\nManifests, configs and compressed layers, kept besides: {} in {} files",
        size_exact(usage.index.blob_bytes),
        usage.index.blobs
    ))?;
    if usage.droppable > 0 {
        out.line(format_args!(
            "Of these, compressed layers that a registry has too (`outcrop image prune --blobs`): {}",
            size_exact(usage.droppable)
        ))?;
    }
    match usage.incoming.files {
        0 => Ok(()),
        files => out.line(format_args!(
            "Interrupted downloads, with which the next pull goes on: {} in {files} files",
            size_exact(usage.incoming.bytes)
        )),
    }
}

/// All columns.
fn table(
    out: &mut Out,
    headings: &'static [(&'static str, &'static str)],
    rows: impl Iterator<Item = Row>,
) -> Result<()> {
    let columns: Vec<String> = headings.iter().map(|(name, _)| format!("{{{{.{name}}}}}")).collect();
    List::new(None, headings, &columns.join("\t"))?.write(out, rows.map(Ok))
}

fn ago(time: Time) -> String {
    ago_at(time.seconds())
}
