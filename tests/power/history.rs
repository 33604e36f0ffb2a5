//! What is done to a store, one command after the other, and what must be there when the power comes back.

use std::collections::BTreeMap;

use crate::differential::random::Random;

/// Image ids by name.
pub(super) type Names = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Of `base`.
    Import,
    /// Of `it:NUMBER`.
    Build(u32),
    /// Of one of the images in the registry.
    Pull(usize),
    /// Of `committed:NUMBER`: a container `boxNUMBER` writes, and goes once there is an image of it.
    Commit(u32),
    Tag {
        from: String,
        to: String,
    },
    Remove(String),
    Rollback {
        name: String,
        to: String,
    },
    Prune,
    /// To the other driver of the ground, or back.
    Migrate,
    /// A container that goes when it ends was created, is on disk, and runs now.
    Start,
}

/// The id of what is not built yet.
const UNKNOWN: &str = "unknown";

/// Where the guest finds the registry.
pub(super) const REGISTRY: &str = "127.0.0.1:5000";

impl Act {
    /// For a shell in which `o` is outcrop.
    pub(super) fn command(&self) -> String {
        match self {
            Act::Import => "o import busybox.tar base".into(),
            Act::Build(number) => {
                format!("o build -q -t it:{number} --build-arg SALT={number} --network none context")
            }
            Act::Pull(number) => format!("o pull -q {REGISTRY}/noise:{number}"),
            Act::Commit(number) => format!("committed {number}"),
            Act::Tag { from, to } => format!("o tag {from} {to}"),
            Act::Remove(name) => format!("o rmi {name}"),
            Act::Rollback { name, to } => format!("o rollback {name} --to {to}"),
            Act::Prune => "o system prune -f".into(),
            Act::Migrate => "migrated".into(),
            Act::Start => "started".into(),
        }
    }

    pub(super) fn verb(&self) -> &'static str {
        match self {
            Act::Import => "import",
            Act::Build(_) => "build",
            Act::Pull(_) => "pull",
            Act::Commit(_) => "commit",
            Act::Tag { .. } => "tag",
            Act::Remove(_) => "rmi",
            Act::Rollback { .. } => "rollback",
            Act::Prune => "prune",
            Act::Migrate => "migrate",
            Act::Start => "start",
        }
    }

    /// What it changes.
    fn name(&self) -> Option<String> {
        match self {
            Act::Import => Some("base:latest".into()),
            Act::Build(number) => Some(format!("it:{number}")),
            Act::Pull(number) => Some(format!("{REGISTRY}/noise:{number}")),
            Act::Commit(number) => Some(format!("committed:{number}")),
            Act::Tag { to: name, .. } | Act::Remove(name) | Act::Rollback { name, .. } => Some(name.clone()),
            Act::Prune | Act::Migrate | Act::Start => None,
        }
    }
}

/// What has been done, as the guest reported it.
#[derive(Clone)]
pub(super) struct History {
    /// The ids of the images in the registry.
    images: Vec<String>,
    pub(super) names: Names,
    /// A name of which it is not known what it is, as what changes it was cut off.
    doubtful: Option<String>,
    /// What a name pointed at, in order.
    moves: BTreeMap<String, Vec<String>>,
    /// The last number that was given away.
    last: u32,
}

impl History {
    pub(super) fn new(images: Vec<String>) -> Self {
        History { images, names: Names::new(), doubtful: None, moves: BTreeMap::new(), last: 0 }
    }

    /// A build of what was not built before.
    pub(super) fn build(&mut self) -> Act {
        Act::Build(self.number())
    }

    fn number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// What it takes to take a name back to `base`, which has another one: the last act does.
    pub(super) fn rollback(&self, from: &str, name: &str) -> Vec<Act> {
        let tag = |from: &str| Act::Tag { from: from.into(), to: name.into() };
        let to = self.names["base:latest"].clone();
        vec![tag("base:latest"), tag(from), Act::Rollback { name: name.into(), to }]
    }

