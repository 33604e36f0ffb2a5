//! The verbs on images as people and scripts meet them: columns, forms, words of errors, and that nothing is lost.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use outcrop::image::{ImageConfig, Reference};
use serde_json::{Value, json};

use crate::registry_kit::{Image, Layout, RealRegistry};
use crate::sandbox::{Outcome, Sandbox, find_on_path};

const DOCKERFILE: &str = "FROM base\n\
    RUN mkdir /a && echo 1 > /a/x && echo 2 > /a/y\n\
    ENV A=1\n\
    COPY f /f\n\
    RUN rm /a/x && echo 3 > /a/y\n\
    LABEL kind=site\n\
    CMD [\"cat\", \"/f\"]\n";
const ENTRIES: usize = 7;

/// `base`, and `site` on it by a build of [`DOCKERFILE`].
fn site() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile(DOCKERFILE);
    build(&sandbox, "one");
    sandbox
}

/// Builds `site` anew, with another file; its id.
fn build(sandbox: &Sandbox, text: &str) -> String {
    sandbox.file("f", text);
    sandbox.outcrop(&["build", "-q", "-t", "site", "."]).ok().line()
}

fn id(sandbox: &Sandbox, name: &str) -> String {
    sandbox.outcrop(&["inspect", "--format", "{{.Id}}", name]).ok().line()
}

fn short(id: &str) -> &str {
    &id["sha256:".len()..][..12]
}

fn lines(sandbox: &Sandbox, args: &[&str]) -> Vec<String> {
    sandbox.outcrop(args).ok().lines()
}

/// The words of a line, where columns hold no spaces.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn error(outcome: Outcome) -> String {
    assert_eq!(outcome.stdout(), "");
    outcome.stderr()
}

mod images {
    use super::*;

    #[test]
    fn the_table_is_docker_s() {
        let sandbox = site();
        let table = lines(&sandbox, &["images"]);
        assert!(table[0].starts_with("REPOSITORY   TAG       IMAGE ID       CREATED "), "{}", table[0]);
        assert!(table[0].ends_with(" SIZE"));
        let site = id(&sandbox, "site");
        let row = table.iter().find(|line| line.starts_with("site ")).unwrap();
        assert_eq!(words(row)[..3], ["site", "latest", short(&site)]);
        assert!(row.contains(" ago ") && row.ends_with("B"), "{row}");
        assert_eq!(table.len(), 3);
        assert_eq!(lines(&sandbox, &["image", "ls"])[1..].len(), 2);
    }

    #[test]
    fn all_shows_an_image_after_each_instruction() {
        let sandbox = site();
        let all = lines(&sandbox, &["images", "-a"]);
        assert_eq!(all.len(), 1 + ENTRIES);
        let unnamed = all.iter().filter(|line| line.starts_with("<none>       <none>    ")).count();
        assert_eq!(unnamed, ENTRIES - 2);
        let ids = lines(&sandbox, &["images", "-aq", "--no-trunc"]);
        let history = lines(&sandbox, &["history", "-q", "--no-trunc", "site"]);
        assert_eq!(ids, history);
    }

    #[test]
    fn quiet_and_whole_ids() {
        let sandbox = site();
        let site = id(&sandbox, "site");
        assert_eq!(lines(&sandbox, &["images", "-q", "site"]), [short(&site)]);
        assert_eq!(lines(&sandbox, &["images", "-q", "--no-trunc", "site"]), [site]);
    }

    #[test]
    fn names_and_filters_choose() {
        let sandbox = site();
        let first = id(&sandbox, "site");
        sandbox.outcrop(&["tag", "base", "registry.example.com/team/base:1.0"]).ok();
        let second = build(&sandbox, "two");
        let show = "{{.Repository}}:{{.Tag}}";
        let chosen = |args: &[&str]| lines(&sandbox, &[&["images", "--format", show], args].concat());
        assert_eq!(chosen(&["site"]), ["site:latest"]);
        assert_eq!(chosen(&["site:latest"]), ["site:latest"]);
        assert_eq!(chosen(&["docker.io/library/site"]), ["site:latest"]);
        assert_eq!(chosen(&["site:other"]), [""; 0]);
        assert_eq!(chosen(&["s*"]), ["site:latest"]);
        assert_eq!(chosen(&["--filter", "reference=*/*/base:1*"]), ["registry.example.com/team/base:1.0"]);
        assert_eq!(chosen(&["--filter", "dangling=true"]), ["<none>:<none>"]);
        assert_eq!(chosen(&["--filter", "label=kind=site", "--filter", "dangling=false"]), ["site:latest"]);
        assert_eq!(chosen(&["--filter", "label=kind=other"]), [""; 0]);
        assert_eq!(chosen(&["--filter", "since=base"]), ["site:latest", "<none>:<none>"]);
        let before = chosen(&["--filter", &format!("before={first}")]);
        assert_eq!(before, ["base:latest", "registry.example.com/team/base:1.0"]);
        assert_eq!(
            lines(&sandbox, &["images", "-q", "--no-trunc", "-f", "dangling=false", "-f", "since=base"]),
            [second]
        );
        let wrong = sandbox.outcrop(&["images", "--filter", "colour=red"]).fails(1);
        assert_eq!(
            error(wrong),
            "error: there is no filter `colour` here\nhint: known filters are dangling, label, reference, before, since\n"
        );
    }

