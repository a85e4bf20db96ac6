//! AuthZEN Authorization API 1.0: JSON in, JSON out (pdp §4).

use serde_json::{Map, Value as Json, json};

use crate::domain::{Invalid, Timestamp};

use super::{approval::Shown, json::fields, sync::time, v1};

/// How the items of a batch depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Semantic {
    /// Each for itself.
    ExecuteAll,
    /// Up to and with the first denial.
    DenyOnFirstDeny,
    /// Up to and with the first permit.
    PermitOnFirstPermit,
}

/// What somebody asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The subject's id.
    pub subject: String,
    /// The question.
    pub request: v1::CheckRequest,
    /// The approval that is shown with it.
    pub approval: Option<Shown>,
}

/// Several questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluations {
    body: Json,
    /// How they depend on each other.
    pub semantic: Semantic,
}

impl Evaluations {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.items().len()
    }

    /// Whether there are none; there never are.
    pub fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    fn items(&self) -> &[Json] {
        let items = self.body.get("evaluations").and_then(Json::as_array);
        items.map_or(&[], Vec::as_slice)
    }

    /// The question at a place. Each is made when its turn has come: what all of them inherit is there
    /// once.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn item(&self, at: usize) -> Result<Evaluation, Invalid> {
        let under = |e: Invalid| e.under(&format!("evaluations[{at}]"));
        let Some(Json::Object(item)) = self.items().get(at) else {
            return Err(under(Invalid::new(
                "",
                "is no object",
                "send a JSON object",
            )));
        };
        // Whole objects, never parts of them.
        let whole: Map<String, Json> = ["subject", "action", "resource", "context"]
            .into_iter()
            .filter_map(|name| {
                let said = item.get(name).or_else(|| self.body.get(name))?;
                Some((name.to_owned(), said.clone()))
            })
            .collect();
        evaluation(&Json::Object(whole)).map_err(under)
    }
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// One question, answered in the single form.
    One(Box<Evaluation>),
    /// Several.
    Many(Evaluations),
}

/// Most questions of one request.
const MOST: usize = 100;
/// Most values in one question; what it may hold at all is the question's own to say.
const VALUES: usize = 4_096;

/// How many values there are, counted no further than `most`.
fn values(json: &Json, most: usize) -> usize {
    let below = |items: &mut dyn Iterator<Item = &Json>| {
        let mut count = 1_usize;
        for item in items {
            if count > most {
                break;
            }
            count = count.saturating_add(values(item, most.saturating_sub(count)));
        }
        count
    };
    match json {
        Json::Array(items) => below(&mut items.iter()),
        Json::Object(entries) => below(&mut entries.values()),
        _ => 1,
    }
}

pub(super) fn missing(path: &str) -> Invalid {
    Invalid::new(path, "is missing", "send it (AuthZEN 1.0)")
}

pub(super) fn object(body: &Json, path: &str) -> Result<Map<String, Json>, Invalid> {
    match body.get(path) {
        None | Some(Json::Null) => Err(missing(path)),
        Some(Json::Object(entries)) => Ok(entries.clone()),
        Some(_) => Err(Invalid::new(path, "is no object", "send a JSON object")),
    }
}

pub(super) fn text(entries: &Map<String, Json>, of: &str, name: &str) -> Result<String, Invalid> {
    let path = format!("{of}.{name}");
    match entries.get(name) {
        None | Some(Json::Null) => Err(missing(&path)),
        Some(Json::String(text)) => Ok(text.clone()),
        Some(_) => Err(Invalid::new(path, "is no text", "send a JSON string")),
    }
}

fn properties(entries: &mut Map<String, Json>, of: &str) -> Result<Map<String, Json>, Invalid> {
    match entries.remove("properties") {
        None | Some(Json::Null) => Ok(Map::new()),
        Some(Json::Object(entries)) => Ok(entries),
        Some(_) => Err(Invalid::new(
            format!("{of}.properties"),
            "is no object",
            "send a JSON object",
        )),
    }
}

