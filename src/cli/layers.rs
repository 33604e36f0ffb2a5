//! `layers`: the stack an image is made of.

use std::process::ExitCode;

use outcrop::error::{Error, Result};
use outcrop::verb::images;
use outcrop::verb::layers::{self, Layer, Node};
use serde_json::json;

use super::format::{List, Row, ellipsis, short_id, size};
use super::history::one_line;
use super::{Context, Verb};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A Go template, `table` and a template, or `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Show ids of layers alone
    #[arg(short, long)]
    quiet: bool,
    /// Show how the layers of all images stand on each other
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    tree: bool,
    #[arg(required_unless_present = "tree")]
    image: Option<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("N", "N"),
    ("ID", "LAYER"),
    ("Parent", "PARENT"),
    ("Size", "SIZE"),
    ("Added", "ADDED"),
    ("Changed", "CHANGED"),
    ("Deleted", "DELETED"),
    ("CreatedBy", "INSTRUCTION"),
    ("SharedWith", "SHARED WITH"),
    ("Image", "IMAGE"),
    ("ChainID", "CHAIN ID"),
    ("CreatedAt", "CREATED AT"),
    ("Bytes", "BYTES"),
];
const TABLE: &str = "{{.N}}\t{{.ID}}\t{{.Parent}}\t{{.Size}}\t{{.Added}}\t{{.Changed}}\t{{.Deleted}}\t\
                     {{.CreatedBy}}\t{{.SharedWith}}";

const CREATED_BY_WIDTH: usize = 45;
/// Names shown of the images that share a layer.
const MOST_NAMES: usize = 3;

impl Verb for Args {
    const NAMES: &'static [&'static str] = &["layers", "image layers"];
    const ABOUT: &'static str = "Show the layers of an image, the base at the bottom";
    const EXAMPLE: &'static str = "outcrop layers site\noutcrop layers --tree\n\
                                   outcrop layers --format '{{.N}} {{.Size}} {{.CreatedBy}}' site";

    fn run(self, context: &Context) -> Result<ExitCode> {
        let list = match self.quiet {
            true => List::quiet("ID"),
            false => List::new(self.format.as_deref(), HEADINGS, TABLE)?,
        };
        let engine = context.engine()?;
        let mut out = context.out();
        // Where no person reads, nothing is cut off.
        let whole = self.no_trunc || !out.is_terminal();
        match &self.image {
            Some(_) if self.tree => {
                return Err(Error::invalid("`--tree` shows the layers of all images and takes no image"));
            }
            Some(image) => {
                let mut stack = layers::layers(engine, &images::resolve(engine, image)?)?;
                stack.reverse();
                list.write(&mut out, stack.iter().map(|layer| Ok(row(layer, self.no_trunc, whole))))?;
            }
            None => {
                for node in layers::tree(engine)? {
                    draw(&mut out, &node, "", "", self.no_trunc, whole)?;
                }
            }
        }
        out.done()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(layer: &Layer, no_trunc: bool, whole: bool) -> Row {
    let instruction = one_line(&layer.created_by);
    let shared = match layer.shared_with.len().saturating_sub(MOST_NAMES) {
        _ if layer.shared_with.is_empty() => "-".to_owned(),
        0 => layer.shared_with.join(", "),
        _ if whole => layer.shared_with.join(", "),
        more => format!("{} and {more} more", layer.shared_with[..MOST_NAMES].join(", ")),
    };
    let fields = [
        ("N", json!(layer.n)),
        ("ID", short_id(layer.id.digest(), no_trunc).into()),
        ("Parent", layer.parent.map_or_else(|| "-".to_owned(), |id| short_id(id.digest(), no_trunc)).into()),
        ("Size", size(layer.size).into()),
        ("Bytes", json!(layer.size)),
        ("Added", json!(layer.changes.added)),
        ("Changed", json!(layer.changes.changed)),
        ("Deleted", json!(layer.changes.deleted)),
        ("CreatedBy", if whole { instruction } else { ellipsis(&instruction, CREATED_BY_WIDTH) }.into()),
        ("CreatedAt", layer.created.clone().unwrap_or_default().into()),
        ("Image", short_id(layer.image.digest(), no_trunc).into()),
        ("ChainID", short_id(layer.chain.digest(), no_trunc).into()),
        ("SharedWith", shared.into()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A layer, and below it, further in, what stands on it.
fn draw(
    out: &mut super::frame::Out,
    node: &Node,
    lead: &str,
    below: &str,
    no_trunc: bool,
    whole: bool,
) -> Result<()> {
    let instruction = one_line(node.created_by.as_deref().unwrap_or_default());
    let instruction = if whole { instruction } else { ellipsis(&instruction, CREATED_BY_WIDTH) };
    let names =
        if node.images.is_empty() { String::new() } else { format!("  [{}]", node.images.join(", ")) };
    let line =
        format!("{lead}{}  {}  {instruction}{names}", short_id(node.id.digest(), no_trunc), size(node.size));
    out.line(line.trim_end())?;
    for (n, above) in node.above.iter().enumerate() {
        let (branch, rest) =
            if n + 1 == node.above.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let (lead, below) = (format!("{below}{branch}"), format!("{below}{rest}"));
        draw(out, above, &lead, &below, no_trunc, whole)?;
    }
    Ok(())
}
