//! The circuit of the store, and the requests that wait behind it.

use std::time::Instant;

use super::{Circuit, Core, node::Node, request::Job, router::Router};
use crate::error::{Error, ErrorCode};

impl Core {
    /// The circuit of the store: open if that of any server is open.
    pub(super) fn current_circuit(&self) -> Circuit {
        let masters = self.masters();
        let nodes = masters.iter().filter_map(|id| self.nodes.get(*id));
        let discovery = self
            .router
            .cluster()
            .map(|cluster| cluster.discovery.circuit());
        let circuits: Vec<_> = nodes.map(Node::circuit).chain(discovery).collect();
        for state in [Circuit::Open, Circuit::HalfOpen] {
            if circuits.contains(&state) {
                return state;
            }
        }
        Circuit::Closed
    }

    /// Refuses the requests that wait behind an open circuit.
    pub(super) fn refuse_waiting(&mut self, now: Instant) {
        let timeout = self.config.command_timeout;
        let mut refused: Vec<(Job, Error)> = Vec::new();
        for (_, node) in self.nodes.iter_mut() {
            if !node.is_up() && node.breaker.check(now, timeout) {
                let error = node.refusal(&self.config);
                refused.extend(node.queue.drain(..).map(|job| (job, error.clone())));
            }
        }
        if let Router::Cluster(cluster) = &mut self.router
            && cluster.discovery.breaker.check(now, timeout)
        {
            let error = self.unrouted_refusal();
            if let Router::Cluster(cluster) = &mut self.router {
                let unrouted = cluster.unrouted.drain(..);
                refused.extend(unrouted.map(|job| (job, error.clone())));
            }
            self.refuse_waiting_for_map(&error);
        }
        for (job, error) in refused {
            self.finish(&job, Err(error));
        }
    }

    /// The error for a key without a known node while the circuit is open.
    fn unrouted_refusal(&self) -> Error {
        match self.router.cluster() {
            Some(cluster) if !cluster.table.is_empty() && cluster.discovery.error().is_none() => {
                self.unserved()
            }
            cluster => {
                let last = cluster.and_then(|cluster| cluster.discovery.error());
                Error::refused(&self.config.servers.to_string(), last)
            }
        }
    }

    /// The error for a request that timed out on a slot without an owner.
    pub(super) fn unrouted_error(&self) -> Error {
        match self.router.cluster() {
            Some(cluster) if !cluster.table.is_empty() && cluster.discovery.error().is_none() => {
                self.unserved()
            }
            cluster => {
                let last = cluster.and_then(|cluster| cluster.discovery.error());
                let servers = self.config.servers.to_string();
                Error::no_connection(&servers, self.config.command_timeout, last)
            }
        }
    }

    fn unserved(&self) -> Error {
        Error::new(
            ErrorCode::Connect,
            format!(
                "No node of {} serves the slot of this key; assign it to a node (redis-cli --cluster fix).",
                self.config.servers
            ),
        )
    }
}
