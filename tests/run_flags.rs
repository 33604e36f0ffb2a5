//! The flags of RUN from outside: text in, what is planned or an error out, both compared whole.

use std::collections::BTreeSet;

use outcrop::dockerfile::{Dockerfile, PlanOptions, Resolver};
use outcrop::error::{Error, Result};
use outcrop::image::{ImageConfig, Platform};
use outcrop::plan::{
    Action, Bind, Cache, CopyFrom, Mount, Run, Secret, Security, Sharing, Ssh, StageId, Tmpfs,
};

struct Images;

impl Resolver for Images {
    fn base(&self, reference: &str, _: &Platform) -> Result<ImageConfig> {
        let config = match reference {
            "triggers" => r#"{"OnBuild":["RUN --mount=type=cache,target=/c make"]}"#,
            _ => "{}",
        };
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers"}}}}"#
        );
        Ok(serde_json::from_str(&text).unwrap())
    }
}

fn plan(text: &str, options: &PlanOptions) -> Result<outcrop::plan::Plan> {
    Dockerfile::parse("Dockerfile", text)?.plan(options, &Images)
}

/// The last RUN of the target.
fn run(text: &str) -> Run {
    let plan = plan(text, &PlanOptions::default()).unwrap_or_else(|error| panic!("{}", told(&error)));
    let steps = &plan.stages[plan.target.0].steps;
    steps
        .iter()
        .rev()
        .find_map(|step| match &step.action {
            Action::Run(run) => Some(run.clone()),
            _ => None,
        })
        .unwrap()
}

/// Behind some stages and variables.
fn mount(flag: &str) -> Mount {
    let text = format!("FROM a AS one\nFROM b\nARG DIR=/dir\nWORKDIR /w\nRUN --mount={flag} x\n");
    let [mount] = <[Mount; 1]>::try_from(run(&text).mounts).unwrap();
    mount
}

fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("\n{cause}"));
        source = cause.source();
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("\nhint: {hint}"));
    }
    text
}

fn refused(text: &str) -> String {
    told(&plan(text, &PlanOptions::default()).map(|plan| format!("{plan:?}")).expect_err(text))
}

fn bind(from: Option<CopyFrom>, source: &str, target: &str, read_only: bool) -> Mount {
    Mount::Bind(Bind { from, source: source.into(), target: target.into(), read_only })
}

#[test]
fn a_bind_is_what_a_mount_is_unless_it_says_otherwise() {
    let context = Some(CopyFrom::Context);
    let stage = Some(CopyFrom::Stage(StageId(0)));
    let image = Some(CopyFrom::Image("debian:12".into()));
    for (flag, is) in [
        ("target=/t", bind(context.clone(), "", "/t", true)),
        ("type=bind,dst=t,src=/a/./b/", bind(context.clone(), "a/b", "/w/t", true)),
        ("destination=${DIR}/x,source=$DIR", bind(context.clone(), "dir", "/dir/x", true)),
        ("TYPE=BIND,Target=/t,rw", bind(context.clone(), "", "/t", false)),
        ("target=/t,readwrite=false", bind(context.clone(), "", "/t", true)),
        ("target=/t,ro=0", bind(context.clone(), "", "/t", false)),
        ("target=/t,readonly", bind(context.clone(), "", "/t", true)),
        ("source=x", bind(context.clone(), "x", "/w", true)),
        ("from=one,target=/t", bind(stage.clone(), "", "/t", true)),
        ("from=0,target=/t", bind(stage, "", "/t", true)),
        ("from=debian:12,target=/t", bind(image, "", "/t", true)),
        ("from=scratch,target=/t", bind(None, "", "/t", true)),
        ("from=,target=/t", bind(context.clone(), "", "/t", true)),
        ("\\\"target=/a,b\\\",ro", bind(context.clone(), "", "/a,b", true)),
        ("\"target=/a b\"", bind(context, "", "/a b", true)),
    ] {
        assert_eq!(mount(flag), is, "{flag}");
    }
}

#[test]
fn caches_have_names_ways_to_share_and_beginnings() {
    let plain = Cache {
        id: "//c".into(),
        from: None,
        source: String::new(),
        target: "/c".into(),
        sharing: Sharing::Shared,
        read_only: false,
        mode: 0o755,
        owner: (0, 0),
    };
    let named = |id: &str| Cache { id: format!("/{id}"), ..plain.clone() };
    for (flag, is) in [
        ("type=cache,target=/c", plain.clone()),
        ("type=cache,target=/c/,sharing=Locked", Cache { sharing: Sharing::Locked, ..plain.clone() }),
        ("type=cache,target=c", Cache { target: "/w/c".into(), ..named("c") }),
        (
            "type=cache,target=/c,id=$DIR,sharing=private",
            Cache { sharing: Sharing::Private, ..named("/dir") },
        ),
        (
            "type=cache,target=/c,ro,mode=0700,uid=1,gid=2",
            Cache { read_only: true, mode: 0o700, owner: (1, 2), ..plain.clone() },
        ),
        (
            "type=cache,target=/c,from=one,source=/x",
            Cache { from: Some(CopyFrom::Stage(StageId(0))), source: "x".into(), ..plain.clone() },
        ),
    ] {
        assert_eq!(mount(flag), Mount::Cache(is), "{flag}");
    }
    let mut options = PlanOptions::default();
    options.build_args.insert("BUILDKIT_CACHE_MOUNT_NS".into(), "ns".into());
    let plan = plan("FROM a\nRUN --mount=type=cache,target=/c x\n", &options).unwrap();
    let Action::Run(run) = &plan.stages[0].steps[0].action else { panic!() };
    assert_eq!(run.mounts, [Mount::Cache(Cache { id: "ns//c".into(), ..plain })]);
}

