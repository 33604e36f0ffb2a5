//! `bake`: files to targets, and targets to images.

use crate::sandbox::{Outcome, Sandbox};

/// A sandbox with this `docker-bake.hcl`.
fn sandbox(hcl: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file("docker-bake.hcl", hcl);
    sandbox
}

fn bake(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.outcrop(&[&["bake"], args].concat())
}

/// What `--print` prints.
fn print(sandbox: &Sandbox, args: &[&str]) -> String {
    bake(sandbox, &[&["--print"], args].concat()).ok().stdout()
}

/// Of one target.
fn printed(sandbox: &Sandbox, args: &[&str], target: &str) -> serde_json::Value {
    bake(sandbox, &[&["--print"], args].concat()).ok().json()["target"][target].clone()
}

const ALL: &str = r#"
variable "VERSION" {
  default     = "1.2"
  description = "What is built"
}
variable "PLATFORMS" {
  type    = list(string)
  default = ["linux/amd64"]
}
variable "DEBUG" { default = false }
function "tag" {
  params          = [name]
  variadic_params = more
  result          = ["${name}:${join("-", concat([VERSION], more))}"]
}
group "default" {
  description = "Everything"
  targets     = ["web", "app"]
}
target "_base" {
  args      = { VERSION = VERSION, DEBUG = DEBUG, NONE = null }
  labels    = { "org.example" = "<base & ${VERSION}>" }
  platforms = PLATFORMS
  tags      = ["never"]
}
target "web" {
  inherits   = ["_base"]
  context    = "./web/"
  dockerfile = "Dockerfile.web"
  args       = { DEBUG = 1, DOLLAR = "$${x}" }
  tags       = tag("web", "x")
  network    = "host"
}
target "app" {
  name     = "app-${sanitize(item.name)}-${arch}"
  inherits = ["_base"]
  matrix = {
    arch = ["a", "b"]
    item = [{ name = "v1.0", tag = "one" }]
  }
  target   = item.tag
  tags     = tag("app-${arch}")
  contexts = { site = "target:web", keep = "docker-image://alpine", local = "./dir" }
  secret   = ["id=token,env=TOKEN", { id = "file", src = "./file" }]
  output   = ["out", "type=image,push=false"]
  ssh      = ["default", { id = "key", paths = ["a", "b"] }]
  cache-from = ["example/cache", "type=gha"]
  attest   = ["type=sbom,disabled=true"]
}
"#;

#[test]
fn print_is_the_json_of_buildx() {
    let sandbox = sandbox(ALL);
    let expected = r#"{
  "group": {
    "app": {
      "targets": [
        "app-v1_0-a",
        "app-v1_0-b"
      ]
    },
    "default": {
      "targets": [
        "app"
      ]
    }
  },
  "target": {
    "app-v1_0-a": {
      "attest": [
        {
          "disabled": "true",
          "type": "sbom"
        }
      ],
      "context": ".",
      "contexts": {
        "keep": "docker-image://alpine",
        "local": "./dir",
        "site": "target:web"
      },
      "dockerfile": "Dockerfile",
      "args": {
        "DEBUG": "false",
        "VERSION": "1.2"
      },
      "labels": {
        "org.example": "\u003cbase \u0026 1.2\u003e"
      },
      "tags": [
        "app-a:1.2"
      ],
      "cache-from": [
        {
          "ref": "example/cache",
          "type": "registry"
        },
        {
          "type": "gha"
        }
      ],
      "target": "one",
      "secret": [
        {
          "id": "token",
          "env": "TOKEN"
        },
        {
          "id": "file",
          "src": "./file"
        }
      ],
      "ssh": [
        {
          "id": "default"
        },
        {
          "id": "key",
          "paths": [
            "a",
            "b"
          ]
        }
      ],
      "platforms": [
        "linux/amd64"
      ],
      "output": [
        {
          "dest": "out",
          "type": "local"
        },
        {
          "push": "false",
          "type": "image"
        }
      ],
      "entitlements": [
        "network.host"
      ]
    },
"#;
    let text = print(&sandbox, &["app"]);
    assert!(text.starts_with(expected), "{text}");
    let web = r#"    "web": {
      "context": "web",
      "dockerfile": "Dockerfile.web",
      "args": {
        "DEBUG": "1",
        "DOLLAR": "$${x}",
        "VERSION": "1.2"
      },
      "labels": {
        "org.example": "\u003cbase \u0026 1.2\u003e"
      },
      "tags": [
        "web:1.2-x"
      ],
      "platforms": [
        "linux/amd64"
      ],
      "output": [
        {
          "type": "cacheonly"
        }
      ],
      "network": "host",
      "entitlements": [
        "network.host"
      ]
    }
  }
}
"#;
    assert!(text.ends_with(web), "{text}");
}

