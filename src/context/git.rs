//! Commits of git repositories, by the `git` of the host. Of each remote a bare repository is kept in
//! `<root>/cache/git`, worked in by one build at a time; what is checked out is a directory of its own.
//!
//! Git sees none of the caller's configuration and never asks. The protocol `file` is for what the user names, not
//! for what a repository names: submodules cannot reach into the host.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{Mode, OFlags};

use super::git_url::{is_commit, shown};
use super::private::Private;
use super::remote::{Remote, name_of};
use super::trim;
use crate::db::Lease;
use crate::engine::Engine;
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::Digest;
use crate::job::{Event, Job, LOOK};
use crate::plan::GitSource;
use crate::registry::without_password;
use crate::sys::child;
use crate::sys::durable::{sync_tree, write_durably};

/// In the store.
pub(super) const PLACE: &str = "cache/git";
/// In a repository that is whole: its address.
pub(super) const COMPLETE: &str = "complete";
/// Bytes of all that is kept.
const MOST_KEPT: u64 = 8 << 30;
/// Bytes of what git says that are read.
const MOST_SAID: usize = 4 << 20;

/// What a reference is at its remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    commit: String,
    /// An annotated tag's own id.
    tag: Option<String>,
    /// The full name, where it has one.
    full: Option<String>,
}

/// Dropped, it is gone.
pub struct Checkout {
    root: OwnedFd,
    path: PathBuf,
    _private: Private,
    /// Where the bytes are not the same twice.
    pub(super) identity: Option<Digest>,
}

impl Checkout {
    /// Of the directory that was asked for.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl AsFd for Checkout {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

pub(super) fn checkout(remote: &Remote<'_>, source: &GitSource, job: &Job) -> Result<Checkout> {
    let private = Private::new(&remote.engine.root)?;
    let git = Git { remote, address: &source.remote, private: &private, job };
    let say = || format!("getting `{}`", shown(source));
    let resolved = git.resolve(source).context(say)?;
    check(source, &resolved).context(say)?;
    {
        let repository = Repository::open(&git, source).context(say)?;
        repository.bring(&git, source, &resolved).context(say)?;
        repository.check_out(&git, source, &resolved).context(say)?;
    }
    let root = subdirectory(&private, &source.subdir).context(say)?;
    let keeps = source.keep_git_dir && source.subdir.is_empty();
    let identity = keeps.then(|| identity(source, &resolved));
    let path = private.tree_path().join(&source.subdir);
    Ok(Checkout { root, path, _private: private, identity })
}

/// The committer's, in seconds since 1970.
pub(super) fn time(remote: &Remote<'_>, source: &GitSource, job: &Job) -> Result<i64> {
    let private = Private::new(&remote.engine.root)?;
    let git = Git { remote, address: &source.remote, private: &private, job };
    let say = || format!("getting `{}`", shown(source));
    let resolved = git.resolve(source).context(say)?;
    check(source, &resolved).context(say)?;
    let repository = Repository::open(&git, source).context(say)?;
    repository.bring(&git, source, &resolved).context(say)?;
    let args = [&repository.git_dir(), "show", "--no-patch", "--format=%ct", &resolved.commit];
    let said = git.must(source, &repository.dir, &args).context(say)?;
    let seconds = said.out.trim().parse::<i64>();
    seconds.map_err(|cause| Error::internal("git tells no time").because(cause)).context(say)
}

/// All that the files depend on, `.git` among them: its index holds times, so its bytes say nothing.
fn identity(source: &GitSource, resolved: &Resolved) -> Digest {
    let text = serde_json::json!({
        "git": without_password(&source.remote),
        "commit": resolved.commit,
        "tag": resolved.tag,
        "reference": resolved.full,
        "submodules": source.submodules,
    });
    Digest::of(text.to_string().as_bytes())
}

fn check(source: &GitSource, resolved: &Resolved) -> Result<()> {
    let Some(checksum) = &source.checksum else { return Ok(()) };
    let found = [Some(&resolved.commit), resolved.tag.as_ref()];
    if found.iter().flatten().any(|id| id.starts_with(checksum.as_str())) {
        return Ok(());
    }
    let found: Vec<&str> = found.into_iter().flatten().map(String::as_str).collect();
    Err(Error::invalid(format!(
        "it is not the commit expected: expected {checksum}, got {}",
        found.join(" or ")
    ))
    .hint("the reference was moved at its source, or the checksum is another commit's"))
}

/// Each part a directory: a link in a repository may lead anywhere.
fn subdirectory(private: &Private, subdir: &str) -> Result<OwnedFd> {
    let mut at = private.tree().try_clone_to_owned().context(|| "opening what was checked out")?;
    for part in subdir.split('/').filter(|part| !part.is_empty()) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, part, flags, Mode::empty()).map_err(|cause| {
            Error::not_found(format!("the commit has no directory `{subdir}`"))
                .hint("what stands behind the `:` is a directory of the repository")
                .because(std::io::Error::from(cause))
        })?;
    }
    Ok(at)
}

