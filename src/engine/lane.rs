//! One server: its connection, what waits for it, and what is on the wire to it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{
    job::{Job, ReplyTo},
    link::{Link, LinkEvent},
};
use crate::{
    command::Kind,
    config::{Config, IN_FLIGHT, TIMEOUTS_IN_A_ROW},
    connection::{Target, reader::Frame},
    error::Error,
};

/// What has run into this deadline, and who waits for it.
pub(super) type Expired = (Kind, Instant, ReplyTo);

pub(super) struct Lane {
    pub(super) target: Target,
    pub(super) link: Link,
    pub(super) queue: VecDeque<Job>,
    /// What has been sent, in that order, which is that of the replies. None is an ASKING.
    flight: VecDeque<Option<Job>>,
    timeouts_in_a_row: u32,
    /// It has had a connection.
    pub(super) was_up: bool,
}

impl Lane {
    pub(super) fn new(config: &Arc<Config>, target: Target) -> Self {
        Self {
            link: Link::new(Arc::clone(config), target.clone()),
            target,
            queue: VecDeque::new(),
            flight: VecDeque::new(),
            timeouts_in_a_row: 0,
            was_up: false,
        }
    }

    /// Whether nobody waits for this lane, be there replies to come or not.
    pub(super) fn is_idle(&self) -> bool {
        let unanswered = |job: &Job| !matches!(job.reply_to, ReplyTo::Nobody);
        self.queue.is_empty() && !self.flying().any(unanswered)
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_calm(&self) -> bool {
        self.queue.is_empty() && self.link.is_calm()
    }

    /// What is on the wire.
    pub(super) fn flying(&self) -> impl Iterator<Item = &Job> {
        self.flight.iter().flatten()
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

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<LinkEvent> {
        self.link.poll_event(cx, reading)
    }

    /// Puts what waits on the wire.
    pub(super) fn dispatch(&mut self) {
        let Some(connection) = self.link.connection() else {
            return;
        };
        while self.flight.len() < IN_FLIGHT && !self.queue.is_empty() && connection.has_room() {
            let Some(mut job) = self.queue.pop_front() else {
                return;
            };
            connection.push(&mut job.command, job.asking);
            if job.asking {
                self.flight.push_back(None);
            }
            self.flight.push_back(Some(job));
        }
    }

    /// Reads what has come by now of what somebody outside watches, and says whether that was something.
    pub(super) fn read_now(&mut self) -> bool {
        self.link
            .connection()
            .is_some_and(|opened| opened.socket().is_some() && opened.read_now())
    }

    /// See [`Connection::holds_back`](crate::connection::Connection::holds_back).
    pub(super) fn holds_back(&mut self) -> bool {
        self.link
            .connection()
            .is_some_and(|opened| opened.holds_back())
    }

    /// Whether its connection has ended, which [`Self::poll_event`] has yet to tell.
    pub(super) fn has_ended(&mut self) -> bool {
        self.link
            .connection()
            .is_some_and(|connection| connection.has_ended())
    }

    /// The next reply that has come, and whose it is.
    pub(super) fn next_reply(&mut self) -> Result<Option<(Job, Frame)>, Error> {
        let Some(connection) = self.link.connection() else {
            return Ok(None);
        };
        while let Some(frame) = connection.next_reply()? {
            let Some(expected) = self.flight.pop_front() else {
                return Err(connection.unasked());
            };
            if let Some(job) = expected {
                self.timeouts_in_a_row = 0;
                self.link.proved();
                return Ok(Some((job, frame)));
            }
        }
        Ok(None)
    }

    /// Gives the connection up and queues again, in their order and before everything else, those
    /// of its requests that are safe to repeat. Returns the others. `hopeless` opens the circuit.
    pub(super) fn give_up(&mut self, error: Error, hopeless: bool) -> Vec<Job> {
        self.link.lost(error, hopeless);
        self.timeouts_in_a_row = 0;
        let flown = std::mem::take(&mut self.flight).into_iter().flatten();
        let waiting = std::mem::take(&mut self.queue).into_iter();
        let mut jobs: Vec<(Job, bool)> = flown
            .map(|job| (job, true))
            .chain(waiting.map(|job| (job, false)))
            .collect();
        // One that is asked again may be on the wire, or wait, behind later ones.
        jobs.sort_by_key(|(job, _)| job.seq);
        // A SET whose key is written again by a later request must not come after it.
        let mut written: HashSet<Vec<u8>> = HashSet::new();
        let mut refused = Vec::new();
        for (mut job, flown) in jobs.into_iter().rev() {
            let superseded = job
                .command
                .written_key()
                .is_some_and(|key| !written.insert(key.to_vec()));
            if !flown {
                self.queue.push_front(job);
            } else if matches!(job.reply_to, ReplyTo::Nobody) {
                continue;
            } else if job.retried || (job.command.is_write() && superseded) {
                refused.push(job);
            } else {
                job.retried = true;
                job.command.repeat();
                self.queue.push_front(job);
            }
        }
        refused
    }

    /// Takes out who waits here for something that did not come before `now`, and says whether the
    /// connection has kept silent for so many of them that it must be given up.
    pub(super) fn expire(&mut self, now: Instant, expired: &mut Vec<Expired>) -> bool {
        for job in self.flight.iter_mut().flatten() {
            if job.deadline <= now && !matches!(job.reply_to, ReplyTo::Nobody) {
                self.timeouts_in_a_row += 1;
                let reply_to = std::mem::replace(&mut job.reply_to, ReplyTo::Nobody);
                expired.push((job.command.kind(), job.deadline, reply_to));
            }
        }
        while self.queue.front().is_some_and(|job| job.deadline <= now) {
            if let Some(job) = self.queue.pop_front() {
                expired.push((job.command.kind(), job.deadline, job.reply_to));
            }
        }
        self.timeouts_in_a_row >= TIMEOUTS_IN_A_ROW
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let waits = |job: &&Job| !matches!(job.reply_to, ReplyTo::Nobody);
        let flying = self.flying().find(waits).map(|job| job.deadline);
        let queued = self.queue.front().map(|job| job.deadline);
        [flying, queued].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::{Command, Expiry, Swap},
        config::{Endpoint, Servers},
        error::ErrorCode,
    };

    fn swap(seq: u64) -> Job {
        let swap = Swap::new(b"k".into(), b"base".into(), b"mine".into(), Expiry::Never);
        job(seq, Command::Swap(swap))
    }

    fn set(seq: u64) -> Job {
        let set = Command::Set {
            key: b"k".into(),
            value: b"later".into(),
            expiry: Expiry::Never,
            only_existing: false,
        };
        job(seq, set)
    }

    fn job(seq: u64, command: Command) -> Job {
        let id = u32::try_from(seq).expect("small");
        let mut job = Job::new(command, ReplyTo::Caller(id), Instant::now());
        job.seq = seq;
        job
    }

    fn seqs<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> Vec<u64> {
        jobs.into_iter().map(|job| job.seq).collect()
    }

    #[test]
    fn of_two_writes_the_later_one_is_repeated_wherever_the_earlier_one_waits_again() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _runtime = runtime.enter();
        let endpoint = Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port: 1,
        };
        let config = Arc::new(Config::of(Servers::One(endpoint.clone())));
        let lost = || Error::new(ErrorCode::Connect, "lost");
        // Asked again on the wire, behind what was made after it.
        let mut lane = Lane::new(&config, Target::Server(endpoint.clone()));
        lane.flight.extend([Some(set(2)), Some(swap(1))]);
        assert_eq!(seqs(&lane.give_up(lost(), false)), [1]);
        assert_eq!(seqs(&lane.queue), [2]);
        // To be asked again, and not on the wire yet.
        let mut lane = Lane::new(&config, Target::Server(endpoint));
        lane.flight.push_back(Some(set(2)));
        lane.enqueue(swap(1));
        assert_eq!(seqs(&lane.give_up(lost(), false)), [0; 0]);
        assert_eq!(seqs(&lane.queue), [1, 2]);
    }
}
