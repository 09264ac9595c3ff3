//! Routes requests to nodes: to the only one, or in a cluster to the owner of the slot of their key.

use std::time::Instant;

use super::{
    Action, Connection, Core, NodeId,
    discovery::Discovery,
    node::Node,
    request::{Job, take},
    slots::SlotTable,
};
use crate::{
    config::{CLUSTER_NODES_MAX, CLUSTER_RETRY, Config, Endpoint, RECONNECT_MAX, Servers},
    connection::{
        Target,
        cluster::{self, SLOTS},
    },
    error::{Error, ErrorCode},
    mutation::{Mutation, is_active},
};

/// The router by topology.
pub(super) enum Router {
    /// One server, or the master that sentinels name.
    Single,
    /// Many servers.
    Cluster(Box<Cluster>),
}

/// The state of a cluster.
pub(super) struct Cluster {
    pub(super) table: SlotTable,
    pub(super) discovery: Discovery,
    /// Requests to slots without an owner.
    pub(super) unrouted: Vec<Job>,
    /// The slot table has changed in this turn: requests may wait at the wrong node.
    pub(super) moved: bool,
}

impl Router {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        match config.servers {
            Servers::One(_) | Servers::Sentinel(_) => Self::Single,
            Servers::Cluster(_) => Self::Cluster(Box::new(Cluster {
                table: SlotTable::new(),
                discovery: Discovery::new(now),
                unrouted: Vec::new(),
                moved: false,
            })),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub(super) fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Single => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }

    pub(super) fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        match self {
            Self::Single => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }

    /// The slot of a key.
    pub(super) fn slot_of(&self, key: Option<&[u8]>) -> u16 {
        match (self, key) {
            (_, None) => SLOTS,
            (Self::Cluster(_), Some(key)) => cluster::slot_of(key),
            // Without a cluster any hash of the key serves. The end of a key differs most.
            (Self::Single, Some(key)) => match key.last_chunk::<8>() {
                Some(end) => {
                    (u64::from_le_bytes(*end).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as u16
                }
                None => key.len() as u16,
            },
        }
    }
}

impl Core {
    /// Adds the one node of a store without a cluster.
    pub(super) fn add_first_node(&mut self, now: Instant) {
        let target = match &self.config.servers {
            Servers::One(endpoint) => Target::Server(endpoint.clone()),
            Servers::Sentinel(_) => Target::Master,
            Servers::Cluster(_) => return,
        };
        self.nodes.insert(Node::new(target, now));
        self.connect(NodeId::FIRST, now);
    }

    /// Begins an attempt to connect.
    pub(super) fn connect(&mut self, id: NodeId, now: Instant) {
        let connection = Connection {
            node: id,
            id: self.next_connection,
        };
        if let Some(node) = self.nodes.get_mut(id) {
            self.next_connection += 1;
            let predecessor = node.opening(connection, now);
            self.turn.actions.push(Action::Open {
                connection,
                target: node.target.clone(),
                predecessor,
            });
            self.changed = true;
        }
    }

    /// Handles a connection of `id` that was lost or could not be opened.
    pub(super) fn lose(&mut self, id: NodeId, error: &Error, now: Instant) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let attempt = node.attempt();
        let refused = node.lose(error.clone(), now, &mut self.random);
        self.lost(id, attempt, refused, error, now);
    }

