//! Bundles: taken whole or not at all, with errors at file, line and column.

use std::fs;

use exeat::{
    domain::Kind,
    manifest::{Bundle, schema},
};

const HEAD: &str = "apiVersion: exeat/v1\nkind: Control\nid: AC-1\ntitle: t\nowner: user:o\nseverity: LOW\nenforcement: SOFT_MANDATORY\nevidence_requirements: [{source: s}]\nstate: DRAFT\n";

fn problems(text: &str) -> String {
    let told = |problems: Vec<exeat::manifest::Problem>| {
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    match Bundle::read_beside(None, "a.yaml", text) {
        Err(problems) => told(problems),
        Ok(bundle) => bundle
            .snapshot(1)
            .map_or_else(told, |_| "accepted".to_owned()),
    }
}

/// Whoever wrote it hears of all at once, each with its place; the reader stops at the first.
#[test]
fn everything_that_is_wrong_with_one_manifest_is_named() {
    let text = HEAD
        .replace("user:o", "agent:o")
        .replace("severity: LOW", "severity: SOMETIMES")
        + "failure_condition: 'true'\napplies_to: {resources: ['mcp://x/*'], actions: [a]}\ncolour: red\nschedule: {cron: x, jitter: long}\nevaluation_modes: [RUNTIME, NIGHTLY]\n";
    let told = problems(&text);
    for (line, part) in [
        (5, "is not a person"),
        (6, "SOMETIMES"),
        (11, "wildcard"),
        (12, "unknown field"),
        (13, "`schedule.jitter`: `long`"),
        (14, "NIGHTLY"),
    ] {
        let at = format!("a.yaml:{line}:");
        let found = told
            .lines()
            .any(|known| known.starts_with(&at) && known.contains(part));
        assert!(found, "{line} {part}: {told}");
    }
    assert_eq!(told.matches("a.yaml:").count(), 6, "{told}");
    // Further in, too: which item lacks something.
    let told = problems(
        &(HEAD.replace("[{source: s}]", "[{source: s}, {max_age: 1h}]")
            + "failure_condition: 'true'\nframework_refs:\n- {framework: CSF_2_0}\n"),
    );
    assert!(
        told.contains(
            "a.yaml:8:38: Control AC-1: `evidence_requirements[1]`: missing field `source`"
        ),
        "{told}"
    );
    assert!(
        told.contains("a.yaml:12:3: Control AC-1: `framework_refs[0]`: missing field `ref`"),
        "{told}"
    );
    assert_eq!(told.matches("missing").count(), 2, "{told}");
    // On one line, too; and nothing twice, also where what is unknown is on the lines below.
    let told = problems(
        "{apiVersion: exeat/v1, kind: Group, id: g, members: [user:a, robot, user:b, 'group:x y']}",
    );
    assert_eq!(told.matches("a.yaml:1:").count(), 2, "{told}");
    let told = problems(&format!(
        "{HEAD}failure_condition: 'true'\ncolour:\n  red: 1\n"
    ));
    assert_eq!(told.matches("a.yaml:").count(), 1, "{told}");
    let told = problems(
        &(HEAD.replace("title: t\n", "")
            + "failure_condition: 'true'\nframework_refs: [{framework: CSF_2_0}]\n"),
    );
    assert!(
        told.contains("`framework_refs[0]`: missing field `ref`"),
        "{told}"
    );
    assert!(told.contains("missing field `title`"), "{told}");
    assert_eq!(told.matches("missing").count(), 2, "{told}");
    // What is not applied is told so, and nothing else; and a secret is not repeated, as a key either.
    let told = problems("apiVersion: exeat/v1\nkind: Finding\nid: f\ncolour: red\n");
    assert_eq!(told.matches("a.yaml:").count(), 1, "{told}");
    let secret = format!("ghp_{}", "a".repeat(36));
    let told = problems(&format!(
        "{HEAD}failure_condition: 'true'\n{secret}: nothing\n"
    ));
    assert!(
        told.contains("looks like a secret") && !told.contains(&secret),
        "{told}"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    assert_eq!(
        problems(&format!("{HEAD}failure_condition: 'true'\n")),
        "accepted"
    );
    let with = |line: &str| format!("{HEAD}failure_condition: 'true'\n{line}\n");
    let without = |field: &str| {
        HEAD.lines()
            .filter(|line| !line.starts_with(field))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
            + "failure_condition: 'true'\n"
    };
    for (text, place, part) in [
        (with("colour: red"), "a.yaml:11:1:", "unknown field"),
        (without("owner"), "a.yaml:1:1:", "missing field `owner`"),
        (
            without("evidence"),
            "a.yaml:1:1:",
            "missing field `evidence_requirements`",
        ),
        (
            HEAD.to_owned(),
            "a.yaml:1:1:",
            "missing field `failure_condition`",
        ),
        (
            "apiVersion: exeat/v1\nkind: Control\nid: CT-1\n".to_owned(),
            "a.yaml:1:1:",
            "missing fields `title`, `failure_condition`, `owner`, `evidence_requirements`, `severity`, `enforcement`",
        ),
        (
            HEAD.replace("user:o", "agent:o") + "failure_condition: 'true'\n",
            "a.yaml:5:8:",
            "is not a person",
        ),
        (
            HEAD.replace("[{source: s}]", "[]") + "failure_condition: 'true'\n",
            "a.yaml:8:24:",
            "is empty",
        ),
        (
            with("evaluation_modes: [SCHEDULED]"),
            "a.yaml:1:1:",
            "`schedule`: is missing",
        ),
        (
            with("evaluation_modes: [SCHEDULED]\nschedule: {cron: '* * * *'}"),
            "a.yaml:12:18:",
            "use five fields",
        ),
        (
            with("evaluation_modes: [SCHEDULED]\nschedule: {cron: '0 0 30 2 *'}"),
            "a.yaml:12:18:",
            "never comes",
        ),
        (
            with(
                "evaluation_modes: [SCHEDULED]\nschedule: {cron: '0 0 1 1 *', time_zone: Mars/Olympus}",
            ),
            "a.yaml:12:",
            "IANA time zone",
        ),
        (
            with("framework_refs: [{framework: OWASP_NHI_2025, ref: NHI-03}]"),
            "a.yaml:11:",
            "NHI2:2025",
        ),
        (
            with("framework_refs: [{framework: SOC2, ref: x}]"),
            "a.yaml:11:",
            "not a known framework",
        ),
        (
            with("baseline_gate: true"),
            "a.yaml:11:16:",
            "HARD_MANDATORY",
        ),
        // C8.
        (with("on_error: FINDING_ONLY"), "a.yaml:11:11:", "ADVISORY"),
        (with("state: ACTIVE"), "a.yaml:11:1:", "say it once"),
        (
            HEAD.replace("DRAFT", "ACTIVE") + "failure_condition: 'true'\n",
            "a.yaml:1:1:",
            "test_vectors",
        ),
        (
            format!("{HEAD}failure_condition: subject.ownr.active\n"),
            "a.yaml:10:27:",
            "`ownr` is no attribute of subject",
        ),
        (
            format!("{HEAD}failure_condition: |\n  true &&\n    subject.ownr.active\n"),
            "a.yaml:12:12:",
            "`ownr`",
        ),
        (
            format!("{HEAD}failure_condition: \"1 + 1\"\n"),
            "a.yaml:10:",
            "true or false",
        ),
        (
            with("applies_to: {actions: []}"),
            "a.yaml:11:",
            "list at least one",
        ),
        (
            with("applies_to: {resources: ['mcp://x/*']}"),
            "a.yaml:11:26:",
            "wildcard",
        ),
        (
            HEAD.replace("exeat/v1", "exeat/v2"),
            "a.yaml:1:13:",
            "use `exeat/v1`",
        ),
        (
            HEAD.replace("kind: Control", "kind: Rule"),
            "a.yaml:2:7:",
            "use one of Control",
        ),
        ("a: [1,\n".to_owned(), "a.yaml:", ""),
        (
            format!("{HEAD}failure_condition: 'true'\n---\n{HEAD}failure_condition: 'true'\n"),
            "a.yaml:14:5:",
            "already read",
        ),
    ] {
        let told = problems(&text);
        assert!(
            told.starts_with(place) && told.contains(part),
            "{part}\n{text}\n{told}"
        );
    }
}

#[test]
fn an_exception_is_held_to_its_tier() {
    let bundle = fs::read_to_string("examples/policy/bundle/exceptions.yaml").unwrap();
    let all = |exception: &str| {
        let mut text = fs::read_to_string("examples/policy/bundle/subjects.yaml").unwrap()
            + "\n---\n"
            + &fs::read_to_string("examples/policy/bundle/domains.yaml").unwrap();
        for control in ["exg-mdl-01", "exg-ctx-01", "exg-own-01"] {
            text = text
                + "---\n"
                + &fs::read_to_string(format!("examples/policy/controls/{control}.yaml")).unwrap();
        }
        problems(&(text + "---\n" + exception))
    };
    assert_eq!(all(&bundle), "accepted");
    let changed = |from: &str, to: &str| {
        assert!(bundle.contains(from), "{from}");
        all(&bundle.replacen(from, to, 1))
    };
    for (from, to, part) in [
        (
            "[EXG-MDL-01, EXG-CTX-01]",
            "[EXG-OWN-01]",
            "HARD_MANDATORY and cannot be waived",
        ),
        (
            "[EXG-MDL-01, EXG-CTX-01]",
            "[EXG-NOT-01]",
            "there is no control",
        ),
        ("[EXG-MDL-01, EXG-CTX-01]", "[EXG-*]", "is not a control id"),
        (
            "expire_time: \"2026-11-24T18:00:00Z\"",
            "expire_time: \"2026-12-24T18:00:00Z\"",
            "within tier LOW's maximum",
        ),
        (
            "expire_time: \"2026-11-24T18:00:00Z\"",
            "expire_time: \"2026-11-20T09:00:00Z\"",
            "not after effective_time",
        ),
        (
            "expire_time: \"2026-11-24T18:00:00Z\"\n",
            "",
            "missing field `expire_time`",
        ),
        ("owner: user:alice\n", "", "missing field `owner`"),
        (
            "owner: user:alice",
            "owner: agent:summary",
            "is not a person",
        ),
        (
            "environments: [staging]",
            "environments: [ANY]",
            "wants it listed",
        ),
        (
            "environments: [staging]",
            "environments: []",
            "list at least one",
        ),
        ("tier: LOW", "tier: MODERATE", "lacks facet"),
        (
            "compensating_conditions:\n  - subject.tools.all(t, t.permissions.all(p, p == 'read'))\n",
            "",
            "MITIGATED needs at least one",
        ),
        (
            "domain: claims-eu",
            "domain: claims-us",
            "there is no domain",
        ),
        ("ticket_ref: CLAIMS-881", "ticket_ref: ''", "shorter than 1"),
        (
            "compensating_conditions:\n",
            &("compensating_conditions:\n".to_owned() + &"  - 'true'\n".repeat(16)),
            "at most 16 conditions",
        ),
        (
            "domain: claims-eu",
            "domain: claims-eu\nusage_limits: {max_uses_per_hour: 100001}",
            "is more than 100,000",
        ),
        (
            "domain: claims-eu",
            "domain: claims-eu\nusage_limits: {max_uses: 0}",
            "usage_limits",
        ),
        (
            "request.actor_kind == 'AI_AGENT'",
            "request.actor == 'AI_AGENT'",
            "no attribute of request",
        ),
    ] {
        let told = changed(from, to);
        assert!(told.contains(part), "{from} -> {to}\n{told}");
    }
}

#[test]
fn a_class_may_not_reach_more_subjects_than_the_tier_permits() {
    let subjects = |count: usize| {
        (0..count)
            .map(|n| {
                let subject = fs::read_to_string("examples/policy/bundle/subjects.yaml").unwrap();
                let summary = subject
                    .split("\n---\n")
                    .find(|text| text.contains("agent/summary"))
                    .unwrap()
                    .replace("agent/summary\n", &format!("agent/summary-{n}\n"));
                format!("{summary}\n---\n")
            })
            .collect::<String>()
    };
    let told = |count: usize| {
        let exception = fs::read_to_string("examples/policy/bundle/exceptions.yaml")
            .unwrap()
            .replace(
                "subject_selector: {ids: [\"spiffe://acme.example/claims-eu/agent/summary\"]}",
                "subject_selector: {class_ids: [claims-agents]}",
            );
        let mut text =
            subjects(count) + &fs::read_to_string("examples/policy/bundle/domains.yaml").unwrap();
        for control in ["exg-mdl-01", "exg-ctx-01"] {
            text += &format!(
                "---\n{}",
                fs::read_to_string(format!("examples/policy/controls/{control}.yaml")).unwrap()
            );
        }
        problems(&format!("{text}---\n{exception}"))
    };
    let (within, over) = (told(5), told(6));
    assert_eq!(within, "accepted");
    assert!(over.contains("reaches 6 subjects"), "{over}");
}

#[test]
fn a_tier_policy_may_only_tighten() {
    let told = |tier: &str, line: &str| {
        problems(&format!(
            "apiVersion: exeat/v1\nkind: TierPolicy\ntier: {tier}\n{line}\n"
        ))
    };
    for (tier, line) in [
        ("HIGH", "stale_mode: BEST_EFFORT"),
        ("HIGH", "usage_delivery: BEST_EFFORT"),
        ("MODERATE", "bound_facets: [model]"),
        (
            "HIGH",
            "any_allowed: [actions, resources, environments, purposes]",
        ),
        ("HIGH", "min_evidence: 1"),
        ("HIGH", "max_uses_required: false"),
        ("HIGH", "revalidation_interval: 30d"),
        ("INCIDENT", "lease_ttl: 2m"),
        ("LOW", "max_staleness: 2h"),
        ("LOW", "max_clock_skew: 31s"),
        ("LOW", "facet_max_age: 0s"),
        ("LOW", "max_duration: 367d"),
        ("INCIDENT", "max_duration: 5h"),
    ] {
        let (field, _) = line.split_once(':').unwrap();
        let said = told(tier, line);
        assert!(
            said.starts_with("a.yaml:4:")
                && said.contains(field)
                && (said.contains("only tighten") || said.contains("permits")),
            "{tier} {line}\n{said}"
        );
    }
    for (tier, line) in [
        ("HIGH", "lease_ttl: 30s"),
        ("LOW", "stale_mode: STRICT"),
        ("LOW", "min_evidence: 2"),
        ("MODERATE", "revalidation_interval: 7d"),
    ] {
        assert_eq!(told(tier, line), "accepted", "{tier} {line}");
    }
}

#[test]
fn domains_may_only_tighten() {
    let domain = |id: &str, more: &str| {
        format!(
            "---\napiVersion: exeat/v1\nkind: Domain\nid: {id}\ndisplay_name: d\nowner: user:o\n{more}"
        )
    };
    let told = problems(
        &(domain("a", "when_no_control: DENY\n")
            + &domain("b", "parent: a\nwhen_no_control: ALLOW\n")),
    );
    assert!(told.contains("may only tighten"), "{told}");
    let told = problems(&(domain("a", "parent: b\n") + &domain("b", "parent: a\n")));
    assert!(told.contains("make the domains a tree"), "{told}");
    let told = problems("apiVersion: exeat/v1\nkind: TierPolicy\ntier: HIGH\nlease_ttl: 61s\n");
    assert!(
        told.contains("a.yaml:4:12:") && told.contains("at most 1m"),
        "{told}"
    );
}

#[test]
fn the_same_bytes_give_the_same_digest_every_time() {
    let digest = || {
        Bundle::read("examples/policy".as_ref())
            .unwrap()
            .snapshot(1)
            .unwrap()
            .digest()
            .to_string()
    };
    let first = digest();
    for _ in 0..20 {
        assert_eq!(digest(), first);
    }
    let scratch = tempfile::tempdir().unwrap();
    for name in ["b.yaml", "a.yaml"] {
        fs::copy(
            "examples/policy/bundle/domains.yaml",
            scratch.path().join(name),
        )
        .unwrap_or_default();
        fs::write(
            scratch.path().join(name),
            format!(
                "apiVersion: exeat/v1\nkind: Domain\nid: {}\ndisplay_name: d\nowner: user:o\n",
                &name[..1]
            ),
        )
        .unwrap();
    }
    let one = Bundle::read(scratch.path()).unwrap().digest().clone();
    fs::write(
        scratch.path().join("a.yaml"),
        fs::read_to_string(scratch.path().join("a.yaml")).unwrap() + " \n",
    )
    .unwrap();
    assert_ne!(
        Bundle::read(scratch.path()).unwrap().digest(),
        &one,
        "other bytes, another digest"
    );
}

#[test]
fn schemas_are_draft_07_and_refuse_unknown_fields() {
    // A case is asked for with a request.
    let requests = [(Kind::Case, "Request")];
    let applied = Kind::APPLIED.map(|kind| (kind, kind.name()));
    for (kind, title) in applied.into_iter().chain(requests) {
        let schema = schema(kind);
        assert_eq!(
            schema["$schema"],
            "http://json-schema.org/draft-07/schema#",
            "{}",
            kind.name()
        );
        assert_eq!(schema["additionalProperties"], false, "{}", kind.name());
        assert_eq!(schema["title"], title);
    }
}

#[test]
fn hostile_yaml_is_refused() {
    let bomb = format!(
        "apiVersion: exeat/v1\nkind: Control\na0: &a0 [x,x,x,x,x,x,x,x,x]\n{}",
        (1..12)
            .map(|n| format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 9].join(",")
            ))
            .collect::<String>()
    );
    assert_ne!(problems(&bomb), "accepted");
    assert_ne!(
        problems(&format!(
            "apiVersion: exeat/v1\nkind: Control\nx: {}",
            "[".repeat(10_000)
        )),
        "accepted"
    );
    assert_ne!(
        problems(&format!(
            "{HEAD}failure_condition: \"{}\"\n",
            "(".repeat(100_000)
        )),
        "accepted"
    );
}

