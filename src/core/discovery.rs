//! Schedules requests for the map of a cluster: over a connected node, otherwise over the configured nodes; at
//! growing intervals while the answers do not help.

use std::time::{Duration, Instant};

use super::{Circuit, NodeId, backoff::Backoff, breaker::CircuitBreaker};
use crate::{
    config::{CLUSTER_RETRY, CLUSTER_RETRY_MAX, MAP_RETRY_MAX},
    error::{Error, ErrorCode},
    mutation::{Mutation, is_active},
};

/// The state of the discovery.
pub(super) struct Discovery {
    due: Option<Instant>,
    running: Option<Asked>,
    /// The node that a MOVED named since the map was last asked for: the map is out of date, and this node
    /// knows of a newer one.
    contradicted_for: Option<NodeId>,
    asked_at: Option<Instant>,
    pub(super) attempts: usize,
    backoff: Backoff,
    pub(super) breaker: CircuitBreaker,
    error: Option<Error>,
}

/// The source of the map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An open connection.
    Node,
    /// A new connection to the configured nodes.
    Seeds,
}

impl Discovery {
    /// A discovery that is due at once.
    pub(super) fn new(now: Instant) -> Self {
        let mut breaker = CircuitBreaker::default();
        breaker.fail(now);
        Self {
            due: Some(now),
            running: None,
            contradicted_for: None,
            asked_at: None,
            attempts: 0,
            backoff: Backoff::default(),
            breaker,
            error: None,
        }
    }

    /// Requests a new map, because it has changed or is incomplete. `is_urgent`: requests wait for an
    /// unavailable node.
    pub(super) fn request(&mut self, now: Instant, is_urgent: bool) {
        let limit = if is_urgent {
            CLUSTER_RETRY_MAX
        } else {
            MAP_RETRY_MAX
        };
        if let Some(due) = self.due {
            if is_urgent {
                self.due = Some(due.min(now + limit));
            }
            return;
        }
        if self.asked_at.is_some_and(|at| at + 2 * MAP_RETRY_MAX < now) {
            self.backoff.reset();
        }
        let delay = if is_active(Mutation::MapsAreAskedForWithoutBackoff) {
            Duration::ZERO
        } else {
            self.backoff.next(CLUSTER_RETRY, limit)
        };
        self.due = Some(now + delay);
    }

    /// A MOVED named `node`, and the map does not.
    pub(super) fn contradict(&mut self, node: NodeId) {
        self.contradicted_for = Some(node);
    }

    /// The node that has a newer map.
    pub(super) fn contradicted_for(&self) -> Option<NodeId> {
        self.contradicted_for
    }

    /// Whether the map is known to be out of date.
    pub(super) fn is_outdated(&self) -> bool {
        self.contradicted_for.is_some() || self.is_running()
    }

    /// Requests the map as soon as the rate limit allows.
    pub(super) fn hurry(&mut self, now: Instant) {
        let earliest = self.asked_at.map_or(now, |at| now.max(at + CLUSTER_RETRY));
        self.due = self.due.map(|due| due.min(earliest));
    }

    /// Whether to request the map now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.running.is_none() && self.due.is_some_and(|due| due <= now)
    }

    pub(super) fn begin(&mut self, asked: Asked, now: Instant) {
        self.due = None;
        self.contradicted_for = None;
        self.running = Some(asked);
        self.asked_at = Some(now);
        self.attempts += 1;
    }

    /// Ends the discovery over the configured nodes. Returns whether it was the pending one.
    pub(super) fn end_at_seeds(&mut self) -> bool {
        let is_current = self.running == Some(Asked::Seeds);
        if is_current {
            self.running = None;
        }
        is_current
    }

    /// Ends the discovery over a connected node. Returns whether it was the pending one.
    pub(super) fn end_at_node(&mut self) -> bool {
        let is_current = self.running == Some(Asked::Node);
        if is_current {
            self.running = None;
        }
        is_current
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The time of the next request.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.running.is_none())
    }

    /// Records an answer. `is_complete`: every slot has an owner.
    pub(super) fn succeeded(&mut self, is_complete: bool, now: Instant) {
        self.error = None;
        if is_complete {
            self.breaker.close();
        } else {
            self.breaker.fail(now);
        }
    }

    /// Records a failure. `is_missed`: requests may wait for the map.
    pub(super) fn failed(&mut self, error: Error, is_missed: bool, now: Instant) {
        if is_missed {
            self.breaker.fail(now);
            // Waiting does not help against rejected credentials.
            if error.code != ErrorCode::Connect {
                self.breaker.open();
            }
        }
        self.error = Some(error);
    }

    pub(super) fn circuit(&self) -> Circuit {
        self.breaker.circuit(self.is_running())
    }

    /// The reason why no node is known for a key.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}
