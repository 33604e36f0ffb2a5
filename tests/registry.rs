//! Pulling from a real registry, and from one that misbehaves.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outcrop::error::{Context as _, Error, Kind, Result};
use outcrop::image::{Descriptor, Digest, MediaType, Platform, Reference};
use outcrop::job::{Event, Job, LayerOutcome, Report};
use outcrop::registry::{Credentials, Options, Patience, Proxies, Registry, Timeouts};
use outcrop::transfer::{Found, find};

use rustix::net::{AddressFamily, SocketType};

use crate::registry_kit::{Asked, Image, Layout, RealRegistry, Reply, Server, Told, noise};
use crate::sandbox::{Sandbox, find_on_path, wait_until};

/// Short waits.
fn quick() -> Options {
    Options {
        patience: Patience {
            tries: 4,
            first: Duration::from_millis(4),
            most: Duration::from_millis(20),
            asked: Duration::from_secs(2),
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            // Longer than a busy machine needs: who waits in vain asks again, and requests are counted.
            idle: Duration::from_secs(20),
        },
        ..Options::default()
    }
}

fn at(address: SocketAddr, rest: &str) -> Reference {
    format!("{address}/{rest}").parse().unwrap()
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// The image and its layers' bytes, bottom first.
fn pull(job: &Job, options: &Options, name: &Reference) -> Result<(Found, Vec<Vec<u8>>)> {
    let registry = Registry::of(name, options)?;
    let found = find(job, &registry, name, &amd64())?;
    let layers = Mutex::new(BTreeMap::new());
    found.fetch(
        job,
        &registry,
        |_| Ok(true),
        |layer, stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).context(|| "reading a layer")?;
            layers.lock().unwrap().insert(layer.position, bytes);
            Ok(())
        },
    )?;
    let layers = layers.into_inner().unwrap().into_values().collect();
    Ok((found, layers))
}

/// What the user sees of it: message and causes in one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(&format!("; {next}"));
        cause = next.source();
    }
    text
}

/// A registry with `app:v1` in it: layers of these sizes, for amd64.
fn filled(sandbox: &Sandbox, sizes: &[usize]) -> (RealRegistry, Image) {
    let registry = RealRegistry::start(sandbox);
    let image = Image::of("linux/amd64", sizes);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:v1");
    (registry, image)
}

/// The layer blobs' requests for `image` among these.
fn blobs_of(image: &Image, asked: &[Asked]) -> Vec<Asked> {
    let config = Digest::of(&image.config).to_string();
    asked.iter().filter(|asked| asked.is_blob() && !asked.path.ends_with(&config)).cloned().collect()
}

#[derive(Default)]
struct Watch(Mutex<Vec<Event>>);
impl Report for Watch {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn an_image_comes_whole_from_a_real_registry() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[300_000, 10, 70_000, 0, 1_000]);
    let name = at(registry.address, "app:v1");
    let (found, layers) = pull(&Job::silent(), &quick(), &name).unwrap();
    assert_eq!(layers, image.layers);
    assert_eq!(found.config_raw, image.config);
    assert_eq!(found.manifest_raw, image.manifest_raw);
    assert_eq!(found.digest, Digest::of(&image.manifest_raw));
    assert_eq!(found.manifest_descriptor, image.descriptor());
    assert_eq!(found.image.digest(), &Digest::of(&image.config));
    assert_eq!(found.index, None);
}

#[test]
fn docker_s_own_format_comes_as_well() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = Image::of("linux/amd64", &[1_000, 2_000]);
    let layout = Layout::single(&sandbox.dir().join("layout"), &image);
    registry.push_with(&layout, "deep/er/app:docker", &["--format", "v2s2"]);
    let (found, layers) =
        pull(&Job::silent(), &quick(), &at(registry.address, "deep/er/app:docker")).unwrap();
    assert_eq!(found.manifest_descriptor.media_type, MediaType::DockerManifest);
    assert_eq!(layers, image.layers);
}