    #[test]
    fn a_row_is_an_object_in_json() {
        let sandbox = site();
        let row: Value =
            serde_json::from_str(&lines(&sandbox, &["images", "--format", "json", "site"])[0]).unwrap();
        assert_eq!(row["Repository"], "site");
        assert_eq!(row["Digest"], "<none>");
        assert_eq!(row["ID"], short(&id(&sandbox, "site")));
        let names: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "Containers",
                "CreatedAt",
                "CreatedSince",
                "Digest",
                "ID",
                "Repository",
                "SharedSize",
                "Size",
                "Tag",
                "UniqueSize",
                "VirtualSize"
            ]
        );
        let table = lines(&sandbox, &["images", "--format", "table {{.ID}}\\t{{.Repository}}", "site"]);
        assert_eq!(table[0], "IMAGE ID       REPOSITORY");
    }

    #[test]
    fn an_empty_store_has_headings_alone() {
        let sandbox = Sandbox::new();
        assert_eq!(lines(&sandbox, &["images"]), ["REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"]);
    }
}

mod history {
    use super::*;

    #[test]
    fn every_instruction_has_its_image() {
        let sandbox = site();
        let table = lines(&sandbox, &["history", "site"]);
        assert!(table[0].starts_with("IMAGE          CREATED "), "{}", table[0]);
        let heads = ["CREATED BY", "SIZE", "COMMENT"].map(|head| table[0].find(head).unwrap());
        assert!(heads.is_sorted());
        let by: Vec<String> =
            lines(&sandbox, &["history", "--no-trunc", "--format", "{{.N}} {{.CreatedBy}}", "site"]);
        assert_eq!(
            by[..6],
            [
                "7 CMD [\"cat\" \"/f\"]",
                "6 LABEL kind=site",
                "5 RUN /bin/sh -c rm /a/x && echo 3 > /a/y",
                "4 COPY f /f",
                "3 ENV A=1",
                "2 RUN /bin/sh -c mkdir /a && echo 1 > /a/x && echo 2 > /a/y",
            ]
        );
        assert!(by[6].starts_with("1 outcrop import "));
        let ids = lines(&sandbox, &["history", "-q", "--no-trunc", "site"]);
        assert_eq!(ids.len(), ENTRIES);
        assert_eq!((&ids[0], &ids[6]), (&id(&sandbox, "site"), &id(&sandbox, "base")));
        for image in &ids {
            assert_eq!(&id(&sandbox, image), image);
        }
    }

    #[test]
    fn an_instruction_s_image_runs() {
        let sandbox = site();
        let ids = lines(&sandbox, &["history", "-q", "site"]);
        sandbox.outcrop(&["run", "--rm", &ids[5], "cat", "/a/x"]).ok().says("1\n");
        sandbox.outcrop(&["run", "--rm", &ids[2], "ls", "/a"]).ok().says_not("x");
    }

    #[test]
    fn sizes_and_times_are_exact_where_asked() {
        let sandbox = site();
        let format = "{{.CreatedAt}}|{{.Size}}";
        let exact = lines(&sandbox, &["history", "--human=false", "--format", format, "site"]);
        let (time, size) = exact[2].split_once('|').unwrap();
        assert_eq!(size, "2");
        assert!(time.contains('T') && time.ends_with('Z'), "{time}");
        assert!(lines(&sandbox, &["history", "site"])[2 + 1].contains("  2B "));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let sandbox = Sandbox::new();
        assert_eq!(error(sandbox.outcrop(&["history", "nope"]).fails(1)), "error: No such image: nope\n");
    }
}

mod pulled {
    use super::*;

