//! What concerns every session at once: SCAN to the end, in steps that let others through.

use std::{collections::HashSet, future::Future};

use futures_util::future::join_all;

use crate::{
    command::{Command, Reply},
    config::{IDS_PAGE, SCAN_COUNT_MIN, UNLINK_KEYS},
    error::{Error, ErrorCode},
};

/// A question about all keys that start with `prefix`.
pub struct Keyspace {
    /// What to do with them.
    pub question: Question,
    /// The bytes that our keys start with; any byte may be in it.
    pub prefix: Vec<u8>,
    /// The option `scanCount`.
    pub count: u32,
}

/// What to do with the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// How many there are.
    Length,
    /// Their names without the prefix, as texts of JSON arrays.
    Ids,
    /// Remove them; answers how many were there.
    Clear,
}

/// Where to go on, if there is more, and keys.
type Page = (Option<Vec<u8>>, Vec<Vec<u8>>);

/// One command of an answer.
pub struct Step {
    /// The lane it is for, if it is not for that of its key.
    pub lane: Option<usize>,
    /// The command.
    pub command: Command,
}

impl Keyspace {
    /// Answers the question by a SCAN of each of `lanes`, one after the other, and commands given
    /// to `run`. `first` is the reply to the first lane's first SCAN, which is under way. `split`
    /// says that a command may name no more than one key.
    pub async fn answer<F>(
        self,
        lanes: &[usize],
        mut split: bool,
        first: impl Future<Output = Result<Reply, Error>>,
        run: impl Fn(Step) -> F,
    ) -> Result<Reply, Error>
    where
        F: Future<Output = Result<Reply, Error>>,
    {
        let mut first = Some(first);
        let mut seen = HashSet::new();
        let mut removed = 0;
        for &lane in lanes {
            let mut cursor = Some(b"0".to_vec());
            while let Some(at) = cursor {
                let reply = match first.take() {
                    Some(first) => first.await?,
                    None => {
                        let command = self.scan(at);
                        let lane = Some(lane);
                        run(Step { lane, command }).await?
                    }
                };
                let (next, keys) = self.page(reply)?;
                cursor = next;
                // Removed page by page: SCAN returns every key that is there from its start to its
                // end, whatever is removed meanwhile, and a page is as much as one UNLINK should
                // take.
                if self.question == Question::Clear {
                    removed += remove(&keys, lane, &mut split, &run).await?;
                } else {
                    seen.extend(keys);
                }
            }
        }
        match self.question {
            Question::Clear => Ok(Reply::Count(removed)),
            Question::Length => Ok(Reply::Count(i64::try_from(seen.len()).unwrap_or(i64::MAX))),
            Question::Ids => self.ids(&seen),
        }
    }

    /// The SCAN that goes on at `cursor`.
    pub fn scan(&self, cursor: Vec<u8>) -> Command {
        Command::Scan {
            cursor,
            pattern: pattern(&self.prefix),
            count: self.count.max(SCAN_COUNT_MIN),
        }
    }

    fn page(&self, reply: Reply) -> Result<Page, Error> {
        let Reply::Page { cursor, mut keys } = reply else {
            return Err(Error::new(ErrorCode::Decode, "SCAN answered no page."));
        };
        // The pattern is only as good as its escapes: what we remove must bear our prefix.
        keys.retain(|key| key.starts_with(&self.prefix));
        Ok(((cursor != b"0").then_some(cursor), keys))
    }

    fn ids(&self, keys: &HashSet<Vec<u8>>) -> Result<Reply, Error> {
        let ids: Vec<_> = keys
            .iter()
            .map(|key| String::from_utf8_lossy(&key[self.prefix.len()..]))
            .collect();
        let pages = ids.chunks(IDS_PAGE).map(serde_json::to_vec);
        pages
            .map(|page| page.map(Some))
            .collect::<Result<_, _>>()
            .map(Reply::Texts)
            .map_err(|error| Error::new(ErrorCode::Decode, error.to_string()))
    }
}

/// Removes keys that are in `lane`. `split` becomes true when the server has no UNLINK.
async fn remove<F>(
    keys: &[Vec<u8>],
    lane: usize,
    split: &mut bool,
    run: impl Fn(Step) -> F,
) -> Result<i64, Error>
where
    F: Future<Output = Result<Reply, Error>>,
{
    let mut removed = 0;
    let mut keys = keys;
    while !*split && !keys.is_empty() {
        let (some, rest) = keys.split_at(keys.len().min(UNLINK_KEYS));
        let step = Step {
            lane: Some(lane),
            command: Command::Unlink {
                keys: some.to_vec(),
            },
        };
        match run(step).await {
            Ok(Reply::Count(count)) => removed += count,
            Ok(_) => {}
            Err(error) if error.says_unknown_command() => {
                *split = true;
                break;
            }
            Err(error) => return Err(error),
        }
        keys = rest;
    }
    let steps = keys.iter().map(|key| Step {
        lane: None,
        command: Command::Del { key: key.clone() },
    });
    for reply in join_all(steps.map(run)).await {
        if let Reply::Count(count) = reply? {
            removed += count;
        }
    }
    Ok(removed)
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
