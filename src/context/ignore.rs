//! `.dockerignore`: which paths of a context are left out.
//!
//! The rules are moby's (`ignorefile` and `patternmatcher`), its corners included: a pattern is cleaned as
//! `filepath.Clean` does, must be well formed for `filepath.Match`, and is then read as the regular expression that
//! moby makes of it. Where that expression is not one, the file is refused; moby fails the build.

use super::wildcard::{self, Op, Program, Set, ascii, decode};
use crate::error::{Error, Result};

/// The rules of one file, in order. A path is looked at from the top down, as moby's walk does: the last rule that
/// matches it, or matched one of its parents, decides; a `!` rule matches only where something was left out before it.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    /// Begins with `!`: takes back what earlier rules left out.
    keeps: bool,
    /// `*`, `**` or `**/*`.
    everything: bool,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact(Vec<u8>),
    /// `a/**`: whatever begins so.
    Prefix(Vec<u8>),
    /// `**/a` and `**a`: whatever ends so; behind a leading slash also the rest alone.
    Suffix(Vec<u8>),
    Program(Program),
}

impl Ignore {
    /// An error names the line of a bad pattern.
    pub fn parse(text: &[u8]) -> Result<Ignore> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let rule = Rule::parse(line).map_err(|error| {
                Error::invalid(format!(
                    "line {}: `{}`",
                    index + 1,
                    String::from_utf8_lossy(line).trim_end_matches('\r')
                ))
                .because(error)
            })?;
            rules.extend(rule);
        }
        Ok(Ignore { rules })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Is there a `!` rule?
    pub fn takes_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }

    /// Is there a rule that leaves out all there is?
    pub fn leaves_out_all(&self) -> bool {
        self.rules.iter().any(|rule| rule.everything && !rule.keeps)
    }

    /// `path` relative to the context, components separated by one `/`, none of them `.` or `..`.
    /// The rules do not tell directories from files; `is_dir` is there for the caller's eyes.
    pub fn excluded(&self, path: &[u8], _is_dir: bool) -> bool {
        self.deciding(path).is_some_and(|rule| !self.rules[rule].keeps)
    }

    /// Is it an excluded directory that need not be walked, because no `!` rule matches anything below it?
    pub fn may_skip_dir(&self, path: &[u8]) -> bool {
        match self.deciding(path) {
            Some(rule) if !self.rules[rule].keeps => {
                self.rules[rule..].iter().all(|later| !later.keeps || !later.matcher.may_match_below(path))
            }
            Some(_) | None => false,
        }
    }

    /// The last rule that matches the path or matched a parent (`MatchesUsingParentResults`).
    fn deciding(&self, path: &[u8]) -> Option<usize> {
        let mut matched = vec![false; self.rules.len()];
        let mut deciding = None;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        for end in ends.chain([path.len()]) {
            deciding = None;
            let mut excluded = false;
            for (index, rule) in self.rules.iter().enumerate() {
                matched[index] |= rule.keeps == excluded && rule.matcher.matches(&path[..end]);
                if matched[index] {
                    excluded = !rule.keeps;
                    deciding = Some(index);
                }
            }
        }
        deciding
    }
}

impl Rule {
    fn parse(line: &[u8]) -> Result<Option<Rule>> {
        if line.starts_with(b"#") {
            return Ok(None);
        }
        let mut pattern = trim(line);
        if pattern.is_empty() {
            return Ok(None);
        }
        let inverted = pattern[0] == b'!';
        if inverted {
            pattern = trim(&pattern[1..]);
        }
        let mut cleaned = Vec::new();
        if !pattern.is_empty() {
            cleaned = clean(pattern);
            if cleaned.len() > 1 && cleaned[0] == b'/' {
                cleaned.remove(0);
            }
        }
        // moby writes the `!` back, cleans once more and looks again: `!/` is an error, `./!a` is a `!` rule.
        if inverted {
            cleaned.insert(0, b'!');
        }
        let cleaned = clean(&cleaned);
        let (keeps, pattern) = match cleaned.strip_prefix(b"!") {
            Some([]) => {
                return Err(Error::invalid("`!` alone takes nothing back")
                    .hint("write the pattern behind the `!`, as in `!docs/README.md`"));
            }
            Some(rest) => (true, rest),
            None => (false, &cleaned[..]),
        };
        wildcard::Pattern::parse(pattern)?;
        let everything = [&b"*"[..], b"**", b"**/*"].contains(&pattern);
        Ok(Some(Rule { keeps, everything, matcher: Matcher::parse(pattern)? }))
    }
}