    /// A tar with one file.
    fn tar(sandbox: &Sandbox, name: &str) -> Vec<u8> {
        let dir = sandbox.dir().join(format!("tree-{name}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(name), name).unwrap();
        let made = Command::new(find_on_path("tar"))
            .args(["--mtime=@1700000000", "--numeric-owner", "--owner=0", "--group=0", "-cf", "-", "-C"])
            .arg(&dir)
            .arg(name)
            .output();
        made.unwrap().stdout
    }

    /// Three layers and two instructions without: nothing but the last image is known.
    fn served(sandbox: &Sandbox) -> (RealRegistry, String) {
        let entry = |by: &str, empty: bool| json!({ "created": "2024-01-02T03:04:05Z", "created_by": by, "empty_layer": empty });
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": { "Env": ["PATH=/bin", "LATER=1"], "Entrypoint": ["/three"], "Cmd": ["x"] },
            "rootfs": { "type": "layers", "diff_ids": [] },
            "history": [
                entry("/bin/sh -c #(nop) ADD file:one in / ", false),
                entry("RUN two", false),
                entry("ENV LATER=1", true),
                entry("COPY three /", false),
                entry("ENTRYPOINT [\"/three\"]", true),
            ],
        });
        let config = ImageConfig::parse(config.to_string().as_bytes()).unwrap();
        let tars = ["one", "two", "three"].map(|name| tar(sandbox, name));
        let image = Image::made(&tars, config);
        let registry = RealRegistry::start(sandbox);
        registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "team/app:1");
        let name = format!("{}/team/app:1", registry.address);
        (registry, name)
    }

    #[test]
    fn a_pull_says_what_docker_says() {
        let sandbox = Sandbox::new();
        let (_registry, name) = served(&sandbox);
        let pulled = lines(&sandbox, &["pull", &name]);
        assert_eq!(pulled[0], "1: Pulling from team/app");
        assert_eq!(pulled.iter().filter(|line| line.ends_with(": Pull complete")).count(), 3);
        let digest = lines(&sandbox, &["images", "--digests", "--format", "{{.Digest}}"]).remove(0);
        let end =
            [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {name}"), name.clone()];
        assert_eq!(pulled[pulled.len() - 3..], end);
        let again = lines(&sandbox, &["pull", &name]);
        assert!(again.contains(&format!("Status: Image is up to date for {name}")), "{again:?}");
        assert_eq!(lines(&sandbox, &["pull", "-q", &name]), [name]);
    }

    #[test]
    fn every_entry_of_its_history_has_an_id_that_is_an_image_when_it_is_used() {
        let sandbox = Sandbox::new();
        let (_registry, name) = served(&sandbox);
        sandbox.outcrop(&["pull", "-q", &name]).ok();
        let ids = lines(&sandbox, &["history", "-q", "--no-trunc", &name]);
        assert_eq!(ids.len(), 5);
        assert!(ids.iter().all(|id| id.starts_with("sha256:")));
        assert_eq!(lines(&sandbox, &["images", "-aq"]).len(), 1, "none of them is made before it is used");

        let second = sandbox.outcrop(&["inspect", &ids[3]]).ok().json();
        assert_eq!(second[0]["Id"], json!(ids[3]));
        assert_eq!(second[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);
        assert_eq!(second[0]["Config"]["Env"], json!(["PATH=/bin"]));
        assert_eq!(second[0]["Config"]["Entrypoint"], Value::Null);
        // It has the same history, and its beginning the same ids.
        assert_eq!(lines(&sandbox, &["history", "-q", "--no-trunc", &ids[3]]), ids[3..]);
        assert_eq!(lines(&sandbox, &["history", "-q", "--no-trunc", &name]), ids);
    }

    #[test]
    fn its_name_goes_down_its_own_layers_and_comes_back() {
        let sandbox = Sandbox::new();
        let (_registry, name) = served(&sandbox);
        sandbox.outcrop(&["pull", "-q", &name]).ok();
        let ids = lines(&sandbox, &["history", "-q", "--no-trunc", &name]);
        let moved = sandbox.outcrop(&["rollback", &name, "--to", "2"]).ok().line();
        assert_eq!(moved, format!("{name}: {} -> {} (RUN two)", short(&ids[0]), short(&ids[3])));
        assert_eq!(id(&sandbox, &name), ids[3]);
        sandbox.outcrop(&["undo", &name]).ok();
        assert_eq!(id(&sandbox, &name), ids[0]);
    }

    #[test]
    fn by_its_digest_it_is_found_and_removed() {
        let sandbox = Sandbox::new();
        let (_registry, name) = served(&sandbox);
        sandbox.outcrop(&["pull", "-q", &name]).ok();
        let image = id(&sandbox, &name);
        let known = sandbox.outcrop(&["inspect", "--format", "{{index .RepoDigests 0}}", &name]).ok().line();
        assert_eq!(id(&sandbox, &known), image);
        let removed = lines(&sandbox, &["rmi", &name]);
        assert_eq!(
            removed[..3],
            [format!("Untagged: {name}"), format!("Untagged: {known}"), format!("Deleted: {image}")]
        );
        assert_eq!(removed.len(), 3 + 3, "three layers: {removed:?}");
        assert_eq!(fs::read_dir(sandbox.root().join("blobs/sha256")).unwrap().count(), 0);
    }
}

mod layers {
    use super::*;

    #[test]
    fn the_stack_stands_on_its_base() {
        let sandbox = site();
        let stack = lines(&sandbox, &["layers", "site"]);
        assert_eq!(
            words(&stack[0]),
            ["N", "LAYER", "PARENT", "SIZE", "ADDED", "CHANGED", "DELETED", "INSTRUCTION", "SHARED", "WITH"]
        );
        let rows: Vec<Vec<&str>> = stack[1..].iter().map(|line| words(line)).collect();
        let column = |n: usize| rows.iter().map(|row| row[n]).collect::<Vec<_>>();
        assert_eq!(column(0), ["5", "4", "2", "1"]);
        assert_eq!(column(2)[..3], column(1)[1..], "each stands on the one below");
        assert_eq!(column(2)[3], "-");
        assert_eq!(column(3)[..3], ["2B", "3B", "4B"]);
        let counts = rows.iter().map(|row| row[4..7].join(" ")).collect::<Vec<_>>();
        assert_eq!(counts[..3], ["0 1 1", "1 0 0", "2 0 0"]);
        assert!(stack[3].contains(" RUN /bin/sh -c mkdir /a && echo 1 > /a/x && echo 2 > /a/y "));
        assert!(stack[4].ends_with(" base:latest"), "{}", stack[4]);
    }

    #[test]
    fn a_row_is_an_object_in_json() {
        let sandbox = site();
        let top: Value =
            serde_json::from_str(&lines(&sandbox, &["layers", "--no-trunc", "--format", "json", "site"])[0])
                .unwrap();
        let diff_ids = sandbox.outcrop(&["inspect", "site"]).ok().json();
        assert_eq!(top["ID"], diff_ids[0]["RootFS"]["Layers"][3]);
        assert_eq!(top["Parent"], diff_ids[0]["RootFS"]["Layers"][2]);
        assert_eq!((&top["N"], &top["Bytes"], &top["Deleted"]), (&json!(5), &json!(2), &json!(1)));
        assert_eq!(top["Image"], lines(&sandbox, &["history", "-q", "--no-trunc", "site"])[2]);
    }

    #[test]
    fn the_tree_shows_all_images() {
        let sandbox = site();
        sandbox.outcrop(&["tag", "site", "site:old"]).ok();
        build(&sandbox, "two");
        let tree = lines(&sandbox, &["layers", "--tree"]);
        assert_eq!(tree.len(), 1 + 1 + 2 + 2, "{tree:#?}");
        assert!(tree[0].contains("outcrop import") && tree[0].ends_with("[base:latest]"));
        assert!(
            tree[1].starts_with("└─ ") && tree[2].starts_with("   ├─ ") && tree[3].starts_with("   │  └─ ")
        );
        let tops: Vec<&String> = tree.iter().filter(|line| line.contains("[site:")).collect();
        assert_eq!(tops.len(), 2);
    }
}

mod inspect {
    use super::*;

    #[test]
    fn an_image_has_docker_s_shape() {
        let sandbox = site();
        let found = sandbox.outcrop(&["inspect", "site"]).ok().json();
        let image = &found[0];
        let names: Vec<&String> = image.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "Id",
                "RepoTags",
                "RepoDigests",
                "Parent",
                "Comment",
                "Created",
                "DockerVersion",
                "Author",
                "Config",
                "Architecture",
                "Os",
                "Size",
                "GraphDriver",
                "RootFS",
                "Metadata"
            ]
        );
        assert_eq!(image["RepoTags"], json!(["site:latest"]));
        assert_eq!(image["Parent"], lines(&sandbox, &["history", "-q", "--no-trunc", "site"])[1]);
        assert_eq!(image["Config"]["Cmd"], json!(["cat", "/f"]));
        assert_eq!(image["Config"]["Labels"], json!({ "kind": "site" }));
        assert_eq!(image["Config"]["Entrypoint"], Value::Null);
        assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 4);
        assert!(image["GraphDriver"]["Name"].is_string());
    }

    #[test]
    fn several_at_once_and_what_is_missing() {
        let sandbox = site();
        let both = sandbox.outcrop(&["inspect", "site", "base"]).ok().json();
        assert_eq!(both.as_array().unwrap().len(), 2);
        let missing = sandbox.outcrop(&["inspect", "nope"]).fails(1);
        assert_eq!(
            (missing.stdout(), missing.stderr()),
            ("[]\n".into(), "Error: No such object: nope\n".into())
        );
        let half = sandbox.outcrop(&["inspect", "--format", "{{.Id}}", "nope", "base"]).fails(1);
        assert_eq!(half.line(), id(&sandbox, "base"));
        let image = sandbox.outcrop(&["image", "inspect", "nope"]).fails(1);
        assert_eq!(image.stderr(), "Error: No such image: nope\n");
    }

    #[test]
    fn a_type_is_looked_for_alone() {
        let sandbox = site();
        sandbox.outcrop(&["create", "--name", "site", "base", "true"]).ok();
        let container = sandbox.outcrop(&["inspect", "--format", "{{.Name}}", "site"]).ok();
        assert_eq!(container.line(), "/site");
        let image = sandbox.outcrop(&["inspect", "--type", "image", "--format", "{{.Id}}", "site"]).ok();
        assert!(image.line().starts_with("sha256:"));
        let sized =
            sandbox.outcrop(&["inspect", "-s", "--format", "{{.SizeRw}} {{.SizeRootFs}}", "site"]).ok();
        assert!(sized.line().starts_with("0 "));
        sandbox.outcrop(&["inspect", "--type", "volume", "site"]).fails(1).complains("No such volume: site");
        let odd = sandbox.outcrop(&["inspect", "--type", "shoe", "site"]).fails(1);
        assert_eq!(
            error(odd),
            "error: \"shoe\" is not a valid value for --type\nhint: there are: image, container, volume\n"
        );
    }
}

