//! Parses replies from the wire, in any pieces:
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>. RESP2 only: our connections never switch to
//! RESP3.

use std::fmt;

use redis::Value;

/// A larger reply is discarded as it arrives: a JavaScript string could not hold much more.
pub const REPLY_MAX_BYTES: usize = 256 << 20;

/// The limit for the first line of a reply; only an error that quotes arguments can be long.
const LINE_MAX_BYTES: usize = 64 << 10;
/// The limit of nested arrays: replies to our commands are less deep.
const DEPTH_MAX: usize = 8;
/// The memory of an element in addition to its bytes.
const ELEMENT_BYTES: usize = size_of::<Value>();
/// An array with more elements is discarded like a reply that is too large: a page of SCAN has little more than
/// its COUNT, at most a million.
const ELEMENTS_MAX: usize = 2 << 20;
/// The limit of elements for which memory is reserved before they arrive.
const ELEMENTS_AHEAD: usize = 1024;
const READ_MIN_BYTES: usize = 4 << 10;
const READ_MAX_BYTES: usize = 256 << 10;

/// One whole reply.
#[derive(PartialEq)]
pub enum Frame {
    /// As it came.
    Value(Value),
    /// It was larger than [`REPLY_MAX_BYTES`] and was discarded.
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

/// The bytes are not Redis's protocol, or not a reply to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Cuts a stream of bytes into replies.
pub struct Reader {
    /// The received bytes end at `end`; the rest is free.
    buffer: Vec<u8>,
    end: usize,
    /// The start of the next element in `buffer`.
    at: usize,
    /// The size of a read; it grows with the amount of data.
    read_bytes: usize,
    /// The known number of missing bytes of the element at `at`.
    lacking: usize,
    /// Incomplete arrays, the outermost first: their elements, and the number of missing ones.
    arrays: Vec<(Vec<Value>, usize)>,
    /// The size of the current reply so far.
    size: usize,
    /// The bytes of an element that is too large that are still to be discarded.
    discard: Option<usize>,
    too_large: bool,
}

enum Element {
    Value(Value),
    /// The number of elements that follow.
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
    /// The buffer to read into.
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

    /// Whether all bytes belong to replies that were returned.
    pub fn is_empty(&self) -> bool {
        self.at == self.end && self.arrays.is_empty() && self.discard.is_none()
    }

    fn make_room(&mut self) {
        if self.at == self.end {
            self.end = 0;
            self.at = 0;
            // Idle stores do not keep the memory of a large reply.
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

    /// Adds bytes as if they had been read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.make_room();
        self.buffer.truncate(self.end);
        self.buffer.extend_from_slice(bytes);
        self.end = self.buffer.len();
    }

    /// The next reply, if it is complete.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        while let Some(element) = self.element()? {
            let value = match element {
                // Nearly every reply: a branch of its own spares copies of the value.
                Element::Value(value) if self.arrays.is_empty() && !self.too_large => {
                    self.size = 0;
                    return Ok(Some(Frame::Value(value)));
                }
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

    /// Adds an element to the innermost array, and returns the reply if it is complete.
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

/// A length or a count. None for -1, RESP2's null.
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

    /// Runs the corpus of the fuzzer in `fuzz/`.
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
    fn other_protocols_are_malformed() {
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
    fn a_reply_that_is_too_large_is_discarded_and_the_next_one_is_read() {
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
    fn announced_elements_take_no_memory_before_they_arrive() {
        for head in [b"$268000000\r\n".as_slice(), b"*268000000\r\n"] {
            let mut reader = Reader::default();
            reader.feed(head);
            assert_eq!(reader.next_frame(), Ok(None));
            reader.feed(b"");
            assert!(reader.buffer.capacity() <= 2 * READ_MAX_BYTES);
        }
    }
}
