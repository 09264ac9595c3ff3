//! Replies off the wire, in whatever pieces they come:
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>. RESP2 only: no connection of
//! ours asks for another.

use std::fmt;

use redis::Value;

/// A reply of more bytes than this is thrown away as it comes: no JavaScript string could hold much
/// more.
pub const REPLY_MAX_BYTES: usize = 256 << 20;

/// No reply's first line is longer, but for an error that quotes us.
const LINE_MAX_BYTES: usize = 64 << 10;
/// COMMAND DOCS goes deeper, what we ask does not.
const DEPTH_MAX: usize = 8;
/// What an element costs beside its bytes.
const ELEMENT_BYTES: usize = size_of::<Value>();
/// An array of more elements than this is thrown away like a reply that is too large: a SCAN's page has at
/// most a few more than its COUNT, which is a million at most.
const ELEMENTS_MAX: usize = 2 << 20;
/// Elements to make room for before any has come.
const ELEMENTS_AHEAD: usize = 1024;
const READ_MIN_BYTES: usize = 4 << 10;
const READ_MAX_BYTES: usize = 256 << 10;

/// One whole reply.
#[derive(PartialEq)]
pub enum Frame {
    /// As it came.
    Value(Value),
    /// It was larger than [`REPLY_MAX_BYTES`], and is gone.
    TooLarge,
}

/// Without the reply: it holds session ids and sessions.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Value(..)",
            Self::TooLarge => "TooLarge",
        })
    }
}

/// The bytes are not Redis's protocol, or not an answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Cuts a stream of bytes into replies.
pub struct Reader {
    /// What has come stands before `end`; from there on is room for more.
    buffer: Vec<u8>,
    end: usize,
    /// Where in `buffer` the next element begins.
    at: usize,
    /// How much to read at once: more, the more there is.
    read_bytes: usize,
    /// How many bytes the element at `at` is known to lack.
    lacking: usize,
    /// Arrays under way, the outermost first: their elements, and how many are missing.
    arrays: Vec<(Vec<Value>, usize)>,
    /// The part of the current reply so far.
    size: usize,
    /// Bytes of an element that is too large, still to be thrown away.
    discard: Option<usize>,
    too_large: bool,
}

enum Element {
    Value(Value),
    /// As many elements follow.
    Array(usize),
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            end: 0,
            at: 0,
            read_bytes: READ_MIN_BYTES,
            lacking: 0,
            arrays: Vec::new(),
            size: 0,
            discard: None,
            too_large: false,
        }
    }
}

impl Reader {
    /// Where bytes are to be read to.
    pub fn room(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.buffer[self.end..]
    }

    /// The first `count` bytes of [`Self::room`] were read.
    pub fn filled(&mut self, count: usize) {
        if self.end + count == self.buffer.len() {
            self.read_bytes = (self.read_bytes * 4).min(READ_MAX_BYTES);
        }
        self.end += count;
    }

    /// Whether every byte belonged to a reply that was taken.
    pub fn is_empty(&self) -> bool {
        self.at == self.end && self.arrays.is_empty() && self.discard.is_none()
    }

    fn make_room(&mut self) {
        if self.at == self.end {
            self.end = 0;
            self.at = 0;
            // What one large reply needed is not kept by every idle store.
            if self.buffer.len() > 2 * READ_MAX_BYTES {
                self.buffer = Vec::new();
            }
        }
        let wanted = self.read_bytes.max(self.lacking.min(READ_MAX_BYTES));
        if self.buffer.len() - self.end < wanted && self.at > 0 {
            self.buffer.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.at = 0;
        }
        if self.buffer.len() - self.end < wanted {
            let double = self.buffer.len() * 2;
            self.buffer.resize(double.max(self.end + wanted), 0);
        }
    }

