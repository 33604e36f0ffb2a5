//! Containers seen from inside, through every runtime there is, and what is left of them on the host.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use outcrop::job::{Cancel, Stream};
use outcrop::runtime::{
    self, Bind, Exit, File, Network, Place, Running, Runtime, Seccomp, Size, Spec, Stdio,
};
use outcrop::sys::mount::Mount;

use crate::sandbox::copy_program;

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
        Self::furnish(&dir);
        Self::at(dir, runtime)
    }

    fn furnish(dir: &Path) {
        for part in ["image/bin", "image/etc", "image/tmp", "upper", "work", "run"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        copy_program("/bin/busybox".as_ref(), &dir.join("image/bin/busybox"));
        for applet in
            ["sh", "cat", "ls", "grep", "id", "mount", "hostname", "true", "sleep", "touch", "kill", "dd"]
        {
            symlink("busybox", dir.join("image/bin").join(applet)).unwrap();
        }
        fs::write(dir.join("image/etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")
            .unwrap();
        fs::write(dir.join("image/etc/group"), "root:x:0:\nweb:x:33:\nadm:x:4:web\n").unwrap();
    }

    fn at(dir: PathBuf, runtime: &str) -> Self {
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
            user: false,
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
            spec.files.push(File::plain(target, content));
        }
        let ran = lab.run(&spec);
        assert_eq!(ran.out, "nameserver ::1\n::1 me\n::1 me\nmore\n", "{}", ran.err);
        // The parent that a new name was made in, and nothing in it.
        assert_eq!(lab.written(), [lab.dir.join("upper/etc")]);
    }

    /// Whoever reads /proc/PID/mountinfo holds the container's mounts meanwhile: its end is not theirs.
    pub(super) fn mounts_that_outlive_it_leave_nothing(lab: &Lab) {
        let mut spec = lab.spec(&["sleep", "100"]);
        spec.files.push(File::plain("/etc/hosts", "::1 me\n"));
        let mut running = lab.runtime.start(&spec, Stdio::default()).unwrap();
        let mounts = fs::File::open(format!("/proc/{}/mountinfo", running.pid())).unwrap();
        running.kill(9).unwrap();
        running.wait().unwrap();
        assert_eq!(lab.written(), [lab.dir.join("upper/etc")]);
        drop(mounts);
    }

    /// As in images whose resolv.conf is a service's.
    pub(super) fn a_file_lies_where_a_dangling_link_leads(lab: &Lab) {
        symlink("../run/service/resolv.conf", lab.dir.join("image/etc/resolv.conf")).unwrap();
        let mut spec = lab.shell("cat /etc/resolv.conf; readlink /etc/resolv.conf");
        let (target, content) = ("/etc/resolv.conf", "nameserver ::1\n");
        spec.files.push(File::plain(target, content));
        assert_eq!(lab.run(&spec).out, "nameserver ::1\n../run/service/resolv.conf\n");
        assert_eq!(lab.written(), Vec::<PathBuf>::new());
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
        let mut spec = lab.shell("pwd; stat -c %a . ..");
        spec.cwd = "/made/for/it".into();
        assert_eq!(lab.run(&spec).out, "/made/for/it\n755\n755\n");
    }

    pub(super) fn its_memory_is_limited(lab: &Lab) {
        let mut spec = lab.spec(&["dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=60"]);
        spec.limits.memory = Some(16 << 20);
        let ran = lab.run(&spec);
        assert_eq!((ran.exit.code, ran.exit.signal), (137, Some(9)), "{:?}", ran.warnings);
    }

    pub(super) fn its_processes_are_limited(lab: &Lab) {
        let mut spec = lab.shell("for n in 1 2 3 4 5 6 7 8; do sleep 100 & done");
        spec.limits.pids = Some(4);
        let ran = lab.run(&spec);
        assert!(ran.err.contains("can't fork"), "{} {:?}", ran.err, ran.warnings);
    }

    pub(super) fn the_hosts_devices_stay_closed(lab: &Lab) {
        let ran = lab.run(&lab.shell("mknod /tmp/disk b 254 0 && cat /tmp/disk; echo x > /dev/null"));
        assert_eq!(ran.err, "cat: can't open '/tmp/disk': Operation not permitted\n");
    }

    pub(super) fn no_namespace_and_no_mount_can_be_made(lab: &Lab) {
        for command in ["unshare -U true", "unshare -m true", "mount -t tmpfs none /tmp", "umount /proc"] {
            let ran = lab.run(&lab.shell(command));
            assert_eq!(ran.exit.code, 1, "{command}: {}", ran.err);
        }
        let mut spec = lab.shell("unshare -U true");
        spec.seccomp = Seccomp::Unconfined;
        assert_eq!(lab.run(&spec).exit, ended(0), "it is the filter that forbids it");
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn a_32_bit_program_runs(lab: &Lab) {
        let program = lab.dir.join("image/bin/old");
        fs::write(&program, elf32_that_says(b"old\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let ran = lab.run(&lab.spec(&["/bin/old"]));
        assert_eq!((ran.exit, ran.out.as_str()), (ended(0), "old\n"));
    }

    /// write(1, text) and exit(0), by the calls of a 32-bit kernel.
    #[cfg(target_arch = "x86_64")]
    fn elf32_that_says(text: &[u8]) -> Vec<u8> {
        const BASE: u32 = 0x0804_8000;
        const HEADERS: u32 = 52 + 32;
        let length = u32::try_from(text.len()).unwrap();
        let mut code = vec![0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9];
        // Behind the code, which is 34 bytes.
        code.extend((BASE + HEADERS + 34).to_le_bytes());
        code.push(0xba);
        code.extend(length.to_le_bytes());
        code.extend([0xcd, 0x80, 0xb8, 1, 0, 0, 0, 0xbb, 0, 0, 0, 0, 0xcd, 0x80]);
        assert_eq!(code.len(), 34);
        let size = HEADERS + 34 + length;
        let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let half = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let word = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        file.extend(half(&[2, 3]));
        file.extend(word(&[1, BASE + HEADERS, 52, 0, 0]));
        file.extend(half(&[52, 32, 1, 0, 0, 0]));
        file.extend(word(&[1, 0, BASE, BASE, size, size, 5, 0x1000]));
        file.extend(code);
        file.extend(text);
        file
    }

    pub(super) fn its_loopback_is_up(lab: &Lab) {
        let ran = lab.run(&lab.shell("nc 127.0.0.1 1"));
        assert!(ran.err.contains("Connection refused"), "{}", ran.err);
    }

    pub(super) fn a_terminal_is_one(lab: &Lab) {
        let mut spec =
            lab.shell("tty; stty size; [ -w /dev/console ] && echo console; read line; echo \"<$line>\"");
        spec.terminal = Some(Size { rows: 33, columns: 77 });
        let mut running = lab.runtime.start(&spec, Stdio::default()).unwrap();
        let mut master = fs::File::from(running.terminal().unwrap());
        master.write_all(b"typed\n").unwrap();
        let mut seen = Vec::new();
        // EIO when the last one has closed its side.
        let _eio = master.read_to_end(&mut seen);
        assert_eq!(running.wait().unwrap(), ended(0));
        let seen = String::from_utf8(seen).unwrap().replace("typed\r\n", "");
        assert_eq!(seen, "/dev/pts/0\r\n33 77\r\nconsole\r\n<typed>\r\n");
    }

    fn start(lab: &Lab, script: &str) -> (Running, BufReader<fs::File>) {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stdio = Stdio { stdout: Some(theirs), ..Stdio::default() };
        let running = lab.runtime.start(&lab.shell(script), stdio).unwrap();
        let mut lines = BufReader::new(fs::File::from(ours));
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        (running, lines)
    }

    pub(super) fn a_signal_reaches_the_command(lab: &Lab) {
        let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
        let (mut running, mut lines) = start(lab, script);
        assert_eq!(running.wait_for(Duration::from_millis(1)).unwrap(), None);
        assert!(Path::new(&format!("/proc/{}", running.pid())).exists());
        running.kill(15).unwrap();
        assert_eq!(running.wait_for(Duration::from_secs(20)).unwrap(), Some(ended(3)));
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "caught\n");
        running.kill(15).unwrap();
    }

    pub(super) fn killed_it_says_so(lab: &Lab) {
        let (mut running, _lines) = start(lab, "sleep 100 & echo ready; wait");
        running.kill(9).unwrap();
        assert_eq!(running.wait().unwrap(), Exit { code: 137, signal: Some(9), problem: None });
        let (running, _lines) = start(lab, "echo ready; sleep 100");
        let pid = running.pid();
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "dropped, it is dead");
    }

    /// CVE-2024-21626 and its kind.
    pub(super) fn descriptors_of_the_engine_are_not_its(lab: &Lab) {
        let host = fs::File::open("/").unwrap();
        // Not closed on exec, as a careless shell leaves them.
        let careless = rustix::io::fcntl_dupfd_cloexec(&host, 40).unwrap();
        rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
        let mut spec = lab.spec(&["ls", "-l", "/proc/self/fd"]);
        let listed = lab.run(&spec).out;
        // Its own, and the one that `ls` lists with.
        let open: Vec<&str> =
            listed.lines().skip(1).map(|line| line.split(" -> ").nth(1).unwrap_or("")).collect();
        assert!(open.len() == 4 && open[0] == "/dev/null" && open[3].is_empty(), "{listed}");
        assert!(open[1].starts_with("pipe:") && open[2].starts_with("pipe:"), "{listed}");
        spec.args = vec!["ls".into(), ".".into()];
        for number in 3..45 {
            spec.cwd = format!("/proc/self/fd/{number}");
            let (mut out, cancel) = (Vec::new(), Cancel::default());
            let ran = runtime::run(&*lab.runtime, &spec, Vec::new(), &cancel, &mut |_, bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            });
            let out = String::from_utf8(out).unwrap();
            assert!(!out.contains("boot"), "descriptor {number} shows the host: {ran:?} {out}");
        }
        drop(careless);
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
            mounts_that_outlive_it_leave_nothing,
            a_file_lies_where_a_dangling_link_leads,
            what_it_writes_is_in_the_writable_layer,
            binds_show_the_host_and_only_what_they_should,
            a_directory_that_is_missing_is_made,
            a_read_only_root_is,
            its_memory_is_limited,
            its_processes_are_limited,
            the_hosts_devices_stay_closed,
            no_namespace_and_no_mount_can_be_made,
            a_32_bit_program_runs,
            its_loopback_is_up,
            a_terminal_is_one,
            a_signal_reaches_the_command,
            killed_it_says_so,
            descriptors_of_the_engine_are_not_its,
        );)*
    };
}