#[test]
fn an_index_gives_each_platform_its_image() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let arm6 = Image::of("linux/arm/v6", &[60]);
    let amd = Image::of("linux/amd64", &[64]);
    let arm64 = Image::of("linux/arm64/v8", &[640]);
    let layout = Layout::index(&sandbox.dir().join("layout"), &[&arm6, &amd, &arm64]);
    registry.push(&layout, "many:1");
    let name = at(registry.address, "many:1");
    let source = Registry::of(&name, &quick()).unwrap();
    let job = Job::silent();
    let index_raw = layout.index_raw.unwrap();
    for (platform, image) in
        [("linux/amd64", &amd), ("linux/arm64", &arm64), ("linux/arm/v7", &arm6), ("linux/arm", &arm6)]
    {
        let found = find(&job, &source, &name, &platform.parse().unwrap()).unwrap();
        assert_eq!(found.manifest_raw, image.manifest_raw, "{platform}");
        // The name's digest is the index's.
        assert_eq!(found.digest, Digest::of(&index_raw));
        assert_eq!(found.index.unwrap().1, index_raw);
    }
    let error = find(&job, &source, &name, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.hint_text(),
        Some("choose with --platform; there is linux/arm/v6, linux/amd64, linux/arm64/v8")
    );
}

#[test]
fn a_digest_in_the_name_is_what_comes() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[100]);
    let digest = Digest::of(&image.manifest_raw);
    for rest in [format!("app@{digest}"), format!("app:whatever@{digest}")] {
        let (found, _) = pull(&Job::silent(), &quick(), &at(registry.address, &rest)).unwrap();
        assert_eq!(found.digest, digest);
    }
    let other = Digest::of(b"other");
    let error = pull(&Job::silent(), &quick(), &at(registry.address, &format!("app@{other}"))).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn what_is_not_there_is_said_with_where_it_was_looked_for() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox, &[1]);
    for (rest, code, hint) in [
        ("app:v2", "MANIFEST_UNKNOWN", "no such tag or digest"),
        ("nothing/here:v1", "MANIFEST_UNKNOWN", "no such tag or digest"),
    ] {
        let name = at(registry.address, rest);
        let error = pull(&Job::silent(), &quick(), &name).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{rest}");
        let text = told(&error);
        assert!(text.contains(code) && text.contains(&registry.address.to_string()), "{text}");
        assert!(error.hint_text().unwrap().contains(hint), "{:?}", error.hint_text());
    }
}

#[test]
fn nothing_listening_is_said_at_once() {
    // Taken, so that nobody else listens there.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let free: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    let started = Instant::now();
    let mut options = Options::default();
    options.patience.first = Duration::from_secs(10);
    let error = pull(&Job::silent(), &options, &at(free, "app")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(told(&error).contains(&format!("{free} cannot be reached")), "{}", told(&error));
    assert!(error.hint_text().unwrap().contains("nothing listens there"));
    // Asking again would have taken longer.
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_layer_that_is_here_already_is_not_asked_for() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[10, 20, 30]);
    let server = Server::before(&registry);
    let name = at(server.address, "app:v1");
    let watch = Arc::new(Watch::default());
    let job = Job::new(watch.clone());
    let source = Registry::of(&name, &quick()).unwrap();
    let found = find(&job, &source, &name, &amd64()).unwrap();
    found
        .fetch(
            &job,
            &source,
            |layer| Ok(layer.position != 1),
            |_, stream| {
                stream.finish()?;
                Ok(())
            },
        )
        .unwrap();
    let mut asked: Vec<String> = blobs_of(&image, &server.asked()).into_iter().map(|a| a.path).collect();
    asked.sort();
    let mut wanted = [0, 2].map(|n: usize| format!("/v2/app/blobs/{}", image.manifest.layers[n].digest));
    wanted.sort();
    assert_eq!(asked, wanted);

    let events = watch.0.lock().unwrap();
    let done = |n: usize| {
        let id = image.manifest.layers[n].digest.short();
        events.iter().find_map(|event| match event {
            Event::LayerDone { layer, how } if *layer == id => Some(how.clone()),
            _ => None,
        })
    };
    assert_eq!(
        [done(0), done(1), done(2)],
        [LayerOutcome::PullComplete, LayerOutcome::AlreadyExists, LayerOutcome::PullComplete].map(Some)
    );
    // The last progress of a layer is its whole size.
    let sizes = events.iter().filter_map(|event| match event {
        Event::LayerProgress { layer, done, total, .. } if Some(*done) == *total => Some(layer.clone()),
        _ => None,
    });
    assert_eq!(sizes.count(), 2);
}

