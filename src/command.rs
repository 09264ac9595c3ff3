//! The commands that a session store needs, and their replies.

mod wire;

use std::fmt;

use redis::Value;

use crate::{
    error::{Error, ErrorCode},
    marker::{By, Destroy, Mode, Restore},
    users::{Call, Save},
};

/// Which command.
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
    ClusterSlots,
    HExists,
}

/// The effect of a command on the value of its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// None, or only on its expiry: the command may always be repeated.
    None,
    /// Writes the whole value: the command is repeated only if no later request writes that key.
    Writes,
    /// Removes the value: the command may be repeated, because later requests are repeated too.
    Removes,
}

/// The type of the reply to a command, unless it is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Text, or nil.
    Value,
    /// OK, or nil if a condition was not met, or the stored text; for a [`Restore`], two numbers of a
    /// marker.
    Written,
    Count,
    /// Text or nil for each key.
    Values,
    /// A cursor and keys.
    Page,
    /// Any simple string.
    Pong,
    /// Read by [`cluster::read_map`](crate::connection::cluster::read_map).
    Map,
}

/// A command: its name, its effect on its key, and its reply.
struct Row(Kind, &'static str, Effect, Shape);

/// Every command, in the order of their numbers.
const ROWS: [Row; Kind::COUNT] = [
    Row(Kind::Get, "GET", Effect::None, Shape::Value),
    Row(Kind::Set, "SET", Effect::Writes, Shape::Written),
    Row(Kind::Eval, "EVAL", Effect::Writes, Shape::Written),
    Row(Kind::EvalSha, "EVALSHA", Effect::Writes, Shape::Written),
    Row(Kind::Pttl, "PTTL", Effect::None, Shape::Count),
    Row(Kind::PExpire, "PEXPIRE", Effect::None, Shape::Count),
    Row(Kind::Del, "DEL", Effect::Removes, Shape::Count),
    Row(Kind::MGet, "MGET", Effect::None, Shape::Values),
    Row(Kind::Unlink, "UNLINK", Effect::Removes, Shape::Count),
    Row(Kind::Scan, "SCAN", Effect::None, Shape::Page),
    Row(Kind::Ping, "PING", Effect::None, Shape::Pong),
    Row(
        Kind::ClusterSlots,
        "CLUSTER SLOTS",
        Effect::None,
        Shape::Map,
    ),
    Row(Kind::HExists, "HEXISTS", Effect::None, Shape::Count),
];

impl Kind {
    /// The number of kinds.
    pub const COUNT: usize = Self::HExists as usize + 1;

    /// Every one, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The command's name, as Redis's documentation spells it.
    pub fn name(self) -> &'static str {
        self.row().1
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
    /// SET if the value is unchanged.
    Swap(Box<Swap>),
    /// Writes a marker, then DEL, as one script.
    Destroy(Box<Destroy>),
    /// SET unless a marker shows that the session was destroyed, as one script.
    Restore(Box<Restore>),
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
    /// <https://redis.io/docs/latest/commands/cluster-slots/>
    ClusterSlots,
    /// <https://redis.io/docs/latest/commands/hexists/>
    HExists {
        /// The key.
        key: Vec<u8>,
        /// The field.
        field: Vec<u8>,
    },
    /// SET XX of a session, preceded by a check whether it is in the index of its user.
    Save(Save),
    /// A script about the sessions of a user.
    User(Box<Call>),
}

/// The time to live of a written value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// After this many milliseconds.
    After(u64),
    /// No expiry.
    Never,
    /// Keeps the time to live of the former value.
    Keep,
}

impl Expiry {
    /// The time to live, if it has one.
    pub fn milliseconds(self) -> Option<u64> {
        match self {
            Self::After(expire_ms) => Some(expire_ms),
            Self::Never | Self::Keep => None,
        }
    }
}

/// The arguments of [`Command::Swap`].
#[derive(Clone)]
pub struct Swap {
    /// The key.
    pub key: Vec<u8>,
    /// The expected value.
    pub base: Vec<u8>,
    /// The new value.
    pub value: Vec<u8>,
    /// Its time to live.
    pub expiry: Expiry,
    /// The command to use.
    pub by: SwapBy,
    /// It was sent before and its reply was lost: a stored value equal to its own may be its own.
    pub repeated: bool,
}

/// The commands that compare and write in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapBy {
    /// `SET … IFEQ … GET`, in Valkey since 8.1 and Redis since 8.4. The reply is the former value, overwritten
    /// or not: <https://valkey.io/commands/set/>
    Set,
    /// A script that Redis has loaded: <https://redis.io/docs/latest/commands/evalsha/>
    EvalSha,
    /// The text of the script: <https://redis.io/docs/latest/commands/eval/>
    Eval,
}

impl Swap {
    /// A swap by the cheapest command; if the server does not have it, the next one is used. A script removes the
    /// key if the time to live is zero.
    pub fn new(key: Vec<u8>, base: Vec<u8>, value: Vec<u8>, expiry: Expiry) -> Box<Self> {
        Box::new(Self {
            key,
            base,
            value,
            expiry,
            by: if expiry == Expiry::After(0) {
                SwapBy::EvalSha
            } else {
                SwapBy::Set
            },
            repeated: false,
        })
    }