    /// These many things that can be done one after the other.
    pub(super) fn plan(&mut self, count: usize, random: &mut Random) -> Vec<Act> {
        let mut planned = self.clone();
        let mut acts = Vec::new();
        for _ in 0..count {
            let act = planned.some(random);
            planned.done(&act, UNKNOWN);
            acts.push(act);
        }
        self.last = planned.last;
        acts
    }

    /// The same, of which the last is one of these verbs, if one of them can be; of all where none is said.
    pub(super) fn plan_for_a_cut(&mut self, count: usize, verbs: &[&str], random: &mut Random) -> Vec<Act> {
        let wanted =
            |acts: &[Act]| verbs.is_empty() || acts.last().is_some_and(|act| verbs.contains(&act.verb()));
        // Else there would be nothing but imports.
        let count = if verbs.is_empty() { count } else { count.max(2) };
        let mut planned = self.clone();
        let mut acts = planned.plan_with_quick_end(count, random);
        for _ in 0..100 {
            if wanted(&acts) {
                break;
            }
            planned = self.clone();
            acts = planned.plan_with_quick_end(count, random);
        }
        *self = planned;
        acts
    }

    /// The same, and most of the time the last is one of those that are over soon, or seldom come else.
    fn plan_with_quick_end(&mut self, count: usize, random: &mut Random) -> Vec<Act> {
        let mut acts = self.plan(count - 1, random);
        let mut planned = self.clone();
        acts.iter().for_each(|act| planned.done(act, UNKNOWN));
        let others = planned.changeable();
        // What `base` is was reported.
        let known = self.certain().any(|(name, _)| name == "base:latest");
        match random.below(8) {
            0 | 1 if known && !others.is_empty() => {
                let from = &others[random.below(others.len())];
                acts.extend(planned.rollback(from, &format!("moving:{}", random.below(2))));
            }
            // A tag, the removal of a name, and nothing but what is there.
            number @ 2..=4 => acts.push(planned.numbered(5 + number, random)),
            // A migration, a commit.
            number @ 5..=6 => acts.push(planned.numbered(number - 3, random)),
            _ => {
                let number = random.below(10);
                acts.push(planned.numbered(number, random));
            }
        }
        self.last = planned.last;
        acts
    }

    /// Something that can be done now.
    fn some(&mut self, random: &mut Random) -> Act {
        if self.names.is_empty() {
            return Act::Import;
        }
        let number = random.below(10);
        self.numbered(number, random)
    }

    /// Names that may move.
    fn changeable(&self) -> Vec<String> {
        self.certain().map(|(name, _)| name).filter(|name| *name != "base:latest").cloned().collect()
    }

    fn certain(&self) -> impl Iterator<Item = (&String, &String)> {
        self.names.iter().filter(|(name, _)| Some(*name) != self.doubtful.as_ref())
    }

    /// Nobody will hear how it ended, until somebody looks.
    pub(super) fn is_cut_off(&mut self, act: Option<&Act>) {
        self.doubtful = act.and_then(Act::name);
    }

    /// Of ten kinds, some of which are the same; where that one cannot be done now, a build.
    fn numbered(&mut self, number: usize, random: &mut Random) -> Act {
        if self.names.is_empty() {
            return Act::Import;
        }
        let changeable = self.changeable();
        let pick = |random: &mut Random| changeable[random.below(changeable.len())].clone();
        match number {
            2 => Act::Migrate,
            3 => Act::Commit(self.number()),
            4..=6 => Act::Pull(random.below(self.images.len())),
            7 if !changeable.is_empty() => {
                Act::Tag { from: pick(random), to: format!("moving:{}", random.below(2)) }
            }
            8 if !changeable.is_empty() => Act::Remove(pick(random)),
            9 if self.rollbacks().is_empty() => Act::Prune,
            9 => {
                let mut rollbacks = self.rollbacks();
                rollbacks.swap_remove(random.below(rollbacks.len()))
            }
            _ => self.build(),
        }
    }

    /// To images that have another name too, so that none of them was pruned.
    fn rollbacks(&self) -> Vec<Act> {
        let mut found = Vec::new();
        for (name, now) in self.certain() {
            for to in self.moves.get(name).into_iter().flatten() {
                if to != now && to != UNKNOWN && self.certain().any(|(_, id)| id == to) {
                    found.push(Act::Rollback { name: name.clone(), to: to.clone() });
                }
            }
        }
        found
    }

