//! Settings of one store, checked and complete: no `Option` for a field that has a default.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::{connection::KnownSentinels, error::Error};

/// The limit of commands on the wire: enough to keep Redis busy, few enough to repeat them.
pub const IN_FLIGHT: usize = 1024;
/// A batch of at most this many requests is written by the thread that submits it: waking another thread would
/// take longer.
pub const SEND_THROUGH_MAX: usize = IN_FLIGHT;
/// The same limit in bytes: a larger batch is copied on the I/O thread, and more output is written there.
pub const SEND_THROUGH_MAX_BYTES: usize = 128 << 10;
/// Encoding pauses while this many bytes wait for the socket.
pub const WRITE_AHEAD_BYTES: usize = 256 << 10;
/// Reading pauses while this many bytes of answers wait for JavaScript.
pub const UNREAD_BYTES: usize = 16 << 20;
/// If an address does not answer within this time, the next one is tried, then all of them again, within one
/// attempt to connect.
pub const TCP_CONNECT_TRY: Duration = Duration::from_millis(800);
/// The shortest delay before a connection is tried again.
pub const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// The longest delay before a connection is tried again: a server that is back is noticed within a
/// second.
pub const RECONNECT_MAX: Duration = Duration::from_millis(800);
/// A connection that was silent for a deadline is replaced. The circuit opens if that takes longer than this:
/// one lost reply does not mean that the server has failed.
pub const SILENCE_GRACE: Duration = Duration::from_millis(250);
/// The limit of bytes that are read from one connection before others have their turn.
pub const TURN_BYTES: usize = 256 << 10;
/// The limit of received bytes that are read before deadlines are checked, so that replies that arrived in time
/// count.
pub const OVERDUE_BYTES: usize = 4 << 20;
/// The I/O thread reads for an event loop that has not done so for this long while requests wait for
/// room on the wire.
pub const BUSY_LOOP: Duration = Duration::from_millis(25);
/// The limit of MOVED and ASK replies that one request follows.
pub const REDIRECTIONS_MAX: u8 = 16;
/// The limit of masters of a cluster: Redis recommends at most 1000 nodes.
pub const CLUSTER_NODES_MAX: usize = 1000;
/// The longest interval between requests for a cluster map that contradicts the replies of nodes.
pub const MAP_RETRY_MAX: Duration = Duration::from_secs(5);
/// An operation on all keys fails after it has found no new key for this many times `command_timeout`.
pub const SEARCH_STALL_TIMEOUTS: u32 = 30;
/// The limit of the keys that an operation on all keys may find, in bytes.
pub const SEARCH_MAX_BYTES: usize = 1 << 30;
/// The shortest time between two reconnects because the server is a replica or no longer accepts our login.
pub const REFUSAL_RECONNECT: Duration = Duration::from_secs(1);
/// `SCAN`'s COUNT is at least this: 1000 scans twice as fast as Redis's default of 10 to 100.
pub const SCAN_COUNT_MIN: u32 = 1000;
/// The minimum number of sessions that are remembered as refreshed; the maximum is twice that.
pub const TOUCHES_MAX: usize = 1 << 16;
/// The number of ids that JavaScript parses in one turn of the event loop: about a millisecond.
pub const IDS_PAGE: usize = 10_000;
/// The limit of keys in one UNLINK, because more would stall other clients.
pub const UNLINK_KEYS: usize = 1000;
/// The lifetime of markers. Saves of sessions that were loaded longer ago do not write deleted sessions either.
pub const MARKER_TTL: Duration = Duration::from_secs(60);
/// The delay before a request is sent again to a cluster node that does not serve it now.
pub const CLUSTER_RETRY: Duration = Duration::from_millis(50);
/// The longest such delay while slots of the cluster are not served.
pub const CLUSTER_RETRY_MAX: Duration = Duration::from_millis(500);
/// The idle time before TCP keep-alive probes begin.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The interval of unanswered probes.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The number of unanswered probes that end the connection.
pub const KEEP_ALIVE_PROBES: u32 = 3;

/// How often sentinels are asked again while a connection to a master is being opened: they may name another one.
pub const SENTINELS_ASKED_AGAIN: Duration = Duration::from_millis(250);
/// How often sentinels are asked for the master and the other sentinels. After a failover the old master
/// accepts writes for seconds, and they are lost.
pub const SENTINELS_REFRESHED: Duration = Duration::from_secs(1);
/// The limit of remembered sentinels, not counting the configured ones.
pub const SENTINELS_MAX: usize = 32;

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A host name or address, and a port.
    Tcp {
        /// Host name, IPv4 or IPv6 address without brackets.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

/// A version of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

/// The addresses of a name to connect to. Literal addresses are not affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Only this family.
    pub only: Option<Family>,
    /// This family first; the order of the system if absent.
    pub first: Option<Family>,
}

