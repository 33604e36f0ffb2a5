//! Containers as rows, and leases.

use super::*;

pub(super) fn add_container(
    db: &Db,
    lease: &Lease,
    name: &str,
    image: ImageId,
    auto_remove: bool,
) -> ContainerId {
    let id = ContainerId::random();
    fs::create_dir(db.root().join("containers").join(id.as_str())).unwrap();
    db.write(|writer| {
        let snapshot = writer.new_snapshot("vfs", &[], lease)?;
        writer.snapshot_made(snapshot)?;
        writer.insert_container(&NewContainer {
            id: id.clone(),
            name: name.into(),
            image,
            snapshot,
            auto_remove,
            config: "{}".into(),
        })
    })
    .unwrap();
    id
}

#[test]
fn containers_whose_supervisor_died_have_ended() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let work = db.lease().unwrap();
    let image = add_image(&db, "image", None, &[]);
    let stays = add_container(&db, &work, "stays", image, false);
    let goes = add_container(&db, &work, "goes", image, true);
    drop(work);
    let supervisor = db.lease().unwrap();
    for id in [&stays, &goes] {
        db.write(|writer| writer.container_started(id, &supervisor)).unwrap();
    }
    db.sweep(&no_tree).unwrap();
    assert_eq!(db.read(|reader| reader.containers()).unwrap().len(), 2);
    assert_eq!(db.write(|writer| writer.remove_container(&stays)).unwrap_err().kind(), Kind::Conflict);

    drop(supervisor);
    db.sweep(&no_tree).unwrap();
    let left = db.read(|reader| reader.containers()).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].id.clone(), left[0].state, left[0].exit_code),
        (stays.clone(), ContainerState::Exited, Some(137))
    );
    assert!(!sandbox.root().join("containers").join(goes.as_str()).exists());
    assert!(sandbox.root().join("containers").join(stays.as_str()).exists());

    assert_eq!(db.write(|writer| writer.condemn_images(&[image])).unwrap_err().kind(), Kind::Conflict);
    db.durable(|durable| durable.remove_container(&stays)).unwrap();
    let swept = db.sweep(&no_tree).unwrap();
    assert_eq!((swept.containers, swept.snapshots), (1, 1));
    assert_clean(&db);
    assert_eq!(fs::read_dir(sandbox.root().join("containers")).unwrap().count(), 0);
}

#[test]
fn names_of_containers_are_taken_once() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let lease = db.lease().unwrap();
    let image = add_image(&db, "image", None, &[]);
    let id = add_container(&db, &lease, "web", image, false);
    let error = db
        .write(|writer| {
            let snapshot = writer.new_snapshot("vfs", &[], &lease)?;
            let (id, name) = (ContainerId::random(), "web".into());
            writer.insert_container(&NewContainer {
                id,
                name,
                image,
                snapshot,
                auto_remove: false,
                config: "{}".into(),
            })
        })
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let taken = format!("Conflict. The container name \"/web\" is already in use by container \"{id}\".");
    assert!(error.message().starts_with(&taken), "{}", error.message());
    let prefixed = db.read(|reader| reader.containers_by_prefix(&id.as_str()[..10])).unwrap();
    assert_eq!(prefixed[0].id, id);
    assert_eq!(db.read(|reader| reader.containers_by_prefix("nonsense")).unwrap(), []);
    assert_eq!(db.read(|reader| reader.images_by_prefix(&image.hex()[..7])).unwrap()[0].id, image);
}

#[test]
fn a_lease_handed_to_a_child_lives_as_long_as_the_child() {
    let sandbox = Sandbox::new();
    let db = store(&sandbox);
    let mut lease = db.try_lease("container-x").unwrap().unwrap();
    // `cat` holds the descriptor as its standard input, a copy of which is the same lock.
    let input = lease.lend().try_clone_to_owned().unwrap();
    let mut holder = Command::new("sh")
        .args(["-c", "echo ready; exec sleep 1000"])
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    drop(lease);
    assert!(!db.lease_is_free("container-x").unwrap());
    assert!(db.try_lease("container-x").unwrap().is_none());
    kill(holder);
    assert!(db.lease_is_free("container-x").unwrap());
    assert_clean(&db);
    assert_eq!(locks(&db), [""; 0]);
}
