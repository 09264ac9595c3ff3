//! One command on its way.

use tokio::{sync::oneshot, time::Instant};

use crate::{
    command::{Command, Reply},
    error::Error,
};

/// Who waits for the reply to a step of something larger.
pub(super) type Waiter = oneshot::Sender<Result<Reply, Error>>;

/// One command on its way, and who waits for it.
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) reply_to: ReplyTo,
    pub(super) deadline: Instant,
    /// Ascending in the order of the requests.
    pub(super) seq: u64,
    /// The slot of its key in a cluster; 0 if there is none.
    pub(super) slot: u16,
    /// The lane it concerns, whatever its key.
    pub(super) pinned: Option<usize>,
    /// It goes where a key is while its slot moves.
    pub(super) asking: bool,
    pub(super) retried: bool,
    /// What the server last said instead of serving it.
    pub(super) refusal: Option<Error>,
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
            retried: false,
            refusal: None,
        }
    }
}

pub(super) enum ReplyTo {
    Caller(u32),
    Step(Waiter),
    /// The deadline came before the reply.
    Nobody,
}
