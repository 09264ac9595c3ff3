//! Safe concurrent writes: a session is written only over the text that it was loaded from, and concurrent
//! writes are merged.

use std::{collections::BTreeSet, sync::LazyLock};

use redis::Script;
use serde_json::{Map, Value};

use crate::{
    command::{Command, Expiry, Reply, Swap},
    error::{Error, ErrorCode},
    sealing::{self, Halves, Sealer},
};

/// The number of attempts at a merge.
const TRIES: usize = 5;
/// The property of the cookie; the one that expires later is kept: <https://github.com/expressjs/session#cookie>.
const COOKIE: &str = "cookie";
/// The property in which lib/races/lifetime.js stores the creation time in milliseconds. The earlier one is kept.
const CREATED: &str = "~created";

/// Writes `ARGV[2]` if the value is `ARGV[1]`. Replies OK; nil if there is no value; otherwise the stored text.
/// `ARGV[3]` is the milliseconds to live, empty for no expiry, or KEEPTTL; 0 removes the key.
pub const SWAP: &str = "local now = redis.call('GET', KEYS[1]) \
    if not now then return false end \
    if now ~= ARGV[1] then return now end \
    if ARGV[3] == '0' then redis.call('DEL', KEYS[1]) return redis.status_reply('OK') end \
    if ARGV[3] == '' then return redis.call('SET', KEYS[1], ARGV[2]) end \
    if ARGV[3] == 'KEEPTTL' then return redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end \
    return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])";

/// The SHA-1 of [`SWAP`], for EVALSHA.
pub fn swap_hash() -> &'static str {
    static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(SWAP));
    SCRIPT.get_hash()
}

/// A save that failed because another request has written the session meanwhile.
pub struct Conflict {
    /// The key.
    pub key: Vec<u8>,
    /// The text that the session was loaded from.
    pub base: Vec<u8>,
    /// The text to save.
    pub mine: Vec<u8>,
    /// The stored text.
    pub theirs: Vec<u8>,
    /// Its time to live.
    pub expiry: Expiry,
    /// By what the three are sealed, if they may be.
    pub sealer: Option<Sealer>,
}

impl Conflict {
    /// The text of the session that is stored as `value`.
    fn open(&self, value: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.sealer {
            Some(sealer) => sealer.open(&self.key, value.to_vec()),
            None => Ok(value.to_vec()),
        }
    }
}

/// The merge of one [`Conflict`], command by command.
pub struct Merge {
    conflict: Conflict,
    paths: BTreeSet<String>,
    tries: usize,
}

impl Merge {
    /// A merge that has sent no command yet.
    pub fn new(conflict: Conflict) -> Self {
        Self {
            conflict,
            paths: BTreeSet::new(),
            tries: 0,
        }
    }

    /// The command that writes both changes over the stored session.
    pub fn attempt(&mut self) -> Result<Command, Error> {
        if self.tries == TRIES {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!(
                    "Other requests wrote the session {TRIES} times while it was merged, and the last of them is stored; save it again."
                ),
            ));
        }
        self.tries += 1;
        let conflict = &mut self.conflict;
        let base = conflict.open(&conflict.base)?;
        let mine = conflict.open(&conflict.mine)?;
        let theirs = conflict.open(&conflict.theirs)?;
        let merged = merge_texts(&base, &mine, &theirs, &mut self.paths)?;
        let expiry = if merged.keeps_expiry {
            Expiry::Keep
        } else {
            conflict.expiry
        };
        let key = conflict.key.clone();
        let value = match &conflict.sealer {
            Some(sealer) => sealer.seal(&key, &merged.text, &mut Halves::of(1))?,
            None => merged.text,
        };
        let theirs = std::mem::take(&mut conflict.theirs);
        let swap = Swap::new(key, theirs, value, expiry);
        Ok(Command::Swap(swap))
    }

    /// Takes the reply to the last attempt. Returns the next attempt or, as the `Err` value, the answer: the
    /// paths that both sides had changed, as the text of a JSON array, or Nil if the session does not exist.
    pub fn on_reply(
        &mut self,
        outcome: Result<Reply, Error>,
    ) -> Result<Command, Result<Reply, Error>> {
        match outcome {
            // JavaScript looks for it at its other key.
            Ok(Reply::Text(now)) if sealing::is_moving(&now) => Err(Ok(Reply::Text(now))),
            Ok(Reply::Text(now)) => {
                self.conflict.theirs = now;
                self.attempt().map_err(Err)
            }
            Ok(Reply::Ok) => {
                let paths: Vec<_> = std::mem::take(&mut self.paths).into_iter().collect();
                let text = serde_json::to_vec(&paths).map(Reply::Text);
                Err(text.map_err(|error| Error::new(ErrorCode::Decode, error.to_string())))
            }
            other => Err(other),
        }
    }
}

