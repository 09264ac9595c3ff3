//! The task of one store: takes what comes, sends what waits, answers what is answered or late.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use futures_util::FutureExt;
use redis::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Circuit, Completion, Message, Notice, Reading, Request, Shared, Watch, Work,
    job::{Job, ReplyTo},
    link::{LinkEvent, no_connection},
    map::Map,
    stats::Stats,
    touches::Touches,
};
use crate::{
    command::{Command, Kind, Reply},
    config::{Config, Servers},
    connection::{
        Moved,
        cluster::{Range, Redirection, redirection},
        reader::{Frame, REPLY_MAX_BYTES},
    },
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
        Self {
            map: Map::new(&config),
            touches: Touches::new(config.touch_after),
            config,
            inbox,
            own_inbox,
            shared,
            timer: Box::pin(sleep_until(Instant::now())),
            timer_at: None,
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

    /// Whether nothing that was asked before is still to be sent.
    pub(super) fn is_calm(&self) -> bool {
        self.inbox.is_empty() && self.closing.is_none() && self.map.is_calm()
    }

    /// Sends `requests` at once, on the thread of whoever asks, and says whether this task must look
    /// at what is left. Gives them back if they are more than commands about one key each. Only
    /// while [`Self::is_calm`].
    pub(super) fn send_through(
        &mut self,
        requests: Vec<Request>,
        deadline: Instant,
    ) -> Result<bool, Vec<Request>> {
        let is_plain = |request: &Request| match &request.work {
            Work::Command(command) => command.key().is_some(),
            _ => false,
        };
        if !requests.iter().all(is_plain) {
            return Err(requests);
        }
        for Request { id, work } in requests {
            if let Work::Command(command) = work {
                self.enter(Job::new(command, ReplyTo::Caller(id), deadline));
            }
        }
        self.deliver();
        for lane in &mut self.map.lanes {
            lane.dispatch();
            lane.link.write_now();
        }
        // A timer that is set is set to an earlier deadline.
        Ok(self.timer_at.is_none() || !self.map.is_calm())
    }

    /// Reads what has come on a watched connection, on the thread of whoever watches it, and says
    /// whether this task must look at what is left.
    pub(super) fn read_through(&mut self, watch: &Watch) -> (Reading, bool) {
        let at = watch.lane;
        let lane = &mut self.map.lanes[at];
        let Some(connection) = lane.link.connection() else {
            return (Reading::Ended, false);
        };
        let is_watched = connection
            .socket()
            .is_some_and(|socket| Arc::ptr_eq(socket, &watch.socket));
        if !is_watched || connection.has_ended() {
            return (Reading::Ended, false);
        }
        if !self.reading {
            return (Reading::On, false);
        }
        connection.read_now();
        let reading = if connection.has_ended() {
            Reading::Ended
        } else {
            Reading::On
        };
        self.read(at);
        let lane = &mut self.map.lanes[at];
        if !lane.queue.is_empty() {
            lane.dispatch();
            lane.link.write_now();
        }
        self.notice();
        self.deliver();
        let more = reading == Reading::Ended || self.closing.is_some() || !self.map.is_calm();
        (reading, more)
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
            Message::Resume => self.reading = true,
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
                if let Some(kind) = kind_of(&request.work) {
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

    /// When the session of `job` expires at the earliest, if it makes it live for a while.
    fn expires(&self, job: &Job) -> Option<std::time::Instant> {
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

    /// Takes the replies that have come.
    fn read(&mut self, at: usize) {
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
        if let Command::Swap(swap) = &mut job.command
            && let Some(by) = swap.again(&outcome)
            && !matches!(job.reply_to, ReplyTo::Nobody)
        {
            swap.by = by;
            return self.map.again(job);
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
            && let Some(error) = self.map.refusal()
        {
            for (id, work, _) in std::mem::take(&mut self.waiting) {
                self.larger -= 1;
                self.finish_waiting(id, &work, error.clone());
            }
        }
    }

    /// Tells listeners what has changed.
    fn notice(&mut self) {
        if self.map.is_steady() && self.ready {
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

    /// Answers everything whose deadline has come.
    fn expire(&mut self) {
        self.timer_at = None;
        // Whoever watches may have been busy while the replies came.
        for at in 0..self.map.lanes.len() {
            while self.reading
                && let Some(connection) = self.map.lanes[at].link.connection()
                && connection.socket().is_some()
                && connection.read_now()
            {
                self.read(at);
            }
        }
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
            for (kind, deadline, reply_to) in expired {
                let outcome = Err(error.clone());
                self.stats.count(kind, &outcome);
                self.stats.took(deadline, now + self.config.command_timeout);
                self.reply(reply_to, outcome);
            }
            // While nothing is read it is not the server that keeps silent.
            if give_up && self.reading {
                silent.push((at, error));
            }
        }
        for (at, error) in silent {
            self.give_up(at, &error, true);
        }
        for job in self.map.expire(now) {
            let error = job.refusal.clone();
            let error = error.unwrap_or_else(|| self.unrouted_error());
            self.replied(job, Err(error), now);
        }
        let late = self
            .waiting
            .extract_if(.., |(_, _, deadline)| *deadline <= now);
        for (id, work, _) in late.collect::<Vec<_>>() {
            self.larger -= 1;
            let error = self.unrouted_error();
            self.finish_waiting(id, &work, error);
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

    /// Answers `job`, which was replied to or has run into its deadline by `now`.
    fn replied(&mut self, job: Job, outcome: Result<Reply, Error>, now: Instant) {
        if !matches!(job.reply_to, ReplyTo::Nobody) {
            self.stats
                .took(job.deadline, now + self.config.command_timeout);
        }
        self.finish(job, outcome);
    }

    /// Answers `job`.
    fn finish(&mut self, job: Job, outcome: Result<Reply, Error>) {
        if !matches!(job.reply_to, ReplyTo::Nobody) {
            self.stats.count(job.command.kind(), &outcome);
        }
        self.reply(job.reply_to, outcome);
    }

    /// Answers what waited for a cluster to be known.
    fn finish_waiting(&mut self, id: u32, work: &Work, error: Error) {
        let outcome = Err(error);
        if let Some(kind) = kind_of(work) {
            self.stats.count(kind, &outcome);
        }
        self.answer(id, outcome);
    }

    /// What was counted so far.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.stats.clone();
        for lane in &self.map.lanes {
            stats.traffic += lane.link.traffic();
        }
        stats
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
            let completions = std::mem::take(&mut self.completions);
            self.reading = self.shared.sink.deliver(completions);
        }
    }
}

/// The command that work begins with; none if it was refused for what it is.
fn kind_of(work: &Work) -> Option<Kind> {
    match work {
        Work::Command(command) => Some(command.kind()),
        Work::Keyspace(_) => Some(Kind::Scan),
        Work::Merge(..) => Some(Kind::EvalSha),
        Work::Refused(_) => None,
    }
}

pub(super) fn closed_error() -> Error {
    Error::new(
        ErrorCode::Closed,
        "The store is closed; make a new RedisStore to go on.",
    )
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

fn full_error(shared: &Shared) -> Error {
    Error::new(
        ErrorCode::QueueFull,
        format!(
            "{} requests are pending already (option \"maxPending\"); Redis is slower than they come.",
            shared.max_pending
        ),
    )
}
