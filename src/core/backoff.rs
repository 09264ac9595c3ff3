//! Delays between attempts that fail: doubled each time up to a limit.

use std::time::Duration;

/// Counts failures in a row.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay before the next attempt, from `base` up to `limit`, doubled with every failure.
    pub(super) fn next(&mut self, base: Duration, limit: Duration) -> Duration {
        let delay = base.saturating_mul(1 << self.failures.min(10)).min(limit);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// [`Self::next`] with full jitter, so that many clients do not reconnect in step; at least a tenth
    /// of `base`.
    pub(super) fn next_jittered(
        &mut self,
        base: Duration,
        limit: Duration,
        random: &mut fastrand::Rng,
    ) -> Duration {
        let ceiling = self.next(base, limit);
        ceiling.mul_f64(random.f64()).max(base / 10)
    }

    /// Starts again after a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RECONNECT_MAX, RECONNECT_MIN};

    #[test]
    fn the_delay_grows_to_its_limit_and_starts_again() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for attempt in 0..100 {
            let delay = backoff.next_jittered(RECONNECT_MIN, RECONNECT_MAX, &mut random);
            assert!(delay >= RECONNECT_MIN / 10 && delay <= RECONNECT_MAX);
            assert!(attempt > 0 || delay <= RECONNECT_MIN);
            longest = longest.max(delay);
        }
        assert!(longest > RECONNECT_MAX / 2);
        backoff.reset();
        assert_eq!(backoff.next(RECONNECT_MIN, RECONNECT_MAX), RECONNECT_MIN);
        assert_eq!(
            backoff.next(RECONNECT_MIN, RECONNECT_MAX),
            2 * RECONNECT_MIN
        );
    }
}
