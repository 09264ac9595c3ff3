//! The task of one store: takes what comes, sends what waits, answers what is answered or late.

mod deadlines;
mod direct;
mod replies;

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Circuit, Completion, Message, Notice, Request, Shared, Watch, Work,
    job::{Job, ReplyTo},
    link::LinkEvent,
    map::Map,
    stats::Stats,
    touches::Touches,
};
use crate::{
    command::{Command, Reply},
    config::Config,
    connection::{Moved, cluster::Range},
    error::{Error, ErrorCode},
};

enum Event {
    Message(Message),
    Link(usize, LinkEvent),
    Discovered(Result<Vec<Range>, Error>),
    Timer,
}

pub(super) struct Worker {
    pub(super) config: Arc<Config>,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// For the steps of larger work. Weak, so that they do not keep the inbox open.
    pub(super) own_inbox: mpsc::WeakUnboundedSender<Message>,
    shared: Arc<Shared>,
    pub(super) map: Map,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    /// Answers of this turn, delivered together.
    completions: Vec<Completion>,
    /// Whether whoever takes the answers has room for more.
    reading: bool,
    touches: Touches,
    /// What listeners know.
    circuit: Circuit,
    ready: bool,
    /// Larger work under way: it will send an `Answer` each.
    pub(super) larger: usize,
    /// Questions that wait until a cluster is known.
    pub(super) waiting: Vec<(u32, Work, Instant)>,
    closing: Option<u32>,
    stats: Stats,
}

impl Worker {
    pub(super) fn new(
        config: Config,
        inbox: mpsc::UnboundedReceiver<Message>,
        own_inbox: mpsc::WeakUnboundedSender<Message>,
        shared: Arc<Shared>,
    ) -> Self {
        let config = Arc::new(config);
        let now = Instant::now();
        Self {
            map: Map::new(&config),
            touches: Touches::new(config.touch_after),
            config,
            inbox,
            own_inbox,
            shared,
            // What is due from the start, as a cluster's discovery is, has no event of its own.
            timer: Box::pin(sleep_until(now)),
            timer_at: Some(now),
            completions: Vec::new(),
            reading: true,
            circuit: Circuit::Closed,
            ready: false,
            larger: 0,
            waiting: Vec::new(),
            closing: None,
            stats: Stats::default(),
        }
    }

