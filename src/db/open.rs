//! Opening a store; making it where there is none. Many processes may do so at once.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use rustix::fs::{FallocateFlags, FlockOperation};

use super::asking::somebody_asks;
use super::disk::{self, is_of};
use super::epoch::EpochGuard;
use super::lease::{boot_id, lock, open_lock_file, random_hex, stands_at};
use super::migrate::{self, FILES, INDEX};
use super::time::Time;
use super::{Db, Shared};
use crate::error::{Context as _, Error, Kind, Result};

/// What a store has besides its databases and its driver's directory.
const DIRECTORIES: [&str; 8] =
    ["blobs", "blobs/sha256", "layers", "ingest", "containers", "volumes", "trash", "locks"];

/// Bytes of `reserve`.
const RESERVE: u64 = 8 << 20;

/// How long a process waits for another one's transaction.
const PATIENCE: Duration = Duration::from_secs(30);

impl Db {
    /// Opens the store in `root`, an absolute path; makes it, with mode 0700, where there is none. A store made by a
    /// newer engine is refused (`Unsupported`); one made by an older engine is brought up to date.
    ///
    /// The value stands for one process: it must not be used across a fork (std's `Command` is fine: its child
    /// only execs). It is in the current epoch from now on.
    pub fn open(root: &Path) -> Result<Db> {
        Db::open_or_make(root).map_err(|error| match error.kind() {
            Kind::Denied if error.hint_text().is_none() => {
                error.hint("use the store as its owner, with `sudo`, or name one of your own with --root")
            }
            // SQLite says no more than that it could not read or write.
            Kind::Internal if is_full(root) => {
                Error::unavailable(format!("opening the store {}, whose filesystem is full", root.display()))
                    .hint("free some space: `outcrop system prune` removes what nothing uses")
                    .because(error)
            }
            _ => error,
        })
    }

    /// As `give_up_reserve`, where there is not even room to open the store.
    pub fn give_up_reserve_of(root: &Path) -> Result<()> {
        match fs::remove_file(root.join("reserve")) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(cause).context(|| "removing the reserve")
            }
            _ => Ok(()),
        }
    }

    fn open_or_make(root: &Path) -> Result<Db> {
        let index = root.join(INDEX.file);
        if !index.try_exists().context(|| format!("looking for a store in {}", root.display()))? {
            create(root)?;
        }
        let (in_use, found) = share(root)?;
        let connection = connect(&index)?;
        let in_use = match migrate::version(&connection, &INDEX)? {
            migrate::Version::Current => in_use,
            migrate::Version::Older => {
                drop(in_use);
                upgrade(root, &connection)?
            }
        };
        let db = Db::on(root, connection, root.join(FILES.file), in_use, found == Found::Asked)?;
        if found != Found::LeftByTheDead {
            return Ok(db);
        }
        let ended = db.end_boot_of_the_dead()?;
        lock(&db.0.in_use, FlockOperation::LockShared)?;
        if ended { Db::open_or_make(root) } else { Ok(db) }
    }

    /// `came_while_asked`: somebody may have been told of what the disk refused when `in_use` was opened.
    pub(super) fn on(
        root: &Path,
        index: Connection,
        rows_path: PathBuf,
        in_use: File,
        came_while_asked: bool,
    ) -> Result<Db> {
        let reading = || format!("reading the store's index in {}", root.display());
        // Here, as whoever needs rows may be in a transaction.
        let pair = index
            .query_row("select value from meta where key = 'pair'", (), |row| row.get(0))
            .context(reading)?;
        let boot = boot(&index).context(reading)?;
        let db = Db(Arc::new(Shared {
            pair,
            root: root.to_owned(),
            locks: root.join("locks"),
            boot,
            index: Mutex::new(index),
            holder: Mutex::new(None),
            rows_path,
            rows: Mutex::new(None),
            row_reader: Mutex::new(None),
            epoch: Mutex::new(None),
            in_use,
            came_while_asked,
        }));
        db.enter_epoch()?;
        db.notice_reboot()?;
        Ok(db)
    }

    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// This boot of the machine; another one from each time on that the disk did not keep what was written (`disk.rs`).
    pub fn boot(&self) -> &str {
        &self.0.boot
    }

    /// Keeps all that is visible from now on from going, until it is dropped: for threads that outlive a verb, and
    /// for the requests of a process that serves many.
    pub fn enter(&self) -> Result<EpochGuard> {
        EpochGuard::enter(&self.0.locks, || self.read(|reader| reader.current_epoch()))
    }

    /// Gives back the few MB kept for this: for a disk so full that nothing can be removed.
    pub fn give_up_reserve(&self) -> Result<()> {
        Db::give_up_reserve_of(&self.0.root)
    }

    /// Makes the reserve again where it is missing and there is room.
    pub fn restore_reserve(&self) -> Result<()> {
        reserve(&self.0.root)
    }
}

