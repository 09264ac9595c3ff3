//! What a cluster says of itself: who serves which slot. It is asked when somebody finds that it has
//! changed, ever more slowly as long as nobody tells, and requests hear meanwhile why they wait.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::Instant;

use super::{Circuit, link::refused};
use crate::{
    config::{CLUSTER_RETRY, CLUSTER_RETRY_MAX, Config, Endpoint, Servers},
    connection::cluster::{self, Range},
    error::{Error, ErrorCode},
};

/// The question, and what became of it. Without a cluster it is never asked.
pub(super) struct Discovery {
    config: Arc<Config>,
    running: Option<BoxFuture<'static, Result<Vec<Range>, Error>>>,
    due: Option<Instant>,
    failures: u32,
    error: Option<Error>,
    /// Since when nobody has told.
    unknown_since: Option<Instant>,
    /// Nobody is to wait for the answer.
    refusing: bool,
}

impl Discovery {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let is_cluster = matches!(config.servers, Servers::Cluster(_));
        let due = is_cluster.then(Instant::now);
        Self {
            config: Arc::clone(config),
            running: None,
            due,
            failures: 0,
            error: None,
            unknown_since: due,
            refusing: false,
        }
    }

    /// Asks soon, unless that is due already.
    pub(super) fn soon(&mut self) {
        self.due
            .get_or_insert_with(|| Instant::now() + CLUSTER_RETRY);
    }

    /// Asks again, ever more slowly.
    pub(super) fn later(&mut self) {
        let delay = CLUSTER_RETRY * (1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + delay.min(CLUSTER_RETRY_MAX));
    }

    /// Asks what is due: the nodes that are `up`, and those that the options name.
    pub(super) fn start(&mut self, up: impl Iterator<Item = Endpoint>) {
        let Some(due) = self.due else {
            return;
        };
        if self.running.is_some() || due > Instant::now() {
            return;
        }
        self.due = None;
        let mut nodes: Vec<Endpoint> = up.collect();
        if let Servers::Cluster(seeds) = &self.config.servers {
            for seed in seeds {
                if !nodes.contains(seed) {
                    nodes.push(seed.clone());
                }
            }
        }
        self.running = Some(cluster::discover(Arc::clone(&self.config), nodes).boxed());
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Range>, Error>> {
        let Some(running) = &mut self.running else {
            return Poll::Pending;
        };
        let answer = ready!(running.poll_unpin(cx));
        self.running = None;
        Poll::Ready(answer)
    }

    /// Somebody has told.
    pub(super) fn succeeded(&mut self) {
        self.error = None;
        self.unknown_since = None;
        self.refusing = false;
    }

    /// Nobody has told.
    pub(super) fn failed(&mut self, error: Error) {
        // Credentials do not get better by waiting.
        self.refusing |= error.code != ErrorCode::Connect;
        self.error = Some(error);
        self.unknown_since.get_or_insert_with(Instant::now);
        self.later();
    }

    /// All who were named can be reached: there is nothing to ask again.
    pub(super) fn rest(&mut self) {
        self.failures = 0;
    }

    /// When it is next to be asked.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.running.is_none())
    }

    /// When nobody is to wait for the answer any more.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        let since = self.unknown_since.filter(|_| !self.refusing)?;
        Some(since + self.config.command_timeout)
    }

    /// Lets nobody wait any more, if it is time.
    pub(super) fn open(&mut self, now: Instant) {
        self.refusing |= self.opens_at().is_some_and(|at| at <= now);
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.refusing
    }

    /// The circuit of requests on slots that nobody is known to serve.
    pub(super) fn circuit(&self) -> Circuit {
        match (self.refusing, &self.running) {
            (false, _) => Circuit::Closed,
            (true, Some(_)) => Circuit::HalfOpen,
            (true, None) => Circuit::Open,
        }
    }

    /// What a request is told for whose key nobody is known, if nobody is to wait for that.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.refusing
            .then(|| refused(&self.config.servers.to_string(), self.error.as_ref()))
    }

    /// Why nobody is known to serve a key.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}
