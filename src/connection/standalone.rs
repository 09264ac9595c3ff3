//! One connection to one server, over a stream of our own: commands are encoded into one buffer,
//! and whatever is there of either direction moves in one system call.

mod login;

use std::{
    future::poll_fn,
    ops::AddAssign,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use redis::{Pipeline, Value};
use socket2::Socket;
use tokio::io::AsyncWrite;

use super::{
    reader::{Frame, Reader},
    stream::{self, Stream},
};
use crate::{
    command::{Command, SwapBy},
    config::{Config, Endpoint, WRITE_AHEAD_BYTES},
    error::Error,
};
pub use login::{Identity, Login};

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// An open connection to one server. Dropping it closes it.
pub struct Connection {
    stream: Stream,
    /// What is to be sent, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// Whoever has more to send is to be told when there is room.
    crowded: bool,
    reader: Reader,
    /// How the stream has ended, for the next [`Self::poll`] to tell.
    ended: Option<Error>,
    endpoint: String,
    identity: Option<Identity>,
    /// The server compares by itself: see [`SwapBy::Set`].
    compares: bool,
    traffic: Traffic,
}

/// Bytes that have moved on connections, without what TLS adds.
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

/// What a connection has done.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    /// Bytes have come: there may be replies.
    Read,
    /// There is room for more commands, after there was none.
    Wrote,
}

impl Connection {
    /// Connects, authenticates, selects the database and sees a reply. `predecessor` is killed before.
    /// A proxy may know few commands and hang up on the others: then it is asked no more than needed.
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
            out: Vec::new(),
            sent: 0,
            crowded: false,
            reader: Reader::default(),
            ended: None,
            endpoint: endpoint.to_string(),
            identity: None,
            compares: false,
            traffic: Traffic::default(),
        };
        connection.log_in(login, predecessor).await?;
        Ok(connection)
    }

    /// Sends what is not about sessions and returns a reply for each command.
    pub(super) async fn ask(&mut self, question: &Pipeline) -> Result<Vec<Value>, Error> {
        self.ask_with(question, &[]).await
    }

    /// The same with arguments that no message may hold.
    async fn ask_with(
        &mut self,
        question: &Pipeline,
        secrets: &[&[u8]],
    ) -> Result<Vec<Value>, Error> {
        self.out.extend(question.get_packed_pipeline());
        let mut replies = Vec::with_capacity(question.len());
        while replies.len() < question.len() {
            match self.next_reply()? {
                Some(Frame::Value(value)) => replies.push(value),
                Some(Frame::TooLarge) => return Err(Error::not_redis(&self.endpoint)),
                None => {
                    let moved = poll_fn(|cx| self.poll(cx, true)).await;
                    moved.map_err(|_| self.closed_early(replies.first(), secrets))?;
                }
            }
        }
        Ok(replies)
    }

    /// The same connection, whose replies somebody outside waits for, if that is possible.
    pub(super) fn watched(mut self) -> Result<Self, Error> {
        let watched = self.stream.watch();
        watched.map_err(|error| Error::io(&self.endpoint, &error))?;
        Ok(self)
    }

    /// Whether [`Self::read_now`] is to be called until it says that there was nothing.
    pub fn holds_back(&self) -> bool {
        self.stream.holds_back()
    }

    /// What somebody outside is to watch; then [`Self::poll`] does not read.
    pub fn socket(&self) -> Option<&Arc<Socket>> {
        self.stream.socket()
    }

    /// Reads what has come by now, and says whether that was something.
    pub fn read_now(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.ended = match self.reader.poll_fill(&mut cx, &mut self.stream) {
            Poll::Ready(Ok(0)) => Some(self.closed(None)),
            Poll::Ready(Err(error)) => Some(self.closed(Some(&error))),
            Poll::Ready(Ok(count)) => {
                self.traffic.received += count as u64;
                return true;
            }
            Poll::Pending => return false,
        };
        false
    }

    /// Whether the stream has ended, which [`Self::poll`] has yet to tell.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether more commands may be encoded now. If not, [`Self::poll`] tells when.
    pub fn has_room(&mut self) -> bool {
        self.crowded = self.out.len() - self.sent >= WRITE_AHEAD_BYTES;
        !self.crowded
    }

    /// Encodes a command, behind an ASKING if it is to be `asking`, which has a reply of its own.
    /// It leaves with the next [`Self::poll`].
    pub fn push(&mut self, command: &mut Command, asking: bool) {
        if asking {
            self.out.extend_from_slice(ASKING);
        }
        if let Command::Swap(swap) = command
            && swap.by == SwapBy::Set
            && !self.compares
        {
            swap.by = SwapBy::EvalSha;
        }
        command.encode(&mut self.out);
    }

    /// Whether everything was written.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes what is to be sent and, if `reading`, reads what has come.
    pub fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Result<Moved, Error>> {
        self.poll_write(cx)?;
        if self.crowded && self.out.is_empty() {
            self.crowded = false;
            return Poll::Ready(Ok(Moved::Wrote));
        }
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        if !reading || self.socket().is_some() {
            return Poll::Pending;
        }
        match ready!(self.reader.poll_fill(cx, &mut self.stream)) {
            Ok(0) => Poll::Ready(Err(self.closed(None))),
            Ok(count) => {
                self.traffic.received += count as u64;
                Poll::Ready(Ok(Moved::Read))
            }
            Err(error) => Poll::Ready(Err(self.closed(Some(&error)))),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.out.is_empty() {
            return Ok(());
        }
        while self.sent < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(self.closed(None)),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.traffic.sent += count as u64;
                }
                Poll::Ready(Err(error)) => return Err(self.closed(Some(&error))),
                Poll::Pending => return Ok(()),
            }
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => return Err(self.closed(Some(&error))),
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {}
        }
        self.out.clear();
        self.sent = 0;
        // What one large session needed is not kept by every idle store.
        if self.out.capacity() > 2 * WRITE_AHEAD_BYTES {
            self.out = Vec::new();
        }
        Ok(())
    }

    /// The next reply, if all of it has come.
    pub fn next_reply(&mut self) -> Result<Option<Frame>, Error> {
        self.reader
            .next_frame()
            .map_err(|_| Error::not_redis(&self.endpoint))
    }

    /// A server that takes no more clients says so, and hangs up.
    fn closed_early(&self, said: Option<&Value>, secrets: &[&[u8]]) -> Error {
        match said {
            Some(Value::ServerError(error)) => {
                Error::login(&self.endpoint, "connecting", error, secrets)
            }
            _ => Error::closed_early(&self.endpoint),
        }
    }

    fn closed(&self, cause: Option<&std::io::Error>) -> Error {
        Error::closed(&self.endpoint, cause)
    }

    /// Something came that nobody asked for.
    pub fn unasked(&self) -> Error {
        Error::not_redis(&self.endpoint)
    }

    /// What has moved on it.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// How the server knows this connection, if it tells.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}
