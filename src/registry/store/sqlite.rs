//! SQLite: one file, write-ahead log, every commit synced.

use std::{
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use sqlx::{
    Row, SqlitePool,
    error::DatabaseError,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use crate::{
    domain::{
        Act, Cause, ControlId, Digest, Era, Facet, Hash, Head, Kind, LogId, Name, Node, Observed,
        Removal, Run, SubjectId, Target, Timestamp, Transaction,
    },
    engine::{attendance::Start, follow::Beginning},
};

use super::{
    access, attended, leaves, log, outbox,
    people::People,
    pool::pool,
    port::{Access, Begun, Entered, Kept, OBSERVED, Past, Sealed, Store, StoreError, Stored},
    reserve::Reserve,
    runs,
};

/// Each version's step from the one before, and the statement that notes it.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        include_str!("migrations/0001.sql"),
        "PRAGMA user_version = 1",
    ),
    (
        include_str!("migrations/0002.sql"),
        "PRAGMA user_version = 2",
    ),
    (
        include_str!("migrations/0003.sql"),
        "PRAGMA user_version = 3",
    ),
    (
        include_str!("migrations/0004.sql"),
        "PRAGMA user_version = 4",
    ),
    (
        include_str!("migrations/0005.sql"),
        "PRAGMA user_version = 5",
    ),
    (
        include_str!("migrations/0006.sql"),
        "PRAGMA user_version = 6",
    ),
    (
        include_str!("migrations/0007.sql"),
        "PRAGMA user_version = 7",
    ),
    (
        include_str!("migrations/0008.sql"),
        "PRAGMA user_version = 8",
    ),
    (
        include_str!("migrations/0009.sql"),
        "PRAGMA user_version = 9",
    ),
];

/// A registry's file.
#[derive(Clone, Debug)]
pub struct Sqlite {
    /// One connection: writes take turns anyway.
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
    /// What removals are written with when the disk is full.
    reserve: Option<Reserve>,
}