mod names {
    use super::*;

    #[test]
    fn a_tag_is_one_more_name() {
        let sandbox = site();
        let image = id(&sandbox, "site");
        sandbox.outcrop(&["tag", "site", "localhost:5000/team/site:1.0"]).ok();
        sandbox.outcrop(&["tag", short(&image), "other"]).ok();
        assert_eq!(id(&sandbox, "localhost:5000/team/site:1.0"), image);
        let tags = sandbox.outcrop(&["inspect", "site"]).ok().json();
        assert_eq!(
            tags[0]["RepoTags"],
            json!(["other:latest", "site:latest", "localhost:5000/team/site:1.0"])
        );
        assert_eq!(error(sandbox.outcrop(&["tag", "nope", "x"]).fails(1)), "error: No such image: nope\n");
        sandbox.outcrop(&["tag", "site", "Upper"]).fails(1).complains("did you mean `upper`?");
    }

    #[test]
    fn of_several_names_one_goes() {
        let sandbox = site();
        sandbox.outcrop(&["tag", "site", "site:1"]).ok();
        assert_eq!(lines(&sandbox, &["rmi", "site"]), ["Untagged: site:latest"]);
        sandbox.outcrop(&["run", "--rm", "site:1"]).ok().says("one");
    }

    #[test]
    fn with_the_last_name_the_image_goes_and_what_it_was_made_from() {
        let sandbox = site();
        let history = lines(&sandbox, &["history", "-q", "--no-trunc", "site"]);
        let removed = lines(&sandbox, &["rmi", "site"]);
        assert_eq!(removed[0], "Untagged: site:latest");
        let images: Vec<String> = history[..6].iter().map(|id| format!("Deleted: {id}")).collect();
        assert_eq!(removed[1..], images, "layers stay for the cache");
        assert_eq!(lines(&sandbox, &["images", "-aq", "--no-trunc"]), [id(&sandbox, "base")]);
    }

