//! Everything the files of one bake define, evaluated when it is first asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;

use hcl_edit::expr::Expression;
use hcl_edit::parser;

use super::Settings;
use super::eval::{Eval, Scope, type_of};
use super::fields::{FIELDS, Setting, field};
use super::functions;
use super::source::{Place, Problem};
use super::syntax::{Attribute, Block, Body, Expr, Node};
use super::value::{Type, Value};
use crate::error::Kind;
use crate::error::did_you_mean;

type Result<T = Value> = std::result::Result<T, Problem>;

pub(super) struct World<'w> {
    pub(super) settings: &'w Settings<'w>,
    attributes: BTreeMap<&'w str, &'w Attribute>,
    variables: BTreeMap<&'w str, &'w Block>,
    functions: BTreeMap<&'w str, &'w Block>,
    /// In their order.
    pub(super) groups: Vec<&'w Block>,
    pub(super) targets: Vec<&'w Block>,
    known: RefCell<BTreeMap<String, Value>>,
    /// What is being evaluated, outermost first.
    busy: RefCell<Vec<String>>,
}

/// One target of a block: there are several where there is a matrix.
pub(super) struct Instance<'w> {
    pub(super) name: String,
    pub(super) block: &'w Block,
    pub(super) names: BTreeMap<String, Value>,
}

/// What `--list variables` says of one.
#[derive(Debug)]
pub struct Variable {
    pub name: String,
    pub description: String,
    /// Empty where none is given.
    pub kind: String,
    /// `None`: null.
    pub value: Option<String>,
}

const BUILTIN: [&str; 2] = ["BAKE_CMD_CONTEXT", "BAKE_LOCAL_PLATFORM"];

