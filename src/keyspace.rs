//! Operations on all sessions: a complete SCAN, in steps between which other requests run.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use crate::{
    command::{Command, Expiry, Reply},
    config::{IDS_PAGE, SCAN_COUNT_MIN, SEARCH_MAX_BYTES, UNLINK_KEYS},
    error::{Error, ErrorCode},
    marker::{self, Destroy},
    mutation::{Mutation, is_active},
    users,
};

/// An operation on all keys that start with `prefix`.
pub struct Keyspace {
    /// The operation.
    pub question: Question,
    /// The key prefix; it may contain any bytes.
    pub prefix: Vec<u8>,
    /// The option `scanCount`.
    pub count: u32,
    /// The prefix of user indexes, if it starts with `prefix`: these keys are not sessions.
    pub index_prefix: Option<Vec<u8>>,
}

/// The operations on all keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Count them.
    Length,
    /// List them without the prefix, as texts of JSON arrays.
    Ids,
    /// Write a marker and remove them; replies their number.
    Clear,
}

/// One command of a [`Search`].
pub struct Step {
    /// The index of its node, unless its key determines the node.
    pub lane: Option<usize>,
    /// The command.
    pub command: Command,
}

/// The next step of a [`Search`].
pub enum Next {
    /// Wait for the replies to other steps.
    Wait,
    /// Run these steps.
    Run(Vec<Step>),
    /// It is over.
    Done(Result<Reply, Error>),
}

/// The run of an operation on all keys: a SCAN of each node, one after the other.
pub struct Search {
    keyspace: Keyspace,
    nodes: usize,
    /// The current node.
    node: usize,
    /// Whether a command may name only one key.
    split: bool,
    /// Earlier cursors of this node's SCAN: a repeated one means an endless SCAN.
    cursors: HashSet<Vec<u8>>,
    /// The next cursor of the SCAN; None if the node is done.
    cursor: Option<Vec<u8>>,
    /// Keys of this page to remove.
    keys: Vec<Vec<u8>>,
    /// The number of keys in the pending UNLINK.
    unlinking: usize,
    /// The number of pending DELs.
    deleting: usize,
    /// The marker of all keys is being written, before the first SCAN.
    is_marking: bool,
    seen: HashSet<Vec<u8>>,
    seen_bytes: usize,
    removed: i64,
    stall: Duration,
    progress_at: Instant,
}

impl Search {
    /// Runs `keyspace` over `nodes` nodes. It fails if it finds no new key for `stall`.
    pub fn new(
        keyspace: Keyspace,
        nodes: usize,
        split: bool,
        stall: Duration,
        now: Instant,
    ) -> (Self, Step) {
        let mut search = Self {
            keyspace,
            nodes,
            node: 0,
            split,
            cursors: HashSet::new(),
            cursor: None,
            keys: Vec::new(),
            unlinking: 0,
            deleting: 0,
            is_marking: false,
            seen: HashSet::new(),
            seen_bytes: 0,
            removed: 0,
            stall,
            progress_at: now,
        };
        let step = search.first();
        (search, step)
    }

    /// The marker of all keys also covers sessions that expire before they are removed. A cluster has no slot
    /// that is common to all keys.
    fn first(&mut self) -> Step {
        let Keyspace {
            question, prefix, ..
        } = &self.keyspace;
        if *question != Question::Clear || self.split {
            return self.scan(b"0".to_vec());
        }
        self.is_marking = true;
        let command = Command::Set {
            key: marker::marker_of(prefix, prefix),
            value: Vec::new(),
            expiry: Expiry::After(marker::life_ms()),
            only_existing: false,
        };
        Step {
            lane: Some(self.node),
            command,
        }
    }

    fn scan(&mut self, cursor: Vec<u8>) -> Step {
        let command = Command::Scan {
            cursor,
            pattern: pattern(&self.keyspace.prefix),
            count: self.keyspace.count.max(SCAN_COUNT_MIN),
        };
        Step {
            lane: Some(self.node),
            command,
        }
    }

    /// Takes the reply to a step.
    pub fn on_reply(&mut self, outcome: Result<Reply, Error>, now: Instant) -> Next {
        if std::mem::take(&mut self.is_marking) {
            return match outcome {
                Err(error) if !matches!(error.code, ErrorCode::Server | ErrorCode::Auth) => {
                    Next::Done(Err(error))
                }
                _ => Next::Run(vec![self.scan(b"0".to_vec())]),
            };
        }
        match outcome {
            Ok(Reply::Page(page)) => match self.page(page.cursor, page.keys, now) {
                Ok(()) => self.go_on(),
                Err(error) => Next::Done(Err(error)),
            },
            Ok(reply) => {
                if let Reply::Count(count) = reply {
                    self.removed += count;
                }
                if self.deleting > 0 {
                    self.deleting -= 1;
                } else {
                    self.keys.drain(..self.unlinking);
                    self.unlinking = 0;
                }
                if self.deleting > 0 {
                    return Next::Wait;
                }
                self.go_on()
            }
            // A server without UNLINK gets DELs.
            Err(error)
                if self.unlinking > 0
                    && (error.refuses_command() || error.cause_code() == Some("CROSSSLOT")) =>
            {
                self.unlinking = 0;
                self.split = true;
                self.go_on()
            }
            Err(error) => Next::Done(Err(error)),
        }
    }