    #[test]
    fn parents_are_kept_where_that_is_asked_for() {
        let sandbox = site();
        assert_eq!(lines(&sandbox, &["rmi", "--no-prune", "site"]).len(), 2);
        assert_eq!(lines(&sandbox, &["images", "-aq"]).len(), ENTRIES - 1);
    }

    #[test]
    fn a_base_loses_its_name_and_stays() {
        let sandbox = site();
        let base = id(&sandbox, "base");
        assert_eq!(lines(&sandbox, &["rmi", "base"]), ["Untagged: base:latest"]);
        let refused = sandbox.outcrop(&["rmi", &base]).fails(1);
        assert_eq!(
            error(refused),
            format!(
                "error: conflict: unable to delete {} (cannot be forced) - image has dependent child images\n\
                 hint: remove the images made from it first: `outcrop images -a` shows them\n",
                short(&base)
            )
        );
        sandbox.outcrop(&["run", "--rm", "site"]).ok().says("one");
    }

    #[test]
    fn an_image_in_use_is_refused_with_a_way_out() {
        let sandbox = site();
        let image = id(&sandbox, "site");
        let container = sandbox.outcrop(&["create", "site"]).ok().line();
        let user = &container[..12];
        assert_eq!(
            error(sandbox.outcrop(&["rmi", "site"]).fails(1)),
            format!(
                "error: conflict: unable to remove repository reference \"site:latest\" (must force) - container {user} \
                 is using its referenced image {}\nhint: remove the container first: `outcrop rm {user}`\n",
                short(&image)
            )
        );
        assert_eq!(
            error(sandbox.outcrop(&["rmi", &image]).fails(1)),
            format!(
                "error: conflict: unable to delete {} (must be forced) - image is being used by stopped container \
                 {user}\nhint: remove the container first: `outcrop rm {user}`\n",
                short(&image)
            )
        );
        assert_eq!(lines(&sandbox, &["rmi", "-f", "site"]), ["Untagged: site:latest"]);
        sandbox.outcrop(&["start", "-a", user]).ok().says("one");
        sandbox.outcrop(&["rm", user]).ok();
        assert_eq!(lines(&sandbox, &["rmi", &image]).len(), 6);
    }

    #[test]
    fn an_id_of_several_repositories_must_be_forced() {
        let sandbox = site();
        sandbox.outcrop(&["tag", "site", "other"]).ok();
        let image = id(&sandbox, "site");
        sandbox.outcrop(&["rmi", &image]).fails(1).complains(&format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            short(&image)
        ));
        let removed = lines(&sandbox, &["rmi", "-f", &image]);
        assert_eq!(removed[..2], ["Untagged: other:latest", "Untagged: site:latest"]);
        assert_eq!(removed[2], format!("Deleted: {image}"));
    }

    #[test]
    fn what_can_go_goes_though_something_cannot() {
        let sandbox = site();
        let half = sandbox.outcrop(&["rmi", "nope", "site"]).fails(1);
        assert_eq!(half.stderr(), "error: No such image: nope\n");
        assert_eq!(half.lines()[0], "Untagged: site:latest");
        sandbox.outcrop(&["rmi", "-f", "nope"]).ok().complains("No such image: nope");
    }
}

mod back {
    use super::*;

    #[test]
    fn rollback_and_undo_go_along_the_log() {
        let sandbox = site();
        let one = id(&sandbox, "site");
        let two = build(&sandbox, "two");
        let three = build(&sandbox, "three");
        let rollback = || sandbox.outcrop(&["rollback", "site"]).ok().line();
        let undo = || sandbox.outcrop(&["undo", "site"]).ok().line();
        let moved = |from: &str, to: &str| {
            format!("site:latest: {} -> {} (CMD [\"cat\" \"/f\"])", short(from), short(to))
        };
        assert_eq!(rollback(), moved(&three, &two));
        sandbox.outcrop(&["run", "--rm", "site"]).ok().says("two");
        assert_eq!(rollback(), moved(&two, &one));
        assert_eq!(
            error(sandbox.outcrop(&["rollback", "site"]).fails(1)),
            "error: `site:latest` was nowhere before it came here\n\
             hint: `--to N` goes back to the state after instruction N; `outcrop history` shows them\n"
        );
        assert_eq!(undo(), moved(&one, &two));
        assert_eq!(undo(), moved(&two, &three));
        sandbox.outcrop(&["run", "--rm", "site"]).ok().says("three");
        assert_eq!(undo(), moved(&three, &two), "the build itself is taken back");
    }

