//! Several platforms in one build, side by side.

use std::fs;

use crate::sandbox::{Outcome, Sandbox, based as sandbox, build_offline};

const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

fn build(sandbox: &Sandbox, more: &[&str]) -> Outcome {
    build_offline(sandbox, &[&BOTH, more].concat())
}

/// What two platforms have in common, and what each has for itself.
const SHARED: &str = "FROM --platform=$BUILDPLATFORM base AS tools
LABEL of=all
RUN cat /proc/sys/kernel/random/uuid > /once
FROM scratch
ARG TARGETARCH
COPY --from=tools /once /once
COPY $TARGETARCH /for
";

#[test]
fn a_stage_that_platforms_have_in_common_runs_once() {
    let sandbox = sandbox(SHARED);
    sandbox.file("amd64", "amd64");
    sandbox.file("arm64", "arm64");
    for more in [&[][..], &["--no-cache"], &["--no-cache-filter", "tools"]] {
        let out = sandbox.context().join("out");
        let _fresh = fs::remove_dir_all(&out);
        build(&sandbox, &[more, &["-o", "out"]].concat()).ok();
        let once = |arch: &str| fs::read_to_string(out.join(format!("linux_{arch}/once"))).unwrap();
        assert_eq!(once("amd64"), once("arm64"), "{more:?}");
        for arch in ["amd64", "arm64"] {
            assert_eq!(fs::read_to_string(out.join(format!("linux_{arch}/for"))).unwrap(), arch);
        }
    }
    sandbox.check();
}

#[test]
fn a_second_build_for_several_platforms_is_the_same_image() {
    let sandbox = sandbox("FROM --platform=$BUILDPLATFORM base\nLABEL a=b\nRUN echo x > /x\nENV c=d\n");
    let id = |more: &[&str]| {
        build(&sandbox, &[&["--iidfile", "iid"], more].concat()).ok();
        fs::read_to_string(sandbox.context().join("iid")).unwrap()
    };
    let first = id(&[]);
    for _ in 0..3 {
        assert_eq!(id(&[]), first);
    }
    assert_eq!(id(&["--squash"]), id(&["--squash"]));
    sandbox.check();
}

/// Each platform waits for what only the other one does.
#[test]
fn platforms_are_built_side_by_side() {
    let sandbox = sandbox(
        "FROM --platform=$BUILDPLATFORM base
ARG TARGETARCH
RUN --mount=type=cache,target=/meet touch /meet/$TARGETARCH && i=0 && \
    until [ -e /meet/amd64 ] && [ -e /meet/arm64 ]; do i=$((i+1)); [ $i -lt 600 ] || exit 7; sleep 0.1; done
",
    );
    let said = build(&sandbox, &[]).ok().stdout();
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(said.lines().any(|line| line.contains(platform)), "{said}");
    }
    sandbox.check();
}

#[test]
fn what_fails_for_one_platform_stops_the_others_and_is_what_is_told() {
    let sandbox = sandbox(
        "FROM --platform=$BUILDPLATFORM base
ARG TARGETARCH
RUN if [ $TARGETARCH = arm64 ]; then echo no arm; exit 3; else sleep 600; fi
",
    );
    build(&sandbox, &["-t", "it"]).fails(1).complains("building for linux/arm64").complains("exit code: 3");
    sandbox.outcrop(&["inspect", "it"]).fails(1);
    sandbox.check();
}

#[test]
fn nothing_from_scratch_is_an_image_without_files() {
    let sandbox = sandbox("FROM scratch\n");
    let one = |more: &[&str]| {
        sandbox.outcrop(&[&["build", "--progress", "plain"], more, &["."]].concat()).ok();
    };
    one(&[
        "-t",
        "empty",
        "-o",
        "out",
        "-o",
        "type=tar,dest=it.tar",
        "-o",
        "type=oci,dest=oci,tar=false",
        "--load",
    ]);
    assert_eq!(fs::read_dir(sandbox.context().join("out")).unwrap().count(), 0);
    assert_eq!(fs::read(sandbox.context().join("it.tar")).unwrap(), vec![0; 1024]);
    let said =
        sandbox.outcrop(&["inspect", "-f", "{{json .Config.Env}} {{json .RootFS.Layers}}", "empty"]).ok();
    assert_eq!(said.line(), r#"["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] []"#);
    let id = |name: &str| sandbox.outcrop(&["inspect", "-f", "{{.Id}}", name]).ok().line();
    let first = id("empty");
    one(&["-t", "again"]);
    assert_eq!(id("again"), first);
    one(&["-o", "type=docker,dest=docker.tar"]);
    sandbox.dockerfile("FROM empty\nCOPY Dockerfile /d\n");
    one(&["-o", "more"]);
    assert!(sandbox.context().join("more/d").exists());
    sandbox.dockerfile("FROM scratch AS a\nFROM a\n");
    build(&sandbox, &["-o", "each"]).ok();
    assert_eq!(fs::read_dir(sandbox.context().join("each")).unwrap().count(), 2);
    sandbox.check();
}

#[test]
fn a_directory_is_made_what_the_result_is_where_that_is_asked_for() {
    let sandbox = sandbox("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /d/for\nCOPY d /d/d\n");
    for path in [
        "amd64",
        "arm64",
        "d/kept",
        "out/stale",
        "out/d/stale/deep",
        "out/d/d/kept/was-a-directory",
        "beside/file",
    ] {
        sandbox.file(path, "");
    }
    let out = sandbox.context().join("out");
    std::os::unix::fs::symlink("../beside", out.join("link")).unwrap();
    std::os::unix::fs::symlink("../../beside", out.join("d/link")).unwrap();
    let found = || {
        let find = std::process::Command::new("find").arg(".").current_dir(&out).output().unwrap();
        let mut lines: Vec<String> =
            String::from_utf8(find.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    let one = |more: &[&str]| sandbox.outcrop(&[&["build", "--progress", "plain"], more, &["."]].concat());
    one(&["-o", "out"]).ok();
    assert!(found().contains("./stale"), "what is not deleted stays");
    one(&["-o", "type=local,dest=out,mode=delete"]).ok();
    assert_eq!(found(), ". ./d ./d/d ./d/d/kept ./d/for");
    assert!(sandbox.context().join("beside/file").exists());
    build(&sandbox, &["-o", "type=local,dest=out,mode=delete"]).ok();
    let of = |arch: &str| {
        format!(
            "./linux_{arch} ./linux_{arch}/d ./linux_{arch}/d/d ./linux_{arch}/d/d/kept ./linux_{arch}/d/for"
        )
    };
    assert_eq!(found(), format!(". {} {}", of("amd64"), of("arm64")));

    std::os::unix::fs::symlink(sandbox.dir(), sandbox.context().join("away")).unwrap();
    let elsewhere = sandbox.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("file"), "").unwrap();
    let outside =
        [".", "..", "out/..", "none/..", "away", "away/elsewhere", "away/new", elsewhere.to_str().unwrap()];
    for dest in outside {
        let output = format!("type=local,mode=delete,dest={dest}");
        one(&["-o", &output])
            .fails(1)
            .complains("not below this directory")
            .complains("--allow buildx.local.delete");
    }
    assert!(elsewhere.join("file").exists());
    let output = format!("type=local,mode=delete,dest={}", elsewhere.display());
    one(&["-o", &output, "--allow", "buildx.local.delete"]).ok();
    assert!(!elsewhere.join("file").exists());
    one(&["-o", "type=local,dest=out,mode=mirror"]).fails(1).complains("mode=mirror");
    sandbox.check();
}