#[test]
fn layers_come_side_by_side_within_the_budget() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[10, 20, 30, 40, 50, 60, 70]);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let name = at(registry.address, "app:v1");
    let source = Registry::of(&name, &quick()).unwrap();
    let mut job = Job::silent();
    job.budget.transfers = 3;
    let found = find(&job, &source, &name, &amd64()).unwrap();
    let order = Mutex::new(Vec::new());
    found
        .fetch(
            &job,
            &source,
            |_| Ok(true),
            |layer, _| {
                order.lock().unwrap().push(layer.position);
                let here = now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(here, Ordering::SeqCst);
                // The first three meet; none leaves before.
                assert!(wait_until(Duration::from_secs(10), || most.load(Ordering::SeqCst) == 3));
                std::thread::sleep(Duration::from_millis(10));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 3);
    let mut order = order.into_inner().unwrap();
    order[..3].sort_unstable();
    assert_eq!(order[..3], [0, 1, 2]);
    assert_eq!(order.len(), image.layers.len());
}

#[test]
fn a_layer_that_stands_twice_comes_once() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let mut image = Image::of("linux/amd64", &[10, 20]);
    // The first again on top.
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    let ids = config["rootfs"]["diff_ids"].as_array_mut().unwrap();
    ids.push(ids[0].clone());
    image.config = serde_json::to_vec(&config).unwrap();
    image.manifest.config = Descriptor::of(MediaType::OciConfig, &image.config);
    image.manifest.layers.push(image.manifest.layers[0].clone());
    image.manifest_raw = image.manifest.to_bytes();
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:v1");

    let (found, layers) = pull(&Job::silent(), &quick(), &at(registry.address, "app:v1")).unwrap();
    assert_eq!(found.layers().count(), 3);
    assert_eq!(layers, image.layers);
}

#[test]
fn the_first_failure_stops_the_others() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox, &[2_000_000, 20, 2_000_000, 30, 40]);
    let name = at(registry.address, "app:v1");
    let source = Registry::of(&name, &quick()).unwrap();
    let mut job = Job::silent();
    job.budget.transfers = 2;
    let found = find(&job, &source, &name, &amd64()).unwrap();
    let started = AtomicUsize::new(0);
    let error = found
        .fetch(
            &job,
            &source,
            |_| Ok(true),
            |layer, stream| {
                started.fetch_add(1, Ordering::SeqCst);
                if layer.position == 1 {
                    return Err(Error::invalid("the disk is made of cheese"));
                }
                let mut byte = [0];
                while stream.read(&mut byte).context(|| "reading a layer")? > 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            },
        )
        .unwrap_err();
    assert!(told(&error).contains("cheese"), "{}", told(&error));
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(started.load(Ordering::SeqCst), 2);
}

// --- authorization

/// A registry that wants this Bearer token, and its token server, which says `answer`.
fn guarded(registry: &RealRegistry, answer: &'static str, good: &'static [&'static str]) -> (Server, Server) {
    let tokens = Server::start(None, move |_, before| {
        Reply::Answer(Told::new(200, &[], answer.replace("{n}", &before.to_string())))
    });
    let realm = format!(r#"Bearer realm="http://{}/token",service="a \"quoted\" one""#, tokens.address);
    let uses = AtomicUsize::new(0);
    let server = Server::start(Some(registry.address), move |asked, _| {
        let token = asked.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let use_number = uses.fetch_add(usize::from(token.is_some()), Ordering::SeqCst);
        // The first good token is taken three times, the second from then on.
        let good_now = good[if use_number < 3 { 0 } else { good.len() - 1 }];
        if token == Some(good_now) {
            return Reply::Forward;
        }
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Reply::Answer(Told::new(401, &[("WWW-Authenticate", &realm)], body))
    });
    (server, tokens)
}

#[test]
fn one_anonymous_token_serves_the_whole_pull() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[10, 20, 30]);
    let (server, tokens) = guarded(&registry, r#"{"token":"open","expires_in":300}"#, &["open"]);
    let (_, layers) = pull(&Job::silent(), &quick(), &at(server.address, "app:v1")).unwrap();
    assert_eq!(layers, image.layers);
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/token?service=a%20%22quoted%22%20one&scope=repository:app:pull");
    assert_eq!(asked[0].header("authorization"), None);
    assert!(asked[0].header("user-agent").unwrap().starts_with("outcrop/"));
}

#[test]
fn credentials_go_to_the_token_server_alone() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox, &[10]);
    let (server, tokens) = guarded(&registry, r#"{"access_token":"mine"}"#, &["mine"]);
    let credentials = Some(Credentials { user: "me".into(), password: "secret".into() });
    let options = Options { credentials, ..quick() };
    pull(&Job::silent(), &options, &at(server.address, "app:v1")).unwrap();
    assert_eq!(tokens.asked()[0].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    for asked in server.asked() {
        assert!(!asked.header("authorization").unwrap_or_default().starts_with("Basic"), "{asked:?}");
    }
}

#[test]
fn a_token_that_is_no_longer_taken_is_renewed() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[10, 20, 30, 40, 50, 60]);
    // Manifest, config and a layer with the first token; then only the second is good.
    let (server, tokens) = guarded(&registry, r#"{"token":"t{n}"}"#, &["t0", "t1"]);
    let (_, layers) = pull(&Job::silent(), &quick(), &at(server.address, "app:v1")).unwrap();
    assert_eq!(layers, image.layers);
    assert_eq!(tokens.asked().len(), 2, "one renewal, though several layers were refused at once");
}

