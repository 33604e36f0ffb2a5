//! That each part of a step changes its key, and what decides nothing does not.

use super::*;

fn run() -> plan::Run {
    plan::Run {
        args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
        env: vec!["PATH=/bin".into()],
        hidden_env: Vec::new(),
        user: String::new(),
        working_dir: "/".into(),
        network: plan::Network::Default,
        hostname: None,
        security: plan::Security::Sandbox,
        mounts: Vec::new(),
        resources: std::sync::Arc::default(),
        files: Vec::new(),
    }
}

/// What it does, and doing it.
type Edit<T> = (&'static str, fn(&mut T));

/// Each edit gives a key that neither nothing nor another edit gives.
fn all_differ<T: Clone>(base: &T, key: impl Fn(&T) -> CacheKey, edits: &[Edit<T>]) {
    let mut seen = vec![("nothing", key(base))];
    assert_eq!(seen[0].1, key(&base.clone()));
    for (what, edit) in edits {
        let mut other = base.clone();
        edit(&mut other);
        let key = key(&other);
        let same = seen.iter().find(|(_, known)| *known == key);
        assert!(same.is_none(), "`{what}` has the key of `{}`", same.unwrap().0);
        seen.push((what, key));
    }
}

fn none_differs<T: Clone>(base: &T, key: impl Fn(&T) -> CacheKey, edits: &[Edit<T>]) {
    for (what, edit) in edits {
        let mut other = base.clone();
        edit(&mut other);
        assert_eq!(key(base), key(&other), "{what}");
    }
}

fn key_of(step: Step<'_>) -> CacheKey {
    Key::new(&Platform::host(), Some(&[ContentId(Digest::of(b"base"))]), step, None).digest().0
}

fn resources(run: &mut plan::Run) -> &mut plan::Resources {
    std::sync::Arc::make_mut(&mut run.resources)
}

fn limit(name: &str, soft: u64, hard: u64) -> Vec<crate::runtime::Rlimit> {
    vec![crate::runtime::Rlimit { name: name.into(), soft, hard }]
}

fn inline(path: &str, bytes: &[u8], mode: u32) -> plan::InlineFile {
    plan::InlineFile { path: path.into(), bytes: bytes.to_vec(), mode }
}

#[test]
fn every_part_of_a_run_changes_its_key_and_what_decides_nothing_does_not() {
    let key = |run: &plan::Run| key_of(Step::run(run, Vec::new(), None));
    all_differ(
        &run(),
        key,
        &[
            ("args", |run| run.args[2] = "false".into()),
            ("one arg more", |run| run.args.push(String::new())),
            ("args put together", |run| run.args = vec!["/bin/sh -c true".into()]),
            ("env", |run| run.env.push("A=1".into())),
            ("env's value", |run| run.env[0] = "PATH=/".into()),
            ("user", |run| run.user = "1".into()),
            ("working_dir", |run| run.working_dir = "/tmp".into()),
            ("no network", |run| run.network = plan::Network::None),
            ("the host's network", |run| run.network = plan::Network::Host),
            ("security", |run| run.security = plan::Security::Insecure),
            ("a host", |run| resources(run).hosts = vec![("a".into(), "1.2.3.4".into())]),
            ("another host", |run| resources(run).hosts = vec![("b".into(), "1.2.3.4".into())]),
            ("shm_size", |run| resources(run).shm_size = Some(1)),
            ("a limit", |run| resources(run).ulimits = limit("nofile", 1, 2)),
            ("its soft one", |run| resources(run).ulimits = limit("nofile", 2, 2)),
            ("its hard one", |run| resources(run).ulimits = limit("nofile", 1, 3)),
            ("its name", |run| resources(run).ulimits = limit("nproc", 1, 2)),
            ("a file", |run| run.files = vec![inline("/x", b"1", 0o755)]),
            ("its path", |run| run.files = vec![inline("/y", b"1", 0o755)]),
            ("its bytes", |run| run.files = vec![inline("/x", b"2", 0o755)]),
            ("its mode", |run| run.files = vec![inline("/x", b"1", 0o644)]),
        ],
    );
    let mut with_host = run();
    resources(&mut with_host).hosts = vec![("a".into(), "1.2.3.4".into())];
    none_differs(
        &with_host,
        key,
        &[
            ("proxies", |run| run.hidden_env.push("HTTP_PROXY=http://proxy".into())),
            ("addresses", |run| resources(run).hosts[0].1 = "5.6.7.8".into()),
            ("cgroup", |run| resources(run).cgroup_parent = Some("/x".into())),
        ],
    );
    let run = run();
    let by = |name: &str| key_of(Step::run(&run, Vec::new(), Some(name.into())));
    assert_ne!(key(&run), by("a"), "interpreter");
    assert_ne!(by("b"), by("a"), "interpreter");
}

#[test]
fn every_part_of_a_mount_changes_the_key() {
    let (a, b) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
    let bind = |target, read_only, content| Mount::Bind { target, read_only, content };
    let cache =
        |target, read_only, content, mode, owner| Mount::Cache { target, read_only, content, mode, owner };
    let tmpfs = |target, size, read_only| Mount::Tmpfs { target, size, read_only };
    let secret = |id, target, env, mode, owner| Mount::Secret { id, target, env, mode, owner };
    let ssh = |id, target, mode, owner| Mount::Ssh { id, target, mode, owner };
    let all = vec![
        vec![],
        vec![bind("/a", true, None)],
        vec![bind("/b", true, None)],
        vec![bind("/a", false, None)],
        vec![bind("/a", true, a)],
        vec![bind("/a", true, b)],
        vec![bind("/a", true, a), bind("/a", true, b)],
        vec![bind("/a", true, b), bind("/a", true, a)],
        vec![cache("/a", false, None, 0o755, (0, 0))],
        vec![cache("/b", false, None, 0o755, (0, 0))],
        vec![cache("/a", true, None, 0o755, (0, 0))],
        vec![cache("/a", false, a, 0o755, (0, 0))],
        vec![cache("/a", false, b, 0o755, (0, 0))],
        vec![cache("/a", false, None, 0o700, (0, 0))],
        vec![cache("/a", false, None, 0o755, (1, 0))],
        vec![cache("/a", false, None, 0o755, (0, 1))],
        vec![tmpfs("/a", None, false)],
        vec![tmpfs("/b", None, false)],
        vec![tmpfs("/a", Some(1), false)],
        vec![tmpfs("/a", None, true)],
        vec![secret("i", Some("/a"), None, 0o400, (0, 0))],
        vec![secret("j", Some("/a"), None, 0o400, (0, 0))],
        vec![secret("i", Some("/b"), None, 0o400, (0, 0))],
        vec![secret("i", None, Some("/a"), 0o400, (0, 0))],
        vec![secret("i", Some("/a"), Some("A"), 0o400, (0, 0))],
        vec![secret("i", Some("/a"), None, 0o444, (0, 0))],
        vec![secret("i", Some("/a"), None, 0o400, (1, 0))],
        vec![secret("i", Some("/a"), None, 0o400, (0, 1))],
        vec![ssh("i", "/a", 0o600, (0, 0))],
        vec![ssh("j", "/a", 0o600, (0, 0))],
        vec![ssh("i", "/b", 0o600, (0, 0))],
        vec![ssh("i", "/a", 0o666, (0, 0))],
        vec![ssh("i", "/a", 0o600, (1, 0))],
        vec![ssh("i", "/a", 0o600, (0, 1))],
    ];
    let run = run();
    let count = all.len();
    let keys: std::collections::HashSet<CacheKey> =
        all.into_iter().map(|mounts| key_of(Step::run(&run, mounts, None))).collect();
    assert_eq!(keys.len(), count);
}

#[test]
fn every_part_of_a_copy_changes_its_key() {
    #[derive(Clone)]
    struct It {
        copy: plan::Copy,
        content: Vec<Digest>,
        owner: Option<(u32, u32)>,
    }
    let copy = plan::Copy {
        from: plan::CopyFrom::Context,
        sources: vec![plan::Source::Path("a".into())],
        inline: Vec::new(),
        destination: "/to".into(),
        chown: None,
        chmod: None,
        unpack: plan::Unpack::None,
        exclude: Vec::new(),
        parents: false,
        link: false,
    };
    let it = It { copy, content: vec![Digest::of(b"a")], owner: None };
    let key = |it: &It| key_of(Step::copy(&it.copy, it.content.clone(), it.owner));
    all_differ(
        &it,
        key,
        &[
            ("content", |it| it.content[0] = Digest::of(b"b")),
            ("two sources", |it| it.content.push(Digest::of(b"b"))),
            ("their order", |it| it.content.insert(0, Digest::of(b"b"))),
            ("a file", |it| it.copy.inline = vec![inline("x", b"1", 0o644)]),
            ("its name", |it| it.copy.inline = vec![inline("y", b"1", 0o644)]),
            ("its bytes", |it| it.copy.inline = vec![inline("x", b"2", 0o644)]),
            ("its mode", |it| it.copy.inline = vec![inline("x", b"1", 0o755)]),
            ("destination", |it| it.copy.destination = "/to/".into()),
            ("owner", |it| it.owner = Some((1, 0))),
            ("group", |it| it.owner = Some((0, 1))),
            ("unpack", |it| it.copy.unpack = plan::Unpack::Local),
            ("unpack all", |it| it.copy.unpack = plan::Unpack::All),
            ("parents", |it| it.copy.parents = true),
            ("link", |it| it.copy.link = true),
            ("chmod", |it| it.copy.chmod = plan::Chmod::parse("0600").ok()),
            ("another chmod", |it| it.copy.chmod = plan::Chmod::parse("u=rw").ok()),
        ],
    );
    // What a source is called is in its content, as far as it decides anything; so is what is left out.
    none_differs(
        &it,
        key,
        &[
            ("where from", |it| it.copy.from = plan::CopyFrom::Image("i".into())),
            ("what is excluded", |it| it.copy.exclude = vec!["x".into()]),
        ],
    );
}

#[test]
fn every_part_of_the_other_steps_changes_their_keys() {
    let keys = [
        key_of(Step::Workdir { path: "/a", user: "" }),
        key_of(Step::Workdir { path: "/b", user: "" }),
        key_of(Step::Workdir { path: "/a", user: "1" }),
    ];
    assert_eq!(std::collections::HashSet::from(keys).len(), 3);
    let config = RunConfig::default();
    let of = |created_by, author| key_of(Step::Config { created_by, author, config: &config });
    let keys = [of("a", None), of("b", None), of("a", Some("x")), of("a", Some("y"))];
    assert_eq!(std::collections::HashSet::from(keys).len(), 4);
    let key = |config: &RunConfig| key_of(Step::Config { created_by: "a", author: None, config });
    all_differ(
        &config,
        key,
        &[
            ("user", |config| config.user = "x".into()),
            ("ports", |config| config.exposed_ports = Some([("1/tcp".into(), serde_json::json!({}))].into())),
            ("env", |config| config.env = Some(vec!["x".into()])),
            ("entrypoint", |config| config.entrypoint = Some(vec!["x".into()])),
            ("cmd", |config| config.cmd = Some(vec!["x".into()])),
            ("volumes", |config| config.volumes = Some([("/x".into(), serde_json::json!({}))].into())),
            ("working_dir", |config| config.working_dir = "/x".into()),
            ("labels", |config| config.labels = Some([("x".into(), "y".into())].into())),
            ("stop_signal", |config| config.stop_signal = Some("x".into())),
            ("args_escaped", |config| config.args_escaped = true),
            ("healthcheck", |config| config.healthcheck = Some(crate::image::Healthcheck::default())),
            ("on_build", |config| config.on_build = Some(vec!["x".into()])),
            ("stop_timeout", |config| config.stop_timeout = Some(1)),
            ("shell", |config| config.shell = Some(vec!["x".into()])),
            ("other", |config| drop(config.other.insert("x".into(), 1.into()))),
        ],
    );
}

#[test]
fn what_a_step_stands_on_its_platform_and_its_epoch_change_its_key() {
    let run = run();
    let (a, b) = (ContentId(Digest::of(b"a")), ContentId(Digest::of(b"b")));
    let key = |platform: &str, parent: Option<&[ContentId]>, epoch| {
        let platform: Platform = platform.parse().unwrap();
        Key::new(&platform, parent, Step::run(&run, Vec::new(), None), epoch).digest().0
    };
    let keys = [
        key("linux/amd64", None, None),
        key("linux/amd64", Some(&[]), None),
        key("linux/amd64", Some(&[a]), None),
        key("linux/amd64", Some(&[b]), None),
        key("linux/amd64", Some(&[a, b]), None),
        key("linux/amd64", Some(&[b, a]), None),
        key("linux/arm64", Some(&[a]), None),
        key("linux/arm/v7", Some(&[a]), None),
        key("linux/arm/v6", Some(&[a]), None),
        key("linux/amd64", Some(&[a]), Some(0)),
        key("linux/amd64", Some(&[a]), Some(1)),
    ];
    assert_eq!(std::collections::HashSet::from(keys).len(), keys.len());
}