#[test]
fn variables_are_those_of_the_command_line_else_of_the_environment() {
    let sandbox = sandbox(ALL)
        .variable("VERSION", "2")
        .variable("DEBUG", "1")
        .variable("PLATFORMS", "linux/arm64,linux/amd64")
        .variable("HOST", "not a variable of the file");
    let web = printed(&sandbox, &["--var", "VERSION=3"], "web");
    assert_eq!(web["tags"], serde_json::json!(["web:3-x"]));
    assert_eq!(web["platforms"], serde_json::json!(["linux/arm64", "linux/amd64"]));
    let app = printed(&sandbox, &[], "app-v1_0-b");
    assert_eq!(app["args"], serde_json::json!({ "DEBUG": "true", "VERSION": "2" }));
    let sandbox = sandbox.variable("PLATFORMS_JSON", "[\"linux/riscv64\"]");
    assert_eq!(printed(&sandbox, &[], "web")["platforms"], serde_json::json!(["linux/riscv64"]));
}

#[test]
fn set_overrides_the_targets_it_matches() {
    let sandbox = sandbox(ALL);
    let all = [
        "--set=w*.args.VERSION=9",
        "--set=web.labels.a.b=c=d",
        "--set=web.tags+=web:more",
        "--set=*.platform=linux/s390x",
        "--set=*.platform=linux/amd64",
        "--set=web.context=cwd://site",
        "--set=web.output=type=docker",
        "--no-cache",
        "--load",
    ];
    let web = printed(&sandbox, &[&all[..], &["web"]].concat(), "web");
    let expected = serde_json::json!({
        "context": "site",
        "dockerfile": "Dockerfile.web",
        "args": { "DEBUG": "1", "DOLLAR": "$${x}", "VERSION": "9" },
        "labels": { "a.b": "c=d", "org.example": "<base & 1.2>" },
        "tags": ["web:1.2-x", "web:more"],
        "platforms": ["linux/s390x", "linux/amd64"],
        "output": [{ "type": "docker" }],
        "no-cache": true,
        "network": "host",
        "entitlements": ["network.host"],
    });
    assert_eq!(web, expected);
    // An inherited target's override reaches its heirs, below what they say themselves.
    let app = printed(&sandbox, &["--set=_base.args.VERSION=8", "--set=_base.args.DEBUG=8"], "web");
    assert_eq!(app["args"]["VERSION"], "8");
    assert_eq!(app["args"]["DEBUG"], "1");
}

