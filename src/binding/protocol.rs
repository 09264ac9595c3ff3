//! The only list of the numbers and names that Rust and JavaScript share. `lib/native/protocol.js` reads it
//! from [`protocol`] once.

use napi_derive::napi;

use crate::{command::Kind, core::Stats, error::ErrorCode, marker, users};

/// An enum whose variants have numbers from 0 on and names in JavaScript.
macro_rules! numbered {
    (
        $(#[$docs:meta])*
        $enum:ident { $($(#[$variant_docs:meta])* $variant:ident = $name:literal,)+ }
    ) => {
        $(#[$docs])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$variant_docs])* $variant,)+ }

        impl $enum {
            /// Every one, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in JavaScript.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The number on the boundary.
            pub fn number(self) -> f64 {
                f64::from(self as u8)
            }
        }
    };
}

numbered! {
    /// The operation of a request.
    Operation {
        /// GET.
        Get = "get",
        /// SET.
        Set = "set",
        /// PEXPIRE.
        Expire = "expire",
        /// Writes a marker, then DEL.
        Destroy = "destroy",
        /// MGET.
        MGet = "mget",
        /// Counts the keys.
        Length = "length",
        /// The keys without their prefix.
        Ids = "ids",
        /// Removes all keys.
        Clear = "clear",
        /// SET if there is a value already.
        Replace = "replace",
        /// SET if the value is unchanged.
        Swap = "swap",
        /// SET merged with the changes of other writers.
        Merge = "merge",
        /// SET unless a marker shows that the session was destroyed.
        Restore = "restore",
        /// The same if there is no value.
        Add = "add",
        /// Such a marker, if there is one.
        Marker = "marker",
        /// PTTL.
        Pttl = "pttl",
        /// PING.
        Ping = "ping",
        /// Writes the entry of a session in the index of its user.
        Index = "index",
        /// The same, and SET.
        SignIn = "signIn",
        /// SET if there is a value already, for a session that has an entry.
        Save = "save",
        /// The entries of an index.
        Entries = "entries",
        /// Writes a marker, then DEL, then drops the entry.
        Revoke = "revoke",
        /// Drops entries.
        Remove = "remove",
        /// Drops entries that are older than a time.
        Sweep = "sweep",
        /// Writes an entry over what it was.
        Renew = "renew",
    }
}

impl Operation {
    /// The operation with this number.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// The name of its command, or of its first one, in messages and counters.
    fn command(self) -> Kind {
        match self {
            Self::Get => Kind::Get,
            Self::Set | Self::Replace | Self::Save => Kind::Set,
            Self::Expire => Kind::PExpire,
            Self::Destroy | Self::Revoke => Kind::Del,
            Self::Index
            | Self::SignIn
            | Self::Entries
            | Self::Remove
            | Self::Sweep
            | Self::Renew => Kind::EvalSha,
            Self::MGet => Kind::MGet,
            Self::Length | Self::Ids | Self::Clear => Kind::Scan,
            Self::Swap | Self::Merge | Self::Restore | Self::Add | Self::Marker => Kind::EvalSha,
            Self::Pttl => Kind::Pttl,
            Self::Ping => Kind::Ping,
        }
    }
}

numbered! {
    /// The kinds of answers: see [`delivery`](super::delivery).
    Answer {
        /// There is no value.
        Nil = "nil",
        /// Done.
        Ok = "ok",
        /// The row's number is the answer.
        Count = "count",
        /// The next text is the answer.
        Text = "text",
        /// The row's number is a length in UTF-16 units: the answer is that part of the next text. Further such
        /// rows have the parts that follow, up to the end of that text.
        Part = "part",
        /// The row's number is a count: that many of the next texts are the answer.
        Texts = "texts",
        /// The row's number is an error's code. The next three texts are its message, the message of
        /// its cause and the code of its cause.
        Error = "error",
        /// The row's number is a [`Notice`].
        Notice = "notice",
    }
}

numbered! {
    /// An event of a store's connection.
    Notice {
        /// The circuit is closed.
        Closed = "closed",
        /// The circuit is open.
        Open = "open",
        /// The circuit is half-open.
        HalfOpen = "half-open",
        /// Every server that holds keys is connected.
        Ready = "ready",
        /// A connection was lost.
        Reconnecting = "reconnecting",
        /// A connection was lost or could not be opened. The next four texts are the code of the
        /// error, its message, the message of its cause and the code of its cause.
        Failed = "failed",
        /// The native half has failed. The next text is the location.
        Crashed = "crashed",
    }
}

/// More than there are operations: what a number of a sealing is multiplied by.
pub const OPERATIONS: u32 = 64;
/// Numbers of a row of requests: see [`submission`](super::submission).
pub const REQUEST_COLUMNS: usize = 5;
/// Numbers before the rows of answers.
pub const ANSWER_HEADER: usize = 2;
/// Numbers of a row of answers.
pub const ANSWER_COLUMNS: usize = 3;

/// The numbers and names that JavaScript needs to call this binding. Lists of names are in the order of their
/// numbers.
#[napi(object, object_from_js = false)]
pub struct Protocol {
    /// Operations.
    pub operations: Vec<&'static str>,
    /// For each operation, its command or the first of its commands.
    pub commands: Vec<String>,
    /// Kinds of answers.
    pub answers: Vec<&'static str>,
    /// Notices.
    pub notices: Vec<&'static str>,
    /// Codes of errors.
    pub error_codes: Vec<&'static str>,
    /// Numbers of a row of requests.
    pub request_columns: u32,
    /// What is added to an operation for each number of a sealing.
    pub sealing_factor: u32,
    /// Numbers before the rows of answers.
    pub answer_header: u32,
    /// Numbers of a row of answers.
    pub answer_columns: u32,
    /// The lifetime of a marker in milliseconds.
    pub marker_life_ms: u32,
    /// The script of restore, add and marker, for clients that run it.
    pub restore_script: &'static str,
    /// The scripts about indexes, in the order of their names, for clients that run them.
    pub user_scripts: Vec<&'static str>,
    /// The commands that are counted.
    pub counted_commands: Vec<String>,
    /// The possible outcomes of each counted command.
    pub outcomes: Vec<&'static str>,
    /// Upper bounds of the classes of latency, in milliseconds; the last class has none.
    pub latency_bounds_ms: Vec<f64>,
}

/// The numbers and names that Rust and JavaScript share.
#[napi]
pub fn protocol() -> Protocol {
    let lower = |kind: Kind| kind.name().to_lowercase();
    Protocol {
        operations: Operation::ALL.iter().map(|each| each.name()).collect(),
        commands: Operation::ALL
            .iter()
            .map(|each| lower(each.command()))
            .collect(),
        answers: Answer::ALL.iter().map(|each| each.name()).collect(),
        notices: Notice::ALL.iter().map(|each| each.name()).collect(),
        error_codes: ErrorCode::ALL.iter().map(|code| code.name()).collect(),
        request_columns: REQUEST_COLUMNS as u32,
        sealing_factor: OPERATIONS,
        answer_header: ANSWER_HEADER as u32,
        answer_columns: ANSWER_COLUMNS as u32,
        marker_life_ms: marker::life_ms() as u32,
        restore_script: marker::RESTORE,
        user_scripts: users::SCRIPTS.iter().map(|script| script.1).collect(),
        counted_commands: Kind::all().map(lower).collect(),
        outcomes: Stats::outcomes().to_vec(),
        latency_bounds_ms: Stats::latency_bounds_ms(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_the_same_operation_on_both_sides() {
        for (number, &operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(operation.number(), number as f64);
            assert_eq!(Operation::of(number as u32), Some(operation));
        }
        assert_eq!(Operation::of(Operation::ALL.len() as u32), None);
    }

    #[test]
    fn the_lists_fit_each_other() {
        let protocol = protocol();
        assert_eq!(protocol.operations.len(), protocol.commands.len());
        assert!(protocol.operations.len() < OPERATIONS as usize);
        for (number, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
        for command in &protocol.commands {
            assert!(protocol.counted_commands.contains(command));
        }
    }
}
