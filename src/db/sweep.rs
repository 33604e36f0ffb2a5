//! Clearing up: what was condemned and nobody can see any more, and what the dead left under way. All of it is found in
//! the index; nothing is looked for on disk but in `trash/` and `locks/`, which are small.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Db;
use super::ids::{ContainerId, Epoch, LayerNumber, SnapshotId};
use super::incoming::KEPT;
use super::lease::{self, Lease, random_hex};
use super::snapshot::SnapshotRow;
use super::time::Time;
use super::transaction::{Reader, Writer};
use crate::error::{Context as _, Error, Result};
use crate::image::{ChainId, DiffId, Digest, ImageId};
use crate::sys;

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Everything that can go is gone, but for `failed`. False: another process is at it, or may still use something.
    pub complete: bool,
    pub images: usize,
    pub layers: usize,
    pub snapshots: usize,
    pub containers: usize,
    pub blobs: usize,
    /// What could not be removed; the next sweep tries again.
    pub failed: Vec<Error>,
}

impl Swept {
    fn count(&self) -> usize {
        self.images + self.layers + self.snapshots + self.containers + self.blobs
    }
}

impl Db {
    /// Removes what can go. `remove_tree` removes the tree of a snapshot, being gone already is fine to it.
    ///
    /// Called when a verb has done its work: what this process saw before is not kept for it any longer, unless by a
    /// guard from `Db::enter`. Costs two queries, and a look at `trash/`, `locks/` and tags.log, when there is
    /// nothing to do.
    pub fn sweep(&self, remove_tree: &dyn Fn(&SnapshotRow) -> Result<()>) -> Result<Swept> {
        let mut swept = Swept::default();
        self.sweep_locks()?;
        self.take_back_tag_log()?;
        loop {
            let before = swept.count();
            let trash = self.0.root.join("trash");
            if !self.read(|reader| reader.anything_to_sweep())? && is_empty(&trash)? {
                swept.complete = true;
                return Ok(swept);
            }
            // Whoever holds it looks again after letting it go: nothing is left lying because two came at once.
            let Some(turn) = Lease::take(&self.0.locks, "sweep", self.boot())? else { return Ok(swept) };
            let buried = self.bury_the_dead()?;
            if self.read(|reader| reader.name_expected_in_this_epoch())? {
                self.write(|writer| writer.open_epoch().map(drop))?;
            }
            self.enter_epoch()?;
            let let_go = self.let_go(&mut swept)?;
            self.remove_containers(&mut swept)?;
            self.remove_trees(&mut swept, remove_tree)?;
            self.remove_blobs(&mut swept)?;
            let undone = self.undo_intents(&mut swept)?;
            let emptied = empty(&trash, &mut swept.failed);
            drop(turn);
            if swept.count() == before && buried == 0 && !let_go && undone == 0 && emptied == 0 {
                return Ok(swept);
            }
            if !swept.failed.is_empty() {
                return Ok(swept);
            }
        }
    }

