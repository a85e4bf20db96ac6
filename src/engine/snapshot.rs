//! The immutable, indexed view that decisions are made from.
//!
//! A change makes a new snapshot that shares everything the change did not touch.

use std::{collections::HashMap, sync::Arc};

use crate::domain::{
    ClassId, Control, Digest, Domain, DomainId, Enforcement, Exception, ExceptionId, Invalid,
    Selector, Subject, SubjectId, Tier, TierRules, Value, WhenUngoverned,
};

use super::{
    Directory,
    change::{Change, Refusal, SnapshotError, Source, source_of},
    condition::{Condition, Roots, compile, on_deep_stack},
    demands::Demands,
    fallback::fallback,
    index::{Entry, Grant, Grants, Need, Rule, Rules, key},
    removed::Removed,
    shelf::Shelf,
};

/// Most controls a snapshot holds (reliability §9.3).
const MAX_CONTROLS: usize = 10_000;

/// An exception's scope condition and compensating conditions.
type OwnConditions = (Option<Box<Condition>>, Box<[Condition]>);

/// Everything decisions are made from, at one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) digest: Digest,
    pub(super) revision: u64,
    pub(crate) rules: Arc<Rules>,
    pub(super) entries: Shelf<SubjectId, Entry>,
    pub(super) classes: Shelf<ClassId, Arc<Grants>>,
    pub(super) grants: Shelf<ExceptionId, Arc<Grant>>,
    pub(super) demands: Arc<Demands>,
    pub(super) domains: Arc<HashMap<DomainId, Domain>>,
    pub(super) directory: Arc<Directory>,
    pub(super) exhausted: Shelf<ExceptionId, ()>,
    pub(super) removed: Arc<Removed>,
    pub(super) fetches: bool,
    pub(super) reading: bool,
}

impl Snapshot {
    /// A snapshot that knows nothing, at revision 0.
    pub fn empty(digest: Digest) -> Self {
        Self {
            digest,
            revision: 0,
            rules: Arc::default(),
            entries: Shelf::default(),
            classes: Shelf::default(),
            grants: Shelf::default(),
            demands: Arc::default(),
            domains: Arc::default(),
            directory: Arc::default(),
            exhausted: Shelf::default(),
            removed: Arc::default(),
            fetches: false,
            reading: false,
        }
    }

    /// The same snapshot, of one who still reads the exceptions.
    #[must_use]
    pub fn reading(self) -> Self {
        Self {
            reading: true,
            ..self
        }
    }

    /// The same snapshot, of one who fetches what is asked about and not here.
    #[must_use]
    pub fn fetching(self) -> Self {
        Self {
            fetches: true,
            ..self
        }
    }

    /// The snapshot after `changes`, taken whole or not at all.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with any of the changes.
    pub fn after(
        &self,
        changes: Vec<Change>,
        digest: Digest,
        revision: u64,
    ) -> Result<Self, Vec<SnapshotError>> {
        let (next, errors) = self.taking(changes, digest, revision);
        if errors.is_empty() {
            Ok(next)
        } else {
            Err(errors)
        }
    }

    /// The snapshot after as many of `changes` as can be taken, and what is wrong with the others.
    /// What cannot be taken grants nothing: an exception is gone, a subject unknown, a control
    /// cannot tell, whatever they were before (S13).
    pub fn taking(
        &self,
        changes: Vec<Change>,
        digest: Digest,
        revision: u64,
    ) -> (Self, Vec<SnapshotError>) {
        let mut next = self.clone();
        (next.digest, next.revision) = (digest, revision);
        let compiles = changes.iter().any(|change| match change {
            Change::PutControl(_) => true,
            Change::PutException(exception) => {
                exception.scope.match_condition.is_some()
                    || !exception.compensating_conditions.is_empty()
            }
            Change::PutTier(..)
            | Change::PutDomain(_)
            | Change::PutSubject(_)
            | Change::PutPerson(_)
            | Change::PutGroup(_)
            | Change::PutIncident(_)
            | Change::PutProposal(_)
            | Change::RemovePerson(_)
            | Change::RemoveGroup(_)
            | Change::RemoveDomain(_)
            | Change::RemoveControl(_)
            | Change::RemoveSubject(_)
            | Change::RemoveException(_) => false,
        });
        let errors = if compiles {
            on_deep_stack(|| next.apply(changes)).unwrap_or_else(|_| {
                let source = Source {
                    kind: "Bundle",
                    id: String::new(),
                };
                vec![SnapshotError {
                    source,
                    invalid: Invalid::new(
                        "",
                        "a condition broke the compiler",
                        "report it with the bundle",
                    ),
                    fault: None,
                }]
            })
        } else {
            next.apply(changes)
        };
        (next, errors)
    }

