//! `Snapshots` on every driver: drafts become layers, what is dropped or killed is gone, stacks show what
//! they should.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outcrop::db::{
    ContainerId, Db, LayerNumber, NewContainer, NewImage, NewLayer, Origin, SnapshotRow, SnapshotState,
    Writer,
};
use outcrop::error::Kind;
use outcrop::image::{ChainId, ContentId, DiffId, Digest, ImageId};
use outcrop::job::Job;
use outcrop::layer::{self, Changes, Form, Row, RowSink as _};
use outcrop::snapshot::driver::{Mount, Options, Shape, SnapshotId};
use outcrop::snapshot::{Compared, Draft, Place, Purpose, Snapshots};

use crate::sandbox::{Sandbox, wait_until};

struct Store {
    sandbox: Sandbox,
    db: Db,
    snapshots: Snapshots,
}

impl Store {
    fn new(driver: &str) -> Self {
        let sandbox = Sandbox::new();
        let db = Db::open(&sandbox.root()).unwrap();
        let snapshots = Snapshots::open(&db, Some(driver), &Options::default()).unwrap();
        Store { sandbox, db, snapshots }
    }
    fn is_layered(&self) -> bool {
        self.snapshots.driver().shape() == Shape::Layered
    }

    /// A layer on a stack, changed through its mount; `name` stands for its content.
    fn layer(&self, on: Option<&ChainId>, name: &str, change: impl FnOnce(PathBuf)) -> ChainId {
        let draft = self.snapshots.draft(on, Purpose::Layer).unwrap();
        change(path_of(draft.mounted().unwrap().as_fd()));
        self.publish(draft, on, name, &[]).1
    }

    /// Seals a draft as a layer with these rows.
    fn publish(
        &self,
        draft: Draft<'_>,
        on: Option<&ChainId>,
        name: &str,
        rows: &[Row],
    ) -> (SnapshotId, ChainId) {
        let mut chain = None;
        let layer = self.rows(rows);
        let id = draft
            .commit(|writer| {
                let layer = writer.publish_layer(&new_layer(layer, name))?.number;
                let chain = *chain.insert(writer.add_chain(on, layer)?);
                keep(writer, chain)?;
                Ok(chain)
            })
            .unwrap();
        (id, chain.unwrap())
    }

    /// Rows that stay reserved: the lease goes when they are published.
    fn rows(&self, rows: &[Row]) -> LayerNumber {
        let slot = self.db.reserve_layer(&self.db.lease().unwrap()).unwrap();
        let mut writer = slot.rows().unwrap();
        for row in rows {
            writer.row(row.clone()).unwrap();
        }
        writer.finish().unwrap();
        let number = slot.number();
        std::mem::forget(slot);
        number
    }

    fn names(&self, chain: &ChainId) -> Vec<String> {
        let view = self.snapshots.open_view(Some(chain)).unwrap();
        names(path_of(view.as_fd()))
    }

    fn snapshot_rows(&self) -> Vec<SnapshotRow> {
        self.db.read(|reader| reader.snapshots()).unwrap()
    }

    /// The rows, the trees and the trash hold nothing.
    fn is_empty(&self) {
        assert_eq!(self.snapshot_rows(), []);
        assert_eq!(self.snapshots.driver().list().unwrap(), []);
        assert_eq!(names(self.sandbox.root().join("trash")), [""; 0]);
    }
}

/// An image, so that no sweep takes the stack for what a dead process left.
fn keep(writer: &Writer<'_>, chain: ChainId) -> outcrop::error::Result<()> {
    let id = ImageId(Digest::of(chain.to_string().as_bytes()));
    writer.insert_blob(&id.0, 1, None)?;
    writer.insert_image(&NewImage {
        id,
        parent: None,
        chain: Some(chain),
        platform: "linux/amd64".into(),
        created: None,
        created_by: None,
        origin: Origin::Built,
        build: None,
    })?;
    Ok(())
}

