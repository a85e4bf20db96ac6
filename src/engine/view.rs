//! What a snapshot is asked.

use std::sync::Arc;

use crate::domain::{
    ClassId, Control, ControlId, Digest, Domain, DomainId, Exception, ExceptionId, Question,
    Removal, Selector, Span, Subject, SubjectId, Target, Tier, TierRules, WhenUngoverned,
};

use super::{
    Directory,
    index::{Entry, Grants},
    removed::Removed,
    snapshot::Snapshot,
};

impl Snapshot {
    /// Whether what is not here may come once it was asked about.
    pub fn fetches(&self) -> bool {
        self.fetches
    }

    /// Whether exceptions are still being read: whoever needs one is to ask again.
    pub fn is_reading(&self) -> bool {
        self.reading
    }

    /// Whether any condition reads what is governed about the resource.
    pub fn reads_resource(&self) -> bool {
        self.rules.reads_resource
    }

    /// The domain and those it is part of, innermost first; ends in a circle as well.
    pub(super) fn ancestry<'a>(
        &'a self,
        id: &DomainId,
    ) -> impl Iterator<Item = &'a Domain> + use<'a> {
        let mut next = self.domains.get_key_value(id).map(|(id, _)| id);
        let limit = self.domains.len().saturating_add(1);
        std::iter::from_fn(move || {
            let domain = self.domains.get(next?)?;
            next = domain.parent.as_ref();
            Some(domain)
        })
        .take(limit)
    }

    pub(crate) fn when_ungoverned(&self, id: Option<&DomainId>) -> WhenUngoverned {
        id.and_then(|id| self.ancestry(id).find_map(|domain| domain.when_ungoverned))
            .unwrap_or(WhenUngoverned::Deny)
    }

    /// The digest of everything it was made from.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its place in the order of changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The rules of `tier`, before what any domain demands.
    pub fn tier(&self, tier: Tier) -> &TierRules {
        self.demands.anywhere(tier)
    }

    /// The shortest time that an exception of any tier is honoured in any domain once the registry is
    /// not heard.
    pub fn shortest_lease(&self) -> Span {
        self.demands.shortest_lease()
    }

    /// The rules of `tier` that hold for a subject in `domain`. In a domain that is not known
    /// nothing is honoured.
    pub fn tier_within(&self, tier: Tier, domain: Option<&DomainId>) -> &TierRules {
        self.demands.within(tier, domain)
    }

    /// The rules of `tier` for what reaches into `domains`: each of them, and all they are part
    /// of, may only tighten (M2).
    pub fn rules(&self, tier: Tier, domains: &[&DomainId]) -> TierRules {
        let mut rules = self.tier(tier).clone();
        for id in domains {
            // Outermost first: each tightens what stands above it.
            let mut above: Vec<_> = self.ancestry(id).collect();
            above.reverse();
            let demands = above.into_iter().flat_map(|domain| &domain.tightens);
            for (_, demand) in demands.filter(|(of, _)| *of == tier) {
                rules = rules.tightened(demand);
            }
        }
        rules
    }

    /// How many controls, subjects and exceptions it holds.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            self.rules.all.len(),
            self.subjects().count(),
            self.grants.len(),
        )
    }

    /// The controls, in the order of their ids.
    pub fn controls(&self) -> impl Iterator<Item = &Arc<Control>> {
        self.rules.all.iter().map(|rule| &rule.control)
    }

    /// The control called `id`.
    pub fn control(&self, id: &ControlId) -> Option<&Arc<Control>> {
        self.rules.find(id).map(|rule| &rule.control)
    }

    /// The subjects, in no particular order.
    pub fn subjects(&self) -> impl Iterator<Item = &Arc<Subject>> {
        self.entries
            .values()
            .filter_map(|entry| entry.subject.as_ref())
    }

    /// The exceptions, in no particular order.
    pub fn exceptions(&self) -> impl Iterator<Item = &Arc<Exception>> {
        self.grants.values().map(|grant| &grant.exception)
    }

    /// The exception called `id`.
    pub fn exception(&self, id: &str) -> Option<&Arc<Exception>> {
        self.grants.get(id).map(|grant| &grant.exception)
    }

    /// The exceptions that name the subject called `id`, which need not be known.
    pub fn exceptions_of(&self, id: &str) -> Vec<&Arc<Exception>> {
        let mut exceptions: Vec<_> = self
            .entries
            .get(id)
            .into_iter()
            .flat_map(|entry| entry.grants.all())
            .map(|grant| &grant.exception)
            .collect();
        // One grant stands under each of its controls.
        exceptions.sort_by(|a, b| a.id.cmp(&b.id));
        exceptions.dedup_by(|a, b| a.id == b.id);
        exceptions
    }

    /// The exceptions for the class called `id`.
    pub fn exceptions_for_class<'a>(
        &'a self,
        id: &ClassId,
    ) -> impl Iterator<Item = &'a Arc<Exception>> + use<'a> {
        let grants = self.class_grants(id).into_iter().flat_map(Grants::all);
        // One grant stands under each of its controls.
        grants.map(|grant| &grant.exception)
    }

    /// The domain and those it is part of, innermost first.
    pub fn domains_above<'a>(
        &'a self,
        id: &DomainId,
    ) -> impl Iterator<Item = &'a Domain> + use<'a> {
        self.ancestry(id)
    }

    /// The subject called `id`.
    pub fn subject(&self, id: &str) -> Option<&Arc<Subject>> {
        self.entries.get(id)?.subject.as_ref()
    }

    pub(crate) fn entry(&self, id: &SubjectId) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// The same snapshot, in which `id` has been used as often as it may.
    #[must_use]
    pub fn exhausting(&self, id: &ExceptionId) -> Self {
        let mut next = self.clone();
        next.exhausted.put(id.clone(), ());
        next
    }

    /// The same snapshot, of which everything in `removed` is taken back.
    #[must_use]
    pub fn removing(&self, removed: Arc<Removed>) -> Self {
        Self {
            removed,
            ..self.clone()
        }
    }

    /// Who people are.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Everything that was taken back.
    pub fn removed(&self) -> &Arc<Removed> {
        &self.removed
    }

    /// Whether `exception` was taken back, for `subject`.
    pub(crate) fn is_revoked(&self, exception: &Exception, subject: &Subject) -> bool {
        let own = || [&exception.domain, &subject.domain].into_iter().flatten();
        let above = own().flat_map(|id| self.ancestry(id));
        let domains = own().chain(above.map(|domain| &domain.id));
        // What is above one that cannot be read may have been taken back (S13).
        let untold = self.removed.has_domains() && own().any(|id| !self.is_rooted(id));
        untold || self.removed.covers(exception, subject, domains)
    }

    /// Whether the exception called `id`, or what it is for, was taken back.
    pub fn takes_back(&self, id: &str) -> bool {
        let Some(exception) = self.exception(id) else {
            return false;
        };
        let subjects = match &exception.scope.subjects {
            Selector::Ids(ids) => ids.iter().map(SubjectId::as_str).collect::<Vec<_>>(),
            Selector::Classes(ids) => ids.iter().map(ClassId::as_str).collect(),
        };
        let mut known = subjects.into_iter().filter_map(|id| self.subject(id));
        self.takes_back_itself(&exception.id)
            || known.any(|subject| self.is_revoked(exception, subject))
    }

    /// Whether the exception was taken back by its id.
    pub fn takes_back_itself(&self, id: &ExceptionId) -> bool {
        self.removed.revokes(&Target::Exception(id.clone()))
    }

    /// Whether a removal alone takes an exception back.
    pub fn would_take_back(&self, id: &str, removal: &Removal) -> bool {
        let mut removed = Removed::default();
        removed.add(0, removal);
        let alone = Self {
            removed: Arc::new(removed),
            ..self.clone()
        };
        alone.takes_back(id)
    }

    /// Whether everything that the domain is part of is known, up to the top.
    fn is_rooted(&self, id: &DomainId) -> bool {
        self.ancestry(id)
            .last()
            .is_some_and(|top| top.parent.is_none())
    }

    pub(crate) fn is_exhausted(&self, id: &ExceptionId) -> bool {
        !self.exhausted.is_empty() && self.exhausted.get(id).is_some()
    }

    pub(crate) fn class_grants(&self, class: &ClassId) -> Option<&Grants> {
        self.classes.get(class).map(AsRef::as_ref)
    }

    /// What is governed about the question's resource: under its id, or for a tool its server's.
    pub fn resource(&self, question: &Question) -> Option<&Arc<Subject>> {
        let server = || self.subject(question.resource.tool()?.server?);
        self.subject(&question.resource.id).or_else(server)
    }
}
