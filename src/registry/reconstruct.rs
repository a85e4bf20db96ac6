//! The registry as it was: the fold of its log up to a revision (R13).

use std::collections::BTreeMap;

use crate::{
    domain::{Name, Removal, Timestamp},
    engine::follow::Beginning,
};

use super::{
    core::{Error, Registry},
    store::{Kept, Stored},
    view::View,
};

/// How many transactions are read at once.
const ROWS: usize = 1_000;

/// Everything the registry held at `revision`; nothing where its log has not come so far. What was
/// taken back is known until `removals`, where that is later: it reaches sidecars ahead of the rest.
///
/// # Errors
///
/// A store that fails, or holds what cannot be understood.
pub(super) async fn as_of(
    registry: &Registry,
    revision: u64,
    removals: Option<Timestamp>,
) -> Result<Option<View>, Error> {
    let view = registry.view();
    if revision > view.head.revision {
        return Ok(None);
    }
    let mut objects: BTreeMap<Name, Stored> = BTreeMap::new();
    let mut taken: Vec<Removal> = Vec::new();
    let (mut after, mut time) = (0, Timestamp::MIN);
    'log: loop {
        let rows = registry.store.transactions(after, ROWS).await?;
        let Some(last) = rows.last() else { break };
        after = last.revision;
        for row in rows {
            let later = row.revision > revision;
            if later && removals.is_none_or(|until| row.time > until) {
                break 'log;
            }
            taken.extend(row.removals);
            if later {
                continue;
            }
            time = row.time;
            for edit in row.edits {
                let stored = Stored {
                    name: edit.name.clone(),
                    revision: edit.revision,
                    manifest: edit.manifest,
                    log_revision: row.revision,
                    time: row.time,
                    principal: row.principal.clone(),
                };
                objects.insert(edit.name, stored);
            }
        }
    }
    let sequence = taken.last().map_or(0, |removal| removal.sequence);
    let kept = Kept {
        beginning: Beginning { ..view.beginning },
        head: crate::domain::Head { revision, sequence },
        time,
        unentered: false,
        copied: false,
    };
    Ok(Some(View::new(
        &kept,
        objects.into_values().collect(),
        taken,
    )?))
}