fn new_layer(number: LayerNumber, name: &str) -> NewLayer {
    let digest = Digest::of(name.as_bytes());
    NewLayer {
        number,
        diff_id: DiffId(digest),
        base: None,
        leans: false,
        content_id: ContentId(digest),
        size: 1,
        tar_size: 1024,
        row_count: 0,
        made_by: None,
        build: None,
    }
}

/// A row of the root directory.
fn root_row() -> Row {
    Row { mode: 0o755, ..Row::bare("", layer::Kind::Dir) }
}

fn path_of(fd: std::os::fd::BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", fd.as_raw_fd()))
}

fn names(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn write(name: &'static str) -> impl FnOnce(PathBuf) {
    move |root| fs::write(root.join(name), name).unwrap()
}

fn a_draft_becomes_a_layer_that_others_stand_on(store: &Store) {
    let one = store.layer(None, "one", write("first"));
    let two = store.layer(Some(&one), "two", |root| {
        fs::remove_file(root.join("first")).unwrap();
        fs::write(root.join("second"), "").unwrap();
    });
    let three = store.layer(Some(&two), "three", write("third"));
    assert_eq!(store.names(&one), ["first"]);
    assert_eq!(store.names(&two), ["second"]);
    assert_eq!(store.names(&three), ["second", "third"]);
    let states: Vec<SnapshotState> = store.snapshot_rows().iter().map(|row| row.state).collect();
    assert_eq!(states, [SnapshotState::Sealed; 3]);
    let depth = if store.is_layered() { 3 } else { 1 };
    assert_eq!(store.snapshots.stack(Some(&three)).unwrap().len(), depth);
    assert!(store.snapshots.find(&three).unwrap().is_some());
}

fn a_dropped_draft_is_gone(store: &Store) {
    let draft = store.snapshots.draft(None, Purpose::Layer).unwrap();
    fs::write(path_of(draft.mounted().unwrap().as_fd()).join("file"), "").unwrap();
    assert_eq!(store.snapshot_rows()[0].state, SnapshotState::Draft);
    drop(draft);
    store.is_empty();
    assert!(names(store.sandbox.root().join("locks")).iter().all(|name| !name.starts_with("lease-")));
}

fn a_draft_whose_commit_fails_is_gone(store: &Store) {
    let draft = store.snapshots.draft(None, Purpose::Layer).unwrap();
    let failed = draft.commit(|_| Err(outcrop::error::Error::unavailable("no room")));
    assert_eq!(failed.unwrap_err().kind(), Kind::Unavailable);
    store.is_empty();
}

fn drafts_of_a_killed_process_are_swept(store: &Store) {
    let base = store.layer(None, "base", write("base"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "drafts::holds_drafts_until_it_is_killed", "--nocapture"])
        .env("OUTCROP_TEST_DRAFTS", store.sandbox.root())
        .env("OUTCROP_TEST_CHAIN", base.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("holding")));
    // While it lives nobody takes its drafts away.
    store.snapshots.sweep().unwrap();
    assert_eq!(store.snapshot_rows().len(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    let swept = store.snapshots.sweep().unwrap();
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    assert_eq!(swept.snapshots, 2);
    assert_eq!(store.snapshot_rows().len(), 1);
    assert_eq!(store.snapshots.driver().list().unwrap().len(), 1);
    assert_eq!(names(store.sandbox.root().join("trash")), [""; 0]);
    assert_eq!(store.names(&base), ["base"]);
}

/// The child of the test above; by itself it does nothing.
#[test]
fn holds_drafts_until_it_is_killed() {
    let Some(root) = std::env::var_os("OUTCROP_TEST_DRAFTS") else { return };
    let db = Db::open(&PathBuf::from(root)).unwrap();
    let snapshots = Snapshots::open(&db, None, &Options::default()).unwrap();
    let base = std::env::var("OUTCROP_TEST_CHAIN").unwrap().parse().unwrap();
    let drafts = [None, Some(&base)].map(|on| snapshots.draft(on, Purpose::Layer).unwrap());
    let mounted = drafts.each_ref().map(|draft| draft.mounted().unwrap());
    for root in &mounted {
        fs::write(path_of(root.as_fd()).join("half"), "made").unwrap();
    }
    println!("holding");
    wait_until(std::time::Duration::from_secs(60), || false);
}

/// Killed at any moment, a process leaves whole layers and nothing else.
fn killed_workers_leave_whole_layers_alone(store: &Store) {
    let base = store.layer(None, "base", write("base"));
    for round in 0..6 {
        let mut workers: Vec<_> = (0..3)
            .map(|worker| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "drafts::makes_layers_until_it_is_killed", "--nocapture"])
                    .env("OUTCROP_TEST_WORKER", format!("{round}-{worker}"))
                    .env("OUTCROP_TEST_STORE", store.sandbox.root())
                    .env("OUTCROP_TEST_CHAIN", base.to_string())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        // Long enough to be at work, and another moment of it each time.
        std::thread::sleep(std::time::Duration::from_millis(150 + 17 * round));
        for worker in &mut workers {
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
    }
    let swept = store.snapshots.sweep().unwrap();
    assert!(swept.complete && swept.failed.is_empty(), "{swept:?}");
    let rows = store.snapshot_rows();
    assert!(rows.len() > 1, "the workers came to nothing");
    assert!(rows.iter().all(|row| row.state == SnapshotState::Sealed), "{rows:?}");
    let mut trees = store.snapshots.driver().list().unwrap();
    trees.sort();
    assert_eq!(trees, rows.iter().map(|row| row.id).collect::<Vec<_>>());
    assert_eq!(names(store.sandbox.root().join("trash")), [""; 0]);
    let chains = store.db.read(|reader| reader.chains()).unwrap();
    assert_eq!(chains.len(), rows.len());
    for chain in chains.iter().filter(|chain| chain.parent.is_some()) {
        assert_eq!(store.names(&chain.id), ["base", "dir", "file"]);
    }
}

/// The child of the test above; by itself it does nothing.
#[test]
fn makes_layers_until_it_is_killed() {
    let Some(root) = std::env::var_os("OUTCROP_TEST_STORE") else { return };
    let worker = std::env::var("OUTCROP_TEST_WORKER").unwrap();
    let base: ChainId = std::env::var("OUTCROP_TEST_CHAIN").unwrap().parse().unwrap();
    let db = Db::open(&PathBuf::from(root)).unwrap();
    let snapshots = Snapshots::open(&db, None, &Options::default()).unwrap();
    for number in 0.. {
        let draft = snapshots.draft(Some(&base), Purpose::Layer).unwrap();
        let mounted = draft.mounted().unwrap();
        let root = path_of(mounted.as_fd());
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        drop(mounted);
        if number % 3 == 0 {
            continue;
        }
        let lease = db.lease().unwrap();
        let slot = db.reserve_layer(&lease).unwrap();
        let name = format!("{worker}-{number}");
        draft
            .commit(|writer| {
                let layer = writer.publish_layer(&new_layer(slot.number(), &name))?.number;
                let chain = writer.add_chain(Some(&base), layer)?;
                keep(writer, chain)?;
                Ok(chain)
            })
            .unwrap();
    }
}

fn two_equal_layers_are_one(store: &Store) {
    let first = store.snapshots.draft(None, Purpose::Layer).unwrap();
    let second = store.snapshots.draft(None, Purpose::Layer).unwrap();
    let (one, chain) = store.publish(first, None, "equal", &[]);
    let (other, again) = store.publish(second, None, "equal", &[]);
    assert_eq!((one, chain), (other, again));
    assert_eq!(store.snapshots.driver().list().unwrap(), [one]);
    assert_eq!(store.snapshot_rows().len(), 1);
}

fn eight_drafts_at_once(store: &Store) {
    let base = store.layer(None, "base", write("base"));
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let base = &base;
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("{writer}-{round}");
                    let chain =
                        store.layer(Some(base), &name, |root| fs::write(root.join("own"), &name).unwrap());
                    let view = store.snapshots.open_view(Some(&chain)).unwrap();
                    assert_eq!(fs::read_to_string(path_of(view.as_fd()).join("own")).unwrap(), name);
                    drop(store.snapshots.draft(Some(&chain), Purpose::Container).unwrap());
                }
            });
        }
    });
    assert_eq!(store.snapshot_rows().len(), 33);
    assert_eq!(store.snapshots.driver().list().unwrap().len(), 33);
}

