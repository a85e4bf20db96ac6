//! Which variables a condition may name, and what it reads of the request.

/// Which variables a condition may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    pub(super) request: bool,
    pub(super) exception: bool,
    pub(super) more: bool,
}

impl Roots {
    /// A control held against questions: `subject`, `resource`, `request`, `params`, `now`.
    pub const RUNTIME: Self = Self {
        request: true,
        exception: false,
        more: true,
    };
    /// A control that runs by itself: `subject`, `resource`, `exception`, `params`, `now`.
    pub const SCHEDULED: Self = Self {
        request: false,
        exception: true,
        more: true,
    };
    /// A control that does both: `subject`, `resource`, `params`, `now`.
    pub const BOTH: Self = Self {
        request: false,
        exception: false,
        more: true,
    };
    /// An exception's own conditions: everything but `params`, which is empty.
    pub const EXCEPTION: Self = Self {
        request: true,
        exception: true,
        more: true,
    };
    /// What a control applies to: `subject` and `params` alone.
    pub const REACH: Self = Self {
        request: false,
        exception: false,
        more: false,
    };
}

/// The entries of the request's context and resource properties that conditions read; each
/// question is matched against them once, and conditions then read slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub(crate) entries: Vec<(Said, Box<str>)>,
}

/// Where the caller said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Context,
    Property,
}

impl Names {
    pub(super) fn slot(&mut self, said: Said, name: &str) -> Option<u16> {
        let known = self
            .entries
            .iter()
            .position(|(where_, known)| *where_ == said && &**known == name);
        let at = known.unwrap_or_else(|| {
            self.entries.push((said, name.into()));
            self.entries.len().saturating_sub(1)
        });
        u16::try_from(at).ok()
    }
}
