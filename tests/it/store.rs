//! What every store does, whatever it is made of: one suite for the port, run over each.

use std::sync::Arc;

use crate::support::memory::Memory;
use exeat::{
    domain::{
        Act, Cause, Digest, DomainId, Edit, Era, Facet, Head, Kind, Leaf, LogId, Name, News,
        Notice, Observed, Removal, Span, SubjectId, Target, Transaction,
    },
    engine::{
        follow::Beginning,
        ledger::{Tree, commitment, folded, leaf_hash, parts},
    },
    manifest::{leaf_text, payloads},
    registry::{Access, DeliveryState, Sealed, Sqlite, Store, StoreError, Told},
    testing::noon,
};

fn era(epoch: u64) -> Era {
    Era {
        log: LogId([4; 16]),
        epoch,
    }
}

fn edit(kind: Kind, id: &str, revision: u64, manifest: Option<&str>) -> Edit {
    Edit {
        name: Name::new(kind, id),
        revision,
        manifest: manifest.map(Arc::from),
    }
}

fn removal(sequence: u64, target: &str) -> Removal {
    Removal {
        sequence,
        act: Act::Revoke,
        target: Target::parse("exception", target).unwrap(),
        cause: Cause::Admin,
        note: "for a test".into(),
        initiator: "user:dana".into(),
        time: noon(),
    }
}

fn transaction(revision: u64, edits: Vec<Edit>, removals: Vec<Removal>) -> Transaction {
    Transaction {
        revision,
        time: noon() + Span::from_secs(i64::try_from(revision).unwrap()),
        principal: "user:dana".into(),
        action: "apply".into(),
        edits,
        removals,
    }
}

/// A transaction's leaf, appended to the tree.
fn sealed(tree: &mut Tree, epoch: u64, transaction: &Transaction) -> Sealed {
    let payloads = payloads(transaction, &[]);
    let salts: Vec<_> = (0..payloads.len())
        .map(|at| [u8::try_from(at + 1).unwrap(); 16])
        .collect();
    let commitments: Vec<_> = salts
        .iter()
        .zip(&payloads)
        .map(|(salt, payload)| commitment(salt, payload.as_deref().unwrap()))
        .collect();
    let text = leaf_text(
        era(epoch),
        transaction.revision,
        transaction.time,
        &commitments,
    );
    let position = tree.size();
    let whole = tree.append(leaf_hash(&text));
    let leaf = Leaf {
        position,
        text: text.into(),
        salts,
    };
    Sealed {
        leaf,
        whole,
        erases: None,
        urgent: false,
        told: Vec::new(),
        heard: None,
    }
}

/// A store that can be closed and opened again over what it kept.
#[async_trait::async_trait]
trait Kind_ {
    async fn open(&self) -> Arc<dyn Store>;
}

struct Files(tempfile::TempDir);

#[async_trait::async_trait]
impl Kind_ for Files {
    async fn open(&self) -> Arc<dyn Store> {
        let path = self.0.path().join("registry.db");
        Arc::new(Sqlite::open_file(&path).await.unwrap())
    }
}

struct Memories(Memory);

#[async_trait::async_trait]
impl Kind_ for Memories {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
}

