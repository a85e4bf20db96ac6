//! Who attended, and as which start, in SQLite.

use sqlx::{SqliteConnection, SqlitePool};

use crate::{
    domain::Timestamp,
    engine::attendance::{STARTS, Start},
};

use super::port::{Begun, Past, StoreError};

pub(super) async fn attend(
    writer: &SqlitePool,
    identity: &str,
    start: &Start,
    fencing: Option<Timestamp>,
) -> Result<(), StoreError> {
    let mut work = writer.begin().await?;
    sqlx::query("INSERT INTO attended (identity) VALUES (?) ON CONFLICT DO NOTHING")
        .bind(identity)
        .execute(&mut *work)
        .await?;
    sqlx::query(
        "INSERT INTO starts (identity, start, fencing) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(identity)
    .bind(start.as_slice())
    .bind(fencing.map(Timestamp::micros))
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

pub(super) async fn starts(readers: &SqlitePool) -> Past<Begun> {
    let rows: Vec<(String, Vec<u8>, Option<i64>)> =
        sqlx::query_as("SELECT identity, start, fencing FROM starts ORDER BY place")
            .fetch_all(readers)
            .await?;
    let read = |(identity, start, fencing): (String, Vec<u8>, Option<i64>)| {
        let wrong = |_| StoreError::Failed(format!("a start of `{identity}` is damaged"));
        Ok((
            identity.as_str().into(),
            Start::try_from(start).map_err(wrong)?,
            fencing.map(Timestamp::from_micros),
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

/// Who attended since a copy was made is not known, nor as which start.
pub(super) async fn unknown_since(
    work: &mut SqliteConnection,
    time: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE starts SET fencing = ? WHERE place IN (SELECT max(place) FROM starts GROUP BY identity)")
        .bind(time.micros())
        .execute(&mut *work)
        .await?;
    sqlx::query("INSERT INTO attended (identity) SELECT identity FROM access WHERE true ON CONFLICT DO NOTHING")
        .execute(&mut *work)
        .await?;
    Ok(())
}
