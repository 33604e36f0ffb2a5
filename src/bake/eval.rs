//! Expressions to values: operators, `for`, templates, references, calls.

use hcl_edit::Span as _;
use hcl_edit::expr::{
    BinaryOperator, Expression, ForExpr, FuncCall, ObjectKey, Traversal, TraversalOperator, UnaryOperator,
};
use hcl_edit::template::{Directive, Element, Template};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::functions;
use super::source::{Place, Problem};
use super::syntax::{Expr, Json, Node};
use super::value::{Number, Type, Value};
use super::world::World;

/// What is known besides a file's own names: parameters, the variables of `for` and of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    pub(super) names: &'s BTreeMap<String, Value>,
    pub(super) above: Option<&'s Scope<'s>>,
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.names.get(name).or_else(|| self.above.and_then(|above| above.get(name)))
    }
}

/// The names an expression may use, and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Eval<'e> {
    pub(super) world: &'e World<'e>,
    pub(super) scope: Option<&'e Scope<'e>>,
    pub(super) file: usize,
    /// Of the JSON string an expression was read from: there are no finer places in it.
    json: Option<&'e Place>,
}

type Result<T = Value> = std::result::Result<T, Problem>;

impl<'e> Eval<'e> {
    pub(super) fn new(world: &'e World<'e>, scope: Option<&'e Scope<'e>>, file: usize) -> Self {
        Eval { world, scope, file, json: None }
    }

    pub(super) fn expr(&self, expr: &Expr) -> Result {
        match expr {
            Expr::Hcl(expr) => self.hcl(expr),
            Expr::Json(json) => self.json(json),
        }
    }

    pub(super) fn place_of(&self, expr: &Expr) -> Place {
        match expr {
            Expr::Hcl(expr) => self.place(expr.span()),
            Expr::Json(json) => Place { file: self.file, span: json.span.clone() },
        }
    }

    fn place(&self, span: Option<std::ops::Range<usize>>) -> Place {
        self.json.cloned().unwrap_or(Place { file: self.file, span: span.unwrap_or(0..0) })
    }

    fn within<'n>(&self, scope: &'n Scope<'n>) -> Eval<'n>
    where
        'e: 'n,
    {
        Eval { world: self.world, scope: Some(scope), file: self.file, json: self.json }
    }

    fn json(&self, json: &Json) -> Result {
        Ok(match &json.node {
            Node::Null => Value::Null,
            Node::Bool(truth) => Value::Bool(*truth),
            Node::Number(number) => Value::Number(*number),
            Node::Text(_, template) => {
                let place = Place { file: self.file, span: json.span.clone() };
                return Eval { json: Some(&place), ..*self }.template(template);
            }
            Node::List(values) => {
                Value::List(values.iter().map(|value| self.json(value)).collect::<Result<_>>()?)
            }
            Node::Map(entries) => {
                let mut map = BTreeMap::new();
                for (key, value) in entries {
                    let place = Place { file: self.file, span: key.span.clone() };
                    let name = self.json(key)?.to_text().map_err(|say| Problem::new(&place, say))?;
                    map.insert(name, self.json(value)?);
                }
                Value::Map(map)
            }
        })
    }

