//! Snapshots: names, parents, drafts and leases over numbered trees that a driver keeps.
//!
//! A stack of layers is named by its ChainId. Here it becomes a list of numbers for the driver: of a
//! `Layered` one a number for each layer, of a `Stacked` one a single number. What is being made is a
//! [`Draft`]: its row stands before its tree and hangs on a lease, so that of a process that dies nothing
//! stays; dropped, it is gone.
//!
//! Nothing here is durable before [`Snapshots::sync`], which the barrier at the end of a build or pull calls.

mod draft;
pub mod driver;
mod early;
mod root;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

pub use self::draft::{Draft, Mounted, Parked, Place, Purpose};
use self::driver::{Driver, Mount, Options, Setting, Shape, SnapshotId, Stamps, Tree};
use self::root::{Root, Shown};
use crate::db::{Db, DriverLock, Keyed, LayerNumber, LayerRow, Pending, Reader, SnapshotRow, Swept, Writer};
use crate::error::{Context, Error, Result};
use crate::image::ChainId;
use crate::layer::{self, Changes, Form, Kinship, Touched};
use crate::sys;

pub struct Snapshots {
    db: Db,
    driver: Box<dyn Driver>,
    options: Options,
    /// What the roots of layers say: rows never change.
    roots: Mutex<HashMap<LayerNumber, Root>>,
    /// The store keeps this driver as long as we work with it.
    keeps: Mutex<Option<DriverLock>>,
    /// A thread writes to the disk beside what is going on.
    writes_out: AtomicBool,
}

/// The two trees that tell what a snapshot changes.
pub struct Compared {
    tree: OwnedFd,
    form: Form,
    parent: Option<View>,
    /// The tree holds the changes alone.
    delta: bool,
    /// What is not the same in both whole trees, where that is known.
    touched: Option<Touched>,
}

impl Compared {
    /// `settle`: see [`Changes::Upper`].
    pub fn changes(&self, settle: bool) -> Changes<'_> {
        let (tree, parent) = (self.tree.as_fd(), self.parent.as_ref().map(|view| view.root.as_fd()));
        match (&self.touched, parent) {
            _ if self.delta => Changes::Upper { upper: tree, form: self.form, parent, settle },
            (Some(touched), Some(parent)) => Changes::Touched { tree, parent, touched },
            _ => Changes::Trees { tree, parent },
        }
    }
}

/// A stack, mounted for reading where nobody sees it.
pub struct View {
    root: OwnedFd,
    /// Its last descriptor's end is the mount's.
    _mount: OwnedFd,
}