    /// The outcome of this swap for the value in the reply.
    fn outcome(&self, value: Vec<u8>) -> Result<Reply, Error> {
        if self.by == SwapBy::Set && value == self.base {
            return Ok(Reply::Ok);
        }
        if self.repeated && value == self.value {
            return Ok(Reply::Ok);
        }
        // It is unknown whether this swap was executed before the other write: a merge or a function could
        // apply the same change twice.
        if self.repeated {
            return Err(Error::new(
                ErrorCode::Conflict,
                "Another request wrote the session while the reply to this save was lost, and the session of the other request is stored; load it again.",
            ));
        }
        Ok(Reply::Text(value))
    }
}

/// Redis's answer in the form that callers need.
#[derive(PartialEq, Eq)]
pub enum Reply {
    /// No such key: nothing was changed.
    Nil,
    /// Done, or written.
    Ok,
    /// The number of affected keys.
    Count(i64),
    /// A value; for a swap, the stored value.
    Text(Vec<u8>),
    /// A value, or none, for each key of an MGET.
    Texts(Vec<Option<Vec<u8>>>),
    /// One step of a SCAN.
    Page(Box<Page>),
    /// A marker: see [`marker::RESTORE`](crate::marker::RESTORE).
    Marker {
        /// What it has left in milliseconds.
        left: i64,
        /// When it expires, by the clock of the server, in milliseconds.
        end: i64,
    },
}

