//! The machine whose power is cut: a store on a disk of its own, and the shell that does things to it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use super::history::{Act, Names, REGISTRY};
use crate::registry_kit::{Image, Layout, RealRegistry, tar_of_files};
use crate::sandbox::Sandbox;
use crate::vm_kit::{Machine, Running};

/// On what a store lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    pub(super) filesystem: &'static str,
    pub(super) driver: &'static str,
}

pub(super) struct Guest {
    pub(super) sandbox: Sandbox,
    pub(super) ground: Ground,
    /// Of the images in the registry.
    pub(super) images: Vec<String>,
}

const DOCKERFILE: &str = "FROM base
ARG SALT
COPY files /files
ENV A=$SALT
COPY --chown=5:6 files/1 two/$SALT/
RUN mkdir /made && for n in 0 1 2 3 4 5 6 7 8 9; do echo $n$SALT > /made/$n; done; rm /files/7
WORKDIR /work/$SALT
CMD [\"true\"]
";

impl Guest {
    /// An empty disk, and what is needed to fill it.
    pub(super) fn new(ground: Ground) -> Self {
        let sandbox = Sandbox::new();
        let disk = sandbox.dir().join("disk");
        std::fs::File::create(&disk).unwrap().set_len(512 << 20).unwrap();
        let made = Command::new(format!("mkfs.{}", ground.filesystem)).arg("-q").arg(&disk).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        sandbox.busybox_archive();
        for n in 0..10_u32 {
            sandbox.file(format!("files/{n}"), n.to_string().repeat(1000));
        }
        sandbox.dockerfile(DOCKERFILE);
        let images = fill_registry(&sandbox);
        Guest { sandbox, ground, images }
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.sandbox.dir().join("disk")
    }

    pub(super) fn machine(&self) -> Machine {
        let disk = self.disk();
        Machine::new().modules(self.ground.filesystem).honest_disks().disk(disk).share(self.sandbox.dir())
    }

    /// Runs these lines of shell, and then waits for its end. In them `look` tells of the store (see [`Seen`]), and
    /// `act N COMMAND` says `begin N`, runs it, and says `done N CODE WHAT IT SAID`; `o` is outcrop, and the disk is
    /// `$disk` until it is mounted (`place`).
    pub(super) fn start(&self, machine: &Machine, lines: &str) -> Running {
        let Ground { filesystem, driver } = self.ground;
        let outcrop = env!("CARGO_BIN_EXE_outcrop");
        let script = format!(
            "export OUTCROP_STORAGE_DRIVER={driver}\n\
             disk=/dev/vda\n\
             place() {{ mount -t {filesystem} $disk /mnt || exit 90; }}\n\
             o() {{ {outcrop} --root /mnt/store --run-root /run/outcrop \"$@\"; }}\n\
             mark() {{ :; }}\n\
             act() {{\n\
               n=$1; shift; mark begin-$n; echo begin $n\n\
               said=$(\"$@\" 2>&1); code=$?\n\
               mark done-$n; echo done $n $code $said\n\
             }}\n\
             started() {{\n\
               o create --rm --name passing --network none base sleep 1000 && sync || return\n\
               ( exec >/dev/null 2>&1; o start -a passing ) &\n\
               until o ps --format '{{{{.Names}}}}' | grep passing; do :; done\n\
             }}\n\
             look() {{\n\
               said=$(o system check 2>&1); code=$?; echo \"$said\" | sed 's/^/check: /'\n\
               o ps -a --format 'container {{{{.Names}}}} {{{{.State}}}}'\n\
               o images --no-trunc --format 'name {{{{.Repository}}}}:{{{{.Tag}}}} {{{{.ID}}}}'; echo looked $code\n\
             }}\n\
             docker-registry serve registry.yml >/dev/null 2>&1 &\n\
             {lines}\n\
             echo idle; sleep 1000\n"
        );
        std::fs::write(self.sandbox.dir().join("script"), script).unwrap();
        machine.start(&["/run/vmbin/busybox", "sh", "script"])
    }
}

/// The lines of shell that do these things.
pub(super) fn lines(acts: &[Act]) -> String {
    let mut lines = String::new();
    if acts.iter().any(|act| matches!(act, Act::Pull(_))) {
        lines.push_str(
            "until wget -q -O /dev/null http://127.0.0.1:5000/v2/; do sleep 0.1; done 2>/dev/null\n",
        );
    }
    for (number, act) in acts.iter().enumerate() {
        writeln!(lines, "act {number} {}", act.command()).unwrap();
    }
    lines
}

/// What a store was like when the power came back.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) names: Names,
    /// What `system check` said.
    pub(super) check: String,
    pub(super) damaged: bool,
    /// Those that are there, as `ps -a` says.
    pub(super) containers: Vec<String>,
}

impl Seen {
    /// Reads what the guest tells of its look.
    pub(super) fn told(running: &mut Running) -> Seen {
        let mut seen = Seen::default();
        loop {
            let line = running.next().unwrap_or_else(|| panic!("the machine ended before it had looked"));
            if let Some(said) = line.strip_prefix("check: ") {
                seen.check.push_str(&format!("{said}\n"));
            } else if let Some(container) = line.strip_prefix("container ") {
                seen.containers.push(container.to_owned());
            } else if let Some(name) = line.strip_prefix("name ") {
                seen.name(name);
            } else if let Some(code) = line.strip_prefix("looked ") {
                seen.damaged = code != "0";
                return seen;
            }
        }
    }

    /// Whether the store holds what is of no use.
    pub(super) fn has_leftovers(&self) -> bool {
        self.check.contains("left over, no damage: ")
    }

    /// Of a line `NAME ID`; images without a name are passed over.
    pub(super) fn name(&mut self, line: &str) {
        if let Some((name, id)) = line.split_once(' ')
            && !name.starts_with("<none>")
        {
            self.names.insert(name.to_owned(), id.to_owned());
        }
    }
}

/// A registry's storage below the sandbox with images `noise:NUMBER`, and the settings by which the guest serves it.
fn fill_registry(sandbox: &Sandbox) -> Vec<String> {
    let registry = RealRegistry::start(sandbox);
    let storage = std::fs::read_to_string(sandbox.dir().join("registry0/config.yml")).unwrap();
    let settings = storage.replace("127.0.0.1:0", REGISTRY);
    let settings = settings.replace(sandbox.dir().to_str().unwrap(), "/run/share");
    std::fs::write(sandbox.dir().join("registry.yml"), settings).unwrap();
    let mut ids = Vec::new();
    for number in 0..4 {
        let names: Vec<String> = (0..30).map(|file| format!("noise-{number}-{file}")).collect();
        let files = |range: &[String]| -> Vec<u8> {
            let files: Vec<(&str, usize)> =
                range.iter().enumerate().map(|(n, name)| (name.as_str(), 300 * n)).collect();
            tar_of_files(&files)
        };
        let shared = tar_of_files(&[("shared", 20_000)]);
        let config = crate::registry_kit::config_for(&"linux/amd64".parse().unwrap());
        let image = Image::made(&[shared, files(&names[..15]), files(&names[15..])], config);
        let layout = Layout::single(&sandbox.dir().join(format!("layout{number}")), &image);
        registry.push(&layout, &format!("noise:{number}"));
        ids.push(image.manifest.config.digest.to_string());
    }
    ids
}
