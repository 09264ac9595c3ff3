//! Handles replies: they answer a request, redirect it, make it wait, or contain the time to live of a session.

use std::time::{Duration, Instant};

use redis::Value;

use super::{
    Completion, Connection, Core, Work,
    parked::Order,
    request::{Expired, Job, ReplyTo},
};
use crate::{
    command::{Command, Kind, Reply},
    config::{REDIRECTIONS_MAX, Servers},
    connection::{
        Named,
        cluster::{self, Redirection, redirection},
        reader::{Frame, REPLY_MAX_BYTES},
    },
    error::{Error, ErrorCode},
    marker::Mode,
    mutation::{Mutation, is_active},
};

impl Core {
    /// `count` bytes were read into [`Core::room`].
    pub fn on_read(&mut self, connection: Connection, count: usize, now: Instant) {
        if !self.is_open(connection) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(connection.node) {
            node.filled(count, now);
        }
        let mut given_up = None;
        while let Some(node) = self.nodes.get_mut(connection.node)
            && node.connection() == Some(connection)
        {
            match node.next_reply() {
                Ok(Some((job, Frame::Value(value), asking_error))) => {
                    self.on_reply(connection, job, value, asking_error, now, &mut given_up);
                }
                Ok(Some((job, Frame::TooLarge, _))) => {
                    let error = too_large(job.command.name());
                    self.replied(&job, Err(error), now);
                }
                Ok(None) => break,
                Err(error) => return self.lose(connection.node, &error, now),
            }
        }
        if let Some(error) = given_up
            && self.is_open(connection)
        {
            self.lose(connection.node, &error, now);
        }
    }

    /// Answers `job` with `value`, or sends it to another node, or again later.
    fn on_reply(
        &mut self,
        connection: Connection,
        mut job: Job,
        value: Value,
        asking_error: Option<Error>,
        now: Instant,
        given_up: &mut Option<Error>,
    ) {
        if matches!(job.reply_to, ReplyTo::Discovery) {
            return self.on_map(connection, &job, &value, now);
        }
        let refusal = match &value {
            Value::ServerError(error) => {
                let node = self.nodes.get(connection.node);
                redirection(error, node.and_then(|node| node.target.endpoint()))
            }
            _ => None,
        };
        let outcome = job.command.reply(value);
        if let (Some(error), Err(_)) = (asking_error, &outcome)
            && job.asking
            && !is_active(Mutation::AskingErrorsAreIgnored)
        {
            return self.replied(&job, Err(error), now);
        }
        match (outcome, refusal) {
            // This and every later reply may belong to another command.
            (Err(error), _) if error.code == ErrorCode::Decode => {
                self.replied(&job, Err(error), now);
                self.lose_as_not_redis(connection, now);
            }
            (Err(error), refusal) => {
                if job.command.try_another_way(&error) && !job.is_expired() {
                    return self.park(job, now);
                }
                let refusal = refusal.and_then(|refusal| self.applicable(refusal));
                match refusal {
                    Some(_) if job.is_expired() => {}
                    // A new connection would not help.
                    Some(Redirection::AuthLost)
                        if given_up.is_none() && !self.may_be_given_up(connection, now) =>
                    {
                        self.replied(&job, Err(error), now);
                    }
                    Some(refusal) => self.refused(connection, job, refusal, error, now, given_up),
                    None => self.replied(&job, Err(error), now),
                }
            }
            (outcome, _) => self.executed(job, outcome, now),
        }
    }

    fn lose_as_not_redis(&mut self, connection: Connection, now: Instant) {
        if let Some(node) = self.nodes.get(connection.node) {
            let name = Named(&node.target, &self.config).to_string();
            self.lose(connection.node, &Error::not_redis(&name), now);
        }
    }

    /// A command was executed, possibly before an earlier one of its session that will be sent again.
    fn executed(&mut self, mut job: Job, outcome: Result<Reply, Error>, now: Instant) {
        if !self.parked.is_empty() {
            let (order, undoing) = self.parked.executed(&job, has_written(&job, &outcome));
            for job in undoing {
                self.replied(&job, Err(overtaken()), now);
            }
            if matches!(order, Order::ReadAgain)
                && !job.is_expired()
                && job.refusals < REDIRECTIONS_MAX
            {
                job.refusals += 1;
                return self.park(job, now);
            }
        }
        self.remember(&job, &outcome);
        let outcome = match (&job.command, outcome) {
            // Zero for a missing entry, by the reply to HEXISTS. If HEXISTS was refused, writing the entry
            // fails too.
            (Command::Save(_), Ok(Reply::Ok)) if job.first_reply != Some(1) => Ok(Reply::Count(0)),
            (_, outcome) => outcome,
        };
        self.replied(&job, outcome, now);
        self.spare.keep(job);
    }

