//! The store as a state machine without sockets, clock and threads. A driver reports events (the methods that
//! take `now`), ends each turn by [`Core::end_turn`], and then carries out the effects of the turn:
//!
//! | input | effect |
//! |---|---|
//! | [`submit`](Core::submit), [`close`](Core::close) | [`Turn::completions`]: answers to requests |
//! | [`on_open`](Core::on_open), [`on_lost`](Core::on_lost) | [`Turn::actions`]: open or close a connection |
//! | [`room`](Core::room) and [`on_read`](Core::on_read) | [`Turn::writes`]: connections with [`output`](Core::output) |
//! | [`on_written`](Core::on_written) | [`Turn::notices`]: events of the store |
//! | [`on_discovered`](Core::on_discovered) | [`Action::Discover`]: ask the configured nodes for the map |
//! | [`on_timer`](Core::on_timer) | [`wake_at`](Core::wake_at): when to call it |
//!
//! Invariants after every turn, checked by `tests/simulation.rs`:
//!
//! 1. Silence is a time, not a count: a connection whose oldest unanswered command is older than
//!    `command_timeout` is replaced, whether a caller still waits for it or not.
//! 2. Everything that waits has a deadline, and `wake_at` is not later.
//! 3. Redirections of one request are counted, with a pause once they repeat.
//! 4. A turn's work is bounded in bytes and steps, if the driver bounds what it reads.
//! 5. New connections are bounded per second and node.
//! 6. Only a request that was completely written uses up its retry.
//! 7. A reply is matched to exactly one request.
//! 8. The requests of one session are executed in order.

mod backoff;
mod breaker;
mod circuit;
mod discovery;
mod expiry;
mod in_flight;
mod map;

mod node;
mod nodes;
mod parked;
mod replies;
mod request;
mod router;
mod slots;
mod stats;
mod tasks;
mod touches;
mod turn;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use crate::{
    command::{Command, Reply},
    config::Config,
    connection::{Named, Opened},
    error::{Error, ErrorCode},
    mutation::{Mutation, is_active},
    users::Flow,
};
use nodes::{NodeId, Nodes};
use parked::Parked;
pub use request::{Circuit, Completion, Notice, Request, Work};
use request::{ReplyTo, Spare};
use router::Router;
pub use stats::Stats;
use tasks::Tasks;
use touches::Touches;
pub use turn::{Action, Connection, Turn};

/// The state of one store.
pub struct Core {
    config: Arc<Config>,
    router: Router,
    nodes: Nodes,
    parked: Parked,
    spare: Spare,
    tasks: Tasks,
    /// Replies to parts of tasks, to be processed in this turn.
    parts: VecDeque<(u32, u32, Result<Reply, Error>)>,
    /// The reason why a connected node did not return the map.
    failed_map: Option<Error>,
    touches: Touches,
    stats: Stats,
    random: fastrand::Rng,
    next_seq: u64,
    next_connection: u64,
    /// The number of admitted, unanswered requests.
    pending: usize,
    closed: bool,
    closing: Option<u32>,
    /// The time since which replies may be read; None while too many answers wait for JavaScript.
    reading_since: Option<Instant>,
    wake: Option<Instant>,
    /// The wake-up time has passed: the next one is computed at the end of the turn.
    is_overdue: bool,
    /// The state that listeners were notified of.
    circuit: Circuit,
    ready: bool,
    /// A connection or the map has changed: listeners may need a notice.
    changed: bool,
    turn: Turn,
}

impl Core {
    /// A store that connects in its first turn. `seed` is for its jitter.
    pub fn new(config: Arc<Config>, now: Instant, seed: u64) -> Self {
        let mut core = Self {
            router: Router::new(&config, now),
            nodes: Nodes::default(),
            parked: Parked::default(),
            spare: Spare::default(),
            tasks: Tasks::default(),
            parts: VecDeque::new(),
            failed_map: None,
            touches: Touches::new(config.touch_after),
            stats: Stats::default(),
            random: fastrand::Rng::with_seed(seed),
            next_seq: 0,
            next_connection: 0,
            pending: 0,
            closed: false,
            closing: None,
            reading_since: Some(now),
            wake: Some(now),
            is_overdue: true,
            circuit: Circuit::Closed,
            ready: false,
            changed: true,
            turn: Turn::default(),
            config,
        };
        core.add_first_node(now);
        core
    }

    /// Admits as many of `count` new requests as `max_pending` allows, none once the store is closed.
    /// They are pending until they are answered.
    pub fn admit(&mut self, count: usize) -> usize {
        if self.closed {
            return 0;
        }
        let room = self.config.max_pending.saturating_sub(self.pending);
        let admitted = room.min(count);
        self.pending += admitted;
        admitted
    }

    /// Takes requests. The first `admitted` were [admitted](Self::admit); the others are refused.
    pub fn submit(
        &mut self,
        requests: Vec<Request>,
        admitted: usize,
        deadline: Instant,
        now: Instant,
    ) {
        self.schedule(deadline);
        for (position, Request { id, work }) in requests.into_iter().enumerate() {
            if position < admitted {
                self.begin(id, work, deadline, now);
            } else {
                let refusal = self.not_admitted();
                self.refuse(id, &work, refusal);
            }
        }
    }

