//! What happens when a deadline has come.

use tokio::time::Instant;

use super::{super::link::no_connection, Worker};
use crate::error::Error;

impl Worker {
    /// Answers everything whose deadline has come.
    pub(super) fn expire(&mut self) {
        self.timer_at = None;
        self.read_waiting();
        let now = Instant::now();
        let mut silent = Vec::new();
        for at in 0..self.map.lanes.len() {
            let mut expired = Vec::new();
            let lane = &mut self.map.lanes[at];
            let give_up = lane.expire(now, &mut expired);
            if expired.is_empty() {
                continue;
            }
            let error = lane.link.too_late();
            for (kind, deadline, reply_to) in expired {
                let outcome = Err(error.clone());
                self.stats.count(kind, &outcome);
                self.stats.took(deadline, now + self.config.command_timeout);
                self.reply(reply_to, outcome);
            }
            // While nothing is read it is not the server that keeps silent.
            if give_up && self.reading {
                silent.push((at, error));
            }
        }
        for (at, error) in silent {
            self.give_up(at, &error, true);
        }
        for job in self.map.expire(now) {
            let error = job.refusal.clone();
            let error = error.unwrap_or_else(|| self.unrouted_error());
            self.replied(job, Err(error), now);
        }
        let late = self
            .waiting
            .extract_if(.., |(_, _, deadline)| *deadline <= now);
        for (id, work, _) in late.collect::<Vec<_>>() {
            self.larger -= 1;
            let error = self.unrouted_error();
            self.finish_waiting(id, &work, error);
        }
    }

    /// Reads all that has come on watched connections: whoever watches them may have been busy, or
    /// had no room, and what TLS holds back no socket tells of.
    pub(super) fn read_waiting(&mut self) {
        for at in 0..self.map.lanes.len() {
            while self.reading && self.map.lanes[at].read_now() {
                self.read(at);
            }
        }
    }

    pub(super) fn unrouted_error(&self) -> Error {
        no_connection(
            &self.config.servers.to_string(),
            &self.config,
            self.map.discovery.error(),
        )
    }

    /// Sets the timer to when something is next to be looked at. Answers do not move it back: it
    /// fires at most once per deadline in vain, which costs less than moving it with every reply.
    pub(super) fn arm(&mut self) {
        if self.timer_at.is_some() && self.map.is_settled() {
            return;
        }
        let waiting = self.waiting.iter().map(|(_, _, deadline)| *deadline);
        let Some(at) = waiting.chain(self.map.wake_at()).min() else {
            return;
        };
        if self.timer_at.is_none_or(|armed| at < armed) {
            self.timer.as_mut().reset(at);
            self.timer_at = Some(at);
        }
    }
}