runtimes!(embedded = "outcrop", with_runc = "runc", with_crun = "crun");

/// Not a test by itself: in a process of its own, it is an engine that gets killed.
#[test]
fn acts_as_an_engine() {
    let Some(dir) = std::env::var_os("OUTCROP_LAB_ENGINE") else { return };
    let lab =
        std::mem::ManuallyDrop::new(Lab::at(dir.into(), &std::env::var("OUTCROP_LAB_RUNTIME").unwrap()));
    let mut spec = lab.shell("echo x > /tmp/x; sleep 100");
    spec.files.push(File::plain("/etc/resolv.conf", ""));
    let running = lab.runtime.start(&spec, Stdio::default()).unwrap();
    println!("pid {}", running.pid());
    std::thread::sleep(Duration::from_secs(100));
}

fn an_engine_that_is_killed_takes_its_container_along(runtime: &str) {
    let lab = Lab::new(runtime);
    let mut engine = Command::new(std::env::current_exe().unwrap())
        .args(["runtime::acts_as_an_engine", "--exact", "--nocapture"])
        .env("OUTCROP_LAB_ENGINE", &lab.dir)
        .env("OUTCROP_LAB_RUNTIME", runtime)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(engine.stdout.take().unwrap()).lines();
    let pid =
        lines.map_while(Result::ok).find_map(|line| Some(line.split_once("pid ")?.1.to_owned())).unwrap();
    let outer = status_field(&pid, "PPid:");
    wait_until("the container has written", || lab.dir.join("upper/tmp/x").exists());
    engine.kill().unwrap();
    engine.wait().unwrap();
    for process in [pid, outer] {
        wait_until("it is gone", || !Path::new("/proc").join(&process).exists());
    }
    assert_eq!(
        lab.written(),
        ["etc", "tmp", "tmp/x"].map(|path| lab.dir.join("upper").join(path)),
        "mount points are gone"
    );
    let id = lab.dir.file_name().unwrap();
    for group in ["devices", "memory", "pids", "unified", ""] {
        assert!(!Path::new("/sys/fs/cgroup").join(group).join("outcrop").join(id).exists(), "{group}");
    }
    assert_eq!(tree(&lab.dir.join("run")).iter().filter(|path| path.ends_with("config.json")).count(), 0);
}