/// What starts of sidecars leave of the space that is kept for removals, in bytes.
const STARTS_LEAVE: u64 = 4 << 20;
/// `SQLITE_FULL`, and `SQLITE_IOERR_SHMSIZE`: the index of the write-ahead log could not grow.
const FULL: [&str; 2] = ["13", "4874"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        if code.is_some_and(|code| FULL.contains(&&*code)) {
            Self::Full(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

pub(super) fn wrong(what: &str) -> StoreError {
    StoreError::Failed(format!("the data holds {what}"))
}

pub(super) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn count(n: i64) -> Result<u64, StoreError> {
    u64::try_from(n).map_err(|_| wrong("a negative number"))
}

impl Sqlite {
    /// Opens the file, makes it if it is not there, and brings it up to date.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, is no registry, or was written by a later version.
    pub async fn open_file(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is erased is overwritten.
            .pragma("secure_delete", "ON")
            .busy_timeout(std::time::Duration::from_secs(5));
        let writer = pool(1).connect_with(options.clone()).await?;
        migrate(&writer).await?;
        let readers = pool(4).connect_with(options.read_only(true)).await?;
        Ok(Self {
            writer,
            readers,
            reserve: None,
        })
    }

    /// The same, with space that is kept in a file beside it for what is taken back: on a full disk it
    /// begins with that.
    ///
    /// # Errors
    ///
    /// As of [`open_file`](Self::open_file).
    pub async fn open_with_reserve(path: &Path, file: PathBuf) -> Result<Self, StoreError> {
        let reserve = Reserve::at(file);
        reserve.begin().await;
        let opened = loop {
            let opened = Self::open_file(path).await;
            let full = matches!(opened, Err(StoreError::Full(_)));
            if !full || !reserve.begin_with_more().await {
                break opened?;
            }
        };
        // What was erased right before a crash does not stay.
        log::overwrite(&opened.writer).await;
        Ok(Self {
            reserve: Some(reserve),
            ..opened
        })
    }

    /// Keeps that space, as much as there is room for.
    pub async fn keep_reserve(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.fill().await;
        }
    }

    /// Writes what takes something back, or what has to be written before somebody hears of that, on a
    /// full disk too.
    async fn surely<T: Send, F: Future<Output = Result<T, StoreError>> + Send>(
        &self,
        floor: u64,
        write: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError> {
        match (write().await, &self.reserve) {
            (Err(StoreError::Full(_)), Some(reserve)) => reserve.with(floor, write).await,
            (written, _) => {
                self.keep_reserve().await;
                written
            }
        }
    }

    /// Copies the registry as it is into a new file, while it goes on. The copy knows that it is
    /// one: a registry that begins with it is read-only until it is recovered.
    ///
    /// # Errors
    ///
    /// A file that is there already or cannot be written.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        if to.try_exists().unwrap_or(true) {
            return Err(StoreError::Failed(format!(
                "{} is there already",
                to.display()
            )));
        }
        let Some(name) = to.to_str() else {
            return Err(StoreError::Failed("the file's name is no text".into()));
        };
        // It holds what passwords can be guessed from.
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .map_err(|error| StoreError::Failed(format!("{}: {error}", to.display())))?;
        sqlx::query("VACUUM INTO ?")
            .bind(name)
            .execute(&self.readers)
            .await?;
        let copy = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(SqliteConnectOptions::new().filename(to))
            .await?;
        // Who has signed out since is not signed in again by putting it back.
        sqlx::raw_sql("UPDATE registry SET copied = 1; DELETE FROM sessions")
            .execute(&copy)
            .await?;
        copy.close().await;
        std::fs::File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// What is told elsewhere.
    pub fn outbox(&self) -> outbox::Outbox {
        outbox::Outbox {
            writer: self.writer.clone(),
            readers: self.readers.clone(),
        }
    }

    /// Who has signed in, or may.
    pub fn people(&self) -> People {
        People {
            writer: self.writer.clone(),
            readers: self.readers.clone(),
        }
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(pool)
        .await?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for (step, note) in MIGRATIONS.iter().skip(done) {
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        sqlx::raw_sql(*note).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}

pub(super) const HEAD: &str = "SELECT coalesce(max(revision), 0), (SELECT coalesce(max(sequence), 0) FROM removals), coalesce((SELECT time FROM log ORDER BY revision DESC LIMIT 1), 0) FROM log";

pub(super) fn head_of(row: &SqliteRow) -> Result<Head, StoreError> {
    Ok(Head {
        revision: count(row.try_get(0)?)?,
        sequence: count(row.try_get(1)?)?,
    })
}

pub(super) fn name_of(row: &SqliteRow, from: usize) -> Result<Name, StoreError> {
    let kind: i64 = row.try_get(from)?;
    let kind = u8::try_from(kind).ok().and_then(Kind::of_number);
    let id: String = row.try_get(from.saturating_add(1))?;
    Ok(Name {
        kind: kind.ok_or_else(|| wrong("an unknown kind"))?,
        id: id.into(),
    })
}

fn stored_of(row: &SqliteRow) -> Result<Stored, StoreError> {
    let manifest: Option<String> = row.try_get(3)?;
    let principal: String = row.try_get(6)?;
    Ok(Stored {
        name: name_of(row, 0)?,
        revision: count(row.try_get(2)?)?,
        manifest: manifest.map(Arc::from),
        log_revision: count(row.try_get(4)?)?,
        time: Timestamp::from_micros(row.try_get(5)?),
        principal: principal.into(),
    })
}

pub(super) fn removal_of(row: &SqliteRow) -> Result<Removal, StoreError> {
    let text = |at: usize| row.try_get::<String, _>(at);
    let act = text(1)?;
    let act = Act::ALL.into_iter().find(|known| known.name() == act);
    Ok(Removal {
        sequence: count(row.try_get(0)?)?,
        act: act.ok_or_else(|| wrong("an unknown act"))?,
        target: Target::parse(&text(2)?, &text(3)?).map_err(|_| wrong("an unknown target"))?,
        cause: Cause::parse(&text(4)?).map_err(|_| wrong("an unknown cause"))?,
        note: text(5)?.into(),
        initiator: text(6)?.into(),
        time: Timestamp::from_micros(row.try_get(7)?),
    })
}

#[async_trait]
impl Store for Sqlite {
    async fn open(&self, fresh: Era) -> Result<Kept, StoreError> {
        sqlx::query("INSERT INTO registry (one, log_id, epoch, base_revision, base_sequence) VALUES (1, ?, ?, 0, 0) ON CONFLICT DO NOTHING")
            .bind(fresh.log.0.to_vec())
            .bind(number(fresh.epoch))
            .execute(&self.writer)
            .await?;
        let row = sqlx::query(
            "SELECT log_id, epoch, base_revision, base_sequence, copied, entered FROM registry",
        )
        .fetch_one(&self.writer)
        .await?;
        let log = LogId::from_slice(&row.try_get::<Vec<u8>, _>(0)?);
        let head = sqlx::query(HEAD).fetch_one(&self.writer).await?;
        Ok(Kept {
            beginning: Beginning {
                era: Era {
                    log: log.ok_or_else(|| wrong("a log id of another length"))?,
                    epoch: count(row.try_get(1)?)?,
                },
                base: Head {
                    revision: count(row.try_get(2)?)?,
                    sequence: count(row.try_get(3)?)?,
                },
            },
            head: head_of(&head)?,
            time: Timestamp::from_micros(head.try_get(2)?),
            copied: row.try_get::<i64, _>(4)? != 0,
            unentered: row.try_get::<i64, _>(5)? == 0,
        })
    }

    async fn head(&self) -> Result<Head, StoreError> {
        head_of(&sqlx::query(HEAD).fetch_one(&self.readers).await?)
    }

    async fn commit(&self, transaction: &Transaction, sealed: &Sealed) -> Result<(), StoreError> {
        let write = || log::commit(&self.writer, transaction, sealed);
        if sealed.urgent {
            self.surely(0, write).await?;
        } else {
            write().await?;
            // There may be room again.
            self.keep_reserve().await;
        }
        // It is committed by now, whatever becomes of the rest.
        if sealed.erases.is_some() {
            log::overwrite(&self.writer).await;
        }
        Ok(())
    }

    async fn objects(&self) -> Past<Stored> {
        let rows = sqlx::query("SELECT o.kind, o.id, o.object_revision, o.manifest, o.revision, l.time, l.principal FROM objects o JOIN log l USING (revision) ORDER BY o.kind, o.id")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(stored_of).collect()
    }

    async fn removals(&self, after: u64) -> Past<Removal> {
        let rows = sqlx::query("SELECT sequence, act, target_kind, target_id, cause, note, initiator, time FROM removals WHERE sequence > ? ORDER BY sequence")
            .bind(number(after))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(removal_of).collect()
    }

    async fn history(&self, name: &Name, before: u64, most: usize) -> Past<Stored> {
        let rows = sqlx::query("SELECT e.kind, e.id, e.object_revision, e.manifest, e.revision, l.time, l.principal FROM edits e JOIN log l USING (revision) WHERE e.kind = ? AND e.id = ? AND e.revision < ? ORDER BY e.revision DESC LIMIT ?")
            .bind(i64::from(name.kind.number()))
            .bind(&*name.id)
            .bind(number(before))
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(stored_of).collect()
    }

    async fn transactions(&self, after: u64, most: usize) -> Past<Transaction> {
        let entered = leaves::entered(&self.readers, after, most).await?;
        Ok(entered.into_iter().map(|one| one.transaction).collect())
    }

    async fn entered(&self, after: u64, most: usize) -> Past<Entered> {
        leaves::entered(&self.readers, after, most).await
    }

    async fn enter(&self, rows: &[(u64, Sealed)], note: &str) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (revision, sealed) in rows {
            leaves::enter(&mut work, *revision, sealed).await?;
        }
        sqlx::query("INSERT INTO checkpoints (size, note) VALUES (?, ?)")
            .bind(i64::try_from(rows.len()).unwrap_or(i64::MAX))
            .bind(note)
            .execute(&mut *work)
            .await?;
        sqlx::query("UPDATE registry SET entered = 1")
            .execute(&mut *work)
            .await?;
        work.commit().await?;
        Ok(())
    }

    async fn revision_at(&self, position: u64) -> Result<Option<u64>, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT revision FROM leaves WHERE position = ?")
                .bind(number(position))
                .fetch_optional(&self.readers)
                .await?;
        found.map(count).transpose()
    }

    async fn nodes(&self, wanted: &[Node]) -> Past<Hash> {
        leaves::nodes(&self.readers, wanted).await
    }

    async fn keep_checkpoint(&self, size: u64, note: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO checkpoints (size, note) VALUES (?, ?) ON CONFLICT (size) DO UPDATE SET note = excluded.note")
            .bind(number(size))
            .bind(note)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    async fn checkpoint(&self) -> Result<Option<(u64, Box<str>)>, StoreError> {
        let row = sqlx::query("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        let read = |row: SqliteRow| {
            let note: String = row.try_get(1)?;
            Ok((count(row.try_get(0)?)?, note.into()))
        };
        row.map(read).transpose()
    }

    async fn begin(
        &self,
        beginning: &Beginning,
        time: Timestamp,
        sealed: &Sealed,
    ) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let head = head_of(&sqlx::query(HEAD).fetch_one(&mut *work).await?)?;
        if head.revision >= beginning.base.revision || head.sequence > beginning.base.sequence {
            return Err(StoreError::Conflict { head });
        }
        sqlx::query(
            "UPDATE registry SET epoch = ?, base_revision = ?, base_sequence = ?, copied = 0",
        )
        .bind(number(beginning.era.epoch))
        .bind(number(beginning.base.revision))
        .bind(number(beginning.base.sequence))
        .execute(&mut *work)
        .await?;
        sqlx::query("INSERT INTO log (revision, epoch, time, principal, action) VALUES (?, ?, ?, 'registry', 'recover')")
            .bind(number(beginning.base.revision))
            .bind(number(beginning.era.epoch))
            .bind(time.micros())
            .execute(&mut *work)
            .await?;
        leaves::enter(&mut work, beginning.base.revision, sealed).await?;
        attended::unknown_since(&mut work, time).await?;
        work.commit().await?;
        Ok(())
    }

    async fn observe(&self, sidecar: &str, observed: &[Observed]) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for one in observed {
            sqlx::query("INSERT INTO observed (subject, facet, digest, sidecar, first, last) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)")
                .bind(one.subject.as_str())
                .bind(one.facet.name())
                .bind(one.digest.as_str())
                .bind(sidecar)
                .bind(one.first.micros())
                .bind(one.last.micros())
                .execute(&mut *work)
                .await?;
            sqlx::query("DELETE FROM observed WHERE subject = ?1 AND facet = ?2 AND sidecar = ?3 AND digest NOT IN (SELECT digest FROM observed WHERE subject = ?1 AND facet = ?2 AND sidecar = ?3 ORDER BY last DESC, digest LIMIT ?4)")
                .bind(one.subject.as_str())
                .bind(one.facet.name())
                .bind(sidecar)
                .bind(OBSERVED)
                .execute(&mut *work)
                .await?;
        }
        work.commit().await?;
        Ok(())
    }

    async fn observed(&self, subject: &str) -> Past<(Observed, Box<str>)> {
        let rows = sqlx::query("SELECT subject, facet, digest, first, last, sidecar FROM observed WHERE subject = ? ORDER BY last DESC, facet, digest, sidecar")
            .bind(subject)
            .fetch_all(&self.readers)
            .await?;
        let observed_of = |row: &SqliteRow| {
            let text = |at: usize| row.try_get::<String, _>(at);
            let unread = |_| wrong("an observation that cannot be read");
            let observed = Observed {
                subject: SubjectId::parse(&text(0)?).map_err(unread)?,
                facet: Facet::parse(&text(1)?).map_err(unread)?,
                digest: Digest::parse(&text(2)?).map_err(unread)?,
                first: Timestamp::from_micros(row.try_get(3)?),
                last: Timestamp::from_micros(row.try_get(4)?),
            };
            Ok((observed, text(5)?.into()))
        };
        rows.iter().map(observed_of).collect()
    }

    async fn keep_run(&self, run: &Run) -> Result<(), StoreError> {
        runs::keep(&self.writer, run).await
    }

    async fn runs(&self, control: &ControlId, most: u32) -> Past<Run> {
        runs::latest(&self.readers, control, most).await
    }

    async fn last_due(&self) -> Past<(ControlId, Timestamp)> {
        runs::last_due(&self.readers).await
    }

    async fn access(&self) -> Past<Access> {
        access::all(&self.readers).await
    }

    async fn grant(&self, access: &Access) -> Result<bool, StoreError> {
        access::grant(&self.writer, access).await
    }

    async fn expel(&self, identity: &str) -> Result<bool, StoreError> {
        self.surely(0, || access::expel(&self.writer, identity))
            .await
    }

    async fn attend(
        &self,
        identity: &str,
        start: &Start,
        fencing: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        self.surely(STARTS_LEAVE, || {
            attended::attend(&self.writer, identity, start, fencing)
        })
        .await
    }

    async fn starts(&self) -> Past<Begun> {
        attended::starts(&self.readers).await
    }

    async fn attended(&self) -> Past<Box<str>> {
        attended::names(&self.readers).await
    }

    async fn keys(&self) -> Past<Vec<u8>> {
        Ok(
            sqlx::query_scalar("SELECT statement FROM keys ORDER BY place")
                .fetch_all(&self.readers)
                .await?,
        )
    }

    async fn keep_key(&self, statement: &[u8]) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO keys (statement) VALUES (?)")
            .bind(statement)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