/// The question of one object with `subject`, `action`, `resource` and perhaps `context`.
///
/// What is said of the subject and the action beside their names is asserted, and read as
/// `request.context.subject` and `request.context.action`.
fn evaluation(body: &Json) -> Result<Evaluation, Invalid> {
    for part in ["subject", "action", "resource", "context"] {
        let said = body.get(part);
        if said.is_some_and(|said| values(said, VALUES) > VALUES) {
            let what = format!("holds more than {VALUES} values");
            return Err(Invalid::new(part, what, "send less"));
        }
    }
    let mut subject = object(body, "subject")?;
    let mut action = object(body, "action")?;
    let mut resource = object(body, "resource")?;
    text(&subject, "subject", "type")?;
    let id = text(&subject, "subject", "id")?;
    let name = text(&action, "action", "name")?;
    let kind = text(&resource, "resource", "type")?;
    let target = text(&resource, "resource", "id")?;
    let mut context = match body.get("context") {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(entries)) => entries.clone(),
        Some(_) => {
            return Err(Invalid::new(
                "context",
                "is no object",
                "send a JSON object",
            ));
        }
    };
    let approval = Shown::of(&context);
    for (entries, of) in [(&mut subject, "subject"), (&mut action, "action")] {
        let said = properties(entries, of)?;
        if !said.is_empty() && context.insert(of.to_owned(), said.into()).is_some() {
            return Err(Invalid::new(
                format!("context.{of}"),
                format!("is said twice: {of}.properties is read there"),
                "leave one of the two out",
            ));
        }
    }
    let said = properties(&mut resource, "resource")?;
    Ok(Evaluation {
        request: v1::CheckRequest {
            subject: id.clone(),
            action: name,
            resource: Some(v1::Resource {
                r#type: kind,
                id: target,
                properties: Some(fields(said)),
            }),
            context: Some(fields(context)),
            ..v1::CheckRequest::default()
        },
        subject: id,
        approval,
    })
}

/// What the body of an evaluation asks.
///
/// # Errors
///
/// What is missing or of another type, by its path.
pub fn single(body: &Json) -> Result<Evaluation, Invalid> {
    if !body.is_object() {
        return Err(Invalid::new(
            "",
            "the body is no object",
            "send a JSON object",
        ));
    }
    evaluation(body)
}

/// What the body of several evaluations asks.
///
/// # Errors
///
/// What is wrong with it as a whole; what is wrong with an item stands with the item.
pub fn several(body: &Json) -> Result<Asked, Invalid> {
    let items = match body.get("evaluations") {
        None | Some(Json::Null) => return single(body).map(|one| Asked::One(Box::new(one))),
        Some(Json::Array(items)) if items.is_empty() => {
            return single(body).map(|one| Asked::One(Box::new(one)));
        }
        Some(Json::Array(items)) => items,
        Some(_) => {
            return Err(Invalid::new(
                "evaluations",
                "is no list",
                "send a JSON array",
            ));
        }
    };
    if items.len() > MOST {
        return Err(Invalid::new(
            "evaluations",
            format!("has {} items", items.len()),
            format!("send at most {MOST}"),
        ));
    }
    let semantic = match body.pointer("/options/evaluations_semantic") {
        None | Some(Json::Null) => Semantic::ExecuteAll,
        Some(Json::String(text)) => match text.as_str() {
            "execute_all" => Semantic::ExecuteAll,
            "deny_on_first_deny" => Semantic::DenyOnFirstDeny,
            "permit_on_first_permit" => Semantic::PermitOnFirstPermit,
            other => {
                return Err(Invalid::new(
                    "options.evaluations_semantic",
                    format!(
                        "`{}` is not known",
                        other.chars().take(60).collect::<String>()
                    ),
                    "use execute_all, deny_on_first_deny or permit_on_first_permit",
                ));
            }
        },
        Some(_) => {
            return Err(Invalid::new(
                "options.evaluations_semantic",
                "is no text",
                "send a JSON string",
            ));
        }
    };
    Ok(Asked::Many(Evaluations {
        body: body.clone(),
        semantic,
    }))
}

