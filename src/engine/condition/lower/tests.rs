use crate::{
    domain::Value,
    engine::condition::{Names, Roots, compile, on_deep_stack},
};

fn refused(source: &str) -> String {
    on_deep_stack(|| {
        compile(
            source,
            Roots::RUNTIME,
            &Value::map([]),
            &mut Names::default(),
        )
        .map(|_| ())
    })
    .expect("no panic")
    .expect_err(source)
    .to_string()
}

#[test]
fn a_fault_points_at_its_place() {
    assert_eq!(
        refused("subject.risk_tier == 'HIGH' &&\n  subject.modle.deprecated")
            .lines()
            .take(3)
            .collect::<Vec<_>>()
            .join("\n"),
        "2:10: `modle` is no attribute of subject; there are id, kind, class_id, domain, region, environment, owner, backup_owner, purpose, risk_tier, data_sensitivity, lifecycle_state, model, lineage, tools, prompts, data_sources, credentials, approvals, fingerprint, metadata_update_time, heartbeat_time\n  |   subject.modle.deprecated\n  |          ^"
    );
}

#[test]
fn what_cannot_be_is_refused_at_load() {
    for (source, part) in [
        ("", "empty"),
        ("1 + 1", "must be true or false"),
        ("subject.risk_tier > 3", "do not compare"),
        ("subject.risk_tier == null", "use has()"),
        ("request.nothing == 'x'", "no attribute of request"),
        ("subject.owner.upper() == 'A'", "not supported"),
        ("exception.tier == 'LOW'", "known only in scheduled runs"),
        ("subject.id.matches('(')", "pattern is refused"),
        (
            "subject.id.matches('((a{1000}){1000}){1000}')",
            "pattern is refused",
        ),
        (
            "now - subject.heartbeat_time > duration('90d')",
            "no unit `d`",
        ),
        ("1 / 0 == 1", "can never be evaluated"),
        ("params.x == 1", "not among the params"),
        ("subject.id + 'x' == 'y'", "no new texts"),
        (
            "subject.tools.exists(t, t.nmae == 'x')",
            "no attribute of tool",
        ),
        (
            "request.context.a.all(a, request.context.b.all(b, request.context.c.all(c, a == b)))",
            "steps",
        ),
        ("has(subject)", "field selection"),
        ("subject.tools.exists(t, t in subject.tools)", "is never in"),
        ("subject.tools == subject.tools", "do not compare"),
        (
            "resource.credentials.exists(c, c.exposed)",
            "nobody says whether",
        ),
    ] {
        let message = refused(source);
        assert!(message.contains(part), "{source}: {message}");
    }
}

#[test]
fn hostile_sources_are_refused_quickly() {
    let deep = format!("{}1{} == 1", "(".repeat(5_000), ")".repeat(5_000));
    let wide = vec!["1"; 4_000].join(" + ");
    let chain = format!("{} == 1", vec!["1"; 400].join("+"));
    let nots = format!("{}true", "!".repeat(1_500));
    let selects = format!("request.context{}", ".a".repeat(900));
    let ternary = format!("{}true", "true ? true : ".repeat(140));
    for source in [
        deep,
        wide,
        chain,
        selects,
        ternary,
        "(((((".into(),
        "\u{0}".into(),
        "x".repeat(1 << 20),
    ] {
        let message = refused(&source);
        assert!(message.len() < 4_000, "{}", message.len());
    }
    let _ = on_deep_stack(|| {
        compile(
            &nots,
            Roots::RUNTIME,
            &Value::map([]),
            &mut Names::default(),
        )
        .is_ok()
    })
    .expect("no panic");
}
