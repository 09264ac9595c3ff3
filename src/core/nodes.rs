//! The servers of a store by unique ids.

use super::node::Node;
use crate::connection::cluster::SLOTS;

/// The id of a server, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeId {
    pub(super) index: u32,
    generation: u32,
}

impl NodeId {
    /// The only server of a store without a cluster.
    pub(super) const FIRST: Self = Self {
        index: 0,
        generation: 0,
    };

    /// A slot number for requests to this node that have no key; no key has it.
    pub(super) fn slot(self) -> u16 {
        SLOTS + 1 + self.index as u16
    }
}

/// A slab of servers.
#[derive(Default)]
pub(super) struct Nodes {
    places: Vec<(u32, Option<Node>)>,
}

impl Nodes {
    pub(super) fn insert(&mut self, node: Node) -> NodeId {
        let free = self.places.iter().position(|(_, place)| place.is_none());
        let at = free.unwrap_or(self.places.len());
        if at == self.places.len() {
            self.places.push((0, None));
        }
        let (generation, place) = &mut self.places[at];
        *place = Some(node);
        NodeId {
            index: at as u32,
            generation: *generation,
        }
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Option<Node> {
        let (generation, place) = self.places.get_mut(id.index as usize)?;
        if *generation != id.generation {
            return None;
        }
        *generation += 1;
        place.take()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        let (generation, place) = self.places.get(id.index as usize)?;
        place.as_ref().filter(|_| *generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        let (generation, place) = self.places.get_mut(id.index as usize)?;
        place.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let numbered = self.places.iter().zip(0..);
        numbered.filter_map(|((generation, place), index)| {
            let generation = *generation;
            Some((NodeId { index, generation }, place.as_ref()?))
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Node)> {
        let numbered = self.places.iter_mut().zip(0..);
        numbered.filter_map(|((generation, place), index)| {
            let generation = *generation;
            Some((NodeId { index, generation }, place.as_mut()?))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }
}
