//! Tokens to a tree: what an action, a pipeline and an operand are made of.

use super::lex::{Placed, Token, tokens};
use super::{Fault, functions};

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    /// The first branch whose pipeline is true; a branch without one is `else`.
    If(Vec<Branch>),
    /// The same, with the dot set to the value.
    With(Vec<Branch>),
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) condition: Option<Pipeline>,
    pub(super) body: Vec<Node>,
}

/// Commands, each handed the value of the one before it as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    pub(super) variables: Vec<String>,
    /// `=` and not `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Call>,
}

/// An operand, or what is called with operands.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) first: Operand,
    pub(super) arguments: Vec<Operand>,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Pipeline(Box<Pipeline>),
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Nil,
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        end: text.len(),
        variables: vec![String::new()],
        loops: 0,
        depth: 0,
    };
    let (nodes, end) = parser.list()?;
    match end {
        Stop::Text => Ok(nodes),
        Stop::Else(at) => Err(Fault::new(at, "`else` without an `if`, `with` or `range` before it")),
        Stop::End(at) => Err(Fault::new(at, "`end` without an `if`, `with` or `range` before it")),
    }
}

/// The parser calls itself for what is nested; nobody writes so much by hand.
const DEEPEST: usize = 200;

struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    /// Length of the text: where what is missing is missing.
    end: usize,
    /// Those that may be used here.
    variables: Vec<String>,
    /// How many `range` we are in.
    loops: usize,
    /// How many lists and parentheses we are in.
    depth: usize,
}