#[test]
fn json_and_hcl_of_the_same_file_give_the_same() {
    let sandbox = sandbox(ALL);
    let json = serde_json::json!({
        "//": "a comment",
        "variable": {
            "VERSION": { "default": "1.2", "description": "What is built" },
            "PLATFORMS": { "type": "list(string)", "default": ["linux/amd64"] },
            "DEBUG": { "default": false },
        },
        "function": { "tag": {
            "params": ["name"],
            "variadic_params": "more",
            "result": ["${name}:${join(\"-\", concat([VERSION], more))}"],
        } },
        "group": { "default": { "description": "Everything", "targets": ["web", "app"] } },
        "target": [
            { "_base": {
                "args": { "VERSION": "${VERSION}", "DEBUG": "${DEBUG}", "NONE": null },
                "labels": { "org.example": "<base & ${VERSION}>" },
                "platforms": "${PLATFORMS}",
                "tags": ["never"],
            } },
            { "web": {
                "inherits": ["_base"],
                "context": "./web/",
                "dockerfile": "Dockerfile.web",
                "args": { "DEBUG": 1, "DOLLAR": "$${x}" },
                "tags": "${tag(\"web\", \"x\")}",
                "network": "host",
            } },
            { "app": [{
                "name": "app-${sanitize(item.name)}-${arch}",
                "inherits": ["_base"],
                "matrix": { "arch": ["a", "b"], "item": [{ "name": "v1.0", "tag": "one" }] },
                "target": "${item.tag}",
                "tags": "${tag(\"app-${arch}\")}",
                "contexts": { "site": "target:web", "keep": "docker-image://alpine", "local": "./dir" },
                "secret": ["id=token,env=TOKEN", { "id": "file", "src": "./file" }],
                "output": ["out", "type=image,push=false"],
                "ssh": ["default", { "id": "key", "paths": ["a", "b"] }],
                "cache-from": ["example/cache", "type=gha"],
                "attest": ["type=sbom,disabled=true"],
            }] },
        ],
    });
    sandbox.file("same.json", json.to_string());
    assert_eq!(print(&sandbox, &["-f", "same.json"]), print(&sandbox, &[]));
    // What is printed can be read again.
    let printed = print(&sandbox, &["web", "app"]);
    sandbox.file("again.json", &printed);
    assert_eq!(print(&sandbox, &["-f", "again.json"]), printed);
}

#[test]
fn files_are_merged_in_their_order() {
    let sandbox = sandbox(
        "target \"default\" {\n args = { A = 1, B = 1 }\n tags = [\"a\"]\n annotations = [\"a=1\"]\n}\n",
    );
    sandbox.file(
        "docker-bake.override.json",
        r#"{"target": {"default": {"args": {"B": "2"}, "tags": ["b"], "annotations": ["b=2"]}}}"#,
    );
    let expected = serde_json::json!({
        "annotations": ["a=1", "b=2"],
        "context": ".",
        "dockerfile": "Dockerfile",
        "args": { "A": "1", "B": "2" },
        "tags": ["b"],
    });
    assert_eq!(printed(&sandbox, &[], "default"), expected);
    let files = ["bake", "--print", "-f", "docker-bake.hcl", "-f", "-"];
    let more = sandbox.outcrop_with_input(&files, b"target \"default\" { tags = [\"c\"] }").ok().json();
    assert_eq!(more["target"]["default"]["tags"], serde_json::json!(["c"]));
}

#[test]
fn targets_refer_to_each_other() {
    let sandbox = sandbox(
        "target \"a\" {\n tags = [\"a:1\", \"a:2\"]\n args = { X = \"x\" }\n}\n\
         target \"b\" {\n tags = [for tag in target.a.tags: \"b/${tag}\"]\n args = { Y = \"${target.a.args.X}y\" }\n}\n",
    );
    let b = printed(&sandbox, &["b"], "b");
    assert_eq!(b["tags"], serde_json::json!(["b/a:1", "b/a:2"]));
    assert_eq!(b["args"], serde_json::json!({ "Y": "xy" }));
}

