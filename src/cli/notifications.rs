//! `exeat notification`.

use serde_json::json;

use crate::wire::v1;

use super::{
    args::Output,
    govern::shown,
    reach::{Registry, refused},
    registry_args::Told,
    run::Exit,
    screen::{BAD, DIM, GOOD, Screen, styled},
    workflow_args::NotificationCommand,
};

pub(super) async fn notification(
    command: NotificationCommand,
    screen: &mut Screen,
) -> Result<Exit, Exit> {
    match command {
        NotificationCommand::Endpoints { told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::ListEndpointsRequest {};
            let answer = registry.notifications.list_endpoints(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            endpoints(&answer.endpoints, &told, screen)
        }
        NotificationCommand::List {
            endpoint,
            state,
            lines,
            told,
        } => {
            let request = v1::ListDeliveriesRequest {
                endpoint,
                state,
                page_size: lines,
                page_token: String::new(),
            };
            let mut registry = Registry::connect(&told.reach).await?;
            let answer = registry.notifications.list_deliveries(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            deliveries(&answer.deliveries, &told, screen)
        }
        NotificationCommand::Retry { endpoint, id, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::RedeliverRequest { endpoint, id };
            let answer = registry.notifications.redeliver(request).await;
            let count = answer
                .map_err(|status| refused(&status))?
                .into_inner()
                .count;
            if told.output == Output::Json {
                screen.say(&json!({"apiVersion": "exeat/v1", "count": count}).to_string())?;
            } else {
                screen.say(&format!("{count} tried again"))?;
            }
            Ok(Exit::Done)
        }
        NotificationCommand::Test { endpoint, told } => {
            let mut registry = Registry::connect(&told.reach).await?;
            let request = v1::TestEndpointRequest {
                endpoint: endpoint.clone(),
            };
            let answer = registry.notifications.test_endpoint(request).await;
            let id = answer.map_err(|status| refused(&status))?.into_inner().id;
            if told.output == Output::Json {
                screen.say(&json!({"apiVersion": "exeat/v1", "id": id}).to_string())?;
            } else {
                screen.say(&id)?;
                screen.hint(&format!(
                    "what came of it: exeat notification list --endpoint {endpoint}"
                ));
            }
            Ok(Exit::Done)
        }
    }
}

fn endpoints(found: &[v1::Endpoint], told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    if told.output != Output::Json {
        let heads = format!(
            "{:<20} {:<12} {:>8} {:>6}  PLACE",
            "ENDPOINT", "FORMAT", "WAITING", "DEAD"
        );
        screen.say(&styled(DIM, &heads))?;
    }
    for endpoint in found {
        let v1::Endpoint {
            name,
            place,
            format,
            waiting,
            dead,
            gone,
        } = endpoint;
        if told.output == Output::Json {
            let line = json!({"apiVersion": "exeat/v1", "name": name, "place": place, "format": format, "waiting": waiting, "dead": dead, "gone": gone});
            screen.say(&line.to_string())?;
            continue;
        }
        let style = if *dead > 0 || *gone { BAD } else { GOOD };
        let ended = if *gone {
            "  receives nothing any more"
        } else {
            ""
        };
        screen.say(&format!(
            "{name:<20} {format:<12} {waiting:>8} {}  {place}{ended}",
            styled(style, &format!("{dead:>6}"))
        ))?;
    }
    Ok(Exit::Done)
}

fn deliveries(found: &[v1::Delivery], told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    if told.output != Output::Json {
        let heads = format!(
            "{:<20} {:<9} {:>5}  {:<14} {:<28} {:<16} {:<28}  WHY",
            "TIME", "STATE", "TRIED", "ENDPOINT", "WHAT", "ABOUT", "ID"
        );
        screen.say(&styled(DIM, &heads))?;
    }
    for delivery in found {
        let v1::Delivery {
            endpoint,
            id,
            r#type,
            about,
            time,
            state,
            attempts,
            next,
            why,
        } = delivery;
        if told.output == Output::Json {
            let line = json!({"apiVersion": "exeat/v1", "endpoint": endpoint, "id": id, "type": r#type, "about": about, "time": shown(*time), "state": state, "attempts": attempts, "next": shown(*next), "why": why});
            screen.say(&line.to_string())?;
            continue;
        }
        let style = match state.as_str() {
            "DELIVERED" => GOOD,
            "DEAD" => BAD,
            _ => DIM,
        };
        screen.say(&format!(
            "{:<20} {} {attempts:>5}  {endpoint:<14} {type:<28} {about:<16} {id:<28}  {why}",
            shown(*time),
            styled(style, &format!("{state:<9}")),
            r#type = r#type
        ))?;
    }
    Ok(Exit::Done)
}
