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
    /// What the driver is told.
    pub(super) options: &'static str,
}

impl Ground {
    pub(super) const fn new(filesystem: &'static str, driver: &'static str) -> Self {
        Ground { filesystem, driver, options: "" }
    }

    /// Where a store goes to from here.
    fn other(&self) -> &'static str {
        match (self.filesystem, self.driver) {
            ("btrfs", "overlay2") => "btrfs",
            (_, "overlay2") => "vfs",
            _ => "overlay2",
        }
    }

    /// Only such a machine has what the driver takes.
    pub(super) fn is_foreign(&self) -> bool {
        !self.modules().is_empty()
    }

    fn modules(&self) -> &'static str {
        match self.driver {
            "devicemapper" => "dm-thin-pool loop ext4",
            "zfs" => "fuse",
            _ => "",
        }
    }
}

pub(super) struct Guest {
    pub(super) sandbox: Sandbox,
    pub(super) ground: Ground,
    /// Of the images in the registry.
    pub(super) images: Vec<String>,
}

/// What the guest says where nothing is there that the store does not know.
pub(super) const AGREED: &str = "it knows all that is there";

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
    /// An empty disk, two for pools on devices, and what is needed to fill them.
    pub(super) fn new(ground: Ground) -> Self {
        let sandbox = Sandbox::new();
        for (name, size) in [("disk", 512 << 20), ("data", 384 << 20), ("metadata", 16 << 20)] {
            std::fs::File::create(sandbox.dir().join(name)).unwrap().set_len(size).unwrap();
        }
        let disk = sandbox.dir().join("disk");
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
        let machine = Machine::new().modules(self.ground.filesystem).honest_disks().disk(self.disk());
        let machine = machine.share(self.sandbox.dir());
        match self.ground.is_foreign() {
            true => {
                let dir = self.sandbox.dir();
                machine.modules(self.ground.modules()).disk(dir.join("data")).disk(dir.join("metadata"))
            }
            false => machine,
        }
    }

    /// Lines of shell that bring to life what the driver takes, where the store's disk is mounted.
    pub(super) fn prepare(&self, first: bool) -> String {
        if self.ground.driver != "zfs" {
            return String::new();
        }
        let pool = match first {
            true => {
                "truncate -s 384M /mnt/pool && zpool create -O mountpoint=none pool /mnt/pool && zfs create pool/store"
            }
            false => "zpool import -f -d /mnt pool",
        };
        format!(
            "mkdir -p /run/lock /var/lib/zfs\n\
             ( cd /; exec /usr/sbin/zfs-fuse --no-daemon --enable-xattr --no-kstat-mount >/run/zfs-fuse.log 2>&1 ) &\n\
             until [ -e /run/zfs/zfs_socket ]; do sleep 0.1; done\n\
             {pool} && sync || exit 92\n"
        )
    }

    /// Lines of shell that compare what the driver has outside of the store's directory with what the store knows, and say
    /// [`AGREED`].
    pub(super) fn compare(&self) -> String {
        let look = match self.ground.driver {
            // The base has no record.
            "devicemapper" => format!(
                "until dmsetup ls | grep -q '^No devices'; do sleep 0.1; done\n\
                 thin_check -q {metadata} || echo the metadata are damaged\n\
                 known=$(($(ls /mnt/store/devicemapper/snapshots | wc -l) + 1))\n\
                 there=$(thin_dump {metadata} | grep -c '<device ')\n",
                metadata = match self.ground.options.contains("metadatadev") {
                    true => "/dev/vdc",
                    false => "/mnt/store/devicemapper/metadata",
                }
            ),
            "zfs" => "rows=$(sqlite3 /mnt/store/outcrop.db \"select count(*) from snapshot where driver = 'zfs'\")\n\
                 known=$((rows + $(ls /mnt/store/zfs/removed | wc -l)))\n\
                 there=$(zfs list -H -o name -r pool/store | grep -c /store/)\n"
                .into(),
            _ => "known= there=\n".into(),
        };
        format!(
            "{look}[ \"$there\" = \"$known\" ] && echo {AGREED} || echo \"$there, and it knows $known\"\n"
        )
    }

    /// Runs these lines of shell, and then waits for its end. In them `look` tells of the store (see [`Seen`]), and
    /// `act N COMMAND` says `begin N`, runs it, and says `done N CODE WHAT IT SAID`; `o` is outcrop, and the disk is
    /// `$disk` until it is mounted (`place`). `settled`: the store has a driver, and need not be told.
    pub(super) fn start(&self, machine: &Machine, settled: bool, lines: &str) -> Running {
        let Ground { filesystem, driver, options } = self.ground;
        let (other, settle) = (self.ground.other(), if settled { ": >/run/settled" } else { "" });
        let outcrop = env!("CARGO_BIN_EXE_outcrop");
        let script = format!(
            "export OUTCROP_STORAGE_DRIVER={driver} OUTCROP_STORAGE_OPTS='{options}'\n\
             disk=/dev/vda\n\
             place() {{ mount -t {filesystem} $disk /mnt || exit 90; }}\n\
             {settle}\n\
             o() {{\n\
               [ -e /run/settled ] && unset OUTCROP_STORAGE_DRIVER OUTCROP_STORAGE_OPTS\n\
               {outcrop} --root /mnt/store --run-root /run/outcrop \"$@\"\n\
             }}\n\
             mark() {{ :; }}\n\
             act() {{\n\
               n=$1; shift; mark begin-$n; echo begin $n\n\
               said=$(\"$@\" 2>&1); code=$?\n\
               [ $code = 0 ] && : >/run/settled\n\
               mark done-$n; echo done $n $code $said\n\
             }}\n\
             started() {{\n\
               o create --rm --name passing --network none base sleep 1000 && sync || return\n\
               ( exec >/dev/null 2>&1; o start -a passing ) &\n\
               until o ps --format '{{{{.Names}}}}' | grep passing; do :; done\n\
             }}\n\
             committed() {{\n\
               o run --name box$1 --network none base sh -c \"echo $1 > /made\" && o commit box$1 committed:$1 &&\n\
                 o rm box$1 >/dev/null\n\
             }}\n\
             migrated() {{\n\
               case $(o info --format '{{{{.Driver}}}}') in {other}) to={driver};; *) to={other};; esac\n\
               o system migrate --to $to\n\
             }}\n\
             look() {{\n\
               said=$(o system check 2>&1); code=$?; echo \"$said\" | sed 's/^/check: /'\n\
               o ps -a --format 'container {{{{.Names}}}}'\n\
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

    /// Whether the store holds what is of no use. A migration that was cut off goes on when somebody wants it.
    pub(super) fn has_leftovers(&self) -> bool {
        let mut left = self.check.lines().filter(|line| line.contains("left over, no damage: "));
        left.any(|line| !line.contains("is not finished"))
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
