//! Dockerfiles in the styles of well-known images, with stand-ins for what they would download: they build, build again
//! without running anything, are what BuildKit makes of them, and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::judge_kit::{Court, Judge, differences, ours};
use crate::sandbox::{Outcome, Sandbox};

/// A directory of `tests/dockerfiles`, how it is built, and whether BuildKit is asked too.
struct Style {
    name: &'static str,
    sandbox: Sandbox,
    args: Vec<String>,
    /// Not where what it is written in is newer than the judge.
    judged: bool,
}

fn style(name: &'static str) -> Style {
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
    Style { name, sandbox, args: Vec::new(), judged: true }
}

impl Style {
    fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }
    fn newer_than_the_judge(mut self) -> Self {
        self.judged = false;
        self
    }

    fn context(&self) -> PathBuf {
        self.sandbox.context().join(self.name)
    }

    fn build(&self, more: &[&str]) -> Outcome {
        let mut words = vec!["build", "--progress", "plain", "--network", "none", "-t", self.name];
        words.extend(self.args.iter().map(String::as_str));
        words.extend(more);
        let context = self.context();
        words.push(context.to_str().unwrap());
        self.sandbox.outcrop(&words)
    }

    #[track_caller]
    fn says(&self, says: &str) {
        let run = self.sandbox.outcrop(&["run", "--rm", "--network", "none", self.name]).ok();
        assert_eq!(run.stdout(), says, "{}", self.name);
    }

    /// Builds twice, runs, and asks the judge.
    fn builds(&self, says: &str) {
        self.build(&[]).ok();
        self.build(&[]).ok().says_not("---> Running in");
        self.says(says);
        if self.judged {
            self.is_judged();
        }
        self.sandbox.check();
    }

    fn is_judged(&self) {
        let court = Court::sits();
        let context = self.context();
        let judged = |dockerfile: &str, tag: &str| {
            // The judge would fetch the frontend that the first line names.
            let text = fs::read_to_string(context.join(dockerfile)).unwrap();
            let file = self.sandbox.dir().join(tag);
            fs::write(&file, text.replace("# syntax=docker/dockerfile:1\n", "")).unwrap();
            let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
            court.build(Judge::BuildKit, &context, &file, tag, &args).ok();
        };
        if context.join(PARENT).exists() {
            judged(PARENT, &format!("{}-parent", self.name));
        }
        let tag = format!("style-{}", self.name);
        judged("Dockerfile", &tag);
        let theirs = court.image(Judge::BuildKit, &tag);
        let found = differences(&ours(&self.sandbox, self.name), &theirs, Judge::BuildKit);
        assert!(found.is_empty(), "{}: {found:#?}", self.name);
    }
}

/// The Dockerfile of an image `NAME-parent` that is built first.
const PARENT: &str = "parent.dockerfile";

#[test]
fn a_go_server_from_scratch_with_cached_modules() {
    let says = "server 1.4 for linux/amd64 with example.com/mux v1.8.1\n";
    style("go").args(&["--build-arg", "VERSION=1.4"]).builds(says);
}

#[test]
fn a_node_application_in_three_stages() {
    style("node").builds("node starts node dist/index.js with body-parser express \n");
}

#[test]
fn a_python_service_with_here_documents() {
    style("python").newer_than_the_judge().builds("python 3.12 as 10001: 2 packages\n");
}

#[test]
fn nginx_with_packed_assets_and_entrypoint_scripts() {
    style("nginx")
        .builds("10: 1.25.4\n20: index.html index.html.gz sub \n3 words, the last is daemon off;\n");
}

#[test]
fn postgres_with_a_volume_and_a_change_of_user() {
    style("postgres").builds("postgres 16.2-1 as postgres in 700:postgres\n");
}

#[test]
fn a_rust_program_with_cooked_dependencies_and_bound_sources() {
    style("rust").builds("hello 0.3.0 with serde libc as appuser\n");
}

#[test]
fn a_java_service_as_the_layers_of_its_archive() {
    style("java").builds(
        "java -XX:MaxRAMPercentage=75.0 -Dfile.encoding=UTF-8 org.springframework.boot.loader.JarLauncher --server.port=8080 \
         in /application as spring with ./BOOT-INF/classes/App.class ./BOOT-INF/lib/commons.jar \n",
    );
}

#[test]
fn redis_with_a_step_down_from_root_and_a_volume_as_working_directory() {
    style("redis").builds("redis-server 7.2.4 as redis in /data, umask 0077, dump redis: \n");
}

