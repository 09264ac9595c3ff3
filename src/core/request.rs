//! Requests, and the commands that they consist of.

use std::{
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};

use super::nodes::NodeId;
use crate::{
    command::{Command, Kind, Reply},
    conflict::Conflict,
    error::Error,
    keyspace::Keyspace,
    users::{Item, Save, SignIn},
};

/// The limit of finished jobs whose memory is kept: about 100 kB.
const SPARE_MAX: usize = 512;

/// The work of a request.
pub enum Work {
    /// One command.
    Command(Command),
    /// An operation on all keys: many commands, each with its own deadline.
    Keyspace(Keyspace),
    /// A write to be merged with concurrent writes, within this time.
    Merge(Box<Conflict>, Duration),
    /// A save of a session that is in the index of its user.
    Save(Save),
    /// A save of a session that may not exist.
    SignIn(Box<SignIn>),
    /// Ends sessions of a user.
    Revoke {
        /// The index of the user.
        index: Vec<u8>,
        /// The key prefix of the sessions.
        prefix: Vec<u8>,
        /// At least one.
        items: Vec<Item>,
    },
    /// The request cannot be sent, for this reason.
    Refused(Error),
}

/// A piece of work and its number, which the answer repeats.
pub struct Request {
    /// Chosen by the caller.
    pub id: u32,
    /// The work.
    pub work: Work,
}

/// The answer to the request `id`.
pub struct Completion {
    /// The request's number.
    pub id: u32,
    /// The reply or the error.
    pub outcome: Result<Reply, Error>,
}

/// The state of the circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Requests are sent; without a connection they wait, for less than `command_timeout`.
    Closed,
    /// Requests are refused.
    Open,
    /// Requests are refused, and an attempt to connect is in progress.
    HalfOpen,
}

/// An event of the store, not of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The circuit has changed.
    Circuit(Circuit),
    /// Every server that holds keys is connected.
    Ready,
    /// One of these servers is no longer connected.
    Reconnecting,
    /// A connection was lost or could not be opened, for this reason.
    Failed(Error),
    /// The engine panicked. Pending requests get no answer from it.
    Crashed,
}

/// One command and the receiver of its reply. Behind a pointer, because it is moved often.
pub(super) struct Job(Box<Content>);

impl Deref for Job {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.0
    }
}

impl DerefMut for Job {
    fn deref_mut(&mut self) -> &mut Content {
        &mut self.0
    }
}

/// The content of a [`Job`].
pub(super) struct Content {
    pub(super) command: Command,
    pub(super) reply_to: ReplyTo,
    pub(super) deadline: Instant,
    /// A sequence number in the order of the requests.
    pub(super) seq: u64,
    /// The slot of its key in a cluster; on one server a hash of its key. The same for all requests of a
    /// session.
    pub(super) slot: u16,
    /// The node that it must go to, whatever its key.
    pub(super) pinned: Option<NodeId>,
    /// Preceded by ASKING, to the node that imports its slot.
    pub(super) asking: bool,
    /// Preceded by PTTL of the same key.
    pub(super) asks_ttl: bool,
    /// The reply to it, in milliseconds; for a save, whether its entry exists.
    pub(super) first_reply: Option<i64>,
    /// The retry after a lost connection is used up.
    pub(super) retried: bool,
    /// The number of replies that redirected it or made it wait.
    pub(super) refusals: u8,
    /// The last such reply.
    pub(super) refusal: Option<Box<Error>>,
}

/// The receiver of a reply.
#[derive(Clone, Copy)]
pub(super) enum ReplyTo {
    Caller(u32),
    /// A part of a request of several commands.
    Task {
        task: u32,
        part: u32,
    },
    /// The discovery of the cluster's map.
    Discovery,
    /// The request has timed out.
    Expired,
}

impl Content {
    fn new(command: Command, reply_to: ReplyTo, deadline: Instant) -> Self {
        Self {
            command,
            reply_to,
            deadline,
            seq: 0,
            slot: 0,
            pinned: None,
            asking: false,
            asks_ttl: false,
            first_reply: None,
            retried: false,
            refusals: 0,
            refusal: None,
        }
    }
}

