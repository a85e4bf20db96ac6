//! Sync messages: statements of the registry, both ways.

use std::sync::Arc;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost_types::Timestamp as Stamp;

use crate::{
    domain::{
        Act, Cause, Edit, Era, Hash, Head, Invalid, Kind, LogId, Name, Removal, Target, Timestamp,
    },
    engine::{
        Sum,
        attendance::Start,
        follow::{Beginning, Heartbeat},
    },
};

use super::v1;

/// In a delta's `touched`, in place of an id: everything that was fetched.
pub const ALL_TOUCHED: &str = "*";

/// A time as a message.
pub fn stamp(time: Timestamp) -> Stamp {
    let micros = time.micros();
    Stamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000).saturating_mul(1_000)).unwrap_or(0),
    }
}

/// A time from a message.
pub fn time(path: &str, stamp: Option<Stamp>) -> Result<Timestamp, Invalid> {
    let wrong = || Invalid::new(path, "is not a time", "send seconds and nanoseconds");
    let Stamp { seconds, nanos } = stamp.ok_or_else(wrong)?;
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(wrong());
    }
    let micros = seconds
        .checked_mul(1_000_000)
        .and_then(|micros| micros.checked_add(i64::from(nanos / 1_000)))
        .ok_or_else(wrong)?;
    let time = Timestamp::from_micros(micros);
    if time.micros() == micros {
        Ok(time)
    } else {
        Err(wrong())
    }
}

/// An era as a message.
pub fn era_message(era: Era) -> v1::Era {
    v1::Era {
        log_id: era.log.0.to_vec(),
        epoch: era.epoch,
    }
}

/// An era from a message.
pub fn era(message: Option<&v1::Era>) -> Result<Era, Invalid> {
    let wrong = || Invalid::new("era", "names no log and epoch", "send both");
    let v1::Era { log_id, epoch } = message.ok_or_else(wrong)?;
    let log = LogId::from_slice(log_id).ok_or_else(wrong)?;
    if *epoch == 0 {
        return Err(wrong());
    }
    Ok(Era { log, epoch: *epoch })
}

/// A head as a message.
pub fn head_message(head: Head) -> v1::Head {
    v1::Head {
        revision: head.revision,
        sequence: head.sequence,
    }
}

/// As gRPC writes what is binary: some pad it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a sidecar says with each call which of its starts it is.
pub const START: &str = "exeat-start-bin";

/// Which of its starts a sidecar says it is; none where nothing is said.
pub fn start_of(headers: &http::HeaderMap) -> Result<Option<Start>, Invalid> {
    let Some(value) = headers.get(START) else {
        return Ok(None);
    };
    let start = BASE64.decode(value).ok();
    let start = start.and_then(|bytes| Start::try_from(bytes).ok());
    start.map(Some).ok_or_else(start_is_not_one)
}

/// A start as it is said in a message.
pub fn start(bytes: &[u8]) -> Result<Start, Invalid> {
    Start::try_from(bytes).map_err(|_| start_is_not_one())
}

fn start_is_not_one() -> Invalid {
    let fix = "send sixteen random bytes, made at the start";
    Invalid::new("start", "is not sixteen bytes", fix)
}

/// A head from a message.
pub fn head(message: Option<&v1::Head>) -> Result<Head, Invalid> {
    let v1::Head { revision, sequence } =
        *message.ok_or_else(|| Invalid::new("head", "is missing", "send it"))?;
    Ok(Head { revision, sequence })
}

/// How an epoch began, as a message.
pub fn beginning_message(beginning: &Beginning) -> v1::EpochStatement {
    v1::EpochStatement {
        era: Some(era_message(beginning.era)),
        base: Some(head_message(beginning.base)),
        ..v1::EpochStatement::default()
    }
}

/// How an epoch began.
pub fn beginning(message: &v1::EpochStatement) -> Result<Beginning, Invalid> {
    let v1::EpochStatement { era: of, base, .. } = message;
    Ok(Beginning {
        era: era(of.as_ref())?,
        base: head(base.as_ref())?,
    })
}

/// A heartbeat as a message.
pub fn heartbeat_message(heartbeat: &Heartbeat) -> v1::HeartbeatStatement {
    v1::HeartbeatStatement {
        era: Some(era_message(heartbeat.era)),
        head: Some(head_message(heartbeat.head)),
        time: Some(stamp(heartbeat.time)),
        nonce: heartbeat.nonce.to_vec(),
        ledger: heartbeat
            .ledger
            .map(|(size, root)| ledger_message(size, root)),
    }
}

/// A heartbeat from a message.
pub fn heartbeat(message: &v1::HeartbeatStatement) -> Result<Heartbeat, Invalid> {
    let v1::HeartbeatStatement {
        era: of,
        head: at,
        time: said,
        nonce,
        ledger,
    } = message;
    Ok(Heartbeat {
        era: era(of.as_ref())?,
        head: head(at.as_ref())?,
        time: time("time", *said)?,
        nonce: nonce_of(nonce)?,
        ledger: ledger.as_ref().map(ledger_of).transpose()?,
    })
}

