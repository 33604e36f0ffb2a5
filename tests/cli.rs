//! The front door as people and scripts meet it: forms, help, exit codes, errors.

use std::process::Stdio;

use crate::sandbox::Sandbox;

#[test]
fn version_says_which() {
    let sandbox = Sandbox::new();
    sandbox.outcrop(&["version"]).ok().says(env!("CARGO_PKG_VERSION"));
    assert_eq!(
        sandbox.outcrop(&["--version"]).ok().line(),
        format!("outcrop version {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn an_unknown_flag_is_125_and_an_unknown_verb_1() {
    let sandbox = Sandbox::new();
    let flag = sandbox.outcrop(&["version", "--bogus"]).fails(125);
    assert_eq!(
        flag.stderr(),
        "error: outcrop version: unknown flag `--bogus`\nhint: `outcrop version --help` shows what there is\n"
    );
    let verb = sandbox.outcrop(&["verzion"]).fails(1);
    assert_eq!(
        verb.stderr(),
        "error: `verzion` is not a command of `outcrop`\nhint: did you mean `version`? `outcrop --help` shows what there is\n"
    );
    sandbox.outcrop(&["version", "more"]).fails(1).complains("one argument too many: `more`");
}

#[test]
fn global_flags_stand_before_or_after_the_verb() {
    let sandbox = Sandbox::new();
    sandbox.outcrop(&["version", "--storage-driver", "vfs"]).ok();
    sandbox.outcrop(&["--storage-driver=vfs", "version"]).ok();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = sandbox.command(&["version"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(128 + 13));
}

#[test]
fn a_format_is_a_go_template_or_json() {
    let sandbox = Sandbox::new();
    let version = env!("CARGO_PKG_VERSION");
    let go = sandbox
        .outcrop(&["version", "--format", "{{.Server.Version}}{{/* x */}} {{.Client.Os | upper}}"])
        .ok();
    assert_eq!(go.line(), format!("{version} LINUX"));
    assert_eq!(sandbox.outcrop(&["version", "-f=json"]).ok().json()["Client"]["Version"], version);
    let wrong = sandbox.outcrop(&["version", "--format", "{{.Srver}}"]).fails(1);
    assert_eq!(
        wrong.stderr(),
        "error: the template is wrong at 1:3: there is no field `Srver`; there are Client, Server\n  {{.Srver}}\n    ^\n"
    );
}