/// The topology of Redis.
#[derive(Clone)]
pub enum Servers {
    /// One server.
    One(Endpoint),
    /// A master that sentinels name.
    Sentinel(Sentinel),
    /// A cluster, by some of its nodes.
    Cluster(Vec<Endpoint>),
}

/// Sentinels, and the name of the master.
#[derive(Clone)]
pub struct Sentinel {
    /// The name of the master group.
    pub name: String,
    /// At least one.
    pub nodes: Vec<Endpoint>,
    /// The login for the sentinels.
    pub credentials: Credentials,
    /// TLS of the connections to the sentinels.
    pub tls: Option<Tls>,
    /// Addresses of the sentinels.
    pub addresses: Addresses,
    /// Sentinels that others have named.
    pub known: KnownSentinels,
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[Endpoint]| {
            let names: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        match self {
            Self::One(endpoint) => endpoint.fmt(f),
            Self::Sentinel(sentinel) => {
                write!(
                    f,
                    "master \"{}\" of the sentinels {}",
                    sentinel.name,
                    list(&sentinel.nodes)
                )
            }
            Self::Cluster(nodes) => write!(f, "the cluster of {}", list(nodes)),
        }
    }
}

/// TLS of a connection. Texts are PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Certificates to trust instead of the system's.
    pub ca: Vec<String>,
    /// The client's certificate chain, for mutual TLS.
    pub cert: Option<String>,
    /// The private key of `cert`.
    pub key: Option<String>,
    /// The name that the server's certificate must carry; the host's own if absent.
    pub servername: Option<String>,
    /// Accept any certificate, as Node's `rejectUnauthorized: false`.
    pub accept_invalid: bool,
    /// The configuration built from these settings: built once, because all connections of a store share its
    /// TLS sessions.
    pub built: Arc<OnceLock<Result<Arc<rustls::ClientConfig>, Error>>>,
}

/// The login for a server.
#[derive(Clone, Default)]
pub struct Credentials {
    /// ACL user; Redis's `default` if absent.
    pub username: Option<String>,
    /// Absent for users without a password. Without user and password no AUTH is sent.
    pub password: Option<String>,
}

/// A source of credentials that may change: it is asked at every connect.
pub trait CredentialsSource: Send + Sync {
    /// Returns the credentials, within `connect_timeout`.
    fn ask(&self) -> BoxFuture<'static, Result<Credentials, Error>>;
}

/// The settings of the engine. No `Debug`, because it holds a password.
#[derive(Clone)]
pub struct Config {
    /// Where and how Redis runs.
    pub servers: Servers,
    /// TLS, unless the connection is plain.
    pub tls: Option<Tls>,
    /// Addresses of the servers.
    pub addresses: Addresses,
    /// A connection begins with AUTH, SELECT and PING only: a proxy may hang up on other commands.
    pub bare_login: bool,
    /// User and password, unless there is a `credentials_source`.
    pub credentials: Credentials,
    /// Provides user and password at every connect.
    pub credentials_source: Option<Arc<dyn CredentialsSource>>,
    /// The database to select.
    pub database: u32,
    /// Set with CLIENT SETNAME.
    pub client_name: Option<String>,
    /// For one attempt: name look-up, TCP, TLS and handshake together.
    pub connect_timeout: Duration,
    /// From the call to the reply: waiting for a connection, queue, wire and retry together.
    pub command_timeout: Duration,
    /// The limit of pending requests. Above it, a request is refused at once.
    pub max_pending: usize,
    /// The event loop reads replies itself: see [`Sink::watch`](crate::driver::Sink::watch).
    pub watched: bool,
    /// Swaps will be sent: their script is loaded at every connect.
    pub swaps: bool,
    /// Indexes of users will be written: their scripts are loaded at every connect.
    pub indexes: bool,
    /// How long a refreshed session is not refreshed again; zero refreshes it at every touch.
    pub touch_after: Duration,
}

impl Config {
    /// The defaults of index.d.ts, for `servers`.
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            tls: None,
            addresses: Addresses::default(),
            bare_login: false,
            credentials: Credentials::default(),
            credentials_source: None,
            database: 0,
            client_name: None,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(2),
            max_pending: 10_000,
            watched: false,
            swaps: true,
            indexes: false,
            touch_after: Duration::ZERO,
        }
    }

    /// The current credentials.
    pub async fn credentials(&self) -> Result<Credentials, Error> {
        match &self.credentials_source {
            Some(source) => source.ask().await,
            None => Ok(self.credentials.clone()),
        }
    }
}
