//! The sessions of a user: an index for each user, which is a hash. Its fields are the handles of sessions.
//!
//! A handle is a hash of the session id. An entry is `created:written:life:kind:text`: two times in
//! microseconds and the time to live in milliseconds, all by the server's clock. Kind `p` (pending) marks an
//! entry that was written before its session, kind `a` any other. The text is JSON from the binding's caller.
//! An entry may be dropped a tenth of its life after its session expires, so that few touches write it, and the
//! index expires with the last one.

mod flow;
mod sign_in;

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::{
    command::{Expiry, Reply},
    marker::By,
};
pub use flow::{Flow, Item, Next, Part, Save};
pub use sign_in::{Limit, SignIn};

/// Redis 4 rejects scripts that write after reading the time. `now` is text: formatting a number costs more than
/// parsing it.
macro_rules! time {
    () => {
        "local time = redis.call('TIME') \
        local stamp = time[1] .. string.sub('00000' .. time[2], -6) \
        local now = string.sub(stamp, 1, -4) "
    };
}

/// Sets the expiry of the index to the time at which its last entry may be dropped.
macro_rules! expire {
    () => {
        "local last, cursor = 0, '0' \
        repeat \
          local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 100) \
          cursor = page[1] \
          for i = 2, #page[2], 2 do \
            local at, life = string.match(page[2][i], '^%d+:(%d+):(%d*)') \
            if life == '' then \
              last, cursor = -1, '0' \
              break \
            end \
            last = math.max(last, at / 1000 + life * 1.1 + 1) \
          end \
        until cursor == '0' \
        if last == -1 then redis.call('PERSIST', KEYS[1]) \
        elseif last > 0 then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last)) end "
    };
}

/// Writes the entry of the handle `ARGV[1]` with the kind and text `ARGV[4]`, for `ARGV[2]` milliseconds, empty
/// for no expiry; replies 0 if there are `ARGV[3]` other entries already. `count` is the number of entries,
/// unless `ARGV[3]` is empty. As few calls as possible, because each takes a microsecond: one call in 16 drops
/// the dead among about 100 entries, from anywhere in a larger index, and the expiry is found anew only if the entry that determined it is
/// replaced. `left` may be late by the time that the script takes.
macro_rules! enter {
    () => {
        concat!(
            time!(),
            "if ARGV[3] ~= '' then \
              local limit = tonumber(ARGV[3]) \
              if limit and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= limit then \
                return 0 \
              end \
            end \
            local entry = ':' .. stamp .. ':' .. ARGV[2] .. ':' .. ARGV[4] \
            local left = redis.call('PTTL', KEYS[1]) \
            local before \
            if redis.call('HSETNX', KEYS[1], ARGV[1], stamp .. entry) == 0 then \
              before = redis.call('HGET', KEYS[1], ARGV[1]) \
              redis.call('HSET', KEYS[1], ARGV[1], string.match(before, '^%d+') .. entry) \
            end \
            local till = ARGV[2] ~= '' and math.floor(now + ARGV[2] * 1.1 + 1) \
            if not till then \
              if left >= 0 then redis.call('PERSIST', KEYS[1]) end \
            elseif left == -2 or (left >= 0 and now + left < till) then \
              redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', till)) \
            elseif before then \
              local at, life = string.match(before, '^%d+:(%d+):(%d*)') \
              if life == '' or (left >= 0 and at / 1000 + life * 1.1 + 10 > now + left) then ",
            expire!(),
            "end \
            end \
            if left ~= -2 and time[2] % 16 == 0 then \
              local from = 0 \
              if redis.call('HLEN', KEYS[1]) > 100 then \
                from = math.floor(time[2] / 16) + time[1] % 64 * 65536 \
              end \
              local some = redis.call('HSCAN', KEYS[1], from, 'COUNT', 100)[2] \
              local dead = {} \
              for i = 1, #some, 2 do \
                local at, life = string.match(some[i + 1], '^%d+:(%d+):(%d*)') \
                if life ~= '' and at / 1000 + life * 1.1 + 1 - now < 0 then dead[#dead + 1] = some[i] end \
              end \
              if #dead > 0 then redis.call('HDEL', KEYS[1], unpack(dead)) end \
            end \
            local count = 1 \
            if ARGV[3] ~= '' then count = redis.call('HLEN', KEYS[1]) end "
        )
    };
}

/// Writes the entry of a session whose value is written before or afterwards. Replies the count.
pub const INDEX: &str = concat!(enter!(), "return count");