struct Merged {
    text: Vec<u8>,
    /// The cookie is theirs, so the expiry stays.
    keeps_expiry: bool,
}

/// Errors quote no text: the texts are sessions.
fn merge_texts(
    base: &[u8],
    mine: &[u8],
    theirs: &[u8],
    paths: &mut BTreeSet<String>,
) -> Result<Merged, Error> {
    let read = |text: &[u8]| match serde_json::from_slice(text) {
        Ok(Value::Object(session)) => Ok(session),
        _ => Err(Error::new(
            ErrorCode::Conflict,
            "Another request wrote the session meanwhile, and one of the two is not a JSON object that can be merged; the session of the other request is stored.",
        )),
    };
    let (mut base, mut mine, mut theirs) = (read(base)?, read(mine)?, read(theirs)?);
    base.remove(COOKIE);
    let (cookie, keeps_expiry) = match (mine.remove(COOKIE), theirs.remove(COOKIE)) {
        (Some(mine), Some(theirs)) if expires(&theirs) > expires(&mine) => (Some(theirs), true),
        (Some(mine), _) => (Some(mine), false),
        (None, theirs) => (theirs, false),
    };
    base.remove(CREATED);
    let number = |value: &Value| value.as_f64().unwrap_or(f64::INFINITY);
    let created = [mine.remove(CREATED), theirs.remove(CREATED)];
    let created = created.into_iter().flatten();
    let created = created.min_by(|one, other| number(one).total_cmp(&number(other)));
    let mut merged = Map::new();
    if let Some(created) = created {
        merged.insert(CREATED.to_owned(), created);
    }
    if let Some(cookie) = cookie {
        merged.insert(COOKIE.to_owned(), cookie);
    }
    merged.extend(merge(&base, mine, theirs, &mut Vec::new(), paths));
    let text = serde_json::to_vec(&merged)
        .map_err(|error| Error::new(ErrorCode::Decode, error.to_string()))?;
    Ok(Merged { text, keeps_expiry })
}

/// The expiry as `Date.prototype.toJSON` writes it: such texts sort by time. A cookie without one lives as long
/// as the browser.
fn expires(cookie: &Value) -> Option<&str> {
    cookie.get("expires").and_then(Value::as_str)
}