    fn hcl(&self, expr: &Expression) -> Result {
        let wrong = |say: String| Problem::new(&self.place(expr.span()), say);
        Ok(match expr {
            Expression::Null(_) => Value::Null,
            Expression::Bool(truth) => Value::Bool(**truth),
            Expression::Number(number) => {
                let number = number.value();
                let int = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
                Value::Number(
                    int.map_or_else(|| Number::of(number.as_f64().unwrap_or_default()), Number::Int),
                )
            }
            Expression::String(text) => Value::text(text.as_str()),
            Expression::Array(array) => {
                Value::List(array.iter().map(|value| self.hcl(value)).collect::<Result<_>>()?)
            }
            Expression::Object(object) => {
                let mut map = BTreeMap::new();
                for (key, value) in object.iter() {
                    let name = match key {
                        ObjectKey::Ident(ident) => ident.as_str().to_owned(),
                        // A bare word is its own name; in parentheses it is a reference.
                        ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
                        ObjectKey::Expression(key) => {
                            let place = self.place(key.span());
                            self.hcl(key)?.to_text().map_err(|say| Problem::new(&place, say))?
                        }
                    };
                    map.insert(name, self.hcl(value.expr())?);
                }
                Value::Map(map)
            }
            Expression::StringTemplate(template) => self.template(template)?,
            // A heredoc is text, even if all of it is one interpolation: its line has an end.
            Expression::HeredocTemplate(heredoc) => self.template(&heredoc.template)?,
            Expression::Parenthesis(inner) => self.hcl(inner.inner())?,
            Expression::Variable(name) => self.variable(name.as_str(), &self.place(name.span()))?,
            Expression::Conditional(conditional) => {
                let place = self.place(conditional.cond_expr.span());
                let condition = self.hcl(&conditional.cond_expr)?;
                match condition.to_bool().map_err(|say| Problem::new(&place, say))? {
                    true => self.hcl(&conditional.true_expr)?,
                    false => self.hcl(&conditional.false_expr)?,
                }
            }
            Expression::FuncCall(call) => self.call(call)?,
            Expression::Traversal(traversal) => self.traversal(traversal)?,
            Expression::UnaryOp(unary) => {
                let value = self.hcl(&unary.expr)?;
                match *unary.operator.value() {
                    UnaryOperator::Neg => {
                        let zero = Number::Int(0);
                        let number = value.to_number().map_err(wrong)?;
                        Value::Number(zero.with(number, i128::checked_sub, |a, b| a - b))
                    }
                    UnaryOperator::Not => Value::Bool(!value.to_bool().map_err(wrong)?),
                }
            }
            Expression::BinaryOp(binary) => {
                let left = self.hcl(&binary.lhs_expr)?;
                let right = self.hcl(&binary.rhs_expr)?;
                operate(*binary.operator.value(), &left, &right).map_err(wrong)?
            }
            Expression::ForExpr(each) => self.for_each(each)?,
        })
    }

    fn variable(&self, name: &str, place: &Place) -> Result {
        if let Some(value) = self.scope.and_then(|scope| scope.get(name)) {
            return Ok(value.clone());
        }
        self.world.global(name, place)
    }

    /// `a.b[c].*.d`
    fn traversal(&self, traversal: &Traversal) -> Result {
        let mut operators = traversal.operators.as_slice();
        let block = match &traversal.expr {
            Expression::Variable(name)
                if self.scope.is_none_or(|scope| scope.get(name.as_str()).is_none()) =>
            {
                ["target", "group"].into_iter().find(|kind| *kind == name.as_str())
            }
            _ => None,
        };
        let value = match block {
            Some(kind) => {
                // Only what is referred to is evaluated, so that targets may refer to each other.
                let name = match operators.first() {
                    Some(first) => self.key(first.value())?,
                    None => None,
                };
                let place = self.place(traversal.span());
                let Some(name) = name else {
                    return Err(Problem::new(&place, format!("which {kind}? write {kind}.NAME")));
                };
                operators = &operators[1..];
                let field = match operators.first() {
                    Some(next) => self.key(next.value())?,
                    None => None,
                };
                if field.is_some() {
                    operators = &operators[1..];
                }
                self.world.block_value(kind, &name, field.as_deref(), &place)?
            }
            None => self.hcl(&traversal.expr)?,
        };
        self.steps(value, operators)
    }

    /// The name that `.name` or `["name"]` says.
    fn key(&self, operator: &TraversalOperator) -> Result<Option<String>> {
        Ok(match operator {
            TraversalOperator::GetAttr(name) => Some(name.as_str().to_owned()),
            TraversalOperator::Index(key) => self.hcl(key)?.to_text().ok(),
            _ => None,
        })
    }