#[test]
fn a_registry_with_basic_authorization_takes_credentials() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[10]);
    let server = Server::start(Some(registry.address), |asked, _| {
        if asked.header("authorization") == Some("Basic bWU6c2VjcmV0") {
            return Reply::Forward;
        }
        Reply::Answer(Told::new(401, &[("WWW-Authenticate", "Basic realm=\"here\"")], ""))
    });
    let name = at(server.address, "app:v1");
    let error = pull(&Job::silent(), &quick(), &name).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let credentials = Some(Credentials { user: "me".into(), password: "secret".into() });
    let (_, layers) = pull(&Job::silent(), &Options { credentials, ..quick() }, &name).unwrap();
    assert_eq!(layers, image.layers);
    let wrong = Some(Credentials { user: "me".into(), password: "wrong".into() });
    let error = pull(&Job::silent(), &Options { credentials: wrong, ..quick() }, &name).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(!told(&error).contains("wrong"));
}

#[test]
fn a_refusal_in_spite_of_a_token_ends_it() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let (server, tokens) = guarded(&registry, r#"{"token":"bad"}"#, &["good"]);
    let error = pull(&Job::silent(), &quick(), &at(server.address, "app:v1")).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(told(&error).contains("UNAUTHORIZED: authentication required"), "{}", told(&error));
    assert!(error.hint_text().unwrap().contains("private"));
    assert!(tokens.asked().len() <= 2 && server.asked().len() <= 4);
}

#[test]
fn a_redirect_to_another_port_carries_no_authorization() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[1_000, 2_000]);
    let store = Server::before(&registry);
    let elsewhere = store.address;
    let server = Server::start(Some(registry.address), move |asked, _| {
        if asked.header("authorization") != Some("Basic bWU6c2VjcmV0") {
            return Reply::Answer(Told::new(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], ""));
        }
        if asked.is_blob() {
            // Through a relative one at home first, which keeps it.
            let location = match asked.path.strip_prefix("/moved") {
                None => format!("/moved{}", asked.path),
                Some(path) => format!("http://{elsewhere}{path}"),
            };
            return Reply::Answer(Told::new(307, &[("Location", &location)], "moved"));
        }
        Reply::Forward
    });
    let credentials = Some(Credentials { user: "me".into(), password: "secret".into() });
    let (_, layers) =
        pull(&Job::silent(), &Options { credentials, ..quick() }, &at(server.address, "app:v1")).unwrap();
    assert_eq!(layers, image.layers);
    let asked = store.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
}