/// Whoever has it works in the kept repository of that name, or takes it away.
pub(super) fn lease(engine: &Engine, name: &str) -> Result<Option<Lease>> {
    engine.db.try_lease(&format!("git-{name}"))
}

struct Git<'g> {
    remote: &'g Remote<'g>,
    /// The remote's.
    address: &'g str,
    private: &'g Private,
    job: &'g Job,
}

struct Said {
    ok: bool,
    out: String,
    err: String,
}

impl Git<'_> {
    fn resolve(&self, source: &GitSource) -> Result<Resolved> {
        if let Some(commit) = source.reference.as_ref().filter(|reference| is_commit(reference)) {
            return Ok(Resolved { commit: commit.clone(), tag: None, full: None });
        }
        let key = (source.remote.clone(), source.reference.clone());
        if let Some(known) = self.remote.commits.lock().expect("no holder panics").get(&key) {
            return Ok(known.clone());
        }
        let reference = source.reference.as_deref().unwrap_or("HEAD");
        let peeled = format!("{reference}^{{}}");
        let said = self
            .run(self.private.path(), &["ls-remote", "--symref", "--", &source.remote, reference, &peeled])?;
        if !said.ok {
            return Err(self.failed(source, &said));
        }
        let resolved = choose(&said.out, source.reference.as_deref()).ok_or_else(|| {
            let error = Error::not_found(match &source.reference {
                Some(reference) => format!("the repository has no branch or tag `{reference}`"),
                None => "the repository has no HEAD: it is empty".to_owned(),
            });
            match reference.len() >= 7 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                true => error.hint("a commit is named by all 40 digits of its id"),
                false => error.hint("`git ls-remote` lists what it has"),
            }
        })?;
        self.remote.commits.lock().expect("no holder panics").insert(key, resolved.clone());
        Ok(resolved)
    }

    /// Must succeed.
    fn must(&self, source: &GitSource, dir: &Path, args: &[&str]) -> Result<Said> {
        let said = self.run(dir, args)?;
        if said.ok { Ok(said) } else { Err(self.failed(source, &said)) }
    }

    /// What git complains of, as an error that says what to do.
    fn failed(&self, source: &GitSource, said: &Said) -> Error {
        let err = said.err.replace(&source.remote, &without_password(&source.remote));
        let lines = err.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:"));
        let mut lines: VecDeque<&str> = lines.collect();
        while lines.len() > 4 {
            lines.pop_front();
        }
        let cause = Error::unavailable(lines.into_iter().collect::<Vec<_>>().join("; "));
        let says = |texts: &[&str]| texts.iter().any(|text| err.contains(text));
        let (kind, what, hint) = if says(&[
            "could not read Username",
            "could not read Password",
            "Authentication failed",
            "Permission denied (publickey",
            "terminal prompts disabled",
            "The requested URL returned error: 403",
            "The requested URL returned error: 401",
        ]) {
            let hint = "for ssh, an agent with the key must run (SSH_AUTH_SOCK); over https, a token goes into the \
                        address: https://TOKEN@host/..";
            (Kind::Denied, "the repository asks for authorization", hint)
        } else if says(&[
            "not found",
            "does not exist",
            "does not appear to be a git repository",
            "repository not exported",
            "access denied or repository",
        ]) {
            (Kind::NotFound, "there is no repository", "is the address spelled right, and may you read it?")
        } else if says(&["Could not resolve host", "Connection refused", "unable to connect", "timed out"]) {
            (
                Kind::Unavailable,
                "the repository cannot be reached",
                "is there a network, and is the address right?",
            )
        } else {
            (Kind::Unavailable, "git failed", "`git ls-remote` with the same address may say more")
        };
        Error::new(kind, what).hint(hint).because(cause)
    }

    /// Runs git to its end, or to the end of the job; in `dir`, with files made for all to read.
    fn run(&self, dir: &Path, args: &[&str]) -> Result<Said> {
        self.job.check()?;
        let say = || "running `git`";
        let mut command = Command::new("/bin/sh");
        // A file's mode is 644 or 755 whatever the caller's umask.
        command.args(["-c", "umask 022 && exec git \"$@\"", "git"]);
        command.args(["-c", "protocol.file.allow=user", "-c", "gc.auto=0", "-c", "core.hooksPath=/dev/null"]);
        // What was fetched is on disk before anything names it: as packs, which git always writes out.
        command.args(["-c", "fetch.unpackLimit=1"]);
        command.args([
            "-c",
            "http.lowSpeedLimit=1",
            "-c",
            "http.lowSpeedTime=60",
            "-c",
            "advice.detachedHead=false",
        ]);
        command.args(args).current_dir(dir).env_clear().envs(self.environment(self.address));
        command.stdin(self.private.hold()?).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Its children go with it.
        command.process_group(0);
        let child = command.spawn().context(say)?;
        let child::Said { status, out, err } = child::listen(child, MOST_SAID, &|| self.job.check())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, err) = (text(out), text(err));
        if status.code() == Some(127) {
            return Err(Error::unsupported("there is no `git` on this host")
                .hint("install git: repositories are read with it"));
        }
        tracing::debug!(?args, ok = status.success(), "git");
        Ok(Said { ok: status.success(), out, err })
    }

    /// What the build's secrets hold for the remote (BuildKit): `GIT_AUTH_TOKEN` or `GIT_AUTH_HEADER`, for one host with
    /// `.<host>` behind. For whom it is, and the header.
    fn authorization(&self, address: &str) -> Option<(String, String)> {
        let (scheme, rest) = address.split_once("://")?;
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let host = rest.split(['/', '?', '#']).next()?;
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let header = [format!(".{host}"), String::new()].iter().find_map(|suffix| {
            let secret = |name: &str| self.remote.secret_text(&format!("{name}{suffix}"));
            let token = |token: String| {
                format!("basic {}", BASE64_STANDARD.encode(format!("x-access-token:{token}")))
            };
            secret("GIT_AUTH_HEADER").or_else(|| secret("GIT_AUTH_TOKEN").map(token))
        })?;
        // One token is for all of that host's repositories, its submodules among them, where it is GitHub (BuildKit).
        let scope = match host {
            "github.com" | "www.github.com" => format!("https://{host}/"),
            _ => address.to_owned(),
        };
        Some((scope, header))
    }

    fn environment(&self, address: &str) -> Vec<(&'static str, OsString)> {
        let (host, proxies) = (self.remote.git, &self.remote.registry.proxies);
        let known = self.remote.engine.root.join("cache/known_hosts");
        let mut hosts = quoted(known.as_os_str());
        if let Some(file) = &host.known_hosts {
            hosts.push(" ");
            hosts.push(quoted(file.as_os_str()));
        }
        let mut ssh = OsString::from(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=30 \
             -o ServerAliveInterval=15 -o UserKnownHostsFile='",
        );
        ssh.push(hosts);
        ssh.push("'");
        let mut environment: Vec<(&'static str, OsString)> = vec![
            ("PATH", host.path.clone()),
            ("HOME", "/dev/null".into()),
            ("LC_ALL", "C".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_ASKPASS", "true".into()),
            ("GIT_SSH_COMMAND", ssh),
            ("GIT_INDEX_FILE", self.private.path().join("index").into()),
        ];
        if let Some(agent) = &host.ssh_agent {
            environment.push(("SSH_AUTH_SOCK", agent.into()));
        }
        for (name, value) in [("http_proxy", &proxies.http), ("https_proxy", &proxies.https)] {
            environment.extend(value.as_ref().map(|value| (name, value.into())));
        }
        if let Some((scope, header)) = self.authorization(address) {
            // In no command line, where others could read it.
            environment.push(("GIT_CONFIG_COUNT", "1".into()));
            environment.push(("GIT_CONFIG_KEY_0", format!("http.{scope}.extraheader").into()));
            environment.push(("GIT_CONFIG_VALUE_0", format!("Authorization: {header}").into()));
        }
        if !proxies.exempt.is_empty() {
            environment.push(("no_proxy", proxies.exempt.join(",").into()));
        }
        environment
    }
}