    fn steps(&self, value: Value, operators: &[hcl_edit::Decorated<TraversalOperator>]) -> Result {
        let Some((first, rest)) = operators.split_first() else { return Ok(value) };
        let place = self.place(first.value().span().or(first.span()));
        let wrong = |say: String| Problem::new(&place, say);
        let value = match first.value() {
            TraversalOperator::GetAttr(name) => match &value {
                Value::Map(map) => {
                    let near = crate::error::did_you_mean(name.as_str(), map.keys().map(String::as_str));
                    value
                        .index(&Value::text(name.as_str()))
                        .map_err(|say| Problem::new(&place, say).maybe_hint(near))?
                }
                other => return Err(wrong(format!("{} has no attributes", other.kind()))),
            },
            TraversalOperator::Index(key) => {
                let key = self.hcl(key)?;
                value.index(&key).map_err(wrong)?
            }
            TraversalOperator::LegacyIndex(at) => value.index(&Value::int(*at.value())).map_err(wrong)?,
            TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => {
                // A single value counts as a list of one, null as the empty list.
                let each = match value {
                    Value::Null => Vec::new(),
                    Value::List(values) => values,
                    single => vec![single],
                };
                // `.*` takes the attributes behind it along, and ends at an index; `[*]` takes all.
                let attribute = |operator: &hcl_edit::Decorated<TraversalOperator>| {
                    matches!(operator.value(), TraversalOperator::GetAttr(_))
                };
                let split = match first.value() {
                    TraversalOperator::AttrSplat(_) => {
                        rest.iter().position(|operator| !attribute(operator)).unwrap_or(rest.len())
                    }
                    _ => rest.len(),
                };
                let (along, behind) = rest.split_at(split);
                let each = each.into_iter().map(|value| self.steps(value, along)).collect::<Result<_>>()?;
                return self.steps(Value::List(each), behind);
            }
        };
        self.steps(value, rest)
    }

