//! A proxy between an MCP client and a server: what is asked before a message goes on, and what is
//! told in its place (ecosystem b.4).
//!
//! Whatever goes on does so byte for byte, but for what this says in so many words.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::domain::{Invalid, Trace};

use super::{
    authzen::{decision as body_of, permits, relied_on},
    carried::{
        BROKEN, DENIED, NO_METHOD, NO_PARAMETERS, NO_REQUEST, PARSE, failed, key, rewritten,
    },
    harness::why,
    json::{fields, strict},
    mcp::{Asks, LISTS, List, message},
    seen::describe,
    trimmed::trimmed,
    v1,
};

/// The protocol's own names in `_meta`.
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT: &str = "io.modelcontextprotocol/clientInfo";
/// Ours.
const APPROVAL: &str = "exeat-approval";
const STATE: &str = "exeat:";

/// The type of tools.
pub(super) const TOOL: &str = "tool";
/// Longest id of a message.
const LONGEST_ID: usize = 256;

/// Whether every reader takes it for the same id.
fn is_id(id: &Json) -> bool {
    const SAFE: u64 = 1 << 53;
    match id {
        Json::String(text) => text.len() <= LONGEST_ID,
        Json::Number(number) => number.as_i64().is_some_and(|id| id.unsigned_abs() < SAFE),
        _ => false,
    }
}

/// For whom a proxy asks, and about whose tools.
#[derive(Clone, Debug)]
pub struct Relay {
    /// The server, as subjects and policies name it.
    pub server: String,
    /// The subject; empty where the sidecar knows it.
    pub agent: String,
    /// What for.
    pub purpose: Option<String>,
    /// Whether arguments that are too large for a question are left out of it.
    pub omit_large: bool,
    /// Where an exception is requested; `{decision}` in it is the decision's id.
    pub approval: Option<String>,
}

/// What a client says.
#[derive(Debug)]
pub enum Said {
    /// It goes on; under the id its answer comes, if one does.
    On(Option<Json>),
    /// It goes on: the answer under the key is not waited for any more.
    Cancels(String),
    /// Something that is decided first.
    Asks(Box<Asking>),
    /// It goes no further; whoever asked is told so.
    Refused(Json),
    /// It goes no further, and nobody waits for an answer.
    Dropped(String),
}

/// Something that is decided before it goes on.
#[derive(Debug)]
pub struct Asking {
    /// The message's id.
    id: Json,
    /// The tool that is called, by its name at the server.
    pub tool: Option<String>,
    /// The question, but for what was seen of tools.
    request: v1::CheckRequest,
    /// Where the call belongs.
    pub trace: Option<String>,
    /// The protocol's version without a handshake, if that is spoken.
    stateless: bool,
    /// What the protocol without a handshake wants said again with each request.
    meta: Json,
    /// Whether a person can be sent to a page.
    elicits: bool,
    /// Whether that was done already.
    again: bool,
    /// What goes on in its place.
    onward: Option<Vec<u8>>,
    /// The list that is asked for, and whether from its beginning: its answer is sifted.
    pub list: Option<(&'static List, bool)>,
}

/// What becomes of a message that was decided.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on, as these bytes if there are any, and its answer gets the note if there is one.
    On(Option<Vec<u8>>, Option<Json>),
    /// It does not; this is its answer.
    Answered(Json),
}

/// Of `_meta` what is not about one request alone.
fn again_said(meta: &Json) -> Json {
    let said = [VERSION, CAPABILITIES, CLIENT].iter();
    let said = said.filter_map(|name| Some(((*name).to_owned(), meta.get(*name)?.clone())));
    Json::Object(said.collect())
}

fn at<'a>(json: &'a Json, path: &[&str]) -> Option<&'a Json> {
    path.iter().try_fold(json, |json, name| json.get(name))
}

impl Relay {
    /// What a client says in `bytes`.
    pub fn said(&self, bytes: &[u8]) -> Said {
        let json = match strict(bytes) {
            Ok(json) => json,
            Err(error) => return Said::Refused(failed(&Json::Null, PARSE, &error, None)),
        };
        if !json.is_object() {
            let what = "is no message, or many: send one that can be answered";
            return Said::Refused(failed(&Json::Null, NO_REQUEST, what, None));
        }
        let id = match json.get("id") {
            None => None,
            Some(id) if is_id(id) => Some(id.clone()),
            Some(_) => {
                let what =
                    "`id` is no short text and no whole number that every reader reads alike";
                return Said::Refused(failed(&Json::Null, NO_REQUEST, what, None));
            }
        };
        let method = json.get("method").and_then(Json::as_str);
        let asks = method.is_some();
        let cancelled = at(&json, &["params", "requestId"]);
        if let (Some("notifications/cancelled"), Some(of), None) = (method, cancelled, &id) {
            return Said::Cancels(key(of));
        }
        let list = LISTS.iter().find(|list| Some(list.method) == method);
        let begins = at(&json, &["params", "cursor"]).is_none_or(Json::is_null);
        let list = list.map(|list| (list, begins));
        let invalid = match self.read(json, bytes) {
            Ok(None) => return Said::On(id.filter(|_| asks)),
            Ok(Some(asked)) => match id {
                Some(id) => return Said::Asks(Box::new(Asking { id, list, ..asked })),
                None => return Said::Dropped("asks for something and has no `id`".to_owned()),
            },
            Err(invalid) => invalid,
        };
        // What asks for nothing is somebody's answer, and has the id of their question.
        let Some(id) = id.filter(|_| asks) else {
            return Said::Dropped(invalid.to_string());
        };
        let code = match invalid.path() {
            "body.method" => NO_METHOD,
            path if path.starts_with("body.params") => NO_PARAMETERS,
            _ => NO_REQUEST,
        };
        Said::Refused(failed(&id, code, &invalid.to_string(), None))
    }

