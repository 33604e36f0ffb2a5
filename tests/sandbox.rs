//! A sandbox: own root and run directories, the outcrop binary on them, and a proof at the end that nothing is left.
#![allow(dead_code, reason = "each test uses the part it needs")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Dropped, it fails the test if a mount or a process of it is left, and removes its directory.
pub(crate) struct Sandbox {
    dir: PathBuf,
    variables: Vec<(String, String)>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short: paths of sockets are limited to 107 bytes.
        let dir = std::env::temp_dir().join(format!("outcrop-test-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let dir = dir.canonicalize().unwrap();
        fs::create_dir(dir.join("context")).unwrap();
        Sandbox { dir, variables: Vec::new() }
    }

    /// The commands of this sandbox get this variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// With this storage driver.
    pub(crate) fn driver(self, name: &str) -> Self {
        self.variable("OUTCROP_STORAGE_DRIVER", name)
    }

    /// Holds everything of the sandbox.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
    /// What `--root` names; absent until outcrop makes it.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }
    pub(crate) fn run_root(&self) -> PathBuf {
        self.dir.join("run")
    }
    /// A build context, empty at first; commands start here.
    pub(crate) fn context(&self) -> PathBuf {
        self.dir.join("context")
    }

    /// Writes a file below the context, with its parents. Mode 644, whatever the umask.
    pub(crate) fn file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// Writes `Dockerfile` into the context.
    pub(crate) fn dockerfile(&self, text: &str) -> PathBuf {
        self.file("Dockerfile", text)
    }

    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outcrop"));
        command.arg("--root").arg(self.root()).arg("--run-root").arg(self.run_root()).args(args);
        command.current_dir(self.context()).stdin(Stdio::null());
        // The user's own settings decide nothing in a test.
        for (name, _) in std::env::vars_os() {
            let ours = name.as_encoded_bytes().starts_with(b"OUTCROP_");
            if ours || name == "DOCKER_CONFIG" || name == "NO_COLOR" || name == "SOURCE_DATE_EPOCH" {
                command.env_remove(name);
            }
        }
        command.env("HOME", &self.dir).envs(self.variables.iter().cloned());
        command
    }

    /// Runs `outcrop ARGS...` to its end.
    pub(crate) fn outcrop<A: AsRef<OsStr>>(&self, args: &[A]) -> Outcome {
        Outcome::of(&mut self.command(args))
    }

    /// The same, with bytes on standard input.
    pub(crate) fn outcrop_with_input<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8]) -> Outcome {
        Outcome::with_input(&mut self.command(args), input)
    }

    /// Every byte and row of the store is right.
    #[track_caller]
    pub(crate) fn check(&self) {
        self.outcrop(&["system", "check"]).ok();
    }

    /// An image of busybox alone under this name: /bin with all applets, /etc/passwd and group, /tmp, /root.
    pub(crate) fn base_image(&self, name: &str) {
        let archive = self.busybox_archive();
        self.outcrop(&[OsStr::new("import"), archive.as_os_str(), OsStr::new(name)]).ok();
    }

    /// A tar of the tree that [`Self::base_image`] imports.
    pub(crate) fn busybox_archive(&self) -> PathBuf {
        let archive = self.dir.join("busybox.tar");
        if archive.exists() {
            return archive;
        }
        let tree = self.dir.join("busybox");
        for (dir, mode) in [
            ("", 0o755),
            ("bin", 0o755),
            ("dev", 0o755),
            ("etc", 0o755),
            ("home", 0o755),
            ("proc", 0o755),
            ("root", 0o700),
            ("sys", 0o755),
            ("tmp", 0o1777),
            ("usr", 0o755),
            ("var", 0o755),
        ] {
            fs::create_dir(tree.join(dir)).unwrap();
            fs::set_permissions(tree.join(dir), Permissions::from_mode(mode)).unwrap();
        }
        let busybox = find_on_path("busybox");
        copy_program(&busybox, &tree.join("bin/busybox"));
        fs::set_permissions(tree.join("bin/busybox"), Permissions::from_mode(0o755)).unwrap();
        let applets = Command::new(&busybox).arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        fs::write(
            tree.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        )
        .unwrap();
        fs::write(tree.join("etc/group"), "root:x:0:\nnobody:x:65534:\n").unwrap();
        let tar = Command::new("tar")
            .args(["--sort=name", "--mtime=@1700000000", "--numeric-owner", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .output();
        assert!(tar.unwrap().status.success());
        archive
    }

    /// Mounts and processes of this sandbox, as sentences.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = self.mounts().iter().map(|at| format!("mount at {at}")).collect();
        left.extend(self.processes().into_iter().map(|(pid, line)| format!("process {pid}: {line}")));
        left
    }

    /// In this mount namespace; see [`Self::processes`] for the others.
    fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let at = |line: &str| line.split(' ').nth(4).map(str::to_owned);
        let mut mounts: Vec<String> =
            text.lines().filter(|line| self.is_named_in(line)).filter_map(at).collect();
        mounts.reverse();
        mounts
    }

    fn is_named_in(&self, text: &str) -> bool {
        let dir = self.dir.to_str().unwrap();
        // `outcrop-test-1-1` must not find `outcrop-test-1-12`.
        text.match_indices(dir)
            .any(|(at, _)| !text[at + dir.len()..].starts_with(|next: char| next.is_ascii_digit()))
    }

    /// Other processes that were started with a path of this sandbox, stand in it, or see a mount of it.
    fn processes(&self) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if pid == std::process::id() {
                continue;
            }
            let text = |name| {
                let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let link = |name| fs::read_link(entry.path().join(name)).unwrap_or_default();
            let elsewhere = link("ns/mnt") != own;
            let named = self.is_named_in(&text("cmdline"))
                || self.is_named_in(&text("environ"))
                || self.is_named_in(&link("cwd").to_string_lossy())
                // A namespace of another run has all that was mounted when it was made.
                || (elsewhere && self.is_named_in(&text("mountinfo")) && !is_of_another_run(pid));
            // A dead process that nobody has waited for is no longer here.
            let dead = text("stat").rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
            if named && !dead {
                found.push((pid, text("cmdline")));
            }
        }
        found
    }

    /// What a failed test leaves must not disturb the next.
    fn clean_up(&self) {
        for (pid, _) in self.processes() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        wait_until(Duration::from_secs(2), || self.processes().is_empty());
        for at in self.mounts() {
            let _gone = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
        }
        remove_tree(&self.dir);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Processes that outcrop has ended may need a moment to go.
        wait_until(Duration::from_secs(3), || self.leftovers().is_empty());
        let left = self.leftovers();
        self.clean_up();
        let removed = !self.dir.exists();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind by the sandbox: {left:#?}");
            assert!(removed, "the sandbox's directory {} cannot be removed", self.dir.display());
        }
    }
}