impl AsFd for View {
    /// The root directory, open for reading.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Snapshots {
    /// The snapshots of a store, by the driver that the store was made with; a new store takes the wanted
    /// one, or the first that works here, and keeps to it. `Conflict` where another one is wanted than it
    /// has.
    ///
    /// `said`: a new store keeps these options; where it has some, these go before them until it is closed.
    pub fn open(db: &Db, wanted: Option<&str>, said: &Options) -> Result<Snapshots> {
        let keeps = Mutex::new(Some(db.keep_driver()?));
        let (name, kept) = match db.read(of_store)? {
            Some(chosen) => chosen,
            None => {
                let selected = driver::select(&Setting { root: db.root(), options: said }, wanted)?;
                db.write(|writer| match of_store(writer)? {
                    // Another process made the choice meanwhile.
                    Some(chosen) => Ok(chosen),
                    None => {
                        writer.set_driver(selected.driver.name(), &said.pairs())?;
                        Ok((selected.driver.name().to_owned(), said.clone()))
                    }
                })?
            }
        };
        let options = said.over(&kept);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != name) {
            return Err(Error::conflict(format!(
                "the store {} keeps its layers with the driver `{name}`, not `{wanted}`",
                db.root().display()
            ))
            .hint(format!(
                "`outcrop system migrate --to {wanted}` moves it; a store of its own has another `--root`"
            )));
        }
        let driver = driver::open(&Setting { root: db.root(), options: &options }, &name)?;
        let writes_out = AtomicBool::default();
        let snapshots =
            Snapshots { db: db.clone(), driver, options, roots: Mutex::default(), keeps, writes_out };
        if db.read(|reader| reader.trees_may_be_lost())? {
            snapshots.remove_strays()?;
            db.write(|writer| writer.trees_checked())?;
        }
        Ok(snapshots)
    }

    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The same store with another driver, which is tried first; `options` are for it.
    pub fn other(&self, name: &str, options: &Options) -> Result<Snapshots> {
        let selected = driver::select(&Setting { root: self.db.root(), options }, Some(name))?;
        Ok(Snapshots {
            db: self.db.clone(),
            driver: selected.driver,
            options: options.clone(),
            roots: Mutex::default(),
            keeps: Mutex::default(),
            writes_out: AtomicBool::default(),
        })
    }

    /// Others may switch the store to another driver from now on: for whoever does it.
    pub fn let_go(&self) {
        *self.keeps.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What its driver was told.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What each driver says of this store's place.
    pub fn probe_all(&self) -> Vec<(&'static str, Result<String, String>)> {
        driver::probe_all(&Setting { root: self.db.root(), options: &self.options })
    }

    /// An own tree on a stack (`None`: on nothing), not yet changed.
    pub fn draft(&self, parent: Option<&ChainId>, purpose: Purpose) -> Result<Draft<'_>> {
        let doing = || match parent {
            Some(parent) => format!("making a layer's tree on {}", parent.short()),
            None => "making a layer's tree".to_owned(),
        };
        let shown = Cell::new(Shown::Uppermost);
        let stand = |reader: &Reader<'_>| {
            let (stack, shows) = self.stack_of(reader, parent)?;
            shown.set(shows);
            Ok(stack)
        };
        let draft = Draft::reserve(self, purpose, stand).context(doing)?;
        self.driver.create(draft.id(), draft.parents()).context(doing)?;
        self.begin_root(draft.id(), draft.parents(), shown.get()).context(doing)?;
        draft.made()
    }

    /// A draft that stands where `of` does and holds what it holds: a container's changes on their way to be
    /// a layer. Nothing writes to `of` meanwhile.
    pub fn copy(&self, of: SnapshotId, purpose: Purpose) -> Result<Draft<'_>> {
        let doing = || format!("copying snapshot {of}");
        let draft = Draft::reserve(self, purpose, |reader| reader.snapshot_parents(of)).context(doing)?;
        self.driver.copy(draft.id(), of).context(doing)?;
        draft.made()
    }

    /// A draft that was put aside.
    pub fn take_up(&self, parked: Parked) -> Draft<'_> {
        Draft::of(self, parked)
    }

    /// How to mount a stack for reading; of no layers, an empty directory.
    pub fn view(&self, chain: Option<&ChainId>) -> Result<Mount> {
        let (stack, shown) = self.db.read(|reader| self.stack_of(reader, chain))?;
        self.view_of(&stack, shown)
    }

    /// A stack, to be read by this process alone.
    pub fn open_view(&self, chain: Option<&ChainId>) -> Result<View> {
        open_view(&self.view(chain)?)
    }

    /// How to mount a container's tree. One mount at a time.
    pub fn mount(&self, id: SnapshotId) -> Result<Mount> {
        let parents = self.db.read(|reader| reader.snapshot_parents(id))?;
        self.driver.mount(id, &parents)
    }

    /// A container's tree, to be read by this process alone; nothing writes to it meanwhile.
    pub fn open_container(&self, id: SnapshotId) -> Result<View> {
        let mut stack = vec![id];
        if self.driver.shape() == Shape::Layered {
            stack.extend(self.db.read(|reader| reader.snapshot_parents(id))?);
        }
        open_view(&self.driver.view(&stack)?)
    }

    /// What to compare for what a container changed. Its mount may live; what is written meanwhile may be
    /// seen or not.
    pub fn compare(&self, id: SnapshotId) -> Result<Compared> {
        let parents = self.db.read(|reader| reader.snapshot_parents(id))?;
        self.compared(id, &parents)
    }

    fn compared(&self, id: SnapshotId, parents: &[SnapshotId]) -> Result<Compared> {
        let (tree, form, delta) = match self.driver.delta(id) {
            Some(delta) => (open_dir(&delta.dir)?, delta.form, true),
            None => {
                let tree = self.driver.tree(id)?;
                (tree.dir, tree.form, false)
            }
        };
        let parent = match parents {
            [] => None,
            parents => Some(open_view(&self.view_of(parents, self.shown_below(id)?)?)?),
        };
        let touched = match (parents, &parent) {
            ([below], Some(view)) if !delta => self.touched(id, *below, tree.as_fd(), view.as_fd())?,
            _ => None,
        };
        Ok(Compared { tree, form, parent, delta, touched })
    }

    /// What may differ between a whole tree and its parent's, where the filesystem or its stamps tell.
    fn touched(
        &self,
        id: SnapshotId,
        parent: SnapshotId,
        tree: BorrowedFd<'_>,
        below: BorrowedFd<'_>,
    ) -> Result<Option<Touched>> {
        if let Some(touched) = self.driver.touched(id, parent)? {
            return Ok(Some(touched));
        }
        let Some(stamps) = self.driver.stamps(id)? else { return Ok(None) };
        // A child is made once the row says that its parent is sealed; whatever copies of it hold was written later.
        let Some(row) = self.db.read(|reader| reader.snapshot(parent))? else { return Ok(None) };
        let kinship = Kinship { sealed: row.made_at.0, xattrs_move_ctime: stamps == Stamps::All };
        layer::compare(tree, below, kinship).map(Some)
    }

    /// The sealed snapshot that the top of a stack needs; `None`: the layer is known, and not unpacked.
    pub fn find(&self, chain: &ChainId) -> Result<Option<SnapshotId>> {
        self.db.read(|reader| {
            let Some(row) = reader.chain(chain)? else {
                return Ok(None);
            };
            reader.snapshot_of(self.driver.name(), self.keyed(chain, row.layer))
        })
    }

    /// The trees below a stack, nearest first, as the driver wants them.
    pub fn stack(&self, chain: Option<&ChainId>) -> Result<Vec<SnapshotId>> {
        Ok(self.db.read(|reader| self.stack_of(reader, chain))?.0)
    }

    /// Writes out the trees that are pending where they lie on other filesystems than the store's.
    pub fn elsewhere<'s>(
        &'s self,
        pending: &Pending,
    ) -> Result<Option<impl FnOnce() -> Result<()> + use<'s>>> {
        let mut of: HashMap<String, Vec<SnapshotId>> = HashMap::new();
        self.db.read(|reader| {
            for id in &pending.snapshots {
                // One whose row is gone is nobody's any more.
                if let Some(row) = reader.snapshot(*id)? {
                    of.entry(row.driver).or_default().push(*id);
                }
            }
            Ok(())
        })?;
        let mut elsewhere = Vec::new();
        for (name, ids) in of {
            // Another one while the store is on its way to it.
            let other = if name == self.driver.name() { None } else { Some(self.open_other(&name)?) };
            if other.as_deref().unwrap_or(&*self.driver).writes_elsewhere() {
                elsewhere.push((other, ids));
            }
        }
        let write_out = |(other, ids): &(Option<Box<dyn Driver>>, Vec<SnapshotId>)| {
            other.as_deref().unwrap_or(&*self.driver).sync(ids)
        };
        Ok((!elsewhere.is_empty()).then_some(move || elsewhere.iter().try_for_each(write_out)))
    }

    /// All that was written into these is on disk when it returns.
    pub fn write_out(&self, ids: &[SnapshotId]) -> Result<()> {
        self.db.write_out_with(self.driver.writes_elsewhere().then_some(|| self.driver.sync(ids)))
    }

    /// Removes what can go, with its trees (`Db::sweep`).
    pub fn sweep(&self) -> Result<Swept> {
        self.db.sweep(&|row| self.remove_tree(row))
    }

    /// The tree of a row that is going, whichever driver has it. Being gone is `Ok`.
    pub fn remove_tree(&self, row: &SnapshotRow) -> Result<()> {
        let remove = |driver: &dyn Driver| {
            driver.release(row.id)?;
            driver.remove(row.id)
        };
        match row.driver == self.driver.name() {
            true => remove(&*self.driver),
            false => remove(&*self.open_other(&row.driver)?),
        }
    }

    /// A driver that the store was moved from, or is on its way to, as it was told to work.
    fn open_other(&self, name: &str) -> Result<Box<dyn Driver>> {
        let options = Options::parse(&self.db.read(|reader| reader.options_of(name))?)?;
        driver::open(&Setting { root: self.db.root(), options: &options }, name)
    }

    /// After a power cut there may be trees whose rows it took, of the driver that the store is on its way to, too.
    pub fn remove_strays(&self) -> Result<()> {
        self.remove_strays_of(&*self.driver)?;
        let to = self.db.read(|reader| reader.migrating_to())?;
        if let Some(to) = to.filter(|to| to != self.driver.name())
            && let Err(problem) = self.open_other(&to).and_then(|other| self.remove_strays_of(&*other))
        {
            // What the store works with is in order: whoever goes on with the migration, or gives it up, is told.
            tracing::warn!("left for later: {problem}");
        }
        Ok(())
    }

    /// (The list is made first: a row stands before its tree.)
    fn remove_strays_of(&self, driver: &dyn Driver) -> Result<()> {
        let doing = || "comparing trees with rows after the last start of this machine";
        let trees = driver.list().context(doing)?;
        let rows = self.db.read(|reader| reader.snapshots()).context(doing)?;
        let known: HashSet<SnapshotId> = rows.iter().map(|row| row.id).collect();
        for stray in trees.into_iter().filter(|id| !known.contains(id)) {
            tracing::warn!(driver = driver.name(), id = stray.0, "removing a tree that no row knows");
            driver.remove(stray).context(doing)?;
        }
        Ok(())
    }

    fn keyed(&self, chain: &ChainId, layer: LayerNumber) -> Keyed {
        match self.driver.shape() {
            Shape::Layered => Keyed::Layer(layer),
            Shape::Stacked => Keyed::Chain(*chain),
        }
    }

    /// A layer's own files, where the driver keeps them apart and has them here.
    pub fn tree_of(&self, layer: LayerNumber) -> Result<Option<Tree>> {
        if self.driver.shape() == Shape::Stacked {
            return Ok(None);
        }
        let id = self.db.read(|reader| reader.snapshot_of(self.driver.name(), Keyed::Layer(layer)))?;
        id.map(|id| self.driver.tree(id)).transpose()
    }

    fn stack_of(&self, reader: &Reader<'_>, chain: Option<&ChainId>) -> Result<(Vec<SnapshotId>, Shown)> {
        let Some(chain) = chain else {
            return Ok((Vec::new(), Shown::Uppermost));
        };
        let missing = |what: String| {
            Error::not_found(format!("{what} has no tree of the driver `{}`", self.driver.name()))
                .hint("pull or build the image again")
        };
        let name = self.driver.name();
        match self.driver.shape() {
            Shape::Stacked => match reader.snapshot_of(name, Keyed::Chain(*chain))? {
                Some(id) => Ok((vec![id], Shown::Uppermost)),
                None => Err(missing(format!("the stack {}", chain.short()))),
            },
            Shape::Layered => {
                let tree = |layer: &LayerRow| {
                    let found = reader.snapshot_of(name, Keyed::Layer(layer.number))?;
                    found.ok_or_else(|| missing(format!("the layer {}", layer.diff_id.short())))
                };
                let all = reader.stack(Some(chain))?;
                let downwards = all.iter().rev().map(|layer| layer.number);
                let shown = self.shown(downwards, |layer| reader.snapshot_of(name, Keyed::Layer(layer)))?;
                Ok((self.needed(all)?.iter().map(tree).collect::<Result<_>>()?, shown))
            }
        }
    }

    /// Whose root shows below a snapshot.
    fn shown_below(&self, id: SnapshotId) -> Result<Shown> {
        match self.driver.shape() {
            Shape::Stacked => Ok(Shown::Uppermost),
            Shape::Layered => {
                let layers = self.db.read(|reader| reader.parent_layers(id))?;
                let tree =
                    |wanted| Ok(layers.iter().find(|(layer, _)| *layer == wanted).map(|(_, tree)| *tree));
                self.shown(layers.iter().map(|(layer, _)| *layer), tree)
            }
        }
    }

    /// The layers that show in a stack (given bottom first), nearest first. The kernel refuses a directory
    /// twice: the upper place of a layer decides, as it says all again that it said below. And it ignores a
    /// mark on a layer's root: what such a layer hides is left out.
    fn needed(&self, stack: Vec<LayerRow>) -> Result<Vec<LayerRow>> {
        let mut seen = HashSet::new();
        let mut needed = Vec::new();
        for layer in stack.into_iter().rev() {
            if !seen.insert(layer.number) {
                continue;
            }
            let ends = self.root_of(layer.number)?.opaque;
            needed.push(layer);
            if ends {
                break;
            }
        }
        Ok(needed)
    }

    /// Whether the layer's archive says anything of `/`.
    pub fn root_is_described(&self, layer: LayerNumber) -> Result<bool> {
        Ok(self.root_of(layer)?.described)
    }

    fn root_of(&self, layer: LayerNumber) -> Result<Root> {
        let roots = || self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = roots().get(&layer) {
            return Ok(*root);
        }
        let row = self.db.row(layer, b"")?;
        let root = Root {
            opaque: row.as_ref().is_some_and(|row| row.opaque),
            described: row.is_some_and(|row| !row.implied),
        };
        roots().insert(layer, root);
        Ok(root)
    }

    /// The stack of a layer that is here on `below`, and whether it is the first that the layer stands in. A tree that was
    /// sealed alone gets its root then: the barrier that makes the stack durable syncs the filesystem that it is on.
    pub fn stand(
        &self,
        writer: &Writer<'_>,
        below: Option<&ChainId>,
        layer: LayerNumber,
    ) -> Result<(ChainId, bool)> {
        let first = !writer.layer_stands(layer)?;
        let chain = writer.add_chain(below, layer)?;
        if let (true, Shape::Layered, Some(below)) = (first, self.driver.shape(), below)
            && let Some(id) = writer.snapshot_of(self.driver.name(), Keyed::Layer(layer))?
        {
            self.inherit_root(writer, id, layer, below)?;
        }
        Ok((chain, first))
    }
}

/// The storage driver that a store has chosen, and what it told it.
fn of_store(reader: &Reader<'_>) -> Result<Option<(String, Options)>> {
    let Some(name) = reader.driver()? else { return Ok(None) };
    Ok(Some((name, Options::parse(&reader.driver_options()?)?)))
}

fn open_view(mount: &Mount) -> Result<View> {
    let mount = sys::mount::detached(mount)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(&mount, c".", flags, Mode::empty()).context(|| "opening a stack of layers")?;
    Ok(View { root, _mount: mount })
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("opening {}", path.display()))
}
