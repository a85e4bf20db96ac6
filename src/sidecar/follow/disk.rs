//! What was last known, on disk: the registry's messages as they were signed.
//!
//! Reading back is following a registry that nobody trusts: every signature and digest is checked
//! again, from the bytes on disk. Nothing here can make anything up.
//!
//! * `state`: a signed snapshot, its chunks, then signed deltas.
//! * `removals`: signed removals, in the order they came.
//! * `floor`: how far this sidecar ever was, in two places written in turn. Whatever is older, or
//!   lacks removals that were known, is refused (S1).
//! * `time`: the registry's time, in a heartbeat of it: no later start goes behind it (T1).
//! * `trust`: statements of key rotation.
//! * `starts`: the latest starts of this sidecar, so that the registry need not wait out what it
//!   answered to those before.
//! * `distrust`: two heartbeats that contradict each other; while it is there no exception is
//!   honoured (S12).

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    domain::Head,
    wire::{Message, decoded, encoded, signed::sha256, v1},
};

use super::floor::{Floor, SLOT, read_slot, write_slot};

/// Largest frame: a chunk with one object.
const MAX_FRAME: usize = 64 << 20;
/// Largest file that is read.
const MAX_FILE: u64 = 2 << 30;
/// Bytes of deltas after which a fresh snapshot is worth its transfer.
const MAX_TAIL: u64 = 64 << 20;

const SNAPSHOT: u8 = 1;
const CHUNK: u8 = 2;
const DELTA: u8 = 3;
const REMOVALS: u8 = 4;
const KEY: u8 = 5;
const HEARTBEAT: u8 = 6;

/// What a file holds, frame by frame.
#[derive(Debug)]
pub(super) enum Frame {
    Snapshot(v1::Signed),
    Chunk(v1::Chunk),
    Delta(v1::Signed),
    Removals(v1::Signed),
    Key(v1::Signed),
}

/// A file's frames, one by one. What follows the last that can be told apart is a write that was
/// cut, or damage.
#[derive(Debug)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    at: usize,
}

impl Frames {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next frame, and where it ends.
    pub(super) fn next(&mut self) -> Option<(Frame, u64)> {
        let (frame, taken) = parse(self.rest())?;
        self.at = self.at.saturating_add(taken);
        Some((frame, u64::try_from(self.at).unwrap_or(u64::MAX)))
    }

    /// Steps over a chunk without reading it; tells how many bytes it takes.
    pub(super) fn skip_chunk(&mut self) -> Option<usize> {
        let (kind, _, taken) = envelope(self.rest())?;
        self.at = self.at.saturating_add(taken);
        (kind == CHUNK).then_some(taken)
    }

    /// Begins again.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
    }

    /// Whether something unreadable follows.
    pub(super) fn is_cut(&self) -> bool {
        !self.rest().is_empty()
    }
}

/// Why the disk is of no use.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) error: io::Error,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

pub(super) fn at(what: &'static str) -> impl Fn(io::Error) -> Fault {
    move |error| Fault { what, error }
}

/// A file that is appended to. After a failure nothing more is written to it: what a failed sync
/// left on disk nobody knows.
#[derive(Debug)]
struct Journal {
    file: File,
    end: u64,
    broken: bool,
}

impl Journal {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        let written = self
            .file
            .write_all_at(bytes, self.end)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.end = self.end.saturating_add(size(bytes));
                Ok(())
            }
            Err(error) => {
                self.broken = true;
                Err(error)
            }
        }
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The data folder, held by one process.
#[derive(Debug)]
pub(in crate::sidecar) struct Disk {
    folder: PathBuf,
    pub(super) lock: File,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Option<(Journal, u64)>,
    removals: Option<Journal>,
    floor: File,
    turn: u64,
    last: Option<Floor>,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    file: io::BufWriter<File>,
    path: PathBuf,
    bytes: u64,
}