    /// Fails requests that were not admitted.
    pub fn reject(&mut self, requests: Vec<Request>, error: &Error) {
        for Request { id, work } in requests {
            self.refuse(id, &work, error.clone());
        }
    }

    fn refuse(&mut self, id: u32, work: &Work, error: Error) {
        self.pending += 1;
        self.answer_work(id, work, Err(error));
    }

    fn not_admitted(&self) -> Error {
        if self.closed {
            return Error::closed_store();
        }
        Error::new(
            ErrorCode::QueueFull,
            format!(
                "{} requests are pending already (option \"maxPending\"); requests arrive faster than Redis answers.",
                self.config.max_pending
            ),
        )
    }

    fn begin(&mut self, id: u32, work: Work, deadline: Instant, now: Instant) {
        match work {
            Work::Command(Command::MGet { keys }) if self.router.is_cluster() => {
                self.get_each(id, keys, deadline);
            }
            Work::Command(Command::MGet { keys }) => self.get_all(id, keys, deadline),
            Work::Command(Command::Ping) if self.router.is_cluster() => {
                self.ping_each(id, deadline);
            }
            Work::Command(command) => self.enter(command, ReplyTo::Caller(id), None, deadline),
            Work::Merge(conflict, time) => self.merge(id, *conflict, now + time, now),
            Work::Keyspace(keyspace) => self.ask_keyspace(id, keyspace, deadline, now),
            Work::Save(save) if self.router.is_cluster() => {
                self.flow(id, Flow::save(&save), deadline);
            }
            Work::Save(save) => {
                self.enter(Command::Save(save), ReplyTo::Caller(id), None, deadline);
            }
            Work::SignIn(sign_in) if sign_in.by_turns || self.router.is_cluster() => {
                self.flow(id, Flow::sign_in(*sign_in), deadline);
            }
            Work::SignIn(sign_in) => {
                self.enter(sign_in.both(), ReplyTo::Caller(id), None, deadline);
            }
            Work::Revoke {
                index,
                prefix,
                items,
            } => self.flow(id, Flow::revoke(index, &prefix, items), deadline),
            Work::Refused(error) => self.answer(id, Err(error)),
        }
    }

    /// Queues a new command, unless it is a touch that can be skipped. With `node`, it must go there.
    fn enter(
        &mut self,
        command: Command,
        reply_to: ReplyTo,
        node: Option<NodeId>,
        deadline: Instant,
    ) {
        let mut job = self.spare.job(command, reply_to, deadline);
        job.pinned = node;
        if let Command::Destroy(destroy) = &mut job.command
            && is_active(Mutation::MarkersAreLeftOut)
        {
            job.command = destroy.unmarked();
        }
        if self.router.is_cluster() && !job.command.fit_slot() {
            let Command::Destroy(destroy) = &mut job.command else {
                // It cannot be known whether the session was destroyed.
                return self.reply(job.reply_to, Ok(Reply::Nil));
            };
            job.command = destroy.unmarked();
        }
        if !self.config.touch_after.is_zero() {
            if let Command::Expire { key, .. } = &job.command {
                if let Some((asked, expires)) = self.expires(&job)
                    && self.touches.can_skip(key, expires, asked)
                {
                    self.stats.skipped(job.command.kind());
                    return self.reply(job.reply_to, Ok(Reply::Count(1)));
                }
            } else if let Some(key) = job.command.written_key() {
                // The expiry is unknown until the reply.
                self.touches.forget(key);
            } else if let (Command::Get { key }, ReplyTo::Caller(_)) = (&job.command, job.reply_to)
            {
                let asked = self.asked_at(&job);
                job.asks_ttl = asked.is_some_and(|at| self.touches.may_be_due(key, at));
            }
        }
        job.seq = self.next_seq;
        self.next_seq += 1;
        job.slot = match job.pinned {
            Some(node) => node.slot(),
            None => self.router.slot_of(job.command.key()),
        };
        self.place(job);
    }

    /// Reports the outcome of an attempt to connect.
    pub fn on_open(
        &mut self,
        connection: Connection,
        outcome: Result<Opened, Error>,
        now: Instant,
    ) -> bool {
        let Some(node) = self.nodes.get_mut(connection.node) else {
            return false;
        };
        if node.attempt() != Some(connection) || node.is_up() {
            return false;
        }
        self.changed = true;
        match outcome {
            Ok(opened) => {
                node.opened(connection, opened);
                let was_up = std::mem::replace(&mut node.was_up, true);
                self.stats.reconnects += u64::from(was_up);
                // Refreshed sessions may be missing: a server can come back with older data.
                if !is_active(Mutation::TouchesOutliveConnections) {
                    self.touches.clear();
                }
                true
            }
            Err(error) => {
                // Credentials that are refused are not accepted by waiting.
                if error.code != ErrorCode::Connect {
                    node.breaker.open();
                }
                self.lose(connection.node, &error, now);
                false
            }
        }
    }

