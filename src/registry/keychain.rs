//! Where credentials are kept: Docker's `config.json`, the containers' `auth.json` (containers-auth.json(5)), and the
//! helpers that these name (docker-credential-helpers: get, store, erase, list on standard input and output).

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Credentials;
use crate::error::{Context as _, Error, Kind, Result};
use crate::job::Job;
use crate::sys::child::{Said, listen};

/// Docker Hub's name in these files.
const HUB: &str = "https://index.docker.io/v1/";

/// Bytes of what a helper says; beyond, nobody listens.
const MOST_SAID: usize = 1 << 20;

/// The user of a secret that is an identity token.
const TOKEN_USER: &str = "<token>";

/// What a registry is told who we are by.
#[derive(Clone)]
pub enum Login {
    Password(Credentials),
    /// A token that others are got with (OAuth2's refresh token).
    Identity(String),
    /// A token for the registry itself.
    Registry(String),
}

/// Files in the order in which they are asked; the first is written to.
#[derive(Clone, Debug, Default)]
pub struct Keychain {
    pub files: Vec<PathBuf>,
    /// Where helpers are looked for.
    pub path: OsString,
}

/// What is read of a file; the rest is kept as it is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: Map<String, Value>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Keychain {
    /// For a repository of a registry, as names have it: `docker.io`, `library/debian`.
    pub fn find(&self, host: &str, repository: &str, job: &Job) -> Result<Option<Login>> {
        for path in &self.files {
            let Some(file) = read(path)? else { continue };
            let found = self.find_in(&file, host, repository, job);
            let found =
                found.context(|| format!("looking for the credentials of {host} in {}", path.display()));
            if let Some(login) = found? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    fn find_in(&self, file: &File, host: &str, repository: &str, job: &Job) -> Result<Option<Login>> {
        if let Some(helper) = helper_of(file, host)
            && let Some(login) = self.get(&helper, host, job)?
        {
            return Ok(Some(login));
        }
        // The nearest wins: host/a/b, host/a, host.
        let mut at = format!("{host}/{repository}");
        loop {
            if let Some(entry) = file.auths.get(&at) {
                return login_of(entry, &at);
            }
            match at.rsplit_once('/') {
                Some((shorter, _)) => at = shorter.to_owned(),
                None => break,
            }
        }
        for (key, entry) in &file.auths {
            if is_of(key, host) {
                return login_of(entry, key);
            }
        }
        Ok(None)
    }

    /// Keeps them; the place, for people. `None` where a helper has them.
    pub fn store(&self, host: &str, credentials: &Credentials, job: &Job) -> Result<Option<PathBuf>> {
        let path = self.own()?;
        let file = read(path)?.unwrap_or_default();
        if let Some(helper) = helper_of(&file, host) {
            let kept = Kept {
                server: key_of(host),
                user: credentials.user.clone(),
                secret: credentials.password.clone(),
            };
            let input = serde_json::to_vec(&kept).expect("it is plain data");
            self.run(&helper, "store", &input, job)?.map_err(|said| {
                Error::new(
                    Kind::Unavailable,
                    format!("docker-credential-{helper} does not keep them: {said}"),
                )
            })?;
            return Ok(None);
        }
        let auth = BASE64_STANDARD.encode(format!("{}:{}", credentials.user, credentials.password));
        change(path, |auths| {
            auths.retain(|key, _| !is_of(key, host));
            auths.insert(key_of(host), json!({ "auth": auth }));
        })?;
        Ok(Some(path.clone()))
    }

    /// False: there were none.
    pub fn erase(&self, host: &str, job: &Job) -> Result<bool> {
        let path = self.own()?;
        let Some(file) = read(path)? else { return Ok(false) };
        let mut erased = false;
        if let Some(helper) = helper_of(&file, host) {
            erased |= self.get(&helper, host, job)?.is_some();
            if erased {
                self.run(&helper, "erase", key_of(host).as_bytes(), job)?.map_err(|said| {
                    Error::new(
                        Kind::Unavailable,
                        format!("docker-credential-{helper} does not forget them: {said}"),
                    )
                })?;
            }
        }
        if file.auths.keys().any(|key| is_of(key, host)) {
            change(path, |auths| auths.retain(|key, _| !is_of(key, host)))?;
            erased = true;
        }
        Ok(erased)
    }

    fn own(&self) -> Result<&PathBuf> {
        self.files.first().ok_or_else(|| {
            Error::invalid("there is no place to keep credentials in")
                .hint("set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE")
        })
    }

    fn get(&self, helper: &str, host: &str, job: &Job) -> Result<Option<Login>> {
        let answer = match self.run(helper, "get", key_of(host).as_bytes(), job)? {
            Ok(answer) => answer,
            // What the helpers' library says; some say it in other words.
            Err(said) if said.contains("not found") || said.contains("no credentials") => return Ok(None),
            Err(said) => {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("docker-credential-{helper} gives no credentials: {said}"),
                ));
            }
        };
        let kept: Kept = serde_json::from_slice(&answer)
            .context(|| format!("reading what docker-credential-{helper} says"))?;
        Ok(match kept.user.as_str() {
            TOKEN_USER => Some(Login::Identity(kept.secret)),
            "" if kept.secret.is_empty() => None,
            _ => Some(Login::Password(Credentials { user: kept.user, password: kept.secret })),
        })
    }

    /// What it says, or why not.
    fn run(&self, helper: &str, verb: &str, input: &[u8], job: &Job) -> Result<Result<Vec<u8>, String>> {
        let name = format!("docker-credential-{helper}");
        let sane =
            !helper.is_empty() && helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let program =
            std::env::split_paths(&self.path).map(|dir| dir.join(&name)).find(|file| file.is_file());
        let Some(program) = program.filter(|_| sane) else {
            return Err(Error::not_found(format!(
                "the credential helper `{name}` is not on the search path"
            ))
            .hint("install it, or take it out of the file that names it (credsStore, credHelpers)"));
        };
        let doing = || format!("asking {name}");
        let mut child = Command::new(program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(doing)?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // One that reads nothing, as for `list`, is no failure.
        drop(stdin.write_all(input));
        drop(stdin);
        let Said { status, out, err } = listen(child, MOST_SAID, &|| job.check()).context(doing)?;
        if status.success() {
            return Ok(Ok(out));
        }
        // Helpers say what is wrong on standard output.
        let said = [out, err].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        Ok(Err(said.trim().to_owned()))
    }
}