    fn apply(&mut self, mut changes: Vec<Change>) -> Vec<SnapshotError> {
        // What others refer to comes first.
        changes.sort_by_key(|change| match change {
            Change::PutTier(..)
            | Change::PutPerson(_)
            | Change::PutGroup(_)
            | Change::PutIncident(_)
            | Change::PutProposal(_)
            | Change::RemovePerson(_)
            | Change::RemoveGroup(_) => 0_u8,
            Change::PutDomain(_) | Change::RemoveDomain(_) => 1,
            Change::PutControl(_) | Change::RemoveControl(_) => 2,
            Change::PutSubject(_) | Change::RemoveSubject(_) => 3,
            Change::PutException(_) | Change::RemoveException(_) => 4,
        });
        let mut errors = Vec::new();
        let mut reindex = false;
        let demanded = changes.iter().any(|change| {
            matches!(
                change,
                Change::PutTier(..) | Change::PutDomain(_) | Change::RemoveDomain(_)
            )
        });
        for change in changes {
            let source = source_of(&change);
            let fallback = fallback(&change);
            let done = match change {
                Change::PutTier(tier, rules) => self.put_tier(tier, rules).map_err(Into::into),
                Change::PutDomain(domain) => {
                    Arc::make_mut(&mut self.domains).insert(domain.id.clone(), domain);
                    Ok(())
                }
                Change::RemoveDomain(id) => {
                    Arc::make_mut(&mut self.domains).remove(&id);
                    Ok(())
                }
                Change::PutPerson(person) => {
                    let directory = Arc::make_mut(&mut self.directory);
                    directory.people.insert(person.id.clone(), person);
                    Ok(())
                }
                Change::RemovePerson(id) => {
                    Arc::make_mut(&mut self.directory).people.remove(&id);
                    Ok(())
                }
                Change::PutGroup(group) => {
                    let directory = Arc::make_mut(&mut self.directory);
                    directory.groups.insert(group.id.clone(), group);
                    Ok(())
                }
                Change::PutIncident(incident) => {
                    let directory = Arc::make_mut(&mut self.directory);
                    directory.incidents.insert(incident.id.clone(), incident);
                    Ok(())
                }
                Change::PutProposal(proposal) => {
                    let directory = Arc::make_mut(&mut self.directory);
                    directory.proposals.insert(proposal.id.clone(), proposal);
                    Ok(())
                }
                Change::RemoveGroup(id) => {
                    Arc::make_mut(&mut self.directory).groups.remove(&id);
                    Ok(())
                }
                Change::PutControl(control) => {
                    reindex = true;
                    self.put_control(control)
                }
                Change::RemoveControl(id) => {
                    reindex = true;
                    Arc::make_mut(&mut self.rules)
                        .all
                        .retain(|rule| rule.control.id != id);
                    Ok(())
                }
                Change::PutSubject(subject) => {
                    let domain = self.known_domain(subject.domain.as_ref());
                    let mut entry = self.entries.get(&subject.id).cloned().unwrap_or_default();
                    let id = subject.id.clone();
                    entry.subject = Some(Arc::new(subject));
                    self.entries.put(id, entry);
                    domain.map_err(Into::into)
                }
                Change::RemoveSubject(id) => {
                    self.remove_subject(id);
                    Ok(())
                }
                Change::PutException(exception) => self.put_exception(exception),
                Change::RemoveException(id) => {
                    self.drop_grant(&id);
                    Ok(())
                }
            };
            if let Err(Refusal { invalid, fault }) = done {
                self.fall_back(fallback);
                errors.push(SnapshotError {
                    source,
                    invalid,
                    fault: fault.map(|fault| *fault),
                });
            }
        }
        if reindex {
            Arc::make_mut(&mut self.rules).index();
        }
        if demanded {
            let mut demands = Arc::clone(&self.demands);
            Arc::make_mut(&mut demands).work_out(self);
            self.demands = demands;
        }
        errors.extend(self.domain_errors());
        errors
    }

    pub(super) fn remove_subject(&mut self, id: SubjectId) {
        if let Some(entry) = self.entries.take(&id)
            && !entry.grants.is_empty()
        {
            self.entries.put(
                id,
                Entry {
                    subject: None,
                    grants: entry.grants,
                },
            );
        }
    }