    /// The meaning of a refusal in this topology.
    fn applicable(&self, refusal: Redirection) -> Option<Redirection> {
        match (refusal, &self.config.servers) {
            (Redirection::Demoted, Servers::Cluster(_)) => Some(Redirection::Later),
            (
                Redirection::Moved(_) | Redirection::Ask(_),
                Servers::One(_) | Servers::Sentinel(_),
            ) => None,
            (Redirection::AuthLost, _) if self.config.credentials_source.is_none() => None,
            (refusal, _) => Some(refusal),
        }
    }

    fn may_be_given_up(&mut self, connection: Connection, now: Instant) -> bool {
        let node = self.nodes.get_mut(connection.node);
        node.is_some_and(|node| node.may_be_given_up(now))
    }

    /// Sends `job`, which was not executed, to the node that `refusal` names, or again after a pause.
    fn refused(
        &mut self,
        connection: Connection,
        mut job: Job,
        refusal: Redirection,
        error: Error,
        now: Instant,
        given_up: &mut Option<Error>,
    ) {
        let is_redirected = matches!(refusal, Redirection::Moved(_) | Redirection::Ask(_));
        let is_counted = !is_active(Mutation::RedirectionsAreNotCounted);
        if is_redirected && is_counted && job.refusals >= REDIRECTIONS_MAX {
            return self.replied(&job, Err(error), now);
        }
        // The first redirection is followed at once, later ones after a pause, since they may repeat forever.
        let pause = match job.refusals {
            0 | 1 if is_redirected => Duration::ZERO,
            _ if is_redirected && !is_counted => Duration::ZERO,
            refusals => Self::pause(refusals),
        };
        job.refusals = job.refusals.saturating_add(1);
        let not_before = now + pause;
        match refusal {
            Redirection::Moved(endpoint) => {
                if !self.slot_moved(job.slot, endpoint, now) {
                    return self.replied(&job, Err(error), now);
                }
            }
            Redirection::Ask(endpoint) if pause.is_zero() && !self.parked.holds(&job) => {
                let Some(node) = self.node_at(endpoint, now) else {
                    return self.replied(&job, Err(error), now);
                };
                job.asking = true;
                job.refusal = Some(Box::new(error));
                if let Some(node) = self.nodes.get_mut(node) {
                    node.enqueue(job);
                }
                return;
            }
            // After a pause, or behind earlier requests of its slot, it is sent to the owner again.
            Redirection::Ask(_) => {}
            Redirection::Later => self.request_map(true, now),
            // The name, or the sentinels, may now lead to another server.
            Redirection::Demoted => {
                if self.may_be_given_up(connection, now) {
                    *given_up = Some(error.clone());
                }
            }
            Redirection::AuthLost => *given_up = Some(error.clone()),
        }
        job.refusal = Some(Box::new(error));
        self.park(job, not_before);
    }

    /// A connected node has replied with the map.
    fn on_map(&mut self, connection: Connection, job: &Job, value: &Value, now: Instant) {
        let node = self.nodes.get(connection.node);
        let Some(endpoint) = node.and_then(|node| node.target.endpoint()).cloned() else {
            return;
        };
        let answer = match value {
            Value::ServerError(error) => Err(Error::server(job.command.name(), error, &[])),
            value => cluster::read_map(value, &endpoint),
        };
        self.node_discovered(answer, now);
    }

    /// Answers `job`, whose reply arrived by `now`.
    pub(super) fn replied(&mut self, job: &Job, outcome: Result<Reply, Error>, now: Instant) {
        if !job.is_expired() {
            let timeout = self.config.command_timeout;
            self.stats.took(job.deadline, now + timeout);
        }
        self.finish(job, outcome);
    }

    /// Answers `job`.
    pub(super) fn finish(&mut self, job: &Job, outcome: Result<Reply, Error>) {
        if matches!(job.reply_to, ReplyTo::Caller(_) | ReplyTo::Task { .. }) {
            self.stats.count(job.command.kind(), &outcome);
        }
        self.reply(job.reply_to, outcome);
    }

    /// Fails a request that has timed out.
    pub(super) fn finish_expired(&mut self, expired: &Expired, error: Error, now: Instant) {
        let outcome = Err(error);
        if !matches!(expired.reply_to, ReplyTo::Discovery) {
            self.stats.count(expired.kind, &outcome);
            let timeout = self.config.command_timeout;
            self.stats.took(expired.deadline, now + timeout);
        }
        self.reply(expired.reply_to, outcome);
    }

