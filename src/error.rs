//! The closed list of errors, and what Redis's own errors become.

use std::{fmt, io};

use redis::ServerError;

/// What went wrong, in the words that callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// An option or an argument cannot be used.
    Options,
    /// There is no connection, or it was lost before the reply came.
    Connect,
    /// Redis refused the credentials, or they do not allow this.
    Auth,
    /// No reply within `commandTimeoutMs`.
    Timeout,
    /// The store was closed before.
    Closed,
    /// `maxPending` requests are waiting already.
    QueueFull,
    /// Redis answered with an error.
    Server,
    /// Something came back that cannot be understood.
    Decode,
    /// Others have written the session meanwhile.
    Conflict,
    /// The session cannot be serialized, or is too large.
    Encode,
}

impl ErrorCode {
    /// Every code, in the order of their numbers on the boundary to JavaScript.
    pub const ALL: [Self; 10] = [
        Self::Options,
        Self::Connect,
        Self::Auth,
        Self::Timeout,
        Self::Closed,
        Self::QueueFull,
        Self::Server,
        Self::Decode,
        Self::Conflict,
        Self::Encode,
    ];

    /// The value of `error.code` in JavaScript.
    pub fn name(self) -> &'static str {
        match self {
            Self::Options => "ERR_REDIS_STORE_OPTIONS",
            Self::Connect => "ERR_REDIS_STORE_CONNECT",
            Self::Auth => "ERR_REDIS_STORE_AUTH",
            Self::Timeout => "ERR_REDIS_STORE_TIMEOUT",
            Self::Closed => "ERR_REDIS_STORE_CLOSED",
            Self::QueueFull => "ERR_REDIS_STORE_QUEUE_FULL",
            Self::Server => "ERR_REDIS_STORE_SERVER",
            Self::Decode => "ERR_REDIS_STORE_DECODE",
            Self::Conflict => "ERR_REDIS_STORE_CONFLICT",
            Self::Encode => "ERR_REDIS_STORE_ENCODE",
        }
    }
}

/// An error as the caller gets it. Holds no password, session id or session value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What callers branch on.
    pub code: ErrorCode,
    /// What failed, what we got, what to do.
    pub message: String,
    /// What the system or the server below said, if it said something.
    pub cause: Option<Cause>,
}

/// What the system or the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its words.
    pub message: String,
    /// Its code, as Node or Redis spells it: `ECONNREFUSED`, `OOM`.
    pub code: Option<String>,
}

impl From<String> for Cause {
    fn from(message: String) -> Self {
        Self {
            message,
            code: None,
        }
    }
}

impl From<&io::Error> for Cause {
    fn from(error: &io::Error) -> Self {
        Self {
            message: error.to_string(),
            code: system_code(error.kind()).map(str::to_owned),
        }
    }
}

impl From<&ServerError> for Cause {
    fn from(error: &ServerError) -> Self {
        Self {
            message: error.code().to_owned(),
            code: Some(error.code().to_owned()),
        }
    }
}

/// The name that Node gives to an error of the system.
fn system_code(kind: io::ErrorKind) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    Some(match kind {
        Kind::AddrInUse => "EADDRINUSE",
        Kind::AddrNotAvailable => "EADDRNOTAVAIL",
        Kind::BrokenPipe => "EPIPE",
        Kind::ConnectionAborted => "ECONNABORTED",
        Kind::ConnectionRefused => "ECONNREFUSED",
        Kind::ConnectionReset | Kind::UnexpectedEof => "ECONNRESET",
        Kind::HostUnreachable => "EHOSTUNREACH",
        Kind::NetworkDown => "ENETDOWN",
        Kind::NetworkUnreachable => "ENETUNREACH",
        Kind::NotConnected => "ENOTCONN",
        Kind::NotFound => "ENOENT",
        Kind::PermissionDenied => "EACCES",
        Kind::TimedOut => "ETIMEDOUT",
        _ => return None,
    })
}

impl Error {
    /// An error with a message and no cause.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            cause: None,
        }
    }

    /// The same error, caused by `cause`.
    pub fn caused_by(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The code of its cause.
    pub fn cause_code(&self) -> Option<&str> {
        self.cause.as_ref()?.code.as_deref()
    }

    /// Whether the server does not have, or was told not to have, the command.
    pub fn says_unknown_command(&self) -> bool {
        self.code == ErrorCode::Server && self.message.contains("unknown command")
    }

    /// A failure to reach `endpoint`.
    pub fn io(endpoint: &str, error: &io::Error) -> Self {
        Self::new(
            ErrorCode::Connect,
            format!(
                "Could not connect to Redis at {endpoint}: {error}; check that it runs and can be reached."
            ),
        )
        .caused_by(error)
    }

    /// What `endpoint` said to `command`, with which a connection begins.
    pub fn login(endpoint: &str, command: &str, error: &ServerError) -> Self {
        let word = error.code();
        let detail = error.details().unwrap_or_default();
        let code = match word {
            _ if command == "AUTH" => ErrorCode::Auth,
            "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorCode::Auth,
            _ => ErrorCode::Connect,
        };
        let message = match (code, word) {
            (ErrorCode::Auth, _) => {
                let word = if word == "ERR" { "AUTH failed" } else { word };
                format!(
                    "Redis at {endpoint} refused the credentials ({word}); check username and password."
                )
            }
            (_, "LOADING" | "MASTERDOWN") => {
                format!("Redis at {endpoint} does not serve yet: {word} {detail}")
            }
            _ => format!(
                "Redis at {endpoint} refused the connection ({command}): {word} {detail}; check the settings of both."
            ),
        };
        Self::new(code, message).caused_by(error)
    }

    /// The connection to `endpoint` ended while replies were to come.
    pub fn closed(endpoint: &str, cause: Option<&io::Error>) -> Self {
        let closed = Self::new(
            ErrorCode::Connect,
            format!("The connection to Redis at {endpoint} was lost before the reply came."),
        );
        match cause {
            Some(cause) => closed.caused_by(cause),
            None => closed,
        }
    }

    /// The connection to `endpoint` ended before it had begun to serve.
    pub fn closed_early(endpoint: &str) -> Self {
        Self::new(
            ErrorCode::Connect,
            format!(
                "The server at {endpoint} closed the connection during the handshake; check that it is Redis and takes connections like this one (TLS or not)."
            ),
        )
    }

    /// The server at `endpoint` does not speak Redis's protocol.
    pub fn not_redis(endpoint: &str) -> Self {
        Self::new(
            ErrorCode::Connect,
            format!(
                "The server at {endpoint} does not answer as Redis does; check host and port, and whether it expects TLS."
            ),
        )
    }

    /// An error reply of Redis to the command `command`. Redis echoes arguments in some of its
    /// errors, and ours hold session ids and sessions: what follows `, with args` is cut off, and
    /// any of `secrets` that is left is masked.
    pub fn server(command: &str, error: &ServerError, secrets: &[&[u8]]) -> Self {
        let word = error.code();
        let mut detail = error.details().unwrap_or_default();
        if let Some(end) = detail.find(", with args") {
            detail = &detail[..end];
        }
        let mut detail = detail.to_owned();
        for secret in secrets {
            let secret = String::from_utf8_lossy(secret);
            if !secret.is_empty() && detail.contains(&*secret) {
                detail = detail.replace(&*secret, "<hidden>");
            }
        }
        let code = match word {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorCode::Auth,
            _ => ErrorCode::Server,
        };
        Self::new(
            code,
            format!("Redis refused {command}: {word} {detail}")
                .trim_end()
                .to_owned(),
        )
        .caused_by(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Error {}
