//! Which lane serves a key. One lane serves every key unless Redis is a cluster, whose slots move:
//! then the requests on a slot wait here until nothing of them is left where they were sent before,
//! so that they reach Redis in the order in which they were made.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::Instant;

use super::{Circuit, job::Job, lane::Lane, link::refused};
use crate::{
    config::{CLUSTER_RETRY, CLUSTER_RETRY_MAX, Config, Endpoint, Servers},
    connection::{
        Target,
        cluster::{self, Range, SLOTS},
    },
    error::{Error, ErrorCode},
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
    discovery: Discovery,
    next_seq: u64,
}

/// The requests on one slot, waiting.
struct Hold {
    jobs: Vec<Job>,
    not_before: Instant,
}

#[derive(Default)]
struct Discovery {
    running: Option<BoxFuture<'static, Result<Vec<Range>, Error>>>,
    due: Option<Instant>,
    failures: u32,
    error: Option<Error>,
    /// Since when nobody has told.
    unknown_since: Option<Instant>,
    /// Nobody is to wait for the answer.
    refusing: bool,
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
            discovery: Discovery::default(),
            next_seq: 0,
        };
        match &config.servers {
            Servers::One(endpoint) => {
                let target = Target::Server(endpoint.clone());
                map.lanes.push(Lane::new(config, target));
            }
            Servers::Sentinel(_) => map.lanes.push(Lane::new(config, Target::Master)),
            Servers::Cluster(_) => {
                map.serve(vec![None; SLOTS.into()].into());
                map.discovery.due = Some(Instant::now());
                map.discovery.unknown_since = map.discovery.due;
            }
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
        if self.slots.is_some() && self.discovery.due.is_none() {
            self.discovery.due = Some(Instant::now() + CLUSTER_RETRY);
        }
    }

    /// Starts what is due.
    pub(super) fn discover(&mut self) {
        let Some(due) = self.discovery.due else {
            return;
        };
        if self.discovery.running.is_some() || due > Instant::now() {
            return;
        }
        self.discovery.due = None;
        let mut nodes: Vec<Endpoint> = self
            .lanes
            .iter()
            .filter(|lane| lane.link.is_up())
            .filter_map(|lane| lane.target.endpoint().cloned())
            .collect();
        if let Servers::Cluster(seeds) = &self.config.servers {
            let new = seeds.iter().filter(|seed| !nodes.contains(seed)).cloned();
            let new: Vec<_> = new.collect();
            nodes.extend(new);
        }
        self.discovery.running = Some(cluster::discover(Arc::clone(&self.config), nodes).boxed());
    }

    pub(super) fn running_discovery(
        &mut self,
    ) -> Option<&mut BoxFuture<'static, Result<Vec<Range>, Error>>> {
        self.discovery.running.as_mut()
    }

    /// Takes in what the cluster said.
    pub(super) fn discovered(&mut self, answer: Result<Vec<Range>, Error>) {
        self.discovery.running = None;
        let ranges = match answer {
            Ok(ranges) => ranges,
            Err(error) => {
                // Credentials do not get better by waiting.
                self.discovery.refusing |= error.code != ErrorCode::Connect;
                self.discovery.error = Some(error);
                self.discovery
                    .unknown_since
                    .get_or_insert_with(Instant::now);
                return self.rediscover_later();
            }
        };
        self.discovery.error = None;
        self.discovery.unknown_since = None;
        self.discovery.refusing = false;
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
            self.rediscover_later();
        } else {
            self.discovery.failures = 0;
        }
    }

    /// Asks the cluster anew, ever more slowly.
    fn rediscover_later(&mut self) {
        let delay = CLUSTER_RETRY * (1 << self.discovery.failures.min(10));
        self.discovery.failures = self.discovery.failures.saturating_add(1);
        self.discovery.due = Some(Instant::now() + delay.min(CLUSTER_RETRY_MAX));
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
        let due = self
            .discovery
            .due
            .filter(|_| self.discovery.running.is_none());
        let lanes = self.lanes.iter().filter_map(Lane::earliest_deadline);
        let circuits = self.lanes.iter().filter_map(|lane| lane.link.opens_at());
        let circuits = circuits.chain(self.discovery_opens_at());
        lanes
            .chain(held)
            .chain(unrouted)
            .chain(due)
            .chain(circuits)
            .min()
    }

    fn discovery_opens_at(&self) -> Option<Instant> {
        let since = self
            .discovery
            .unknown_since
            .filter(|_| !self.discovery.refusing)?;
        Some(since + self.config.command_timeout)
    }

    /// Whether everything that was asked is on the wire or answered.
    pub(super) fn is_calm(&self) -> bool {
        self.holds.is_empty() && self.unrouted.is_empty() && self.lanes.iter().all(Lane::is_calm)
    }

    /// Whether every server that holds keys is known and connected, and none is refused.
    pub(super) fn is_steady(&self) -> bool {
        !self.discovery.refusing && self.is_ready()
    }

    /// Whether all servers that hold keys are connected.
    pub(super) fn is_ready(&self) -> bool {
        let up = |&at: &usize| self.lanes[at].link.is_up();
        !self.masters.is_empty() && self.masters.iter().all(up)
    }

    /// The circuit of the store: open as soon as that of one server is.
    pub(super) fn circuit(&self) -> Circuit {
        let mut circuits: Vec<_> = self
            .masters
            .iter()
            .map(|&at| self.lanes[at].link.circuit())
            .collect();
        if self.discovery.refusing {
            circuits.push(match self.discovery.running {
                Some(_) => Circuit::HalfOpen,
                None => Circuit::Open,
            });
        }
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
        self.discovery.refusing |= self.discovery_opens_at().is_some_and(|at| at <= now);
        if let Some(error) = self.refusal() {
            refused.extend(self.unrouted.drain(..).map(|job| (job, error.clone())));
        }
        refused
    }

    /// What a request is told for whose key nobody is known, if nobody is to wait for that.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.discovery.refusing.then(|| {
            refused(
                &self.config.servers.to_string(),
                self.discovery.error.as_ref(),
            )
        })
    }

    /// Why nobody is known to serve a key.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.discovery.error.as_ref()
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
