//! Protocol Buffers, as far as OTLP needs them: written straight into the buffer that is sent, since
//! a tree of messages for every decision would cost more than the decision.

/// Writes a message field by field.
#[derive(Debug)]
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn varint(out: &mut Vec<u8>, mut n: u64) {
    loop {
        // The lowest seven bits.
        let low = u8::try_from(n & 0x7f).unwrap_or_default();
        n >>= 7;
        if n == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// How many bytes `n` takes as a varint.
fn width(n: usize) -> usize {
    let bits = usize::BITS - (n | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// How many bytes a field of so many takes, under a key of one.
fn sized(length: usize) -> usize {
    length.saturating_add(width(length)).saturating_add(1)
}

impl Writer<'_> {
    fn key(&mut self, field: u32, wire: u64) {
        varint(self.0, u64::from(field) << 3 | wire);
    }

    pub(super) fn uint(&mut self, field: u32, n: u64) {
        self.key(field, VARINT);
        varint(self.0, n);
    }

    pub(super) fn fixed64(&mut self, field: u32, n: u64) {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u32, n: u32) {
        self.key(field, FIXED32);
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn double(&mut self, field: u32, n: f64) {
        self.fixed64(field, n.to_bits());
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, BYTES);
        varint(self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Begins a message of `length` bytes, which are written after it.
    pub(super) fn opened(&mut self, field: u32, length: u64) {
        self.key(field, BYTES);
        varint(self.0, length);
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A message within: its length is known once it is written, and put before it then.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer<'_>)) {
        self.key(field, BYTES);
        let begin = self.0.len();
        write(&mut Writer(self.0));
        let length = self.0.len().saturating_sub(begin);
        // The length goes to the end, and from there to the front.
        varint(self.0, length as u64);
        if let Some(message) = self.0.get_mut(begin..) {
            message.rotate_right(width(length));
        }
    }

    /// An attribute under `field` of the message that has them.
    pub(super) fn attribute(&mut self, field: u32, name: &str, value: Value<'_>) {
        let Value::Text(text) = value else {
            return self.message(field, |pair| {
                pair.text(1, name);
                pair.message(2, |any| any.value(value));
            });
        };
        // Nearly all of them: of text every length is known before.
        let any = sized(text.len());
        self.opened(field, sized(name.len()).saturating_add(sized(any)) as u64);
        self.text(1, name);
        self.opened(2, any as u64);
        self.text(1, text);
    }

    /// Messages that were written under a key of one byte, under that of `field` now.
    pub(super) fn copied(&mut self, field: u32, mut messages: &[u8]) {
        while let Some((_, rest)) = messages.split_first() {
            let mut after = rest;
            let length = read(&mut after).and_then(|n| usize::try_from(n).ok());
            let Some((message, rest)) = length.and_then(|n| after.split_at_checked(n)) else {
                return;
            };
            self.bytes(field, message);
            messages = rest;
        }
    }

    /// What an `AnyValue` holds.
    pub(super) fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => self.text(1, text),
            Value::Flag(flag) => self.uint(2, u64::from(flag)),
            Value::Count(n) => self.uint(3, n),
            Value::Real(n) => self.double(4, n),
            Value::Texts(texts) => self.message(5, |array| {
                for text in texts {
                    array.message(1, |any| any.text(1, text));
                }
            }),
        }
    }
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Flag(bool),
    Count(u64),
    Real(f64),
    Texts(&'a [&'a str]),
}

/// The first varint of `bytes` under `field` of a message, if it is there and well-formed.
pub(super) fn find(mut message: &[u8], field: u32) -> Option<Found<'_>> {
    while !message.is_empty() {
        let key = read(&mut message)?;
        let found = match key & 7 {
            VARINT => Found::Number(read(&mut message)?),
            BYTES => {
                let length = usize::try_from(read(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Found::Bytes(bytes)
            }
            wire @ (FIXED64 | FIXED32) => {
                let length = if wire == FIXED64 { 8 } else { 4 };
                message = message.get(length..)?;
                continue;
            }
            _ => return None,
        };
        if key >> 3 == u64::from(field) {
            return Some(found);
        }
    }
    None
}

/// A field that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn read(message: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        n |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_width_are_put_before_what_they_measure() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = Vec::new();
            let text = "x".repeat(length);
            Writer(&mut out).message(16, |inner| inner.bytes(1, text.as_bytes()));
            let Some(Found::Bytes(inner)) = find(&out, 16) else {
                panic!("{length}: no message");
            };
            assert_eq!(find(inner, 1), Some(Found::Bytes(text.as_bytes())));
            assert_eq!(find(&out, 15), None);
            // As short as it can be.
            assert_eq!(out.len(), 2 + width(inner.len()) + inner.len());
        }
    }

    #[test]
    fn texts_are_written_as_any_value_is() {
        for length in [0, 1, 100, 127, 128, 300, 20_000] {
            let text = "x".repeat(length);
            let (mut quick, mut plain) = (Vec::new(), Vec::new());
            Writer(&mut quick).attribute(9, "exeat.name", Value::Text(&text));
            Writer(&mut plain).message(9, |pair| {
                pair.text(1, "exeat.name");
                pair.message(2, |any| any.value(Value::Text(&text)));
            });
            assert_eq!(quick, plain, "{length}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_field() {
        let mut out = Vec::new();
        Writer(&mut out).uint(1, u64::MAX);
        assert_eq!(find(&out, 1), Some(Found::Number(u64::MAX)));
        for cut in 0..out.len() {
            assert_eq!(find(&out[..cut], 1), None);
        }
        assert_eq!(find(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], 1), None);
        assert_eq!(find(&[0xff; 12], 1), None);
    }
}