    /// Reports a lost connection.
    pub fn on_lost(&mut self, connection: Connection, error: &Error, now: Instant) {
        if self.is_open(connection) {
            self.lose(connection.node, error, now);
        }
    }

    /// The error for [`Self::on_lost`] after `connection` ended by `error`, or was closed by the server.
    pub fn lost_error(&self, connection: Connection, error: Option<&std::io::Error>) -> Error {
        let node = self.nodes.get(connection.node);
        let name = node.map(|node| Named(&node.target, &self.config).to_string());
        Error::closed(&name.unwrap_or_default(), error)
    }

    /// Whether `connection` is open.
    pub fn is_open(&self, connection: Connection) -> bool {
        let node = self.nodes.get(connection.node);
        node.is_some_and(|node| node.connection() == Some(connection))
    }

    /// Whether `connection` has unanswered commands.
    pub fn expects_replies(&self, connection: Connection) -> bool {
        let node = self.nodes.get(connection.node);
        node.is_some_and(|node| node.connection() == Some(connection) && node.flight.len() > 0)
    }

    /// Whether requests wait for room on the wire.
    pub fn has_queued(&self) -> bool {
        self.nodes
            .iter()
            .any(|(_, node)| node.is_up() && !node.queue.is_empty())
    }

    /// Whether any command is on the wire.
    pub fn has_unanswered(&self) -> bool {
        self.nodes.iter().any(|(_, node)| node.flight.len() > 0)
    }

    /// The bytes to write to `connection`.
    pub fn output(&self, connection: Connection) -> &[u8] {
        match self.nodes.get(connection.node) {
            Some(node) if node.connection() == Some(connection) => node.output(),
            _ => &[],
        }
    }

    /// The first `count` bytes of [`Self::output`] were written.
    pub fn on_written(&mut self, connection: Connection, count: usize) {
        if let Some(node) = self.nodes.get_mut(connection.node)
            && node.connection() == Some(connection)
        {
            node.wrote(count);
        }
    }

    /// The buffer to read bytes of `connection` into; None while reading is paused.
    pub fn room(&mut self, connection: Connection) -> Option<&mut [u8]> {
        self.reading_since?;
        let node = self.nodes.get_mut(connection.node)?;
        (node.connection() == Some(connection)).then(|| node.room())
    }

    /// Pauses or resumes reading. It is paused while too many answers wait for JavaScript.
    pub fn set_reading(&mut self, reading: bool, now: Instant) {
        if reading != self.reading_since.is_some() {
            self.reading_since = reading.then_some(now);
            // From now on a connection can be silent again.
            self.schedule(now + self.config.command_timeout);
        }
    }

    /// Finishes what is pending, closes the connections and then answers `id`.
    pub fn close(&mut self, id: u32) {
        self.closed = true;
        self.pending += 1;
        if let Some(other) = self.closing.replace(id) {
            self.answer(other, Ok(Reply::Ok));
        }
    }

    /// The time at which to call [`Self::on_timer`].
    pub fn wake_at(&self) -> Option<Instant> {
        self.wake
    }

    /// Sets the timer to `at`, unless it is earlier.
    fn schedule(&mut self, at: Instant) {
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
        }
    }

    /// The effects that the driver must carry out.
    pub fn take_turn(&mut self) -> &mut Turn {
        &mut self.turn
    }

    /// Processes the inputs of this turn.
    pub fn end_turn(&mut self, now: Instant) {
        loop {
            self.run_tasks(now);
            self.release(now);
            self.discover(now);
            if self.changed {
                self.refuse_waiting(now);
            }
            if self.parts.is_empty() && self.failed_map.is_none() {
                break;
            }
        }
        for (_, node) in self.nodes.iter_mut() {
            if !node.queue.is_empty() {
                node.dispatch(now, &mut self.parked);
            }
            if let Some(connection) = node.connection()
                && !node.output().is_empty()
            {
                self.turn.writes.push(connection);
            }
        }
        if std::mem::take(&mut self.is_overdue) {
            self.wake = self.next_wake(now);
        }
        self.notice();
        if let Some(id) = self.closing
            && self.pending == 1
        {
            self.closing = None;
            self.answer(id, Ok(Reply::Ok));
            let open: Vec<_> = self
                .nodes
                .iter()
                .filter_map(|(_, node)| node.attempt())
                .collect();
            self.turn
                .actions
                .extend(open.into_iter().map(Action::Close));
            self.turn.ended = true;
        }
    }

    /// Notifies listeners of changes.
    fn notice(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let circuit = self.current_circuit();
        if circuit != std::mem::replace(&mut self.circuit, circuit) {
            self.turn.notices.push(Notice::Circuit(circuit));
        }
        let ready = self.is_ready();
        if ready != std::mem::replace(&mut self.ready, ready) {
            let notice = if ready {
                Notice::Ready
            } else {
                Notice::Reconnecting
            };
            self.turn.notices.push(notice);
        }
    }

    /// The counters so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats.clone();
        for (_, node) in self.nodes.iter() {
            stats.traffic += node.traffic;
        }
        stats
    }
}
