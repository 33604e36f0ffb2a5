//! The inputs that fuzzing found, replayed: one corpus for each target, with the assertions of `fuzz/`.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../fuzz/invariants/mod.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzz targets")]
mod invariants;

#[test]
fn every_input_that_was_ever_kept_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for (target, check) in invariants::TARGETS {
        let dir = corpus.join(target);
        let mut files: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", dir.display());
        for file in files {
            let data = fs::read(&file).unwrap();
            assert!(catch_unwind(|| check(&data)).is_ok(), "{} fails {target}", file.display());
        }
    }
}

#[test]
fn every_corpus_has_its_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |dir: &str| {
        let mut names: Vec<_> = fs::read_dir(root.join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let known: Vec<_> = invariants::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("tests/corpus"), known);
    assert_eq!(names("fuzz/targets"), known);
}

/// `fuzz/run` builds with `--locked`: a lock that lags behind would be found out only there.
#[test]
fn the_fuzzers_are_locked_to_what_the_main_build_is() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let fuzz = read("fuzz/Cargo.lock");
    let ours =
        fuzz.split("\n[[package]]\n").find(|package| package.starts_with("name = \"outcrop\"\n")).unwrap();
    let manifest = read("Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names =
        dependencies.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    for (name, _) in names {
        let locked = ours.lines().any(|line| line.starts_with(&format!(" \"{name}\"")));
        assert!(locked, "run `cargo update --workspace` in fuzz/: its lock lacks {name}");
    }
}
