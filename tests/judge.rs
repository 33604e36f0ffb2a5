//! The same Dockerfiles by outcrop and by other builders, and nothing may differ that is not explained here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::judge_kit::{Court, JUDGES, Judge, differences, ours};
use crate::sandbox::Sandbox;

/// A Dockerfile, its context, and what is known to differ.
pub(crate) struct Case {
    name: &'static str,
    dockerfile: String,
    /// Images that are built first, from the same context.
    before: Vec<(&'static str, &'static str)>,
    args: Vec<&'static str>,
    files: Box<dyn Fn(&Context)>,
    /// The same meaning in words that the judges, which are older, know.
    older: Option<String>,
    refused: bool,
    refused_here: bool,
    differs: Vec<Difference>,
    absent: Vec<Judge>,
}

struct Difference {
    judge: Judge,
    /// Of the keys of [`differences`]; a `*` at the end stands for the rest.
    key: &'static str,
}

pub(crate) fn case(name: &'static str, dockerfile: impl Into<String>) -> Case {
    Case {
        name,
        dockerfile: dockerfile.into(),
        before: Vec::new(),
        args: Vec::new(),
        files: Box::new(|_| ()),
        older: None,
        refused: false,
        refused_here: false,
        differs: Vec::new(),
        absent: Vec::new(),
    }
}

impl Case {
    fn files(mut self, files: impl Fn(&Context) + 'static) -> Self {
        self.files = Box::new(files);
        self
    }
    fn before(mut self, name: &'static str, dockerfile: &'static str) -> Self {
        self.before.push((name, dockerfile));
        self
    }
    fn args(mut self, args: &[&'static str]) -> Self {
        self.args.extend(args);
        self
    }
    /// What the judges are given in its place; the history then differs, and is not compared.
    fn older(mut self, dockerfile: impl Into<String>) -> Self {
        self.older = Some(dockerfile.into());
        self
    }
    /// Nobody builds it.
    fn refused(mut self) -> Self {
        self.refused = true;
        self
    }
    /// Others build it, and outcrop refuses it on purpose.
    fn refused_here(mut self, _why: &'static str) -> Self {
        self.refused_here = true;
        self
    }
    /// `why` is for the reader. It is an error when the difference is gone.
    fn but(mut self, judge: Judge, _why: &'static str, keys: &[&'static str]) -> Self {
        self.differs.extend(keys.iter().map(|key| Difference { judge, key }));
        self
    }
    /// This judge cannot build it, and must say so.
    fn not_by(mut self, judge: Judge, _why: &'static str) -> Self {
        self.absent.push(judge);
        self
    }
}

/// What all files of a context are as old as.
const OLD: &str = "@1000000000";

/// A context that is being filled.
pub(crate) struct Context(PathBuf);

