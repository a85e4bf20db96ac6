//! Why a condition was refused, and where.

use std::fmt;

/// A refused condition: what is wrong, what to do, and where in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    source: String,
    at: usize,
    message: String,
}

impl Fault {
    /// A fault at byte `at` of `source`.
    pub fn new(source: &str, at: usize, message: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            at: at.min(source.len()),
            message: message.into(),
        }
    }

    /// What is wrong and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Line and column within the condition, both from 1; columns count characters.
    pub fn position(&self) -> (usize, usize) {
        let before = self.source.get(..self.at).unwrap_or(&self.source);
        let line = before.matches('\n').count();
        let start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let column = before.get(start..).map_or(0, |text| text.chars().count());
        (line.saturating_add(1), column.saturating_add(1))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        writeln!(f, "{line}:{column}: {}", self.message)?;
        let text = self
            .source
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default();
        // A long line is shown around the fault only.
        let from = column.saturating_sub(61);
        let shown: String = text.chars().skip(from).take(120).collect();
        writeln!(f, "  | {shown}")?;
        write!(
            f,
            "  | {:>width$}",
            "^",
            width = column.saturating_sub(from)
        )
    }
}

impl std::error::Error for Fault {}