#[test]
fn a_store_s_refusal_is_not_answered_with_credentials() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox, &[1_000]);
    let thief = Server::start(None, |_, _| {
        Reply::Answer(Told::new(401, &[("WWW-Authenticate", "Basic realm=\"give\"")], ""))
    });
    let elsewhere = thief.address;
    let server = Server::start(Some(registry.address), move |asked, _| {
        if asked.is_blob() {
            let location = format!("http://{elsewhere}/");
            return Reply::Answer(Told::new(302, &[("Location", &location)], ""));
        }
        Reply::Forward
    });
    let credentials = Some(Credentials { user: "me".into(), password: "secret".into() });
    let options = Options { credentials, ..quick() };
    let error = pull(&Job::silent(), &options, &at(server.address, "app:v1")).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(thief.asked().len(), 1);
    assert_eq!(thief.asked()[0].header("authorization"), None);
}

#[test]
fn redirects_in_a_circle_end() {
    let server = Server::start(None, |asked, _| {
        Reply::Answer(Told::new(302, &[("Location", &asked.path.clone())], ""))
    });
    let error = pull(&Job::silent(), &quick(), &at(server.address, "app:v1")).unwrap_err();
    assert!(told(&error).contains("redirects more than 10 times"), "{}", told(&error));
}

// --- a registry that falters

/// Pulls `app:v1` through a server with these replies; the image, what came, and what was asked.
fn through(
    sizes: &[usize],
    options: &Options,
    reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
) -> (Image, Result<Vec<Vec<u8>>>, Vec<Asked>) {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, sizes);
    let server = Server::start(Some(registry.address), reply);
    let result = pull(&Job::silent(), options, &at(server.address, "app:v1"));
    (image, result.map(|(_, layers)| layers), server.asked())
}

fn is_layer(asked: &Asked, smallest: usize, told: &Told) -> bool {
    asked.is_blob() && told.body.len() >= smallest
}

/// Changes what is answered for blobs of at least `smallest` bytes; the config is smaller.
fn on_layers(
    smallest: usize,
    change: impl Fn(&mut Told, usize) + Send + Sync + 'static,
) -> impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static {
    let change = Arc::new(change);
    move |asked, before| {
        let (asked, change) = (asked.clone(), change.clone());
        Reply::Change(Box::new(move |told| {
            if is_layer(&asked, smallest, told) {
                change(told, before);
            }
        }))
    }
}

#[test]
fn a_dropped_download_goes_on_where_it_broke() {
    let (image, layers, asked) =
        through(&[200_000], &quick(), on_layers(10_000, |told, _| told.cut = Some(80_000)));
    assert_eq!(layers.unwrap(), image.layers);
    let ranges: Vec<_> =
        blobs_of(&image, &asked).iter().map(|a| a.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=80000-".into()), Some("bytes=160000-".into())]);
}

#[test]
fn a_registry_that_ignores_ranges_is_read_from_the_start() {
    let whole = Image::of("linux/amd64", &[200_000]).layers[0].clone();
    let (image, layers, asked) = through(
        &[200_000],
        &quick(),
        on_layers(10_000, move |told, before| {
            *told = Told::new(200, &[], whole.clone());
            told.cut = (before == 0).then_some(70_000);
        }),
    );
    assert_eq!(layers.unwrap(), image.layers);
    let asked = blobs_of(&image, &asked);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("range"), Some("bytes=70000-"));
}

#[test]
fn another_part_than_was_asked_for_is_refused() {
    let (_, layers, _) = through(
        &[200_000],
        &quick(),
        on_layers(10_000, |told, before| {
            if before == 0 {
                told.cut = Some(70_000);
            } else {
                for header in &mut told.headers {
                    if header.0.eq_ignore_ascii_case("content-range") {
                        header.1 = header.1.replace("70000-", "60000-");
                    }
                }
            }
        }),
    );
    let error = layers.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{}", told(&error));
}

#[test]
fn a_line_that_always_breaks_is_given_up() {
    let (image, layers, asked) =
        through(&[200_000], &quick(), on_layers(10_000, |told, _| told.cut = Some(1_000)));
    let error = layers.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(told(&error).contains("broke after"), "{}", told(&error));
    assert_eq!(blobs_of(&image, &asked).len(), 4, "as many as patience allows");
}

#[test]
fn too_many_requests_are_waited_for_as_asked() {
    let started = Instant::now();
    let (image, layers, asked) = through(&[10], &quick(), |asked, before| {
        if asked.is_manifest() && before == 0 {
            return Reply::Answer(Told::new(429, &[("Retry-After", "1")], ""));
        }
        Reply::Forward
    });
    assert_eq!(layers.unwrap(), image.layers);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(asked.iter().filter(|asked| asked.is_manifest()).count(), 2);
}

