//! A Dockerfile and its context, made and edited at random. Small on purpose: few names and values, so that edits meet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::random::Random;

#[derive(Clone, Debug)]
pub(super) struct Project {
    files: BTreeMap<&'static str, File>,
    stages: Vec<Stage>,
    pub(super) args: BTreeMap<String, String>,
    /// Every file gets another time.
    touched: u64,
    /// Instructions that end the last stage.
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
enum File {
    Regular { content: usize, mode: u32 },
    Link { target: &'static str },
}

#[derive(Clone, Debug)]
struct Stage {
    base: &'static str,
    steps: Vec<String>,
}

const PATHS: &[&str] = &["a", "b", "d/x", "d/y", "d/e/z", "s/run.sh"];
const VALUES: &[&str] = &["1", "2", "three", "a b"];
const NAMES: &[&str] = &["A", "B", "P", "Q"];
const PLACES: &[&str] =
    &["/in", "/in/", "/in/d/", "/w/", "/w/a", "x/", "/deep/er/", "/deep/", "/ln/", "/ln/d/", "/ln/new"];

impl Project {
    pub(super) fn random(random: &mut Random) -> Self {
        let mut project = Project {
            files: BTreeMap::new(),
            stages: Vec::new(),
            args: BTreeMap::new(),
            touched: 0,
            end: "",
        };
        for path in PATHS {
            if random.below(5) < 4 {
                project.files.insert(path, file(random));
            }
        }
        project.files.insert("a", File::Regular { content: 0, mode: 0o644 });
        for number in 0..=random.below(3) {
            let count = 2 + random.below(4);
            let mut steps = vec!["COPY . /in/".to_owned()];
            steps.extend((0..count).map(|_| step(random, number)));
            let base = random.pick(&["base", "base", "other"]);
            project.stages.push(Stage { base, steps });
        }
        project
    }

    /// One stage, and little in it but the end.
    pub(super) fn ending(random: &mut Random, end: &'static str) -> Self {
        let mut project = Project::random(random);
        let (base, steps) = (random.pick(&["base", "other"]), vec!["COPY . /in/".to_owned()]);
        project.stages = vec![Stage { base, steps }];
        project.end = end;
        project
    }

    pub(super) fn end(&mut self, end: &'static str) {
        self.end = end;
    }

    /// Everyday edits, one or two at a time.
    pub(super) fn edit(&mut self, random: &mut Random) {
        for _ in 0..=random.below(2) {
            let number = random.below(self.stages.len());
            let path = random.pick(PATHS);
            match random.below(15) {
                0 | 1 => drop(self.files.insert(path, file(random))),
                2 if path != "a" => drop(self.files.remove(path)),
                3 => self.touched += 1,
                4 => {
                    let value = random.pick(VALUES).to_owned();
                    self.args.insert(random.pick(&["P", "Q"]).to_owned(), value);
                }
                5 => self.stages[number].base = random.pick(&["base", "other"]),
                6 => {
                    let steps = &mut self.stages[number].steps;
                    let at = random.below(steps.len());
                    steps.insert(at, step(random, number));
                }
                7 | 8 => {
                    let steps = &mut self.stages[number].steps;
                    let at = random.below(steps.len());
                    steps[at] = step(random, number);
                }
                9 => {
                    let steps = &mut self.stages[number].steps;
                    let at = random.below(steps.len());
                    let with = random.below(steps.len());
                    steps.swap(at, with);
                }
                10 | 11 => {
                    let steps = &mut self.stages[number].steps;
                    if steps.len() > 2 {
                        let at = random.below(steps.len());
                        steps.remove(at);
                    }
                }
                _ => self.vary(random),
            }
        }
    }

