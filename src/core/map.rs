//! The map of a cluster: requesting it, and applying it.

use std::time::Instant;

use super::{
    Action, Core, Notice, discovery::Asked, node::Node, nodes::NodeId, request::ReplyTo,
    router::Router,
};
use crate::{
    command::Command,
    config::{CLUSTER_NODES_MAX, Endpoint},
    connection::{
        Target,
        cluster::{Range, SLOTS},
    },
    error::{Error, ErrorCode},
    mutation::{Mutation, is_active},
};

impl Core {
    /// Schedules a request for the map.
    pub(super) fn request_map(&mut self, is_urgent: bool, now: Instant) {
        if let Router::Cluster(cluster) = &mut self.router {
            cluster.discovery.request(now, is_urgent);
            if let Some(due) = cluster.discovery.due() {
                self.schedule(due);
            }
        }
    }

    /// Requests the map if it is due.
    pub(super) fn discover(&mut self, now: Instant) {
        let Router::Cluster(cluster) = &mut self.router else {
            return;
        };
        if !cluster.unrouted.is_empty() && !cluster.discovery.is_running() {
            self.request_map(true, now);
        }
        let Router::Cluster(cluster) = &mut self.router else {
            return;
        };
        if !cluster.discovery.is_due(now) {
            return;
        }
        self.changed = true;
        let open: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|(_, node)| node.connection())
            .collect();
        let attempts = cluster.discovery.attempts;
        // Sometimes the configured nodes are asked, in case all connected nodes are wrong.
        if open.is_empty() || attempts % 4 == 3 {
            cluster.discovery.begin(Asked::Seeds, now);
            self.turn.actions.push(Action::Discover);
            return;
        }
        let newer = cluster.discovery.contradicted_for();
        let newer = open.iter().find(|it| Some(it.node) == newer);
        let asked = *newer.unwrap_or(&open[attempts % open.len()]);
        cluster.discovery.begin(Asked::Node, now);
        let deadline = now + self.config.command_timeout;
        let command = Command::ClusterSlots;
        let mut job = self.spare.job(command, ReplyTo::Discovery, deadline);
        job.pinned = Some(asked.node);
        job.slot = asked.node.slot();
        job.seq = self.next_seq;
        self.next_seq += 1;
        self.schedule(deadline);
        self.place(job);
    }

    /// The answer of the configured nodes to [`Action::Discover`].
    pub fn on_discovered(&mut self, answer: Result<Vec<Range>, Error>, now: Instant) {
        if let Some(cluster) = self.router.cluster_mut()
            && cluster.discovery.end_at_seeds()
        {
            self.discovered(answer, now);
        }
    }

    /// The answer of a connected node.
    pub(super) fn node_discovered(&mut self, answer: Result<Vec<Range>, Error>, now: Instant) {
        if let Some(cluster) = self.router.cluster_mut()
            && cluster.discovery.end_at_node()
        {
            self.discovered(answer, now);
        }
    }

    fn discovered(&mut self, answer: Result<Vec<Range>, Error>, now: Instant) {
        self.changed = true;
        if let Err(error) = answer.and_then(|ranges| self.adopt(&ranges, now)) {
            self.turn.notices.push(Notice::Failed(error.clone()));
            let is_missed = !self.is_whole() || !self.is_ready();
            if let Some(cluster) = self.router.cluster_mut() {
                cluster.discovery.failed(error, is_missed, now);
            }
            self.request_map(is_missed, now);
        }
        if let Some(cluster) = self.router.cluster() {
            let opens_at = cluster
                .discovery
                .breaker
                .opens_at(self.config.command_timeout);
            let times = [opens_at, cluster.discovery.due()];
            times.into_iter().flatten().for_each(|at| self.schedule(at));
        }
        self.waiting_for_map(now);
    }

    /// Applies a map.
    fn adopt(&mut self, ranges: &[Range], now: Instant) -> Result<(), Error> {
        let mut masters: Vec<&Endpoint> = Vec::new();
        for (_, _, endpoint) in ranges {
            if !masters.contains(&endpoint) {
                masters.push(endpoint);
            }
            if masters.len() > CLUSTER_NODES_MAX {
                return Err(too_many_nodes());
            }
        }
        let mut owners = vec![None; SLOTS.into()];
        let wanted: Vec<Target> = masters
            .iter()
            .map(|&it| Target::Server(it.clone()))
            .collect();
        self.drop_nodes(|node| !wanted.contains(&node.target));
        for (first, last, endpoint) in ranges {
            let node = self.node_at(endpoint.clone(), now);
            owners[usize::from(*first)..=usize::from(*last)].fill(node);
        }
        let Router::Cluster(cluster) = &mut self.router else {
            return Ok(());
        };
        for (owner, slot) in owners.into_iter().zip(0..) {
            if cluster.table.owner(slot) != owner {
                cluster.table.assign(slot, owner);
                cluster.moved = true;
            }
        }
        cluster.moved |= !cluster.unrouted.is_empty();
        let is_complete = cluster.table.is_complete();
        cluster.discovery.succeeded(is_complete, now);
        let masters: Vec<_> = cluster.table.masters().collect();
        self.drop_nodes(|_| true);
        // An unreachable master may soon be replaced.
        let is_away = |id: &NodeId| self.nodes.get(*id).is_none_or(|node| node.error.is_some());
        if !is_complete || masters.iter().any(is_away) {
            self.request_map(true, now);
        }
        Ok(())
    }

    /// Drops the nodes that own no slots and have nothing to do, if they `match`.
    fn drop_nodes(&mut self, matches: impl Fn(&Node) -> bool) {
        let Router::Cluster(cluster) = &self.router else {
            return;
        };
        if is_active(Mutation::NodesThatLeftAreKept) {
            return;
        }
        let idle: Vec<_> = self
            .nodes
            .iter()
            .filter(|(id, node)| {
                !cluster.table.is_master(*id)
                    && node.queue.is_empty()
                    && node.flight.len() == 0
                    && matches(node)
            })
            .map(|(id, _)| id)
            .collect();
        for id in idle {
            if let Some(node) = self.nodes.remove(id) {
                self.stats.traffic += node.traffic;
                self.turn.actions.extend(node.attempt().map(Action::Close));
            }
        }
    }
}

fn too_many_nodes() -> Error {
    Error::new(
        ErrorCode::Connect,
        format!(
            "The map of the cluster names more than {CLUSTER_NODES_MAX} masters; check that the address belongs to a Redis cluster."
        ),
    )
}
