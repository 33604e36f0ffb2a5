//! A target as the words of `outcrop build`.

use super::Target;
use super::fields::entry_words;
use super::resolve::{Resolved, is_remote};

/// What building a target asks for.
#[derive(Debug, PartialEq)]
pub struct Request {
    pub target: String,
    /// Flags, without the context: it comes last.
    pub words: Vec<String>,
    pub context: String,
    /// Flags that say where the image goes: left out where only other targets want it.
    pub delivery: Vec<String>,
    /// What is asked about the target instead of building it.
    pub call: Option<String>,
    /// The Dockerfile's own text, where a target brings it along.
    pub inline: Option<String>,
    /// Named contexts that are the images of these targets.
    pub links: Vec<(String, String)>,
    /// What `--allow` must have granted.
    pub entitlements: Vec<String>,
    pub several_platforms: bool,
    /// Other targets build on its image.
    pub is_linked: bool,
}

impl Resolved {
    /// In an order in which they can be built.
    pub fn requests(&self) -> Vec<Request> {
        self.order.iter().map(|name| self.request(name)).collect()
    }

    fn request(&self, name: &str) -> Request {
        let target = &self.targets[name];
        let links = target.links().map(|(name, target)| (name.to_owned(), target.to_owned())).collect();
        let is_linked = self.targets.values().any(|other| other.links().any(|(_, target)| target == name));
        let only_linked = self.linked.contains(name);
        Request {
            target: name.to_owned(),
            words: target.words(),
            context: target.text("context").unwrap_or(".").to_owned(),
            delivery: if only_linked { Vec::new() } else { target.delivery() },
            call: if only_linked { None } else { target.call() },
            inline: target.text("dockerfile-inline").map(str::to_owned),
            links,
            entitlements: target.texts("entitlements").map(str::to_owned).collect(),
            several_platforms: target.texts("platforms").count() > 1,
            is_linked,
        }
    }
}

impl Target {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut flag = |name: &str, value: &str| words.push(format!("--{name}={value}"));
        if self.text("dockerfile-inline").is_none() {
            flag("file", &self.dockerfile());
        }
        for (name, value) in self.pairs("args") {
            flag("build-arg", &format!("{name}={value}"));
        }
        for (name, value) in self.pairs("labels") {
            flag("label", &format!("{name}={value}"));
        }
        for (name, value) in self.pairs("contexts") {
            if !value.starts_with("target:") {
                let value = value.strip_prefix("cwd://").unwrap_or(value);
                flag("build-context", &format!("{name}={value}"));
            }
        }
        for (name, value) in self.pairs("extra-hosts") {
            flag("add-host", &format!("{name}={value}"));
        }
        for (field, name) in [("target", "target"), ("network", "network"), ("shm-size", "shm-size")] {
            if let Some(text) = self.text(field).filter(|text| !text.is_empty()) {
                flag(name, text);
            }
        }
        for (field, name) in
            [("no-cache-filter", "no-cache-filter"), ("ulimits", "ulimit"), ("entitlements", "allow")]
        {
            for text in self.texts(field) {
                flag(name, text);
            }
        }
        let platforms: Vec<&str> = self.texts("platforms").collect();
        if !platforms.is_empty() {
            flag("platform", &platforms.join(","));
        }
        for field in ["secret", "ssh", "cache-from"] {
            for entry in self.entries(field) {
                flag(field, &entry_words(field, entry));
            }
        }
        let set = ["no-cache", "pull"].into_iter().filter(|name| self.flag(name));
        words.extend(set.map(|name| format!("--{name}")));
        words
    }

    /// As buildx: beside the context where that is a directory.
    fn dockerfile(&self) -> String {
        let file = self.text("dockerfile").unwrap_or("Dockerfile");
        let context = self.text("context").unwrap_or(".");
        if let Some(file) = file.strip_prefix("cwd://") {
            return file.to_owned();
        }
        if file.starts_with('/') || is_remote(file) || is_remote(context) || context == "." {
            return file.to_owned();
        }
        super::functions::clean(&format!("{context}/{file}"))
    }

    fn call(&self) -> Option<String> {
        self.text("call").filter(|call| !["", "build"].contains(call)).map(str::to_owned)
    }

    fn delivery(&self) -> Vec<String> {
        let mut words = Vec::new();
        for tag in self.texts("tags") {
            words.push(format!("--tag={tag}"));
        }
        for annotation in self.texts("annotations") {
            words.push(format!("--annotation={annotation}"));
        }
        for entry in self.entries("attest") {
            if entry.get("disabled").is_none_or(|disabled| disabled != "true") {
                words.push(format!("--attest={}", entry_words("attest", entry)));
            }
        }
        for entry in self.entries("cache-to") {
            words.push(format!("--cache-to={}", entry_words("cache-to", entry)));
        }
        for entry in self.entries("output") {
            let kind = entry.get("type").and_then(|kind| kind.as_str()).unwrap_or_default();
            let pushes = entry.get("push").is_some_and(|push| push == "true");
            // The store of images is where a build goes anyway.
            let store = (kind == "docker" && !entry.contains_key("dest")) || (kind == "image" && !pushes);
            if !store || entry.keys().any(|key| !["type", "push"].contains(&key.as_str())) {
                words.push(format!("--output={}", entry_words("output", entry)));
            }
        }
        words
    }
}