    /// The least that can be changed: one part of one instruction, or what one variable is.
    pub(super) fn vary(&mut self, random: &mut Random) {
        if random.one_in(6) {
            let value = random.pick(VALUES).to_owned();
            self.args.insert(random.pick(&["P", "Q"]).to_owned(), value);
            return;
        }
        for _ in 0..20 {
            let words = random.pick(ALIKE);
            let found: Vec<_> = self
                .stages
                .iter_mut()
                .flat_map(|stage| &mut stage.steps)
                .filter(|step| words.iter().any(|word| step.contains(word)))
                .collect();
            if let Some(last) = found.len().checked_sub(1) {
                // The last stage is the one that is built whatever the others are.
                let step =
                    found.into_iter().nth(last - random.below(last + 1).min(random.below(last + 1))).unwrap();
                let word = words.iter().find(|word| step.contains(*word)).unwrap();
                *step = step.replacen(word, random.pick(words), 1);
                return;
            }
        }
    }

    pub(super) fn dockerfile(&self) -> String {
        let mut text = String::new();
        for (number, stage) in self.stages.iter().enumerate() {
            writeln!(text, "FROM {} AS s{number}", stage.base).unwrap();
            for step in &stage.steps {
                writeln!(text, "{step}").unwrap();
            }
        }
        writeln!(text, "{}", self.end).unwrap();
        text
    }

    /// Makes `dir` hold the context, and nothing else.
    pub(super) fn write(&self, dir: &Path) {
        drop(fs::remove_dir_all(dir));
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("t.tar"), crate::registry_kit::tar_of("f")).unwrap();
        for (path, file) in &self.files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match file {
                File::Regular { content, mode } => {
                    fs::write(&path, format!("content {content}\n")).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                    let time =
                        std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000 + self.touched);
                    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
                }
                File::Link { target } => symlink(target, &path).unwrap(),
            }
        }
    }
}

fn file(random: &mut Random) -> File {
    match random.below(8) {
        0 => File::Link { target: random.pick(&["a", "d/x", "nowhere"]) },
        _ => File::Regular { content: random.below(4), mode: random.pick(&[0o644, 0o644, 0o600, 0o755]) },
    }
}

/// One instruction for stage `stage`.
fn step(random: &mut Random, stage: usize) -> String {
    let name = random.pick(NAMES);
    let value = random.pick(VALUES);
    match random.below(20) {
        0 | 1 => format!("ENV {name}=\"{value}\""),
        2 => format!("ARG {}=\"{value}\"", random.pick(&["P", "Q"])),
        3 => format!("ARG {}", random.pick(&["P", "Q"])),
        4 => format!("LABEL l{name}=\"{value}\""),
        5 => format!("WORKDIR {}", random.pick(&["/w", "w", "/in", "/tmp", "/w/$A", "x"])),
        6 => format!("USER {}", random.pick(&["0", "root", "1000:1000", "some", "0:5"])),
        7..=10 => copy(random, stage),
        11 => random
            .pick(&[
                "CMD [\"sh\"]",
                "EXPOSE 80",
                "VOLUME /vol",
                "SHELL [\"/bin/sh\", \"-ec\"]",
                "STOPSIGNAL 9",
            ])
            .to_string(),
        _ => format!("RUN {}{}", mount(random, stage), command(random)),
    }
}

/// What stands for each other in an instruction.
const ALIKE: &[&[&str]] = &[
    &["note 1", "note 2", "note three", "note a b"],
    &["USER 0", "USER root", "USER 1000:1000", "USER some", "USER 0:5"],
    &["--chown=5:6", "--chown=some", "--chown=7:6"],
    &["--chmod=0711", "--chmod=u+x,g-r", "--chmod=0644"],
    &[" /in/", " /in/d/", " /w/", " /deep/", " /deep/er/", " /ln/", " /ln/d/"],
    &["WORKDIR /w", "WORKDIR w", "WORKDIR /in", "WORKDIR x", "WORKDIR /tmp", "WORKDIR /etc"],
    &["=\"1\"", "=\"2\"", "=\"three\"", "=\"a b\""],
    &["> /out", "> /out2", "> out"],
    &["target=/in", "target=/w"],
    &["source=d ", "source=. ", "source=a "],
    &["COPY ", "COPY --link ", "ADD ", "COPY --exclude=a "],
    &["--parents d/*", "d/*", "--parents ./d/*"],
];