/// One of its ancestors is the tests' binary, and none is this process.
fn is_of_another_run(mut pid: u32) -> bool {
    let mut another = false;
    while pid > 1 && pid != std::process::id() {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        another |= exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("outcrop-"));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        pid = parent.unwrap_or(0);
    }
    another && pid != std::process::id()
}

/// The longest a command of a test may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a command left behind: code, output, and the line that was run, for messages.
pub(crate) struct Outcome {
    line: String,
    pub(crate) output: std::process::Output,
}

impl Outcome {
    pub(crate) fn new(line: String, output: std::process::Output) -> Self {
        Outcome { line, output }
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self::run(command, None)
    }

    pub(crate) fn with_input(command: &mut Command, input: &[u8]) -> Self {
        command.stdin(Stdio::piped());
        Self::run(command, Some(input.to_vec()))
    }

    /// Killed, and the test failed, when it takes longer than [`PATIENCE`].
    fn run(command: &mut Command, input: Option<Vec<u8>>) -> Self {
        let line = shown(command);
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{line}: {error}"));
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // A command may end without reading all of it.
            std::thread::spawn(move || stdin.write_all(&input).ok());
        }
        let pid = rustix::process::Pid::from_child(&child);
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(child.wait_with_output()));
        let Ok(output) = ended.recv_timeout(PATIENCE) else {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let output = ended.recv_timeout(Duration::from_secs(5)).ok().and_then(Result::ok);
            let said = output.map(|output| Outcome { line: line.clone(), output }.report());
            // Without output: somebody the command has left behind still holds its standard output.
            panic!("{line}: not ended after {PATIENCE:?}\n{}", said.unwrap_or_default());
        };
        Outcome { line, output: output.unwrap() }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ends_with_code(0)
    }
    /// Ended by itself with exactly this code.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_ne!(code, 0, "use ok()");
        self.ends_with_code(code)
    }
    #[track_caller]
    fn ends_with_code(self, code: i32) -> Self {
        assert_eq!(self.output.status.code(), Some(code), "{}", self.report());
        self
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }
    /// Standard output without the line break at its end; for ids.
    pub(crate) fn line(&self) -> String {
        self.stdout().trim_end().to_owned()
    }
    pub(crate) fn lines(&self) -> Vec<String> {
        self.stdout().lines().map(str::to_owned).collect()
    }
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.report()))
    }

    /// Standard output holds this text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stdout().contains(text), "`{text}` is not in the output\n{}", self.report());
        self
    }
    #[track_caller]
    pub(crate) fn says_not(self, text: &str) -> Self {
        assert!(!self.stdout().contains(text), "`{text}` is in the output\n{}", self.report());
        self
    }
    /// Standard error holds this text.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.stderr().contains(text), "`{text}` is not in the complaint\n{}", self.report());
        self
    }

    pub(crate) fn report(&self) -> String {
        let lossy = String::from_utf8_lossy;
        let (out, err) = (lossy(&self.output.stdout), lossy(&self.output.stderr));
        format!("$ {}\n{}\n--- stdout\n{out}--- stderr\n{err}", self.line, self.output.status)
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// In a mount namespace of its own: what a test mounts there, nobody else sees, and no killed test leaves.
pub(crate) fn alone(test: impl FnOnce()) {
    const INSIDE: &str = "OUTCROP_TEST_IN_OWN_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        forget_mounts_of_others();
        return test();
    }
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(std::env::current_exe().unwrap());
    command.args(["--exact", std::thread::current().name().unwrap(), "--nocapture"]).env(INSIDE, "1");
    let inside = Outcome::of(&mut command).ok();
    assert!(inside.stdout().contains("1 passed"), "{}", inside.stdout());
}