/// CVE-2019-19921 and its kind.
#[test]
fn an_image_cannot_put_proc_somewhere_else() {
    let lab = Lab::new("outcrop");
    symlink("tmp", lab.dir.join("image/proc")).unwrap();
    let error = lab.runtime.start(&lab.spec(&["true"]), Stdio::default()).err().unwrap();
    assert_eq!(error.to_string(), "looking for the directory /proc in the container");
    assert_eq!(error.hint_text(), Some("the image must have a directory /proc or nothing there"));
    assert_eq!(lab.written(), Vec::<PathBuf>::new());
}

#[test]
fn what_the_host_refuses_is_an_error_and_leaves_nothing() {
    let lab = Lab::new("outcrop");
    let refused = |spec: &Spec| lab.runtime.start(spec, Stdio::default()).err().unwrap().to_string();
    let mut spec = lab.spec(&["true"]);
    spec.user = "nobody".into();
    assert_eq!(refused(&spec), "unable to find user nobody: no matching entries in passwd file");
    let mut spec = lab.spec(&["true"]);
    spec.binds.push(Bind { source: "/nonsense".into(), target: "/x".into(), read_only: false });
    assert_eq!(refused(&spec), "mounting /nonsense on /x");
    spec.binds[0] = Bind { source: "/etc".into(), target: "/bin/busybox".into(), read_only: false };
    assert_eq!(refused(&spec), "making the mount point /bin/busybox in the container");
    spec.binds[0] = Bind { source: "/etc".into(), target: "/proc/sys".into(), read_only: false };
    assert_eq!(refused(&spec), "mounting something on /proc/sys, which is inside /proc");
    let mut spec = lab.spec(&["true"]);
    spec.rlimits.push(runtime::Rlimit { name: "patience".into(), soft: 1, hard: 1 });
    assert_eq!(refused(&spec), "invalid ulimit type: patience");
    assert_eq!(lab.written(), Vec::<PathBuf>::new());
}

