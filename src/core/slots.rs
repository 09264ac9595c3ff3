//! The slot table of a cluster.

use super::nodes::NodeId;
use crate::connection::cluster::SLOTS;

/// The owner of each slot, and the number of slots of each node.
pub(super) struct SlotTable {
    owners: Box<[Option<NodeId>]>,
    /// The nodes that own slots, with the number of slots.
    masters: Vec<(NodeId, u16)>,
}

impl SlotTable {
    pub(super) fn new() -> Self {
        Self {
            owners: vec![None; SLOTS.into()].into(),
            masters: Vec::new(),
        }
    }

    pub(super) fn owner(&self, slot: u16) -> Option<NodeId> {
        *self.owners.get(usize::from(slot))?
    }

    /// `owner` serves `slot` from now on.
    pub(super) fn assign(&mut self, slot: u16, owner: Option<NodeId>) {
        let before = std::mem::replace(&mut self.owners[usize::from(slot)], owner);
        if before == owner {
            return;
        }
        if let Some(before) = before
            && let Some(at) = self.masters.iter().position(|(node, _)| *node == before)
        {
            self.masters[at].1 -= 1;
            if self.masters[at].1 == 0 {
                self.masters.swap_remove(at);
            }
        }
        if let Some(owner) = owner {
            match self.masters.iter_mut().find(|(node, _)| *node == owner) {
                Some((_, count)) => *count += 1,
                None => self.masters.push((owner, 1)),
            }
        }
    }

    /// The nodes that own slots.
    pub(super) fn masters(&self) -> impl Iterator<Item = NodeId> {
        self.masters.iter().map(|(node, _)| *node)
    }

    pub(super) fn is_master(&self, node: NodeId) -> bool {
        self.masters().any(|master| master == node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.masters.is_empty()
    }

    /// Whether every slot has an owner.
    pub(super) fn is_complete(&self) -> bool {
        let owned: usize = self.masters.iter().map(|(_, n)| usize::from(*n)).sum();
        owned == usize::from(SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{node::Node, nodes::Nodes},
        *,
    };
    use crate::connection::Target;

    #[test]
    fn masters_are_the_nodes_that_own_slots() {
        let mut nodes = Nodes::default();
        let mut add = || nodes.insert(Node::new(Target::Master, std::time::Instant::now()));
        let (a, b) = (add(), add());
        let mut table = SlotTable::new();
        assert!(table.is_empty());
        for slot in 0..SLOTS {
            table.assign(slot, Some(a));
        }
        assert!(table.is_complete() && table.is_master(a) && !table.is_master(b));
        for slot in 0..SLOTS {
            table.assign(slot, Some(b));
        }
        assert_eq!(table.masters().collect::<Vec<_>>(), [b]);
        table.assign(7, None);
        assert_eq!((table.owner(7), table.is_complete()), (None, false));
    }
}
