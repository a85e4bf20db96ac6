//! What every store does, and what may go wrong.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    domain::{
        ControlId, Era, Hash, Head, Leaf, Name, Node, Notice, Observed, Removal, Run, Timestamp,
        Transaction,
    },
    engine::{attendance::Start, follow::Beginning},
};

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The transaction does not follow on the log's head: somebody else was first.
    Conflict {
        /// The head as it is.
        head: Head,
    },
    /// The data was written by a later version.
    Newer {
        /// The version of the data.
        found: i64,
        /// The last version that is understood.
        known: i64,
    },
    /// The store is broken or gone; the text is for the log.
    Failed(String),
    /// There is no room for it.
    Full(String),
}

impl StoreError {
    /// What may keep the next change from being written as well.
    pub(in crate::registry) fn lasting(&self) -> Option<Box<str>> {
        match self {
            Self::Failed(why) | Self::Full(why) => Some(why.as_str().into()),
            Self::Conflict { .. } | Self::Newer { .. } => None,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { head } => write!(
                f,
                "the log has gone on to revision {} in the meantime",
                head.revision
            ),
            Self::Newer { found, known } => write!(
                f,
                "the data is of version {found}, and this program knows versions up to {known}; use the newer program"
            ),
            Self::Failed(why) => write!(f, "the store failed: {why}"),
            Self::Full(why) => write!(f, "the store's disk is full: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// An object with the transaction that made it what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which.
    pub name: Name,
    /// Its own revision.
    pub revision: u64,
    /// Its manifest; nothing once it is removed.
    pub manifest: Option<Arc<str>>,
    /// The transaction.
    pub log_revision: u64,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub principal: Box<str>,
}

/// A start of a sidecar: whose, which, and since when it fences the one before, if it does.
pub type Begun = (Box<str>, Start, Option<Timestamp>);

/// What a registry is: its log, and why it may not go on, if it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How the present epoch began.
    pub beginning: Beginning,
    /// The head.
    pub head: Head,
    /// The time of the last transaction.
    pub time: Timestamp,
    /// Whether the log has yet to enter its ledger: it is older.
    pub unentered: bool,
    /// Whether this is a copy that was made for safety, and not the registry that went on.
    pub copied: bool,
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// A SPIFFE id, or the name of who has the token.
    pub identity: Box<str>,
    /// The role's name.
    pub role: Box<str>,
    /// Of a sidecar: which subjects and domains.
    pub scope: Box<str>,
    /// SHA-256 of the token, if there is one.
    pub token: Option<[u8; 32]>,
}

impl Access {
    /// Whether what this is keeps its name from becoming `other`: a sidecar, also one that is shut
    /// out, may honour what it was answered until its lease is over, and receipts wait for its name.
    pub fn bars(&self, other: &Self) -> bool {
        self.identity == other.identity && !self.scope.is_empty() && other.scope.is_empty()
    }
}

/// Something that is told elsewhere, under an id that stays the same however often it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The id.
    pub id: Box<str>,
    /// What.
    pub notice: Notice,
}

/// An event that came from elsewhere, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who sent it.
    pub issuer: Box<str>,
    /// Its id there.
    pub id: Box<str>,
    /// When it came.
    pub time: Timestamp,
    /// What was done.
    pub done: Box<str>,
}

/// What is kept with a transaction: its leaf, and the subtrees of the ledger that are whole with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The leaf.
    pub leaf: Leaf,
    /// The leaf's own digest first.
    pub whole: Vec<(Node, Hash)>,
    /// Whose past manifests are erased with it, for good, and the salts that would prove a guess.
    pub erases: Option<Name>,
    /// Whether it takes something back: then it is written on a full disk too.
    pub urgent: bool,
    /// What is told elsewhere.
    pub told: Vec<Told>,
    /// The event that asked for it, if one did: it counts once.
    pub heard: Option<Heard>,
}

/// A row of the log as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// What was done; what was erased of it has no manifest.
    pub transaction: Transaction,
    /// In which epoch.
    pub epoch: u64,
    /// Its leaf; nothing where the log is older than the ledger.
    pub leaf: Option<Leaf>,
    /// Which of its edits were erased, by place.
    pub erased: Vec<usize>,
    /// The subtrees that are whole with its leaf, as they are kept.
    pub whole: Vec<(Node, Hash)>,
}

/// How many digests of one facet, as one sidecar saw them, are kept.
pub(super) const OBSERVED: u32 = 16;