/// In a mount namespace that was made just now: what other tests have mounted elsewhere is not kept by this one. Their
/// sandboxes would kill whoever sees it.
pub(crate) fn forget_mounts_of_others() {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let mounts = text.lines().rev().map(|line| line.split(' ').nth(4).unwrap());
    for place in mounts.filter(|place| place.contains("/outcrop-test-")) {
        // Gone by itself, perhaps.
        let _gone = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Looks every few milliseconds; says whether it came true in time.
pub(crate) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Copies a program that is going to be executed, by a process of its own: a descriptor of ours that is open for writing
/// would be inherited by the children that other tests start meanwhile, and until they execute, nobody can execute the copy.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "copying {}", from.display());
}

pub(crate) fn find_on_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("this test needs `{program}` on PATH"))
}

/// Directories without permissions (overlay's work directory) and ones that are still being filled.
fn remove_tree(dir: &Path) {
    for _ in 0..5 {
        if fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
        let mut open = vec![dir.to_owned()];
        while let Some(dir) = open.pop() {
            let _not_ours = fs::set_permissions(&dir, Permissions::from_mode(0o700));
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            open.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_sandbox_sees_its_mounts_and_its_processes_and_nothing_else() {
    let sandbox = Sandbox::new();
    let other = Sandbox::new();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());

    let mut child = Command::new("sleep").arg("60").current_dir(sandbox.context()).spawn().unwrap();
    // Before it is `sleep` it is a copy of this process.
    let found = || sandbox.leftovers();
    wait_until(Duration::from_secs(9), || found().iter().any(|left| left.ends_with("sleep 60 ")));
    let found = found();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, [format!("process {}: sleep 60 ", child.id())]);
    assert_eq!(other.leftovers(), Vec::<String>::new());
}

#[test]
fn a_sandbox_leaves_no_directory() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir().to_owned();
    fs::create_dir_all(dir.join("root/a/b")).unwrap();
    fs::set_permissions(dir.join("root/a"), Permissions::from_mode(0o000)).unwrap();
    drop(sandbox);
    assert!(!dir.exists());
}

/// A sandbox with a base image `base` and this Dockerfile.
pub(crate) fn based(dockerfile: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    sandbox.dockerfile(dockerfile);
    sandbox
}

/// Builds the context as `it`.
pub(crate) fn build_it(sandbox: &Sandbox, more: &[&str]) -> Outcome {
    build_what(sandbox, &[&["-t", "it"], more].concat())
}

/// Builds the context without a network, and gives it no name.
pub(crate) fn build_offline(sandbox: &Sandbox, more: &[&str]) -> Outcome {
    build_what(sandbox, &[&["--network", "none"], more].concat())
}

fn build_what(sandbox: &Sandbox, flags: &[&str]) -> Outcome {
    sandbox.outcrop(&[&["build", "--progress", "plain"], flags, &["."]].concat())
}

/// Runs another tool in the context's directory; what it says.
#[track_caller]
pub(crate) fn tool(sandbox: &Sandbox, words: &[&str]) -> String {
    let output = Command::new(find_on_path(words[0]))
        .args(&words[1..])
        .current_dir(sandbox.context())
        .env("HOME", sandbox.dir())
        .env("TMPDIR", sandbox.dir())
        .output()
        .unwrap();
    let lossy = String::from_utf8_lossy;
    assert!(output.status.success(), "{words:?}: {}{}", lossy(&output.stdout), lossy(&output.stderr));
    lossy(&output.stdout).into_owned()
}

/// All directories (the root first), and everything else.
pub(crate) fn all_paths(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut others) = (vec![root.to_path_buf()], Vec::new());
    let mut at = 0;
    while at < dirs.len() {
        let mut entries: Vec<_> = fs::read_dir(&dirs[at]).unwrap().map(|entry| entry.unwrap()).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let is_dir = entry.file_type().unwrap().is_dir();
            if is_dir { &mut dirs } else { &mut others }.push(entry.path());
        }
        at += 1;
    }
    (dirs, others)
}

/// Whatever stands there, if anything does.
pub(crate) fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}