fn a_stack_without_its_tree_is_an_error_that_says_so(store: &Store) {
    let layer = store.rows(&[]);
    let chain = store
        .db
        .write(|writer| {
            let layer = writer.publish_layer(&new_layer(layer, "never unpacked"))?.number;
            writer.add_chain(None, layer)
        })
        .unwrap();
    assert_eq!(store.snapshots.find(&chain).unwrap(), None);
    let Err(error) = store.snapshots.draft(Some(&chain), Purpose::Layer) else { panic!("it stands") };
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint_text().is_some());
    store.is_empty();
}

/// What an archive does not say of `/` is as below; what it says, counts.
fn the_root_of_a_stack_is_as_the_topmost_layer_that_says_so(store: &Store) {
    let mode = |chain: &ChainId| {
        let view = store.snapshots.open_view(Some(chain)).unwrap();
        path_of(view.as_fd()).metadata().unwrap().mode() & 0o7777
    };
    let base = store.snapshots.draft(None, Purpose::Layer).unwrap();
    fs::set_permissions(path_of(base.tree().unwrap().dir.as_fd()), Permissions::from_mode(0o711)).unwrap();
    let (_, base) = store.publish(base, None, "base", &[root_row()]);
    assert_eq!(mode(&base), 0o711);
    // As a pull makes it: alone where the driver can.
    let on = if store.is_layered() { None } else { Some(&base) };
    let silent = store.snapshots.draft(on, Purpose::Layer).unwrap();
    let (_, silent) = store.publish(silent, Some(&base), "silent", &[]);
    assert_eq!(mode(&silent), 0o711);
    let on = if store.is_layered() { None } else { Some(&silent) };
    let says = store.snapshots.draft(on, Purpose::Layer).unwrap();
    fs::set_permissions(path_of(says.tree().unwrap().dir.as_fd()), Permissions::from_mode(0o750)).unwrap();
    let (_, says) = store.publish(says, Some(&silent), "says", &[root_row()]);
    assert_eq!(mode(&says), 0o750);
}

