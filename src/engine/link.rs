//! The connection's life: opened at once, lost, opened again for ever, ever more slowly.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::{Instant, sleep_until};

use crate::{
    config::{Config, RECONNECT_MAX, RECONNECT_MIN},
    connection::{Closed, Connection},
    error::{Error, ErrorCode},
};

type Opening = BoxFuture<'static, Result<(Connection, Closed), Error>>;

/// Where the connection stands.
pub(super) enum Link {
    Down {
        until: Instant,
        past: Past,
    },
    Opening {
        attempt: Opening,
        past: Past,
    },
    Up {
        connection: Connection,
        closed: Closed,
        past: Past,
    },
}

/// What the next attempt must know of the ones before.
pub(super) struct Past {
    config: Arc<Config>,
    /// Attempts since a connection last gave a reply.
    failures: u32,
    error: Option<Error>,
    /// The id of the connection that we gave up and that the server may still read from.
    predecessor: Option<i64>,
}

/// What happened to the connection.
pub(super) enum LinkEvent {
    Opened,
    Lost,
    Failed(Error),
    Retry,
}

impl Link {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self::open(Past {
            config,
            failures: 0,
            error: None,
            predecessor: None,
        })
    }

    fn open(past: Past) -> Self {
        let attempt = Connection::open(Arc::clone(&past.config), past.predecessor).boxed();
        Self::Opening { attempt, past }
    }

    fn down(mut past: Past) -> Self {
        let until = Instant::now() + backoff(past.failures);
        past.failures = past.failures.saturating_add(1);
        Self::Down { until, past }
    }

    /// Waits for the next thing to happen, and takes it into account.
    pub(super) async fn event(&mut self) -> LinkEvent {
        match self {
            Self::Down { until, .. } => {
                sleep_until(*until).await;
                self.change(Self::open);
                LinkEvent::Retry
            }
            Self::Opening { attempt, .. } => match attempt.await {
                Ok((connection, closed)) => {
                    self.change(|mut past| {
                        past.error = None;
                        past.predecessor = None;
                        Self::Up {
                            connection,
                            closed,
                            past,
                        }
                    });
                    LinkEvent::Opened
                }
                Err(error) => {
                    self.lost(error.clone());
                    LinkEvent::Failed(error)
                }
            },
            Self::Up { closed, .. } => {
                let _ = closed.await;
                LinkEvent::Lost
            }
        }
    }

    /// The connection gave a reply: the next failure is the first one again.
    pub(super) fn proved(&mut self) {
        if let Self::Up { past, .. } = self {
            past.failures = 0;
        }
    }

    /// Closes the connection, if there is one, because of `error`, and plans the next attempt.
    pub(super) fn lost(&mut self, error: Error) {
        let predecessor = match self {
            Self::Up { connection, .. } => connection.id(),
            _ => None,
        };
        self.change(|mut past| {
            past.error = Some(error);
            past.predecessor = predecessor.or(past.predecessor);
            Self::down(past)
        });
    }

    /// Why a request that ran into its deadline got no answer.
    pub(super) fn too_late(&self, config: &Config) -> Error {
        let waited = config.command_timeout.as_millis();
        let endpoint = &config.endpoint;
        match self {
            Self::Up { .. } => Error::new(
                ErrorCode::Timeout,
                format!(
                    "Redis at {endpoint} did not answer within {waited} ms (option \"commandTimeoutMs\")."
                ),
            ),
            Self::Down { past, .. } | Self::Opening { past, .. } => {
                let last = past.error.as_ref();
                let why = last.map_or_else(String::new, |error| format!(" {}", error.message));
                let error = Error::new(
                    ErrorCode::Connect,
                    format!("No connection to Redis at {endpoint} within {waited} ms.{why}"),
                );
                match last.and_then(|error| error.cause.clone()) {
                    Some(cause) => error.caused_by(cause),
                    None => error,
                }
            }
        }
    }

    fn change(&mut self, next: impl FnOnce(Past) -> Self) {
        let (Self::Down { past, .. } | Self::Opening { past, .. } | Self::Up { past, .. }) = self;
        let past = Past {
            config: Arc::clone(&past.config),
            failures: past.failures,
            error: past.error.take(),
            predecessor: past.predecessor,
        };
        *self = next(past);
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
