//! The closed list of errors, and the mapping of Redis's own errors.

use std::{fmt, io, time::Duration};

use redis::ServerError;

/// The codes of errors, which callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// An option or an argument cannot be used.
    Options,
    /// There is no connection, or it was lost before the reply.
    Connect,
    /// Redis rejected the credentials, or they do not permit the command.
    Auth,
    /// No reply within `commandTimeoutMs`.
    Timeout,
    /// The store is closed.
    Closed,
    /// `maxPending` is reached.
    QueueFull,
    /// Redis answered with an error.
    Server,
    /// The reply cannot be parsed.
    Decode,
    /// Another request has written the session since it was loaded.
    Conflict,
    /// The session cannot be serialized, or is too large.
    Encode,
    /// The session was destroyed after it was loaded.
    Destroyed,
    /// The user has as many sessions as the limit permits.
    SessionLimit,
}

impl ErrorCode {
    /// Every code, in the order of their numbers on the boundary to JavaScript.
    pub const ALL: [Self; 12] = [
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
        Self::Destroyed,
        Self::SessionLimit,
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
            Self::Destroyed => "ERR_REDIS_STORE_DESTROYED",
            Self::SessionLimit => "ERR_REDIS_STORE_SESSION_LIMIT",
        }
    }
}

/// The error that callers get. Contains no password, session id or session value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The code, which callers branch on.
    pub code: ErrorCode,
    /// The failed action, the value and the remedy.
    pub message: String,
    /// The message of the system or the server, if there is one.
    pub cause: Option<Box<Cause>>,
}

/// The error of the system or the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The message.
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
            code: system_code(error).map(str::to_owned),
        }
    }
}

impl Cause {
    /// An error reply of a server, by its first word.
    pub fn server(word: String) -> Self {
        Self {
            message: word.clone(),
            code: Some(word),
        }
    }

    /// An error with the code that Node gives it.
    pub fn coded(code: &str, error: &impl ToString) -> Self {
        Self {
            message: error.to_string(),
            code: Some(code.to_owned()),
        }
    }
}