/// Applies my changes to their object. If both have changed the same value, mine is taken and `paths` gets its
/// path. Objects are merged by their keys, all other values are kept whole.
fn merge(
    base: &Map<String, Value>,
    mut mine: Map<String, Value>,
    mut theirs: Map<String, Value>,
    path: &mut Vec<String>,
    paths: &mut BTreeSet<String>,
) -> Map<String, Value> {
    let removed: Vec<String> = base
        .keys()
        .filter(|key| !mine.contains_key(*key))
        .cloned()
        .collect();
    let present: Vec<String> = mine.keys().cloned().collect();
    for key in removed.into_iter().chain(present) {
        let before = base.get(&key);
        let my = mine.remove(&key);
        let their = theirs.get(&key);
        if my.as_ref() == before || my.as_ref() == their {
            continue;
        }
        let both = their != before;
        match (my, theirs.remove(&key)) {
            (Some(Value::Object(my)), Some(Value::Object(their))) if both => {
                let empty = Map::new();
                let before = before.and_then(Value::as_object).unwrap_or(&empty);
                path.push(key.clone());
                let merged = merge(before, my, their, path, paths);
                path.pop();
                theirs.insert(key, Value::Object(merged));
            }
            (my, _) => {
                if both {
                    path.push(key.clone());
                    paths.insert(path.join("."));
                    path.pop();
                }
                if let Some(my) = my {
                    theirs.insert(key, my);
                }
            }
        }
    }
    theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(base: &str, mine: &str, theirs: &str) -> (String, Vec<String>, bool) {
        let mut paths = BTreeSet::new();
        let merged = merge_texts(
            base.as_bytes(),
            mine.as_bytes(),
            theirs.as_bytes(),
            &mut paths,
        )
        .expect("objects");
        let value: Value = serde_json::from_slice(&merged.text).expect("JSON");
        let paths = paths.into_iter().collect();
        (value.to_string(), paths, merged.keeps_expiry)
    }

    fn same(got: &str, wanted: &str) {
        let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(read(got), read(wanted));
    }

    #[test]
    fn changes_of_both_sides_are_kept() {
        for (base, mine, theirs, wanted) in [
            ("{}", r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":1,"b":2}"#),
            // A property that one side removes stays removed.
            (
                r#"{"a":1,"b":1}"#,
                r#"{"b":1}"#,
                r#"{"a":1,"b":2}"#,
                r#"{"b":2}"#,
            ),
            (
                r#"{"a":1,"b":1}"#,
                r#"{"a":1,"b":2}"#,
                r#"{"b":1}"#,
                r#"{"b":2}"#,
            ),
            // Objects by their keys, at any depth.
            (
                r#"{"u":{"n":{"x":1}}}"#,
                r#"{"u":{"n":{"x":1,"m":1}}}"#,
                r#"{"u":{"n":{"x":2}}}"#,
                r#"{"u":{"n":{"x":2,"m":1}}}"#,
            ),
            // An object that both have created.
            (
                "{}",
                r#"{"u":{"a":1}}"#,
                r#"{"u":{"b":1}}"#,
                r#"{"u":{"a":1,"b":1}}"#,
            ),
            // The same change on both sides does not conflict.
            (r#"{"a":1}"#, r#"{"a":[2]}"#, r#"{"a":[2]}"#, r#"{"a":[2]}"#),
            (r#"{"a":1}"#, "{}", "{}", "{}"),
            // Numbers keep their text.
            (
                r#"{"a":0.10}"#,
                r#"{"a":0.10,"b":1e300}"#,
                r#"{"a":0.10,"c":1}"#,
                r#"{"a":0.10,"b":1e300,"c":1}"#,
            ),
            (
                r#"{"__proto__":{"a":1}}"#,
                r#"{"__proto__":{"a":2}}"#,
                r#"{"__proto__":{"a":1,"b":1}}"#,
                r#"{"__proto__":{"a":2,"b":1}}"#,
            ),
        ] {
            let (got, paths, _) = merged(base, mine, theirs);
            same(&got, wanted);
            assert_eq!(paths, Vec::<String>::new(), "{base} {mine} {theirs}");
        }
    }

    #[test]
    fn where_both_changed_the_same_mine_wins_and_the_path_is_named() {
        for (base, mine, theirs, wanted, path) in [
            (r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#, r#"{"a":2}"#, "a"),
            (
                r#"{"a":[1]}"#,
                r#"{"a":[1,2]}"#,
                r#"{"a":[1,3]}"#,
                r#"{"a":[1,2]}"#,
                "a",
            ),
            (
                r#"{"a":{"b":1}}"#,
                r#"{"a":{"b":2}}"#,
                r#"{"a":{"b":3}}"#,
                r#"{"a":{"b":2}}"#,
                "a.b",
            ),
            (
                r#"{"a":{"b":1}}"#,
                r#"{"a":4}"#,
                r#"{"a":{"b":3}}"#,
                r#"{"a":4}"#,
                "a",
            ),
            (r#"{"a":1}"#, "{}", r#"{"a":3}"#, "{}", "a"),
            (r#"{"a":1}"#, r#"{"a":3}"#, "{}", r#"{"a":3}"#, "a"),
        ] {
            let (got, paths, _) = merged(base, mine, theirs);
            same(&got, wanted);
            assert_eq!(paths, [path]);
        }
    }

    #[test]
    fn the_cookie_is_that_of_the_later_expiry() {
        let early = r#"{"cookie":{"expires":"2030-01-01T00:00:00.000Z"}}"#;
        let late = r#"{"cookie":{"expires":"2030-01-02T00:00:00.000Z"}}"#;
        let none = r#"{"cookie":{"expires":null}}"#;
        for (mine, theirs, wanted, keeps) in [
            (early, late, late, true),
            (late, early, late, false),
            (none, late, late, true),
            (early, none, early, false),
            (early, "{}", early, false),
            ("{}", early, early, false),
        ] {
            let (got, paths, keeps_expiry) = merged("{}", mine, theirs);
            same(&got, wanted);
            assert_eq!((paths, keeps_expiry), (vec![], keeps));
        }
    }

    #[test]
    fn the_earlier_creation_time_is_kept() {
        let (early, late) = (r#"{"~created":1}"#, r#"{"~created":2}"#);
        for (mine, theirs) in [(early, late), (late, early), ("{}", early), (early, "{}")] {
            let (got, paths, _) = merged("{}", mine, theirs);
            assert_eq!((got.as_str(), paths), (early, vec![]));
        }
    }

    #[test]
    fn only_objects_can_be_merged() {
        for other in ["[]", "1", "", "not JSON"] {
            let outcome = merge_texts(b"{}", b"{}", other.as_bytes(), &mut BTreeSet::new());
            assert!(matches!(outcome, Err(error) if error.code == ErrorCode::Conflict));
        }
    }
}
