//! Who a command runs as: Docker's `USER`, by the container's own /etc/passwd and /etc/group.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;

use crate::error::{Context, Error, Result};
use crate::sys::dir::open_in_root;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the first is `gid`: so that nobody loses a group by having it as primary one.
    pub groups: Vec<u32>,
    pub home: String,
}

/// `uid` or `uid:gid`, where nothing has to be looked up; a user alone is the group, too (Docker, of `--chown`).
pub fn numbers(user: &str) -> Option<(u32, u32)> {
    match user.split_once(':') {
        None => user.parse().ok().map(|number| (number, number)),
        Some((user, group)) => Some((user.parse().ok()?, group.parse().ok()?)),
    }
}

/// Reads the files below `root`, whatever links stand there; those that are missing know nobody.
pub fn resolve(root: BorrowedFd<'_>, user: &str, groups: &[String]) -> Result<User> {
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    look_up(&passwd, &group, user, groups)
}

/// Larger ones are no user databases.
const LONGEST: u64 = 16 << 20;

fn read(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let doing = || format!("reading the container's /{path}");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match open_in_root(root, path.as_bytes(), flags) {
        Ok(fd) => fd,
        Err(error) if absent(&error) => return Ok(String::new()),
        Err(error) => return Err(error).context(doing),
    };
    let stat = rustix::fs::fstat(fd.as_fd()).context(doing)?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    File::from(fd).take(LONGEST).read_to_end(&mut bytes).context(doing)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn absent(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

/// `user` is `""`, `name` or `uid`, each with `:group` or `:gid`; `groups` are names or numbers. passwd(5), group(5).
pub fn look_up(passwd: &str, group: &str, user: &str, groups: &[String]) -> Result<User> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, group),
        None => (user, ""),
    };
    let number = if name.is_empty() { Some(0) } else { number(name)? };
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [known, _, uid, gid, _, home, ..] = fields[..] else { return None };
        let uid: u32 = uid.parse().ok()?;
        let wanted = number.map_or(known == name, |number| number == uid);
        wanted.then(|| (known.to_owned(), uid, gid.parse().unwrap_or(0), home.to_owned()))
    });
    let (known, uid, mut gid, home) = match (entry, number) {
        (Some(entry), _) => entry,
        (None, Some(uid)) => (String::new(), uid, 0, String::new()),
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            ))
            .hint("give a number, or make the user in an earlier step"));
        }
    };

    let mut all: Vec<u32> = Vec::new();
    if group_name.is_empty() {
        if !known.is_empty() {
            all.extend(entries(group).filter(|entry| entry.members.any(&known)).map(|entry| entry.gid));
        }
    } else {
        gid = find_group(group, group_name)?;
    }
    for name in groups {
        all.push(find_group(group, name)?);
    }
    let mut unique = vec![gid];
    for gid in all {
        if !unique.contains(&gid) {
            unique.push(gid);
        }
    }
    let home = if home.is_empty() { "/".into() } else { home };
    Ok(User { uid, gid, groups: unique, home })
}

struct Entry<'a> {
    name: &'a str,
    gid: u32,
    members: Members<'a>,
}

struct Members<'a>(&'a str);

impl Members<'_> {
    fn any(&self, name: &str) -> bool {
        self.0.split(',').any(|member| member == name)
    }
}

fn entries(group: &str) -> impl Iterator<Item = Entry<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Entry { name, gid, members: Members(fields.next().unwrap_or("")) })
    })
}

fn find_group(group: &str, name: &str) -> Result<u32> {
    if let Some(number) = number(name)? {
        return Ok(number);
    }
    entries(group).find(|entry| entry.name == name).map(|entry| entry.gid).ok_or_else(|| {
        Error::invalid(format!("unable to find group {name}: no matching entries in group file"))
            .hint("give a number, or make the group in an earlier step")
    })
}

/// `None` for a name. Docker's bounds.
fn number(text: &str) -> Result<Option<u32>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(number) if number <= u32::MAX >> 1 => Ok(Some(number)),
        _ => Err(Error::invalid(format!("uids and gids must be in range 0-{}: {text}", u32::MAX >> 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\n7:x:99:99::/odd:\n#no\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nadm:x:4:www,other\nlog:x:50:other,www\n";

    fn user(text: &str) -> User {
        look_up(PASSWD, GROUP, text, &[]).unwrap()
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        assert_eq!(user(""), User { uid: 0, gid: 0, groups: vec![0], home: "/root".into() });
        assert_eq!(user("www"), User { uid: 33, gid: 33, groups: vec![33, 4, 50], home: "/var/www".into() });
        assert_eq!(user("33"), user("www"));
        assert_eq!(user("1000"), User { uid: 1000, gid: 0, groups: vec![0], home: "/".into() });
    }

    #[test]
    fn a_group_replaces_the_users_own() {
        assert_eq!(user("www:adm"), User { uid: 33, gid: 4, groups: vec![4], home: "/var/www".into() });
        assert_eq!(user("5:6"), User { uid: 5, gid: 6, groups: vec![6], home: "/".into() });
    }

    #[test]
    fn a_number_is_never_a_name() {
        assert_eq!(user("7").uid, 7);
        assert_eq!(user("7").home, "/");
    }

    #[test]
    fn more_groups_are_added_once() {
        let more = ["adm".to_owned(), "77".to_owned(), "4".to_owned()];
        assert_eq!(look_up(PASSWD, GROUP, "www", &more).unwrap().groups, [33, 4, 50, 77]);
    }

    #[test]
    fn who_is_not_there_is_named() {
        let error = |user| look_up(PASSWD, GROUP, user, &[]).unwrap_err().to_string();
        assert_eq!(error("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(error("www:x"), "unable to find group x: no matching entries in group file");
        assert_eq!(error("2147483648"), "uids and gids must be in range 0-2147483647: 2147483648");
    }
}