/// Node's code for an error of the system.
fn system_code(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    Some(match error.kind() {
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
        // The standard library has no `ErrorKind` for errors of getaddrinfo.
        _ => match error.to_string() {
            text if text.contains("Temporary failure in name resolution") => "EAI_AGAIN",
            text if text.starts_with("failed to lookup") => "ENOTFOUND",
            _ => return None,
        },
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
        self.cause = Some(Box::new(cause.into()));
        self
    }

    /// The code of its cause.
    pub fn cause_code(&self) -> Option<&str> {
        self.cause.as_ref()?.code.as_deref()
    }

    /// Whether Redis always refuses this command: it is unknown, renamed or denied.
    pub fn refuses_command(&self) -> bool {
        matches!(self.cause_code(), Some("ERR" | "NOPERM"))
            && matches!(self.code, ErrorCode::Server | ErrorCode::Auth)
    }

    /// A request to a store that is closed.
    pub fn closed_store() -> Self {
        Self::new(
            ErrorCode::Closed,
            "The store is closed; create a new RedisStore.",
        )
    }

    /// There was no connection to `name` in time. `last` is the last failure.
    pub fn no_connection(name: &str, waited: Duration, last: Option<&Self>) -> Self {
        let waited = waited.as_millis();
        Self::because(
            &format!("No connection to Redis at {name} within {waited} ms."),
            last,
        )
    }

    /// Requests no longer wait for `name`. `last` is the last failure.
    pub fn refused(name: &str, last: Option<&Self>) -> Self {
        Self::because(
            &format!("Redis at {name} does not answer; requests are refused until it does."),
            last,
        )
    }

    fn because(what: &str, last: Option<&Self>) -> Self {
        let why = last.map_or_else(String::new, |error| format!(" {}", error.message));
        let code = match last.map(|error| error.code) {
            None | Some(ErrorCode::Timeout) => ErrorCode::Connect,
            Some(code) => code,
        };
        let mut error = Self::new(code, format!("{what}{why}"));
        error.cause = last.and_then(|error| error.cause.clone());
        error
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

    /// An error reply of `endpoint` to the login command `command`. Servers quote the arguments of unknown
    /// commands, also of AUTH: see [`Self::server`] for `secrets`.
    pub fn login(endpoint: &str, command: &str, error: &ServerError, secrets: &[&[u8]]) -> Self {
        let word = word_of(error, secrets);
        let code = match word.as_str() {
            _ if command == "AUTH" => ErrorCode::Auth,
            "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorCode::Auth,
            _ => ErrorCode::Connect,
        };
        let message = match (code, word.as_str()) {
            (ErrorCode::Auth, _) => {
                let word = if word == "ERR" { "AUTH failed" } else { &word };
                format!(
                    "Redis at {endpoint} refused the credentials ({word}); check username and password."
                )
            }
            (_, "LOADING" | "MASTERDOWN") => {
                format!("Redis at {endpoint} is not ready yet ({word}); the store tries again.")
            }
            _ => {
                let detail = detail_of(error, secrets);
                format!(
                    "Redis at {endpoint} refused the connection ({command}): {word} {detail}; check the settings of the store and of Redis."
                )
            }
        };
        Self::new(code, message).caused_by(Cause::server(word))
    }

    /// The connection to `endpoint` ended before all replies had arrived.
    pub fn closed(endpoint: &str, cause: Option<&io::Error>) -> Self {
        let closed = Self::new(
            ErrorCode::Connect,
            format!("The connection to Redis at {endpoint} was lost before the reply."),
        );
        match cause {
            Some(cause) => closed.caused_by(cause),
            None => closed,
        }
    }

    /// The connection to `endpoint` ended during the login.
    pub fn closed_early(endpoint: &str) -> Self {
        Self::new(
            ErrorCode::Connect,
            format!(
                "The server at {endpoint} closed the connection during the handshake; check that it is Redis, and whether it expects TLS."
            ),
        )
    }

    /// The server at `endpoint` does not use Redis's protocol.
    pub fn not_redis(endpoint: &str) -> Self {
        Self::new(
            ErrorCode::Connect,
            format!(
                "The server at {endpoint} does not answer as Redis does; check host and port, and whether it expects TLS."
            ),
        )
    }

    /// An error reply of Redis to the command `command`. Some errors of Redis quote arguments, which contain
    /// session ids and sessions: the text after `, with args` is cut off, and remaining `secrets` are masked.
    pub fn server(command: &str, error: &ServerError, secrets: &[&[u8]]) -> Self {
        let word = word_of(error, secrets);
        let detail = detail_of(error, secrets);
        let code = match word.as_str() {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorCode::Auth,
            _ => ErrorCode::Server,
        };
        Self::new(
            code,
            format!("Redis refused {command}: {word} {detail}")
                .trim_end()
                .to_owned(),
        )
        .caused_by(Cause::server(word))
    }
}

/// The first word of an error reply; ERR if it is not an error word of Redis.
fn word_of(error: &ServerError, secrets: &[&[u8]]) -> String {
    let word = error.code();
    let is_word = word.starts_with(|first: char| first.is_ascii_uppercase())
        && word
            .chars()
            .all(|char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_');
    if is_word && !secrets.contains(&word.as_bytes()) {
        word.to_owned()
    } else {
        "ERR".to_owned()
    }
}

/// The rest of an error reply, without arguments of commands and without `secrets`.
fn detail_of(error: &ServerError, secrets: &[&[u8]]) -> String {
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
    detail
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> ServerError {
        match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
            Ok(redis::Value::ServerError(error)) => error,
            other => panic!("not an error reply: {other:?}"),
        }
    }

    #[test]
    fn no_message_of_a_login_holds_a_secret() {
        for said in [
            "ERR unknown command 'AUTH', with args beginning with: 'hunter2' ",
            "ERR wrong hunter2",
            "LOADING hunter2 is loading",
            "hunter2 is wrong",
            "NOAUTH hunter2",
        ] {
            for command in ["AUTH", "SELECT", "connecting", "PING"] {
                let error = Error::login("host:1", command, &reply(said), &[b"hunter2"]);
                let text = format!("{error:?}");
                assert!(!text.contains("hunter2"), "{command}: {text}");
            }
        }
    }

    #[test]
    fn a_cause_has_the_code_that_node_or_redis_gives_it() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            Error::io("host:1", &refused).cause_code(),
            Some("ECONNREFUSED")
        );
        let full = Error::server("SET", &reply("OOM command not allowed"), &[]);
        assert_eq!(full.cause_code(), Some("OOM"));
        let odd = Error::server("SET", &reply("sess:abc is wrong"), &[b"sess:abc"]);
        assert_eq!(odd.cause_code(), Some("ERR"));
        assert!(!format!("{odd:?}").contains("sess:abc"));
    }
}
