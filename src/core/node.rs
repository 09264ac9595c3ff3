//! One server: its connection, the requests that wait for it, and those on the wire.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::{
    Circuit, Connection,
    backoff::Backoff,
    breaker::CircuitBreaker,
    in_flight::InFlight,
    parked::Parked,
    request::{self, Expired, Job, ReplyTo},
};
use crate::{
    command::{Command, SwapBy},
    config::{
        Config, IN_FLIGHT, RECONNECT_MAX, RECONNECT_MIN, REFUSAL_RECONNECT, SILENCE_GRACE,
        WRITE_AHEAD_BYTES,
    },
    connection::{
        Identity, Named, Opened, Target, Traffic,
        reader::{Frame, Reader},
    },
    error::{Error, ErrorCode},
    mutation::{Mutation, is_active},
};

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

pub(super) struct Node {
    pub(super) target: Target,
    state: State,
    pub(super) queue: VecDeque<Job>,
    pub(super) flight: InFlight,
    reader: Reader,
    /// The output; bytes from `sent` on are not written yet.
    out: Vec<u8>,
    sent: usize,
    /// The number of bytes encoded on this connection.
    encoded: u64,
    written: u64,
    backoff: Backoff,
    pub(super) breaker: CircuitBreaker,
    /// The reason why there is no connection.
    pub(super) error: Option<Error>,
    last_attempt: Option<Instant>,
    /// When a connection was last given up because its server is a replica or no longer accepts the login.
    refused_at: Option<Instant>,
    /// When bytes were last received; used only by a mutation.
    pub(super) read_at: Option<Instant>,
    /// The connection that was given up; the server may still execute its commands.
    predecessor: Option<Identity>,
    identity: Option<Identity>,
    /// The server has `SET … IFEQ`.
    compares: bool,
    /// It was connected before.
    pub(super) was_up: bool,
    pub(super) traffic: Traffic,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down { retry_at: Instant },
    Opening(Connection),
    Up(Connection),
}

impl Node {
    /// A server to connect to at once.
    pub(super) fn new(target: Target, now: Instant) -> Self {
        let mut breaker = CircuitBreaker::default();
        breaker.fail(now);
        Self {
            target,
            state: State::Down { retry_at: now },
            queue: VecDeque::new(),
            flight: InFlight::default(),
            reader: Reader::default(),
            out: Vec::new(),
            sent: 0,
            encoded: 0,
            written: 0,
            backoff: Backoff::default(),
            breaker,
            error: None,
            last_attempt: None,
            refused_at: None,
            read_at: None,
            predecessor: None,
            identity: None,
            compares: false,
            was_up: false,
            traffic: Traffic::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    pub(super) fn connection(&self) -> Option<Connection> {
        match self.state {
            State::Up(connection) => Some(connection),
            _ => None,
        }
    }

    /// The connection that is open or being opened.
    pub(super) fn attempt(&self) -> Option<Connection> {
        match self.state {
            State::Up(connection) | State::Opening(connection) => Some(connection),
            State::Down { .. } => None,
        }
    }

    pub(super) fn circuit(&self) -> Circuit {
        let is_trying = matches!(self.state, State::Opening(_));
        self.breaker.circuit(is_trying)
    }

    /// When the next attempt to connect is due.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.state {
            State::Down { retry_at } => Some(retry_at),
            _ => None,
        }
    }

    /// An attempt to connect begins. Returns the connection to kill before the new one serves.
    pub(super) fn opening(&mut self, connection: Connection, now: Instant) -> Option<Identity> {
        self.state = State::Opening(connection);
        self.last_attempt = Some(now);
        self.predecessor.clone()
    }

    /// The connection is open.
    pub(super) fn opened(&mut self, connection: Connection, opened: Opened) {
        self.state = State::Up(connection);
        self.identity = opened.identity;
        self.compares = opened.compares;
        self.traffic += opened.traffic;
        self.predecessor = None;
        self.error = None;
        self.breaker.close();
    }