    #[test]
    fn to_names_an_instruction_an_id_a_layer_a_place_or_an_image() {
        let sandbox = site();
        let image = id(&sandbox, "site");
        let history = lines(&sandbox, &["history", "-q", "--no-trunc", "site"]);
        let layer = lines(&sandbox, &["layers", "-q", "site"])[1].clone();
        for (to, expected) in [
            ("2", &history[5]),
            ("7", &image),
            (short(&history[2]), &history[2]),
            (&history[6], &history[6]),
            (&layer, &history[3]),
            ("@{0}", &image),
            ("base", &history[6]),
        ] {
            sandbox.outcrop(&["rollback", "site", "--to", to]).ok();
            assert_eq!(&id(&sandbox, "site"), expected, "{to}");
            sandbox.outcrop(&["tag", &image, "site"]).ok();
        }
        let fails = |to: &str| error(sandbox.outcrop(&["rollback", "site", "--to", to]).fails(1));
        assert_eq!(
            fails("99"),
            format!(
                "error: image {} has 7 instructions, not 99\n\
                 hint: `outcrop history` shows them; they are counted from the oldest, which is 1\n",
                short(&image)
            )
        );
        assert!(fails("@{99}").starts_with("error: `site:latest` has moved "));
        assert!(fails("nope").starts_with("error: No such image: nope\n"));
    }

    #[test]
    fn the_state_after_an_instruction_is_what_it_was() {
        let sandbox = site();
        sandbox.outcrop(&["rollback", "site", "--to", "4"]).ok();
        sandbox.outcrop(&["run", "--rm", "site", "cat", "/a/x"]).ok().says("1");
        sandbox.outcrop(&["undo", "site"]).ok();
        sandbox.outcrop(&["run", "--rm", "site", "cat", "/a/x"]).fails(1);
    }

    #[test]
    fn the_log_tells_every_move() {
        let sandbox = site();
        let one = id(&sandbox, "site");
        let two = build(&sandbox, "two");
        sandbox.outcrop(&["rollback", "site"]).ok();
        sandbox.outcrop(&["tag", "base", "site"]).ok();
        let format = "{{.Place}} {{.Verb}} {{.From}} {{.To}} {{.Detail}}";
        let log = lines(&sandbox, &["log", "--no-trunc", "--format", format, "site"]);
        let base = id(&sandbox, "base");
        assert_eq!(
            log,
            [
                format!("@{{0}} tag {one} {base} base"),
                format!("@{{1}} rollback {two} {one} "),
                format!("@{{2}} build {one} {two} "),
                format!("@{{3}} build - {one} "),
            ]
        );
        let table = lines(&sandbox, &["log", "site"]);
        assert_eq!(words(&table[0]), ["PLACE", "MOVED", "BY", "FROM", "TO", "DETAIL"]);
        sandbox.outcrop(&["rollback", "site", "--to", "@{2}"]).ok();
        assert_eq!(id(&sandbox, "site"), two);
        assert_eq!(
            error(sandbox.outcrop(&["log", "nope"]).fails(1)),
            "error: nothing was ever called `nope:latest`\nhint: `outcrop images` lists the names there are\n"
        );
    }

    #[test]
    fn a_removed_name_comes_back_while_its_image_is_there() {
        let sandbox = site();
        let image = id(&sandbox, "site");
        sandbox.outcrop(&["tag", "site", "kept"]).ok();
        sandbox.outcrop(&["rmi", "site"]).ok();
        let back = sandbox.outcrop(&["undo", "site"]).ok().line();
        assert_eq!(back, format!("site:latest: nothing -> {} (CMD [\"cat\" \"/f\"])", short(&image)));
        sandbox.outcrop(&["rmi", "site", "kept"]).ok();
        assert_eq!(
            error(sandbox.outcrop(&["undo", "site"]).fails(1)),
            format!(
                "error: `site:latest` cannot go back to image {}: the image was removed\n\
                 hint: `outcrop log` shows where else it pointed; a build or a pull may make the image again\n",
                short(&image)
            )
        );
    }
}

mod pruning {
    use super::*;

    #[test]
    fn images_without_a_name_go_and_no_others() {
        let sandbox = site();
        let old = id(&sandbox, "site");
        build(&sandbox, "two");
        let declined = sandbox.outcrop_with_input(&["image", "prune"], b"n\n").ok();
        assert_eq!(
            declined.stdout(),
            "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] \n"
        );
        let pruned = lines(&sandbox, &["image", "prune", "-f"]);
        assert_eq!(pruned[..2], ["Deleted Images:".to_owned(), format!("deleted: {old}")]);
        assert!(pruned.last().unwrap().starts_with("Total reclaimed space: "));
        sandbox.outcrop(&["run", "--rm", "site"]).ok().says("two");
        assert_eq!(lines(&sandbox, &["image", "prune", "-f"]), ["Total reclaimed space: 0B"]);
    }

    #[test]
    fn filters_choose_what_goes() {
        let sandbox = site();
        build(&sandbox, "two");
        let prune = |filter: &str| lines(&sandbox, &["image", "prune", "-f", "--filter", filter]).len();
        assert_eq!(prune("until=24h"), 1);
        assert_eq!(prune("label=kind=other"), 1);
        assert!(prune("label=kind") > 1);
        sandbox.outcrop(&["image", "prune", "-f", "--filter", "until=soon"]).fails(1).complains("`soon`");
    }