    /// Does what there is to do; ready when the store has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Everything that is ready goes into one turn, and its answers into one delivery.
        while let Poll::Ready(event) = self.poll_event(cx) {
            let mut next = Poll::Ready(event);
            while let Poll::Ready(event) = next {
                if matches!(event, Event::Message(Message::Abort)) {
                    return Poll::Ready(());
                }
                self.handle(event);
                next = self.poll_event(cx);
            }
            self.map.release();
            self.map.discover();
            self.refuse();
            for lane in &mut self.map.lanes {
                lane.dispatch();
            }
            self.arm();
            self.notice();
            self.deliver();
            if let Some(id) = self.closing
                && self.map.is_idle()
                && self.larger == 0
                && self.waiting.is_empty()
            {
                self.answer(id, Ok(Reply::Ok));
                self.deliver();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(message) = self.inbox.poll_recv(cx) {
            return Poll::Ready(Event::Message(message.unwrap_or(Message::Abort)));
        }
        for (at, lane) in self.map.lanes.iter_mut().enumerate() {
            if let Poll::Ready(event) = lane.poll_event(cx, self.reading) {
                return Poll::Ready(Event::Link(at, event));
            }
        }
        if let Poll::Ready(answer) = self.map.discovery.poll(cx) {
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
            Event::Link(at, event) => self.linked(at, event),
            Event::Discovered(answer) => {
                if let Err(error) = &answer {
                    self.shared.sink.notice(Notice::Failed(error.clone()));
                }
                self.map.discovered(answer);
                if !self.map.masters().is_empty() {
                    for (id, work, deadline) in std::mem::take(&mut self.waiting) {
                        self.larger -= 1;
                        self.begin(id, work, deadline);
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
            Message::Resume => {
                self.reading = true;
                self.read_waiting();
            }
            Message::Wake => {}
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
                let refused = Err(refusal);
                if let Some(kind) = replies::kind_of(&request.work) {
                    self.stats.count(kind, &refused);
                }
                self.answer(id, refused);
                continue;
            }
            self.begin(id, request.work, deadline);
        }
    }

    fn begin(&mut self, id: u32, work: Work, deadline: Instant) {
        match work {
            Work::Command(Command::MGet { keys }) if self.map.is_cluster() => {
                self.get_each(id, keys, deadline);
            }
            Work::Command(Command::Ping) if self.map.is_cluster() => self.ping_each(id, deadline),
            Work::Command(command) => {
                self.enter(Job::new(command, ReplyTo::Caller(id), deadline));
            }
            Work::Merge(conflict, time) => self.merge(id, conflict, time),
            Work::Keyspace(keyspace) => self.ask(id, keyspace, deadline),
            Work::Refused(error) => self.answer(id, Err(error)),
        }
    }

    /// Queues a command, unless it is a touch that may be left out.
    fn enter(&mut self, job: Job) {
        if !self.config.touch_after.is_zero() {
            match &job.command {
                Command::Expire { key, .. } => {
                    if let Some(expires) = self.expires(&job)
                        && self.touches.spares(key, expires)
                    {
                        self.stats.spared(job.command.kind());
                        return self.reply(job.reply_to, Ok(Reply::Count(1)));
                    }
                }
                // Not known until they are answered.
                command => {
                    if let Some(key) = command.written_key() {
                        self.touches.forget(key);
                    }
                }
            }
        }
        self.map.enter(job);
    }

    fn linked(&mut self, at: usize, event: LinkEvent) {
        match event {
            LinkEvent::Moved(Moved::Read) => self.read(at),
            LinkEvent::Opened => {
                let lane = &mut self.map.lanes[at];
                self.stats.reconnects += u64::from(std::mem::replace(&mut lane.was_up, true));
                let connection = lane.link.connection();
                if let Some(socket) = connection.and_then(|opened| opened.socket()) {
                    let socket = Arc::clone(socket);
                    self.shared.sink.watch(Watch { lane: at, socket });
                }
            }
            LinkEvent::Moved(Moved::Wrote) | LinkEvent::Tried => {}
            LinkEvent::Lost(error) => self.give_up(at, &error, false),
            LinkEvent::Failed(error) => {
                self.shared.sink.notice(Notice::Failed(error));
                self.map.rediscover();
            }
        }
    }

    /// Gives a connection up; what is not safe to repeat is answered with `error`. `hopeless` opens
    /// the circuit.
    fn give_up(&mut self, at: usize, error: &Error, hopeless: bool) {
        for job in self.map.lanes[at].give_up(error.clone(), hopeless) {
            self.finish(job, Err(error.clone()));
        }
        self.shared.sink.notice(Notice::Failed(error.clone()));
        self.map.resettle();
        self.map.rediscover();
    }

    /// Answers what waits behind an open circuit.
    fn refuse(&mut self) {
        for (job, error) in self.map.refuse() {
            self.finish(job, Err(error));
        }
        if !self.waiting.is_empty()
            && let Some(error) = self.map.discovery.refusal()
        {
            for (id, work, _) in std::mem::take(&mut self.waiting) {
                self.larger -= 1;
                self.finish_waiting(id, &work, error.clone());
            }
        }
    }

    /// Tells listeners what has changed.
    fn notice(&mut self) {
        if self.ready && self.circuit == Circuit::Closed && self.map.is_steady() {
            return;
        }
        let circuit = self.map.circuit();
        if circuit != std::mem::replace(&mut self.circuit, circuit) {
            self.shared.sink.notice(Notice::Circuit(circuit));
        }
        let ready = self.map.is_ready();
        if ready != std::mem::replace(&mut self.ready, ready) {
            let notice = if ready {
                Notice::Ready
            } else {
                Notice::Reconnecting
            };
            self.shared.sink.notice(notice);
        }
    }

    /// What was counted so far.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.stats.clone();
        for lane in &self.map.lanes {
            stats.traffic += lane.link.traffic();
        }
        stats
    }

    fn deliver(&mut self) {
        if !self.completions.is_empty() {
            let completions = std::mem::take(&mut self.completions);
            self.reading = self.shared.sink.deliver(completions);
        }
    }
}

pub(super) fn closed_error() -> Error {
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
