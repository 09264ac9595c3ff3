//! The one place that knows how Redis is run. Everything above sees a [`Connection`].

mod standalone;
mod stream;
mod tls;

use std::{future::Future, sync::Arc};

use redis::{Pipeline, Value};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    command::Command,
    config::Config,
    error::{Error, ErrorCode},
};
use standalone::Standalone;

/// Resolves, in whichever way, when the connection it came with is gone.
pub type Closed = oneshot::Receiver<()>;

/// An open connection. Dropping it closes it.
pub enum Connection {
    /// One server.
    Standalone(Standalone),
}

/// The raw replies to a chunk, in the order of its commands.
pub type Replies = Result<Vec<Value>, Error>;

impl Connection {
    /// Opens a connection within `connect_timeout` and sees it answer. `predecessor` is the id
    /// that the server gave to the connection before this one: commands of it that the server has
    /// not read yet must not run after the first of ours, so it is killed first.
    pub async fn open(
        config: Arc<Config>,
        predecessor: Option<i64>,
    ) -> Result<(Self, Closed), Error> {
        let opened = timeout(
            config.connect_timeout,
            Standalone::open(&config, predecessor),
        )
        .await;
        match opened {
            Ok(Ok((connection, closed))) => Ok((Self::Standalone(connection), closed)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(
                ErrorCode::Connect,
                format!(
                    "Redis at {} did not accept a connection within {} ms; check that it runs, can be reached and is not overloaded.",
                    config.endpoint,
                    config.connect_timeout.as_millis()
                ),
            )),
        }
    }

    /// Sends `commands` as one pipeline. They are queued for the wire when the returned future is
    /// first polled, and pipelines keep the order of that.
    pub fn run(
        &self,
        commands: &mut dyn Iterator<Item = &Command>,
    ) -> impl Future<Output = Replies> + Send + use<> {
        let mut pipeline = Pipeline::new();
        for command in commands {
            command.append_to(&mut pipeline);
        }
        match self {
            Self::Standalone(connection) => connection.run(pipeline),
        }
    }

    /// The id that the server gave to this connection, if it tells.
    pub fn id(&self) -> Option<i64> {
        match self {
            Self::Standalone(connection) => connection.id(),
        }
    }
}
