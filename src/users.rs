//! The sessions of a user: an index of two keys for each user, both in one slot of a cluster.
//!
//! | key | holds |
//! |---|---|
//! | `index` | a hash: the handle of a session, and its entry |
//! | `index:expiry` | a sorted set: the handle, and when the entry may be dropped |
//!
//! A handle is a hash of the session id. An entry is `created:written:life:kind:text`: two times in microseconds
//! and the time to live in milliseconds, all by the server's clock. Kind `p`, pending, is of an entry that was written
//! before its session, kind `a` of any other. The text is JSON of the binding's caller. The hash is what counts: the sorted set finds
//! the dead, and gives both keys their time to live. It may be a tenth of a life late, so that few touches write it.

mod flow;

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::{
    command::{Expiry, Reply},
    marker::By,
};
pub use flow::{Flow, Item, Limit, Next, Part, Place, Save, SignIn};

/// Redis 4 lets no script write after it has read the time.
macro_rules! time {
    () => {
        "local time = redis.call('TIME') \
        local now = time[1] * 1000 + math.floor(time[2] / 1000) \
        local stamp = string.format('%d%06d', time[1], time[2]) "
    };
}

/// Lets both keys live until the last of their entries may be dropped.
macro_rules! expire {
    () => {
        "local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] \
        for i = 1, last and 2 or 0 do \
          if last == 'inf' then redis.call('PERSIST', KEYS[i]) \
          else redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', last)) end \
        end "
    };
}

/// Writes the entry of the handle `ARGV[1]`, which lives `ARGV[2]` milliseconds, empty for ever, with the kind and
/// text `ARGV[4]`; but answers 0 if there are `ARGV[3]` others already. Drops what is dead. `count` is how many
/// entries there are, unless `ARGV[3]` is empty. Where one of the two keys was evicted, the other one is put right: as
/// soon as that shows, and with one in 16 entries. As few calls as possible: each takes a microsecond.
macro_rules! enter {
    () => {
        concat!(
            time!(),
            "local limit = tonumber(ARGV[3]) \
            if limit and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= limit then \
              return 0 \
            end \
            local entry = ':' .. stamp .. ':' .. ARGV[2] .. ':' .. ARGV[4] \
            local isnew = redis.call('HSETNX', KEYS[1], ARGV[1], stamp .. entry) \
            if isnew == 0 then \
              local created = string.match(redis.call('HGET', KEYS[1], ARGV[1]), '^%d+') \
              redis.call('HSET', KEYS[1], ARGV[1], created .. entry) \
            end \
            local score = 'inf' \
            if ARGV[2] ~= '' then score = string.format('%.0f', now + ARGV[2] * 1.1 + 1) end \
            local differs = redis.call('ZADD', KEYS[2], score, ARGV[1]) ~= isnew \
            local dead = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - 1, 'LIMIT', 0, 1000) \
            if #dead > 0 then \
              redis.call('HDEL', KEYS[1], unpack(dead)) \
              redis.call('ZREM', KEYS[2], unpack(dead)) \
            end \
            if differs or (time[2] % 16 == 0 and redis.call('HLEN', KEYS[1]) ~= redis.call('ZCARD', KEYS[2])) then \
              for _, handle in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do \
                if redis.call('HEXISTS', KEYS[1], handle) == 0 then redis.call('ZREM', KEYS[2], handle) end \
              end \
              local all = redis.call('HGETALL', KEYS[1]) \
              for i = 1, #all, 2 do \
                if not redis.call('ZSCORE', KEYS[2], all[i]) then \
                  local at, life = string.match(all[i + 1], '^%d+:(%d+):(%d*)') \
                  local lost = life == '' and 'inf' or string.format('%.0f', at / 1000 + life * 1.1 + 1) \
                  redis.call('ZADD', KEYS[2], lost, all[i]) \
                end \
              end \
            end ",
            expire!(),
            "local count = 1 \
            if ARGV[3] ~= '' then count = redis.call('HLEN', KEYS[1]) end "
        )
    };
}

/// Enters a session whose value is written before or afterwards. Answers the count.
pub const INDEX: &str = concat!(enter!(), "return count");

/// Enters the session `KEYS[3]` and writes its value, `ARGV[5]`. Answers the count.
pub const SIGN_IN: &str = concat!(
    enter!(),
    "if ARGV[2] == '' then redis.call('SET', KEYS[3], ARGV[5]) \
    else redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[2]) end \
    return count"
);

/// Answers the handles and entries, of all or of the handles `ARGV`, and then the time in microseconds.
pub const ENTRIES: &str = "local found = {} \
    if #ARGV == 0 then found = redis.call('HGETALL', KEYS[1]) end \
    for _, handle in ipairs(ARGV) do \
      local entry = redis.call('HGET', KEYS[1], handle) \
      if entry then found[#found + 1] = handle found[#found + 1] = entry end \
    end \
    local time = redis.call('TIME') \
    found[#found + 1] = string.format('%d%06d', time[1], time[2]) \
    return found";

/// Drops entries, given as handle and entry, that are still what they were. Answers how many.
pub const REMOVE: &str = concat!(
    "local count = 0 \
    for i = 1, #ARGV, 2 do \
      if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then \
        redis.call('HDEL', KEYS[1], ARGV[i]) \
        redis.call('ZREM', KEYS[2], ARGV[i]) \
        count = count + 1 \
      end \
    end ",
    expire!(),
    "return count"
);

