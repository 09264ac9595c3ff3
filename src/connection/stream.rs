//! The byte stream below a connection: TCP, TLS over TCP, or a unix socket.

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::{
    config::{Config, Endpoint, KEEP_ALIVE, Tls},
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
            let tcp = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(named)?;
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

fn tune(tcp: &TcpStream, config: &Config) -> std::io::Result<()> {
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