/// The memory of finished jobs, for new ones: the system's allocator is slow where hundreds are freed and
/// allocated in turn.
#[derive(Default)]
pub(super) struct Spare(Vec<Job>);

impl Spare {
    pub(super) fn job(&mut self, command: Command, reply_to: ReplyTo, deadline: Instant) -> Job {
        let content = Content::new(command, reply_to, deadline);
        let Some(mut job) = self.0.pop() else {
            return Job(Box::new(content));
        };
        *job = content;
        job
    }

    /// Keeps the memory of `job`, but no texts.
    pub(super) fn keep(&mut self, mut job: Job) {
        if self.0.len() < SPARE_MAX {
            job.command = Command::Ping;
            job.refusal = None;
            self.0.push(job);
        }
    }
}

impl Job {
    pub(super) fn is_expired(&self) -> bool {
        matches!(self.reply_to, ReplyTo::Expired)
    }

    /// Encodes the command that precedes this one, if any; its reply comes first.
    pub(super) fn encode_first(&self, out: &mut Vec<u8>) -> bool {
        match self.command.key() {
            // ASKING applies to one command only.
            Some(key) if self.asks_ttl && !self.asking => {
                Command::encode_pttl(key, out);
                true
            }
            _ => self.command.encode_first(out),
        }
    }

    /// Whether executing it after `later`, a later request, would undo the write of `later`.
    pub(super) fn would_undo(&self, later: &Self) -> bool {
        let key = self.command.written_key();
        key.is_some()
            && key == later.command.written_key()
            && !self.command.would_find_other_than(&later.command)
    }

    /// Removes the data for the answer. The command stays on the wire, and its reply is ignored.
    pub(super) fn expire(&mut self) -> Expired {
        Expired {
            kind: self.command.kind(),
            deadline: self.deadline,
            reply_to: std::mem::replace(&mut self.reply_to, ReplyTo::Expired),
            refusal: self.refusal.take(),
        }
    }
}

/// A request that has timed out.
pub(super) struct Expired {
    pub(super) kind: Kind,
    pub(super) deadline: Instant,
    pub(super) reply_to: ReplyTo,
    /// The last reply that redirected it or made it wait.
    pub(super) refusal: Option<Box<Error>>,
}

/// Removes from `jobs` those that `matches` accepts, and keeps the order of the others.
pub(super) fn take(
    jobs: &mut std::collections::VecDeque<Job>,
    matches: impl Fn(&Job) -> bool,
) -> Vec<Job> {
    if !jobs.iter().any(&matches) {
        return Vec::new();
    }
    let (out, stay): (Vec<_>, Vec<_>) = std::mem::take(jobs).into_iter().partition(matches);
    jobs.extend(stay);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_job_leaves_its_memory_and_nothing_else() {
        let mut spare = Spare::default();
        let key = b"s:a".to_vec();
        let deadline = Instant::now();
        let mut job = spare.job(Command::Get { key }, ReplyTo::Caller(1), deadline);
        job.refusals = 3;
        job.retried = true;
        job.asks_ttl = true;
        job.first_reply = Some(7);
        job.refusal = Some(Box::new(Error::closed_store()));
        let memory = std::ptr::from_ref(&*job);
        spare.keep(job);
        let kept = &spare.0[0];
        assert!(matches!(kept.command, Command::Ping) && kept.refusal.is_none());
        let key = b"s:b".to_vec();
        let job = spare.job(Command::Del { key }, ReplyTo::Discovery, deadline);
        assert_eq!(std::ptr::from_ref(&*job), memory);
        assert!(matches!(&job.command, Command::Del { key } if key == b"s:b"));
        assert!(matches!(job.reply_to, ReplyTo::Discovery));
        assert_eq!((job.refusals, job.first_reply), (0, None));
        assert!(!job.retried && !job.asks_ttl);
    }
}
