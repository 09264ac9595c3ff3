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
/// A request that reads a session now touches it so much later, at most: by then touches may not be skipped
/// any more.
const REQUEST: Duration = Duration::from_secs(1);
/// The same as a part of `touch_after`, where that is short.
const REQUEST_PART: u32 = 20;

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
    /// When touches are not skipped any more.
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

    /// Whether a touch at `now` that makes `key` live until `expires` may be left out.
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

    /// Whether the touch of `key` by a request that reads it at `now` may be sent: another process may have
    /// refreshed it meanwhile.
    pub(super) fn may_be_due(&self, key: &[u8], now: Instant) -> bool {
        let ahead = REQUEST.min(self.touch_after / REQUEST_PART);
        let refreshed = self.newer.get(key).or_else(|| self.older.get(key));
        refreshed.is_none_or(|refreshed| refreshed.ends <= now + ahead)
    }

    /// Redis says at `now` that `key` lives until `expires`.
    pub(super) fn found(&mut self, key: &[u8], expires: Instant, now: Instant) {
        let known = self.newer.get(key).or_else(|| self.older.get(key));
        let is_news = known.is_none_or(|known| {
            let later = expires.saturating_duration_since(known.expires);
            later.max(known.expires.saturating_duration_since(expires)) > TOLERANCE
        });
        // Otherwise processes would draw their lots again with each request, and the shortest would count.
        if is_news {
            self.refreshed(key, expires, now);
        }
    }

    /// `key` lives until `expires`, as is known at `now`.
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
        // One that makes it live shorter is never skipped.
        assert!(!touches.can_skip(b"a", expires - MINUTE, start));
        touches.forget(b"a");
        assert!(!touches.can_skip(b"a", expires, start));
    }

    #[test]
    fn others_may_have_refreshed_what_is_not_known_and_what_is_due() {
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
    fn what_is_remembered_is_bounded() {
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
    fn nothing_is_remembered_unless_it_is_wanted() {
        let mut touches = Touches::new(Duration::ZERO);
        touches.refreshed(b"a", Instant::now(), Instant::now());
        assert!(touches.newer.is_empty());
    }
}