async fn suite(kind: &dyn Kind_) {
    let store = kind.open().await;
    let mut tree = Tree::default();
    // Born once; a second opening finds what is there.
    let kept = store.open(era(1)).await.unwrap();
    assert_eq!((kept.beginning.era, kept.head), (era(1), Head::default()));
    let other = Era {
        log: LogId([5; 16]),
        epoch: 1,
    };
    assert_eq!(store.open(other).await.unwrap().beginning.era, era(1));
    assert!(!kept.copied);

    // Whole transactions, in order, and the state is their fold.
    let first = transaction(
        1,
        vec![
            edit(Kind::Control, "A-1", 1, Some("{\"a\":1}")),
            edit(Kind::Subject, "agent", 1, Some("{}")),
        ],
        vec![],
    );
    store
        .commit(&first, &sealed(&mut tree, 1, &first))
        .await
        .unwrap();
    let second = transaction(
        2,
        vec![edit(Kind::Control, "A-1", 2, None)],
        vec![removal(1, "EX-1"), removal(2, "EX-2")],
    );
    store
        .commit(&second, &sealed(&mut tree, 1, &second))
        .await
        .unwrap();
    let head = Head {
        revision: 2,
        sequence: 2,
    };
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(
        store.transactions(0, 10).await.unwrap(),
        [first.clone(), second.clone()]
    );
    assert_eq!(
        store.transactions(1, 10).await.unwrap(),
        std::slice::from_ref(&second)
    );
    assert_eq!(
        store.transactions(0, 1).await.unwrap(),
        std::slice::from_ref(&first)
    );
    let objects = store.objects().await.unwrap();
    let told: Vec<_> = objects
        .iter()
        .map(|stored| {
            (
                stored.name.id.to_string(),
                stored.revision,
                stored.manifest.is_some(),
                stored.log_revision,
            )
        })
        .collect();
    assert_eq!(
        told,
        [("A-1".into(), 2, false, 2), ("agent".into(), 1, true, 1)]
    );
    assert_eq!(objects[1].time, first.time);
    let history = store
        .history(&Name::new(Kind::Control, "A-1"), u64::MAX >> 1, 10)
        .await
        .unwrap();
    let told: Vec<_> = history.iter().map(|stored| stored.log_revision).collect();
    assert_eq!(told, [2, 1], "newest first");
    let earlier = store
        .history(&Name::new(Kind::Control, "A-1"), 2, 10)
        .await
        .unwrap();
    assert_eq!(earlier.len(), 1);
    assert_eq!(store.removals(0).await.unwrap(), second.removals);
    assert_eq!(store.removals(1).await.unwrap(), [removal(2, "EX-2")]);

    // What does not follow on the head leaves no trace.
    for revision in [1, 2, 4] {
        let late = transaction(
            revision,
            vec![edit(Kind::Subject, "x", 1, Some("{}"))],
            vec![],
        );
        assert_eq!(
            store
                .commit(&late, &sealed(&mut tree.clone(), 1, &late))
                .await,
            Err(StoreError::Conflict { head })
        );
    }
    assert_eq!(store.objects().await.unwrap(), objects);

    // Who is let in, and who is remembered as shut out.
    let access = |identity: &str, role: &str| Access {
        identity: identity.into(),
        role: role.into(),
        scope: if role == "sidecar" { "*" } else { "" }.into(),
        token: Some([9; 32]),
    };
    assert!(store.grant(&access("service:b", "sidecar")).await.unwrap());
    assert!(store.grant(&access("service:a", "viewer")).await.unwrap());
    assert!(store.grant(&access("service:a", "sidecar")).await.unwrap());
    // What a sidecar was answered is owed for under its name (S3).
    assert!(!store.grant(&access("service:b", "viewer")).await.unwrap());
    assert!(store.expel("service:b").await.unwrap());
    assert!(!store.grant(&access("service:b", "viewer")).await.unwrap());
    assert!(!store.expel("service:b").await.unwrap());
    assert!(!store.expel("nobody").await.unwrap());
    let known: Vec<_> = store
        .access()
        .await
        .unwrap()
        .into_iter()
        .map(|access| {
            (
                access.identity.to_string(),
                access.role.to_string(),
                access.token,
            )
        })
        .collect();
    assert_eq!(
        known,
        [
            ("service:a".into(), "sidecar".into(), Some([9; 32])),
            ("service:b".into(), "expelled".into(), None)
        ]
    );

    // Who attended, however often.
    let b = |start: u8| ("service:b".into(), [start; 16], None);
    for (start, fencing) in [(1, None), (1, None), (2, Some(noon())), (1, None)] {
        let attended = store.attend("service:b", &[start; 16], fencing).await;
        attended.unwrap();
    }
    assert_eq!(store.attended().await.unwrap(), ["service:b".into()]);
    let fencing = ("service:b".into(), [2; 16], Some(noon()));
    assert_eq!(store.starts().await.unwrap(), [b(1), fencing]);
    for start in 3..=66 {
        let attended = store.attend("service:b", &[start; 16], None).await;
        attended.unwrap();
    }
    let kept: Vec<_> = (3..=66).map(b).collect();
    assert_eq!(store.starts().await.unwrap(), kept);

    // Statements of keys, in order.
    store.keep_key(b"one").await.unwrap();
    store.keep_key(b"two").await.unwrap();
    assert_eq!(
        store.keys().await.unwrap(),
        [b"one".to_vec(), b"two".to_vec()]
    );

    // What was seen: told twice it is kept once, and of a facet the latest.
    let seen = |digest: &str, second: i64| Observed {
        subject: SubjectId::parse("agent").unwrap(),
        facet: Facet::parse("tools").unwrap(),
        digest: Digest::parse(digest).unwrap(),
        first: noon() + Span::from_secs(second),
        last: noon() + Span::from_secs(second),
    };
    store
        .observe("s1", &[seen("sha256:a", 5), seen("sha256:b", 6)])
        .await
        .unwrap();
    store
        .observe("s1", &[seen("sha256:a", 4), seen("sha256:a", 7)])
        .await
        .unwrap();
    let known = store.observed("agent").await.unwrap();
    assert_eq!(known.len(), 2);
    let (latest, by) = &known[0];
    assert_eq!((latest.digest.as_str(), &**by), ("sha256:a", "s1"));
    assert_eq!(
        (latest.first, latest.last),
        (seen("sha256:a", 4).first, seen("sha256:a", 7).last)
    );
    let many: Vec<_> = (0..40)
        .map(|n| seen(&format!("sha256:{n}"), 100 + n))
        .collect();
    store.observe("s1", &many).await.unwrap();
    let known = store.observed("agent").await.unwrap();
    assert_eq!(known.len(), 16);
    assert_eq!(known[0].0.digest.as_str(), "sha256:39");

    // Everything is there after a restart.
    drop(store);
    let store = kind.open().await;
    assert_eq!(store.open(other).await.unwrap().head, head);
    assert_eq!(store.objects().await.unwrap(), objects);
    assert_eq!(store.access().await.unwrap().len(), 2);

    // A new epoch begins beyond the head, and the log goes on from there.
    let beginning = Beginning {
        era: era(2),
        base: Head {
            revision: 1_000,
            sequence: 2,
        },
    };
    let behind = Beginning {
        base: Head {
            revision: 2,
            sequence: 2,
        },
        ..beginning
    };
    let begun = transaction(1_000, vec![], vec![]);
    let begun = Transaction {
        principal: "registry".into(),
        action: "recover".into(),
        time: noon() + Span::from_hours(1),
        ..begun
    };
    let leaf = sealed(&mut tree.clone(), 2, &begun);
    assert!(store.begin(&behind, noon(), &leaf).await.is_err());
    store
        .begin(&beginning, begun.time, &sealed(&mut tree, 2, &begun))
        .await
        .unwrap();
    let kept = store.open(other).await.unwrap();
    assert_eq!((kept.beginning, kept.head.revision), (beginning, 1_000));
    // A copy does not know who attended since.
    let both = ["service:a".into(), "service:b".into()];
    assert_eq!(store.attended().await.unwrap(), both);
    let latest = store.starts().await.unwrap().pop().unwrap();
    let since = Some(begun.time);
    assert_eq!(latest, ("service:b".into(), [66; 16], since));
    let late = transaction(3, vec![], vec![]);
    let leaf = sealed(&mut tree.clone(), 2, &late);
    assert!(store.commit(&late, &leaf).await.is_err());

    // The ledger has every row, what is signed about it stays, and its tree has no hole.
    let rows = store.entered(0, 10).await.unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.transaction.clone(), row.epoch))
        .collect();
    assert_eq!(
        told,
        [(first.clone(), 1), (second.clone(), 1), (begun.clone(), 2)],
        "L1"
    );
    let positions = rows.iter().map(|row| row.leaf.as_ref().unwrap().position);
    assert!(positions.eq(0..3));
    let all = store.nodes(&parts(&(0..3))).await.unwrap();
    assert_eq!(folded(&all), tree.root());
    let hole = exeat::domain::Node { level: 0, place: 3 };
    assert!(store.nodes(&[hole]).await.is_err());
    assert_eq!(store.checkpoint().await.unwrap(), None);
    store.keep_checkpoint(2, "two").await.unwrap();
    store.keep_checkpoint(3, "three").await.unwrap();
    store.keep_checkpoint(3, "signed again").await.unwrap();
    assert_eq!(
        store.checkpoint().await.unwrap(),
        Some((3, "signed again".into()))
    );
    let mut grown = Tree::default();
    for row in &rows {
        let leaf = row.leaf.as_ref().unwrap();
        assert_eq!(grown.append(leaf_hash(&leaf.text)), row.whole, "L3");
        let revision = store.revision_at(leaf.position).await.unwrap();
        assert_eq!(revision, Some(row.transaction.revision));
    }
    assert_eq!(store.revision_at(3).await.unwrap(), None);

    // What is erased is gone with its salt, together with what says so; its leaf is as it was.
    let agent = Name::new(Kind::Subject, "agent");
    let erase = transaction(1_001, vec![], vec![]);
    let with = Sealed {
        erases: Some(agent),
        ..sealed(&mut tree, 2, &erase)
    };
    store.commit(&erase, &with).await.unwrap();
    let after = store.entered(0, 1).await.unwrap().remove(0);
    assert_eq!(
        (
            after.transaction.edits[1].manifest.as_deref(),
            &*after.erased
        ),
        (None, &[1][..])
    );
    let (was, is) = (rows[0].leaf.as_ref().unwrap(), after.leaf.unwrap());
    // Who did what, then each edit's name and manifest.
    let mut salts = was.salts.clone();
    salts[4] = [0; 16];
    assert_eq!((&is.text, is.salts), (&was.text, salts), "L5");
    let late = transaction(1_002, vec![], vec![]);
    store
        .commit(&late, &sealed(&mut tree, 2, &late))
        .await
        .unwrap();
}

