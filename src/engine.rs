//! Queue, chunks, connection, answers. One task per store owns them all, so that order is a property
//! of the code and not of locks. Knows no JavaScript: answers go to a [`Sink`].

mod flight;
mod lane;
mod link;
mod map;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    command::{Command, Reply},
    config::{Config, Servers},
    connection::{
        Target,
        cluster::{Range, Redirection, redirection},
    },
    error::{Error, ErrorCode},
    runtime,
    scan::{Keyspace, Step},
};
use flight::{Chunk, Landed};
use lane::LaneEvent;
use link::{LinkEvent, no_connection};
use map::Map;

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

/// Who waits for the reply to a step of something larger.
type Waiter = oneshot::Sender<Result<Reply, Error>>;

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
    /// Ascending in the order of the requests.
    seq: u64,
    /// The slot of its key in a cluster; 0 if there is none.
    slot: u16,
    /// The lane it concerns, whatever its key.
    pinned: Option<usize>,
    /// It goes where a key is while its slot moves.
    asking: bool,
    retried: bool,
    /// What the server last said instead of serving it.
    refusal: Option<Error>,
}

impl Job {
    fn new(command: Command, reply_to: ReplyTo, deadline: Instant) -> Self {
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

enum ReplyTo {
    Caller(u32),
    Step(Waiter),
    /// The deadline came before the reply.
    Nobody,
}

enum Event {
    Message(Message),
    Lane(usize, LaneEvent),
    Discovered(Result<Vec<Range>, Error>),
    Timer,
}

struct Worker {
    config: Arc<Config>,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// For the steps of larger work. Weak, so that they do not keep the inbox open.
    own_inbox: mpsc::WeakUnboundedSender<Message>,
    shared: Arc<Shared>,
    map: Map,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    /// Answers of this turn, delivered together.
    completions: Vec<Completion>,
    /// Larger work under way: it will send an `Answer` each.
    larger: usize,
    /// Questions that wait until a cluster is known.
    waiting: Vec<(u32, Keyspace, Instant)>,
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
            map: Map::new(&config),
            config,
            inbox,
            own_inbox,
            shared,
            timer: Box::pin(sleep_until(Instant::now())),
            timer_at: None,
            completions: Vec::new(),
            larger: 0,
            waiting: Vec::new(),
            closing: None,
        }
    }

