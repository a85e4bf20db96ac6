//! What decisions are measured from.

use exeat::{
    domain::{Set, Value},
    engine::{Change, Snapshot, catalogue},
    testing,
};

/// Who asks.
pub(crate) const SUBJECT: &str = "spiffe://acme.example/agent/7";

/// 100 controls of which 10 are held against the question, 10,000 exceptions of other controls.
pub(crate) fn world(controls: usize, applicable: usize) -> Snapshot {
    let mut changes = Vec::new();
    for n in 0..controls {
        let mut control = testing::control(
            &format!("BEN-{n}"),
            "subject.risk_tier == 'NONE' || subject.environment != 'prod' || now < subject.metadata_update_time",
        );
        control.applies_to.actions = Set::of(vec![
            if n < applicable {
                "tools/call"
            } else {
                "other"
            }
            .into(),
        ])
        .expect("a set");
        changes.push(Change::PutControl(control));
    }
    for n in 0..10_000 {
        let id = format!("spiffe://acme.example/agent/{n}");
        let mut subject = testing::subject(&id);
        if let Value::Record(fields) = &mut subject.attributes {
            let place = catalogue::SUBJECT
                .place("metadata_update_time")
                .expect("a field");
            *fields.get_mut(place).expect("a place") = Some(Value::Time(testing::noon()));
        }
        changes.push(Change::PutSubject(subject));
        let of = if applicable < controls {
            controls - 1
        } else {
            0
        };
        changes.push(Change::PutException(testing::exception(
            &format!("EX-{n}"),
            &[&format!("BEN-{of}")],
            &id,
        )));
    }
    testing::snapshot(changes)
}
