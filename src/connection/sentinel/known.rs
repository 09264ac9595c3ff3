//! The known sentinels: the configured ones, and those that they name.

use std::{
    net::Shutdown,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Pipeline, Value};
use socket2::Socket;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::verified;
use crate::{
    config::{Config, Endpoint, SENTINELS_MAX, SENTINELS_REFRESHED, Sentinel, Servers},
    connection::{
        not_accepted,
        standalone::{Connection, Login},
    },
    error::{Error, ErrorCode},
};

/// Sentinels that other sentinels have named, the latest first: the configured ones may be replaced one by one.
#[derive(Clone, Default)]
pub struct KnownSentinels(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    learnt: Vec<Endpoint>,
    /// The last answers of the live sentinels.
    votes: Vec<Vote>,
    /// The connected master and its socket.
    master: Option<(String, Weak<Socket>)>,
    watch: Option<AbortHandle>,
    has_ended: bool,
}

/// A sentinel's last answer.
struct Vote {
    sentinel: Endpoint,
    master: Endpoint,
    /// Incremented at every failover: <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/>.
    epoch: u64,
}

impl State {
    /// A better master than `master`: one of a later failover or, for the same failover, one that more
    /// sentinels name. An isolated sentinel names an earlier one.
    fn better_than(&self, master: &str) -> Option<Endpoint> {
        let weight = |name: &str| {
            let naming = || self.votes.iter().filter(|vote| vote.is_for(name));
            (naming().map(|vote| vote.epoch).max(), naming().count())
        };
        let others = self.votes.iter().filter(|vote| !vote.is_for(master));
        let best = others.max_by_key(|vote| weight(&vote.master.to_string()))?;
        let is_better = weight(&best.master.to_string()) > weight(master);
        is_better.then(|| best.master.clone())
    }
}

impl Vote {
    fn is_for(&self, master: &str) -> bool {
        self.master.to_string() == master
    }
}

impl KnownSentinels {
    /// The sentinels `given`, then the others.
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

    /// Records the connection to the master `endpoint` by `socket`.
    pub fn connected(&self, endpoint: String, socket: &Arc<Socket>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.master = Some((endpoint, Arc::downgrade(socket)));
    }

    /// A better master than the connected one, and the socket of the connection to replace.
    fn better(&self) -> Option<(Endpoint, Arc<Socket>)> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (master, socket) = state.master.as_ref()?;
        Some((state.better_than(master)?, socket.upgrade()?))
    }

    /// Whether the sentinels agree on a better master than `master`.
    pub(super) fn is_outvoted(&self, master: &Endpoint) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.better_than(&master.to_string()).is_some()
    }

    /// Records the answer of `sentinel`; None if it did not answer.
    fn voted(&self, sentinel: &Endpoint, answer: Option<(Endpoint, u64)>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.votes.retain(|vote| vote.sentinel != *sentinel);
        if let Some((master, epoch)) = answer {
            let sentinel = sentinel.clone();
            state.votes.push(Vote {
                sentinel,
                master,
                epoch,
            });
        }
    }

    /// Stops asking the sentinels.
    pub fn end(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.has_ended = true;
        if let Some(watch) = state.watch.take() {
            watch.abort();
        }
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
    limit: Duration,
) -> Result<Endpoint, Error> {
    let answer = timeout(limit, vote(sentinel, node, config)).await;
    let answer = answer.unwrap_or_else(|_| Err(not_accepted(node, config)));
    sentinel.known.voted(node, answer.as_ref().ok().cloned());
    answer.map(|(master, _epoch)| master)
}

async fn vote(
    sentinel: &Sentinel,
    node: &Endpoint,
    config: &Config,
) -> Result<(Endpoint, u64), Error> {
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
    question.cmd("SENTINEL").arg("MASTER").arg(name);
    let mut replies = connection.ask(&question).await?.into_iter();
    let (master, others, state) = (replies.next(), replies.next(), replies.next());
    let master = master.map(redis::from_redis_value::<(String, u16)>);
    let Some(Ok((host, port))) = master else {
        return Err(Error::new(
            ErrorCode::Connect,
            format!("The sentinel at {node} knows no master \"{name}\"; check the name."),
        ));
    };
    // An ACL may deny the other commands.
    let epoch = state
        .as_ref()
        .and_then(|state| field(state, "config-epoch"));
    let epoch = epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    let mut named = others.as_ref().map(read_sentinels).unwrap_or_default();
    named.push(node.clone());
    sentinel.known.learn(named);
    Ok((Endpoint::Tcp { host, port }, epoch))
}

