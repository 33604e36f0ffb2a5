//! `RUN --mount=type=..,key=value,..`: read, expanded, checked.

use crate::context::ignore;
use crate::dockerfile::go::{parse_bool, parse_bytes};
use crate::dockerfile::nearest::did_you_mean;
use crate::dockerfile::source::{Problem, Span};
use crate::dockerfile::stage::{Names, StageState};
use crate::dockerfile::statement::{Flag, Statement, Word};
use crate::plan::{self, CopyFrom, Mount, Sharing};

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

/// The fields of one flag; only `from` is looked at, as it says which stages are needed.
#[derive(Debug)]
pub(super) struct Written {
    fields: Vec<Field>,
    span: Span,
}

#[derive(Clone, Debug)]
struct Field {
    /// In small letters.
    key: String,
    value: Option<String>,
    span: Span,
}

pub(super) fn read_all(statement: &Statement) -> Result<Vec<Written>, Problem> {
    statement.flags.iter().filter(|flag| flag.name == "mount").map(|flag| read(statement, flag)).collect()
}

fn read(statement: &Statement, flag: &Flag) -> Result<Written, Problem> {
    let text = flag.value.as_deref().unwrap_or_default();
    let start = flag.span.end - text.len().min(flag.span.len());
    // Quotes that were taken away leave no place but the whole flag.
    let as_written = statement.line.text.get(start..flag.span.end) == Some(text);
    let place = |at: std::ops::Range<usize>| match as_written {
        true => start + at.start..start + at.end,
        false => flag.span.clone(),
    };
    let mut fields = Vec::new();
    for (at, field) in csv(text).map_err(|(at, what)| Problem::invalid(place(at..at + 1), what))? {
        let span = place(at);
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (field.as_str(), None),
        };
        let field = Field { key: key.to_lowercase(), value, span };
        let variable = field.value.as_ref().and_then(|value| value.find('$').map(|at| at + 1 < value.len()));
        if field.key == "from" && variable == Some(true) {
            return Err(Problem::invalid(field.span, "variables mean nothing in `from`")
                .hint("name a stage that is `FROM` the variable, and mount from that stage"));
        }
        fields.push(field);
    }
    Ok(Written { fields, span: flag.span.clone() })
}

/// A field, and where it stands.
type Cut = (std::ops::Range<usize>, String);

/// Quotes as in RFC 4180. An error says where it is.
fn csv(text: &str) -> Result<Vec<Cut>, (usize, &'static str)> {
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let (field, end) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if let Some(quote) = rest[..end].find('"') {
                    return Err((at + quote, "a quote stands inside a field"));
                }
                (rest[..end].to_owned(), end)
            }
            Some(quoted) => {
                let mut field = String::new();
                let mut from = 0;
                loop {
                    let Some(quote) = quoted[from..].find('"') else {
                        return Err((at, "the quote is not closed"));
                    };
                    field.push_str(&quoted[from..from + quote]);
                    from += quote + 1;
                    if !quoted[from..].starts_with('"') {
                        break;
                    }
                    field.push('"');
                    from += 1;
                }
                if !quoted[from..].is_empty() && !quoted[from..].starts_with(',') {
                    return Err((at + 1 + from, "something stands behind the closing quote"));
                }
                (field, from + 1)
            }
        };
        fields.push((at..at + end, field));
        at += end;
        if at == text.len() {
            return Ok(fields);
        }
        at += 1;
    }
}

/// A field's value, expanded.
#[derive(Clone)]
struct Value {
    text: String,
    span: Span,
}

/// All that may be said of a mount.
#[derive(Default)]
struct Options {
    kind: Option<Value>,
    from: Option<Value>,
    source: Option<Value>,
    target: Option<Value>,
    read_only: Option<bool>,
    required: Option<(bool, Span)>,
    size: Option<(u64, Span)>,
    id: Option<Value>,
    sharing: Option<(Sharing, Span)>,
    mode: Option<(u32, Span)>,
    uid: Option<(u32, Span)>,
    gid: Option<(u32, Span)>,
    env: Option<Value>,
}

