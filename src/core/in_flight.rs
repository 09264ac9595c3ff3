//! Commands on the wire of one connection, in the order of their replies.

use std::{collections::VecDeque, time::Instant};

use super::request::Job;
use crate::error::Error;

/// One command on the wire.
struct Sent {
    /// None is what goes before the next command and is not answered to a caller: ASKING, a marker before its
    /// DEL, PTTL before its GET.
    job: Option<Job>,
    /// When it was encoded.
    at: Instant,
    /// How many bytes of the connection's output end with it.
    end: u64,
}

/// What is on the wire.
#[derive(Default)]
pub(super) struct InFlight {
    sent: VecDeque<Sent>,
    /// The error reply to the ASKING before the oldest command.
    asking_error: Option<Error>,
    /// The reply to the PTTL before it.
    ttl_ms: Option<i64>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn push(&mut self, job: Option<Job>, at: Instant, end: u64) {
        self.sent.push_back(Sent { job, at, end });
    }

    /// Whether the oldest command goes before another one and is not answered to a caller.
    pub(super) fn expects_first(&self) -> bool {
        self.sent.front().is_some_and(|sent| sent.job.is_none())
    }

    /// Takes the reply to such a command.
    pub(super) fn replied_first(&mut self, error: Option<Error>, ttl_ms: Option<i64>) {
        self.sent.pop_front();
        self.asking_error = error;
        self.ttl_ms = ttl_ms;
    }

    /// The oldest command, and the error reply to its ASKING.
    pub(super) fn pop(&mut self) -> Option<(Job, Option<Error>)> {
        let mut job = self.sent.pop_front()?.job?;
        job.ttl_ms = self.ttl_ms.take();
        Some((job, self.asking_error.take()))
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.sent.iter().filter_map(|sent| sent.job.as_ref())
    }

    pub(super) fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.sent.iter_mut().filter_map(|sent| sent.job.as_mut())
    }

    /// Since when the oldest command is unanswered.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.front().map(|sent| sent.at)
    }

    /// Empties it. Each job comes with whether all of it is in the first `written` bytes of the output.
    pub(super) fn drain(&mut self, written: u64) -> impl Iterator<Item = (Job, bool)> + use<> {
        self.asking_error = None;
        self.ttl_ms = None;
        std::mem::take(&mut self.sent)
            .into_iter()
            .filter_map(move |sent| Some((sent.job?, sent.end <= written)))
    }
}