    fn for_each(&self, each: &ForExpr) -> Result {
        let place = self.place(each.intro.collection_expr.span());
        let collection = self.hcl(&each.intro.collection_expr)?;
        let key = each.intro.key_var.as_ref().map(|name| name.as_str());
        let value = each.intro.value_var.as_str();
        let mut list = Vec::new();
        let mut map: BTreeMap<String, Value> = BTreeMap::new();
        let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for names in elements(collection, key, value).map_err(|say| Problem::new(&place, say))? {
            let scope = Scope { names: &names, above: self.scope };
            let inner = self.within(&scope);
            if let Some(condition) = &each.cond {
                let place = self.place(condition.expr.span());
                let kept = inner.hcl(&condition.expr)?;
                if !kept.to_bool().map_err(|say| Problem::new(&place, say))? {
                    continue;
                }
            }
            let result = inner.hcl(&each.value_expr)?;
            let Some(key) = &each.key_expr else {
                list.push(result);
                continue;
            };
            let place = self.place(key.span());
            let key = inner.hcl(key)?.to_text().map_err(|say| Problem::new(&place, say))?;
            if each.grouping {
                groups.entry(key).or_default().push(result);
            } else {
                match map.entry(key) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(result);
                    }
                    Entry::Occupied(taken) => {
                        return Err(Problem::new(&place, format!("the key `{}` comes twice", taken.key()))
                            .hint("`...` behind the value groups them into a list"));
                    }
                }
            }
        }
        Ok(match (&each.key_expr, each.grouping) {
            (None, _) => Value::List(list),
            (Some(_), true) => {
                Value::Map(groups.into_iter().map(|(key, values)| (key, Value::List(values))).collect())
            }
            (Some(_), false) => Value::Map(map),
        })
    }

    fn call(&self, call: &FuncCall) -> Result {
        let name = call.name.name.as_str();
        let place = self.place(call.name.name.span());
        if !call.name.namespace.is_empty() {
            return Err(Problem::new(&place, "functions have no namespaces here"));
        }
        let args: Vec<&Expression> = call.args.iter().collect();
        // What these get is not their arguments' values.
        match name {
            "try" => {
                let mut last = Problem::new(&place, "`try` needs something to try");
                for arg in args {
                    match self.hcl(arg) {
                        Ok(value) => return Ok(value),
                        Err(problem) => last = problem,
                    }
                }
                return Err(last);
            }
            "can" if args.len() == 1 => return Ok(Value::Bool(self.hcl(args[0]).is_ok())),
            "convert" if args.len() == 2 => {
                let value = self.hcl(args[0])?;
                let to = type_of(args[1]).map_err(|say| Problem::new(&self.place(args[1].span()), say))?;
                return to.convert(value).map_err(|say| Problem::new(&self.place(args[0].span()), say));
            }
            _ => {}
        }
        let mut values = Vec::new();
        for (at, arg) in args.iter().enumerate() {
            match (self.hcl(arg)?, call.args.expand_final() && at + 1 == args.len()) {
                (value, false) => values.push(value),
                (Value::List(more), true) => values.extend(more),
                (other, true) => {
                    let say = format!("`...` needs a list, not {}", other.kind());
                    return Err(Problem::new(&self.place(arg.span()), say));
                }
            }
        }
        if let Some(result) = self.world.user_function(name, &values, &place) {
            return result;
        }
        match functions::call(name, &values, self.world.settings) {
            Some(result) => result.map_err(|say| {
                Problem::new(&self.place(call.span().or(call.name.name.span())), format!("`{name}`: {say}"))
            }),
            None => Err(self.world.unknown_function(name, &place)),
        }
    }

    /// A template that is one interpolation and nothing else is that value; all others are text.
    fn template(&self, template: &Template) -> Result {
        if let Some(Element::Interpolation(single)) = template.as_single_element() {
            return self.hcl(&single.expr);
        }
        let mut out = String::new();
        self.write(template, &mut out)?;
        Ok(Value::String(out))
    }

    fn write(&self, template: &Template, out: &mut String) -> Result<()> {
        // `~` takes away white space on its side of the literal next to it.
        let mut strip_next = false;
        let elements: Vec<&Element> = template.iter().collect();
        for (at, element) in elements.iter().enumerate() {
            match element {
                Element::Literal(literal) => {
                    let mut text = literal.as_str();
                    if strip_next {
                        text = text.trim_start();
                    }
                    if elements.get(at + 1).is_some_and(|next| strips_before(next)) {
                        text = text.trim_end();
                    }
                    out.push_str(text);
                    strip_next = false;
                }
                Element::Interpolation(interpolation) => {
                    let place = self.place(interpolation.expr.span());
                    let value = self.hcl(&interpolation.expr)?;
                    out.push_str(&value.to_text().map_err(|say| Problem::new(&place, say))?);
                    strip_next = interpolation.strip.strip_end();
                }
                Element::Directive(directive) => {
                    self.directive(directive, out)?;
                    strip_next = match &**directive {
                        Directive::If(branch) => branch.endif_expr.strip.strip_end(),
                        Directive::For(each) => each.endfor_expr.strip.strip_end(),
                    };
                }
            }
        }
        Ok(())
    }

    fn directive(&self, directive: &Directive, out: &mut String) -> Result<()> {
        match directive {
            Directive::If(branch) => {
                let first = &branch.if_expr;
                let place = self.place(first.cond_expr.span());
                let condition = self.hcl(&first.cond_expr)?;
                let ends = branch.endif_expr.strip.strip_start();
                if condition.to_bool().map_err(|say| Problem::new(&place, say))? {
                    let ends = branch.else_expr.as_ref().map_or(ends, |other| other.strip.strip_start());
                    return self.part(&first.template, first.strip.strip_end(), ends, out);
                }
                match &branch.else_expr {
                    Some(other) => self.part(&other.template, other.strip.strip_end(), ends, out),
                    None => Ok(()),
                }
            }
            Directive::For(each) => {
                let intro = &each.for_expr;
                let place = self.place(intro.collection_expr.span());
                let collection = self.hcl(&intro.collection_expr)?;
                let key = intro.key_var.as_ref().map(|name| name.as_str());
                let all = elements(collection, key, intro.value_var.as_str());
                for names in all.map_err(|say| Problem::new(&place, say))? {
                    let scope = Scope { names: &names, above: self.scope };
                    let ends = each.endfor_expr.strip.strip_start();
                    self.within(&scope).part(&intro.template, intro.strip.strip_end(), ends, out)?;
                }
                Ok(())
            }
        }
    }

    /// The inside of a directive, stripped at its ends.
    fn part(&self, template: &Template, start: bool, end: bool, out: &mut String) -> Result<()> {
        let mut text = String::new();
        self.write(template, &mut text)?;
        let literal = |element: Option<&Element>| matches!(element, Some(Element::Literal(_)));
        let mut part = text.as_str();
        if start && literal(template.iter().next()) {
            part = part.trim_start();
        }
        if end && literal(template.iter().last()) {
            part = part.trim_end();
        }
        out.push_str(part);
        Ok(())
    }
}

fn strips_before(element: &Element) -> bool {
    match element {
        Element::Literal(_) => false,
        Element::Interpolation(interpolation) => interpolation.strip.strip_start(),
        Element::Directive(directive) => match &**directive {
            Directive::If(branch) => branch.if_expr.strip.strip_start(),
            Directive::For(each) => each.for_expr.strip.strip_start(),
        },
    }
}

