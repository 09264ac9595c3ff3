//! Random nonces.

use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};

use super::cipher::NONCE_BYTES;

/// So many are asked of the system at once: it answers a question in the time of ten seals.
const NONCES: usize = 128;

/// Nonces from the system's source of randomness, each given out once.
pub struct Nonces {
    unused: Mutex<Vec<[u8; NONCE_BYTES]>>,
    random: SystemRandom,
}

impl Nonces {
    /// None was asked for yet.
    pub fn new() -> Self {
        Self {
            unused: Mutex::default(),
            random: SystemRandom::new(),
        }
    }

    /// A nonce; none if the system has no randomness to give.
    pub fn next(&self) -> Option<[u8; NONCE_BYTES]> {
        // A poisoned stock is as good as before: each nonce is taken out in one step.
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nonce) = unused.pop() {
            return Some(nonce);
        }
        let mut fresh = vec![[0; NONCE_BYTES]; NONCES];
        self.random.fill(fresh.as_flattened_mut()).ok()?;
        *unused = fresh;
        unused.pop()
    }
}
