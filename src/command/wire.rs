//! The encoding of commands: <https://redis.io/docs/latest/develop/reference/protocol-spec/#arrays>

use super::{Command, Expiry, Kind, SwapBy};
use crate::{
    conflict,
    marker::{self, By},
};

impl Command {
    /// Appends the command that precedes this one, if there is one; its reply is skipped.
    pub fn encode_first(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Destroy(destroy) if destroy.by == By::Pair => {
                let expiry = Expiry::After(marker::life_ms());
                set(out, &destroy.marker, b"", expiry, &[]);
                true
            }
            Self::Save(save) => {
                hexists(out, save.index(), save.handle());
                true
            }
            _ => false,
        }
    }

    /// Appends PTTL of `key`.
    pub fn encode_pttl(key: &[u8], out: &mut Vec<u8>) {
        head(out, 2, Kind::Pttl.name());
        bulk(out, key);
    }

    /// Appends the command's wire form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Get { key } | Self::Del { key } | Self::Pttl { key } => {
                head(out, 2, self.name());
                bulk(out, key);
            }
            Self::Set {
                key,
                value,
                expiry,
                only_existing,
            } => {
                let condition: &[&[u8]] = if *only_existing { &[b"XX"] } else { &[] };
                set(out, key, value, *expiry, condition);
            }
            Self::Swap(swap) => {
                let script = match swap.by {
                    SwapBy::Set => {
                        let condition: &[&[u8]] = &[b"IFEQ", &swap.base, b"GET"];
                        return set(out, &swap.key, &swap.value, swap.expiry, condition);
                    }
                    SwapBy::EvalSha => conflict::swap_hash(),
                    SwapBy::Eval => conflict::SWAP,
                };
                head(out, 7, self.name());
                bulk(out, script.as_bytes());
                bulk(out, b"1");
                bulk(out, &swap.key);
                bulk(out, &swap.base);
                bulk(out, &swap.value);
                match swap.expiry {
                    Expiry::After(expire_ms) => number(out, expire_ms),
                    Expiry::Keep => bulk(out, b"KEEPTTL"),
                    Expiry::Never => bulk(out, b""),
                }
            }
            Self::Destroy(destroy) if destroy.by == By::Pair => {
                head(out, 1 + destroy.keys.len(), self.name());
                for key in &destroy.keys {
                    bulk(out, key);
                }
            }
            Self::Destroy(destroy) => {
                let keys = std::iter::once(&destroy.marker).chain(&destroy.keys);
                let hash = marker::destroy_hash();
                script(out, destroy.by, hash, marker::DESTROY, keys, 1);
                number(out, marker::life_ms());
            }
            Self::Restore(restore) => {
                let keys = std::iter::once(&restore.key).chain(&restore.markers);
                let hash = marker::restore_hash();
                script(out, restore.by, hash, marker::RESTORE, keys, 5);
                bulk(out, &restore.value);
                match restore.expiry {
                    Expiry::After(expire_ms) => number(out, expire_ms),
                    Expiry::Keep | Expiry::Never => bulk(out, b""),
                }
                bulk(out, restore.mode.argument());
                number(out, restore.known);
                number(out, marker::life_ms());
            }
            Self::Expire { key, expire_ms } => {
                head(out, 3, self.name());
                bulk(out, key);
                number(out, *expire_ms);
            }
            Self::MGet { keys } | Self::Unlink { keys } => {
                head(out, 1 + keys.len(), self.name());
                for key in keys {
                    bulk(out, key);
                }
            }
            Self::Scan {
                cursor,
                pattern,
                count,
            } => {
                head(out, 6, self.name());
                bulk(out, cursor);
                bulk(out, b"MATCH");
                bulk(out, pattern);
                bulk(out, b"COUNT");
                number(out, *count);
            }
            Self::HExists { key, field } => hexists(out, key, field),
            Self::Save(save) => set(out, save.key(), save.value(), save.expiry, &[b"XX"]),
            Self::User(call) => {
                let (hash, text) = (call.which.hash(), call.which.text());
                script(
                    out,
                    call.by,
                    hash,
                    text,
                    call.keys.iter(),
                    call.arguments.len(),
                );
                for argument in &call.arguments {
                    bulk(out, argument);
                }
            }
            Self::Ping => head(out, 1, self.name()),
            Self::ClusterSlots => {
                head(out, 2, "CLUSTER");
                bulk(out, b"SLOTS");
            }
        }
    }
}

/// The beginning of a script with these keys and this number of arguments.
fn script<'a>(
    out: &mut Vec<u8>,
    by: By,
    hash: &str,
    text: &str,
    keys: impl Iterator<Item = &'a Vec<u8>> + Clone,
    arguments: usize,
) {
    let count = keys.clone().count();
    head(out, 3 + count + arguments, by.command());
    let script = match by {
        By::Hash => hash,
        By::Pair | By::Text => text,
    };
    bulk(out, script.as_bytes());
    number(out, count);
    for key in keys {
        bulk(out, key);
    }
}

fn set(out: &mut Vec<u8>, key: &[u8], value: &[u8], expiry: Expiry, condition: &[&[u8]]) {
    let expiry_words = match expiry {
        Expiry::After(_) => 2,
        Expiry::Keep => 1,
        Expiry::Never => 0,
    };
    head(out, 3 + expiry_words + condition.len(), Kind::Set.name());
    bulk(out, key);
    bulk(out, value);
    match expiry {
        Expiry::After(expire_ms) => {
            bulk(out, b"PX");
            number(out, expire_ms);
        }
        Expiry::Keep => bulk(out, b"KEEPTTL"),
        Expiry::Never => {}
    }
    for word in condition {
        bulk(out, word);
    }
}

fn hexists(out: &mut Vec<u8>, key: &[u8], field: &[u8]) {
    head(out, 3, Kind::HExists.name());
    bulk(out, key);
    bulk(out, field);
}

fn head(out: &mut Vec<u8>, words: usize, name: &str) {
    header(out, b'*', words);
    bulk(out, name.as_bytes());
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    bulk(out, itoa::Buffer::new().format(number).as_bytes());
}

fn header(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}
