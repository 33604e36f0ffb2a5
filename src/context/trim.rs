//! Caches of what came from elsewhere stay within a bound: what was not used for longest goes first.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{Context as _, Result};

/// Moves entries of `dir` into `trash` until no more than `most` bytes are left. `free` says, by name, whether
/// one may go; what it gives is held until it is gone.
pub(super) fn trim<H>(dir: &Path, trash: &Path, most: u64, free: impl Fn(&str) -> Option<H>) -> Result<()> {
    let say = || format!("tidying `{}`", dir.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).context(say)? {
        let path = entry.context(say)?.path();
        if let Ok(used) = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified()) {
            entries.push((used, size(&path), path));
        }
    }
    entries.sort();
    let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in entries {
        if total <= most {
            break;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(_held) = free(&name) else { continue };
        match fs::rename(&path, trash.join(crate::db::random_name())) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause).context(say),
            _ => total -= size,
        }
    }
    Ok(())
}

/// It was used now.
pub(super) fn touch(path: &Path) {
    let touched = fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(%error, path = %path.display(), "not marked as used");
    }
}

/// Of all files below; what cannot be looked at counts for nothing.
pub(super) fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path)
            .map(|entries| entries.flatten().map(|entry| size(&entry.path())).sum())
            .unwrap_or(0),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_held_stays() {
        let root = std::env::temp_dir().join(format!("outcrop-trim-{}", std::process::id()));
        let (dir, trash) = (root.join("cache"), root.join("trash"));
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(&trash).unwrap();
        for (age, name) in [(4, "held"), (3, "old"), (2, "middle"), (1, "new")] {
            fs::write(dir.join(name), [0; 10]).unwrap();
            let file = fs::File::open(dir.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age * 100)).unwrap();
        }
        touch(&dir.join("middle"));
        trim(&dir, &trash, 25, |name| (name != "held").then_some(())).unwrap();
        let mut left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["held", "middle"]);
        fs::remove_dir_all(root).unwrap();
    }
}
