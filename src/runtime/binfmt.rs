//! Programs of other processors: whether the kernel hands them to an interpreter (binfmt_misc), and to which.
//!
//! Registrations are told apart by what they do to the head of an ELF file of that processor, not by their names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, Result};
use crate::image::{Digest, Hasher, Platform};

const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";

/// What runs the programs of a platform here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The processor.
    Natively,
    Interpreted(Interpreter),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    pub path: PathBuf,
    /// As the kernel tells them.
    pub flags: String,
    /// Of its bytes, where they can be read.
    pub digest: Option<Digest>,
}

impl Interpreter {
    /// For keys: what it does to a program is what it is.
    pub fn identity(&self) -> String {
        let digest = self.digest.map_or("unread".to_owned(), |digest| digest.to_string());
        format!("{} {} {digest}", self.path.display(), self.flags)
    }

    /// The kernel opened it when it was registered: it need not be in the container.
    pub fn is_everywhere(&self) -> bool {
        self.flags.contains('F')
    }
}

/// `Unsupported` where nothing here runs programs of that platform.
pub fn runs(platform: &Platform) -> Result<Runs> {
    let host = Platform::host();
    if platform.os != "linux" {
        return Err(Error::unsupported(format!("commands of {platform} cannot be run on {host}"))
            .hint("only steps that run no command can be built for it here"));
    }
    if platform.architecture == host.architecture {
        return Ok(Runs::Natively);
    }
    let entries = registered(Path::new(REGISTERED))?;
    if let (Some(head), Some(entries)) = (head(&platform.architecture), &entries)
        && let Some(entry) = entries.iter().find(|entry| entry.matches(&head))
    {
        let digest = digest(&entry.interpreter)
            .context(|| format!("reading the interpreter {}", entry.interpreter.display()))?;
        let (path, flags) = (entry.interpreter.clone(), entry.flags.clone());
        return Ok(Runs::Interpreted(Interpreter { path, flags, digest }));
    }
    // What a kernel for the wider processor runs by itself.
    if matches!((&*host.architecture, &*platform.architecture), ("amd64", "386") | ("arm64", "arm")) {
        return Ok(Runs::Natively);
    }
    let error = Error::unsupported(format!(
        "this host ({host}) cannot run commands of {platform}: no interpreter is registered for them"
    ));
    Err(error.hint(match entries {
        Some(_) => "install qemu-user-static and binfmt-support, which register one".to_owned(),
        None => format!(
            "install qemu-user-static and binfmt-support, and mount binfmt_misc: `mount -t binfmt_misc binfmt_misc {REGISTERED}`"
        ),
    }))
}

/// One registration (the kernel's admin-guide/binfmt-misc.rst).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    enabled: bool,
    interpreter: PathBuf,
    flags: String,
    offset: usize,
    magic: Vec<u8>,
    mask: Option<Vec<u8>>,
}