#[test]
fn a_wait_that_is_too_long_is_not_begun() {
    let (_, layers, asked) = through(&[10], &quick(), |asked, _| {
        if asked.is_manifest() {
            let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#;
            return Reply::Answer(Told::new(429, &[("Retry-After", "3600")], body));
        }
        Reply::Forward
    });
    let error = layers.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(told(&error).contains("TOOMANYREQUESTS: pull rate limit"), "{}", told(&error));
    assert!(error.hint_text().unwrap().contains("credentials"));
    assert_eq!(asked.iter().filter(|asked| asked.is_manifest()).count(), 1);
}

#[test]
fn server_errors_and_hang_ups_are_tried_again() {
    let (image, layers, _) = through(&[10, 20], &quick(), |_, before| match before {
        0 => Reply::Answer(Told::new(503, &[], "down")),
        1 => Reply::Hang,
        2 => Reply::Answer(Told::new(500, &[], "")),
        _ => Reply::Forward,
    });
    assert_eq!(layers.unwrap(), image.layers);
}

#[test]
fn a_server_error_that_stays_is_reported() {
    let (_, layers, asked) = through(&[10], &quick(), |asked, _| {
        if asked.is_manifest() { Reply::Answer(Told::new(502, &[], "<html>")) } else { Reply::Forward }
    });
    let error = layers.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(told(&error).contains("HTTP status 502"), "{}", told(&error));
    assert_eq!(asked.iter().filter(|asked| asked.is_manifest()).count(), 4);
}

#[test]
fn a_manifest_cut_short_is_asked_for_again() {
    let (image, layers, _) = through(&[10], &quick(), |asked, before| {
        let cut = asked.is_manifest() && before == 0;
        Reply::Change(Box::new(move |told| told.cut = cut.then_some(20)))
    });
    assert_eq!(layers.unwrap(), image.layers);
}

#[test]
fn a_silent_line_counts_as_broken() {
    let mut options = quick();
    options.timeouts.idle = Duration::from_secs(1);
    let (image, layers, asked) = through(
        &[200_000],
        &options,
        on_layers(10_000, |told, before| {
            if before == 0 {
                told.cut = Some(50_000);
                told.stall = Duration::from_secs(5);
            }
        }),
    );
    assert_eq!(layers.unwrap(), image.layers);
    let asked = blobs_of(&image, &asked);
    assert!(asked.iter().any(|asked| asked.header("range") == Some("bytes=50000-")), "{asked:?}");
}

#[test]
fn cancelling_does_not_wait_for_a_silent_registry() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox, &[200_000]);
    let server = Server::start(
        Some(registry.address),
        on_layers(10_000, |told, _| {
            told.cut = Some(50_000);
            told.stall = Duration::from_secs(8);
        }),
    );
    let mut options = quick();
    options.timeouts.idle = Duration::from_secs(60);
    let job = Job::silent();
    let cancelled = std::thread::scope(|scope| {
        let pulling = scope.spawn(|| pull(&job, &options, &at(server.address, "app:v1")));
        assert!(wait_until(Duration::from_secs(10), || server.asked().iter().any(|a| a.is_blob())));
        std::thread::sleep(Duration::from_millis(300));
        let cancelled = Instant::now();
        job.cancel().set();
        let error = pulling.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled, "{}", told(&error));
        cancelled.elapsed()
    });
    assert!(cancelled < Duration::from_secs(7), "as long as the server: {cancelled:?}");
}

// --- a registry that lies

#[test]
fn one_wrong_byte_is_noticed() {
    let (_, layers, _) = through(&[100_000], &quick(), on_layers(10_000, |told, _| told.body[54_321] ^= 1));
    let error = layers.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(told(&error).contains("came with the digest"), "{}", told(&error));
}

