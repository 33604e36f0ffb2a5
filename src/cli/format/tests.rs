//! The template language, against what Go gives for the same.

use serde_json::{Value, json};

use super::*;

fn container() -> Value {
    json!({
        "Id": "3f2a9c0d1e4b5a69",
        "Name": "/web",
        "Running": true,
        "Restarts": 0,
        "SizeRw": 1234567,
        "Share": 0.25,
        "Config": {
            "Env": ["PATH=/bin", "LANG=C"],
            "Cmd": null,
            "Labels": { "b.two": "2", "a.one": "1" },
            "Healthcheck": null,
            "Volumes": null,
        },
        "Mounts": [ { "Source": "/a", "Destination": "/b" }, { "Source": "/c", "Destination": "/d" } ],
        "Ports": { "80/tcp": [ { "HostPort": "8080" } ] },
    })
}

#[track_caller]
fn gives(template: &str, expected: &str) {
    let text = Template::parse(template).and_then(|template| template.render(&container()));
    match text {
        Ok(text) => assert_eq!(text, expected, "{template}"),
        Err(error) => panic!("{template}: {}", error.message()),
    }
}

#[track_caller]
fn fails(template: &str, expected: &str) {
    let result = Template::parse(template).and_then(|template| template.render(&container()));
    let error = result.expect_err(template);
    assert_eq!(error.message(), expected, "{template}");
}

#[test]
fn fields() {
    gives("{{.Id}} {{ .Name }}", "3f2a9c0d1e4b5a69 /web");
    gives("{{.Config.Env}}", "[PATH=/bin LANG=C]");
    gives("{{.Config.Labels}}", "map[a.one:1 b.two:2]");
    gives("{{.Running}} {{.Restarts}} {{.SizeRw}} {{.Share}}", "true 0 1234567 0.25");
    gives("{{(index .Mounts 1).Source}}", "/c");
    gives("{{$.Name}}{{with .Config}}{{$.Name}}{{end}}", "/web/web");
}

#[test]
fn nothing_is_shown_as_go_shows_it() {
    gives("{{.Config.Cmd}} {{.Config.Volumes}} {{.Config.Healthcheck}}", "[] map[] <nil>");
    gives("{{.Config.Labels.nope}}", "<no value>");
    gives("{{if .Config.Healthcheck}}yes{{else}}no{{end}}", "no");
    gives("{{if .Config.Nope}}yes{{else}}no{{end}}", "no");
}

