//! A connection's life: opened at once, lost, opened again for ever, ever more slowly.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    config::{Config, RECONNECT_MAX, RECONNECT_MIN},
    connection::{self, Closed, Connection, Identity, Named, Target},
    error::{Error, ErrorCode},
};

type Opening = BoxFuture<'static, Result<(Connection, Closed), Error>>;

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
}

enum State {
    Down(Pin<Box<Sleep>>),
    Opening(Opening),
    Up(Connection, Closed),
    /// Nobody needs it.
    Retired,
}

/// What happened to the connection.
pub(super) enum LinkEvent {
    Opened,
    Lost,
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
        };
        link.open();
        link
    }

    fn open(&mut self) {
        let config = Arc::clone(&self.config);
        let attempt = connection::open(config, self.target.clone(), self.predecessor.clone());
        self.state = State::Opening(attempt.boxed());
    }

    /// The connection, if there is one.
    pub(super) fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Up(connection, _) => Some(connection),
            _ => None,
        }
    }

    /// The next thing that happens, taken into account.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        loop {
            match &mut self.state {
                State::Down(until) => {
                    ready!(until.as_mut().poll(cx));
                    self.open();
                }
                State::Opening(attempt) => match ready!(attempt.as_mut().poll(cx)) {
                    Ok((connection, closed)) => {
                        self.error = None;
                        self.predecessor = None;
                        self.state = State::Up(connection, closed);
                        return Poll::Ready(LinkEvent::Opened);
                    }
                    Err(error) => {
                        self.lost(error.clone());
                        return Poll::Ready(LinkEvent::Failed(error));
                    }
                },
                State::Up(_, closed) => {
                    let _ = ready!(closed.poll_unpin(cx));
                    return Poll::Ready(LinkEvent::Lost);
                }
                State::Retired => return Poll::Pending,
            }
        }
    }

    /// The connection gave a reply: the next failure is the first one again.
    pub(super) fn proved(&mut self) {
        self.failures = 0;
    }

    /// Closes the connection, if there is one, because of `error`, and plans the next attempt.
    pub(super) fn lost(&mut self, error: Error) {
        if let State::Up(connection, _) = &self.state {
            self.predecessor = connection.identity().cloned();
        }
        self.error = Some(error);
        let until = Instant::now() + backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down(Box::pin(sleep_until(until)));
    }

    /// Closes the connection for as long as nobody needs it.
    pub(super) fn retire(&mut self) {
        self.state = State::Retired;
    }

    /// Opens a retired connection again.
    pub(super) fn revive(&mut self) {
        if matches!(self.state, State::Retired) {
            self.open();
        }
    }

    /// Why requests got no answer, if it is for want of a connection.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// The loss of the connection, as the requests on it are told.
    pub(super) fn closed_by_server(&self) -> Error {
        Error::new(
            ErrorCode::Connect,
            format!(
                "Redis at {} closed the connection before the reply came.",
                Named(&self.target, &self.config)
            ),
        )
    }

    /// Why a request that ran into its deadline got no answer.
    pub(super) fn too_late(&self) -> Error {
        let named = Named(&self.target, &self.config);
        if self.connection().is_some() {
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
    let why = last.map_or_else(String::new, |error| format!(" {}", error.message));
    let error = Error::new(
        last.map_or(ErrorCode::Connect, |error| error.code),
        format!("No connection to Redis at {name} within {waited} ms.{why}"),
    );
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
