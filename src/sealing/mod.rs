//! Sealed sessions: encrypted, compressed or both, as text.
//!
//! | stored | holds |
//! |---|---|
//! | `~1s.<key id>.<base64url>` | nonce, ciphertext and tag of the session's text |
//! | `~1sz.<key id>.<base64url>` | the same of the compressed text |
//! | `~1z.<base64url>` | the compressed text |
//! | `~1m.` and one of the others | the same, which is being moved to another key |
//! | anything else | the text itself |
//!
//! The associated data of the encryption is everything before the base64url, then the key in Redis: a value
//! that was moved to another key does not open. It is text, as most clients of Redis take nothing else.

mod cipher;
mod compression;
mod nonces;

use std::{cell::RefCell, sync::Arc};

use base64_simd::{Out, URL_SAFE_NO_PAD};

use crate::{
    connection::reader::REPLY_MAX_BYTES,
    error::{Error, ErrorCode},
};
use cipher::{Cipher, KEY_BYTES, NONCE_BYTES, TAG_BYTES};
pub use nonces::Halves;
use nonces::Nonces;

/// Begins every text that is not the session's own.
const MAGIC: &[u8] = b"~1";
const ENCRYPTED: &[u8] = b"~1s.";
const ENCRYPTED_COMPRESSED: &[u8] = b"~1sz.";
const COMPRESSED: &[u8] = b"~1z.";
/// Before a value that is being moved to another key: lib/sealing/forwarding.js.
const MOVING: &[u8] = b"~1m.";

/// The longest text that is stored: a longer one could not be read, see `REPLY_MAX_BYTES`.
const STORED_MAX_BYTES: usize = REPLY_MAX_BYTES;

/// Memory that is kept for the next value.
const SCRATCH_BYTES: usize = 1 << 16;

/// What is done with sessions in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// They are read; what is written is encrypted.
    Accept,
    /// They are corrupt.
    Reject,
    /// They are read and written: for a fleet of which some do not know the keys, not yet or not any more.
    Write,
}

/// One key, by the name that values carry.
pub struct Key {
    id: Vec<u8>,
    cipher: Cipher,
}

impl Key {
    /// `id` is of letters, digits, `-` and `_`; none if `key` does not have 32 bytes.
    pub fn new(id: &str, key: &[u8]) -> Option<Self> {
        let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
        Some(Self {
            id: id.into(),
            cipher: Cipher::new(key),
        })
    }
}

/// How one store keeps its sessions. Has no `Debug`: it holds keys.
pub struct Sealing {
    /// The first one seals, all open.
    keys: Vec<Key>,
    plaintext: Plaintext,
    /// Texts that are shorter are not compressed; none at all without it.
    compressed_from: Option<usize>,
    /// The longest session that is expanded.
    max_bytes: usize,
    /// What the client puts before every key.
    key_prefix: Vec<u8>,
    nonces: Nonces,
}

impl Sealing {
    /// Without keys, nothing is encrypted.
    pub fn new(
        keys: Vec<Key>,
        plaintext: Plaintext,
        compressed_from: Option<usize>,
        max_bytes: usize,
        key_prefix: Vec<u8>,
    ) -> Self {
        Self {
            keys,
            plaintext,
            compressed_from,
            max_bytes,
            key_prefix,
            nonces: Nonces::new(),
        }
    }

    /// What is to be stored under `key` for the session `text`.
    pub fn seal(&self, key: &[u8], text: &[u8], halves: &mut Halves) -> Result<Vec<u8>, Error> {
        let block = match self.compressed_from {
            Some(least) if text.len() >= least => compression::compressed(text),
            _ => None,
        };
        if let (Some(sealer), true) = (self.keys.first(), self.plaintext != Plaintext::Write) {
            return match &block {
                Some(block) => self.encrypt(ENCRYPTED_COMPRESSED, sealer, key, block, halves),
                None => self.encrypt(ENCRYPTED, sealer, key, text, halves),
            };
        }
        Ok(match block {
            Some(block) => encoded(COMPRESSED.to_vec(), &block),
            None => text.to_vec(),
        })
    }