impl Matcher {
    fn parse(pattern: &[u8]) -> Result<Matcher> {
        #[derive(PartialEq)]
        enum Shape {
            Exact,
            Prefix,
            Suffix,
            Expression,
        }
        let text = decode(pattern);
        let mut expression = Vec::new();
        let mut shape = Shape::Exact;
        let mut at = 0;
        while let Some(&c) = text.get(at) {
            let first = at == 0;
            at += 1;
            match ascii(c) {
                b'*' if text.get(at) == Some(&u32::from(b'*')) => {
                    at += 1;
                    if text.get(at) == Some(&u32::from(b'/')) {
                        at += 1;
                    }
                    if at < text.len() {
                        expression.extend(decode(b"(.*/)?"));
                        shape = Shape::Expression;
                    } else if shape == Shape::Exact {
                        shape = Shape::Prefix;
                    } else {
                        expression.extend(decode(b".*"));
                        shape = Shape::Expression;
                    }
                    if first {
                        shape = Shape::Suffix;
                    }
                }
                b'*' => {
                    expression.extend(decode(b"[^/]*"));
                    shape = Shape::Expression;
                }
                b'?' => {
                    expression.extend(decode(b"[^/]"));
                    shape = Shape::Expression;
                }
                b'.' | b'+' | b'(' | b')' | b'|' | b'{' | b'}' | b'$' => {
                    expression.extend([u32::from(b'\\'), c]);
                }
                b'\\' => {
                    expression.push(c);
                    expression.extend(text.get(at));
                    at += 1;
                    shape = Shape::Expression;
                }
                b'[' | b']' => {
                    expression.push(c);
                    shape = Shape::Expression;
                }
                _ => expression.push(c),
            }
        }
        Ok(match shape {
            Shape::Exact => Matcher::Exact(pattern.to_vec()),
            Shape::Prefix => Matcher::Prefix(pattern[..pattern.len() - 2].to_vec()),
            Shape::Suffix => Matcher::Suffix(pattern[2..].to_vec()),
            Shape::Expression => {
                Matcher::Program(Expression { text: &expression, at: 0 }.compile().ok_or_else(|| {
                    Error::invalid("Docker cannot read the pattern")
                        .hint("put no `\\` before a letter or digit, and no `*` or `?` into brackets")
                })?)
            }
        })
    }

    /// The path itself; its parents are asked for one by one.
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Matcher::Exact(name) => path == name,
            Matcher::Prefix(start) => path.starts_with(start),
            Matcher::Suffix(end) => path.ends_with(end) || end.strip_prefix(b"/") == Some(path),
            Matcher::Program(program) => program.matches(path),
        }
    }

    fn may_match_below(&self, dir: &[u8]) -> bool {
        let below = |name: &[u8]| name.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
        match self {
            Matcher::Exact(name) => below(name),
            Matcher::Prefix(start) => {
                below(start) || dir.starts_with(start) || start.strip_suffix(b"/") == Some(dir)
            }
            Matcher::Suffix(_) => true,
            Matcher::Program(program) => program.alive_below(dir),
        }
    }
}

/// The part of Go's `regexp/syntax` that moby's expressions can hold.
struct Expression<'a> {
    text: &'a [u32],
    at: usize,
}

impl Expression<'_> {
    fn compile(mut self) -> Option<Program> {
        let mut ops = Vec::new();
        while let Some(c) = self.next() {
            match ascii(c) {
                b'^' => ops.push(Op::Start),
                // The only group there is: `(.*/)?`.
                b'(' => {
                    self.at += b".*/)?".len();
                    ops.extend([Op::Skip(2), Op::Loop(any()), Op::One(Set::only(u32::from(b'/')))]);
                }
                b'.' => self.repeatable(&mut ops, any()),
                b'[' => {
                    let set = self.class()?;
                    self.repeatable(&mut ops, set);
                }
                b'\\' => {
                    let set = match self.escape()? {
                        Escape::One(c) => Set::only(c),
                        Escape::Many(ranges) => Set { negated: false, ranges },
                    };
                    ops.push(Op::One(set));
                }
                _ => ops.push(Op::One(Set::only(c))),
            }
        }
        Some(Program::new(ops))
    }

    fn next(&mut self) -> Option<u32> {
        let c = self.text.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is = self.text.get(self.at) == Some(&u32::from(byte));
        self.at += usize::from(is);
        is
    }

    fn repeatable(&mut self, ops: &mut Vec<Op>, set: Set) {
        ops.push(if self.eat(b'*') { Op::Loop(set) } else { Op::One(set) });
    }

    /// From behind the `[`.
    fn class(&mut self) -> Option<Set> {
        let negated = self.eat(b'^');
        let mut ranges = Vec::new();
        let mut first = true;
        while first || !self.eat(b']') {
            first = false;
            let low = match self.class_end()? {
                Escape::One(low) => low,
                Escape::Many(more) => {
                    ranges.extend(more);
                    continue;
                }
            };
            let closes = self.text.get(self.at + 1) == Some(&u32::from(b']'));
            if closes || !self.eat(b'-') {
                ranges.push((low, low));
                continue;
            }
            match self.class_end()? {
                Escape::One(high) if low <= high => ranges.push((low, high)),
                Escape::One(_) | Escape::Many(_) => return None,
            }
        }
        Some(Set { negated, ranges })
    }

    fn class_end(&mut self) -> Option<Escape> {
        match self.next()? {
            c if c == u32::from(b'\\') => self.escape(),
            c => Some(Escape::One(c)),
        }
    }

    /// From behind a backslash.
    fn escape(&mut self) -> Option<Escape> {
        let ranges = |pairs: &[(u8, u8)]| -> Vec<(u32, u32)> {
            pairs.iter().map(|(low, high)| (u32::from(*low), u32::from(*high))).collect()
        };
        let digit = ranges(&[(b'0', b'9')]);
        let space = ranges(&[(b'\t', b'\n'), (12, b'\r'), (b' ', b' ')]);
        let word = ranges(&[(b'0', b'9'), (b'A', b'Z'), (b'_', b'_'), (b'a', b'z')]);
        let c = self.next()?;
        Some(match ascii(c) {
            b'a' => Escape::One(7),
            b'f' => Escape::One(12),
            b'n' => Escape::One(u32::from(b'\n')),
            b'r' => Escape::One(u32::from(b'\r')),
            b't' => Escape::One(u32::from(b'\t')),
            b'v' => Escape::One(11),
            b'd' => Escape::Many(digit),
            b'D' => Escape::Many(complement(&digit)),
            b's' => Escape::Many(space),
            b'S' => Escape::Many(complement(&space)),
            b'w' => Escape::Many(word),
            b'W' => Escape::Many(complement(&word)),
            0 => return None,
            byte if byte.is_ascii_alphanumeric() => return None,
            _ => Escape::One(c),
        })
    }
}

