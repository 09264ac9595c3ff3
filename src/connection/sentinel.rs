//! The master that sentinels name, as <https://redis.io/docs/latest/develop/reference/sentinel-clients/>
//! asks of clients: any live sentinel will do, and what it says is verified by ROLE.

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{Pipeline, Value};

use super::standalone::{Connection, Identity, Login};
use crate::{
    config::{Config, Endpoint, Sentinel},
    error::{Error, ErrorCode},
};

/// Asks every sentinel at once, so that dead ones cost no time, and opens the first one that
/// confirms to be a master.
pub(super) async fn open_master(
    sentinel: &Sentinel,
    config: &Config,
    predecessor: Option<&Identity>,
) -> Result<Connection, Error> {
    let mut answers: FuturesUnordered<_> = sentinel
        .nodes
        .iter()
        .map(|node| master_of(sentinel, node, config))
        .collect();
    let mut failure = None;
    let mut tried: Vec<Endpoint> = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(master) if tried.contains(&master) => {}
            Ok(master) => {
                match verified(&master, config, predecessor).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => failure = Some(error),
                }
                tried.push(master);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure
        .unwrap_or_else(|| Error::new(ErrorCode::Options, "The list of sentinels is empty.")))
}

async fn master_of(
    sentinel: &Sentinel,
    node: &Endpoint,
    config: &Config,
) -> Result<Endpoint, Error> {
    let login = Login {
        credentials: sentinel.credentials.clone(),
        tls: sentinel.tls.as_ref(),
        database: 0,
        client_name: None,
        swaps: false,
    };
    let mut connection = Connection::open(node, &login, config, None).await?;
    let mut question = Pipeline::new();
    question
        .cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(&sentinel.name);
    let reply = connection.ask(&question).await?.pop();
    let unknown = || {
        Error::new(
            ErrorCode::Connect,
            format!(
                "The sentinel at {node} knows no master \"{}\"; check the name.",
                sentinel.name
            ),
        )
    };
    let reply = reply.map(redis::from_redis_value::<(String, u16)>);
    let Some(Ok((host, port))) = reply else {
        return Err(unknown());
    };
    Ok(Endpoint::Tcp { host, port })
}

async fn verified(
    master: &Endpoint,
    config: &Config,
    predecessor: Option<&Identity>,
) -> Result<Connection, Error> {
    let mut opened =
        Connection::open(master, &Login::of(config).await?, config, predecessor).await?;
    let mut question = Pipeline::new();
    question.cmd("ROLE");
    match opened.ask(&question).await?.pop() {
        Some(Value::Array(role)) if is_text(role.first(), b"master") => Ok(opened),
        // A user whom the ACL denies ROLE cannot be told; the first write will tell.
        Some(Value::ServerError(_)) => Ok(opened),
        _ => Err(Error::new(
            ErrorCode::Connect,
            format!(
                "The sentinels name {master} as master, which says that it is none; they will agree soon."
            ),
        )),
    }
}

fn is_text(value: Option<&Value>, expected: &[u8]) -> bool {
    matches!(value, Some(Value::BulkString(text)) if text == expected)
}