impl<'w> World<'w> {
    pub(super) fn new(bodies: &'w [Body], settings: &'w Settings<'w>) -> Self {
        let blocks = |kind: &'static str| {
            bodies.iter().flat_map(|body| &body.blocks).filter(move |block| block.kind == kind)
        };
        let by_name = |kind| blocks(kind).map(|block| (block.label.as_str(), block)).collect();
        let attributes = bodies.iter().flat_map(|body| &body.attributes);
        World {
            settings,
            attributes: attributes.map(|attribute| (attribute.name.as_str(), attribute)).collect(),
            variables: by_name("variable"),
            functions: by_name("function"),
            groups: blocks("group").collect(),
            targets: blocks("target").collect(),
            known: RefCell::default(),
            busy: RefCell::default(),
        }
    }

    /// Runs `work` under a name; finding the name at work already is a cycle.
    fn guarded<T>(&self, name: String, place: &Place, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let at = self.busy.borrow().iter().position(|other| *other == name);
        if let Some(at) = at {
            let path = [&self.busy.borrow()[at..], std::slice::from_ref(&name)].concat().join(" -> ");
            return Err(Problem::new(place, format!("this refers to itself: {path}")));
        }
        self.busy.borrow_mut().push(name);
        let result = work();
        self.busy.borrow_mut().pop();
        result
    }

    pub(super) fn global(&self, name: &str, place: &Place) -> Result {
        if let Some(value) = self.known.borrow().get(name) {
            return Ok(value.clone());
        }
        let value = self.guarded(name.to_owned(), place, || self.evaluate(name, place))?;
        self.known.borrow_mut().insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn evaluate(&self, name: &str, place: &Place) -> Result {
        match name {
            "BAKE_CMD_CONTEXT" => return Ok(Value::text("cwd://")),
            "BAKE_LOCAL_PLATFORM" => return Ok(Value::text(&self.settings.platform)),
            _ => {}
        }
        let block = self.variables.get(name);
        let default = self.attributes.get(name).copied();
        let default = default.or_else(|| block?.body.attribute("default"));
        if default.is_none() && block.is_none() {
            let all = self.attributes.keys().chain(self.variables.keys()).copied().chain(BUILTIN);
            return Err(Problem::new(place, format!("unknown variable `{name}`"))
                .maybe_hint(did_you_mean(name, all))
                .hint_if_none("a variable is declared by: variable \"NAME\" { default = ... }"));
        }
        let declared = match block {
            Some(block) => self.declared_type(block)?,
            None => None,
        };
        let mut value = match default {
            Some(default) => self.attribute(default, None)?,
            // Untyped, it has always been a text.
            None if declared.is_none() => Value::text(""),
            None => Value::Null,
        };
        if let (Some(declared), Some(default)) = (&declared, default) {
            let place = Eval::new(self, None, default.place.file).place_of(&default.expr);
            value = declared.convert(value).map_err(|say| Problem::new(&place, say))?;
        }
        match block {
            Some(block) => self.overridden(name, block, declared.as_ref(), value),
            None => Ok(value),
        }
    }

    fn declared_type(&self, block: &Block) -> Result<Option<Type>> {
        let Some(attribute) = block.body.attribute("type") else { return Ok(None) };
        let place = Eval::new(self, None, attribute.place.file).place_of(&attribute.expr);
        let parsed;
        let expr = match &attribute.expr {
            Expr::Hcl(expr) => &**expr,
            Expr::Json(json) => {
                let Node::Text(text, _) = &json.node else {
                    return Err(Problem::new(&place, "a type is needed, as string or list(number)"));
                };
                parsed = parser::parse_expr(text)
                    .map_err(|error| Problem::new(&place, format!("not a type: {}", error.message())))?;
                &parsed
            }
        };
        type_of(expr).map(Some).map_err(|say| Problem::new(&place, say))
    }

    /// What the command line or the environment says instead, read as the variable's type has it.
    fn overridden(&self, name: &str, block: &Block, declared: Option<&Type>, value: Value) -> Result {
        let simple = matches!(declared, None | Some(Type::Any | Type::Bool | Type::Number | Type::String));
        let json_name = format!("{name}_JSON");
        let json = || {
            let taken = self.variables.contains_key(json_name.as_str());
            if taken { None } else { (self.settings.lookup)(&json_name) }
        };
        let plain = (self.settings.lookup)(name);
        let json = if declared.is_some() && (plain.is_none() || !simple) { json() } else { None };
        let wrong = |say: String| Problem::new(&block.place, format!("the value given for `{name}`: {say}"));
        if let (Some(json), Some(declared)) = (json, declared) {
            let json = serde_json::from_str(&json).map_err(|error| wrong(format!("not JSON: {error}")))?;
            return declared.convert(Value::from_json(json)).map_err(wrong);
        }
        let Some(text) = plain else { return Ok(value) };
        let kind = declared.cloned().unwrap_or_else(|| Type::of(&value));
        from_text(&text, &kind, declared.is_some()).map_err(wrong)
    }

    /// Of an attribute, with the names of the matrix around it.
    pub(super) fn attribute(&self, attribute: &Attribute, names: Option<&BTreeMap<String, Value>>) -> Result {
        let scope = names.map(|names| Scope { names, above: None });
        Eval::new(self, scope.as_ref(), attribute.place.file).expr(&attribute.expr)
    }

    fn place_of(&self, attribute: &Attribute) -> Place {
        Eval::new(self, None, attribute.place.file).place_of(&attribute.expr)
    }

    pub(super) fn user_function(&self, name: &str, args: &[Value], place: &Place) -> Option<Result> {
        // As in buildx: what is built in is not replaced.
        if functions::is_known(name) {
            return None;
        }
        let block = *self.functions.get(name)?;
        Some(self.guarded(format!("{name}()"), place, || self.apply(name, block, args, place)))
    }

    fn apply(&self, name: &str, block: &Block, args: &[Value], place: &Place) -> Result {
        let needed = |what: &str| {
            let attribute = block.body.attribute(what);
            attribute.ok_or_else(|| Problem::new(&block.place, format!("function `{name}` has no `{what}`")))
        };
        let params = self.words(needed("params")?)?;
        let rest = match block.body.attribute("variadic_params") {
            Some(attribute) => self.words(attribute)?.into_iter().next(),
            None => None,
        };
        if args.len() < params.len() || (args.len() > params.len() && rest.is_none()) {
            let more = if rest.is_some() { " or more" } else { "" };
            let say = format!("`{name}` takes {}{more} arguments, not {}", params.len(), args.len());
            return Err(Problem::new(place, say));
        }
        let (given, more) = args.split_at(params.len());
        let mut names: BTreeMap<String, Value> = params.into_iter().zip(given.iter().cloned()).collect();
        if let Some(rest) = rest {
            names.insert(rest, Value::List(more.to_vec()));
        }
        self.attribute(needed("result")?, Some(&names))
    }

    /// Names of parameters: bare words, in JSON texts.
    fn words(&self, attribute: &Attribute) -> Result<Vec<String>> {
        let wrong = || Problem::new(&self.place_of(attribute), "parameters are names: [a, b]");
        let word = |expr: &Expression| match expr {
            Expression::Variable(name) => Ok(name.as_str().to_owned()),
            _ => Err(wrong()),
        };
        match &attribute.expr {
            Expr::Hcl(expr) => match &**expr {
                Expression::Array(names) => names.iter().map(word).collect(),
                single => Ok(vec![word(single)?]),
            },
            Expr::Json(json) => {
                let text = |node: &Node| match node {
                    Node::Text(name, _) => Ok(name.clone()),
                    _ => Err(wrong()),
                };
                match &json.node {
                    Node::List(names) => names.iter().map(|name| text(&name.node)).collect(),
                    single => Ok(vec![text(single)?]),
                }
            }
        }
    }

    pub(super) fn unknown_function(&self, name: &str, place: &Place) -> Problem {
        let mut all: Vec<&str> = functions::names().collect();
        all.extend(self.functions.keys());
        let near = did_you_mean(name, all);
        Problem::new(place, format!("unknown function `{name}`")).maybe_hint(near)
    }

    /// What `target.NAME.FIELD` refers to; without a field all that is set.
    pub(super) fn block_value(&self, kind: &str, name: &str, of: Option<&str>, place: &Place) -> Result {
        let blocks = if kind == "target" { &self.targets } else { &self.groups };
        let mut found: Vec<(&Block, BTreeMap<String, Value>)> = Vec::new();
        for block in blocks {
            if block.body.attribute("matrix").is_none() {
                if block.label == name {
                    found.push((block, BTreeMap::new()));
                }
                continue;
            }
            let guard = format!("the names of {kind} {}", block.label);
            let instances = self.guarded(guard, place, || self.instances(block))?;
            let named = instances.into_iter().find(|instance| instance.name == name);
            found.extend(named.map(|instance| (*block, instance.names)));
        }
        if found.is_empty() {
            let near = did_you_mean(name, blocks.iter().map(|block| block.label.as_str()));
            return Err(Problem::new(place, format!("unknown {kind} `{name}`")).maybe_hint(near));
        }
        let wanted: Vec<&str> = match (kind, of) {
            ("target", Some(of)) if field(of).is_none() => {
                let near = did_you_mean(of, FIELDS.iter().map(|field| field.0));
                return Err(Problem::new(place, format!("a target has no `{of}`")).maybe_hint(near));
            }
            (_, Some(of)) => vec![of],
            ("target", None) => FIELDS.iter().map(|field| field.0).collect(),
            (_, None) => vec!["targets", "description"],
        };
        let mut values = BTreeMap::new();
        for wanted in wanted {
            let mut value = Value::Null;
            for (block, names) in &found {
                let Some(attribute) = block.body.attribute(wanted) else { continue };
                let path = format!("{kind}.{name}.{wanted}");
                let read = self.guarded(path, place, || self.attribute(attribute, Some(names)))?;
                value = self.typed(wanted, read, attribute)?.map_or(Value::Null, |setting| setting.value());
            }
            values.insert(wanted.to_owned(), value);
        }
        Ok(match of {
            Some(of) => values.remove(of).unwrap_or(Value::Null),
            None => Value::Map(values),
        })
    }

    fn typed(&self, name: &str, value: Value, attribute: &Attribute) -> Result<Option<Setting>> {
        let targets =
            super::fields::Field("targets", super::fields::Shape::Texts, super::fields::Merge::Replace);
        let field = field(name).unwrap_or(&targets);
        Setting::read(field, value)
            .map_err(|say| Problem::new(&self.place_of(attribute), format!("`{name}`: {say}")))
    }

    /// The fields of one target.
    pub(super) fn fields(&self, instance: &Instance<'_>) -> Result<Vec<(&'static str, Place, Setting)>> {
        let body = &instance.block.body;
        if let Some(block) = body.blocks.first() {
            return Err(Problem::new(&block.place, format!("a target holds no block `{}`", block.kind))
                .hint(format!("write {} = ...", block.kind)));
        }
        let mut fields = Vec::new();
        for attribute in &body.attributes {
            if ["matrix", "name"].contains(&attribute.name.as_str()) {
                continue;
            }
            let Some(field) = field(&attribute.name) else {
                let near = did_you_mean(&attribute.name, FIELDS.iter().map(|field| field.0));
                if attribute.name == "policy" {
                    let say = "policies are not supported by this version";
                    return Err(Problem::new(&attribute.place, say).kind(Kind::Unsupported));
                }
                let say = format!("a target has no `{}`", attribute.name);
                return Err(Problem::new(&attribute.place, say).maybe_hint(near));
            };
            let path = format!("target.{}.{}", instance.name, attribute.name);
            let value =
                self.guarded(path, &attribute.place, || self.attribute(attribute, Some(&instance.names)))?;
            if let Some(setting) = self.typed(field.0, value, attribute)? {
                fields.push((field.0, attribute.place.clone(), setting));
            }
        }
        Ok(fields)
    }

    /// A group's description and targets.
    pub(super) fn group(&self, block: &Block) -> Result<(String, Vec<String>)> {
        let mut description = String::new();
        let mut targets = None;
        for attribute in &block.body.attributes {
            let value = || self.attribute(attribute, None);
            match attribute.name.as_str() {
                "description" => {
                    description =
                        value()?.to_text().map_err(|say| Problem::new(&self.place_of(attribute), say))?;
                }
                "targets" => match self.typed("targets", value()?, attribute)? {
                    Some(Setting::Texts(texts)) => targets = Some(texts),
                    _ => targets = Some(Vec::new()),
                },
                other => {
                    let near = did_you_mean(other, ["description", "targets"]);
                    return Err(
                        Problem::new(&attribute.place, format!("a group has no `{other}`")).maybe_hint(near)
                    );
                }
            }
        }
        match targets {
            Some(targets) => Ok((description, targets)),
            None => Err(Problem::new(&block.place, format!("group `{}` has no `targets`", block.label))),
        }
    }

    /// The targets a block makes: the product of its matrix.
    pub(super) fn instances(&self, block: &'w Block) -> Result<Vec<Instance<'w>>> {
        check_name(&block.label, &block.place)?;
        let named = block.body.attribute("name");
        let Some(matrix) = block.body.attribute("matrix") else {
            if let Some(named) = named {
                return Err(Problem::new(&named.place, "`name` is for targets with a `matrix`"));
            }
            return Ok(vec![Instance { name: block.label.clone(), block, names: BTreeMap::new() }]);
        };
        let wrong = |say: String| Problem::new(&self.place_of(matrix), format!("`matrix`: {say}"));
        let axes = self.attribute(matrix, None)?.to_map().map_err(wrong)?;
        let mut all = vec![BTreeMap::new()];
        for (axis, values) in axes {
            let values = match values {
                Value::Map(map) => map.into_values().collect(),
                values => values.to_list().map_err(|say| wrong(format!("`{axis}`: {say}")))?,
            };
            if all.len().saturating_mul(values.len()) > 10_000 {
                return Err(wrong("it makes more than ten thousand targets".into()));
            }
            let with = |value: &Value| {
                let extend = |names: &BTreeMap<String, Value>| {
                    let mut names = names.clone();
                    names.insert(axis.clone(), value.clone());
                    names
                };
                all.iter().map(extend).collect::<Vec<_>>()
            };
            all = values.iter().flat_map(with).collect();
        }
        if named.is_none() && all.len() > 1 {
            return Err(Problem::new(&matrix.place, "a matrix needs `name`, so that its targets differ")
                .hint("write name = \"app-${variable}\""));
        }
        let mut instances: Vec<Instance<'w>> = Vec::new();
        for names in all {
            let name = match named {
                Some(named) => {
                    let place = self.place_of(named);
                    let name = self.attribute(named, Some(&names))?;
                    let name = name.to_text().map_err(|say| Problem::new(&place, say))?;
                    check_name(&name, &place)?;
                    name
                }
                None => block.label.clone(),
            };
            if instances.iter().any(|other| other.name == name) {
                let say = format!("two targets of this matrix are called `{name}`");
                return Err(Problem::new(&named.unwrap_or(matrix).place, say));
            }
            instances.push(Instance { name, block, names });
        }
        Ok(instances)
    }

    /// All variables, evaluated and valid.
    pub(super) fn check(&self) -> Result<Vec<Variable>> {
        for (name, attribute) in &self.attributes {
            drop(self.global(name, &attribute.place)?);
        }
        let mut variables = Vec::new();
        for (name, block) in &self.variables {
            if BUILTIN.contains(name) {
                continue;
            }
            let value = self.global(name, &block.place)?;
            let description = match block.body.attribute("description") {
                Some(attribute) => self.attribute(attribute, None)?.to_text().unwrap_or_default(),
                None => String::new(),
            };
            variables.push(Variable {
                name: (*name).to_owned(),
                description,
                kind: self.declared_type(block)?.map_or(String::new(), |kind| kind.to_string()),
                value: match &value {
                    Value::Null => None,
                    Value::List(_) | Value::Map(_) => Some(value.to_json().to_string()),
                    simple => simple.to_text().ok(),
                },
            });
        }
        for block in self.variables.values() {
            for validation in block.body.blocks.iter().filter(|block| block.kind == "validation") {
                self.validate(validation)?;
            }
        }
        for (name, block) in &self.functions {
            for needed in ["params", "result"] {
                if block.body.attribute(needed).is_none() {
                    let say = format!("function `{name}` has no `{needed}`");
                    return Err(Problem::new(&block.place, say));
                }
            }
        }
        Ok(variables)
    }

    fn validate(&self, validation: &Block) -> Result<()> {
        let Some(condition) = validation.body.attribute("condition") else {
            return Err(Problem::new(&validation.place, "a validation has no `condition`"));
        };
        let place = self.place_of(condition);
        let holds = self.attribute(condition, None)?;
        if holds.to_bool().map_err(|say| Problem::new(&place, say))? {
            return Ok(());
        }
        let message = match validation.body.attribute("error_message") {
            Some(message) => self.attribute(message, None)?.to_text().unwrap_or_default(),
            None => "the value is not valid".into(),
        };
        Err(Problem::new(&place, message))
    }
}

fn check_name(name: &str, place: &Place) -> Result<()> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(valid) {
        true => Ok(()),
        false => Err(Problem::new(place, format!("`{name}` is not a target's name"))
            .hint("names have letters, digits, `_` and `-`; `sanitize` makes one")),
    }
}

