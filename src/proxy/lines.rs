//! Messages that are a line each.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Largest message, in bytes.
const LARGEST: usize = 16 << 20;

/// Reads them. What was read of one is kept while nobody waits for the rest.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    text: Vec<u8>,
    /// The rest of one that is too large is on its way.
    skips: bool,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// One message, or nothing.
    Message(Vec<u8>),
    /// More than a message may be.
    TooLarge,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn of(from: R) -> Self {
        Self {
            from,
            text: Vec::new(),
            skips: false,
        }
    }

    /// The next one; nothing at the end, where a line that is not ended is none.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let room = LARGEST.saturating_sub(self.text.len());
            let mut limited = (&mut self.from).take(room as u64);
            let read = limited.read_until(b'\n', &mut self.text).await?;
            let ended = self.text.last() == Some(&b'\n');
            if !ended && self.text.len() >= LARGEST {
                self.text.clear();
                self.skips = true;
                continue;
            }
            if !ended && read > 0 {
                continue;
            }
            if !ended {
                return Ok(None);
            }
            let mut text = std::mem::take(&mut self.text);
            if std::mem::take(&mut self.skips) {
                return Ok(Some(Line::TooLarge));
            }
            while text.last().is_some_and(u8::is_ascii_whitespace) {
                text.pop();
            }
            return Ok(Some(Line::Message(text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_a_message_or_too_large() {
        let large = vec![b'x'; LARGEST + 3];
        let said = [b"a\r\n\n", large.as_slice(), b"\nb\nrest"].concat();
        let mut lines = Lines::of(said.as_slice());
        for wanted in [b"a".as_slice(), b""] {
            let line = lines.next().await.unwrap();
            assert_eq!(line, Some(Line::Message(wanted.to_vec())));
        }
        assert_eq!(lines.next().await.unwrap(), Some(Line::TooLarge));
        let line = lines.next().await.unwrap();
        assert_eq!(line, Some(Line::Message(b"b".to_vec())));
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
