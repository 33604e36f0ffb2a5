//! Mounts, trees, deltas and copies, while they are worked on.

use super::*;

pub(super) fn a_tree_is_written_without_a_mount(bench: &Bench) {
    let id = bench.create(&[]);
    let tree = bench.tree(id);
    fs::write(tree.at("file"), "applied").unwrap();
    drop(tree);
    bench.driver.seal(id).unwrap();
    assert_eq!(bench.view(&[id]).read("file"), "applied");
}

/// Where a driver says that the changes lie, there they lie, and nothing else does.
pub(super) fn a_delta_holds_the_changes_alone(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let above = bench.on(&below, |root| fs::write(root.at("above"), "").unwrap());
    match bench.driver.delta(above[0]) {
        Some(delta) => assert_eq!(names(&delta.dir), ["above"]),
        None => assert_eq!(bench.driver.shape(), Shape::Stacked),
    }
}

pub(super) fn a_copy_is_made_of_what_is_not_sealed(bench: &Bench) {
    let below = bench.base(|root| {
        fs::create_dir(root.at("replaced")).unwrap();
        fs::write(root.at("replaced/old"), "").unwrap();
        fs::write(root.at("deleted"), "").unwrap();
    });
    let id = bench.create(&below);
    let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
    fs::remove_file(mounted.at("deleted")).unwrap();
    fs::remove_dir_all(mounted.at("replaced")).unwrap();
    fs::create_dir(mounted.at("replaced")).unwrap();
    fs::write(mounted.at("replaced/new"), "").unwrap();
    let copy = bench.number();
    bench.driver.copy(copy, id).unwrap();
    fs::write(mounted.at("later"), "").unwrap();
    bench.driver.seal(copy).unwrap();
    let stack =
        if bench.driver.shape() == Shape::Layered { [&[copy], &below[..]].concat() } else { vec![copy] };
    let view = bench.view(&stack);
    assert_eq!(view.names(""), ["replaced"]);
    assert_eq!(view.names("replaced"), ["new"]);
    assert_eq!(mounted.names(""), ["later", "replaced"]);
}

pub(super) fn a_mount_is_made_again_after_it_is_gone(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "").unwrap());
    let id = bench.create(&below);
    for number in 0..3 {
        let mounted = bench.open(&bench.driver.mount(id, &below).unwrap());
        fs::write(mounted.at(number.to_string()), "").unwrap();
        assert_eq!(mounted.names("").len(), 2 + number);
        drop(mounted);
        bench.driver.release(id).unwrap();
    }
}

pub(super) fn an_open_file_outlives_its_mount(bench: &Bench) {
    let stack = bench.base(|root| fs::write(root.at("file"), "content").unwrap());
    let view = bench.view(&stack);
    let file = fs::File::open(view.at("file")).unwrap();
    drop(view);
    assert_eq!(std::io::read_to_string(file).unwrap(), "content");
}

pub(super) fn eight_writers_at_once(bench: &Bench) {
    let below = bench.base(|root| fs::write(root.at("below"), "below").unwrap());
    let driver = &bench.driver;
    std::thread::scope(|scope| {
        for writer in 1..=8u64 {
            let below = &below;
            scope.spawn(move || {
                for round in 0..5 {
                    let id = SnapshotId(writer * 100 + round);
                    driver.create(id, below).unwrap();
                    let mounted = Seen(detached(&driver.mount(id, below).unwrap()).unwrap());
                    fs::write(mounted.at("own"), writer.to_string()).unwrap();
                    fs::remove_file(mounted.at("below")).unwrap();
                    assert_eq!(mounted.names(""), ["own"]);
                    drop(mounted);
                    driver.seal(id).unwrap();
                    driver.sync(&[id]).unwrap();
                    if round > 0 {
                        driver.remove(id).unwrap();
                    }
                }
            });
        }
    });
    let mut left = driver.list().unwrap();
    left.sort();
    assert_eq!(left, [1, 100, 200, 300, 400, 500, 600, 700, 800].map(SnapshotId));
    assert_eq!(bench.view(&below).read("below"), "below");
}
