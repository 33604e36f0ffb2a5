//! Containers seen from inside, through every runtime there is, and what is left of them on the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use outcrop::job::{Cancel, Stream};
use outcrop::runtime::{self, Bind, Exit, File, Network, Place, Runtime, Spec};
use outcrop::sys::mount::Mount;

/// A busybox root below an empty writable layer, and a runtime. Dropped, it fails the test if the host sees a mount of it
/// or the writable layer holds what the container did not write.
struct Lab {
    dir: PathBuf,
    runtime: Box<dyn Runtime>,
}

struct Ran {
    exit: Exit,
    out: String,
    err: String,
    #[allow(dead_code, reason = "not every host warns")]
    warnings: Vec<String>,
}

impl Lab {
    fn new(runtime: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("outcrop-lab-{}-{number}", std::process::id()));
        for part in ["image/bin", "image/etc", "image/tmp", "upper", "work", "run"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        fs::copy("/bin/busybox", dir.join("image/bin/busybox")).unwrap();
        for applet in
            ["sh", "cat", "ls", "grep", "id", "mount", "hostname", "true", "sleep", "touch", "kill", "dd"]
        {
            symlink("busybox", dir.join("image/bin").join(applet)).unwrap();
        }
        fs::write(dir.join("image/etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")
            .unwrap();
        fs::write(dir.join("image/etc/group"), "root:x:0:\nweb:x:33:\nadm:x:4:web\n").unwrap();
        let place = Place {
            exe: env!("CARGO_BIN_EXE_outcrop").into(),
            run: dir.join("run"),
            path: std::env::var_os("PATH").unwrap(),
        };
        let runtime = runtime::open(Some(runtime), &place).unwrap();
        Lab { dir, runtime }
    }

    fn spec(&self, args: &[&str]) -> Spec {
        let root = Mount::Overlay {
            lowers: vec![self.dir.join("image")],
            upper: Some(self.dir.join("upper")),
            work: Some(self.dir.join("work")),
            volatile: false,
        };
        let id = self.dir.file_name().unwrap().to_str().unwrap();
        Spec::new(id, root, args.iter().map(|arg| (*arg).into()).collect())
    }

    fn shell(&self, script: &str) -> Spec {
        self.spec(&["sh", "-c", script])
    }

    fn run(&self, spec: &Spec) -> Ran {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (exit, warnings) =
            runtime::run(&*self.runtime, spec, Vec::new(), &Cancel::default(), &mut |stream, bytes| {
                match stream {
                    Stream::Out => out.extend_from_slice(bytes),
                    Stream::Err => err.extend_from_slice(bytes),
                }
                Ok(())
            })
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { exit, out: text(out), err: text(err), warnings }
    }

    /// What a shell script prints, which must succeed.
    fn prints(&self, script: &str) -> String {
        let ran = self.run(&self.shell(script));
        assert_eq!((ran.exit.code, ran.err.as_str()), (0, ""), "{script}: {}", ran.out);
        ran.out
    }

    fn written(&self) -> Vec<PathBuf> {
        tree(&self.dir.join("upper"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = self.dir.to_str().unwrap();
        let seen = mounts.lines().any(|line| line.contains(place));
        fs::remove_dir_all(&self.dir).unwrap();
        assert!(std::thread::panicking() || !seen, "the host sees a mount of a container: {mounts}");
    }
}

fn tree(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

fn ended(code: i32) -> Exit {
    Exit { code, signal: None, problem: None }
}

/// What every runtime must do, each by one line at the end.
mod suite {
    use super::*;

    pub(super) fn the_exit_code_is_the_commands(lab: &Lab) {
        assert_eq!(lab.run(&lab.spec(&["true"])).exit, ended(0));
        assert_eq!(lab.run(&lab.shell("exit 7")).exit, ended(7));
        assert_eq!(lab.run(&lab.shell("kill -9 $$; echo alive")).exit.code, 0);
    }

    pub(super) fn a_command_that_is_not_there_is_127(lab: &Lab) {
        let ran = lab.run(&lab.spec(&["nonsense"]));
        assert_eq!(ran.exit.code, 127, "{:?}", ran.exit);
        let problem = ran.exit.problem.unwrap();
        assert!(problem.contains("exec: \"nonsense\": executable file not found in $PATH"), "{problem}");
        let ran = lab.run(&lab.spec(&["/bin/nonsense"]));
        assert_eq!(ran.exit.code, 127, "{:?}", ran.exit);
    }

    pub(super) fn a_command_that_cannot_be_executed_is_126(lab: &Lab) {
        let ran = lab.run(&lab.spec(&["/etc/passwd"]));
        assert_eq!(ran.exit.code, 126, "{:?}", ran.exit);
        assert!(ran.exit.problem.unwrap().contains("permission denied"));
        assert_eq!(lab.run(&lab.spec(&["/etc"])).exit.code, 126);
    }

    pub(super) fn it_is_confined_as_docker_does(lab: &Lab) {
        let status =
            lab.prints("grep -E '^(Seccomp|CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs):' /proc/self/status");
        let status: Vec<&str> = status.lines().collect();
        assert_eq!(
            status,
            [
                "CapInh:\t0000000000000000",
                "CapEff:\t00000000a80425fb",
                "CapBnd:\t00000000a80425fb",
                "CapAmb:\t0000000000000000",
                "NoNewPrivs:\t0",
                "Seccomp:\t2",
            ]
        );
    }

    pub(super) fn proc_and_sys_are_masked(lab: &Lab) {
        for path in runtime::MASKED_PATHS.iter().filter(|path| Path::new(path).exists()) {
            let script = format!("if [ -d {path} ]; then ls {path}; else cat {path}; fi");
            assert_eq!(lab.prints(&script), "", "{path}");
        }
        let ran = lab.run(&lab.shell("echo 1 > /proc/sys/kernel/domainname"));
        assert!(ran.err.contains("Read-only file system"), "{}", ran.err);
        let ran = lab.run(&lab.shell("echo 1 > /sys/kernel/profiling"));
        assert!(ran.err.contains("Read-only file system"), "{}", ran.err);
    }

    pub(super) fn it_is_process_one_of_a_world_of_its_own(lab: &Lab) {
        let mut spec = lab.shell("echo $$; hostname; ls /sys/class/net; echo /proc/[0-9]*");
        spec.hostname = "built".into();
        assert_eq!(lab.run(&spec).out, "1\nbuilt\nlo\n/proc/1\n");
    }

    pub(super) fn the_hosts_network_is_the_hosts(lab: &Lab) {
        let mut spec = lab.shell("ls /sys/class/net");
        spec.network = Network::Host;
        let ours = Command::new("ls").arg("/sys/class/net").output().unwrap().stdout;
        assert_eq!(lab.run(&spec).out, String::from_utf8(ours).unwrap());
    }

    pub(super) fn users_are_looked_up_in_the_container(lab: &Lab) {
        let mut spec =
            lab.shell("id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status; echo x > /dev/stdout");
        spec.user = "web".into();
        assert_eq!(lab.run(&spec).out, "33\n33\n33 4\n/srv\nCapEff:\t0000000000000000\nx\n");
        spec.user = "7:adm".into();
        spec.groups = vec!["web".into()];
        assert_eq!(lab.run(&spec).out, "7\n4\n4 33\n/\nCapEff:\t0000000000000000\nx\n");
    }

    pub(super) fn files_lie_over_the_image_and_leave_nothing(lab: &Lab) {
        let mut spec = lab.shell("cat /etc/resolv.conf /etc/hosts; echo more >> /etc/hosts; cat /etc/hosts");
        for (target, content) in [("/etc/resolv.conf", "nameserver ::1\n"), ("/etc/hosts", "::1 me\n")] {
            spec.files.push(File { target: target.into(), content: content.into() });
        }
        let ran = lab.run(&spec);
        assert_eq!(ran.out, "nameserver ::1\n::1 me\n::1 me\nmore\n", "{}", ran.err);
        // The parent that a new name was made in, and nothing in it.
        assert_eq!(lab.written(), [lab.dir.join("upper/etc")]);
    }

    pub(super) fn what_it_writes_is_in_the_writable_layer(lab: &Lab) {
        lab.prints("echo kept > /tmp/kept; umask");
        assert_eq!(fs::read_to_string(lab.dir.join("upper/tmp/kept")).unwrap(), "kept\n");
        assert_eq!(fs::metadata(lab.dir.join("upper/tmp/kept")).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(lab.written(), [lab.dir.join("upper/tmp"), lab.dir.join("upper/tmp/kept")]);
    }

    pub(super) fn binds_show_the_host_and_only_what_they_should(lab: &Lab) {
        let source = lab.dir.join("source");
        fs::create_dir(&source).unwrap();
        let bind = |read_only| Bind { source: source.clone(), target: "/new/data".into(), read_only };
        let mut spec = lab.shell("echo seen > /new/data/file");
        spec.binds.push(bind(false));
        assert_eq!(lab.run(&spec).exit, ended(0));
        assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "seen\n");
        spec.binds = vec![bind(true)];
        assert!(lab.run(&spec).err.contains("Read-only file system"));
        assert_eq!(lab.written(), Vec::<PathBuf>::new());
    }

    pub(super) fn a_directory_that_is_missing_is_made(lab: &Lab) {
        let mut spec = lab.shell("pwd");
        spec.cwd = "/made/for/it".into();
        assert_eq!(lab.run(&spec).out, "/made/for/it\n");
    }

    pub(super) fn a_read_only_root_is(lab: &Lab) {
        let mut spec = lab.shell("echo x > /tmp/x; echo y > /dev/shm/y");
        spec.read_only_root = true;
        let ran = lab.run(&spec);
        assert_eq!(ran.err.matches("Read-only file system").count(), 1, "{}", ran.err);
        assert_eq!(lab.written(), Vec::<PathBuf>::new());
    }
}

macro_rules! suite_of {
    ($module:ident, $runtime:literal: $($test:ident),* $(,)?) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::suite::$test(&super::Lab::new($runtime));
            })*
        }
    };
}

macro_rules! runtimes {
    ($($module:ident = $runtime:literal),*) => {
        $(suite_of!($module, $runtime:
            the_exit_code_is_the_commands,
            a_command_that_is_not_there_is_127,
            a_command_that_cannot_be_executed_is_126,
            it_is_confined_as_docker_does,
            proc_and_sys_are_masked,
            it_is_process_one_of_a_world_of_its_own,
            the_hosts_network_is_the_hosts,
            users_are_looked_up_in_the_container,
            files_lie_over_the_image_and_leave_nothing,
            what_it_writes_is_in_the_writable_layer,
            binds_show_the_host_and_only_what_they_should,
            a_directory_that_is_missing_is_made,
            a_read_only_root_is,
        );)*
    };
}

runtimes!(embedded = "outcrop", with_runc = "runc", with_crun = "crun");
