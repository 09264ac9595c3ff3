//! Random nonces.

use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};

use super::cipher::{CONTEXT_BYTES, NONCE_BYTES};

/// Nonces with one first half, and so with one derived key, which takes as long to prepare as sealing a session.
/// The other halves have 96 random bits: that two of so many are equal has a chance of 2 to the power of -65.
const SHARED: usize = 1 << 16;
/// So many are asked of the system at once: it answers a question in the time of ten seals.
const REST_BYTES: usize = NONCE_BYTES - CONTEXT_BYTES;
const RESTS: usize = 256;

/// Nonces from the system's source of randomness, each given out once.
pub struct Nonces {
    stock: Mutex<Stock>,
    random: SystemRandom,
}

#[derive(Default)]
struct Stock {
    context: [u8; CONTEXT_BYTES],
    /// Nonces that may still have this context.
    left: usize,
    rests: Vec<[u8; REST_BYTES]>,
}

impl Nonces {
    /// None was asked for yet.
    pub fn new() -> Self {
        Self {
            stock: Mutex::default(),
            random: SystemRandom::new(),
        }
    }

    /// A nonce; none if the system has no randomness to give.
    pub fn next(&self) -> Option<[u8; NONCE_BYTES]> {
        // A poisoned stock is as good as before: what is taken out of it is taken in one step.
        let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
        if stock.left == 0 {
            let mut context = [0; CONTEXT_BYTES];
            self.random.fill(&mut context).ok()?;
            stock.context = context;
            stock.left = SHARED;
        }
        if stock.rests.is_empty() {
            let mut rests = vec![[0; REST_BYTES]; RESTS];
            self.random.fill(rests.as_flattened_mut()).ok()?;
            stock.rests = rests;
        }
        let rest = stock.rests.pop()?;
        stock.left -= 1;
        let mut nonce = [0; NONCE_BYTES];
        let (first, second) = nonce.split_at_mut(CONTEXT_BYTES);
        first.copy_from_slice(&stock.context);
        second.copy_from_slice(&rest);
        Some(nonce)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_comes_twice_and_their_first_half_changes() {
        let nonces = Nonces::new();
        let seen: HashSet<_> = (0..=SHARED)
            .map(|_| nonces.next().expect("a nonce"))
            .collect();
        assert_eq!(seen.len(), SHARED + 1);
        let contexts: HashSet<_> = seen.iter().map(|nonce| &nonce[..CONTEXT_BYTES]).collect();
        assert_eq!(contexts.len(), 2);
    }
}
