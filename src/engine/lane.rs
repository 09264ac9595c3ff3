//! One server: its connection, what waits for it, and what is on the wire to it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    flight::{Chunk, Flight, Landed},
    job::{Job, ReplyTo},
    link::{Link, LinkEvent},
};
use crate::{
    command::Command,
    config::{CHUNK_COMMANDS, CHUNKS_IN_FLIGHT, Config, TIMEOUTS_IN_A_ROW},
    connection::Target,
    error::Error,
};

pub(super) struct Lane {
    pub(super) target: Target,
    pub(super) link: Link,
    pub(super) queue: VecDeque<Job>,
    pub(super) flight: Flight,
    timeouts_in_a_row: u32,
}

pub(super) enum LaneEvent {
    Landed(Landed),
    Link(LinkEvent),
}

/// What a connection leaves behind when it is given up.
pub(super) struct Fallout {
    /// Replies that had come before.
    pub(super) landed: Vec<Landed>,
    /// What is not safe to repeat.
    pub(super) refused: Vec<Job>,
}

impl Lane {
    pub(super) fn new(config: &Arc<Config>, target: Target) -> Self {
        Self {
            link: Link::new(Arc::clone(config), target.clone()),
            target,
            queue: VecDeque::new(),
            flight: Flight::default(),
            timeouts_in_a_row: 0,
        }
    }

    /// Whether nobody waits for this lane, be there replies to come or not.
    pub(super) fn is_idle(&self) -> bool {
        let unanswered = |job: &Job| !matches!(job.reply_to, ReplyTo::Nobody);
        self.queue.is_empty() && !self.flight.jobs().any(unanswered)
    }

    /// Queues `job` in the order of the requests, which is nearly always at the end.
    pub(super) fn enqueue(&mut self, job: Job) {
        let at = match self.queue.back() {
            Some(last) if last.seq > job.seq => {
                self.queue.partition_point(|other| other.seq < job.seq)
            }
            _ => self.queue.len(),
        };
        self.queue.insert(at, job);
    }

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LaneEvent> {
        if let Poll::Ready(Some(landed)) = self.flight.poll_next(cx) {
            return Poll::Ready(LaneEvent::Landed(landed));
        }
        self.link.poll_event(cx).map(LaneEvent::Link)
    }

    /// Puts what waits on the wire, in chunks.
    pub(super) fn dispatch(&mut self) {
        let Some(connection) = self.link.connection() else {
            return;
        };
        while !self.queue.is_empty() && self.flight.chunks() < CHUNKS_IN_FLIGHT {
            let size = self.queue.len().min(CHUNK_COMMANDS);
            let jobs: VecDeque<Job> = self.queue.drain(..size).collect();
            let replies = connection.run(&mut jobs.iter().map(|job| (&job.command, job.asking)));
            self.flight.launch(jobs, replies);
        }
    }

    /// The server answers.
    pub(super) fn proved(&mut self) {
        self.timeouts_in_a_row = 0;
        self.link.proved();
    }

    /// Gives the connection up and queues again, in their order and before everything else, those
    /// of its requests that are safe to repeat.
    pub(super) fn give_up(&mut self, error: Error, landed: Option<Chunk>) -> Fallout {
        let mut fallout = Fallout {
            landed: Vec::new(),
            refused: Vec::new(),
        };
        let mut lost: Vec<_> = landed.into_iter().collect();
        while let Some(Some(other)) = self.flight.next().now_or_never() {
            match other.replies {
                Ok(_) => fallout.landed.push(other),
                Err(_) => lost.push((other.number, other.jobs)),
            }
        }
        self.link.lost(error);
        self.timeouts_in_a_row = 0;
        // A SET whose key is written again by a later request must not come after it.
        let mut written: HashSet<Vec<u8>> = self
            .queue
            .iter()
            .filter_map(|job| job.command.written_key().map(<[u8]>::to_vec))
            .collect();
        for mut job in self.flight.abandon(lost).into_iter().rev() {
            let is_set = matches!(job.command, Command::Set { .. });
            let superseded = job
                .command
                .written_key()
                .is_some_and(|key| !written.insert(key.to_vec()));
            if matches!(job.reply_to, ReplyTo::Nobody) {
                continue;
            }
            if job.retried || (is_set && superseded) {
                fallout.refused.push(job);
            } else {
                job.retried = true;
                self.queue.push_front(job);
            }
        }
        fallout
    }

    /// Takes out who waits here for something that did not come before `now`, and says whether the
    /// connection has kept silent for so many of them that it must be given up.
    pub(super) fn expire(&mut self, now: Instant, expired: &mut Vec<ReplyTo>) -> bool {
        for job in self.flight.jobs_mut() {
            if job.deadline <= now && !matches!(job.reply_to, ReplyTo::Nobody) {
                self.timeouts_in_a_row += 1;
                expired.push(std::mem::replace(&mut job.reply_to, ReplyTo::Nobody));
            }
        }
        while self.queue.front().is_some_and(|job| job.deadline <= now) {
            expired.extend(self.queue.pop_front().map(|job| job.reply_to));
        }
        self.timeouts_in_a_row >= TIMEOUTS_IN_A_ROW
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let queued = self.queue.front().map(|job| job.deadline);
        [self.flight.earliest_deadline(), queued]
            .into_iter()
            .flatten()
            .min()
    }
}