enum Escape {
    One(u32),
    Many(Vec<(u32, u32)>),
}

/// Of ranges in order that do not touch.
fn complement(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut from = 0;
    let mut rest = Vec::new();
    for (low, high) in ranges {
        if from < *low {
            rest.push((from, low - 1));
        }
        from = high + 1;
    }
    rest.push((from, u32::MAX));
    rest
}

/// Go's `.`: everything but a newline.
fn any() -> Set {
    Set { negated: true, ranges: vec![(u32::from(b'\n'), u32::from(b'\n'))] }
}

/// Go's `strings.TrimSpace`.
fn trim(line: &[u8]) -> &[u8] {
    match std::str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

/// Go's `filepath.Clean`: single slashes, no `.`, every `..` taken back as far as there is something to take.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", &joined[..]].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &[&str], path: &str) -> bool {
        Ignore::parse(rules.join("\n").as_bytes()).unwrap().excluded(path.as_bytes(), false)
    }

    #[test]
    fn a_pattern_matches_the_path_or_one_of_its_parents() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir/file", true),
            ("**/dir", "a/dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir3/file", true),
            ("**file", "dir/dir/file", true),
            ("**file", "dir/afile", true),
            ("**/file", "dir/afile", false),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt**", "a/file.txt", true),
            ("a/**b", "a/b", true),
            ("a/**b", "a/x/b", true),
            ("a/**b", "a/xb", false),
            ("a**", "abc", true),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            ("[!o]x", "ox", true),
            ("[!o]x", "ax", false),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("{a,b}", "a", false),
            ("{a,b}", "{a,b}", true),
            ("a(b)c/def", "a(b)c/def", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("dist/*.whl", "dist/proxy-2.4.0+g08-py3.whl", true),
            ("a\\\\", "a\\", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "aab", false),
            ("/docs", "docs/a", true),
            ("docs/", "docs/a", true),
            ("./docs//x/..", "docs/a", true),
            ("doc", "docs", false),
            ("../foo", "foo", false),
            (".", "foo", false),
            ("/", "foo", false),
            ("*/*/temp*", "a/b/temporary/c", true),
            ("temp?", "tempa/x", true),
            ("temp?", "temp", false),
            ("\\d", "7", true),
            ("x^*", "x^y", false),
            ("x^", "x^", true),
            ("[*]", "]", true),
            ("[*]", "*", false),
            ("a/b", "a/b/c/d", true),
            ("a/b", "a/bc", false),
            ("a/b", "x/a/b", false),
            ("*", "a/b", true),
            ("*/", "a", true),
            ("*/*", "a", false),
            ("*/*", "a/b", true),
            ("?", "é", true),
            ("??", "é", false),
            ("**/a/b", "a/b", true),
            ("**/a/b", "x/y/a/b/c", true),
            ("**/a*b", "x/axxb", true),
            ("**/a*b", "x/a/b", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "ab", false),
            ("a/**/*.c", "a/x.c", true),
            ("**/*.c", "x.c", true),
            ("*.c", "d/x.c", false),
            ("**/.git", "sub/.git/config", true),
            ("**/*", "a", true),
            ("a**/b", "abc/b", true),
            ("a**/b", "a/x/b", true),
            ("a b", "a b", true),
            ("é*", "éa", true),
            ("[^/]a", "xa", true),
            ("a/../b", "b", true),
            ("..a", "..a", true),
        ] {
            assert_eq!(excluded(&[pattern], path), expected, "`{pattern}` `{path}`");
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        for (rules, path, expected) in [
            (&["docs", "!docs/README.md"][..], "docs/README.md", false),
            (&["docs", "!docs/README.md"], "docs/a", true),
            (&["!a", "a"], "a", true),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
            (&["*.md", "README-secret.md", "!README*.md"], "README-secret.md", false),
            (&["**", "!util/docker/web"], "util/docker/web/foo", false),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["# docs", "a"], "# docs", false),
            (&["  # a"], "# a", true),
            (&["a", "! a"], "a", false),
            (&["a", "  !a  "], "a", false),
            (&["a", "./!a"], "a", false),
            (&["a", "!/a"], "a", false),
            (&["*/x", "!a"], "a/x", true),
            (&["a/x", "!a"], "a/x", true),
            (&["a", "!a"], "a/x", false),
            (&["**/modules", "!app"], "app/modules/a", true),
            (&["*", "!src", "**/*.pyc"], "src/a.pyc", true),
            (&["**/*.pyc", "*", "!src"], "src/a.pyc", false),
        ] {
            assert_eq!(excluded(rules, path), expected, "{rules:?} `{path}`");
        }
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_are_no_part_of_a_pattern() {
        let ignore = Ignore::parse(b"\xef\xbb\xbfa\r\n\r\n b \r\n").unwrap();
        assert!(ignore.excluded(b"a", false) && ignore.excluded(b"b", false));
    }

    #[test]
    fn names_are_bytes() {
        let ignore = Ignore::parse(b"a\xff?\nb*").unwrap();
        assert!(ignore.excluded(b"a\xffb", false) && ignore.excluded(b"b\xfe", false));
        assert!(!ignore.excluded(b"a\xfeb", false));
    }

    #[test]
    fn bad_patterns_are_refused_with_their_line() {
        for text in ["!", "! ", "!/", "[", "a\\", "[]a]", "fo\\o", "[a-b-c]"] {
            let error = Ignore::parse(format!("ok\n{text}\n").as_bytes()).unwrap_err();
            assert_eq!(error.message(), format!("line 2: `{text}`"));
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn an_excluded_directory_is_skipped_when_nothing_below_can_come_back() {
        for (rules, dir, skip) in [
            (&["node_modules"][..], "node_modules", true),
            (&["node_modules"], "src", false),
            (&["a", "!a/b/c"], "a", false),
            (&["a", "!a/b/c"], "a/b", false),
            (&["a", "!a/b/c"], "a/x", true),
            (&["a", "!b/c"], "a", true),
            (&["a", "!**/keep"], "a", false),
            (&["a", "!a/*/keep"], "a/x", false),
            (&["a", "!a/*/keep"], "a/x/y", true),
            (&["!a/b", "a"], "a", true),
            (&["a", "!a/b**"], "a", false),
            (&["*", "!src/**"], "src", false),
            (&["*", "!src"], "doc", true),
        ] {
            let ignore = Ignore::parse(rules.join("\n").as_bytes()).unwrap();
            assert_eq!(ignore.may_skip_dir(dir.as_bytes()), skip, "{rules:?} `{dir}`");
        }
    }

    #[test]
    fn a_skipped_directory_holds_nothing_that_is_kept() {
        let names = ["a", "b", "ab", "keep", "x.c"];
        let patterns = [
            "a", "*", "**", "!a/b", "!**/keep", "!a/*/x.c", "a/**", "!ab", "*/b", "!a/b/**", "**/a", "![ab]*",
        ];
        let mut seed = 7_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        for _ in 0..3000 {
            let rules: Vec<_> = (0..1 + random(4)).map(|_| patterns[random(patterns.len())]).collect();
            let path: Vec<_> = (0..2 + random(3)).map(|_| names[random(names.len())]).collect();
            let ignore = Ignore::parse(rules.join("\n").as_bytes()).unwrap();
            for depth in 1..path.len() {
                if ignore.may_skip_dir(path[..depth].join("/").as_bytes()) {
                    assert!(ignore.excluded(path.join("/").as_bytes(), false), "{rules:?} {path:?}");
                }
            }
        }
    }

    #[test]
    fn many_stars_stay_fast() {
        let ignore = Ignore::parse(("**/*a".repeat(100) + "b").as_bytes()).unwrap();
        assert!(!ignore.excluded("a/".repeat(2000).trim_end_matches('/').as_bytes(), false));
    }
}