/// One step of a SCAN.
#[derive(PartialEq, Eq)]
pub struct Page {
    /// Where to go on; `0` when done.
    pub cursor: Vec<u8>,
    /// Keys; some may be repeated.
    pub keys: Vec<Vec<u8>>,
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
            Self::Page(page) => write!(f, "Page({} keys)", page.keys.len()),
            Self::Marker { left, end } => write!(f, "Marker({left}, {end})"),
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
            Self::Destroy(destroy) if destroy.unlinks => Kind::Unlink,
            Self::Destroy(_) => Kind::Del,
            Self::Restore(restore) => match restore.by {
                By::Pair | By::Hash => Kind::EvalSha,
                By::Text => Kind::Eval,
            },
            Self::Pttl { .. } => Kind::Pttl,
            Self::Expire { .. } => Kind::PExpire,
            Self::Del { .. } => Kind::Del,
            Self::MGet { .. } => Kind::MGet,
            Self::Unlink { .. } => Kind::Unlink,
            Self::Scan { .. } => Kind::Scan,
            Self::Ping => Kind::Ping,
            Self::ClusterSlots => Kind::ClusterSlots,
            Self::HExists { .. } => Kind::HExists,
            Self::Save(_) => Kind::Set,
            Self::User(call) => match call.by {
                By::Pair | By::Hash => Kind::EvalSha,
                By::Text => Kind::Eval,
            },
        }
    }

    /// The command's name, as Redis's documentation spells it.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The key of this command.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Get { key }
            | Self::Set { key, .. }
            | Self::Expire { key, .. }
            | Self::Pttl { key }
            | Self::HExists { key, .. }
            | Self::Del { key } => Some(key),
            Self::Save(save) => Some(save.key()),
            Self::User(call) => Some(call.key()),
            Self::Swap(swap) => Some(&swap.key),
            Self::Restore(restore) => Some(&restore.key),
            Self::Destroy(destroy) if destroy.unlinks => None,
            Self::Destroy(destroy) => destroy.keys.first().map(Vec::as_slice),
            Self::MGet { .. }
            | Self::Unlink { .. }
            | Self::Scan { .. }
            | Self::Ping
            | Self::ClusterSlots => None,
        }
    }

    /// The key whose whole value this command replaces or removes.
    pub fn written_key(&self) -> Option<&[u8]> {
        match self.effect() {
            Effect::Writes | Effect::Removes => self.key(),
            Effect::None => None,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            // An index may be written twice.
            Self::User(call) if !call.writes_session() => Effect::None,
            Self::Restore(restore) if restore.mode == Mode::Ask => Effect::None,
            _ => self.kind().row().2,
        }
    }

    /// Whether this command must not be repeated after a later request has written its key.
    pub fn undoes_later_writes(&self) -> bool {
        self.effect() == Effect::Writes
    }

    /// Whether this command writes nothing after `later`, because it expects another value than `later` writes.
    pub fn would_find_other_than(&self, later: &Self) -> bool {
        let Some(written) = later.written_value() else {
            return false;
        };
        match self {
            Self::Swap(swap) => swap.base != written,
            // It expects none.
            Self::Restore(restore) => restore.mode == Mode::Add,
            _ => false,
        }
    }

    /// The value that this command writes to its key.
    fn written_value(&self) -> Option<&[u8]> {
        match self {
            Self::Set { value, .. } => Some(value),
            // Empty: it removes the key.
            Self::Swap(swap) if !swap.value.is_empty() => Some(&swap.value),
            Self::Restore(restore) if restore.mode != Mode::Ask => Some(&restore.value),
            Self::Save(save) => Some(save.value()),
            Self::User(call) if call.writes_session() => call.arguments.last().map(Vec::as_slice),
            _ => None,
        }
    }

    /// Switches to another command for the same effect, if `error` means that the server does not have this
    /// one. Returns whether there is one.
    pub fn try_another_way(&mut self, error: &Error) -> bool {
        match (self, error.cause_code()) {
            (Self::Swap(swap), Some(code)) => {
                swap.by = match (swap.by, code) {
                    // A syntax error: the server has no IFEQ, whatever its version.
                    (SwapBy::Set, "ERR") => SwapBy::EvalSha,
                    (SwapBy::EvalSha, "NOSCRIPT") => SwapBy::Eval,
                    _ => return false,
                };
            }
            (Self::User(call), Some("NOSCRIPT")) if call.by == By::Hash => call.by = By::Text,
            (Self::Destroy(destroy), Some("NOSCRIPT")) if destroy.by == By::Hash => {
                destroy.by = By::Text;
            }
            // A session is destroyed even if its marker is denied, or memory is full.
            (command, Some("ERR" | "NOPERM" | "OOM" | "CROSSSLOT" | "NOSCRIPT")) => match command {
                Self::Destroy(destroy) if destroy.by != By::Pair => {
                    *command = destroy.unmarked();
                }
                Self::Restore(restore) => return restore.try_another_way(error),
                _ => return false,
            },
            _ => return false,
        }
        true
    }

    /// Adapts the command to a cluster. Returns whether its keys can be in one slot.
    pub fn fit_slot(&mut self) -> bool {
        match self {
            Self::Destroy(destroy) => destroy.fit_slot(),
            Self::Restore(restore) => restore.fit_slot(),
            _ => true,
        }
    }

    /// Marks the command as repeated after its reply was lost.
    pub fn repeat(&mut self) {
        match self {
            Self::Swap(swap) => swap.repeated = true,
            Self::Restore(restore) => restore.repeated = true,
            _ => {}
        }
    }

    /// Reads the reply to this command.
    pub fn reply(&self, value: Value) -> Result<Reply, Error> {
        match (self.kind().row().3, value) {
            (_, Value::ServerError(error)) => {
                Err(Error::server(self.name(), &error, &self.secrets()))
            }
            (Shape::Written, value) if matches!(self, Self::User(_)) => match self {
                Self::User(call) => call.reply(value).ok_or_else(|| self.unexpected()),
                _ => Err(self.unexpected()),
            },
            (Shape::Value, Value::BulkString(text)) => Ok(Reply::Text(text)),
            (Shape::Value | Shape::Written, Value::Nil) => Ok(Reply::Nil),
            (Shape::Written, Value::Okay) | (Shape::Pong, Value::SimpleString(_)) => Ok(Reply::Ok),
            (Shape::Written, Value::BulkString(now)) => match self {
                Self::Swap(swap) => swap.outcome(now),
                Self::Restore(restore) => restore.found(now),
                _ => Err(self.unexpected()),
            },
            (Shape::Written, Value::Array(numbers)) if matches!(self, Self::Restore(_)) => {
                match numbers[..] {
                    [Value::Int(left), Value::Int(end)] => Ok(Reply::Marker { left, end }),
                    _ => Err(self.unexpected()),
                }
            }
            (Shape::Count, Value::Int(count)) => Ok(Reply::Count(count)),
            (Shape::Values, Value::Array(values)) => self.values(values),
            (Shape::Page, Value::Array(parts)) => self.page(parts),
            _ => Err(self.unexpected()),
        }
    }

    fn values(&self, values: Vec<Value>) -> Result<Reply, Error> {
        match self {
            Self::MGet { keys } if values.len() == keys.len() => values
                .into_iter()
                .map(|value| match value {
                    Value::BulkString(text) => Ok(Some(text)),
                    Value::Nil => Ok(None),
                    _ => Err(self.unexpected()),
                })
                .collect::<Result<_, _>>()
                .map(Reply::Texts),
            _ => Err(self.unexpected()),
        }
    }

    fn page(&self, parts: Vec<Value>) -> Result<Reply, Error> {
        match redis::from_redis_value::<(Vec<u8>, Vec<Vec<u8>>)>(Value::Array(parts)) {
            Ok((cursor, keys)) => Ok(Reply::Page(Box::new(Page { cursor, keys }))),
            Err(_) => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> Error {
        Error::new(
            ErrorCode::Decode,
            format!(
                "Redis answered {} with a reply of another type; check that this address is a Redis server.",
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
            Self::Restore(restore) => vec![&restore.key, &restore.value],
            Self::Destroy(destroy) => destroy.keys.iter().map(Vec::as_slice).collect(),
            Self::MGet { keys } | Self::Unlink { keys } => keys.iter().map(Vec::as_slice).collect(),
            Self::HExists { key, field } => vec![key, field],
            Self::Save(save) => vec![save.key(), save.value(), save.index(), save.handle()],
            Self::User(call) => call.secrets().collect(),
            Self::Scan { .. } | Self::Ping | Self::ClusterSlots => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for (number, kind) in Kind::all().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

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