    pub(super) fn reply(&mut self, reply_to: ReplyTo, outcome: Result<Reply, Error>) {
        match reply_to {
            ReplyTo::Caller(id) => self.answer(id, outcome),
            ReplyTo::Task { task, part } => self.parts.push_back((task, part, outcome)),
            ReplyTo::Discovery => {
                if let Err(error) = outcome {
                    self.failed_map = Some(error);
                }
            }
            ReplyTo::Expired => {}
        }
    }

    pub(super) fn answer(&mut self, id: u32, outcome: Result<Reply, Error>) {
        self.pending = self.pending.saturating_sub(1);
        self.turn.completions.push(Completion { id, outcome });
    }

    /// Answers a request that sent no command.
    pub(super) fn answer_work(&mut self, id: u32, work: &Work, outcome: Result<Reply, Error>) {
        let kind = match work {
            Work::Command(command) => Some(command.kind()),
            Work::Keyspace(_) => Some(Kind::Scan),
            Work::Merge(..) | Work::SignIn(_) => Some(Kind::EvalSha),
            Work::Save(_) => Some(Kind::Set),
            Work::Revoke { .. } => Some(Kind::Del),
            Work::Refused(_) => None,
        };
        if let Some(kind) = kind {
            self.stats.count(kind, &outcome);
        }
        self.answer(id, outcome);
    }

    /// The time at which the request of `job` was made.
    pub(super) fn asked_at(&self, job: &Job) -> Option<Instant> {
        job.deadline.checked_sub(self.config.command_timeout)
    }

    /// The time of the request, and the earliest time at which its session expires, if the command or the reply
    /// to its PTTL contains an expiry.
    pub(super) fn expires(&self, job: &Job) -> Option<(Instant, Instant)> {
        let expire_ms = match &job.command {
            Command::Expire { expire_ms, .. } => u64::try_from(*expire_ms).ok()?,
            Command::Set { expiry, .. } => expiry.milliseconds()?,
            Command::Swap(swap) => swap.expiry.milliseconds()?,
            Command::Restore(restore) if restore.mode != Mode::Ask => {
                restore.expiry.milliseconds()?
            }
            Command::Save(save) => save.expiry.milliseconds()?,
            Command::User(call) if call.writes_session() => call.expiry.milliseconds()?,
            Command::Get { .. } => u64::try_from(job.first_reply?).ok()?,
            _ => return None,
        };
        let asked = self.asked_at(job)?;
        let expires = asked.checked_add(Duration::from_millis(expire_ms))?;
        Some((asked, expires))
    }

    /// Stores the time to live in a reply.
    fn remember(&mut self, job: &Job, outcome: &Result<Reply, Error>) {
        if self.config.touch_after.is_zero() {
            return;
        }
        let Some(key) = job.command.key() else {
            return;
        };
        if matches!(&job.command, Command::User(call) if !call.writes_session())
            || matches!(job.command, Command::HExists { .. })
        {
            return;
        }
        match (outcome, self.expires(job)) {
            (Ok(Reply::Marker { .. }), _) => {}
            (Ok(Reply::Ok | Reply::Count(1)), Some((asked, expires))) => {
                self.touches.refreshed(key, expires, asked);
            }
            // A sign-in.
            (Ok(Reply::Count(2..)), Some((asked, expires))) => {
                self.touches.refreshed(key, expires, asked);
            }
            (Ok(Reply::Text(_)), Some((asked, expires))) if job.first_reply.is_some() => {
                self.touches.found(key, expires, asked);
            }
            (Ok(Reply::Nil | Reply::Count(0)), _) => self.touches.forget(key),
            // The key has no expiry.
            (Ok(_), None) if job.first_reply.is_some() => self.touches.forget(key),
            // Destroyed, or written with its former expiry: forget an earlier touch.
            (Ok(_), None) if job.command.written_key().is_some() => self.touches.forget(key),
            _ => {}
        }
    }
}

/// Whether `job`, if it is a write, has written: its condition was met.
fn has_written(job: &Job, outcome: &Result<Reply, Error>) -> bool {
    match (&job.command, outcome) {
        (_, Ok(Reply::Nil | Reply::Text(_) | Reply::Marker { .. })) => false,
        // The user has as many sessions as there may be.
        (Command::User(_), Ok(Reply::Count(0))) => false,
        _ => true,
    }
}

fn overtaken() -> Error {
    Error::new(
        ErrorCode::Connect,
        "Redis did not execute this write, and then executed a later one of the same session; the write is not repeated, since it would undo the later one.",
    )
}

fn too_large(command: &str) -> Error {
    Error::new(
        ErrorCode::Decode,
        format!(
            "Redis answered {command} with more than {REPLY_MAX_BYTES} bytes; check the values of these keys."
        ),
    )
}
