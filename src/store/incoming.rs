//! A blob that comes from elsewhere: `ingest/<hex>`, as long as it has come. Whoever dies leaves what there is, and the
//! next one goes on there. A row stands before the file; a lease of the blob's name says that somebody is at it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::write::{make_room, publish};
use crate::db::{Db, Lease};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image::{Digest, Hasher};
use crate::job::Job;
use crate::sys::part::Part;
use crate::transfer::Stream;

/// What is written is appended. Dropped, what came stays for the next one.
pub struct Incoming {
    db: Db,
    digest: Digest,
    /// Of the whole blob, in bytes.
    size: u64,
    path: PathBuf,
    file: File,
    progress: Arc<Progress>,
    lease: Option<Lease>,
}

impl Incoming {
    pub(super) fn open(db: &Db, digest: &Digest, size: u64, lease: Lease) -> Result<Self> {
        let kept = db.write(|writer| writer.expect_incoming(digest))?;
        let path = db.root().join("ingest").join(digest.hex());
        let say = || format!("opening {}", path.display());
        let mut file = open(&path, false).context(say)?;
        let mut have = file.metadata().context(say)?.len();
        if have > size || !kept {
            file = anew(&path).context(say)?;
            have = 0;
        }
        make_room(&file, size)?;
        let progress = Progress::new(have);
        Ok(Incoming { db: db.clone(), digest: *digest, size, path, file, progress, lease: Some(lease) })
    }

    /// Bytes that are there.
    fn have(&self) -> u64 {
        self.progress.state().have
    }

