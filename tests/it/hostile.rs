//! A registry that holds the right key and means no good, or a wire that does: whatever comes, no
//! exception is honoured by it, and compliant calls go on (reliability §4.6).

use std::sync::{Arc, Mutex};

use crate::support::governed::{Sidecar, control, noon, world};
use crate::support::liar::{Liar, Messages, Whole, era, signer};
use exeat::{
    domain::{Era, LogId, Span},
    engine::{Sum, part},
    runtime::clock::Clock,
    wire::{
        decoded, encoded,
        signed::{Purpose, Signer, sha256},
        sync::{era_message, stamp},
        v1::{self, attend_response, watch_response},
    },
};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

const EXCEPTED: &str = "ALLOW_BY_EXCEPTION OK";
const OFF: &str = "EXC_LEASE_LAPSED";

/// The snapshot a watcher holds a part of, and the chunk it misses.
type Asked = (Vec<u8>, u32);

struct Scene {
    sidecar: Sidecar,
    clock: Clock,
    signer: Arc<Signer>,
    liar: Liar,
    greetings: mpsc::UnboundedReceiver<u64>,
    nacks: mpsc::UnboundedReceiver<(u64, v1::Nack)>,
    scratch: tempfile::TempDir,
    address: String,
}

impl Scene {
    /// A sidecar that follows a liar, who says what `watch` makes.
    async fn with(
        ends: bool,
        mut watch: impl FnMut(usize, &v1::WatchRequest) -> Vec<v1::WatchResponse> + Send + 'static,
    ) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let clock = Clock::manual(noon());
        let said = move |turn, request: &v1::WatchRequest| -> Messages<v1::WatchResponse> {
            let said = stream::iter(watch(turn, request).into_iter().map(Ok));
            if ends && turn == 0 {
                Box::pin(said)
            } else {
                Box::pin(said.chain(stream::pending()))
            }
        };
        let (liar, greeted, nacked) = Liar::new(clock.clone(), Box::new(said));
        let address = liar.serve().await;
        let signer = Arc::clone(&liar.signer);
        let key = signer.pin().to_string();
        let data = scratch.path().join("s");
        let sidecar = Sidecar::start(&data, &address, &key, "t", clock.clone())
            .await
            .unwrap();
        Self {
            sidecar,
            clock,
            signer,
            liar,
            greetings: greeted,
            nacks: nacked,
            scratch,
            address,
        }
    }

    fn beats(
        &self,
        beat: impl FnMut(v1::HeartbeatStatement) -> v1::HeartbeatStatement + Send + 'static,
    ) {
        *self.liar.beat.lock().unwrap() = Box::new(beat);
    }

    /// Starts the sidecar anew, after something was done to its data.
    async fn restart(&mut self, between: impl FnOnce(&std::path::Path)) {
        self.sidecar.process.stop().await;
        let data = self.scratch.path().join("s");
        between(&data);
        let key = self.signer.pin().to_string();
        self.sidecar = Sidecar::start(&data, &self.address, &key, "t", self.clock.clone())
            .await
            .unwrap();
    }

    /// Waits until the sidecar has counted a refusal.
    async fn refused(&self, reason: &str) {
        let wanted = format!("exeat_registry_refused_total{{reason=\"{reason}\"}}");
        self.counted(&wanted).await;
    }

    async fn counted(&self, wanted: &str) {
        let mut page = String::new();
        for _ in 0..2_000 {
            page = self.sidecar.page("/metrics").await;
            if page.contains(wanted) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{wanted} is not in {page}");
    }
}