/// Cache mounts hold what earlier builds left in them, so nothing is said of their content.
fn mount(random: &mut Random, stage: usize) -> String {
    match random.below(12) {
        0 => "--mount=type=tmpfs,target=/out3 ".into(),
        1 => "--mount=type=cache,target=/kept ".into(),
        2 => "--mount=target=/in,source=d ".into(),
        3 => format!("--mount=target=/w,rw,source={} ", random.pick(&["d", "."])),
        4 if stage > 0 => format!("--mount=from=s{},target=/w,source=/in ", random.below(stage)),
        _ => String::new(),
    }
}

fn copy(random: &mut Random, stage: usize) -> String {
    let place = random.pick(PLACES);
    let flags = match random.below(12) {
        0 => "--chown=5:6 ",
        1 => "--chown=some ",
        2 => "--chmod=0711 ",
        3 => "--chmod=u+x,g-r ",
        4 => "--link ",
        5 => "--exclude=a --exclude=d/e ",
        _ => "",
    };
    match random.below(10) {
        8 | 9 => format!("COPY {flags}<<EOF {place}note\nnote {}\nEOF", random.pick(VALUES)),
        0 if stage > 0 => {
            format!(
                "COPY {flags}--from=s{} /in{} {place}",
                random.below(stage),
                random.pick(&["", "/a", "/d"])
            )
        }
        1 => "COPY --from=base /in/a /in/of-base".into(),
        2 => format!("COPY {flags}* {}/", place.trim_end_matches('/')),
        3 => format!("COPY {flags}d {place}"),
        4 => format!("COPY {flags}--parents d/* a {}/", place.trim_end_matches('/')),
        5 => format!("ADD {flags}a d {}/", place.trim_end_matches('/')),
        _ => format!("COPY {flags}a {place}"),
    }
}

/// Commands whose result depends on nothing but what a step may depend on; never on times.
fn command(random: &mut Random) -> String {
    let out = random.pick(&["/out", "/out2", "out", "/in/out"]);
    let name = random.pick(NAMES);
    match random.below(20) {
        18 => format!("pwd > {out}; id -u >> {out}; echo \"$A $P\" >> {out}"),
        14 => "ln -sfn /in /ln; ln -sfn /deep /w; true".into(),
        15 => "mkdir -p /deep/er && chmod 2775 /deep && chmod 700 /in; true".into(),
        16 => "rm -rf /deep /w /ln".into(),
        17 if random.one_in(4) => "rm -rf /in/d; echo file > /in/d; true".into(),
        0 | 1 => format!("cat /in/a /in/d/* > {out} 2>/dev/null || true"),
        2 => format!("echo \"${name}\" > {out}"),
        3 => format!("env | grep '^[ABPQ]=' | sort > {out} || true"),
        4 => format!("x=$(find /in /w /out /deep 2>/dev/null | sort); echo \"$x\" > {out}"),
        5 => format!("mkdir -p /in/d/made && echo {name} > /in/d/made/{name}"),
        6 => "rm -rf /in/d".into(),
        7 => "cp -r /in /in.copy 2>/dev/null; true".into(),
        8 => "chmod 640 /in/a 2>/dev/null; true".into(),
        9 => format!("pwd > /pwd; id -u > {out}; id -g >> {out}"),
        10 => format!(
            "x=$(ls -ln /in /w 2>/dev/null | awk '/^[-l]/ {{print $1, $3, $4, $NF}}'); echo \"$x\" > {out}"
        ),
        11 => "ln -sf /in/a /link; mv /out /moved 2>/dev/null; true".into(),
        12 => "rm -f /out /out2; mkdir /out 2>/dev/null; true".into(),
        _ => format!("test -f /in/d/x && echo yes > {out} || echo no > {out}"),
    }
}