    fn put_tier(&mut self, tier: Tier, rules: TierRules) -> Result<(), Invalid> {
        let rules = rules.checked(tier)?;
        Arc::make_mut(&mut self.demands).put(tier, rules);
        Ok(())
    }

    pub(super) fn put_control(&mut self, control: Control) -> Result<(), Refusal> {
        let control = control.checked()?;
        let rules = Arc::make_mut(&mut self.rules);
        let roots = match (control.runtime, control.schedule.is_some()) {
            (true, false) => Roots::RUNTIME,
            (true, true) => Roots::BOTH,
            (false, _) => Roots::SCHEDULED,
        };
        let mut condition = |path: &str, source: &str, roots| {
            compile(source, roots, &control.params, &mut rules.names)
                .map_err(|fault| Refusal::condition(path, fault))
        };
        let fails = condition("failure_condition", &control.failure_condition, roots)?;
        let reach = control
            .applies_to
            .condition
            .as_deref()
            .map(|source| condition("applies_to.condition", source, Roots::REACH))
            .transpose()?;
        rules.reads_resource |= fails.reads_resource();
        let selects = &control.applies_to;
        let rule = Rule {
            key: key(&control.id),
            needs: Need::of(&control, &fails),
            anywhere: selects.resource_types.is_any() && selects.resources.is_any(),
            control: Arc::new(control),
            fails,
            reach,
        };
        super::world::check_vectors(&rule, &rules.names)?;
        match rules
            .all
            .binary_search_by(|known| known.control.id.cmp(&rule.control.id))
        {
            Ok(at) => rules.all.splice(at..=at, [Arc::new(rule)]).for_each(drop),
            // What stands in for one too many is not left out (S13).
            Err(_) if rules.all.len() >= MAX_CONTROLS && !rule.control.stands_in => {
                return Err(Invalid::new(
                    "id",
                    "is one control too many",
                    "at most 10,000 are in force at once",
                )
                .into());
            }
            Err(at) => rules.all.insert(at, Arc::new(rule)),
        }
        Ok(())
    }

    fn put_exception(&mut self, exception: Exception) -> Result<(), Refusal> {
        let rules = self.tier(exception.tier);
        let mut exception = exception.checked(rules)?;
        self.known_domain(exception.domain.as_ref())?;
        for (at, id) in exception.controls.iter_mut().enumerate() {
            let path = format!("control_ids[{at}]");
            let rule = self.rules.find(id);
            if let Some(rule) = rule {
                // One text for all exceptions of a control.
                id.clone_from(&rule.control.id);
            }
            match rule.map(|rule| rule.control.enforcement) {
                None => {
                    return Err(Invalid::new(
                        path,
                        format!("there is no control `{id}`"),
                        "name a control of this bundle",
                    )
                    .into());
                }
                Some(Enforcement::HardMandatory) => {
                    return Err(Invalid::new(
                        path,
                        format!("`{id}` is HARD_MANDATORY and cannot be waived"),
                        "remedy the cause instead",
                    )
                    .into());
                }
                Some(Enforcement::Advisory | Enforcement::SoftMandatory) => {}
            }
        }
        if let Selector::Classes(classes) = &exception.scope.subjects {
            let most = self.tier(exception.tier).max_subjects;
            let member = |subject: &&Arc<Subject>| {
                subject
                    .class
                    .as_ref()
                    .is_some_and(|class| classes.contains(class))
            };
            let count = self.subjects().filter(member).count();
            if count > most {
                return Err(Invalid::new(
                    "scope.subject_selector.class_ids",
                    format!("reaches {count} subjects"),
                    format!("tier {} permits {most}", exception.tier),
                )
                .into());
            }
        }
        exception.justification = None;
        self.share_texts(&mut exception);
        let (matches, compensates) = self.compile_grant(&exception)?;
        let own = matches.as_deref().into_iter().chain(&compensates);
        let read = own.into_iter().any(Condition::reads_exception);
        self.drop_grant(&exception.id);
        let record = read.then(|| super::world::exception_record(&exception));
        let grant = Arc::new(Grant {
            width: exception.scope.width(),
            record,
            matches,
            compensates,
            exception: Arc::new(exception),
        });
        let keys: Vec<u64> = grant.exception.controls.iter().map(key).collect();
        self.each_holder(&grant, |grants| {
            for key in &keys {
                grants.add(*key, &grant);
            }
        });
        self.grants.put(grant.exception.id.clone(), grant);
        Ok(())
    }

