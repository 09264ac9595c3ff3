//! The settings as JavaScript gives them, checked there, and what Rust makes of them.

use std::time::Duration;

use napi_derive::napi;

use crate::config::{Config, Endpoint, Tls};

/// Connection settings, read from a URL or off a client.
#[napi(object, object_to_js = false)]
pub struct Settings {
    /// Host name or address; unused with `path`.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// Path of a unix socket.
    pub path: Option<String>,
    /// TLS, unless plain.
    pub tls: Option<TlsSettings>,
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
    /// The configuration these settings mean.
    pub fn into_config(self) -> Config {
        Config {
            endpoint: match self.path {
                Some(path) => Endpoint::Unix(path),
                None => Endpoint::Tcp {
                    host: self.host,
                    port: self.port,
                },
            },
            tls: self.tls.map(|tls| Tls {
                ca: tls.ca,
                cert: tls.cert,
                key: tls.key,
                servername: tls.servername,
                accept_invalid: !tls.reject_unauthorized,
            }),
            username: self.username,
            password: self.password,
            database: self.database,
            client_name: self.client_name,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms.into()),
            command_timeout: Duration::from_millis(self.command_timeout_ms.into()),
            max_pending: self.max_pending as usize,
        }
    }
}