    fn read(&self, mut json: Json, bytes: &[u8]) -> Result<Option<Asking>, Invalid> {
        let meta = at(&json, &["params", "_meta"]).cloned().unwrap_or_default();
        let state = at(&json, &["params", "requestState"]).and_then(Json::as_str);
        let again = state.is_some_and(|state| state.starts_with(STATE));
        let mut omitted = None;
        if let Some(place) = json.pointer_mut("/params/arguments")
            && let Json::Object(arguments) = place
        {
            let fix = "do it in smaller parts, or start the proxy with --omit-large";
            let root = ("body.params.arguments", fix);
            let mut told = trimmed(std::mem::take(arguments), self.omit_large, root)?;
            omitted = told.remove("arguments_omitted");
            *place = told.remove("arguments").unwrap_or_default();
        }
        let asks = message(json, &self.server)?;
        let Asks::Question {
            action,
            mut resource,
        } = asks
        else {
            return Ok(None);
        };
        if let Some(names) = omitted {
            let more = Map::from_iter([("arguments_omitted".to_owned(), names)]);
            let properties = resource.properties.get_or_insert_default();
            properties.fields.extend(fields(more).fields);
        }
        let mut context = Map::new();
        if let Some(purpose) = &self.purpose {
            context.insert("purpose".into(), purpose.as_str().into());
        }
        if let Some(client) = at(&meta, &[CLIENT, "name"]).and_then(Json::as_str) {
            context.insert("mcp_client".into(), client.into());
        }
        let tool = (resource.r#type == TOOL).then(|| {
            let name = resource.id.strip_prefix(&self.server);
            let name = name.and_then(|name| name.strip_prefix('/'));
            name.unwrap_or_default().to_owned()
        });
        let trace = at(&meta, &["traceparent"]).and_then(Json::as_str);
        let onward = again.then(|| {
            rewritten(bytes, &["params"], |params| {
                params.remove("requestState");
                params.remove("inputResponses");
                Some(())
            })
        });
        Ok(Some(Asking {
            id: Json::Null,
            tool,
            request: v1::CheckRequest {
                subject: self.agent.clone(),
                action,
                resource: Some(resource),
                context: Some(fields(context)),
                ..v1::CheckRequest::default()
            },
            trace: trace
                .filter(|text| Trace::parse(text).is_some())
                .map(ToOwned::to_owned),
            stateless: at(&meta, &[VERSION]).is_some(),
            elicits: at(&meta, &[CAPABILITIES, "elicitation", "url"]).is_some(),
            meta: again_said(&meta),
            again,
            onward: onward.flatten(),
            list: None,
        }))
    }

    /// What becomes of a message that was decided.
    pub fn verdict(&self, asking: Asking, decision: &v1::Decision) -> Verdict {
        // What of a list may be shown is decided of each; where no control speaks of lists nothing more
        // is.
        let unspoken = || {
            decision
                .reasons()
                .all(|reason| reason == v1::Reason::NoControl)
        };
        if permits(decision) || asking.list.is_some() && unspoken() {
            let note = relied_on(decision).map(|relied| {
                json!({
                    "id": decision.id,
                    "outcome": "allow_by_exception",
                    "exception": relied.exception_id,
                })
            });
            return Verdict::On(asking.onward, note);
        }
        let id = &asking.id;
        let requestable = !decision.requestable_control_ids.is_empty();
        let page = self.approval.as_ref().filter(|_| requestable);
        let page = page.map(|page| page.replace("{decision}", &decision.id));
        let mut body = body_of(decision);
        let data = body.get_mut("context").map(Json::take).unwrap_or_default();
        let said = match (&page, requestable) {
            (Some(page), _) => format!("{} Ask for it at {page}", why(decision)),
            (None, true) => format!(
                "{} Ask for it with `exeat exception draft {}`.",
                why(decision),
                decision.id
            ),
            (None, false) => why(decision),
        };
        if asking.tool.is_none() {
            return Verdict::Answered(failed(id, DENIED, &said, Some(data)));
        }
        let result = match page {
            // A person is asked once; after that the model is told.
            Some(page) if asking.stateless && asking.elicits && !asking.again => json!({
                "resultType": "input_required",
                "inputRequests": {APPROVAL: {"method": "elicitation/create", "params": {
                    "mode": "url",
                    "message": why(decision),
                    "url": page,
                }}},
                "requestState": format!("{STATE}{}", decision.id),
            }),
            _ => {
                let mut result = json!({
                    "content": [{"type": "text", "text": said}],
                    "structuredContent": data,
                    "isError": true,
                });
                if let (true, Json::Object(result)) = (asking.stateless, &mut result) {
                    result.insert("resultType".into(), "complete".into());
                }
                result
            }
        };
        Verdict::Answered(json!({"jsonrpc": "2.0", "id": id, "result": result}))
    }
}

