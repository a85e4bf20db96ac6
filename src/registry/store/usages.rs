//! What became of exceptions, as sidecars recorded it: a file of its own, so that revocations never
//! wait for it (S14).

use std::{path::Path, time::Duration};

use sqlx::{
    QueryBuilder, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use crate::{
    domain::{Chained, ExceptionId, Hash, Span, SpoolId, Timestamp, UsageKind},
    engine::usage::Standing,
};

use super::{
    pool::pool,
    port::{Past, StoreError},
    sqlite::{count, number, wrong},
};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS spools (
  number    INTEGER PRIMARY KEY,
  sidecar   TEXT    NOT NULL,
  spool     BLOB    NOT NULL,
  -- The last record that came, and the chain up to it.
  received  INTEGER NOT NULL,
  digest    BLOB    NOT NULL,
  -- How many the sidecar said it wrote, and when it was last heard.
  told      INTEGER NOT NULL,
  heard     INTEGER NOT NULL,
  -- The sidecar's last start, and its last use since then that came.
  start     INTEGER NOT NULL,
  ordinal   INTEGER NOT NULL,
  -- What the ledger says of it.
  noted     INTEGER NOT NULL,
  UNIQUE (sidecar, spool)
) STRICT;
CREATE TABLE IF NOT EXISTS usage (
  spool      INTEGER NOT NULL REFERENCES spools (number),
  sequence   INTEGER NOT NULL,
  exception  TEXT    NOT NULL,
  kind       INTEGER NOT NULL,
  standing   INTEGER NOT NULL,
  time       INTEGER NOT NULL,
  count      INTEGER NOT NULL,
  dimension  TEXT,
  record     BLOB    NOT NULL,
  PRIMARY KEY (spool, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS usage_of ON usage (exception, kind, time);
CREATE TABLE IF NOT EXISTS gaps (
  spool   INTEGER NOT NULL REFERENCES spools (number),
  first   INTEGER NOT NULL,
  last    INTEGER NOT NULL,
  time    INTEGER NOT NULL,
  reason  TEXT    NOT NULL,
  -- The chain after them, where records follow.
  digest  BLOB,
  PRIMARY KEY (spool, first, reason)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

/// The second version: a decision is found by its moment, which its id carries.
const BY_TIME: &str = "\
CREATE INDEX usage_at ON usage (time);
PRAGMA user_version = 2;
";

/// The file of usage records.
#[derive(Clone, Debug)]
pub struct UsageFile {
    writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

/// A spool of a sidecar, as far as it has come here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSpool {
    /// Its number here.
    pub number: u64,
    /// Whose it is.
    pub sidecar: Box<str>,
    /// Which.
    pub spool: SpoolId,
    /// The last record that came.
    pub received: Chained,
    /// How many the sidecar said it wrote.
    pub told: u64,
    /// When it was last heard.
    pub heard: Timestamp,
    /// Its last start, and the last use since then that came.
    pub start: (u64, u64),
    /// What the ledger says of it.
    pub noted: u64,
}

/// Records that never came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The spool's number here.
    pub spool: u64,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// When that was seen.
    pub time: Timestamp,
    /// Why it is one.
    pub reason: Box<str>,
    /// The chain after them, where records follow.
    pub digest: Option<Hash>,
}

/// One record that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Its number in its spool.
    pub sequence: u64,
    /// The exception; empty where it cannot be read.
    pub exception: Box<str>,
    /// What became of it.
    pub kind: Option<UsageKind>,
    /// What it turned out to be.
    pub standing: Standing,
    /// When.
    pub time: Timestamp,
    /// For how many decisions it stands.
    pub count: u64,
    /// The dimension that did not match.
    pub dimension: Option<Box<str>>,
    /// The decision whose answer was not given, where it says so.
    pub withdraws: Option<Box<str>>,
    /// As it was written.
    pub record: Vec<u8>,
}

/// How often something became of an exception, and when first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// What.
    pub kind: UsageKind,
    /// What it turned out to be.
    pub standing: Standing,
    /// How often.
    pub count: u64,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
}

/// A record as it is kept: whose, which, and the row.
pub type KeptRow = (Box<str>, SpoolId, UsageRow);

fn bits(n: u64) -> i64 {
    i64::from_ne_bytes(n.to_ne_bytes())
}

fn kind_number(kind: Option<UsageKind>) -> i64 {
    kind.and_then(|kind| UsageKind::ALL.iter().position(|known| *known == kind))
        .and_then(|place| i64::try_from(place).ok())
        .map_or(0, |place| place.saturating_add(1))
}

pub(super) fn kind_of(n: i64) -> Option<UsageKind> {
    let place = usize::try_from(n).ok()?.checked_sub(1)?;
    UsageKind::ALL.get(place).copied()
}

fn standing_number(standing: Standing) -> i64 {
    let place = Standing::ALL.iter().position(|known| *known == standing);
    place
        .and_then(|place| i64::try_from(place).ok())
        .unwrap_or(0)
}

pub(super) fn standing_of(n: i64) -> Result<Standing, StoreError> {
    let place = usize::try_from(n).ok();
    let known = place.and_then(|place| Standing::ALL.get(place));
    known.copied().ok_or_else(|| wrong("an unknown standing"))
}

pub(super) fn spool_of(row: &SqliteRow, at: usize) -> Result<SpoolId, StoreError> {
    let id: Vec<u8> = row.try_get(at)?;
    SpoolId::from_slice(&id).ok_or_else(|| wrong("a spool without an id"))
}

async fn put_gaps(work: &mut SqliteConnection, gaps: &[Gap]) -> Result<(), StoreError> {
    for gap in gaps {
        sqlx::query("INSERT INTO gaps (spool, first, last, time, reason, digest) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (spool, first, reason) DO UPDATE SET last = max(last, excluded.last)")
            .bind(number(gap.spool))
            .bind(number(gap.first))
            .bind(number(gap.last))
            .bind(gap.time.micros())
            .bind(&*gap.reason)
        .bind(gap.digest.map(|digest| digest.to_vec()))
            .execute(&mut *work)
            .await?;
    }
    Ok(())
}

/// Rows of one statement.
const ROWS: usize = 100;

impl UsageFile {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, or was written by a later version.
    pub async fn open_file(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let writer = pool(1).connect_with(options.clone()).await?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&writer)
            .await?;
        let steps: &[&str] = match version {
            0 => &[TABLES, BY_TIME],
            1 => &[BY_TIME],
            2 => &[],
            found => return Err(StoreError::Newer { found, known: 2 }),
        };
        let mut work = writer.begin_with("BEGIN IMMEDIATE").await?;
        for step in steps {
            sqlx::raw_sql(*step).execute(&mut *work).await?;
        }
        work.commit().await?;
        let readers = pool(2).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers })
    }

    /// Copies the file as it is into a new one, while it goes on.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let name = to.to_str();
        let name = name.ok_or_else(|| StoreError::Failed("the file's name is no text".into()))?;
        sqlx::query("VACUUM INTO ?")
            .bind(name)
            .execute(&self.readers)
            .await?;
        Ok(())
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Every spool that was heard of.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn spools(&self) -> Past<KnownSpool> {
        let rows = sqlx::query("SELECT number, sidecar, spool, received, digest, told, heard, start, ordinal, noted FROM spools ORDER BY number")
            .fetch_all(&self.readers)
            .await?;
        let read = |row: &SqliteRow| {
            let (sidecar, digest): (String, Vec<u8>) = (row.try_get(1)?, row.try_get(4)?);
            let start: i64 = row.try_get(7)?;
            Ok(KnownSpool {
                number: count(row.try_get(0)?)?,
                sidecar: sidecar.into(),
                spool: spool_of(row, 2)?,
                received: Chained {
                    sequence: count(row.try_get(3)?)?,
                    digest: Hash::try_from(digest)
                        .map_err(|_| wrong("a digest of another length"))?,
                },
                told: count(row.try_get(5)?)?,
                heard: Timestamp::from_micros(row.try_get(6)?),
                start: (
                    u64::from_ne_bytes(start.to_ne_bytes()),
                    count(row.try_get(8)?)?,
                ),
                noted: count(row.try_get(9)?)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Keeps what came, in one transaction: how far each spool is, records, and gaps.
    ///
    /// # Errors
    ///
    /// A store that fails: then nothing is kept.
    pub async fn take(
        &self,
        spools: &[KnownSpool],
        rows: &[(u64, UsageRow)],
        gaps: &[Gap],
    ) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for spool in spools {
            sqlx::query("INSERT INTO spools (number, sidecar, spool, received, digest, told, heard, start, ordinal, noted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET received = excluded.received, digest = excluded.digest, told = excluded.told, heard = excluded.heard, start = excluded.start, ordinal = excluded.ordinal, noted = excluded.noted")
                .bind(number(spool.number))
                .bind(&*spool.sidecar)
                .bind(spool.spool.0.to_vec())
                .bind(number(spool.received.sequence))
                .bind(spool.received.digest.to_vec())
                .bind(number(spool.told))
                .bind(spool.heard.micros())
                .bind(bits(spool.start.0))
                .bind(number(spool.start.1))
                .bind(number(spool.noted))
                .execute(&mut *work)
                .await?;
        }
        for some in rows.chunks(ROWS) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO usage (spool, sequence, exception, kind, standing, time, count, dimension, record) ",
            );
            insert.push_values(some, |mut values, (spool, row)| {
                values
                    .push_bind(number(*spool))
                    .push_bind(number(row.sequence))
                    .push_bind(row.exception.to_string())
                    .push_bind(kind_number(row.kind))
                    .push_bind(standing_number(row.standing))
                    .push_bind(row.time.micros())
                    .push_bind(number(row.count))
                    .push_bind(row.dimension.as_deref().map(ToOwned::to_owned))
                    .push_bind(row.record.clone());
            });
            insert.build().execute(&mut *work).await?;
        }
        for (spool, row) in rows {
            let Some(decision) = &row.withdraws else {
                continue;
            };
            sqlx::query("UPDATE usage SET standing = ?1 WHERE spool = ?2 AND sequence < ?3 AND sequence >= ?3 - 10000 AND kind = ?4 AND exception = ?5 AND instr(record, CAST(?6 AS BLOB)) > 0")
                .bind(standing_number(Standing::Withdrawn))
                .bind(number(*spool))
                .bind(number(row.sequence))
                .bind(kind_number(Some(UsageKind::ReliedOn)))
                .bind(&*row.exception)
                .bind(&**decision)
                .execute(&mut *work)
                .await?;
        }
        put_gaps(&mut work, gaps).await?;
        Ok(work.commit().await?)
    }

    /// Every gap, oldest first.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn gaps(&self) -> Past<Gap> {
        let rows = sqlx::query(
            "SELECT spool, first, last, time, reason, digest FROM gaps ORDER BY time, spool, first",
        )
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &SqliteRow| {
            let (reason, digest): (String, Option<Vec<u8>>) = (row.try_get(4)?, row.try_get(5)?);
            Ok(Gap {
                spool: count(row.try_get(0)?)?,
                first: count(row.try_get(1)?)?,
                last: count(row.try_get(2)?)?,
                time: Timestamp::from_micros(row.try_get(3)?),
                reason: reason.into(),
                digest: digest.and_then(|digest| Hash::try_from(digest).ok()),
            })
        };
        rows.iter().map(read).collect()
    }

    /// The bytes of one record; nothing if it is not here.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn record(&self, spool: u64, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let found = sqlx::query_scalar("SELECT record FROM usage WHERE spool = ? AND sequence = ?")
            .bind(number(spool))
            .bind(number(sequence))
            .fetch_optional(&self.readers)
            .await?;
        Ok(found)
    }

    /// What became of an exception, counted.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn tallies(&self, exception: &ExceptionId) -> Past<Tally> {
        let rows = sqlx::query("SELECT kind, standing, sum(count), min(time), max(time) FROM usage WHERE exception = ? GROUP BY kind, standing")
            .bind(exception.as_str())
            .fetch_all(&self.readers)
            .await?;
        let read = |row: &SqliteRow| {
            let kind = kind_of(row.try_get(0)?).ok_or_else(|| wrong("an unknown use"))?;
            Ok(Tally {
                kind,
                standing: standing_of(row.try_get(1)?)?,
                count: count(row.try_get(2)?)?,
                first: Timestamp::from_micros(row.try_get(3)?),
                last: Timestamp::from_micros(row.try_get(4)?),
            })
        };
        rows.iter().map(read).collect()
    }

    /// At most `most` records of an exception that answers rest on: not those that were withdrawn,
    /// nor those of subjects that the sidecar does not stand for.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn relied(&self, exception: &ExceptionId, most: u32) -> Past<Vec<u8>> {
        let rows = sqlx::query_scalar("SELECT record FROM usage WHERE exception = ? AND kind = ? AND standing NOT IN (?, ?) LIMIT ?")
            .bind(exception.as_str())
            .bind(kind_number(Some(UsageKind::ReliedOn)))
            .bind(standing_number(Standing::Foreign))
            .bind(standing_number(Standing::Withdrawn))
            .bind(most)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows)
    }

    /// How often an exception was relied on after a time, and when last.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn relied_after(
        &self,
        exception: &ExceptionId,
        after: Timestamp,
    ) -> Result<(u64, Option<Timestamp>), StoreError> {
        let row = sqlx::query("SELECT coalesce(sum(count), 0), max(time) FROM usage WHERE exception = ? AND kind = ? AND time > ? AND standing NOT IN (?, ?)")
            .bind(exception.as_str())
            .bind(kind_number(Some(UsageKind::ReliedOn)))
            .bind(after.micros())
            .bind(standing_number(Standing::Foreign))
            .bind(standing_number(Standing::Withdrawn))
            .fetch_one(&self.readers)
            .await?;
        let last: Option<i64> = row.try_get(1)?;
        Ok((count(row.try_get(0)?)?, last.map(Timestamp::from_micros)))
    }

    /// Which dimensions an exception did not reach, and how often.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn missed(&self, exception: &ExceptionId) -> Past<(Box<str>, u64)> {
        let rows = sqlx::query("SELECT coalesce(dimension, ''), sum(count) FROM usage WHERE exception = ? AND kind = ? AND standing = ? GROUP BY dimension ORDER BY 2 DESC, 1")
            .bind(exception.as_str())
            .bind(kind_number(Some(UsageKind::OutOfScope)))
            .bind(standing_number(Standing::Unused))
            .fetch_all(&self.readers)
            .await?;
        let read = |row: &SqliteRow| {
            let dimension: String = row.try_get(0)?;
            Ok((dimension.into(), count(row.try_get(1)?)?))
        };
        rows.iter().map(read).collect()
    }

    /// The spools that hold records of an exception.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn spools_of(&self, exception: &ExceptionId) -> Past<u64> {
        let found: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT spool FROM usage WHERE exception = ? AND standing != ?",
        )
        .bind(exception.as_str())
        .bind(standing_number(Standing::Foreign))
        .fetch_all(&self.readers)
        .await?;
        found.into_iter().map(count).collect()
    }

    /// The exceptions that a spool holds records of.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn exceptions_of(&self, spool: u64) -> Past<Box<str>> {
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT exception FROM usage WHERE spool = ? AND standing != ?",
        )
        .bind(number(spool))
        .bind(standing_number(Standing::Foreign))
        .fetch_all(&self.readers)
        .await?;
        Ok(found.into_iter().map(Into::into).collect())
    }

    /// All uses, a day's in one row, as of the last of them, and attempts beyond the scope since a
    /// time; oldest first.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn recent(&self, since: Timestamp) -> Past<UsageRow> {
        let rows = sqlx::query("SELECT exception, kind, max(time), sum(count), standing FROM usage WHERE (kind = ?1 OR (kind = ?2 AND time > ?3) OR (kind = ?6 AND time > ?7)) AND standing NOT IN (?4, ?5) GROUP BY exception, kind, standing, CASE kind WHEN ?2 THEN time ELSE time / 86400000000 END ORDER BY 3")
            .bind(kind_number(Some(UsageKind::ReliedOn)))
            .bind(kind_number(Some(UsageKind::OutOfScope)))
            .bind(since.micros())
            .bind(standing_number(Standing::Foreign))
            .bind(standing_number(Standing::Withdrawn))
            .bind(kind_number(Some(UsageKind::NotNeeded)))
            .bind((since + Span::from_days(-29)).micros())
            .fetch_all(&self.readers)
            .await?;
        let read = |row: &SqliteRow| {
            let exception: String = row.try_get(0)?;
            Ok(UsageRow {
                sequence: 0,
                exception: exception.into(),
                kind: kind_of(row.try_get(1)?),
                standing: standing_of(row.try_get(4)?)?,
                time: Timestamp::from_micros(row.try_get(2)?),
                count: count(row.try_get(3)?)?,
                dimension: None,
                withdraws: None,
                record: Vec::new(),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Marks what is said of spools beside what came of them, and gaps.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn mark(&self, spools: &[KnownSpool], gaps: &[Gap]) -> Result<(), StoreError> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for spool in spools {
            sqlx::query("UPDATE spools SET told = ?, heard = ?, noted = ? WHERE number = ?")
                .bind(number(spool.told))
                .bind(spool.heard.micros())
                .bind(number(spool.noted))
                .bind(number(spool.number))
                .execute(&mut *work)
                .await?;
        }
        put_gaps(&mut work, gaps).await?;
        Ok(work.commit().await?)
    }
}
