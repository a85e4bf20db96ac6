//! `exeat tier` and `exeat domain`: who decides what, by which rules.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use crate::wire::v1;

use super::{
    args::Output,
    reach::{Registry, refused},
    registry_args::Told,
    run::Exit,
    screen::{BOLD, DIM, Screen, styled},
};

/// `exeat tier`.
#[derive(Debug, Args)]
pub struct Tier {
    /// LOW, MODERATE, HIGH or INCIDENT; all of them, if left out.
    #[arg(value_name = "TIER")]
    name: Option<String>,
    /// As it is tightened in this domain.
    #[arg(long, value_name = "ID", default_value = "")]
    domain: String,
    #[command(flatten)]
    told: Told,
}

/// `exeat domain`.
#[derive(Debug, Subcommand)]
pub enum Domain {
    /// Show the tree of domains, with who answers for each and who decides there.
    List(Told),
    /// Show a domain, and what its tiers demand.
    Show {
        /// The domain.
        id: String,
        #[command(flatten)]
        told: Told,
    },
}

async fn rules(registry: &mut Registry, domain: &str) -> Result<Vec<Json>, Exit> {
    let request = v1::GetRulesRequest {
        domain: domain.to_owned(),
    };
    let answer = registry.exceptions.get_rules(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let rules = answer.rules.iter().map(|text| serde_json::from_str(text));
    rules
        .collect::<Result<_, _>>()
        .map_err(|error| Exit::Unexpected(format!("the rules cannot be read: {error}")))
}

fn text(json: &Json, name: &str) -> String {
    match json.get(name) {
        None | Some(Json::Null) => "-".into(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn names(json: &Json, name: &str) -> String {
    let names = json.get(name).and_then(Json::as_array);
    let names: Vec<_> = names
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    names.join(", ")
}

/// Who decides, in words.
fn deciders(rules: &Json) -> String {
    let stages = rules.get("approval_stages").and_then(Json::as_array);
    let stages = stages.into_iter().flatten();
    let stages = stages.map(|stage| format!("{} {}", text(stage, "quorum"), text(stage, "role")));
    let stages: Vec<_> = stages.collect();
    if stages.is_empty() {
        "nobody, within a budget".into()
    } else {
        stages.join(", ")
    }
}

fn show(rules: &Json, screen: &mut Screen) -> Result<(), Exit> {
    screen.say(&styled(BOLD, &text(rules, "tier")))?;
    for (name, told) in [
        ("decided by", deciders(rules)),
        ("within", text(rules, "approval_deadline")),
        ("step-up", text(rules, "step_up")),
        ("evidence", text(rules, "min_evidence")),
        ("reviewed", text(rules, "review_evidence")),
        ("longest", text(rules, "max_duration")),
        ("looked at again", text(rules, "revalidation_interval")),
        ("renewals", text(rules, "max_renewals")),
        (
            "of a year",
            format!("{} %", text(rules, "max_coverage_percent")),
        ),
        ("bound to", names(rules, "bound_facets")),
        ("may say ANY", names(rules, "any_allowed")),
        ("subjects", text(rules, "max_subjects")),
        ("max_uses", text(rules, "max_uses_required")),
        ("when it changes", text(rules, "on_context_change")),
        ("goes on by itself", text(rules, "auto_resume")),
        ("asked before it fails", text(rules, "preemptive")),
        ("unused stays", text(rules, "unused_after")),
        (
            "beyond its scope",
            format!("{} a day", text(rules, "out_of_scope_limit")),
        ),
        (
            "lease",
            format!(
                "{} ({})",
                text(rules, "lease_ttl"),
                text(rules, "stale_mode")
            ),
        ),
        ("staleness", text(rules, "max_staleness")),
    ] {
        screen.say(&format!("  {name:<16} {told}"))?;
    }
    Ok(())
}

pub(super) async fn tier(args: Tier, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&args.told.reach).await?;
    let mut rules = rules(&mut registry, &args.domain).await?;
    if let Some(tier) = &args.name {
        let tier = tier.to_ascii_uppercase();
        rules.retain(|rules| text(rules, "tier") == tier);
        if rules.is_empty() {
            return Err(Exit::Usage(format!(
                "`{tier}` is no tier; use LOW, MODERATE, HIGH or INCIDENT"
            )));
        }
    }
    for rules in &rules {
        if args.told.output == Output::Json {
            screen.say(&rules.to_string())?;
        } else {
            show(rules, screen)?;
        }
    }
    Ok(Exit::Done)
}

async fn domains(registry: &mut Registry) -> Result<BTreeMap<String, Json>, Exit> {
    let mut known = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListObjectsRequest {
            kind: v1::ObjectKind::Domain.into(),
            page_size: 1_000,
            page_token,
            ..v1::ListObjectsRequest::default()
        };
        let answer = registry.objects.list_objects(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        for object in answer.objects {
            if let Ok(manifest) = serde_json::from_str(&object.manifest) {
                known.insert(object.id, manifest);
            }
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(known);
        }
    }
}

fn line(id: &str, domain: &Json, depth: usize) -> String {
    let groups = domain.get("approver_groups").and_then(Json::as_object);
    let groups = groups.into_iter().flatten();
    let groups =
        groups.map(|(role, group)| format!("{role} {}", group.as_str().unwrap_or_default()));
    let groups: Vec<_> = groups.collect();
    let name = format!("{}{id}", "  ".repeat(depth));
    format!(
        "{name:<28} {:<20} {:<24} {}",
        text(domain, "owner"),
        text(domain, "display_name"),
        styled(DIM, &groups.join(", "))
    )
}

pub(super) async fn domain(command: Domain, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        Domain::List(told) => {
            let mut registry = Registry::connect(&told.reach).await?;
            let known = domains(&mut registry).await?;
            if told.output == Output::Json {
                for domain in known.values() {
                    screen.say(&domain.to_string())?;
                }
                return Ok(Exit::Done);
            }
            let below = |parent: &str| -> Vec<(&String, &Json)> {
                let of = |domain: &Json| text(domain, "parent") == parent;
                known.iter().filter(|(_, domain)| of(domain)).collect()
            };
            let first = below("-").into_iter();
            let mut next: Vec<_> = first.map(|(id, domain)| (id, domain, 0)).collect();
            next.reverse();
            while let Some((id, domain, depth)) = next.pop() {
                screen.say(&line(id, domain, depth))?;
                let deeper = depth.saturating_add(1);
                let inner = below(id).into_iter();
                let inner = inner.map(|(id, domain)| (id, domain, deeper));
                let mut inner: Vec<_> = inner.collect();
                inner.reverse();
                next.extend(inner);
            }
        }
        Domain::Show { id, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let rules = rules(&mut registry, &id).await?;
            let known = domains(&mut registry).await?;
            let domain = known.get(&id).cloned().unwrap_or_default();
            if told.output == Output::Json {
                let told = json!({"apiVersion": "exeat/v1", "domain": domain, "rules": rules});
                screen.say(&told.to_string())?;
                return Ok(Exit::Done);
            }
            screen.say(&line(&id, &domain, 0))?;
            for rules in &rules {
                show(rules, screen)?;
            }
        }
    }
    Ok(Exit::Done)
}
