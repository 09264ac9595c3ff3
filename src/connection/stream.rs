//! The byte stream below a connection: TCP, TLS over TCP, or a unix socket.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    net::Shutdown,
    task::ready,
};

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
#[cfg(unix)]
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::{
    config::{Config, Endpoint, KEEP_ALIVE, TCP_CONNECT_TRY, Tls},
    error::Error,
};

/// An open stream.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS, verified.
    Tls(Box<TlsStream<TcpStream>>),
    /// A unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// A plain socket whose replies somebody outside waits for.
    #[cfg(unix)]
    Watched(Watched),
}

impl Stream {
    /// Leaves it to somebody else to wait for what comes: from here on nothing wakes a task that
    /// reads. A stream of which that cannot be done stays as it is.
    #[cfg(unix)]
    #[expect(
        deprecated,
        reason = "its successor is unsafe for what cannot happen here: the socket is owned, and open until the last owner drops it"
    )]
    pub fn watched(self) -> io::Result<Self> {
        let socket = match self {
            Self::Tcp(stream) => Socket::from(stream.into_std()?),
            Self::Unix(stream) => Socket::from(stream.into_std()?),
            other => return Ok(other),
        };
        let socket = AsyncFd::with_interest(Arc::new(socket), Interest::WRITABLE)?;
        Ok(Self::Watched(Watched(socket)))
    }

    /// Nobody can do that here.
    #[cfg(not(unix))]
    pub fn watched(self) -> io::Result<Self> {
        Ok(self)
    }

    /// What is to be watched, if anything.
    pub fn socket(&self) -> Option<&Arc<Socket>> {
        match self {
            #[cfg(unix)]
            Self::Watched(Watched(socket)) => Some(socket.get_ref()),
            _ => None,
        }
    }
}

/// Reading never waits, writing does. It is open for as long as somebody watches it, so that its
/// number is not taken over by another one meanwhile; who drops this one tells them.
#[cfg(unix)]
pub struct Watched(AsyncFd<Arc<Socket>>);

#[cfg(unix)]
impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.get_ref().shutdown(Shutdown::Both);
    }
}

#[cfg(unix)]
impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut socket = &**self.0.get_ref();
        match socket.read(buffer.initialize_unfilled()) {
            Ok(count) => buffer.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(unix)]
impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|socket| (&**socket.get_ref()).write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get_ref().shutdown(Shutdown::Write))
    }
}

/// Opens the stream to `endpoint`.
pub async fn connect(
    endpoint: &Endpoint,
    security: Option<&Tls>,
    config: &Config,
) -> Result<Stream, Error> {
    let named = |error| Error::io(&endpoint.to_string(), &error);
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let tcp = connect_tcp(host, *port).await.map_err(named)?;
            tune(&tcp, config).map_err(named)?;
            match security {
                None => Ok(Stream::Tcp(tcp)),
                Some(settings) => Ok(Stream::Tls(Box::new(
                    tls::handshake(settings, host, endpoint, tcp).await?,
                ))),
            }
        }
        #[cfg(unix)]
        Endpoint::Unix(path) => Ok(Stream::Unix(
            UnixStream::connect(path).await.map_err(named)?,
        )),
        #[cfg(not(unix))]
        Endpoint::Unix(_) => Err(Error::new(
            crate::error::ErrorCode::Options,
            "Unix sockets are not available on this platform; pass a host and port.",
        )),
    }
}

/// Begins anew when nothing answers for a while: the system repeats a lost SYN ever more slowly, and
/// would notice a network that is back only seconds later.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    loop {
        if let Ok(connected) = timeout(TCP_CONNECT_TRY, TcpStream::connect((host, port))).await {
            return connected;
        }
    }
}

fn tune(tcp: &TcpStream, config: &Config) -> io::Result<()> {
    // A pipeline is one write: Nagle's algorithm could only delay its tail.
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    // Data that nobody acknowledges: no request can wait longer for it than this.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.connect_timeout.max(config.command_timeout)))?;
    #[cfg(not(target_os = "linux"))]
    let _ = config;
    Ok(())
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
            #[cfg(unix)]
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            #[cfg(unix)]
            Stream::Watched(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
