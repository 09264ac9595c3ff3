//! The few commands that a session store needs, and what comes back for them.

use std::fmt;

use redis::Value;

use crate::error::{Error, ErrorCode};

/// One command, with its keys complete.
#[derive(Clone)]
pub enum Command {
    /// <https://redis.io/docs/latest/commands/get/>
    Get {
        /// The key.
        key: Vec<u8>,
    },
    /// <https://redis.io/docs/latest/commands/set/>
    Set {
        /// The key.
        key: Vec<u8>,
        /// The whole session as text.
        value: Vec<u8>,
        /// Milliseconds to live (`PX`); none keeps it for ever.
        expire_ms: Option<u64>,
    },
    /// <https://redis.io/docs/latest/commands/pexpire/>; zero or less deletes the key.
    Expire {
        /// The key.
        key: Vec<u8>,
        /// Milliseconds to live.
        expire_ms: i64,
    },
    /// <https://redis.io/docs/latest/commands/del/>
    Del {
        /// The key.
        key: Vec<u8>,
    },
    /// <https://redis.io/docs/latest/commands/mget/>
    MGet {
        /// The keys; at least one.
        keys: Vec<Vec<u8>>,
    },
    /// <https://redis.io/docs/latest/commands/unlink/>
    Unlink {
        /// The keys; at least one.
        keys: Vec<Vec<u8>>,
    },
    /// <https://redis.io/docs/latest/commands/scan/>
    Scan {
        /// Where to go on; `0` starts.
        cursor: Vec<u8>,
        /// `MATCH`, escaped.
        pattern: Vec<u8>,
        /// `COUNT`.
        count: u32,
    },
}

/// What Redis answered, reduced to what callers need.
#[derive(PartialEq, Eq)]
pub enum Reply {
    /// No such key.
    Nil,
    /// Done.
    Ok,
    /// How many keys were concerned.
    Count(i64),
    /// A value.
    Text(Vec<u8>),
    /// A value, or none, for each key of an MGET.
    Texts(Vec<Option<Vec<u8>>>),
    /// One step of a SCAN.
    Page {
        /// Where to go on; `0` when done.
        cursor: Vec<u8>,
        /// Keys, perhaps some for the second time.
        keys: Vec<Vec<u8>>,
    },
}

/// Sizes only: the bytes are session ids and sessions.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("Nil"),
            Self::Ok => f.write_str("Ok"),
            Self::Count(count) => write!(f, "Count({count})"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Texts(texts) => write!(f, "Texts({} values)", texts.len()),
            Self::Page { keys, .. } => write!(f, "Page({} keys)", keys.len()),
        }
    }
}

impl Command {
    /// The command's name, as Redis's documentation spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "GET",
            Self::Set { .. } => "SET",
            Self::Expire { .. } => "PEXPIRE",
            Self::Del { .. } => "DEL",
            Self::MGet { .. } => "MGET",
            Self::Unlink { .. } => "UNLINK",
            Self::Scan { .. } => "SCAN",
        }
    }

    /// The one key that this command is about.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Get { key }
            | Self::Set { key, .. }
            | Self::Expire { key, .. }
            | Self::Del { key } => Some(key),
            Self::MGet { .. } | Self::Unlink { .. } | Self::Scan { .. } => None,
        }
    }

    /// The key whose whole value this command replaces or removes.
    pub fn written_key(&self) -> Option<&[u8]> {
        match self {
            Self::Set { key, .. } | Self::Del { key } => Some(key),
            _ => None,
        }
    }

    /// Appends the command's wire form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Get { key } | Self::Del { key } => {
                head(out, 2, self.name());
                bulk(out, key);
            }
            Self::Set {
                key,
                value,
                expire_ms,
            } => {
                head(out, if expire_ms.is_some() { 5 } else { 3 }, self.name());
                bulk(out, key);
                bulk(out, value);
                if let Some(expire_ms) = expire_ms {
                    bulk(out, b"PX");
                    number(out, expire_ms);
                }
            }
            Self::Expire { key, expire_ms } => {
                head(out, 3, self.name());
                bulk(out, key);
                number(out, expire_ms);
            }
            Self::MGet { keys } | Self::Unlink { keys } => {
                head(out, 1 + keys.len(), self.name());
                for key in keys {
                    bulk(out, key);
                }
            }
            Self::Scan {
                cursor,
                pattern,
                count,
            } => {
                head(out, 6, self.name());
                bulk(out, cursor);
                bulk(out, b"MATCH");
                bulk(out, pattern);
                bulk(out, b"COUNT");
                number(out, count);
            }
        }
    }

    /// Reads the reply to this command.
    pub fn reply(&self, value: Value) -> Result<Reply, Error> {
        match (self, value) {
            (_, Value::ServerError(error)) => {
                Err(Error::server(self.name(), &error, &self.secrets()))
            }
            (Self::Get { .. }, Value::BulkString(text)) => Ok(Reply::Text(text)),
            (Self::Get { .. }, Value::Nil) => Ok(Reply::Nil),
            (Self::Set { .. }, Value::Okay) => Ok(Reply::Ok),
            (Self::Expire { .. } | Self::Del { .. } | Self::Unlink { .. }, Value::Int(count)) => {
                Ok(Reply::Count(count))
            }
            (Self::MGet { keys }, Value::Array(values)) if values.len() == keys.len() => values
                .into_iter()
                .map(|value| match value {
                    Value::BulkString(text) => Ok(Some(text)),
                    Value::Nil => Ok(None),
                    _ => Err(self.unexpected()),
                })
                .collect::<Result<_, _>>()
                .map(Reply::Texts),
            (Self::Scan { .. }, Value::Array(parts)) => self.page(parts),
            _ => Err(self.unexpected()),
        }
    }

    fn page(&self, parts: Vec<Value>) -> Result<Reply, Error> {
        let Ok([Value::BulkString(cursor), Value::Array(keys)]) = <[Value; 2]>::try_from(parts)
        else {
            return Err(self.unexpected());
        };
        let keys = keys
            .into_iter()
            .map(|key| match key {
                Value::BulkString(key) => Ok(key),
                _ => Err(self.unexpected()),
            })
            .collect::<Result<_, _>>()?;
        Ok(Reply::Page { cursor, keys })
    }

    fn unexpected(&self) -> Error {
        Error::new(
            ErrorCode::Decode,
            format!(
                "Redis answered {} with a reply of another kind; check that nothing but Redis is behind this address.",
                self.name()
            ),
        )
    }

    fn secrets(&self) -> Vec<&[u8]> {
        match self {
            Self::Get { key } | Self::Del { key } | Self::Expire { key, .. } => vec![key],
            Self::Set { key, value, .. } => vec![key, value],
            Self::MGet { keys } | Self::Unlink { keys } => keys.iter().map(Vec::as_slice).collect(),
            Self::Scan { .. } => vec![],
        }
    }
}

fn head(out: &mut Vec<u8>, words: usize, name: &str) {
    header(out, b'*', words);
    bulk(out, name.as_bytes());
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, number: &impl ToString) {
    bulk(out, number.to_string().as_bytes());
}

fn header(out: &mut Vec<u8>, kind: u8, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}
