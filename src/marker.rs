//! Markers: for a while after a session was destroyed, a key says so. A save that finds its session gone
//! is dropped if a marker is younger than the load of the session; without one the session expired or was
//! evicted, and is written.

use std::sync::LazyLock;

use redis::Script;

use crate::{
    command::{Command, Expiry, Reply},
    config::MARKER_TTL,
    connection::cluster::slot_of,
    error::{Error, ErrorCode},
};

/// Writes the marker `KEYS[1]` for `ARGV[1]` milliseconds, then removes the other keys. Answers how many
/// there were.
pub const DESTROY: &str = "redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) \
    if #KEYS == 2 then return redis.call('DEL', KEYS[2]) end \
    return redis.call('UNLINK', unpack(KEYS, 2))";

/// Writes `ARGV[1]` to `KEYS[1]` and answers OK, unless a marker among the other keys has more than `ARGV[4]`
/// milliseconds left: then it answers how many the youngest has. One without a time to live has the whole
/// life of a marker, `ARGV[5]`. `ARGV[2]` is milliseconds to live, empty for ever. If `ARGV[3]` is ADD and
/// there is a value, answers that instead.
pub const RESTORE: &str = "local known = tonumber(ARGV[4]) \
    local newest = known \
    for i = 2, #KEYS do \
      local left = redis.call('PTTL', KEYS[i]) \
      if left == -1 then left = tonumber(ARGV[5]) end \
      if left > newest then newest = left end \
    end \
    if newest > known then return newest end \
    if ARGV[3] == 'ADD' then \
      local now = redis.call('GET', KEYS[1]) \
      if now then return now end \
    end \
    if ARGV[2] == '' then return redis.call('SET', KEYS[1], ARGV[1]) end \
    return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])";

/// How what is more than one command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// As two commands, of which the first one's reply is skipped: SET of the marker, then DEL. At a third
    /// of a script's price, where no slot moves between the two.
    Pair,
    /// By its hash: <https://redis.io/docs/latest/commands/evalsha/>
    Hash,
    /// As text, which Redis keeps: <https://redis.io/docs/latest/commands/eval/>
    Text,
}

impl By {
    /// The command.
    pub fn command(self) -> &'static str {
        match self {
            Self::Pair => "DEL",
            Self::Hash => "EVALSHA",
            Self::Text => "EVAL",
        }
    }
}

/// The SHA-1 of [`DESTROY`].
pub fn destroy_hash() -> &'static str {
    static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(DESTROY));
    SCRIPT.get_hash()
}

/// The SHA-1 of [`RESTORE`].
pub fn restore_hash() -> &'static str {
    static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(RESTORE));
    SCRIPT.get_hash()
}

/// The end of a marker without a prefix: ids in braces, as GUIDs may be, are no markers.
const UNPREFIXED: &[u8] = b"}:destroyed";

/// The marker of `key`, which starts with `prefix`; that of `prefix` itself is for all its keys. In a
/// cluster it is in the slot of `key`, unless that has braces of its own.
pub fn marker_of(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    let end = if prefix.is_empty() { UNPREFIXED } else { b"}" };
    [prefix, b"{", key, end].concat()
}

/// Whether `key`, which starts with `prefix`, is a marker; be it of a longer prefix.
pub fn is_marker(prefix: &[u8], key: &[u8]) -> bool {
    if prefix.is_empty() && key.starts_with(b"{") && key.ends_with(UNPREFIXED) {
        return true;
    }
    let Some(marked) = key.strip_suffix(b"}") else {
        return false;
    };
    let first = prefix.len().max(1);
    let mut opens = (first..marked.len()).filter(|&at| marked[at] == b'{');
    opens.any(|at| marked[at + 1..].starts_with(&marked[..at]))
}

/// Keys that are removed behind a marker.
#[derive(Clone)]
pub struct Destroy {
    /// At least one, and if several, all of one node.
    pub keys: Vec<Vec<u8>>,
    /// The marker.
    pub marker: Vec<u8>,
    /// By UNLINK: some of all keys.
    pub unlinks: bool,
    /// How the script is sent.
    pub by: By,
}

impl Destroy {
    /// Removes the session `key`.
    pub fn session(prefix: &[u8], key: Vec<u8>) -> Command {
        let marker = marker_of(prefix, &key);
        Self::of(vec![key], marker, By::Pair)
    }

    /// Removes `keys`, some of all that start with `prefix`.
    pub fn some_of_all(prefix: &[u8], keys: Vec<Vec<u8>>) -> Command {
        Self::of(keys, marker_of(prefix, prefix), By::Hash)
    }