    /// What is `stored` as it would be sealed now; none if it is so already. It is opened either way.
    pub fn resealed(&self, key: &[u8], stored: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let text = self.open(key, stored.to_vec())?;
        let sealed = self.seal(key, &text, &mut Halves::of(1))?;
        Ok((form(&sealed) != form(stored)).then_some(sealed))
    }

    fn encrypt(
        &self,
        kind: &[u8],
        sealer: &Key,
        key: &[u8],
        text: &[u8],
        halves: &mut Halves,
    ) -> Result<Vec<u8>, Error> {
        let header = kind.len() + sealer.id.len() + 1;
        let length = URL_SAFE_NO_PAD.encoded_length(NONCE_BYTES + text.len() + TAG_BYTES);
        if header + length > STORED_MAX_BYTES {
            return Err(too_long());
        }
        let nonce = self.nonces.next(halves).ok_or_else(no_randomness)?;
        let mut stored = Vec::with_capacity(header + length);
        stored.extend_from_slice(kind);
        stored.extend_from_slice(&sealer.id);
        stored.push(b'.');
        SCRATCH.with_borrow_mut(|Scratch { associated, sealed }| {
            self.associate(associated, &stored, key);
            sealed.clear();
            sealed.extend_from_slice(&nonce);
            sealed.extend_from_slice(text);
            let message = &mut sealed[NONCE_BYTES..];
            let tag = sealer.cipher.seal(&nonce, associated, message);
            sealed.extend_from_slice(tag.map_err(|_| too_long())?.as_ref());
            stored.resize(header + length, 0);
            let _ = URL_SAFE_NO_PAD.encode(sealed, Out::from_slice(&mut stored[header..]));
            bound(sealed);
            Ok(stored)
        })
    }

    /// The session that is `stored` under `key`. Messages name the id of a key, and nothing else.
    pub fn open(&self, key: &[u8], mut stored: Vec<u8>) -> Result<Vec<u8>, Error> {
        // An empty value is a miss.
        if stored.is_empty() {
            return Ok(stored);
        }
        if is_moving(&stored) {
            stored.drain(..MOVING.len());
        }
        if stored.starts_with(MAGIC) {
            for kind in [ENCRYPTED, ENCRYPTED_COMPRESSED] {
                if stored.starts_with(kind) {
                    let text = self.decrypt(kind, key, stored)?;
                    return if kind == ENCRYPTED {
                        Ok(text)
                    } else {
                        self.expanded(&text)?.ok_or_else(damaged)
                    };
                }
            }
        }
        if self.plaintext == Plaintext::Reject && !self.keys.is_empty() {
            return Err(decode_error(
                "is not encrypted, and the option \"encryption.plaintext\" rejects it",
            ));
        }
        let block = stored
            .strip_prefix(COMPRESSED)
            .and_then(|text| URL_SAFE_NO_PAD.decode_to_vec(text).ok());
        // A text of the application's own may begin as if it were compressed.
        match block {
            Some(block) => Ok(self.expanded(&block)?.unwrap_or(stored)),
            None => Ok(stored),
        }
    }

    /// What was compressed; none if `block` is not of that kind.
    fn expanded(&self, block: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        // Before so much memory is taken.
        match compression::length_of(block) {
            Some(length) if length > self.max_bytes => Err(too_large(length, self.max_bytes)),
            _ => Ok(compression::decompressed(block)),
        }
    }

    /// Works where the value stands, without a second buffer.
    fn decrypt(&self, kind: &[u8], key: &[u8], mut stored: Vec<u8>) -> Result<Vec<u8>, Error> {
        let rest = &stored[kind.len()..];
        let end = rest.iter().position(|&byte| byte == b'.');
        let end = end.ok_or_else(damaged)?;
        let id = &rest[..end];
        let Some(opener) = self.keys.iter().find(|key| key.id == id) else {
            return Err(unknown_key(id));
        };
        let header = kind.len() + end + 1;
        SCRATCH.with_borrow_mut(|Scratch { associated, .. }| {
            self.associate(associated, &stored[..header], key);
            let sealed = URL_SAFE_NO_PAD.decode_inplace(&mut stored[header..]);
            let sealed = sealed.map_err(|_| damaged())?;
            let Some(nonce) = sealed.first_chunk::<NONCE_BYTES>().copied() else {
                return Err(damaged());
            };
            let (begin, end) = (header + NONCE_BYTES, header + sealed.len());
            let sealed = &mut stored[..end];
            let opened = opener.cipher.open(&nonce, associated, sealed, begin);
            stored.truncate(opened.map_err(|_| forged(&opener.id))?);
            Ok(stored)
        })
    }

