//! Logging in: a registry with passwords, one with a token server, the files and helpers that keep credentials.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process};

use crate::registry_kit::{Asked, Image, Layout, RealRegistry, Reply, Server, Told};
use crate::sandbox::{Sandbox, find_on_path, wait_until};
use crate::transfer_kit::{LONG, start};

/// `me` with the password `s3cret`, as htpasswd writes it.
const USERS: &str = "me:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

pub(crate) fn with_passwords(sandbox: &Sandbox) -> RealRegistry {
    with_users(sandbox, USERS)
}

/// With these lines of htpasswd.
pub(crate) fn with_users(sandbox: &Sandbox, users_of: &str) -> RealRegistry {
    let number = (0..).find(|n| !sandbox.dir().join(format!("users{n}")).exists()).unwrap();
    let users = sandbox.dir().join(format!("users{number}"));
    fs::write(&users, users_of).unwrap();
    RealRegistry::start_with(
        sandbox,
        &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display()),
    )
}

fn image(sandbox: &Sandbox, name: &str) {
    sandbox.base_image("base");
    sandbox.outcrop(&["tag", "base", name]).ok();
}

#[test]
fn a_password_is_kept_once_the_registry_took_it_and_forgotten_at_logout() {
    let sandbox = Sandbox::new().variable("XDG_RUNTIME_DIR", "/nonexistent");
    let registry = with_passwords(&sandbox);
    let host = registry.address.to_string();
    let name = format!("{host}/app:1");
    image(&sandbox, &name);
    sandbox.outcrop(&["push", &name]).fails(1).complains("refuses").complains("`outcrop login`");
    let file = sandbox.dir().join(".docker/config.json");
    let login = ["login", "-u", "me", "--password-stdin", &host];
    sandbox.outcrop_with_input(&login, b"wrong\n").fails(1).complains("does not take this user and password");
    assert!(!file.exists());
    // What others keep in the file stays.
    fs::create_dir(sandbox.dir().join(".docker")).unwrap();
    fs::write(&file, r#"{"psFormat":"x","auths":{"other.test":{"auth":"YTpi"}}}"#).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    sandbox.outcrop_with_input(&login, b"s3cret\n").ok().says("Login Succeeded").says("unencrypted");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let auth = BASE64_STANDARD.encode("me:s3cret");
    assert_eq!(
        kept,
        serde_json::json!({
            "psFormat": "x",
            "auths": { "other.test": { "auth": "YTpi" }, &host: { "auth": auth } },
        })
    );
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    sandbox.outcrop(&["push", "-q", &name]).ok();
    sandbox.outcrop(&["pull", "-q", &name]).ok();
    sandbox.outcrop(&["login", &host]).ok().says("Authenticating with existing credentials");
    sandbox.outcrop(&["logout", &host]).ok().says(&format!("Removing login credentials for {host}"));
    sandbox.outcrop(&["pull", "-q", &name]).fails(1).complains("refuses");
    sandbox.outcrop(&["logout", &host]).ok().says("Not logged in");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["auths"].as_object().unwrap().len(), 1);
}

#[test]
fn a_new_file_of_credentials_is_for_its_owner_alone() {
    let sandbox = Sandbox::new();
    let registry = with_passwords(&sandbox);
    let host = registry.address.to_string();
    sandbox.outcrop(&["login", "-u", "me", "-p", "s3cret", &host]).ok();
    let file = sandbox.dir().join(".docker/config.json");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// With `sudo` it may be another user's.
#[test]
fn a_file_of_credentials_stays_with_its_owner() {
    let sandbox = Sandbox::new();
    let registry = with_passwords(&sandbox);
    let host = registry.address.to_string();
    let file = sandbox.dir().join(".docker/config.json");
    fs::create_dir(sandbox.dir().join(".docker")).unwrap();
    fs::write(&file, "{}").unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(2345)).unwrap();
    sandbox.outcrop(&["login", "-u", "me", "-p", "s3cret", &host]).ok();
    let kept = fs::metadata(&file).unwrap();
    assert_eq!((kept.uid(), kept.gid()), (1234, 2345));
}