    async fn run(mut self) {
        loop {
            let mut next = Some(poll_fn(|cx| self.poll_event(cx)).await);
            // Everything that is ready goes into one turn, and its answers into one delivery.
            while let Some(event) = next {
                if matches!(event, Event::Message(Message::Abort)) {
                    return;
                }
                self.handle(event);
                next = poll_fn(|cx| self.poll_event(cx)).now_or_never();
            }
            self.map.release();
            self.map.discover();
            for lane in &mut self.map.lanes {
                lane.dispatch();
            }
            self.arm();
            self.deliver();
            if let Some(id) = self.closing
                && self.map.is_idle()
                && self.larger == 0
                && self.waiting.is_empty()
            {
                self.answer(id, Ok(Reply::Ok));
                self.deliver();
                return;
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(message) = self.inbox.poll_recv(cx) {
            return Poll::Ready(Event::Message(message.unwrap_or(Message::Abort)));
        }
        for (at, lane) in self.map.lanes.iter_mut().enumerate() {
            if let Poll::Ready(event) = lane.poll_event(cx) {
                return Poll::Ready(Event::Lane(at, event));
            }
        }
        if let Some(discovery) = self.map.running_discovery()
            && let Poll::Ready(answer) = discovery.poll_unpin(cx)
        {
            return Poll::Ready(Event::Discovered(answer));
        }
        if self.timer_at.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Timer);
        }
        Poll::Pending
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.take(message),
            Event::Lane(at, LaneEvent::Landed(landed)) => self.land(at, landed),
            Event::Lane(at, LaneEvent::Link(event)) => self.linked(at, event),
            Event::Discovered(answer) => {
                if let Err(error) = &answer
                    && error.code != ErrorCode::Connect
                {
                    self.refuse_unrouted(error);
                }
                self.map.discovered(answer);
                if !self.map.masters().is_empty() {
                    for (id, keyspace, _) in std::mem::take(&mut self.waiting) {
                        self.larger -= 1;
                        self.ask(id, keyspace, Instant::now() + self.config.command_timeout);
                    }
                }
            }
            Event::Timer => self.expire(),
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Batch {
                batch,
                deadline,
                admitted,
            } => self.admit(batch(), deadline, admitted),
            Message::Step { step, reply } => {
                let deadline = Instant::now() + self.config.command_timeout;
                let mut job = Job::new(step.command, ReplyTo::Step(reply), deadline);
                job.pinned = step.lane;
                self.map.enter(job);
            }
            Message::Answer(completion) => {
                self.larger -= 1;
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
                Work::Command(Command::MGet { keys }) if self.map.is_cluster() => {
                    self.get_each(id, keys, deadline);
                }
                Work::Command(command) => {
                    self.map
                        .enter(Job::new(command, ReplyTo::Caller(id), deadline));
                }
                Work::Keyspace(keyspace) => self.ask(id, keyspace, deadline),
                Work::Refused(error) => self.answer(id, Err(error)),
            }
        }
    }

    /// Starts to answer a question about all keys. Its first SCAN takes its place behind what was
    /// asked before it, and before what is asked later.
    fn ask(&mut self, id: u32, keyspace: Keyspace, deadline: Instant) {
        self.larger += 1;
        let lanes = self.map.masters();
        let Some(&first_lane) = lanes.first() else {
            self.waiting.push((id, keyspace, deadline));
            return;
        };
        let (reply, first) = oneshot::channel();
        let mut job = Job::new(
            keyspace.scan(b"0".to_vec()),
            ReplyTo::Step(reply),
            Instant::now() + self.config.command_timeout,
        );
        job.pinned = Some(first_lane);
        self.map.enter(job);
        let split = self.map.is_cluster();
        self.begin(id, move |steps| {
            Box::pin(async move {
                let first = first.map(|reply| reply.unwrap_or_else(|_| Err(closed_error())));
                keyspace
                    .answer(&lanes, split, first, |step| steps.run(step))
                    .await
            })
        });
    }

    /// An MGET whose keys are in many slots: a GET each, in one pipeline a node.
    fn get_each(&mut self, id: u32, keys: Vec<Vec<u8>>, deadline: Instant) {
        self.larger += 1;
        let waiting: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let (reply, answer) = oneshot::channel();
                self.map.enter(Job::new(
                    Command::Get { key },
                    ReplyTo::Step(reply),
                    deadline,
                ));
                answer
            })
            .collect();
        self.begin(id, move |_| {
            Box::pin(async move {
                let texts = join_all(waiting)
                    .await
                    .into_iter()
                    .map(|answer| match answer {
                        Ok(Ok(Reply::Text(text))) => Ok(Some(text)),
                        Ok(Ok(_)) => Ok(None),
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(closed_error()),
                    });
                texts.collect::<Result<_, _>>().map(Reply::Texts)
            })
        });
    }

    /// Runs larger work beside this task; its answer comes back by the inbox.
    fn begin(
        &self,
        id: u32,
        work: impl FnOnce(Steps) -> BoxFuture<'static, Result<Reply, Error>> + Send + 'static,
    ) {
        let inbox = self.own_inbox.clone();
        tokio::spawn(async move {
            let outcome = work(Steps(inbox.clone())).await;
            if let Some(inbox) = inbox.upgrade() {
                let _ = inbox.send(Message::Answer(Completion { id, outcome }));
            }
        });
    }

    fn land(&mut self, at: usize, landed: Landed) {
        let values = match landed.replies {
            Ok(values) => values,
            Err(error) => return self.give_up(at, &error, Some((landed.number, landed.jobs))),
        };
        self.map.lanes[at].proved();
        let asked = self.map.lanes[at].target.clone();
        let mut demoted = None;
        for (mut job, value) in landed.jobs.into_iter().zip(values) {
            let turned = match (&asked, job.pinned) {
                (Target::Server(endpoint), None) => redirection(&value, Some(endpoint)),
                _ => redirection(&value, None),
            };
            let outcome = job.command.reply(value);
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
                self.reply(job.reply_to, outcome);
                continue;
            };
            if matches!(job.reply_to, ReplyTo::Nobody) {
                continue;
            }
            job.refusal = Some(refusal.clone());
            job.asking = false;
            match turned {
                Redirection::Moved(endpoint) => self.map.moved(job, endpoint),
                Redirection::Ask(endpoint) => self.map.ask(job, endpoint),
                Redirection::Later => self.map.later(job),
                Redirection::Demoted | Redirection::Stranger => {
                    demoted = Some(refusal.clone());
                    self.map.later(job);
                }
            }
        }
        if let Some(error) = demoted {
            self.give_up(at, &error, None);
        }
    }

    fn linked(&mut self, at: usize, event: LinkEvent) {
        match event {
            LinkEvent::Opened => {}
            LinkEvent::Lost => {
                let error = self.map.lanes[at].link.closed_by_server();
                self.give_up(at, &error, None);
            }
            LinkEvent::Failed(error) => {
                self.map.rediscover();
                // Credentials do not get better by waiting for the deadline.
                if error.code != ErrorCode::Connect {
                    for job in std::mem::take(&mut self.map.lanes[at].queue) {
                        self.reply(job.reply_to, Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Gives a connection up; what is not safe to repeat is answered with `error`.
    fn give_up(&mut self, at: usize, error: &Error, landed: Option<Chunk>) {
        let fallout = self.map.lanes[at].give_up(error.clone(), landed);
        for landed in fallout.landed {
            self.land(at, landed);
        }
        for job in fallout.refused {
            self.reply(job.reply_to, Err(error.clone()));
        }
        self.map.resettle();
        self.map.rediscover();
    }

    /// Answers everything whose deadline has come.
    fn expire(&mut self) {
        self.timer_at = None;
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
            for reply_to in expired {
                self.reply(reply_to, Err(error.clone()));
            }
            if give_up {
                silent.push((at, error));
            }
        }
        for (at, error) in silent {
            self.give_up(at, &error, None);
        }
        for job in self.map.expire(now) {
            let error = job.refusal.unwrap_or_else(|| self.unrouted_error());
            self.reply(job.reply_to, Err(error));
        }
        let late = self
            .waiting
            .extract_if(.., |(_, _, deadline)| *deadline <= now);
        for (id, ..) in late.collect::<Vec<_>>() {
            self.larger -= 1;
            let error = self.unrouted_error();
            self.answer(id, Err(error));
        }
    }

    fn refuse_unrouted(&mut self, error: &Error) {
        let far = Instant::now() + Duration::from_secs(u32::MAX.into());
        for job in self.map.expire(far) {
            self.reply(job.reply_to, Err(error.clone()));
        }
        for (id, ..) in std::mem::take(&mut self.waiting) {
            self.larger -= 1;
            self.answer(id, Err(error.clone()));
        }
    }

    fn unrouted_error(&self) -> Error {
        no_connection(
            &self.config.servers.to_string(),
            &self.config,
            self.map.failure(),
        )
    }

    /// Sets the timer to when something is next to be looked at. Answers do not move it back: it
    /// fires at most once per deadline in vain, which costs less than moving it with every reply.
    fn arm(&mut self) {
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

/// How larger work runs its commands.
struct Steps(mpsc::WeakUnboundedSender<Message>);

impl Steps {
    fn run(&self, step: Step) -> impl Future<Output = Result<Reply, Error>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        if let Some(inbox) = self.0.upgrade() {
            let _ = inbox.send(Message::Step { step, reply });
        }
        async move { answer.await.unwrap_or_else(|_| Err(closed_error())) }
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