#[test]
fn memory_secrets_and_agents_have_their_defaults() {
    let tmpfs = |size| Mount::Tmpfs(Tmpfs { target: "/t".into(), size, read_only: false });
    let secret = |id: &str, target: Option<&str>, env: Option<&str>| Secret {
        id: id.into(),
        target: target.map(str::to_owned),
        env: env.map(str::to_owned),
        mode: 0o400,
        owner: (0, 0),
    };
    let ssh =
        |id: &str, target: &str| Ssh { id: id.into(), target: target.into(), mode: 0o600, owner: (0, 0) };
    for (flag, is) in [
        ("type=tmpfs,target=/t", tmpfs(None)),
        ("type=tmpfs,target=/t,size=1.5k", tmpfs(Some(1536))),
        ("type=tmpfs,target=/t,from=one", tmpfs(None)),
        ("type=secret,id=a/b", Mount::Secret(secret("a/b", Some("/run/secrets/b"), None))),
        ("type=secret,target=/x/y", Mount::Secret(secret("y", Some("/x/y"), None))),
        ("type=secret,src=s,dst=t", Mount::Secret(secret("s", Some("/w/t"), None))),
        ("type=secret,id=s,env=S", Mount::Secret(secret("s", None, Some("S")))),
        ("type=secret,id=s,env=S,target=/t", Mount::Secret(secret("s", Some("/t"), Some("S")))),
        (
            "type=secret,id=s,required=false,mode=0444,uid=3,gid=4",
            Mount::Secret(Secret { mode: 0o444, owner: (3, 4), ..secret("s", Some("/run/secrets/s"), None) }),
        ),
        ("type=ssh", Mount::Ssh(ssh("default", "/run/buildkit/ssh_agent.0"))),
        ("type=ssh,id=x,target=/s,required", Mount::Ssh(ssh("x", "/s"))),
        (
            "type=ssh,mode=0666,uid=1",
            Mount::Ssh(Ssh { mode: 0o666, owner: (1, 0), ..ssh("default", "/run/buildkit/ssh_agent.0") }),
        ),
    ] {
        assert_eq!(mount(flag), is, "{flag}");
    }
    let two = run("FROM a\nRUN --mount=type=ssh --mount=type=tmpfs,target=/t --mount=type=ssh,id=b x\n");
    let last = two.mounts.last().unwrap();
    assert_eq!(*last, Mount::Ssh(ssh("b", "/run/buildkit/ssh_agent.1")));
}

#[test]
fn mistakes_in_a_mount_stand_under_their_place() {
    assert_eq!(
        refused("FROM a\nRUN --mount=type=cache,traget=/x y\n"),
        "reading `Dockerfile`\nline 2: a mount has no `traget`\n  2 | RUN --mount=type=cache,traget=/x y\n    |                        ^^^^^^^^^\nhint: did you mean `target`?"
    );
    assert_eq!(
        refused("FROM a\nRUN x \\\n  && y\nRUN --network=none \\\n  --mount=type=cahce,target=/x y\n"),
        "reading `Dockerfile`\nline 5: `cahce` is no type of a mount\n  5 |   --mount=type=cahce,target=/x y\n    |           ^^^^^^^^^^\nhint: did you mean `cache`?"
    );
    for (flag, why) in [
        ("type=bind", "nothing can be mounted on `/`"),
        ("target=/", "nothing can be mounted on `/`"),
        ("target=/x,source=../y", "`../y` lies outside of what is mounted"),
        ("target=/x,mode=0700", "a mount of type `bind` has no `mode`"),
        ("type=tmpfs,target=/x,uid=1", "a mount of type `tmpfs` has no `uid`"),
        ("type=tmpfs,target=/x,size=big", "`big` is no size"),
        ("type=cache,target=/x,size=1m", "a mount of type `cache` has no `size`"),
        ("type=cache,target=/x,required", "a mount of type `cache` has no `required`"),
        ("type=cache,target=/x,sharing=alone", "`alone` is no way to share a cache"),
        ("type=secret,id=x,sharing=locked", "a mount of type `secret` has no `sharing`"),
        ("type=secret,id=x,from=a", "a mount of type `secret` has no `from`"),
        ("type=secret,id=x,source=y", "a secret has an `id` or a `source`, not both"),
        ("type=secret", "the secret has no name"),
        ("type=secret,id=x,mode=999", "`999` is no mode between 0 and 07777"),
        ("type=secret,id=x,uid=root", "`root` is no user's number"),
        ("type=ssh,source=/x", "a mount of type `ssh` has no `source`"),
        ("target", "`target` has no value"),
        ("target=/x,ro=maybe", "`ro` is `true` or `false`, not `maybe`"),
        ("target=/x,", "a mount has no ``"),
        ("target=/x,from=$IMAGE", "variables mean nothing in `from`"),
        ("target=/x,from=later", "stage `later` begins further down"),
        ("target=/x,from=own", "stage `own` would copy from itself"),
        ("target=/x,from=9", "there is no stage 9"),
    ] {
        let text = format!("FROM a AS own\nRUN --mount={flag} y\nFROM a AS later\nFROM own\n");
        let line = refused(&text).lines().nth(1).unwrap().to_owned();
        assert_eq!(line, format!("line 2: {why}"), "{flag}");
    }
    // Of a stage that nobody needs, only where files come from is looked at.
    plan("FROM a AS unused\nRUN --mount=type=nothing x\nFROM a\n", &PlanOptions::default()).unwrap();
}