/// An archive applied to a draft changes what lies below, whatever the driver.
fn a_place_takes_an_archive(store: &Store) {
    let alone = store.snapshots.draft(None, Purpose::Layer).unwrap();
    let form = if store.is_layered() { Form::Overlay } else { Form::Whole };
    match alone.place().unwrap() {
        Place::Tree(dir, has) => {
            assert_eq!(has, form);
            fs::write(path_of(dir.as_fd()).join("file"), "").unwrap();
        }
        Place::Mounted(_) => panic!("nothing lies below"),
    }
    let (_, base) = store.publish(alone, None, "alone", &[]);
    let leaning = store.snapshots.draft(Some(&base), Purpose::Layer).unwrap();
    let place = leaning.place().unwrap();
    assert_eq!(place.form(), Form::Whole);
    fs::hard_link(path_of(place.as_fd()).join("file"), path_of(place.as_fd()).join("link")).unwrap();
    drop(place);
    let (_, top) = store.publish(leaning, Some(&base), "leaning", &[]);
    assert_eq!(store.names(&top), ["file", "link"]);
}

fn what_a_draft_changed_is_there_to_compare(store: &Store) {
    let base = store.layer(None, "base", write("below"));
    let draft = store.snapshots.draft(Some(&base), Purpose::Layer).unwrap();
    fs::write(path_of(draft.mounted().unwrap().as_fd()).join("above"), "").unwrap();
    let compared = draft.compare().unwrap();
    let (tree, parent, expected) = match compared.changes(false) {
        Changes::Upper { upper, parent, form, .. } => {
            assert_eq!(form, Form::Overlay);
            (upper, parent, vec!["above"])
        }
        Changes::Trees { tree, parent } => (tree, parent, vec!["above", "below"]),
        Changes::Touched { tree, parent, .. } => (tree, Some(parent), vec!["above", "below"]),
    };
    assert_eq!(names(path_of(tree)), expected);
    assert_eq!(names(path_of(parent.unwrap())), ["below"]);
}