#[test]
fn many_threads_start_containers_at_once() {
    let labs: Vec<Lab> = (0..6).map(|_| Lab::new("outcrop")).collect();
    std::thread::scope(|scope| {
        for lab in &labs {
            scope.spawn(|| {
                for code in 0..6 {
                    let ran = lab.run(&lab.shell(&format!("echo {code}; exit {code}")));
                    assert_eq!((ran.exit, ran.out), (ended(code), format!("{code}\n")));
                }
                assert_eq!(lab.written(), Vec::<PathBuf>::new());
            });
        }
    });
}

#[test]
fn limits_of_the_process_are_set() {
    let lab = Lab::new("outcrop");
    let mut spec = lab.shell("ulimit -n; ulimit -H -n");
    spec.rlimits.push(runtime::Rlimit { name: "nofile".into(), soft: 100, hard: 200 });
    assert_eq!(lab.run(&spec).out, "100\n200\n");
}

#[test]
fn a_killed_engine_takes_its_container_along() {
    an_engine_that_is_killed_takes_its_container_along("outcrop");
}

#[test]
fn a_killed_engine_takes_a_container_of_runc_along() {
    an_engine_that_is_killed_takes_its_container_along("runc");
}

#[test]
fn a_killed_outer_half_takes_the_container_along() {
    let lab = Lab::new("outcrop");
    let mut running = lab.runtime.start(&lab.shell("sleep 100"), Stdio::default()).unwrap();
    let pid = running.pid().to_string();
    let outer = status_field(&pid, "PPid:").parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(outer).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(running.wait().unwrap_err().to_string().contains("waiting for the container"));
    wait_until("it is gone", || !Path::new("/proc").join(&pid).exists());
    // The next container would remove its cgroup, a minute from now.
    for hierarchy in ["unified", "devices", ""] {
        let group =
            Path::new("/sys/fs/cgroup").join(hierarchy).join("outcrop").join(lab.dir.file_name().unwrap());
        wait_until("its cgroup is empty", || fs::remove_dir(&group).is_ok() || !group.exists());
    }
}

