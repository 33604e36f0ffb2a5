//! A bake file as attributes and blocks, from HCL and from JSON alike.

use std::fmt;
use std::ops::Range;

use hcl_edit::expr::Expression;
use hcl_edit::structure::{BlockLabel, Structure};
use hcl_edit::template::Template;
use hcl_edit::{Span as _, parser};
use serde::Deserialize as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::source::{File, Place, Problem};
use super::value::Number;

/// The blocks a bake file has at its top; each has a label.
pub(super) const BLOCKS: [&str; 4] = ["group", "target", "variable", "function"];

/// As deep as HCL's parser goes.
const DEEPEST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) attributes: Vec<Attribute>,
    pub(super) blocks: Vec<Block>,
}

#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) name: String,
    /// Of the name.
    pub(super) place: Place,
    pub(super) expr: Expr,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: String,
    /// Empty where there is none.
    pub(super) label: String,
    /// Of the label.
    pub(super) place: Place,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Expr {
    Hcl(Box<Expression>),
    Json(Json),
}

#[derive(Debug)]
pub(super) struct Json {
    pub(super) span: Range<usize>,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    /// As HCL's JSON form has it: a string is a template.
    Text(String, Template),
    List(Vec<Json>),
    Map(Vec<(Json, Json)>),
}

impl Body {
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

/// By its name, else by what it begins with.
pub(super) fn parse(file: usize, of: &File) -> Result<Body, Problem> {
    let json =
        of.name.ends_with(".json") || (!of.name.ends_with(".hcl") && of.text.trim_start().starts_with('{'));
    match json {
        true => from_json(file, &of.text),
        false => from_hcl(file, &of.text),
    }
}

fn from_hcl(file: usize, text: &str) -> Result<Body, Problem> {
    let body = parser::parse_body(text).map_err(|error| {
        let at = error.location().offset();
        let place = Place { file, span: at..at };
        Problem::new(&place, format!("this is not HCL: {}", error.message()))
    })?;
    body_of(file, &body, true)
}

fn body_of(file: usize, body: &hcl_edit::structure::Body, top: bool) -> Result<Body, Problem> {
    let mut out = Body::default();
    let place = |span: Option<Range<usize>>| Place { file, span: span.unwrap_or(0..0) };
    for structure in body.iter() {
        match structure {
            Structure::Attribute(attribute) => {
                let name = attribute.key.as_str().to_owned();
                let place = place(attribute.key.span());
                out.attributes.push(Attribute {
                    name,
                    place,
                    expr: Expr::Hcl(Box::new(attribute.value.clone())),
                });
            }
            Structure::Block(block) => {
                let kind = block.ident.as_str().to_owned();
                let labels: Vec<(&str, Option<Range<usize>>)> = block
                    .labels
                    .iter()
                    .map(|label| match label {
                        BlockLabel::Ident(ident) => (ident.as_str(), ident.span()),
                        BlockLabel::String(text) => (text.as_str(), text.span()),
                    })
                    .collect();
                let at = place(labels.first().map_or(block.ident.span(), |(_, span)| span.clone()));
                if top {
                    known_block(&kind, &place(block.ident.span()))?;
                    if labels.len() != 1 {
                        let say = format!("a {kind} has one name, not {}", labels.len());
                        return Err(Problem::new(&place(block.ident.span()), say)
                            .hint(format!("write {kind} \"name\" {{ ... }}")));
                    }
                }
                out.blocks.push(Block {
                    label: labels.first().map_or(String::new(), |(label, _)| (*label).to_owned()),
                    place: at,
                    body: body_of(file, &block.body, false)?,
                    kind,
                });
            }
        }
    }
    Ok(out)
}

fn known_block(kind: &str, place: &Place) -> Result<(), Problem> {
    if BLOCKS.contains(&kind) {
        return Ok(());
    }
    let near = crate::error::did_you_mean(kind, BLOCKS);
    Err(Problem::new(place, format!("unknown block `{kind}`"))
        .maybe_hint(near.or_else(|| Some("blocks are: group, target, variable, function".into()))))
}

fn from_json(file: usize, text: &str) -> Result<Body, Problem> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
        let line_start: usize = text.split_inclusive('\n').take(error.line() - 1).map(str::len).sum();
        let at = line_start + error.column().saturating_sub(1);
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default().to_owned();
        Problem::new(&Place { file, span: at..at }, format!("this is not JSON: {said}"))
    })?;
    let root = Reader { file, text }.node(raw, 0)?;
    let place = Place { file, span: root.span.clone() };
    let Node::Map(entries) = root.node else {
        return Err(Problem::new(&place, "a bake file in JSON is an object"));
    };
    let mut body = Body::default();
    for (key, value) in entries {
        let (name, place) = name_of(file, key);
        match BLOCKS.contains(&name.as_str()) {
            true => labelled(file, &name, value, &mut body)?,
            // As in HCL's JSON form: a comment.
            false if name == "//" => {}
            false => body.attributes.push(Attribute { name, place, expr: Expr::Json(value) }),
        }
    }
    Ok(body)
}