/// What the index calls this boot; its id, where it does not know of it yet.
fn boot(index: &Connection) -> Result<String> {
    let id = boot_id()?;
    let last: Option<String> = index
        .query_row("select value from meta where key = 'boot'", (), |row| row.get(0))
        .optional()
        .context(|| "asking for the last boot")?;
    Ok(last.filter(|last| is_of(last, &id)).unwrap_or(id))
}

/// No room for what a process needs to open it.
fn is_full(root: &Path) -> bool {
    rustix::fs::statvfs(root).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) < 1 << 20)
}

/// One process makes the store; the others wait for it. outcrop.db comes last, complete: where it stands, all stands.
fn create(root: &Path) -> Result<()> {
    make_root(root)?;
    let dir = File::open(root).context(|| format!("opening {}", root.display()))?;
    lock(&dir, FlockOperation::LockExclusive)?;
    if root.join(INDEX.file).exists() {
        return Ok(());
    }
    for name in ["blobs/sha256", "layers", "containers"] {
        if fs::read_dir(root.join(name)).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::corrupt(format!("the store {} has lost its {}", root.display(), INDEX.file))
                .hint("`outcrop system check --rebuild-index` makes it again"));
        }
    }
    for name in DIRECTORIES {
        match DirBuilder::new().mode(0o700).create(root.join(name)) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(cause).context(|| format!("making {}", root.join(name).display()));
            }
            _ => {}
        }
    }
    reserve(root)?;
    create_pair(root, FILES.file, INDEX.file, &new_uuid())?;
    dir.sync_all().context(|| format!("writing {}", root.display()))
}

fn make_root(root: &Path) -> Result<()> {
    let cannot = || format!("making the store's directory {}", root.display());
    if let Some(above) = root.parent() {
        fs::create_dir_all(above).context(cannot)?;
    }
    match DirBuilder::new().mode(0o700).create(root) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause).context(cannot),
        // A directory that was there may be open to others; the umask may have closed one of ours to ourselves.
        _ => fs::set_permissions(root, Permissions::from_mode(0o700)).context(cannot),
    }
}

/// The two databases of a store, files.db first. The caller holds the lock of the directory.
pub(super) fn create_pair(root: &Path, files: &str, index: &str, uuid: &str) -> Result<()> {
    let pair = random_hex::<8>();
    create_database(root, files, |connection| {
        migrate::create(connection, &FILES)?;
        connection
            .execute("insert into mark (n, value, pair) values (1, 0, ?1)", (&pair,))
            .map(drop)
            .context(|| "filling files.db")
    })?;
    create_database(root, index, |connection| {
        migrate::create(connection, &INDEX)?;
        first_rows(connection, uuid, &pair)
    })
}

pub(super) fn new_uuid() -> String {
    let mut uuid = random_hex::<16>();
    for at in [20, 16, 12, 8] {
        uuid.insert(at, '-');
    }
    uuid
}

/// Made under another name, so that nobody sees half of it.
fn create_database(root: &Path, name: &str, fill: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
    let draft = root.join(format!("{name}.making"));
    for left in ["", "-wal", "-shm", "-journal"] {
        drop(fs::remove_file(format!("{}{left}", draft.display())));
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&draft, flags)
        .context(|| format!("making the database {}", draft.display()))?;
    // Nothing to protect before it has its name; written out as a whole below.
    connection
        .execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")
        .context(|| "preparing a database of the store")?;
    super::transaction::run(&connection, "BEGIN IMMEDIATE", fill)?;
    let journal: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .context(|| "preparing a database of the store")?;
    if journal != "wal" {
        return Err(Error::unsupported(format!("the filesystem of {} cannot hold a store", root.display()))
            .hint("it must let processes share memory through a file; network filesystems do not"));
    }
    // The last connection folds the write-ahead log into the file.
    connection.close().map_err(|(_, cause)| cause).context(|| "closing a database of the store")?;
    File::open(&draft).and_then(|file| file.sync_all()).context(|| "writing a database of the store")?;
    fs::rename(&draft, root.join(name)).context(|| format!("naming {}", root.join(name).display()))
}

