//! Copies between registries that each want credentials of their own.

use std::fs;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::login::{with_passwords, with_tokens, with_users};
use crate::registry_kit::{Asked, Layout, RealRegistry, Server, tarred};
use crate::sandbox::{Outcome, Sandbox, tool};

const ME: &str = "me:s3cret";
const YOU: &str = "you:geheim";
/// The second, as htpasswd writes it.
const OTHER_USERS: &str = "you:$2b$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu\n";

/// A registry that knows `ME` alone, with an image in it as `app:1`, and one that knows `YOU` alone.
fn two(sandbox: &Sandbox) -> (RealRegistry, RealRegistry) {
    let from = with_passwords(sandbox);
    from.push_with(&layout(sandbox), "app:1", &["--preserve-digests", "--dest-creds", ME]);
    (from, with_users(sandbox, OTHER_USERS))
}

fn layout(sandbox: &Sandbox) -> Layout {
    Layout::single(&sandbox.dir().join("layout"), &tarred("linux/amd64", &["a", "b"]))
}

fn login(sandbox: &Sandbox, registry: SocketAddr, who: &str) {
    let (user, password) = who.split_once(':').unwrap();
    let registry = registry.to_string();
    let login = ["login", "-u", user, "--password-stdin", &registry];
    sandbox.outcrop_with_input(&login, password.as_bytes()).ok();
}

fn at(registry: SocketAddr) -> String {
    format!("docker://{registry}/app:1")
}

fn copy(sandbox: &Sandbox, from: SocketAddr, to: SocketAddr) -> Outcome {
    sandbox.outcrop(&["copy", &at(from), &at(to)])
}

/// What another tool finds there; `who`: nobody, where it is empty.
fn judged(sandbox: &Sandbox, registry: SocketAddr, who: &str) -> String {
    let place = at(registry);
    let mut words = vec!["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
    match who {
        "" => words.push("--no-creds"),
        who => words.extend(["--creds", who]),
    }
    words.push(&place);
    tool(sandbox, &words).trim().to_owned()
}

/// What a registry was told who we are, by Basic, each once.
fn told(server: &Server) -> Vec<String> {
    let asked = server.asked();
    let basic = asked.iter().filter_map(|asked| asked.header("authorization")?.strip_prefix("Basic "));
    let mut who: Vec<String> =
        basic.map(|text| String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()).collect();
    who.sort();
    who.dedup();
    who
}

#[test]
fn each_of_two_registries_gets_its_own_credentials() {
    let sandbox = Sandbox::new();
    let (from, to) = two(&sandbox);
    let (before_from, before_to) = (Server::before(&from), Server::before(&to));
    login(&sandbox, before_from.address, ME);
    login(&sandbox, before_to.address, YOU);
    copy(&sandbox, before_from.address, before_to.address).ok();
    assert_eq!(judged(&sandbox, to.address, YOU), judged(&sandbox, from.address, ME));
    assert_eq!((told(&before_from), told(&before_to)), (vec![ME.to_owned()], vec![YOU.to_owned()]));
}

#[test]
fn one_may_want_tokens_and_the_other_passwords() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    real.push(&layout(&sandbox), "app:1");
    let basic = |asked: &Asked| {
        asked.header("authorization") == Some(&format!("Basic {}", BASE64_STANDARD.encode(ME)))
    };
    let (tokens, _) = with_tokens(&real, basic);
    let passwords = with_users(&sandbox, OTHER_USERS);
    login(&sandbox, tokens.address, ME);
    login(&sandbox, passwords.address, YOU);
    copy(&sandbox, tokens.address, passwords.address).ok();
    let digest = judged(&sandbox, passwords.address, YOU);
    assert_eq!(digest, judged(&sandbox, real.address, ""));
    // And the other way round, to one that has nothing yet.
    let empty = RealRegistry::start(&sandbox);
    let (tokens, _) = with_tokens(&empty, basic);
    login(&sandbox, tokens.address, ME);
    copy(&sandbox, passwords.address, tokens.address).ok();
    assert_eq!(judged(&sandbox, empty.address, ""), digest);
}

#[test]
fn a_source_for_everybody_is_told_nothing() {
    let sandbox = Sandbox::new();
    let open = RealRegistry::start(&sandbox);
    open.push(&layout(&sandbox), "app:1");
    let (from, to) = (Server::before(&open), with_passwords(&sandbox));
    login(&sandbox, to.address, ME);
    copy(&sandbox, from.address, to.address).ok();
    assert_eq!(judged(&sandbox, to.address, ME), judged(&sandbox, open.address, ""));
    assert_eq!(told(&from), [""; 0]);
}

#[test]
fn of_two_the_one_that_refuses_is_named() {
    let sandbox = Sandbox::new();
    let (from, to) = two(&sandbox);
    let (source, target) = (from.address.to_string(), to.address.to_string());
    let file = sandbox.dir().join(".docker/config.json");
    fs::create_dir(file.parent().unwrap()).unwrap();
    let known = |of: &[(&str, &str)]| {
        let auths = of.iter().map(|(host, who)| {
            ((*host).to_owned(), serde_json::json!({ "auth": BASE64_STANDARD.encode(who) }))
        });
        let auths: serde_json::Map<String, serde_json::Value> = auths.collect();
        fs::write(&file, serde_json::json!({ "auths": auths }).to_string()).unwrap();
    };
    let refused = |by: &str| {
        let said = copy(&sandbox, from.address, to.address).fails(1).stderr();
        let cause = said.lines().filter(|line| !line.contains("docker://")).collect::<Vec<_>>().join("\n");
        let other = if by == source { &target } else { &source };
        assert!(cause.contains(by) && !cause.contains(other), "{said}");
        assert!(cause.contains("`outcrop login`"), "{said}");
    };
    known(&[(&source, "me:wrong"), (&target, YOU)]);
    refused(&source);
    known(&[(&source, ME), (&target, "you:wrong")]);
    refused(&target);
    // One's credentials are not the other's.
    known(&[(&source, ME)]);
    refused(&target);
    known(&[(&target, YOU)]);
    refused(&source);
    known(&[(&source, ME), (&target, YOU)]);
    copy(&sandbox, from.address, to.address).ok();
}
