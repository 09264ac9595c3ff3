//! Requests, and the single commands that they become.

use std::time::{Duration, Instant};

use super::nodes::NodeId;
use crate::{
    command::{Command, Kind, Reply},
    conflict::Conflict,
    error::Error,
    keyspace::Keyspace,
};

/// What a caller asks for.
pub enum Work {
    /// One command.
    Command(Command),
    /// A question about all keys: many commands, each with a deadline of its own.
    Keyspace(Keyspace),
    /// A write to be merged with concurrent writes, within this time.
    Merge(Conflict, Duration),
    /// The request cannot be sent, for this reason.
    Refused(Error),
}

/// One piece of work and the number its answer will carry.
pub struct Request {
    /// Chosen by the caller.
    pub id: u32,
    /// What to do.
    pub work: Work,
}

/// The answer to the request `id`.
pub struct Completion {
    /// The request's number.
    pub id: u32,
    /// The reply, or why there is none.
    pub outcome: Result<Reply, Error>,
}

/// Whether requests are sent, or refused at once because nothing would answer them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// They are sent or, while a connection is missing for less than `command_timeout`, wait for it.
    Closed,
    /// They are refused.
    Open,
    /// They are refused, and a new connection is being tried.
    HalfOpen,
}

/// An event of the store, not of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The circuit has changed.
    Circuit(Circuit),
    /// Every server that holds keys is connected.
    Ready,
    /// One of them is not connected any more.
    Reconnecting,
    /// A connection was lost or could not be opened, for this reason.
    Failed(Error),
    /// The engine panicked. Pending requests get no answer from it.
    Crashed,
}

/// One command, and where its reply goes.
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) reply_to: ReplyTo,
    pub(super) deadline: Instant,
    /// Ascending in the order of the requests.
    pub(super) seq: u64,
    /// The slot of its key in a cluster; on one server a hash of its key. Requests of one session have the
    /// same.
    pub(super) slot: u16,
    /// The node it concerns, whatever its key.
    pub(super) pinned: Option<NodeId>,
    /// Sent behind ASKING, to the node that imports its slot.
    pub(super) asking: bool,
    /// Sent behind PTTL of the same key.
    pub(super) asks_ttl: bool,
    /// The reply to that, in milliseconds.
    pub(super) ttl_ms: Option<i64>,
    /// The one retry after a lost connection is spent.
    pub(super) retried: bool,
    /// Replies that redirected it or made it wait.
    pub(super) refusals: u8,
    /// The last of them.
    pub(super) refusal: Option<Box<Error>>,
}

/// Where a reply goes.
#[derive(Clone, Copy)]
pub(super) enum ReplyTo {
    Caller(u32),
    /// A part of a request that takes many commands.
    Task {
        task: u32,
        part: u32,
    },
    /// The discovery of the cluster's map.
    Discovery,
    /// The deadline came before the reply.
    Expired,
}

impl Job {
    pub(super) fn new(command: Command, reply_to: ReplyTo, deadline: Instant) -> Self {
        Self {
            command,
            reply_to,
            deadline,
            seq: 0,
            slot: 0,
            pinned: None,
            asking: false,
            asks_ttl: false,
            ttl_ms: None,
            retried: false,
            refusals: 0,
            refusal: None,
        }
    }

    pub(super) fn is_expired(&self) -> bool {
        matches!(self.reply_to, ReplyTo::Expired)
    }

    /// The command that goes before this one, if one does; its reply comes first.
    pub(super) fn encode_first(&self, out: &mut Vec<u8>) -> bool {
        match self.command.key() {
            // ASKING is for one command only.
            Some(key) if self.asks_ttl && !self.asking => {
                Command::encode_pttl(key, out);
                true
            }
            _ => self.command.encode_first(out),
        }
    }

    /// Whether running it after `later`, which was made after it, would undo that one's write.
    pub(super) fn would_undo(&self, later: &Self) -> bool {
        let key = self.command.written_key();
        key.is_some() && key == later.command.written_key()
    }

    /// Takes out what an answer needs; what stays on the wire is not answered any more.
    pub(super) fn expire(&mut self) -> Expired {
        Expired {
            kind: self.command.kind(),
            deadline: self.deadline,
            reply_to: std::mem::replace(&mut self.reply_to, ReplyTo::Expired),
            refusal: self.refusal.take(),
        }
    }
}

/// A request that ran into its deadline.
pub(super) struct Expired {
    pub(super) kind: Kind,
    pub(super) deadline: Instant,
    pub(super) reply_to: ReplyTo,
    /// The last reply that redirected it or made it wait.
    pub(super) refusal: Option<Box<Error>>,
}

/// Removes the jobs of `jobs` that `matches`, and keeps the others in their order.
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