    #[test]
    fn all_spares_what_containers_use() {
        let sandbox = site();
        sandbox.outcrop(&["create", "--name", "user", "site"]).ok();
        sandbox.outcrop(&["tag", "base", "base:2"]).ok();
        let pruned = lines(&sandbox, &["image", "prune", "-af"]);
        assert_eq!(pruned[1..3], ["untagged: base:2", "untagged: base:latest"]);
        sandbox.outcrop(&["start", "-a", "user"]).ok().says("one");
    }

    #[test]
    fn system_prune_takes_all_that_nothing_uses() {
        let sandbox = site();
        let container = sandbox.outcrop(&["create", "base", "true"]).ok().line();
        let asked = sandbox.outcrop_with_input(&["system", "prune", "-a"], b"y\n").ok().stdout();
        assert!(asked.starts_with(
            "WARNING! This will remove:\n  - all stopped containers\n  - all images without at least one container \
             associated to them\n  - all build cache\n\nAre you sure you want to continue? [y/N] \n"
        ));
        assert!(asked.contains(&format!("Deleted Containers:\n{container}\n\nDeleted Images:\nuntagged: ")));
        assert!(asked.contains("\nDeleted build cache objects:\n"));
        assert_eq!(lines(&sandbox, &["images", "-aq"]), [""; 0]);
        for place in ["blobs/sha256", "layers", "containers", "trash"] {
            let left = fs::read_dir(sandbox.root().join(place)).unwrap().count();
            assert_eq!(left, 0, "{place}");
        }
        assert!(sandbox.root().join("reserve").exists());
    }

    /// A file system of its own, so small that it can be filled.
    struct Small(PathBuf);

    impl Small {
        fn mount(at: PathBuf) -> Self {
            fs::create_dir(&at).unwrap();
            let size = c"size=24m";
            rustix::mount::mount("none", &at, "tmpfs", rustix::mount::MountFlags::empty(), Some(size))
                .unwrap();
            Small(at)
        }
        fn fill(&self) {
            let mut file = fs::File::create(self.0.join("fill")).unwrap();
            let full = std::iter::repeat_with(|| file.write_all(&[0; 4096])).find_map(Result::err).unwrap();
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }

    #[test]
    fn a_full_disk_can_be_cleared() {
        let sandbox = Sandbox::new();
        let small = Small::mount(sandbox.root());
        sandbox.base_image("base");
        sandbox.dockerfile(DOCKERFILE);
        build(&sandbox, "one");
        let before = sandbox.outcrop(&["images", "-aq"]).ok().lines().len();
        small.fill();
        let denied = sandbox.outcrop(&["build", "--no-cache", "-t", "site", "."]).fails(1);
        assert!(denied.stderr().contains("No space left on device"), "{}", denied.stderr());
        assert!(
            denied.stderr().contains("hint: free some space: `outcrop system prune`"),
            "{}",
            denied.stderr()
        );
        assert!(sandbox.outcrop(&["images", "-aq"]).ok().lines().len() >= before);
        sandbox.outcrop(&["system", "prune", "-af"]).ok().says("deleted: sha256:");
        assert_eq!(lines(&sandbox, &["images", "-aq"]), [""; 0]);
        fs::remove_file(sandbox.root().join("fill")).unwrap();
        sandbox.base_image("base");
        drop(small);
    }

    #[test]
    fn without_all_the_next_build_is_as_fast() {
        let sandbox = site();
        sandbox.outcrop(&["system", "prune", "-f"]).ok();
        sandbox.outcrop(&["build", "-t", "site", "."]).ok().says_not("Running in");
    }
}

mod system {
    use super::*;