    /// One text for all that name a subject or a digest: there are many exceptions.
    fn share_texts(&self, exception: &mut Exception) {
        let Selector::Ids(ids) = &mut exception.scope.subjects else {
            return;
        };
        for id in ids {
            if let Some(subject) = self.subject(id.as_str()) {
                id.clone_from(&subject.id);
                exception.bound.share(&subject.fingerprint);
            }
        }
    }

    /// The exception's own conditions, compiled; most have none.
    fn compile_grant(&mut self, exception: &Exception) -> Result<OwnConditions, Refusal> {
        let scope = exception.scope.match_condition.as_deref();
        if scope.is_none() && exception.compensating_conditions.is_empty() {
            return Ok((None, Box::default()));
        }
        let rules = Arc::make_mut(&mut self.rules);
        let mut condition = |path: &str, source: &str| {
            let params = Value::Map(Box::default());
            let condition = compile(source, Roots::EXCEPTION, &params, &mut rules.names)
                .map_err(|fault| Refusal::condition(path, fault))?;
            rules.reads_resource |= condition.reads_resource();
            Ok::<_, Refusal>(condition)
        };
        let matches = scope
            .map(|source| condition("scope.match_condition", source))
            .transpose()?
            .map(Box::new);
        let mut compensates = Vec::new();
        for (at, source) in exception.compensating_conditions.iter().enumerate() {
            compensates.push(condition(
                &format!("compensating_conditions[{at}]"),
                source,
            )?);
        }
        Ok((matches, compensates.into()))
    }

    pub(super) fn drop_grant(&mut self, id: &ExceptionId) {
        if let Some(grant) = self.grants.take(id) {
            self.each_holder(&grant, |grants| grants.drop(id));
        }
    }

    /// Changes the index of every subject or class that `grant` is for.
    fn each_holder(&mut self, grant: &Grant, change: impl Fn(&mut Grants)) {
        match &grant.exception.scope.subjects {
            Selector::Ids(ids) => {
                for id in ids {
                    let mut entry = self.entries.get(id).cloned().unwrap_or_default();
                    change(Arc::make_mut(&mut entry.grants));
                    self.entries.put(id.clone(), entry);
                }
            }
            Selector::Classes(classes) => {
                for id in classes {
                    let mut grants = self.classes.get(id).cloned().unwrap_or_default();
                    change(Arc::make_mut(&mut grants));
                    self.classes.put(id.clone(), grants);
                }
            }
        }
    }

    fn known_domain(&self, domain: Option<&DomainId>) -> Result<(), Invalid> {
        match domain {
            Some(id) if !self.domains.contains_key(id) => Err(Invalid::new(
                "domain",
                format!("there is no domain `{id}`"),
                "declare it with a Domain manifest",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Domains with unknown parents, in circles, or looser than their parents (M1, M2).
    fn domain_errors(&self) -> Vec<SnapshotError> {
        let mut errors = Vec::new();
        let mut ids: Vec<_> = self.domains.keys().collect();
        ids.sort_unstable();
        for id in ids {
            let mut wrong = |path: &str, what: String, fix: &str| {
                let source = Source {
                    kind: "Domain",
                    id: id.to_string(),
                };
                errors.push(SnapshotError {
                    source,
                    invalid: Invalid::new(path, what, fix),
                    fault: None,
                });
            };
            let Some(domain) = self.domains.get(id) else {
                continue;
            };
            for (tier, demand) in &domain.tightens {
                let above: Vec<_> = domain.parent.iter().collect();
                let above = self.rules(*tier, &above);
                if let Some(field) = above.loosened_by(demand) {
                    wrong(
                        &format!("tier_policy_overrides.{tier}.{field}"),
                        "is looser than what stands above".into(),
                        "a domain may only tighten",
                    );
                }
            }
            let Some(parent) = &domain.parent else {
                continue;
            };
            if !self.domains.contains_key(parent) {
                wrong(
                    "parent",
                    format!("there is no domain `{parent}`"),
                    "declare it, or leave the parent out",
                );
            } else if self.ancestry(id).count() > self.domains.len() {
                wrong(
                    "parent",
                    "leads back to the domain itself".into(),
                    "make the domains a tree",
                );
            } else if domain.when_ungoverned == Some(WhenUngoverned::Allow)
                && self.when_ungoverned(Some(parent)) == WhenUngoverned::Deny
            {
                wrong(
                    "when_no_control",
                    format!("is ALLOW below `{parent}`, which denies"),
                    "a domain may only tighten",
                );
            }
        }
        errors
    }
}