    fn page(&mut self, cursor: Vec<u8>, mut keys: Vec<Vec<u8>>, now: Instant) -> Result<(), Error> {
        // Checked in addition to the pattern: only keys with our prefix may be removed.
        let Keyspace {
            prefix,
            index_prefix,
            ..
        } = &self.keyspace;
        let is_index = |key: &[u8]| {
            let prefix = index_prefix.as_deref();
            prefix.is_some_and(|prefix| users::is_index(prefix, key))
        };
        keys.retain(|key| {
            key.starts_with(prefix) && !marker::is_marker(prefix, key) && !is_index(key)
        });
        let found = self.seen.len() + self.removed as usize;
        if self.keyspace.question == Question::Clear {
            self.progress_at = if keys.is_empty() {
                self.progress_at
            } else {
                now
            };
            self.keys = keys;
        } else {
            for key in keys {
                let bytes = key.len();
                if self.seen.insert(key) {
                    self.seen_bytes += bytes;
                }
            }
            if self.seen.len() > found {
                self.progress_at = now;
            }
        }
        let is_endless = !self.cursors.insert(cursor.clone())
            || self.seen_bytes > SEARCH_MAX_BYTES
            || now.saturating_duration_since(self.progress_at) > self.stall;
        if is_endless && !is_active(Mutation::EndlessScansAreFollowed) {
            return Err(Error::new(
                ErrorCode::Decode,
                "SCAN does not end; check that this address is Redis, not a proxy that changes cursors.",
            ));
        }
        self.cursor = (cursor != b"0").then_some(cursor);
        Ok(())
    }

    /// Removes the keys of this page, then takes the next page.
    fn go_on(&mut self) -> Next {
        // Keys are removed page by page: SCAN returns every key that exists during the whole SCAN, even if
        // others are removed meanwhile.
        if !self.keys.is_empty() {
            return Next::Run(self.removal());
        }
        if let Some(cursor) = self.cursor.take() {
            return Next::Run(vec![self.scan(cursor)]);
        }
        self.node += 1;
        self.cursors.clear();
        if self.node < self.nodes {
            return Next::Run(vec![self.scan(b"0".to_vec())]);
        }
        Next::Done(match self.keyspace.question {
            Question::Clear => Ok(Reply::Count(self.removed)),
            Question::Length => {
                let count = i64::try_from(self.seen.len()).unwrap_or(i64::MAX);
                Ok(Reply::Count(count))
            }
            Question::Ids => self.ids(),
        })
    }

    fn removal(&mut self) -> Vec<Step> {
        if self.split {
            let keys = std::mem::take(&mut self.keys);
            self.deleting = keys.len();
            let each = keys.into_iter().map(|key| Step {
                lane: None,
                command: Destroy::session(&self.keyspace.prefix, key),
            });
            return each.collect();
        }
        self.unlinking = self.keys.len().min(UNLINK_KEYS);
        let keys = self.keys[..self.unlinking].to_vec();
        vec![Step {
            lane: Some(self.node),
            command: Destroy::some_of_all(&self.keyspace.prefix, keys),
        }]
    }

    fn ids(&self) -> Result<Reply, Error> {
        let prefix = self.keyspace.prefix.len();
        let ids: Vec<_> = self
            .seen
            .iter()
            .map(|key| String::from_utf8_lossy(&key[prefix..]))
            .collect();
        let pages = ids.chunks(IDS_PAGE).map(serde_json::to_vec);
        pages
            .map(|page| page.map(Some))
            .collect::<Result<_, _>>()
            .map(Reply::Texts)
            .map_err(|error| Error::new(ErrorCode::Decode, error.to_string()))
    }
}

/// The MATCH pattern of every key that starts with `prefix`, whose glob characters are escaped.
fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn glob_characters_are_escaped() {
        assert_eq!(pattern(b"app[1]:"), b"app\\[1\\]:*");
        assert_eq!(pattern(b"u*:"), b"u\\*:*");
        assert_eq!(pattern(b"a\\?"), b"a\\\\\\?*");
    }
}
