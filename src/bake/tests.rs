//! Tables of expressions, functions and whole files.

use time::OffsetDateTime;

use super::*;
use crate::error::Error;

fn settings(lookup: &dyn Fn(&str) -> Option<String>) -> Settings<'_> {
    Settings {
        lookup,
        platform: "linux/amd64".into(),
        home: "/home/me".into(),
        now: OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap(),
    }
}

fn read_named(name: &str, text: &str) -> Result<Bake> {
    let lookup = |name: &str| (name == "FROM_OUTSIDE").then(|| "outside".to_owned());
    let file = File { name: name.into(), text: text.into() };
    Bake::read(vec![file], &settings(&lookup))
}

fn read_hcl(text: &str) -> Result<Bake> {
    read_named("docker-bake.hcl", text)
}

fn said(error: &Error) -> String {
    format!("{}\n{}", error.one_line(), error.hint_text().unwrap_or_default())
}

/// The value of an expression, as JSON.
fn value(expr: &str) -> String {
    let text = format!("target \"t\" {{\n args = {{ v = jsonencode({expr}) }}\n}}\n");
    let bake = match read_hcl(&text) {
        Ok(bake) => bake,
        Err(error) => return format!("error: {}", said(&error)),
    };
    let resolved = bake.resolve(&["t".into()], &[], &|_| None).unwrap();
    resolved.targets["t"].pairs("args").next().unwrap().1.to_owned()
}