impl Written {
    /// The stage or image that files come from.
    pub(super) fn from(&self, names: &Names, number: usize) -> Result<Option<CopyFrom>, Problem> {
        let Some(field) = self.fields.iter().rfind(|field| field.key == "from") else { return Ok(None) };
        let text = field.value.clone().unwrap_or_default();
        if text.is_empty() || (text == "scratch" && names.above(&text, number).is_none()) {
            return Ok(None);
        }
        names.copy_from(&Word { text, span: field.span.clone() }, number).map(Some)
    }

    /// `sockets`: how many of the same command's mounts are of ssh and stand before it.
    pub(super) fn mount(&self, stage: &mut StageState<'_>, sockets: usize) -> Result<Mount, Problem> {
        let options = self.options(stage)?;
        let kind = options.kind.as_ref().map_or("bind".to_owned(), |kind| kind.text.to_lowercase());
        options.check(&kind)?;
        let mount = match kind.as_str() {
            "cache" => Mount::Cache(self.cache(stage, &options)?),
            "tmpfs" => Mount::Tmpfs(plan::Tmpfs {
                target: self.target(stage, &options)?,
                size: options.size.as_ref().map(|(size, _)| *size).filter(|size| *size > 0),
                read_only: options.read_only.unwrap_or(false),
            }),
            "secret" => Mount::Secret(self.secret(stage, &options)?),
            "ssh" => Mount::Ssh(self.ssh(stage, &options, sockets)?),
            _ => Mount::Bind(plan::Bind {
                from: match &options.from {
                    Some(_) => self.from(stage.names(), stage.number())?,
                    None => Some(CopyFrom::Context),
                },
                source: source(&options)?,
                target: self.target(stage, &options)?,
                read_only: options.read_only.unwrap_or(true),
            }),
        };
        Ok(mount)
    }

    fn options(&self, stage: &mut StageState<'_>) -> Result<Options, Problem> {
        let mut options = Options::default();
        for field in &self.fields {
            let Field { key, span, .. } = field;
            let span = span.clone();
            let invalid = |message: String| Problem::invalid(span.clone(), message);
            let Some(written) = &field.value else {
                match key.as_str() {
                    "readonly" | "ro" => options.read_only = Some(true),
                    "readwrite" | "rw" => options.read_only = Some(false),
                    "required" => options.required = Some((true, span)),
                    _ if KEYS.contains(&key.as_str()) => {
                        return Err(
                            invalid(format!("`{key}` has no value")).hint(format!("write `{key}=value`"))
                        );
                    }
                    _ => return Err(unknown(key, span)),
                }
                continue;
            };
            let text = match key.as_str() {
                "from" => written.clone(),
                _ => stage.word(&Word { text: written.clone(), span: span.clone() })?,
            };
            let truth = || {
                parse_bool(&text)
                    .ok_or_else(|| invalid(format!("`{key}` is `true` or `false`, not `{text}`")))
            };
            let number = |what: &str| {
                text.parse::<u32>().map_err(|cause| {
                    invalid(format!("`{text}` is no {what}"))
                        .hint("write a number: names mean nothing here")
                        .because(crate::error::Error::invalid(cause.to_string()))
                })
            };
            let value = || Some(Value { text: text.clone(), span: span.clone() });
            match key.as_str() {
                "type" if !TYPES.contains(&text.to_lowercase().as_str()) => {
                    return Err(invalid(format!("`{text}` is no type of a mount")).hint(
                        did_you_mean(&text, TYPES)
                            .unwrap_or_else(|| format!("the types are {}", TYPES.join(", "))),
                    ));
                }
                "type" => options.kind = value(),
                "from" => options.from = value().filter(|value| !value.text.is_empty()),
                "source" | "src" => options.source = value(),
                "target" | "dst" | "destination" => options.target = value(),
                "readonly" | "ro" => options.read_only = Some(truth()?),
                "readwrite" | "rw" => options.read_only = Some(!truth()?),
                "required" => options.required = Some((truth()?, span)),
                "size" => {
                    let size = parse_bytes(&text).ok_or_else(|| {
                        invalid(format!("`{text}` is no size")).hint("write a number of bytes, or `512m`")
                    })?;
                    options.size = Some((size, span));
                }
                "id" => options.id = value().filter(|value| !value.text.is_empty()),
                "sharing" => options.sharing = Some((sharing(&text, &span)?, span)),
                "mode" => {
                    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
                    let mode = mode.ok_or_else(|| {
                        invalid(format!("`{text}` is no mode between 0 and 07777"))
                            .hint("write it in octal, as in `mode=0400`")
                    })?;
                    options.mode = Some((mode, span));
                }
                "uid" => options.uid = Some((number("user's number")?, span)),
                "gid" => options.gid = Some((number("group's number")?, span)),
                "env" => options.env = value(),
                _ => return Err(unknown(key, span)),
            }
        }
        Ok(options)
    }

