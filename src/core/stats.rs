//! The counters of a store. Plain integers, because the core is behind a lock already.

use std::time::{Duration, Instant};

use crate::{
    command::{Kind, Reply},
    connection::Traffic,
    error::{Error, ErrorCode},
};

/// Succeeded, whatever the reply.
const OK: usize = 0;
/// A skipped touch.
const SKIPPED: usize = 1;
/// The error codes by their numbers start here.
const ERRORS: usize = 2;
const OUTCOMES: usize = ERRORS + ErrorCode::ALL.len();

/// Upper bounds of the latency classes in microseconds; the last class has none.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000,
];

/// Counts since the store began.
#[derive(Clone, Default)]
pub struct Stats {
    /// Commands by kind and outcome.
    outcomes: [[u64; OUTCOMES]; Kind::COUNT],
    /// Commands that were answered or timed out, by latency class.
    latency: [u64; BOUNDS_US.len() + 1],
    latency_sum: Duration,
    /// Connections that replaced an earlier one.
    pub reconnects: u64,
    /// Bytes on the connections.
    pub traffic: Traffic,
}

impl Stats {
    /// Counts a command that has ended.
    pub(super) fn count(&mut self, kind: Kind, outcome: &Result<Reply, Error>) {
        let column = match outcome {
            Ok(_) => OK,
            Err(error) => ERRORS + error.code as usize,
        };
        self.outcomes[kind as usize][column] += 1;
    }

    /// Counts a skipped touch.
    pub(super) fn skipped(&mut self, kind: Kind) {
        self.outcomes[kind as usize][SKIPPED] += 1;
    }

    /// Counts the latency of a command. Only the difference of `begun_at` and `now` matters.
    pub(super) fn took(&mut self, begun_at: Instant, now: Instant) {
        let elapsed = now.saturating_duration_since(begun_at);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.latency[BOUNDS_US.partition_point(|&bound| bound < micros)] += 1;
        self.latency_sum += elapsed;
    }

    /// The possible outcomes of a command, in the order of their numbers.
    pub fn outcomes() -> [&'static str; OUTCOMES] {
        let mut names = ["ok"; OUTCOMES];
        names[SKIPPED] = "spared";
        for code in ErrorCode::ALL {
            names[ERRORS + code as usize] = code.name();
        }
        names
    }

    /// The upper bounds of the latency classes in milliseconds; the last class has none.
    pub fn latency_bounds_ms() -> Vec<f64> {
        BOUNDS_US.iter().map(|&bound| bound as f64 / 1e3).collect()
    }

    /// All counters in the order that lib/observe/stats.js reads: bytes sent and received, reconnects, the sum
    /// of the latencies in milliseconds, the classes of latency, and for each kind of command its outcomes.
    pub fn numbers(&self) -> Vec<f64> {
        let head = [
            self.traffic.sent as f64,
            self.traffic.received as f64,
            self.reconnects as f64,
            self.latency_sum.as_secs_f64() * 1e3,
        ];
        let counts = self.latency.iter().chain(self.outcomes.as_flattened());
        head.into_iter()
            .chain(counts.map(|&count| count as f64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_latency_has_its_upper_bound() {
        let begun_at = Instant::now();
        let mut stats = Stats::default();
        let took_us = [0, 250, 251, 5_000_000, 5_000_001];
        for micros in took_us {
            stats.took(begun_at, begun_at + Duration::from_micros(micros));
        }
        let [first, second, .., last_but_one, last] = stats.latency;
        assert_eq!([first, second, last_but_one, last], [2, 1, 1, 1]);
        assert_eq!(
            stats.latency_sum,
            Duration::from_micros(took_us.iter().sum())
        );
    }

    #[test]
    fn numbers_have_their_places() {
        assert!(BOUNDS_US.is_sorted());
        for (at, kind) in Kind::all().enumerate() {
            assert_eq!(kind as usize, at);
        }
        for (at, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, at);
        }
        let mut stats = Stats::default();
        stats.skipped(Kind::Ping);
        let numbers = stats.numbers();
        let at = numbers.iter().position(|&number| number == 1.0);
        let kinds = 4 + BOUNDS_US.len() + 1;
        assert_eq!(at, Some(kinds + OUTCOMES * Kind::Ping as usize + SKIPPED));
        assert_eq!(numbers.len(), kinds + OUTCOMES * Kind::COUNT);
    }
}