fn a_copy_says_the_same_of_what_lies_below(store: &Store) {
    let base = store.layer(None, "base", |root| {
        fs::create_dir(root.join("replaced")).unwrap();
        fs::write(root.join("replaced/old"), "").unwrap();
        fs::write(root.join("deleted"), "").unwrap();
    });
    let draft = store.snapshots.draft(Some(&base), Purpose::Container).unwrap();
    let mounted = draft.mounted().unwrap();
    let root = path_of(mounted.as_fd());
    fs::remove_dir_all(root.join("replaced")).unwrap();
    fs::create_dir(root.join("replaced")).unwrap();
    fs::write(root.join("replaced/new"), "").unwrap();
    fs::remove_file(root.join("deleted")).unwrap();
    drop(mounted);
    let copy = store.snapshots.copy(draft.id(), Purpose::Layer).unwrap();
    fs::write(path_of(draft.mounted().unwrap().as_fd()).join("later"), "").unwrap();
    let (_, top) = store.publish(copy, Some(&base), "committed", &[]);
    drop(draft);
    assert_eq!(store.names(&top), ["replaced"]);
    let view = store.snapshots.open_view(Some(&top)).unwrap();
    assert_eq!(names(path_of(view.as_fd()).join("replaced")), ["new"]);
}

fn a_container_keeps_its_tree_until_it_is_removed(store: &Store) {
    let base = store.layer(None, "base", write("below"));
    let image = ImageId(Digest::of(b"config"));
    let id = ContainerId::random();
    let draft = store.snapshots.draft(Some(&base), Purpose::Container).unwrap();
    let snapshot = draft
        .keep(|writer, snapshot| {
            writer.insert_blob(&image.0, 1, None)?;
            writer.insert_image(&NewImage {
                id: image,
                parent: None,
                chain: Some(base),
                platform: "linux/amd64".into(),
                created: None,
                created_by: None,
                origin: Origin::Built,
                build: None,
            })?;
            writer.insert_container(&NewContainer {
                id: id.clone(),
                name: "box".into(),
                image,
                snapshot,
                auto_remove: false,
                config: "{}".into(),
            })?;
            Ok(snapshot)
        })
        .unwrap();
    store.snapshots.sweep().unwrap();
    for name in ["one", "two"] {
        let mounted = outcrop::sys::mount::detached(&store.snapshots.mount(snapshot).unwrap()).unwrap();
        fs::write(path_of(mounted.as_fd()).join(name), "").unwrap();
        assert!(path_of(mounted.as_fd()).join("below").exists());
    }
    let compared = store.snapshots.compare(snapshot).unwrap();
    let (Changes::Upper { upper: tree, .. } | Changes::Trees { tree, .. } | Changes::Touched { tree, .. }) =
        compared.changes(false);
    assert!(names(path_of(tree)).ends_with(&["one".to_owned(), "two".to_owned()]));
    store.db.write(|writer| writer.remove_container(&id)).unwrap();
    let swept = store.snapshots.sweep().unwrap();
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    assert_eq!((swept.containers, swept.snapshots), (1, 1));
    assert!(!store.snapshots.driver().list().unwrap().contains(&snapshot));
    assert_eq!(store.names(&base), ["below"]);
}

