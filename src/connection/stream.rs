//! The byte stream below a connection: TCP, TLS over TCP, or a unix socket.

use std::{
    convert::identity,
    io,
    net::{IpAddr, SocketAddr},
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
    net::{TcpStream, lookup_host},
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
    config::{
        Addresses, Config, Endpoint, Family, KEEP_ALIVE, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_PROBES,
        TCP_CONNECT_TRY, Tls,
    },
    error::Error,
};

/// An open stream.
pub enum Stream {
    /// Unencrypted.
    Plain(Wire),
    /// TLS, verified.
    Tls(Box<TlsStream<Wire>>),
}

/// The socket below TLS.
pub enum Wire {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// A socket that the event loop polls for replies.
    #[cfg(unix)]
    Watched(Watched),
}

impl Stream {
    fn wire(&self) -> &Wire {
        match self {
            Self::Plain(wire) => wire,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Lets the event loop poll the socket for replies: tasks that read the stream are no longer woken.
    #[cfg(unix)]
    #[expect(
        deprecated,
        reason = "its successor is unsafe; here the socket is owned, and stays open until the last owner drops it"
    )]
    pub fn watch(&mut self) -> io::Result<()> {
        let wire = match self {
            Self::Plain(wire) => wire,
            Self::Tls(stream) => stream.get_mut().0,
        };
        let socket = match &*wire {
            Wire::Tcp(stream) => SockRef::from(stream).try_clone()?,
            Wire::Unix(stream) => SockRef::from(stream).try_clone()?,
            Wire::Watched(_) => return Ok(()),
        };
        let socket = AsyncFd::with_interest(Arc::new(socket), Interest::WRITABLE)?;
        *wire = Wire::Watched(Watched(socket));
        Ok(())
    }

    /// Not supported on this platform.
    #[cfg(not(unix))]
    pub fn watch(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The socket that the event loop polls, if any.
    pub fn socket(&self) -> Option<&Arc<Socket>> {
        match self.wire() {
            #[cfg(unix)]
            Wire::Watched(Watched(socket)) => Some(socket.get_ref()),
            _ => None,
        }
    }

    /// Whether TLS may hold decrypted data that a poll handle of the socket cannot see.
    pub fn may_buffer(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// Reads never wait, writes do. The descriptor stays open while a poll handle uses it, so that its number is
/// not reused. Dropping this shuts the socket down, which wakes the poll handle.
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
    addresses: Addresses,
    config: &Config,
) -> Result<Stream, Error> {
    let named = |error| Error::io(&endpoint.to_string(), &error);
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let tcp = connect_tcp(host, *port, addresses).await.map_err(named)?;
            tune(&tcp, config).map_err(named)?;
            match security {
                None => Ok(Stream::Plain(Wire::Tcp(tcp))),
                Some(settings) => Ok(Stream::Tls(Box::new(
                    tls::handshake(settings, host, endpoint, Wire::Tcp(tcp)).await?,
                ))),
            }
        }
        #[cfg(unix)]
        Endpoint::Unix(path) => Ok(Stream::Plain(Wire::Unix(
            UnixStream::connect(path).await.map_err(named)?,
        ))),
        #[cfg(not(unix))]
        Endpoint::Unix(_) => Err(Error::new(
            crate::error::ErrorCode::Options,
            "Unix sockets are not available on this platform; pass a host and port.",
        )),
    }
}

/// Tries all addresses again if none answers for a while: the system repeats a lost SYN at growing intervals,
/// and would notice a restored network seconds later.
async fn connect_tcp(host: &str, port: u16, wanted: Addresses) -> io::Result<TcpStream> {
    loop {
        let found = lookup_host((host, port)).await?.collect();
        let chosen = if host.parse::<IpAddr>().is_ok() {
            found
        } else {
            choose(found, wanted)
        };
        if let Some(connected) = connect_any(chosen).await? {
            return Ok(connected);
        }
    }
}

fn choose(mut found: Vec<SocketAddr>, Addresses { only, first }: Addresses) -> Vec<SocketAddr> {
    let family = |address: &SocketAddr| {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    };
    found.retain(|address| only.is_none_or(|only| family(address) == only));
    found.sort_by_key(|address| first.is_some_and(|first| family(address) != first));
    found
}