#[test]
fn what_is_required_must_have_been_given_where_somebody_knows() {
    let text = "FROM a\nRUN --mount=type=secret,id=key,required --mount=type=ssh,required=true x\n";
    plan(text, &PlanOptions::default()).unwrap();
    let mut options = PlanOptions::default();
    options.run.secrets = Some(BTreeSet::new());
    options.run.ssh = Some(BTreeSet::new());
    assert_eq!(
        told(&plan(text, &options).map(drop).unwrap_err()),
        "reading `Dockerfile`\nline 2: the secret `key` was not given\n  2 | RUN --mount=type=secret,id=key,required --mount=type=ssh,required=true x\n    |                                ^^^^^^^^\nhint: build with `--secret id=key,src=FILE`, or with `env=VARIABLE`"
    );
    options.run.secrets = Some(BTreeSet::from(["key".to_owned()]));
    assert_eq!(
        told(&plan(text, &options).map(drop).unwrap_err()).lines().nth(1),
        Some("line 2: the ssh agent `default` was not given")
    );
    options.run.ssh = Some(BTreeSet::from(["default".to_owned()]));
    plan(text, &options).unwrap();
}

#[test]
fn a_trigger_may_mount_and_security_is_asked_for() {
    let run_of = run("FROM triggers\n");
    assert_eq!(run_of.mounts.len(), 1);
    let own = run("FROM a AS base\nONBUILD RUN --mount=type=tmpfs,target=/t make\nFROM base\n");
    assert!(matches!(&own.mounts[..], [Mount::Tmpfs(_)]));
    assert_eq!(run("FROM a\nRUN --security=sandbox x\n").security, Security::Sandbox);
    let line = |text: &str| refused(text).lines().nth(1).unwrap().to_owned();
    assert_eq!(line("FROM a\nRUN --security=insecure x\n"), "line 2: an insecure RUN is not allowed");
    assert_eq!(line("FROM a\nRUN --security=insecur x\n"), "line 2: `insecur` is no security of a RUN");
    assert_eq!(line("FROM a\nRUN --device=d x\n"), "line 2: `RUN --device` is not supported by this version");
    let mut options = PlanOptions::default();
    options.run.insecure = true;
    plan("FROM a\nRUN --security=insecure x\n", &options).unwrap();
}

#[test]
fn here_documents_are_scripts_programs_or_the_shells_own() {
    let args = |text: &str| run(&format!("FROM a\nARG V=1\n{text}")).args;
    let shell = |script: &str| vec!["/bin/sh".to_owned(), "-c".into(), script.into()];
    assert_eq!(args("RUN <<EOF\necho $V\n\techo b\nEOF\n"), shell("echo $V\n\techo b\n"));
    assert_eq!(args("RUN <<-'EOF'\n\techo $V\n\tEOF\n"), shell("echo $V\n"));
    assert_eq!(args("RUN --mount=type=tmpfs,target=/t <<EOF\nx\nEOF\n"), shell("x\n"));
    assert_eq!(
        args("RUN cat <<one <<-two > /out\n1\none\n\t2\ntwo\n"),
        shell("cat <<one <<-two > /out\n1\none\n\t2\ntwo")
    );
    assert_eq!(args("RUN <<EOF bash\nx\nEOF\n"), shell("<<EOF bash\nx\nEOF"));
    assert_eq!(args("RUN 3<<EOF cat /dev/fd/3\nx\nEOF\n"), shell("3<<EOF cat /dev/fd/3\nx\nEOF"));
    let program = run("FROM a\nRUN <<\"EOF\"\n#!/bin/awk -f\nBEGIN { print $V }\nEOF\n");
    assert_eq!(program.args, shell("/dev/pipes/EOF"));
    let [file] = &program.files[..] else { panic!() };
    assert_eq!((file.mode, &file.bytes[..]), (0o755, &b"#!/bin/awk -f\nBEGIN { print $V }\n"[..]));
}
