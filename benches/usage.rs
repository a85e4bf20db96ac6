//! Usage records a registry takes in a second: told over its socket in batches, each acknowledged
//! once it is committed, by one sidecar and by several at once. The teller is in the same process
//! and shares its two cores.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures, prints and may fail"
)]

#[path = "../tests/support/governed.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unreachable_pub
)]
mod governed;

use std::{sync::Arc, time::Instant};

use exeat::{
    domain::Chained,
    engine::usage::chained,
    runtime::clock::Clock,
    wire::{encoded, v1},
};
use futures_util::StreamExt;
use governed::{Registry, Sidecar, noon, world};
use tokio::sync::Semaphore;

/// Records each sidecar tells.
const RECORDS: usize = 200_000;
/// Of which so many together.
const BATCH: usize = 1_000;
/// Batches that are under way before one is acknowledged.
const AHEAD: usize = 4;

/// What a sidecar wrote of a use, to be varied.
async fn sample(registry: &Registry, scratch: &std::path::Path, clock: &Clock) -> v1::UsageRecord {
    let mut client = registry.client().await;
    client.apply(&world()).await.expect("applied");
    let token = client.let_in("first", v1::Role::Sidecar, &["*"]).await;
    let data = scratch.join("s");
    let sidecar = Sidecar::start(
        &data,
        &registry.address,
        &registry.key,
        &token,
        clock.clone(),
    );
    let mut sidecar = sidecar.await.expect("a sidecar");
    sidecar.until("agent", "risky", "ALLOW_BY_EXCEPTION").await;
    client.until_used("EX-1", |used| used.uses > 0).await;
    sidecar.process.stop().await;
    let request = v1::ListUsageRequest {
        exception_id: "EX-1".into(),
        ..v1::ListUsageRequest::default()
    };
    let listed = client.usage.list_usage(request).await.expect("a list");
    let mut records = listed.into_inner().records;
    records.pop().and_then(|kept| kept.record).expect("one")
}

/// A spool of uses, in messages.
fn spool(sample: &v1::UsageRecord, number: u8) -> Vec<v1::ReportRequest> {
    let mut end = Chained::default();
    let mut messages = Vec::new();
    for batch in 0..RECORDS / BATCH {
        let before = end;
        let records = (0..BATCH).map(|n| {
            let mut record = sample.clone();
            let ordinal = (batch * BATCH + n + 1) as u64;
            record.ordinal = ordinal;
            record.start = u64::from(number);
            record.decision_id = format!("dec_01a20320-a200-7c00-9391-{number:02x}{ordinal:010x}");
            let bytes = encoded(&record);
            end = chained(end, &bytes);
            bytes
        });
        messages.push(v1::ReportRequest {
            sequence: batch as u64 + 1,
            observed: Vec::new(),
            usage: Some(v1::UsageBatch {
                spool_id: vec![number; 16],
                after: before.sequence,
                records: records.collect(),
                digest_before: before.digest.to_vec(),
            }),
        });
    }
    messages
}

async fn tell(registry: &Registry, token: String, messages: Vec<v1::ReportRequest>) {
    let mut sync = registry.sync_with(&token).await;
    let ahead = Arc::new(Semaphore::new(AHEAD));
    let room = Arc::clone(&ahead);
    let messages = futures_util::stream::iter(messages).then(move |message| {
        let room = Arc::clone(&room);
        async move {
            room.acquire().await.expect("open").forget();
            message
        }
    });
    let answers = sync.report(messages).await.expect("a stream");
    let mut answers = answers.into_inner();
    let mut acknowledged = 0;
    while acknowledged < RECORDS as u64 {
        let answer = answers.message().await.expect("an answer").expect("one");
        acknowledged = answer.usage.expect("a receipt").acknowledged;
        ahead.add_permits(1);
    }
}

#[tokio::main]
async fn main() {
    let scratch = tempfile::tempdir().expect("a folder");
    let clock = Clock::manual(noon());
    let registry = Registry::start(&scratch.path().join("r"), clock.clone()).await;
    let sample = sample(&registry, scratch.path(), &clock).await;
    let mut client = registry.client().await;
    let mut number = 1;
    for sidecars in [1_u8, 4] {
        let mut tellers = Vec::new();
        for _ in 0..sidecars {
            let name = format!("bench-{number}");
            let token = client.let_in(&name, v1::Role::Sidecar, &["*"]).await;
            tellers.push((token, spool(&sample, number)));
            number += 1;
        }
        let began = Instant::now();
        let told = tellers
            .into_iter()
            .map(|(token, messages)| tell(&registry, token, messages));
        futures_util::future::join_all(told.collect::<Vec<_>>()).await;
        let took = began.elapsed().as_secs_f64();
        let all = f64::from(sidecars) * RECORDS as f64;
        println!(
            "{sidecars} sidecars: {all:.0} records in {took:.1} s, {:.0}/s",
            all / took
        );
    }
    let used = client.used("EX-1").await;
    println!("{} uses, {} in scope", used.uses, used.inside);
}