/// Connects to the first of `addresses` that accepts. None if one of them did not answer.
async fn connect_any(
    addresses: impl IntoIterator<Item = SocketAddr>,
) -> io::Result<Option<TcpStream>> {
    let mut refused = io::Error::new(
        io::ErrorKind::NotFound,
        "the name has no address of the wanted family",
    );
    let mut is_silent = false;
    for address in addresses {
        match timeout(TCP_CONNECT_TRY, TcpStream::connect(address)).await {
            Ok(Ok(connected)) => return Ok(Some(connected)),
            Ok(Err(error)) => refused = error,
            Err(_) => is_silent = true,
        }
    }
    if is_silent { Ok(None) } else { Err(refused) }
}

fn keep_alive() -> TcpKeepalive {
    let probes = TcpKeepalive::new().with_time(KEEP_ALIVE);
    // Other systems have only a global setting.
    #[cfg(any(
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "illumos",
        target_os = "linux",
        target_os = "macos",
        target_os = "netbsd",
        target_os = "windows",
    ))]
    let probes = probes
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_PROBES);
    probes
}

fn tune(tcp: &TcpStream, config: &Config) -> io::Result<()> {
    // A pipeline is one write, and Nagle's algorithm could delay its end.
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&keep_alive())?;
    // The limit for unacknowledged data: no request waits longer.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.connect_timeout.max(config.command_timeout)))?;
    #[cfg(not(target_os = "linux"))]
    let _ = config;
    Ok(())
}

/// Implements reading and writing by those of the current variant.
macro_rules! either {
    ($type:ty { $($(#[$only:meta])? $variant:path => $inner:expr,)* }) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$only])? $variant(stream) => Pin::new($inner(stream)).poll_read(cx, buffer),)*
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$only])? $variant(stream) => Pin::new($inner(stream)).poll_write(cx, bytes),)*
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$only])? $variant(stream) => Pin::new($inner(stream)).poll_flush(cx),)*
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$only])? $variant(stream) => Pin::new($inner(stream)).poll_shutdown(cx),)*
                }
            }
        }
    };
}

either!(Stream {
    Stream::Plain => identity,
    Stream::Tls => Box::as_mut,
});

either!(Wire {
    Wire::Tcp => identity,
    #[cfg(unix)]
    Wire::Unix => identity,
    #[cfg(unix)]
    Wire::Watched => identity,
});

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use socket2::{Domain, Type};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// A listener with a full backlog: further connections are dropped.
    fn silent() -> (Socket, Vec<Socket>, SocketAddr) {
        let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = stream();
        listener.bind(&loopback(0).into()).expect("a port");
        listener.listen(0).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let callers: Vec<_> = (0..3).map(|_| stream()).collect();
        for caller in &callers {
            caller.set_nonblocking(true).expect("it does not wait");
            let _ = caller.connect(&address);
        }
        let address = address.as_socket().expect("an IP address");
        (listener, callers, address)
    }

    #[test]
    fn addresses_are_those_of_the_wanted_family_in_the_wanted_order() {
        let v4 = loopback(1);
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 1));
        let chosen = |only, first| choose(vec![v6, v4, v6], Addresses { only, first });
        assert_eq!(chosen(None, None), [v6, v4, v6]);
        assert_eq!(chosen(Some(Family::V4), None), [v4]);
        assert_eq!(chosen(Some(Family::V6), Some(Family::V4)), [v6, v6]);
        assert_eq!(chosen(None, Some(Family::V4)), [v4, v6, v6]);
        assert_eq!(chosen(None, Some(Family::V6)), [v6, v6, v4]);
    }

    #[test]
    fn after_an_address_without_an_answer_the_next_one_is_tried() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (_listener, _callers, dead) = silent();
        let listener = TcpListener::bind(loopback(0)).expect("a listener");
        let live = listener.local_addr().expect("its address");
        let connect = |addresses: Vec<SocketAddr>| runtime.block_on(connect_any(addresses));
        let connected = connect(vec![dead, live]).expect("no error").expect("one");
        assert_eq!(connected.peer_addr().expect("its address"), live);
        // Tried again, though another one has refused.
        drop(listener);
        assert!(connect(vec![dead, live]).expect("no error").is_none());
        let refused = connect(vec![live]).expect_err("no server listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