fn name_of(file: usize, key: Json) -> (String, Place) {
    let Node::Text(name, _) = key.node else { unreachable!("keys are read as text") };
    (name, Place { file, span: key.span })
}

/// `{"app": {...}}`, and lists of the like.
fn labelled(file: usize, kind: &str, value: Json, into: &mut Body) -> Result<(), Problem> {
    let place = Place { file, span: value.span.clone() };
    match value.node {
        Node::List(values) => values.into_iter().try_for_each(|value| labelled(file, kind, value, into)),
        Node::Map(entries) => {
            for (key, value) in entries {
                let (label, place) = name_of(file, key);
                blocks(file, kind, &label, &place, value, into)?;
            }
            Ok(())
        }
        _ => Err(Problem::new(&place, format!("`{kind}` holds an object with the {kind}s' names"))),
    }
}

fn blocks(
    file: usize,
    kind: &str,
    label: &str,
    place: &Place,
    value: Json,
    into: &mut Body,
) -> Result<(), Problem> {
    let at = Place { file, span: value.span.clone() };
    match value.node {
        Node::List(values) => {
            values.into_iter().try_for_each(|value| blocks(file, kind, label, place, value, into))
        }
        Node::Map(entries) => {
            let mut body = Body::default();
            for (key, value) in entries {
                let (name, place) = name_of(file, key);
                match (kind, name.as_str()) {
                    ("variable", "validation") => blocks(file, &name, "", &place, value, &mut body)?,
                    (_, "//") => {}
                    _ => body.attributes.push(Attribute { name, place, expr: Expr::Json(value) }),
                }
            }
            into.blocks.push(Block {
                kind: kind.to_owned(),
                label: label.to_owned(),
                place: place.clone(),
                body,
            });
            Ok(())
        }
        _ => Err(Problem::new(&at, format!("a {kind} is an object"))),
    }
}

/// JSON with places: a raw value is a part of the text, so its address tells where it stands.
struct Reader<'t> {
    file: usize,
    text: &'t str,
}

impl<'t> Reader<'t> {
    fn node(&self, raw: &'t RawValue, depth: usize) -> Result<Json, Problem> {
        let part = raw.get();
        let start = part.as_ptr() as usize - self.text.as_ptr() as usize;
        let span = start..start + part.len();
        if depth > DEEPEST {
            return Err(Problem::new(&Place { file: self.file, span }, "this is nested too deep"));
        }
        let node = match part.as_bytes().first() {
            Some(b'{') => {
                let entries = Entries::deserialize(raw).map_err(|error| self.problem(&span, &error))?;
                let read = |(key, value): (&'t RawValue, &'t RawValue)| {
                    Ok((self.node(key, depth + 1)?, self.node(value, depth + 1)?))
                };
                Node::Map(entries.0.into_iter().map(read).collect::<Result<_, Problem>>()?)
            }
            Some(b'[') => {
                let values = Values::deserialize(raw).map_err(|error| self.problem(&span, &error))?;
                Node::List(
                    values
                        .0
                        .into_iter()
                        .map(|value| self.node(value, depth + 1))
                        .collect::<Result<_, _>>()?,
                )
            }
            Some(b'"') => {
                let text: String = serde_json::from_str(part).map_err(|error| self.problem(&span, &error))?;
                let template = parser::parse_template(&text).map_err(|error| {
                    let place = Place { file: self.file, span: span.clone() };
                    Problem::new(&place, format!("this is not a template: {}", error.message()))
                })?;
                Node::Text(text, template)
            }
            Some(b't') => Node::Bool(true),
            Some(b'f') => Node::Bool(false),
            Some(b'n') => Node::Null,
            _ => Node::Number(Number::parse(part).ok_or_else(|| {
                let place = Place { file: self.file, span: span.clone() };
                Problem::new(&place, "this number is too large")
            })?),
        };
        Ok(Json { span, node })
    }

    fn problem(&self, span: &Range<usize>, error: &serde_json::Error) -> Problem {
        Problem::new(&Place { file: self.file, span: span.clone() }, format!("this is not JSON: {error}"))
    }
}

/// An object as it stands: order and repeated names kept.
struct Entries<'t>(Vec<(&'t RawValue, &'t RawValue)>);
struct Values<'t>(Vec<&'t RawValue>);

impl<'de> serde::Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        from.deserialize_map(Visit)
    }
}

impl<'de> serde::Deserialize<'de> for Values<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Values<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        from.deserialize_seq(Visit)
    }
}
