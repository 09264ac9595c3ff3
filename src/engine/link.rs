//! A connection's life: opened at once, lost, opened again for ever, ever more slowly. And the
//! circuit breaker over it: what has not answered for long is not waited for.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Circuit;
use crate::{
    config::{Config, RECONNECT_MAX, RECONNECT_MIN},
    connection::{self, Connection, Identity, Moved, Named, Target, Traffic},
    error::{Error, ErrorCode},
};

type Opening = BoxFuture<'static, Result<Connection, Error>>;

/// One connection, or the next attempt at it.
pub(super) struct Link {
    config: Arc<Config>,
    target: Target,
    state: State,
    /// Attempts since a connection last gave a reply.
    failures: u32,
    /// Why there is no connection.
    error: Option<Error>,
    /// The connection that we gave up and that the server may still read from.
    predecessor: Option<Identity>,
    /// Since when there is no connection, if there is none.
    down_since: Option<Instant>,
    /// The circuit is open: nobody is to wait for the next connection.
    refusing: bool,
    /// What has moved on connections that are no more.
    past: Traffic,
}

enum State {
    Down(Pin<Box<Sleep>>),
    Opening(Opening),
    Up(Box<Connection>),
    /// Nobody needs it.
    Retired,
}

/// What happened to the connection.
pub(super) enum LinkEvent {
    Tried,
    Opened,
    Moved(Moved),
    Lost(Error),
    Failed(Error),
}

impl Link {
    pub(super) fn new(config: Arc<Config>, target: Target) -> Self {
        let mut link = Self {
            config,
            target,
            state: State::Retired,
            failures: 0,
            error: None,
            predecessor: None,
            down_since: None,
            refusing: false,
            past: Traffic::default(),
        };
        link.revive();
        link
    }

    fn open(&mut self) {
        let config = Arc::clone(&self.config);
        let attempt = connection::open(config, self.target.clone(), self.predecessor.clone());
        self.state = State::Opening(attempt.boxed());
    }

    /// The connection, if there is one.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Up(connection) => Some(connection),
            _ => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether the connection, if anybody needs one, is up and has nothing left to write.
    pub(super) fn is_calm(&self) -> bool {
        match &self.state {
            State::Up(connection) => connection.is_flushed(),
            State::Retired => true,
            State::Down(_) | State::Opening(_) => false,
        }
    }

    /// Writes as much as the system takes now. What it does not take, and an error, are for
    /// [`Self::poll_event`].
    pub(super) fn write_now(&mut self) {
        if let State::Up(connection) = &mut self.state {
            let _ = connection.poll(&mut Context::from_waker(Waker::noop()), false);
        }
    }