/// The file's key of a registry.
fn key_of(host: &str) -> String {
    if host == "docker.io" { HUB.to_owned() } else { host.to_owned() }
}

/// The registry of a key, which may be an address; Docker Hub's by the name that images have.
pub(crate) fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Whether the key is for all of the registry, and not for a part of it: `host/team`.
fn is_of(key: &str, host: &str) -> bool {
    host_of(key) == host && (key.contains("://") || !key.contains('/'))
}

fn helper_of(file: &File, host: &str) -> Option<String> {
    let own = file.cred_helpers.iter().find(|(key, _)| host_of(key) == host);
    let own = own.and_then(|(_, helper)| helper.as_str()).map(str::to_owned);
    own.or_else(|| file.creds_store.clone()).filter(|helper| !helper.is_empty())
}

fn login_of(entry: &Value, key: &str) -> Result<Option<Login>> {
    let bad = || format!("the entry `{key}` is no login");
    let entry: Entry = serde_json::from_value(entry.clone()).context(bad)?;
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Login::Identity(entry.identitytoken)));
    }
    if !entry.registrytoken.is_empty() {
        return Ok(Some(Login::Registry(entry.registrytoken)));
    }
    if entry.auth.is_empty() {
        let there = !entry.username.is_empty();
        return Ok(there.then(|| {
            Login::Password(Credentials { user: entry.username.clone(), password: entry.password.clone() })
        }));
    }
    let decoded =
        BASE64_STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (user, password) = pair.ok_or_else(|| Error::invalid(bad()))?;
    // Docker pads with NUL bytes.
    let password = password.trim_end_matches('\0');
    Ok(Some(Login::Password(Credentials { user: user.to_owned(), password: password.to_owned() })))
}