impl Entry {
    fn parse(text: &str) -> Option<Entry> {
        let mut entry = Entry::default();
        for line in text.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("enabled", _) => entry.enabled = true,
                ("interpreter", path) => entry.interpreter = path.into(),
                ("flags:", flags) => flags.trim().clone_into(&mut entry.flags),
                ("offset", number) => entry.offset = number.parse().ok()?,
                ("magic", digits) => entry.magic = bytes(digits)?,
                ("mask", digits) => entry.mask = Some(bytes(digits)?),
                // By name's end, which no program of an image has to have.
                ("extension", _) => return None,
                _ => {}
            }
        }
        (!entry.magic.is_empty() && !entry.interpreter.as_os_str().is_empty()).then_some(entry)
    }

    fn matches(&self, head: &[u8]) -> bool {
        let Some(part) = head.get(self.offset..).and_then(|rest| rest.get(..self.magic.len())) else {
            return false;
        };
        let mask = |at: usize| self.mask.as_ref().and_then(|mask| mask.get(at)).copied().unwrap_or(0xff);
        let same = |(at, (byte, magic)): (usize, (&u8, &u8))| byte & mask(at) == magic & mask(at);
        self.enabled && part.iter().zip(&self.magic).enumerate().all(same)
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.trim();
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// `None`: it is not mounted. In the order of names, as there is no order that the kernel tells.
fn registered(dir: &Path) -> Result<Option<Vec<Entry>>> {
    let doing = || format!("reading {}", dir.display());
    // It switches all of them.
    let status = match fs::read_to_string(dir.join("status")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        status => status.context(doing)?,
    };
    if status.trim() != "enabled" {
        return Ok(Some(Vec::new()));
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).context(doing)? {
        paths.push(entry.context(doing)?.path());
    }
    paths.sort();
    let text = |path: &PathBuf| fs::read_to_string(path).ok();
    Ok(Some(paths.iter().filter_map(text).filter_map(|text| Entry::parse(&text)).collect()))
}

fn digest(path: &Path) -> io::Result<Option<Digest>> {
    let mut file = match fs::File::open(path) {
        // It may lie where only the kernel has seen it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(Some(hasher.finish())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// How a program of this architecture begins (elf(5)): class, byte order, version; type EXEC; the machine.
fn head(architecture: &str) -> Option<[u8; 20]> {
    const BITS_32: u8 = 1;
    const BITS_64: u8 = 2;
    let (class, big, machine): (u8, bool, u16) = match architecture {
        "386" => (BITS_32, false, 3),
        "amd64" => (BITS_64, false, 62),
        "arm" => (BITS_32, false, 40),
        "arm64" => (BITS_64, false, 183),
        "loong64" => (BITS_64, false, 258),
        "mips" => (BITS_32, true, 8),
        "mipsle" => (BITS_32, false, 8),
        "mips64" => (BITS_64, true, 8),
        "mips64le" => (BITS_64, false, 8),
        "ppc64" => (BITS_64, true, 21),
        "ppc64le" => (BITS_64, false, 21),
        "riscv64" => (BITS_64, false, 243),
        "s390x" => (BITS_64, true, 22),
        _ => return None,
    };
    let order = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let mut head = [0; 20];
    head[..4].copy_from_slice(b"\x7fELF");
    (head[4], head[5], head[6]) = (class, 1 + u8::from(big), 1);
    head[16..18].copy_from_slice(&order(2));
    head[18..].copy_from_slice(&order(machine));
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
    const S390X: &str = "enabled\ninterpreter /usr/bin/qemu-s390x-static\nflags: \noffset 0\n\
        magic 7f454c4602020100000000000000000000020016\nmask ffffffffffffff00fffffffffffffffffffeffff\n";

    #[test]
    fn a_registration_is_known_by_what_it_does_to_a_program() {
        let arm = Entry::parse(AARCH64).unwrap();
        let big = Entry::parse(S390X).unwrap();
        let matching = |entry: &Entry| -> Vec<&str> {
            let all = ["386", "amd64", "arm", "arm64", "mips64", "ppc64le", "riscv64", "s390x"];
            all.into_iter().filter(|name| entry.matches(&head(name).unwrap())).collect()
        };
        assert_eq!((matching(&arm), matching(&big)), (vec!["arm64"], vec!["s390x"]));
        assert_eq!(arm.flags, "POCF");
        let off = Entry::parse(&AARCH64.replace("enabled", "disabled")).unwrap();
        assert_eq!(matching(&off), Vec::<&str>::new());
        assert_eq!(Entry::parse("enabled\ninterpreter /usr/bin/x\nflags: \nextension .x\n"), None);
        assert_eq!(Entry::parse("enabled"), None);
    }

    #[test]
    fn what_is_registered_is_read_where_it_is_mounted_and_switched_on() {
        let dir = std::env::temp_dir().join(format!("outcrop-binfmt-{}", std::process::id()));
        assert_eq!(registered(&dir).unwrap(), None);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("register"), "").unwrap();
        fs::write(dir.join("qemu-aarch64"), AARCH64).unwrap();
        fs::write(dir.join("status"), "disabled\n").unwrap();
        let off = registered(&dir).unwrap().unwrap();
        fs::write(dir.join("status"), "enabled\n").unwrap();
        let on = registered(&dir).unwrap().unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((off, on), (Vec::new(), vec![Entry::parse(AARCH64).unwrap()]));
    }

    #[test]
    fn the_hosts_own_programs_need_nobody() {
        assert_eq!(runs(&Platform::host()).unwrap(), Runs::Natively);
        let other: Platform = "windows/amd64".parse().unwrap();
        assert_eq!(runs(&other).unwrap_err().kind(), crate::error::Kind::Unsupported);
    }
}
