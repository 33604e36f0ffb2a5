//! A secret that a step leaves in its layer: found, and nothing of the step stays.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sandbox::{Outcome, Sandbox};

const SECRET: &str = "correct-horse?battery>staple\n";

/// A sandbox with a base image and a step that sees the secret `token`, in a file or in $TOKEN.
fn sandbox(command: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile(&format!("FROM base\n{}", step(command)));
    fs::write(sandbox.dir().join("token"), SECRET).unwrap();
    sandbox
}

fn step(command: &str) -> String {
    format!(
        "RUN --mount=type=secret,id=token,target=/run/token --mount=type=secret,id=token,env=TOKEN {command}\n"
    )
}

fn build(sandbox: &Sandbox, more: &[&str]) -> Outcome {
    let secret = format!("id=token,src={}", sandbox.dir().join("token").display());
    let mut args = vec!["build", "--progress", "plain", "-t", "it", "--secret", &secret];
    args.extend(more);
    args.push(".");
    sandbox.outcrop(&args)
}

/// Files of the store whose bytes or names hold this.
fn holding(dir: &Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let within = |text: &[u8]| memchr::memmem::find(text, bytes).is_some();
        if within(entry.file_name().as_encoded_bytes())
            || (kind.is_file() && within(&fs::read(entry.path()).unwrap()))
            || (kind.is_symlink()
                && within(fs::read_link(entry.path()).unwrap().as_os_str().as_encoded_bytes()))
        {
            found.push(entry.path());
        }
        if kind.is_dir() {
            holding(&entry.path(), bytes, found);
        }
    }
}

#[track_caller]
fn nothing_is_left(sandbox: &Sandbox) {
    let mut found = Vec::new();
    for text in ["correct-horse", "Y29ycmVjdC1ob3JzZT", "NvcnJlY3QtaG9yc2", "jb3JyZWN0LWhvcnNl"] {
        holding(&sandbox.root(), text.as_bytes(), &mut found);
    }
    assert_eq!(found, [""; 0].map(PathBuf::from));
    sandbox.check();
}

#[test]
fn a_secret_in_a_layer_is_an_error_and_nothing_of_the_step_stays() {
    for (command, place) in [
        ("cp /run/token /kept", "`/kept`"),
        ("mkdir /etc/app && printf '<%s>' \"$TOKEN\" > /etc/app/conf", "`/etc/app/conf`"),
        ("base64 /run/token > /kept", "`/kept`, as base64"),
        ("printf 'user:%s' \"$TOKEN\" | base64 | tr '+/' '-_' | tr -d = > /kept", "`/kept`, as base64"),
        ("base64 -w 10 /run/token > /kept", "`/kept`, as base64"),
        ("touch \"/tmp/$TOKEN\"", "the name of a file"),
        ("ln -s \"$TOKEN\" /link", "the target of `/link`"),
        // Where the packer's first buffer ends, and far behind it.
        ("head -c 262130 /dev/zero > /kept && cat /run/token >> /kept", "`/kept`"),
        ("head -c 3000000 /dev/zero > /kept && cat /run/token >> /kept && echo more >> /kept", "`/kept`"),
    ] {
        let sandbox = sandbox(command);
        let failed = build(&sandbox, &[]).fails(1);
        failed.complains(&format!("the secret `token` is in {place}\n")).complains("--allow-secret-leak");
        nothing_is_left(&sandbox);
        assert_eq!(sandbox.outcrop(&["cache", "ls", "-q"]).ok().stdout(), "", "{command}");
    }
}

#[test]
fn what_only_passes_through_a_step_is_no_leak() {
    let sandbox = sandbox("cp /run/token /tmp/it && wc -c < /tmp/it > /length && rm /tmp/it");
    build(&sandbox, &[]).ok();
    nothing_is_left(&sandbox);
}

#[test]
fn a_secret_shorter_than_eight_bytes_is_not_looked_for() {
    let sandbox = sandbox("cp /run/token /kept");
    fs::write(sandbox.dir().join("token"), "seven77\n").unwrap();
    build(&sandbox, &[]).ok();
    sandbox.check();
}

#[test]
fn an_allowed_leak_is_a_warning_and_in_no_record() {
    let sandbox = sandbox("cp /run/token /kept");
    for _ in 0..2 {
        let built = build(&sandbox, &["--allow-secret-leak"]).ok();
        let shown = format!("{}{}", built.stdout(), built.stderr());
        assert!(shown.contains("the secret `token` is in `/kept`, and the image will hold it"), "{shown}");
    }
    let kept = sandbox.outcrop(&["run", "--rm", "it", "cat", "/kept"]).ok();
    assert_eq!(kept.stdout(), SECRET);
    // Allowed once is not allowed for ever.
    build(&sandbox, &[]).fails(1).complains("the secret `token` is in `/kept`");
    sandbox.check();
}

#[test]
fn the_output_of_a_failed_step_with_secrets_is_not_remembered() {
    let sandbox = sandbox("cat /run/token; false");
    build(&sandbox, &[]).fails(1).complains("correct-horse");
    nothing_is_left(&sandbox);
}
