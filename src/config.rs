//! Settings of one store, checked and complete: no `Option` for a field that has a default.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::{connection::KnownSentinels, error::Error};

/// How many commands are on the wire at once: enough to keep Redis busy, few enough to be repeated.
pub const IN_FLIGHT: usize = 1024;
/// A batch of at most so many requests is written by the thread that makes it: that takes less of
/// it than waking another.
pub const SEND_THROUGH_MAX: usize = IN_FLIGHT;
/// And of at most so many bytes: more are copied elsewhere meanwhile.
pub const SEND_THROUGH_MAX_BYTES: usize = 128 << 10;
/// Nothing more is encoded while so many bytes wait for the socket to take them.
pub const WRITE_AHEAD_BYTES: usize = 256 << 10;
/// No answers are read while so many bytes of them wait for JavaScript to fetch them.
pub const UNREAD_BYTES: usize = 16 << 20;
/// After this the next address is tried if there was no answer, then all of them again, within one
/// attempt to connect.
pub const TCP_CONNECT_TRY: Duration = Duration::from_millis(800);
/// The shortest delay before a connection is tried again.
pub const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// The longest delay before a connection is tried again: a server that is back is noticed within a
/// second.
pub const RECONNECT_MAX: Duration = Duration::from_millis(800);
/// A connection that was silent for a deadline is replaced. The circuit opens if that takes longer than
/// this: one lost reply is no failed server.
pub const SILENCE_GRACE: Duration = Duration::from_millis(250);
/// No more is read from one connection before others have their turn.
pub const TURN_BYTES: usize = 256 << 10;
/// Before deadlines are looked at, so much of what has come is read first: it counts.
pub const OVERDUE_BYTES: usize = 4 << 20;
/// The I/O thread reads for an event loop that has not done so for this long while requests wait for
/// room on the wire.
pub const BUSY_LOOP: Duration = Duration::from_millis(25);
/// MOVED and ASK replies that one request follows.
pub const REDIRECTIONS_MAX: u8 = 16;
/// Masters of a cluster: Redis recommends at most 1000.
pub const CLUSTER_NODES_MAX: usize = 1000;
/// The longest time between two questions for a map that does not agree with what nodes say.
pub const MAP_RETRY_MAX: Duration = Duration::from_secs(5);
/// A question about all keys that finds no other key for so many times `command_timeout` ends.
pub const SEARCH_STALL_TIMEOUTS: u32 = 30;
/// All the keys that a question about them may find, in bytes.
pub const SEARCH_MAX_BYTES: usize = 1 << 30;
/// The shortest time between two reconnects because the server is a replica.
pub const DEMOTION_RECONNECT: Duration = Duration::from_secs(1);
/// `SCAN`'s COUNT is at least this: 1000 scans twice as fast as Redis's default of 10 to 100.
pub const SCAN_COUNT_MIN: u32 = 1000;
/// How many sessions are remembered as refreshed, at the least; at the most twice as many.
pub const TOUCHES_MAX: usize = 1 << 16;
/// Ids that JavaScript parses in one turn of the event loop: about a millisecond.
pub const IDS_PAGE: usize = 10_000;
/// Keys of one UNLINK, however many a SCAN returned: more would stall other clients.
pub const UNLINK_KEYS: usize = 1000;
/// How long it is known that a session was destroyed: saves of sessions that were loaded longer ago do not
/// bring back what is gone.
pub const MARKER_TTL: Duration = Duration::from_secs(60);
/// How long to wait before a cluster node that does not serve now is asked again, or its cluster.
pub const CLUSTER_RETRY: Duration = Duration::from_millis(50);
/// The longest time between two questions to a cluster that is not whole.
pub const CLUSTER_RETRY_MAX: Duration = Duration::from_millis(500);
/// How long an idle TCP connection is left alone before it is probed.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The time between two probes that are not answered.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// So many unanswered probes end the connection.
pub const KEEP_ALIVE_PROBES: u32 = 3;

/// While a master is being opened the sentinels are asked again so often: they may name another one.
pub const SENTINELS_ASKED_AGAIN: Duration = Duration::from_millis(250);
/// How often the sentinels are asked for the master and the other sentinels. A master that another one
/// has taken over from accepts writes for seconds, and they are lost.
pub const SENTINELS_REFRESHED: Duration = Duration::from_secs(1);
/// How many sentinels are remembered beside the given ones.
pub const SENTINELS_MAX: usize = 32;

/// Where one server listens.
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

/// Which addresses of a name are connected to. A name that is an address itself is not affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// No others.
    pub only: Option<Family>,
    /// These before others; as the system orders them if absent.
    pub first: Option<Family>,
}

/// How Redis is run.
#[derive(Clone)]
pub enum Servers {
    /// One server.
    One(Endpoint),
    /// A master that sentinels name.
    Sentinel(Sentinel),
    /// A cluster, by some of its nodes.
    Cluster(Vec<Endpoint>),
}

/// Sentinels, and what to ask them.
#[derive(Clone)]
pub struct Sentinel {
    /// The name of the master group.
    pub name: String,
    /// At least one.
    pub nodes: Vec<Endpoint>,
    /// Who we are to the sentinels themselves.
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
    /// What was made of these settings: built once, as all connections of a store share its sessions.
    pub built: Arc<OnceLock<Result<Arc<rustls::ClientConfig>, Error>>>,
}

/// Who we are to a server.
#[derive(Clone, Default)]
pub struct Credentials {
    /// ACL user; Redis's `default` if absent.
    pub username: Option<String>,
    /// No AUTH is sent without one.
    pub password: Option<String>,
}

/// Credentials that change: asked for at every connect.
pub trait CredentialsSource: Send + Sync {
    /// Asks; the answer may take its time, within `connect_timeout`.
    fn ask(&self) -> BoxFuture<'static, Result<Credentials, Error>>;
}

/// Everything the engine needs to know. Has no `Debug`: it holds a password.
#[derive(Clone)]
pub struct Config {
    /// Where and how Redis runs.
    pub servers: Servers,
    /// TLS, unless the connection is plain.
    pub tls: Option<Tls>,
    /// Addresses of the servers.
    pub addresses: Addresses,
    /// A connection begins with AUTH, SELECT and PING alone: a proxy may end it for other commands.
    pub bare_login: bool,
    /// Who we are, unless `credentials_source` says it.
    pub credentials: Credentials,
    /// Asked who we are at every connect.
    pub credentials_source: Option<Arc<dyn CredentialsSource>>,
    /// The database that is selected.
    pub database: u32,
    /// Set with CLIENT SETNAME.
    pub client_name: Option<String>,
    /// For one attempt: name look-up, TCP, TLS and handshake together.
    pub connect_timeout: Duration,
    /// From the call to the reply: waiting for a connection, queue, wire and retry together.
    pub command_timeout: Duration,
    /// One more pending request than this is refused at once.
    pub max_pending: usize,
    /// The event loop reads replies itself: see [`Sink::watch`](crate::driver::Sink::watch).
    pub watched: bool,
    /// Swaps will be asked for: their script is loaded with every connection.
    pub swaps: bool,
    /// A session that was refreshed is not refreshed again for so long; zero for always.
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
            touch_after: Duration::ZERO,
        }
    }

    /// Who we are now.
    pub async fn credentials(&self) -> Result<Credentials, Error> {
        match &self.credentials_source {
            Some(source) => source.ask().await,
            None => Ok(self.credentials.clone()),
        }
    }
}
