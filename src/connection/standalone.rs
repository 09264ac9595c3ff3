//! A connection to one server while it is being opened: the login, and commands that are not about sessions.

mod login;

use std::ops::AddAssign;

use redis::{Pipeline, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    reader::{Frame, Reader},
    stream::{self, Stream},
};
use crate::{
    config::{Config, Endpoint},
    error::Error,
};
pub use login::{Identity, Login};

/// A connection before its handover to the driver. Dropping it closes it.
pub(super) struct Connection {
    stream: Stream,
    reader: Reader,
    endpoint: String,
    opened: Opened,
}

/// Facts about an open connection.
#[derive(Default)]
pub struct Opened {
    /// Its identity on the server.
    pub identity: Option<Identity>,
    /// The server has `SET … IFEQ`.
    pub compares: bool,
    /// Bytes of the login.
    pub traffic: Traffic,
}

/// Bytes that were sent and received, without TLS's overhead.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    /// To the server.
    pub sent: u64,
    /// From it.
    pub received: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
    }
}

impl Connection {
    /// Connects, authenticates, selects the database and waits for a reply. `predecessor` is killed first. If a
    /// proxy hangs up on some commands, only the necessary ones are sent.
    pub(super) async fn open(
        endpoint: &Endpoint,
        login: &Login<'_>,
        config: &Config,
        predecessor: Option<&Identity>,
    ) -> Result<Self, Error> {
        match Self::open_once(endpoint, login, config, predecessor).await {
            Err(error) if !login.is_bare && error == Error::closed_early(&endpoint.to_string()) => {
                let bare = Login {
                    is_bare: true,
                    ..login.clone()
                };
                let opened = Self::open_once(endpoint, &bare, config, None).await;
                opened.map_err(|_| error)
            }
            opened => opened,
        }
    }

    async fn open_once(
        endpoint: &Endpoint,
        login: &Login<'_>,
        config: &Config,
        predecessor: Option<&Identity>,
    ) -> Result<Self, Error> {
        let mut connection = Self {
            stream: stream::connect(endpoint, login.tls, login.addresses, config).await?,
            reader: Reader::default(),
            endpoint: endpoint.to_string(),
            opened: Opened::default(),
        };
        connection.log_in(login, predecessor).await?;
        Ok(connection)
    }

    /// Sends commands that are not about sessions and returns a reply for each.
    pub(super) async fn ask(&mut self, question: &Pipeline) -> Result<Vec<Value>, Error> {
        self.ask_with(question, &[]).await
    }

    /// The same, with arguments that must not appear in messages.
    async fn ask_with(
        &mut self,
        question: &Pipeline,
        secrets: &[&[u8]],
    ) -> Result<Vec<Value>, Error> {
        let bytes = question.get_packed_pipeline();
        let mut replies = Vec::with_capacity(question.len());
        let lost = |replies: &[Value], connection: &Self| {
            connection.closed_early(replies.first(), secrets)
        };
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        // A server may give the reason before it closes a refused connection.
        let sent = sent.await.is_ok();
        self.opened.traffic.sent += bytes.len() as u64;
        while replies.len() < question.len() {
            match self.next_reply()? {
                Some(Frame::Value(value)) => replies.push(value),
                Some(Frame::TooLarge) => return Err(Error::not_redis(&self.endpoint)),
                None => match self.stream.read(self.reader.room()).await {
                    Ok(count) if count > 0 => {
                        self.reader.filled(count);
                        self.opened.traffic.received += count as u64;
                    }
                    _ => return Err(lost(&replies, self)),
                },
            }
        }
        if sent {
            Ok(replies)
        } else {
            Err(lost(&replies, self))
        }
    }

    /// The name of the server in messages.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn next_reply(&mut self) -> Result<Option<Frame>, Error> {
        let frame = self.reader.next_frame();
        frame.map_err(|_| Error::not_redis(&self.endpoint))
    }

    /// Hands the connection over. Fails if unread bytes are left: every later reply would be taken for that of
    /// an earlier command.
    pub(super) fn into_parts(self) -> Result<(Stream, Opened), Error> {
        if !self.reader.is_empty() {
            return Err(Error::not_redis(&self.endpoint));
        }
        Ok((self.stream, self.opened))
    }

    /// The error for a connection that the server closed. A server with too many clients sends a reason first.
    fn closed_early(&self, said: Option<&Value>, secrets: &[&[u8]]) -> Error {
        match said {
            Some(Value::ServerError(error)) => {
                Error::login(&self.endpoint, "connecting", error, secrets)
            }
            _ => Error::closed_early(&self.endpoint),
        }
    }
}
