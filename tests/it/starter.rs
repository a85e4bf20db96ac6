//! The starter controls: every world decides as `starter-controls.json` says, and every
//! single-field deletion decides as the crate's own interpreter does.

use crate::support::{cel_world, interpret};
use exeat::{
    domain::{ControlState, Verdict},
    engine::{
        World,
        condition::{Names, Roots, compile, on_deep_stack},
    },
    manifest::{Bundle, from_json},
};
use serde_json::Value as Json;

fn reference() -> Json {
    serde_json::from_str(include_str!("../data/starter-controls.json")).expect("JSON")
}

fn set(world: &mut Json, pointer: &str, value: &Json) {
    if value == "INCIDENT_OVERRIDE+overdue" {
        world["exception"]["deviation_type"] = "INCIDENT_OVERRIDE".into();
        world["exception"]["closure_state"] = "OPEN".into();
        world["exception"]["closure_due_time"] = "2026-11-20T00:00:00Z".into();
    } else if value == "__remove__" {
        remove(world, pointer);
    } else {
        *world.pointer_mut(pointer).expect("a place") = value.clone();
    }
}

fn remove(world: &mut Json, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match world.pointer_mut(parent).expect("a parent") {
        Json::Object(entries) => drop(entries.shift_remove(name)),
        Json::Array(items) => drop(items.remove(name.parse().expect("an index"))),
        _ => unreachable!(),
    }
}

/// Pointers to everything below `json`.
fn pointers(json: &Json, at: &str, found: &mut Vec<String>) {
    match json {
        Json::Object(entries) => {
            for (name, value) in entries {
                let at = format!("{at}/{name}");
                pointers(value, &at, found);
                found.push(at);
            }
        }
        Json::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                let at = format!("{at}/{index}");
                pointers(value, &at, found);
                found.push(at);
            }
        }
        _ => {}
    }
}

/// What our evaluator says of a condition in a world with its params.
fn ours(source: &str, world: &Json) -> Verdict {
    let mut world = world.clone();
    let params = from_json(
        &world
            .as_object_mut()
            .expect("a map")
            .shift_remove("params")
            .expect("params"),
    );
    let runtime = source.contains("request.");
    on_deep_stack(move || {
        let mut names = Names::default();
        let roots = if runtime {
            Roots::RUNTIME
        } else {
            Roots::SCHEDULED
        };
        // A parameter that was deleted is found missing when the control is loaded.
        let Ok(condition) = compile(source, roots, &params, &mut names) else {
            return None;
        };
        Some(
            World::parse(&from_json(&world))
                .expect("a world")
                .judge(&condition, &names),
        )
    })
    .expect("no panic")
    .unwrap_or(Verdict::Indeterminate(exeat::domain::Trouble {
        kind: exeat::domain::TroubleKind::MissingAttribute,
        at: 0,
    }))
}

#[test]
fn every_world_decides_as_the_reference_says() {
    let reference = reference();
    let compliant = &reference["compliant_world"];
    let source = |id: &str| {
        let found = reference["controls"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|c| c["id"] == id);
        found.expect("a control")["cel"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    let mut tried = 0;
    for control in reference["controls"].as_array().expect("a list") {
        let id = control["id"].as_str().expect("text");
        assert_eq!(
            ours(&source(id), compliant),
            Verdict::Pass,
            "{id} in the compliant world"
        );
        tried += 1;
    }
    for case in reference["must_fail"].as_array().expect("a list") {
        let (id, pointer) = (
            case[0].as_str().expect("text"),
            case[1].as_str().expect("text"),
        );
        let mut world = compliant.clone();
        set(&mut world, pointer, &case[2]);
        assert_eq!(
            ours(&source(id), &world),
            Verdict::Fail,
            "{id} with {pointer}"
        );
        tried += 1;
    }
    assert_eq!(tried, 21 + 28);
}

#[test]
fn the_example_controls_are_the_reference_s() {
    let bundle = Bundle::read("examples/policy/controls".as_ref()).expect("a bundle");
    let snapshot = bundle.snapshot(1).expect("a snapshot");
    let reference = reference();
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let ours: Vec<_> = snapshot
        .controls()
        .map(|c| (c.id.to_string(), plain(&c.failure_condition)))
        .collect();
    let mut theirs: Vec<_> = reference["controls"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| {
            (
                c["id"].as_str().expect("text").to_owned(),
                plain(c["cel"].as_str().expect("text")),
            )
        })
        .collect();
    theirs.sort();
    assert_eq!(ours, theirs);
    assert!(snapshot.controls().all(|c| c.state == ControlState::Active
        && !c.frameworks.is_empty()
        && !c.remediation.is_empty()));
    assert_eq!(snapshot.controls().filter(|c| c.baseline_gate).count(), 1);
}

#[test]
fn every_single_field_deletion_decides_as_the_interpreter_does() {
    let reference = reference();
    let mut worlds = vec![reference["compliant_world"].clone()];
    for case in reference["must_fail"].as_array().expect("a list") {
        let mut world = reference["compliant_world"].clone();
        set(&mut world, case[1].as_str().expect("text"), &case[2]);
        worlds.push(world);
    }
    let controls: Vec<_> = reference["controls"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| c["cel"].as_str().expect("text").to_owned())
        .collect();
    // The compliant world by each field, the failing ones by each field a step down the first.
    let mut compared = 0;
    for (number, world) in worlds.iter().enumerate() {
        let mut found = Vec::new();
        pointers(world, "", &mut found);
        found.retain(|pointer| {
            pointer != "/now_time" && !pointer.starts_with("/note") && pointer != "/params"
        });
        let every = if number == 0 { 1 } else { 7 };
        for pointer in found.iter().skip(number % every).step_by(every) {
            let mut world = world.clone();
            remove(&mut world, pointer);
            for source in &controls {
                let context = cel_world(&world);
                let theirs = interpret(source, &context);
                let verdict = match ours(source, &world) {
                    Verdict::Pass => Some(false),
                    Verdict::Fail => Some(true),
                    Verdict::Indeterminate(_) => None,
                };
                // Ours refuses at load what theirs may never evaluate; never the other way round.
                let refused = verdict.is_none() && pointer.starts_with("/params");
                assert!(
                    verdict == theirs || refused,
                    "{source}\nwithout {pointer}: ours {verdict:?}, theirs {theirs:?}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 5_000, "{compared}");
}

#[test]
fn nothing_passes_where_nothing_is_known() {
    let reference = reference();
    let mut empty = reference["compliant_world"].clone();
    for root in ["subject", "request", "exception"] {
        empty[root] = Json::Object(serde_json::Map::new());
    }
    for control in reference["controls"].as_array().expect("a list") {
        assert_ne!(
            ours(control["cel"].as_str().expect("text"), &empty),
            Verdict::Pass,
            "{}",
            control["id"]
        );
    }
}