#[test]
fn what_there_is_is_listed() {
    let sandbox = sandbox(ALL);
    bake(&sandbox, &["--list", "targets"]).ok().says(
        "TARGET       DESCRIPTION\n\
         app          app-v1_0-a, app-v1_0-b\n\
         app-v1_0-a\n\
         app-v1_0-b\n\
         default      Everything\n\
         web\n",
    );
    let variables = bake(&sandbox, &["--list", "type=variables,format=json"]).ok().json();
    let expected = serde_json::json!([
        { "name": "DEBUG", "value": "false" },
        { "name": "PLATFORMS", "type": "list(string)", "value": "[\"linux/amd64\"]" },
        { "name": "VERSION", "description": "What is built", "value": "1.2" },
    ]);
    assert_eq!(variables, expected);
}

#[test]
fn a_group_is_built_with_inheritance_a_matrix_and_an_inline_dockerfile() {
    let sandbox = sandbox(
        r#"
variable "TEXT" { default = "hello" }
group "default" { targets = ["all", "inline"] }
target "base" {
  context = "dir"
  args    = { TEXT = TEXT }
}
target "all" {
  name     = "all-${stage}"
  inherits = ["base"]
  matrix   = { stage = ["one", "two"] }
  target   = stage
  tags     = ["it:${stage}"]
  labels   = { stage = stage }
}
target "inline" {
  dockerfile-inline = <<E
FROM base
COPY dir/file /file
RUN echo inline >> /file
E
  tags = ["it:inline"]
}
"#,
    );
    sandbox.base_image("base");
    sandbox.file("dir/file", "file\n");
    sandbox.file(
        "dir/Dockerfile",
        "FROM base AS one\nARG TEXT\nRUN echo \"$TEXT\" > /out\nFROM one AS two\nCOPY file /file\n",
    );
    bake(&sandbox, &["--metadata-file", "meta.json", "--progress", "plain"]).ok();
    let cat = |name: &str, file: &str| {
        sandbox.outcrop(&["run", "--rm", "--network", "none", name, "cat", file]).ok().stdout()
    };
    assert_eq!(cat("it:one", "/out"), "hello\n");
    assert_eq!(cat("it:two", "/file"), "file\n");
    assert_eq!(cat("it:inline", "/file"), "file\ninline\n");
    let id = |name: &str| sandbox.outcrop(&["inspect", "--format", "{{.Id}}", name]).ok().line();
    let metadata = std::fs::read_to_string(sandbox.context().join("meta.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    for (target, name) in [("all-one", "it:one"), ("all-two", "it:two"), ("inline", "it:inline")] {
        assert_eq!(metadata[target]["containerimage.config.digest"], id(name), "{target}");
    }
    let sandbox = sandbox.variable("TEXT", "bye");
    bake(&sandbox, &["all-one"]).ok();
    let out = sandbox.outcrop(&["run", "--rm", "--network", "none", "it:one", "cat", "/out"]).ok().stdout();
    assert_eq!(out, "bye\n");
    sandbox.check();
}

#[test]
fn a_target_builds_on_the_image_of_another_wherever_that_goes() {
    let sandbox = sandbox(
        r#"
target "lower" {
  dockerfile-inline = "FROM base\nRUN echo lower > /lower\n"
}
target "aside" {
  dockerfile-inline = "FROM scratch\nCOPY aside /aside\n"
  output            = ["type=local,dest=out"]
}
target "upper" {
  contexts = { x = "target:lower", "other/name:1" = "target:aside" }
  dockerfile-inline = <<E
FROM x
COPY --from=other/name:1 /aside /aside
RUN cat /lower /aside > /both
E
  tags = ["upper"]
}
group "default" { targets = ["upper", "aside"] }
"#,
    );
    sandbox.base_image("base");
    sandbox.file("aside", "aside\n");
    bake(&sandbox, &["--metadata-file", "meta.json"]).ok();
    let both = sandbox.outcrop(&["run", "--rm", "--network", "none", "upper", "cat", "/both"]).ok().stdout();
    assert_eq!(both, "lower\naside\n");
    assert_eq!(std::fs::read_to_string(sandbox.context().join("out/aside")).unwrap(), "aside\n");
    let metadata = std::fs::read_to_string(sandbox.context().join("meta.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let keys =
        |value: &serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&metadata), ["aside", "lower", "upper"]);
    assert_eq!(keys(&metadata["aside"]), ["buildx.build.ref"]);
    assert_eq!(metadata["upper"]["image.name"], "docker.io/library/upper:latest");
    sandbox.check();
}

#[test]
fn targets_for_several_platforms_build_on_each_other_platform_by_platform() {
    let sandbox = sandbox(
        r#"
target "lower" {
  platforms         = ["linux/amd64", "linux/arm64"]
  dockerfile-inline = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n"
}
target "default" {
  platforms         = ["linux/amd64", "linux/arm64"]
  contexts          = { x = "target:lower" }
  dockerfile-inline = "FROM x\nCOPY --from=x /arch /copy\n"
  output            = ["type=local,dest=out"]
}
"#,
    );
    for arch in ["amd64", "arm64"] {
        sandbox.file(arch, arch);
    }
    bake(&sandbox, &[]).ok();
    for arch in ["amd64", "arm64"] {
        for file in ["arch", "copy"] {
            let file = sandbox.context().join(format!("out/linux_{arch}/{file}"));
            assert_eq!(std::fs::read_to_string(file).unwrap(), arch);
        }
    }
    sandbox.check();
}

#[test]
fn every_target_is_asked_and_one_that_fails_hides_no_other() {
    let sandbox = sandbox(
        "group \"default\" { targets = [\"a\", \"b\"] }\n\
         target \"a\" { dockerfile-inline = \"FROM scratch AS One\\n\" }\n\
         target \"b\" { dockerfile-inline = \"FROM scratch AS two\\n\" }\n",
    );
    let targets = bake(&sandbox, &["--call", "targets"]).ok().stdout();
    let (a, b) = targets.split_once("b\n\n").unwrap();
    assert!(a.starts_with("a\n\n") && a.contains("one (default)"), "{targets}");
    assert!(b.contains("two"), "{targets}");
    let checked = bake(&sandbox, &["--check"]).fails(1).stdout();
    assert!(checked.contains("StageNameCasing") && checked.contains("b\n\n"), "{checked}");
    bake(&sandbox, &["--check", "b"]).ok();
}

#[test]
fn a_target_that_fails_is_named() {
    let sandbox = sandbox("target \"default\" { dockerfile-inline = \"FROM base\\nRUN false\\n\" }");
    sandbox.base_image("base");
    bake(&sandbox, &[]).fails(1).complains("target `default`");
}

#[test]
fn what_cannot_be_resolved_is_said_with_its_place() {
    let table: &[(&str, &[&str], &str)] = &[
        ("target \"app\" {}", &["--print", "ap"], "no target `ap` in the bake files"),
        ("target \"app\" {}", &["--print", "apq"], "did you mean `app`?"),
        ("target \"app\" {}", &["--print"], "there are: app"),
        ("target \"app\" {}", &["--print", "x*"], "no target matches `x*`"),
        (
            "group \"default\" { targets = [\"ap\"] }\ntarget \"app\" {}",
            &["--print"],
            "group `default` names `ap`, which is no target",
        ),
        (
            "group \"a\" { targets = [\"b\"] }\ngroup \"b\" { targets = [\"a\"] }",
            &["--print", "a"],
            "group `a` holds itself: a -> b -> a",
        ),
        (
            "target \"a\" {\n  inherits = [\"b\"]\n}",
            &["--print", "a"],
            "line 2: target `a` inherits `b`, which is no target",
        ),
        (
            "target \"a\" { inherits = [\"b\"] }\ntarget \"b\" { inherits = [\"a\"] }",
            &["--print", "a"],
            "target `a` inherits itself: a -> b -> a",
        ),
        (
            "target \"a\" { contexts = { x = \"target:b\" } }",
            &["--print", "a"],
            "target `a` builds on `b`, which is no target",
        ),
        (
            "target \"a\" { contexts = { x = \"target:b\" } }\ntarget \"b\" { contexts = { x = \"target:a\" } }",
            &["--print", "a"],
            "these build on each other: a -> b -> a",
        ),
        ("target \"a\" { context = \"-\" }", &["--print", "a"], "bake reads no context from standard input"),
        ("target \"a\" {}", &["--print", "a", "--set", "a"], "`a` in --set has no key"),
        ("target \"a\" {}", &["--print", "a", "--set", "b.tags=x"], "no target matches `b` in --set"),
        ("target \"a\" {}", &["--print", "a", "--set", "a.tag=x"], "did you mean `tags`?"),
        ("target \"a\" {}", &["--print", "a", "--set", "a.args=x"], "names no entry: args.NAME"),
        (
            "target \"a\" {}",
            &["--print", "a", "--set", "a.pull=perhaps"],
            "true or false is needed, not `perhaps`",
        ),
        ("target \"a\" {}", &["--print", "a", "--var", "X"], "`X` in --var has no name or no value"),
        ("target \"a\" {}", &["--list", "colours"], "`colours` in --list is not known"),
        ("target \"a\" {}", &["--provenance=true", "a"], "--provenance is not supported by this version"),
        ("target \"a\" {}", &["--sbom=true", "a"], "--sbom is not supported by this version"),
        ("target \"a\" {}", &["https://example.com/x.git", "a"], "are not supported by this version"),
        (
            "target \"a\" { network = \"host\" }",
            &["a"],
            "target `a` asks for `network.host`, which was not granted",
        ),
        ("target \"a\" { attest = [\"type=sbom\"] }", &["a"], "--attest"),
        (
            "target \"a\" { cache-from = [\"type=gha\"] }",
            &["a"],
            "`type=gha` in --cache-from is not supported by this version",
        ),
        (
            "target \"a\" { cache-to = [\"type=s3\"] }",
            &["a"],
            "`type=s3` in --cache-to is not supported by this version",
        ),
        ("target \"a\" { platforms = [\"nonsense\"] }", &["a"], "target `a`"),
        (
            "variable \"X\" {\n  default = 1\n  validation {\n    condition = X > 5\n    \
             error_message = \"X is above 5\"\n  }\n}",
            &["--print"],
            "line 4: X is above 5",
        ),
    ];
    for (hcl, args, expected) in table {
        let outcome = bake(&sandbox(hcl), args);
        assert_ne!(outcome.code(), Some(0), "{hcl} {args:?}");
        assert!(outcome.stderr().contains(expected), "{hcl} {args:?}\n{}", outcome.stderr());
    }
}

#[test]
fn files_that_are_not_there_or_not_read_are_refused_by_name() {
    let sandbox = Sandbox::new();
    bake(&sandbox, &["--print"]).fails(1).complains("no bake file in this directory");
    bake(&sandbox, &["--print", "-f", "absent.hcl"]).fails(1).complains("reading `absent.hcl`");
    sandbox.file("compose.yaml", "services: {}\n");
    bake(&sandbox, &["--print"]).fails(1).complains("compose files are not supported by this version");
    sandbox.file("docker-bake.hcl", "target \"default\" {}\n");
    bake(&sandbox, &["--print"]).fails(1).complains("outcrop bake -f docker-bake.hcl");
    bake(&sandbox, &["--print", "-f", "docker-bake.hcl"]).ok();
    bake(&sandbox, &["--print", "-f", "compose.yaml"]).fails(1).complains("`compose.yaml` is a compose file");
}

#[test]
fn the_example_of_the_documentation_works() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bake.md")).unwrap();
    let block = |language: &str| {
        let start = text.split_once(&format!("```{language}\n")).unwrap().1;
        start.split_once("```").unwrap().0.to_owned()
    };
    let sandbox = sandbox(&block("hcl"));
    assert_eq!(print(&sandbox, &[]), block("json"));
}
