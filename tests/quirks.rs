//! Registries, and what stands before them, as they are: what real ones do beside the specification, or within it and seldom.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use outcrop::job::Job;
use outcrop::registry::{Placed, Registry};
use outcrop::transfer::Source as _;

use crate::push::{LARGE, at, push_through, quick, uploads};
use crate::registry_kit::{
    Image, Layout, RealRegistry, Reply, Server, Told, forward, noise, read_request, tar_of_files,
};
use crate::sandbox::Sandbox;
use crate::transfer_kit::{MB, filled, image_of};

fn image() -> Image {
    image_of(&[tar_of_files(&[("a", 3 * MB)]), tar_of_files(&[("b", 2000)])])
}

/// Pulled into a store of its own.
fn is_pulled(name: &str, image: &Image) {
    let sandbox = Sandbox::new();
    sandbox.outcrop(&["pull", name]).ok();
    let id = sandbox.outcrop(&["inspect", "-f", "{{.Id}}", name]).ok().line();
    assert_eq!(id, image.manifest.config.digest.to_string());
    sandbox.check();
}

/// A server that answers the first request of each connection, keeps that open, and closes it when the next one comes: as
/// one that has just given up an idle connection. How often it did that.
fn fickle(upstream: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let closed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&closed);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || {
                let connection = connection.unwrap();
                let Some((request, body)) = read_request(&connection) else { return };
                let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
                let told = forward(Some(upstream), &request, &mut body.take(length)).unwrap();
                let mut next = [0];
                if told.write_with(&connection, "").is_ok() && connection.peek(&mut next).is_ok_and(|n| n > 0)
                {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    (address, closed)
}

#[test]
fn a_kept_connection_that_is_closed_when_the_next_request_comes_stops_neither_push_nor_pull() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let (address, closed) = fickle(registry.address);
    let image = image();
    let name = format!("{address}/app:v1");
    let archive = sandbox.dir().join("layout");
    Layout::single(&archive, &image);
    sandbox.outcrop(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    sandbox.outcrop(&["tag", &image.manifest.config.digest.to_string(), &name]).ok();
    sandbox.outcrop(&["push", &name]).ok();
    let pushing = closed.load(Ordering::SeqCst);
    is_pulled(&name, &image);
    assert!(pushing > 0 && closed.load(Ordering::SeqCst) > pushing);
}

#[test]
fn a_connection_that_breaks_while_it_is_found_out_what_speaks_there_is_made_again() {
    let sandbox = Sandbox::new();
    let image = image();
    let registry = filled(&sandbox, &image);
    let server = Server::start(Some(registry.address), |asked, before| match asked.path.as_str() {
        "/v2/" if before == 0 => Reply::Hang,
        _ => Reply::Forward,
    });
    is_pulled(&format!("{}/app:v1", server.address), &image);
}

#[test]
fn a_range_that_cannot_be_says_nothing() {
    for range in ["0-0", "0-3000000"] {
        let bytes = noise("nothing", LARGE);
        let (placed, asked) = push_through(&bytes, move |asked, _| match asked.method.as_str() {
            "PATCH" => Reply::Change(Box::new(move |told| {
                told.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
                told.headers.push(("Range".into(), range.into()));
            })),
            _ => Reply::Forward,
        });
        assert_eq!(placed.unwrap(), Placed::Uploaded, "{range}");
        assert_eq!(uploads(&asked), ["POST", "PATCH", "PUT"], "{range}");
    }
}

#[test]
fn a_token_that_ends_in_the_middle_of_an_upload_is_renewed_though_nobody_reads_what_is_sent() {
    let tokens = Server::start(None, |_, before| {
        Reply::Answer(Told::new(200, &[], format!(r#"{{"token":"t{before}","expires_in":"300"}}"#)))
    });
    let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, tokens.address);
    let is_over = AtomicBool::new(false);
    let bytes = noise("token", LARGE);
    let (placed, asked) = push_through(&bytes, move |asked, _| {
        let refused = || Told::new(401, &[("WWW-Authenticate", &challenge)], "");
        let token = asked.header("authorization").unwrap_or_default();
        if asked.method == "PATCH" && token == "Bearer t0" {
            is_over.store(true, Ordering::SeqCst);
            return Reply::Early(refused());
        }
        match token == if is_over.load(Ordering::SeqCst) { "Bearer t1" } else { "Bearer t0" } {
            true => Reply::Forward,
            false => Reply::Answer(refused()),
        }
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    let uploads = uploads(&asked);
    assert_eq!(uploads[uploads.len() - 2..], ["PATCH", "PUT"], "{uploads:?}");
}

#[test]
fn an_upload_goes_where_it_is_sent_however_that_is_written_and_ends_with_any_success() {
    let bytes = noise("relative", LARGE);
    let (placed, asked) = push_through(&bytes, |asked, _| {
        let is_end = asked.method == "PUT";
        Reply::Change(Box::new(move |told| {
            for (_, value) in
                told.headers.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("location"))
            {
                let path = value
                    .split_once("://")
                    .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()));
                *value = path.unwrap_or_else(|| value.clone());
            }
            if is_end {
                told.status = 202;
            }
        }))
    });
    assert_eq!(placed.unwrap(), Placed::Uploaded);
    assert_eq!(uploads(&asked), ["POST", "PATCH", "PUT"]);
}

#[test]
fn who_may_not_look_may_write() {
    for status in [403, 405] {
        let bytes = noise("unseen", 1000);
        let (placed, asked) = push_through(&bytes, move |asked, before| match asked.method.as_str() {
            "HEAD" if before == 0 => Reply::Answer(Told::new(status, &[], "")),
            _ => Reply::Forward,
        });
        assert_eq!(placed.unwrap(), Placed::Uploaded, "{status}");
        assert_eq!(uploads(&asked), ["POST", "PUT"], "{status}");
    }
}

#[test]
fn a_list_goes_on_at_its_registry_whatever_host_the_link_says() {
    let server = Server::start(None, |asked, _| {
        let page = |link: &str, tags: &str| {
            Reply::Answer(Told::new(200, &[("Link", link)], format!(r#"{{"name":"app","tags":[{tags}]}}"#)))
        };
        match asked.path.as_str() {
            "/v2/" => Reply::Answer(Told::new(200, &[], "{}")),
            "/v2/app/tags/list?last=1" => page("", "\"2\""),
            _ => page(
                "</v2/app/tags/list>; rel=\"first\", <https://registry.internal/v2/app/tags/list?last=1>; rel=\"next\"",
                "\"1\"",
            ),
        }
    });
    let name = at(server.address, "app");
    let registry = Registry::of(&name, &quick()).unwrap();
    assert_eq!(registry.tags(&Job::silent(), &name).unwrap(), ["1", "2"]);
}

#[test]
fn documents_that_come_compressed_are_read() {
    let sandbox = Sandbox::new();
    let image = image();
    let registry = filled(&sandbox, &image);
    let server = Server::start(Some(registry.address), |asked, _| match asked.is_manifest() {
        true => Reply::Change(Box::new(|told| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&told.body).unwrap();
            told.body = gzip.finish().unwrap();
            told.headers.push(("Content-Encoding".into(), "gzip".into()));
        })),
        false => Reply::Forward,
    });
    is_pulled(&format!("{}/app:v1", server.address), &image);
}

#[test]
fn a_registry_may_have_an_address_of_ipv6() {
    let sandbox = Sandbox::new();
    let image = image();
    let registry = filled(&sandbox, &image);
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut here in listener.incoming().flatten() {
            let mut there = TcpStream::connect(registry.address).unwrap();
            let (mut from, mut back) = (there.try_clone().unwrap(), here.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut back));
            std::thread::spawn(move || std::io::copy(&mut here, &mut there));
        }
    });
    is_pulled(&format!("{address}/app:v1"), &image);
}