fn frame(kind: u8, message: &impl Message) -> Vec<u8> {
    let body = encoded(message);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(body.len().saturating_add(5));
    bytes.extend(length.to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

impl Draft {
    pub(super) fn chunk(&mut self, chunk: &v1::Chunk) -> Result<(), Fault> {
        self.write(&frame(CHUNK, chunk))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(size(bytes));
        self.file.write_all(bytes).map_err(at("state.new"))
    }
}

impl Disk {
    /// Takes hold of the folder; made if it is not there, readable by its owner alone.
    pub(in crate::sidecar) fn hold(folder: &Path) -> Result<Self, String> {
        let wrong = |error: io::Error| format!("{}: {error}", folder.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(wrong)?;
        let open = |name: &str| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(folder.join(name))
                .map_err(wrong)
        };
        let lock = open("lock")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("{}: another sidecar uses this folder", folder.display()))?;
        let floor = open("floor")?;
        // A snapshot that was cut is of no use; mostly there is none.
        let _ = std::fs::remove_file(folder.join("state.new"));
        Ok(Self {
            folder: folder.to_owned(),
            lock,
            inner: Mutex::new(Inner {
                state: None,
                removals: None,
                floor,
                turn: 0,
                last: None,
            }),
        })
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        match File::open(self.folder.join(name)) {
            Ok(file) => {
                let length = file.metadata().map_err(at("a file's size"))?.len();
                if length > MAX_FILE {
                    let error = io::Error::other("the file is larger than any that was written");
                    return Err(at("state")(error));
                }
                let mut file = file;
                file.read_to_end(&mut bytes).map_err(at("reading back"))?;
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
            Err(error) => Err(at("reading back")(error)),
        }
    }

    /// The snapshot and deltas.
    pub(super) fn state(&self) -> Result<Frames, Fault> {
        Ok(Frames {
            bytes: self.bytes("state")?,
            at: 0,
        })
    }

    /// The removals, and whether something unreadable follows.
    pub(super) fn removals(&self) -> Result<(Vec<(Frame, u64)>, bool), Fault> {
        self.all("removals")
    }

    /// The frames of a file that can be told apart, and where each ends; whether something
    /// unreadable follows.
    fn all(&self, name: &str) -> Result<(Vec<(Frame, u64)>, bool), Fault> {
        let mut frames = Frames {
            bytes: self.bytes(name)?,
            at: 0,
        };
        let mut all = Vec::new();
        while let Some(frame) = frames.next() {
            all.push(frame);
        }
        Ok((all, frames.is_cut()))
    }

    /// The statements of key rotation. They follow a digest of all of them: one that is not believed
    /// may be of keys from before the pin, and one that was damaged is told apart from it.
    pub(super) fn keys(&self) -> Result<Vec<v1::Signed>, Fault> {
        let damaged = || at("trust")(io::Error::other("it is damaged"));
        let bytes = self.bytes("trust")?;
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let whole = bytes.split_first_chunk::<32>();
        let body = whole.filter(|(digest, body)| sha256(body) == **digest);
        // Without the digest each still proves itself; damage would be in one of them.
        let body = body.map_or(&*bytes, |(_, body)| body);
        let mut frames = Frames {
            bytes: body.to_vec(),
            at: 0,
        };
        let mut keys = Vec::new();
        while let Some((frame, _)) = frames.next() {
            let Frame::Key(signed) = frame else {
                return Err(damaged());
            };
            keys.push(signed);
        }
        if frames.is_cut() {
            return Err(damaged());
        }
        Ok(keys)
    }

    /// Keeps the statements of key rotation.
    pub(super) fn keep_keys(&self, keys: &[v1::Signed]) -> Result<(), Fault> {
        let body: Vec<u8> = keys.iter().flat_map(|key| frame(KEY, key)).collect();
        let mut bytes = sha256(&body).to_vec();
        bytes.extend(body);
        self.put("trust", &bytes).map_err(at("trust"))
    }

    /// The last heartbeat that was kept.
    pub(super) fn heartbeat(&self) -> Result<Option<v1::Signed>, Fault> {
        let bytes = self.bytes("time")?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let damaged = || at("time")(io::Error::other("it is damaged"));
        let (kind, body, _) = envelope(&bytes).ok_or_else(damaged)?;
        let signed = (kind == HEARTBEAT).then(|| decoded(body).ok()).flatten();
        signed.map(Some).ok_or_else(damaged)
    }

    /// Keeps a heartbeat, in place of the one before.
    pub(super) fn keep_heartbeat(&self, signed: &v1::Signed) -> Result<(), Fault> {
        self.put("time", &frame(HEARTBEAT, signed))
            .map_err(at("time"))
    }

    /// Keeps two heartbeats that contradict each other.
    pub(super) fn keep_proof(&self, heartbeats: &[v1::Signed]) -> Result<(), Fault> {
        let frames = heartbeats.iter().flat_map(|beat| frame(HEARTBEAT, beat));
        let bytes: Vec<u8> = frames.collect();
        self.put("distrust", &bytes).map_err(at("distrust"))
    }

    /// Whether the registry was seen to tell two histories. What is in the file is for people: that
    /// it is there is enough.
    pub(super) fn distrusts(&self) -> bool {
        self.folder.join("distrust").try_exists().unwrap_or(true)
    }

    /// Puts a whole file in the place of another.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.folder.join(format!("{name}.new"));
        let mut file = create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&path, self.folder.join(name))?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Goes on appending to the state after its first `end` bytes, of which the snapshot has
    /// `snapshot`; what lies beyond is cut off.
    pub(super) fn resume_state(&self, end: u64, snapshot: u64) -> Result<(), Fault> {
        let journal = resume(&self.folder.join("state"), end).map_err(at("state"))?;
        self.inner().state = Some((journal, snapshot));
        Ok(())
    }

    /// Goes on appending to the removals after their first `end` bytes.
    pub(super) fn resume_removals(&self, end: u64) -> Result<(), Fault> {
        let journal = resume(&self.folder.join("removals"), end).map_err(at("removals"))?;
        self.inner().removals = Some(journal);
        Ok(())
    }

    /// Keeps a damaged file beside the one that goes on: another key may yet make sense of it.
    pub(super) fn set_aside(&self, name: &str) {
        let aside = self.folder.join(format!("{name}.damaged"));
        // What cannot be kept is lost as it was.
        let _ = std::fs::copy(self.folder.join(name), aside);
    }

    /// Begins a snapshot beside the present one.
    pub(super) fn draft(&self, signed: &v1::Signed) -> Result<Draft, Fault> {
        let path = self.folder.join("state.new");
        let mut draft = Draft {
            file: io::BufWriter::with_capacity(1 << 20, create(&path).map_err(at("state.new"))?),
            path,
            bytes: 0,
        };
        draft.write(&frame(SNAPSHOT, signed))?;
        Ok(draft)
    }

    /// Gives up a snapshot that was begun, so that it does not fill the disk.
    pub(super) fn discard(&self) {
        // Mostly there is none.
        let _ = std::fs::remove_file(self.folder.join("state.new"));
    }

    /// Puts a whole snapshot in the place of the present state; durable when it returns.
    pub(super) fn replace(&self, draft: Draft) -> Result<(), Fault> {
        let Draft { file, path, bytes } = draft;
        let file = file
            .into_inner()
            .map_err(|error| at("state")(error.into_error()))?;
        file.sync_all().map_err(at("state"))?;
        // The journal that was is not written to any more, whatever comes of this.
        self.inner().state = None;
        std::fs::rename(&path, self.folder.join("state")).map_err(at("state"))?;
        self.sync_folder().map_err(at("state"))?;
        let journal = Journal {
            file,
            end: bytes,
            broken: false,
        };
        self.inner().state = Some((journal, bytes));
        Ok(())
    }

    /// Appends a delta; durable when it returns. Tells whether a fresh snapshot is due.
    pub(super) fn delta(&self, signed: &v1::Signed) -> Result<bool, Fault> {
        let mut inner = self.inner();
        let (journal, snapshot) = inner
            .state
            .as_mut()
            .ok_or_else(|| at("state")(io::Error::other("there is no snapshot to append to")))?;
        journal.append(&frame(DELTA, signed)).map_err(at("state"))?;
        let tail = journal.end.saturating_sub(*snapshot);
        Ok(tail > MAX_TAIL.max(snapshot.saturating_mul(2)))
    }

    /// Appends removals; durable when it returns.
    pub(super) fn removed(&self, signed: &v1::Signed) -> Result<(), Fault> {
        let mut inner = self.inner();
        let journal = inner
            .removals
            .as_mut()
            .ok_or_else(|| at("removals")(io::Error::other("the file could not be read")))?;
        if journal.broken {
            // Cut back to what is known to be whole, in a file that has never failed.
            *journal =
                resume(&self.folder.join("removals"), journal.end).map_err(at("removals"))?;
        }
        journal
            .append(&frame(REMOVALS, signed))
            .map_err(at("removals"))
    }

    /// How far this sidecar ever was; nothing if it never was anywhere, `Err` if that is lost. And
    /// whether one of the two places is damaged: the other is a step behind at the most.
    pub(super) fn floor(&self) -> Result<(Option<Floor>, bool), Fault> {
        let mut inner = self.inner();
        let mut best: Option<(u64, Floor)> = None;
        let mut damaged = 0;
        for slot in 0..2_u64 {
            let mut bytes = [0; SLOT];
            match inner
                .floor
                .read_exact_at(&mut bytes, slot.saturating_mul(512))
            {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(at("floor")(error)),
            }
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            match read_slot(&bytes) {
                Some((turn, floor)) if best.is_none_or(|(known, _)| known < turn) => {
                    best = Some((turn, floor));
                }
                Some(_) => {}
                None => damaged += 1,
            }
        }
        match best {
            Some((turn, floor)) => {
                inner.turn = turn;
                inner.last = Some(floor);
                Ok((Some(floor), damaged > 0))
            }
            None if damaged > 0 => Err(at("floor")(io::Error::other("both places are damaged"))),
            None => Ok((None, false)),
        }
    }

    /// Raises the floor; durable when it returns.
    pub(super) fn raise(&self, floor: &Floor) -> Result<(), Fault> {
        let mut inner = self.inner();
        // Two write it, each what it knows best: neither takes the other's back.
        let known = inner.last.filter(|last| last.era == floor.era);
        let floor = &known.map_or(*floor, |last| Floor {
            era: floor.era,
            head: Head {
                revision: last.head.revision.max(floor.head.revision),
                sequence: last.head.sequence.max(floor.head.sequence),
            },
        });
        let turn = inner.turn.saturating_add(1);
        let place = (turn & 1).saturating_mul(512);
        inner
            .floor
            .write_all_at(&write_slot(turn, floor), place)
            .and_then(|()| inner.floor.sync_data())
            .map_err(at("floor"))?;
        inner.turn = turn;
        inner.last = Some(*floor);
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .read(true)
        .mode(0o600)
        .open(path)
}

fn resume(path: &Path, end: u64) -> io::Result<Journal> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_len(end)?;
    file.sync_all()?;
    Ok(Journal {
        file,
        end,
        broken: false,
    })
}

/// The first frame of some bytes, unread: its kind, its body, and how many bytes it takes.
fn envelope(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if length > MAX_FRAME {
        return None;
    }
    Some((*kind, rest.get(..length)?, length.saturating_add(5)))
}

/// The first frame of some bytes and how many it took.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (kind, body, taken) = envelope(bytes)?;
    let frame = match kind {
        SNAPSHOT => Frame::Snapshot(decoded(body).ok()?),
        CHUNK => Frame::Chunk(decoded(body).ok()?),
        DELTA => Frame::Delta(decoded(body).ok()?),
        REMOVALS => Frame::Removals(decoded(body).ok()?),
        KEY => Frame::Key(decoded(body).ok()?),
        _ => return None,
    };
    Some((frame, taken))
}
