//! `exeat queue`.

use serde_json::json;

use crate::wire::v1::{self, QueueKind};

use super::{
    args::Output,
    govern::shown,
    reach::{Registry, refused},
    registry_args::Told,
    run::Exit,
    screen::{BAD, DIM, Screen, styled},
};

pub(super) async fn queue(told: &Told, screen: &mut Screen) -> Result<Exit, Exit> {
    let mut registry = Registry::connect(&told.reach).await?;
    if told.output != Output::Json {
        let heads = format!(
            "{:<20}  {:<9} {:<30} {:<16}  WHY",
            "DUE", "KIND", "WHAT", "OWNER"
        );
        screen.say(&styled(DIM, &heads))?;
    }
    let (mut page_token, mut overdue) = (String::new(), false);
    loop {
        let request = v1::ListQueueRequest {
            page_size: 1_000,
            page_token,
        };
        let answer = registry.reports.list_queue(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        for item in &answer.items {
            overdue |= item.overdue;
            screen.say(&line(item, told.output))?;
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(if overdue { Exit::No } else { Exit::Done })
}

fn line(item: &v1::QueueItem, output: Output) -> String {
    let kind = item.kind().as_str_name();
    let kind = kind.strip_prefix("QUEUE_KIND_").unwrap_or(kind);
    if output == Output::Json {
        let line = json!({"apiVersion": "exeat/v1", "kind": kind, "exception": item.exception_id, "control": item.control_id, "subject": item.subject, "owner": item.owner, "what": item.what, "due": item.due.map(|due| shown(Some(due))), "overdue": item.overdue});
        return line.to_string();
    }
    let due = item.due.map_or_else(|| "-".into(), |due| shown(Some(due)));
    let what = if item.kind() == QueueKind::Finding {
        format!("{} {}", item.control_id, item.subject)
    } else {
        item.exception_id.clone()
    };
    let due = format!("{due:<20}");
    let due = if item.overdue { styled(BAD, &due) } else { due };
    format!(
        "{due}  {kind:<9} {what:<30} {:<16}  {}",
        item.owner, item.what
    )
}
