//! Calls that come again under the id their caller gave them: a proxy may ask several times about
//! one call, and that is one use.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use crate::domain::{Digest, ExceptionId, SubjectId};

/// Most calls that are remembered.
const MOST: usize = 10_000;

type Call = (SubjectId, Box<str>);

/// Calls that were allowed by exception, and by which.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Repeats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    calls: HashMap<Call, (Digest, Vec<ExceptionId>)>,
    order: VecDeque<Call>,
}

impl Repeats {
    /// The exceptions a call was allowed by, if it is the same to the last byte.
    pub(in crate::sidecar) fn used(
        &self,
        subject: &SubjectId,
        request: &str,
        question: impl FnOnce() -> Digest,
    ) -> Vec<ExceptionId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let call = (subject.clone(), request.into());
        match known.calls.get(&call) {
            Some((asked, used)) if *asked == question() => used.clone(),
            Some(_) | None => Vec::new(),
        }
    }

    /// Remembers what a call was allowed by.
    pub(in crate::sidecar) fn note(
        &self,
        subject: &SubjectId,
        request: &str,
        question: &Digest,
        used: Vec<ExceptionId>,
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let call: Call = (subject.clone(), request.into());
        let Known { calls, order } = &mut *known;
        if calls
            .insert(call.clone(), (question.clone(), used))
            .is_none()
        {
            order.push_back(call);
        }
        if order.len() > MOST
            && let Some(oldest) = order.pop_front()
        {
            calls.remove(&oldest);
        }
    }
}
