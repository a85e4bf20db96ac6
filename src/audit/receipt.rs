//! The proof that one change is in the ledger, as `exeat audit prove` writes it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    Broken, Key, Note,
    export::{Entry, opened},
    tree::{Sum, climbed, leaf},
};

/// What a receipt's `format` says.
const FORMAT: &str = "exeat-receipt/v1";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt<'a> {
    format: String,
    position: u64,
    leaf: String,
    #[serde(borrow)]
    entries: Vec<Entry<'a>>,
    path: Vec<String>,
    checkpoint: String,
}

/// What a receipt that holds proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The change's revision.
    pub revision: u64,
    /// Its time, in microseconds since 1970.
    pub time: i64,
    /// How many of its entries were erased since.
    pub erased: usize,
    /// What is signed about the ledger that it is in.
    pub checkpoint: Note,
}

/// Checks a receipt.
///
/// # Errors
///
/// What does not hold.
pub fn prove(text: &str, keys: &[Key]) -> Result<Proven, Broken> {
    let broken = |what: String| Broken { line: 0, what };
    let receipt: Receipt<'_> =
        serde_json::from_str(text).map_err(|error| broken(format!("is no receipt: {error}")))?;
    if receipt.format != FORMAT {
        return Err(broken(format!(
            "`{}` is no format of a receipt",
            receipt.format
        )));
    }
    let checkpoint = Note::read(&receipt.checkpoint).map_err(broken)?;
    checkpoint.signed_by(keys)?;
    let said = opened(&receipt.leaf, &receipt.entries)
        .map_err(|what| broken(format!("the leaf {what}")))?;
    let path: Option<Vec<Sum>> = receipt
        .path
        .iter()
        .map(|step| STANDARD.decode(step).ok()?.try_into().ok())
        .collect();
    let path = path.ok_or_else(|| broken("the path holds what is no digest".into()))?;
    let root = climbed(
        receipt.position,
        checkpoint.size,
        leaf(receipt.leaf.as_bytes()),
        &path,
    );
    if root != Some(checkpoint.root) || said.log != checkpoint.log {
        return Err(broken(
            "the leaf is not in the ledger that the checkpoint is about".into(),
        ));
    }
    Ok(Proven {
        revision: said.revision,
        time: said.time,
        erased: said.erased.len(),
        checkpoint,
    })
}
