//! Finds the master by sentinels, as <https://redis.io/docs/latest/develop/reference/sentinel-clients/>
//! specifies: any live sentinel is asked, its answer is verified by ROLE, and its list of other sentinels is
//! remembered.

mod known;

use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use redis::{Pipeline, Value};
use tokio::time::{Instant, interval_at};

use super::{
    not_accepted,
    standalone::{Connection, Identity, Login},
};
use crate::{
    config::{Config, Endpoint, SENTINELS_ASKED_AGAIN, Sentinel},
    error::{Error, ErrorCode},
};
pub use known::{KnownSentinels, watch};

/// The end of one step of an attempt.
enum Step {
    /// This sentinel named a master, or failed.
    Named(Endpoint, Result<Endpoint, Error>),
    /// A connection to this server, which is a master, or the reason why not.
    Verified(Endpoint, Result<Connection, Error>),
}

/// One attempt to open a connection to the master. It asks all sentinels at once, and again every
/// [`SENTINELS_ASKED_AGAIN`], and connects to every server that a sentinel names. The first server that
/// confirms to be a master wins, so a dead sentinel or an outdated answer causes no delay. If the last answers
/// named a better master than a server, that server is held back until the sentinels are asked again.
pub(super) struct Attempt<'a> {
    sentinel: &'a Sentinel,
    config: &'a Config,
    predecessor: Option<&'a Identity>,
    steps: FuturesUnordered<BoxFuture<'a, Step>>,
    asked: Vec<Endpoint>,
    verifying: Vec<Endpoint>,
    failures: Vec<(Endpoint, Error)>,
    outvoted: Option<Connection>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        sentinel: &'a Sentinel,
        config: &'a Config,
        predecessor: Option<&'a Identity>,
    ) -> Self {
        Self {
            sentinel,
            config,
            predecessor,
            steps: FuturesUnordered::new(),
            asked: Vec::new(),
            verifying: Vec::new(),
            failures: Vec::new(),
            outvoted: None,
        }
    }

    /// Opens a connection to the master. The error combines those of all sentinels.
    pub(super) async fn run(&mut self) -> Result<Connection, Error> {
        let mut again = interval_at(
            Instant::now() + SENTINELS_ASKED_AGAIN,
            SENTINELS_ASKED_AGAIN,
        );
        self.ask();
        loop {
            tokio::select! {
                step = self.steps.next() => match step {
                    Some(Step::Named(asked, answer)) => self.named(&asked, answer),
                    Some(Step::Verified(master, Ok(opened))) => {
                        if !self.sentinel.known.is_outvoted(&master) {
                            return Ok(opened);
                        }
                        self.outvoted = Some(opened);
                    }
                    Some(Step::Verified(master, Err(error))) => {
                        self.verifying.retain(|other| *other != master);
                        self.fail(master, error);
                    }
                    None => return self.outvoted.take().ok_or_else(|| self.error()),
                },
                _ = again.tick() => match self.outvoted.take() {
                    Some(opened) => return Ok(opened),
                    None => self.ask(),
                },
            }
        }
    }

    /// Asks every sentinel that has no pending question.
    fn ask(&mut self) {
        for node in self.sentinel.known.all(&self.sentinel.nodes) {
            if self.asked.contains(&node) {
                continue;
            }
            self.asked.push(node.clone());
            let (sentinel, config) = (self.sentinel, self.config);
            let step = async move {
                let answer = known::ask(sentinel, &node, config, config.connect_timeout).await;
                Step::Named(node, answer)
            };
            self.steps.push(step.boxed());
        }
    }

    fn named(&mut self, asked: &Endpoint, answer: Result<Endpoint, Error>) {
        self.asked.retain(|other| other != asked);
        match answer {
            Err(error) => self.fail(asked.clone(), error),
            Ok(master) if self.verifying.contains(&master) => {}
            Ok(master) => {
                self.failures.retain(|(node, _)| node != asked);
                self.verifying.push(master.clone());
                let (config, predecessor) = (self.config, self.predecessor);
                let step = async move {
                    let opened = verified(&master, config, predecessor).await;
                    Step::Verified(master, opened)
                };
                self.steps.push(step.boxed());
            }
        }
    }

    fn fail(&mut self, node: Endpoint, error: Error) {
        self.failures.retain(|(other, _)| *other != node);
        self.failures.push((node, error));
    }

    /// The reason why there is no master: the errors of all sentinels and of the servers that they named.
    pub(super) fn error(&self) -> Error {
        let silent = |node: &Endpoint| {
            let is_named = self.failures.iter().any(|(other, _)| other == node);
            (!is_named).then(|| not_accepted(node, self.config))
        };
        let waiting = self.asked.iter().chain(&self.verifying).filter_map(silent);
        let failures = self.failures.iter().map(|(_, error)| error.clone());
        let mut errors: Vec<Error> = failures.chain(waiting).collect();
        // The code is that of the error that a caller can correct.
        let main = errors
            .iter()
            .position(|error| error.code != ErrorCode::Connect);
        let mut error = match main {
            Some(at) => errors.swap_remove(at),
            None if errors.is_empty() => {
                return Error::new(ErrorCode::Options, "The list of sentinels is empty.");
            }
            None => errors.remove(0),
        };
        for other in errors {
            if !error.message.contains(&other.message) {
                error.message = format!("{} {}", error.message, other.message);
            }
        }
        error
    }
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
        // An ACL may deny ROLE. Then the first write fails if the server is not a master.
        Some(Value::ServerError(_)) => Ok(opened),
        _ => Err(Error::new(
            ErrorCode::Connect,
            format!(
                "The sentinels name {master} as master, but it is a replica; the store asks them again."
            ),
        )),
    }
}

fn is_text(value: Option<&Value>, expected: &[u8]) -> bool {
    matches!(value, Some(Value::BulkString(text)) if text == expected)
}
