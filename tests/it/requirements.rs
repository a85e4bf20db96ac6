//! Which test proves which requirement (governance §4) and named edge case (§5), and what of them
//! is still open. The table is kept complete by the test below it.

use std::{collections::BTreeSet, fs};

/// A requirement or edge case: the tests that prove it, and what of it is not there yet.
struct Row(&'static str, &'static [&'static str], &'static str);

const REQUIREMENTS: &[Row] = &[
    Row(
        "R1",
        &[
            "bundle::what_is_wrong_is_named_with_its_place",
            "weakening::r1_nobody_who_left_owns_a_control",
        ],
        "whether an owner is known at all is not asked where nobody governs people",
    ),
    Row(
        "R2",
        &[
            "findings::a_control_runs_when_it_is_due_and_what_was_missed_is_caught_up_once",
            "findings::r2_a_run_that_cannot_be_done_is_a_finding_until_it_is",
        ],
        "",
    ),
    Row(
        "R3",
        &[
            "properties::r3_a_list_nobody_reported_is_no_pass_whatever_the_control_says_of_its_evidence",
            "findings::what_cannot_be_told_is_a_finding_and_what_is_gone_has_none",
        ],
        "",
    ),
    Row(
        "R4",
        &["findings::r4_a_run_says_of_each_subject_what_a_question_is_told"],
        "",
    ),
    Row(
        "R5",
        &["findings::an_exception_changes_the_disposition_and_never_the_finding_nor_its_time"],
        "",
    ),
    Row(
        "R6",
        &[
            "governance::low_is_automatic_within_a_budget_and_never_in_production",
            "report::r6_a_report_tells_reviews_avoided_and_how_soon_what_was_taken_back_was",
        ],
        "",
    ),
    Row(
        "R7",
        &[
            "ledger::l4_every_changed_bit_and_every_missing_doubled_or_swapped_line_is_found",
            "ledger::l3_a_registry_whose_file_was_changed_does_not_begin",
            "usage::l4_usage_records_are_those_that_the_ledger_speaks_of",
        ],
        "",
    ),
    Row(
        "R8",
        &[
            "findings::r8_one_queue_holds_what_waits_for_people_and_nothing_else",
            "incidents::what_is_overdue_blocks_the_next_override_of_its_domain",
            "notifications::each_step_of_an_exception_is_told_signed_and_in_order",
            "notifications::new_terms_are_told_anew",
        ],
        "",
    ),
    Row(
        "R9",
        &[
            "properties::r36_a_changed_facet_is_named_and_an_absent_one_counts_as_changed",
            "demand::r9_what_a_caller_sees_to_differ_is_reported_and_kept_beside_what_is_governed",
        ],
        "",
    ),
    Row(
        "R10",
        &[
            "governance::what_waits_lapses_is_withdrawn_or_amended_and_survives_a_restart",
            "telemetry::a_registry_tells_of_steps_and_runs",
        ],
        "",
    ),
    Row(
        "R11",
        &[
            "governance::what_may_not_be_granted_is_refused_with_its_field",
            "bundle::a_class_may_not_reach_more_subjects_than_the_tier_permits",
        ],
        "",
    ),
    Row(
        "R12",
        &[
            "report::r12_a_report_counts_what_is_and_was",
            "report::r12_a_report_is_about_a_domain_and_what_is_below_it",
            "report::r12_a_report_is_made_on_a_schedule_and_what_was_missed_is_made_up_for",
        ],
        "",
    ),
    Row(
        "R13",
        &[
            "sidecar::explain_replays_a_decision_and_shows_it_to_its_subject",
            "justify::r13_a_decision_is_explained_as_of_its_moment_and_comes_out_again",
            "justify::r13_a_record_that_lies_does_not_come_out_again",
        ],
        "a decision without an exception is explained by its sidecar alone",
    ),
    Row(
        "R14",
        &[
            "governance::r14_an_end_is_an_end_where_no_timer_runs",
            "properties::r14_one_instant_before_the_end_allows_and_the_end_itself_denies",
            "sidecar::r14_the_end_of_an_exception_denies_over_the_wire",
        ],
        "",
    ),
    Row(
        "R15",
        &[
            "governance::one_takes_back_what_many_granted_and_so_does_the_system",
            "governance::r15_an_owner_who_was_not_attested_lately_owns_nothing",
        ],
        "",
    ),
    Row(
        "R16",
        &[
            "lifecycle::approval_moves_no_window_and_outlives_no_evidence",
            "usage::e4_without_a_spool_no_exception_holds_and_compliant_calls_go_on",
            "usage::r16_too_many_attempts_beyond_the_scope_suspend_it",
        ],
        "",
    ),
    Row(
        "R17",
        &[
            "follow::everything_that_can_be_revoked_takes_its_exceptions_along",
            "events::a_provider_that_revokes_is_heard",
        ],
        "",
    ),
    Row(
        "R18",
        &[
            "report::r18_evergreen_exceptions_are_told",
            "report::r42_the_owner_hears_of_it_and_the_next_one_needs_the_domain_owner",
            "usage::what_is_not_used_is_closed_and_what_is_used_up_too",
            "report::r18_a_report_tells_what_is_unused_unneeded_and_nearly_missed",
            "notifications::r18_the_first_attempt_beyond_a_scope_is_told",
        ],
        "",
    ),
    Row(
        "R19",
        &["bundle::what_is_wrong_is_named_with_its_place"],
        "",
    ),
    Row(
        "R20",
        &["findings::what_cannot_be_told_is_a_finding_and_what_is_gone_has_none"],
        "",
    ),
    Row(
        "R21",
        &[
            "starter::every_world_decides_as_the_reference_says",
            "evasion::a_secret_in_a_request_is_not_kept",
            "evasion::a_secret_is_kept_nowhere",
        ],
        "",
    ),
    Row(
        "R22",
        &["findings::a_control_runs_when_it_is_due_and_what_was_missed_is_caught_up_once"],
        "",
    ),
    Row(
        "R23",
        &["sidecar::it_answers_over_tcp_and_the_unix_socket_at_once"],
        "",
    ),
    Row(
        "R24",
        &["registry::every_object_has_its_history_and_lists_come_in_pages"],
        "",
    ),
    Row(
        "R25",
        &[
            "evasion::renewals_are_counted_whatever_came_between",
            "governance::domains_tighten_and_each_has_its_say",
            "usage::a_renewal_tells_how_what_it_goes_on_from_was_used_and_what_differs",
        ],
        "",
    ),
    Row(
        "R26",
        &[
            "usage::r26_a_use_is_told_to_the_registry_which_tells_its_scope_again",
            "usage::e2_records_outlive_both_processes_and_are_counted_once",
            "usage::e3_a_record_that_was_damaged_on_disk_is_a_gap_that_the_registry_shows",
            "telemetry::every_denial_and_every_use_has_its_span_and_its_events_once",
            "telemetry::a_use_is_linked_to_its_approval",
        ],
        "",
    ),
    Row(
        "R27",
        &[
            "governance::an_exception_is_requested_decided_used_looked_at_again_and_ends",
            "governance::one_takes_back_what_many_granted_and_so_does_the_system",
            "governance::t12_an_exception_waits_for_a_baseline_gate_and_goes_on_by_itself",
        ],
        "",
    ),
    Row(
        "R28",
        &[
            "governance::an_exception_is_requested_decided_used_looked_at_again_and_ends",
            "ledger::l3_a_registry_whose_file_was_changed_does_not_begin",
            "governance::r28_nobody_applies_an_exception_by_hand",
        ],
        "",
    ),
    Row(
        "R29",
        &[
            "incidents::who_is_on_call_begins_alone_only_where_every_domain_says_so",
            "notifications::r29_who_was_skipped_is_told",
        ],
        "",
    ),
    Row(
        "R30",
        &[
            "findings::r30_exceptions_are_themselves_under_control",
            "findings::r30_how_an_exception_is_used_is_under_control_too",
        ],
        "",
    ),
    Row(
        "R31",
        &[
            "demand::r31_an_instance_registers_itself_and_is_governed_by_its_class",
            "follow::s3_without_the_registry_exceptions_end_at_the_lease_and_compliant_calls_go_on",
        ],
        "",
    ),
    Row(
        "R32",
        &[
            "governance::low_is_automatic_within_a_budget_and_never_in_production",
            "report::r12_a_report_counts_what_is_and_was",
        ],
        "",
    ),
    Row(
        "R33",
        &[
            "governance::domains_tighten_and_each_has_its_say",
            "lifecycle::domains_only_tighten",
        ],
        "",
    ),
    Row(
        "R34",
        &[
            "report::r34_what_is_excepted_is_an_open_risk_in_oscal",
            "report::r34_deviations_come_back_as_requests",
            "oscal::r34_documents_validate_against_the_published_schemas",
        ],
        "",
    ),
    Row(
        "R35",
        &[
            "governance::a_year_has_so_many_days_and_a_tier_so_many_renewals",
            "evasion::later_windows_asked_for_first_count",
            "notifications::an_end_that_is_near_is_told_twice_and_no_more",
        ],
        "",
    ),
    Row(
        "R36",
        &[
            "properties::r36_a_changed_facet_is_named_and_an_absent_one_counts_as_changed",
            "findings::r36_a_finding_names_the_facet_that_changed_since_the_approval",
        ],
        "",
    ),
    Row(
        "R37",
        &[
            "incidents::an_override_begins_with_one_person_ends_with_its_incident_and_is_owed_for",
            "incidents::what_is_overdue_blocks_the_next_override_of_its_domain",
        ],
        "",
    ),
    Row(
        "R38",
        &[
            "governance::r38_what_a_change_takes_the_ground_from_ends_in_the_same_transaction",
            "evasion::nothing_is_granted_beyond_a_deployment_approval",
            "events::a_provider_that_revokes_is_heard",
        ],
        "",
    ),
    Row("R39", &["lifecycle::tiers_are_monotone"], ""),
    Row(
        "R40",
        &[
            "governance::high_needs_two_persons_in_two_roles_who_saw_the_evidence",
            "evasion::a_long_exception_is_looked_at_again_and_again",
        ],
        "",
    ),
    Row(
        "R41",
        &["properties::r41_a_failing_gate_makes_every_exception_ineffective_whatever_is_asked"],
        "",
    ),
    Row(
        "R42",
        &[
            "weakening::every_way_to_deny_less_is_refused_to_one_person_and_its_contrary_is_not",
            "weakening::two_persons_in_two_roles_decide_and_whoever_proposed_is_neither",
            "report::r42_a_control_is_to_change_where_exceptions_are_the_rule_all_month",
            "report::r42_the_owner_hears_of_it_and_the_next_one_needs_the_domain_owner",
        ],
        "",
    ),
    Row(
        "R43",
        &[
            "bundle::what_is_wrong_is_named_with_its_place",
            "findings::coverage_tells_what_nothing_answers_to",
        ],
        "",
    ),
    Row(
        "R44",
        &[
            "report::r44_what_is_granted_again_and_again_is_the_rule",
            "report::r42_the_owner_hears_of_it_and_the_next_one_needs_the_domain_owner",
        ],
        "",
    ),
];

const EDGE_CASES: &[Row] = &[
    Row(
        "Temporary → permanent",
        &[
            "acceptance::an_end_is_an_end_and_whoever_retires_takes_exceptions_along",
            "governance::an_exception_is_requested_decided_used_looked_at_again_and_ends",
            "governance::a_year_has_so_many_days_and_a_tier_so_many_renewals",
            "calendar::an_end_needs_nobody_who_sweeps",
            "calendar::whoever_asks_anew_and_anew_comes_to_the_cap",
        ],
        "",
    ),
    Row(
        "Renewal by sleepwalking",
        &[
            "months::who_renews_again_needs_more_and_what_is_not_used_is_closed",
            "evasion::renewals_are_counted_whatever_came_between",
            "usage::a_renewal_tells_how_what_it_goes_on_from_was_used_and_what_differs",
        ],
        "",
    ),
    Row(
        "Approved model, changed context",
        &[
            "acceptance::a_tool_that_changed_ends_the_exception_while_nobody_hears_the_registry",
            "properties::r36_a_changed_facet_is_named_and_an_absent_one_counts_as_changed",
        ],
        "",
    ),
    Row(
        "Change while pending",
        &[
            "acceptance::two_persons_decide_on_what_is_there_and_nobody_chooses_the_tier",
            "lifecycle::outdated_terms_void_every_vote",
        ],
        "",
    ),
    Row(
        "Incident override",
        &[
            "acceptance::an_override_ends_with_its_incident",
            "incidents::an_override_begins_with_one_person_ends_with_its_incident_and_is_owed_for",
            "incidents::what_is_overdue_blocks_the_next_override_of_its_domain",
            "calendar::a_closure_that_is_owed_stands_in_the_way_of_the_next",
        ],
        "",
    ),
    Row(
        "Override used as the normal path",
        &[
            "months::the_fourth_override_within_a_month_is_a_finding",
            "incidents::many_overrides_and_one_that_goes_on_need_two_persons_and_then_a_waiver",
        ],
        "",
    ),
    Row(
        "Domain semantics differ",
        &[
            "acceptance::a_domain_has_its_own_words_and_only_tightens",
            "lifecycle::domains_only_tighten",
        ],
        "",
    ),
    Row(
        "Tier gaming",
        &[
            "acceptance::two_persons_decide_on_what_is_there_and_nobody_chooses_the_tier",
            "lifecycle::tiers_are_monotone",
            "evasion::risk_is_seen_under_other_names",
        ],
        "",
    ),
    Row(
        "Auto-approval flood",
        &[
            "acceptance::what_is_asked_for_is_not_taken_another_way",
            "governance::low_is_automatic_within_a_budget_and_never_in_production",
        ],
        "",
    ),
    Row(
        "Exposed upstream secret",
        &[
            "acceptance::an_exposed_secret_stops_every_exception_of_its_subject",
            "properties::r41_a_failing_gate_makes_every_exception_ineffective_whatever_is_asked",
        ],
        "",
    ),
    Row(
        "Registry outpaced",
        &[
            "acceptance::a_tool_that_changed_ends_the_exception_while_nobody_hears_the_registry",
            "demand::r31_an_instance_registers_itself_and_is_governed_by_its_class",
            "follow::s3_without_the_registry_exceptions_end_at_the_lease_and_compliant_calls_go_on",
            "calendar::r31_a_thousand_instances_that_nobody_registered_are_governed_by_their_class",
        ],
        "",
    ),
    Row(
        "Third-party tool call",
        &[
            "acceptance::a_tool_that_nobody_approved_is_denied_with_its_remedy",
            "starter::every_world_decides_as_the_reference_says",
        ],
        "",
    ),
    Row(
        "Clock skew",
        &[
            "acceptance::a_sidecar_whose_clock_is_slow_keeps_nothing_that_is_over",
            "clients::the_independent_evaluator_agrees",
            "calendar::t2_a_clock_a_minute_off_ends_exceptions_while_it_is",
            "calendar::t1_a_sidecar_ten_minutes_slow_ends_what_is_over",
        ],
        "",
    ),
    Row(
        "Approver collusion / sock puppets",
        &[
            "acceptance::two_persons_decide_on_what_is_there_and_nobody_chooses_the_tier",
            "lifecycle::two_seats_are_two_persons_and_one_denial_ends_it",
            "evasion::one_person_does_not_become_two_between_votes",
        ],
        "",
    ),
    Row(
        "Quorum 0 / unsatisfiable",
        &[
            "acceptance::what_is_asked_for_is_not_taken_another_way",
            "lifecycle::a_quorum_is_satisfiable_if_distinct_persons_fill_it",
            "governance::what_may_not_be_granted_is_refused_with_its_field",
        ],
        "",
    ),
    Row(
        "Revocation lost",
        &[
            "acceptance::a_sidecar_that_does_not_hear_is_outstanding_until_it_does",
            "follow::a_revocation_reaches_the_sidecar_and_the_receipt_says_so",
            "turmoil::s3_the_bound_holds_over_a_simulated_network",
        ],
        "",
    ),
    Row(
        "Telemetry loss",
        &[
            "acceptance::a_full_spool_ends_exceptions_until_it_is_told",
            "usage::e2_records_outlive_both_processes_and_are_counted_once",
            "usage::e3_a_record_that_was_damaged_on_disk_is_a_gap_that_the_registry_shows",
            "telemetry::what_is_not_taken_is_tried_again_or_counted",
        ],
        "",
    ),
    Row(
        "Exceptions legitimise poor controls",
        &[
            "months::where_exceptions_are_the_rule_the_control_is_to_change",
            "report::r42_a_control_is_to_change_where_exceptions_are_the_rule_all_month",
            "usage::what_is_not_used_is_closed_and_what_is_used_up_too",
            "calendar::what_its_control_never_needed_is_closed_as_that",
        ],
        "",
    ),
    Row(
        "Weakening the control instead of asking",
        &[
            "acceptance::what_is_asked_for_is_not_taken_another_way",
            "weakening::every_way_to_deny_less_is_refused_to_one_person_and_its_contrary_is_not",
        ],
        "",
    ),
    Row(
        "Retired subject",
        &[
            "acceptance::an_end_is_an_end_and_whoever_retires_takes_exceptions_along",
            "governance::r38_what_a_change_takes_the_ground_from_ends_in_the_same_transaction",
        ],
        "",
    ),
];

/// What others got wrong (governance §1, findings 4–11), and the tests that it is not so here.
const FINDINGS: &[Row] = &[
    Row(
        "4 an excepted finding stays open",
        &["findings::an_exception_changes_the_disposition_and_never_the_finding_nor_its_time"],
        "",
    ),
    Row(
        "5 what is deleted or killed goes on",
        &[
            "evasion::what_is_closed_is_taken_back",
            "acceptance::a_sidecar_that_does_not_hear_is_outstanding_until_it_does",
            "follow::a_revocation_reaches_the_sidecar_and_the_receipt_says_so",
        ],
        "",
    ),
    Row(
        "6 one identity in two stages, quorum zero, an alias of a group, a vote after a change",
        &[
            "acceptance::two_persons_decide_on_what_is_there_and_nobody_chooses_the_tier",
            "acceptance::what_is_asked_for_is_not_taken_another_way",
            "evasion::one_person_does_not_become_two_between_votes",
            "evasion::a_request_does_not_choose_its_deciders",
            "walks::the_lifecycle_is_its_model_on_every_walk",
        ],
        "",
    ),
    Row(
        "7 approval moves the window",
        &["lifecycle::approval_moves_no_window_and_outlives_no_evidence"],
        "",
    ),
    Row(
        "8 an exception denies whoever complies",
        &["properties::a_compliant_subject_is_never_denied_because_of_an_exception"],
        "",
    ),
    Row(
        "9 a scope without a dimension is everything",
        &["bundle::what_is_wrong_is_named_with_its_place"],
        "",
    ),
    Row(
        "10 a file of exemptions loads as nothing",
        &[
            "bundle::what_is_wrong_is_named_with_its_place",
            "registry::an_apply_is_all_or_nothing_and_lists_every_fault_with_its_place",
        ],
        "",
    ),
    Row(
        "11 still approved though it changed",
        &[
            "acceptance::a_tool_that_changed_ends_the_exception_while_nobody_hears_the_registry",
            "properties::r36_a_changed_facet_is_named_and_an_absent_one_counts_as_changed",
        ],
        "",
    ),
];

#[test]
fn every_requirement_has_its_row_and_every_test_in_it_is_there() {
    let ids: Vec<String> = REQUIREMENTS.iter().map(|row| row.0.to_owned()).collect();
    let all: Vec<String> = (1..=44).map(|n| format!("R{n}")).collect();
    assert_eq!(ids, all);
    let names: BTreeSet<&str> = EDGE_CASES.iter().map(|row| row.0).collect();
    assert_eq!(
        (names.len(), EDGE_CASES.len()),
        (20, 20),
        "as many as governance §5 names"
    );
    let mut open = Vec::new();
    for Row(id, tests, missing) in REQUIREMENTS.iter().chain(EDGE_CASES).chain(FINDINGS) {
        assert!(
            !tests.is_empty() || !missing.is_empty(),
            "{id} says nothing"
        );
        for test in *tests {
            let (file, name) = test.split_once("::").expect("a file and a test");
            let text = ["it", "peers"]
                .iter()
                .find_map(|of| fs::read_to_string(format!("tests/{of}/{file}.rs")).ok())
                .expect("a file of tests");
            let at = text.find(&format!("fn {name}("));
            let at = at.unwrap_or_else(|| panic!("{id}: there is no test {test}"));
            // In a macro of properties, or under an attribute.
            let before = &text[at.saturating_sub(200)..at];
            assert!(
                ["test]", "::test("]
                    .iter()
                    .any(|mark| before.contains(mark))
                    || text.contains("proptest!"),
                "{id}: {test} is no test"
            );
        }
        if !missing.is_empty() {
            open.push(format!("{id}: {missing}"));
        }
    }
    println!("{} open: {}", open.len(), open.join("; "));
}
