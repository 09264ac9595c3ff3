//! The login of a connection: user and password, database, and the kind of server.

use redis::{Pipeline, ServerError, ServerErrorKind, Value};

use super::Connection;
use crate::{
    config::{Addresses, Config, Credentials, Tls},
    conflict,
    error::Error,
    marker, users,
};

/// The commands that a connection begins with.
#[derive(Clone)]
pub struct Login<'a> {
    pub credentials: Credentials,
    pub tls: Option<&'a Tls>,
    pub addresses: Addresses,
    /// AUTH, SELECT and PING alone.
    pub is_bare: bool,
    pub database: u32,
    pub client_name: Option<&'a str>,
    /// Load the script of swaps, and find out whether the server can swap without it.
    pub swaps: bool,
    /// Load the scripts of user indexes.
    pub indexes: bool,
}

impl<'a> Login<'a> {
    /// The login by the settings of the store.
    pub async fn of(config: &'a Config) -> Result<Self, Error> {
        Ok(Self {
            credentials: config.credentials().await?,
            tls: config.tls.as_ref(),
            addresses: config.addresses,
            is_bare: config.bare_login,
            database: config.database,
            client_name: config.client_name.as_deref(),
            swaps: config.swaps,
            indexes: config.indexes,
        })
    }
}

/// The identity of a connection on the server. Ids start again with the server, and addresses are chosen by the
/// client: only both together identify a connection.
#[derive(Clone, Default)]
pub struct Identity {
    id: i64,
    address: String,
}

impl Connection {
    /// Sends everything at once. The reply to PING shows that the server is Redis, accepts commands and has
    /// loaded its data.
    pub(super) async fn log_in(
        &mut self,
        login: &Login<'_>,
        predecessor: Option<&Identity>,
    ) -> Result<(), Error> {
        let mut question = Pipeline::new();
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (username, password) = (
            said(&login.credentials.username),
            said(&login.credentials.password),
        );
        let logs_in = username.is_some() || password.is_some();
        if logs_in {
            // An ACL user may need no password (`nopass`).
            let auth = question.cmd("AUTH").arg(&username);
            auth.arg(password.as_deref().unwrap_or_default());
        }
        if login.database != 0 {
            question.cmd("SELECT").arg(login.database);
        }
        if !login.is_bare {
            introduce(&mut question, login, predecessor);
        }
        question.cmd("PING");
        let secrets: Vec<&[u8]> = [&username, &password]
            .into_iter()
            .flatten()
            .map(String::as_bytes)
            .collect();
        let mut replies = self.ask_with(&question, &secrets).await?.into_iter();
        let refusal = match replies.as_slice().first() {
            Some(Value::ServerError(error)) if logs_in => {
                Some(Error::login(&self.endpoint, "AUTH", error, &secrets))
            }
            _ => None,
        };
        if logs_in {
            replies.next();
        }
        // A password that the server does not require is left out, as in ioredis and redis 2 and 3; the reply
        // to PING shows whether it is required. The password of an ACL user is always sent.
        match (&refusal, replies.as_slice().last()) {
            (Some(refusal), _) if username.is_some() => return Err(refusal.clone()),
            (Some(refusal), Some(Value::ServerError(error))) if error.code() == "NOAUTH" => {
                return Err(refusal.clone());
            }
            _ => {}
        }
        if login.database != 0
            && let Some(Value::ServerError(error)) = replies.next()
        {
            return Err(Error::login(&self.endpoint, "SELECT", &error, &secrets));
        }
        let (id, info) = if login.is_bare {
            (None, None)
        } else {
            (replies.next(), replies.next())
        };
        if login.swaps && !login.is_bare {
            self.opened.compares = replies.nth(1).is_some_and(|info| compares(&info));
        }
        match replies.next_back() {
            Some(Value::ServerError(error)) => self.tolerate(&error, &secrets)?,
            Some(Value::SimpleString(_)) => {}
            _ => return Err(Error::not_redis(&self.endpoint)),
        }
        if let (Some(Value::Int(id)), Some(address)) = (id, info.as_ref().and_then(address_of)) {
            self.opened.identity = Some(Identity { id, address });
        }
        Ok(())
    }

    /// An error also shows that the server answers: for example, an ACL denies PING, or a script is running.
    /// Errors that refuse all commands do not count.
    fn tolerate(&self, error: &ServerError, secrets: &[&[u8]]) -> Result<(), Error> {
        let is_away = matches!(
            error.kind(),
            Some(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown)
        );
        // The redis crate has no kind for NOAUTH.
        if is_away || error.code() == "NOAUTH" {
            return Err(Error::login(&self.endpoint, "PING", error, secrets));
        }
        Ok(())
    }
}

/// Asks for the id of this connection, and sends its other settings.
fn introduce(question: &mut Pipeline, login: &Login<'_>, predecessor: Option<&Identity>) {
    question.cmd("CLIENT").arg("ID");
    question.cmd("CLIENT").arg("INFO");
    if login.swaps {
        // Some ACLs deny it; then the text of the script is sent.
        let load = question.cmd("SCRIPT").arg("LOAD");
        load.arg(conflict::SWAP);
        question.cmd("INFO").arg("server");
    }
    if login.indexes {
        for text in [users::SIGN_IN, users::INDEX, marker::RESTORE] {
            question.cmd("SCRIPT").arg("LOAD").arg(text);
        }
    }
    if let Some(name) = login.client_name {
        question.cmd("CLIENT").arg("SETNAME").arg(name);
    }
    if let Some(Identity { id, address }) = predecessor {
        let kill = question.cmd("CLIENT").arg("KILL");
        kill.arg("ID").arg(id).arg("ADDR").arg(address);
    }
}

/// Whether the server has `SET … IFEQ`, by the version in INFO.
fn compares(info: &Value) -> bool {
    let Value::BulkString(text) = info else {
        return false;
    };
    let text = String::from_utf8_lossy(text);
    let version = |field: &str| {
        let version = text.lines().find_map(|line| line.strip_prefix(field))?;
        let mut numbers = version.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    // Valkey also reports itself as Redis 7.2.
    match version("valkey_version:") {
        Some(valkey) => valkey >= (8, 1),
        None => version("redis_version:").is_some_and(|redis: (u32, u32)| redis >= (8, 4)),
    }
}

/// The address of a connection in the reply to CLIENT INFO, which Redis has since 6.2.
fn address_of(info: &Value) -> Option<String> {
    let Value::BulkString(text) = info else {
        return None;
    };
    let text = String::from_utf8_lossy(text);
    let address = text
        .split(' ')
        .find_map(|field| field.strip_prefix("addr="))?;
    Some(address.to_owned())
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::compares;

    #[test]
    fn the_version_tells_whether_set_compares() {
        for (info, wanted) in [
            (
                "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n",
                false,
            ),
            ("# Server\r\nredis_version:8.2.9\r\n", false),
            ("# Server\r\nredis_version:8.4.0\r\n", true),
            ("# Server\r\nredis_version:10.0.0\r\n", true),
            (
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n",
                false,
            ),
            (
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n",
                true,
            ),
            (
                "redis_version:255.255.255\r\nvalkey_version:7.2.5\r\n",
                false,
            ),
            ("redis_version:unstable\r\n", false),
            ("", false),
        ] {
            assert_eq!(compares(&Value::BulkString(info.into())), wanted, "{info}");
        }
        assert!(!compares(&Value::Nil));
    }
}
