//! The few commands that a session store needs, and what comes back for them.

mod wire;

use std::fmt;

use redis::Value;

use crate::error::{Error, ErrorCode};

/// Which command, by the number that it has in [`Kind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are Redis's own names")]
pub enum Kind {
    Get,
    Set,
    Eval,
    EvalSha,
    Pttl,
    PExpire,
    Del,
    MGet,
    Unlink,
    Scan,
    Ping,
}

impl Kind {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Get,
        Self::Set,
        Self::Eval,
        Self::EvalSha,
        Self::Pttl,
        Self::PExpire,
        Self::Del,
        Self::MGet,
        Self::Unlink,
        Self::Scan,
        Self::Ping,
    ];

    /// The command's name, as Redis's documentation spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Set => "SET",
            Self::Eval => "EVAL",
            Self::EvalSha => "EVALSHA",
            Self::Pttl => "PTTL",
            Self::PExpire => "PEXPIRE",
            Self::Del => "DEL",
            Self::MGet => "MGET",
            Self::Unlink => "UNLINK",
            Self::Scan => "SCAN",
            Self::Ping => "PING",
        }
    }
}

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
        /// `PX`, `KEEPTTL` or neither.
        expiry: Expiry,
        /// `XX`: only if there is one already.
        only_existing: bool,
    },
    /// SET if the value is still what it was.
    Swap(Box<Swap>),
    /// <https://redis.io/docs/latest/commands/pttl/>
    Pttl {
        /// The key.
        key: Vec<u8>,
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
    /// <https://redis.io/docs/latest/commands/ping/>
    Ping,
}

/// How long what is written lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many milliseconds.
    After(u64),
    /// For ever.
    Never,
    /// As long as what was there before.
    Keep,
}

impl Expiry {
    /// The time to live, if it says one.
    pub fn milliseconds(self) -> Option<u64> {
        match self {
            Self::After(expire_ms) => Some(expire_ms),
            Self::Never | Self::Keep => None,
        }
    }
}

/// What [`Command::Swap`] writes.
#[derive(Clone)]
pub struct Swap {
    /// The key.
    pub key: Vec<u8>,
    /// What must be there.
    pub base: Vec<u8>,
    /// What is to be there.
    pub value: Vec<u8>,
    /// How long it lives.
    pub expiry: Expiry,
    /// By which command.
    pub by: SwapBy,
    /// It was sent before and its reply was lost: a value equal to its own may be its own.
    pub repeated: bool,
}

/// The commands that compare and write in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapBy {
    /// `SET … IFEQ … GET`, which Valkey has since 8.1 and Redis since 8.4. The reply is what was there
    /// before, written over or not: <https://valkey.io/commands/set/>
    Set,
    /// A script that Redis has loaded: <https://redis.io/docs/latest/commands/evalsha/>
    EvalSha,
    /// The script, sent along: <https://redis.io/docs/latest/commands/eval/>
    Eval,
}

impl Swap {
    /// A swap by the cheapest command; a connection to a server that does not have it takes the next.
    pub fn new(key: Vec<u8>, base: Vec<u8>, value: Vec<u8>, expiry: Expiry) -> Box<Self> {
        Box::new(Self {
            key,
            base,
            value,
            expiry,
            by: SwapBy::Set,
            repeated: false,
        })
    }

    /// By which command it is to be asked again, after this error.
    pub fn again(&self, error: &Error) -> Option<SwapBy> {
        match (self.by, error.cause_code()) {
            // A syntax error: whatever its version, it has no IFEQ.
            (SwapBy::Set, Some("ERR")) => Some(SwapBy::EvalSha),
            (SwapBy::EvalSha, Some("NOSCRIPT")) => Some(SwapBy::Eval),
            _ => None,
        }
    }

    /// What the value that is stored, or was before, says of this swap.
    fn outcome(&self, value: Vec<u8>) -> Result<Reply, Error> {
        if self.by == SwapBy::Set && value == self.base {
            return Ok(Reply::Ok);
        }
        if self.repeated && value == self.value {
            return Ok(Reply::Ok);
        }
        // Whether this swap was done before the other write cannot be known: a merge or a function
        // would apply the same change twice.
        if self.repeated {
            return Err(Error::new(
                ErrorCode::Conflict,
                "The session was written by others while the reply to its save was lost; what is stored is theirs. Load it again.",
            ));
        }
        Ok(Reply::Text(value))
    }
}

