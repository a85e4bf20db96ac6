//! Messages of the Model Context Protocol as they are carried: what is read of them, what is written
//! anew in them, and what is told in their place. All else in them stays to the byte.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value as Json, json, value::RawValue};

use super::{
    json::strict,
    mcp::{LISTS, List, plain},
};

/// JSON-RPC's codes, and those that servers may give a meaning.
pub(super) const PARSE: i32 = -32_700;
pub(super) const NO_REQUEST: i32 = -32_600;
pub(super) const NO_METHOD: i32 = -32_601;
pub(super) const NO_PARAMETERS: i32 = -32_602;
pub(super) const BROKEN: i32 = -32_603;
pub(super) const DENIED: i32 = -32_000;
pub(super) const OTHERWISE: i32 = -32_020;

/// Where an answer says that it rests on an exception.
const DECISION: &str = "exeat/decision";

/// The key by which an answer is found again.
pub fn key(id: &Json) -> String {
    id.to_string()
}

/// The answer to a request that failed.
pub(super) fn failed(id: &Json, code: i32, message: &str, data: Option<Json>) -> Json {
    let mut error = json!({"code": code, "message": message});
    if let (Some(data), Json::Object(error)) = (data, &mut error) {
        error.insert("data".into(), data);
    }
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

fn object(bytes: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_slice(bytes).ok()
}

/// The message with one part of it, at the end of `path`, written anew; all else stays as it is.
pub(super) fn rewritten(
    bytes: &[u8],
    path: &[&str],
    write: impl FnOnce(&mut BTreeMap<String, Box<RawValue>>) -> Option<()>,
) -> Option<Vec<u8>> {
    let mut whole = object(bytes)?;
    match path {
        [] => write(&mut whole)?,
        [first, rest @ ..] => {
            let part = whole.get(*first)?;
            let part = rewritten(part.get().as_bytes(), rest, write)?;
            let part = RawValue::from_string(String::from_utf8(part).ok()?).ok()?;
            whole.insert((*first).to_owned(), part);
        }
    }
    serde_json::to_vec(&whole).ok()
}

/// An answer that was waited for, with a note in its `_meta`; nothing if it has no place for one.
pub fn noted(bytes: &[u8], note: &Json) -> Option<Vec<u8>> {
    rewritten(bytes, &["result"], |result| {
        let meta = result.get("_meta").map_or("{}", |meta| meta.get());
        let mut meta = object(meta.as_bytes())?;
        meta.insert(
            DECISION.into(),
            RawValue::from_string(note.to_string()).ok()?,
        );
        let meta = serde_json::to_string(&meta).ok()?;
        result.insert("_meta".into(), RawValue::from_string(meta).ok()?);
        Some(())
    })
}

/// A list with those items alone that `may` be shown.
pub fn sifted(bytes: &[u8], list: &List, may: &[bool]) -> Option<Vec<u8>> {
    if may.iter().all(|may| *may) {
        return Some(bytes.to_vec());
    }
    rewritten(bytes, &["result"], |result| {
        let items: Vec<Box<RawValue>> = serde_json::from_str(result.get(list.of)?.get()).ok()?;
        let left: Vec<_> = items
            .iter()
            .zip(may)
            .filter(|(_, may)| **may)
            .map(|(item, _)| item)
            .collect();
        let left = serde_json::to_string(&left).ok()?;
        result.insert(list.of.to_owned(), RawValue::from_string(left).ok()?);
        Some(())
    })
}

/// An answer to what went no further, for a reason of ours or of whoever asked.
pub fn refused(id: &Json, ours: bool, why: &str) -> Json {
    failed(id, if ours { BROKEN } else { NO_REQUEST }, why, None)
}

/// Whether headers that name a method, and what it is about, name what the message does: a server
/// may go by either.
///
/// # Errors
///
/// The answer to one where they do not.
pub fn as_named(bytes: &[u8], [method, about]: [Option<&str>; 2]) -> Result<(), Json> {
    if method.is_none() && about.is_none() {
        return Ok(());
    }
    let json = strict(bytes).unwrap_or_default();
    let text = |path| json.pointer(path).and_then(Json::as_str);
    let asks = text("/method").unwrap_or_default();
    let named = match asks.split_once('/') {
        Some(("resources", _)) => text("/params/uri"),
        Some(("tasks", _)) => text("/params/taskId"),
        _ => text("/params/name"),
    };
    let plain = |said: &str| match said
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="))
    {
        Some(packed) => {
            let bytes = STANDARD.decode(packed).ok()?;
            String::from_utf8(bytes).ok()
        }
        None => Some(said.to_owned()),
    };
    let same =
        |said: Option<&str>, of: Option<&str>| said.is_none_or(|said| plain(said).as_deref() == of);
    if same(method, Some(asks)) && same(about, named) {
        return Ok(());
    }
    let id = json.get("id").unwrap_or(&Json::Null);
    let why = "the headers `Mcp-Method` and `Mcp-Name` name something else than the message";
    Err(failed(id, OTHERWISE, why, None))
}

/// The message as one line for every reader: some take more than a line feed for the end of one.
pub fn one_line(message: &[u8]) -> Cow<'_, [u8]> {
    // Beyond texts these are white space or nothing at all, and within them escapes are the same.
    let ends = |bytes: &[u8]| match bytes {
        [b'\r' | b'\n', ..] => Some((1, " ")),
        [0xC2, 0x85, ..] => Some((2, "\\u0085")),
        [0xE2, 0x80, 0xA8, ..] => Some((3, "\\u2028")),
        [0xE2, 0x80, 0xA9, ..] => Some((3, "\\u2029")),
        _ => None,
    };
    let suspect = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0xC2 | 0xE2);
    if !message.iter().any(suspect) {
        return message.into();
    }
    let mut out = Vec::with_capacity(message.len());
    let mut rest = message;
    while let [first, later @ ..] = rest {
        if let Some((length, instead)) = ends(rest) {
            out.extend_from_slice(instead.as_bytes());
            rest = rest.get(length..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = later;
        }
    }
    out.into()
}