/// Everything is right: what the others differ from.
#[tokio::test]
async fn an_honest_liar_is_believed() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn a_head_beyond_reason_is_refused_and_poisons_nothing() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.beats(|mut said| {
        said.head = Some(v1::Head {
            revision: 1,
            sequence: u64::MAX,
        });
        said
    });
    scene.refused("far_ahead").await;
    scene.sidecar.until("agent", "risky", OFF).await;
    assert_eq!(scene.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    // It was not taken for the truth: an honest head is believed afterwards.
    scene.beats(|honest| honest);
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn a_time_beyond_reason_is_refused() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let far = noon() + Span::from_hours(49);
    scene.beats(move |mut said| {
        said.time = Some(stamp(far));
        said
    });
    scene.refused("far_ahead").await;
    scene.clock.advance(Span::from_secs(301));
    scene.sidecar.until("agent", "risky", OFF).await;
    scene.beats(|honest| honest);
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn a_chunk_of_another_snapshot_is_never_put_in_force() {
    let signer = signer();
    let (whole, other) = (
        Whole::of(&world()),
        Whole::of(&world().replace("2026-11-28", "2026-11-27")),
    );
    let scene = Scene::with(false, move |turn, _| {
        let mut spliced = whole.events(&signer);
        if turn < 4 {
            let last = other.chunks.last().cloned().unwrap();
            *spliced.last_mut().unwrap() = v1::WatchResponse {
                event: Some(watch_response::Event::Chunk(last)),
            };
        }
        spliced
    })
    .await;
    scene.refused("unreadable").await;
    // Nothing of it was in force before it came whole.
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let last = scene.liar.watches.lock().unwrap();
    assert!(*last > 4, "{last} watches");
}

#[tokio::test]
async fn a_change_of_another_history_or_with_another_outcome_is_not_taken() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = {
        let signer = Arc::clone(&signer);
        Scene::with(false, move |turn, _| {
            let mut events = whole.events(&signer);
            let mut statement = v1::DeltaStatement {
                era: Some(era_message(era())),
                scope: "*".into(),
                after: 1,
                through: 2,
                objects: vec![v1::SyncObject {
                    kind: v1::ObjectKind::Control.into(),
                    id: "CT-RISKY".into(),
                    revision: 2,
                    manifest: String::new(),
                }],
                // What was before: the removal of a control cannot come to that.
                sum: whole.statement.sum.clone(),
                touched: Vec::new(),
                classes_changed: false,
                ledger: None,
            };
            if turn == 1 {
                let log = LogId([8; 16]);
                statement.era = Some(era_message(Era { log, epoch: 1 }));
            }
            if turn < 2 {
                events.push(v1::WatchResponse {
                    event: Some(watch_response::Event::Delta(
                        signer.seal(Purpose::Delta, &statement),
                    )),
                });
            }
            events
        })
        .await
    };
    scene
        .counted("exeat_registry_resyncs_total{reason=\"digest\"} 1")
        .await;
    scene
        .counted("exeat_registry_resyncs_total{reason=\"era\"} 1")
        .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn s1_a_snapshot_that_a_change_overtook_does_not_take_it_back() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |turn, _| {
        if turn > 0 {
            return Vec::new();
        }
        let excepted = whole.chunks.last().unwrap();
        let excepted = decoded::<v1::ObjectList>(&excepted.content).unwrap();
        let gone = &excepted.objects[0];
        let mut sum = Sum::from_slice(&whole.statement.sum).unwrap();
        sum.remove(&part(3, &gone.id, 1, &gone.manifest));
        let statement = v1::DeltaStatement {
            era: Some(era_message(era())),
            scope: "*".into(),
            after: 1,
            through: 2,
            objects: vec![v1::SyncObject {
                kind: gone.kind,
                id: gone.id.clone(),
                revision: 2,
                manifest: String::new(),
            }],
            sum: sum.to_bytes().to_vec(),
            touched: Vec::new(),
            classes_changed: false,
            ledger: None,
        };
        let delta = signer.seal(Purpose::Delta, &statement);
        let mut events = whole.events(&signer);
        // The same once more, with the change before its last chunk.
        events.extend(whole.events(&signer));
        events.insert(
            events.len() - 1,
            v1::WatchResponse {
                event: Some(watch_response::Event::Delta(delta)),
            },
        );
        events
    })
    .await;
    scene
        .counted("exeat_registry_resyncs_total{reason=\"rollback\"} 1")
        .await;
    let outcome = scene.sidecar.outcome("agent", "risky").await;
    assert!(outcome.starts_with("DENY CONTROL_FAILED"), "{outcome}");
}

