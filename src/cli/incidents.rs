//! `exeat incident`.

use serde_json::json;

use crate::wire::v1;

use super::{
    args::Output,
    govern::shown,
    reach::{Registry, refused},
    registry_args::Told,
    review::{plain, show},
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
    workflow_args::IncidentCommand,
};

pub(super) async fn incident(command: IncidentCommand, screen: &mut Screen) -> Result<Exit, Exit> {
    match command {
        IncidentCommand::Open {
            id,
            domain,
            title,
            told,
        } => {
            let request = v1::OpenIncidentRequest { id, domain, title };
            let mut registry = Registry::connect(&told.reach).await?;
            let answer = registry.incidents.open_incident(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            list(answer.incident.into_iter().collect(), &told, screen)
        }
        IncidentCommand::Resolve { id, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::ResolveIncidentRequest { id };
            let answer = registry.incidents.resolve_incident(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            list(answer.incident.into_iter().collect(), &told, screen)
        }
        IncidentCommand::List { all, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::ListIncidentsRequest { all };
            let answer = registry.incidents.list_incidents(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            list(answer.incidents, &told, screen)
        }
        IncidentCommand::Close {
            exception,
            relaxed,
            restored,
            lessons,
            told,
        } => {
            let request = v1::CloseOverrideRequest {
                id: exception,
                relaxed,
                restored,
                lessons,
            };
            let mut registry = Registry::connect(&told.reach).await?;
            let answer = registry.exceptions.close_override(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            show(answer.case, &told, screen)
        }
    }
}

fn list(incidents: Vec<v1::Incident>, told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    if told.output != Output::Json {
        let heads = format!(
            "{:<20} {:<9} {:<16} {:<20}  {:<24}  TITLE",
            "INCIDENT", "STATE", "DOMAIN", "OPENED", "OVERRIDES"
        );
        screen.say(&styled(DIM, &heads))?;
    }
    for incident in incidents {
        let over = !incident.resolved_by.is_empty();
        let state = if over { "RESOLVED" } else { "OPEN" };
        if told.output == Output::Json {
            let resolved = over.then(|| shown(incident.resolved));
            let line = json!({"apiVersion": "exeat/v1", "id": incident.id, "state": state, "domain": incident.domain, "title": incident.title, "openedBy": incident.opened_by, "opened": shown(incident.opened), "resolvedBy": incident.resolved_by, "resolved": resolved, "exceptions": incident.exceptions});
            screen.say(&line.to_string())?;
            continue;
        }
        let style = if over { GOOD } else { BAD };
        screen.say(&format!(
            "{:<20} {} {:<16} {:<20}  {:<24}  {}",
            incident.id,
            styled(style, &format!("{state:<9}")),
            incident.domain,
            shown(incident.opened),
            incident.exceptions.join(", "),
            plain(&incident.title)
        ))?;
    }
    Ok(Exit::Done)
}
