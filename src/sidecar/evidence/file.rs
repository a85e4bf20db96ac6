//! The spool's file: SQLite, write-ahead log, every commit synced. A group of records is a row.

use std::{
    collections::HashMap,
    fs::{DirBuilder, File as OsFile, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::TryStreamExt;
use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use crate::{
    domain::{Chained, ExceptionId, Hash, SpoolId, Timestamp},
    engine::usage::chained,
    wire::{decoded, encoded, signed::random, v1},
};

/// Most spools beside each other: sidecars of one folder on one machine.
const BESIDE: u32 = 64;
/// Uses are counted over so many microseconds.
const BUCKET: i64 = 300_000_000;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS spool (
  id            BLOB    NOT NULL,
  -- Everything up to this is kept elsewhere, or gone; with the chain up to there.
  dropped       INTEGER NOT NULL,
  digest        BLOB    NOT NULL,
  -- Times it was tried whether anything can be written.
  probes        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS groups (
  last     INTEGER PRIMARY KEY,
  count    INTEGER NOT NULL,
  -- The chain after the last of them.
  digest   BLOB    NOT NULL,
  records  BLOB    NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS spent (
  exception  TEXT    NOT NULL,
  bucket     INTEGER NOT NULL,
  uses       INTEGER NOT NULL,
  PRIMARY KEY (exception, bucket)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) enum Keeping {
    /// Until the registry has them.
    UntilTaken,
    /// As long as there is room: nobody collects them.
    Newest,
}

/// Why there is no spool, or none any more.
#[derive(Debug)]
pub(super) struct Wrong(String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<&str> for Wrong {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<sqlx::Error> for Wrong {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

/// A folder's spool, held against other processes.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    _lock: OsFile,
}

impl Place {
    /// The first spool of a folder that nobody else holds; where records are collected it is always
    /// the same one.
    pub(super) fn hold(folder: &Path, keeping: Keeping) -> Result<Self, Wrong> {
        let wrong = |error: std::io::Error| Wrong(format!("{}: {error}", folder.display()));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(wrong)?;
        let most = match keeping {
            Keeping::UntilTaken => 1,
            Keeping::Newest => BESIDE,
        };
        for beside in 0..most {
            let name = match beside {
                0 => "evidence".to_owned(),
                more => format!("evidence-{more}"),
            };
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(folder.join(format!("{name}.lock")))
                .map_err(wrong)?;
            let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            if rustix::fs::flock(&lock, exclusive).is_ok() {
                return Ok(Self {
                    path: folder.join(format!("{name}.db")),
                    _lock: lock,
                });
            }
        }
        let why = "another process writes records here";
        Err(format!("{}: {why}", folder.display()).into())
    }
}

/// An open spool.
#[derive(Debug)]
pub(super) struct File {
    writer: SqliteConnection,
    pub(super) id: SpoolId,
    /// What was written last.
    pub(super) end: Chained,
    /// Bytes of records that are kept.
    pub(super) bytes: u64,
    /// How many they are.
    pub(super) records: u64,
    /// What was found broken and left out: a range of records.
    pub(super) broken: Vec<(u64, u64)>,
}

/// Uses that were counted: of each exception in all, and lately, by when.
pub(super) type Spent = HashMap<ExceptionId, Vec<(Timestamp, u64)>>;

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn count(row: &SqliteRow, at: usize) -> Result<u64, Wrong> {
    let n: i64 = row.try_get(at)?;
    u64::try_from(n).map_err(|_| "a negative number".into())
}

fn hash(row: &SqliteRow, at: usize) -> Result<Hash, Wrong> {
    let bytes: Vec<u8> = row.try_get(at)?;
    Hash::try_from(bytes).map_err(|_| "a digest of another length".into())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // Another connection copies the log back beside the commits, in passing.
        .pragma("wal_autocheckpoint", "16384")
        .pragma("journal_size_limit", "16777216")
        .busy_timeout(Duration::from_secs(5))
}

/// Opens a spool and holds every record against its chain. A file that is none is put aside, and a
/// new one begun: what was in it is missed by whoever counts.
pub(super) async fn open(place: &Place) -> Result<File, Wrong> {
    match read(&place.path).await {
        Ok(file) => Ok(file),
        Err(Opening::Broken(why)) => {
            let aside = put_aside(&place.path)?;
            tracing::error!(%why, kept = %aside.display(), "the spool of usage records is broken and put aside; a new one is begun, and the registry will miss what was not reported");
            let (Opening::Broken(why) | Opening::Failed(why)) = match read(&place.path).await {
                Ok(file) => return Ok(file),
                Err(wrong) => wrong,
            };
            Err(why)
        }
        Err(Opening::Failed(why)) => Err(why),
    }
}

/// Why a file did not open.
enum Opening {
    /// It holds something else than a spool.
    Broken(Wrong),
    /// The disk, or the folder, is not as it has to be.
    Failed(Wrong),
}

/// Whether an error says that the file is damaged: `SQLITE_CORRUPT` or `SQLITE_NOTADB`.
fn is_damage(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    let code = database.and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| [11, 26].contains(&(code & 0xff)))
}

impl From<sqlx::Error> for Opening {
    fn from(error: sqlx::Error) -> Self {
        if is_damage(&error) {
            Self::Broken(error.into())
        } else {
            Self::Failed(error.into())
        }
    }
}

/// Moves a broken file out of the way.
fn put_aside(path: &Path) -> Result<PathBuf, Wrong> {
    let wrong = |error: std::io::Error| Wrong(format!("{}: {error}", path.display()));
    let free = (1_u32..1_000).map(|n| path.with_extension(format!("broken-{n}")));
    let mut free = free.filter(|path| !path.try_exists().unwrap_or(true));
    let aside = free
        .next()
        .ok_or("there are a thousand broken spools; look at them, and remove them")?;
    std::fs::rename(path, &aside).map_err(wrong)?;
    for beside in ["db-wal", "db-shm"] {
        let beside = path.with_extension(beside);
        if beside.try_exists().unwrap_or(true) {
            std::fs::remove_file(&beside).map_err(wrong)?;
        }
    }
    Ok(aside)
}

async fn read(path: &Path) -> Result<File, Opening> {
    let broken = |why: Wrong| Opening::Broken(why);
    let mut writer = SqliteConnection::connect_with(&options(path)).await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut writer)
        .await?;
    match version {
        0 => {
            let id = random::<16>().map_err(|why| Opening::Failed(why.into()))?;
            let mut work = writer.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::raw_sql(TABLES).execute(&mut *work).await?;
            sqlx::query("INSERT INTO spool (id, dropped, digest) VALUES (?, 0, ?)")
                .bind(id.to_vec())
                .bind(Hash::default().to_vec())
                .execute(&mut *work)
                .await?;
            work.commit().await?;
        }
        1 => {}
        newer => {
            let why = format!(
                "{}: written by a later version ({newer}); use the newer program",
                path.display()
            );
            return Err(Opening::Failed(why.into()));
        }
    }
    let row = sqlx::query("SELECT id, dropped, digest FROM spool")
        .fetch_one(&mut writer)
        .await?;
    let id: Vec<u8> = row.try_get(0)?;
    let id = SpoolId::from_slice(&id).ok_or_else(|| broken("no id".into()))?;
    let begin = Chained {
        sequence: count(&row, 1).map_err(broken)?,
        digest: hash(&row, 2).map_err(broken)?,
    };
    let mut file = File {
        writer,
        id,
        end: begin,
        bytes: 0,
        records: 0,
        broken: Vec::new(),
    };
    file.check(begin).await?;
    Ok(file)
}

/// Where groups are kept that were found damaged.
const QUARANTINE: &str = "CREATE TABLE IF NOT EXISTS damaged (last INTEGER NOT NULL, count INTEGER NOT NULL, digest BLOB NOT NULL, records BLOB NOT NULL)";

impl File {
    /// Reads every group and holds it against the chain. One that does not fit is put aside: the
    /// numbers it had stay unused, and are missed.
    async fn check(&mut self, begin: Chained) -> Result<(), Opening> {
        let mut at = begin;
        let mut unfit = Vec::new();
        {
            let mut rows =
                sqlx::query("SELECT last, count, digest, records FROM groups ORDER BY last")
                    .fetch(&mut self.writer);
            while let Some(row) = rows.try_next().await? {
                let (last, held) = (
                    count(&row, 0).map_err(Opening::Broken)?,
                    count(&row, 1).map_err(Opening::Broken)?,
                );
                let told = hash(&row, 2).map_err(Opening::Broken)?;
                if held == 0 {
                    // It was found broken before.
                    at = Chained {
                        sequence: last,
                        digest: told,
                    };
                    continue;
                }
                let bytes: Vec<u8> = row.try_get(3)?;
                let records = decoded::<v1::UsageBatch>(&bytes)
                    .unwrap_or_default()
                    .records;
                let after = records.iter().fold(at, |at, record| chained(at, record));
                let whole =
                    after.sequence == last && after.digest == told && records.len() as u64 == held;
                if whole {
                    self.bytes = self.bytes.saturating_add(bytes.len() as u64);
                    self.records = self.records.saturating_add(held);
                } else {
                    unfit.push((at.sequence.saturating_add(1), last));
                }
                // The chain goes on as it was told: what follows is proven by itself.
                at = Chained {
                    sequence: last,
                    digest: told,
                };
            }
        }
        for (_, last) in &unfit {
            // As it was found, for whoever looks into it, if there is room.
            let copied = async {
                sqlx::raw_sql(QUARANTINE).execute(&mut self.writer).await?;
                sqlx::query("INSERT INTO damaged SELECT last, count, digest, records FROM groups WHERE last = ?")
                    .bind(number(*last))
                    .execute(&mut self.writer)
                    .await
            };
            if let Err(error) = copied.await {
                tracing::warn!(%error, last, "damaged usage records cannot be put aside");
            }
            sqlx::query("UPDATE groups SET count = 0, records = x'' WHERE last = ?")
                .bind(number(*last))
                .execute(&mut self.writer)
                .await?;
        }
        self.end = at;
        self.broken = unfit;
        Ok(())
    }

    /// Appends records, in one synced commit; with those that are counted here, how often.
    pub(super) async fn append(
        &mut self,
        records: Vec<Vec<u8>>,
        spent: &[(ExceptionId, Timestamp)],
    ) -> Result<(), Wrong> {
        let held = records.len() as u64;
        let end = records
            .iter()
            .fold(self.end, |at, record| chained(at, record));
        let bytes = encoded(&v1::UsageBatch {
            records,
            ..v1::UsageBatch::default()
        });
        let length = bytes.len() as u64;
        let insert =
            sqlx::query("INSERT INTO groups (last, count, digest, records) VALUES (?, ?, ?, ?)")
                .bind(number(end.sequence))
                .bind(number(held))
                .bind(end.digest.to_vec())
                .bind(bytes);
        if spent.is_empty() {
            insert.execute(&mut self.writer).await?;
        } else {
            let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            insert.execute(&mut *work).await?;
            for (exception, time) in spent {
                sqlx::query("INSERT INTO spent (exception, bucket, uses) VALUES (?, ?, 1) ON CONFLICT (exception, bucket) DO UPDATE SET uses = uses + 1")
                    .bind(exception.as_str())
                    .bind(time.micros().div_euclid(BUCKET))
                    .execute(&mut *work)
                    .await?;
            }
            work.commit().await?;
        }
        self.end = end;
        self.bytes = self.bytes.saturating_add(length);
        self.records = self.records.saturating_add(held);
        Ok(())
    }

    /// What was appended beyond what is known to be: a commit that was said to have failed, and is
    /// there. Nobody was answered on the strength of it.
    pub(super) async fn forget_beyond(&mut self, end: Chained) -> Result<(), Wrong> {
        let beyond =
            sqlx::query("DELETE FROM groups WHERE last > ? RETURNING length(records), count")
                .bind(number(end.sequence))
                .fetch_all(&mut self.writer)
                .await?;
        for row in &beyond {
            self.bytes = self.bytes.saturating_sub(count(row, 0)?);
            self.records = self.records.saturating_sub(count(row, 1)?);
        }
        self.end = end;
        Ok(())
    }

    /// Writes something that nobody reads, and waits until it is durable.
    pub(super) async fn probe(&mut self) -> Result<(), Wrong> {
        sqlx::query("UPDATE spool SET probes = probes + 1")
            .execute(&mut self.writer)
            .await?;
        Ok(())
    }

    /// The oldest records without a gap, up to so many bytes, and one group at least; nothing if
    /// there are none.
    pub(super) async fn oldest(&mut self, bytes: usize) -> Result<Option<v1::UsageBatch>, Wrong> {
        let spool_id = self.id.0.to_vec();
        let mut rows = sqlx::query("SELECT last, count, digest, records FROM groups ORDER BY last")
            .fetch(&mut self.writer);
        let mut batch: Option<v1::UsageBatch> = None;
        let (mut taken, mut end) = (0_usize, 0_u64);
        while let Some(row) = rows.try_next().await? {
            let (last, held) = (count(&row, 0)?, count(&row, 1)?);
            if held == 0 {
                // What is missing is told by what comes after it.
                if batch.is_some() {
                    break;
                }
                continue;
            }
            let read: Vec<u8> = row.try_get(3)?;
            let first = last.saturating_sub(held);
            taken = taken.saturating_add(read.len());
            let full = taken > bytes || batch.as_ref().is_some_and(|b| b.records.len() >= RECORDS);
            if batch.is_some() && (full || first != end) {
                break;
            }
            let more = decoded::<v1::UsageBatch>(&read)?.records;
            let told = batch.get_or_insert_with(|| v1::UsageBatch {
                spool_id: spool_id.clone(),
                after: first,
                ..v1::UsageBatch::default()
            });
            told.records.extend(more);
            end = last;
        }
        drop(rows);
        if let Some(batch) = &mut batch {
            batch.digest_before = self.digest_at(batch.after).await?.to_vec();
        }
        Ok(batch)
    }

    async fn digest_at(&mut self, sequence: u64) -> Result<Hash, Wrong> {
        let row = sqlx::query("SELECT digest FROM (SELECT last, digest FROM groups UNION ALL SELECT dropped, digest FROM spool) WHERE last = ?")
            .bind(number(sequence))
            .fetch_optional(&mut self.writer)
            .await?;
        // What was before a gap is not known; nobody takes it for what it is not.
        row.map_or(Ok(Hash::default()), |row| hash(&row, 0))
    }

    /// Drops everything up to a record: it is kept elsewhere.
    pub(super) async fn drop_through(&mut self, sequence: u64) -> Result<(), Wrong> {
        let mut work = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE spool SET (dropped, digest) = (SELECT last, digest FROM groups WHERE last <= ?1 ORDER BY last DESC LIMIT 1) WHERE EXISTS (SELECT 1 FROM groups WHERE last <= ?1)")
            .bind(number(sequence))
            .execute(&mut *work)
            .await?;
        let gone = sqlx::query(
            "SELECT coalesce(sum(length(records)), 0), coalesce(sum(count), 0) FROM groups WHERE last <= ?",
        )
        .bind(number(sequence))
        .fetch_one(&mut *work)
        .await?;
        sqlx::query("DELETE FROM groups WHERE last <= ?")
            .bind(number(sequence))
            .execute(&mut *work)
            .await?;
        work.commit().await?;
        self.bytes = self.bytes.saturating_sub(count(&gone, 0)?);
        self.records = self.records.saturating_sub(count(&gone, 1)?);
        Ok(())
    }

    /// Drops the oldest records until no more than so many bytes are left; tells how many.
    pub(super) async fn drop_oldest(&mut self, most: u64) -> Result<u64, Wrong> {
        let excess = self.bytes.saturating_sub(most);
        if excess == 0 {
            return Ok(0);
        }
        let rows = sqlx::query("SELECT last, length(records), count FROM groups ORDER BY last")
            .fetch_all(&mut self.writer)
            .await?;
        let (mut freed, mut through, mut dropped) = (0_u64, 0, 0_u64);
        for row in &rows {
            if freed >= excess {
                break;
            }
            through = count(row, 0)?;
            freed = freed.saturating_add(count(row, 1)?);
            dropped = dropped.saturating_add(count(row, 2)?);
        }
        self.drop_through(through).await?;
        Ok(dropped)
    }

    /// How often exceptions were used, as counted here.
    pub(super) async fn spent(&mut self) -> Result<Spent, Wrong> {
        let rows = sqlx::query("SELECT exception, bucket, uses FROM spent ORDER BY bucket")
            .fetch_all(&mut self.writer)
            .await?;
        let mut spent = Spent::new();
        for row in &rows {
            let exception: String = row.try_get(0)?;
            let bucket: i64 = row.try_get(1)?;
            let Ok(exception) = ExceptionId::parse(&exception) else {
                continue;
            };
            // At the bucket's end: what was used counts for no less long than it should.
            let at = bucket.saturating_add(1).saturating_mul(BUCKET);
            spent
                .entry(exception)
                .or_default()
                .push((Timestamp::from_micros(at), count(row, 2)?));
        }
        Ok(spent)
    }

    /// Closes it; what is committed stays.
    pub(super) async fn close(self) {
        let _ = self.writer.close().await;
    }
}

/// Most records sent at once.
const RECORDS: usize = 3_900;

/// Copies the write-ahead log back beside the commits, so that none of them has to.
pub(super) async fn copy_back(path: &Path) -> Result<(), Wrong> {
    let mut beside =
        SqliteConnection::connect_with(&options(path).create_if_missing(false)).await?;
    sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(&mut beside)
        .await?;
    Ok(beside.close().await?)
}
