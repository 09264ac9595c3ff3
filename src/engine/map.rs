//! Which lane serves a key. One lane serves every key unless Redis is a cluster, whose slots move:
//! then the requests on a slot wait here until nothing of them is left where they were sent before,
//! so that they reach Redis in the order in which they were made.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{Circuit, discovery::Discovery, job::Job, lane::Lane};
use crate::{
    config::{CLUSTER_RETRY, Config, Endpoint, Servers},
    connection::{
        Target,
        cluster::{self, Range, SLOTS},
    },
    error::Error,
};

/// The lanes and who serves what.
pub(super) struct Map {
    config: Arc<Config>,
    pub(super) lanes: Vec<Lane>,
    /// The lane of each slot of a cluster. None: there is no cluster, and one lane.
    slots: Option<Box<[Option<usize>]>>,
    /// The lanes that hold keys; none as long as a cluster is unknown.
    masters: Vec<usize>,
    holds: HashMap<u16, Hold>,
    /// Requests on slots that nobody is known to serve.
    unrouted: Vec<Job>,
    pub(super) discovery: Discovery,
    next_seq: u64,
}

/// The requests on one slot, waiting.
struct Hold {
    jobs: Vec<Job>,
    not_before: Instant,
}

impl Map {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let mut map = Self {
            config: Arc::clone(config),
            lanes: Vec::new(),
            slots: None,
            masters: vec![0],
            holds: HashMap::new(),
            unrouted: Vec::new(),
            discovery: Discovery::new(config),
            next_seq: 0,
        };
        match &config.servers {
            Servers::One(endpoint) => {
                let target = Target::Server(endpoint.clone());
                map.lanes.push(Lane::new(config, target));
            }
            Servers::Sentinel(_) => map.lanes.push(Lane::new(config, Target::Master)),
            Servers::Cluster(_) => map.serve(vec![None; SLOTS.into()].into()),
        }
        map
    }

    /// Whether nothing but deadlines is to be looked at in time.
    pub(super) fn is_settled(&self) -> bool {
        self.slots.is_none() && self.holds.is_empty()
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// The lanes that hold keys; none as long as a cluster is unknown.
    pub(super) fn masters(&self) -> &[usize] {
        &self.masters
    }

    /// These lanes serve the slots of the cluster from now on.
    fn serve(&mut self, slots: Box<[Option<usize>]>) {
        let mut masters: Vec<usize> = slots.iter().flatten().copied().collect();
        masters.sort_unstable();
        masters.dedup();
        self.masters = masters;
        self.slots = Some(slots);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.holds.is_empty() && self.unrouted.is_empty() && self.lanes.iter().all(Lane::is_idle)
    }

    /// Queues a new request.
    pub(super) fn enter(&mut self, mut job: Job) {
        job.seq = self.next_seq;
        self.next_seq += 1;
        if self.slots.is_some() {
            job.slot = job.command.key().map_or(0, cluster::slot_of);
        }
        self.place(job);
    }

    /// Queues a request where its key is, before those that wait there and were made after it.
    pub(super) fn place(&mut self, job: Job) {
        if let Some(lane) = job.pinned {
            self.lanes[lane].enqueue(job);
        } else if let Some(hold) = self.holds.get_mut(&job.slot) {
            hold.jobs.push(job);
        } else {
            match self.lane_of(job.slot) {
                Some(lane) => self.lanes[lane].enqueue(job),
                None => {
                    self.unrouted.push(job);
                    self.rediscover();
                }
            }
        }
    }

    fn lane_of(&self, slot: u16) -> Option<usize> {
        match &self.slots {
            None => Some(0),
            Some(slots) => slots[usize::from(slot)],
        }
    }

    /// A node says that `job`'s slot has moved to `endpoint`.
    pub(super) fn moved(&mut self, job: Job, endpoint: Endpoint) {
        let lane = self.lane_at(endpoint);
        if let Some(mut slots) = self.slots.take() {
            slots[usize::from(job.slot)] = Some(lane);
            self.serve(slots);
        }
        self.rediscover();
        self.hold(job, Instant::now());
    }

    /// A node says that `job`'s key is at `endpoint` already. Later requests on it are told the
    /// same by that node, and so come after it.
    pub(super) fn ask(&mut self, mut job: Job, endpoint: Endpoint) {
        job.asking = true;
        let lane = self.lane_at(endpoint);
        self.lanes[lane].enqueue(job);
    }

    /// Nobody serves `job`'s slot for the moment.
    pub(super) fn later(&mut self, job: Job) {
        self.rediscover();
        self.hold(job, Instant::now() + CLUSTER_RETRY);
    }

    fn hold(&mut self, job: Job, not_before: Instant) {
        let slot = job.slot;
        let hold = self.holds.entry(slot).or_insert_with(|| Hold {
            jobs: Vec::new(),
            not_before,
        });
        hold.not_before = hold.not_before.max(not_before);
        hold.jobs.push(job);
        for lane in &mut self.lanes {
            hold.jobs.extend(take(&mut lane.queue, |job| {
                job.pinned.is_none() && job.slot == slot
            }));
        }
    }

    /// Lets go the requests that nothing holds any more.
    pub(super) fn release(&mut self) {
        if self.holds.is_empty() {
            return;
        }
        let now = Instant::now();
        let free: Vec<u16> = self
            .holds
            .iter()
            .filter(|(slot, hold)| hold.not_before <= now && !self.is_flying(**slot))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in free {
            if let Some(mut hold) = self.holds.remove(&slot) {
                hold.jobs.sort_unstable_by_key(|job| job.seq);
                hold.jobs.into_iter().for_each(|job| self.place(job));
            }
        }
    }

    fn is_flying(&self, slot: u16) -> bool {
        self.lanes
            .iter()
            .flat_map(Lane::flying)
            .any(|job| job.pinned.is_none() && job.slot == slot)
    }

    fn lane_at(&mut self, endpoint: Endpoint) -> usize {
        let target = Target::Server(endpoint);
        if let Some(at) = self.lanes.iter().position(|lane| lane.target == target) {
            self.lanes[at].link.revive();
            return at;
        }
        self.lanes.push(Lane::new(&self.config, target));
        self.lanes.len() - 1
    }

    /// Asks the cluster anew who serves what, soon.
    pub(super) fn rediscover(&mut self) {
        if self.slots.is_some() {
            self.discovery.soon();
        }
    }

    /// Asks the cluster what is due.
    pub(super) fn discover(&mut self) {
        let up = self.lanes.iter().filter(|lane| lane.link.is_up());
        let nodes = up.filter_map(|lane| lane.target.endpoint().cloned());
        self.discovery.start(nodes);
    }

    /// Takes in what the cluster said.
    pub(super) fn discovered(&mut self, answer: Result<Vec<Range>, Error>) {
        let ranges = match answer {
            Ok(ranges) => ranges,
            Err(error) => return self.discovery.failed(error),
        };
        self.discovery.succeeded();
        let mut slots = vec![None; SLOTS.into()].into_boxed_slice();
        for (first, last, endpoint) in ranges {
            let lane = self.lane_at(endpoint);
            slots[usize::from(first)..=usize::from(last)].fill(Some(lane));
        }
        self.serve(slots);
        self.resettle();
        let masters = &self.masters;
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if !masters.contains(&at) && lane.is_idle() && lane.flying().next().is_none() {
                lane.link.retire();
            }
        }
        // A master that cannot be reached may be about to be replaced.
        if masters
            .iter()
            .any(|&at| self.lanes[at].link.failure().is_some())
        {
            self.discovery.later();
        } else {
            self.discovery.rest();
        }
    }

    /// Moves what waits in a lane that serves it no more, behind what is on the wire there.
    pub(super) fn resettle(&mut self) {
        let held: Vec<u16> = self.holds.keys().copied().collect();
        let owner = |slot: u16| match &self.slots {
            None => Some(0),
            Some(slots) => slots[usize::from(slot)],
        };
        let mut displaced = std::mem::take(&mut self.unrouted);
        let mut flying = Vec::new();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let strays =
                |job: &Job| job.pinned.is_none() && !job.asking && owner(job.slot) != Some(at);
            flying.extend(lane.flying().filter(|job| strays(job)).map(|job| job.slot));
            displaced.extend(take(&mut lane.queue, |job| {
                strays(job) || (job.pinned.is_none() && !job.asking && held.contains(&job.slot))
            }));
        }
        let now = Instant::now();
        for slot in flying {
            self.holds.entry(slot).or_insert_with(|| Hold {
                jobs: Vec::new(),
                not_before: now,
            });
        }
        displaced.sort_unstable_by_key(|job| job.seq);
        displaced.into_iter().for_each(|job| self.place(job));
    }

    /// Takes out the requests outside of lanes whose deadline has come.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Job> {
        let late = |job: &Job| job.deadline <= now;
        let mut expired: Vec<Job> = self.unrouted.extract_if(.., |job| late(job)).collect();
        for hold in self.holds.values_mut() {
            expired.extend(hold.jobs.extract_if(.., |job| late(job)));
        }
        expired
    }

    /// When something here is next to be looked at.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let held = self.holds.values().flat_map(|hold| {
            let deadlines = hold.jobs.iter().map(|job| job.deadline);
            // One that has passed waits for replies, not for the time.
            deadlines.chain([hold.not_before].into_iter().filter(|at| *at > now))
        });
        let unrouted = self.unrouted.iter().map(|job| job.deadline);
        let lanes = self.lanes.iter().filter_map(Lane::earliest_deadline);
        let circuits = self.lanes.iter().filter_map(|lane| lane.link.opens_at());
        let opens_at = self.discovery.opens_at();
        let circuits = circuits.chain(opens_at.filter(|_| self.needs_discovery()));
        lanes
            .chain(held)
            .chain(unrouted)
            .chain(self.discovery.due())
            .chain(circuits)
            .min()
    }

    /// Whether everything that was asked is on the wire or answered.
    pub(super) fn is_calm(&self) -> bool {
        self.holds.is_empty() && self.unrouted.is_empty() && self.lanes.iter().all(Lane::is_calm)
    }

    /// Whether every server that holds keys is known and connected, and none is refused.
    pub(super) fn is_steady(&self) -> bool {
        !self.discovery.is_refusing() && self.is_ready()
    }

    /// Whether all servers that hold keys are connected.
    pub(super) fn is_ready(&self) -> bool {
        let up = |&at: &usize| self.lanes[at].link.is_up();
        !self.masters.is_empty() && self.masters.iter().all(up)
    }

    /// Whether somebody may be waiting for what only the cluster can tell.
    fn needs_discovery(&self) -> bool {
        !self.unrouted.is_empty() || !self.is_ready()
    }

    /// The circuit of the store: open as soon as that of one server is.
    pub(super) fn circuit(&self) -> Circuit {
        let masters = self.masters.iter();
        let circuits: Vec<_> = masters
            .map(|&at| self.lanes[at].link.circuit())
            .chain([self.discovery.circuit()])
            .collect();
        if circuits.contains(&Circuit::Open) {
            Circuit::Open
        } else if circuits.contains(&Circuit::HalfOpen) {
            Circuit::HalfOpen
        } else {
            Circuit::Closed
        }
    }

    /// Opens the circuits that are due, and takes out the requests that wait behind open ones.
    pub(super) fn refuse(&mut self) -> Vec<(Job, Error)> {
        let mut refused = Vec::new();
        if self.needs_discovery() {
            self.discovery.open(Instant::now());
        }
        if self.lanes.iter().all(|lane| lane.link.is_up()) && self.unrouted.is_empty() {
            return refused;
        }
        let now = Instant::now();
        for lane in &mut self.lanes {
            if lane.link.refuses(now)
                && let Some(error) = lane.link.refusal()
            {
                refused.extend(lane.queue.drain(..).map(|job| (job, error.clone())));
            }
        }
        if let Some(error) = self.discovery.refusal() {
            refused.extend(self.unrouted.drain(..).map(|job| (job, error.clone())));
        }
        refused
    }
}

/// Takes out of a queue what `matches`, and leaves the rest in its order.
fn take(queue: &mut VecDeque<Job>, matches: impl Fn(&Job) -> bool) -> Vec<Job> {
    if !queue.iter().any(&matches) {
        return Vec::new();
    }
    let (out, stay): (Vec<_>, Vec<_>) = std::mem::take(queue).into_iter().partition(matches);
    queue.extend(stay);
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn an_idle_store_opens_its_circuit_when_nobody_tells_of_the_cluster_and_then_waits() {
        let mut config = Config::of(Servers::Cluster(Vec::new()));
        config.command_timeout = Duration::ZERO;
        let mut map = Map::new(&Arc::new(config));
        map.discovered(Err(Error::new(ErrorCode::Connect, "nobody")));
        assert!(map.refuse().is_empty());
        assert_eq!(map.circuit(), Circuit::Open);
        assert!(map.wake_at().is_some_and(|at| at > Instant::now()));
    }
}