    /// Takes away the lock files of killed processes that nothing hangs on.
    fn sweep_locks(&self) -> Result<()> {
        let listing = || "listing the store's locks";
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0.locks).context(listing)? {
            let name = entry.context(listing)?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_prefix("lease-")).map(str::to_owned));
        }
        if names.is_empty() {
            return Ok(());
        }
        let hung_on = self.read(|reader| reader.leases())?;
        for name in names.into_iter().filter(|name| !hung_on.contains(name)) {
            if self.lease_is_free(&name)? {
                drop(Lease::take(&self.0.locks, &name, self.boot())?);
            }
        }
        Ok(())
    }

    /// A lease of this process: whatever hangs on it is cleared up when it comes free unfulfilled.
    pub fn lease(&self) -> Result<Lease> {
        Lease::fresh(&self.0.locks, self.boot())
    }

    /// The lease of this name; `None` if a living process holds it.
    pub fn try_lease(&self, name: &str) -> Result<Option<Lease>> {
        Lease::take(&self.0.locks, name, self.boot())
    }

    /// The lease of this name, once it is free; `wait` is called again and again meanwhile. Whoever holds nothing else that
    /// others wait for may wait as long as it takes.
    pub fn wait_for_lease(&self, name: &str, wait: &dyn Fn() -> Result<()>) -> Result<Lease> {
        loop {
            match self.try_lease(name)? {
                Some(lease) => return Ok(lease),
                None => wait()?,
            }
        }
    }

    /// Whether nobody holds the lease: its holder ended or died.
    pub fn lease_is_free(&self, name: &str) -> Result<bool> {
        lease::is_free(&self.0.locks, name)
    }

    /// What hung on leases that came free hangs on nothing now, and is to be removed. How many they were.
    fn bury_the_dead(&self) -> Result<usize> {
        let mut buried = 0;
        for name in self.read(|reader| reader.leases())? {
            if !self.lease_is_free(&name)? {
                continue;
            }
            // Ours now: nobody else can take it up while we write.
            let Some(lease) = Lease::take(&self.0.locks, &name, self.boot())? else { continue };
            self.write(|writer| writer.bury(&name))?;
            drop(lease);
            buried += 1;
        }
        if buried > 0 {
            // What they had published and not yet referred to.
            self.write(|writer| writer.condemn_unreferenced())?;
        }
        Ok(buried)
    }

    /// Rows of what was condemned in epochs that nobody is in any more. Whether there were any.
    fn let_go(&self, swept: &mut Swept) -> Result<bool> {
        if !self.read(|reader| reader.anything_condemned_at_all())? {
            return Ok(false);
        }
        let earliest = self.read(|reader| reader.earliest_epoch(&self.0.locks))?;
        let ready = self.read(|reader| reader.anything_condemned_before(earliest))?;
        if !ready {
            return Ok(false);
        }
        // On disk before a byte is removed: a row that comes back after a power cut would promise what is gone.
        self.durable(|writer| {
            swept.images += writer.let_images_go(earliest)?;
            writer.let_chains_go(earliest)?;
            swept.layers += writer.let_layers_go(earliest)?;
            writer.exec("update blob set removing = 1 where condemned < ?1 and removing = 0", (earliest,))?;
            writer.forget_epochs_before(earliest)
        })?;
        Ok(true)
    }

    fn remove_containers(&self, swept: &mut Swept) -> Result<()> {
        let removing = self.read(|reader| reader.removing_containers())?;
        if removing.iter().any(|(.., auto_remove)| !auto_remove) {
            // On disk before its files go; one that goes by itself would go again after a power cut.
            self.durable(|writer| {
                writer.exec("update container set lease = null where state = 'removing'", ()).map(drop)
            })?;
        }
        for (id, snapshot, auto_remove) in removing {
            self.to_trash(&self.0.root.join("containers").join(id.as_str()))?;
            self.write(|writer| {
                if auto_remove {
                    // Who ends as he should has taken them along himself.
                    for (volume, _) in writer.volumes_of(&id)? {
                        writer.remove_nameless_volume(&volume, Some(&id))?;
                    }
                }
                writer.exec("delete from container where id = ?1 and state = 'removing'", (&id,))?;
                writer.forget_moved(&id)?;
                writer.remove_snapshot(snapshot)
            })?;
            swept.containers += 1;
        }
        Ok(())
    }

    fn remove_trees(
        &self,
        swept: &mut Swept,
        remove_tree: &dyn Fn(&SnapshotRow) -> Result<()>,
    ) -> Result<()> {
        for row in self.read(|reader| reader.removing_snapshots())? {
            match remove_tree(&row) {
                Ok(()) => {
                    self.write(|writer| writer.forget_snapshot(row.id))?;
                    swept.snapshots += 1;
                }
                Err(error) => swept.failed.push(error),
            }
        }
        Ok(())
    }

    fn remove_blobs(&self, swept: &mut Swept) -> Result<()> {
        // A name that is about to be given stands here, too: it is left to whoever gives it as long as that one lives.
        let earliest = self.read(|reader| reader.earliest_epoch(&self.0.locks))?;
        loop {
            let gone = self.write(|writer| {
                let batch: Vec<Digest> = writer.all(
                    "select digest from blob where condemned < ?1 and removing = 1 limit 100",
                    (earliest,),
                    |row| row.get(0),
                )?;
                for digest in &batch {
                    // In the transaction: whoever brings the blob back renames it into place in one, too.
                    self.to_trash(&self.0.root.join("blobs/sha256").join(digest.hex()))?;
                    writer.exec("delete from blob where digest = ?1", (digest,))?;
                    writer.exec(
                        "delete from blob_seen where digest = ?1 and digest not in (select blob from blob_layer)",
                        (digest,),
                    )?;
                }
                if !batch.is_empty() {
                    writer.forget_epochs_before(earliest)?;
                }
                Ok(batch.len())
            })?;
            swept.blobs += gone;
            if gone == 0 {
                return Ok(());
            }
        }
    }

    /// How many were undone.
    fn undo_intents(&self, swept: &mut Swept) -> Result<usize> {
        let mut undone = 0;
        for intent in
            self.read(|reader| reader.all_intents())?.into_iter().filter(|intent| intent.lease.is_none())
        {
            let done = match (intent.what.as_str(), intent.number, intent.detail.as_deref()) {
                ("rows", Some(number), _) => self.remove_unpublished(LayerNumber(number)).map(|()| true),
                ("recipe", _, Some(diff_id)) => self.remove_recipe(&diff_id.parse()?).map(|_| true),
                ("ingest", _, Some(name)) => {
                    self.to_trash(&self.0.root.join("ingest").join(name)).map(|()| true)
                }
                ("incoming", _, Some(hex)) => match intent.at.0 < Time::now().0 - KEPT {
                    true => self.forget_incoming(hex),
                    false => Ok(false),
                },
                ("upload", ..) => Ok(intent.at.0 < Time::now().0 - KEPT),
                // Others know what to do with theirs.
                _ => Ok(false),
            };
            match done {
                Ok(true) => {
                    self.write(|writer| writer.fulfil(intent.id))?;
                    undone += 1;
                }
                Ok(false) => {}
                Err(error) => swept.failed.push(error),
            }
        }
        Ok(undone)
    }

    /// The rows under a number that nothing publishes, and the recipe that was being written for it.
    pub(super) fn remove_unpublished(&self, number: LayerNumber) -> Result<()> {
        self.remove_rows(number)?;
        self.to_trash(&self.0.root.join("layers").join(format!("making-{number}")))
    }

    /// False: a layer needs it.
    pub(super) fn remove_recipe(&self, diff_id: &DiffId) -> Result<bool> {
        // In a transaction, as recipes get their names; whoever has given it one and not yet published, needs it.
        self.write(|writer| {
            let needed: bool = writer.value(
                "select exists (select 1 from layer where diff_id = ?1)
                     or exists (select 1 from intent where what = 'layer' and detail = ?2)",
                (diff_id, diff_id.to_string()),
            )?;
            if needed {
                return Ok(false);
            }
            let recipe = self.0.root.join("layers").join(diff_id.hex());
            self.to_trash(&recipe)?;
            for beside in ["at", "seen", "seen.new"] {
                self.to_trash(&recipe.with_extension(beside))?;
            }
            Ok(true)
        })
    }

    pub(super) fn to_trash(&self, path: &Path) -> Result<()> {
        let trash = self.0.root.join("trash").join(random_hex::<8>());
        match fs::rename(path, trash) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(cause).context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(fs::read_dir(dir).context(|| "listing the trash")?.next().is_none())
}

