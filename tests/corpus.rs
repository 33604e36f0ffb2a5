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
