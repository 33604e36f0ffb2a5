//! Digests made by a thread of their own, from buffers that several threads read at once.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::{Row, RowSink};
use crate::error::{Context, Error, Result};
use crate::image::{Digest, Hasher};

/// Bytes of one buffer: large enough that handing it on costs nothing beside hashing it.
pub(super) const BUFFER: usize = 256 << 10;
/// Files up to this size are hashed where they are read.
pub(super) const SMALL: u64 = 128 << 10;
/// Buffers on the way to one thread.
const AHEAD: usize = 8;

/// Part of a buffer.
#[derive(Clone)]
pub(super) struct Piece {
    buffer: Arc<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Piece {
    pub(super) fn new(buffer: &Arc<Vec<u8>>, start: usize, end: usize) -> Self {
        Piece { buffer: buffer.clone(), start, end }
    }
}

impl Deref for Piece {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

/// Buffers used again once nobody reads them: fresh ones would cost a page fault for every page.
#[derive(Default)]
pub(super) struct Pool(Vec<Arc<Vec<u8>>>);

impl Pool {
    /// A buffer that nobody else holds, of `BUFFER` bytes.
    pub(super) fn take(&mut self) -> Arc<Vec<u8>> {
        match self.0.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some()) {
            Some(at) => self.0.swap_remove(at),
            None => Arc::new(vec![0; BUFFER]),
        }
    }
    pub(super) fn give(&mut self, buffer: Arc<Vec<u8>>) {
        self.0.push(buffer);
    }
}

enum Message {
    Bytes(Piece),
    Zeros(u64),
    End,
}

/// A thread that hashes one stream after the other.
pub(super) struct Hashing {
    send: SyncSender<Message>,
    digests: Receiver<io::Result<Digest>>,
}

impl Hashing {
    /// `tee` gets the same bytes.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        tee: Option<&'scope mut (dyn Write + Send)>,
    ) -> Self {
        let (send, messages) = sync_channel(AHEAD);
        // As many results may wait as streams are short.
        let (results, digests) = std::sync::mpsc::channel();
        scope.spawn(move || {
            if let Err(error) = run(&messages, &results, tee) {
                // Nobody listens when the other side failed first.
                drop(results.send(Err(error)));
            }
        });
        Hashing { send, digests }
    }

    pub(super) fn bytes(&self, piece: Piece) -> Result<()> {
        self.message(Message::Bytes(piece))
    }
    pub(super) fn zeros(&self, count: u64) -> Result<()> {
        self.message(Message::Zeros(count))
    }
    pub(super) fn end(&self) -> Result<()> {
        self.message(Message::End)
    }
    fn message(&self, message: Message) -> Result<()> {
        match self.send.send(message) {
            Ok(()) => Ok(()),
            // The thread ended: its last word is why.
            Err(_gone) => loop {
                self.digest()?;
            },
        }
    }
    /// Of the oldest ended stream whose digest was not taken yet; waits for it.
    pub(super) fn digest(&self) -> Result<Digest> {
        match self.digests.recv() {
            Ok(result) => result.context(|| "handing on an archive"),
            Err(_gone) => Err(Error::internal("a hashing thread ended early")),
        }
    }
    fn ready(&self) -> Result<Option<Digest>> {
        match self.digests.try_recv() {
            Ok(result) => result.context(|| "handing on an archive").map(Some),
            Err(_none_yet) => Ok(None),
        }
    }
}

fn run(
    messages: &Receiver<Message>,
    results: &std::sync::mpsc::Sender<io::Result<Digest>>,
    mut tee: Option<&mut (dyn Write + Send)>,
) -> io::Result<()> {
    let zeros = vec![0; 64 << 10];
    let mut hasher = Hasher::new();
    let mut feed = |hasher: &mut Hasher, bytes: &[u8]| {
        hasher.update(bytes);
        tee.as_mut().map_or(Ok(()), |tee| tee.write_all(bytes))
    };
    while let Ok(message) = messages.recv() {
        match message {
            Message::Bytes(piece) => feed(&mut hasher, &piece)?,
            Message::Zeros(mut count) => {
                while count > 0 {
                    let part = zeros.len().min(usize::try_from(count).unwrap_or(usize::MAX));
                    feed(&mut hasher, &zeros[..part])?;
                    count -= part as u64;
                }
            }
            Message::End => {
                if results.send(Ok(std::mem::take(&mut hasher).finish())).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Rows on their way to the sink: one that waits for its digest holds up those behind it, so that their order stays.
pub(super) struct RowQueue<'a> {
    sink: &'a mut dyn RowSink,
    items: VecDeque<Item>,
}

enum Item {
    Row {
        row: Row,
        replace: bool,
        /// What to tell `learn` along with the digest, for a row that waits for one.
        waits: Option<u32>,
    },
    Forget(Vec<u8>),
}

impl<'a> RowQueue<'a> {
    /// Rows that may wait at once.
    const LIMIT: usize = 1024;

    pub(super) fn new(sink: &'a mut dyn RowSink) -> Self {
        RowQueue { sink, items: VecDeque::new() }
    }
    pub(super) fn row(&mut self, row: Row, replace: bool) -> Result<()> {
        self.push(Item::Row { row, replace, waits: None })
    }
    /// A row whose digest is the next one that `hashing` gives.
    pub(super) fn waiting(&mut self, row: Row, replace: bool, slot: u32) -> Result<()> {
        self.push(Item::Row { row, replace, waits: Some(slot) })
    }
    pub(super) fn forget(&mut self, path: &[u8]) -> Result<()> {
        self.push(Item::Forget(path.to_vec()))
    }
    fn push(&mut self, item: Item) -> Result<()> {
        let waits = matches!(item, Item::Row { waits: Some(_), .. });
        if self.items.is_empty() && !waits {
            return emit(self.sink, item);
        }
        self.items.push_back(item);
        Ok(())
    }
    /// Hands on what is ready; too many waiting ones are waited for.
    pub(super) fn advance(&mut self, hashing: &Hashing, learn: impl FnMut(u32, Digest)) -> Result<()> {
        let most = Self::LIMIT;
        self.hand_on(hashing, most, learn)
    }
    /// Hands on everything.
    pub(super) fn flush(&mut self, hashing: &Hashing, learn: impl FnMut(u32, Digest)) -> Result<()> {
        self.hand_on(hashing, 0, learn)
    }
    fn hand_on(&mut self, hashing: &Hashing, most: usize, mut learn: impl FnMut(u32, Digest)) -> Result<()> {
        while let Some(mut item) = self.items.pop_front() {
            if let Item::Row { row, waits: Some(slot), .. } = &mut item {
                let digest =
                    if self.items.len() >= most { Some(hashing.digest()?) } else { hashing.ready()? };
                let Some(digest) = digest else {
                    self.items.push_front(item);
                    return Ok(());
                };
                row.digest = Some(digest);
                learn(*slot, digest);
            }
            emit(self.sink, item)?;
        }
        Ok(())
    }
}

fn emit(sink: &mut dyn RowSink, item: Item) -> Result<()> {
    match item {
        Item::Row { row, replace: false, .. } => sink.row(row),
        Item::Row { row, replace: true, .. } => sink.replace(row),
        Item::Forget(path) => sink.forget(&path),
    }
}
