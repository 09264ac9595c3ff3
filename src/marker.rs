//! Markers: keys that record for a while that a session was destroyed. If the session of a save no longer
//! exists, the save is dropped if there is a marker that is younger than the load of the session; otherwise the
//! session expired or was evicted, and is written.

use std::sync::LazyLock;

use redis::Script;

use crate::{
    command::{Command, Expiry, Reply},
    config::MARKER_TTL,
    connection::cluster::slot_of,
    error::{Error, ErrorCode},
};

/// Writes the marker `KEYS[1]` for `ARGV[1]` milliseconds, then removes the other keys. Replies the number of
/// removed keys.
pub const DESTROY: &str = "redis.call('SET', KEYS[1], '', 'PX', ARGV[1]) \
    if #KEYS == 2 then return redis.call('DEL', KEYS[2]) end \
    return redis.call('UNLINK', unpack(KEYS, 2))";

/// Writes `ARGV[1]` to `KEYS[1]` and replies OK, unless a marker among the other keys expires after the time
/// `ARGV[4]`: then it replies what the newest one has left, and when it expires, in milliseconds by the server's
/// clock. Of these two, only the second identifies a marker, however late the script runs. Before Redis 7.2 the
/// clock runs during a script, so both are read within one millisecond. A marker without a time to live counts as
/// new, with the lifetime `ARGV[5]`. `ARGV[2]` is the milliseconds to live, empty for no expiry. If `ARGV[3]` is
/// ADD and there is a value, it replies the value instead; if it is ASK, it writes nothing.
///
/// Where TIME is denied, the server's time counts as 0, so that what markers have left is compared.
pub const RESTORE: &str = "local function newest() \
      local most = -1 \
      for i = 2, #KEYS do \
        local left = redis.call('PTTL', KEYS[i]) \
        if left == -1 then left = tonumber(ARGV[5]) end \
        most = math.max(most, left) \
      end \
      return most \
    end \
    local function clock() \
      local time = redis.pcall('TIME') \
      return time[1] and time[1] * 1000 + math.floor(time[2] / 1000) or 0 \
    end \
    if newest() >= 0 then \
      if redis.replicate_commands then redis.replicate_commands() end \
      local now, left \
      repeat now, left = clock(), newest() until clock() == now \
      if left >= 0 and now + left > tonumber(ARGV[4]) then return {left, now + left} end \
    end \
    if ARGV[3] == 'ASK' then return redis.status_reply('OK') end \
    if ARGV[3] == 'ADD' then \
      local now = redis.call('GET', KEYS[1]) \
      if now then return now end \
    end \
    if ARGV[2] == '' then return redis.call('SET', KEYS[1], ARGV[1]) end \
    return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])";

/// How a step with several commands is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// As two commands: SET of the marker, whose reply is skipped, then DEL. It costs a third of a script. Not
    /// for clusters, where the slot could move between the two.
    Pair,
    /// By its hash: <https://redis.io/docs/latest/commands/evalsha/>
    Hash,
    /// As text, which Redis caches: <https://redis.io/docs/latest/commands/eval/>
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

/// The end of a marker without a prefix, so that ids in braces, such as GUIDs, are not taken for markers.
const UNPREFIXED: &[u8] = b"}:destroyed";

/// The marker of `key`, which starts with `prefix`. The marker of `prefix` itself is for all its keys. In a
/// cluster it is in the slot of `key`, unless `key` has braces.
pub fn marker_of(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    let end = if prefix.is_empty() { UNPREFIXED } else { b"}" };
    [prefix, b"{", key, end].concat()
}

/// Whether `key`, which starts with `prefix`, is a marker of this prefix or of a longer one.
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

/// Keys to remove after writing a marker.
#[derive(Clone)]
pub struct Destroy {
    /// At least one; all on one node.
    pub keys: Vec<Vec<u8>>,
    /// The marker.
    pub marker: Vec<u8>,
    /// By UNLINK, as a part of clearing all keys.
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

    /// Removes `keys`, a part of all keys that start with `prefix`.
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

    /// Adapts to a cluster, whose slots may move: one script writes the marker and removes the key. Returns
    /// whether both are in one slot.
    pub fn fit_slot(&mut self) -> bool {
        if self.by == By::Pair {
            self.by = By::Hash;
        }
        let slot = slot_of(&self.marker);
        self.keys.iter().all(|key| slot_of(key) == slot)
    }
}

/// What a [`Restore`] does if there is no marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Writes.
    Write,
    /// Writes if there is no value.
    Add,
    /// Nothing.
    Ask,
}

impl Mode {
    /// The argument of the script.
    pub fn argument(self) -> &'static [u8] {
        match self {
            Self::Write => b"",
            Self::Add => b"ADD",
            Self::Ask => b"ASK",
        }
    }
}

/// A save of a session that no longer exists: it is written unless it was destroyed.
#[derive(Clone)]
pub struct Restore {
    /// The key.
    pub key: Vec<u8>,
    /// The value to write.
    pub value: Vec<u8>,
    /// Its time to live.
    pub expiry: Expiry,
    /// The marker of the key and, if one script may name them, others that count too.
    pub markers: Vec<Vec<u8>>,
    /// Markers that expire by this time of the server, in milliseconds, are ignored; none is if it is -1.
    pub known: i64,
    /// What it does.
    pub mode: Mode,
    /// How the script is sent.
    pub by: By,
    /// It was sent before, and its reply was lost.
    pub repeated: bool,
}

impl Restore {
    /// Adapts to a cluster, where the marker of all keys is in another slot. Returns whether the marker of the
    /// key can be read.
    pub fn fit_slot(&mut self) -> bool {
        self.markers.truncate(1);
        let slot = slot_of(&self.key);
        self.markers.iter().all(|marker| slot_of(marker) == slot)
    }

    /// Switches to another way of sending if `error` means that this one is refused. Returns whether there is one.
    pub fn try_another_way(&mut self, error: &Error) -> bool {
        match (error.cause_code(), self.by) {
            (Some("NOSCRIPT"), By::Hash) => self.by = By::Text,
            (Some("CROSSSLOT"), _) if self.markers.len() > 1 => self.markers.truncate(1),
            _ => return false,
        }
        true
    }

    /// The outcome if there is another value.
    pub fn found(&self, value: Vec<u8>) -> Result<Reply, Error> {
        if !self.repeated {
            return Ok(Reply::Text(value));
        }
        if value == self.value {
            return Ok(Reply::Ok);
        }
        Err(Error::new(
            ErrorCode::Conflict,
            "Another request wrote the session while the reply to this save was lost, and the session of the other request is stored; load it again.",
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
    fn a_marker_is_distinguished_from_a_session() {
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
        // The marker of a store with a longer prefix.
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
