//! A transaction's rows in the log and in what the log amounts to, in SQLite.

use sqlx::{Row, SqliteConnection, SqlitePool};

use crate::domain::Transaction;

use super::{
    leaves, outbox,
    port::{Sealed, StoreError},
    sqlite::{HEAD, head_of, number},
};

/// Appends a transaction with its leaf and all that goes with it, if it follows on the head.
pub(super) async fn commit(
    writer: &SqlitePool,
    transaction: &Transaction,
    sealed: &Sealed,
) -> Result<(), StoreError> {
    let mut work = writer.begin_with("BEGIN IMMEDIATE").await?;
    let head = head_of(&sqlx::query(HEAD).fetch_one(&mut *work).await?)?;
    if head.revision.saturating_add(1) != transaction.revision {
        return Err(StoreError::Conflict { head });
    }
    append(&mut work, transaction).await?;
    leaves::enter(&mut work, transaction.revision, sealed).await?;
    outbox::write(&mut work, &sealed.told).await?;
    if let Some(event) = &sealed.heard {
        outbox::heard(&mut work, event).await?;
    }
    work.commit().await?;
    Ok(())
}

/// Overwrites the write-ahead log, in which what was erased still stands.
pub(super) async fn overwrite(writer: &SqlitePool) {
    let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(writer)
        .await;
    let busy = row.and_then(|row| row.try_get::<i64, _>(0));
    if !matches!(busy, Ok(0)) {
        tracing::error!(
            ?busy,
            "what was erased stays in the log until the next start"
        );
    }
}

async fn append(work: &mut SqliteConnection, transaction: &Transaction) -> Result<(), StoreError> {
    let revision = number(transaction.revision);
    sqlx::query("INSERT INTO log (revision, epoch, time, principal, action) SELECT ?, epoch, ?, ?, ? FROM registry")
        .bind(revision)
        .bind(transaction.time.micros())
        .bind(&*transaction.principal)
        .bind(&*transaction.action)
        .execute(&mut *work)
        .await?;
    for (place, edit) in (0_i64..).zip(&transaction.edits) {
        sqlx::query("INSERT INTO edits (revision, place, kind, id, object_revision, manifest) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(revision)
            .bind(place)
            .bind(i64::from(edit.name.kind.number()))
            .bind(&*edit.name.id)
            .bind(number(edit.revision))
            .bind(edit.manifest.as_deref())
            .execute(&mut *work)
            .await?;
        sqlx::query("INSERT INTO objects (kind, id, object_revision, manifest, revision) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET object_revision = excluded.object_revision, manifest = excluded.manifest, revision = excluded.revision")
            .bind(i64::from(edit.name.kind.number()))
            .bind(&*edit.name.id)
            .bind(number(edit.revision))
            .bind(edit.manifest.as_deref())
            .bind(revision)
            .execute(&mut *work)
            .await?;
    }
    for removal in &transaction.removals {
        sqlx::query("INSERT INTO removals (sequence, revision, act, target_kind, target_id, cause, note, initiator, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(number(removal.sequence))
            .bind(revision)
            .bind(removal.act.name())
            .bind(removal.target.kind())
            .bind(removal.target.id())
            .bind(removal.cause.name())
            .bind(&*removal.note)
            .bind(&*removal.initiator)
            .bind(removal.time.micros())
            .execute(&mut *work)
            .await?;
    }
    Ok(())
}
