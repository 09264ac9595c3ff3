//! The circuit breaker: requests wait for a server that is briefly unavailable, and are refused at once after
//! that.

use std::time::{Duration, Instant};

use super::Circuit;

/// The breaker of one node, or of the cluster's map.
#[derive(Default)]
pub(super) struct CircuitBreaker {
    failing_since: Option<Instant>,
    is_open: bool,
}

impl CircuitBreaker {
    /// Records a failure that began `now`, unless an earlier one continues.
    pub(super) fn fail(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
    }

    /// Records a failure that began `already` ago and was unnoticed.
    pub(super) fn failed_for(&mut self, already: Duration, now: Instant) {
        self.failing_since = now.checked_sub(already).or(self.failing_since);
    }

    /// Opens the circuit without waiting.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// Records that the server serves.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    /// When the circuit opens by itself, `after` the first failure.
    pub(super) fn opens_at(&self, after: Duration) -> Option<Instant> {
        let since = self.failing_since.filter(|_| !self.is_open)?;
        Some(since + after)
    }

    /// Opens the circuit if it is time, and returns whether it is open.
    pub(super) fn check(&mut self, now: Instant, after: Duration) -> bool {
        self.is_open |= self.opens_at(after).is_some_and(|at| at <= now);
        self.is_open
    }

    /// The state for listeners. `is_trying`: an attempt to connect is in progress.
    pub(super) fn circuit(&self, is_trying: bool) -> Circuit {
        match (self.is_open, is_trying) {
            (false, _) => Circuit::Closed,
            (true, true) => Circuit::HalfOpen,
            (true, false) => Circuit::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circuit_opens_after_the_first_failure_lasted_and_closes_with_a_success() {
        let (start, after) = (Instant::now(), Duration::from_secs(2));
        let mut breaker = CircuitBreaker::default();
        assert!(!breaker.check(start, after));
        breaker.fail(start);
        breaker.fail(start + after / 2);
        assert_eq!(breaker.opens_at(after), Some(start + after));
        assert!(!breaker.check(start + after / 2, after));
        assert!(breaker.check(start + after, after));
        assert_eq!(breaker.opens_at(after), None);
        assert_eq!(breaker.circuit(false), Circuit::Open);
        assert_eq!(breaker.circuit(true), Circuit::HalfOpen);
        breaker.close();
        assert_eq!(breaker.circuit(true), Circuit::Closed);
        breaker.open();
        assert!(breaker.check(start, after));
    }

    #[test]
    fn silence_before_a_failure_counts() {
        let (now, after) = (Instant::now(), Duration::from_secs(2));
        let mut breaker = CircuitBreaker::default();
        breaker.fail(now);
        breaker.failed_for(after / 2, now);
        assert_eq!(breaker.opens_at(after), Some(now + after / 2));
    }
}