    /// Takes bytes as if they had been read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.make_room();
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(bytes);
        self.end = self.buffer.len();
    }

    /// The next reply, if all of it is there.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        while let Some(element) = self.element()? {
            let value = match element {
                Element::Value(value) => value,
                Element::Array(0) => Value::Array(Vec::new()),
                Element::Array(count) => {
                    if self.arrays.len() == DEPTH_MAX {
                        return Err(Malformed);
                    }
                    self.too_large |= count > ELEMENTS_MAX;
                    let elements = Vec::with_capacity(count.min(ELEMENTS_AHEAD));
                    self.arrays.push((elements, count));
                    continue;
                }
            };
            if let Some(whole) = self.place(value) {
                self.size = 0;
                if std::mem::take(&mut self.too_large) {
                    return Ok(Some(Frame::TooLarge));
                }
                return Ok(Some(Frame::Value(whole)));
            }
        }
        Ok(None)
    }

    /// Puts an element where it belongs, and returns the reply if that was the last of it.
    fn place(&mut self, mut value: Value) -> Option<Value> {
        while let Some((mut elements, missing)) = self.arrays.pop() {
            if self.too_large {
                elements = Vec::new();
            } else {
                elements.push(value);
            }
            if missing > 1 {
                self.arrays.push((elements, missing - 1));
                return None;
            }
            value = Value::Array(elements);
        }
        Some(value)
    }

    fn element(&mut self) -> Result<Option<Element>, Malformed> {
        if self.discard.is_some() {
            return Ok(self.discarded().then_some(Element::Value(Value::Nil)));
        }
        let rest = &self.buffer[self.at..self.end];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            self.lacking = 1;
            return if rest.len() > LINE_MAX_BYTES {
                Err(Malformed)
            } else {
                Ok(None)
            };
        };
        let [kind, line @ .., b'\r', b'\n'] = &rest[..=end] else {
            return Err(Malformed);
        };
        let body = self.at + end + 1;
        let element = match kind {
            b'$' => match length(line)? {
                None => Element::Value(Value::Nil),
                Some(length) => return self.bulk(body, length),
            },
            b'*' => match length(line)? {
                None => Element::Value(Value::Nil),
                Some(count) => Element::Array(count),
            },
            b':' => Element::Value(Value::Int(number(line)?)),
            b'+' if line == b"OK" => Element::Value(Value::Okay),
            b'+' => Element::Value(Value::SimpleString(
                String::from_utf8_lossy(line).into_owned(),
            )),
            b'-' => {
                let line = String::from_utf8_lossy(&rest[..=end]);
                let error = redis::parse_redis_value(line.as_bytes());
                Element::Value(error.map_err(|_| Malformed)?)
            }
            _ => return Err(Malformed),
        };
        self.at = body;
        self.grow(ELEMENT_BYTES);
        Ok(Some(element))
    }

    fn bulk(&mut self, body: usize, length: usize) -> Result<Option<Element>, Malformed> {
        let room = REPLY_MAX_BYTES.saturating_sub(self.size);
        if self.too_large || length > room {
            self.too_large = true;
            self.at = body;
            self.discard = Some(length.checked_add(2).ok_or(Malformed)?);
            return Ok(self.discarded().then_some(Element::Value(Value::Nil)));
        }
        let end = body + length;
        let Some(tail) = self.buffer[..self.end].get(end..end + 2) else {
            self.lacking = end + 2 - self.end;
            return Ok(None);
        };
        if tail != b"\r\n" {
            return Err(Malformed);
        }
        let text = self.buffer[body..end].to_vec();
        self.at = end + 2;
        self.lacking = 0;
        self.grow(ELEMENT_BYTES + length);
        Ok(Some(Element::Value(Value::BulkString(text))))
    }

    fn grow(&mut self, bytes: usize) {
        self.size += bytes;
        self.too_large |= self.size > REPLY_MAX_BYTES;
    }

    /// Discards the received part of an element that is too large, and returns whether it was complete.
    fn discarded(&mut self) -> bool {
        let left = self.discard.unwrap_or(0);
        let come = left.min(self.end - self.at);
        self.at += come;
        self.discard = (come < left).then(|| left - come);
        self.lacking = 0;
        self.discard.is_none()
    }
}