#[track_caller]
fn check(table: &[(&str, &str)]) {
    let wrong: Vec<_> = table
        .iter()
        .map(|(expr, expected)| (expr, value(expr), expected))
        .filter(|(_, value, expected)| value != *expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn expressions_are_evaluated_as_in_hcl() {
    check(&[
        ("1 + 2 * 3", "7"),
        ("7 / 2", "3.5"),
        ("-7 % 3", "-1"),
        ("10 / 5", "2"),
        ("\"5\" + 1", "6"),
        ("!true || 1 < 2 && 2 >= 2", "true"),
        ("\"a\" == \"a\" ? \"yes\" : \"no\"", "\"yes\""),
        ("[1, \"a\", null, [true]]", "[1,\"a\",null,[true]]"),
        ("{b = 1, a = 2, \"c d\" = 3, (\"e\") = 4}", "{\"a\":2,\"b\":1,\"c d\":3,\"e\":4}"),
        ("\"x${1 + 1}y\"", "\"x2y\""),
        ("\"${[1, 2]}\"", "[1,2]"),
        ("\"a$${b}%%{c}\"", "\"a${b}%{c}\""),
        ("\"%{ if true }a%{ else }b%{ endif }\"", "\"a\""),
        ("\"%{ for x in [1, 2] }${x},%{ endfor }\"", "\"1,2,\""),
        ("\"a ${~ 1 ~} b\"", "\"a1b\""),
        ("[for x in [1, 2, 3]: x * 2 if x != 2]", "[2,6]"),
        ("{for k, v in {a = 1, b = 2}: v => k}", "{\"1\":\"a\",\"2\":\"b\"}"),
        (
            "{for x in [\"a\", \"b\", \"aa\"]: substr(x, 0, 1) => x...}",
            "{\"a\":[\"a\",\"aa\"],\"b\":[\"b\"]}",
        ),
        ("[{a = 1}, {a = 2}][*].a", "[1,2]"),
        ("[{a = 1}, {a = 2}].*.a", "[1,2]"),
        ("{a = [5, 6]}.a[1]", "6"),
        ("{a = 1}[\"a\"]", "1"),
        ("max([1, 5, 3]...)", "5"),
        ("<<E\none\n${1 + 1}\nE\n", "\"one\\n2\\n\""),
        ("<<-E\n    one\n      two\n    E\n", "\"one\\n  two\\n\""),
        ("BAKE_CMD_CONTEXT", "\"cwd://\""),
        ("BAKE_LOCAL_PLATFORM", "\"linux/amd64\""),
    ]);
}

#[test]
fn functions_give_what_those_of_go_cty_give() {
    check(&[
        ("absolute(-3)", "3"),
        ("add(123, 1)", "124"),
        ("and(true, false)", "false"),
        ("base64decode(\"aGk=\")", "\"hi\""),
        ("base64encode(\"hi\")", "\"aGk=\""),
        ("basename(\"/a/b/\")", "\"b\""),
        ("can(nothing.here)", "false"),
        ("ceil(1.2)", "2"),
        ("chomp(\"a\\n\\n\")", "\"a\""),
        ("chunklist([1, 2, 3], 2)", "[[1,2],[3]]"),
        ("cidrhost(\"10.12.112.0/20\", 16)", "\"10.12.112.16\""),
        ("cidrhost(\"10.12.112.0/20\", -1)", "\"10.12.127.255\""),
        ("cidrnetmask(\"172.16.0.0/12\")", "\"255.240.0.0\""),
        ("cidrsubnet(\"172.16.0.0/12\", 4, 2)", "\"172.18.0.0/16\""),
        ("cidrsubnet(\"fd00:fd12:3456:7890::/56\", 16, 162)", "\"fd00:fd12:3456:7800:a200::/72\""),
        ("cidrsubnets(\"10.1.0.0/16\", 4, 4, 8)", "[\"10.1.0.0/20\",\"10.1.16.0/20\",\"10.1.32.0/24\"]"),
        ("coalesce(null, 2)", "2"),
        ("coalescelist([], [1])", "[1]"),
        ("compact([\"a\", \"\", \"b\"])", "[\"a\",\"b\"]"),
        ("concat([1], [2, 3])", "[1,2,3]"),
        ("contains([\"a\"], \"a\")", "true"),
        ("convert(\"42\", number)", "42"),
        ("convert([1, 2], list(string))", "[\"1\",\"2\"]"),
        ("csvdecode(\"a,b\\n1,\\\"x,y\\\"\\n\")", "[{\"a\":\"1\",\"b\":\"x,y\"}]"),
        ("dirname(\"/a/b\")", "\"/a\""),
        ("distinct([1, 2, 1])", "[1,2]"),
        ("divide(1, 4)", "0.25"),
        ("element([1, 2, 3], 4)", "2"),
        ("equal(\"a\", \"a\")", "true"),
        ("flatten([1, [2, [3]]])", "[1,2,3]"),
        ("floor(-1.2)", "-2"),
        (
            "format(\"%s-%03d-%v %q %5.2f %x %t%%\", \"a\", 7, 1.5, \"q\", 3.14159, 255, true)",
            "\"a-007-1.5 \\\"q\\\"  3.14 ff true%\"",
        ),
        (
            "formatdate(\"DD MMM YYYY hh:mm ZZZ 'at' EEEE\", \"2018-01-02T23:12:01Z\")",
            "\"02 Jan 2018 23:12 UTC at Tuesday\"",
        ),
        ("formatlist(\"%s:%d\", [\"a\", \"b\"], 1)", "[\"a:1\",\"b:1\"]"),
        ("greaterthan(2, 1)", "true"),
        ("greaterthanorequalto(2, 2)", "true"),
        ("hasindex([1], 1)", "false"),
        ("homedir()", "\"/home/me\""),
        ("indent(2, \"a\\nb\")", "\"a\\n  b\""),
        ("index({a = 1}, \"a\")", "1"),
        ("indexof([\"a\", \"b\"], \"b\")", "1"),
        ("int(3.9)", "3"),
        ("join(\"-\", [\"a\", \"b\"], [\"c\"])", "\"a-b-c\""),
        ("jsondecode(\"{\\\"a\\\":[1,2]}\")", "{\"a\":[1,2]}"),
        ("keys({b = 1, a = 2})", "[\"a\",\"b\"]"),
        ("length([1, 2])", "2"),
        ("lessthan(1, 2)", "true"),
        ("lessthanorequalto(3, 2)", "false"),
        ("log(8, 2)", "3"),
        ("lookup({a = 1}, \"b\", 7)", "7"),
        ("lower(\"ABC\")", "\"abc\""),
        ("max(1, 3, 2)", "3"),
        ("md5(\"foo\")", "\"acbd18db4cc2f85cedef654fccc4a4d8\""),
        ("merge({a = 1}, {b = 2, a = 3})", "{\"a\":3,\"b\":2}"),
        ("min(2, 1)", "1"),
        ("modulo(7, 3)", "1"),
        ("multiply(3, 4)", "12"),
        ("negate(4)", "-4"),
        ("not(true)", "false"),
        ("notequal(1, 2)", "true"),
        ("or(false, true)", "true"),
        ("parseint(\"ff\", 16)", "255"),
        ("pow(2, 10)", "1024"),
        ("range(3)", "[0,1,2]"),
        ("range(5, 1, -2)", "[5,3]"),
        ("regex(\"[a-z]+\", \"53453453.345345aaabbbccc23454\")", "\"aaabbbccc\""),
        ("regex(\"(\\\\d+)-(\\\\d+)\", \"12-34\")", "[\"12\",\"34\"]"),
        ("regex(\"(?P<a>\\\\d+)\", \"x9\")", "{\"a\":\"9\"}"),
        ("regex_replace(\"ab12\", \"([a-z]+)\", \"<$1>\")", "\"\\u003cab\\u003e12\""),
        ("regexall(\"\\\\d\", \"a1b2\")", "[\"1\",\"2\"]"),
        ("replace(\"a.b.c\", \".\", \"-\")", "\"a-b-c\""),
        ("reverse(\"abc\")", "\"cba\""),
        ("reverselist([1, 2])", "[2,1]"),
        ("sanitize(\"v1.2/x\")", "\"v1_2_x\""),
        ("semvercmp(\"1.4.2\", \">= 1.2, < 2\")", "true"),
        ("semvercmp(\"2.0.0\", \"^1.2\")", "false"),
        ("sethaselement([1, 2], 2)", "true"),
        ("setintersection([1, 2, 3], [3, 2])", "[2,3]"),
        ("setproduct([\"a\", \"b\"], [1])", "[[\"a\",1],[\"b\",1]]"),
        ("setsubtract([1, 2], [2])", "[1]"),
        ("setsymmetricdifference([1, 2], [2, 3])", "[1,3]"),
        ("setunion([\"b\"], [\"a\", \"b\"])", "[\"a\",\"b\"]"),
        ("sha1(\"foo\")", "\"0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33\""),
        ("sha256(\"foo\")", "\"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\""),
        ("strlen(sha512(\"foo\"))", "128"),
        ("signum(-5)", "-1"),
        ("slice([1, 2, 3], 1, 3)", "[2,3]"),
        ("sort([\"b\", \"a\"])", "[\"a\",\"b\"]"),
        ("split(\",\", \"a,b\")", "[\"a\",\"b\"]"),
        ("strlen(\"héllo\")", "5"),
        ("substr(\"hello\", 1, 3)", "\"ell\""),
        ("substr(\"hello\", -3, -1)", "\"llo\""),
        ("subtract(5, 3)", "2"),
        ("timeadd(\"2017-11-22T00:00:00Z\", \"1h30m\")", "\"2017-11-22T01:30:00Z\""),
        ("timestamp()", "\"2023-11-14T22:13:20Z\""),
        ("title(\"hello world\")", "\"Hello World\""),
        ("trim(\"?!a?!\", \"!?\")", "\"a\""),
        ("trimprefix(\"helloworld\", \"hello\")", "\"world\""),
        ("trimspace(\"  a \")", "\"a\""),
        ("trimsuffix(\"helloworld\", \"world\")", "\"hello\""),
        ("try(nothing, 2)", "2"),
        ("unixtimestampparse(0).rfc3339", "\"1970-01-01T00:00:00Z\""),
        ("upper(\"abc\")", "\"ABC\""),
        ("urlencode(\"a b&c\")", "\"a+b%26c\""),
        ("strlen(uuidv4())", "36"),
        ("uuidv5(\"dns\", \"www.terraform.io\")", "\"a5008fae-b28c-5ba5-96cd-82b4c53552d6\""),
        ("values({b = 1, a = 2})", "[2,1]"),
        ("zipmap([\"a\"], [1])", "{\"a\":1}"),
    ]);
}

#[test]
fn every_function_but_those_refused_by_name_is_in_the_table_above() {
    let text = include_str!("tests.rs");
    let absent = |name: &&str| !text.contains(&format!("\"{name}(")) && !text.contains(&format!("({name}("));
    let missing: Vec<&str> = functions::names().filter(absent).collect();
    assert_eq!(missing, ["jsonencode"], "which each line of the table calls");
}

#[test]
fn errors_show_the_line_and_a_caret() {
    let error =
        read_hcl("target \"app\" {\n  tags = [\"a:${VERSON}\"]\n}\nvariable \"VERSION\" {}\n").unwrap_err();
    assert_eq!(
        said(&error),
        "reading `docker-bake.hcl`: line 2: unknown variable `VERSON`\n\
         \x20 2 |   tags = [\"a:${VERSON}\"]\n\
         \x20   |                ^^^^^^\n\
         did you mean `VERSION`?"
    );
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let table = [
        ("target \"a\" {", "this is not HCL"),
        ("targt \"a\" {}", "unknown block `targt`"),
        ("targt \"a\" {}", "did you mean `target`?"),
        ("target {}", "a target has one name, not 0"),
        ("target \"a b\" {}", "`a b` is not a target's name"),
        ("target \"a\" { tag = [] }", "did you mean `tags`?"),
        ("target \"a\" {\n args {\n }\n}", "write args = ..."),
        ("target \"a\" { tags = \"x\" }", "a list is needed, not a string"),
        ("target \"a\" { tags = uper(\"x\") }", "did you mean `upper`?"),
        ("target \"a\" { tags = [upper()] }", "`upper`: 1 arguments are needed, not 0"),
        ("target \"a\" { tags = [bcrypt(\"x\")] }", "`bcrypt`: is not supported by this version"),
        ("target \"a\" { policy = [] }", "policies are not supported"),
        ("target \"a\" { output = [\"dest=x\"] }", "an entry of `output` needs a `type`"),
        ("target \"a\" { secret = [\"id=x,colour=red\"] }", "a secret has no `colour`"),
        ("target \"a\" { name = \"b\" }", "`name` is for targets with a `matrix`"),
        ("target \"a\" { matrix = { x = [1, 2] } }", "a matrix needs `name`"),
        (
            "target \"a\" {\n name = \"b\"\n matrix = { x = [1, 2] }\n}",
            "two targets of this matrix are called `b`",
        ),
        ("target \"a\" {\n name = \"b.${x}\"\n matrix = { x = [1] }\n}", "`b.1` is not a target's name"),
        ("target \"a\" { context = target.b.context }", "unknown target `b`"),
        ("target \"a\" { context = target.a.context }", "target.a.context -> target.a.context"),
        ("group \"g\" {}", "group `g` has no `targets`"),
        ("a = b\nb = a\n", "this refers to itself: a -> b -> a"),
        ("function \"f\" {\n params = []\n result = f()\n}\nx = f()\n", "f() -> f()"),
        ("function \"f\" { params = [] }", "function `f` has no `result`"),
        ("function \"f\" {\n params = [a]\n result = a\n}\nx = f()\n", "`f` takes 1 arguments, not 0"),
        ("variable \"FROM_OUTSIDE\" { default = 1 }", "a number is needed, not `outside`"),
        ("variable \"FROM_OUTSIDE\" { default = true }", "true or false is needed, not `outside`"),
        ("variable \"X\" {\n type = strin\n}", "`strin` is not a type"),
        ("variable \"X\" {\n type = number\n default = \"a\"\n}", "a number is needed, not `a`"),
        (
            "variable \"X\" {\n default = 1\n validation {\n condition = X > 1\n error_message = \"more\"\n }\n}",
            "more",
        ),
        ("x = 1 / 0", "division by zero"),
        ("x = 1\nx = 2\n", "redefined attribute"),
        ("x = {for a in [1, 1]: \"k\" => a}", "the key `k` comes twice"),
    ];
    for (text, expected) in table {
        let error = read_hcl(text).unwrap_err();
        assert!(said(&error).contains(expected), "{text}\n{}", said(&error));
    }
}

#[test]
fn json_errors_have_places_too() {
    let table = [
        ("{\"target\": {\"a\": {\"tags\": [\"${nothing}\"]}}}", "line 1: unknown variable `nothing`"),
        ("{\n \"target\": {\n", "this is not JSON"),
        ("{\"target\": {\"a\": {\"tag\": []}}}", "did you mean `tags`?"),
        ("{\"target\": []", "this is not JSON"),
        ("{\"target\": {\"a\": 1}}", "a target is an object"),
    ];
    for (text, expected) in table {
        let error = read_named("docker-bake.json", text).unwrap_err();
        assert!(said(&error).contains(expected), "{text}\n{}", said(&error));
    }
}

#[test]
fn no_text_makes_the_reader_panic() {
    let seeds = [
        "target \"a\" { tags = [\"x:${1 + 2}\"] }",
        "{\"target\": {\"a\": {\"args\": {\"b\": \"${upper(\\\"x\\\")}\"}}}}",
        "function \"f\" {\n params = [a]\n result = <<E\n${a}\nE\n}\nx = f(1)[*].b",
    ];
    for seed in seeds {
        for at in 0..seed.len() {
            for insert in ["", "\"", "${", "}", "[", "\u{e9}", "..."] {
                let text = format!("{}{insert}{}", &seed[..at], &seed[at + 1..]);
                for name in ["a.hcl", "a.json", "-"] {
                    drop(read_named(name, &text));
                }
            }
        }
    }
}
