//! Calls that come again under the id their caller gave them: a proxy may ask several times about
//! one call, and that is one use. Soon, and a few times: an id is no way round a limit.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use crate::domain::{Digest, ExceptionId, Span, SubjectId};

/// Most calls that are remembered.
const MOST: usize = 10_000;
/// How long, from the use on.
const SOON: Span = Span::from_secs(30);
/// How often one use may be asked about again.
const AGAIN: u32 = 10;

type Call = (SubjectId, Box<str>);

/// Calls that were allowed by exception, and by which.
#[derive(Debug, Default)]
pub(in crate::sidecar) struct Repeats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    calls: HashMap<Call, Used>,
    order: VecDeque<Call>,
}

#[derive(Debug)]
struct Used {
    question: Digest,
    by: Vec<(ExceptionId, u64)>,
    /// By elapsed time.
    time: Span,
    again: u32,
}

impl Repeats {
    /// The exceptions a call was allowed by lately, with their revisions, if it is the same to the
    /// last byte.
    pub(in crate::sidecar) fn used(
        &self,
        subject: &SubjectId,
        request: &str,
        question: impl FnOnce() -> Digest,
        now: Span,
    ) -> Vec<(ExceptionId, u64)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let call = (subject.clone(), request.into());
        let Some(used) = known.calls.get_mut(&call) else {
            return Vec::new();
        };
        let late = now.saturating_sub(used.time) > SOON || used.again >= AGAIN;
        if late || used.question != question() {
            return Vec::new();
        }
        used.again = used.again.saturating_add(1);
        used.by.clone()
    }

    /// Remembers what a call was allowed by.
    pub(in crate::sidecar) fn note(
        &self,
        subject: &SubjectId,
        request: &str,
        question: &Digest,
        by: Vec<(ExceptionId, u64)>,
        now: Span,
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let call: Call = (subject.clone(), request.into());
        let Known { calls, order } = &mut *known;
        let used = Used {
            question: question.clone(),
            by,
            time: now,
            again: 0,
        };
        if calls.insert(call.clone(), used).is_none() {
            order.push_back(call);
        }
        if order.len() > MOST
            && let Some(oldest) = order.pop_front()
        {
            calls.remove(&oldest);
        }
    }
}
