//! Queue, connection, answers. One task per store owns them all, so that order is a property
//! of the code and not of locks. Knows no JavaScript: answers go to a [`Sink`].

mod discovery;
mod job;
mod lane;
mod larger;
mod link;
mod map;
mod stats;
mod touches;
mod worker;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use socket2::Socket;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    command::{Command, Reply},
    config::{Config, SEND_THROUGH_MAX, SEND_THROUGH_MAX_BYTES},
    error::Error,
    guard::Conflict,
    runtime,
    scan::{Keyspace, Step},
};
use job::Waiter;
pub use stats::Stats;
use worker::Worker;

/// What a caller asks for.
pub enum Work {
    /// One command.
    Command(Command),
    /// A question about all keys: many commands, each with a deadline of its own.
    Keyspace(Keyspace),
    /// A write to be merged with what others have written, within this time.
    Merge(Conflict, Duration),
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
    /// Is told of a new connection whose replies it is to wait for, if [`Config::watched`]: whenever
    /// the socket can be read, it calls [`Engine::read`]. Must not block.
    fn watch(&self, watch: Watch) {
        drop(watch);
    }
}

/// A connection whose replies somebody outside waits for: on the thread that needs them, which
/// saves waking another one in between.
#[derive(Clone)]
pub struct Watch {
    lane: usize,
    /// Open for as long as it is watched.
    pub socket: Arc<Socket>,
}

/// What came of [`Engine::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What had come was read, or the worker is at work and it is to be tried again.
    On,
    /// The connection has ended.
    Ended,
}

/// The requests of one flush. Many are decoded on the engine's side, off the caller's thread.
pub type Batch = Box<dyn FnOnce() -> Vec<Request> + Send>;

/// The worker, for its task and for callers who find it idle. None before the store has begun and
/// when it has ended.
type Shift = Mutex<Option<Worker>>;

/// A running store. Dropping it ends it at once, without answers.
pub struct Engine {
    inbox: mpsc::UnboundedSender<Message>,
    worker: Arc<Shift>,
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
    /// What the worker had counted when it ended.
    counted: OnceLock<Stats>,
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
    /// Something was done that leaves something to do.
    Wake,
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
            counted: OnceLock::new(),
        });
        let own_inbox = inbox.downgrade();
        let worker_shared = Arc::clone(&shared);
        let worker = Arc::new(Shift::default());
        let task = Arc::clone(&worker);
        let own_shared = Arc::clone(&shared);
        runtime::spawn(async move {
            let work = async {
                let worker = Worker::new(config, messages, own_inbox, worker_shared);
                *task.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
                poll_fn(|cx| poll_worker(&task, cx)).await;
            };
            // Nothing of the worker is used after it.
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                own_shared.sink.notice(Notice::Crashed);
            }
            let ended = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(worker) = ended {
                let _ = own_shared.counted.set(worker.stats());
            }
        })?;
        Ok(Self {
            inbox,
            worker,
            shared,
        })
    }

    /// Takes the `count` requests of `batch`, as many as `max_pending` admits; the others are
    /// answered with `QueueFull`. After [`Engine::close`] all are answered with `Closed`. `size` is
    /// about how many bytes they take.
    pub fn submit(&self, count: usize, size: usize, batch: Batch, command_timeout: Duration) {
        let shared = &self.shared;
        let waiting = shared.pending.fetch_add(count, Ordering::Relaxed);
        let admitted = if shared.closed.load(Ordering::Relaxed) {
            0
        } else {
            shared.max_pending.saturating_sub(waiting).min(count)
        };
        let deadline = Instant::now() + command_timeout;
        let small = count <= SEND_THROUGH_MAX && size <= SEND_THROUGH_MAX_BYTES;
        let batch = if admitted == count && small {
            let sent = catch_unwind(AssertUnwindSafe(|| self.send_through(batch, deadline)));
            match sent {
                Ok(Some(batch)) => batch,
                Ok(None) => return,
                Err(_) => return self.crashed(),
            }
        } else {
            batch
        };
        let message = Message::Batch {
            batch,
            deadline,
            admitted,
        };
        // The worker is there until `close` was answered; then the caller sends nothing more.
        let _ = self.inbox.send(message);
    }

    /// Tells that the worker has failed. Its task is woken to find the lock poisoned, and ends.
    fn crashed(&self) {
        self.shared.sink.notice(Notice::Crashed);
        let _ = self.inbox.send(Message::Wake);
    }

    /// Sends the requests from this thread, which saves waking the worker's, unless that is at work
    /// or they would overtake others. Gives the batch back if not.
    fn send_through(&self, batch: Batch, deadline: Instant) -> Option<Batch> {
        let Ok(mut worker) = self.worker.try_lock() else {
            return Some(batch);
        };
        let Some(worker) = worker.as_mut() else {
            return Some(batch);
        };
        if !worker.is_calm() {
            return Some(batch);
        }
        match worker.send_through(batch(), deadline) {
            Ok(false) => {}
            Ok(true) => {
                let _ = self.inbox.send(Message::Wake);
            }
            Err(requests) => return Some(Box::new(move || requests)),
        }
        None
    }

    /// Reads what has come and delivers the answers, on the thread of whoever watches.
    pub fn read(&self, watch: &Watch) -> Reading {
        let _runtime = runtime::enter();
        let read = catch_unwind(AssertUnwindSafe(|| self.read_through(watch)));
        let Ok((reading, more)) = read else {
            self.crashed();
            return Reading::Ended;
        };
        if more {
            let _ = self.inbox.send(Message::Wake);
        }
        reading
    }

    fn read_through(&self, watch: &Watch) -> (Reading, bool) {
        match self.worker.try_lock().as_deref_mut() {
            Ok(Some(worker)) => worker.read_through(watch),
            Err(TryLockError::WouldBlock) => (Reading::On, false),
            Ok(None) | Err(TryLockError::Poisoned(_)) => (Reading::Ended, false),
        }
    }

    /// What was counted so far. Waits for the turn of the worker, if that is at work.
    pub fn stats(&self) -> Stats {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        match worker.as_ref() {
            Some(worker) => worker.stats(),
            None => self.shared.counted.get().cloned().unwrap_or_default(),
        }
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

fn poll_worker(worker: &Shift, cx: &mut Context<'_>) -> Poll<()> {
    match worker.lock().as_deref_mut() {
        Ok(Some(worker)) => worker.poll(cx),
        // Whoever has failed with it has told.
        Ok(None) | Err(_) => Poll::Ready(()),
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Abort);
    }
}
