//! What each tier demands in each domain, worked out when tiers or domains change and not when
//! somebody asks (M2).

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::FixedState;

use crate::domain::{DomainId, Span, Tier, TierRules};

use super::snapshot::Snapshot;

/// The rules of every tier.
type Table = [TierRules; 4];

fn of(table: &Table, tier: Tier) -> &TierRules {
    let [low, moderate, high, incident] = table;
    match tier {
        Tier::Low => low,
        Tier::Moderate => moderate,
        Tier::High => high,
        Tier::Incident => incident,
    }
}

/// The rules of every tier: outside of any domain, and in each.
#[derive(Clone, Debug)]
pub(super) struct Demands {
    anywhere: Arc<Table>,
    /// Looked up for each exception that a decision weighs.
    domains: HashMap<DomainId, Arc<Table>, FixedState>,
    /// Of a domain that is not known: whatever it demands, nothing is honoured (S13).
    unknown: Arc<Table>,
}

impl Default for Demands {
    fn default() -> Self {
        Self {
            anywhere: Arc::new(Tier::ALL.map(TierRules::standard)),
            domains: HashMap::default(),
            unknown: Arc::new(Tier::ALL.map(|tier| TierRules::standard(tier).honouring_nothing())),
        }
    }
}

impl Demands {
    /// The rules of `tier`, before what any domain demands.
    pub(super) fn anywhere(&self, tier: Tier) -> &TierRules {
        of(&self.anywhere, tier)
    }

    /// The rules of `tier` in `domain`.
    pub(super) fn within(&self, tier: Tier, domain: Option<&DomainId>) -> &TierRules {
        let table = match domain {
            None => &self.anywhere,
            Some(domain) => self.domains.get(domain).unwrap_or(&self.unknown),
        };
        of(table, tier)
    }

    /// The shortest time that an exception of any tier is honoured in any domain once the registry is
    /// not heard.
    pub(super) fn shortest_lease(&self) -> Span {
        let tables = self.domains.values().chain([&self.anywhere]);
        let leases = tables.flat_map(|table| table.iter().map(TierRules::lease));
        leases.min().unwrap_or(Span::ZERO)
    }

    /// Replaces the rules of `tier`; those within domains are worked out by
    /// [`work_out`](Self::work_out).
    pub(super) fn put(&mut self, tier: Tier, rules: TierRules) {
        if let Some(place) = Arc::make_mut(&mut self.anywhere).get_mut(tier as usize) {
            *place = rules;
        }
    }

