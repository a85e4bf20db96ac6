"""An independent reading of governance §7.4-7.5 and design §3.

Reads worlds as lines of JSON and writes the outcome and the set of reasons of each. Shares nothing
with the Rust code; times are microseconds.
"""

import json
import sys

UNKNOWN = object()  # a condition that cannot be told


class Missing(Exception):
    pass


def conditions(code, subject, question, latest):
    """True: the condition holds. Raises Missing where an attribute is absent."""
    attrs = subject["attributes"]

    def attr(name):
        if attrs.get(name) is None:
            raise Missing(name)
        return attrs[name]

    def any_of(*parts):  # CEL's ||: a true part wins over a missing one
        missing = False
        for part in parts:
            try:
                if part():
                    return True
            except Missing:
                missing = True
        if missing:
            raise Missing("||")
        return False

    def all_of(*parts):
        return not any_of(*[lambda part=part: not part() for part in parts])

    def purpose():
        if question["purpose"] is None:
            raise Missing("purpose")
        return question["purpose"]

    return {
        "never": lambda: False,
        "always": lambda: True,
        "high": lambda: attr("risk_tier") == "HIGH",
        "inactive": lambda: not attr("owner_active"),
        "inactive_or_prod": lambda: any_of(lambda: not attr("owner_active"), lambda: attr("environment") == "prod"),
        "active_and_low": lambda: all_of(lambda: attr("owner_active"), lambda: attr("risk_tier") == "LOW"),
        "purpose_b": lambda: purpose() == "b",
        "silent": lambda: latest - attr("heartbeat_time") > 3_600_000_000,
        "has_owner": lambda: attrs.get("owner_active") is not None,
    }[code]()


def told(code, subject, question, latest):
    try:
        return conditions(code, subject, question, latest)
    except Missing:
        return UNKNOWN


def judge(control, subject, question, now):
    """pass, fail or error (R3: the evidence comes before the condition)."""
    for need in control["evidence"]:
        for facet in need["facets"]:
            state = subject["facets"].get(facet)
            if state is None:
                return "error"
            if need["complete"] and not state["complete"]:
                return "error"
            if need["max_age"] is not None and now["latest"] - state["observed_time"] > need["max_age"]:
                return "error"
    result = told(control["fails"], subject, question, now["latest"])
    return "error" if result is UNKNOWN else "fail" if result else "pass"


def covers(pattern, resource):
    return resource.startswith(pattern) if pattern.endswith("/") else resource == pattern


def reached(control, subject, question, now):
    """Whether the subject condition lets the control apply; an error means it does."""
    return control["applies_to"] is None or told(control["applies_to"], subject, question, now["latest"]) is not False


def held_against(control, question):
    return (
        control["runtime"]
        and control["state"] in ("ACTIVE", "DEPRECATED")
        and (control["actions"] is None or question["action"] in control["actions"])
        and (control["resource_types"] is None or question["resource_type"] in control["resource_types"])
        and (control["resources"] is None or any(covers(p, question["resource"]) for p in control["resources"]))
    )


STATE_REASONS = {
    "DRAFT": "EXC_NOT_YET_EFFECTIVE",
    "PENDING": "EXC_NOT_YET_EFFECTIVE",
    "SUSPENDED": "EXC_SUSPENDED",
    "EXPIRED": "EXC_EXPIRED",
}


def ineffective(exception, tier, subject, question, now, gate_fails):
    """The reason it does not hold now, or None (§7.4)."""
    if exception["state"] != "APPROVED":
        return STATE_REASONS.get(exception["state"], "EXC_REVOKED")
    if now["earliest"] < exception["effective_time"]:
        return "EXC_NOT_YET_EFFECTIVE"
    if not now["latest"] < exception["expire_time"]:
        return "EXC_EXPIRED"
    due = exception["next_revalidation_time"]
    if due is not None and due <= now["latest"]:
        return "EXC_SUSPENDED"
    if any(e["required"] and e["expire_time"] <= now["latest"] for e in exception["evidence"]):
        return "EXC_SUSPENDED"
    if now["lease_age"] is not None:
        budget = tier["lease_ttl"] if tier["strict"] else tier["max_staleness"]
        if now["lease_age"] >= budget or now["state_age"] >= tier["max_staleness"]:
            return "EXC_LEASE_LAPSED"
    if now["latest"] - now["earliest"] > tier["max_clock_skew"]:
        return "CLOCK_SKEW"
    for facet, digest in exception["bound"].items():
        current = question["observed"].get(facet)
        if current is None and not tier["observed_required"]:
            state = subject["facets"].get(facet)
            if state is not None and now["latest"] - state["observed_time"] <= tier["facet_max_age"]:
                current = subject["fingerprint"].get(facet)
        if current != digest:
            return "EXC_CONTEXT_CHANGED"
    if gate_fails:
        return "BASELINE_BREACH"
    if now["evidence"] == "Lost" or now["evidence"] == "Scarce" and not tier["usage_required"]:
        return "EXC_EVIDENCE_UNAVAILABLE"
    return None


