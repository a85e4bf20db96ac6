//! `exeat check` and `exeat explain`.

use std::{collections::BTreeMap, io::Read as _};

use serde::Deserialize;
use serde_json::Value as Json;

use crate::wire::{json::fields, signed::hex, v1};

use super::{
    args::{Check, Explain, Output},
    asked::SeenToolSpec,
    client::{connect, refused},
    run::Exit,
    screen::{Screen, json},
};

/// A question as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    subject: String,
    action: String,
    resource: AskedResource,
    #[serde(default)]
    context: serde_json::Map<String, Json>,
    #[serde(default)]
    observed: BTreeMap<String, String>,
    #[serde(default)]
    seen_tools: Vec<SeenToolSpec>,
    #[serde(default)]
    explain: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedResource {
    r#type: String,
    id: String,
    #[serde(default)]
    properties: serde_json::Map<String, Json>,
}

impl From<Asked> for v1::CheckRequest {
    fn from(asked: Asked) -> Self {
        let Asked {
            subject,
            action,
            resource,
            context,
            observed,
            seen_tools,
            explain,
        } = asked;
        let AskedResource {
            r#type,
            id,
            properties,
        } = resource;
        Self {
            subject,
            action,
            resource: Some(v1::Resource {
                r#type,
                id,
                properties: Some(fields(properties)),
            }),
            context: Some(fields(context)),
            observed,
            explain,
            seen_tools: seen_tools.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// `NAME=VALUE`; a value that reads as JSON is JSON, anything else is text.
pub(super) fn pairs(texts: &[String]) -> Result<serde_json::Map<String, Json>, Exit> {
    texts
        .iter()
        .map(|text| {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| Exit::Usage(format!("`{text}` is not NAME=VALUE")))?;
            Ok((
                name.to_owned(),
                serde_json::from_str(value).unwrap_or_else(|_| value.into()),
            ))
        })
        .collect()
}

pub(super) async fn check(args: Check, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut request = if let Some(path) = &args.file {
        let shown = path.display();
        let mut text = String::new();
        let read = if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text)
        } else {
            std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
        };
        read.map_err(|error| Exit::Invalid(format!("{shown}: {error}")))?;
        let asked: Asked = serde_json::from_str(&text).map_err(|error| {
            Exit::Invalid(format!(
                "{shown}:{}:{}: {error}",
                error.line(),
                error.column()
            ))
        })?;
        asked.into()
    } else {
        let (Some(subject), Some(resource)) = (args.subject, args.resource) else {
            return Err(Exit::Usage(
                "say who and what: `exeat check SUBJECT TOOL`, or give the question with -f".into(),
            ));
        };
        let observed: Result<_, Exit> = args
            .observed
            .iter()
            .map(|text| {
                text.split_once('=')
                    .map(|(f, d)| (f.to_owned(), d.to_owned()))
                    .ok_or_else(|| Exit::Usage(format!("`{text}` is not FACET=DIGEST")))
            })
            .collect();
        v1::CheckRequest {
            subject: if subject == "-" {
                String::new()
            } else {
                subject
            },
            action: args.action,
            resource: Some(v1::Resource {
                r#type: args.kind,
                id: resource,
                properties: Some(fields(pairs(&args.attributes)?)),
            }),
            context: Some(fields(pairs(&args.context)?)),
            observed: observed?,
            explain: false,
            ..v1::CheckRequest::default()
        }
    };
    request.explain |= args.why;
    let mut client = connect(&args.target).await?;
    let response = client
        .check(request)
        .await
        .map_err(|status| refused(&status))?;
    let decision = response
        .into_inner()
        .decision
        .ok_or_else(|| Exit::Unexpected("the answer holds no decision".into()))?;
    match args.output {
        Output::Json => screen.say(&json(&decision).to_string())?,
        Output::Table if args.why => {
            let explained = client
                .explain(v1::ExplainRequest {
                    decision_id: decision.id.clone(),
                })
                .await
                .map_err(|status| refused(&status))?;
            screen.explanation(&explained.into_inner())?;
        }
        Output::Table => screen.decision(&decision)?,
        Output::Junit => return Err(Exit::Usage("junit is for `exeat test`".into())),
    }
    Ok(exit_of(&decision))
}

/// What a decision makes the command end with.
fn exit_of(decision: &v1::Decision) -> Exit {
    match (decision.outcome(), decision.next_action()) {
        (v1::Outcome::Allow | v1::Outcome::AllowByException, _) => Exit::Done,
        (_, v1::NextAction::Request) => Exit::Requestable,
        (_, _) => Exit::No,
    }
}

pub(super) async fn explain(args: Explain, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut client = connect(&args.target).await?;
    let response = client
        .explain(v1::ExplainRequest {
            decision_id: args.decision,
        })
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    match (args.output, &response.decision) {
        (Output::Json, Some(decision)) => {
            let mut told = json(decision);
            if let Json::Object(entries) = &mut told {
                let resource = response.resource.clone().unwrap_or_default();
                entries.insert("question".into(), serde_json::json!({"subject": response.subject, "action": response.action, "resource": {"type": resource.r#type, "id": resource.id}, "environment": response.environment, "purpose": response.purpose, "surface": response.surface, "trace_id": hex(&response.trace_id), "model": response.model}));
            }
            screen.say(&told.to_string())?;
        }
        (Output::Json | Output::Table, _) => screen.explanation(&response)?,
        (Output::Junit, _) => return Err(Exit::Usage("junit is for `exeat test`".into())),
    }
    Ok(Exit::Done)
}