/// A value given as text. Lists are lines of comma-separated values.
fn from_text(text: &str, kind: &Type, declared: bool) -> std::result::Result<Value, String> {
    let fields = || -> std::result::Result<Vec<String>, String> {
        Ok(functions::records(text)?.into_iter().next().unwrap_or_default())
    };
    let all = |of: &Type| -> std::result::Result<Value, String> {
        let fields = fields()?;
        let values = fields.iter().map(|field| from_text(field, of, declared));
        Ok(Value::List(values.collect::<std::result::Result<_, _>>()?))
    };
    match kind {
        Type::Any | Type::String => Ok(Value::text(text)),
        // The words Go's `strconv.ParseBool` takes.
        Type::Bool => match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(format!("true or false is needed, not `{text}`")),
        },
        Type::Number => Value::text(text).to_number().map(Value::Number),
        Type::List(of) => all(of),
        Type::Set(_) => kind.convert(Value::List(fields()?.into_iter().map(Value::String).collect())),
        Type::Tuple(of) if declared => {
            let fields = fields()?;
            if fields.len() != of.len() {
                return Err(format!("{} values are needed, not {}", of.len(), fields.len()));
            }
            let values = fields.iter().zip(of).map(|(field, of)| from_text(field, of, declared));
            Ok(Value::List(values.collect::<std::result::Result<_, _>>()?))
        }
        // The default is a list whose type nobody said: its first element tells.
        Type::Tuple(of) => all(of.first().unwrap_or(&Type::String)),
        Type::Map(_) | Type::Object(_) => {
            Err("a map is given as JSON, under the variable's name with _JSON".into())
        }
    }
}