/// A length or a count; none is -1, which is RESP2's null.
fn length(line: &[u8]) -> Result<Option<usize>, Malformed> {
    match number(line)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Malformed),
    }
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    let text = str::from_utf8(line).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<Frame>, Malformed> {
        let mut reader = Reader::default();
        let mut frames = Vec::new();
        for piece in pieces {
            reader.feed(piece);
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    const STREAM: &[u8] =
        b"+OK\r\n$5\r\na\r\nbc\r\n$-1\r\n:-42\r\n*-1\r\n*0\r\n-ERR no such thing\r\n\
        *2\r\n$1\r\n7\r\n*3\r\n$0\r\n\r\n$-1\r\n*1\r\n:1\r\n+PONG\r\n";

    fn replies() -> Vec<Frame> {
        let error = redis::parse_redis_value(b"-ERR no such thing\r\n").expect("an error reply");
        let text = |text: &[u8]| Value::BulkString(text.to_vec());
        [
            Value::Okay,
            text(b"a\r\nbc"),
            Value::Nil,
            Value::Int(-42),
            Value::Nil,
            Value::Array(vec![]),
            error,
            Value::Array(vec![
                text(b"7"),
                Value::Array(vec![
                    text(b""),
                    Value::Nil,
                    Value::Array(vec![Value::Int(1)]),
                ]),
            ]),
            Value::SimpleString("PONG".into()),
        ]
        .map(Frame::Value)
        .into()
    }

    #[test]
    fn replies_are_the_same_wherever_the_stream_is_cut() {
        assert_eq!(read(&[STREAM]), Ok(replies()));
        for first in 0..STREAM.len() {
            for second in first..STREAM.len() {
                let (head, rest) = STREAM.split_at(first);
                let (middle, tail) = rest.split_at(second - first);
                assert_eq!(
                    read(&[head, middle, tail]),
                    Ok(replies()),
                    "cut at {first} and {second}"
                );
            }
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(read(&bytes), Ok(replies()));
    }

    /// What the fuzzer found worth keeping; it looks for more itself, see `fuzz/`.
    #[test]
    fn the_corpus_is_read_the_same_wherever_it_is_cut() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/reader");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).expect("a corpus") {
            let stream = std::fs::read(entry.expect("an entry").path()).expect("a file");
            let whole = read(&[&stream]);
            for size in [1, 2, 3, 7] {
                let pieces: Vec<&[u8]> = stream.chunks(size).collect();
                assert_eq!(read(&pieces), whole, "cut every {size} bytes");
            }
            count += 1;
        }
        assert!(count > 0);
    }

    #[test]
    fn debug_output_shows_no_reply() {
        let canary = Frame::Value(Value::BulkString(b"canary".to_vec()));
        let text = crate::command::Reply::Text(b"canary".to_vec());
        assert!(!format!("{canary:?} {text:?}").contains("99, 97, 110"));
        assert_eq!(format!("{text:?}"), "Text(6 bytes)");
    }

    #[test]
    fn what_is_not_redis_is_malformed() {
        let endless = vec![b'x'; LINE_MAX_BYTES + 2];
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 1);
        for garbage in [
            b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
            b"\r\n",
            b"\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"*-7\r\n",
            b"$99999999999999999999\r\n",
            b":1.5\r\n",
            b"$3\r\nabcde",
            b"+OK\n",
            b"_\r\n",
            b"\x16\x03\x01\x00\xa5\n",
            &endless,
            &deep,
        ] {
            assert_eq!(
                read(&[garbage]),
                Err(Malformed),
                "{:?}",
                String::from_utf8_lossy(garbage)
            );
        }
    }

    #[test]
    fn a_reply_that_is_too_large_is_thrown_away_and_the_next_one_read() {
        let mut reader = Reader::default();
        let announced = REPLY_MAX_BYTES + 1;
        reader.feed(format!("*2\r\n$1\r\na\r\n${announced}\r\n").as_bytes());
        assert_eq!(reader.next_frame(), Ok(None));
        let piece = vec![b'x'; 1 << 20];
        let mut left = announced;
        while left > 0 {
            let size = left.min(piece.len());
            reader.feed(&piece[..size]);
            left -= size;
            assert_eq!(reader.next_frame(), Ok(None));
            assert!(reader.buffer.capacity() <= 4 << 20);
        }
        reader.feed(b"\r\n+OK\r\n");
        assert_eq!(reader.next_frame(), Ok(Some(Frame::TooLarge)));
        assert_eq!(reader.next_frame(), Ok(Some(Frame::Value(Value::Okay))));
    }

    #[test]
    fn an_array_of_too_many_elements_keeps_none_of_them() {
        let mut reader = Reader::default();
        let count = ELEMENTS_MAX + 1;
        reader.feed(format!("*{count}\r\n").as_bytes());
        for _ in 0..count {
            reader.feed(b":1\r\n");
            assert!(
                reader
                    .arrays
                    .iter()
                    .all(|(elements, _)| elements.is_empty())
            );
            match reader.next_frame() {
                Ok(None) => {}
                frame => assert_eq!(frame, Ok(Some(Frame::TooLarge))),
            }
        }
        reader.feed(b"+OK\r\n");
        assert_eq!(reader.next_frame(), Ok(Some(Frame::Value(Value::Okay))));
    }

    #[test]
    fn what_is_announced_costs_no_memory_before_it_comes() {
        for head in [b"$268000000\r\n".as_slice(), b"*268000000\r\n"] {
            let mut reader = Reader::default();
            reader.feed(head);
            assert_eq!(reader.next_frame(), Ok(None));
            reader.feed(b"");
            assert!(reader.buffer.capacity() <= 2 * READ_MAX_BYTES);
        }
    }
}