    /// It was done, and said this.
    pub(super) fn done(&mut self, act: &Act, said: &str) {
        let id = match act {
            Act::Import | Act::Build(_) | Act::Commit(_) => said.rsplit(' ').next().map(str::to_owned),
            _ => self.outcome(act),
        };
        if let Some(name) = act.name() {
            self.point(name, id);
        }
    }

    fn outcome(&self, act: &Act) -> Option<String> {
        match act {
            Act::Pull(number) => Some(self.images[*number].clone()),
            Act::Tag { from, .. } => Some(self.names[from].clone()),
            Act::Rollback { to, .. } => Some(to.clone()),
            Act::Import
            | Act::Build(_)
            | Act::Commit(_)
            | Act::Remove(_)
            | Act::Prune
            | Act::Migrate
            | Act::Start => None,
        }
    }

    fn point(&mut self, name: String, id: Option<String>) {
        self.doubtful.take_if(|doubtful| *doubtful == name);
        match id {
            Some(id) => {
                let moves = self.moves.entry(name.clone()).or_default();
                if moves.last() != Some(&id) {
                    moves.push(id.clone());
                }
                self.names.insert(name, id);
            }
            None => drop(self.names.remove(&name)),
        }
    }

    /// After a cut: all that was reported is there, of what was under way (`act`) all or nothing. Else what is wrong.
    pub(super) fn found(&mut self, seen: &Names, act: Option<&Act>) -> Result<(), String> {
        self.doubtful = None;
        if *seen == self.names {
            return Ok(());
        }
        let mut after = self.clone();
        if let Some(act) = act
            && let Some(name) = act.name()
        {
            let id = match act {
                // Nobody has heard yet what came of it.
                Act::Import | Act::Build(_) | Act::Commit(_) => seen.get(&name).cloned(),
                _ => self.outcome(act),
            };
            after.point(name, id);
        }
        if *seen != after.names {
            let (before, after) = (&self.names, &after.names);
            return Err(format!(
                "{act:?} was cut off; there is\n{seen:#?}\nbefore\n{before:#?}\nafter\n{after:#?}"
            ));
        }
        *self = after;
        Ok(())
    }
}

#[test]
fn what_may_be_gone_is_not_named() {
    let mut history = History::new(vec!["p0".into(), "p1".into()]);
    history.done(&Act::Import, "b");
    for number in 0..2 {
        history.done(&Act::Pull(number), "whatever");
    }
    history.is_cut_off(Some(&Act::Remove("127.0.0.1:5000/noise:0".into())));
    assert_eq!(history.changeable(), ["127.0.0.1:5000/noise:1"]);
    history.done(&Act::Pull(0), "whatever");
    assert_eq!(history.changeable().len(), 2);
}

#[test]
fn what_was_reported_must_be_there_and_what_was_under_way_may_be() {
    let mut history = History::new(vec!["p0".into(), "p1".into()]);
    history.done(&Act::Import, "b");
    history.done(&Act::Pull(0), "whatever");
    let names = |pairs: &[(&str, &str)]| -> Names {
        pairs.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
    };
    let pulled = "127.0.0.1:5000/noise:0";
    let build = Act::Build(1);
    let now = names(&[("base:latest", "b"), (pulled, "p0")]);
    let more = names(&[("base:latest", "b"), (pulled, "p0"), ("it:1", "i")]);
    let less = names(&[("base:latest", "b")]);
    let wrong = names(&[("base:latest", "b"), (pulled, "p1")]);

    assert!(history.clone().found(&now, None).is_ok());
    assert!(history.clone().found(&now, Some(&build)).is_ok());
    assert!(history.clone().found(&more, Some(&build)).is_ok());
    assert!(history.clone().found(&more, None).is_err());
    assert!(history.clone().found(&less, Some(&build)).is_err());
    assert!(history.clone().found(&less, Some(&Act::Remove(pulled.into()))).is_ok());
    assert!(history.clone().found(&wrong, Some(&Act::Pull(0))).is_err());
}