    fn associate(&self, associated: &mut Vec<u8>, header: &[u8], key: &[u8]) {
        associated.clear();
        for part in [header, &self.key_prefix, key] {
            associated.extend_from_slice(part);
        }
    }
}

/// Memory that one value after the other is sealed in.
#[derive(Default)]
struct Scratch {
    associated: Vec<u8>,
    sealed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Keeps no more memory than most sessions need. What is in it is as secret as what is stored.
fn bound(scratch: &mut Vec<u8>) {
    if scratch.capacity() > SCRATCH_BYTES {
        *scratch = Vec::new();
    }
}

/// A store's sealing on one connection.
#[derive(Clone)]
pub struct Sealer {
    /// The store's.
    pub sealing: Arc<Sealing>,
    /// How much of every key the client puts there.
    pub key_prefix_bytes: usize,
}

impl Sealer {
    /// What is to be stored under the whole `key`.
    pub fn seal(&self, key: &[u8], text: &[u8], halves: &mut Halves) -> Result<Vec<u8>, Error> {
        self.sealing.seal(self.own(key), text, halves)
    }

    /// The session that is `stored` under the whole `key`.
    pub fn open(&self, key: &[u8], stored: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.sealing.open(self.own(key), stored)
    }

    fn own<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        &key[self.key_prefix_bytes.min(key.len())..]
    }
}

/// Whether what is `stored` is being moved to another key, where writes are to go.
pub fn is_moving(stored: &[u8]) -> bool {
    stored.starts_with(MOVING)
}

/// What two values have in common that hold the same session and are sealed the same: the kind and the key of an
/// encrypted one, as each has a nonce of its own; else all of it.
fn form(stored: &[u8]) -> &[u8] {
    let kinds = [ENCRYPTED, ENCRYPTED_COMPRESSED];
    let kind = kinds.into_iter().find(|kind| stored.starts_with(kind));
    let end = kind.and_then(|kind| {
        let id = stored[kind.len()..].iter().position(|&byte| byte == b'.')?;
        Some(kind.len() + id)
    });
    &stored[..end.unwrap_or(stored.len())]
}

/// `text` followed by `bytes` in base64url.
fn encoded(mut text: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    let at = text.len();
    text.resize(at + URL_SAFE_NO_PAD.encoded_length(bytes.len()), 0);
    let _ = URL_SAFE_NO_PAD.encode(bytes, Out::from_slice(&mut text[at..]));
    text
}

fn decode_error(what: &str) -> Error {
    Error::new(
        ErrorCode::Decode,
        format!("The stored value of a session {what}."),
    )
}

fn damaged() -> Error {
    decode_error("is damaged: it is not as it was sealed; destroy the session")
}

fn too_large(length: usize, most: usize) -> Error {
    decode_error(&format!(
        "has {length} bytes when it is expanded; at most {most} are read (option \"maxSessionBytes\")"
    ))
}

fn forged(id: &[u8]) -> Error {
    decode_error(&format!(
        "does not open with the key \"{}\": it was changed or stored under another key, or the key is not the one that sealed it",
        shown(id)
    ))
}

fn unknown_key(id: &[u8]) -> Error {
    decode_error(&format!(
        "is encrypted with the key \"{}\", which the option \"encryption\" does not have; add it to \"keys\"",
        shown(id)
    ))
}

/// An id of a key as a message may show it: what is stored may be anything.
fn shown(id: &[u8]) -> String {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.is_empty() || id.len() > KEY_ID_MAX_BYTES || !id.iter().all(is_word) {
        return "(no id)".into();
    }
    String::from_utf8_lossy(id).into_owned()
}

/// The longest id of a key.
pub const KEY_ID_MAX_BYTES: usize = 32;

fn no_randomness() -> Error {
    Error::new(
        ErrorCode::Encode,
        "The session could not be encrypted: the system gave no random numbers; the one stored before is untouched.",
    )
}