fn first_rows(connection: &Connection, uuid: &str, pair: &str) -> Result<()> {
    let insert = || -> rusqlite::Result<()> {
        let mut meta = connection.prepare("insert into meta (key, value) values (?1, ?2)")?;
        meta.execute(("uuid", uuid))?;
        meta.execute(("pair", pair))?;
        meta.execute(("layout", "direct"))?;
        meta.execute(("made_at", Time::now()))?;
        meta.execute(("made_by", env!("CARGO_PKG_VERSION")))?;
        meta.execute(("tags_log_size", 0))?;
        connection.execute("insert into epoch (n, opened_at) values (1, ?1)", (Time::now(),))?;
        connection.execute(
            "insert into sequence (name, next, safe) values ('layer', 1, 1024), ('snapshot', 1, 1024)",
            (),
        )?;
        Ok(())
    };
    insert().context(|| "filling the store's index")
}

fn reserve(root: &Path) -> Result<()> {
    let path = root.join("reserve");
    let making = || format!("making {}", path.display());
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        file => file.context(making)?,
    };
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE) {
        Ok(()) => Ok(()),
        // Not every filesystem can set blocks aside.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; usize::try_from(RESERVE).expect("8 MB fit")];
            (&file).write_all(&zeros).context(making)
        }
        Err(cause) => {
            drop(fs::remove_file(&path));
            Err(cause).context(making)
        }
    }
}

/// Opened by SQLite alone: closing any other descriptor of a database would drop SQLite's locks on it (fcntl(2),
/// "Record locking").
pub(super) fn connect(path: &Path) -> Result<Connection> {
    let opening = || format!("opening the database {}", path.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).context(opening)?;
    be_patient(&mut connection).context(opening)?;
    let set_up = |connection: &Connection| -> rusqlite::Result<()> {
        // Whoever closes last would fold the log into the file, and wait for the disk; whoever does it by himself, now and
        // then, says nothing of what the disk refused.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_prepared_statement_cache_capacity(256);
        connection.execute_batch(
            "PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; \
             PRAGMA trusted_schema = OFF; PRAGMA wal_autocheckpoint = 0;",
        )
    };
    set_up(&connection).context(opening)?;
    Ok(connection)
}

pub(super) fn be_patient(connection: &mut Connection) -> rusqlite::Result<()> {
    let mut waiting = Waiting::default();
    connection.busy_handler(Some(move |count| waiting.wait(count)))
}

/// SQLite's own back-off sleeps for up to 100 ms at a time; transactions here take less than one.
#[derive(Default)]
struct Waiting {
    since: Option<Instant>,
}

impl Waiting {
    fn wait(&mut self, count: i32) -> bool {
        let since = match self.since {
            Some(since) if count > 0 => since,
            _ => *self.since.insert(Instant::now()),
        };
        if since.elapsed() > PATIENCE {
            return false;
        }
        let step = u64::try_from(count.clamp(0, 20)).expect("not negative");
        std::thread::sleep(Duration::from_micros(100 + step * step * 20));
        true
    }
}

/// What whoever opens a store finds of others who ask the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nobody,
    /// Somebody asks, or died while he did.
    Asked,
    /// Nobody else has the store open, and nobody can: who asked is dead.
    LeftByTheDead,
}

/// Says that an engine of this version uses the store, as long as the file is open.
fn share(root: &Path) -> Result<(File, Found)> {
    let file = open_lock(root)?;
    // Once the file is open: of what is asked later it is told itself.
    let found = match somebody_asks(&root.join("locks").join(disk::FILE)) {
        true if lock(&file, FlockOperation::NonBlockingLockExclusive)? => Found::LeftByTheDead,
        true => Found::Asked,
        false => Found::Nobody,
    };
    if found != Found::LeftByTheDead {
        lock(&file, FlockOperation::LockShared)?;
    }
    Ok((file, found))
}

fn open_lock(root: &Path) -> Result<File> {
    open_lock_file(&root.join("locks/store"))
}

/// Nobody else has the store open while the value lives.
pub(super) fn alone(root: &Path) -> Result<File> {
    let file = open_lock(root)?;
    let begun = Instant::now();
    while !lock(&file, FlockOperation::NonBlockingLockExclusive)? {
        if begun.elapsed() > PATIENCE {
            return Err(Error::conflict(format!("the store {} is in use", root.display()))
                .hint("wait for the other outcrop processes to end, or stop them"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    debug_assert!(stands_at(&file, &root.join("locks/store")).unwrap_or(false));
    Ok(file)
}

fn upgrade(root: &Path, index: &Connection) -> Result<File> {
    let file = alone(root).context(|| "bringing the store up to date")?;
    migrate::upgrade(&connect(&root.join(FILES.file))?, &FILES)?;
    migrate::upgrade(index, &INDEX)?;
    lock(&file, FlockOperation::LockShared)?;
    Ok(file)
}
