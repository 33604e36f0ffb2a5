//! Dockerfiles in the styles of well-known images, with stand-ins for what they would download: they build, build again
//! without running anything, are what BuildKit makes of them, and run.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::judge_kit::{Court, Judge, differences, ours};
use crate::sandbox::{Outcome, Sandbox};

/// Builds `tests/dockerfiles/NAME` twice and runs it; with BuildKit too where it is not too old for it.
fn style(name: &str, judged: bool, args: &[&str], says: &str) {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles").join(name);
    let context = sandbox.context().join(name);
    let copied = Command::new("cp").arg("-a").arg(from).arg(&context).status().unwrap();
    assert!(copied.success());
    // As old as a checkout is not: times that come from the context are told from the clock's.
    let aged = Command::new("find")
        .arg(&context)
        .args(["-depth", "-exec", "touch", "-h", "-d", "@1000000000", "{}", "+"])
        .status();
    assert!(aged.unwrap().success());
    let build = || -> Outcome {
        let mut words = vec!["build", "--progress", "plain", "--network", "none", "-t", name];
        words.extend(args);
        words.push(context.to_str().unwrap());
        sandbox.outcrop(&words).ok()
    };
    build();
    build().says_not("---> Running in");
    let run = sandbox.outcrop(&["run", "--rm", "--network", "none", name]).ok();
    assert_eq!(run.stdout(), says, "{name}");
    if judged {
        // The judge would fetch the frontend that the first line names.
        let dockerfile = sandbox.dir().join("dockerfile");
        let text = fs::read_to_string(context.join("Dockerfile")).unwrap();
        fs::write(&dockerfile, text.replace("# syntax=docker/dockerfile:1\n", "")).unwrap();
        let court = Court::sits();
        let tag = format!("style-{name}");
        court.build(Judge::BuildKit, &context, &dockerfile, &tag, args).ok();
        let theirs = court.image(Judge::BuildKit, &tag);
        let found = differences(&ours(&sandbox, name), &theirs, Judge::BuildKit);
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
    sandbox.check();
}

#[test]
fn a_go_server_from_scratch_with_cached_modules() {
    let says = "server 1.4 for linux/amd64 with example.com/mux v1.8.1\n";
    style("go", true, &["--build-arg", "VERSION=1.4"], says);
}

#[test]
fn a_node_application_in_three_stages() {
    style("node", true, &[], "node starts node dist/index.js with body-parser express \n");
}

#[test]
fn a_python_service_with_here_documents() {
    style("python", false, &[], "python 3.12 as 10001: 2 packages\n");
}

#[test]
fn nginx_with_packed_assets_and_entrypoint_scripts() {
    let says = "10: 1.25.4\n20: index.html index.html.gz sub \n3 words, the last is daemon off;\n";
    style("nginx", true, &[], says);
}

#[test]
fn postgres_with_a_volume_and_a_change_of_user() {
    style("postgres", true, &[], "postgres 16.2-1 as postgres in 700:postgres\n");
}