fn too_long() -> Error {
    Error::new(
        ErrorCode::Encode,
        "The session is too long to be encrypted: it could not be read; the one stored before is untouched.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        br#"{"cookie":{},"user":"Zo\u{eb}","a":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;

    fn sealing(ids: &[(&str, u8)], plaintext: Plaintext, from: Option<usize>) -> Sealing {
        let keys = ids
            .iter()
            .map(|(id, byte)| Key::new(id, &[*byte; KEY_BYTES]).expect("a key"))
            .collect();
        Sealing::new(keys, plaintext, from, 1 << 20, Vec::new())
    }

    fn seal(sealing: &Sealing, key: &[u8], text: &[u8]) -> Result<Vec<u8>, Error> {
        sealing.seal(key, text, &mut Halves::of(1))
    }

    fn code(outcome: Result<Vec<u8>, Error>) -> ErrorCode {
        outcome.map_err(|error| error.code).expect_err("opened")
    }

    #[test]
    fn a_session_comes_back_under_its_own_key_only() {
        for from in [None, Some(1)] {
            let sealing = sealing(&[("a", 1)], Plaintext::Reject, from);
            let stored = seal(&sealing, b"sess:1", TEXT).expect("sealed");
            assert!(stored.is_ascii());
            assert_eq!(sealing.open(b"sess:1", stored.clone()), Ok(TEXT.to_vec()));
            for key in [&b"sess:2"[..], b"sess:", b"sess:11", b""] {
                assert_eq!(code(sealing.open(key, stored.clone())), ErrorCode::Decode);
            }
            assert_ne!(stored, seal(&sealing, b"sess:1", TEXT).expect("sealed"));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        for from in [None, Some(1)] {
            let sealing = sealing(&[("a", 1)], Plaintext::Reject, from);
            let stored = seal(&sealing, b"k", TEXT).expect("sealed");
            for at in 0..stored.len() {
                for bit in 0..8 {
                    let mut flipped = stored.clone();
                    flipped[at] ^= 1 << bit;
                    assert_eq!(code(sealing.open(b"k", flipped)), ErrorCode::Decode, "{at}");
                }
                if at > 0 {
                    let cut = stored[..at].to_vec();
                    assert_eq!(code(sealing.open(b"k", cut)), ErrorCode::Decode, "{at}");
                }
            }
            let longer = [stored.as_slice(), b"A"].concat();
            assert_eq!(code(sealing.open(b"k", longer)), ErrorCode::Decode);
        }
    }

    #[test]
    fn all_keys_open_the_first_seals_and_an_unknown_one_is_named() {
        let old = sealing(&[("old", 1)], Plaintext::Reject, None);
        let both = sealing(&[("new", 2), ("old", 1)], Plaintext::Reject, None);
        let stored = seal(&old, b"k", TEXT).expect("sealed");
        assert_eq!(both.open(b"k", stored), Ok(TEXT.to_vec()));
        let stored = seal(&both, b"k", TEXT).expect("sealed");
        assert!(stored.starts_with(b"~1s.new."));
        let error = old.open(b"k", stored).expect_err("unknown");
        assert!(error.message.contains("\"new\""), "{}", error.message);
        // Another key by the same name.
        let other = sealing(&[("old", 3)], Plaintext::Reject, None);
        let stored = seal(&old, b"k", TEXT).expect("sealed");
        assert_eq!(code(other.open(b"k", stored)), ErrorCode::Decode);
    }

    #[test]
    fn plain_text_is_read_where_it_may_be() {
        let plain = TEXT.to_vec();
        for (plaintext, reads, writes) in [
            (Plaintext::Accept, true, false),
            (Plaintext::Reject, false, false),
            (Plaintext::Write, true, true),
        ] {
            let sealing = sealing(&[("a", 1)], plaintext, None);
            assert_eq!(sealing.open(b"k", plain.clone()).is_ok(), reads);
            let stored = seal(&sealing, b"k", TEXT).expect("sealed");
            assert_eq!(stored == TEXT, writes);
            // A miss, or a marker.
            assert_eq!(sealing.open(b"k", vec![]), Ok(vec![]));
        }
    }

    #[test]
    fn compressed_text_is_read_with_and_without_keys() {
        let sealing_only = sealing(&[], Plaintext::Reject, Some(10));
        let stored = seal(&sealing_only, b"k", TEXT).expect("sealed");
        assert!(stored.starts_with(COMPRESSED) && stored.len() < TEXT.len());
        for (keys, from) in [(&[][..], None), (&[("a", 1)][..], Some(10))] {
            let reader = sealing(keys, Plaintext::Accept, from);
            assert_eq!(reader.open(b"k", stored.clone()), Ok(TEXT.to_vec()));
        }
        assert_eq!(seal(&sealing_only, b"k", b"{}"), Ok(b"{}".to_vec()));
        for own in ["~1z.", "~1z.AAAA", "~1z.!", "~1", "~"] {
            let own = own.as_bytes().to_vec();
            assert_eq!(sealing_only.open(b"k", own.clone()), Ok(own));
        }
    }

    #[test]
    fn no_more_is_expanded_than_a_session_may_have() {
        let text = vec![b'a'; (1 << 20) + 1];
        for ids in [&[][..], &[("a", 1)][..]] {
            let sealing = sealing(ids, Plaintext::Accept, Some(1));
            let stored = seal(&sealing, b"k", &text).expect("sealed");
            let error = sealing.open(b"k", stored).expect_err("expanded");
            assert_eq!(error.code, ErrorCode::Decode);
            assert!(
                error.message.contains("maxSessionBytes"),
                "{}",
                error.message
            );
            let stored = seal(&sealing, b"k", &text[1..]).expect("sealed");
            assert_eq!(sealing.open(b"k", stored), Ok(text[1..].to_vec()));
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_sealed() {
        let sealing = sealing(&[("a", 1)], Plaintext::Reject, None);
        let text = vec![b'a'; STORED_MAX_BYTES / 4 * 3];
        assert_eq!(code(seal(&sealing, b"k", &text)), ErrorCode::Encode);
    }

    #[test]
    fn a_value_is_resealed_unless_it_is_as_it_would_be_sealed_now() {
        let long = [TEXT, TEXT, TEXT].concat();
        let both = [("new", 2), ("old", 1)];
        let forms = [
            sealing(&[], Plaintext::Accept, None),
            sealing(&[], Plaintext::Accept, Some(1)),
            sealing(&both, Plaintext::Accept, None),
            sealing(&both, Plaintext::Accept, Some(1)),
            sealing(&both[1..], Plaintext::Accept, None),
        ];
        let stored = forms
            .each_ref()
            .map(|form| seal(form, b"k", &long).expect("sealed"));
        let kinds: Vec<_> = stored.iter().map(|stored| form(stored)).collect();
        for (at, now) in forms.iter().enumerate() {
            for (was, stored) in stored.iter().enumerate() {
                let is_known = was < 2 || at >= 2 && (at < 4 || was == 4);
                let Ok(resealed) = now.resealed(b"k", stored) else {
                    assert!(!is_known, "{was} as {at}");
                    continue;
                };
                assert_eq!(resealed.is_none(), was == at, "{was} as {at}");
                assert_eq!(form(resealed.as_deref().unwrap_or(stored)), kinds[at]);
                let moving = [MOVING, stored].concat();
                let moved = now.resealed(b"k", &moving).expect("opened");
                assert_eq!(form(&moved.expect("resealed")), kinds[at]);
            }
        }
        // By another key of the same name.
        let other = sealing(&[("new", 9)], Plaintext::Accept, None);
        assert!(other.resealed(b"k", &stored[2]).is_err());
    }

    #[test]
    fn the_prefix_of_a_client_belongs_to_the_key() {
        let with = |prefix: &str| {
            let keys = vec![Key::new("a", &[1; KEY_BYTES]).expect("a key")];
            Sealing::new(keys, Plaintext::Reject, None, 1 << 20, prefix.into())
        };
        let stored = seal(&with("app:"), b"k", TEXT).expect("sealed");
        assert!(with("app:").open(b"k", stored.clone()).is_ok());
        assert!(with("").open(b"app:k", stored.clone()).is_ok());
        assert!(with("").open(b"k", stored.clone()).is_err());
        let sealer = Sealer {
            sealing: Arc::new(with("app:")),
            key_prefix_bytes: 4,
        };
        assert!(sealer.open(b"app:k", stored).is_ok());
    }
}
