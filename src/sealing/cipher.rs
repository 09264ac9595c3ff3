//! XAES-256-GCM, <https://c2sp.org/XAES-256-GCM>: AES-256-GCM by a key that is derived from the first half of a
//! nonce of 24 bytes. Such nonces are chosen at random, however many messages there are.

use std::sync::{Mutex, PoisonError};

use aes::{
    Aes256, Block,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes by which a sealed message is longer.
pub const TAG_BYTES: usize = 16;

const BLOCK_BYTES: usize = 16;
/// What a nonce gives to the key of its message; the rest is the nonce of AES-256-GCM.
pub const CONTEXT_BYTES: usize = 12;
/// So many derived keys are kept: one for each process that has sealed lately.
const DERIVED_MAX: usize = 64;

/// A message that was not sealed by this key, nonce and associated data.
#[derive(Debug, PartialEq, Eq)]
pub struct Forged;

/// A key, prepared. Has no `Debug`.
pub struct Cipher {
    block: Aes256,
    /// The subkey K1 of CMAC.
    mask: [u8; BLOCK_BYTES],
    /// Derived keys, as preparing one takes as long as sealing a session. Each has its place.
    derived: Mutex<[Option<Derived>; DERIVED_MAX]>,
}

struct Derived {
    context: [u8; CONTEXT_BYTES],
    key: LessSafeKey,
}

impl Cipher {
    /// Prepares `key`.
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let block = Aes256::new(&(*key).into());
        let mut zero = Block::default();
        block.encrypt_block(&mut zero);
        let number = u128::from_be_bytes(zero.into());
        let carry = number >> 127;
        Self {
            block,
            mask: ((number << 1) ^ (carry * 0x87)).to_be_bytes(),
            derived: Mutex::new([const { None }; DERIVED_MAX]),
        }
    }

    /// Seals `message` where it stands.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        message: &mut [u8],
    ) -> Result<Tag, Forged> {
        self.with_key(nonce, |key, nonce| seal(key, nonce, associated, message))
    }

    /// Opens the message and tag that stand in `buffer` from `begin` on. The message is moved to the front of
    /// `buffer`; returns its length.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut [u8],
        begin: usize,
    ) -> Result<usize, Forged> {
        self.with_key(nonce, |key, nonce| {
            open(key, nonce, associated, buffer, begin)
        })
    }

    /// Calls `work` with the key of a message, and what its nonce has left for it.
    fn with_key<T>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        work: impl FnOnce(&LessSafeKey, &[u8]) -> Result<T, Forged>,
    ) -> Result<T, Forged> {
        let (context, rest) = nonce.split_at(CONTEXT_BYTES);
        let place = usize::from(context[0]) % DERIVED_MAX;
        // Poisoned or not: a key is put there in one step.
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let derived = match &mut derived[place] {
            Some(derived) if derived.context == context => derived,
            place => place.insert(Derived {
                context: context.try_into().map_err(|_| Forged)?,
                key: prepared(&self.derive(context))?,
            }),
        };
        work(&derived.key, rest)
    }

    fn derive(&self, context: &[u8]) -> [u8; KEY_BYTES] {
        let mut blocks = [self.input(1, context), self.input(2, context)];
        self.block.encrypt_blocks(&mut blocks);
        let mut key = [0; KEY_BYTES];
        let (first, second) = key.split_at_mut(BLOCK_BYTES);
        first.copy_from_slice(&blocks[0]);
        second.copy_from_slice(&blocks[1]);
        key
    }

    /// The one block that CMAC is of: a counter, the label `X` and the context.
    fn input(&self, counter: u8, context: &[u8]) -> Block {
        let mut input = [0; BLOCK_BYTES];
        input[1] = counter;
        input[2] = b'X';
        input[BLOCK_BYTES - CONTEXT_BYTES..].copy_from_slice(context);
        for (byte, mask) in input.iter_mut().zip(self.mask) {
            *byte ^= mask;
        }
        input.into()
    }
}

/// A key of AES-256-GCM.
fn prepared(key: &[u8; KEY_BYTES]) -> Result<LessSafeKey, Forged> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Forged)?;
    Ok(LessSafeKey::new(key))
}

fn seal(
    key: &LessSafeKey,
    nonce: &[u8],
    associated: &[u8],
    message: &mut [u8],
) -> Result<Tag, Forged> {
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Forged)?;
    key.seal_in_place_separate_tag(nonce, Aad::from(associated), message)
        .map_err(|_| Forged)
}

fn open(
    key: &LessSafeKey,
    nonce: &[u8],
    associated: &[u8],
    buffer: &mut [u8],
    begin: usize,
) -> Result<usize, Forged> {
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Forged)?;
    key.open_within(nonce, Aad::from(associated), buffer, begin..)
        .map(|message| message.len())
        .map_err(|_| Forged)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn bytes(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().expect("hexadecimal digits");
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte"))
            .collect()
    }

    fn vectors(text: &str) -> Vec<Value> {
        let Ok(Value::Array(vectors)) = serde_json::from_str(text) else {
            panic!("no vectors");
        };
        assert!(!vectors.is_empty());
        vectors
    }

    #[test]
    fn xaes_256_gcm_answers_as_its_specification_says() {
        for vector in vectors(include_str!("../../tests/vectors/xaes-256-gcm.json")) {
            let [key, nonce, associated, message, derived, sealed] =
                ["key", "nonce", "aad", "msg", "derived", "sealed"]
                    .map(|name| bytes(&vector[name]));
            let cipher = Cipher::new(&key.try_into().expect("32 bytes"));
            let nonce: [u8; NONCE_BYTES] = nonce.try_into().expect("24 bytes");
            assert_eq!(cipher.derive(&nonce[..CONTEXT_BYTES]).to_vec(), derived);
            let mut buffer = message.clone();
            let tag = cipher
                .seal(&nonce, &associated, &mut buffer)
                .expect("sealed");
            buffer.extend_from_slice(tag.as_ref());
            assert_eq!(buffer, sealed);
            let length = cipher.open(&nonce, &associated, &mut buffer, 0);
            assert_eq!(length, Ok(message.len()));
            assert_eq!(&buffer[..message.len()], &message);
        }
    }

    #[test]
    fn aes_256_gcm_answers_as_wycheproof_says() {
        let mut invalid = 0;
        for vector in vectors(include_str!("../../tests/vectors/aes-256-gcm.json")) {
            let [key, nonce, associated, message, sealed, tag] =
                ["key", "iv", "aad", "msg", "ct", "tag"].map(|name| bytes(&vector[name]));
            let key = prepared(&key.try_into().expect("32 bytes")).expect("a key");
            let mut buffer = [sealed.as_slice(), &tag].concat();
            let opened = open(&key, &nonce, &associated, &mut buffer, 0);
            if vector["result"] == "invalid" {
                invalid += 1;
                assert_eq!(opened, Err(Forged), "{}", vector["tcId"]);
                continue;
            }
            assert_eq!(opened, Ok(message.len()), "{}", vector["tcId"]);
            assert_eq!(&buffer[..message.len()], &message);
            let mut buffer = message;
            let made = seal(&key, &nonce, &associated, &mut buffer).expect("sealed");
            assert_eq!((buffer, made.as_ref()), (sealed, tag.as_slice()));
        }
        assert!(invalid > 10);
    }
}
