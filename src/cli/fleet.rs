//! `exeat sidecars`, `status` and `access`.

use serde_json::{Value as Json, json};

use crate::wire::{signed::hex, v1};

use super::{
    args::Output,
    attention::{Attention, attention},
    govern::{kind_name, shown},
    reach::{Registry, refused},
    registry_args::{Access, Fleet},
    run::Exit,
    screen::{BAD, BOLD, DIM, GOOD, Screen, styled},
};

pub(super) async fn sidecars(args: Fleet, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&args.reach).await?;
    let answer = registry
        .fleet
        .list_sidecars(v1::ListSidecarsRequest {})
        .await;
    let sidecars = answer
        .map_err(|status| refused(&status))?
        .into_inner()
        .sidecars;
    if args.output != Output::Json {
        screen.say(&styled(
            DIM,
            &format!(
                "{:<40} {:<9} {:>9} {:>7} {:>9}  {:<20}  {:<20}  SCOPE",
                "SIDECAR",
                "CONNECTED",
                "REVISION",
                "BEHIND",
                "REMOVALS",
                "LAST ANSWERED",
                "LEASE UNTIL"
            ),
        ))?;
    }
    for sidecar in &sidecars {
        let head = sidecar.acknowledged.unwrap_or_default();
        if args.output == Output::Json {
            let nacks: Vec<Json> = sidecar.nacks.iter().map(|nack| json!({"kind": kind_name(nack.kind), "id": nack.id, "revision": nack.revision, "reason": nack.reason})).collect();
            let told = json!({"apiVersion": "exeat/v1", "name": sidecar.name, "connected": sidecar.connected, "scope": sidecar.scope, "revision": head.revision, "behind": sidecar.behind, "removals": head.sequence, "lastAnswered": shown(sidecar.last_answered), "leaseUntil": shown(sidecar.lease_until), "version": sidecar.version, "nacks": nacks});
            screen.say(&told.to_string())?;
            continue;
        }
        let connected = if sidecar.connected {
            styled(GOOD, &format!("{:<9}", "yes"))
        } else {
            styled(BAD, &format!("{:<9}", "no"))
        };
        screen.say(&format!(
            "{:<40} {connected} {:>9} {:>7} {:>9}  {:<20}  {:<20}  {}",
            sidecar.name,
            head.revision,
            sidecar.behind,
            head.sequence,
            shown(sidecar.last_answered),
            shown(sidecar.lease_until),
            sidecar.scope
        ))?;
        for nack in &sidecar.nacks {
            screen.say(&format!(
                "  {} {} {} revision {}: {}",
                styled(BAD, "cannot take"),
                kind_name(nack.kind),
                nack.id,
                nack.revision,
                nack.reason
            ))?;
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn status(args: Fleet, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&args.reach).await?;
    let answer = registry.fleet.get_status(v1::GetStatusRequest {}).await;
    let status = answer.map_err(|status| refused(&status))?.into_inner();
    let answer = registry
        .fleet
        .list_sidecars(v1::ListSidecarsRequest {})
        .await;
    let sidecars = answer
        .map_err(|status| refused(&status))?
        .into_inner()
        .sidecars;
    let head = status.head.unwrap_or_default();
    let gone = sidecars.iter().filter(|sidecar| !sidecar.connected).count();
    let nacks: usize = sidecars.iter().map(|sidecar| sidecar.nacks.len()).sum();
    let safe =
        status.read_only.is_empty() && status.sidecars_outstanding == 0 && gone == 0 && nacks == 0;
    // Whether all is safe is said whatever becomes of this.
    let attention = attention(&mut registry, status.time).await;
    if args.output == Output::Json {
        let told = json!({"apiVersion": "exeat/v1", "attention": attention.as_ref().ok().map(Attention::json), "safe": safe, "revision": head.revision, "removals": head.sequence, "epoch": status.era.as_ref().map(|era| era.epoch), "key": status.key_pin, "sidecarsConnected": status.sidecars_connected, "sidecarsGone": gone, "sidecarsOutstanding": status.sidecars_outstanding, "nacks": nacks, "failing": failing_json(&status.failing), "ledger": {"size": status.ledger_size, "root": hex(&status.ledger_root)}, "frozenSubjects": status.frozen_subjects, "readOnly": status.read_only, "objects": status.objects, "time": shown(status.time), "version": status.version});
        screen.say(&told.to_string())?;
        return Ok(if safe { Exit::Done } else { Exit::No });
    }
    let line = |good: bool, text: String| {
        let mark = if good {
            styled(GOOD, "✓")
        } else {
            styled(BAD, "✗")
        };
        format!("  {mark} {text}")
    };
    screen.say(&if safe {
        styled(
            GOOD,
            "safe: every sidecar rests on everything that was taken back",
        )
    } else {
        styled(BAD, "not everything is as it should be")
    })?;
    screen.say(&line(
        status.read_only.is_empty(),
        if status.read_only.is_empty() {
            "the registry takes changes".into()
        } else {
            format!("changes: {}", status.read_only)
        },
    ))?;
    screen.say(&line(
        gone == 0,
        format!(
            "{} sidecars connected, {gone} gone",
            status.sidecars_connected
        ),
    ))?;
    screen.say(&line(
        status.sidecars_outstanding == 0,
        format!(
            "{} removals; {} sidecars have not acknowledged them all",
            head.sequence, status.sidecars_outstanding
        ),
    ))?;
    screen.say(&line(
        nacks == 0,
        format!("{nacks} objects that a sidecar could not take in"),
    ))?;
    for text in failing(&status.failing) {
        screen.say(&text)?;
    }
    match attention {
        Ok(attention) => {
            for line in attention.lines() {
                screen.say(&line)?;
            }
        }
        Err(_) => screen.say("  what waits for people cannot be told now")?,
    }
    let objects: Vec<_> = status
        .objects
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    screen.say(&format!(
        "  {}",
        styled(
            DIM,
            &format!(
                "revision {} · epoch {} · {} · {} frozen · version {} · {}",
                head.revision,
                status.era.as_ref().map_or(0, |era| era.epoch),
                objects.join(", "),
                status.frozen_subjects,
                status.version,
                shown(status.time)
            )
        )
    ))?;
    screen.say(&format!(
        "  {}",
        styled(
            DIM,
            &format!(
                "key {} · ledger of {} changes, root {}",
                status.key_pin,
                status.ledger_size,
                hex(&status.ledger_root)
            )
        )
    ))?;
    Ok(if safe { Exit::Done } else { Exit::No })
}

/// Most controls that are named.
const NAMED: usize = 5;

fn failing_json(controls: &[v1::FailingControl]) -> Json {
    let each = controls.iter();
    each.map(
        |one| json!({"control": one.control_id, "count": one.count, "since": shown(one.since)}),
    )
    .collect()
}

/// The controls that fail for what no exception covers.
fn failing(controls: &[v1::FailingControl]) -> Vec<String> {
    let says = |text: String| {
        let command = styled(DIM, "exeat findings --uncovered");
        format!("  {} {text}  {command}", styled(BAD, "!"))
    };
    let mut lines: Vec<_> = controls
        .iter()
        .take(NAMED)
        .map(|one| {
            let since = shown(one.since);
            says(format!(
                "{} fails for {} that nothing covers, since {since}",
                one.control_id, one.count
            ))
        })
        .collect();
    if let Some(more) = controls.len().checked_sub(NAMED).filter(|more| *more > 0) {
        lines.push(says(format!("{more} more controls fail so")));
    }
    lines
}

fn role_of(text: &str) -> Result<v1::Role, Exit> {
    let name = format!("ROLE_{}", text.to_ascii_uppercase());
    v1::Role::from_str_name(&name)
        .filter(|role| *role != v1::Role::Unspecified)
        .ok_or_else(|| {
            Exit::Usage(format!(
                "--role: `{text}` is no role; use admin, author, approver, viewer or sidecar"
            ))
        })
}

pub(super) async fn access(command: Access, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        Access::Grant {
            identity,
            role,
            scope,
            reach,
        } => {
            let request = v1::GrantRequest {
                identity: identity.clone(),
                role: role_of(&role)?.into(),
                scope,
            };
            let mut registry = Registry::connect(&reach).await?;
            let answer = registry.fleet.grant(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            if answer.token.is_empty() {
                screen.hint(&format!(
                    "{identity} is let in by its certificate, as {role}"
                ));
            } else {
                screen.hint(&format!(
                    "{identity} is let in as {role}; this token is said once:"
                ));
                screen.say(&answer.token)?;
            }
        }
        Access::Expel { identity, reach } => {
            let mut registry = Registry::connect(&reach).await?;
            let request = v1::ExpelRequest {
                identity: identity.clone(),
            };
            let answer = registry.fleet.expel(request).await;
            answer.map_err(|status| refused(&status))?;
            screen.say(&format!("{identity} is shut out"))?;
        }
        Access::List { output, reach } => {
            let mut registry = Registry::connect(&reach).await?;
            let answer = registry.fleet.list_grants(v1::ListGrantsRequest {}).await;
            let grants = answer
                .map_err(|status| refused(&status))?
                .into_inner()
                .grants;
            for grant in grants {
                let role = grant.role().as_str_name().trim_start_matches("ROLE_");
                let role = role.to_ascii_lowercase();
                screen.say(&if output == Output::Json {
                    json!({"apiVersion": "exeat/v1", "identity": grant.identity, "role": role, "scope": grant.scope}).to_string()
                } else {
                    format!(
                        "{:<48} {:<9} {}",
                        styled(BOLD, &grant.identity),
                        role,
                        grant.scope.join(" ")
                    )
                })?;
            }
        }
    }
    Ok(Exit::Done)
}