fn status_field(pid: &str, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}: not after 20 seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// CVE-2019-5736: whoever gets hold of the engine's binary from inside a container cannot write to it.
#[test]
fn the_engines_binary_cannot_be_written_through_a_container() {
    let lab = Lab::new("outcrop");
    // A copy that nobody else executes: the kernel refuses to write to what is executed, wherever it comes from.
    let exe = lab.dir.join("engine");
    copy_program(env!("CARGO_BIN_EXE_outcrop").as_ref(), &exe);
    let place = Place { exe, run: lab.dir.join("run"), path: "".into() };
    let runtime = runtime::open(None, &place).unwrap();
    let mut running = runtime.start(&lab.shell("sleep 100"), Stdio::default()).unwrap();
    let outer = status_field(&running.pid().to_string(), "PPid:");
    let held = rustix::fs::open(
        format!("/proc/{outer}/exe"),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    running.kill(9).unwrap();
    running.wait().unwrap();
    let error = fs::File::options()
        .write(true)
        .open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)))
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn mounts_of_the_host_stay_apart_and_read_only_reaches_all() {
    let lab = Lab::new("outcrop");
    let source = lab.dir.join("source");
    fs::create_dir_all(source.join("inner")).unwrap();
    fs::create_dir_all(source.join("late")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A host of this thread's own, whose mounts propagate.
            private_mounts();
            let tmpfs = |name: &str| {
                let mount = outcrop::sys::mount::tmpfs(None, 0o755, outcrop::sys::mount::Attributes::NONE).unwrap();
                let place = source.join(name);
                outcrop::sys::mount::attach_at(std::os::fd::AsFd::as_fd(&mount), rustix::fs::CWD, &place).unwrap();
            };
            tmpfs("inner");
            let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let mut spec = lab.shell(
                "touch /data/x; touch /data/inner/x; echo ready; read line; ls /data/late; grep -c late /proc/mounts",
            );
            spec.binds.push(Bind { source: source.clone(), target: "/data".into(), read_only: true });
            let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            let ((stdin, typed), (seen, stdout)) = (pipe(), pipe());
            let stderr = stdout.try_clone().unwrap();
            let stdio = Stdio { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), hold: Vec::new() };
            let mut running = lab.runtime.start(&spec, stdio).unwrap();
            let mut lines = BufReader::new(fs::File::from(seen)).lines().map(Result::unwrap);
            for path in ["/data/x", "/data/inner/x"] {
                assert_eq!(lines.next().unwrap(), format!("touch: {path}: Read-only file system"));
            }
            assert_eq!(lines.next().unwrap(), "ready");
            assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), before, "nothing leaks out");
            tmpfs("late");
            fs::write(source.join("late/file"), "").unwrap();
            fs::File::from(typed).write_all(b"\n").unwrap();
            assert_eq!(lines.next().unwrap(), "0", "nothing leaks in");
            running.wait().unwrap();
        });
    });
}

#[allow(unsafe_code, reason = "unshare(2) of one thread")]
fn private_mounts() {
    use outcrop::sys::mount::{Propagation, Reach, set_propagation};
    use rustix::thread::UnshareFlags;
    // SAFETY: the table of descriptors stays shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.unwrap();
    set_propagation("/".as_ref(), Propagation::Slave, Reach::Tree).unwrap();
    set_propagation("/".as_ref(), Propagation::Shared, Reach::Tree).unwrap();
}

/// A terminal of the test's own: what a person types and sees, and what outcrop has.
fn terminal() -> (fs::File, std::os::fd::OwnedFd) {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = openpt(flags).unwrap();
    unlockpt(&person).unwrap();
    let outcrops = ioctl_tiocgptpeer(&person, flags).unwrap();
    (person.into(), outcrops)
}

fn resize(terminal: &fs::File, rows: u16, columns: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn in_the_foreground_what_is_typed_is_read_and_the_window_may_change() {
    use runtime::terminal::{Local, Signals, attend, size};
    let lab = Lab::new("outcrop");
    let (mut person, ours) = terminal();
    resize(&person, 10, 20);
    let mut spec = lab.shell("stty size; read line; echo got $line; until [ \"$(stty size)\" = '30 40' ]; do sleep 0.02; done; trap 'exit 5' USR1; echo waits; while :; do sleep 0.02; done");
    spec.terminal = Some(size(&ours));
    let signals = Signals::catch().unwrap();
    let mut running = lab.runtime.start(&spec, Stdio::default()).unwrap();
    let before = rustix::termios::tcgetattr(&ours).unwrap().local_modes;
    let mut seen = String::new();
    let mut until = |person: &mut fs::File, text: &str| {
        let mut byte = [0];
        while !seen.ends_with(text) {
            person.read_exact(&mut byte).unwrap();
            seen.push(char::from(byte[0]));
        }
    };
    let (running, signals) = (&mut running, &signals);
    std::thread::scope(|scope| {
        let local =
            Local { input: Some(std::os::fd::AsFd::as_fd(&ours)), output: std::os::fd::AsFd::as_fd(&ours) };
        let attending = scope.spawn(move || attend(running, Some(local), signals).unwrap());
        until(&mut person, "10 20\r\n");
        person.write_all(b"words\r").unwrap();
        until(&mut person, "got words\r\n");
        resize(&person, 30, 40);
        let me = rustix::process::getpid();
        rustix::process::kill_process(me, rustix::process::Signal::WINCH).unwrap();
        until(&mut person, "waits\r\n");
        rustix::process::kill_process(me, rustix::process::Signal::USR1).unwrap();
        assert_eq!(attending.join().unwrap(), ended(5));
    });
    assert_eq!(rustix::termios::tcgetattr(&ours).unwrap().local_modes, before, "raw mode is over");
}
