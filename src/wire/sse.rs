//! Server-sent events, as they come in pieces.

/// Largest event, in bytes.
const LARGEST: usize = 16 << 20;

/// Puts events together.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    lines: Vec<Vec<u8>>,
    size: usize,
    /// The last byte was a carriage return: a line feed after it ends the same line.
    returned: bool,
}

/// One event: its lines, without what ends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(Vec<Vec<u8>>);

impl Events {
    /// The events that end in these bytes.
    ///
    /// # Errors
    ///
    /// An event that is too large.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, String> {
        let mut ended = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.returned, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    if !line.is_empty() {
                        self.lines.push(line);
                    } else if !self.lines.is_empty() {
                        ended.push(Event(std::mem::take(&mut self.lines)));
                        self.size = 0;
                    }
                }
                byte => {
                    self.size = self.size.saturating_add(1);
                    if self.size > LARGEST {
                        return Err("an event is larger than 16 MiB".into());
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(ended)
    }
}

fn data(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    if rest.is_empty() {
        return Some(rest);
    }
    let rest = rest.strip_prefix(b":")?;
    Some(rest.strip_prefix(b" ").unwrap_or(rest))
}

impl Event {
    /// What it carries; nothing where that is nothing.
    pub fn data(&self) -> Option<Vec<u8>> {
        let lines: Vec<&[u8]> = self.0.iter().filter_map(|line| data(line)).collect();
        Some(lines.join(&b'\n')).filter(|data| !data.is_empty())
    }

    /// The event as it is sent, with `data` in place of what it carries, or nothing of it.
    pub fn with(&self, data_: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        for line in self.0.iter().filter(|line| data(line).is_none()) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        // A line break within would end the line; JSON needs none.
        for line in data_
            .into_iter()
            .flat_map(|data| data.split(|byte| b"\r\n".contains(byte)))
        {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }

    /// The event as it came.
    pub fn whole(&self) -> Vec<u8> {
        let mut out = self.0.join(&b'\n');
        out.extend_from_slice(b"\n\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces() {
        let said = b"id: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n: still here\n\ndata:\n\ndata: x\r\revent: e\ndata: y\n\nrest";
        let whole = Events::default().push(said).unwrap();
        let told: Vec<_> = whole
            .iter()
            .map(|event| event.data().map(|data| String::from_utf8(data).unwrap()))
            .collect();
        let wanted = [Some("{\"a\":\n1}"), None, None, Some("x"), Some("y")];
        assert_eq!(told, wanted.map(|text| text.map(ToOwned::to_owned)));
        for cut in 0..said.len() {
            let mut events = Events::default();
            let mut parted = events.push(&said[..cut]).unwrap();
            parted.extend(events.push(&said[cut..]).unwrap());
            assert_eq!(parted, whole, "cut at {cut}");
        }
        let first = &whole[0];
        assert_eq!(first.with(Some(b"{}")), b"id: 1\ndata: {}\n\n");
        assert_eq!(first.with(None), b"id: 1\n\n");
        assert_eq!(whole[1].whole(), b": still here\n\n");
    }
}