impl Context {
    fn file(&self, path: &str, text: &str) -> &Self {
        self.file_with(path, 0o644, text)
    }
    fn file_with(&self, path: &str, mode: u32, text: &str) -> &Self {
        let path = self.parented(path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self
    }
    fn dir(&self, path: &str, mode: u32) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self
    }
    fn link(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.parented(path)).unwrap();
        self
    }
    fn hard_link(&self, path: &str, first: &str) -> &Self {
        fs::hard_link(self.0.join(first), self.parented(path)).unwrap();
        self
    }
    fn owned(&self, path: &str, owner: u32) -> &Self {
        std::os::unix::fs::lchown(self.0.join(path), Some(owner), Some(owner)).unwrap();
        self
    }
    fn xattr(&self, path: &str, name: &str, value: &[u8]) -> &Self {
        rustix::fs::lsetxattr(self.0.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
        self
    }
    fn parented(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
    /// All of it gets the same age, whenever it was written.
    fn age(&self) {
        let touch = |paths: &[&str]| {
            let status = std::process::Command::new("find")
                .arg(&self.0)
                .args(paths)
                .args(["-exec", "touch", "-h", "-d", OLD, "{}", "+"])
                .status();
            assert!(status.unwrap().success());
        };
        touch(&["-depth"]);
    }
}

/// Builds every case with outcrop and these judges; all that differs is told at once.
fn judge(judges: &[Judge], cases: &[Case]) {
    let court = Court::sits();
    let sandbox = Sandbox::new();
    sandbox.base_image("base");
    let mut complaints = String::new();
    for case in cases {
        let dir = sandbox.context().join(case.name);
        fs::create_dir(&dir).unwrap();
        let context = Context(dir.clone());
        (case.files)(&context);
        let text = one(&sandbox, &court, judges, case, &context);
        if !text.is_empty() {
            write!(complaints, "\n== {}\n{}\n{text}", case.name, case.dockerfile).unwrap();
        }
    }
    assert!(complaints.is_empty(), "{complaints}");
    sandbox.check();
}

fn one(sandbox: &Sandbox, court: &Arc<Court>, judges: &[Judge], case: &Case, context: &Context) -> String {
    let dir = &context.0;
    // Beside the context, so that `COPY .` sees none of them.
    let write = |kind: &str, text: &str| {
        let path = sandbox.dir().join(format!("{}.{kind}", case.name));
        fs::write(&path, text).unwrap();
        path
    };
    let new = write("dockerfile", &case.dockerfile);
    let old = case.older.as_ref().map_or_else(|| new.clone(), |text| write("older", text));
    context.age();
    let build = |name: &str, dockerfile: &Path| {
        let mut args = vec!["build", "--progress", "plain", "--network", "none", "-t", name, "-f"];
        args.push(dockerfile.to_str().unwrap());
        args.extend(&case.args);
        args.push(dir.to_str().unwrap());
        sandbox.outcrop(&args)
    };
    let before: Vec<(&str, PathBuf)> =
        case.before.iter().map(|(name, text)| (*name, write(name, text))).collect();
    let mut complaints = String::new();
    for (name, dockerfile) in &before {
        build(name, dockerfile).ok();
    }
    let outcome = build(case.name, &new);
    let refused_here = case.refused || case.refused_here;
    if (outcome.code() != Some(0)) != refused_here {
        let said = format!("{}{}", outcome.stdout(), outcome.stderr());
        return format!("  outcrop ends with {:?}:\n{said}", outcome.code());
    }
    let built = (!refused_here).then(|| ours(sandbox, case.name));
    for &judge in judges {
        for (name, dockerfile) in &before {
            court.build(judge, dir, dockerfile, name, &[]).ok();
        }
        let outcome = court.build(judge, dir, &old, case.name, &case.args);
        let refused = case.refused || case.absent.contains(&judge);
        if (outcome.code() != Some(0)) != refused {
            let said = format!("{}{}", outcome.stdout(), outcome.stderr());
            write!(complaints, "  {judge:?} ends with {:?}:\n{said}", outcome.code()).unwrap();
            continue;
        }
        let Some(built) = built.as_ref().filter(|_| !refused) else { continue };
        let theirs = court.image(judge, case.name);
        let mut found = differences(built, &theirs, judge);
        if case.older.is_some() || judge == Judge::Buildah {
            found.retain(|key, _| !key.starts_with("history:"));
        }
        complaints.push_str(&unexplained(case, judge, found));
    }
    complaints
}

fn unexplained(case: &Case, judge: Judge, mut found: BTreeMap<String, String>) -> String {
    let mut complaints = String::new();
    for known in case.differs.iter().filter(|known| known.judge == judge) {
        let before = found.len();
        found.retain(|key, _| match known.key.strip_suffix('*') {
            Some(start) => !key.starts_with(start),
            None => key != known.key,
        });
        if found.len() == before {
            writeln!(complaints, "  {judge:?} no longer differs in {}", known.key).unwrap();
        }
    }
    for (key, text) in found {
        writeln!(complaints, "  {key}\n      {text}").unwrap();
    }
    complaints
}

#[test]
fn copies_of_files_and_directories() {
    let tree = |c: &Context| {
        c.file("a", "a").file_with("b", 0o755, "bb").file_with("secret", 0o600, "s");
        c.file("d/one", "1").file_with("d/sub/two", 0o640, "2").dir("d/empty", 0o700).dir("d/sub", 0o2775);
        c.link("d/to-one", "one").link("d/to-dir", "sub").link("d/dangling", "/nowhere");
        c.link("link", "a").link("dlink", "d");
    };
    judge(&JUDGES, &[
        case(
            "destinations",
            "FROM base\nCOPY a /x\nCOPY a /dir/\nCOPY a b /many/\nCOPY a /tmp\nCOPY a /deep/er/still/x\nCOPY a /root/\n\
             COPY [\"a\", \"b\", \"/json/\"]\nWORKDIR /w\nCOPY a rel\nCOPY a ./dot/\nCOPY a .\nCOPY b ../up\nCOPY a b /w\n",
        )
        .files(tree),
        case(
            "directories",
            "FROM base\nCOPY d /x\nCOPY d /y/\nCOPY d/ /z\nCOPY d/. /dot\nCOPY d/sub /y/\nCOPY d d/sub /both/\n\
             COPY . /all/\nCOPY ./ /all2\nCOPY d /tmp\n",
        )
        .files(tree),
        case("links", "FROM base\nCOPY link /file\nCOPY dlink /dir\nCOPY d/to-dir /sub/\nCOPY d/to-one /one/\n").files(tree),
        case(
            "over-what-is-there",
            "FROM base\nRUN mkdir -m 711 /d && mkdir -m 700 /d/sub && echo old > /d/one && chmod 600 /d/one && \
             ln -s one /d/to-one2 && echo keep > /d/keep && ln -s /d /ld && ln /d/keep /d/keep2\nCOPY d /d\nCOPY a /d/to-one2\n\
             COPY b /ld/\nCOPY d/sub /ld\nCOPY b /d/keep\n",
        )
        .files(tree)
        .but(Judge::Buildah, "puts the file in the link's place", &["tree:/d/one", "tree:/d/to-one2"]),
        case("a-file-for-a-directory", "FROM base\nRUN mkdir /x\nCOPY d/one /x\n").files(tree),
        case("a-directory-for-a-file", "FROM base\nRUN echo > /x\nCOPY d /x\n").files(tree).refused(),
        case("many-and-no-slash", "FROM base\nCOPY a b /x\n")
            .files(tree)
            .but(Judge::Buildah, "makes a directory of it", &["tree:/x*"]),
        case("absent", "FROM base\nCOPY absent /x\n").files(tree).refused(),
        case("below-a-file", "FROM base\nCOPY a /x\nCOPY b /x/y\n").files(tree).refused(),
        case("over-a-directory-in-a-directory", "FROM base\nRUN mkdir -p /x/one\nCOPY d /x\n")
            .files(tree)
            .refused_here("Buildah puts the file in the directory's place, BuildKit refuses it too")
            .not_by(Judge::BuildKit, "as outcrop"),
        case(
            "wildcards",
            "FROM base\nCOPY *.txt /txt/\nCOPY d/* /flat/\nCOPY d/?ne /q/\nCOPY [ab].txt /set/\nCOPY d*/s?b/* /deep/\n\
             COPY d/[!o]* /not/\nCOPY d/[^o]* /not2/\n",
        )
        .files(|c| {
            c.file("a.txt", "a").file("b.txt", "b").file("c.md", "c").file("d/one", "1").file("d/sub/two", "2");
            c.file("d/.hidden", "h").file("d2/sub/three", "3").link("d/l", "one");
        }),
        case(
            "names",
            "FROM base\nCOPY [\"with space\", \"/with space/\"]\nCOPY b\\*c /star/\nCOPY arr[[]0].txt /arr/\nCOPY umlaut-\u{e4} /u/\n\
             COPY .hidden /h/\nCOPY ...x /h/\nCOPY \"quo\\\"te\" /q/\nCOPY -dash /d/\n",
        )
        .files(|c| {
            c.file("with space", "1").file("b*c", "2").file("bxc", "3").file("arr[0].txt", "4");
            c.file("umlaut-\u{e4}", "5").file(".hidden", "6").file("...x", "7").file("quo\"te", "8").file("-dash", "9");
        })
        .not_by(Judge::Buildah, "its wildcards know no `[[]`"),
        case(
            "hard-links-and-attributes",
            "FROM base\nCOPY h /h\nCOPY h/a /one/\nCOPY cap /cap\nCOPY suid /suid\nRUN cp -a /h /h2 && ln /h/c /h/d\n",
        )
        .files(|c| {
            c.file("h/a", "a").hard_link("h/b", "h/a").file("h/c", "c").file_with("cap", 0o755, "x");
            c.file_with("suid", 0o4755, "s").file_with("h/sticky", 0o1644, "t");
            // cap_net_bind_service=ep
            c.xattr("cap", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        })
        .but(Judge::BuildKit, "loses capabilities on the way from the context (moby/buildkit#2250)", &["tree:/cap"]),
    ]);
}

#[test]
fn owners_and_modes_of_copies() {
    let tree = |c: &Context| {
        c.file("a", "a").file_with("b", 0o755, "b").file("d/one", "1").dir("d/sub", 0o700).link("d/l", "one");
        c.owned("a", 1234).owned("d/one", 7).owned("d", 8);
    };
    const USERS: &str = "FROM base\nRUN echo app:x:1000:2000::/:/bin/sh >> /etc/passwd && echo app:x:2000: >> /etc/group \
         && echo staff:x:50:app >> /etc/group\n";
    judge(&JUDGES, &[
        case(
            "chown",
            format!(
                "{USERS}COPY a /plain\nCOPY --chown=1:2 a /x\nCOPY --chown=3 a /y\nCOPY --chown=app a /z\nCOPY --chown=app:staff d /d/e/\n\
                 COPY --chown=nobody:50 d /n\nCOPY --chown=app a /new/er/x\nCOPY --chown=5:5 b /d/e/\nCOPY --chown=:50 a /g\n"
            ),
        )
        .files(tree),
        case("chown-nobody-knows", "FROM base\nCOPY --chown=ghost a /x\n")
            .files(tree)
            .refused_here("BuildKit makes it root's in silence")
            .not_by(Judge::Buildah, "as outcrop"),
        case(
            "chmod",
            "FROM base\nCOPY --chmod=600 a /x\nCOPY --chmod=0755 a b /y/\nCOPY --chmod=4711 a /new/er/z\nCOPY --chmod=750 d /d\n\
             COPY --chmod=644 --chown=9:9 d /d2/\n",
        )
        .files(tree)
        .but(Judge::BuildKit, "sets no set-id bits before 1.14", &["tree:/new/er/z"])
        ,
        case("user-does-not-own-copies", "FROM base\nUSER nobody\nCOPY a /x\nWORKDIR /w\nCOPY d w/\nRUN id -u > /tmp/id\n")
            .files(tree),
        case("add", "FROM base\nADD a /x\nADD --chown=1:2 a b /y/\nADD d /d/\nADD --chmod=711 b /z\n").files(tree),
    ]);
}

#[test]
fn stages() {
    judge(&JUDGES, &[
        case(
            "from-stage",
            "FROM base AS make\nRUN mkdir -p /out/d && echo 1 > /out/d/f && chown 5:6 /out/d/f && chmod 4750 /out/d/f && ln -s f /out/d/l \
             && ln /out/d/f /out/d/h && mkfifo /out/fifo && touch -d @1000000000 /out/d/f /out/d && ln -s d /out/ld\n\
             FROM base AS Second\nCOPY --from=make /out /a\nCOPY --from=make /out/d /b/\nCOPY --from=make out/ld /c\n\
             FROM scratch\nCOPY --from=second / /\nCOPY --from=0 --chown=1:1 /out/d /owned\nCOPY --from=make /out/d/* /flat/\n\
             COPY --from=base /etc/passwd /etc/group /image/\nCOPY --from=make /out/ld/f /through\n",
        )
        .but(Judge::BuildKit, "left pipes out in silence", &["tree:/a/fifo"])
        .not_by(Judge::Buildah, "names of stages have a case there"),
        case(
            "target",
            "ARG V=1\nFROM base AS a\nARG V\nRUN echo a$V > /a\nFROM a AS b\nRUN echo b > /b\nFROM b AS c\nRUN exit 1\n",
        )
        .args(&["--target", "b", "--build-arg", "V=7"])
        .but(Judge::BuildKit, "the history tells what an ARG is worth since 1.15", &["history:0"])
        .but(Judge::BuildKit, "the history forgot the ARGs of the stage below until 1.12", &["history:2"]),
        case("scratch-with-config", "FROM scratch\nENV A=1\nLABEL b=2\nCMD [\"/x\"]\nCOPY x /x\nEXPOSE 1\n").files(|c| {
            c.file_with("x", 0o755, "x");
        })
        .but(Judge::Buildah, "says none", &["config:WorkingDir"]),
        case("no-such-stage", "FROM base\nCOPY --from=nowhere:/x /a /b\n").refused(),
        case("stage-numbers", "FROM base\nRUN echo zero > /n\nFROM base\nCOPY --from=0 /n /n0\nRUN echo one > /n\nFROM base\nCOPY --from=1 / /one/\n")
            .but(Judge::Buildah, "copies what it mounts on, too", &["tree:/one/etc/*", "tree:/one/run*"]),
        case("from-itself", "FROM base AS x\nRUN true\nCOPY --from=x /a /b\n").refused(),
    ]);
}

#[test]
fn mounts_of_commands() {
    let tree = |c: &Context| {
        c.file("a", "a").file_with("d/one", 0o640, "1").dir("d", 0o750).owned("d/one", 7).owned("d", 8);
    };
    const POINTS: &str = "FROM base AS from\nRUN mkdir -p /s/sub && echo s > /s/f && chown 3:4 /s/f && chmod 600 /s/f\n\
         FROM base\nRUN mkdir /p && touch /one\n";
    judge(&[Judge::BuildKit], &[
        case(
            "mounts-bind",
            format!(
                "{POINTS}WORKDIR /p\nRUN --mount=target=. cat a > /a; stat -c '%u:%g %a %n' * d/* > /seen; ! touch x 2> /dev/null\n\
                 RUN --mount=target=/p,rw echo lost > new && cat new > /new && echo b >> a && cat a > /changed\n\
                 RUN --mount=target=/p cat /p/a > /unchanged\nRUN --mount=type=bind,source=d/one,target=/one cp /one /copied\n\
                 RUN --mount=from=from,source=/s,target=/p cp -a /p /s && stat -c '%u:%g %a %n' f > /stage\n\
                 RUN --mount=from=base,source=/etc,target=/p cp passwd /image\n"
            ),
        )
        .files(tree),
        case(
            "mounts-cache-and-tmpfs",
            format!(
                "{POINTS}RUN --mount=type=cache,target=/p,uid=5,gid=6,mode=0711 stat -c '%u:%g %a' /p > /owner; echo 1 > /p/kept\n\
                 RUN --mount=type=cache,target=/p,uid=5,gid=6,mode=0711 cat /p/kept > /again\n\
                 RUN --mount=type=cache,id=from,from=from,source=/s,target=/p ls -l /p | awk '{{print $1, $3, $4, $9}}' > /seeded; rm -r /p/f /p/sub\n\
                 RUN --mount=type=cache,id=from,target=/p,from=from,source=/s ls -A /p > /emptied\n\
                 RUN --mount=type=tmpfs,target=/p echo t > /p/t && cat /p/t > /tmpfs\nRUN ls -A /p > /nothing\n"
            ),
        ),
        case(
            "mounts-secret",
            format!(
                "{POINTS}RUN --mount=type=secret,id=s,target=/one test -s /one && stat -c '%u:%g %a' /one > /mode\n\
                 RUN --mount=type=secret,id=s,target=/one,uid=1,gid=2,mode=0444 stat -c '%u:%g %a' /one > /mode2\n\
                 RUN --mount=type=secret,id=none,target=/one test ! -s /one\n"
            ),
        )
        .args(&["--secret", "id=s,src=/etc/passwd"]),
        case("mounts-needed-secret", "FROM base\nRUN --mount=type=secret,id=none,required true\n").refused(),
        case("mounts-of-nowhere", "FROM base\nRUN --mount=source=absent,target=/x true\n").refused(),
        case("mounts-without-target", "FROM base\nRUN --mount=type=cache true\n").refused(),
        case("mounts-of-no-type", "FROM base\nRUN --mount=type=nothing,target=/x true\n").refused(),
        case("mounts-made-for-it", "FROM base\nRUN --mount=target=/ctx/deep cat /ctx/deep/a > /a\n")
            .files(tree)
            .but(Judge::BuildKit, "leaves the mount points it makes", &["tree:/ctx*"]),
    ]);
}

#[test]
fn configurations() {
    judge(&[Judge::BuildKit], &[
        case(
            "every-instruction",
            "FROM base\nMAINTAINER Some One <some@one>\nLABEL a=1 b=\"two words\" c='single $A'\nLABEL d=x\\ y\nENV A=1 B=\"$A two\" C=x\\ y\n\
             ENV OLD form of it\nEXPOSE 80 443/tcp 53/udp 8000-8002\nVOLUME /v1 /v2\nVOLUME [\"/v 3\"]\nUSER 1000:1000\nWORKDIR /w\n\
             STOPSIGNAL SIGQUIT\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"echo\", \"x y\"]\nHEALTHCHECK --interval=5s --timeout=1m30s \
             --start-period=2s --retries=4 CMD echo ok || exit 1\nONBUILD RUN echo child\nONBUILD COPY . /src\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n",
        ),
        case(
            "shell-forms",
            "FROM base\nCMD echo $A \"b  c\" && true\nENTRYPOINT exec top -b\nHEALTHCHECK CMD [\"test\", \"-e\", \"/x\"]\nSTOPSIGNAL 9\n",
        ),
        case("cmd-survives", "FROM base\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\nCMD []\nHEALTHCHECK NONE\n"),
        case("json-of-numbers", "FROM base\nCMD [1, 2]\n").refused(),
        case("entrypoint-drops-the-base-cmd", "FROM with-cmd\nENTRYPOINT [\"/e\"]\n")
            .before("with-cmd", "FROM base\nCMD [\"from\", \"base\"]\nEXPOSE 1\nVOLUME /b\nLABEL l=base k=base\nUSER nobody\nWORKDIR /tmp\n"),
        case("overrides", "FROM with-all\nLABEL k=child m=\nENV A=2 N=3\nEXPOSE 2\nVOLUME /c\nUSER root\nCMD x\n")
            .before("with-all", "FROM base\nENV A=1 B=1\nEXPOSE 1\nVOLUME /b\nLABEL l=base k=base\nUSER nobody\nENTRYPOINT [\"/e\"]\n"),
        case(
            "shell",
            "FROM base\nSHELL [\"/bin/busybox\", \"sh\", \"-euc\"]\nRUN echo $- > /flags\nCMD echo x\nENTRYPOINT y z\nSHELL [\"/bin/sh\", \"-c\"]\nRUN echo back > /back\n",
        ),
        case("labels-of-the-command-line", "FROM base\nLABEL a=file b=file\n").args(&["--label", "a=line", "--label", "c=d=e"])
            .but(Judge::BuildKit, "they are an instruction of their own in outcrop", &["history:1"]),
        case("workdirs", "FROM base\nWORKDIR a\nWORKDIR b/../c\nWORKDIR /\nWORKDIR /x//y/./z/\nENV D=/var/deep\nWORKDIR $D/er\nRUN pwd > /pwd\n")
            .but(Judge::BuildKit, "told as it was written until 1.6", &["history:3"]),
        case("workdir-owner", "FROM base\nUSER nobody\nWORKDIR /new/dir\nUSER 5:6\nWORKDIR /num\nUSER root\nWORKDIR /tmp\nWORKDIR /root\n"),
        case("workdir-there", "FROM base\nRUN mkdir -m 700 /d && chown 5:5 /d && ln -s /d /l\nWORKDIR /d\nWORKDIR /l/in\n"),
        case("volume-keeps-changes", "FROM base\nRUN mkdir /v && echo 1 > /v/a\nVOLUME /v\nRUN echo 2 > /v/b\nCOPY x /v/x\n")
            .files(|c| {
                c.file("x", "x");
            }),
        case("users", "FROM base\nUSER nobody\nRUN id -u > /tmp/1; id -g >> /tmp/1\nUSER 1234\nRUN id -u > /tmp/2; id -g >> /tmp/2\nUSER root:nobody\n\
             RUN id -u > /tmp/3; id -g >> /tmp/3\nUSER 7:8\nRUN id -u > /tmp/4; id -g >> /tmp/4\n"),
        case("user-nobody-knows", "FROM base\nUSER ghost\nRUN true\n").refused(),
        case("onbuild", "FROM with-onbuild AS child\nRUN cat /from-parent > /seen\nFROM child\nRUN test -e /seen\n")
            .before("with-onbuild", "FROM base\nONBUILD ENV P=1\nONBUILD RUN echo $P > /from-parent\nONBUILD COPY a /copied\nONBUILD LABEL x=$P\n")
            .files(|c| {
                c.file("a", "a");
            }),
        case("unknown-signal", "FROM base\nSTOPSIGNAL SIGNOSUCH\n").refused(),
        case("bad-port", "FROM base\nEXPOSE 99999999\n")
            .refused(),
        case("no-from", "RUN true\n").refused(),
        case("unknown-instruction", "FROM base\nRUNN true\n").refused(),
        case("onbuild-onbuild", "FROM base\nONBUILD ONBUILD RUN true\n").refused(),
        case("env-without-value", "FROM base\nENV A\n").refused(),
        case("bad-quote", "FROM base\nENV A=\"b\n").refused(),
        case("what-is-no-json-is-shell", "FROM base\nCMD [a, b]\nENTRYPOINT ['single']\n"),
    ]);
}

#[test]
fn variables() {
    judge(&[Judge::BuildKit], &[
        case(
            "expansions",
            "FROM base\nARG E=\nARG U\nENV A=alpha B=${A:-no} N=${NONE:-dflt} M=${A:+alt} O=${NONE:+alt} P=pre${A}post Q=\\$A R='$A' S=\"$A\"\n\
             ENV T=${E:-empty} V=${U:-unset} W=${A:-$B} X=${NONE:-${A}} Y=a\\ b Z=\"q \\\"i\\\" q\"\n\
             LABEL l=$A m=\"${B}\" n='$A' o=\\$A p=$A$B\nWORKDIR /$A/${B}\nCOPY $A.txt ${B}.out\nEXPOSE ${PORT:-81}\nVOLUME $A /v$A\nUSER ${WHO:-root}\n\
             STOPSIGNAL ${SIG:-SIGINT}\nCMD echo $A\nENTRYPOINT [\"$A\"]\nRUN echo $A ${B} $NONE '$A' > /env\n",
        )
        .files(|c| {
            c.file("alpha.txt", "x");
        }),
        case(
            "one-instruction-one-state",
            "FROM base\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\nRUN echo $abc $def $ghi > /out\n",
        ),
        case(
            "args",
            "ARG VERSION=1\nARG BASE=base\nFROM ${BASE} AS first\nARG VERSION\nARG OTHER=o$VERSION\nARG UNSET\nARG GIVEN=default\n\
             RUN echo \"$VERSION $OTHER ${UNSET:-none} $GIVEN\" > /args\nENV GIVEN=env\nRUN echo $GIVEN > /won\nLABEL v=$VERSION g=$GIVEN\n",
        )
        .args(&["--build-arg", "GIVEN=line"])
        .but(Judge::BuildKit, "the history tells what an ARG is worth since 1.15", &["history:0", "history:3"]),
        case("env-wins-over-arg", "FROM base\nENV A=env\nARG A=arg\nRUN echo $A > /a\nARG B=arg\nENV B=${B:-x}-env\nRUN echo $B > /b\n")
            .args(&["--build-arg", "A=line"])
            .but(Judge::BuildKit, "the history tells what an ARG is worth since 1.15", &["history:1"]),
        case("arg-of-a-stage-ends-with-it", "FROM base AS a\nARG X=1\nRUN echo $X > /x\nFROM base\nRUN echo \"[$X]\" > /x\nCOPY --from=a /x /ax\n"),
        case(
            "platforms",
            "ARG TARGETARCH\nFROM --platform=$BUILDPLATFORM base\nARG TARGETPLATFORM\nARG TARGETOS\nARG TARGETARCH\nARG TARGETVARIANT\nARG BUILDPLATFORM\n\
             RUN echo $TARGETPLATFORM $TARGETOS $TARGETARCH [$TARGETVARIANT] $BUILDPLATFORM > /p\n",
        )
        .but(Judge::BuildKit, "the history tells what an ARG is worth since 1.15", &["history:*"])
        .but(Judge::BuildKit, "an ARG before FROM took a platform's value away until 1.9", &["tree:/p"])
,
        case("proxies", "FROM base\nRUN echo [$http_proxy] > /p\nARG no_proxy\nRUN echo $no_proxy > /n\n")
            .args(&["--build-arg", "http_proxy=http://p", "--build-arg", "no_proxy=n"])
            .but(Judge::BuildKit, "the history tells what an ARG is worth since 1.15", &["history:1"]),
        case(
            "newer-expansions",
            "FROM base\nENV F=/path/to/file.tar.gz\nENV A=${F#*/} B=${F##*/} C=${F%.*} D=${F%%.*} E=${F/to/from} G=${F//t/T} H=${NO-d} I=${F+set}\n",
        )
        .older("FROM base\nENV F=/path/to/file.tar.gz\nENV A=path/to/file.tar.gz B=file.tar.gz C=/path/to/file.tar D=/path/to/file \
                E=/path/from/file.tar.gz G=/paTh/To/file.Tar.gz H=d I=set\n"),
        case("needed", "FROM base\nENV A=${NO:?it is needed}\n").refused(),
        case("unclosed", "FROM base\nENV A=${B\n").refused(),
    ]);
}

#[test]
fn texts() {
    judge(&[Judge::BuildKit], &[
        case(
            "lines",
            "# a comment\n\n  FROM base\n   # another\n\trun echo 1 > /1 \\\n  # in between\n\n && echo 2 > /2\\\n && echo 3 > /3\nRUN echo a \\\n\n  b > /4\n\
             RUN echo '#no comment' > /5 # a comment of the shell\nenv a=b\\\n c=d \\\n# skip\n e=f\nLaBeL x=\"a\\\nb\" y=z   \n",
        ),
        case("windows-lines", "FROM base\r\nRUN echo a \\\r\n  b > /a\r\nENV A=b\r\nCMD [\"x\"]\r\n"),
        case("byte-order-mark", "\u{feff}FROM base\nRUN echo 1 > /1\n"),
        case(
            "backtick",
            "# escape=`\nFROM base\nENV A=b`\n C=d\\e F=`$A G=\"x`\"y\"\nRUN echo a `\n  b\\\\n > /a\nCOPY b /x/\nWORKDIR /w\\in\n",
        )
        .files(|c| {
            c.file("b", "2");
        }),
        case("exec-run", "FROM base\nRUN [\"/bin/sh\", \"-c\", \"echo $HOME > /a\"]\nRUN [\"touch\", \"/with space\", \"/\\u0062\"]\n"),
        case("exec-run-of-nothing", "FROM base\nRUN []\n").refused(),
        case("exec-run-of-words", "FROM base\nRUN [\"touch\", \"/with space\", \"/\\u0062\", \"/$A\"]\nRUN [ -e /bin/sh ] && echo shell > /shell\n"),
        case("home", "FROM base\nRUN echo $HOME $PATH $PWD > /env\nENV HOME=/h\nRUN echo $HOME > /env2\nUSER nobody\nRUN echo $HOME > /tmp/env3\n"),
        case("end-without-newline", "FROM base\nRUN echo a > /a"),
        case("syntax-line", "# syntax=docker/dockerfile:1\nFROM base\nRUN echo a > /a\n")
            .not_by(Judge::BuildKit, "would fetch that from a registry"),
        case(
            "heredocs",
            "FROM base\nENV N=name\nRUN <<EOF\necho one > /one\necho $N > /two\nEOF\nRUN <<-TAB cat > /tab\n\t\tindented\n\tTAB\nRUN <<'Q' cat > /quoted\n$N \\ ${N}\nQ\n\
             RUN <<E /bin/busybox sh\necho script > /three\nE\nRUN cat <<A > /both && cat <<B > /b2\na $N\nA\nb\nB\nRUN 3<<F cat <&3 > /fd\nfd\nF\n\
             RUN <<EOF\n#!/bin/busybox sh\necho \"$0\" | wc -c > /dev/null; echo shebang > /she\nEOF\n\
             COPY <<F /c1\ntext $N \\$N\nF\nCOPY <<'F' /c2\ntext $N\nF\nCOPY --chmod=700 --chown=3:4 <<a.txt <<b.txt /d/\nA\na.txt\nB ${N}\nb.txt\nCOPY <<-T x /e/\n\ttabbed\n\tT\nADD <<F /added\nq\nF\n",
        )
        .files(|c| {
            c.file("x", "x");
        })
        .older(
            "FROM base\nENV N=name\nRUN echo one > /one; echo name > /two; echo indented > /tab; echo '$N \\ ${N}' > /quoted; echo script > /three; \
             echo a name > /both; echo b > /b2; echo fd > /fd; echo shebang > /she; echo 'text name $N' > /c1; echo 'text $N' > /c2; mkdir -p /d /e; echo A > /d/a.txt; \
             echo B name > /d/b.txt; chmod 700 /d/*; chown 3:4 /d /d/*; echo tabbed > /e/T; echo q > /added; rm -f /tmp/*\nCOPY x /e/\n",
        ),
    ]);
}

#[test]
fn contexts() {
    let tree = |c: &Context| {
        for path in [
            "a.go",
            "a.md",
            "README.md",
            "docs/x.md",
            "docs/keep.md",
            "docs/deep/er/y.md",
            "src/main.go",
            "src/main_test.go",
        ] {
            c.file(path, path);
        }
        for path in [
            "node_modules/m/i.js",
            "src/node_modules/n/i.js",
            ".git/config",
            ".env",
            "tmp/a",
            "tmp/b/c",
            "build/out",
            "exact",
        ] {
            c.file(path, path);
        }
        c.dir("empty", 0o755).link("link.md", "README.md");
    };
    let ignoring = |name: &'static str, text: &'static str| {
        case(name, "FROM base\nCOPY . /all/\nCOPY docs* /docs/\n").files(move |c| {
            tree(c);
            c.file(".dockerignore", text);
        })
    };
    judge(
        &[Judge::BuildKit],
        &[
            ignoring(
                "plain",
                "# comment\n*.md\n!README.md\n\n**/node_modules\n.git\ntmp/*\n/build\n./exact\n  .env  \n",
            ),
            ignoring(
                "negated-below",
                "docs\n!docs/keep.md\n!docs/deep\ndocs/deep/er/y.md\nsrc/*\n!src/*.go\n**/*_test.go\n",
            ),
            ignoring("everything-but", "*\n!src\n!docs/deep/**/*.md\n!docs/k?ep.md\n").but(
                Judge::BuildKit,
                "looked only into what an exception names without wildcards, until 0.10",
                &["tree:/all/docs/deep/er*", "tree:/docs/deep/er*"],
            ),
            ignoring("double-stars", "**/*.md\n!docs/**\n**/i.js\n**/b\nsrc/**/n\n"),
            ignoring("last-wins", "!README.md\n*.md\n!a.md\na.md\n!a.md\ntmp\n!tmp/b\ntmp/b/c\n"),
            ignoring("itself", "Dockerfile\n.dockerignore\nempty\n**/er/\ndocs/../tmp\n"),
            ignoring("dirs-and-slashes", "src/\n/docs/deep/\ntmp/./b\n.git/**\nnode_modules/m/\n"),
            case("copy-of-what-is-ignored", "FROM base\nCOPY a.go /x\n")
                .files(move |c| {
                    tree(c);
                    c.file(".dockerignore", "*.go\n");
                })
                .refused(),
        ],
    );
}

/// `dir/{file,tool,same,link,sub/deep}` packed by this tool, and one file compressed alone.
fn archives(c: &Context) {
    let run = |program: &str, args: &[&str]| {
        let status = std::process::Command::new(program).args(args).current_dir(&c.0).status();
        assert!(status.unwrap().success(), "{program} {args:?}");
    };
    c.file("tree/dir/file", "packed").file_with("tree/dir/tool", 0o4755, "#!").file_with(
        "tree/dir/sub/deep",
        0o600,
        "d",
    );
    c.hard_link("tree/dir/same", "tree/dir/file").link("tree/dir/link", "file").link("tree/dir/away", "/etc");
    c.dir("tree/dir/sub", 0o2770).owned("tree/dir/sub/deep", 77).owned("tree/dir/sub", 78);
    for (name, how) in
        [("plain.tar", "-cf"), ("a.tar.gz", "-czf"), ("a.tar.bz2", "-cjf"), ("named-otherwise", "-cJf")]
    {
        run(
            "tar",
            &["--sort=name", "--numeric-owner", "--mtime=@1500000000", how, name, "-C", "tree", "dir"],
        );
    }
    c.file("text.txt", "text\n");
    run("gzip", &["-n", "-k", "text.txt"]);
}

#[test]
fn archives_and_what_is_newer_than_the_judges() {
    judge(&JUDGES, &[
        case(
            "archives",
            "FROM base\nADD plain.tar /plain\nADD a.tar.gz /gz/\nADD a.tar.bz2 /bz2/new/\nADD named-otherwise /xz\nADD text.txt text.txt.gz /text/\n\
             COPY a.tar.gz /copied/\n",
        )
        .files(archives),
        case("archive-over-what-is-there", "FROM base\nRUN mkdir -m 700 -p /o/dir/sub && echo old > /o/dir/file && echo keep > /o/dir/kept && ln -s kept /o/dir/link\nADD a.tar.gz /o/\n")
            .files(archives),
    ]);
    judge(&[Judge::BuildKit], &[
        case(
            "symbolic-modes",
            "FROM base\nCOPY --chmod=u=rwX,go=rX d /d/\nCOPY --chmod=a+x a /x\nCOPY --chmod=go-r,u+x a /y\nCOPY --chmod=g=u,o= b /z\n",
        )
        .files(|c| {
            c.file("a", "a").file_with("b", 0o751, "b").file_with("d/one", 0o600, "1").file_with("d/two", 0o711, "2").dir("d", 0o750);
        })
        .older(
            "FROM base\nCOPY d /d/\nCOPY a /x\nCOPY a /y\nCOPY b /z\nRUN chmod 755 /d /d/two && chmod 644 /d/one && chmod 755 /x && chmod 700 /y && chmod 770 /z\n",
        ),
        case(
            "links-of-nothing",
            "FROM base\nRUN mkdir -m 700 /there && ln -s /there /way\nCOPY --link a /new/deep/\nCOPY --link --chown=5:6 d /d\nCOPY --link a b /many/\n",
        )
        .files(|c| {
            c.file("a", "a").file_with("b", 0o755, "b").file("d/one", "1").dir("d", 0o750);
        })
        .older(
            "FROM base\nRUN mkdir -m 700 /there && ln -s /there /way\nCOPY a /new/deep/\nCOPY --chown=5:6 d /d\nCOPY a b /many/\n",
        ),
    ]);
}
