//! The sentinels that are known: those that were given, and those that they name.

use std::{
    net::Shutdown,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use redis::{Pipeline, Value};
use socket2::Socket;
use tokio::time::{sleep, timeout};

use super::verified;
use crate::{
    config::{Config, Endpoint, SENTINELS_MAX, SENTINELS_REFRESHED, Sentinel, Servers},
    connection::standalone::{Connection, Login},
    error::{Error, ErrorCode},
};

/// Sentinels that other sentinels have named, the latest first: those that were given may be replaced
/// one by one.
#[derive(Clone, Default)]
pub struct KnownSentinels(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    learnt: Vec<Endpoint>,
    /// The master that is connected to, and the socket.
    master: Option<(String, Weak<Socket>)>,
    is_watched: bool,
}

impl KnownSentinels {
    /// `given` and the others.
    pub(super) fn all(&self, given: &[Endpoint]) -> Vec<Endpoint> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = given.to_vec();
        for learnt in &state.learnt {
            if !all.contains(learnt) {
                all.push(learnt.clone());
            }
        }
        all
    }

    /// The master named `endpoint` is connected to by `socket`.
    pub fn connected(&self, endpoint: String, socket: &Arc<Socket>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.master = Some((endpoint, Arc::downgrade(socket)));
    }

    /// The socket of the connection to another master than `endpoint`.
    fn connected_elsewhere(&self, endpoint: &Endpoint) -> Option<Arc<Socket>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (master, socket) = state.master.as_ref()?;
        (*master != endpoint.to_string()).then(|| socket.upgrade())?
    }

    fn learn(&self, named: Vec<Endpoint>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = std::mem::replace(&mut state.learnt, named);
        for node in earlier {
            if !state.learnt.contains(&node) {
                state.learnt.push(node);
            }
        }
        state.learnt.truncate(SENTINELS_MAX);
    }
}

/// Asks the sentinel at `node` for the address of the master, and for the other sentinels.
pub(super) async fn ask(
    sentinel: &Sentinel,
    node: &Endpoint,
    config: &Config,
) -> Result<Endpoint, Error> {
    let login = Login {
        credentials: sentinel.credentials.clone(),
        tls: sentinel.tls.as_ref(),
        addresses: sentinel.addresses,
        is_bare: config.bare_login,
        database: 0,
        client_name: None,
        swaps: false,
        indexes: false,
    };
    let mut connection = Connection::open(node, &login, config, None).await?;
    let mut question = Pipeline::new();
    let name = &sentinel.name;
    let cmd = question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME");
    cmd.arg(name);
    question.cmd("SENTINEL").arg("SENTINELS").arg(name);
    let mut replies = connection.ask(&question).await?.into_iter();
    let (master, others) = (replies.next(), replies.next());
    let master = master.map(redis::from_redis_value::<(String, u16)>);
    let Some(Ok((host, port))) = master else {
        return Err(Error::new(
            ErrorCode::Connect,
            format!("The sentinel at {node} knows no master \"{name}\"; check the name."),
        ));
    };
    // An ACL may deny the second question.
    let mut named = others.as_ref().map(read_sentinels).unwrap_or_default();
    named.push(node.clone());
    sentinel.known.learn(named);
    Ok(Endpoint::Tcp { host, port })
}

/// Lists of names and values, one list a sentinel.
fn read_sentinels(reply: &Value) -> Vec<Endpoint> {
    let Value::Array(sentinels) = reply else {
        return Vec::new();
    };
    sentinels.iter().filter_map(read_sentinel).collect()
}

fn read_sentinel(fields: &Value) -> Option<Endpoint> {
    let fields: Vec<String> = redis::from_redis_value_ref(fields).ok()?;
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find_map(|pair| (pair[0] == name).then(|| pair[1].clone()))
    };
    let host = field("ip").filter(|host| !host.is_empty())?;
    let port = field("port")?.parse().ok()?;
    Some(Endpoint::Tcp { host, port })
}

/// Asks the sentinels from time to time while the store lives: all of those that are known may be replaced
/// while the connection to the master stays, and the connection to a master that is none any more is ended.
pub fn watch(config: &Arc<Config>) {
    let Servers::Sentinel(sentinel) = &config.servers else {
        return;
    };
    let mut state = sentinel
        .known
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if std::mem::replace(&mut state.is_watched, true) {
        return;
    }
    let config = Arc::downgrade(config);
    tokio::spawn(async move {
        loop {
            sleep(SENTINELS_REFRESHED).await;
            if refresh(&config).await.is_none() {
                return;
            }
        }
    });
}

/// None once the store is gone.
async fn refresh(config: &Weak<Config>) -> Option<()> {
    let config = config.upgrade()?;
    let Servers::Sentinel(sentinel) = &config.servers else {
        return None;
    };
    for node in sentinel.known.all(&sentinel.nodes) {
        let answer = timeout(config.connect_timeout, ask(sentinel, &node, &config)).await;
        let Ok(Ok(master)) = answer else {
            continue;
        };
        // An old answer of a sentinel that was cut off names a server that is not a master any more.
        if let Some(socket) = sentinel.known.connected_elsewhere(&master)
            && let Ok(Ok(_)) =
                timeout(config.connect_timeout, verified(&master, &config, None)).await
        {
            let _ = socket.shutdown(Shutdown::Both);
        }
        break;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        let host = "h".to_owned();
        Endpoint::Tcp { host, port }
    }

    #[test]
    fn learnt_sentinels_stand_behind_the_given_ones_and_are_limited() {
        let known = KnownSentinels::default();
        known.learn(vec![at(1), at(2)]);
        known.learn(vec![at(3), at(1)]);
        assert_eq!(known.all(&[at(9), at(1)]), [at(9), at(1), at(3), at(2)]);
        known.learn((100..200).map(at).collect());
        assert_eq!(known.all(&[]).len(), SENTINELS_MAX);
    }
}