    fn of(keys: Vec<Vec<u8>>, marker: Vec<u8>, by: By) -> Command {
        Command::Destroy(Box::new(Self {
            keys,
            marker,
            unlinks: by != By::Pair,
            by,
        }))
    }

    /// The same without a marker.
    pub fn unmarked(&mut self) -> Command {
        let mut keys = std::mem::take(&mut self.keys);
        if self.unlinks {
            return Command::Unlink { keys };
        }
        Command::Del {
            key: keys.swap_remove(0),
        }
    }

    /// The keys are in a cluster, whose slots may move: one script writes the marker and removes. Returns
    /// whether the marker is in the slot of the key.
    pub fn fit_slot(&mut self) -> bool {
        if self.by == By::Pair {
            self.by = By::Hash;
        }
        let slot = slot_of(&self.marker);
        self.keys.iter().all(|key| slot_of(key) == slot)
    }
}

/// A session that is gone, and is written again unless it was destroyed.
#[derive(Clone)]
pub struct Restore {
    /// The key.
    pub key: Vec<u8>,
    /// What is to be there.
    pub value: Vec<u8>,
    /// How long it lives.
    pub expiry: Expiry,
    /// The marker of the key, and that of all keys where one script may name both.
    pub markers: Vec<Vec<u8>>,
    /// A marker that has no more milliseconds left than this does not count; below zero, all do.
    pub known_left: i64,
    /// Only if there is nothing.
    pub adds: bool,
    /// How the script is sent.
    pub by: By,
    /// It was sent before and its reply was lost.
    pub repeated: bool,
}

impl Restore {
    /// The marker of all keys is in another slot of a cluster. Returns whether that of the key can be asked.
    pub fn fit_slot(&mut self) -> bool {
        self.markers.truncate(1);
        let slot = slot_of(&self.key);
        self.markers.iter().all(|marker| slot_of(marker) == slot)
    }

    /// Turns to another way if `error` says that this one is refused, and returns whether there is one.
    pub fn try_another_way(&mut self, error: &Error) -> bool {
        match (error.cause_code(), self.by) {
            (Some("NOSCRIPT"), By::Hash) => self.by = By::Text,
            (Some("CROSSSLOT"), _) if self.markers.len() > 1 => self.markers.truncate(1),
            _ => return false,
        }
        true
    }

    /// What the value that is there instead says.
    pub fn found(&self, value: Vec<u8>) -> Result<Reply, Error> {
        if !self.repeated {
            return Ok(Reply::Text(value));
        }
        if value == self.value {
            return Ok(Reply::Ok);
        }
        Err(Error::new(
            ErrorCode::Conflict,
            "The session was written by others while the reply to its save was lost; what is stored is theirs. Load it again.",
        ))
    }
}

/// The life of a marker in milliseconds.
pub fn life_ms() -> u64 {
    MARKER_TTL.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_told_from_a_session() {
        for (prefix, key) in [
            ("sess:", "sess:a"),
            ("sess:", "sess:{a}"),
            ("", "a"),
            ("{app}:", "{app}:a"),
            ("s:", "s:"),
        ] {
            assert!(!is_marker(prefix.as_bytes(), key.as_bytes()), "{key}");
            let marker = marker_of(prefix.as_bytes(), key.as_bytes());
            assert!(is_marker(prefix.as_bytes(), &marker), "{key}");
        }
        // Of a store whose prefix is longer.
        assert!(is_marker(b"s:", &marker_of(b"s:a:", b"s:a:id")));
        assert!(is_marker(b"", &marker_of(b"s:a:", b"s:a:id")));
        assert!(is_marker(b"", &marker_of(b"", b"")));
        for key in ["s:}", "s:{", "s:{x}", "s:{}"] {
            assert!(!is_marker(b"s:", key.as_bytes()), "{key}");
        }
        for key in ["{", "}", "{}", "{x}", "{x}y", "{x}:destroyed "] {
            assert!(!is_marker(b"", key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn a_marker_is_in_the_slot_of_its_key_unless_that_has_braces() {
        for (prefix, key, fits) in [
            ("sess:", "sess:a", true),
            ("{app}:", "{app}:a", true),
            ("", "a", true),
            ("", "{a}b", false),
            ("sess:", "sess:a}b", false),
            ("sess:", "sess:a{b}c", false),
        ] {
            let command = Destroy::session(prefix.as_bytes(), key.as_bytes().to_vec());
            let Command::Destroy(mut destroy) = command else {
                panic!("another command");
            };
            assert_eq!(destroy.fit_slot(), fits, "{key}");
        }
    }
}