#[test]
fn a_manifest_in_a_file_that_is_taken_for_a_suite_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(
        scratch.path().join("a.yaml"),
        format!("{HEAD}failure_condition: 'true'\n"),
    )
    .unwrap();
    fs::write(
        scratch.path().join("pii_test.yaml"),
        "suite: s\nnow: x\ntests: []\n",
    )
    .unwrap();
    assert!(Bundle::read(scratch.path()).is_ok());
    fs::write(scratch.path().join("pii_test.yaml"), HEAD).unwrap();
    let told = Bundle::read(scratch.path()).unwrap_err()[0].to_string();
    assert!(
        told.starts_with("pii_test.yaml: holds a manifest"),
        "{told}"
    );
    fs::remove_file(scratch.path().join("pii_test.yaml")).unwrap();
    // Requests are asked with and not applied; whatever else is called so is told.
    let request = scratch.path().join("pii_request.yaml");
    fs::write(&request, "apiVersion: exeat/v1\nkind: Request\n").unwrap();
    assert!(Bundle::read(scratch.path()).is_ok());
    for wrong in [
        HEAD.to_owned(),
        format!("apiVersion: exeat/v1\nkind: Request\n---\n{HEAD}"),
    ] {
        fs::write(&request, wrong).unwrap();
        let told = Bundle::read(scratch.path()).unwrap_err()[0].to_string();
        assert!(
            told.starts_with("pii_request.yaml: holds a manifest"),
            "{told}"
        );
    }
}
