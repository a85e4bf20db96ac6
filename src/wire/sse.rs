//! Server-sent events, as they come in pieces.

use super::carried::one_line;

/// Largest event, in bytes.
const LARGEST: usize = 16 << 20;
/// What each of its lines costs beside.
const EACH: usize = 64;
/// A mark of the encoding, which is none of the first line.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// Puts events together.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    lines: Vec<Vec<u8>>,
    size: usize,
    /// The last byte was a carriage return: a line feed after it ends the same line.
    returned: bool,
    /// Whether the stream has begun: a mark of its encoding may come before.
    begun: bool,
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
                    let mut line = std::mem::take(&mut self.line);
                    if !std::mem::replace(&mut self.begun, true) && line.starts_with(BOM) {
                        line.drain(..BOM.len());
                    }
                    // A line is more than what stands in it.
                    self.size = self.size.saturating_add(EACH);
                    if self.size > LARGEST {
                        return Err("an event has too many lines".into());
                    }
                    if line.is_empty() {
                        if !self.lines.is_empty() {
                            ended.push(Event(std::mem::take(&mut self.lines)));
                        }
                        self.size = 0;
                    } else {
                        self.lines.push(line);
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

    /// The event as it is sent, with `data` as what it carries, if anything: of all else only what the
    /// format knows, and no comment, which some might read otherwise.
    pub fn with(&self, data: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        let known = |line: &&Vec<u8>| {
            let plain = line.iter().all(|byte| (b' '..=b'~').contains(byte));
            let names = [b"event:".as_slice(), b"id:", b"retry:"];
            plain && names.iter().any(|name| line.starts_with(name))
        };
        for line in self.0.iter().filter(known) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        if let Some(data) = data {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(&one_line(data));
            out.push(b'\n');
        }
        if out.is_empty() {
            // Whoever listens hears that somebody is there.
            out.extend_from_slice(b":\n");
        }
        out.push(b'\n');
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
        assert_eq!(whole[1].with(None), b":\n\n");
        // What some would read as another line is none.
        let marked = "\u{feff}data: a\n\nid: \u{2028}data: b\ndata: \"\u{2028}\"\n\n".as_bytes();
        let told = Events::default().push(marked).unwrap();
        assert_eq!(told[0].data().as_deref(), Some(b"a".as_slice()));
        let data = told[1].data().unwrap();
        assert_eq!(told[1].with(Some(&data)), b"data: \"\\u2028\"\n\n");
        assert!(Events::default().push(&b"a\n".repeat(300_000)).is_err());
    }
}
