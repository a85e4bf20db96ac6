//! What is wrong with a manifest, and where.

use std::fmt;

use super::is_secret;

/// An error at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the folder.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
    /// The line itself; nothing of one that looks as if it held a secret.
    pub text: String,
}

impl Problem {
    /// A problem with a file as a whole.
    pub fn whole(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            message: message.into(),
            text: String::new(),
        }
    }

    /// A problem at a line and column of `content`.
    pub fn at(
        file: &str,
        content: &str,
        line: usize,
        column: usize,
        message: impl Into<String>,
    ) -> Self {
        let text = content
            .lines()
            .nth(line.saturating_sub(1))
            .filter(|text| !is_secret(text))
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect();
        Self {
            file: file.to_owned(),
            line,
            column,
            message: message.into(),
            text,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            return f.write_str(&self.message);
        }
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )?;
        if self.text.is_empty() || self.column == 0 || self.column > 200 {
            return Ok(());
        }
        write!(
            f,
            "\n  | {}\n  | {:>width$}",
            self.text,
            "^",
            width = self.column
        )
    }
}

impl std::error::Error for Problem {}
