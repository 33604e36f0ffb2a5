//! `image prune`: removes images that nothing uses.

use std::process::ExitCode;

use outcrop::db::Time;
use outcrop::error::{Error, Result};
use outcrop::verb::image_prune::{self, Options};
use outcrop::verb::rmi::Removed;

use super::confirm::confirm;
use super::format::{Filters, size_exact};
use super::frame::Out;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Also images with names, unless a container uses them
    #[arg(short, long)]
    all: bool,
    /// No images, but compressed layers that a registry has and whose files are here
    #[arg(long, conflicts_with_all = ["all", "filters"])]
    blobs: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what matches: until=, label=
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["image prune"];
    const ABOUT: &'static str = "Remove images that nothing uses";
    const EXAMPLE: &'static str =
        "outcrop image prune\noutcrop image prune -a -f --filter until=24h\noutcrop image prune --blobs";

    fn run(self, context: &Context) -> Result<ExitCode> {
        if self.blobs {
            return self.drop_blobs(context);
        }
        let filters = Filters::parse(&self.filters, &["until", "label"])?;
        let labels = filters.values("label").map(|label| match label.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (label.to_owned(), None),
        });
        let options = Options { all: self.all, until: until(&filters)?, labels: labels.collect() };
        let what = if self.all {
            "WARNING! This will remove all images without at least one container associated to them."
        } else {
            "WARNING! This will remove all dangling images."
        };
        if !self.force && !confirm(what)? {
            return Ok(ExitCode::SUCCESS);
        }
        let pruned = image_prune::image_prune(context.engine()?, &options)?;
        let mut out = context.out();
        say_images(&mut out, &pruned.removed)?;
        out.line(format_args!("Total reclaimed space: {}", size_exact(pruned.reclaimed)))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Args {
    fn drop_blobs(&self, context: &Context) -> Result<ExitCode> {
        let what = "WARNING! This will remove compressed layers: pushing them to another registry, and saving them, \
                    fetches them again.";
        if !self.force && !confirm(what)? {
            return Ok(ExitCode::SUCCESS);
        }
        let (blobs, bytes) = image_prune::blobs(context.engine_to_prune()?)?;
        let mut out = context.out();
        if !blobs.is_empty() {
            out.line("Deleted compressed layers:")?;
            blobs.iter().try_for_each(|blob| out.line(blob))?;
            out.line("")?;
        }
        out.line(format_args!("Total reclaimed space: {}", size_exact(bytes)))?;
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn say_images(out: &mut Out, removed: &[Removed]) -> Result<()> {
    if removed.is_empty() {
        return Ok(());
    }
    out.line("Deleted Images:")?;
    for gone in removed {
        match gone {
            Removed::Name(name) => out.line(format_args!("untagged: {name}"))?,
            Removed::Image(id) => out.line(format_args!("deleted: {id}"))?,
            Removed::Layer(chain) => out.line(format_args!("deleted: {chain}"))?,
        }
    }
    out.line("")
}

/// `until=24h`, `until=1h30m`, `until=2024-05-01T00:00:00Z`, `until=2024-05-01`, or seconds since 1970.
pub(super) fn until(filters: &Filters) -> Result<Option<Time>> {
    let Some(text) = filters.values("until").last() else { return Ok(None) };
    if let Some(ago) = duration(text) {
        return Ok(Some(Time(Time::now().0.saturating_sub(ago))));
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Some(Time(seconds.saturating_mul(1_000_000_000))));
    }
    let whole = [text.to_owned(), format!("{text}Z"), format!("{text}T00:00:00Z")];
    match whole.iter().find_map(|text| text.parse::<Time>().ok()) {
        Some(time) => Ok(Some(time)),
        None => Err(Error::invalid(format!("`{text}` in the filter `until` is no time"))
            .hint("write an age, as in 24h or 1h30m, or a time, as in 2024-05-01T12:00:00Z")),
    }
}

/// Nanoseconds of what Go's `time.ParseDuration` takes: whole numbers with h, m and s.
pub(super) fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut seconds: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let factor = match unit {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[digits + 1..];
    }
    seconds.checked_mul(1_000_000_000).filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_gos() {
        assert_eq!(duration("24h"), Some(86_400_000_000_000));
        assert_eq!(duration("1h30m"), Some(5_400_000_000_000));
        for wrong in ["", "24", "h", "1d", "1hx"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_is_read_in_several_forms() {
        let at = |text: &str| until(&Filters::parse(&[format!("until={text}")], &["until"]).unwrap());
        let day = Some(Time(1_714_521_600_000_000_000));
        for text in ["2024-05-01", "2024-05-01T00:00:00", "2024-05-01T00:00:00Z", "1714521600"] {
            assert_eq!(at(text).unwrap(), day, "{text}");
        }
        assert!(at("yesterday").is_err());
    }
}