fn what_no_row_knows_after_a_power_cut_is_removed(store: &Store) {
    let kept = store.layer(None, "kept", write("file"));
    let stray = SnapshotId(4_711);
    store.snapshots.driver().create(stray, &[]).unwrap();
    drop(Snapshots::open(&store.db, None, &Options::default()).unwrap());
    assert!(store.snapshots.driver().list().unwrap().contains(&stray), "nothing is compared without need");
    let index = rusqlite::Connection::open(store.sandbox.root().join("outcrop.db")).unwrap();
    index.execute("insert into meta (key, value) values ('trees_unchecked', 1)", ()).unwrap();
    drop(Snapshots::open(&store.db, None, &Options::default()).unwrap());
    assert_eq!(store.snapshots.driver().list().unwrap().len(), 1);
    assert_eq!(store.names(&kept), ["file"]);
    assert!(!store.db.read(|reader| reader.trees_may_be_lost()).unwrap());
}

fn a_store_keeps_to_its_driver(store: &Store) {
    let name = store.snapshots.driver().name();
    assert_eq!(Snapshots::open(&store.db, None, &Options::default()).unwrap().driver().name(), name);
    let other = if name == "vfs" { "overlay2" } else { "vfs" };
    let Err(error) = Snapshots::open(&store.db, Some(other), &Options::default()) else {
        panic!("it changed")
    };
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains(name));
}

macro_rules! suite {
    ($dollar:tt $($test:ident)*) => {
        macro_rules! driver {
            ($dollar name:ident) => {
                mod $dollar name {
                    $(
                        #[test]
                        fn $test() {
                            super::$test(&super::Store::new(stringify!($dollar name)));
                        }
                    )*
                }
            };
        }
    };
}

suite! { $
    a_draft_becomes_a_layer_that_others_stand_on
    a_dropped_draft_is_gone
    a_draft_whose_commit_fails_is_gone
    drafts_of_a_killed_process_are_swept
    killed_workers_leave_whole_layers_alone
    two_equal_layers_are_one
    eight_drafts_at_once
    a_stack_without_its_tree_is_an_error_that_says_so
    the_root_of_a_stack_is_as_the_topmost_layer_that_says_so
    a_place_takes_an_archive
    what_a_draft_changed_is_there_to_compare
    a_copy_says_the_same_of_what_lies_below
    a_container_keeps_its_tree_until_it_is_removed
    what_no_row_knows_after_a_power_cut_is_removed
    a_store_keeps_to_its_driver
}

driver!(overlay2);
driver!(vfs);

/// The kernel refuses a directory that is given twice (ELOOP).
#[test]
fn a_layer_met_twice_is_mounted_at_its_upper_place() {
    let store = Store::new("overlay2");
    let one = store.layer(None, "one", write("file"));
    let two = store.layer(Some(&one), "two", |root| fs::remove_file(root.join("file")).unwrap());
    let layer = store.db.read(|reader| reader.chain(&one)).unwrap().unwrap().layer;
    let three = store.db.write(|writer| writer.add_chain(Some(&two), layer)).unwrap();
    assert_eq!(store.snapshots.stack(Some(&three)).unwrap().len(), 2);
    assert_eq!(store.names(&two), [""; 0]);
    assert_eq!(store.names(&three), ["file"]);
}

