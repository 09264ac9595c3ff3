//! Requests that wait because Redis did not execute a request of their slot: the slot is moving, the server is
//! loading, or the script is unknown. They are sent again in order, after their pause and when no request of
//! their slot is on the wire. A silent connection is replaced after a deadline, so this wait ends in time.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use super::request::{Expired, Job};
use crate::{
    error::Error,
    mutation::{Mutation, is_active},
};

/// Parked requests, by slot.
#[derive(Default)]
pub(super) struct Parked {
    slots: BTreeMap<u16, Slot>,
}

struct Slot {
    jobs: Vec<Job>,
    not_before: Instant,
}

/// How to handle a request that was executed while earlier ones of its slot are parked.
pub(super) enum Order {
    /// It may be answered.
    Kept,
    /// An earlier write of its key is still parked: the key must be read again after it.
    ReadAgain,
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the slot of `job` is parked.
    pub(super) fn holds(&self, job: &Job) -> bool {
        !self.slots.is_empty() && self.slots.contains_key(&job.slot)
    }

    /// Adds `job` to the others of its slot.
    pub(super) fn add(&mut self, job: Job) {
        if let Some(slot) = self.slots.get_mut(&job.slot) {
            slot.jobs.push(job);
        }
    }

    /// Parks `slot` until `not_before` at the earliest.
    pub(super) fn park(&mut self, slot: u16, not_before: Instant) {
        let jobs = Vec::new();
        let slot = self.slots.entry(slot).or_insert(Slot { jobs, not_before });
        slot.not_before = slot.not_before.max(not_before);
    }

    /// `later` was executed: removes the parked writes that would undo it. If it is a write, `has_written` says
    /// whether its condition was met.
    pub(super) fn executed(&mut self, later: &Job, has_written: bool) -> (Order, Vec<Job>) {
        let Some(slot) = self.slots.get_mut(&later.slot) else {
            return (Order::Kept, Vec::new());
        };
        let is_before = |job: &Job| job.seq < later.seq;
        if later.command.written_key().is_some() {
            if !has_written || is_active(Mutation::ResentWritesFollowLaterWrites) {
                return (Order::Kept, Vec::new());
            }
            let undoes = |job: &mut Job| is_before(job) && job.would_undo(later);
            return (Order::Kept, slot.jobs.extract_if(.., undoes).collect());
        }
        let key = later.command.key();
        let waits = |job: &Job| is_before(job) && key.is_some() && job.command.written_key() == key;
        let order =
            if slot.jobs.iter().any(waits) && !is_active(Mutation::ResentWritesFollowLaterReads) {
                Order::ReadAgain
            } else {
                Order::Kept
            };
        (order, Vec::new())
    }

    /// Removes the slots whose pause is over and that have no request on the wire, with their requests in
    /// order.
    pub(super) fn release<'a>(
        &mut self,
        now: Instant,
        flying: impl Iterator<Item = &'a Job>,
    ) -> (HashSet<u16>, Vec<Job>) {
        let flying: HashSet<u16> = flying
            .filter(|job| self.slots.contains_key(&job.slot))
            .map(|job| job.slot)
            .collect();
        let mut released = HashSet::new();
        let mut jobs = Vec::new();
        self.slots.retain(|number, slot| {
            if slot.not_before > now || flying.contains(number) {
                return true;
            }
            released.insert(*number);
            jobs.append(&mut slot.jobs);
            false
        });
        jobs.sort_unstable_by_key(|job| job.seq);
        (released, jobs)
    }

    /// Removes the requests whose deadline has passed.
    pub(super) fn expire(&mut self, now: Instant, expired: &mut Vec<Expired>) {
        if is_active(Mutation::ParkedRequestsHaveNoDeadline) {
            return;
        }
        for slot in self.slots.values_mut() {
            let late = slot.jobs.extract_if(.., |job| job.deadline <= now);
            expired.extend(late.map(|mut job| job.expire()));
        }
    }

    /// The next deadline or end of a pause. After its pause, a slot waits for replies.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let times = self.slots.values().flat_map(|slot| {
            let pause = Some(slot.not_before).filter(|at| *at > now);
            slot.jobs.iter().map(|job| job.deadline).chain(pause)
        });
        times.min()
    }

    /// The error of a request that timed out here.
    pub(super) fn error(expired: &Expired) -> Option<Error> {
        expired.refusal.as_deref().cloned()
    }
}