    /// A hasher that has seen what is there.
    fn hashed(&self, job: &Job) -> Result<Hasher> {
        let say = || format!("reading {}", self.path.display());
        let mut there = Part::of(&self.file, 0, self.have()).context(say)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            job.check()?;
            match there.read(&mut buffer).context(say)? {
                0 => return Ok(hasher),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// It comes, by `attempt`, which fills it and is called once more where what was there before may have been what was
    /// wrong; then it is a blob, kept until [`crate::db::Writer::arrived`]: refer to it before, and hold the lease until then,
    /// or somebody who clears up takes it for left by the dead.
    pub fn receive(self, attempt: &mut dyn FnMut(&mut Incoming) -> Result<()>) -> Result<Lease> {
        self.whole(attempt)?.commit()
    }

    /// The same, and it is a file to be read, and no blob: whoever comes next finds all of it, until it is
    /// [`super::Blobs::spent`].
    pub(super) fn spool(self, attempt: &mut dyn FnMut(&mut Incoming) -> Result<()>) -> Result<File> {
        let whole = self.whole(attempt)?;
        whole.file.try_clone().context(|| format!("opening {} again", whole.path.display()))
    }

    fn whole(mut self, attempt: &mut dyn FnMut(&mut Incoming) -> Result<()>) -> Result<Self> {
        loop {
            let resumed = self.have() > 0;
            match attempt(&mut self) {
                Ok(()) => return Ok(self),
                Err(error) if error.kind() == Kind::Corrupt && resumed => {
                    tracing::debug!(blob = %self.digest, %error, "beginning again");
                    self.restart()?;
                }
                Err(error) if error.kind() == Kind::Corrupt => {
                    self.discard()?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What is left of it, from the stream, proved at the end. However it ends, those who read behind come to an end.
    pub fn fill(&mut self, stream: &mut Stream<'_>, job: &Job) -> Result<()> {
        /// Also where it panics: readers would wait for ever.
        struct Ends(Arc<Progress>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.end(false);
            }
        }
        let ends = Ends(Arc::clone(&self.progress));
        self.pour(stream, job)?;
        ends.0.end(true);
        Ok(())
    }

    fn pour(&mut self, stream: &mut Stream<'_>, job: &Job) -> Result<()> {
        match self.have() {
            0 => stream.start()?,
            have => stream.start_behind(have, self.hashed(job)?)?,
        }
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = stream.read(&mut buffer).context(|| "fetching it")?;
            if count == 0 {
                return stream.finish();
            }
            self.write_all(&buffer[..count]).context(|| "storing it")?;
        }
    }

    /// What is there is wrong: nothing of it is kept. Readers of it fail.
    fn restart(&mut self) -> Result<()> {
        self.progress.end(false);
        // Never cut off: under another name the same file may be a blob, where a process died between giving it that
        // and taking this one away.
        self.file = anew(&self.path).context(|| format!("making {} again", self.path.display()))?;
        self.progress = Progress::new(0);
        make_room(&self.file, self.size)
    }

    /// What is there is wrong, or needed no more, and nobody goes on with it.
    pub(super) fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).context(|| format!("taking {} away", self.path.display()))?;
        self.db.write(|writer| writer.arrived(&self.digest))
    }

    /// Reads behind what is written, from the beginning.
    pub fn growing(&self) -> Result<Growing> {
        let file = self.file.try_clone().context(|| format!("opening {} again", self.path.display()))?;
        Ok(Growing { file, progress: Arc::clone(&self.progress) })
    }

    fn commit(mut self) -> Result<Lease> {
        let lease = self.lease.take().expect("taken here alone");
        let Incoming { db, digest, size, path, .. } = &self;
        db.write(|writer| writer.expect_blob(digest, *size))?;
        db.write(|writer| publish(db, writer, digest, *size, None, &|to| fs::hard_link(path, to)))?;
        fs::remove_file(path).context(|| format!("taking {} away", path.display()))?;
        Ok(lease)
    }
}

/// The name in `ingest/` of a blob that is here, if whoever brought it died before he could take it away.
pub(super) fn forget(db: &Db, digest: &Digest) -> Result<()> {
    let path = db.root().join("ingest").join(digest.hex());
    if path.exists()
        && let Some(_lease) = db.try_incoming(digest)?
    {
        // Another one was first.
        drop(fs::remove_file(&path));
    }
    Ok(())
}

/// What came of a blob that is none goes, unless somebody is at it.
pub(super) fn spent(db: &Db, digest: &Digest) -> Result<()> {
    let path = db.root().join("ingest").join(digest.hex());
    let Some(_lease) = db.try_incoming(digest)? else { return Ok(()) };
    match fs::remove_file(&path) {
        Ok(()) => db.write(|writer| writer.arrived(digest)),
        // It became a blob by somebody else, who keeps it.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause).context(|| format!("taking {} away", path.display())),
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.progress.end(false);
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let have = self.have();
        let written = self.file.write_at(bytes, have)?;
        let have = have + written as u64;
        if have > self.size {
            let size = self.size;
            return Err(Error::corrupt(format!("a blob of {size} bytes goes on beyond its end")).into());
        }
        self.progress.reached(have);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &PathBuf, fresh: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).truncate(false);
    if fresh {
        options.create_new(true)
    } else {
        options.create(true)
    };
    options.open(path)
}

fn anew(path: &PathBuf) -> io::Result<File> {
    fs::remove_file(path)?;
    open(path, true)
}

/// How far a file has grown.
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct State {
    have: u64,
    /// Whether it is whole, once nothing more comes.
    over: Option<bool>,
}

impl Progress {
    fn new(have: u64) -> Arc<Self> {
        Arc::new(Progress { state: Mutex::new(State { have, over: None }), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self, have: u64) {
        self.state().have = have;
        self.changed.notify_all();
    }

    /// The first word counts.
    fn end(&self, whole: bool) {
        self.state().over.get_or_insert(whole);
        self.changed.notify_all();
    }

    /// Waits until there is something behind `at`, or nothing more comes.
    fn beyond(&self, at: u64) -> State {
        let mut state = self.state();
        while state.have <= at && state.over.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state
    }
}

/// A blob that is still coming, to be read from the beginning as often as one likes. What is read is not proved yet.
pub struct Growing {
    file: File,
    progress: Arc<Progress>,
}

impl Growing {
    /// Waits for what has not come; fails when it never will.
    pub fn read(&self) -> impl Read + Send + '_ {
        Follower { growing: self, at: 0 }
    }
}

struct Follower<'g> {
    growing: &'g Growing,
    at: u64,
}

impl Read for Follower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let state = self.growing.progress.beyond(self.at);
        let there = usize::try_from(state.have - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if there > 0 {
            let read = self.growing.file.read_at(&mut buffer[..there], self.at)?;
            self.at += read as u64;
            return Ok(read);
        }
        match state.over {
            Some(true) => Ok(0),
            _ => Err(Error::unavailable("the blob stopped coming").into()),
        }
    }
}
