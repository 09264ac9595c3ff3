//! The effects of one turn of a [`Core`], which its driver carries out.

#[cfg(doc)]
use super::Core;
use super::{Completion, Notice, nodes::NodeId};
use crate::connection::{Identity, Target};

/// The id of an attempt to connect, and of the resulting connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    pub(super) node: NodeId,
    /// Unique.
    pub(super) id: u64,
}

impl Connection {
    /// An index for the driver's data. Unique among the connections that exist at the same time.
    pub fn place(&self) -> usize {
        self.node.index as usize
    }
}

/// An action of the driver.
pub enum Action {
    /// Open a connection, then call [`Core::on_open`].
    Open {
        /// Which.
        connection: Connection,
        /// The server.
        target: Target,
        /// The connection to kill first: the server may still execute its commands.
        predecessor: Option<Identity>,
    },
    /// Close a connection, or give up opening it.
    Close(Connection),
    /// Ask the configured nodes for the map of the cluster, then call [`Core::on_discovered`].
    Discover,
}

/// The effects of one turn; the driver removes them.
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
    /// The store is closed: no more actions follow.
    pub ended: bool,
}