/// The kernel does not honour the mark on the root of a layer.
#[test]
fn a_layer_opaque_at_its_root_hides_all_below() {
    let store = Store::new("overlay2");
    let one = store.layer(None, "one", write("hidden"));
    let draft = store.snapshots.draft(None, Purpose::Layer).unwrap();
    fs::write(path_of(draft.tree().unwrap().dir.as_fd()).join("shown"), "").unwrap();
    let opaque = Row { opaque: true, ..root_row() };
    let (_, two) = store.publish(draft, Some(&one), "two", &[opaque]);
    let three = store.layer(Some(&two), "three", write("above"));
    assert_eq!(store.names(&three), ["above", "shown"]);
}

#[test]
fn fsync_costs_nothing_in_a_layer_and_works_in_a_container() {
    let store = Store::new("overlay2");
    let volatile = |purpose| match store.snapshots.draft(None, purpose).unwrap().mount().unwrap() {
        Mount::Overlay { volatile, .. } => volatile,
        other => panic!("overlay2 mounts overlays, not {other:?}"),
    };
    assert!(volatile(Purpose::Layer));
    assert!(!volatile(Purpose::Container));
}

/// One change is one archive, whichever driver kept it; and an archive applied is what was packed.
#[test]
fn layers_are_the_same_bytes_on_every_driver() {
    let stores = ["overlay2", "vfs"].map(Store::new);
    let archives = stores.each_ref().map(|store| {
        let base = store.layer(None, "base", |root| {
            fs::create_dir_all(root.join("replaced/below")).unwrap();
            fs::write(root.join("replaced/old"), "").unwrap();
            fs::write(root.join("deleted"), "").unwrap();
            fs::write(root.join("kept"), "kept").unwrap();
            fs::write(root.join("mode"), "mode").unwrap();
            all_in_1970(&root);
        });
        let draft = store.snapshots.draft(Some(&base), Purpose::Layer).unwrap();
        let mounted = draft.mounted().unwrap();
        let root = path_of(mounted.as_fd());
        fs::remove_dir_all(root.join("replaced")).unwrap();
        fs::create_dir(root.join("replaced")).unwrap();
        fs::write(root.join("replaced/new"), "new").unwrap();
        fs::remove_file(root.join("deleted")).unwrap();
        fs::set_permissions(root.join("mode"), Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(root.join("kept"), root.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
        all_in_1970(&root);
        drop(mounted);
        let tar = pack(&draft.compare().unwrap());
        drop(draft);
        (tar, base)
    });
    assert_eq!(archives[0].0, archives[1].0);
    for (store, (tar, base)) in stores.iter().zip(&archives) {
        let on = if store.is_layered() { None } else { Some(base) };
        let draft = store.snapshots.draft(on, Purpose::Layer).unwrap();
        let place = draft.place().unwrap();
        let (mut rows, mut recipe) = (Vec::new(), Vec::new());
        let form = place.form();
        let applied =
            layer::apply(&Job::silent(), &mut &tar[..], place.as_fd(), form, &mut rows, &mut recipe).unwrap();
        drop(place);
        assert_eq!(applied.diff_id, DiffId(Digest::of(tar)));
        let (_, top) = store.publish(draft, Some(base), "applied", &rows);
        assert_eq!(store.names(&top), ["dangling", "kept", "link", "mode", "replaced"]);
        let view = store.snapshots.open_view(Some(&top)).unwrap();
        let root = path_of(view.as_fd());
        assert_eq!(names(root.join("replaced")), ["new"]);
        assert_eq!(root.join("mode").metadata().unwrap().mode(), 0o104_711);
    }
}

fn pack(compared: &Compared) -> Vec<u8> {
    let mut tar = Vec::new();
    let options = layer::PackOptions { tee: Some(&mut tar), ..layer::PackOptions::default() };
    let (mut rows, mut recipe) = (Vec::new(), Vec::new());
    layer::pack(&Job::silent(), compared.changes(false), options, &mut rows, &mut recipe).unwrap();
    tar
}

/// Links and directories too; the root last.
fn all_in_1970(root: &Path) {
    let zero = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: zero, last_modification: zero };
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
    }
}
