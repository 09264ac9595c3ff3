//! From a reply to an answer: what it says of where the key is, of how long its session lives, and to
//! whom it goes.

use std::sync::atomic::Ordering;

use redis::Value;
use tokio::time::Instant;

use super::{
    super::{
        Completion, Work,
        job::{Job, ReplyTo},
    },
    Worker,
};
use crate::{
    command::{Command, Kind, Reply},
    config::Servers,
    connection::{
        cluster::{Redirection, redirection},
        reader::{Frame, REPLY_MAX_BYTES},
    },
    error::{Error, ErrorCode},
};

impl Worker {
    /// Takes the replies that have come.
    pub(super) fn read(&mut self, at: usize) {
        let mut demoted = None;
        let now = Instant::now();
        loop {
            match self.map.lanes[at].next_reply() {
                Ok(Some((job, Frame::Value(value)))) => {
                    self.land(at, job, value, now, &mut demoted);
                }
                Ok(Some((job, Frame::TooLarge))) => {
                    let error = too_large_error(&job.command);
                    self.replied(job, Err(error), now);
                }
                Ok(None) => break,
                Err(error) => return self.give_up(at, &error, false),
            }
        }
        if let Some(error) = demoted {
            self.give_up(at, &error, false);
        }
    }

    /// Answers `job` with `value`, or sends it where that says.
    fn land(
        &mut self,
        at: usize,
        mut job: Job,
        value: Value,
        now: Instant,
        demoted: &mut Option<Error>,
    ) {
        let turned = redirection(&value, self.map.lanes[at].target.endpoint());
        let outcome = job.command.reply(value);
        self.remember(&job, &outcome);
        if let (Command::Swap(swap), Err(error)) = (&mut job.command, &outcome)
            && let Some(by) = swap.again(error)
            && !matches!(job.reply_to, ReplyTo::Nobody)
        {
            swap.by = by;
            return self.map.place(job);
        }
        let cluster = self.map.is_cluster();
        let turned = match turned {
            Some(Redirection::Demoted) => match self.config.servers {
                Servers::One(_) => None,
                Servers::Sentinel(_) => Some(Redirection::Demoted),
                Servers::Cluster(_) => Some(Redirection::Later),
            },
            Some(Redirection::Moved(_) | Redirection::Ask(_)) if !cluster => None,
            Some(Redirection::Stranger) if self.config.credentials_source.is_none() => None,
            turned => turned,
        };
        let (Some(turned), Err(refusal)) = (turned, &outcome) else {
            return self.replied(job, outcome, now);
        };
        if matches!(job.reply_to, ReplyTo::Nobody) {
            return;
        }
        job.refusal = Some(refusal.clone());
        job.asking = false;
        match turned {
            Redirection::Moved(endpoint) => self.map.moved(job, endpoint),
            Redirection::Ask(endpoint) => self.map.ask(job, endpoint),
            Redirection::Later => self.map.later(job),
            Redirection::Demoted | Redirection::Stranger => {
                *demoted = Some(refusal.clone());
                self.map.later(job);
            }
        }
    }

    /// Answers `job`, which was replied to or has run into its deadline by `now`.
    pub(super) fn replied(&mut self, job: Job, outcome: Result<Reply, Error>, now: Instant) {
        if !matches!(job.reply_to, ReplyTo::Nobody) {
            self.stats
                .took(job.deadline, now + self.config.command_timeout);
        }
        self.finish(job, outcome);
    }

    /// Answers `job`.
    pub(super) fn finish(&mut self, job: Job, outcome: Result<Reply, Error>) {
        if !matches!(job.reply_to, ReplyTo::Nobody) {
            self.stats.count(job.command.kind(), &outcome);
        }
        self.reply(job.reply_to, outcome);
    }

    /// Answers what waited for a cluster to be known.
    pub(super) fn finish_waiting(&mut self, id: u32, work: &Work, error: Error) {
        let outcome = Err(error);
        if let Some(kind) = kind_of(work) {
            self.stats.count(kind, &outcome);
        }
        self.answer(id, outcome);
    }

    pub(super) fn reply(&mut self, reply_to: ReplyTo, outcome: Result<Reply, Error>) {
        match reply_to {
            ReplyTo::Caller(id) => self.answer(id, outcome),
            ReplyTo::Step(reply) => {
                let _ = reply.send(outcome);
            }
            ReplyTo::Nobody => {}
        }
    }

    pub(super) fn answer(&mut self, id: u32, outcome: Result<Reply, Error>) {
        self.shared.pending.fetch_sub(1, Ordering::Relaxed);
        self.completions.push(Completion { id, outcome });
    }

    /// When the session of `job` expires at the earliest, if it makes it live for a while.
    pub(super) fn expires(&self, job: &Job) -> Option<std::time::Instant> {
        let expire_ms = match &job.command {
            Command::Expire { expire_ms, .. } => u64::try_from(*expire_ms).ok()?,
            Command::Set { expiry, .. } => expiry.milliseconds()?,
            Command::Swap(swap) => swap.expiry.milliseconds()?,
            _ => return None,
        };
        let asked = job.deadline.checked_sub(self.config.command_timeout)?;
        asked
            .into_std()
            .checked_add(std::time::Duration::from_millis(expire_ms))
    }

    /// Remembers what a reply says about how long a session lives.
    fn remember(&mut self, job: &Job, outcome: &Result<Reply, Error>) {
        if self.config.touch_after.is_zero() {
            return;
        }
        let Some(key) = job.command.key() else {
            return;
        };
        match (outcome, self.expires(job)) {
            (Ok(Reply::Ok | Reply::Count(1)), Some(expires)) => {
                self.touches.refreshed(key, expires);
            }
            (Ok(Reply::Nil | Reply::Count(0)), _) => self.touches.forget(key),
            // Destroyed, or written to live as long as it did: a touch before it may be remembered.
            (Ok(_), None) if job.command.written_key().is_some() => self.touches.forget(key),
            _ => {}
        }
    }
}

/// The command that work begins with; none if it was refused for what it is.
pub(super) fn kind_of(work: &Work) -> Option<Kind> {
    match work {
        Work::Command(command) => Some(command.kind()),
        Work::Keyspace(_) => Some(Kind::Scan),
        Work::Merge(..) => Some(Kind::EvalSha),
        Work::Refused(_) => None,
    }
}

fn too_large_error(command: &Command) -> Error {
    Error::new(
        ErrorCode::Decode,
        format!(
            "Redis answered {} with more than {REPLY_MAX_BYTES} bytes; check what is stored under these keys.",
            command.name()
        ),
    )
}