#[test]
fn index_and_slice() {
    gives(r#"{{index .Config.Labels "a.one"}}"#, "1");
    gives(r#"{{index .Config.Labels "absent"}}"#, "");
    gives(r#"{{index .Config.Volumes "absent"}}"#, "");
    gives(r#"{{(index (index .Ports "80/tcp") 0).HostPort}}"#, "8080");
    gives(r#"{{index .Ports "80/tcp" 0 "HostPort"}}"#, "8080");
    gives("{{slice .Id 0 4}}", "3f2a");
    gives("{{slice .Config.Env 1}}", "[LANG=C]");
    fails(
        "{{index .Mounts 2}}",
        "the template is wrong at 1:3: there is no item 2 in a list of 2\n  {{index .Mounts 2}}\n    ^",
    );
}

#[test]
fn conditions() {
    gives("{{if .Running}}up{{end}}", "up");
    gives("{{if .Restarts}}again{{else if .Running}}first{{else}}down{{end}}", "first");
    gives("{{if not .Running}}down{{else}}up{{end}}", "up");
    gives("{{if and .Running (eq .Name \"/web\")}}x{{end}}", "x");
    gives("{{or .Restarts .Name}}", "/web");
    gives("{{and .Running 0}}", "0");
    gives("{{if or false .Restarts}}x{{else}}y{{end}}", "y");
    // Go stops at the first that decides.
    gives("{{or .Running (index .Mounts 9)}}", "true");
    gives("{{with .Config.Cmd}}{{.}}{{else}}none{{end}}", "none");
    gives("{{with .Config.Cmd}}a{{else with .Name}}{{.}}{{end}}", "/web");
    gives("{{with $n := .Name}}{{$n}}{{end}}", "/web");
}

#[test]
fn comparisons() {
    gives(r#"{{eq .Name "x" "/web"}} {{ne .Name "x"}}"#, "true true");
    gives("{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1.5 1.5}}", "true true false true");
    gives(r#"{{lt "a" "b"}} {{gt .SizeRw 1000}}"#, "true true");
    fails(
        r#"{{eq .Name 1}}"#,
        "the template is wrong at 1:3: `eq` cannot compare a string with a int\n  {{eq .Name 1}}\n    ^",
    );
}

#[test]
fn ranges() {
    gives("{{range .Config.Env}}<{{.}}>{{end}}", "<PATH=/bin><LANG=C>");
    gives("{{range $i, $e := .Config.Env}}{{$i}}={{$e}};{{end}}", "0=PATH=/bin;1=LANG=C;");
    gives("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{end}}", "a.one:1 b.two:2 ");
    gives("{{range $e := .Config.Env}}{{$e}}{{break}}{{end}}", "PATH=/bin");
    gives("{{range .Mounts}}{{if eq .Source \"/a\"}}{{continue}}{{end}}{{.Destination}}{{end}}", "/d");
    gives("{{range .Config.Cmd}}x{{else}}none{{end}}", "none");
    gives("{{range $p, $c := .Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}", "80/tcp -> 8080");
    gives("{{$n := 0}}{{range .Mounts}}{{$n = len .Source}}{{end}}{{$n}}", "2");
    gives("{{range 3}}{{.}}{{end}}", "012");
}

#[test]
fn pipelines() {
    gives(r#"{{.Id | printf "%.3s"}}"#, "3f2");
    gives("{{.Name | upper | printf \"%q\"}}", "\"/WEB\"");
    gives("{{.Config.Env | len | eq 2}}", "true");
    fails(
        "{{.Id | 3}}",
        "the template is wrong at 1:9: what stands behind `|` must be a function\n  {{.Id | 3}}\n          ^",
    );
}

#[test]
fn dockers_functions() {
    gives("{{json .Config.Env}}", r#"["PATH=/bin","LANG=C"]"#);
    gives("{{json .Config.Labels}}", r#"{"b.two":"2","a.one":"1"}"#);
    gives("{{json .Config.Healthcheck}}", "null");
    gives(r#"{{join .Config.Env ", "}}"#, "PATH=/bin, LANG=C");
    gives(r#"{{index (split "a:b:c" ":") 1}}"#, "b");
    gives(r#"{{title "hello big world"}} {{upper "a"}} {{lower "B"}}"#, "Hello Big World A b");
    gives(r#"{{truncate .Id 4}}|{{truncate "ab" 4}}"#, "3f2a|ab");
    gives(r#"{{pad "x" 1 2}}|{{pad "" 1 2}}|"#, " x  ||");
    gives("{{println .Restarts .Name}}", "0 /web\n");
    gives(r#"{{print 1 2 "a" "b" 3}}"#, "1 2ab3");
    gives(r#"{{html "<a & b>"}} {{urlquery "a b/c"}}"#, "&lt;a &amp; b&gt; a+b%2Fc");
}

#[test]
fn printf_is_gos() {
    gives(r#"{{printf "%s-%d-%v" "a" 7 true}}"#, "a-7-true");
    gives(r#"{{printf "%5s|%-5s|%05d|%+d" "a" "b" 42 7}}"#, "    a|b    |00042|+7");
    gives(r#"{{printf "%x %X %#x %o %b" 255 255 255 8 5}}"#, "ff FF 0xff 10 101");
    gives(r#"{{printf "%.2f %6.1f %g %e" 3.14159 2.55 0.5 1500.0}}"#, "3.14    2.5 0.5 1.500000e+03");
    gives(
        r#"{{printf "%x" "hi"}} {{printf "%t" true}} {{printf "%c" 65}} {{printf "100%%"}}"#,
        "6869 true A 100%",
    );
    gives(
        r#"{{printf "%d" "x"}} {{printf "%s" 1}} {{printf "%s"}}"#,
        "%!d(string=x) %!s(int=1) %!s(MISSING)",
    );
    gives(r#"{{printf "a" 1}}"#, "a%!(EXTRA int=1)");
    gives(r#"{{printf "%q" .Config.Env}}"#, r#"["PATH=/bin" "LANG=C"]"#);
    gives(r#"{{printf "%v %T" .Config.Labels .Name}}"#, "map[a.one:1 b.two:2] string");
}

#[test]
fn literals() {
    gives(r#"{{"a\tb\u00e9\x41\""}}{{`c\n`}}"#, "a\tbéA\"c\\n");
    gives("{{'a'}} {{0x1f}} {{1_000}} {{-3}} {{1.5e3}} {{.5}}", "97 31 1000 -3 1500 0.5");
    gives("{{true}} {{false}}", "true false");
    gives("{{1e21}} {{0.00001}}", "1e+21 1e-05");
}

#[test]
fn space_is_trimmed_where_asked() {
    gives("a  {{- .Restarts -}}  b", "a0b");
    gives("a {{.Restarts -}} \n b", "a 0b");
    gives("x {{/* a comment */}} y", "x  y");
    gives("x {{- /* a comment */ -}} y", "xy");
    gives("{{range .Mounts -}} {{.Source}} {{- end}}", "/a/c");
    // A minus without a space is a number's.
    gives("a {{-3}}", "a -3");
}

#[test]
fn a_label_can_be_asked_for_by_name() {
    let template = Template::parse(r#"{{.Label "com.x"}}"#).unwrap();
    assert_eq!(template.render(&json!({ "Labels": "a=1,com.x=y=z" })).unwrap(), "y=z");
    assert_eq!(template.render(&json!({ "Labels": { "com.x": "q" } })).unwrap(), "q");
    assert_eq!(template.render(&json!({ "Labels": "" })).unwrap(), "");
    assert_eq!(template.headings(&json!({ "Labels": "LABELS" })).unwrap(), "x");
}

#[test]
fn errors_point_at_their_place() {
    fails("{{.Id", "the template is wrong at 1:1: this action is not closed by `}}`\n  {{.Id\n  ^");
    fails("a\nb {{foo}}", "the template is wrong at 2:5: there is no function `foo`\n  b {{foo}}\n      ^");
    fails(
        "{{Names}}",
        "the template is wrong at 1:3: there is no function `Names`; for the field write `.Names`\n  {{Names}}\n    ^",
    );
    fails("{{if .Id}}x", "the template is wrong at 1:1: this `if` has no `{{end}}`\n  {{if .Id}}x\n  ^");
    fails(
        "x{{end}}",
        "the template is wrong at 1:2: `end` without an `if`, `with` or `range` before it\n  x{{end}}\n   ^",
    );
    fails("{{$x}}", "the template is wrong at 1:3: there is no variable `$x` here\n  {{$x}}\n    ^");
    fails("{{}}", "the template is wrong at 1:1: there is nothing in this action\n  {{}}\n  ^");
    fails("{{(.Id}}", "the template is wrong at 1:3: this parenthesis is not closed\n  {{(.Id}}\n    ^");
    fails(
        "{{.Id .Name}}",
        "the template is wrong at 1:3: `Id` is no function, so it takes no argument\n  {{.Id .Name}}\n    ^",
    );
    fails(
        "{{.Name.First}}",
        "the template is wrong at 1:3: a string has no field `First`\n  {{.Name.First}}\n    ^",
    );
    fails("{{break}}", "the template is wrong at 1:1: `break` stands in no `range`\n  {{break}}\n  ^");
    fails(
        "{{define \"x\"}}{{end}}",
        "the template is wrong at 1:1: `define` is not supported: a format is one template\n  {{define \"x\"}}{{end}}\n  ^",
    );
    fails(
        "{{range .Running}}{{end}}",
        "the template is wrong at 1:9: cannot range over a bool\n  {{range .Running}}{{end}}\n          ^",
    );
    fails("{{\"a}}", "the template is wrong at 1:3: this string is not closed by `\"`\n  {{\"a}}\n    ^");
}

#[test]
fn a_misspelt_field_names_those_there_are() {
    let template = Template::parse("{{.Nmae}}").unwrap();
    let error = template.render(&json!({ "Id": 1, "Name": 2 })).unwrap_err();
    assert_eq!(
        error.message(),
        "the template is wrong at 1:3: there is no field `Nmae`; there are Id, Name\n  {{.Nmae}}\n    ^"
    );
}

#[test]
fn no_text_is_too_wild_to_parse() {
    // Every prefix of a long template either parses or says what is wrong; nothing panics.
    let whole = r#"é {{- with $x := (index .Config.Labels "ä\u00e9") | printf "%5.2s" -}} {{range $k, $v := .Ports}}{{'\n'}}{{else}}{{end}}{{end}}"#;
    for (end, _) in whole.char_indices() {
        let _either = Template::parse(&whole[..end]).and_then(|template| template.render(&container()));
    }
    gives("{{printf \"%9999999999d\" 1 | len}}", "10000");
    let deep = format!("{{{{{}1}}}}", "(".repeat(100_000));
    assert!(Template::parse(&deep).unwrap_err().message().contains("nested too deeply"));
    let deep = "{{if 1}}".repeat(100_000);
    assert!(Template::parse(&deep).unwrap_err().message().contains("nested too deeply"));
}
