//! Who attended, and as which start, in SQLite.

use sqlx::SqlitePool;

use crate::engine::attendance::{STARTS, Start};

use super::port::{Past, StoreError};

pub(super) async fn attend(
    writer: &SqlitePool,
    identity: &str,
    start: &Start,
) -> Result<(), StoreError> {
    let mut work = writer.begin().await?;
    sqlx::query("INSERT INTO attended (identity) VALUES (?) ON CONFLICT DO NOTHING")
        .bind(identity)
        .execute(&mut *work)
        .await?;
    sqlx::query("INSERT INTO starts (identity, start) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(identity)
        .bind(start.as_slice())
        .execute(&mut *work)
        .await?;
    sqlx::query("DELETE FROM starts WHERE place IN (SELECT place FROM starts WHERE identity = ? ORDER BY place DESC LIMIT -1 OFFSET ?)")
            .bind(identity)
            .bind(i64::try_from(STARTS).unwrap_or(i64::MAX))
            .execute(&mut *work)
            .await?;
    work.commit().await?;
    Ok(())
}

pub(super) async fn starts(readers: &SqlitePool) -> Past<(Box<str>, Start)> {
    let rows: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT identity, start FROM starts ORDER BY place")
            .fetch_all(readers)
            .await?;
    let read = |(identity, start): (String, Vec<u8>)| {
        let wrong = |_| StoreError::Failed(format!("a start of `{identity}` is damaged"));
        Ok((
            identity.as_str().into(),
            Start::try_from(start).map_err(wrong)?,
        ))
    };
    rows.into_iter().map(read).collect()
}

pub(super) async fn names(readers: &SqlitePool) -> Past<Box<str>> {
    let names: Vec<String> = sqlx::query_scalar("SELECT identity FROM attended ORDER BY identity")
        .fetch_all(readers)
        .await?;
    Ok(names.into_iter().map(Into::into).collect())
}
