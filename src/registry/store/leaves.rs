//! The ledger's tables in SQLite.

use std::sync::Arc;

use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};

use crate::domain::{Edit, Hash, Leaf, Name, Node, Salt, Timestamp, Transaction};

use super::{
    port::{Entered, Past, Sealed, StoreError},
    sqlite::{count, name_of, number, removal_of, wrong},
};

/// Most bytes of manifests that are read at once.
const LARGE: i64 = 32 << 20;

/// Enters a leaf and what became whole with it, within whatever transaction there is.
pub(super) async fn enter(
    connection: &mut SqliteConnection,
    revision: u64,
    sealed: &Sealed,
) -> Result<(), StoreError> {
    let Sealed {
        leaf,
        whole,
        erases,
        urgent: _,
        told: _,
        heard: _,
    } = sealed;
    sqlx::query("INSERT INTO leaves (position, revision, leaf, salts) VALUES (?, ?, ?, ?)")
        .bind(number(leaf.position))
        .bind(number(revision))
        .bind(&*leaf.text)
        .bind(leaf.salts.concat())
        .execute(&mut *connection)
        .await?;
    for (node, hash) in whole {
        sqlx::query("INSERT INTO nodes (leaf, level, hash) VALUES (?, ?, ?)")
            .bind(number(last_leaf(*node)))
            .bind(i64::from(node.level))
            .bind(hash.to_vec())
            .execute(&mut *connection)
            .await?;
    }
    if let Some(name) = erases {
        erase(connection, name, revision).await?;
    }
    Ok(())
}

/// The leaf that a subtree is whole with.
fn last_leaf(node: Node) -> u64 {
    let after = node.place.saturating_add(1);
    after
        .checked_shl(u32::from(node.level))
        .unwrap_or(0)
        .saturating_sub(1)
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

/// The log after a revision, whole, in four reads however many there are.
pub(super) async fn entered(readers: &SqlitePool, after: u64, most: usize) -> Past<Entered> {
    let rows = sqlx::query("SELECT l.revision, l.time, l.principal, l.action, l.epoch, v.position, v.leaf, v.salts, (SELECT coalesce(sum(length(manifest)), 0) FROM edits e WHERE e.revision = l.revision) FROM log l LEFT JOIN leaves v USING (revision) WHERE l.revision > ? ORDER BY l.revision LIMIT ?")
        .bind(number(after))
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await?;
    let mut entered = Vec::with_capacity(rows.len());
    let mut bytes = 0_i64;
    for row in &rows {
        bytes = bytes.saturating_add(row.try_get(8)?);
        if bytes > LARGE && !entered.is_empty() {
            break;
        }
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
            whole: Vec::new(),
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
    let positions = entered.iter().filter_map(|one| one.leaf.as_ref());
    let mut positions = positions.map(|leaf| leaf.position);
    let Some(first) = positions.next() else {
        return Ok(entered);
    };
    let nodes = sqlx::query(
        "SELECT leaf, level, hash FROM nodes WHERE leaf BETWEEN ? AND ? ORDER BY leaf, level",
    )
    .bind(number(first))
    .bind(number(positions.next_back().unwrap_or(first)))
    .fetch_all(readers)
    .await?;
    for row in &nodes {
        let (leaf, level): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (leaf, hash) = (count(leaf)?, row.try_get::<Vec<u8>, _>(2)?);
        let level = u8::try_from(level).map_err(|_| wrong("a subtree without a size"))?;
        let place = leaf.saturating_add(1).checked_shr(u32::from(level));
        let node = Node {
            level,
            place: place.unwrap_or(0).saturating_sub(1),
        };
        let hash = Hash::try_from(hash).map_err(|_| wrong("a digest of another length"))?;
        let of = |one: &&mut Entered| {
            one.leaf
                .as_ref()
                .is_some_and(|known| known.position == leaf)
        };
        if let Some(one) = entered.iter_mut().find(of) {
            one.whole.push((node, hash));
        }
    }
    Ok(entered)
}

pub(super) async fn nodes(readers: &SqlitePool, wanted: &[Node]) -> Past<Hash> {
    let mut found = Vec::with_capacity(wanted.len());
    for node in wanted {
        let hash: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT hash FROM nodes WHERE leaf = ? AND level = ?")
                .bind(number(last_leaf(*node)))
                .bind(i64::from(node.level))
                .fetch_optional(readers)
                .await?;
        let hash = hash.and_then(|hash| Hash::try_from(hash).ok());
        found.push(hash.ok_or_else(|| wrong("a tree with a hole"))?);
    }
    Ok(found)
}

/// Erases what an object was before a revision, and what would prove a guess of it.
async fn erase(
    connection: &mut SqliteConnection,
    name: &Name,
    before: u64,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT e.revision, e.place, v.salts, (SELECT count(*) FROM edits b WHERE b.revision = e.revision AND b.place < e.place), (SELECT count(*) FROM edits b WHERE b.revision = e.revision AND b.place < e.place AND (b.manifest IS NOT NULL OR b.erased = 1)) FROM edits e JOIN leaves v USING (revision) WHERE e.kind = ? AND e.id = ? AND e.manifest IS NOT NULL AND e.revision < ?")
        .bind(i64::from(name.kind.number()))
        .bind(&*name.id)
        .bind(number(before))
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let (revision, place): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        // Who did what, then of each edit what it is about and its manifest.
        let before = count(row.try_get(3)?)?.saturating_add(count(row.try_get(4)?)?);
        let at = usize::try_from(before.saturating_add(2)).unwrap_or(usize::MAX);
        // Of one revision there is one row of an object: its salts are as they were read.
        let mut salts: Vec<u8> = row.try_get(2)?;
        let salt = salts.as_chunks_mut::<{ size_of::<Salt>() }>().0.get_mut(at);
        *salt.ok_or_else(|| wrong("fewer salts than commitments"))? = Salt::default();
        sqlx::query("UPDATE leaves SET salts = ? WHERE revision = ?")
            .bind(salts)
            .bind(revision)
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "UPDATE edits SET manifest = NULL, erased = 1 WHERE revision = ? AND place = ?",
        )
        .bind(revision)
        .bind(place)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
