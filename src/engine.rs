//! Queue, connection, answers. One task per store owns them all, so that order is a property
//! of the code and not of locks. Knows no JavaScript: answers go to a [`Sink`].

mod job;
mod lane;
mod larger;
mod link;
mod map;
mod worker;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    command::{Command, Reply},
    config::Config,
    error::Error,
    runtime,
    scan::{Keyspace, Step},
};
use job::Waiter;
use worker::Worker;

/// What a caller asks for.
pub enum Work {
    /// One command.
    Command(Command),
    /// A question about all keys: many commands, each with a deadline of its own.
    Keyspace(Keyspace),
    /// Nothing can be asked, for this reason.
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
    /// What came of it.
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

/// What concerns the store and no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The circuit has changed.
    Circuit(Circuit),
    /// Every server that holds keys is connected.
    Ready,
    /// One of them is not any more.
    Reconnecting,
    /// A connection was lost or could not be opened, for this reason.
    Failed(Error),
    /// The engine has failed where it must not. Nothing that it has not answered will be.
    Crashed,
}

/// Where answers go: each request's exactly once.
pub trait Sink: Send + Sync + 'static {
    /// Takes answers, and says whether more may come: if not, none do until [`Engine::resume`],
    /// unless a deadline has. Must not block.
    fn deliver(&self, completions: Vec<Completion>) -> bool;
    /// Takes a notice. Must not block.
    fn notice(&self, notice: Notice);
}

/// The requests of one flush. They are decoded on the engine's side, off the caller's thread.
pub type Batch = Box<dyn FnOnce() -> Vec<Request> + Send>;

/// A running store. Dropping it ends it at once, without answers.
pub struct Engine {
    inbox: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
}

/// What both sides of the inbox look at.
struct Shared {
    /// Requests that are not answered yet. Only a limit hangs on it, so Relaxed is enough.
    pending: AtomicUsize,
    /// Set once, by the side that also sends `Close` after it.
    closed: AtomicBool,
    max_pending: usize,
    sink: Arc<dyn Sink>,
}

enum Message {
    Batch {
        batch: Batch,
        deadline: Instant,
        admitted: usize,
    },
    Step {
        step: Step,
        reply: Waiter,
    },
    Answer(Completion),
    /// Answers have been fetched: there is room for more.
    Resume,
    Close(u32),
    Abort,
}

impl Engine {
    /// Starts a store; it connects at once.
    pub fn start(config: Config, sink: Arc<dyn Sink>) -> Result<Self, Error> {
        let (inbox, messages) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            pending: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            max_pending: config.max_pending,
            sink,
        });
        let own_inbox = inbox.downgrade();
        let worker_shared = Arc::clone(&shared);
        runtime::spawn(async move {
            let sink = Arc::clone(&worker_shared.sink);
            let work = Worker::new(config, messages, own_inbox, worker_shared).run();
            // Nothing of the worker is used after it.
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                sink.notice(Notice::Crashed);
            }
        })?;
        Ok(Self { inbox, shared })
    }

    /// Takes the `count` requests of `batch`, as many as `max_pending` admits; the others are
    /// answered with `QueueFull`. After [`Engine::close`] all are answered with `Closed`.
    pub fn submit(&self, count: usize, batch: Batch, command_timeout: Duration) {
        let shared = &self.shared;
        let waiting = shared.pending.fetch_add(count, Ordering::Relaxed);
        let admitted = if shared.closed.load(Ordering::Relaxed) {
            0
        } else {
            shared.max_pending.saturating_sub(waiting).min(count)
        };
        let message = Message::Batch {
            batch,
            deadline: Instant::now() + command_timeout,
            admitted,
        };
        // The worker is there until `close` was answered; then the caller sends nothing more.
        let _ = self.inbox.send(message);
    }

    /// Goes on reading answers after the sink was full.
    pub fn resume(&self) {
        let _ = self.inbox.send(Message::Resume);
    }

    /// Answers what is pending, closes the connection and then answers `id`.
    pub fn close(&self, id: u32) {
        self.shared.closed.store(true, Ordering::Relaxed);
        let _ = self.inbox.send(Message::Close(id));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Abort);
    }
}
