//! How controls ran, in SQLite.

use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use crate::domain::{ControlId, Run, Span, Timestamp};

use super::{
    port::{Past, RUNS, StoreError},
    sqlite::{count, number, wrong},
};

const COLUMNS: &str = "control, control_revision, due, time, revision, passed, failed, untold, elsewhere, took, missed";

pub(super) async fn keep(writer: &SqlitePool, run: &Run) -> Result<(), StoreError> {
    let Run {
        control,
        control_revision,
        due,
        time,
        revision,
        passed,
        failed,
        untold,
        elsewhere,
        took,
        missed,
    } = run;
    let mut work = writer.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("INSERT INTO runs (control, control_revision, due, time, revision, passed, failed, untold, elsewhere, took, missed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(control.as_str())
        .bind(number(*control_revision))
        .bind(due.map(Timestamp::micros))
        .bind(time.micros())
        .bind(number(*revision))
        .bind(number(*passed))
        .bind(number(*failed))
        .bind(number(*untold))
        .bind(number(*elsewhere))
        .bind(took.micros())
        .bind(number(*missed))
        .execute(&mut *work)
        .await?;
    sqlx::query("DELETE FROM runs WHERE control = ?1 AND (due IS NULL) = ?3 AND number <= (SELECT number FROM runs WHERE control = ?1 AND (due IS NULL) = ?3 ORDER BY number DESC LIMIT 1 OFFSET ?2)")
        .bind(control.as_str())
        .bind(RUNS)
        // What was asked for does not push out what was due.
        .bind(due.is_none())
        .execute(&mut *work)
        .await?;
    work.commit().await?;
    Ok(())
}

fn run_of(row: &SqliteRow) -> Result<Run, StoreError> {
    let control: String = row.try_get(0)?;
    let counted = |at: usize| count(row.try_get::<i64, _>(at)?);
    let due: Option<i64> = row.try_get(2)?;
    Ok(Run {
        control: ControlId::parse(&control).map_err(|_| wrong("a run of no control"))?,
        control_revision: counted(1)?,
        due: due.map(Timestamp::from_micros),
        time: Timestamp::from_micros(row.try_get(3)?),
        revision: counted(4)?,
        passed: counted(5)?,
        failed: counted(6)?,
        untold: counted(7)?,
        elsewhere: counted(8)?,
        took: Span::from_micros(row.try_get(9)?),
        missed: counted(10)?,
    })
}

pub(super) async fn latest(readers: &SqlitePool, control: &ControlId, most: u32) -> Past<Run> {
    let text = format!("SELECT {COLUMNS} FROM runs WHERE control = ? ORDER BY number DESC LIMIT ?");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(control.as_str())
        .bind(most)
        .fetch_all(readers)
        .await?;
    rows.iter().map(run_of).collect()
}

pub(super) async fn last_due(readers: &SqlitePool) -> Past<(ControlId, Timestamp)> {
    let rows =
        sqlx::query("SELECT control, max(due) FROM runs WHERE due IS NOT NULL GROUP BY control")
            .fetch_all(readers)
            .await?;
    let read = |row: &SqliteRow| {
        let control: String = row.try_get(0)?;
        let control = ControlId::parse(&control).map_err(|_| wrong("a run of no control"))?;
        Ok((control, Timestamp::from_micros(row.try_get(1)?)))
    };
    rows.iter().map(read).collect()
}
