//! One connection to one server, spoken by the redis crate over our own stream: so that TCP_NODELAY,
//! keep-alive and TLS are ours to set, and the end of the connection is seen when it happens.

use std::future::Future;

use redis::{
    AsyncConnectionConfig, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, ServerError,
    Value, aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::AbortHandle,
};

use super::{Closed, Replies, stream};
use crate::{
    command::Command,
    config::{Config, Credentials, Endpoint, Tls},
    error::{Error, ErrorCode},
};

/// How a connection begins.
pub struct Login<'a> {
    pub credentials: Credentials,
    pub tls: Option<&'a Tls>,
    pub database: u32,
    pub client_name: Option<&'a str>,
}

impl<'a> Login<'a> {
    /// As the settings of the store say.
    pub async fn of(config: &'a Config) -> Result<Self, Error> {
        Ok(Self {
            credentials: config.credentials().await?,
            tls: config.tls.as_ref(),
            database: config.database,
            client_name: config.client_name.as_deref(),
        })
    }
}

/// An open connection to one server. Dropping it closes it.
pub struct Connection {
    link: MultiplexedConnection,
    /// The crate's driver would go on until every reply has come, which a frozen server never sends.
    driver: AbortHandle,
    endpoint: String,
    identity: Option<Identity>,
}

/// A connection as the server knows it. Ids begin anew when a server does, addresses come from us:
/// only both together are nobody else.
#[derive(Clone)]
pub struct Identity {
    id: i64,
    address: String,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects, authenticates, selects the database and sees a reply. A password that the server
    /// does not ask for is left out, as ioredis and redis 2 and 3 do; one of an ACL user is not.
    pub(super) async fn open(
        endpoint: &Endpoint,
        login: &Login<'_>,
        config: &Config,
        predecessor: Option<&Identity>,
    ) -> Result<(Self, Closed), Error> {
        let opened = Self::attempt(endpoint, login, config, predecessor).await;
        let Err(error) = opened else {
            return opened;
        };
        let Credentials { username, password } = &login.credentials;
        if error.code != ErrorCode::Auth || username.is_some() || password.is_none() {
            return Err(error);
        }
        // The redis crate does not tell a wrong password from a needless one: the server does.
        let stranger = Login {
            credentials: Credentials::default(),
            ..*login
        };
        let opened = Self::attempt(endpoint, &stranger, config, predecessor).await;
        opened.map_err(|_| error)
    }

    async fn attempt(
        endpoint: &Endpoint,
        login: &Login<'_>,
        config: &Config,
        predecessor: Option<&Identity>,
    ) -> Result<(Self, Closed), Error> {
        let name = endpoint.to_string();
        match stream::connect(endpoint, login.tls, config).await? {
            stream::Stream::Tcp(tcp) => Self::over(tcp, name, login, predecessor).await,
            stream::Stream::Tls(tls) => Self::over(tls, name, login, predecessor).await,
            #[cfg(unix)]
            stream::Stream::Unix(unix) => Self::over(unix, name, login, predecessor).await,
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        endpoint: String,
        login: &Login<'_>,
        predecessor: Option<&Identity>,
    ) -> Result<(Self, Closed), Error> {
        let mut info = RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_db(login.database.into());
        if let Some(username) = &login.credentials.username {
            info = info.set_username(username);
        }
        if let Some(password) = &login.credentials.password {
            info = info.set_password(password);
        }
        // Deadlines are the engine's: the crate's own would answer for requests we have answered.
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let (link, driver) = MultiplexedConnection::new_with_config(&info, stream, settings)
            .await
            .map_err(|error| Error::handshake(&endpoint, &error))?;
        let (alive, closed) = oneshot::channel();
        let driver = tokio::spawn(async move {
            driver.await;
            drop(alive);
        })
        .abort_handle();
        let mut connection = Self {
            link,
            driver,
            endpoint,
            identity: None,
        };
        connection.greet(login, predecessor).await?;
        Ok((connection, closed))
    }

    /// The first exchange: shows that the server is Redis and takes our commands, which a
    /// connection without password and database has not shown yet.
    async fn greet(
        &mut self,
        login: &Login<'_>,
        predecessor: Option<&Identity>,
    ) -> Result<(), Error> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("CLIENT").arg("ID");
        pipeline.cmd("CLIENT").arg("INFO");
        if let Some(name) = login.client_name {
            pipeline.cmd("CLIENT").arg("SETNAME").arg(name);
        }
        if let Some(Identity { id, address }) = predecessor {
            let kill = pipeline.cmd("CLIENT").arg("KILL");
            kill.arg("ID").arg(id).arg("ADDR").arg(address);
        }
        let count = pipeline.len();
        let replies = self
            .link
            .send_packed_commands(&pipeline, 0, count)
            .await
            .map_err(|error| Error::handshake(&self.endpoint, &error))?;
        let mut replies = replies.into_iter();
        match replies.next() {
            Some(Value::Int(id)) => {
                self.identity = replies
                    .next()
                    .and_then(|info| address_of(&info))
                    .map(|address| Identity { id, address });
            }
            Some(Value::ServerError(error)) => self.tolerate(error)?,
            _ => return Err(Error::not_redis(&self.endpoint)),
        }
        Ok(())
    }

