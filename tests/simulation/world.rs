//! A network, a clock and callers for one store.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use connect_redis_native::{
    command::{Command, Expiry, Swap},
    config::{Addresses, Config, Credentials, Endpoint, Sentinel, Servers},
    connection::{Identity, KnownSentinels, Opened, Target, cluster::slot_of},
    core::{Action, Connection, Core, Request, Work},
    error::{Error, ErrorCode},
    keyspace::{Keyspace, Question},
    marker::{By, Destroy, Mode, Restore, marker_of},
};

use super::{
    model::{Asked, LOST, Model, Record, value_by, value_of},
    server::{self, Data, Server, Session, Slots, next_command, port_of},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Single,
    Sentinels,
    Cluster,
}

const PREFIX: &[u8] = b"s:";

/// The entry that counts commands without a key.
const NO_KEY: usize = usize::MAX;

enum Event {
    Opened(Connection),
    NotOpened(Connection),
    ToServer(usize, Vec<u8>),
    ToClient(usize, Vec<u8>),
    Ended(usize),
    WriteMore(Connection),
    Map,
    Calls,
    Fault,
    Mend(usize),
    LoopIsFree,
}

struct Link {
    connection: Connection,
    server: usize,
    session: Session,
    /// Bytes arrive in order.
    to_server_at: Duration,
    to_client_at: Duration,
    /// Bytes that a frozen server has not read.
    unread: Vec<u8>,
    /// The written bytes up to the last complete command.
    written: Vec<u8>,
    is_cut: bool,
    /// No data passes, and neither side notices.
    is_half_open: bool,
}