#[test]
fn the_file_that_is_named_is_the_one_that_counts() {
    let sandbox = Sandbox::new();
    let file = sandbox.dir().join("auth.json");
    let sandbox = sandbox.variable("REGISTRY_AUTH_FILE", file.to_str().unwrap());
    let registry = with_passwords(&sandbox);
    let host = registry.address.to_string();
    let name = format!("{host}/team/app:1");
    image(&sandbox, &name);
    let auth = BASE64_STANDARD.encode("me:s3cret");
    // For a part of the registry, as containers-auth.json(5) has it.
    fs::write(&file, format!(r#"{{"auths":{{"{host}/team":{{"auth":"{auth}"}}}}}}"#)).unwrap();
    sandbox.outcrop(&["push", "-q", &name]).ok();
    let other = format!("{host}/other/app:1");
    sandbox.outcrop(&["tag", &name, &other]).ok();
    sandbox.outcrop(&["push", "-q", &other]).fails(1).complains("refuses");
    assert!(!sandbox.dir().join(".docker").exists());
}

#[test]
fn a_credential_helper_keeps_gives_and_forgets() {
    let sandbox = Sandbox::new();
    let bin = sandbox.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let kept = sandbox.dir().join("kept");
    let helper = bin.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nexec 2>&1\ncase $1 in\nstore) cat > {kept} ;;\nget) cat > /dev/null; if [ -e {kept} ]; then cat {kept}; \
         else echo credentials not found in native keychain; exit 1; fi ;;\nerase) cat > /dev/null; rm {kept} ;;\nesac\n",
        kept = kept.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let sandbox = sandbox.variable("PATH", &path);
    let registry = with_passwords(&sandbox);
    let host = registry.address.to_string();
    let file = sandbox.dir().join(".docker/config.json");
    fs::create_dir(sandbox.dir().join(".docker")).unwrap();
    let text = format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#);
    fs::write(&file, &text).unwrap();
    let name = format!("{host}/app:1");
    image(&sandbox, &name);
    sandbox.outcrop(&["push", "-q", &name]).fails(1).complains("refuses");
    sandbox.outcrop(&["login", "-u", "me", "-p", "s3cret", &host]).ok().says_not("unencrypted");
    let said: serde_json::Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
    assert_eq!(said, serde_json::json!({ "ServerURL": host, "Username": "me", "Secret": "s3cret" }));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    sandbox.outcrop(&["push", "-q", &name]).ok();
    sandbox.outcrop(&["logout", &host]).ok();
    assert!(!kept.exists());
    // One that is not there is said, and who needs no credentials goes on.
    fs::write(&file, r#"{"credsStore":"absent"}"#).unwrap();
    let refused = sandbox.outcrop(&["push", &name]).fails(1).complains("refuses");
    refused.says("`docker-credential-absent` is not on the search path");
}

/// A registry that wants tokens, and the server that gives them at `/token`, in one. What the latter was asked.
pub(crate) fn with_tokens(
    real: &RealRegistry,
    allow: fn(&Asked) -> bool,
) -> (Server, Arc<Mutex<Vec<Asked>>>) {
    let tokens: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let server = Server::start(Some(real.address), {
        let tokens = tokens.clone();
        move |asked, _| {
            if asked.path.starts_with("/token") {
                tokens.lock().unwrap().push(asked.clone());
                return Reply::Answer(match allow(asked) {
                    true => Told::new(200, &[], r#"{"access_token":"granted"}"#),
                    false => Told::new(401, &[], r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#),
                });
            }
            if asked.header("authorization") == Some("Bearer granted") {
                return Reply::Forward;
            }
            let host = asked.header("host").unwrap();
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="it""#);
            Reply::Answer(Told::new(401, &[("WWW-Authenticate", &challenge)], ""))
        }
    });
    (server, tokens)
}

#[test]
fn a_token_is_asked_for_what_is_to_be_done_and_with_whom_it_is_known_by() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    let basic = |asked: &Asked| {
        let me = format!("Basic {}", BASE64_STANDARD.encode("me:s3cret"));
        asked.header("authorization") == Some(&me)
    };
    let (server, tokens) = with_tokens(&real, basic);
    let host = server.address.to_string();
    let name = format!("{host}/app:1");
    image(&sandbox, &name);
    sandbox
        .outcrop(&["push", "-q", &name])
        .fails(1)
        .complains("refuses a token for repository:app:pull,push");
    sandbox.outcrop(&["login", "-u", "me", "-p", "wrong", &host]).fails(1);
    sandbox.outcrop(&["login", "-u", "me", "-p", "s3cret", &host]).ok();
    tokens.lock().unwrap().clear();
    sandbox.outcrop(&["push", "-q", &name]).ok();
    let asked = tokens.lock().unwrap().clone();
    let paths: Vec<&str> = asked.iter().map(|asked| asked.path.as_str()).collect();
    assert_eq!(paths, ["/token?service=it&scope=repository:app:pull,push"]);
    // Mounting takes a token for both repositories.
    let other = format!("{host}/other:1");
    sandbox.outcrop(&["tag", &name, &other]).ok();
    sandbox.outcrop(&["push", &other]).ok().says("Mounted from app");
    let asked = tokens.lock().unwrap().last().unwrap().path.clone();
    assert_eq!(asked, "/token?service=it&scope=repository:other:pull,push&scope=repository:app:pull");
    sandbox.outcrop(&["pull", "-q", &other]).ok();
}

#[test]
fn an_identity_token_is_exchanged_and_stands_in_no_address() {
    let sandbox = Sandbox::new();
    let real = RealRegistry::start(&sandbox);
    let (server, tokens) = with_tokens(&real, |asked| asked.method == "POST");
    let host = server.address.to_string();
    let layout = Layout::single(&sandbox.dir().join("layout"), &Image::of("linux/amd64", &[]));
    real.push(&layout, "app:1");
    fs::create_dir(sandbox.dir().join(".docker")).unwrap();
    let config = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"verysecret"}}}}}}"#);
    fs::write(sandbox.dir().join(".docker/config.json"), config).unwrap();
    sandbox.outcrop(&["pull", "-q", &format!("{host}/app:1")]).ok();
    let asked = tokens.lock().unwrap().clone();
    assert!(asked.iter().all(|asked| asked.path == "/token"), "{asked:?}");
    let kind = asked[0].header("content-type");
    assert_eq!(kind, Some("application/x-www-form-urlencoded"));
    assert_eq!(asked[0].header("authorization"), None);
}

