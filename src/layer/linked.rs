//! Files with several names: what happens to one happens to all, wherever they are in the tree.

use std::collections::{HashMap, HashSet};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use super::Kind;
use super::archive::Inode;
use super::touched::{Scope, Touched};
use super::tree::{self, Node, Parents};
use super::walk::Walk;
use crate::error::{Context, Result};

/// Files with several names, of which one is among what is touched; and those of which one is not, and changed.
#[derive(Default)]
struct Survey {
    linked: HashSet<Inode>,
    doubtful: HashSet<Inode>,
}

impl Walk<'_> {
    /// Whether a file that did not change under this name did under another, or got another: then all its names are
    /// in the archive, as a layer must not link to what lies below.
    pub(super) fn group_changed(&mut self, inode: Inode) -> Result<bool> {
        if let Some(changed) = self.way.groups.get(&inode) {
            return Ok(*changed);
        }
        let paths = self.names()?.get(&inode).cloned().unwrap_or_default();
        let changed = paths.len() > 1 && self.any_changed(&paths)?;
        self.way.groups.insert(inode, changed);
        Ok(changed)
    }

    fn names(&mut self) -> Result<&HashMap<Inode, Vec<Vec<u8>>>> {
        if self.way.names.is_none() {
            let mut names = HashMap::new();
            self.collect(self.new, &mut Vec::new(), &mut names)?;
            self.way.names = Some(names);
        }
        Ok(self.way.names.as_ref().expect("set above"))
    }

    /// What is touched, with all names of the files among it. `None`: what was said of the trees is not so, and
    /// everything is to be compared.
    pub(super) fn with_links(&mut self, mut touched: Touched) -> Result<Option<Touched>> {
        let Some(parent) = self.parent else { return Ok(None) };
        for path in &self.always {
            touched.add(path);
        }
        let mut found = Survey::default();
        let as_told = self.survey(self.new, Some(parent), Scope::of(&touched), &mut found)?;
        let Survey { linked, doubtful } = found;
        if !as_told || !doubtful.is_subset(&linked) {
            tracing::debug!("a file that is told to be the same is not: all are compared");
            return Ok(None);
        }
        if !linked.is_empty() {
            for (_, paths) in self.names()?.iter().filter(|(inode, _)| linked.contains(inode)) {
                paths.iter().for_each(|path| touched.add(path));
            }
        }
        Ok(Some(touched))
    }

    /// Finds the files with several names in what is touched; whether what is not is as it was, as far as can be seen
    /// from there.
    fn survey(
        &self,
        new: BorrowedFd<'_>,
        old: Option<BorrowedFd<'_>>,
        scope: Scope<'_>,
        found: &mut Survey,
    ) -> Result<bool> {
        for (name, kind) in tree::list(new).context(self.doing())? {
            let before = || old.map_or(Ok(None), |old| tree::stat(old, &name)).context(self.doing());
            let Some(scope) = scope.at(&name) else {
                let now = tree::stat(new, &name).context(self.doing())?;
                match (now, before()?) {
                    (Some(now), Some(before)) if is_the_same(&now, &before) => continue,
                    // Another of its names may be touched.
                    (Some(now), Some(before)) if now.st_nlink > 1 && now.st_ino == before.st_ino => {
                        found.doubtful.insert((now.st_dev, now.st_ino));
                        continue;
                    }
                    _ => return Ok(false),
                }
            };
            if kind != FileType::Directory {
                let stat = tree::stat(new, &name).context(self.doing())?;
                found
                    .linked
                    .extend(stat.filter(|stat| stat.st_nlink > 1).map(|stat| (stat.st_dev, stat.st_ino)));
                continue;
            }
            let was_dir = before()?.is_some_and(|before| tree::kind(&before) == Some(Kind::Dir));
            let inner = tree::open_dir(new, &name).context(self.doing())?;
            let before = match old.filter(|_| was_dir) {
                Some(old) => Some(tree::open_dir(old, &name).context(self.doing())?),
                None => None,
            };
            if !self.survey(inner.as_fd(), before.as_ref().map(AsFd::as_fd), scope, found)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn collect(
        &self,
        dir: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        names: &mut HashMap<Inode, Vec<Vec<u8>>>,
    ) -> Result<()> {
        for (name, kind) in tree::list(dir).context(self.doing())? {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if kind == FileType::Directory {
                let inner = tree::open_dir(dir, &name).context(self.doing())?;
                self.collect(inner.as_fd(), path, names)?;
            } else if kind != FileType::Socket
                && !tree::is_whiteout(self.form, dir, &name, kind).context(self.doing())?
                && !name.starts_with(b".wh.")
                && let Some(stat) = tree::stat(dir, &name).context(self.doing())?
                && stat.st_nlink > 1
            {
                names.entry((stat.st_dev, stat.st_ino)).or_default().push(path.clone());
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn any_changed(&self, paths: &[Vec<u8>]) -> Result<bool> {
        let Some(parent) = self.parent else { return Ok(true) };
        let (mut new, mut old) = (Parents::new(self.new), Parents::new(parent));
        let mut inodes = Vec::new();
        for path in paths {
            let (dir, name) = tree::split(path);
            let new = new.dir(dir).context(self.doing())?;
            let old = match old.dir(dir) {
                Ok(old) => old,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(true),
                Err(error) => return Err(error).context(self.doing()),
            };
            let stat = tree::stat(new, name).context(self.doing())?;
            let before = tree::stat(old, name).context(self.doing())?;
            let (Some(stat), Some(before)) = (stat, before) else { return Ok(true) };
            let Some(kind) = tree::kind(&stat) else { return Ok(true) };
            let file = match kind {
                Kind::File => Some(tree::open_file(new, name).context(self.doing())?),
                _ => None,
            };
            let (mut row, _) = self.describe(kind, &stat, Node::Name(new, name))?;
            if kind == Kind::Symlink {
                row.target = fs::readlinkat(new, name, Vec::new()).context(self.doing())?.into_bytes();
            }
            if !self.equal(&row, &stat, file.as_ref(), old, name, &before)? {
                return Ok(true);
            }
            inodes.push((before.st_dev, before.st_ino));
        }
        Ok(inodes.windows(2).any(|pair| pair[0] != pair[1]))
    }
}

/// One file in two trees of which the newer began as a snapshot of the older: whatever happens to it moves its ctime.
pub(super) fn is_the_same(new: &Stat, old: &Stat) -> bool {
    let of = |stat: &Stat| {
        let times = (stat.st_ctime, stat.st_ctime_nsec, stat.st_mtime, stat.st_mtime_nsec);
        (
            stat.st_ino,
            stat.st_mode,
            stat.st_nlink,
            stat.st_uid,
            stat.st_gid,
            stat.st_rdev,
            stat.st_size,
            times,
        )
    };
    of(new) == of(old)
}