    #[test]
    fn df_has_docker_s_columns() {
        let sandbox = site();
        sandbox.outcrop(&["create", "base", "true"]).ok();
        let table = lines(&sandbox, &["system", "df"]);
        assert_eq!(words(&table[0]), ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
        assert_eq!(words(&table[1])[..3], ["Images", "2", "1"]);
        assert_eq!(words(&table[2]), ["Containers", "1", "0", "0B", "0B"]);
        assert_eq!(words(&table[3]), ["Local", "Volumes", "0", "0", "0B", "0B"]);
        assert_eq!(words(&table[4]), ["Build", "Cache", "6", "0", "0B", "0B"]);
        let row: Value =
            serde_json::from_str(&lines(&sandbox, &["system", "df", "--format", "json"])[0]).unwrap();
        assert_eq!((&row["Type"], &row["TotalCount"]), (&json!("Images"), &json!("2")));
        let details = sandbox.outcrop(&["system", "df", "-v"]).ok().stdout();
        for title in ["Images", "Containers", "Local Volumes"] {
            assert!(details.contains(&format!("{title} space usage:\n\n")), "{details}");
        }
        assert!(details.contains("\nBuild cache usage: 0B\n\nCACHE ID "));
    }

    #[test]
    fn info_says_which_driver_and_why() {
        let sandbox = Sandbox::new().driver("vfs");
        sandbox.outcrop(&["images"]).ok();
        let info = lines(&sandbox, &["info"]);
        let at = info.iter().position(|line| line == " Storage Driver: vfs").unwrap();
        assert!(info[at + 1].starts_with("  Backing Filesystem: "), "{}", info[at + 1]);
        assert!(info[at + 2].starts_with("  Why: "), "{}", info[at + 2]);
        let others = info[at + 3..].iter().take_while(|line| line.starts_with("  Not ")).count();
        assert_eq!(others, outcrop::snapshot::driver::TABLE.len() - 1);
        assert!(info[at + 3].starts_with("  Not overlay2: "), "{}", info[at + 3]);
        assert!(info.contains(&format!(" Root Dir: {}", sandbox.root().display())));
        let object = sandbox.outcrop(&["info", "--format", "json"]).ok().json();
        assert_eq!((&object["Driver"], &object["Images"]), (&json!("vfs"), &json!(0)));
        assert_eq!(sandbox.outcrop(&["info", "-f", "{{.Driver}} {{.OSType}}"]).ok().line(), "vfs linux");
    }

    #[test]
    fn the_views_need_sqlite_alone() {
        let sandbox = site();
        let ask = |sql: &str| {
            let mut command = Command::new(find_on_path("sqlite3"));
            Outcome::of(command.arg(sandbox.root().join("outcrop.db")).arg(sql)).ok().lines()
        };
        assert_eq!(ask("select id from imagedb where tags like '%/site:latest'"), [id(&sandbox, "site")]);
        assert_eq!(ask("select count(*) from imagedb"), [ENTRIES.to_string()]);
        let layers = lines(&sandbox, &["layers", "-q", "--no-trunc", "site"]);
        let found = ask("select diff_id from layerdb order by depth desc");
        assert_eq!(lines(&sandbox, &["layers", "--no-trunc", "--format", "{{.ID}}", "site"]), found);
        assert_eq!(layers.len(), found.len());
        assert_eq!(ask("select instruction from layerdb where depth = 3"), ["COPY f /f"]);
        assert_eq!(ask("select count(*), sum(valid) from layer_cache"), ["6|6"]);
        let chain = ask(
            "select parent = (select chain_id from layerdb where depth = 1) from layerdb where depth = 2",
        );
        assert_eq!(chain, ["1"]);
    }
}

mod import {
    use super::*;

    #[test]
    fn an_archive_comes_from_a_file_standard_input_or_an_address() {
        let sandbox = Sandbox::new();
        let archive = sandbox.busybox_archive();
        let bytes = fs::read(&archive).unwrap();
        sandbox.outcrop(&["import", archive.to_str().unwrap(), "file"]).ok();
        sandbox.outcrop_with_input(&["import", "-", "stdin"], &bytes).ok();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/busybox.tar", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).unwrap() > 0);
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len())
                .unwrap();
            stream.write_all(&bytes).unwrap();
        });
        sandbox.outcrop(&["import", &url, "address"]).ok();
        server.join().unwrap();
        let layer = |name: &str| sandbox.outcrop(&["inspect", "-f", "{{.RootFS.Layers}}", name]).ok().line();
        assert_eq!(layer("file"), layer("stdin"));
        assert_eq!(layer("file"), layer("address"));
        sandbox.outcrop(&["run", "--rm", "stdin", "echo", "hello"]).ok().says("hello");
        assert_eq!(fs::read_dir(sandbox.root().join("ingest")).unwrap().count(), 0);
    }

    #[test]
    fn changes_and_a_message_are_in_the_image() {
        let sandbox = Sandbox::new();
        let archive = sandbox.busybox_archive();
        let args = ["import", "-c", "CMD [\"echo\", \"hi\"]", "--change", "ENV A=1", "-m", "first"];
        let id = sandbox.outcrop(&[&args[..], &[archive.to_str().unwrap(), "x:1"]].concat()).ok().line();
        assert_eq!(super::id(&sandbox, "x:1"), id);
        sandbox.outcrop(&["run", "--rm", "x:1"]).ok().says("hi");
        let image = sandbox.outcrop(&["inspect", "x:1"]).ok().json();
        assert_eq!(image[0]["Comment"], "first");
        assert!(image[0]["Config"]["Env"].as_array().unwrap().contains(&json!("A=1")));
        sandbox.outcrop(&["import", "-c", "RUN x", archive.to_str().unwrap()]).fails(1).complains("--change");
    }

    #[test]
    fn what_is_no_archive_leaves_nothing() {
        let sandbox = Sandbox::new();
        sandbox.file("text", "this is no tar");
        sandbox.outcrop(&["import", "text", "x"]).fails(1).complains("importing `text`");
        sandbox.outcrop(&["import", "absent", "x"]).fails(1).complains("opening `absent`");
        sandbox.outcrop(&["import", ".", "x"]).fails(1).complains("is a directory");
        assert_eq!(lines(&sandbox, &["images", "-aq"]), [""; 0]);
        assert_eq!(fs::read_dir(sandbox.root().join("blobs/sha256")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(sandbox.root().join("layers")).unwrap().count(), 0);
    }
}

#[test]
fn a_name_reads_back_as_it_is_shown() {
    let sandbox = site();
    for name in ["localhost/a:1", "127.0.0.1:5000/b/c:2", "user/app:3", "example.com/app:4"] {
        sandbox.outcrop(&["tag", "site", name]).ok();
        let shown = sandbox.outcrop(&["images", "--format", "{{.Repository}}:{{.Tag}}", name]).ok().line();
        assert_eq!(shown, name);
        assert_eq!(shown.parse::<Reference>().unwrap(), name.parse().unwrap());
    }
}
