//! A template's tree and a value make text.

use serde_json::Value;

use super::parse::{Base, Branch, Call, Node, Operand, Pipeline};
use super::value::{Datum, kind};
use super::{Fault, functions, printf};

pub(super) struct Run<'v> {
    pub(super) text: String,
    dot: Datum<'v>,
    /// The innermost last; the one without a name is the whole value.
    variables: Vec<(String, Datum<'v>)>,
    row: Row,
}

/// What the fields of the value itself are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// Those it has, and no others: a misspelt one is an error.
    Strict,
    /// Headings of a table; functions leave them as they are.
    Headings,
}

enum Flow {
    On,
    Break,
    Continue,
}

impl<'v> Run<'v> {
    pub(super) fn new(value: &'v Value, row: Row) -> Self {
        let whole = Datum::of(value);
        Run { text: String::new(), dot: whole.clone(), variables: vec![(String::new(), whole)], row }
    }

    pub(super) fn all(&mut self, nodes: &[Node]) -> Result<(), Fault> {
        self.nodes(nodes).map(drop)
    }

    fn nodes(&mut self, nodes: &[Node]) -> Result<Flow, Fault> {
        for node in nodes {
            match self.node(node)? {
                Flow::On => {}
                end => return Ok(end),
            }
        }
        Ok(Flow::On)
    }

    /// Variables declared inside end with it.
    fn scope(&mut self, nodes: &[Node]) -> Result<Flow, Fault> {
        let outer = self.variables.len();
        let flow = self.nodes(nodes);
        self.variables.truncate(outer);
        flow
    }

