//! `exeat control`: controls that run by themselves, and those that are to deny less.

use serde_json::{Value as Json, json};

use crate::wire::v1;

use super::{
    args::Output,
    coverage,
    exceptions::one,
    findings,
    govern::{differing, shown},
    reach::{Registry, refused},
    registry_args::Told,
    run::Exit,
    screen::{BOLD, DIM, Screen, styled},
    workflow_args::ControlCommand,
};

pub(super) async fn control(command: ControlCommand, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        ControlCommand::Run {
            control,
            dry_run,
            told,
        } => findings::run(control, dry_run, &told, screen).await,
        ControlCommand::History { control, told } => {
            findings::history(control, &told, screen).await
        }
        ControlCommand::Coverage {
            framework,
            gaps,
            told,
        } => coverage::coverage(framework, gaps, &told, screen).await,
        ControlCommand::Propose {
            file,
            remove,
            reason,
            told,
        } => {
            let request = v1::ProposeControlRequest {
                file: file.map(one).transpose()?,
                remove: remove.unwrap_or_default(),
                reason,
            };
            let mut registry = Registry::connect(&told.reach).await?;
            let answer = registry.controls.propose_control(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            show(answer.proposal, &told, screen)
        }
        ControlCommand::Proposals { all, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::ListProposalsRequest {
                id: String::new(),
                all,
            };
            let answer = registry.controls.list_proposals(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            list(&answer.proposals, &told, screen)
        }
        ControlCommand::Show { id, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::ListProposalsRequest { id, all: true };
            let answer = registry.controls.list_proposals(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            show(answer.proposals.into_iter().next(), &told, screen)
        }
        ControlCommand::Approve { decides } => decide(decides, true, screen).await,
        ControlCommand::Deny { decides } => decide(decides, false, screen).await,
        ControlCommand::Withdraw { id, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::WithdrawProposalRequest { id };
            let answer = registry.controls.withdraw_proposal(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            show(answer.proposal, &told, screen)
        }
    }
}

async fn decide(
    decides: super::workflow_args::DecidesProposal,
    approve: bool,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    let super::workflow_args::DecidesProposal {
        id,
        digest,
        comment,
        told,
    } = decides;
    let request = v1::DecideProposalRequest {
        id,
        approve,
        comment,
        digest,
    };
    let mut registry = Registry::connect(&told.reach).await?;
    let answer = registry.controls.decide_proposal(request).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    show(answer.proposal, &told, screen)
}

fn told_json(proposal: &v1::Proposal) -> Json {
    let record: Json = serde_json::from_str(&proposal.record).unwrap_or_default();
    json!({"apiVersion": "exeat/v1", "id": proposal.id, "state": proposal.state, "control": proposal.control_id, "weakens": proposal.weakens, "openRoles": proposal.open_roles, "deadline": shown(proposal.deadline), "digest": proposal.digest, "record": record})
}

fn list(proposals: &[v1::Proposal], told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    if told.output != Output::Json {
        let heads = format!(
            "{:<10} {:<10} {:<20} {:<20}  {:<30}  HOW",
            "PROPOSAL", "STATE", "CONTROL", "UNTIL", "WAITS FOR"
        );
        screen.say(&styled(DIM, &heads))?;
    }
    for proposal in proposals {
        if told.output == Output::Json {
            screen.say(&told_json(proposal).to_string())?;
            continue;
        }
        screen.say(&format!(
            "{:<10} {:<10} {:<20} {:<20}  {:<30}  {}",
            proposal.id,
            proposal.state,
            proposal.control_id,
            shown(proposal.deadline),
            proposal.open_roles.join(", "),
            proposal.weakens
        ))?;
    }
    Ok(Exit::Done)
}

fn show(proposal: Option<v1::Proposal>, told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    let proposal = proposal.unwrap_or_default();
    if told.output == Output::Json {
        screen.say(&told_json(&proposal).to_string())?;
        return Ok(Exit::Done);
    }
    screen.say(&format!(
        "{}  {}  {}",
        styled(BOLD, &proposal.id),
        proposal.state,
        proposal.control_id
    ))?;
    for (what, text) in [
        ("denies less", proposal.weakens.as_str()),
        ("why", &proposal.reason),
        ("proposed by", &proposal.proposer),
        ("until", &shown(proposal.deadline)),
        ("waits for", &proposal.open_roles.join(", ")),
        ("digest", &proposal.digest),
    ] {
        if !text.is_empty() {
            screen.say(&format!("  {} {text}", styled(DIM, &format!("{what:<12}"))))?;
        }
    }
    let record: Json = serde_json::from_str(&proposal.record).unwrap_or_default();
    let voices = record.get("voices").and_then(Json::as_array);
    for voice in voices.into_iter().flatten() {
        let text = |field: &str| voice.get(field).and_then(Json::as_str).unwrap_or_default();
        let yes = voice.get("approves").and_then(Json::as_bool) == Some(true);
        let said = if yes { "approves" } else { "denies" };
        screen.say(&format!(
            "  {} {said} as {}: {}",
            text("approver"),
            text("role"),
            text("comment")
        ))?;
    }
    if proposal.state == "PENDING" {
        for line in differing(&proposal.before, &proposal.after) {
            screen.say(&line)?;
        }
    }
    Ok(Exit::Done)
}