#[tokio::test]
async fn sqlite_keeps_to_the_port() {
    suite(&Files(tempfile::tempdir().unwrap())).await;
}

#[tokio::test]
async fn the_store_of_simulations_keeps_to_the_port() {
    suite(&Memories(Memory::default())).await;
}

/// What is told is kept with the change it tells of, or not at all; told twice, it is told once.
#[tokio::test]
async fn what_is_told_is_kept_with_its_change() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open_file(&folder.path().join("registry.db"))
        .await
        .unwrap();
    sqlite.open(era(1)).await.unwrap();
    let outbox = sqlite.outbox();
    outbox.enrol("ops").await.unwrap();
    let mut tree = Tree::default();
    let told = |id: &str| Told {
        id: id.into(),
        notice: Notice::new(News::ExceptionRevoked, "EX-1", noon())
            .of(Some(DomainId::parse("team").unwrap()))
            .with("by", "a \"quoted\" name"),
    };
    let first = transaction(1, Vec::new(), vec![removal(1, "EX-1")]);
    let before = tree.clone();
    let with = Sealed {
        told: vec![told("msg_1"), told("msg_2")],
        ..sealed(&mut tree, 1, &first)
    };
    sqlite.commit(&first, &with).await.unwrap();
    // Somebody else was first: neither the change nor what it tells.
    let late = Sealed {
        told: vec![told("msg_3")],
        ..sealed(&mut before.clone(), 1, &first)
    };
    let refused = sqlite.commit(&first, &late).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    outbox.tell(&[told("msg_2"), told("msg_4")]).await.unwrap();
    assert!(!outbox.spread("ops", noon(), |_| true).await.unwrap());
    let due = outbox.due("ops", noon(), 10).await.unwrap();
    let ids: Vec<_> = due.iter().map(|one| &*one.told.id).collect();
    assert_eq!(ids, ["msg_1", "msg_2", "msg_4"]);
    assert_eq!(due[0].told, told("msg_1"));
    // Whoever comes later is told what comes later.
    outbox.enrol("late").await.unwrap();
    outbox.spread("late", noon(), |_| true).await.unwrap();
    assert_eq!(outbox.due("late", noon(), 10).await.unwrap(), []);
    // What is on its way is not forgotten; what was taken is.
    let mut taken = due[0].clone();
    taken.state = DeliveryState::Delivered;
    outbox.settle(&due[0], &taken).await.unwrap();
    // Whoever was at it meanwhile does not undo that.
    outbox.settle(&due[0], &due[0]).await.unwrap();
    outbox.forget(noon() + Span::from_secs(1)).await.unwrap();
    let left = outbox.list(None, None, None, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|one| &*one.told.id).collect();
    assert_eq!(left, ["msg_4", "msg_2"]);
    // What nobody has looked at yet stays, however old it is; who is gone is waited for no more.
    outbox.tell(&[told("msg_5")]).await.unwrap();
    outbox.forget(noon() + Span::from_secs(1)).await.unwrap();
    outbox.spread("ops", noon(), |_| true).await.unwrap();
    let due = outbox.due("ops", noon(), 10).await.unwrap();
    assert_eq!(due.last().map(|one| &*one.told.id), Some("msg_5"));
    outbox.retire(&["late".into()]).await.unwrap();
    assert_eq!(outbox.due("ops", noon(), 10).await.unwrap(), []);
    outbox.tell(&[told("msg_6")]).await.unwrap();
    outbox.enrol("ops").await.unwrap();
    outbox.spread("ops", noon(), |_| true).await.unwrap();
    assert_eq!(
        outbox.due("ops", noon(), 10).await.unwrap(),
        [],
        "from now on"
    );
}