#[test]
fn a_wrong_byte_is_noticed_also_by_who_does_not_read_to_the_end() {
    let sandbox = Sandbox::new();
    let (registry, _) = filled(&sandbox, &[100_000]);
    let server = Server::start(
        Some(registry.address),
        on_layers(10_000, |told, _| {
            let last = told.body.len() - 1;
            told.body[last] ^= 1;
        }),
    );
    let name = at(server.address, "app:v1");
    let source = Registry::of(&name, &quick()).unwrap();
    let found = find(&Job::silent(), &source, &name, &amd64()).unwrap();
    let error = found
        .fetch(
            &Job::silent(),
            &source,
            |_| Ok(true),
            |_, stream| {
                stream.read_exact(&mut [0; 100]).context(|| "reading a layer")?;
                Ok(())
            },
        )
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn a_length_that_is_not_the_promised_one_is_refused() {
    for (what, change) in [
        ("longer", (|told: &mut Told, _: usize| told.body.push(0)) as fn(&mut Told, usize)),
        ("shorter", |told, _| told.body.truncate(told.body.len() - 1)),
        ("longer, in chunks", |told, _| {
            told.body.push(0);
            told.chunked = true;
        }),
    ] {
        let (_, layers, asked) = through(&[100_000], &quick(), on_layers(10_000, change));
        let error = layers.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{what}: {}", told(&error));
        assert!(told(&error).contains("bytes"), "{what}: {}", told(&error));
        assert!(asked.len() <= 4, "{what}: {asked:?}");
    }
}

#[test]
fn chunks_without_a_length_are_fine() {
    let (image, layers, _) = through(&[100_000], &quick(), on_layers(0, |told, _| told.chunked = true));
    assert_eq!(layers.unwrap(), image.layers);
}

#[test]
fn a_manifest_s_digest_is_checked() {
    // The registry says one digest and sends other bytes.
    let (_, layers, _) = through(&[10], &quick(), |asked, _| {
        let change = asked.is_manifest();
        Reply::Change(Box::new(move |told| {
            if change {
                told.body.push(b' ');
            }
        }))
    });
    assert_eq!(layers.unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_lying_registry_cannot_pass_another_image_for_a_digest() {
    let sandbox = Sandbox::new();
    let (registry, image) = filled(&sandbox, &[10]);
    let wanted = Digest::of(&image.manifest_raw);
    let server = Server::start(Some(registry.address), |asked, _| {
        if asked.is_manifest() {
            let other = Image::of("linux/amd64", &[11]);
            let headers = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
            return Reply::Answer(Told::new(200, &headers, other.manifest_raw));
        }
        Reply::Forward
    });
    let name = at(server.address, &format!("app@{wanted}"));
    let error = pull(&Job::silent(), &quick(), &name).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(told(&error).contains(&wanted.to_string()), "{}", told(&error));
}

/// A manifest as such, with no registry behind.
fn answered_with(content_type: &'static str, manifest: Vec<u8>) -> Error {
    let server = Server::start(None, move |asked, _| {
        let headers = [("Content-Type", content_type)];
        let body = if asked.is_manifest() { manifest.clone() } else { Vec::new() };
        Reply::Answer(Told::new(200, &headers, body))
    });
    pull(&Job::silent(), &quick(), &at(server.address, "app:v1")).unwrap_err()
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let schema_1 = br#"{"schemaVersion":1,"name":"app","tag":"v1","fsLayers":[],"history":[]}"#;
    let error = answered_with("application/vnd.docker.distribution.manifest.v1+prettyjws", schema_1.to_vec());
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(told(&error).contains("schema 1"), "{}", told(&error));
    assert!(error.hint_text().unwrap().contains("skopeo"));

    let oci = "application/vnd.oci.image.manifest.v1+json";
    let huge = noise("huge", (4 << 20) + 1);
    assert!(told(&answered_with(oci, huge)).contains("more than 4194304 bytes"));

    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(told(&answered_with(oci, index.to_vec())).contains("disagree"));

    let html = answered_with("text/html", b"<html>hello".to_vec());
    assert_eq!(html.kind(), Kind::Invalid);
    assert!(told(&html).contains("reading a manifest"), "{}", told(&html));
}

#[test]
fn a_config_of_other_length_than_its_layers_is_refused() {
    let mut image = Image::of("linux/amd64", &[10, 20]);
    image.manifest.layers.pop();
    image.manifest_raw = image.manifest.to_bytes();
    let (manifest, config) = (image.manifest_raw, image.config);
    let server = Server::start(None, move |asked, _| {
        let body = if asked.is_manifest() { &manifest } else { &config };
        Reply::Answer(Told::new(200, &[], body.clone()))
    });
    let error = pull(&Job::silent(), &quick(), &at(server.address, "app:v1")).unwrap_err();
    assert!(told(&error).contains("the manifest has 1 layers, its config 2"), "{}", told(&error));
}

#[test]
fn an_image_for_another_machine_is_taken_with_a_warning() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = Image::of("linux/s390x", &[10]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:v1");
    let watch = Arc::new(Watch::default());
    pull(&Job::new(watch.clone()), &quick(), &at(registry.address, "app:v1")).unwrap();
    let warned = watch.0.lock().unwrap().iter().any(
        |event| matches!(event, Event::Warning(text) if text.contains("linux/s390x, not for linux/amd64")),
    );
    assert!(warned);
}

// --- TLS and proxies

/// A certificate authority and a certificate of it for `registry.test` and 127.0.0.1.
fn certificates(sandbox: &Sandbox) {
    let openssl = |args: &[&str]| {
        let output =
            Command::new(find_on_path("openssl")).args(args).current_dir(sandbox.dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let mut authority = vec!["req", "-x509", "-days", "2", "-subj", "/CN=test authority"];
    authority.extend(key);
    authority.extend(["-keyout", "ca.key", "-out", "ca.pem"]);
    openssl(&authority);
    let mut request = vec!["req", "-new", "-subj", "/CN=registry.test"];
    request.extend(key);
    request.extend(["-keyout", "tls.key", "-out", "tls.csr"]);
    openssl(&request);
    fs::write(sandbox.dir().join("names"), "subjectAltName=DNS:registry.test,IP:127.0.0.1\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "tls.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "tls.pem",
    ]);
}

fn secure_registry(sandbox: &Sandbox) -> RealRegistry {
    certificates(sandbox);
    let file = |name: &str| sandbox.dir().join(name).display().to_string();
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", file("tls.pem"), file("tls.key"));
    RealRegistry::start_with(sandbox, &tls)
}

#[test]
fn a_registry_of_this_machine_may_have_any_certificate() {
    let sandbox = Sandbox::new();
    let registry = secure_registry(&sandbox);
    let image = Image::of("linux/amd64", &[5_000]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:v1");
    let (_, layers) = pull(&Job::silent(), &quick(), &at(registry.address, "app:v1")).unwrap();
    assert_eq!(layers, image.layers);
}

/// An HTTP proxy that connects everything to one address; says what was wanted.
fn proxy_to(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let wanted = Arc::new(Mutex::new(Vec::new()));
    let log = wanted.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut client) = connection else { return };
            let log = log.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|n| n > 0) {
                    head.push(byte[0]);
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                log.lock().unwrap().push(line);
                let mut server = TcpStream::connect(target).unwrap();
                client.write_all(b"HTTP/1.1 200 ok\r\n\r\n").unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ended = std::io::copy(&mut from, &mut to);
                    let _gone = to.shutdown(std::net::Shutdown::Write);
                });
                let _ended = std::io::copy(&mut server, &mut client);
            });
        }
    });
    (address, wanted)
}

#[test]
fn elsewhere_a_certificate_must_be_trusted_and_proxies_are_gone_through() {
    let sandbox = Sandbox::new();
    let registry = secure_registry(&sandbox);
    let image = Image::of("linux/amd64", &[5_000]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:v1");
    let (proxy, wanted) = proxy_to(registry.address);
    let proxies = Proxies { https: Some(format!("http://{proxy}")), ..Proxies::default() };
    let name: Reference = "registry.test/app:v1".parse().unwrap();

    let untrusting = Options { proxies: proxies.clone(), ..quick() };
    let error = pull(&Job::silent(), &untrusting, &name).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{}", told(&error));
    assert!(error.hint_text().unwrap().contains("certificate"), "{:?} {}", error.hint_text(), told(&error));

    let trusting = Options { proxies, roots: Some(sandbox.dir().join("ca.pem")), ..quick() };
    let (_, layers) = pull(&Job::silent(), &trusting, &name).unwrap();
    assert_eq!(layers, image.layers);
    let wanted = wanted.lock().unwrap();
    assert!(wanted.iter().all(|line| line.starts_with("CONNECT registry.test:443 ")), "{wanted:?}");
}
