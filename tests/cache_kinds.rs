//! What the build cache keeps besides records: caches of RUN, files of the web and repositories, listed, counted and pruned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::sandbox::{Outcome, Sandbox, wait_until};
use crate::web_kit::{Daemon, Page, Repository, Web};

const MOUNT: &str = "exec.cachemount";
const HTTP: &str = "source.http";
const GIT: &str = "source.git.checkout";

struct Kept {
    _web: Web,
    _daemon: Daemon,
    /// The file's and the repository's.
    addresses: [String; 2],
    /// Last: when it goes, nothing may run in it.
    sandbox: Sandbox,
}

/// A cache of 5,000 bytes, a file of 7,000 and a repository, used in this order; and no record.
fn kept() -> Kept {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let (web, repository) = (Web::start(), Repository::new(&sandbox, "repository"));
    web.page("/file", Page::of(vec![b'x'; 7000]));
    repository.file("a", "a");
    repository.commit();
    let daemon = Daemon::start(&sandbox);
    let addresses = [web.url("/file"), format!("{}.git", daemon.url("repository"))];
    fs::rename(&repository.dir, repository.dir.with_extension("git")).unwrap();
    sandbox.dockerfile(&format!(
        "FROM base\nRUN --mount=type=cache,target=/c,id=mine head -c 5000 /dev/zero > /c/file\n\
         ADD {} /file\nADD {} /repository/\n",
        addresses[0], addresses[1]
    ));
    let kept = Kept { _web: web, _daemon: daemon, addresses, sandbox };
    kept.build();
    kept.sandbox.outcrop(&["rmi", "it"]).ok();
    kept.sandbox.outcrop(&["cache", "prune", "-f", "-a", "--filter", "type=regular"]).ok();
    for (age, kind) in [(3, MOUNT), (2, HTTP), (1, GIT)] {
        kept.used(kind, Duration::from_secs(age * 3600));
    }
    kept
}

impl Kept {
    fn build(&self) -> Outcome {
        self.sandbox.outcrop(&["build", "-t", "it", "."]).ok()
    }

    fn of(&self, verb: &str, args: &[&str]) -> Outcome {
        self.sandbox.outcrop(&[&["cache", verb], args].concat()).ok()
    }

    fn types(&self) -> Vec<String> {
        self.of("ls", &["--format", "{{.Type}}"]).lines()
    }

    fn number(&self, kind: &str, what: &str) -> u64 {
        let filter = format!("type={kind}");
        let id = self.of("ls", &["-q", "--filter", &filter]).line();
        self.of("inspect", &["--format", &format!("{{{{json .{what}}}}}"), &id]).line().parse().unwrap()
    }

    fn path(&self, kind: &str) -> PathBuf {
        let only = |dir: &Path| {
            let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            paths.filter(|path| path.extension().is_none()).max().unwrap()
        };
        let cache = self.sandbox.root().join("cache");
        match kind {
            MOUNT => only(&only(&cache.join("mounts"))),
            HTTP => only(&cache.join("web")),
            _ => only(&cache.join("git")),
        }
    }

    /// It was used that long ago.
    fn used(&self, kind: &str, ago: Duration) {
        fs::File::open(self.path(kind)).unwrap().set_modified(SystemTime::now() - ago).unwrap();
    }

    /// The trash is empty, and the next build is fine.
    fn is_well(&self) {
        assert_eq!(fs::read_dir(self.sandbox.root().join("trash")).unwrap().count(), 0);
        self.build();
        self.sandbox.check();
    }
}

