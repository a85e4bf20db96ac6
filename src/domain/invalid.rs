//! The one error of parsing domain values.

use std::fmt;

/// A value that may not exist: which field, what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    path: String,
    what: String,
    fix: String,
}

impl Invalid {
    /// An error at `path` (dotted, with `[index]` for list items); `fix` says what to do.
    pub fn new(path: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// The same error one level further out: `outer.path`.
    #[must_use]
    pub fn under(mut self, outer: &str) -> Self {
        if self.path.is_empty() {
            outer.clone_into(&mut self.path);
        } else if self.path.starts_with('[') {
            self.path = format!("{outer}{}", self.path);
        } else {
            self.path = format!("{outer}.{}", self.path);
        }
        self
    }

    /// The field, dotted, with `[index]` for list items.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it; may be empty where `what` says it all.
    pub fn fix(&self) -> &str {
        &self.fix
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.what)?;
        } else {
            write!(f, "`{}`: {}", self.path, self.what)?;
        }
        if self.fix.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.fix)
        }
    }
}

impl std::error::Error for Invalid {}
