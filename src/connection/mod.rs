//! The only module that knows the topology of Redis: the server of a connection, and how it is found. All other
//! modules see an open [`Stream`] to one server.

pub mod cluster;
pub mod reader;
mod sentinel;
mod standalone;
pub mod stream;
mod tls;

use std::{fmt, sync::Arc};

use tokio::time::timeout;

use crate::{
    config::{Config, Endpoint, Servers},
    error::{Error, ErrorCode},
};
pub use sentinel::KnownSentinels;
use standalone::{Connection, Login};
pub use standalone::{Identity, Opened, Traffic};
use stream::Stream;
pub use tls::roots;

/// The target of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// This server.
    Server(Endpoint),
    /// The master that the sentinels name.
    Master,
}

impl Target {
    /// The server, if it is known.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Server(endpoint) => Some(endpoint),
            Self::Master => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(endpoint) => endpoint.fmt(f),
            Self::Master => f.write_str("the master"),
        }
    }
}

/// Opens a connection within `connect_timeout` and waits for its first reply. `predecessor` is the previous
/// connection. It is killed first, so that its unread commands cannot run after our first one.
pub async fn open(
    config: Arc<Config>,
    target: Target,
    predecessor: Option<Identity>,
) -> Result<(Stream, Opened), Error> {
    let limit = config.connect_timeout;
    let opened = match (&target, &config.servers) {
        (Target::Server(endpoint), _) => {
            let opening = async {
                let login = Login::of(&config).await?;
                Connection::open(endpoint, &login, &config, predecessor.as_ref()).await
            };
            let opened = timeout(limit, opening).await;
            opened.unwrap_or_else(|_| Err(not_accepted(endpoint, &config)))
        }
        (Target::Master, Servers::Sentinel(settings)) => {
            let mut attempt = sentinel::Attempt::new(settings, &config, predecessor.as_ref());
            let opened = timeout(limit, attempt.run()).await;
            let opened = opened.unwrap_or_else(|_| Err(attempt.error()));
            opened.inspect(|_| sentinel::watch(&config))
        }
        (Target::Master, _) => Err(Error::new(
            ErrorCode::Options,
            "The options name no sentinel.",
        )),
    }?;
    let name = opened.endpoint().to_owned();
    let (mut stream, opened) = opened.into_parts()?;
    if config.watched {
        let watched = stream.watch();
        watched.map_err(|error| Error::io(&Named(&target, &config).to_string(), &error))?;
    }
    if let (Target::Master, Servers::Sentinel(settings)) = (&target, &config.servers)
        && let Some(socket) = stream.socket()
    {
        settings.known.connected(name, socket);
    }
    Ok((stream, opened))
}

fn not_accepted(endpoint: &Endpoint, config: &Config) -> Error {
    let limit = config.connect_timeout.as_millis();
    Error::new(
        ErrorCode::Connect,
        format!(
            "Redis at {endpoint} did not accept a connection within {limit} ms; check that it runs, can be reached and is not overloaded."
        ),
    )
}

/// Displays a target in messages.
pub struct Named<'a>(pub &'a Target, pub &'a Config);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Target::Server(endpoint) => endpoint.fmt(f),
            Target::Master => self.1.servers.fmt(f),
        }
    }
}