pub struct World {
    base: Instant,
    pub now: Duration,
    random: fastrand::Rng,
    topology: Topology,
    timeout: Duration,
    touch_after: Duration,
    core: Core,
    pub model: Model,
    servers: Vec<Server>,
    /// The master that the sentinels name.
    primary: usize,
    data: Data,
    older: Data,
    slots: Option<Slots>,
    links: Vec<Link>,
    events: BTreeMap<(Duration, u64), Event>,
    next_event: u64,
    next_id: u32,
    /// The event loop is blocked: received data waits.
    is_blocked: bool,
    /// Too many answers wait for JavaScript: nothing is read, not even before deadlines.
    is_full: bool,
    waiting: VecDeque<(usize, Vec<u8>)>,
    /// Faults are over.
    pub is_calm: bool,
    /// Callers have stopped too.
    pub is_quiet: bool,
    /// Two servers have redirected requests to each other.
    has_ping_pong: bool,
    /// The numbers of refused ASKINGs, and of requests that got this error.
    refused_askings: u32,
    told_askings: u32,
    pub is_a_strange_proxy: bool,
    pub has_ended: bool,
    /// For each key, the numbers of received commands and of requests.
    sends: BTreeMap<usize, (u64, u64)>,
    opens: Vec<(Duration, u16)>,
    maps: VecDeque<Duration>,
    latency_us: u64,
    keys: usize,
    steps: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let topology =
            [Topology::Single, Topology::Sentinels, Topology::Cluster][random.usize(..3)];
        let count = match topology {
            Topology::Single => 1,
            Topology::Sentinels => 2,
            Topology::Cluster => 4,
        };
        let endpoint = |at: usize| Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port: port_of(at),
        };
        let endpoints: Vec<_> = (0..count).map(endpoint).collect();
        let servers = match topology {
            Topology::Single => Servers::One(endpoint(0)),
            Topology::Sentinels => Servers::Sentinel(Sentinel {
                name: "main".into(),
                nodes: endpoints.clone(),
                credentials: Credentials::default(),
                tls: None,
                addresses: Addresses::default(),
                known: KnownSentinels::default(),
            }),
            Topology::Cluster => Servers::Cluster(endpoints.clone()),
        };
        let timeout = Duration::from_millis(random.u64(200..2000));
        let touch_after = Duration::from_millis(if random.bool() { 0 } else { 1000 });
        let config = Config {
            connect_timeout: Duration::from_millis(1000),
            command_timeout: timeout,
            max_pending: 3000,
            watched: true,
            touch_after,
            ..Config::new(servers)
        };
        let base = Instant::now();
        let core = Core::new(Arc::new(config), base, seed);
        // The last server of a cluster owns nothing at first.
        let owner = |slot: usize| Some(slot * 3 / 16384);
        let slots = (topology == Topology::Cluster).then(|| Slots {
            owner: (0..16384).map(owner).collect(),
            moving: None,
            moved: Default::default(),
        });
        let knows_ifeq = random.bool();
        let is_a_strange_proxy = random.u8(..8) == 0;
        let mut servers = vec![
            Server {
                knows_ifeq,
                has_script: true,
                is_a_strange_proxy,
                ..Server::default()
            };
            count
        ];
        if topology == Topology::Sentinels {
            servers[1].is_replica = true;
        }
        let mut world = Self {
            base,
            now: Duration::ZERO,
            topology,
            timeout,
            touch_after,
            core,
            model: Model::default(),
            servers,
            primary: 0,
            data: Data::default(),
            older: Data::default(),
            slots,
            links: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            next_id: 0,
            is_blocked: false,
            is_full: false,
            waiting: VecDeque::new(),
            is_calm: false,
            is_quiet: false,
            has_ping_pong: false,
            refused_askings: 0,
            told_askings: 0,
            is_a_strange_proxy,
            has_ended: false,
            sends: BTreeMap::new(),
            opens: Vec::new(),
            maps: VecDeque::new(),
            latency_us: random.u64(50..3000),
            keys: random.usize(1..12),
            steps: 0,
            random,
        };
        world.at_once(Event::Calls);
        world.after(Duration::from_millis(200), Event::Fault);
        world
    }

    pub fn describe(&self) -> String {
        format!("{:?}, deadline {:?}", self.topology, self.timeout)
    }

    fn instant(&self) -> Instant {
        self.base + self.now
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at_once(&mut self, event: Event) {
        self.at(self.now, event);
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.random.u64(self.latency_us / 2..=self.latency_us * 2))
    }

    /// Runs until the time `until`.
    pub fn run_until(&mut self, until: Duration) {
        self.settle();
        while !self.has_ended {
            let event_at = self.events.keys().next().map(|(at, _)| *at);
            let wake_at = self.core.wake_at();
            let wake_at = wake_at.map(|at| at.saturating_duration_since(self.base));
            let Some(next) = event_at.into_iter().chain(wake_at).min() else {
                return;
            };
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            self.steps += 1;
            assert!(self.steps < 1_000_000, "the store spins at {:?}", self.now);
            if event_at == Some(next) {
                if let Some((_, event)) = self.events.pop_first() {
                    self.handle(event);
                }
            } else {
                // Received data is read before deadlines are checked.
                self.read_waiting();
                self.core.on_timer(self.instant());
            }
            self.settle();
            self.check();
        }
    }

    fn check(&mut self) {
        let slack = Duration::from_millis(1);
        self.model.check_deadlines(self.now.saturating_sub(slack));
        assert!(
            self.core.is_awake_in_time(self.instant()),
            "a wait has no time at which it ends"
        );
        let open = self
            .links
            .iter()
            .filter(|link| self.core.is_open(link.connection));
        let open = open.count();
        assert!(
            open <= self.servers.len() + 2,
            "{open} connections are open"
        );
        let recent = self.now.saturating_sub(Duration::from_secs(1));
        self.opens.retain(|(at, _)| *at > recent);
        for server in 0..self.servers.len() + 100 {
            let port = port_of(server);
            let count = self.opens.iter().filter(|(_, to)| *to == port).count();
            // A node that left and came back counts as a new one.
            assert!(count <= 45, "{count} connections to one node in a second");
            if self.opens.len() < 45 {
                break;
            }
        }
        self.maps.retain(|at| *at > recent);
        assert!(
            self.maps.len() <= 25,
            "{} maps in a second",
            self.maps.len()
        );
    }

    /// Carries out the effects of the core.
    fn settle(&mut self) {
        loop {
            self.core.end_turn(self.instant());
            let actions = std::mem::take(&mut self.core.take_turn().actions);
            for action in actions {
                self.act(action);
            }
            let mut is_busy = false;
            while let Some(connection) = self.core.take_turn().writes.pop() {
                is_busy |= self.write(connection);
            }
            if !is_busy {
                break;
            }
        }
        self.core.take_turn().notices.clear();
        let completions = std::mem::take(&mut self.core.take_turn().completions);
        for completion in completions {
            self.check_touch(completion.id, &completion.outcome);
            self.check_redirections(completion.id, &completion.outcome);
            self.model
                .settle(completion.id, completion.outcome, self.now);
        }
        self.has_ended = self.core.take_turn().ended;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Open {
                connection,
                target,
                predecessor,
            } => {
                let server = match &target {
                    Target::Master => self.primary,
                    Target::Server(Endpoint::Tcp { port, .. }) => usize::from(port - port_of(0)),
                    Target::Server(_) => unreachable!(),
                };
                self.opens.push((self.now, port_of(server)));
                if predecessor.is_some() {
                    // CLIENT KILL, before any other command.
                    let old = self.links.iter_mut().filter(|link| link.server == server);
                    old.for_each(|link| link.is_cut = true);
                }
                let latency = self.latency();
                let is_away = self.servers.get(server).is_none_or(|server| server.is_down);
                let is_stuck =
                    !is_away && (self.servers[server].is_frozen || self.servers[server].is_loading);
                self.links.push(Link {
                    connection,
                    server,
                    session: Session::default(),
                    to_server_at: self.now,
                    to_client_at: self.now,
                    unread: Vec::new(),
                    written: Vec::new(),
                    is_cut: is_away,
                    is_half_open: false,
                });
                if is_away {
                    self.after(latency, Event::NotOpened(connection));
                } else if is_stuck {
                    self.after(Duration::from_millis(300), Event::NotOpened(connection));
                } else {
                    self.after(4 * latency, Event::Opened(connection));
                }
            }
            Action::Close(connection) => {
                // The server may still read the sent data, unless the next connection kills this one.
                if let Some(at) = self.link_of(connection) {
                    let delay = 20 * self.latency();
                    self.after(delay, Event::Ended(at));
                }
            }
            Action::Discover => {
                self.maps.push_back(self.now);
                let latency = 6 * self.latency();
                self.after(latency, Event::Map);
            }
        }
    }

    fn link_of(&self, connection: Connection) -> Option<usize> {
        let at = self
            .links
            .iter()
            .rposition(|link| link.connection == connection)?;
        Some(at)
    }

    /// Writes output to the wire. Returns whether the connection was lost.
    fn write(&mut self, connection: Connection) -> bool {
        let Some(at) = self.link_of(connection) else {
            return false;
        };
        let output = self.core.output(connection);
        if output.is_empty() {
            return false;
        }
        assert!(output.len() <= 4 << 20, "{} bytes wait", output.len());
        if self.links[at].is_cut {
            // The system has noticed the loss already.
            let error = lost();
            self.core.on_lost(connection, &error, self.instant());
            return true;
        }
        let whole = output.len();
        let count = if self.random.u8(..20) == 0 {
            self.random.usize(1..=whole)
        } else {
            whole
        };
        let bytes = self.core.output(connection)[..count].to_vec();
        self.core.on_written(connection, count);
        self.links[at].written.extend_from_slice(&bytes);
        while let Some(words) = next_command(&mut self.links[at].written) {
            let value = match words[0].as_slice() {
                b"SET" => &words[2],
                b"EVAL" | b"EVALSHA" => &words[5],
                _ => continue,
            };
            *self.model.written.entry(value_by(value)).or_default() += 1;
        }
        if count < whole {
            let latency = self.latency();
            self.after(latency, Event::WriteMore(connection));
        }
        let arrives = (self.now + self.latency()).max(self.links[at].to_server_at);
        self.links[at].to_server_at = arrives;
        if !self.links[at].is_half_open {
            self.at(arrives, Event::ToServer(at, bytes));
        }
        false
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened(connection) => self.opened(connection),
            Event::NotOpened(connection) => {
                let error = Error::new(ErrorCode::Connect, "not opened");
                self.core.on_open(connection, Err(error), self.instant());
            }
            Event::ToServer(link, bytes) => self.receive(link, &bytes),
            Event::ToClient(link, bytes) => {
                if self.is_blocked {
                    self.waiting.push_back((link, bytes));
                } else {
                    self.read(link, &bytes);
                }
            }
            Event::Ended(link) => {
                self.links[link].is_cut = true;
                let connection = self.links[link].connection;
                self.core.on_lost(connection, &lost(), self.instant());
            }
            Event::WriteMore(connection) => {
                self.write(connection);
            }
            Event::Map => self.tell_map(),
            Event::Calls => {
                if !self.is_blocked {
                    self.call();
                }
                if !self.is_quiet {
                    let delay = Duration::from_micros(self.random.u64(100..30_000));
                    self.after(delay, Event::Calls);
                }
            }
            Event::Fault => {
                if !self.is_calm {
                    self.fault();
                    let delay = Duration::from_millis(self.random.u64(20..1500));
                    self.after(delay, Event::Fault);
                }
            }
            Event::Mend(server) => self.mend(server),
            Event::LoopIsFree => self.free_loop(),
        }
    }

    fn opened(&mut self, connection: Connection) {
        let Some(at) = self.link_of(connection) else {
            return;
        };
        let server = &self.servers[self.links[at].server];
        if self.links[at].is_cut || server.is_down || server.is_frozen || server.is_loading {
            return self.handle(Event::NotOpened(connection));
        }
        let opened = Opened {
            identity: Some(Identity::default()),
            compares: server.knows_ifeq,
            ..Opened::default()
        };
        self.core.on_open(connection, Ok(opened), self.instant());
    }

    fn free_loop(&mut self) {
        self.is_blocked = false;
        self.is_full = false;
        self.core.set_reading(true, self.instant());
        self.read_waiting();
    }

    fn read_waiting(&mut self) {
        if self.is_full {
            return;
        }
        while let Some((link, bytes)) = self.waiting.pop_front() {
            self.read(link, &bytes);
        }
    }

    fn read(&mut self, link: usize, bytes: &[u8]) {
        let connection = self.links[link].connection;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let now = self.instant();
            let Some(room) = self.core.room(connection) else {
                return;
            };
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.core.on_read(connection, count, now);
            bytes = &bytes[count..];
        }
    }

    fn receive(&mut self, at: usize, bytes: &[u8]) {
        let link = &mut self.links[at];
        if link.is_cut || link.is_half_open {
            return;
        }
        if self.servers[link.server].is_frozen {
            link.unread.extend_from_slice(bytes);
            return;
        }
        link.session.input.extend_from_slice(bytes);
        let mut replies = Vec::new();
        let mut input = std::mem::take(&mut link.session.input);
        while let Some(words) = next_command(&mut input) {
            replies.extend(self.execute(at, &words));
        }
        self.links[at].session.input = input;
        self.respond(at, replies);
    }

    fn respond(&mut self, at: usize, mut replies: Vec<u8>) {
        if replies.is_empty() {
            return;
        }
        let server = &self.servers[self.links[at].server];
        if server.is_garbled && self.random.u8(..4) == 0 {
            replies.extend_from_slice(b"\x16\x03garbage\r\n");
        }
        // In pieces.
        while !replies.is_empty() {
            let whole = replies.len();
            let size = if self.random.bool() {
                whole
            } else {
                self.random.usize(1..=whole)
            };
            let rest = replies.split_off(size);
            let arrives = (self.now + self.latency()).max(self.links[at].to_client_at);
            self.links[at].to_client_at = arrives;
            self.at(arrives, Event::ToClient(at, replies));
            replies = rest;
        }
    }

    fn execute(&mut self, at: usize, words: &[Vec<u8>]) -> Vec<u8> {
        let index = self.links[at].server;
        let server = &mut self.servers[index];
        if words[0] == b"ASKING" {
            if server.denies_asking {
                self.links[at].session.is_denied = true;
                return b"-NOPERM this user has no permissions to run the 'asking' command\r\n"
                    .to_vec();
            }
            self.links[at].session.is_asking = true;
            return b"+OK\r\n".to_vec();
        }
        if server.is_endless {
            // It acknowledges writes without executing them.
            self.model.losses.push(self.now);
            return if self.random.u8(..8) == 0 {
                b"*1000000000\r\n:1\r\n".to_vec()
            } else {
                b":1\r\n".repeat(100)
            };
        }
        if words[0] == b"CLUSTER" {
            self.maps.push_back(self.now);
            let slots = self.slots.as_ref().expect("a cluster");
            return server::map_reply(server.stale_map.as_ref().unwrap_or(&slots.owner));
        }
        let key = server::key_of(words).map(<[u8]>::to_vec);
        if let Some(key) = key.as_deref().and_then(key_number) {
            let (sends, requests) = self.sends.entry(key).or_default();
            *sends += 1;
            assert!(
                *sends <= 24 * *requests + 100,
                "{sends} sends for {requests} requests on key {key}"
            );
        }
        if key.is_none() && !server.scans_for_ever {
            let (sends, requests) = self.sends.entry(NO_KEY).or_default();
            *sends += 1;
            assert!(
                *sends <= 60 * *requests + 200,
                "{sends} sends for {requests} requests without a key"
            );
        }
        let exists = key
            .as_ref()
            .is_some_and(|key| self.data.0.contains_key(key));
        let session = &mut self.links[at].session;
        let is_denied = std::mem::take(&mut session.is_denied);
        let slots = self.slots.as_ref();
        if let Some(refusal) = server::refusal(server, index, slots, session, words, exists) {
            self.refused_askings += u32::from(is_denied);
            if refusal.starts_with(b"-OOM")
                && let Some(number) = words.iter().find_map(|word| marked_number(word))
            {
                self.model.unmarked.push((number, self.now));
            }
            return refusal;
        }
        if let (Some(slots), Some(key)) = (&mut self.slots, &key)
            && let Some((moving, to)) = slots.moving
            && slot_of(key) == moving
            && to == index
        {
            slots.moved.insert(key.clone());
        }
        self.data.run(server, words, self.now)
    }

    fn tell_map(&mut self) {
        let asked = self.random.usize(..self.servers.len());
        let server = &self.servers[asked];
        let answer = match &self.slots {
            Some(slots) if !server.is_down && !server.is_frozen => {
                let owners = server.stale_map.as_ref().unwrap_or(&slots.owner);
                let ranges = server::ranges(owners);
                Ok(ranges
                    .into_iter()
                    .map(|(first, last, owner)| {
                        let host = "127.0.0.1".into();
                        let port = port_of(owner);
                        (first, last, Endpoint::Tcp { host, port })
                    })
                    .collect())
            }
            _ => Err(Error::new(ErrorCode::Connect, "no map")),
        };
        self.core.on_discovered(answer, self.instant());
    }

    /// Makes the requests of one turn of the event loop.
    pub fn call(&mut self) {
        let count = match self.random.u8(..200) {
            0 => self.random.usize(1000..2500),
            1..20 => self.random.usize(20..100),
            _ => self.random.usize(1..6),
        };
        let mut requests = Vec::new();
        for _ in 0..count {
            requests.push(self.request());
        }
        let (now, count) = (self.instant(), requests.len());
        let admitted = self.core.admit(count);
        self.core
            .submit(requests, admitted, now + self.timeout, now);
        if self.random.u8(..100) == 0 && !self.is_calm {
            self.is_blocked = true;
            if self.random.u8(..4) == 0 {
                self.is_full = true;
                self.core.set_reading(false, now);
            }
            let delay = Duration::from_millis(self.random.u64(1..3000));
            self.after(delay, Event::LoopIsFree);
        }
    }

    fn request(&mut self) -> Request {
        let id = self.next_id;
        self.next_id += 1;
        let number = self.random.usize(..self.keys);
        let key = key_name(number);
        let expiry = Expiry::After(60_000);
        let mut within = self.timeout;
        // If touches may be skipped, most requests are touches.
        let kind = match self.random.u8(..100) {
            kind @ 42..85 if !self.touch_after.is_zero() && kind % 8 > 0 => 90,
            kind => kind,
        };
        let (asked, work) = match kind {
            0..40 => (Asked::Get, Work::Command(Command::Get { key })),
            40..70 => {
                let value = value_of(number, id);
                let only_existing = self.random.u8(..4) == 0;
                let set = Command::Set {
                    key,
                    value,
                    expiry,
                    only_existing,
                };
                (Asked::Write, Work::Command(set))
            }
            70..85 => {
                let base = value_of(number, self.random.u32(id.saturating_sub(20)..=id));
                let swap = Swap::new(key, base, value_of(number, id), expiry);
                (Asked::Write, Work::Command(Command::Swap(swap)))
            }
            85..94 => {
                let expire_ms = 60_000;
                let asked = Asked::Touch(self.now + Duration::from_millis(expire_ms as u64));
                (asked, Work::Command(Command::Expire { key, expire_ms }))
            }
            94..96 => (Asked::Delete, Work::Command(Destroy::session(PREFIX, key))),
            96..98 => {
                let known = self.model.known.get(&number);
                let known = known.filter(|_| self.random.bool()).copied().unwrap_or(-1);
                let restore = Restore {
                    markers: vec![marker_of(PREFIX, &key), marker_of(PREFIX, PREFIX)],
                    key,
                    value: value_of(number, id),
                    expiry,
                    known,
                    mode: Mode::Write,
                    by: By::Hash,
                    repeated: false,
                };
                let command = Command::Restore(Box::new(restore));
                (Asked::Restore(known), Work::Command(command))
            }
            98 => (Asked::Other, Work::Command(Command::Ping)),
            _ => {
                within = self.timeout * 40;
                let question = Question::Length;
                let keyspace = Keyspace {
                    question,
                    prefix: b"s:".to_vec(),
                    count: 100,
                    index_prefix: None,
                };
                (Asked::Other, Work::Keyspace(keyspace))
            }
        };
        self.sends.entry(number).or_default().1 += 1;
        if asked == Asked::Other {
            self.sends.entry(NO_KEY).or_default().1 += 1;
        }
        let record = Record {
            asked,
            key: number,
            submitted: self.now,
            settled_by: self.now + within,
            settled: None,
        };
        self.model.open.insert(id, record.settled_by);
        self.model.records.insert(id, record);
        Request { id, work }
    }

    /// An acknowledged touch has extended its session: a skipped one may be late by touchAfter.
    fn check_touch(&self, id: u32, outcome: &Result<connect_redis_native::command::Reply, Error>) {
        let Asked::Touch(expires) = self.model.records[&id].asked else {
            return;
        };
        let is_sure = self.topology == Topology::Single
            && self.links.last().is_some_and(|link| {
                !link.is_cut && !link.is_half_open && self.core.is_open(link.connection)
            });
        if outcome.as_ref().ok() != Some(&connect_redis_native::command::Reply::Count(1))
            || !is_sure
            || self.model.records[&id].submitted != self.now
        {
            return;
        }
        // Answered in the turn of the request: it was skipped.
        let key = key_name(self.model.records[&id].key);
        let least = expires.saturating_sub(self.touch_after + Duration::from_millis(100));
        let kept = self.data.0.get(&key).and_then(|stored| stored.expires);
        // A command on the wire may have removed it meanwhile, and is acknowledged later.
        if let Some(kept) = kept {
            assert!(
                kept >= least,
                "touch {id} was left out: {kept:?} instead of {least:?}"
            );
        }
    }

    /// A refused ASKING is the answer; it is not sent repeatedly.
    fn check_redirections(
        &mut self,
        id: u32,
        outcome: &Result<connect_redis_native::command::Reply, Error>,
    ) {
        let record = &self.model.records[&id];
        if let Err(error) = outcome {
            self.told_askings += u32::from(error.cause_code() == Some("NOPERM"));
        }
        if let Err(error) = outcome
            && !self.has_ping_pong
            && self.now < record.submitted + self.timeout
        {
            let code = error.cause_code();
            assert!(
                !matches!(code, Some("MOVED" | "ASK")),
                "request {id} fails with {code:?}"
            );
        }
    }

    /// Checks that the store has recovered.
    pub fn check_calm(&self) {
        assert!(
            self.refused_askings < 10 || self.told_askings > 0,
            "{} ASKINGs were refused, and no request got that as its answer",
            self.refused_askings
        );
        assert!(
            self.opens.is_empty(),
            "connections are opened although all faults are over"
        );
    }

    fn fault(&mut self) {
        let at = self.random.usize(..self.servers.len());
        let length = Duration::from_millis(self.random.u64(1..3 * self.timeout.as_millis() as u64));
        self.older = if self.random.u8(..4) == 0 {
            self.data.clone()
        } else {
            std::mem::take(&mut self.older)
        };
        let server = &mut self.servers[at];
        match self.random.u8(..20) {
            fault @ 0..3 => {
                server.is_down = fault == 0;
                self.cut(at);
                if self.topology == Topology::Single && self.random.bool() {
                    // The server comes back with older data.
                    self.data = self.older.clone();
                    self.model.losses.push(self.now);
                }
            }
            3 => server.is_frozen = true,
            4 => server.is_loading = true,
            5 => {
                server.is_loading = true;
                let links = self.links.iter_mut().filter(|link| link.server == at);
                let delay = self.random.u64(1..50);
                links.for_each(|link| link.is_half_open |= delay > 40);
            }
            6 => server.is_out_of_memory = true,
            7 => server.is_cluster_down = true,
            8 => {
                self.servers
                    .iter_mut()
                    .for_each(|server| server.denies_asking = true);
                self.move_slot();
            }
            9 => self
                .servers
                .iter_mut()
                .for_each(|server| server.has_script = false),
            10 if self.topology == Topology::Cluster => {
                // Two servers that redirect requests to each other.
                self.has_ping_pong = true;
                let other = (at + 1) % self.servers.len();
                self.servers[at].moves_all_to = Some(other);
                self.servers[other].moves_all_to = Some(at);
            }
            11 => server.scans_for_ever = true,
            12 => server.is_endless = true,
            13 => server.is_garbled = true,
            14 => {
                let links = self.links.iter_mut().filter(|link| link.server == at);
                links.for_each(|link| link.is_half_open = true);
            }
            15 if self.topology == Topology::Cluster => {
                let mut owners = self.slots.as_ref().expect("a cluster").owner.clone();
                if self.random.bool() {
                    // The map names nodes that do not exist.
                    let phantom = self.random.usize(10..90);
                    owners[..4000].fill(Some(phantom));
                }
                self.servers[at].stale_map = Some(owners);
                self.move_slot();
            }
            16 | 17 if self.topology == Topology::Cluster => self.move_slot(),
            16 | 17 if self.topology == Topology::Sentinels => self.fail_over(),
            18 if self.topology == Topology::Cluster => {
                let slots = self.slots.as_mut().expect("a cluster");
                let slot = slot_of(&key_name(self.random.usize(..self.keys)));
                slots.owner[usize::from(slot)] = None;
            }
            _ => self.latency_us = self.random.u64(50..100_000),
        }
        self.after(length, Event::Mend(at));
    }

    fn cut(&mut self, server: usize) {
        for at in 0..self.links.len() {
            if self.links[at].server == server && !self.links[at].is_cut {
                self.links[at].is_cut = true;
                let delay = self.latency();
                let ends = (self.now + delay).max(self.links[at].to_client_at);
                self.at(ends, Event::Ended(at));
            }
        }
    }

    fn move_slot(&mut self) {
        let slot = slot_of(&key_name(self.random.usize(..self.keys)));
        let to = self.random.usize(..self.servers.len());
        if let Some(slots) = &mut self.slots {
            match slots.moving.take() {
                Some((moving, to)) => {
                    slots.owner[usize::from(moving)] = Some(to);
                    slots.moved.clear();
                }
                None => {
                    slots.moving = Some((slot, to));
                    // Some of its keys have moved already.
                    for key in (0..self.keys).map(key_name) {
                        if slot_of(&key) == slot && self.random.bool() {
                            slots.moved.insert(key);
                        }
                    }
                }
            }
        }
    }

    fn fail_over(&mut self) {
        let old = self.primary;
        self.primary = 1 - old;
        self.servers[self.primary].is_replica = false;
        self.servers[old].is_replica = true;
    }

    fn mend(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let mended = Server {
            is_replica: server.is_replica,
            has_script: server.has_script,
            knows_ifeq: server.knows_ifeq,
            is_a_strange_proxy: server.is_a_strange_proxy,
            ..Server::default()
        };
        let was_frozen = std::mem::replace(server, mended).is_frozen;
        if let Some(other) = self
            .servers
            .iter_mut()
            .find(|it| it.moves_all_to == Some(at))
        {
            other.moves_all_to = None;
        }
        if let Some(slots) = &mut self.slots {
            for (slot, owner) in slots.owner.iter_mut().enumerate() {
                owner.get_or_insert(slot * 3 / 16384);
            }
        }
        self.latency_us = self.latency_us.min(3000);
        if was_frozen {
            for link in 0..self.links.len() {
                if self.links[link].server == at {
                    let unread = std::mem::take(&mut self.links[link].unread);
                    self.receive(link, &unread);
                }
            }
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.is_calm = true;
        if self
            .slots
            .as_ref()
            .is_some_and(|slots| slots.moving.is_some())
        {
            self.move_slot();
        }
        for at in 0..self.servers.len() {
            self.mend(at);
        }
        for server in &mut self.servers {
            server.denies_asking = false;
        }
        self.free_loop();
    }

    /// Long enough for the store to recover.
    pub fn recovery(&self) -> Duration {
        // A half-open connection is found by its silence, the next attempt is due after at most 800 ms.
        2 * self.timeout + Duration::from_secs(3)
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Reads every session.
    pub fn read_all(&mut self) {
        let mut requests = Vec::new();
        for number in 0..self.keys {
            let id = self.next_id;
            self.next_id += 1;
            self.sends.entry(number).or_default().1 += 1;
            let record = Record {
                asked: Asked::Get,
                key: number,
                submitted: self.now,
                settled_by: self.now + self.timeout,
                settled: None,
            };
            self.model.open.insert(id, record.settled_by);
            self.model.records.insert(id, record);
            let key = key_name(number);
            let work = Work::Command(Command::Get { key });
            requests.push(Request { id, work });
        }
        let (now, count) = (self.instant(), requests.len());
        let admitted = self.core.admit(count);
        assert_eq!(admitted, count, "requests are pending that were not made");
        self.core
            .submit(requests, admitted, now + self.timeout, now);
    }

    pub fn close(&mut self) {
        let id = u32::MAX;
        let record = Record {
            asked: Asked::Other,
            key: 0,
            submitted: self.now,
            settled_by: self.now + 41 * self.timeout,
            settled: None,
        };
        self.model.open.insert(id, record.settled_by);
        self.model.records.insert(id, record);
        self.core.close(id);
    }
}

fn lost() -> Error {
    Error::new(ErrorCode::Connect, LOST)
}

fn key_name(number: usize) -> Vec<u8> {
    format!("s:{number}:session").into_bytes()
}

/// The session number of a marker.
fn marked_number(marker: &[u8]) -> Option<usize> {
    key_number(marker.strip_prefix(b"s:{")?.strip_suffix(b"}")?)
}

fn key_number(key: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(key).ok()?;
    text.strip_prefix("s:")?
        .strip_suffix(":session")?
        .parse()
        .ok()
}
