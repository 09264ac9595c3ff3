//! Which sessions this process has refreshed lately, so that a session is not refreshed with every
//! request.

use std::{
    collections::HashMap,
    mem,
    time::{Duration, Instant},
};

use crate::config::TOUCHES_MAX;

/// Touches are skipped at `touch_after` less 1 to 19 percent: sessions that were made together are not
/// refreshed together, and none lives shorter than it may.
const SPREAD: std::ops::Range<f64> = 0.81..0.99;
/// A touch that wants a session to expire earlier by no more than this is as good as one that wants
/// the same: JavaScript counts whole milliseconds, and some pass until they come here.
const TOLERANCE: Duration = Duration::from_millis(50);

pub(super) struct Touches {
    touch_after: Duration,
    /// Sessions are forgotten by the thousand: what is looked up moves to the newer half.
    newer: HashMap<Box<[u8]>, Refreshed>,
    older: HashMap<Box<[u8]>, Refreshed>,
}

struct Refreshed {
    /// When the session expires in Redis, at the earliest.
    expires: Instant,
    /// By how much later a touch may want it to expire and be skipped.
    spare: Duration,
}

impl Touches {
    pub(super) fn new(touch_after: Duration) -> Self {
        Self {
            touch_after,
            newer: HashMap::new(),
            older: HashMap::new(),
        }
    }

    /// Whether a touch that makes `key` live until `expires` may be left out.
    pub(super) fn can_skip(&self, key: &[u8], expires: Instant) -> bool {
        let refreshed = self.newer.get(key).or_else(|| self.older.get(key));
        refreshed.is_some_and(|refreshed| {
            expires + TOLERANCE >= refreshed.expires
                && expires.saturating_duration_since(refreshed.expires) < refreshed.spare
        })
    }

    /// `key` lives until `expires`.
    pub(super) fn refreshed(&mut self, key: &[u8], expires: Instant) {
        if self.touch_after.is_zero() {
            return;
        }
        if self.newer.len() == TOUCHES_MAX {
            self.older = mem::take(&mut self.newer);
        }
        let width = SPREAD.end - SPREAD.start;
        let spare = self
            .touch_after
            .mul_f64(SPREAD.start + width * fastrand::f64());
        let key = key.into();
        self.newer.insert(key, Refreshed { expires, spare });
    }

    /// Nothing is known any more.
    pub(super) fn clear(&mut self) {
        self.newer.clear();
        self.older.clear();
    }

    /// Nothing is known of `key` any more.
    pub(super) fn forget(&mut self, key: &[u8]) {
        if !self.touch_after.is_zero() {
            self.newer.remove(key);
            self.older.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_touch_is_skipped_only_if_it_would_add_less_than_touch_after() {
        let start = Instant::now();
        let expires = start + 60 * MINUTE;
        let mut touches = Touches::new(10 * MINUTE);
        assert!(!touches.can_skip(b"a", expires));
        touches.refreshed(b"a", expires);
        assert!(touches.can_skip(b"a", expires));
        assert!(touches.can_skip(b"a", expires + 8 * MINUTE));
        assert!(!touches.can_skip(b"a", expires + 10 * MINUTE));
        assert!(touches.can_skip(b"a", expires - TOLERANCE));
        // One that makes it live shorter is never skipped.
        assert!(!touches.can_skip(b"a", expires - MINUTE));
        touches.forget(b"a");
        assert!(!touches.can_skip(b"a", expires));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let expires = Instant::now();
        let mut touches = Touches::new(MINUTE);
        for n in 0..5 * TOUCHES_MAX {
            touches.refreshed(n.to_string().as_bytes(), expires);
            assert!(touches.newer.len() + touches.older.len() <= 2 * TOUCHES_MAX);
        }
        assert!(touches.can_skip((5 * TOUCHES_MAX - 1).to_string().as_bytes(), expires));
        assert!(!touches.can_skip(b"0", expires));
    }

    #[test]
    fn nothing_is_remembered_unless_it_is_wanted() {
        let mut touches = Touches::new(Duration::ZERO);
        touches.refreshed(b"a", Instant::now());
        assert!(touches.newer.is_empty());
    }
}
