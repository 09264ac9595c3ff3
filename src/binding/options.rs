//! The settings that JavaScript has checked and passes, and their conversion.

use std::{sync::Arc, time::Duration};

use napi_derive::napi;

use crate::{
    config::{
        Addresses, Config, Credentials, CredentialsSource, Endpoint, Family, Sentinel, Servers, Tls,
    },
    connection::KnownSentinels,
};

/// Where one server listens.
#[napi(object, object_to_js = false)]
pub struct NodeSettings {
    /// Host name or address; unused with `path`.
    pub host: Option<String>,
    /// 1 to 65535.
    pub port: Option<u16>,
    /// Path of a unix socket.
    pub path: Option<String>,
}

/// The master group, and the login for the sentinels.
#[napi(object, object_to_js = false)]
pub struct SentinelSettings {
    /// The name of the master group.
    pub name: String,
    /// ACL user of the sentinels.
    pub username: Option<String>,
    /// Password of the sentinels.
    pub password: Option<String>,
    /// TLS to the sentinels, unless plain.
    pub tls: Option<TlsSettings>,
    /// 4 or 6: the only version of addresses of the sentinels.
    pub family: Option<u32>,
}

/// Connection settings, from the options or from a client.
#[napi(object, object_to_js = false)]
pub struct Settings {
    /// The server; some nodes of the cluster; or the sentinels.
    pub nodes: Vec<NodeSettings>,
    /// Whether the nodes belong to a cluster.
    pub cluster: bool,
    /// Set if the nodes are sentinels.
    pub sentinel: Option<SentinelSettings>,
    /// TLS, unless plain.
    pub tls: Option<TlsSettings>,
    /// 4 or 6: the only version of addresses.
    pub family: Option<u32>,
    /// 4 or 6: the version of addresses that is tried first.
    pub first_family: Option<u32>,
    /// Whether a connection begins with AUTH, SELECT and PING alone.
    pub bare_login: Option<bool>,
    /// ACL user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Database number.
    pub database: u32,
    /// Name shown by CLIENT LIST.
    pub client_name: Option<String>,
    /// Milliseconds for one attempt to connect.
    pub connect_timeout_ms: u32,
    /// Milliseconds from call to callback.
    pub command_timeout_ms: u32,
    /// Requests.
    pub max_pending: u32,
    /// Whether this is Node, whose event loop can wait for replies itself.
    pub watched: bool,
    /// Whether sessions are swapped or merged.
    pub swaps: bool,
    /// Whether sessions of users are entered.
    pub indexes: bool,
    /// Milliseconds.
    pub touch_after_ms: f64,
}

/// TLS settings; texts are PEM.
#[napi(object, object_to_js = false)]
pub struct TlsSettings {
    /// Certificates to trust instead of the system's.
    pub ca: Vec<String>,
    /// Client certificate chain.
    pub cert: Option<String>,
    /// Client key.
    pub key: Option<String>,
    /// Name to verify.
    pub servername: Option<String>,
    /// Whether the certificate is verified.
    pub reject_unauthorized: bool,
}

impl Settings {
    /// Converts these settings to the configuration of the engine.
    pub fn into_config(self, credentials_source: Option<Arc<dyn CredentialsSource>>) -> Config {
        let mut nodes: Vec<Endpoint> = self
            .nodes
            .into_iter()
            .map(NodeSettings::into_endpoint)
            .collect();
        let first = family(self.first_family);
        let addresses = |only| Addresses {
            only: family(only),
            first,
        };
        let servers = match self.sentinel {
            Some(sentinel) => Servers::Sentinel(Sentinel {
                name: sentinel.name,
                nodes,
                credentials: Credentials {
                    username: sentinel.username,
                    password: sentinel.password,
                },
                tls: sentinel.tls.map(TlsSettings::into_tls),
                addresses: addresses(sentinel.family),
                known: KnownSentinels::default(),
            }),
            None if self.cluster => Servers::Cluster(nodes),
            None => Servers::One(nodes.swap_remove(0)),
        };
        Config {
            servers,
            tls: self.tls.map(TlsSettings::into_tls),
            addresses: addresses(self.family),
            bare_login: self.bare_login.unwrap_or_default(),
            credentials: Credentials {
                username: self.username,
                password: self.password,
            },
            credentials_source,
            database: self.database,
            client_name: self.client_name,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms.into()),
            command_timeout: Duration::from_millis(self.command_timeout_ms.into()),
            max_pending: self.max_pending as usize,
            watched: self.watched,
            swaps: self.swaps,
            indexes: self.indexes,
            touch_after: Duration::try_from_secs_f64(self.touch_after_ms / 1000.0)
                .unwrap_or_default(),
        }
    }
}

fn family(number: Option<u32>) -> Option<Family> {
    match number {
        Some(4) => Some(Family::V4),
        Some(6) => Some(Family::V6),
        _ => None,
    }
}

impl NodeSettings {
    fn into_endpoint(self) -> Endpoint {
        match self.path {
            Some(path) => Endpoint::Unix(path),
            None => Endpoint::Tcp {
                host: self.host.unwrap_or_default(),
                port: self.port.unwrap_or_default(),
            },
        }
    }
}

impl TlsSettings {
    fn into_tls(self) -> Tls {
        Tls {
            ca: self.ca,
            cert: self.cert,
            key: self.key,
            servername: self.servername,
            accept_invalid: !self.reject_unauthorized,
            built: Arc::default(),
        }
    }
}
