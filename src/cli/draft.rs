//! `exeat exception draft`: a request out of a denial.

use serde_json::Value as Json;

use crate::wire::{access::exact, v1};

use super::{
    client::{connect, refused},
    registry_args::Draft,
    run::Exit,
    screen::Screen,
};

/// Prints a request for an exception from what denied a call, of its scope and no wider. What the
/// decision does not tell is for a person to say.
pub(super) async fn draft(args: Draft, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut client = connect(&args.target).await?;
    let request = v1::ExplainRequest {
        decision_id: args.decision.clone(),
    };
    let told = client.explain(request).await;
    let told = told.map_err(|status| refused(&status))?.into_inner();
    let decision = told.decision.clone().unwrap_or_default();
    if decision.requestable_control_ids.is_empty() {
        return Err(Exit::Invalid(format!(
            "{}: no exception can be requested from what it rests on; see `exeat explain {}`",
            args.decision, args.decision
        )));
    }
    screen.say(manifest(&args, &told, &decision.requestable_control_ids).trim_end())?;
    let said = fields(&args).map(|(name, said, _)| (name, said.is_some()));
    let known = scope(&told).map(|(name, exact)| (name, exact.is_some()));
    let missing = said.into_iter().chain(known);
    let missing: Vec<_> = missing
        .filter(|(_, there)| !there)
        .map(|(name, _)| name)
        .collect();
    if missing.is_empty() {
        screen.hint("ask for it with `exeat exception request -f FILE`");
    } else {
        screen.hint(&format!(
            "fill in {}, and ask for it with `exeat exception request -f FILE`",
            missing.join(", ")
        ));
    }
    Ok(Exit::Done)
}

/// What was asked, dimension by dimension; nothing where a scope that says so would hold for more
/// than that.
fn scope(told: &v1::ExplainResponse) -> [(&'static str, Option<&str>); 5] {
    let resource = told.resource.as_ref().map_or("", |of| of.id.as_str());
    // In a manifest that is everything, and whatever lies below.
    let exact = |text: &'static str, of| (text, exact(of));
    let (name, resource) = exact("resources", resource);
    [
        exact("subject_selector", &told.subject),
        exact("actions", &told.action),
        (name, resource.filter(|of| !of.ends_with('/'))),
        exact("environments", &told.environment),
        exact("purposes", &told.purpose),
    ]
}

type Field<'a> = (&'static str, Option<&'a str>, &'static str);

/// What only a person can say, and what of it was said.
fn fields(args: &Draft) -> [Field<'_>; 5] {
    [
        ("business_need", args.why.as_deref(), "why it is needed"),
        ("risk_statement", args.risk.as_deref(), "what may go wrong"),
        ("remediation_plan", args.plan.as_deref(), "how it ends"),
        (
            "ticket_ref",
            args.ticket.as_deref(),
            "where that is tracked",
        ),
        (
            "owner",
            args.owner.as_deref(),
            "who answers for it: user:NAME",
        ),
    ]
}

/// A text in YAML, whatever is in it.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

fn manifest(args: &Draft, told: &v1::ExplainResponse, controls: &[String]) -> String {
    let one =
        |of: Option<&str>| of.map_or_else(|| "[]".to_owned(), |of| format!("[{}]", quoted(of)));
    let [subject, action, resource, environment, purpose] =
        scope(told).map(|(_, exact)| one(exact));
    let [need, risk, plan, ticket, owner] = fields(args).map(|(name, said, what)| match said {
        Some(said) => format!("{name}: {}", quoted(said)),
        None => format!("{name}: \"\" # {what}"),
    });
    let controls: Vec<_> = controls.iter().map(|id| quoted(id)).collect();
    format!(
        "apiVersion: exeat/v1\n\
         kind: Request\n\
         control_ids: {controls}\n\
         deviation_type: WAIVER\n\
         justification:\n  {need}\n  {risk}\n  {plan}\n  {ticket}\n\
         scope:\n  \
           subject_selector: {{ids: {subject}}}\n  \
           actions: {action}\n  \
           resources: {resource}\n  \
           environments: {environment}\n  \
           purposes: {purpose}\n\
         window: {{duration: {duration}}}\n\
         {owner}\n\
         decision_id: {decision}\n",
        decision = args.decision,
        controls = format_args!("[{}]", controls.join(", ")),
        duration = quoted(&args.duration),
    )
}
