//! What one turn of a [`Core`] asks its driver to do.

#[cfg(doc)]
use super::Core;
use super::{Completion, Notice, nodes::NodeId};
use crate::connection::{Identity, Target};

/// One attempt at a connection, and the connection that comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    pub(super) node: NodeId,
    /// No two have the same.
    pub(super) id: u64,
}

impl Connection {
    /// Where a driver may keep what belongs to it: no two that live at the same time have the same.
    pub fn place(&self) -> usize {
        self.node.index as usize
    }
}

/// What the driver is to do.
pub enum Action {
    /// Open a connection, then call [`Core::on_open`].
    Open {
        /// Which.
        connection: Connection,
        /// The server.
        target: Target,
        /// The connection to kill before this one serves: the server may still run commands of it.
        predecessor: Option<Identity>,
    },
    /// Close a connection, or give up opening it.
    Close(Connection),
    /// Ask the configured nodes for the map of the cluster, then call [`Core::on_discovered`].
    Discover,
}

/// What one turn asks the driver to do; taken out by it.
#[derive(Default)]
pub struct Turn {
    /// In this order.
    pub actions: Vec<Action>,
    /// Connections that have [`Core::output`].
    pub writes: Vec<Connection>,
    /// Answers to requests.
    pub completions: Vec<Completion>,
    /// Events of the store.
    pub notices: Vec<Notice>,
    /// The store is closed: no further action comes.
    pub ended: bool,
}