    /// Whether a connection that refuses requests may be given up now: often enough to find a new master or to
    /// log in again, but not so often that its other requests suffer.
    pub(super) fn may_be_given_up(&mut self, now: Instant) -> bool {
        let may = self
            .refused_at
            .is_none_or(|at| now >= at + REFUSAL_RECONNECT);
        if may {
            self.refused_at = Some(now);
        }
        may
    }

    /// Closes the connection or the attempt because of `error`, and schedules the next attempt. Requests that
    /// are safe to repeat are queued again, in their order and before all others; the rest is returned.
    pub(super) fn lose(
        &mut self,
        error: Error,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Vec<Job> {
        if self.is_up() {
            self.predecessor = self.identity.take().or(self.predecessor.take());
        }
        self.error = Some(error);
        self.breaker.fail(now);
        let delay = self
            .backoff
            .next_jittered(RECONNECT_MIN, RECONNECT_MAX, random);
        // A limit for servers that accept connections and close them at once.
        let soonest = self.last_attempt.map_or(now, |at| at + RECONNECT_MIN);
        let retry_at = if is_active(Mutation::ReconnectsAreNotLimited) {
            now
        } else {
            soonest.max(now + delay)
        };
        self.state = State::Down { retry_at };
        self.reader = Reader::default();
        self.out.clear();
        self.sent = 0;
        let written = std::mem::take(&mut self.written);
        self.encoded = 0;
        self.sort_out(written)
    }

    /// Queues the repeatable requests on the wire again.
    fn sort_out(&mut self, written: u64) -> Vec<Job> {
        let flown = self.flight.drain(written);
        let mut jobs: Vec<(Job, bool, bool)> = flown
            .map(|(job, is_written)| (job, true, is_written))
            .chain(self.queue.drain(..).map(|job| (job, false, false)))
            .collect();
        // A repeated request may be on the wire, or wait, behind later ones.
        jobs.sort_by_key(|(job, ..)| job.seq);
        // A write must not run after a later request that wrote the same key.
        let mut overwritten: HashSet<Vec<u8>> = HashSet::new();
        let mut refused = Vec::new();
        for (mut job, flown, is_written) in jobs.into_iter().rev() {
            let superseded = job
                .command
                .written_key()
                .is_some_and(|key| !overwritten.insert(key.to_vec()));
            if job.is_expired() {
                continue;
            }
            // Another node is asked for the map instead.
            if matches!(job.reply_to, ReplyTo::Discovery) {
                refused.push(job);
                continue;
            }
            if !flown {
                self.queue.push_front(job);
                continue;
            }
            let spends = is_written || is_active(Mutation::UnwrittenRequestsSpendTheirRetry);
            if spends && (job.retried || (superseded && job.command.undoes_later_writes())) {
                refused.push(job);
                continue;
            }
            if spends {
                job.retried = true;
                job.command.repeat();
            }
            self.queue.push_front(job);
        }
        if is_active(Mutation::LostRequestsAreRepeatedInReverse) {
            self.queue.make_contiguous().reverse();
        }
        refused
    }

    /// Queues `job` in the order of the requests, which is nearly always at the end.
    pub(super) fn enqueue(&mut self, job: Job) {
        let at = match self.queue.back() {
            Some(last) if last.seq > job.seq => {
                self.queue.partition_point(|other| other.seq < job.seq)
            }
            _ => self.queue.len(),
        };
        self.queue.insert(at, job);
    }

    /// Encodes queued commands up to the limit on the wire. Requests of a parked slot are parked too.
    pub(super) fn dispatch(&mut self, now: Instant, parked: &mut Parked) {
        if !self.is_up() {
            return;
        }
        while self.flight.len() < IN_FLIGHT && self.out.len() - self.sent < WRITE_AHEAD_BYTES {
            let Some(mut job) = self.queue.pop_front() else {
                return;
            };
            if !job.asking && parked.holds(&job) {
                parked.add(job);
                continue;
            }
            if job.asking {
                self.encode(ASKING);
                self.flight.push(None, now, self.encoded);
            }
            if let Command::Swap(swap) = &mut job.command
                && swap.by == SwapBy::Set
                && !self.compares
            {
                swap.by = SwapBy::EvalSha;
            }
            let before = self.out.len();
            if job.encode_first(&mut self.out) {
                let first = (self.out.len() - before) as u64;
                self.flight.push(None, now, self.encoded + first);
            }
            job.command.encode(&mut self.out);
            self.encoded += (self.out.len() - before) as u64;
            self.flight.push(Some(job), now, self.encoded);
        }
    }

    fn encode(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.encoded += bytes.len() as u64;
    }

    /// The bytes to write.
    pub(super) fn output(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// The first `count` bytes of [`Self::output`] were written.
    pub(super) fn wrote(&mut self, count: usize) {
        self.sent += count;
        self.written += count as u64;
        self.traffic.sent += count as u64;
        if self.sent < self.out.len() {
            return;
        }
        self.out.clear();
        self.sent = 0;
        // Idle stores do not keep the memory of a large session.
        if self.out.capacity() > 2 * WRITE_AHEAD_BYTES {
            self.out = Vec::new();
        }
    }

    /// The buffer to read into.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.reader.room()
    }

    /// `count` bytes were read into [`Self::room`].
    pub(super) fn filled(&mut self, count: usize, now: Instant) {
        self.read_at = Some(now);
        self.reader.filled(count);
        self.traffic.received += count as u64;
    }

    /// The next reply, its command, and the error reply to its ASKING. The job has the reply to a preceding PTTL.
    pub(super) fn next_reply(&mut self) -> Result<Option<(Job, Frame, Option<Error>)>, Error> {
        let not_redis = |node: &Self| Error::not_redis(&node.target.to_string());
        while let Some(frame) = self.reader.next_frame().map_err(|_| not_redis(self))? {
            if self.flight.expects_first() {
                match frame {
                    Frame::Value(redis::Value::ServerError(error)) => {
                        let error = Error::server("ASKING", &error, &[]);
                        self.flight.replied_first(Some(error), None);
                    }
                    Frame::Value(redis::Value::Int(first_reply)) => {
                        self.flight.replied_first(None, Some(first_reply));
                    }
                    _ => self.flight.replied_first(None, None),
                }
                continue;
            }
            let Some((job, asking_error)) = self.flight.pop() else {
                return Err(not_redis(self));
            };
            self.backoff.reset();
            return Ok(Some((job, frame, asking_error)));
        }
        Ok(None)
    }

    /// Gives up the connection, which was silent for `command_timeout`. The circuit opens unless a new
    /// connection is open soon, because new requests would wait as long.
    pub(super) fn silent(
        &mut self,
        error: Error,
        command_timeout: Duration,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Vec<Job> {
        let refused = self.lose(error, now, random);
        let already = command_timeout.saturating_sub(SILENCE_GRACE);
        self.breaker.failed_for(already, now);
        refused
    }

    /// Removes the requests whose deadline has passed.
    pub(super) fn expire(&mut self, now: Instant, expired: &mut Vec<Expired>) {
        for job in self.flight.jobs_mut() {
            if job.deadline <= now && !job.is_expired() {
                expired.push(job.expire());
            } else if is_active(Mutation::ExpiryStopsAtTheFirstWaiting) {
                break;
            }
        }
        let late = |job: &Job| job.deadline <= now;
        let queued = request::take(&mut self.queue, late);
        expired.extend(queued.into_iter().map(|mut job| job.expire()));
    }

    /// The earliest deadline of a request.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        let flying = self.flight.jobs().filter(|job| !job.is_expired());
        flying.chain(&self.queue).map(|job| job.deadline).min()
    }

    /// The error of a request that has timed out.
    pub(super) fn timeout_error(&self, config: &Config) -> Error {
        let name = Named(&self.target, config);
        if self.is_up() {
            let waited = config.command_timeout.as_millis();
            return Error::new(
                ErrorCode::Timeout,
                format!(
                    "Redis at {name} did not answer within {waited} ms (option \"commandTimeoutMs\"); check that it is not overloaded."
                ),
            );
        }
        Error::no_connection(
            &name.to_string(),
            config.command_timeout,
            self.error.as_ref(),
        )
    }

    /// The error of a request that is refused by an open circuit.
    pub(super) fn refusal(&self, config: &Config) -> Error {
        let name = Named(&self.target, config).to_string();
        Error::refused(&name, self.error.as_ref())
    }
}