    /// Below the working directory where it is relative.
    fn target(&self, stage: &StageState<'_>, options: &Options) -> Result<String, Problem> {
        let (written, span) = match &options.target {
            Some(target) => (target.text.as_str(), target.span.clone()),
            None => ("", self.span.clone()),
        };
        let target = stage.absolute(written);
        if target == "/" {
            let hint = "write `target=/path`; a relative one is below WORKDIR";
            return Err(Problem::invalid(span, "nothing can be mounted on `/`").hint(hint));
        }
        Ok(target)
    }

    fn cache(&self, stage: &StageState<'_>, options: &Options) -> Result<plan::Cache, Problem> {
        let id = match (&options.id, &options.target) {
            (Some(id), _) => id.text.clone(),
            (None, target) => clean(target.as_ref().map_or("", |target| &target.text)),
        };
        let build_args = &stage.options.build_args;
        let namespace = build_args.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
        Ok(plan::Cache {
            id: format!("{namespace}/{id}"),
            from: self.from(stage.names(), stage.number())?,
            source: source(options)?,
            target: self.target(stage, options)?,
            sharing: options.sharing.as_ref().map_or(Sharing::Shared, |(sharing, _)| *sharing),
            read_only: options.read_only.unwrap_or(false),
            mode: options.mode(0o755),
            owner: options.owner(),
        })
    }

    fn secret(&self, stage: &StageState<'_>, options: &Options) -> Result<plan::Secret, Problem> {
        let base = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let said = |value: &Option<Value>| value.clone().filter(|value| !value.text.is_empty());
        let (source, target) = (said(&options.source), said(&options.target));
        if let (Some(source), Some(_)) = (&source, &options.id) {
            return Err(Problem::invalid(
                source.span.clone(),
                "a secret has an `id` or a `source`, not both",
            )
            .hint("keep `id`"));
        }
        let id = match (source.as_ref().or(options.id.as_ref()), &target) {
            (Some(id), _) => id.text.clone(),
            (None, Some(target)) => base(&target.text),
            (None, None) => {
                return Err(Problem::invalid(self.span.clone(), "the secret has no name")
                    .hint("write `--mount=type=secret,id=NAME`"));
            }
        };
        let env = said(&options.env).map(|env| env.text);
        let file = match (&target, &env) {
            (Some(target), _) => Some(stage.absolute(&target.text)),
            (None, Some(_)) => None,
            (None, None) => Some(format!("/run/secrets/{}", base(&id))),
        };
        let given = stage.options.run.secrets.as_ref();
        if let (Some((true, span)), Some(given)) = (&options.required, given)
            && !given.contains(&id)
        {
            return Err(Problem::invalid(span.clone(), format!("the secret `{id}` was not given"))
                .hint(format!("build with `--secret id={id},src=FILE`, or with `env=VARIABLE`")));
        }
        Ok(plan::Secret { id, target: file, env, mode: options.mode(0o400), owner: options.owner() })
    }

    fn ssh(&self, stage: &StageState<'_>, options: &Options, sockets: usize) -> Result<plan::Ssh, Problem> {
        let id = options.id.as_ref().map_or("default".to_owned(), |id| id.text.clone());
        let target = match options.target.as_ref().filter(|target| !target.text.is_empty()) {
            Some(target) => stage.absolute(&target.text),
            None => format!("/run/buildkit/ssh_agent.{sockets}"),
        };
        let given = stage.options.run.ssh.as_ref();
        if let (Some((true, span)), Some(given)) = (&options.required, given)
            && !given.contains(&id)
        {
            return Err(Problem::invalid(span.clone(), format!("the ssh agent `{id}` was not given"))
                .hint(format!("build with `--ssh {id}`, or with `--ssh {id}=SOCKET|KEY`")));
        }
        Ok(plan::Ssh { id, target, mode: options.mode(0o600), owner: options.owner() })
    }
}