#[test]
fn several_targets_of_one_file() {
    let style = style("targets");
    style.builds("release with left-pad\n");
    style.build(&["--target", "dev"]).ok();
    style.says("dev with left-pad\n");
    style.build(&["--build-arg", "VARIANT=debug"]).ok();
    style.says("debug with left-pad\n");
    let out = style.sandbox.dir().join("out");
    style.build(&["--target", "report", "--output", out.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(out.join("test-report")).unwrap(), "dev with left-pad\n");
    style.build(&["--target", "broken"]).fails(1);
}

#[test]
fn here_documents_of_every_kind() {
    style("heredocs").newer_than_the_judge().builds(
        "./added 644 0:0: # no comment|FROM nowhere|\n\
         ./conf/first.conf 640 7:8: [first]|name = world|\n\
         ./conf/second.conf 640 7:8: [second]|deeper = hello|\n\
         ./conf/static.txt 640 7:8: static|\n\
         ./counted 644 0:0: awk counts 42|\n\
         ./descriptor 644 0:0: through three|\n\
         ./empty 644 0:0: \n\
         ./expanded 644 0:0: hello world $ESCAPED set \"quotes\" 'stay'|\n\
         ./inner 644 0:0: inside hello|\n\
         ./lines 644 0:0: line 1|line 2|line 3|\n\
         ./named 644 0:0: hello world|\n\
         ./one 644 0:0: 1 of hello|\n\
         ./quoted 644 0:0: $GREETING \\${NAME} `date`|\n\
         ./raw 644 0:0: $GREETING ${NAME} \\$ESCAPED|\n\
         ./two 644 0:0: 2 of world|\n",
    );
}

#[test]
fn secrets_and_agents_that_leave_no_trace() {
    let style = style("secrets");
    let key = style.sandbox.dir().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    let path = |file: &str| format!("src={}", style.context().join(file).display());
    let [npmrc, token] = ["npmrc", "token"].map(|id| format!("id={id},{}", path(id)));
    let [agent, deploy] = ["default", "deploy"].map(|id| format!("{id}={}", key.display()));
    let args = ["--secret", &npmrc, "--secret", &token, "--ssh", &agent, "--ssh", &deploy];
    style.args(&args).builds("//registry.example.com/:_authToken=***\n440 5:6 4\nwith an agent\ns\n");
}

#[test]
fn caches_of_every_kind_outlive_a_build() {
    let style = style("caches");
    style.builds("1\n750 1000:1000\nfirst\nlisted\nfirst\n");
    style.build(&["--build-arg", "ROUND=2"]).ok();
    style.says("2\n750 1000:1000\nfirst\nlisted\nfirst\nmore\n");
}

#[test]
fn a_distroless_base_from_scratch() {
    style("distroless").builds("static as nonroot in /home/nonroot: 3 certificates, UTC\n");
}

#[test]
fn an_application_that_its_base_builds() {
    let style = style("onbuild");
    let (file, context) = (style.context().join(PARENT), style.context());
    let [file, context] = [&file, &context].map(|path| path.to_str().unwrap());
    style.sandbox.outcrop(&["build", "--network", "none", "-t", "onbuild-parent", "-f", file, context]).ok();
    style.builds(
        "installed package.json production as nobody, after yes, Dockerfile installed package.json parent.dockerfile tools \n",
    );
    let again = style.build(&["--build-arg", "NODE_ENV=dev"]).ok().says("---> Running in");
    assert_eq!(again.stderr(), "", "an ARG of the base takes it");
}

#[test]
fn a_file_with_the_line_ends_of_windows() {
    style("windows")
        .builds("first: one two\nsecond: three\n00000000: 610d 0a62 0d0a                           a..b..\n");
}

#[test]
fn arguments_of_every_kind() {
    let args = ["--build-arg", "GIVEN=line", "--build-arg", "HTTPS_PROXY=http://proxy"];
    style("args").args(&args).newer_than_the_judge().builds(
        "version 1.2.3-rc.1 1 2.3-rc.1 1.2.3 1-2-3-rc-1\ninherited yes 1\n\
         shell line [] [unset] two words $GIVEN $GIVEN\nlast: line\nproxy http://proxy\n\
         line|was empty|was unset|\n1000:1000 copied-line\n",
    );
}

#[test]
fn several_images_of_one_repository_over_packages_they_share() {
    let style = style("monorepo").newer_than_the_judge();
    let shared = style.sandbox.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("common.conf"), "shared = yes\n").unwrap();
    let shared = format!("shared={}", shared.display());
    let style = style.args(&["--build-context", &shared]);
    let web = "shared = yes\npackages/ui/src/main: code of packages/ui\n\
               apps/web/src/deep/it.test: check\napps/web/src/main: code of apps/web\n";
    let of_both = |text: &str| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    style.build(&[]).ok();
    let run = || style.sandbox.outcrop(&["run", "--rm", "--network", "none", "monorepo"]).ok().stdout();
    // Two files called `packed` for one name: the last one stays.
    assert_eq!(of_both(&run()), of_both(&web.replace("packages/ui/src/main: code of packages/ui\n", "")));
    style.build(&[]).ok().says_not("---> Running in");
    style.build(&["--build-arg", "APP=api"]).ok();
    assert_eq!(
        run(),
        "shared = yes\npackages/log/src/main: code of packages/log\napps/api/src/main: code of apps/api\n"
    );

    // What another application changes is nothing to this one.
    let change = |path: &str, text: &str| fs::write(style.context().join(path), text).unwrap();
    change("apps/worker/src/main", "changed");
    change("apps/api/src/main.test", "changed");
    change("apps/web/node_modules/x/package.json", "changed");
    change("README.md", "changed");
    style.build(&["--build-arg", "APP=api"]).ok().says_not("---> Running in");
    change("packages/log/src/main", "new code");
    let again = style.build(&["--build-arg", "APP=api"]).ok();
    assert_eq!(
        again.lines().iter().filter(|line| line.contains("---> Running in")).count(),
        2,
        "pack and pack"
    );
    assert!(run().contains("packages/log/src/main: new code"));
    change("apps/worker/package.json", "{}");
    style.build(&["--build-arg", "APP=api"]).ok().says("RUN --mount=type=cache");

    let out = style.sandbox.dir().join("out");
    style.build(&["--target", "report", "--output", out.to_str().unwrap()]).ok();
    assert_eq!(
        fs::read_to_string(out.join("report")).unwrap(),
        "apps/api/src/main.test\napps/web/src/deep/it.test\n"
    );
    style.build(&["--target", "manifests", "--output", out.to_str().unwrap()]).ok();
    assert!(out.join("packages/ui/package.json").exists() && !out.join("apps/web/node_modules").exists());
    style.sandbox.check();
}