    /// Works out what is demanded within each domain of `snapshot`.
    pub(super) fn work_out(&mut self, snapshot: &Snapshot) {
        let within = |id: &DomainId| {
            let mut above = snapshot.ancestry(id).peekable();
            // A chain that breaks off leads to a domain that is not known.
            let mut whole = above.peek().is_some();
            let mut demands = Vec::new();
            for domain in above {
                demands.extend(domain.tightens.iter().rev());
                let parent = domain.parent.as_ref();
                whole &= parent.is_none_or(|parent| snapshot.domains.contains_key(parent));
            }
            // Each tightens what stands above it.
            demands.reverse();
            if !whole {
                return Arc::clone(&self.unknown);
            }
            if demands.is_empty() {
                return Arc::clone(&self.anywhere);
            }
            Arc::new(Tier::ALL.map(|tier| {
                let of_tier = demands.iter().filter(|(of, _)| *of == tier);
                of_tier.fold(self.anywhere(tier).clone(), |rules, (_, demand)| {
                    rules.tightened(demand)
                })
            }))
        };
        self.domains = snapshot
            .domains
            .keys()
            .map(|id| (id.clone(), within(id)))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Domain, Lease, Now, Outcome, Principal, StaleMode, Tightening},
        engine::{Change, decide},
        testing::{control, exception, noon, question, snapshot, subject},
    };

    fn id(id: &str) -> DomainId {
        DomainId::parse(id).unwrap()
    }

    fn domain(name: &str, parent: Option<&str>, lease: Option<i64>) -> Domain {
        let demand = Tightening {
            lease_ttl: lease.map(Span::from_secs),
            ..Tightening::default()
        };
        Domain {
            id: id(name),
            parent: parent.map(id),
            display_name: name.into(),
            owner: Principal::parse("user:owner").unwrap(),
            when_ungoverned: None,
            vocabulary: vec![],
            approvers: vec![],
            self_activation: None,
            tightens: lease.iter().map(|_| (Tier::Low, demand.clone())).collect(),
        }
    }

    /// Whether the exception of an agent in `team` holds `secs` after the registry was heard last.
    fn holds(world: &Snapshot, secs: i64) -> bool {
        let now = Now {
            lease: Lease::Follows {
                removals: Span::from_secs(secs),
                state: Span::ZERO,
            },
            ..Now::exactly(noon())
        };
        decide(&question("agent"), world, now).outcome == Outcome::AllowByException
    }

    #[test]
    fn m2_a_domain_shortens_the_lease_of_what_is_below_it() {
        let mut agent = subject("agent");
        agent.domain = Some(id("team"));
        let low = exception("EX-1", &["CT-A"], "agent");
        assert_eq!(low.tier, Tier::Low);
        let world = |org: Option<i64>| {
            snapshot(vec![
                Change::PutDomain(domain("org", None, org)),
                Change::PutDomain(domain("team", Some("org"), None)),
                Change::PutControl(control("CT-A", "true")),
                Change::PutSubject(agent.clone()),
                Change::PutException(low.clone()),
            ])
        };
        assert!(holds(&world(None), 299) && !holds(&world(None), 300));
        let tight = world(Some(30));
        assert!(holds(&tight, 29) && !holds(&tight, 30));
        // What changes later holds from then on, for what was there before.
        let digest = crate::domain::Digest::parse("sha256:0").unwrap();
        let tighter = vec![Change::PutDomain(domain("team", Some("org"), Some(10)))];
        let (tighter, wrong) = tight.taking(tighter, digest.clone(), 2);
        assert!(wrong.is_empty());
        assert!(holds(&tighter, 9) && !holds(&tighter, 10));
        // What a domain that is gone demanded is not known: nothing is honoured below it.
        for gone in ["team", "org"] {
            let gone = vec![Change::RemoveDomain(id(gone))];
            let (gone, _) = tight.taking(gone, digest.clone(), 2);
            assert!(!holds(&gone, 0));
        }
    }

    /// What a domain demands is added to what stands above it, and not the other way round: a tier
    /// that trades its bound for availability ends by staleness, until a domain makes it strict.
    #[test]
    fn m2_a_domain_below_lengthens_nothing() {
        let lax = TierRules {
            stale_mode: StaleMode::BestEffort,
            ..TierRules::standard(Tier::Low)
        };
        let demanding = |name: &str, parent: Option<&str>, demand: Tightening| Domain {
            tightens: vec![(Tier::Low, demand)],
            ..domain(name, parent, None)
        };
        let short = Tightening {
            max_staleness: Some(Span::from_secs(60)),
            ..Tightening::default()
        };
        let strict = Tightening {
            stale_mode: Some(StaleMode::Strict),
            ..Tightening::default()
        };
        let world = snapshot(vec![
            Change::PutTier(Tier::Low, lax),
            Change::PutDomain(demanding("org", None, short)),
            Change::PutDomain(demanding("team", Some("org"), strict)),
        ]);
        let minute = Span::from_secs(60);
        for domain in ["org", "team"] {
            let rules = world.tier_within(Tier::Low, Some(&id(domain)));
            assert_eq!(rules.lease(), minute, "{domain}");
            assert_eq!(world.rules(Tier::Low, &[&id(domain)]).lease(), minute);
        }
        assert_eq!(world.shortest_lease(), minute);
    }
}