/// A ledger's size and root as a message.
pub fn ledger_message(size: u64, root: Hash) -> v1::Ledger {
    v1::Ledger {
        size,
        root: root.to_vec(),
    }
}

/// A ledger's size and root from a message.
pub fn ledger_of(message: &v1::Ledger) -> Result<(u64, Hash), Invalid> {
    let v1::Ledger { size, root } = message;
    let wrong = |_| Invalid::new("ledger.root", "is not thirty-two bytes", "send a SHA-256");
    Ok((*size, root.as_slice().try_into().map_err(wrong)?))
}

/// A nonce from a message.
pub fn nonce_of(bytes: &[u8]) -> Result<[u8; 16], Invalid> {
    bytes
        .try_into()
        .map_err(|_| Invalid::new("nonce", "is not sixteen bytes", "send a random one"))
}

/// A kind as a message.
pub fn kind_message(kind: Kind) -> i32 {
    i32::from(kind.number())
}

/// A kind from a message; zero is none.
pub fn kind(number: i32) -> Result<Kind, Invalid> {
    u8::try_from(number)
        .ok()
        .and_then(Kind::of_number)
        .ok_or_else(|| {
            Invalid::new(
                "kind",
                format!("{number} is no kind"),
                "name a kind of object",
            )
        })
}

/// An edit as a message.
pub fn object_message(edit: &Edit) -> v1::SyncObject {
    v1::SyncObject {
        kind: kind_message(edit.name.kind),
        id: edit.name.id.to_string(),
        revision: edit.revision,
        manifest: edit.manifest.as_deref().unwrap_or_default().to_owned(),
    }
}

/// An edit from a message.
pub fn edit(message: v1::SyncObject) -> Result<Edit, Invalid> {
    let v1::SyncObject {
        kind: of,
        id,
        revision,
        manifest,
    } = message;
    if id.is_empty() || revision == 0 {
        return Err(Invalid::new("object", "has no id or revision", "send both"));
    }
    Ok(Edit {
        name: Name {
            kind: kind(of)?,
            id: id.into(),
        },
        revision,
        manifest: (!manifest.is_empty()).then(|| Arc::from(manifest)),
    })
}

/// A sum from a message.
pub fn sum(bytes: &[u8]) -> Result<Sum, Invalid> {
    Sum::from_slice(bytes)
        .ok_or_else(|| Invalid::new("sum", "is not thirty-two bytes", "send the sum"))
}

/// A removal's target as a message.
pub fn target_message(target: &Target) -> v1::Target {
    use v1::target::Target as Of;
    let id = target.id().to_owned();
    v1::Target {
        target: Some(match target {
            Target::Exception(_) => Of::Exception(id),
            Target::Subject(_) => Of::Subject(id),
            Target::Credential(_) => Of::Credential(id),
            Target::Control(_) => Of::Control(id),
            Target::Domain(_) => Of::Domain(id),
            Target::Principal(_) => Of::Principal(id),
        }),
    }
}

/// A removal's target from a message.
pub fn target(message: Option<v1::Target>) -> Result<Target, Invalid> {
    use v1::target::Target as Of;
    let of = message
        .and_then(|message| message.target)
        .ok_or_else(|| Invalid::new("target", "is missing", "say what is to be taken back"))?;
    let (kind, id) = match &of {
        Of::Exception(id) => ("exception", id),
        Of::Subject(id) => ("subject", id),
        Of::Credential(id) => ("credential", id),
        Of::Control(id) => ("control", id),
        Of::Domain(id) => ("domain", id),
        Of::Principal(id) => ("principal", id),
    };
    Target::parse(kind, id).map_err(|error| error.under(&format!("target.{kind}")))
}

/// A removal as a message.
pub fn removal_message(removal: &Removal) -> v1::Removal {
    v1::Removal {
        sequence: removal.sequence,
        act: match removal.act {
            Act::Revoke => v1::RemovalAct::Revoke,
            Act::Freeze => v1::RemovalAct::Freeze,
            Act::Thaw => v1::RemovalAct::Thaw,
        }
        .into(),
        target: Some(target_message(&removal.target)),
        reason: removal.cause.name().to_owned(),
        note: removal.note.to_string(),
        initiator: removal.initiator.to_string(),
        time: Some(stamp(removal.time)),
    }
}

/// A removal from a message.
pub fn removal(message: v1::Removal) -> Result<Removal, Invalid> {
    let v1::Removal {
        sequence,
        act,
        target: of,
        reason,
        note,
        initiator,
        time: at,
    } = message;
    let act = match v1::RemovalAct::try_from(act) {
        Ok(v1::RemovalAct::Revoke) => Act::Revoke,
        Ok(v1::RemovalAct::Freeze) => Act::Freeze,
        Ok(v1::RemovalAct::Thaw) => Act::Thaw,
        Ok(v1::RemovalAct::Unspecified) | Err(_) => {
            return Err(Invalid::new("act", "is no act", "name one"));
        }
    };
    Ok(Removal {
        sequence,
        act,
        target: target(of)?,
        // A reason of a later version removes all the same.
        cause: Cause::parse(&reason).unwrap_or(Cause::Admin),
        note: note.into(),
        initiator: initiator.into(),
        time: time("time", at)?,
    })
}