    fn node(&mut self, node: &Node) -> Result<Flow, Fault> {
        match node {
            Node::Text(text) => self.text.push_str(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline)?;
                if pipeline.variables.is_empty() {
                    self.text.push_str(&printf::shown(&value));
                }
            }
            Node::If(branches) => return self.branches(branches, false),
            Node::With(branches) => return self.branches(branches, true),
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn branches(&mut self, branches: &[Branch], moves_dot: bool) -> Result<Flow, Fault> {
        let outer = self.variables.len();
        let mut flow = Flow::On;
        for branch in branches {
            let value = match &branch.condition {
                Some(condition) => Some(self.pipeline(condition)?),
                None => None,
            };
            if value.as_ref().is_none_or(Datum::is_true) {
                let dot = self.dot.clone();
                if let Some(value) = value.filter(|_| moves_dot) {
                    self.dot = value;
                }
                flow = self.scope(&branch.body)?;
                self.dot = dot;
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn range(&mut self, over: &Pipeline, body: &[Node], otherwise: &[Node]) -> Result<Flow, Fault> {
        let outer = self.variables.len();
        let value = self.value(over)?;
        let entries = value.entries();
        let entries = entries
            .ok_or_else(|| Fault::new(over.at, format!("cannot range over a {}", kind(value.value()))))?;
        if entries.is_empty() {
            return self.scope(otherwise);
        }
        let dot = self.dot.clone();
        let mut end = Flow::On;
        for (key, item) in entries {
            match &over.variables[..] {
                [one] => self.set(over.assigns, one, item.clone()),
                [first, second] => {
                    self.set(over.assigns, first, key);
                    self.set(over.assigns, second, item.clone());
                }
                _ => {}
            }
            self.dot = item;
            let flow = self.scope(body);
            self.variables.truncate(outer);
            match flow? {
                Flow::Break => break,
                Flow::On | Flow::Continue => end = Flow::On,
            }
        }
        self.dot = dot;
        Ok(end)
    }

    fn set(&mut self, assigns: bool, name: &str, value: Datum<'v>) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match known.filter(|_| assigns) {
            Some((_, known)) => *known = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Datum<'v>, Fault> {
        let value = self.value(pipeline)?;
        for name in &pipeline.variables {
            self.set(pipeline.assigns, name, value.clone());
        }
        Ok(value)
    }

    fn value(&mut self, pipeline: &Pipeline) -> Result<Datum<'v>, Fault> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last)?);
        }
        Ok(last.expect("the parser makes no pipeline without a command"))
    }

    fn command(&mut self, call: &Call, piped: Option<Datum<'v>>) -> Result<Datum<'v>, Fault> {
        match &call.first.base {
            Base::Function(name) => {
                let result = self.function(name, call, piped)?;
                self.fields(result, &call.first)
            }
            _ if call.arguments.is_empty() && piped.is_none() => self.operand(&call.first),
            _ => self.method(call, piped),
        }
    }

    fn function(&mut self, name: &str, call: &Call, piped: Option<Datum<'v>>) -> Result<Datum<'v>, Fault> {
        if name == "and" || name == "or" {
            let mut last = None;
            for argument in &call.arguments {
                let value = self.operand(argument)?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
                last = Some(value);
            }
            return piped
                .or(last)
                .ok_or_else(|| Fault::new(call.first.at, format!("`{name}` takes an argument")));
        }
        let mut arguments = Vec::with_capacity(call.arguments.len() + 1);
        for argument in &call.arguments {
            arguments.push(self.operand(argument)?);
        }
        arguments.extend(piped);
        let heading = match name {
            "json" | "lower" | "upper" | "title" | "split" | "join" => self.row == Row::Headings,
            _ => false,
        };
        match arguments.first() {
            Some(first) if heading => Ok(first.clone()),
            _ => functions::call(name, &arguments).map_err(|message| Fault::new(call.first.at, message)),
        }
    }

    /// `.Label "key"` is all that Docker has of these.
    fn method(&mut self, call: &Call, piped: Option<Datum<'v>>) -> Result<Datum<'v>, Fault> {
        let at = call.first.at;
        let mut arguments = Vec::new();
        for argument in &call.arguments {
            arguments.push(self.operand(argument)?);
        }
        arguments.extend(piped);
        let key = match (&call.first.fields[..], &arguments[..]) {
            ([name], [key]) if name == "Label" => key.value().as_str().map(str::to_owned),
            _ => None,
        };
        let name = call.first.fields.last().map_or("this", String::as_str);
        let key =
            key.ok_or_else(|| Fault::new(at, format!("`{name}` is no function, so it takes no argument")))?;
        if self.row == Row::Headings {
            let last = key.rsplit('.').next().unwrap_or_default();
            return Ok(Datum::new(last.replace(['-', '_'], " ")));
        }
        Ok(Datum::new(match self.dot.value().get("Labels") {
            Some(Value::Object(labels)) => labels.get(&key).and_then(Value::as_str).unwrap_or_default(),
            Some(Value::String(labels)) => {
                let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
                labels.find(|(name, _)| *name == key).map_or("", |(_, value)| value)
            }
            _ => "",
        }))
    }

    fn operand(&mut self, operand: &Operand) -> Result<Datum<'v>, Fault> {
        let base = match &operand.base {
            Base::Dot => self.dot.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.expect("the parser knows which variables there are").1.clone()
            }
            Base::Function(name) => {
                functions::call(name, &[]).map_err(|message| Fault::new(operand.at, message))?
            }
            Base::Pipeline(inner) => self.value(inner)?,
            Base::String(text) => Datum::new(text.as_str()),
            Base::Integer(number) => Datum::new(*number),
            Base::Float(number) => Datum::new(*number),
            Base::Bool(truth) => Datum::new(*truth),
            Base::Nil => Datum::new(Value::Null),
        };
        self.fields(base, operand)
    }

    fn fields(&self, base: Datum<'v>, operand: &Operand) -> Result<Datum<'v>, Fault> {
        let whole = match &operand.base {
            Base::Dot => self.dot.is_same(&self.variables[0].1),
            Base::Variable(name) => name.is_empty(),
            _ => false,
        };
        let mut value = base;
        for (depth, name) in operand.fields.iter().enumerate() {
            let strict = whole && depth == 0;
            value = field(&value, name, strict).map_err(|message| Fault::new(operand.at, message))?;
        }
        Ok(value)
    }
}

impl Datum<'_> {
    /// The very same value, not an equal one.
    fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.value(), other.value())
    }
}

fn field<'v>(of: &Datum<'v>, name: &str, strict: bool) -> Result<Datum<'v>, String> {
    let found = match of {
        Datum::Of(std::borrow::Cow::Borrowed(Value::Object(map))) => map.get(name).map(Datum::of),
        Datum::Of(std::borrow::Cow::Owned(Value::Object(map))) => map.get(name).cloned().map(Datum::new),
        Datum::Missing => return Err(format!("there is nothing to take the field `{name}` of")),
        Datum::Of(value) if value.is_null() => {
            return Err(format!("there is nothing to take the field `{name}` of"));
        }
        Datum::Of(value) => return Err(format!("a {} has no field `{name}`", kind(value))),
    };
    match found {
        Some(found) if found.value().is_null() => Ok(empty(name)),
        Some(found) => Ok(found),
        None if strict => Err(format!("there is no field `{name}`; there are {}", names(of.value()))),
        None => Ok(Datum::Missing),
    }
}

/// In Go these have a type even where the JSON has null, and are printed by it.
fn empty<'v>(name: &str) -> Datum<'v> {
    match name {
        "Labels" | "Volumes" | "ExposedPorts" | "Options" | "Ports" | "Networks" | "PortBindings" => {
            Datum::new(serde_json::Map::new())
        }
        "Cmd" | "Entrypoint" | "Env" | "OnBuild" | "Shell" | "RepoTags" | "RepoDigests" | "Mounts"
        | "Binds" | "Layers" => Datum::new(Vec::<Value>::new()),
        _ => Datum::new(Value::Null),
    }
}

fn names(value: &Value) -> String {
    let names = value.as_object().map(|map| map.keys().map(String::as_str).collect::<Vec<_>>());
    names.unwrap_or_default().join(", ")
}
