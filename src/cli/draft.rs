//! `exeat exception draft`: a request out of a denial.

use serde_json::Value as Json;

use crate::wire::v1;

use super::{
    client::{connect, refused},
    registry_args::Draft,
    run::Exit,
    screen::Screen,
};

/// Prints a request for an exception from what denied a call, of its scope and no wider. What the
/// decision does not tell is for a person to say.
pub(super) async fn draft(args: Draft, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut client = connect(args.target.socket.as_deref()).await?;
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
    let missing: Vec<_> = fields(&args)
        .into_iter()
        .filter(|(_, said, _)| said.is_none())
        .map(|(name, ..)| name)
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
    let list = |items: &[&str]| {
        let items = items.iter().filter(|item| !item.is_empty());
        let items: Vec<_> = items.map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    };
    let [need, risk, plan, ticket, owner] = fields(args).map(|(name, said, what)| match said {
        Some(said) => format!("{name}: {}", quoted(said)),
        None => format!("{name}: \"\" # {what}"),
    });
    let controls: Vec<_> = controls.iter().map(String::as_str).collect();
    let resource = told.resource.clone().unwrap_or_default().id;
    format!(
        "# Out of {decision}.\n\
         apiVersion: exeat/v1\n\
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
         {owner}\n",
        decision = args.decision,
        controls = list(&controls),
        subject = list(&[&told.subject]),
        action = list(&[&told.action]),
        resource = list(&[&resource]),
        environment = list(&[&told.environment]),
        purpose = list(&[&told.purpose]),
        duration = quoted(&args.duration),
    )
}