/// The names each turn of a `for` sees.
fn elements(
    collection: Value,
    key: Option<&str>,
    value: &str,
) -> std::result::Result<Vec<BTreeMap<String, Value>>, String> {
    let names = |at: Value, element: Value| {
        let mut names = BTreeMap::from([(value.to_owned(), element)]);
        if let Some(key) = key {
            names.insert(key.to_owned(), at);
        }
        names
    };
    match collection {
        Value::List(values) => {
            Ok(values.into_iter().enumerate().map(|(at, element)| names(Value::int(at), element)).collect())
        }
        Value::Map(map) => {
            Ok(map.into_iter().map(|(key, element)| names(Value::String(key), element)).collect())
        }
        other => Err(format!("`for` needs a list or a map, not {}", other.kind())),
    }
}

fn operate(operator: BinaryOperator, left: &Value, right: &Value) -> std::result::Result<Value, String> {
    let numbers = || Ok::<_, String>((left.to_number()?, right.to_number()?));
    Ok(match operator {
        BinaryOperator::Eq => Value::Bool(left == right),
        BinaryOperator::NotEq => Value::Bool(left != right),
        BinaryOperator::LessEq => Value::Bool(numbers().map(|(a, b)| a <= b)?),
        BinaryOperator::GreaterEq => Value::Bool(numbers().map(|(a, b)| a >= b)?),
        BinaryOperator::Less => Value::Bool(numbers().map(|(a, b)| a < b)?),
        BinaryOperator::Greater => Value::Bool(numbers().map(|(a, b)| a > b)?),
        BinaryOperator::Plus => {
            Value::Number(numbers().map(|(a, b)| a.with(b, i128::checked_add, |a, b| a + b))?)
        }
        BinaryOperator::Minus => {
            Value::Number(numbers().map(|(a, b)| a.with(b, i128::checked_sub, |a, b| a - b))?)
        }
        BinaryOperator::Mul => {
            Value::Number(numbers().map(|(a, b)| a.with(b, i128::checked_mul, |a, b| a * b))?)
        }
        BinaryOperator::Div => Value::Number(numbers().and_then(|(a, b)| a.divide(b))?),
        BinaryOperator::Mod => Value::Number(numbers().and_then(|(a, b)| a.modulo(b))?),
        BinaryOperator::And => Value::Bool(left.to_bool()? & right.to_bool()?),
        BinaryOperator::Or => Value::Bool(left.to_bool()? | right.to_bool()?),
    })
}

/// `string`, `list(number)`, `object({a = string})`: types have no values, so they are read and not evaluated.
pub(super) fn type_of(expr: &Expression) -> std::result::Result<Type, String> {
    match expr {
        Expression::Variable(name) => match name.as_str() {
            "any" => Ok(Type::Any),
            "bool" => Ok(Type::Bool),
            "number" => Ok(Type::Number),
            "string" => Ok(Type::String),
            other => Err(format!("`{other}` is not a type")),
        },
        Expression::FuncCall(call) => {
            let args: Vec<&Expression> = call.args.iter().collect();
            let [arg] = args[..] else { return Err("a type in parentheses is one".into()) };
            match (call.name.name.as_str(), arg) {
                ("list", of) => Ok(Type::List(Box::new(type_of(of)?))),
                ("set", of) => Ok(Type::Set(Box::new(type_of(of)?))),
                ("map", of) => Ok(Type::Map(Box::new(type_of(of)?))),
                ("tuple", Expression::Array(of)) => {
                    Ok(Type::Tuple(of.iter().map(type_of).collect::<std::result::Result<_, _>>()?))
                }
                ("object", Expression::Object(of)) => {
                    let mut attributes = BTreeMap::new();
                    for (key, value) in of.iter() {
                        let name = match key {
                            ObjectKey::Ident(name) => name.as_str(),
                            ObjectKey::Expression(Expression::Variable(name)) => name.as_str(),
                            ObjectKey::Expression(Expression::String(name)) => name.as_str(),
                            ObjectKey::Expression(_) => return Err("an attribute's name is a word".into()),
                        };
                        attributes.insert(name.to_owned(), attribute_type(value.expr())?);
                    }
                    Ok(Type::Object(attributes))
                }
                (other, _) => Err(format!("`{other}(...)` is not a type")),
            }
        }
        _ => Err("a type is needed, as string or list(number)".into()),
    }
}

fn attribute_type(expr: &Expression) -> std::result::Result<(Type, bool), String> {
    if let Expression::FuncCall(call) = expr
        && call.name.name.as_str() == "optional"
    {
        let first = call.args.iter().next().ok_or("`optional` needs a type")?;
        return Ok((type_of(first)?, true));
    }
    Ok((type_of(expr)?, false))
}
