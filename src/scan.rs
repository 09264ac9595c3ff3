//! What concerns every session at once: SCAN to the end, in steps that let others through.

use std::{collections::HashSet, future::Future};

use crate::{
    command::{Command, Reply},
    config::SCAN_COUNT_MIN,
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
    /// Their names without the prefix, as the text of a JSON array.
    Ids,
    /// Remove them; answers how many were there.
    Clear,
}

impl Keyspace {
    /// Answers the question by commands given to `run`, one after the other.
    pub async fn answer<F>(self, run: impl Fn(Command) -> F) -> Result<Reply, Error>
    where
        F: Future<Output = Result<Reply, Error>>,
    {
        match self.question {
            Question::Clear => self.clear(run).await,
            Question::Length => {
                let keys = self.keys(run).await?;
                Ok(Reply::Count(i64::try_from(keys.len()).unwrap_or(i64::MAX)))
            }
            Question::Ids => {
                let keys = self.keys(run).await?;
                let ids: Vec<_> = keys
                    .iter()
                    .map(|key| String::from_utf8_lossy(&key[self.prefix.len()..]))
                    .collect();
                let text = serde_json::to_vec(&ids)
                    .map_err(|error| Error::new(ErrorCode::Decode, error.to_string()))?;
                Ok(Reply::Text(text))
            }
        }
    }

    async fn keys<F>(&self, run: impl Fn(Command) -> F) -> Result<HashSet<Vec<u8>>, Error>
    where
        F: Future<Output = Result<Reply, Error>>,
    {
        let mut all = HashSet::new();
        let mut cursor = Some(b"0".to_vec());
        while let Some(at) = cursor {
            let (next, keys) = self.page(at, &run).await?;
            all.extend(keys);
            cursor = next;
        }
        Ok(all)
    }

    /// Removes page by page: SCAN returns every key that is there from its start to its end,
    /// whatever is removed meanwhile, and a page is as much as one UNLINK should take.
    async fn clear<F>(&self, run: impl Fn(Command) -> F) -> Result<Reply, Error>
    where
        F: Future<Output = Result<Reply, Error>>,
    {
        let mut removed = 0;
        let mut cursor = Some(b"0".to_vec());
        while let Some(at) = cursor {
            let (next, keys) = self.page(at, &run).await?;
            if !keys.is_empty()
                && let Reply::Count(count) = run(Command::Unlink { keys }).await?
            {
                removed += count;
            }
            cursor = next;
        }
        Ok(Reply::Count(removed))
    }

    async fn page<F>(
        &self,
        cursor: Vec<u8>,
        run: impl Fn(Command) -> F,
    ) -> Result<(Option<Vec<u8>>, Vec<Vec<u8>>), Error>
    where
        F: Future<Output = Result<Reply, Error>>,
    {
        let scan = Command::Scan {
            cursor,
            pattern: pattern(&self.prefix),
            count: self.count.max(SCAN_COUNT_MIN),
        };
        let Reply::Page { cursor, mut keys } = run(scan).await? else {
            return Err(Error::new(ErrorCode::Decode, "SCAN answered no page."));
        };
        // The pattern is only as good as its escapes: what we remove must bear our prefix.
        keys.retain(|key| key.starts_with(&self.prefix));
        Ok(((cursor != b"0").then_some(cursor), keys))
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
