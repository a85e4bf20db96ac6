//! The registry over its real socket: objects, roles, history, restarts.

use crate::support::governed::{
    Client, Registry, control, domain, exception, files, noon, seconds, subject, world,
};
use exeat::{
    domain::{Kind, Timestamp},
    registry::{self, CALLS, Role, Sqlite, Store},
    runtime::clock::Clock,
    wire::v1::{self, ChangeKind, ObjectKind},
};
use tonic::{Code, transport::Endpoint};

async fn started() -> (tempfile::TempDir, Clock, Registry, Client) {
    let scratch = tempfile::tempdir().unwrap();
    let clock = Clock::manual(noon());
    let registry = Registry::start(scratch.path(), clock.clone()).await;
    let client = registry.client().await;
    (scratch, clock, registry, client)
}

fn fates(answer: &v1::ApplyResponse) -> Vec<(String, ChangeKind, u64)> {
    let changes = answer.changes.iter();
    changes
        .map(|change| (change.id.clone(), change.change(), change.revision))
        .collect()
}

#[tokio::test]
async fn an_apply_is_all_or_nothing_and_lists_every_fault_with_its_place() {
    let (_scratch, _, mut registry, mut client) = started().await;
    let bad = control("CT-1", "a", "true")
        + &control("CT-2", "b", "nonsense(")
        + &exception("EX-1", "CT-NONE", "agent")
        + &subject("agent", Some("nowhere"));
    let refused = client.apply(&bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for part in [
        "a.yaml:22:30:",
        "a.yaml:29:15:",
        "CT-NONE",
        "a.yaml:57:9:",
        "nowhere",
        "nothing was changed",
    ] {
        assert!(
            refused.message().contains(part),
            "{part}\n{}",
            refused.message()
        );
    }
    let status = client
        .fleet
        .get_status(v1::GetStatusRequest {})
        .await
        .unwrap();
    assert_eq!(status.into_inner().head.unwrap().revision, 0);
    registry.process.stop().await;
}

#[tokio::test]
async fn applying_again_changes_nothing_and_a_dry_run_never_does() {
    let (_scratch, _, mut registry, mut client) = started().await;
    let dry = v1::ApplyRequest {
        files: files(&world()),
        dry_run: true,
        ..v1::ApplyRequest::default()
    };
    let said = client.objects.apply(dry).await.unwrap().into_inner();
    assert_eq!((said.revision, said.changes.len()), (0, 4));
    let first = client.apply(&world()).await.unwrap();
    assert_eq!(first.revision, 1);
    assert!(
        fates(&first)
            .iter()
            .all(|(_, fate, at)| (*fate, *at) == (ChangeKind::Created, 1))
    );
    let again = client
        .apply(&format!("# a comment\n{}", world()))
        .await
        .unwrap();
    assert_eq!(again.revision, 1, "a comment is no change");
    assert!(
        fates(&again)
            .iter()
            .all(|(_, fate, _)| *fate == ChangeKind::Unchanged)
    );

    let changed = control("CT-PLAIN", "plain", "1 == 2");
    let conditional = |revision| v1::ApplyRequest {
        files: files(&changed),
        expected: vec![v1::Expectation {
            kind: ObjectKind::Control.into(),
            id: "CT-PLAIN".into(),
            revision,
        }],
        ..v1::ApplyRequest::default()
    };
    let refused = client.objects.apply(conditional(7)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert!(
        refused.message().contains("at revision 1, not 7"),
        "{}",
        refused.message()
    );
    let done = client
        .objects
        .apply(conditional(1))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(fates(&done), [("CT-PLAIN".into(), ChangeKind::Updated, 2)]);
    registry.process.stop().await;
}

#[tokio::test]
async fn pruning_removes_what_is_not_named_and_leaves_nothing_hanging() {
    let (_scratch, _, mut registry, mut client) = started().await;
    client.apply(&world()).await.unwrap();
    let prune = |text: &str| v1::ApplyRequest {
        files: files(text),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    let hanging = prune(&control("CT-PLAIN", "plain", "false"));
    let refused = client.objects.apply(hanging).await.unwrap_err();
    assert!(
        refused.message().contains("EX-1 names it"),
        "{}",
        refused.message()
    );
    let kept = prune(&control("CT-RISKY", "risky", "true"));
    let done = client.objects.apply(kept).await.unwrap().into_inner();
    let gone = ("CT-PLAIN".into(), ChangeKind::Removed, 2);
    assert!(fates(&done).contains(&gone), "{:?}", fates(&done));
    let get = v1::GetObjectRequest {
        kind: ObjectKind::Control.into(),
        id: "CT-PLAIN".into(),
    };
    assert_eq!(
        client.objects.get_object(get).await.unwrap_err().code(),
        Code::NotFound
    );
    // Made again, it goes on counting.
    let back = client
        .apply(&control("CT-PLAIN", "plain", "false"))
        .await
        .unwrap();
    assert_eq!(fates(&back), [("CT-PLAIN".into(), ChangeKind::Created, 3)]);
    registry.process.stop().await;
}

#[tokio::test]
async fn every_object_has_its_history_and_lists_come_in_pages() {
    let (_scratch, clock, mut registry, mut client) = started().await;
    for condition in ["false", "1 == 2", "2 == 3"] {
        clock.advance(seconds(60));
        let text = control("CT-PLAIN", "plain", condition);
        client.apply(&text).await.unwrap();
    }
    let mut request = v1::ListHistoryRequest {
        kind: ObjectKind::Control.into(),
        id: "CT-PLAIN".into(),
        page_size: 2,
        page_token: String::new(),
    };
    let first = client
        .objects
        .list_history(request.clone())
        .await
        .unwrap()
        .into_inner();
    let revisions = |page: &v1::ListHistoryResponse| {
        page.objects.iter().map(|o| o.revision).collect::<Vec<_>>()
    };
    assert_eq!(revisions(&first), [3, 2]);
    assert_eq!(first.objects[0].principal, "user:admin");
    assert_eq!(
        first.objects[0].time.as_ref().unwrap().seconds * 1_000_000,
        (noon() + seconds(180)).micros()
    );
    request.page_token = first.next_page_token;
    let rest = client
        .objects
        .list_history(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (revisions(&rest), rest.next_page_token.as_str()),
        (vec![1], "")
    );

    let many: String = (0..5)
        .map(|n| subject(&format!("agent-{n}"), None))
        .collect();
    client.apply(&many).await.unwrap();
    let mut request = v1::ListObjectsRequest {
        kind: ObjectKind::Subject.into(),
        page_size: 3,
        ..v1::ListObjectsRequest::default()
    };
    let first = client
        .objects
        .list_objects(request.clone())
        .await
        .unwrap()
        .into_inner();
    request.page_token = first.next_page_token.clone();
    let rest = client
        .objects
        .list_objects(request.clone())
        .await
        .unwrap()
        .into_inner();
    let ids: Vec<_> = first
        .objects
        .iter()
        .chain(&rest.objects)
        .map(|o| o.id.as_str())
        .collect();
    assert_eq!(ids, ["agent-0", "agent-1", "agent-2", "agent-3", "agent-4"]);
    assert_eq!(rest.next_page_token, "");
    request.page_token = String::new();
    request.filter = "agent-3 AI_AGENT".into();
    let found = client
        .objects
        .list_objects(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.objects.len(), 1);
    registry.process.stop().await;
}

#[tokio::test]
async fn every_call_is_open_to_its_roles_alone() {
    let (_scratch, _, mut registry, mut client) = started().await;
    let mut tokens = vec![(None, "exeat_made_up".to_owned())];
    for role in Role::ALL {
        let name = format!("ROLE_{}", role.name().to_ascii_uppercase());
        let wire = v1::Role::from_str_name(&name).unwrap();
        let scope: &[&str] = if role == Role::Sidecar { &["*"] } else { &[] };
        let token = client.let_in(&format!("service:{role}"), wire, scope).await;
        tokens.push((Some(role), token));
    }
    let channel = Endpoint::from_shared(format!("http://{}", registry.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    for (path, roles) in CALLS {
        for (role, token) in &tokens {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.unwrap();
            let mut request =
                tonic::Request::new(futures_util::stream::iter(
                    [v1::GetStatusRequest::default()],
                ));
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
            // An empty message is read as any; what matters is who is turned away at the door.
            let codec: tonic_prost::ProstCodec<v1::GetStatusRequest, v1::ExpelResponse> =
                tonic_prost::ProstCodec::default();
            let answer = grpc.streaming(request, path.parse().unwrap(), codec).await;
            let code = match answer {
                Ok(mut messages) => match messages.get_mut().message().await {
                    Ok(_) => Code::Ok,
                    Err(status) => status.code(),
                },
                Err(status) => status.code(),
            };
            match role {
                None => assert_eq!(code, Code::Unauthenticated, "{path}"),
                Some(role) if roles.contains(role) => assert!(
                    !matches!(
                        code,
                        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
                    ),
                    "{path} as {role}: {code:?}"
                ),
                Some(role) => assert_eq!(code, Code::PermissionDenied, "{path} as {role}"),
            }
        }
    }
    let author = tokens
        .iter()
        .find(|(role, _)| *role == Some(Role::Author))
        .unwrap();
    let mut author = registry.client_with(&author.1).await;
    let refused = author.apply(&world()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("role admin"),
        "{}",
        refused.message()
    );
    registry.process.kill().await;
}

#[tokio::test]
async fn every_call_of_the_contract_stands_in_the_table() {
    use prost::Message;
    let set = prost_types::FileDescriptorSet::decode(v1::DESCRIPTORS).unwrap();
    for file in &set.file {
        for service in &file.service {
            // Two are a sidecar's; at the last nobody is known yet.
            if ["CheckService", "ExtMcp", "SignInService"].contains(&service.name()) {
                continue;
            }
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                assert!(CALLS.iter().any(|(call, _)| *call == path), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn s4_a_revoked_id_never_comes_back_and_revoking_twice_is_once() {
    let (_scratch, _, mut registry, mut client) = started().await;
    client.apply(&world()).await.unwrap();
    let first = client.revoke("EX-1").await.unwrap();
    let again = client.revoke("EX-1").await.unwrap();
    assert_eq!(first.removal, again.removal);
    assert_eq!(
        client.revoke("EX-9").await.unwrap_err().code(),
        Code::NotFound
    );
    let changed = world().replace("T-1", "T-2");
    let refused = client.apply(&changed).await.unwrap_err();
    assert!(
        refused.message().contains("was revoked"),
        "{}",
        refused.message()
    );
    // Nobody may follow, so nobody has to hear of it.
    assert_eq!(first.completion(), v1::Completion::Complete);
    registry.process.stop().await;
}

#[tokio::test]
async fn l1_the_state_is_the_fold_of_the_log() {
    let (scratch, _, mut registry, mut client) = started().await;
    client.apply(&world()).await.unwrap();
    client
        .apply(&control("CT-PLAIN", "plain", "1 == 2"))
        .await
        .unwrap();
    client.revoke("EX-1").await.unwrap();
    let gone = v1::ApplyRequest {
        files: files(&control("CT-RISKY", "risky", "true")),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    client.objects.apply(gone).await.unwrap();
    registry.process.stop().await;

    let store = Sqlite::open_file(&scratch.path().join("registry.db"))
        .await
        .unwrap();
    let log = store.transactions(0, usize::MAX).await.unwrap();
    let revisions: Vec<_> = log.iter().map(|t| t.revision).collect();
    assert_eq!(revisions, [1, 2, 3, 4], "dense");
    let mut state = std::collections::BTreeMap::new();
    let mut removals = Vec::new();
    for transaction in &log {
        for edit in &transaction.edits {
            state.insert(
                edit.name.clone(),
                (edit.revision, edit.manifest.clone(), transaction.revision),
            );
        }
        removals.extend(transaction.removals.clone());
    }
    let live: std::collections::BTreeMap<_, _> = store
        .objects()
        .await
        .unwrap()
        .into_iter()
        .map(|s| (s.name, (s.revision, s.manifest, s.log_revision)))
        .collect();
    assert_eq!(state, live);
    assert_eq!(removals, store.removals(0).await.unwrap());
    assert!(live.keys().any(|name| name.kind == Kind::Exception));
    store.close().await;
}

#[tokio::test]
async fn t6_a_registry_whose_clock_is_behind_its_log_does_not_start() {
    let (scratch, _, mut registry, mut client) = started().await;
    client.apply(&world()).await.unwrap();
    registry.process.stop().await;
    let behind = Clock::manual(Timestamp::from_micros(noon().micros() - 6_000_000));
    let refused = Registry::start_at(scratch.path(), behind, "127.0.0.1:0", &[]).await;
    let why = refused.err().unwrap();
    assert!(why.contains("set the clock right"), "{why}");
    Registry::start(scratch.path(), Clock::manual(noon()))
        .await
        .process
        .stop()
        .await;
}

#[tokio::test]
async fn a_store_of_a_later_version_is_refused_and_two_registries_do_not_share_one() {
    let (scratch, clock, mut registry, _) = started().await;
    let second = Registry::start_at(scratch.path(), clock.clone(), "127.0.0.1:0", &[]).await;
    assert!(
        second.err().unwrap().contains("another registry"),
        "one at a time"
    );
    registry.process.stop().await;
    let path = scratch.path().join("registry.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let refused = Registry::start_at(scratch.path(), clock, "127.0.0.1:0", &[]).await;
    let why = refused.err().unwrap();
    assert!(
        why.contains("version 99") && why.contains("newer program"),
        "{why}"
    );
}

#[tokio::test]
async fn a_backup_is_read_only_until_recovered() {
    let (scratch, clock, mut registry, mut client) = started().await;
    client.apply(&world()).await.unwrap();
    let copy = scratch.path().join("copy.db");
    registry::backup(scratch.path(), &copy).await.unwrap();
    client.revoke("EX-1").await.unwrap();
    registry.process.stop().await;

    let path = scratch.path().join("registry.db");
    for end in ["-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{end}", path.display())));
    }
    std::fs::rename(&copy, &path).unwrap();
    let mut restored = Registry::start(scratch.path(), clock.clone()).await;
    let mut client = restored.client().await;
    let refused = client
        .apply(&control("CT-9", "x", "true"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("exeat registry recover"),
        "{}",
        refused.message()
    );
    restored.process.stop().await;

    let (epoch, revision) = registry::recover(scratch.path(), 0, clock.clone())
        .await
        .unwrap();
    assert_eq!((epoch, revision), (2, 1_000_001));
    let mut recovered = Registry::start(scratch.path(), clock).await;
    let mut client = recovered.client().await;
    let done = client.apply(&control("CT-9", "x", "true")).await.unwrap();
    assert_eq!(done.revision, 1_000_002);
    recovered.process.stop().await;
}

#[tokio::test]
async fn a_freeze_does_not_wait_for_a_sidecar_that_never_came() {
    let (scratch, clock, mut registry, mut client) = started().await;
    client.apply(&world()).await.unwrap();
    client
        .let_in("service:never", v1::Role::Sidecar, &["*"])
        .await;
    drop(client);
    registry.process.stop().await;
    let again = Registry::start(scratch.path(), clock.clone()).await;
    let mut client = again.client().await;
    let freeze = v1::FreezeRequest {
        subject: "agent".into(),
        note: String::new(),
    };
    let answer = client.revocations.freeze(freeze).await.unwrap();
    let receipt = answer.into_inner().receipt.unwrap();
    assert_eq!(receipt.completion(), v1::Completion::Complete);
    // An exception it might hold all the same, as a copy does not know who came since.
    let receipt = client.revoke("EX-1").await.unwrap();
    assert_eq!(receipt.outstanding.len(), 1);
}

#[tokio::test]
async fn a_domain_that_others_name_is_not_removed() {
    let (_scratch, _clock, _registry, mut client) = started().await;
    let held = domain("team") + &domain("spare") + &subject("held", Some("team"));
    client.apply(&held).await.unwrap();
    let prune = |text: String| v1::ApplyRequest {
        files: files(&text),
        prune: true,
        ..v1::ApplyRequest::default()
    };
    let refused = client.objects.apply(prune(domain("spare"))).await;
    let refused = refused.unwrap_err();
    assert!(
        refused
            .message()
            .contains("Domain team cannot be removed: Subject held names it"),
        "{}",
        refused.message()
    );
    client.objects.apply(prune(domain("team"))).await.unwrap();
}