impl Options {
    fn mode(&self, usual: u32) -> u32 {
        self.mode.as_ref().map_or(usual, |(mode, _)| *mode)
    }

    fn owner(&self) -> (u32, u32) {
        let number = |of: &Option<(u32, Span)>| of.as_ref().map_or(0, |(number, _)| *number);
        (number(&self.uid), number(&self.gid))
    }

    /// What this type of mount does not have.
    fn check(&self, kind: &str) -> Result<(), Problem> {
        let is = |kinds: &[&str]| kinds.contains(&kind);
        let place = |of: &Option<(u32, Span)>| of.as_ref().map(|(_, span)| span.clone());
        let value = |of: &Option<Value>| of.as_ref().map(|value| value.span.clone());
        let has_files = is(&["cache", "secret", "ssh"]);
        let wrong = [
            ("mode", place(&self.mode), has_files),
            ("uid", place(&self.uid), has_files),
            ("gid", place(&self.gid), has_files),
            ("required", self.required.as_ref().map(|(_, span)| span.clone()), is(&["secret", "ssh"])),
            ("size", self.size.as_ref().map(|(_, span)| span.clone()), is(&["tmpfs"])),
            ("sharing", self.sharing.as_ref().map(|(_, span)| span.clone()), is(&["cache"])),
            ("from", value(&self.from), !is(&["secret"])),
            ("source", value(&self.source), !is(&["ssh"])),
        ];
        match wrong.into_iter().find(|(_, said, allowed)| said.is_some() && !allowed) {
            Some((key, Some(span), _)) => {
                Err(Problem::invalid(span, format!("a mount of type `{kind}` has no `{key}`"))
                    .hint("take it out"))
            }
            _ => Ok(()),
        }
    }
}

fn unknown(key: &str, span: Span) -> Problem {
    Problem::invalid(span, format!("a mount has no `{key}`"))
        .hint(did_you_mean(key, KEYS).unwrap_or_else(|| format!("there are {}", KEYS.join(", "))))
}

fn sharing(text: &str, span: &Span) -> Result<Sharing, Problem> {
    match text.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let message = format!("`{text}` is no way to share a cache");
            let hint = did_you_mean(text, SHARINGS);
            Err(Problem::invalid(span.clone(), message)
                .hint(hint.unwrap_or_else(|| format!("there are {}", SHARINGS.join(", ")))))
        }
    }
}

/// Empty for all of the tree.
fn source(options: &Options) -> Result<String, Problem> {
    let Some(source) = &options.source else { return Ok(String::new()) };
    let cleaned = clean(source.text.trim_start_matches('/'));
    if cleaned == ".." || cleaned.starts_with("../") {
        return Err(Problem::invalid(
            source.span.clone(),
            format!("`{}` lies outside of what is mounted", source.text),
        )
        .hint("name a path below the root of the context, stage or image"));
    }
    Ok(if cleaned == "." { String::new() } else { cleaned })
}

fn clean(path: &str) -> String {
    String::from_utf8(ignore::clean(path.as_bytes())).expect("cut at slashes alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_at_commas_that_no_quotes_hold() {
        let texts =
            |text: &str| -> Vec<String> { csv(text).unwrap().into_iter().map(|(_, field)| field).collect() };
        assert_eq!(texts("a=1,b,c="), ["a=1", "b", "c="]);
        assert_eq!(texts("\"a=1,2\",b"), ["a=1,2", "b"]);
        assert_eq!(texts("\"a=\"\"x\"\"\""), ["a=\"x\""]);
        assert_eq!(texts("a,"), ["a", ""]);
        assert_eq!(csv("a=\"x\"").unwrap_err().0, 2);
        assert_eq!(csv("x,\"a").unwrap_err().0, 2);
        assert_eq!(csv("\"a\"b").unwrap_err().0, 3);
    }
}