#[test]
fn what_is_no_record_is_listed_with_its_type_size_and_last_use() {
    let kept = kept();
    let lines =
        kept.of("ls", &["--no-trunc", "--format", "{{.Type}} {{.Instruction}} {{.LastUsed}}"]).lines();
    let [file, repository] = &kept.addresses;
    assert_eq!(
        lines,
        [
            format!("{GIT} {repository} About an hour ago"),
            format!("{HTTP} {file} 2 hours ago"),
            format!("{MOUNT} mine 3 hours ago"),
        ]
    );
    assert_eq!(kept.number(MOUNT, "Size"), 5000);
    let note: u64 = fs::read_dir(kept.sandbox.root().join("cache/web"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(kept.number(HTTP, "Size"), note);
    assert!(note > 7000);
    assert_eq!(kept.of("ls", &["-q", "--filter", "until=150m"]).lines().len(), 1);
    assert_eq!(kept.of("ls", &["-q", "--filter", "text=mine"]).lines().len(), 1);
    assert_eq!(kept.of("ls", &["-q", "--filter", "type=source.local"]).lines(), Vec::<String>::new());
    let both =
        kept.of("ls", &["--format", "{{.Type}}", "--filter", "type=regular", "--filter", "type=source.http"]);
    assert_eq!(both.lines(), [HTTP]);
    for verb in ["ls", "prune"] {
        let refused = kept.sandbox.outcrop(&["cache", verb, "--filter", "type=layer"]).fails(1);
        refused.complains("the build cache has no type `layer`");
    }
    kept.is_well();
}

#[test]
fn what_is_no_record_counts_as_build_cache_and_goes_with_a_prune_of_everything() {
    let kept = kept();
    let sum: u64 = [MOUNT, HTTP, GIT].iter().map(|kind| kept.number(kind, "Frees")).sum();
    let line = |kept: &Kept| {
        let lines =
            kept.sandbox.outcrop(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}"]);
        lines.ok().lines().pop().unwrap()
    };
    let said = kept.of("prune", &["-a", "--dry-run"]).lines();
    let said = said.last().unwrap().strip_prefix("Total that would be reclaimed: ").unwrap().to_owned();
    assert_eq!(line(&kept), format!("Build Cache 3 {said}"));
    assert!(sum > 12_000);
    kept.of("prune", &["-f"]).says("Total reclaimed space: 0B");
    assert_eq!(kept.types().len(), 3, "what takes long to fetch stays where nothing is asked for");
    let pruned = kept.of("prune", &["-f", "-a"]).lines();
    assert_eq!((pruned.len(), pruned.last().unwrap()), (6, &format!("Total reclaimed space: {said}")));
    assert_eq!(kept.types(), Vec::<String>::new());
    assert_eq!(line(&kept), "Build Cache 0 0B");
    kept.is_well();
    kept.sandbox.outcrop(&["system", "prune", "-f", "-a"]).ok();
    assert_eq!(kept.types(), Vec::<String>::new());
}

#[test]
fn the_least_recently_used_go_first_whatever_they_are() {
    let kept = kept();
    let most = kept.number(GIT, "Size") + kept.number(HTTP, "Size");
    kept.of("prune", &["-f", "--keep-storage", &format!("{}B", most + 5000)])
        .says("Total reclaimed space: 0B");
    assert_eq!(kept.types(), [GIT, HTTP, MOUNT]);
    kept.of("prune", &["-f", "--keep-storage", &format!("{most}B")]).says("Total reclaimed space: 5kB");
    assert_eq!(kept.types(), [GIT, HTTP]);
    kept.used(GIT, Duration::from_secs(3 * 3600));
    kept.of("prune", &["-f", "--max-age", "150m"]);
    assert_eq!(kept.types(), [HTTP]);
    kept.of("prune", &["-f", "--keep-storage", "7kB", "--filter", "type=exec.cachemount"])
        .says("Total reclaimed space: 0B");
    assert_eq!(kept.types(), [HTTP]);
    kept.of("prune", &["-f", "--filter", "type=source.http"]);
    assert_eq!(kept.types(), Vec::<String>::new());
    assert_eq!(fs::read_dir(kept.sandbox.root().join("cache/web")).unwrap().count(), 0, "notes go, too");
    kept.is_well();
}

#[test]
fn records_and_other_things_go_in_one_order() {
    let kept = kept();
    kept.sandbox.dockerfile("FROM base\nRUN head -c 3000000 /dev/zero > /zeros\n");
    kept.build();
    kept.sandbox.outcrop(&["rmi", "it"]).ok();
    assert_eq!(kept.types(), ["regular", GIT, HTTP, MOUNT]);
    kept.of("prune", &["-f", "--keep-storage", "3000000B"]);
    assert_eq!(kept.types(), ["regular"]);
    kept.of("prune", &["-f", "--keep-storage", "2999999B"]).says("Total reclaimed space: 3MB");
    assert_eq!(kept.types(), Vec::<String>::new());
    kept.is_well();
}

#[test]
fn what_a_build_uses_is_listed_and_stays() {
    let kept = kept();
    kept.sandbox.dockerfile(
        "FROM base\nRUN --mount=type=cache,target=/c,id=mine touch /c/begun; \
         while test ! -e /c/go; do sleep 0.05; done\n",
    );
    let mut running =
        kept.sandbox.command(&["build", "."]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let data = kept.path(MOUNT).join("data");
    assert!(wait_until(Duration::from_secs(60), || data.join("begun").exists()));
    assert_eq!(kept.number(MOUNT, "Frees"), 0);
    kept.of("prune", &["-f", "-a"]);
    assert_eq!(kept.types(), [MOUNT]);
    fs::write(data.join("go"), "").unwrap();
    assert!(running.wait().unwrap().success());
    kept.of("prune", &["-f", "--filter", "type=exec.cachemount"]).says("Total reclaimed space: 5kB");
    kept.sandbox.check();
}

#[test]
fn a_miss_names_the_files_of_a_mount_that_made_it() {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile(
        "FROM base AS made\nCOPY two /two\nFROM base\n\
         RUN --mount=target=/src,source=src --mount=target=/made,from=made,source=two cat /src/a /made > /out\n",
    );
    let build = || sandbox.outcrop(&["build", "--progress", "plain", "-t", "it", "."]).ok();
    for (path, text) in [("src/a", "a"), ("src/b", "b"), ("src/keep", "keep"), ("two", "1")] {
        sandbox.file(path, text);
    }
    build();
    sandbox.file("src/a", "another");
    fs::remove_file(sandbox.context().join("src/b")).unwrap();
    sandbox.file("src/new", "new");
    let change = "src/a changed (sha256 ca978112.. -> sha256 ae448ac8..)";
    build().says(&format!(" ---> Not cached: {change}, and 2 more\n"));
    let why = |sandbox: &Sandbox| -> Vec<String> {
        let shown = sandbox.outcrop(&["explain", "--format", "json"]).ok().stdout();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let steps = shown["steps"].as_array().unwrap();
        let step =
            steps.iter().find(|step| step["instruction"].as_str().unwrap().starts_with("RUN")).unwrap();
        let why = step["why"].as_array().unwrap();
        why.iter()
            .map(|one| format!("{} {}", one["change"].as_str().unwrap(), one["path"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(why(&sandbox), ["content src/a", "removed src/b", "added src/new"]);
    sandbox.file("two", "2");
    build();
    assert_eq!(why(&sandbox), ["content two"]);
    sandbox.check();
}