/// Drops entries that were written more than so many milliseconds ago: `ARGV[2]` for those that are
/// pending, `ARGV[1]` for the others. Answers how many.
pub const SWEEP: &str = concat!(
    time!(),
    "local count = 0 \
    local all = redis.call('HGETALL', KEYS[1]) \
    for i = 1, #all, 2 do \
      local at, kind = string.match(all[i + 1], '^%d+:(%d+):%d*:(%a)') \
      local limit = kind == 'a' and ARGV[1] or ARGV[2] \
      if now - at / 1000 > tonumber(limit) then \
        redis.call('HDEL', KEYS[1], all[i]) \
        redis.call('ZREM', KEYS[2], all[i]) \
        count = count + 1 \
      end \
    end ",
    expire!(),
    "return count"
);

/// Writes `ARGV[3]` over the entry `ARGV[2]` of the handle `ARGV[1]`. Answers 0 if that is something else.
pub const RENEW: &str = "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end \
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) return 1";

/// Every script, by the name that JavaScript has for it.
pub const SCRIPTS: [(&str, &str); 6] = [
    ("index", INDEX),
    ("signIn", SIGN_IN),
    ("entries", ENTRIES),
    ("remove", REMOVE),
    ("sweep", SWEEP),
    ("renew", RENEW),
];

/// Which script of [`SCRIPTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the names of the scripts")]
pub enum Which {
    Index,
    SignIn,
    Entries,
    Remove,
    Sweep,
    Renew,
}

impl Which {
    /// The script's text.
    pub fn text(self) -> &'static str {
        SCRIPTS[self as usize].1
    }

    /// The SHA-1 of [`Self::text`].
    pub fn hash(self) -> &'static str {
        static LOADED: LazyLock<[Script; 6]> =
            LazyLock::new(|| SCRIPTS.map(|(_, text)| Script::new(text)));
        LOADED[self as usize].get_hash()
    }
}

/// One script about an index.
#[derive(Clone)]
pub struct Call {
    /// Which.
    pub which: Which,
    /// The hash, the sorted set and, of [`Which::SignIn`], the session.
    pub keys: Vec<Vec<u8>>,
    /// The arguments.
    pub arguments: Vec<Vec<u8>>,
    /// How long the session lives, of [`Which::SignIn`].
    pub expiry: Expiry,
    /// How the script is sent.
    pub by: By,
}

impl Call {
    /// A script about `index`.
    pub fn new(which: Which, index: &[u8], arguments: Vec<Vec<u8>>) -> Self {
        Self {
            which,
            keys: vec![index.to_vec(), [index, b":expiry"].concat()],
            arguments,
            expiry: Expiry::Never,
            by: By::Hash,
        }
    }

    /// The session that is written; of other scripts the index.
    pub fn key(&self) -> &[u8] {
        self.keys.get(2).unwrap_or(&self.keys[0])
    }

    /// Whether it writes a session.
    pub fn writes_session(&self) -> bool {
        self.which == Which::SignIn
    }

    /// What no message may hold; numbers are none.
    pub fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let all = self.keys.iter().chain(&self.arguments).map(Vec::as_slice);
        all.filter(|text| !text.iter().all(u8::is_ascii_digit))
    }

    /// What the script answered, unless it is an error or something else.
    pub fn reply(&self, value: Value) -> Option<Reply> {
        match value {
            Value::Int(count) if self.which != Which::Entries => Some(Reply::Count(count)),
            Value::Array(values) if self.which == Which::Entries => values
                .into_iter()
                .map(|value| match value {
                    Value::BulkString(text) => Some(Some(text)),
                    _ => None,
                })
                .collect::<Option<_>>()
                .map(Reply::Texts),
            _ => None,
        }
    }
}

/// Whether `key` is of an index of this `prefix`: a hash in Base64 within braces follows.
pub fn is_index(prefix: &[u8], key: &[u8]) -> bool {
    const HASH: usize = 43;
    let Some(rest) = key.strip_prefix(prefix) else {
        return false;
    };
    let rest = rest.strip_suffix(b":expiry").unwrap_or(rest);
    rest.len() == HASH + 2
        && rest.starts_with(b"{")
        && rest.ends_with(b"}")
        && rest[1..=HASH]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::cluster::slot_of;

    const HASH: &[u8] = b"n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg";

    #[test]
    fn both_keys_of_an_index_are_in_one_slot_and_are_told_from_sessions() {
        for prefix in ["users:sess:", "users:{app}:", ""] {
            let prefix = prefix.as_bytes();
            let index = [prefix, b"{", HASH, b"}"].concat();
            let call = Call::new(Which::Entries, &index, vec![]);
            assert_eq!(slot_of(&call.keys[0]), slot_of(&call.keys[1]));
            assert!(call.keys.iter().all(|key| is_index(prefix, key)));
            for other in [
                HASH,
                b"{short}",
                b"{n4bQgYhMfWWaL+qgxVrQFaO_TxsrC4Is0V1sFbDwCgg}",
            ] {
                assert!(!is_index(prefix, &[prefix, other].concat()));
            }
        }
        assert!(!is_index(b"other:", b"users:{a}"));
    }

    #[test]
    fn each_script_has_its_name() {
        let named = [
            (Which::Index, "index"),
            (Which::SignIn, "signIn"),
            (Which::Entries, "entries"),
            (Which::Remove, "remove"),
            (Which::Sweep, "sweep"),
            (Which::Renew, "renew"),
        ];
        for (which, name) in named {
            assert_eq!(SCRIPTS[which as usize].0, name);
            assert_eq!(which.hash().len(), 40);
        }
    }
}