/// How many runs of a control are kept.
pub(super) const RUNS: u32 = 1_000;

/// A page of what was.
pub type Past<T> = Result<Vec<T>, StoreError>;

/// A log of transactions and what it amounts to.
///
/// A transaction is durable, whole, once [`Store::commit`] returns, and not at all if it fails.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What the registry is; `fresh` where there is none yet.
    async fn open(&self, fresh: Era) -> Result<Kept, StoreError>;
    /// The head, read anew.
    async fn head(&self) -> Result<Head, StoreError>;
    /// Appends a transaction, if it follows on the head.
    /// With it goes its leaf.
    async fn commit(&self, transaction: &Transaction, sealed: &Sealed) -> Result<(), StoreError>;
    /// Every object there is or was.
    async fn objects(&self) -> Past<Stored>;
    /// Every removal after a sequence, in order.
    async fn removals(&self, after: u64) -> Past<Removal>;
    /// What an object was, newest first, before a transaction.
    async fn history(&self, name: &Name, before: u64, most: usize) -> Past<Stored>;
    /// The log after a revision, in order.
    async fn transactions(&self, after: u64, most: usize) -> Past<Transaction>;
    /// Begins an epoch at `base`, which is beyond the head.
    async fn begin(
        &self,
        beginning: &Beginning,
        time: Timestamp,
        sealed: &Sealed,
    ) -> Result<(), StoreError>;
    /// The log after a revision with its leaves, in order; fewer where they are large.
    async fn entered(&self, after: u64, most: usize) -> Past<Entered>;
    /// Keeps the leaves of a log that is older than the ledger, all of them, and what is signed
    /// about them.
    async fn enter(&self, rows: &[(u64, Sealed)], note: &str) -> Result<(), StoreError>;
    /// The revision of a leaf; nothing if there is none.
    async fn revision_at(&self, position: u64) -> Result<Option<u64>, StoreError>;
    /// Digests of whole subtrees, as asked; what is not there is an error.
    async fn nodes(&self, wanted: &[Node]) -> Past<Hash>;
    /// Keeps what was signed about the first `size` leaves; signed again, that is kept.
    async fn keep_checkpoint(&self, size: u64, note: &str) -> Result<(), StoreError>;
    /// What was last signed, and about how many leaves.
    async fn checkpoint(&self) -> Result<Option<(u64, Box<str>)>, StoreError>;
    /// Keeps what a sidecar saw; told twice, it is kept once. Of one facet a sidecar's latest
    /// [`OBSERVED`] are kept.
    async fn observe(&self, sidecar: &str, observed: &[Observed]) -> Result<(), StoreError>;
    /// What sidecars saw of a subject, and which, latest first.
    async fn observed(&self, subject: &str) -> Past<(Observed, Box<str>)>;
    /// Keeps how a control ran; of each its latest [`RUNS`] are kept.
    async fn keep_run(&self, run: &Run) -> Result<(), StoreError>;
    /// How a control ran lately, latest first.
    async fn runs(&self, control: &ControlId, most: u32) -> Past<Run>;
    /// When each control that ran by itself was last due.
    async fn last_due(&self) -> Past<(ControlId, Timestamp)>;
    /// Who may do what.
    async fn access(&self) -> Past<Access>;
    /// Lets somebody in; tells whether that is done. Who is or was a sidecar becomes nothing else:
    /// what it was answered is owed for under its name.
    async fn grant(&self, access: &Access) -> Result<bool, StoreError>;
    /// Shuts somebody out, who is remembered as expelled; tells whether they were in.
    async fn expel(&self, identity: &str) -> Result<bool, StoreError>;
    /// Notes that a start of a sidecar attends, before it is told anything, and since when the one
    /// before it is fenced, if it may still run. Of each the latest
    /// [`STARTS`](crate::engine::attendance::STARTS) are kept.
    async fn attend(
        &self,
        identity: &str,
        start: &Start,
        fencing: Option<Timestamp>,
    ) -> Result<(), StoreError>;
    /// The starts of every sidecar, in the order they came.
    async fn starts(&self) -> Past<Begun>;
    /// Sidecars that ever attended, by name; of a copy that went on, everybody let in.
    async fn attended(&self) -> Past<Box<str>>;
    /// Statements of key rotation, oldest first.
    async fn keys(&self) -> Past<Vec<u8>>;
    /// Keeps a statement of key rotation.
    async fn keep_key(&self, statement: &[u8]) -> Result<(), StoreError>;
}
