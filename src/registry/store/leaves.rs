//! The ledger's tables in SQLite.

use std::sync::Arc;

use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use crate::domain::{Edit, Hash, Leaf, Name, Node, Salt, Timestamp, Transaction};

use super::{
    port::{Entered, Past, Sealed, StoreError},
    sqlite::{count, name_of, number, removal_of, wrong},
};

/// Enters a leaf and what became whole with it, within whatever transaction there is.
pub(super) async fn enter(
    connection: &mut SqliteConnection,
    revision: u64,
    sealed: &Sealed,
) -> Result<(), StoreError> {
    let Sealed { leaf, whole } = sealed;
    sqlx::query("INSERT INTO leaves (position, revision, leaf, salts) VALUES (?, ?, ?, ?)")
        .bind(number(leaf.position))
        .bind(number(revision))
        .bind(&*leaf.text)
        .bind(leaf.salts.concat())
        .execute(&mut *connection)
        .await?;
    for (node, hash) in whole {
        sqlx::query("INSERT INTO nodes (level, place, hash) VALUES (?, ?, ?)")
            .bind(i64::from(node.level))
            .bind(number(node.place))
            .bind(hash.to_vec())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn leaf_of(row: &SqliteRow) -> Result<Option<Leaf>, StoreError> {
    let Some(position) = row.try_get::<Option<i64>, _>(5)? else {
        return Ok(None);
    };
    let (text, salts): (String, Vec<u8>) = (row.try_get(6)?, row.try_get(7)?);
    let (salts, rest) = salts.as_chunks::<{ size_of::<Salt>() }>();
    if !rest.is_empty() {
        return Err(wrong("salts of another length"));
    }
    Ok(Some(Leaf {
        position: count(position)?,
        text: text.into(),
        salts: salts.to_vec(),
    }))
}

/// The log after a revision, whole, in three reads however many there are.
pub(super) async fn entered(readers: &SqlitePool, after: u64, most: usize) -> Past<Entered> {
    let rows = sqlx::query("SELECT l.revision, l.time, l.principal, l.action, l.epoch, v.position, v.leaf, v.salts FROM log l LEFT JOIN leaves v USING (revision) WHERE l.revision > ? ORDER BY l.revision LIMIT ?")
        .bind(number(after))
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await?;
    let mut entered = Vec::with_capacity(rows.len());
    for row in &rows {
        let (principal, action): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        entered.push(Entered {
            transaction: Transaction {
                revision: count(row.try_get(0)?)?,
                time: Timestamp::from_micros(row.try_get(1)?),
                principal: principal.into(),
                action: action.into(),
                edits: Vec::new(),
                removals: Vec::new(),
            },
            epoch: count(row.try_get(4)?)?,
            leaf: leaf_of(row)?,
            erased: Vec::new(),
        });
    }
    let Some(last) = entered.last().map(|last| last.transaction.revision) else {
        return Ok(entered);
    };
    let at = |entered: &[Entered], revision: i64| -> Result<usize, StoreError> {
        let revision = count(revision)?;
        entered
            .binary_search_by_key(&revision, |one| one.transaction.revision)
            .map_err(|_| wrong("a change of no transaction"))
    };
    let edits = sqlx::query("SELECT kind, id, object_revision, manifest, revision, erased FROM edits WHERE revision > ? AND revision <= ? ORDER BY revision, place")
        .bind(number(after))
        .bind(number(last))
        .fetch_all(readers)
        .await?;
    for row in &edits {
        let at = at(&entered, row.try_get(4)?)?;
        let manifest: Option<String> = row.try_get(3)?;
        let edit = Edit {
            name: name_of(row, 0)?,
            revision: count(row.try_get(2)?)?,
            manifest: manifest.map(Arc::from),
        };
        let erased = row.try_get::<i64, _>(5)? != 0;
        if let Some(one) = entered.get_mut(at) {
            if erased {
                one.erased.push(one.transaction.edits.len());
            }
            one.transaction.edits.push(edit);
        }
    }
    let removals = sqlx::query("SELECT sequence, act, target_kind, target_id, cause, note, initiator, time, revision FROM removals WHERE revision > ? AND revision <= ? ORDER BY revision, sequence")
        .bind(number(after))
        .bind(number(last))
        .fetch_all(readers)
        .await?;
    for row in &removals {
        let at = at(&entered, row.try_get(8)?)?;
        if let Some(one) = entered.get_mut(at) {
            one.transaction.removals.push(removal_of(row)?);
        }
    }
    Ok(entered)
}

pub(super) async fn nodes(readers: &SqlitePool, wanted: &[Node]) -> Past<Hash> {
    let mut found = Vec::with_capacity(wanted.len());
    for node in wanted {
        let hash: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT hash FROM nodes WHERE level = ? AND place = ?")
                .bind(i64::from(node.level))
                .bind(number(node.place))
                .fetch_optional(readers)
                .await?;
        let hash = hash.and_then(|hash| Hash::try_from(hash).ok());
        found.push(hash.ok_or_else(|| wrong("a tree with a hole"))?);
    }
    Ok(found)
}

/// Erases what an object was, and what would prove a guess of it.
pub(super) async fn erase(writer: &SqlitePool, name: &Name) -> Result<usize, StoreError> {
    let mut work = writer.begin_with("BEGIN IMMEDIATE").await?;
    let rows = sqlx::query("SELECT e.revision, e.place, v.salts FROM edits e JOIN leaves v USING (revision) WHERE e.kind = ? AND e.id = ? AND e.manifest IS NOT NULL")
        .bind(i64::from(name.kind.number()))
        .bind(&*name.id)
        .fetch_all(&mut *work)
        .await?;
    for row in &rows {
        let (revision, place): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let mut salts: Vec<u8> = row.try_get(2)?;
        // The first commitment is of who did what.
        let at = usize::try_from(place)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let salt = salts.as_chunks_mut::<{ size_of::<Salt>() }>().0.get_mut(at);
        *salt.ok_or_else(|| wrong("fewer salts than commitments"))? = Salt::default();
        sqlx::query("UPDATE leaves SET salts = ? WHERE revision = ?")
            .bind(salts)
            .bind(revision)
            .execute(&mut *work)
            .await?;
        sqlx::query(
            "UPDATE edits SET manifest = NULL, erased = 1 WHERE revision = ? AND place = ?",
        )
        .bind(revision)
        .bind(place)
        .execute(&mut *work)
        .await?;
    }
    work.commit().await?;
    Ok(rows.len())
}
