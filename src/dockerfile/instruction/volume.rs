//! `VOLUME path...` or `VOLUME ["path"...]`: what a container keeps outside its layers.

use serde_json::{Map, Value};

use super::{Effect, Entry, Instruction, Step};
use crate::dockerfile::source::Problem;
use crate::dockerfile::stage::StageState;
use crate::dockerfile::statement::{Statement, Word};

pub(super) static ENTRY: Entry = Entry { keyword: "VOLUME", flags: &[], parse };

#[derive(Debug)]
struct Volume(Vec<Word>);

fn parse(statement: &Statement) -> Result<Instruction, Problem> {
    let words = statement.json_or_words()?;
    if words.is_empty() {
        return Err(statement.needs("at least one path", "write `VOLUME /data`"));
    }
    Ok(Instruction::Step(Box::new(Volume(words))))
}

impl Step for Volume {
    fn apply(&self, _: &Statement, stage: &mut StageState<'_>) -> Result<Effect, Problem> {
        let mut paths = Vec::new();
        for word in &self.0 {
            let path = stage.word(&Word { text: word.text.trim().to_owned(), span: word.span.clone() })?;
            if path.is_empty() {
                return Err(Problem::invalid(word.span.clone(), "the path of a volume is empty")
                    .hint("write `VOLUME /data`"));
            }
            paths.push(path);
        }
        let volumes = stage.config_mut().volumes.get_or_insert_default();
        for path in &paths {
            volumes.insert(path.clone(), Value::Object(Map::new()));
        }
        Effect::config(format!("VOLUME [{}]", paths.join(" ")))
    }
}