/// What a list of nodes ended with; the words themselves are consumed, what follows `else` is not.
enum Stop {
    Text,
    Else(usize),
    End(usize),
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }
    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }
    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.next += usize::from(found);
        found
    }
    fn close(&mut self) -> Result<(), Fault> {
        if self.take(&Token::Close) { Ok(()) } else { Err(Fault::new(self.at(), "expected `}}` here")) }
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        self.deeper()?;
        let list = self.list_here();
        self.depth -= 1;
        list
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(Fault::new(self.at(), "nested too deeply")) } else { Ok(()) }
    }

    fn list_here(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        let mut nodes = Vec::new();
        loop {
            let at = self.at();
            match self.peek() {
                None => return Ok((nodes, Stop::Text)),
                Some(Token::Text(text)) => {
                    nodes.push(Node::Text(text.clone()));
                    self.next += 1;
                    continue;
                }
                Some(_) => self.next += 1,
            }
            // An empty action is none, and says so nowhere in Go either but in an error.
            if self.take(&Token::Close) {
                return Err(Fault::new(at, "there is nothing in this action"));
            }
            if self.take_word("end") {
                self.close()?;
                return Ok((nodes, Stop::End(at)));
            }
            if self.take_word("else") {
                return Ok((nodes, Stop::Else(at)));
            }
            nodes.push(self.action(at)?);
        }
    }

    fn action(&mut self, at: usize) -> Result<Node, Fault> {
        for refused in ["define", "template", "block"] {
            if self.take_word(refused) {
                return Err(Fault::new(
                    at,
                    format!("`{refused}` is not supported: a format is one template"),
                ));
            }
        }
        if self.take_word("if") {
            return Ok(Node::If(self.branches("if", at)?));
        }
        if self.take_word("with") {
            return Ok(Node::With(self.branches("with", at)?));
        }
        if self.take_word("range") {
            return self.range(at);
        }
        for (word, node) in [("break", Node::Break), ("continue", Node::Continue)] {
            if self.take_word(word) {
                self.close()?;
                return match self.loops {
                    0 => Err(Fault::new(at, format!("`{word}` stands in no `range`"))),
                    _ => Ok(node),
                };
            }
        }
        let pipeline = self.pipeline(1)?;
        self.close()?;
        Ok(Node::Action(pipeline))
    }

    fn branches(&mut self, word: &str, opened: usize) -> Result<Vec<Branch>, Fault> {
        let mut branches = Vec::new();
        let outer = self.variables.len();
        let mut condition = Some(self.pipeline(1)?);
        self.close()?;
        loop {
            let inner = self.variables.len();
            let (body, end) = self.list()?;
            self.variables.truncate(inner);
            let last = condition.is_none();
            branches.push(Branch { condition, body });
            match end {
                Stop::Text => return Err(Fault::new(opened, format!("this `{word}` has no `{{{{end}}}}`"))),
                Stop::End(_) => break,
                Stop::Else(at) if last => return Err(Fault::new(at, "a second `else`")),
                Stop::Else(_) => {
                    condition = if self.take_word(word) { Some(self.pipeline(1)?) } else { None };
                    self.close()?;
                }
            }
        }
        self.variables.truncate(outer);
        Ok(branches)
    }

    fn range(&mut self, opened: usize) -> Result<Node, Fault> {
        let outer = self.variables.len();
        let over = self.pipeline(2)?;
        self.close()?;
        self.loops += 1;
        let (body, end) = self.list()?;
        self.loops -= 1;
        self.variables.truncate(outer);
        let (otherwise, end) = match end {
            Stop::Else(_) => {
                self.close()?;
                self.list()?
            }
            end => (Vec::new(), end),
        };
        self.variables.truncate(outer);
        match end {
            Stop::End(_) => Ok(Node::Range { over, body, otherwise }),
            Stop::Else(at) => Err(Fault::new(at, "a second `else`")),
            Stop::Text => Err(Fault::new(opened, "this `range` has no `{{end}}`")),
        }
    }

    fn pipeline(&mut self, most_variables: usize) -> Result<Pipeline, Fault> {
        let at = self.at();
        let (variables, assigns) = self.declaration(most_variables)?;
        let mut commands = vec![self.command()?];
        while self.take(&Token::Pipe) {
            let at = self.at();
            let command = self.command()?;
            let callable =
                matches!(command.first.base, Base::Function(_)) || !command.first.fields.is_empty();
            if !callable {
                return Err(Fault::new(at, "what stands behind `|` must be a function"));
            }
            commands.push(command);
        }
        match (assigns, &variables[..]) {
            (false, declared) => self.variables.extend(declared.iter().cloned()),
            (true, assigned) => {
                if let Some(unknown) = assigned.iter().find(|name| !self.variables.contains(name)) {
                    return Err(Fault::new(at, format!("there is no variable `${unknown}` here")));
                }
            }
        }
        Ok(Pipeline { at, variables, assigns, commands })
    }

    /// `$x :=`, `$x =`, and in a `range` also `$k, $v :=`.
    fn declaration(&mut self, most: usize) -> Result<(Vec<String>, bool), Fault> {
        let start = self.next;
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.next += 1;
            if self.take(&Token::Comma) {
                continue;
            }
            let assigns = self.peek() == Some(&Token::Assign);
            if !assigns && self.peek() != Some(&Token::Declare) {
                break;
            }
            if names.len() > most {
                return Err(Fault::new(self.at(), "too many variables"));
            }
            self.next += 1;
            return Ok((names, assigns));
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Result<Call, Fault> {
        let mut operands = Vec::new();
        while !matches!(self.peek(), None | Some(Token::Close | Token::Pipe | Token::Right)) {
            operands.push(self.operand()?);
        }
        let at = self.at();
        let mut operands = operands.into_iter();
        let first = operands.next().ok_or_else(|| Fault::new(at, "a value is missing here"))?;
        let arguments: Vec<Operand> = operands.collect();
        let callable = matches!(first.base, Base::Function(_)) || !first.fields.is_empty();
        if !callable && !arguments.is_empty() {
            return Err(Fault::new(first.at, "this is no function, so nothing can follow it"));
        }
        Ok(Call { first, arguments })
    }

    fn operand(&mut self) -> Result<Operand, Fault> {
        let at = self.at();
        let Some((_, token)) = self.tokens.get(self.next).cloned() else {
            return Err(Fault::new(at, "a value is missing here"));
        };
        self.next += 1;
        let mut fields = Vec::new();
        let base = match token {
            Token::Fields { names, .. } => {
                fields = names;
                Base::Dot
            }
            Token::Variable(name) if self.variables.contains(&name) => Base::Variable(name),
            Token::Variable(name) => {
                return Err(Fault::new(at, format!("there is no variable `${name}` here")));
            }
            Token::String(text) => Base::String(text),
            Token::Integer(number) => Base::Integer(number),
            Token::Float(number) => Base::Float(number),
            Token::Word(word) => match word.as_str() {
                "true" => Base::Bool(true),
                "false" => Base::Bool(false),
                "nil" => Base::Nil,
                _ if functions::NAMES.contains(&word.as_str()) => Base::Function(word),
                _ => return Err(unknown_function(at, &word)),
            },
            Token::Left => {
                self.deeper()?;
                let inner = self.pipeline(0)?;
                self.depth -= 1;
                if !self.take(&Token::Right) {
                    return Err(Fault::new(at, "this parenthesis is not closed"));
                }
                Base::Pipeline(Box::new(inner))
            }
            Token::Text(_)
            | Token::Open
            | Token::Close
            | Token::Pipe
            | Token::Right
            | Token::Comma
            | Token::Declare
            | Token::Assign => return Err(Fault::new(at, "expected a value here")),
        };
        if let Some(Token::Fields { names, glued: true }) = self.peek() {
            if matches!(base, Base::Dot) {
                return Err(Fault::new(self.at(), "two dots with nothing between them"));
            }
            fields.clone_from(names);
            self.next += 1;
        }
        Ok(Operand { at, base, fields })
    }
}

fn unknown_function(at: usize, word: &str) -> Fault {
    // By far the commonest slip.
    let field = word.starts_with(char::is_uppercase);
    let dot = if field { format!("; for the field write `.{word}`") } else { String::new() };
    Fault::new(at, format!("there is no function `{word}`{dot}"))
}