/// What Redis answered, reduced to what callers need.
#[derive(PartialEq, Eq)]
pub enum Reply {
    /// No such key, and so nothing that was done.
    Nil,
    /// Done, or written.
    Ok,
    /// How many keys were concerned.
    Count(i64),
    /// A value: of a swap, what is there instead.
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
    /// Which command this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Get { .. } => Kind::Get,
            Self::Set { .. } => Kind::Set,
            Self::Swap(swap) => match swap.by {
                SwapBy::Set => Kind::Set,
                SwapBy::EvalSha => Kind::EvalSha,
                SwapBy::Eval => Kind::Eval,
            },
            Self::Pttl { .. } => Kind::Pttl,
            Self::Expire { .. } => Kind::PExpire,
            Self::Del { .. } => Kind::Del,
            Self::MGet { .. } => Kind::MGet,
            Self::Unlink { .. } => Kind::Unlink,
            Self::Scan { .. } => Kind::Scan,
            Self::Ping => Kind::Ping,
        }
    }

    /// The command's name, as Redis's documentation spells it.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The one key that this command is about.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Get { key }
            | Self::Set { key, .. }
            | Self::Expire { key, .. }
            | Self::Pttl { key }
            | Self::Del { key } => Some(key),
            Self::Swap(swap) => Some(&swap.key),
            Self::MGet { .. } | Self::Unlink { .. } | Self::Scan { .. } | Self::Ping => None,
        }
    }

    /// The key whose whole value this command replaces or removes.
    pub fn written_key(&self) -> Option<&[u8]> {
        match self {
            Self::Set { key, .. } | Self::Del { key } => Some(key),
            Self::Swap(swap) => Some(&swap.key),
            _ => None,
        }
    }

    /// Whether it is to be repeated only if nobody has written the key since.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Set { .. } | Self::Swap(_))
    }

    /// It is sent once more, as the reply to it was lost.
    pub fn repeat(&mut self) {
        if let Self::Swap(swap) = self {
            swap.repeated = true;
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
            (Self::Set { .. } | Self::Swap(_), Value::Okay) => Ok(Reply::Ok),
            (Self::Set { .. } | Self::Swap(_), Value::Nil) => Ok(Reply::Nil),
            (Self::Swap(swap), Value::BulkString(value)) => swap.outcome(value),
            (Self::Pttl { .. }, Value::Int(count)) => Ok(Reply::Count(count)),
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
            (Self::Ping, Value::SimpleString(_)) => Ok(Reply::Ok),
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
            Self::Get { key }
            | Self::Del { key }
            | Self::Pttl { key }
            | Self::Expire { key, .. } => vec![key],
            Self::Swap(swap) => vec![&swap.key, &swap.base, &swap.value],
            Self::Set { key, value, .. } => vec![key, value],
            Self::MGet { keys } | Self::Unlink { keys } => keys.iter().map(Vec::as_slice).collect(),
            Self::Scan { .. } | Self::Ping => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_equal_to_its_own_is_its_own_only_where_a_swap_is_repeated() {
        for by in [SwapBy::Set, SwapBy::EvalSha, SwapBy::Eval] {
            let mut swap = Swap::new(b"k".into(), b"base".into(), b"mine".into(), Expiry::Never);
            swap.by = by;
            let mut command = Command::Swap(swap);
            let reply = |command: &Command, text: &str| {
                command
                    .reply(Value::BulkString(text.into()))
                    .map_err(|error| error.code)
            };
            assert_eq!(reply(&command, "mine"), Ok(Reply::Text(b"mine".into())));
            assert_eq!(reply(&command, "other"), Ok(Reply::Text(b"other".into())));
            command.repeat();
            assert_eq!(reply(&command, "mine"), Ok(Reply::Ok));
            assert_eq!(reply(&command, "other"), Err(ErrorCode::Conflict));
            assert_eq!(command.reply(Value::Okay), Ok(Reply::Ok));
            assert_eq!(command.reply(Value::Nil), Ok(Reply::Nil));
        }
    }

    #[test]
    fn set_answers_what_it_has_written_over() {
        let swap = Swap::new(b"k".into(), b"base".into(), b"mine".into(), Expiry::Never);
        let command = Command::Swap(swap);
        assert_eq!(
            command.reply(Value::BulkString(b"base".into())),
            Ok(Reply::Ok)
        );
    }
}
