//! Usage records as they are kept, read back.

use sqlx::{Row as _, sqlite::SqliteRow};

use crate::domain::{ExceptionId, Timestamp};

use super::{
    port::Past,
    sqlite::{count, number},
    usages::{KeptRow, UsageFile, UsageRow, kind_of, spool_of, standing_of},
};

/// A record, by time, spool and number.
type Place = (i64, i64, i64);

/// What a record is read from.
macro_rules! kept {
    ($rest:literal) => {
        concat!(
            "SELECT s.sidecar, s.spool, u.sequence, u.kind, u.standing, u.time, u.count, \
             u.dimension, u.record, u.exception, u.spool \
             FROM usage u JOIN spools s ON s.number = u.spool ",
            $rest
        )
    };
}

fn read(row: &SqliteRow) -> Result<(KeptRow, Place), super::StoreError> {
    let (sidecar, dimension): (String, Option<String>) = (row.try_get(0)?, row.try_get(7)?);
    let (sequence, time): (i64, i64) = (row.try_get(2)?, row.try_get(5)?);
    let exception: String = row.try_get(9)?;
    let kept = UsageRow {
        sequence: count(sequence)?,
        exception: exception.into(),
        kind: kind_of(row.try_get(3)?),
        standing: standing_of(row.try_get(4)?)?,
        time: Timestamp::from_micros(time),
        count: count(row.try_get(6)?)?,
        dimension: dimension.map(Into::into),
        withdraws: None,
        record: row.try_get(8)?,
    };
    let place = (time, row.try_get(10)?, sequence);
    Ok(((sidecar.into(), spool_of(row, 1)?, kept), place))
}

impl UsageFile {
    /// Records of an exception, latest first, before one by time, spool and number.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn list(
        &self,
        exception: &ExceptionId,
        before: Place,
        most: usize,
    ) -> Past<(KeptRow, Place)> {
        let (time, spool, sequence) = before;
        let rows = sqlx::query(kept!("WHERE u.exception = ? AND (u.time, u.spool, u.sequence) < (?, ?, ?) ORDER BY u.time DESC, u.spool DESC, u.sequence DESC LIMIT ?"))
            .bind(exception.as_str())
            .bind(time)
            .bind(spool)
            .bind(sequence)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Records of a decision, made from `first` to `last`, in the order of spools and numbers.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn decided(
        &self,
        decision: &str,
        first: Timestamp,
        last: Timestamp,
    ) -> Past<KeptRow> {
        let rows = sqlx::query(kept!(
            "WHERE u.time BETWEEN ? AND ? AND instr(u.record, CAST(? AS BLOB)) > 0 ORDER BY u.spool, u.sequence"
        ))
        .bind(first.micros())
        .bind(last.micros())
        .bind(decision)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(read(row)?.0)).collect()
    }

    /// The records of a spool after one, in order, as they were written.
    ///
    /// # Errors
    ///
    /// A store that fails.
    pub async fn records(&self, spool: u64, after: u64, most: usize) -> Past<(u64, Vec<u8>)> {
        let rows = sqlx::query("SELECT sequence, record FROM usage WHERE spool = ? AND sequence > ? ORDER BY sequence LIMIT ?")
            .bind(number(spool))
            .bind(number(after))
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        let read = |row: &SqliteRow| Ok((count(row.try_get(0)?)?, row.try_get(1)?));
        rows.iter().map(read).collect()
    }
}
