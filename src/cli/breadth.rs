//! How much a request asks for, in a sentence and at a glance.

use serde_json::Value as Json;

use super::{
    review::plain,
    screen::{BAD, GOOD, styled},
};

/// A dimension of a scope, and how one of it is called.
const DIMENSIONS: [(&str, &str); 5] = [
    ("subject_selector", "subject"),
    ("actions", "action"),
    ("resources", "resource"),
    ("environments", "environment"),
    ("purposes", "purpose"),
];

/// What a dimension holds.
fn entries<'a>(request: &'a Json, dimension: &str) -> Vec<&'a str> {
    let lists: &[&str] = if dimension == "subject_selector" {
        &["/ids", "/class_ids"]
    } else {
        &[""]
    };
    let lists = lists.iter().filter_map(|list| {
        let list = request.pointer(&format!("/scope/{dimension}{list}"))?;
        list.as_array()
    });
    lists.flatten().filter_map(Json::as_str).collect()
}

/// Names in a sentence; one that could be read as more than a name is in quotes.
fn named(entries: &[&str]) -> String {
    let one = |entry: &&str| {
        let odd = |c: char| c.is_whitespace() || matches!(c, ',' | '"' | ';' | '(' | ')');
        let entry = plain(entry);
        if entry.is_empty() || entry.contains(odd) {
            Json::from(entry).to_string()
        } else {
            entry
        }
    };
    let entries: Vec<_> = entries.iter().map(one).collect();
    match entries.split_last() {
        None => "anything".into(),
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

/// What is asked for, in a sentence; `lasts` says for how long.
pub(super) fn wants(request: &Json, controls: &[String], lasts: &str) -> String {
    let controls: Vec<_> = controls.iter().map(String::as_str).collect();
    let of = |dimension| named(&entries(request, dimension));
    let class = request.pointer("/scope/subject_selector/class_ids");
    let class = class
        .and_then(Json::as_array)
        .is_some_and(|it| !it.is_empty());
    let everybody = if class { "everybody of class " } else { "" };
    let condition = request.pointer("/scope/match_condition");
    let only = condition.filter(|it| it.is_string());
    let only = only.map_or("", |_| ", only if its condition holds");
    format!(
        "waive {} for {everybody}{}: {} on {}, in {}, for {}{only}; {lasts}",
        named(&controls),
        of("subject_selector"),
        of("actions"),
        of("resources"),
        of("environments"),
        of("purposes")
    )
}

/// How wide it is: a mark for each dimension that holds for more than one name, and how many names
/// each holds for.
pub(super) fn breadth(request: &Json) -> String {
    let (mut wide, mut any) = (0, false);
    let parts = DIMENSIONS.map(|(dimension, one)| {
        let entries = entries(request, dimension);
        let class = request.pointer(&format!("/scope/{dimension}/class_ids"));
        let class = class
            .and_then(Json::as_array)
            .is_some_and(|it| !it.is_empty());
        let all = entries.contains(&"ANY");
        // Of resources that is everything below.
        let below = |entry: &&&str| dimension == "resources" && entry.ends_with('/');
        let patterns = entries.iter().filter(below).count();
        let names = entries.len().saturating_sub(patterns);
        any |= class || all;
        if class || all || entries.len() != 1 || patterns > 0 {
            wide += 1;
        }
        let many = |n: usize, what: &str| {
            let s = if n == 1 { "" } else { "s" };
            format!("{n} {what}{s}")
        };
        match (class, all, names, patterns) {
            (true, ..) => "a whole class".to_owned(),
            (_, true, ..) => format!("any {one}"),
            (.., names, 0) => many(names, one),
            (.., 0, patterns) => format!("{} and all below", many(patterns, one)),
            (.., names, patterns) => {
                format!("{}, {} and all below", many(names, one), patterns)
            }
        }
    });
    let cells = DIMENSIONS.len();
    let meter = "▓".repeat(wide) + &"░".repeat(cells.saturating_sub(wide));
    let (style, word) = match wide {
        0 | 1 if !any => (GOOD, "narrow"),
        0..=3 => (BAD, "wide"),
        _ => (BAD, "very wide"),
    };
    format!("{} {word} — {}", styled(style, &meter), parts.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_dimension_that_holds_for_more_than_one_name_is_marked() {
        let request = |subjects: Json, actions: Json, resources: Json| {
            json!({"scope": {
                "subject_selector": subjects, "actions": actions, "resources": resources,
                "environments": ["prod"], "purposes": ["work"],
            }})
        };
        // Without what colours it.
        let bare = |text: &str| -> String {
            let mut parts = text.split('\u{1b}');
            let first = parts.next().unwrap_or_default().to_owned();
            let rest = parts.filter_map(|part| part.split_once('m'));
            rest.fold(first, |text, (_, part)| text + part)
        };
        for (request, told) in [
            (
                request(json!({"ids": ["a"]}), json!(["call"]), json!(["t"])),
                "░░░░░ narrow — 1 subject · 1 action · 1 resource · 1 environment · 1 purpose",
            ),
            (
                request(json!({"ids": ["a"]}), json!(["call"]), json!(["crm/"])),
                "▓░░░░ narrow — 1 subject · 1 action · 1 resource and all below · 1 environment · 1 purpose",
            ),
            (
                request(
                    json!({"class_ids": ["c"]}),
                    json!(["x", "mcp/"]),
                    json!(["t", "crm/"]),
                ),
                "▓▓▓░░ wide — a whole class · 2 actions · 1 resource, 1 and all below · 1 environment · 1 purpose",
            ),
            (
                request(json!({"ids": ["a"]}), json!(["call"]), json!(["ANY"])),
                "▓░░░░ wide — 1 subject · 1 action · any resource · 1 environment · 1 purpose",
            ),
        ] {
            assert_eq!(bare(&breadth(&request)), told);
        }
        // A name that reads like more than one is told apart.
        let forged = request(
            json!({"ids": ["a"]}),
            json!(["call"]),
            json!(["t, in dev, for fun"]),
        );
        assert_eq!(
            wants(&forged, &["C".to_owned()], "4h from its approval"),
            "waive C for a: call on \"t, in dev, for fun\", in prod, for work; 4h from its approval"
        );
    }
}
