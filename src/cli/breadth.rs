//! How much a request asks for, in a sentence and at a glance.

use serde_json::Value as Json;

use crate::wire::access::exact;

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

/// Names in a sentence.
fn named(entries: &[&str]) -> String {
    let Some((last, before)) = entries.split_last() else {
        return "anything".into();
    };
    let last = plain(last);
    match before {
        [] => last,
        before => format!("{} and {last}", plain(&before.join(", "))),
    }
}

/// What is asked for, in a sentence.
pub(super) fn wants(request: &Json, controls: &[String]) -> String {
    let controls: Vec<_> = controls.iter().map(String::as_str).collect();
    let of = |dimension| named(&entries(request, dimension));
    let class = request.pointer("/scope/subject_selector/class_ids");
    let class = class
        .and_then(Json::as_array)
        .is_some_and(|it| !it.is_empty());
    let everybody = if class { "everybody of class " } else { "" };
    format!(
        "waive {} for {everybody}{}: {} on {}, in {}, for {}",
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
    let mut wide = 0;
    let parts = DIMENSIONS.map(|(dimension, one)| {
        let entries = entries(request, dimension);
        let class = request.pointer(&format!("/scope/{dimension}/class_ids"));
        let class = class
            .and_then(Json::as_array)
            .is_some_and(|it| !it.is_empty());
        let single = |entry: &&&str| exact(entry).is_some();
        let names = entries.iter().filter(single).count();
        let patterns = entries.len().saturating_sub(names);
        if class || entries.len() != 1 || patterns > 0 {
            wide += 1;
        }
        let many = |n: usize, what: &str| {
            let s = if n == 1 { "" } else { "s" };
            format!("{n} {what}{s}")
        };
        match (class, names, patterns) {
            (true, ..) => "a class".to_owned(),
            (_, 0, 0) => format!("any {one}"),
            (_, names, 0) => many(names, one),
            (_, 0, patterns) => many(patterns, &format!("{one} pattern")),
            (_, names, patterns) => format!("{}, {}", many(names, one), many(patterns, "pattern")),
        }
    });
    let cells = DIMENSIONS.len();
    let meter = "▓".repeat(wide) + &"░".repeat(cells.saturating_sub(wide));
    let (style, word) = match wide {
        0 | 1 => (GOOD, "narrow"),
        2 | 3 => (BAD, "wide"),
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
        for (request, told) in [
            (
                request(json!({"ids": ["a"]}), json!(["call"]), json!(["t"])),
                "░░░░░ narrow — 1 subject · 1 action · 1 resource · 1 environment · 1 purpose",
            ),
            (
                request(json!({"ids": ["a"]}), json!(["call"]), json!(["crm/"])),
                "▓░░░░ narrow — 1 subject · 1 action · 1 resource pattern · 1 environment · 1 purpose",
            ),
            (
                request(
                    json!({"class_ids": ["c"]}),
                    json!(["x", "mcp/"]),
                    json!(["ANY"]),
                ),
                "▓▓▓░░ wide — a class · 1 action, 1 pattern · 1 resource pattern · 1 environment · 1 purpose",
            ),
        ] {
            assert_eq!(breadth(&request), told);
        }
    }
}