/// One list of names and values for each sentinel.
fn read_sentinels(reply: &Value) -> Vec<Endpoint> {
    let Value::Array(sentinels) = reply else {
        return Vec::new();
    };
    sentinels.iter().filter_map(read_sentinel).collect()
}

fn read_sentinel(fields: &Value) -> Option<Endpoint> {
    let host = field(fields, "ip").filter(|host| !host.is_empty())?;
    let port = field(fields, "port")?.parse().ok()?;
    Some(Endpoint::Tcp { host, port })
}

fn field(fields: &Value, name: &str) -> Option<String> {
    let fields: Vec<String> = redis::from_redis_value_ref(fields).ok()?;
    let mut pairs = fields.chunks_exact(2);
    pairs.find_map(|pair| (pair[0] == name).then(|| pair[1].clone()))
}

/// Asks the sentinels periodically while the store lives: all known sentinels may be replaced while the
/// connection to the master lasts. Closes the connection to a server that is no longer the master.
pub fn watch(config: &Arc<Config>) {
    let Servers::Sentinel(sentinel) = &config.servers else {
        return;
    };
    let mut state = sentinel
        .known
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if state.watch.is_some() || state.has_ended {
        return;
    }
    let config = Arc::downgrade(config);
    let watch = tokio::spawn(async move {
        loop {
            sleep(SENTINELS_REFRESHED).await;
            if refresh(&config).await.is_none() {
                return;
            }
        }
    });
    state.watch = Some(watch.abort_handle());
}

/// None after the store has ended.
async fn refresh(config: &Weak<Config>) -> Option<()> {
    let config = config.upgrade()?;
    let Servers::Sentinel(sentinel) = &config.servers else {
        return None;
    };
    let nodes = sentinel.known.all(&sentinel.nodes);
    let limit = config.connect_timeout.min(SENTINELS_REFRESHED);
    join_all(nodes.iter().map(|node| ask(sentinel, node, &config, limit))).await;
    // Isolated sentinels may agree on a server that is no longer a master.
    if let Some((master, socket)) = sentinel.known.better()
        && let Ok(Ok(_)) = timeout(config.connect_timeout, verified(&master, &config, None)).await
    {
        let _ = socket.shutdown(Shutdown::Both);
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
    fn a_later_failover_and_then_more_sentinels_make_a_better_master() {
        let better = |votes: &[(u16, u64)]| {
            let known = KnownSentinels::default();
            for (sentinel, (master, epoch)) in (10..).zip(votes) {
                known.voted(&at(sentinel), Some((at(*master), *epoch)));
            }
            let state = known.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.better_than(&at(1).to_string())
        };
        assert_eq!(better(&[]), None);
        assert_eq!(better(&[(1, 0), (1, 0)]), None);
        assert_eq!(better(&[(1, 0), (2, 0)]), None);
        assert_eq!(better(&[(1, 0), (2, 0), (2, 0)]), Some(at(2)));
        assert_eq!(better(&[(1, 3), (2, 2), (2, 2)]), None);
        assert_eq!(better(&[(1, 2), (1, 2), (2, 3)]), Some(at(2)));
        assert_eq!(better(&[(2, 0)]), Some(at(2)));
        assert_eq!(better(&[(3, 1), (2, 2)]), Some(at(2)));
    }

    #[test]
    fn a_sentinel_that_no_longer_answers_has_no_vote() {
        let known = KnownSentinels::default();
        known.voted(&at(10), Some((at(1), 0)));
        for sentinel in [11, 12] {
            known.voted(&at(sentinel), Some((at(2), 0)));
        }
        assert!(known.is_outvoted(&at(1)));
        known.voted(&at(11), None);
        assert!(!known.is_outvoted(&at(1)));
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
