//! All tags of a repository, pulled at once.

use outcrop::image::{Descriptor, Manifest, MediaType};

use crate::registry_kit::{Image, Layout, RealRegistry, Reply, Server, Told};
use crate::sandbox::Sandbox;

#[test]
fn all_tags_come_page_by_page_and_what_is_no_image_is_passed_over() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let images = ["1", "2", "x.y"].map(|tag| {
        let image = crate::registry_kit::tarred("linux/amd64", &["shared", tag]);
        let layout = Layout::single(&sandbox.dir().join(tag), &image);
        registry.push(&layout, &format!("app:{tag}"));
        image
    });
    let signature = Manifest::new(
        Descriptor::of(MediaType::from("application/vnd.test.config"), b"{}"),
        vec![images[0].manifest.layers[0].clone()],
    );
    let server = Server::start(Some(registry.address), move |asked, _| match &asked.path {
        path if path.contains("/tags/list") && !path.contains("last=") => Reply::Answer(Told::new(
            200,
            &[("Link", "</v2/app/tags/list?n=2&last=1>; rel=\"next\"")],
            r#"{"name":"app","tags":["sig","1"]}"#,
        )),
        path if path.ends_with("/manifests/sig") => Reply::Answer(Told::new(
            200,
            &[("Content-Type", "application/vnd.oci.image.manifest.v1+json")],
            signature.to_bytes(),
        )),
        _ => Reply::Forward,
    });
    let name = format!("{}/app", server.address);

    let outcome = sandbox.outcrop(&["pull", "-a", "--platform", "linux/amd64", &name]).ok();

    assert_eq!(outcome.lines().last().unwrap(), &name);
    outcome.says_not("Using default tag").says(&format!("`{name}:sig` is passed over"));
    let format = ["images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", &name];
    let mut listed = sandbox.outcrop(&format).ok().lines();
    listed.sort();
    let id = |image: &Image| image.manifest.config.digest.to_string();
    let expected = [("1", 0), ("2", 1), ("x.y", 2)].map(|(tag, n)| format!("{tag} {}", id(&images[n])));
    assert_eq!(listed, expected);
    // What they share came once.
    let shared = images[0].manifest.layers[0].digest.to_string();
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.path.contains(&shared) && asked.method == "GET").count(), 1);
    sandbox.check();
}

#[test]
fn a_repository_without_images_for_the_platform_and_a_tag_with_all_of_them_are_errors() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let arm = crate::registry_kit::tarred("linux/arm64", &["a"]);
    registry.push(&Layout::index(&sandbox.dir().join("arm"), &[&arm]), "app:1");
    let name = format!("{}/app", registry.address);
    let pull =
        |more: &[&str]| sandbox.outcrop(&[&["pull", "--platform", "linux/amd64", "-a"], more].concat());

    pull(&[&name]).fails(1).complains("no image for linux/amd64 under the 1 tags of");
    pull(&[&format!("{name}:1")]).fails(1).complains("tag can't be used with --all-tags");
    pull(&[&format!("{}/nothing", registry.address)]).fails(1).complains("the tags of");
    assert_eq!(sandbox.outcrop(&["images", "-q"]).ok().stdout(), "");
}

#[test]
fn a_list_of_tags_that_leads_round_in_a_circle_has_an_end() {
    let sandbox = Sandbox::new();
    let registry = RealRegistry::start(&sandbox);
    let image = crate::registry_kit::tarred("linux/amd64", &["a"]);
    registry.push(&Layout::single(&sandbox.dir().join("layout"), &image), "app:1");
    let server = Server::start(Some(registry.address), move |asked, before| match &asked.path {
        // Whoever comes so often would come for ever.
        path if path.contains("/tags/list") && before < 100 => {
            let next = if path.contains("last=a") { "b" } else { "a" };
            let link = format!("</v2/app/tags/list?last={next}>; rel=\"next\"");
            Reply::Answer(Told::new(200, &[("Link", &link)], r#"{"name":"app","tags":["1"]}"#))
        }
        _ => Reply::Forward,
    });
    let name = format!("{}/app", server.address);
    sandbox.outcrop(&["pull", "-a", "--platform", "linux/amd64", &name]).ok();
    let pages = server.asked().iter().filter(|asked| asked.path.contains("/tags/list")).count();
    assert!(pages < 100, "{pages}");
    sandbox.check();
}