SENSITIVITY = ["PUBLIC", "INTERNAL", "CONFIDENTIAL", "RESTRICTED"]


def in_scope(exception, subject, question, now):
    scope = exception["scope"]
    named = subject["id"] in scope["ids"] if scope["ids"] is not None else subject["class"] is not None and subject["class"] in scope["classes"]
    top = scope["data_sensitivity_max"]
    return (
        named
        and (scope["actions"] is None or question["action"] in scope["actions"])
        and (scope["resources"] is None or any(covers(p, question["resource"]) for p in scope["resources"]))
        and (scope["environments"] is None or subject["environment"] in scope["environments"])
        and (scope["purposes"] is None or question["purpose"] in scope["purposes"])
        and (top is None or SENSITIVITY.index(subject["data_sensitivity"]) <= SENSITIVITY.index(top))
        and (scope["match"] is None or told(scope["match"], subject, question, now["latest"]) is True)
    )


def named_by(exception, subject):
    scope = exception["scope"]
    if scope["ids"] is not None:
        return subject["id"] in scope["ids"]
    return subject["class"] is not None and subject["class"] in scope["classes"]


def decide(world):
    question, now = world["question"], world["now"]
    subject = next((s for s in world["subjects"] if s["id"] == question["subject"]), None)
    if subject is None:
        return "deny", {"SUBJECT_UNKNOWN"}
    if subject["locked"]:
        return "deny", {"SUBJECT_LOCKED"}
    if subject["lifecycle"] == "RETIRED":
        return "deny", {"SUBJECT_RETIRED"}
    applicable = [c for c in world["controls"] if held_against(c, question) and reached(c, subject, question, now)]
    if not applicable:
        return ("allow", {"OK"}) if world["when_no_control"] == "ALLOW" else ("deny", {"NO_CONTROL"})
    results = {c["id"]: judge(c, subject, question, now) for c in applicable}

    # A gate that reads the request speaks of the questions it is held against alone.
    gates = [
        c
        for c in world["controls"]
        if c["gate"] and c["state"] in ("ACTIVE", "DEPRECATED") and reached(c, subject, question, now) and (c["fails"] != "purpose_b" or held_against(c, question))
    ]
    gate_fails = any(judge(c, subject, question, now) != "pass" for c in gates)

    reasons, denied, relied = set(), False, False
    for control in applicable:
        result = results[control["id"]]
        if result == "pass" or control["enforcement"] == "ADVISORY":
            continue
        if control["enforcement"] == "HARD_MANDATORY":
            denied = True
            reasons.add("HARD_MANDATORY")
            if control["gate"]:
                reasons.add("BASELINE_BREACH")
            if result == "error":
                reasons.add("CONTROL_ERROR")
            continue
        against = set()
        covered = False
        for exception in world["exceptions"]:
            if control["id"] not in exception["controls"] or not named_by(exception, subject):
                continue
            tier = world["tiers"][exception["tier"]]
            why = ineffective(exception, tier, subject, question, now, gate_fails)
            if why is None and not in_scope(exception, subject, question, now):
                why = "EXC_OUT_OF_SCOPE"
            if why is None and any(told(c, subject, question, now["latest"]) is not True for c in exception["compensating"]):
                why = "EXC_COMPENSATION_FAILED"
            if why is None:
                covered = True
            else:
                against.add(why)
        if covered:
            relied = True
        else:
            denied = True
            reasons.add("CONTROL_ERROR" if result == "error" else "CONTROL_FAILED")
            reasons |= against
    if denied:
        return "deny", reasons
    return ("allow_by_exception" if relied else "allow"), {"OK"}


def main():
    for line in sys.stdin:
        outcome, reasons = decide(json.loads(line))
        sys.stdout.write(outcome + " " + ",".join(sorted(reasons)) + "\n")


if __name__ == "__main__":
    main()