impl Asking {
    /// The message's id.
    pub fn id(&self) -> &Json {
        &self.id
    }

    /// Under which its answer comes.
    pub fn key(&self) -> String {
        key(&self.id)
    }

    /// The question, with what was seen of the server's tools: their digests by name.
    pub fn question(&self, relay: &Relay, seen: &BTreeMap<String, String>) -> v1::CheckRequest {
        let mut request = self.request.clone();
        let own = self.tool.as_ref().and_then(|tool| seen.get(tool));
        if let Some(resource) = &mut request.resource {
            describe(resource, own);
        }
        request.seen_tools = relay.seen_tools(seen);
        request
    }

    /// A request of ours for the server's tools, from where `cursor` says on, under `id`.
    pub fn lists(&self, id: &str, cursor: Option<&str>) -> Json {
        let mut params = Map::new();
        if self.stateless {
            params.insert("_meta".into(), self.meta.clone());
        }
        if let Some(cursor) = cursor {
            params.insert("cursor".into(), cursor.into());
        }
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/list", "params": params})
    }

    /// It could not be decided: that is no denial, and it does not go on.
    pub fn undecided(&self, why: &str, asker: bool) -> Verdict {
        let code = if asker { NO_PARAMETERS } else { BROKEN };
        let told = format!("exeat could not say whether this may be done, so it may not: {why}");
        Verdict::Answered(failed(&self.id, code, &told, None))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::carried::{Heard, heard},
        *,
    };

    fn relay() -> Relay {
        Relay {
            server: "mcp://crm".into(),
            agent: "agent".into(),
            purpose: Some("work".into()),
            omit_large: false,
            approval: Some("https://exeat.example/new?d={decision}".into()),
        }
    }

