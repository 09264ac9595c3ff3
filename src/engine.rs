//! Queue, chunks, connection, answers. One task per store owns them all, so that order is a property
//! of the code and not of locks. Knows no JavaScript: answers go to a [`Sink`].

mod flight;
mod link;

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    command::{Command, Reply},
    config::{CHUNK_COMMANDS, CHUNKS_IN_FLIGHT, Config, TIMEOUTS_IN_A_ROW},
    error::{Error, ErrorCode},
    runtime,
    scan::Keyspace,
};
use flight::{Flight, Landed};
use link::{Link, LinkEvent};

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

/// Where answers go: each request's exactly once.
pub trait Sink: Send + Sync + 'static {
    /// Takes answers. Must not block.
    fn deliver(&self, completions: Vec<Completion>);
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
        command: Command,
        reply: oneshot::Sender<Result<Reply, Error>>,
    },
    Answer(Completion),
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
            Worker::new(config, messages, own_inbox, worker_shared)
                .run()
                .await;
        })?;
        Ok(Self { inbox, shared })
    }

    /// Takes the `count` requests of `batch`, as many as `max_pending` admits; the others are
    /// answered with `QueueFull`. After [`Engine::close`] all are answered with `Closed`.
    pub fn submit(&self, count: usize, batch: Batch, command_timeout: std::time::Duration) {
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

/// One command on its way, and who waits for it.
struct Job {
    command: Command,
    reply_to: ReplyTo,
    deadline: Instant,
    retried: bool,
}

enum ReplyTo {
    Caller(u32),
    Step(oneshot::Sender<Result<Reply, Error>>),
    /// The deadline came before the reply.
    Nobody,
}

struct Worker {
    config: Arc<Config>,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// For the steps of keyspace questions. Weak, so that they do not keep the inbox open.
    own_inbox: mpsc::WeakUnboundedSender<Message>,
    shared: Arc<Shared>,
    queue: VecDeque<Job>,
    flight: Flight,
    link: Link,
    timer: Pin<Box<Sleep>>,
    timer_armed: bool,
    /// Answers of this turn, delivered together.
    completions: Vec<Completion>,
    timeouts_in_a_row: u32,
    /// Keyspace questions that are being answered.
    questions: usize,
    closing: Option<u32>,
}

impl Worker {
    fn new(
        config: Config,
        inbox: mpsc::UnboundedReceiver<Message>,
        own_inbox: mpsc::WeakUnboundedSender<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        let config = Arc::new(config);
        Self {
            link: Link::new(Arc::clone(&config)),
            config,
            inbox,
            own_inbox,
            shared,
            queue: VecDeque::new(),
            flight: Flight::default(),
            timer: Box::pin(sleep_until(Instant::now())),
            timer_armed: false,
            completions: Vec::new(),
            timeouts_in_a_row: 0,
            questions: 0,
            closing: None,
        }
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                message = self.inbox.recv() => match message {
                    None | Some(Message::Abort) => return,
                    Some(message) => self.take(message),
                },
                Some(landed) = self.flight.next(), if !self.flight.is_empty() => self.land(landed),
                event = self.link.event() => self.linked(event),
                () = &mut self.timer, if self.timer_armed => self.expire(),
            }
            while let Ok(message) = self.inbox.try_recv() {
                if matches!(message, Message::Abort) {
                    return;
                }
                self.take(message);
            }
            while let Some(Some(landed)) = self.flight.next().now_or_never() {
                self.land(landed);
            }
            self.dispatch();
            self.arm();
            self.deliver();
            if let Some(id) = self.closing
                && self.queue.is_empty()
                && self.flight.is_empty()
                && self.questions == 0
            {
                self.answer(id, Ok(Reply::Ok));
                self.deliver();
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Batch {
                batch,
                deadline,
                admitted,
            } => self.admit(batch(), deadline, admitted),
            Message::Step { command, reply } => self.queue.push_back(Job {
                command,
                reply_to: ReplyTo::Step(reply),
                deadline: Instant::now() + self.config.command_timeout,
                retried: false,
            }),
            Message::Answer(completion) => {
                self.questions -= 1;
                self.answer(completion.id, completion.outcome);
            }
            Message::Close(id) => {
                self.shared.pending.fetch_add(1, Ordering::Relaxed);
                self.closing = Some(id);
            }
            Message::Abort => {}
        }
    }

    fn admit(&mut self, requests: Vec<Request>, deadline: Instant, admitted: usize) {
        let closed = self.shared.closed.load(Ordering::Relaxed) && admitted == 0;
        for (position, request) in requests.into_iter().enumerate() {
            let id = request.id;
            if position >= admitted {
                let refusal = if closed {
                    closed_error()
                } else {
                    full_error(&self.shared)
                };
                self.answer(id, Err(refusal));
                continue;
            }
            match request.work {
                Work::Command(command) => self.queue.push_back(Job {
                    command,
                    reply_to: ReplyTo::Caller(id),
                    deadline,
                    retried: false,
                }),
                Work::Keyspace(keyspace) => self.ask(id, keyspace),
                Work::Refused(error) => self.answer(id, Err(error)),
            }
        }
    }

    /// Starts to answer a question about all keys. Its first SCAN takes its place in the queue
    /// behind what was asked before it.
    fn ask(&mut self, id: u32, keyspace: Keyspace) {
        self.questions += 1;
        let inbox = self.own_inbox.clone();
        tokio::spawn(async move {
            let run = |command| {
                let (reply, answer) = oneshot::channel();
                if let Some(inbox) = inbox.upgrade() {
                    let _ = inbox.send(Message::Step { command, reply });
                }
                async move { answer.await.unwrap_or_else(|_| Err(closed_error())) }
            };
            let outcome = keyspace.answer(run).await;
            if let Some(inbox) = inbox.upgrade() {
                let _ = inbox.send(Message::Answer(Completion { id, outcome }));
            }
        });
    }

    /// Puts what waits on the wire, in chunks.
    fn dispatch(&mut self) {
        let Link::Up { connection, .. } = &self.link else {
            return;
        };
        while !self.queue.is_empty() && self.flight.chunks() < CHUNKS_IN_FLIGHT {
            let size = self.queue.len().min(CHUNK_COMMANDS);
            let jobs: VecDeque<Job> = self.queue.drain(..size).collect();
            let replies = connection.run(&mut jobs.iter().map(|job| &job.command));
            self.flight.launch(jobs, replies);
        }
    }

    fn land(&mut self, landed: Landed) {
        match landed.replies {
            Ok(values) => {
                self.timeouts_in_a_row = 0;
                self.link.proved();
                for (job, value) in landed.jobs.into_iter().zip(values) {
                    let outcome = job.command.reply(value);
                    self.reply(job.reply_to, outcome);
                }
            }
            Err(error) => self.drop_link(&error, Some((landed.number, landed.jobs))),
        }
    }

    fn linked(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Opened => self.timeouts_in_a_row = 0,
            LinkEvent::Lost => {
                let error = Error::new(
                    ErrorCode::Connect,
                    format!(
                        "Redis at {} closed the connection before the reply came.",
                        self.config.endpoint
                    ),
                );
                self.drop_link(&error, None);
            }
            // Credentials do not get better by waiting for the deadline.
            LinkEvent::Failed(error) if error.code != ErrorCode::Connect => {
                for job in std::mem::take(&mut self.queue) {
                    self.reply(job.reply_to, Err(error.clone()));
                }
            }
            LinkEvent::Failed(_) | LinkEvent::Retry => {}
        }
    }

    /// Gives the connection up and queues again, in their order and before everything else, those
    /// of its requests that are safe to repeat. The others are answered with `error`.
    fn drop_link(&mut self, error: &Error, landed: Option<flight::Chunk>) {
        let mut lost: Vec<_> = landed.into_iter().collect();
        while let Some(Some(other)) = self.flight.next().now_or_never() {
            match other.replies {
                Ok(_) => self.land(other),
                Err(_) => lost.push((other.number, other.jobs)),
            }
        }
        self.link.lost(error.clone());
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
                self.reply(job.reply_to, Err(error.clone()));
            } else {
                job.retried = true;
                self.queue.push_front(job);
            }
        }
    }

    /// Answers everything whose deadline has come.
    fn expire(&mut self) {
        self.timer_armed = false;
        let now = Instant::now();
        let mut late = 0;
        let mut expired = Vec::new();
        for job in self.flight.jobs_mut() {
            if job.deadline <= now && !matches!(job.reply_to, ReplyTo::Nobody) {
                late += 1;
                expired.push(std::mem::replace(&mut job.reply_to, ReplyTo::Nobody));
            }
        }
        while self.queue.front().is_some_and(|job| job.deadline <= now) {
            expired.extend(self.queue.pop_front().map(|job| job.reply_to));
        }
        let error = self.link.too_late(&self.config);
        for reply_to in expired {
            self.reply(reply_to, Err(error.clone()));
        }
        self.timeouts_in_a_row += late;
        if self.timeouts_in_a_row >= TIMEOUTS_IN_A_ROW {
            self.drop_link(&error, None);
        }
    }

    /// Sets the timer to the earliest deadline. Answers do not move it: it fires at most once per
    /// deadline in vain, which costs less than moving it with every reply.
    fn arm(&mut self) {
        if self.timer_armed {
            return;
        }
        let earliest = [
            self.flight.earliest_deadline(),
            self.queue.front().map(|job| job.deadline),
        ]
        .into_iter()
        .flatten()
        .min();
        if let Some(earliest) = earliest {
            self.timer.as_mut().reset(earliest);
            self.timer_armed = true;
        }
    }

    fn reply(&mut self, reply_to: ReplyTo, outcome: Result<Reply, Error>) {
        match reply_to {
            ReplyTo::Caller(id) => self.answer(id, outcome),
            ReplyTo::Step(reply) => {
                let _ = reply.send(outcome);
            }
            ReplyTo::Nobody => {}
        }
    }

    fn answer(&mut self, id: u32, outcome: Result<Reply, Error>) {
        self.shared.pending.fetch_sub(1, Ordering::Relaxed);
        self.completions.push(Completion { id, outcome });
    }

    fn deliver(&mut self) {
        if !self.completions.is_empty() {
            self.shared
                .sink
                .deliver(std::mem::take(&mut self.completions));
        }
    }
}

fn closed_error() -> Error {
    Error::new(
        ErrorCode::Closed,
        "The store is closed; make a new RedisStore to go on.",
    )
}

fn full_error(shared: &Shared) -> Error {
    Error::new(
        ErrorCode::QueueFull,
        format!(
            "{} requests are pending already (option \"maxPending\"); Redis is slower than they come.",
            shared.max_pending
        ),
    )
}