/// For ssh's own reading of a list of file names, inside single quotes of the shell.
fn quoted(name: &OsStr) -> OsString {
    let mut quoted = OsString::from("\"");
    quoted.push(name);
    quoted.push("\"");
    quoted
}

/// Which of the lines of `git ls-remote` is meant; a branch goes before a tag of the same name.
fn choose(listing: &str, reference: Option<&str>) -> Option<Resolved> {
    let lines = || listing.lines().filter_map(|line| line.split_once('\t'));
    let id_of = |name: &str| {
        let found = lines().find(|(id, known)| *known == name && is_commit(id));
        found.map(|(id, _)| id.to_owned())
    };
    let Some(reference) = reference else {
        let target = lines().find_map(|(what, name)| what.strip_prefix("ref: ").filter(|_| name == "HEAD"));
        return Some(Resolved { commit: id_of("HEAD")?, tag: None, full: target.map(str::to_owned) });
    };
    let plain = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference));
    for full in [plain("refs/"), plain("refs/heads/"), plain("refs/tags/")] {
        if let Some(id) = id_of(&full) {
            return Some(match id_of(&format!("{full}^{{}}")) {
                Some(commit) => Resolved { commit, tag: Some(id), full: Some(full) },
                None => Resolved { commit: id, tag: None, full: Some(full) },
            });
        }
    }
    let head = (reference == "HEAD").then(|| id_of("HEAD")).flatten()?;
    Some(Resolved { commit: head, tag: None, full: None })
}