fn code(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn instant(stamp: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time("time", Some(stamp?)).ok()
}

/// Whether the answer is yes.
pub fn permits(decision: &v1::Decision) -> bool {
    matches!(
        decision.outcome(),
        v1::Outcome::Allow | v1::Outcome::AllowByException
    )
}

/// The exception that an answer rests on.
pub fn relied_on(decision: &v1::Decision) -> Option<&v1::ExceptionResult> {
    let mut all = decision.exceptions.iter();
    all.find(|result| result.effect() == v1::ExceptionEffect::ReliedOn)
}

/// A decision as AuthZEN has it.
pub fn decision(told: &v1::Decision) -> Json {
    let permits = permits(told);
    let mut context = json!({
        "evaluation_id": told.id,
        "outcome": code(told.outcome().as_str_name(), "OUTCOME_").to_lowercase(),
    });
    let Some(entries) = context.as_object_mut() else {
        return json!({"decision": false});
    };
    if let Some(time) = instant(told.time) {
        entries.insert("evaluated_at".into(), time.to_string().into());
    }
    if let Some(end) = instant(told.valid_until) {
        entries.insert("valid_until".into(), end.to_string().into());
    }
    if let Some(exception) = relied_on(told).filter(|_| permits) {
        let until = instant(exception.expire_time).map(|end| end.to_string());
        entries.insert(
            "approval".into(),
            json!({"id": exception.exception_id, "approved_until": until}),
        );
    }
    if !permits {
        let reasons: Vec<_> = told
            .reasons()
            .map(|reason| code(reason.as_str_name(), "REASON_"))
            .collect();
        entries.insert("reason".into(), reasons.first().cloned().into());
        entries.insert("reasons".into(), reasons.into());
        let next = code(told.next_action().as_str_name(), "NEXT_ACTION_").to_lowercase();
        entries.insert("next_action".into(), next.into());
        let controls = told.controls.iter().map(|control| {
            let mut of = Map::new();
            of.insert("id".into(), control.control_id.as_str().into());
            for (name, text) in [("title", &control.title), ("remedy", &control.remedy)] {
                if !text.is_empty() {
                    of.insert(name.into(), text.as_str().into());
                }
            }
            Json::Object(of)
        });
        entries.insert("controls".into(), controls.collect());
        if !told.remedy.is_empty() {
            entries.insert("remedy".into(), told.remedy.as_str().into());
        }
        let requestable = &told.requestable_control_ids;
        entries.insert("requestable".into(), (!requestable.is_empty()).into());
        if !requestable.is_empty() {
            entries.insert("requestable_controls".into(), requestable.clone().into());
        }
        if let Some(request) = &told.access_request {
            entries.insert("access_request".into(), access_request(request));
        }
    }
    json!({"decision": permits, "context": context})
}

/// How to ask for access (draft 1 of the profile).
fn access_request(request: &v1::AccessRequest) -> Json {
    json!({
        "endpoint": request.endpoint,
        "expires_at": instant(request.expire_time).map(|end| end.to_string()),
        "binding_token": request.binding_token,
        "display": {"title": request.title},
    })
}

/// An item that is no question, or has no answer.
pub fn failed(status: u16, message: &str) -> Json {
    json!({"decision": false, "context": {"error": {"status": status, "message": message}}})
}

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Who may.
    Subject,
    /// To what.
    Resource,
    /// What.
    Action,
}

/// What somebody searches for.
#[derive(Clone, Debug, PartialEq)]
pub struct Searched {
    /// The type of what is wanted; of actions nothing.
    pub kind: String,
    /// The question, with a name in place of what is wanted.
    pub evaluation: Evaluation,
}

/// What the body of a search asks. Its `page` is taken, and everything told at once.
///
/// # Errors
///
/// What is missing or of another type, by its path.
pub fn searched(body: &Json, wanted: Wanted) -> Result<Searched, Invalid> {
    if !body.is_object() {
        return Err(Invalid::new(
            "",
            "the body is no object",
            "send a JSON object",
        ));
    }
    let (name, kind) = match wanted {
        Wanted::Subject => (
            "subject",
            text(&object(body, "subject")?, "subject", "type")?,
        ),
        Wanted::Resource => (
            "resource",
            text(&object(body, "resource")?, "resource", "type")?,
        ),
        Wanted::Action => {
            if body.get("action").is_some_and(|action| !action.is_null()) {
                return Err(Invalid::new(
                    "action",
                    "is what is searched for",
                    "leave it out",
                ));
            }
            ("action", String::new())
        }
    };
    if let Some(page) = body.get("page")
        && !page.is_object()
        && !page.is_null()
    {
        return Err(Invalid::new("page", "is no object", "send a JSON object"));
    }
    let mut filled = body.clone();
    // An id of what is wanted is ignored.
    let stand_in = match wanted {
        Wanted::Subject | Wanted::Resource => json!({"type": kind, "id": "anybody"}),
        Wanted::Action => json!({"name": "anything"}),
    };
    if let Some(entries) = filled.as_object_mut() {
        entries.insert(name.into(), stand_in);
    }
    Ok(Searched {
        kind,
        evaluation: evaluation(&filled)?,
    })
}