#[tokio::test]
async fn numbers_beyond_reason_are_refused_wherever_they_stand() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = {
        let signer = Arc::clone(&signer);
        Scene::with(false, move |turn, _| {
            let mut said = whole.clone();
            if turn == 0 {
                said.statement.revision = u64::MAX;
            }
            let mut events = said.events(&signer);
            if turn == 1 {
                let statement = v1::DeltaStatement {
                    era: Some(era_message(era())),
                    scope: "*".into(),
                    after: 1,
                    through: u64::MAX,
                    sum: whole.statement.sum.clone(),
                    ..v1::DeltaStatement::default()
                };
                events.push(v1::WatchResponse {
                    event: Some(watch_response::Event::Delta(
                        signer.seal(Purpose::Delta, &statement),
                    )),
                });
            }
            events
        })
        .await
    };
    scene
        .counted("exeat_registry_resyncs_total{reason=\"far_ahead\"} 2")
        .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let broken = |mut said: v1::HeartbeatStatement| {
        said.era = None;
        said
    };
    let removals = v1::RemovalsStatement {
        era: Some(era_message(era())),
        after: 0,
        through: u64::MAX,
        removals: Vec::new(),
    };
    let removals = signer.seal(Purpose::Removals, &removals);
    *scene.liar.first.lock().unwrap() = vec![attend_response::Event::Removals(removals)];
    scene.beats(broken);
    scene
        .counted("exeat_sync_reconnects_total{lane=\"attend\"} 3")
        .await;
    *scene.liar.first.lock().unwrap() = Vec::new();
    scene.beats(|honest| honest);
    scene.clock.advance(Span::from_secs(301));
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let page = scene.sidecar.page("/metrics").await;
    assert!(page.contains("exeat_removals_sequence 0"), "{page}");

    *scene.liar.beginning.lock().unwrap() = Box::new(|mut said| {
        said.era.as_mut().unwrap().epoch = u64::MAX;
        said
    });
    scene.beats(broken);
    scene.refused("far_ahead").await;
    *scene.liar.beginning.lock().unwrap() = Box::new(|honest| honest);
    scene.beats(|honest| honest);
    scene.clock.advance(Span::from_secs(301));
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn t1_no_restart_and_no_clock_revives_what_has_expired() {
    let signer = signer();
    let whole = Whole::of(&world());
    let mut scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let file = scene.scratch.path().join("s/time");
    let before = std::fs::read(&file).unwrap_or_default();
    let later = noon() + Span::from_hours(24 * 6 + 1);
    scene.clock.advance(later - noon());
    scene.sidecar.until("agent", "risky", "EXC_EXPIRED").await;
    for _ in 0..2_000 {
        if std::fs::read(&file).is_ok_and(|now| now != before) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // The sidecar's clock is set back over its restart, and the registry's too.
    scene.clock = Clock::manual(noon());
    scene.beats(|mut said| {
        said.time = Some(stamp(noon()));
        said
    });
    scene.restart(|_| {}).await;
    scene.refused("earlier_time").await;
    let said = scene.sidecar.outcome("agent", "risky").await;
    assert!(said.contains("EXC_EXPIRED"), "{said}");
    assert_eq!(scene.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    // A damaged file is told.
    let data = scene.scratch.path().join("s");
    scene
        .restart(|_| {
            let path = data.join("time");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[30] ^= 1;
            std::fs::write(path, bytes).unwrap();
        })
        .await;
    scene
        .counted("exeat_disk_faults_total{file=\"time\"} 1")
        .await;
}

#[tokio::test]
async fn s12_a_snapshot_that_says_something_else_of_a_revision_proves_two_histories() {
    let signer = signer();
    let whole = Whole::of(&world());
    let other = Whole::of(&world().replace("2026-11-28", "2026-11-27"));
    let scene = Scene::with(true, move |turn, _| {
        if turn == 0 { &whole } else { &other }.events(&signer)
    })
    .await;
    scene.refused("forked").await;
    scene.counted("exeat_registry_distrusted 1").await;
    assert!(
        scene
            .scratch
            .path()
            .join("s/distrust")
            .try_exists()
            .unwrap()
    );
    assert!(scene.sidecar.outcome("agent", "risky").await.contains(OFF));
    assert_eq!(scene.sidecar.outcome("agent", "plain").await, "ALLOW OK");
}

#[tokio::test]
async fn endless_data_is_not_taken_in() {
    let signer = signer();
    let whole = Whole::of(&world());
    let scene = Scene::with(false, move |turn, _| match turn {
        0 => {
            let statement = v1::SnapshotStatement {
                bytes: u64::MAX,
                ..whole.statement.clone()
            };
            let signed = signer.seal(Purpose::Snapshot, &statement);
            vec![v1::WatchResponse {
                event: Some(watch_response::Event::Snapshot(signed)),
            }]
        }
        1 => {
            let statement = v1::SnapshotStatement {
                chunk_digests: vec![vec![0; 32]; 100_001],
                ..whole.statement.clone()
            };
            let signed = signer.seal(Purpose::Snapshot, &statement);
            vec![v1::WatchResponse {
                event: Some(watch_response::Event::Snapshot(signed)),
            }]
        }
        // More chunks than were announced.
        2 => {
            let mut events = whole.events(&signer);
            let last = events.last().cloned().unwrap();
            events.splice(1..1, std::iter::repeat_n(last, 1_000));
            events
        }
        // A message larger than any.
        3 => vec![v1::WatchResponse {
            event: Some(watch_response::Event::Chunk(v1::Chunk {
                number: 0,
                content: vec![0; 65 << 20],
            })),
        }],
        // Fewer bytes than were announced, and more.
        4 | 5 => {
            let mut said = whole.clone();
            said.statement.bytes = said.statement.bytes + 9 - 2 * turn as u64;
            said.events(&signer)
        }
        _ => whole.events(&signer),
    })
    .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    assert!(*scene.liar.watches.lock().unwrap() > 6);
}

#[tokio::test]
async fn a_transfer_that_was_cut_goes_on_where_it_was() {
    let signer = signer();
    let whole = Whole::of(&world());
    let digest = sha256(&signer.seal(Purpose::Snapshot, &whole.statement).statement).to_vec();
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let heard = Arc::clone(&asked);
    let scene = Scene::with(true, move |turn, request| {
        heard
            .lock()
            .unwrap()
            .push((request.snapshot_digest.clone(), request.next_chunk));
        let events = whole.events(&signer);
        if turn == 0 {
            return events[..3].to_vec();
        }
        // The statement, and what was still missing.
        let rest = usize::try_from(request.next_chunk).unwrap() + 1;
        [&events[..1], &events[rest..]].concat()
    })
    .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    let asked = asked.lock().unwrap();
    assert_eq!(asked[..2], [(vec![], 0), (digest, 2)]);
}

#[tokio::test]
async fn what_cannot_be_taken_is_told_again_at_each_greeting() {
    let signer = signer();
    let text = world() + &control("CT-ODD", "odd", "true");
    let mut whole = Whole::of(&text);
    // A control in a language of a later version.
    for (chunk, digest) in whole
        .chunks
        .iter_mut()
        .zip(&mut whole.statement.chunk_digests)
    {
        let mut list: v1::ObjectList = decoded(&chunk.content).unwrap();
        for object in list
            .objects
            .iter_mut()
            .filter(|object| object.id == "CT-ODD")
        {
            object.manifest = object.manifest.replace(
                "\"failure_condition\":\"true\"",
                "\"failure_condition\":\"later()\"",
            );
        }
        chunk.content = encoded(&list);
        *digest = sha256(&chunk.content).to_vec();
    }
    let mut sum = Sum::default();
    for chunk in &whole.chunks {
        let list: v1::ObjectList = decoded(&chunk.content).unwrap();
        for object in list.objects {
            let kind = u8::try_from(object.kind).unwrap();
            sum.add(&part(kind, &object.id, 1, &object.manifest));
        }
    }
    whole.statement.sum = sum.to_bytes().to_vec();
    whole.statement.bytes = whole.chunks.iter().map(|c| c.content.len() as u64).sum();
    let mut scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    let (_, nack) = scene.nacks.recv().await.unwrap();
    assert_eq!(nack.id, "CT-ODD");
    // S13: within its scope it cannot be told, elsewhere nothing changes.
    scene.sidecar.until("agent", "odd", "CONTROL_ERROR").await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    scene.greetings.recv().await.unwrap();
    // A message nobody understands ends the connection.
    let broken = scene.signer.seal(Purpose::Removals, &v1::Head::default());
    *scene.liar.first.lock().unwrap() = vec![attend_response::Event::Removals(broken)];
    scene.beats(|mut said| {
        said.era = None;
        said
    });
    scene.greetings.recv().await.unwrap();
    *scene.liar.first.lock().unwrap() = Vec::new();
    scene.beats(|honest| honest);
    let (_, again) = scene.nacks.recv().await.unwrap();
    assert_eq!(again.id, "CT-ODD");
}

#[tokio::test]
async fn s14_removals_come_while_a_snapshot_drips_and_the_drip_is_given_up() {
    let signer = signer();
    let whole = Whole::of(&world());
    let removals = v1::RemovalsStatement {
        era: Some(era_message(era())),
        after: 0,
        through: 1,
        removals: vec![v1::Removal {
            sequence: 1,
            act: v1::RemovalAct::Revoke.into(),
            target: Some(v1::Target {
                target: Some(v1::target::Target::Exception("EX-1".into())),
            }),
            reason: "ADMIN".into(),
            time: Some(stamp(noon())),
            ..v1::Removal::default()
        }],
    };
    let removals = signer.seal(Purpose::Removals, &removals);
    let scene = Scene::with(false, move |turn, _| {
        let events = whole.events(&signer);
        // At first no more than a part of it.
        if turn == 0 {
            events[..2].to_vec()
        } else {
            events
        }
    })
    .await;
    *scene.liar.first.lock().unwrap() = vec![attend_response::Event::Removals(removals)];
    // A heartbeat nobody understands ends the connection, and the next greeting tells.
    scene.beats(|mut said| {
        said.era = None;
        said
    });
    scene.counted("exeat_removals_sequence 1").await;
    // The drip has begun or is about to: it was not given up yet.
    assert!(*scene.liar.watches.lock().unwrap() <= 1);
    scene.beats(|mut honest| {
        honest.head = Some(v1::Head {
            revision: 1,
            sequence: 1,
        });
        honest
    });
    // Ten seconds without a chunk are too long.
    for _ in 0..4_000 {
        if *scene.liar.watches.lock().unwrap() > 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    scene.sidecar.until("agent", "risky", "EXC_REVOKED").await;
    assert_eq!(scene.sidecar.outcome("agent", "plain").await, "ALLOW OK");
}

#[tokio::test]
async fn s12_two_histories_are_remembered_over_a_restart_until_an_operator_acts() {
    let signer = signer();
    let whole = Whole::of(&world());
    let mut scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    // Less than before, at a later time.
    let later = noon() + Span::from_secs(1);
    scene.beats(move |mut said| {
        said.head = Some(v1::Head::default());
        said.time = Some(stamp(later));
        said
    });
    scene.refused("forked").await;
    scene.sidecar.until("agent", "risky", OFF).await;
    scene.beats(|honest| honest);
    scene
        .restart(|data| assert!(data.join("distrust").try_exists().unwrap()))
        .await;
    scene.counted("exeat_registry_distrusted 1").await;
    scene.refused("distrusted").await;
    assert!(scene.sidecar.outcome("agent", "risky").await.contains(OFF));
    assert_eq!(scene.sidecar.outcome("agent", "plain").await, "ALLOW OK");
    scene
        .restart(|data| std::fs::remove_file(data.join("distrust")).unwrap())
        .await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
}

#[tokio::test]
async fn l2_a_ledger_that_is_told_twice_and_differs_is_not_believed() {
    let signer = signer();
    let whole = Whole::of(&world());
    let mut scene = Scene::with(false, move |_, _| whole.events(&signer)).await;
    let ledger = |size, byte| {
        Some(v1::Ledger {
            size,
            root: vec![byte; 32],
        })
    };
    scene.beats(move |mut said| {
        said.ledger = ledger(7, 1);
        said
    });
    scene.restart(|_| {}).await;
    scene.sidecar.until("agent", "risky", EXCEPTED).await;
    // It grows as a ledger does; then what it was before is another.
    let mut turn = 0;
    scene.beats(move |mut said| {
        turn += 1;
        said.ledger = ledger(8, if turn < 3 { 2 } else { 3 });
        said
    });
    scene.refused("forked").await;
    scene.sidecar.until("agent", "risky", OFF).await;
    assert_eq!(scene.sidecar.outcome("agent", "plain").await, "ALLOW OK");
}