    fn call(more: Json) -> Vec<u8> {
        let mut params = json!({"name": "wipe", "arguments": {"table": "t"}});
        params
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})
            .to_string()
            .into_bytes()
    }

    fn asks(more: Json) -> Asking {
        match relay().said(&call(more)) {
            Said::Asks(asking) => *asking,
            other => panic!("{other:?}"),
        }
    }

    fn denied() -> v1::Decision {
        v1::Decision {
            id: "dec_1".into(),
            outcome: v1::Outcome::Deny.into(),
            requestable_control_ids: vec!["CT-1".into()],
            ..v1::Decision::default()
        }
    }

    fn stateless() -> Json {
        json!({"_meta": {VERSION: "2026-07-28", CAPABILITIES: {"elicitation": {"url": {}}},
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
    }

    #[test]
    fn what_can_be_read_in_two_ways_goes_no_further() {
        for (told, code) in [
            ("{", PARSE),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"method\":\"tools/call\"}",
                PARSE,
            ),
            (
                "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
                NO_REQUEST,
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}",
                NO_REQUEST,
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}",
                NO_REQUEST,
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"some/thing\"}",
                NO_METHOD,
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a/b\"}}",
                NO_PARAMETERS,
            ),
        ] {
            let Said::Refused(answer) = relay().said(told.as_bytes()) else {
                panic!("{told}");
            };
            assert_eq!(answer["error"]["code"], code, "{told}: {answer}");
        }
        // What nobody waits for is not answered.
        let told = br#"{"jsonrpc":"2.0","method":"tools/call","params":{}}"#;
        assert!(matches!(relay().said(told), Said::Dropped(_)));
        for told in [
            "",
            "log line",
            "[]",
            "{\"id\":1,\"id\":2}",
            "{\"ID\":1,\"result\":{\"tools\":[]}}",
            "{\"result\":{\"tools\":[]}}",
            "{\"id\":1,\"method\":\"x\",\"result\":{}}",
            "{\"id\":1,\"result\":{\"Tools\":[]}}",
        ] {
            assert!(
                matches!(heard(told.as_bytes()), Heard::Dropped(_)),
                "{told}"
            );
        }
    }

    #[test]
    fn what_is_no_question_goes_on() {
        for (told, key) in [
            (
                r#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{}}"#,
                Some("\"a\""),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                None,
            ),
            (r#"{"jsonrpc":"2.0","id":3,"result":{}}"#, None),
        ] {
            let Said::On(waits) = relay().said(told.as_bytes()) else {
                panic!("{told}");
            };
            assert_eq!(waits.map(|id| id.to_string()).as_deref(), key, "{told}");
        }
        let told =
            br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
        assert!(matches!(relay().said(told), Said::Cancels(key) if key == "3"));
        let told = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}"#;
        let Said::Asks(asking) = relay().said(told) else {
            panic!("asked");
        };
        assert!(matches!(asking.list, Some((list, false)) if list.of == "tools"));
        let unspoken = v1::Decision {
            reasons: vec![v1::Reason::NoControl.into()],
            ..denied()
        };
        assert!(matches!(
            relay().verdict(*asking, &unspoken),
            Verdict::On(None, None)
        ));
    }

    #[test]
    fn a_question_says_what_was_seen_of_tools() {
        let asking = asks(stateless());
        assert_eq!(asking.tool.as_deref(), Some("wipe"));
        assert!(
            asking
                .trace
                .as_deref()
                .is_some_and(|trace| trace.starts_with("00-0af7"))
        );
        let seen = [("wipe", "sha256:w"), ("search", "sha256:s")];
        let seen = seen.map(|(name, digest)| (name.to_owned(), digest.to_owned()));
        let request = asking.question(&relay(), &seen.into());
        assert_eq!(
            (&*request.subject, &*request.action),
            ("agent", "tools/call")
        );
        assert_eq!(request.seen_tools.len(), 2);
        let resource = request.resource.unwrap();
        assert_eq!(resource.id, "mcp://crm/wipe");
        let said = format!("{:?}", resource.properties);
        assert!(
            said.contains("sha256:w") && said.contains("table"),
            "{said}"
        );
        // Too much to be looked at is said to be so, or left out and named.
        let large = json!({"arguments": {"text": "x".repeat(9_000)}});
        let Said::Refused(answer) = relay().said(&call(large.clone())) else {
            panic!("refused");
        };
        let why = answer["error"]["message"].as_str().unwrap();
        assert!(why.contains("body.params.arguments.text"), "{why}");
        let omits = Relay {
            omit_large: true,
            ..relay()
        };
        let Said::Asks(asking) = omits.said(&call(large)) else {
            panic!("asked");
        };
        let said = format!("{:?}", asking.question(&omits, &BTreeMap::new()));
        assert!(
            said.contains("arguments_omitted") && said.len() < 3_000,
            "{said}"
        );
    }

    #[test]
    fn a_person_is_sent_to_a_page_once_and_the_model_told_after() {
        let relay = relay();
        let Verdict::Answered(answer) = relay.verdict(asks(stateless()), &denied()) else {
            panic!("answered");
        };
        let result = &answer["result"];
        assert_eq!(result["resultType"], "input_required");
        let asked = &result["inputRequests"][APPROVAL]["params"];
        assert_eq!(asked["url"], "https://exeat.example/new?d=dec_1");
        let state = result["requestState"].as_str().unwrap().to_owned();
        // Asked again, which is no grant.
        let mut again = stateless();
        again["requestState"] = state.into();
        again["inputResponses"] = json!({APPROVAL: {"action": "accept"}});
        let Verdict::Answered(answer) = relay.verdict(asks(again.clone()), &denied()) else {
            panic!("answered");
        };
        assert_eq!(answer["result"]["isError"], true);
        assert_eq!(answer["result"]["resultType"], "complete");
        // Once it is allowed the server hears nothing of it.
        let allowed = v1::Decision {
            outcome: v1::Outcome::Allow.into(),
            ..denied()
        };
        let Verdict::On(Some(bytes), None) = relay.verdict(asks(again), &allowed) else {
            panic!("goes on");
        };
        let json: Json = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["params"]["arguments"]["table"], "t");
        let left: Vec<&String> = json["params"].as_object().unwrap().keys().collect();
        assert_eq!(left, ["_meta", "arguments", "name"]);
        // The state of a server is not ours to take.
        let theirs = json!({"requestState": "theirs", "inputResponses": {}});
        assert!(matches!(
            relay.verdict(asks(theirs), &allowed),
            Verdict::On(None, None)
        ));
        // With a handshake there is no such answer; the link is in the text.
        let Verdict::Answered(answer) = relay.verdict(asks(json!({})), &denied()) else {
            panic!("answered");
        };
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("new?d=dec_1"), "{text}");
        assert_eq!(answer["result"]["resultType"], Json::Null);
    }
}