    /// Servers before Redis 5, and users whom the ACL denies it, cannot ask for their id: an error
    /// that says so is as good a sign of life as the id. NOAUTH is not.
    fn tolerate(&self, error: ServerError) -> Result<(), Error> {
        match error.code() {
            "NOAUTH" => Err(Error::handshake(&self.endpoint, &RedisError::from(error))),
            _ => Ok(()),
        }
    }

    /// Sends `commands` as one pipeline, each behind an ASKING if it is to. They are queued for the
    /// wire when the returned future is first polled, and pipelines keep the order of that.
    pub fn run(
        &self,
        commands: &mut dyn Iterator<Item = (&Command, bool)>,
    ) -> impl Future<Output = Replies> + Send + use<> {
        let mut pipeline = Pipeline::new();
        let mut prefixes = Vec::new();
        for (command, asking) in commands {
            if asking {
                prefixes.push(pipeline.len());
                pipeline.cmd("ASKING");
            }
            command.append_to(&mut pipeline);
        }
        let replies = self.send(pipeline);
        async move {
            let mut replies = replies.await?;
            for prefix in prefixes.into_iter().rev() {
                if prefix < replies.len() {
                    replies.remove(prefix);
                }
            }
            Ok(replies)
        }
    }

    /// Sends a pipeline and returns a reply for each of its commands.
    pub(super) fn send(&self, pipeline: Pipeline) -> impl Future<Output = Replies> + Send + use<> {
        let mut link = self.link.clone();
        let endpoint = self.endpoint.clone();
        async move {
            let count = pipeline.len();
            link.send_packed_commands(&pipeline, 0, count)
                .await
                .map_err(|error| match error.kind() {
                    ErrorKind::Parse => Error::not_redis(&endpoint),
                    _ => Error::new(
                        ErrorCode::Connect,
                        format!(
                            "The connection to Redis at {endpoint} was lost before the reply came."
                        ),
                    )
                    .caused_by(error.to_string()),
                })
        }
    }

    /// How the server knows this connection, if it tells.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// The address of a connection in the reply to CLIENT INFO, which Redis has since 6.2.
fn address_of(info: &Value) -> Option<String> {
    let text = match info {
        Value::BulkString(text) => String::from_utf8_lossy(text),
        Value::VerbatimString { text, .. } => text.as_str().into(),
        _ => return None,
    };
    let address = text
        .split(' ')
        .find_map(|field| field.strip_prefix("addr="))?;
    Some(address.to_owned())
}
