//! The map of a cluster, from slots to nodes:
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use std::sync::Arc;

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Pipeline, ServerError, ServerErrorKind, Value};
use tokio::time::timeout;

use super::standalone::{Connection, Login};
use crate::{
    config::{Config, Endpoint},
    error::{Error, ErrorCode},
};

/// The number of slots of a cluster.
pub const SLOTS: u16 = 16384;

/// The first and the last slot of a range, and the master that serves it.
pub type Range = (u16, u16, Endpoint);

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|&byte| byte == b'}')?;
        (length > 0).then(|| &rest[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) ^ u16::from(byte))]
    })
}

/// CRC16 (XMODEM) of every byte. A table, because every request hashes its key.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Asks all of `nodes` for the map at once, and takes the first answer.
pub async fn discover(config: Arc<Config>, nodes: Vec<Endpoint>) -> Result<Vec<Range>, Error> {
    let mut answers: FuturesUnordered<_> = nodes
        .iter()
        .map(|node| timeout(config.connect_timeout, ask(node, &config)))
        .collect();
    let mut failure = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Ok(ranges)) => return Ok(ranges),
            Ok(Err(error)) => failure = failure.or(Some(error)),
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or_else(|| {
        Error::new(
            ErrorCode::Connect,
            format!(
                "No node of {} answers; check that it runs and can be reached.",
                config.servers
            ),
        )
    }))
}

async fn ask(node: &Endpoint, config: &Config) -> Result<Vec<Range>, Error> {
    let mut connection = Connection::open(node, &Login::of(config).await?, config, None).await?;
    let mut question = Pipeline::new();
    question.cmd("CLUSTER").arg("SLOTS");
    match connection.ask(&question).await?.pop() {
        Some(map) => read_map(&map, node),
        None => Err(no_map(node)),
    }
}

/// Reads the reply to CLUSTER SLOTS of the node `asked`.
pub fn read_map(map: &Value, asked: &Endpoint) -> Result<Vec<Range>, Error> {
    let ranges: Vec<Range> = match map {
        Value::Array(ranges) => ranges
            .iter()
            .filter_map(|range| read(range, asked))
            .collect(),
        _ => Vec::new(),
    };
    if ranges.is_empty() {
        return Err(no_map(asked));
    }
    Ok(ranges)
}

fn no_map(asked: &Endpoint) -> Error {
    Error::new(
        ErrorCode::Connect,
        format!(
            "Redis at {asked} is not a node of a working cluster; pass it as url if it is a single server."
        ),
    )
}

const LOCAL: &str = "127.0.0.1";

fn host_of(endpoint: &Endpoint) -> &str {
    match endpoint {
        Endpoint::Tcp { host, .. } => host,
        Endpoint::Unix(_) => LOCAL,
    }
}

/// `[first, last, [host, port, ...], ...]`: masters come first. A node that does not know its own host leaves
/// it out: then it is the host that was asked.
fn read(range: &Value, asked: &Endpoint) -> Option<Range> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [
        Value::Int(first),
        Value::Int(last),
        Value::Array(master),
        ..,
    ] = parts.as_slice()
    else {
        return None;
    };
    let [host, Value::Int(port), ..] = master.as_slice() else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) if !host.is_empty() && host != b"?" => {
            String::from_utf8_lossy(host).into_owned()
        }
        _ => host_of(asked).to_owned(),
    };
    let first = u16::try_from(*first).ok()?;
    let last = u16::try_from(*last).ok()?;
    let port = u16::try_from(*port).ok()?;
    (first <= last && last < SLOTS).then_some((first, last, Endpoint::Tcp { host, port }))
}

/// The reason why a command was not executed, and where to send it.
#[derive(Debug, PartialEq, Eq)]
pub enum Redirection {
    /// The slot has moved to this node.
    Moved(Endpoint),
    /// The key has moved to this node already, while its slot is moving.
    Ask(Endpoint),
    /// The slot is not served now: a failover is in progress, or the node is loading.
    Later,
    /// The server is no longer a master.
    Demoted,
    /// The connection's credentials are no longer valid.
    AuthLost,
}

/// The redirection in an error reply of the node `asked`. In all these cases the command was not executed.
pub fn redirection(error: &ServerError, asked: Option<&Endpoint>) -> Option<Redirection> {
    let there = || {
        let (host, port) = error.details()?.rsplit_once(' ')?.1.rsplit_once(':')?;
        let own = asked.map_or(LOCAL, host_of);
        Some(Endpoint::Tcp {
            host: match host {
                "" | "?" => own.to_owned(),
                host => host.to_owned(),
            },
            port: port.parse().ok()?,
        })
    };
    match error.kind() {
        Some(ServerErrorKind::Moved) => there().map(Redirection::Moved),
        Some(ServerErrorKind::Ask) => there().map(Redirection::Ask),
        Some(
            ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain | ServerErrorKind::BusyLoading,
        ) => Some(Redirection::Later),
        Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Some(Redirection::Demoted),
        // The redis crate has no kind for NOAUTH.
        None if error.code() == "NOAUTH" => Some(Redirection::AuthLost),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::slot_of;

    #[test]
    fn slots_are_those_of_the_specification() {
        // `CLUSTER KEYSLOT` of Redis 7.0.15.
        assert_eq!(slot_of(b"123456789"), 12739);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{foo}bar"), 12182);
        assert_eq!(slot_of(b"x{foo}y{bar}"), 12182);
        // An empty or unclosed hash tag does not count.
        assert_eq!(slot_of(b"{}{foo}"), 2263);
        assert_eq!(slot_of(b"{foo"), 13308);
    }
}