fn read(path: &Path) -> Result<Option<File>> {
    let doing = || format!("reading the credentials in {}", path.display());
    let text = match fs::read(path) {
        Err(cause)
            if matches!(cause.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        text => text.context(doing)?,
    };
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).context(doing)
}

/// Written anew beside it, then renamed; readable by its owner alone, or as it was.
fn change(path: &Path, with: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
    let doing = || format!("writing the credentials to {}", path.display());
    // A link is not replaced: its target is.
    let path = &fs::canonicalize(path).unwrap_or_else(|_absent| path.to_owned());
    let mut all: Map<String, Value> = match fs::read(path) {
        Ok(text) if !text.trim_ascii().is_empty() => serde_json::from_slice(&text).context(doing)?,
        Ok(_) => Map::new(),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(cause) => return Err(cause).context(doing),
    };
    let auths = all.entry("auths").or_insert_with(|| json!({}));
    let Value::Object(auths) = auths else {
        return Err(Error::invalid(format!("`auths` in {} is no object", path.display())));
    };
    with(auths);
    let mut text = serde_json::to_vec_pretty(&all).expect("it was JSON");
    text.push(b'\n');
    let dir = path.parent().ok_or_else(|| Error::invalid(format!("{} is no file", path.display())))?;
    fs::create_dir_all(dir).context(doing)?;
    let making = path.with_extension(format!("making-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making)?;
        file.write_all(&text)?;
        if let Ok(standing) = fs::metadata(path) {
            // Whoever may not give it back keeps it.
            drop(fchown(&file, Some(standing.uid()), Some(standing.gid())));
            file.set_permissions(fs::Permissions::from_mode(standing.permissions().mode() & 0o7777))?;
        }
        file.sync_data()?;
        fs::rename(&making, path)
    };
    let written = write();
    if written.is_err() {
        drop(fs::remove_file(&making));
    }
    written.context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, host: &str, repository: &str) -> String {
        let file: File = serde_json::from_str(json).unwrap();
        match Keychain::default().find_in(&file, host, repository, &Job::silent()) {
            Ok(Some(Login::Password(Credentials { user, password }))) => format!("{user} {password}"),
            Ok(Some(Login::Identity(token))) => format!("identity {token}"),
            Ok(Some(Login::Registry(token))) => format!("registry {token}"),
            Ok(None) => "none".into(),
            Err(error) => error.message().into(),
        }
    }

    #[test]
    fn entries_are_found_however_the_registry_is_written() {
        // "me:pass:word"
        let me = "bWU6cGFzczp3b3Jk";
        for (key, host, repository, expected) in [
            ("https://index.docker.io/v1/", "docker.io", "library/x", "me pass:word"),
            ("docker.io", "docker.io", "library/x", "me pass:word"),
            ("reg.test:5000", "reg.test:5000", "a", "me pass:word"),
            ("https://reg.test:5000/v2/", "reg.test:5000", "a", "me pass:word"),
            ("reg.test", "reg.test:5000", "a", "none"),
            ("reg.test/team", "reg.test", "team/app", "me pass:word"),
            ("reg.test/team", "reg.test", "other/app", "none"),
        ] {
            let json = format!(r#"{{"auths":{{"{key}":{{"auth":"{me}"}}}}}}"#);
            assert_eq!(found(&json, host, repository), expected, "{key}");
        }
    }

    #[test]
    fn the_nearest_entry_wins() {
        let json = r#"{"auths":{"r.test":{"auth":"YTox"},"r.test/x":{"auth":"Yjoy"},"r.test/x/y":{"identitytoken":"t"}}}"#;
        for (repository, expected) in [("z", "a 1"), ("x/z", "b 2"), ("x/y", "identity t"), ("xy", "a 1")] {
            assert_eq!(found(json, "r.test", repository), expected, "{repository}");
        }
    }

    #[test]
    fn what_is_no_login_is_said_without_its_secret() {
        for auth in ["%%%", "bWU="] {
            let said = found(&format!(r#"{{"auths":{{"r.test":{{"auth":"{auth}"}}}}}}"#), "r.test", "x");
            assert_eq!(said, "the entry `r.test` is no login");
        }
        assert_eq!(found(r#"{"auths":{"r.test":{}}}"#, "r.test", "x"), "none");
    }
}