/// What is kept of a remote, while it is ours.
struct Repository {
    dir: PathBuf,
    _lease: Lease,
}

impl Repository {
    fn open(git: &Git<'_>, source: &GitSource) -> Result<Self> {
        let engine = git.remote.engine;
        let name = name_of(&source.remote);
        let cache = engine.root.join(PLACE);
        fs::create_dir_all(&cache).context(|| format!("making `{}`", cache.display()))?;
        let mut told = false;
        let lease = loop {
            match lease(engine, &name)? {
                Some(lease) => break lease,
                None if !std::mem::replace(&mut told, true) => git.job.report(Event::Note(format!(
                    "another build gets `{}`; waiting for it",
                    without_password(&source.remote)
                ))),
                None => {}
            }
            git.job.pause(LOOK)?;
        };
        let dir = cache.join(&name);
        let mark = dir.join(COMPLETE);
        // A power cut may have left a mark without its content, and what it stands for.
        if fs::metadata(&mark).map_or(true, |mark| mark.len() == 0) {
            // One that was begun and not finished is begun again.
            let trash = engine.root.join("trash").join(crate::db::random_name());
            match fs::rename(&dir, trash) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    return Err(cause).context(|| "taking away a repository that is not whole");
                }
                _ => {}
            }
            let long = source
                .reference
                .as_ref()
                .is_some_and(|reference| reference.len() == 64 && is_commit(reference));
            let format = if long { "--object-format=sha256" } else { "--object-format=sha1" };
            let path = dir.to_string_lossy().into_owned();
            git.must(source, &cache, &["init", "--quiet", "--bare", "--template=", format, "--", &path])?;
            let address = without_password(&source.remote);
            sync_tree(&dir)
                .and_then(|()| write_durably(&mark, &dir.join("complete.new"), address.as_bytes()))
                .context(|| "making a repository")?;
        }
        trim::touch(&dir);
        let held = |name: &str| self::lease(engine, name).ok().flatten();
        trim::trim(&cache, &engine.root.join("trash"), MOST_KEPT, held)?;
        Ok(Repository { dir, _lease: lease })
    }

    fn git_dir(&self) -> String {
        format!("--git-dir={}", self.dir.display())
    }

    fn has(&self, git: &Git<'_>, id: &str) -> Result<bool> {
        let object = format!("{id}^{{commit}}");
        Ok(git.run(&self.dir, &[&self.git_dir(), "cat-file", "-e", &object])?.ok)
    }

    /// Afterwards the commit is here, and the tag, if it is one.
    fn bring(&self, git: &Git<'_>, source: &GitSource, resolved: &Resolved) -> Result<()> {
        let wanted = resolved.tag.as_ref().unwrap_or(&resolved.commit);
        if self.has(git, wanted)? {
            return Ok(());
        }
        // What a killed build left.
        drop(fs::remove_file(self.dir.join("shallow.lock")));
        let keep = format!("+{wanted}:refs/outcrop/{wanted}");
        let by_name = resolved.full.as_ref().map(|full| format!("+{full}:refs/outcrop/{wanted}"));
        let git_dir = self.git_dir();
        let fetch = |how: &[&str], what: &[&str]| {
            let mut args =
                vec![git_dir.as_str(), "fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"];
            args.extend(how);
            args.extend(["--", source.remote.as_str()]);
            args.extend(what);
            git.run(&self.dir, &args)
        };
        let mut said = fetch(&["--depth=1"], &[by_name.as_ref().unwrap_or(&keep)])?;
        if !said.ok && (said.err.contains("shallow") || said.err.contains("depth")) {
            said = fetch(&[], &[by_name.as_ref().unwrap_or(&keep)])?;
        }
        if self.has(git, wanted)? {
            return Ok(());
        }
        if by_name.is_some() {
            // The name moved on since it was asked for.
            fetch(&["--depth=1"], &[&keep])?;
            if self.has(git, wanted)? {
                return Ok(());
            }
        }
        // A server that gives only what it has names for: everything, then.
        let how: &[&str] = if self.dir.join("shallow").exists() { &["--unshallow"] } else { &[] };
        let all = fetch(how, &["+refs/heads/*:refs/outcrop/heads/*", "+refs/tags/*:refs/outcrop/tags/*"])?;
        match (self.has(git, wanted)?, all.ok) {
            (true, _) => Ok(()),
            (false, true) => Err(Error::not_found(format!("the repository has no commit {wanted}"))
                .hint("is the id spelled right, and has it been pushed?")),
            (false, false) => Err(git.failed(source, if said.ok { &all } else { &said })),
        }
    }

    fn check_out(&self, git: &Git<'_>, source: &GitSource, resolved: &Resolved) -> Result<()> {
        let tree = git.private.tree_path();
        let work_tree = format!("--work-tree={}", tree.display());
        let mut git_dir = self.git_dir();
        if source.keep_git_dir && source.subdir.is_empty() {
            git_dir = format!("--git-dir={}", tree.join(".git").display());
            self.clone_into(git, source, resolved, &git_dir, &tree)?;
        } else {
            let commit = resolved.commit.as_str();
            git.must(source, &tree, &[&git_dir, &work_tree, "read-tree", commit])?;
            git.must(
                source,
                &tree,
                &[&git_dir, &work_tree, "checkout-index", "--all", "--force", "--quiet"],
            )?;
        }
        if source.submodules && fs::symlink_metadata(tree.join(".gitmodules")).is_ok_and(|m| m.is_file()) {
            let origin = format!("remote.origin.url={}", source.remote);
            let run = |args: &[&str]| {
                let mut all = vec![&*git_dir, &*work_tree, "-c", &*origin, "submodule", "--quiet"];
                all.extend(args);
                git.must(source, &tree, &all).context(|| "getting its submodules")
            };
            // What was kept may have come from elsewhere.
            run(&["sync", "--recursive"])?;
            run(&["update", "--init", "--recursive", "--depth=1", "--force"])?;
        }
        if !source.keep_git_dir || !source.subdir.is_empty() {
            without_git_files(&tree).context(|| "taking `.git` away")?;
        }
        Ok(())
    }

    /// A repository of its own with that one commit.
    fn clone_into(
        &self,
        git: &Git<'_>,
        source: &GitSource,
        resolved: &Resolved,
        git_dir: &str,
        tree: &Path,
    ) -> Result<()> {
        let work_tree = format!("--work-tree={}", tree.display());
        let wanted = resolved.tag.as_ref().unwrap_or(&resolved.commit);
        let format = if wanted.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        let run = |args: &[&str]| {
            let mut all = vec![git_dir, &*work_tree];
            all.extend(args);
            git.must(source, tree, &all)
        };
        run(&["-c", "init.defaultBranch=master", "init", "--quiet", format])?;
        let from = format!("file://{}", self.dir.display());
        let kept = format!("refs/outcrop/{wanted}");
        git.must(source, &self.dir, &[&self.git_dir(), "update-ref", &kept, wanted])?;
        let name = match &resolved.full {
            Some(full) => format!("{kept}:{full}"),
            None => kept,
        };
        run(&["fetch", "--quiet", "-u", "--depth=1", "--no-tags", &from, &name])?;
        fs::remove_file(git.private.path().join("index")).ok();
        run(&["checkout", "--quiet", "--detach", &resolved.commit])?;
        fs::rename(git.private.path().join("index"), tree.join(".git/index")).ok();
        run(&["remote", "add", "origin", &without_password(&source.remote)])?;
        run(&["reflog", "expire", "--all", "--expire=now"])?;
        drop(fs::remove_file(tree.join(".git/FETCH_HEAD")));
        Ok(())
    }
}