/// Writes the entry of the session `KEYS[2]`, and its value `ARGV[5]`. Replies the count.
pub const SIGN_IN: &str = concat!(
    enter!(),
    "if ARGV[2] == '' then redis.call('SET', KEYS[2], ARGV[5]) \
    else redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[2]) end \
    return count"
);

/// Replies handles and entries, all or those of the handles `ARGV`, then the time in microseconds.
pub const ENTRIES: &str = "local found = {} \
    if #ARGV == 0 then found = redis.call('HGETALL', KEYS[1]) end \
    for _, handle in ipairs(ARGV) do \
      local entry = redis.call('HGET', KEYS[1], handle) \
      if entry then found[#found + 1] = handle found[#found + 1] = entry end \
    end \
    local time = redis.call('TIME') \
    found[#found + 1] = string.format('%d%06d', time[1], time[2]) \
    return found";

/// Drops entries, given as handle and entry, if they are unchanged. Replies their number. An index of more than
/// 100 entries is looked through only if it may otherwise never expire.
pub const REMOVE: &str = concat!(
    "local count, endless = 0, false \
    for i = 1, #ARGV, 2 do \
      if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then \
        redis.call('HDEL', KEYS[1], ARGV[i]) \
        endless = endless or string.match(ARGV[i + 1], '^%d+:%d+:(%d*)') == '' \
        count = count + 1 \
      end \
    end \
    if endless or (count > 0 and redis.call('HLEN', KEYS[1]) <= 100) then ",
    expire!(),
    "end return count"
);

/// Drops entries that were written before the time `ARGV[2]` if pending, or before `ARGV[1]` otherwise: in
/// microseconds, as in the reply of [`ENTRIES`]. Replies their number.
pub const SWEEP: &str = concat!(
    "local count = 0 \
    local all = redis.call('HGETALL', KEYS[1]) \
    for i = 1, #all, 2 do \
      local at, kind = string.match(all[i + 1], '^%d+:(%d+):%d*:(%a)') \
      local limit = kind == 'a' and ARGV[1] or ARGV[2] \
      if tonumber(at) < tonumber(limit) then \
        redis.call('HDEL', KEYS[1], all[i]) \
        count = count + 1 \
      end \
    end ",
    expire!(),
    "return count"
);

/// Replaces the entry `ARGV[2]` of the handle `ARGV[1]` by `ARGV[3]`. Replies 0 if the entry is another one.
pub const RENEW: &str = "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end \
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) return 1";

/// Every script by its name in JavaScript.
pub const SCRIPTS: [(&str, &str); 6] = [
    ("index", INDEX),
    ("signIn", SIGN_IN),
    ("entries", ENTRIES),
    ("remove", REMOVE),
    ("sweep", SWEEP),
    ("renew", RENEW),
];

/// A script of [`SCRIPTS`].
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
    /// The index and, for [`Which::SignIn`], the session.
    pub keys: Vec<Vec<u8>>,
    /// The arguments.
    pub arguments: Vec<Vec<u8>>,
    /// The time to live of the session, for [`Which::SignIn`].
    pub expiry: Expiry,
    /// How the script is sent.
    pub by: By,
}

impl Call {
    /// A script about `index`.
    pub fn new(which: Which, index: &[u8], arguments: Vec<Vec<u8>>) -> Self {
        Self {
            which,
            keys: vec![index.to_vec()],
            arguments,
            expiry: Expiry::Never,
            by: By::Hash,
        }
    }

    /// The session that is written; for other scripts the index.
    pub fn key(&self) -> &[u8] {
        self.keys.get(1).unwrap_or(&self.keys[0])
    }

    /// Whether the script writes a session.
    pub fn writes_session(&self) -> bool {
        self.which == Which::SignIn
    }

    /// The arguments that must not appear in messages.
    pub fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let all = self.keys.iter().chain(&self.arguments).map(Vec::as_slice);
        all.filter(|text| !text.iter().all(u8::is_ascii_digit))
    }

    /// The reply of the script. None if it has an unexpected type.
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

/// Whether `key` belongs to an index with this `prefix`: a Base64 hash in braces follows.
pub fn is_index(prefix: &[u8], key: &[u8]) -> bool {
    const HASH: usize = 43;
    let Some(rest) = key.strip_prefix(prefix) else {
        return false;
    };
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

    const HASH: &[u8] = b"n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg";

    #[test]
    fn an_index_is_no_session() {
        for prefix in ["users:sess:", "users:{app}:", ""] {
            let prefix = prefix.as_bytes();
            let index = [prefix, b"{", HASH, b"}"].concat();
            assert!(is_index(prefix, &index));
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