    /// Gives up the silent connection of `id`.
    pub(super) fn silence(&mut self, id: NodeId, error: &Error, now: Instant) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let attempt = node.attempt();
        let timeout = self.config.command_timeout;
        let refused = node.silent(error.clone(), timeout, now, &mut self.random);
        self.lost(id, attempt, refused, error, now);
    }

    fn lost(
        &mut self,
        id: NodeId,
        attempt: Option<Connection>,
        refused: Vec<Job>,
        error: &Error,
        now: Instant,
    ) {
        self.turn.actions.extend(attempt.map(Action::Close));
        self.turn.notices.push(super::Notice::Failed(error.clone()));
        self.changed = true;
        if let Some(node) = self.nodes.get(id) {
            let times = [
                node.retry_at(),
                node.breaker.opens_at(self.config.command_timeout),
            ];
            times.into_iter().flatten().for_each(|at| self.schedule(at));
        }
        for job in refused {
            self.finish(&job, Err(error.clone()));
        }
        self.request_map(true, now);
    }

    /// Queues a request at its node, after all earlier requests.
    pub(super) fn place(&mut self, job: Job) {
        if self.parked.holds(&job) {
            return self.parked.add(job);
        }
        let owner = match (job.pinned, &self.router) {
            (Some(id), _) => Some(id),
            (None, Router::Single) => Some(NodeId::FIRST),
            (None, Router::Cluster(cluster)) => cluster.table.owner(job.slot),
        };
        match owner.map(|id| self.nodes.get_mut(id)) {
            Some(Some(node)) => {
                node.enqueue(job);
                self.changed |= !node.is_up();
            }
            // The node has left the cluster.
            Some(None) => self.finish(&job, Err(node_left())),
            None => {
                if let Router::Cluster(cluster) = &mut self.router {
                    cluster.unrouted.push(job);
                    self.changed = true;
                }
            }
        }
    }

    /// Parks `job`, which was not executed, and its slot.
    pub(super) fn park(&mut self, mut job: Job, not_before: Instant) {
        job.asking = false;
        self.schedule(not_before);
        self.parked.park(job.slot, not_before);
        self.parked.add(job);
    }

    /// The pause of a request after `refusals` refusals.
    pub(super) fn pause(refusals: u8) -> std::time::Duration {
        if is_active(Mutation::ClusterDownIsRepeatedWithoutBackoff) {
            return CLUSTER_RETRY;
        }
        let doubled = CLUSTER_RETRY.saturating_mul(1 << refusals.min(10));
        doubled.min(RECONNECT_MAX)
    }

    /// Sends the requests whose pause is over.
    pub(super) fn release(&mut self, now: Instant) {
        if let Some(cluster) = self.router.cluster_mut()
            && std::mem::take(&mut cluster.moved)
        {
            self.resettle(now);
        }
        if self.parked.is_empty() {
            return;
        }
        let flying = self.nodes.iter().flat_map(|(_, node)| node.flight.jobs());
        let (slots, mut jobs) = self.parked.release(now, flying);
        if slots.is_empty() {
            return;
        }
        if let Router::Cluster(cluster) = &self.router {
            for (id, node) in self.nodes.iter_mut() {
                jobs.extend(take(&mut node.queue, |job| {
                    job.pinned.is_none()
                        && !job.asking
                        && slots.contains(&job.slot)
                        && cluster.table.owner(job.slot) != Some(id)
                }));
            }
            jobs.sort_unstable_by_key(|job| job.seq);
        }
        jobs.into_iter().for_each(|job| self.place(job));
    }

    /// Moves requests that wait at a node that does not own their slot, and parks slots with requests on the
    /// wire to such a node.
    fn resettle(&mut self, now: Instant) {
        let Router::Cluster(cluster) = &mut self.router else {
            return;
        };
        let mut displaced = std::mem::take(&mut cluster.unrouted);
        for (id, node) in self.nodes.iter_mut() {
            let strays = |job: &Job| {
                job.pinned.is_none() && !job.asking && cluster.table.owner(job.slot) != Some(id)
            };
            for job in node.flight.jobs().filter(|job| strays(job)) {
                self.parked.park(job.slot, now);
            }
            displaced.extend(take(&mut node.queue, strays));
        }
        displaced.sort_unstable_by_key(|job| job.seq);
        displaced.into_iter().for_each(|job| self.place(job));
    }

    /// A node reports that `slot` is served at `endpoint`.
    pub(super) fn slot_moved(&mut self, slot: u16, endpoint: Endpoint, now: Instant) -> bool {
        let Some(node) = self.node_at(endpoint, now) else {
            return false;
        };
        if let Some(cluster) = self.router.cluster_mut()
            && slot < SLOTS
        {
            cluster.table.assign(slot, Some(node));
            cluster.discovery.contradict(node);
        }
        self.changed = true;
        self.request_map(false, now);
        true
    }

    /// The node at `endpoint`, created if necessary. None if there are too many.
    pub(super) fn node_at(&mut self, endpoint: Endpoint, now: Instant) -> Option<NodeId> {
        let target = Target::Server(endpoint);
        if let Some((id, _)) = self.nodes.iter().find(|(_, node)| node.target == target) {
            return Some(id);
        }
        if self.nodes.len() >= CLUSTER_NODES_MAX {
            return None;
        }
        let id = self.nodes.insert(Node::new(target, now));
        self.schedule(now + self.config.command_timeout);
        self.connect(id, now);
        Some(id)
    }

    /// The nodes that hold keys; empty while the map of a cluster is unknown.
    pub(super) fn masters(&self) -> Vec<NodeId> {
        match &self.router {
            Router::Single => vec![NodeId::FIRST],
            Router::Cluster(cluster) => cluster.table.masters().collect(),
        }
    }

    /// Whether every slot has a node.
    pub(super) fn is_whole(&self) -> bool {
        self.router
            .cluster()
            .is_none_or(|cluster| cluster.table.is_complete())
    }

    /// Whether any server that holds keys is connected.
    pub fn is_serving(&self) -> bool {
        let is_up = |id: NodeId| self.nodes.get(id).is_some_and(Node::is_up);
        self.masters().into_iter().any(is_up)
    }

    /// Whether all servers that hold keys are connected.
    pub(super) fn is_ready(&self) -> bool {
        let masters = self.masters();
        let is_up = |id: &NodeId| self.nodes.get(*id).is_some_and(Node::is_up);
        !masters.is_empty() && masters.iter().all(is_up)
    }
}

fn node_left() -> Error {
    Error::new(
        ErrorCode::Connect,
        "The node that was asked has left the cluster; repeat the request.",
    )
}