/// Files called `.git` in submodules: they point into the cache.
fn without_git_files(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if entry.file_name() == ".git" && kind.is_file() {
            fs::remove_file(entry.path())?;
        } else if kind.is_dir() {
            without_git_files(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    #[test]
    fn a_reference_means_a_branch_before_a_tag_and_a_tag_means_its_commit() {
        let (a, b, c, d) = (id('a'), id('b'), id('c'), id('d'));
        let listing = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/heads/both\n{c}\trefs/tags/both\n\
             {c}\trefs/tags/v1\n{d}\trefs/tags/v1^{{}}\n{d}\trefs/heads/other/v1\n"
        );
        let resolved = |commit: &str, tag: Option<&str>, full: &str| {
            Some(Resolved { commit: commit.into(), tag: tag.map(str::to_owned), full: Some(full.into()) })
        };
        assert_eq!(choose(&listing, None), resolved(&a, None, "refs/heads/main"));
        for (reference, expected) in [
            ("main", resolved(&a, None, "refs/heads/main")),
            ("refs/heads/main", resolved(&a, None, "refs/heads/main")),
            ("heads/main", resolved(&a, None, "refs/heads/main")),
            ("both", resolved(&b, None, "refs/heads/both")),
            ("tags/both", resolved(&c, None, "refs/tags/both")),
            ("v1", resolved(&d, Some(&c), "refs/tags/v1")),
            ("none", None),
        ] {
            assert_eq!(choose(&listing, Some(reference)), expected, "{reference}");
        }
        assert_eq!(choose("", None), None);
    }
}