    /// The next thing that happens, taken into account but for a loss. Nothing is read unless
    /// `reading`.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<LinkEvent> {
        match &mut self.state {
            State::Down(until) => {
                ready!(until.as_mut().poll(cx));
                self.open();
                Poll::Ready(LinkEvent::Tried)
            }
            State::Opening(attempt) => match ready!(attempt.as_mut().poll(cx)) {
                Ok(connection) => {
                    self.error = None;
                    self.predecessor = None;
                    self.down_since = None;
                    self.refusing = false;
                    self.state = State::Up(Box::new(connection));
                    Poll::Ready(LinkEvent::Opened)
                }
                Err(error) => {
                    // Credentials do not get better by waiting.
                    self.lost(error.clone(), error.code != ErrorCode::Connect);
                    Poll::Ready(LinkEvent::Failed(error))
                }
            },
            State::Up(connection) => match ready!(connection.poll(cx, reading)) {
                Ok(moved) => Poll::Ready(LinkEvent::Moved(moved)),
                Err(error) => Poll::Ready(LinkEvent::Lost(error)),
            },
            State::Retired => Poll::Pending,
        }
    }

    /// The connection gave a reply: the next failure is the first one again.
    pub(super) fn proved(&mut self) {
        self.failures = 0;
    }

    /// Closes the connection, if there is one, because of `error`, and plans the next attempt.
    /// `hopeless` opens the circuit at once.
    pub(super) fn lost(&mut self, error: Error, hopeless: bool) {
        self.past = self.traffic();
        if let State::Up(connection) = &self.state {
            self.predecessor = connection.identity().cloned();
        }
        self.error = Some(error);
        self.down_since.get_or_insert_with(Instant::now);
        self.refusing |= hopeless;
        let until = Instant::now() + backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down(Box::pin(sleep_until(until)));
    }

    /// Closes the connection for as long as nobody needs it.
    pub(super) fn retire(&mut self) {
        self.past = self.traffic();
        self.state = State::Retired;
        self.down_since = None;
        self.refusing = false;
    }

    /// Opens a retired connection again.
    pub(super) fn revive(&mut self) {
        if matches!(self.state, State::Retired) {
            self.down_since = Some(Instant::now());
            self.open();
        }
    }

    /// What has moved on all of its connections.
    pub(super) fn traffic(&self) -> Traffic {
        let mut traffic = self.past;
        if let State::Up(connection) = &self.state {
            traffic += connection.traffic();
        }
        traffic
    }

    pub(super) fn circuit(&self) -> Circuit {
        match self.state {
            _ if !self.refusing => Circuit::Closed,
            State::Opening(_) => Circuit::HalfOpen,
            _ => Circuit::Open,
        }
    }

    /// When the circuit opens, unless there is a connection before.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        let since = self.down_since.filter(|_| !self.refusing)?;
        Some(since + self.config.command_timeout)
    }

    /// Opens the circuit if it is time, and says whether it is open.
    pub(super) fn refuses(&mut self, now: Instant) -> bool {
        self.refusing |= self.opens_at().is_some_and(|at| at <= now);
        self.refusing
    }

    /// What a request is told that is not sent because the circuit is open.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.refusing.then(|| {
            let name = Named(&self.target, &self.config).to_string();
            refused(&name, self.error.as_ref())
        })
    }

    /// Why requests got no answer, if it is for want of a connection.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Why a request that ran into its deadline got no answer.
    pub(super) fn too_late(&self) -> Error {
        let named = Named(&self.target, &self.config);
        if self.is_up() {
            let waited = self.config.command_timeout.as_millis();
            return Error::new(
                ErrorCode::Timeout,
                format!(
                    "Redis at {named} did not answer within {waited} ms (option \"commandTimeoutMs\")."
                ),
            );
        }
        no_connection(&named.to_string(), &self.config, self.error.as_ref())
    }
}

/// There was no connection to `name` before the deadline, last because of `last`.
pub(super) fn no_connection(name: &str, config: &Config, last: Option<&Error>) -> Error {
    let waited = config.command_timeout.as_millis();
    because(
        &format!("No connection to Redis at {name} within {waited} ms."),
        last,
    )
}

/// Nobody is to wait for `name`, last because of `last`.
pub(super) fn refused(name: &str, last: Option<&Error>) -> Error {
    because(
        &format!("Redis at {name} does not answer; requests are refused until it does."),
        last,
    )
}

fn because(what: &str, last: Option<&Error>) -> Error {
    let why = last.map_or_else(String::new, |error| format!(" {}", error.message));
    let code = match last.map(|error| error.code) {
        None | Some(ErrorCode::Timeout) => ErrorCode::Connect,
        Some(code) => code,
    };
    let error = Error::new(code, format!("{what}{why}"));
    match last.and_then(|error| error.cause.clone()) {
        Some(cause) => error.caused_by(cause),
        None => error,
    }
}

/// Full jitter: anything up to the doubled delay, so that a fleet does not come back in step.
fn backoff(failures: u32) -> Duration {
    let ceiling = RECONNECT_MIN
        .saturating_mul(1 << failures.min(10))
        .min(RECONNECT_MAX);
    ceiling.mul_f64(fastrand::f64()).max(RECONNECT_MIN / 10)
}

#[cfg(test)]
mod tests {
    use super::{RECONNECT_MAX, RECONNECT_MIN, backoff};

    #[test]
    fn the_delay_grows_to_its_cap_and_no_further() {
        for failures in [0, 1, 5, 31, u32::MAX] {
            for _ in 0..100 {
                let delay = backoff(failures);
                assert!(delay >= RECONNECT_MIN / 10 && delay <= RECONNECT_MAX);
            }
        }
        assert!((0..100).any(|_| backoff(20) > RECONNECT_MAX / 2));
        assert!((0..100).all(|_| backoff(0) <= RECONNECT_MIN));
    }
}