/// An answer in place of a list that cannot be shown.
pub fn withheld(id: &Json, why: &str) -> Json {
    let told = format!("exeat could not say what of this may be used, so it is not shown: {why}");
    failed(id, BROKEN, &told, None)
}

/// What a server says.
#[derive(Debug)]
pub enum Heard {
    /// Something that is no answer: it goes on.
    On,
    /// The answer to what has this key, and what was said.
    Answer(String, Json),
    /// Nothing that a client could read in one way alone: it goes no further.
    Dropped(String),
}

/// What a server says in `bytes`.
pub fn heard(bytes: &[u8]) -> Heard {
    match strict(bytes) {
        Ok(Json::Object(said)) => answer(said),
        Ok(_) => Heard::Dropped("is no JSON-RPC message".to_owned()),
        Err(error) => Heard::Dropped(format!("is no JSON: {error}")),
    }
}

/// Some clients take no heed of case, and some take what has a method and a result for an answer.
fn answer(said: Map<String, Json>) -> Heard {
    let lists = LISTS.map(|list| list.of);
    let result = said.get("result").and_then(Json::as_object);
    let named = plain(
        &said,
        &["jsonrpc", "id", "method", "params", "result", "error"],
    );
    let named = named.and_then(|()| result.map_or(Ok(()), |result| plain(result, &lists)));
    let answers = said.contains_key("result") || said.contains_key("error");
    let method = said.get("method");
    match (said.get("id").cloned(), method.is_some()) {
        _ if method.is_some_and(|method| !method.is_string()) => {
            Heard::Dropped("has a `method` that is no text".to_owned())
        }
        _ if named.is_err() => {
            Heard::Dropped("has a name that some read as one of the protocol".to_owned())
        }
        (_, true) if answers => Heard::Dropped("asks and answers".to_owned()),
        (Some(id), false) => Heard::Answer(key(&id), said.into()),
        _ if answers => Heard::Dropped("answers nobody".to_owned()),
        _ => Heard::On,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_stays_to_the_byte() {
        let large = br#"{"jsonrpc":"2.0","id":1,"result":{"n":123456789012345678901234567890,"f":1.00,"_meta":{"a":1e2}}}"#;
        let noted = String::from_utf8(noted(large, &json!({"id": "d"})).unwrap()).unwrap();
        for part in [
            "123456789012345678901234567890",
            "\"f\":1.00",
            "\"a\":1e2",
            "\"exeat/decision\":{\"id\":\"d\"}",
        ] {
            assert!(noted.contains(part), "{noted}");
        }
        let list = &LISTS[0];
        let told =
            br#"{"id":1,"result":{"tools":[{"name":"a","x":1.0},{"name":"b"}],"nextCursor":"c"}}"#;
        assert_eq!(sifted(told, list, &[true, true]).unwrap(), told);
        let shown = String::from_utf8(sifted(told, list, &[true, false]).unwrap()).unwrap();
        assert!(
            shown.contains(r#""tools":[{"name":"a","x":1.0}]"#) && shown.contains("nextCursor"),
            "{shown}"
        );
    }

    #[test]
    fn a_message_is_one_line_for_everybody() {
        let said = "{\"a\":\r1,\"b\":\"x\u{2028}y\u{2029}\u{85}\u{e9}\"}";
        let line = one_line(said.as_bytes());
        let json: Json = serde_json::from_slice(&line).unwrap();
        assert_eq!(json, serde_json::from_str::<Json>(said).unwrap());
        let text = std::str::from_utf8(&line).unwrap();
        assert!(
            !text.contains(['\r', '\n', '\u{2028}', '\u{2029}', '\u{85}']),
            "{text}"
        );
        assert!(matches!(one_line(b"{\"a\":1}"), Cow::Borrowed(_)));
    }

    #[test]
    fn headers_name_what_the_message_does() {
        let told =
            json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "wipe"}})
                .to_string()
                .into_bytes();
        for (headers, fits) in [
            ([None, None], true),
            ([Some("tools/call"), Some("wipe")], true),
            ([Some("tools/call"), Some("=?base64?d2lwZQ==?=")], true),
            ([Some("tools/call"), Some("search")], false),
            ([Some("ping"), Some("wipe")], false),
            ([Some("tools/call"), Some("=?base64?!?=")], false),
        ] {
            let answer = as_named(&told, headers);
            assert_eq!(answer.is_ok(), fits, "{headers:?}");
            if let Err(answer) = answer {
                assert_eq!(
                    (&answer["error"]["code"], &answer["id"]),
                    (&json!(OTHERWISE), &json!(7))
                );
            }
        }
    }
}
