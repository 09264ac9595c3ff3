//! Handles timers: deadlines, retries and silent connections.

use std::time::Instant;

use super::{Core, NodeId, node::Node, parked::Parked, request::Expired};
use crate::{
    error::Error,
    mutation::{Mutation, is_active},
};

impl Core {
    /// Handles everything that is due. Call it after reading all available data, so that replies that arrived
    /// in time count.
    pub fn on_timer(&mut self, now: Instant) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        self.is_overdue = true;
        self.changed = true;
        self.expire(now);
        for (id, error) in self.silent(now) {
            self.silence(id, &error, now);
        }
        let due = |node: &Node| node.retry_at().is_some_and(|at| at <= now);
        let retried = self.nodes.iter().filter(|(_, node)| due(node));
        let retried: Vec<NodeId> = retried.map(|(id, _)| id).collect();
        for id in retried {
            self.connect(id, now);
        }
    }

    /// Fails all requests whose deadline has passed.
    fn expire(&mut self, now: Instant) {
        let mut expired: Vec<(Expired, Error)> = Vec::new();
        let mut some = Vec::new();
        for (_, node) in self.nodes.iter_mut() {
            node.expire(now, &mut some);
            if some.is_empty() {
                continue;
            }
            let error = node.timeout_error(&self.config);
            expired.extend(some.drain(..).map(|it| (it, error.clone())));
        }
        self.parked.expire(now, &mut some);
        if let Some(cluster) = self.router.cluster_mut() {
            let late = cluster.unrouted.extract_if(.., |job| job.deadline <= now);
            some.extend(late.map(|mut job| job.expire()));
        }
        for it in some {
            let error = Parked::error(&it).unwrap_or_else(|| self.unrouted_error());
            expired.push((it, error));
        }
        for (it, error) in expired {
            self.finish_expired(&it, error, now);
        }
        self.expire_waiting_for_map(now);
    }

    /// The nodes whose oldest command has been unanswered for a whole deadline. Time in which nothing was read
    /// does not count.
    fn silent(&self, now: Instant) -> Vec<(NodeId, Error)> {
        let nodes = self.nodes.iter();
        nodes
            .filter(|(_, node)| self.silent_at(node).is_some_and(|at| at <= now))
            .map(|(id, node)| (id, node.timeout_error(&self.config)))
            .collect()
    }

    fn silent_at(&self, node: &Node) -> Option<Instant> {
        if is_active(Mutation::SilentConnectionsAreKept) {
            return None;
        }
        let mut since = node.flight.oldest()?.max(self.reading_since?);
        if is_active(Mutation::SilenceEndsWithAnyByte) {
            since = since.max(node.read_at?);
        }
        Some(since + self.config.command_timeout)
    }

    /// The next time at which something may be due.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let timeout = self.config.command_timeout;
        let nodes = self.nodes.iter().flat_map(|(_, node)| {
            let queued = (!node.is_up())
                .then(|| node.breaker.opens_at(timeout))
                .flatten();
            [
                node.earliest_deadline(),
                self.silent_at(node),
                node.retry_at(),
                queued,
            ]
        });
        let cluster = self.router.cluster().into_iter().flat_map(|cluster| {
            let unrouted = cluster.unrouted.iter().map(|job| job.deadline).min();
            let discovery = &cluster.discovery;
            [
                unrouted,
                discovery.due(),
                discovery.breaker.opens_at(timeout),
            ]
        });
        nodes
            .chain(cluster)
            .chain([self.parked.wake_at(now), self.tasks.waiting_until()])
            .flatten()
            .min()
    }

    /// For tests: whether the timer is set for every wait.
    #[doc(hidden)]
    pub fn is_awake_in_time(&self, now: Instant) -> bool {
        match (self.next_wake(now), self.wake) {
            (Some(due), Some(wake)) => wake <= due,
            (due, _) => due.is_none(),
        }
    }
}
