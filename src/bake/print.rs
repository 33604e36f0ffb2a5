//! `--print`: what would be built, as the JSON buildx prints.

use serde_json::{Map, Value as Json};

use super::fields::FIELDS;
use super::resolve::Resolved;

impl Resolved {
    pub fn json(&self) -> String {
        let mut groups = Map::new();
        for (name, group) in &self.groups {
            let mut fields = Map::new();
            if !group.description.is_empty() {
                fields.insert("description".into(), group.description.as_str().into());
            }
            fields.insert("targets".into(), group.targets.iter().map(String::as_str).collect());
            groups.insert(name.clone(), fields.into());
        }
        let mut targets = Map::new();
        for (name, target) in &self.targets {
            let mut fields = Map::new();
            for field in &FIELDS {
                if let Some(json) = target.settings.get(field.0).and_then(|setting| setting.json(field.0)) {
                    fields.insert(field.0.into(), json);
                }
            }
            targets.insert(name.clone(), fields.into());
        }
        let mut all = Map::new();
        if !groups.is_empty() {
            all.insert("group".into(), groups.into());
        }
        all.insert("target".into(), targets.into());
        escape_json(&format!("{:#}", Json::Object(all)))
    }
}

/// As Go writes JSON: these letters stand only in strings, and there escaped.
pub fn escape_json(text: &str) -> String {
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