fn openssl(dir: &Path, args: &str) {
    let output =
        Command::new(find_on_path("openssl")).current_dir(dir).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_registry_with_an_authority_of_its_own_is_trusted_where_that_is_known_and_sees_our_certificate() {
    let sandbox = Sandbox::new();
    let keys = sandbox.dir().join("keys");
    fs::create_dir(&keys).unwrap();
    openssl(
        &keys,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
    );
    for name in ["server", "client"] {
        openssl(
            &keys,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ),
        );
        fs::write(keys.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        openssl(
            &keys,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile ext"
            ),
        );
    }
    let file = |name: &str| keys.join(name).display().to_string();
    let tls = format!(
        "  tls:\n    certificate: {}\n    key: {}\n    clientcas:\n      - {}\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let registry = RealRegistry::start_with(&sandbox, &tls);
    let host = registry.address.to_string();
    let name = format!("{host}/app:1");
    image(&sandbox, &name);
    // Without a certificate it lets nobody in.
    sandbox.outcrop(&["push", "-q", &name]).fails(1);
    let own = sandbox.dir().join(".config/containers/certs.d").join(&host);
    fs::create_dir_all(&own).unwrap();
    for (from, to) in [("client.pem", "client.cert"), ("client.key", "client.key")] {
        fs::copy(keys.join(from), own.join(to)).unwrap();
    }
    // Ours is there, but who they are is not known.
    sandbox.outcrop(&["push", "-q", &name]).fails(1).complains("its certificate is not trusted");
    fs::copy(keys.join("ca.pem"), own.join("ca.crt")).unwrap();
    sandbox.outcrop(&["push", "-q", &name]).ok();
    sandbox.outcrop(&["pull", "-q", &name]).ok();
    fs::remove_file(own.join("client.cert")).unwrap();
    sandbox.outcrop(&["pull", "-q", &name]).fails(1).complains("client.key has no certificate beside it");
}

#[test]
fn logging_in_needs_a_terminal_or_all_of_it() {
    let sandbox = Sandbox::new();
    let refused = sandbox.outcrop(&["login", "registry.test"]).fails(1);
    refused.complains("Cannot perform an interactive login from a non TTY device");
    sandbox
        .outcrop(&["login", "-u", "a", "-p", "", "registry.test"])
        .fails(1)
        .complains("there is no password");
    sandbox.outcrop(&["login", "-u", "a", "-p", "b", "not a host"]).fails(1).complains("is no registry");
}

#[test]
fn a_credential_helper_that_hangs_can_be_interrupted() {
    let sandbox = Sandbox::new();
    let (bin, asked) = (sandbox.dir().join("bin"), sandbox.dir().join("asked"));
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    fs::write(&helper, format!("#!/bin/sh\ntouch {}\nexec sleep 600\n", asked.display())).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let sandbox = sandbox.variable("PATH", &path);
    let registry = with_passwords(&sandbox);
    fs::create_dir(sandbox.dir().join(".docker")).unwrap();
    fs::write(sandbox.dir().join(".docker/config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let mut pull = start(&sandbox, &["pull", &format!("{}/app:1", registry.address)]);
    assert!(wait_until(LONG, || asked.exists()));
    kill_process(Pid::from_child(&pull), Signal::INT).unwrap();
    let mut status = None;
    wait_until(LONG, || {
        status = pull.try_wait().unwrap();
        status.is_some()
    });
    // The sandbox sees to it that nothing of the helper is left.
    assert!(status.is_some_and(|status| !status.success()), "{status:?}");
}

/// A second one would end outcrop at once, and leave the terminal without an echo.
#[test]
fn the_first_interrupt_at_a_password_ends_it_and_what_is_typed_is_shown_again() {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};
    let sandbox = Sandbox::new();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = openpt(flags).unwrap();
    unlockpt(&person).unwrap();
    let terminal = ioctl_tiocgptpeer(&person, flags).unwrap();
    let shown = || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO);
    assert!(shown());
    let mut command = sandbox.command(&["login", "-u", "me", "registry.test"]);
    let mut child = command.stdin(terminal.try_clone().unwrap()).spawn().unwrap();
    assert!(wait_until(LONG, || !shown()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(wait_until(LONG, || child.try_wait().unwrap().is_some()));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(shown());
}
