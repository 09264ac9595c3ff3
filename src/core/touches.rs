//! Remembers the sessions that this process has refreshed lately, so that a session is not refreshed at every
//! request.

use std::{
    collections::HashMap,
    mem,
    time::{Duration, Instant},
};

use crate::config::TOUCHES_MAX;

/// The part of `touch_after` for which touches are skipped, drawn at random, so that sessions created together
/// are not refreshed together. Below 1, so that no session expires too early.
const SPREAD: std::ops::Range<f64> = 0.81..0.99;
/// A touch that shortens the life of a session by no more than this counts as one that does not change it:
/// JavaScript rounds to milliseconds, and some pass before the request arrives here.
const TOLERANCE: Duration = Duration::from_millis(50);
/// The assumed maximum time between the read and the touch of one request.
const REQUEST: Duration = Duration::from_secs(1);
/// The same as a fraction of `touch_after`, if that is short.
const REQUEST_PART: u32 = 20;

pub(super) struct Touches {
    touch_after: Duration,
    /// The older half is dropped at once; sessions in use move to the newer half.
    newer: HashMap<Box<[u8]>, Refreshed>,
    older: HashMap<Box<[u8]>, Refreshed>,
}

struct Refreshed {
    /// The earliest time at which the session expires in Redis.
    expires: Instant,
    /// A touch is skipped if it would extend the expiry by less than this.
    spare: Duration,
    /// The time after which touches are not skipped.
    ends: Instant,
}

impl Touches {
    pub(super) fn new(touch_after: Duration) -> Self {
        Self {
            touch_after,
            newer: HashMap::new(),
            older: HashMap::new(),
        }
    }

    /// Whether a touch at `now` that extends `key` until `expires` can be skipped.
    pub(super) fn can_skip(&mut self, key: &[u8], expires: Instant, now: Instant) -> bool {
        let Some(refreshed) = self.newer.get_mut(key).or_else(|| self.older.get_mut(key)) else {
            return false;
        };
        let added = expires.saturating_duration_since(refreshed.expires);
        let can = expires + TOLERANCE >= refreshed.expires && added < refreshed.spare;
        if can {
            refreshed.ends = now + (refreshed.spare - added);
        }
        can
    }

    /// Whether a request that reads `key` at `now` may soon send a touch: it then checks whether another
    /// process has refreshed the key.
    pub(super) fn may_be_due(&self, key: &[u8], now: Instant) -> bool {
        let ahead = REQUEST.min(self.touch_after / REQUEST_PART);
        let refreshed = self.newer.get(key).or_else(|| self.older.get(key));
        refreshed.is_none_or(|refreshed| refreshed.ends <= now + ahead)
    }

    /// Records the expiry that Redis reported at `now`.
    pub(super) fn found(&mut self, key: &[u8], expires: Instant, now: Instant) {
        let known = self.newer.get(key).or_else(|| self.older.get(key));
        let is_news = known.is_none_or(|known| {
            let later = expires.saturating_duration_since(known.expires);
            later.max(known.expires.saturating_duration_since(expires)) > TOLERANCE
        });
        // Otherwise processes would draw a new random part at each request, and the shortest would win.
        if is_news {
            self.refreshed(key, expires, now);
        }
    }

    /// Records at `now` that `key` lives until `expires`.
    pub(super) fn refreshed(&mut self, key: &[u8], expires: Instant, now: Instant) {
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
        let refreshed = Refreshed {
            expires,
            spare,
            ends: now + spare,
        };
        self.newer.insert(key.into(), refreshed);
    }

    /// Forgets all keys.
    pub(super) fn clear(&mut self) {
        self.newer.clear();
        self.older.clear();
    }

    /// Forgets `key`.
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
        assert!(!touches.can_skip(b"a", expires, start));
        touches.refreshed(b"a", expires, start);
        for (later, skips) in [(0, true), (8, true), (10, false)] {
            let later = later * MINUTE;
            assert_eq!(
                touches.can_skip(b"a", expires + later, start + later),
                skips
            );
        }
        assert!(touches.can_skip(b"a", expires - TOLERANCE, start));
        // A touch that shortens the life is never skipped.
        assert!(!touches.can_skip(b"a", expires - MINUTE, start));
        touches.forget(b"a");
        assert!(!touches.can_skip(b"a", expires, start));
    }

    #[test]
    fn unknown_and_due_sessions_may_have_been_refreshed_by_others() {
        let start = Instant::now();
        let mut touches = Touches::new(10 * MINUTE);
        assert!(touches.may_be_due(b"a", start));
        touches.refreshed(b"a", start + 60 * MINUTE, start);
        assert!(!touches.may_be_due(b"a", start + 8 * MINUTE));
        assert!(touches.may_be_due(b"a", start + 10 * MINUTE));
        // Another process has refreshed it eight minutes ago.
        touches.forget(b"a");
        touches.found(b"a", start + 60 * MINUTE, start + 8 * MINUTE);
        assert!(!touches.may_be_due(b"a", start + 8 * MINUTE));
        assert!(touches.can_skip(b"a", start + 68 * MINUTE, start + 8 * MINUTE));
        assert!(touches.may_be_due(b"a", start + 10 * MINUTE));
        // The same as before.
        touches.found(b"a", start + 60 * MINUTE, start + 10 * MINUTE);
        assert!(touches.may_be_due(b"a", start + 10 * MINUTE));
        touches.found(b"a", start + 70 * MINUTE, start + 10 * MINUTE);
        assert!(!touches.may_be_due(b"a", start + 10 * MINUTE));
    }

    #[test]
    fn the_number_of_remembered_sessions_is_bounded() {
        let expires = Instant::now();
        let mut touches = Touches::new(MINUTE);
        for n in 0..5 * TOUCHES_MAX {
            touches.refreshed(n.to_string().as_bytes(), expires, expires);
            assert!(touches.newer.len() + touches.older.len() <= 2 * TOUCHES_MAX);
        }
        let last = (5 * TOUCHES_MAX - 1).to_string();
        assert!(touches.can_skip(last.as_bytes(), expires, expires));
        assert!(!touches.can_skip(b"0", expires, expires));
    }

    #[test]
    fn nothing_is_remembered_without_the_option() {
        let mut touches = Touches::new(Duration::ZERO);
        touches.refreshed(b"a", Instant::now(), Instant::now());
        assert!(touches.newer.is_empty());
    }
}
