//! Random nonces.

use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};

use super::cipher::{CONTEXT_BYTES, NONCE_BYTES};

/// Nonces with one first half, and so with one derived key, which takes as long to prepare as sealing a session.
/// The other halves have 96 random bits: that two of so many are equal has a chance of 2 to the power of -65.
const SHARED: usize = 1 << 16;
const HALF_BYTES: usize = NONCE_BYTES - CONTEXT_BYTES;

/// Second halves of nonces, for sessions that are sealed in one go: asking the system once for all of them takes
/// less time. None is kept for a later session: of a process that is copied with its memory (a snapshot, a fork),
/// each copy would seal another session with it.
pub struct Halves {
    count: usize,
    drawn: Vec<[u8; HALF_BYTES]>,
}

impl Halves {
    /// For so many sessions. None is drawn yet.
    pub fn of(count: usize) -> Self {
        Self {
            count,
            drawn: Vec::new(),
        }
    }

    fn next(&mut self, random: &SystemRandom) -> Option<[u8; HALF_BYTES]> {
        if self.drawn.is_empty() {
            let mut drawn = vec![[0; HALF_BYTES]; self.count.max(1)];
            random.fill(drawn.as_flattened_mut()).ok()?;
            self.drawn = drawn;
        }
        self.drawn.pop()
    }
}

/// Nonces from the system's source of randomness, each given out once.
pub struct Nonces {
    shared: Mutex<Shared>,
    random: SystemRandom,
}

#[derive(Default)]
struct Shared {
    context: [u8; CONTEXT_BYTES],
    /// Nonces that may still have this context.
    left: usize,
}

impl Nonces {
    /// None was asked for yet.
    pub fn new() -> Self {
        Self {
            shared: Mutex::default(),
            random: SystemRandom::new(),
        }
    }

    /// A nonce; none if the system has no randomness to give.
    pub fn next(&self, halves: &mut Halves) -> Option<[u8; NONCE_BYTES]> {
        let half = halves.next(&self.random)?;
        let context = self.context()?;
        let mut nonce = [0; NONCE_BYTES];
        let (first, second) = nonce.split_at_mut(CONTEXT_BYTES);
        first.copy_from_slice(&context);
        second.copy_from_slice(&half);
        Some(nonce)
    }

    fn context(&self) -> Option<[u8; CONTEXT_BYTES]> {
        // Poisoned or not: a new one is put there as a whole.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.left == 0 {
            let mut context = [0; CONTEXT_BYTES];
            self.random.fill(&mut context).ok()?;
            *shared = Shared {
                context,
                left: SHARED,
            };
        }
        shared.left -= 1;
        Some(shared.context)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_comes_twice_and_their_first_half_changes() {
        let nonces = Nonces::new();
        let mut halves = Halves::of(100);
        let seen: HashSet<_> = (0..=SHARED)
            .map(|_| nonces.next(&mut halves).expect("a nonce"))
            .collect();
        assert_eq!(seen.len(), SHARED + 1);
        let contexts: HashSet<_> = seen.iter().map(|nonce| &nonce[..CONTEXT_BYTES]).collect();
        assert_eq!(contexts.len(), 2);
    }

    #[test]
    fn a_copy_of_all_that_is_kept_between_two_sessions_repeats_no_nonce() {
        let nonces = Nonces::new();
        nonces.next(&mut Halves::of(64)).expect("a nonce");
        let copied = nonces.shared.lock().expect("intact");
        let copy = Nonces {
            shared: Mutex::new(Shared { ..*copied }),
            random: SystemRandom::new(),
        };
        drop(copied);
        let [one, other] = [&nonces, &copy].map(|nonces| {
            let mut halves = Halves::of(64);
            let nonce = || nonces.next(&mut halves).expect("a nonce");
            std::iter::repeat_with(nonce)
                .take(64)
                .collect::<HashSet<_>>()
        });
        assert!(one.is_disjoint(&other));
    }
}