/// `None`: somebody holds it.
fn lock_rubbish(path: &Path) -> Result<Option<Option<File>>> {
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_dir()) => {
            Ok(lease::try_lock(&file)?.then_some(Some(file)))
        }
        _ => Ok(Some(None)),
    }
}

/// How many things were removed.
fn empty(trash: &Path, failed: &mut Vec<Error>) -> usize {
    let mut emptied = 0;
    let mut remove = || -> Result<()> {
        let dir = sys::dir::open_path(trash).context(|| "opening the trash")?;
        for entry in fs::read_dir(trash).context(|| "listing the trash")? {
            let path = entry.context(|| "listing the trash")?.path();
            // What is locked is being worked in.
            let Some(_lock) = lock_rubbish(&path)? else { continue };
            let name = path.file_name().map(|name| CString::new(name.as_bytes()));
            let name = name.and_then(std::result::Result::ok).expect("the kernel's names have no NUL");
            sys::tree::remove(dir.as_fd(), &name).context(|| format!("removing {}", path.display()))?;
            emptied += 1;
        }
        Ok(())
    };
    failed.extend(remove().err());
    emptied
}

impl Reader<'_> {
    fn anything_to_sweep(&self) -> Result<bool> {
        self.value(
            "select exists (select 1 from image where condemned is not null)
                 or exists (select 1 from chain where condemned is not null)
                 or exists (select 1 from layer where condemned is not null)
                 or exists (select 1 from blob where condemned is not null)
                 or exists (select 1 from intent
                     where what <> 'moved' and (what not in ('incoming', 'upload') or at < ?1))
                 or exists (select 1 from build where status = 'running')
                 or exists (select 1 from container where state = 'running')
                 or exists (select 1 from container where state = 'created' and lease is not null)
                 or exists (select 1 from container where state = 'removing')
                 or exists (select 1 from snapshot where state <> 'sealed'
                     and id not in (select snapshot from container where state <> 'removing')
                     and id not in (select number from intent where what = 'moved'))",
            (Time::now().0 - KEPT,),
        )
    }

    /// A blob is to get its name by somebody who began no later than now: he can be told from those who come later only
    /// when this epoch is over.
    fn name_expected_in_this_epoch(&self) -> Result<bool> {
        self.value(
            "select exists (select 1 from blob where removing = 1 and condemned >= (select max(n) from epoch))",
            (),
        )
    }

    fn anything_condemned_at_all(&self) -> Result<bool> {
        self.anything_condemned_before(Epoch(u64::MAX >> 1))
    }

    fn anything_condemned_before(&self, epoch: Epoch) -> Result<bool> {
        self.value(
            "select exists (select 1 from image where condemned < ?1)
                 or exists (select 1 from chain where condemned < ?1)
                 or exists (select 1 from layer where condemned < ?1)
                 or exists (select 1 from blob where condemned < ?1 and removing = 0)",
            (epoch,),
        )
    }

    /// All that something hangs on.
    fn leases(&self) -> Result<Vec<String>> {
        self.all(
            "select lease from snapshot where lease is not null
             union select lease from intent where lease is not null
             union select lease from build where status = 'running' and lease is not null
             union select lease from container where state = 'running' and lease is not null
             union select lease from container where state = 'created' and lease is not null",
            (),
            |row| row.get(0),
        )
    }

    fn removing_containers(&self) -> Result<Vec<(ContainerId, SnapshotId, bool)>> {
        let sql = "select id, snapshot, auto_remove from container where state = 'removing'";
        self.all(sql, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }
}