#[test]
fn an_answer_that_is_cut_short_is_asked_for_again() {
    let sandbox = Sandbox::new();
    let image = image();
    let registry = filled(&sandbox, &image);
    let cut = |told: &mut Told| (told.length, told.cut) = (Some(told.body.len()), Some(told.body.len() / 2));
    let tokens = Server::start(None, move |_, before| {
        let mut told = Told::new(200, &[], r#"{"token":"t","expires_in":300}"#);
        if before == 0 {
            cut(&mut told);
        }
        Reply::Answer(told)
    });
    let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, tokens.address);
    let server = Server::start(Some(registry.address), move |asked, before| {
        match (asked.header("authorization"), asked.path.contains("/tags/list")) {
            (None, _) => Reply::Answer(Told::new(401, &[("WWW-Authenticate", &challenge)], "")),
            // Once it was refused before.
            (_, true) if before == 1 => Reply::Change(Box::new(cut)),
            _ => Reply::Forward,
        }
    });
    let name = format!("{}/app", server.address);
    sandbox.outcrop(&["pull", "-a", &name]).ok();
    // Twice for the list, and once for what is pulled then.
    assert_eq!(tokens.asked().iter().filter(|asked| asked.path.contains("scope=")).count(), 3);
    let lists = server.asked().iter().filter(|asked| asked.path.contains("/tags/list")).count();
    assert_eq!(lists, 3);
    let id = sandbox.outcrop(&["inspect", "-f", "{{.Id}}", &format!("{name}:v1")]).ok().line();
    assert_eq!(id, image.manifest.config.digest.to_string());
    sandbox.check();
}
