//! A sandbox whose store is on a filesystem of its own.

use std::fs;
use std::process::Command;

use rustix::mount::UnmountFlags;

use crate::sandbox::{Sandbox, build_it};

pub(super) struct OnDisk {
    pub(super) sandbox: Sandbox,
}

impl OnDisk {
    /// The disk is a sparse file; its loop device goes with the mount.
    pub(super) fn new(filesystem: &str, driver: &str) -> Self {
        let sandbox = Sandbox::new().driver(driver);
        let image = sandbox.dir().join("disk");
        fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
        fs::create_dir(sandbox.root()).unwrap();
        run(Command::new(format!("mkfs.{filesystem}")).arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(sandbox.root()));
        OnDisk { sandbox }
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.sandbox.root(), UnmountFlags::DETACH).unwrap();
    }
}

#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let lossy = String::from_utf8_lossy;
    assert!(output.status.success(), "{command:?}: {}{}", lossy(&output.stdout), lossy(&output.stderr));
    lossy(&output.stdout).into_owned()
}

/// Images from all directions, containers, and the way out again: `look` is called when two images and two containers
/// stand. `same`: what another name of a file shows, after a later layer wrote to the file.
pub(super) fn from_end_to_end(sandbox: &Sandbox, same: &str, look: impl FnOnce()) {
    sandbox.base_image("base");
    sandbox.file("file", "copied");
    sandbox.dockerfile(
        "FROM base\n\
         RUN mkdir -p /srv/d && echo one > /srv/one && echo two > /srv/two && ln /srv/one /srv/d/same && chmod 4711 /srv/two\n\
         RUN rm /srv/two && echo more >> /srv/one && rmdir /home && ln -s srv /home\n\
         COPY file /srv/\n\
         WORKDIR /work\n",
    );
    build_it(sandbox, &["--network", "none"]).ok();
    let again = build_it(sandbox, &["--network", "none"]).ok().says_not("---> Running in");
    assert_eq!(again.stdout().matches("---> Using cache").count(), 4);
    let sh = |name: &str, script: &str| {
        sandbox.outcrop(&["run", "--network", "none", "--name", name, "it", "sh", "-c", script]).ok()
    };
    let seen =
        sh("one", "cat /home/one /srv/d/same /srv/file; touch /srv/new; rm /srv/one; echo x > /etc/group");
    assert_eq!(seen.stdout(), format!("one\nmore\n{same}copied"));
    let diff = sandbox.outcrop(&["diff", "one"]).ok();
    assert_eq!(diff.lines(), ["C /etc", "C /etc/group", "C /srv", "A /srv/new", "D /srv/one"]);
    sandbox.outcrop(&["commit", "one", "committed"]).ok();
    let seen =
        sandbox.outcrop(&["run", "--network", "none", "--name", "two", "committed", "ls", "/srv"]).ok();
    assert_eq!(seen.lines(), ["d", "file", "new"]);
    look();
    sandbox.check();
    // The archive that this driver writes is read by it again, with the same ids.
    let id = sandbox.outcrop(&["images", "-q", "--no-trunc", "committed"]).ok().line();
    sandbox.outcrop(&["save", "-o", "saved.tar", "committed"]).ok();
    sandbox.outcrop(&["rm", "one", "two"]).ok();
    sandbox.outcrop(&["rmi", "committed", "it"]).ok();
    sandbox.outcrop(&["load", "-i", "saved.tar"]).ok();
    assert_eq!(sandbox.outcrop(&["images", "-q", "--no-trunc", "committed"]).ok().line(), id);
    let seen = sandbox.outcrop(&["run", "--rm", "--network", "none", "committed", "cat", "/srv/d/same"]).ok();
    assert_eq!(seen.stdout(), same);
    sandbox.check();
    sandbox.outcrop(&["rmi", "committed", "base"]).ok();
    sandbox.outcrop(&["system", "prune", "-a", "-f"]).ok();
    sandbox.check();
}
