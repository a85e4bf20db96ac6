//! `exeat exception revoke`, `revoke` and `agent`.

use serde_json::json;

use crate::{
    domain::Target,
    wire::{sync::target_message, v1},
};

use super::{
    args::Output,
    govern::{self, shown},
    reach::{Registry, refused},
    registry_args::{Agent, Apply, Get, Manner, One, Revoke},
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
};

pub(super) async fn revoke(args: Revoke, screen: &mut Screen) -> Result<Exit, Exit> {
    let Revoke { kind, id, manner } = args;
    let target = Target::parse(&kind, &id).map_err(|error| Exit::Usage(error.to_string()))?;
    let mut registry = Registry::connect(&manner.reach).await?;
    let request = v1::RevokeRequest {
        target: Some(target_message(&target)),
        reason: manner.reason.clone(),
        note: manner.note.clone(),
    };
    let answer = registry.revocations.revoke(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let what = format!("{target} is revoked");
    told(&mut registry, answer.receipt, &manner, &what, screen).await
}

pub(super) async fn agent(command: Agent, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        Agent::List {
            filter,
            output,
            reach,
        } => {
            let mut registry = Registry::connect(&reach).await?;
            let get = Get {
                kind: "subject".into(),
                id: None,
                filter: filter.clone(),
                output,
                reach,
            };
            govern::get(get, screen).await?;
            let answer = registry
                .fleet
                .list_instances(v1::ListInstancesRequest {})
                .await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            instances(&answer.instances, &filter, output, screen)
        }
        Agent::Show { id, output, reach } => {
            let one = One {
                kind: "subject".into(),
                id,
                output,
                reach,
            };
            govern::show(one, screen).await
        }
        Agent::Register { file, reach } => {
            let apply = Apply {
                files: vec![file],
                dry_run: false,
                prune: false,
                expect: Vec::new(),
                output: Output::Table,
                reach,
            };
            govern::apply(apply, false, screen).await
        }
        Agent::Freeze { id, manner } => {
            let mut registry = Registry::connect(&manner.reach).await?;
            let request = v1::FreezeRequest {
                subject: id.clone(),
                note: manner.note.clone(),
            };
            let answer = registry.revocations.freeze(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            let what = format!("{id} is frozen: every question of it is denied");
            told(&mut registry, answer.receipt, &manner, &what, screen).await
        }
        Agent::Thaw { id, manner } => {
            let mut registry = Registry::connect(&manner.reach).await?;
            let request = v1::ThawRequest {
                subject: id.clone(),
                note: manner.note.clone(),
            };
            let answer = registry.revocations.thaw(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            let what = format!("{id} is thawed");
            told(&mut registry, answer.receipt, &manner, &what, screen).await
        }
    }
}

/// Prints who is registered as an instance of a class.
fn instances(
    instances: &[v1::Instance],
    filter: &str,
    output: Output,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    for instance in instances {
        let v1::Instance {
            id,
            class,
            sidecar,
            lease_expire_time,
        } = instance;
        let fits = |word: &str| [id, class, sidecar].iter().any(|text| text.contains(word));
        if !filter.split_whitespace().all(fits) {
            continue;
        }
        let until = shown(*lease_expire_time);
        screen.say(&if output == Output::Json {
            json!({"apiVersion": "exeat/v1", "kind": "Instance", "id": id, "class": class, "sidecar": sidecar, "leaseUntil": until}).to_string()
        } else {
            format!("{id:<48} instance of {class}, until {until}, by {sidecar}")
        })?;
    }
    Ok(Exit::Done)
}

/// Prints how far a removal has come, after waiting where that is wanted.
async fn told(
    registry: &mut Registry,
    receipt: Option<v1::RemovalReceipt>,
    manner: &Manner,
    what: &str,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let nothing = || Exit::Unexpected("the answer holds no receipt".into());
    let mut receipt = receipt.ok_or_else(nothing)?;
    if manner.wait && receipt.completion() == v1::Completion::Pending {
        let removal = receipt.removal.clone().unwrap_or_default();
        let sequence = removal.sequence;
        let most = receipt.effective_by.map_or_else(
            || "until each has heard of it".to_owned(),
            |at| format!("until {} at the most", shown(Some(at))),
        );
        screen.hint(&format!(
            "{what}  #{sequence} by {}; waiting for {} sidecars, {most}",
            removal.initiator,
            receipt.outstanding.len()
        ));
        let request = v1::GetRevocationRequest {
            sequence,
            wait: true,
        };
        let answer = registry.revocations.get_revocation(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        receipt = answer.receipt.ok_or_else(nothing)?;
    }
    let completion = receipt.completion();
    let name = completion.as_str_name().trim_start_matches("COMPLETION_");
    let removal = receipt.removal.clone().unwrap_or_default();
    if manner.output == Output::Json {
        let outstanding: Vec<_> = receipt.outstanding.iter().map(|sidecar| json!({"sidecar": sidecar.sidecar, "leaseUntil": shown(sidecar.lease_until)})).collect();
        let told = json!({"apiVersion": "exeat/v1", "sequence": removal.sequence, "time": shown(removal.time), "by": removal.initiator, "acknowledged": receipt.acknowledged, "outstanding": outstanding, "effectiveBy": shown(receipt.effective_by), "completion": name});
        screen.say(&told.to_string())?;
    } else {
        let mark = if completion == v1::Completion::Pending {
            styled(BAD, name)
        } else {
            styled(GOOD, name)
        };
        screen.say(&format!(
            "{what}  {}",
            styled(
                DIM,
                &format!("#{} by {}", removal.sequence, removal.initiator)
            )
        ))?;
        screen.say(&format!(
            "  {mark}  {} acknowledged, {} outstanding",
            receipt.acknowledged.len(),
            receipt.outstanding.len()
        ))?;
        for sidecar in &receipt.outstanding {
            screen.say(&match sidecar.lease_until {
                Some(until) => format!(
                    "    {} may honour it until {}",
                    sidecar.sidecar,
                    shown(Some(until))
                ),
                None => format!(
                    "    {} has not heard of it, and goes on until it does",
                    sidecar.sidecar
                ),
            })?;
        }
        if completion == v1::Completion::Pending
            && let Some(at) = receipt.effective_by
        {
            screen.say(&format!("  nobody can honour it after {}", shown(Some(at))))?;
        }
    }
    Ok(Exit::Done)
}