impl Writer<'_> {
    fn bury(&self, lease: &str) -> Result<()> {
        self.exec("update snapshot set state = 'removing', lease = null where lease = ?1", (lease,))?;
        self.exec(
            "insert into intent (what, detail, at)
             select 'recipe', detail, ?2 from intent where lease = ?1 and what = 'layer' and detail is not null",
            (lease, Time::now()),
        )?;
        self.exec("update intent set what = 'rows' where lease = ?1 and what = 'layer'", (lease,))?;
        self.exec("update intent set lease = null where lease = ?1", (lease,))?;
        self.exec(
            "update build set status = 'killed', lease = null, finished_at = ?2
             where status = 'running' and lease = ?1",
            (lease, Time::now()),
        )?;
        self.exec(
            "update container set state = iif(auto_remove, 'removing', 'created'), lease = null,
                 name = iif(auto_remove, 'removing-' || id, name)
             where state = 'created' and lease = ?1",
            (lease,),
        )?;
        // What held the lease killed the container before it went.
        self.exec(
            "update container set state = iif(auto_remove, 'removing', 'exited'), lease = null, exit_code = 137,
                 name = iif(auto_remove, 'removing-' || id, name), finished_at = ?2
             where state = 'running' and lease = ?1",
            (lease, Time::now()),
        )
        .map(drop)
    }

    fn let_images_go(&self, earliest: Epoch) -> Result<usize> {
        let mut gone = 0;
        loop {
            // Those that something came to refer to were brought back; a parent goes after its children.
            let leaves: Vec<ImageId> = self.all(
                "select id from image where condemned < ?1
                     and not exists (select 1 from tag where tag.image = image.id)
                     and not exists (select 1 from container where container.image = image.id)
                     and not exists (select 1 from image as child where child.parent = image.id)",
                (earliest,),
                |row| row.get(0),
            )?;
            for image in &leaves {
                self.exec("delete from image where id = ?1", (image,))?;
            }
            gone += leaves.len();
            if leaves.is_empty() {
                return Ok(gone);
            }
        }
    }

    fn let_chains_go(&self, earliest: Epoch) -> Result<()> {
        loop {
            let tops: Vec<ChainId> = self.all(
                "select chain_id from chain where condemned < ?1
                     and not exists (select 1 from image where image.chain = chain.chain_id)
                     and not exists (select 1 from chain as upper where upper.parent = chain.chain_id)
                     and not exists (select 1 from snapshot
                         join snapshot_parent on snapshot_parent.parent = snapshot.id
                         join snapshot as upper on upper.id = snapshot_parent.snapshot
                         where snapshot.chain = chain.chain_id and upper.state in ('making', 'draft'))",
                (earliest,),
                |row| row.get(0),
            )?;
            for chain in &tops {
                self.exec("update snapshot set state = 'removing', chain = null where chain = ?1", (chain,))?;
                self.exec("delete from chain where chain_id = ?1", (chain,))?;
            }
            if tops.is_empty() {
                return Ok(());
            }
        }
    }

    fn let_layers_go(&self, earliest: Epoch) -> Result<usize> {
        let layers: Vec<(LayerNumber, DiffId)> = self.all(
            "select id, diff_id from layer where condemned < ?1
                 and not exists (select 1 from chain where chain.layer = layer.id)
                 and not exists (select 1 from cache_record where cache_record.layer = layer.id)
                 and not exists (select 1 from snapshot
                     join snapshot_parent on snapshot_parent.parent = snapshot.id
                     join snapshot as upper on upper.id = snapshot_parent.snapshot
                     where snapshot.layer = layer.id and upper.state in ('making', 'draft'))",
            (earliest,),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        for (number, diff_id) in &layers {
            self.exec("update snapshot set state = 'removing', layer = null where layer = ?1", (number,))?;
            self.exec("delete from layer where id = ?1", (number,))?;
            self.insert_intent("rows", Some(number.0), None, None)?;
            self.insert_intent("recipe", None, Some(&diff_id.to_string()), None)?;
            self.exec(
                "delete from blob_seen where digest in (
                     select blob from blob_layer where diff_id = ?1
                         and diff_id not in (select diff_id from layer))
                     and digest not in (select digest from blob)",
                (diff_id,),
            )?;
            self.exec(
                "delete from blob_layer where diff_id = ?1 and diff_id not in (select diff_id from layer)",
                (diff_id,),
            )?;
        }
        Ok(layers.len())
    }
}
