//! Requests of several commands: operations on all keys, merges, and in a cluster operations on several slots.
//! Each command is a part of its task, with its own deadline.

use std::{collections::HashMap, time::Instant};

use super::{Core, NodeId, Work, request::ReplyTo};
use crate::{
    command::{Command, Reply},
    config::Config,
    conflict::{Conflict, Merge},
    error::Error,
    keyspace::{Keyspace, Next, Search, Step},
    users::{self, Flow},
};

/// The running tasks.
#[derive(Default)]
pub(super) struct Tasks {
    next: u32,
    running: HashMap<u32, Task>,
    /// Requests that wait for the map of a cluster.
    waiting: Vec<(u32, Work, Instant)>,
}

struct Task {
    /// The request's number.
    id: u32,
    work: TaskWork,
}

enum TaskWork {
    Search {
        search: Box<Search>,
        nodes: Vec<NodeId>,
    },
    Merge {
        merge: Box<Merge>,
        deadline: Instant,
    },
    /// All its commands have one deadline.
    Flow { flow: Box<Flow>, deadline: Instant },
    /// An MGET to one server. A node that serves a whole cluster takes keys of one slot only.
    Values {
        keys: Vec<Vec<u8>>,
        deadline: Instant,
    },
    /// One GET or PING for each key or node: the number of unanswered ones, and the values.
    Each {
        left: usize,
        texts: Vec<Option<Vec<u8>>>,
        is_ping: bool,
        error: Option<Error>,
    },
}

impl Tasks {
    fn add(&mut self, id: u32, work: TaskWork) -> u32 {
        let task = self.next;
        self.next = self.next.wrapping_add(1);
        self.running.insert(task, Task { id, work });
        task
    }

    /// The earliest deadline of requests that wait for a cluster's map.
    pub(super) fn waiting_until(&self) -> Option<Instant> {
        self.waiting.iter().map(|(_, _, deadline)| *deadline).min()
    }
}

impl Core {
    /// Starts an operation on all keys. Its first SCAN is queued after earlier requests and before later ones.
    /// If the map is out of date, a new one is requested first: a former master answers SCAN with old data.
    pub(super) fn ask_keyspace(
        &mut self,
        id: u32,
        keyspace: Keyspace,
        deadline: Instant,
        now: Instant,
    ) {
        let discovery = self.router.cluster_mut().map(|it| &mut it.discovery);
        if let Some(discovery) = discovery.filter(|it| it.is_outdated()) {
            discovery.hurry(now);
            let due = discovery.due();
            due.into_iter().for_each(|at| self.schedule(at));
            return self.wait_for_map(id, Work::Keyspace(keyspace), deadline);
        }
        self.search(id, keyspace, deadline, now);
    }

    fn search(&mut self, id: u32, keyspace: Keyspace, deadline: Instant, now: Instant) {
        let nodes = self.masters();
        if nodes.is_empty() {
            return self.wait_for_map(id, Work::Keyspace(keyspace), deadline);
        }
        let split = self.router.is_cluster();
        let stall = search_stall(&self.config);
        let (search, step) = Search::new(keyspace, nodes.len(), split, stall, now);
        let search = Box::new(search);
        let task = self.tasks.add(id, TaskWork::Search { search, nodes });
        self.run_steps(task, vec![step], now);
    }

    /// An MGET.
    pub(super) fn get_all(&mut self, id: u32, keys: Vec<Vec<u8>>, deadline: Instant) {
        let command = Command::MGet { keys: keys.clone() };
        let task = self.tasks.add(id, TaskWork::Values { keys, deadline });
        let reply_to = ReplyTo::Task { task, part: 0 };
        self.enter(command, reply_to, None, deadline);
    }

    /// An MGET over several slots, as one GET for each key.
    pub(super) fn get_each(&mut self, id: u32, keys: Vec<Vec<u8>>, deadline: Instant) {
        if keys.is_empty() {
            return self.answer(id, Ok(Reply::Texts(Vec::new())));
        }
        let work = TaskWork::Each {
            left: keys.len(),
            texts: vec![None; keys.len()],
            is_ping: false,
            error: None,
        };
        let task = self.tasks.add(id, work);
        for (key, part) in keys.into_iter().zip(0..) {
            let reply_to = ReplyTo::Task { task, part };
            self.enter(Command::Get { key }, reply_to, None, deadline);
        }
    }

    /// A PING to every master.
    pub(super) fn ping_each(&mut self, id: u32, deadline: Instant) {
        let nodes = self.masters();
        if nodes.is_empty() {
            return self.wait_for_map(id, Work::Command(Command::Ping), deadline);
        }
        let work = TaskWork::Each {
            left: nodes.len(),
            texts: Vec::new(),
            is_ping: true,
            error: None,
        };
        let task = self.tasks.add(id, work);
        for (node, part) in nodes.into_iter().zip(0..) {
            let reply_to = ReplyTo::Task { task, part };
            self.enter(Command::Ping, reply_to, Some(node), deadline);
        }
    }

    /// Runs the commands of a flow, which has begun, by `deadline`.
    pub(super) fn flow(&mut self, id: u32, begun: (Flow, Vec<Command>), deadline: Instant) {
        if begun.1.is_empty() {
            return self.answer(id, Ok(Reply::Count(0)));
        }
        let flow = Box::new(begun.0);
        let task = self.tasks.add(id, TaskWork::Flow { flow, deadline });
        self.run_flow(task, begun.1, deadline);
    }

    fn run_flow(&mut self, task: u32, commands: Vec<Command>, deadline: Instant) {
        for (command, part) in commands.into_iter().zip(0..) {
            self.enter(command, ReplyTo::Task { task, part }, None, deadline);
        }
    }

    /// Merges a write, by `deadline`.
    pub(super) fn merge(&mut self, id: u32, conflict: Conflict, deadline: Instant, now: Instant) {
        let mut merge = Box::new(Merge::new(conflict));
        match merge.attempt() {
            Ok(command) => {
                let task = self.tasks.add(id, TaskWork::Merge { merge, deadline });
                self.run_part(task, None, command, deadline, now);
            }
            Err(error) => self.answer(id, Err(error)),
        }
    }

    fn run_part(
        &mut self,
        task: u32,
        node: Option<NodeId>,
        command: Command,
        deadline: Instant,
        now: Instant,
    ) {
        let deadline = deadline.min(now + self.config.command_timeout);
        self.schedule(deadline);
        self.enter(command, ReplyTo::Task { task, part: 0 }, node, deadline);
    }

    fn run_steps(&mut self, task: u32, steps: Vec<Step>, now: Instant) {
        let deadline = now + self.config.command_timeout;
        for Step { lane, command } in steps {
            let node = match self.tasks.running.get(&task) {
                Some(Task {
                    work: TaskWork::Search { nodes, .. },
                    ..
                }) => lane.and_then(|lane| nodes.get(lane).copied()),
                _ => None,
            };
            self.run_part(task, node, command, deadline, now);
        }
    }

    /// Passes the replies of this turn to their tasks.
    pub(super) fn run_tasks(&mut self, now: Instant) {
        if let Some(error) = self.failed_map.take() {
            self.node_discovered(Err(error), now);
        }
        while let Some((task, part, outcome)) = self.parts.pop_front() {
            let Some(Task { id, work }) = self.tasks.running.get_mut(&task) else {
                continue;
            };
            let id = *id;
            let answer = match work {
                TaskWork::Search { search, .. } => match search.on_reply(outcome, now) {
                    Next::Wait => None,
                    Next::Run(steps) => {
                        self.run_steps(task, steps, now);
                        None
                    }
                    Next::Done(answer) => Some(answer),
                },
                TaskWork::Merge { merge, deadline } => match merge.on_reply(outcome) {
                    Ok(command) => {
                        let deadline = *deadline;
                        self.run_part(task, None, command, deadline, now);
                        None
                    }
                    Err(answer) => Some(answer),
                },
                TaskWork::Flow { flow, deadline } => match flow.on_reply(part, outcome) {
                    users::Next::Wait => None,
                    users::Next::Run(commands) => {
                        let deadline = *deadline;
                        self.run_flow(task, commands, deadline);
                        None
                    }
                    users::Next::Done(answer) => Some(answer),
                },
                TaskWork::Values { keys, deadline } => match outcome {
                    Err(error) if error.cause_code() == Some("CROSSSLOT") => {
                        let (keys, deadline) = (std::mem::take(keys), *deadline);
                        self.tasks.running.remove(&task);
                        self.get_each(id, keys, deadline);
                        None
                    }
                    outcome => Some(outcome),
                },
                TaskWork::Each {
                    left,
                    texts,
                    is_ping,
                    error,
                } => {
                    match outcome {
                        Ok(Reply::Text(text)) => texts[part as usize] = Some(text),
                        Ok(_) => {}
                        Err(failure) => *error = error.take().or(Some(failure)),
                    }
                    *left -= 1;
                    (*left == 0).then(|| match error.take() {
                        Some(error) => Err(error),
                        None if *is_ping => Ok(Reply::Ok),
                        None => Ok(Reply::Texts(std::mem::take(texts))),
                    })
                }
            };
            if let Some(answer) = answer {
                self.tasks.running.remove(&task);
                self.answer(id, answer);
            }
        }
    }

    fn wait_for_map(&mut self, id: u32, work: Work, deadline: Instant) {
        self.tasks.waiting.push((id, work, deadline));
        self.changed = true;
    }

    /// Starts the requests that waited for the map.
    pub(super) fn waiting_for_map(&mut self, now: Instant) {
        if self.masters().is_empty() {
            return;
        }
        for (id, work, deadline) in std::mem::take(&mut self.tasks.waiting) {
            match work {
                // They wait for one new map only: a cluster may change all the time.
                Work::Keyspace(keyspace) => self.search(id, keyspace, deadline, now),
                work => self.begin(id, work, deadline, now),
            }
        }
    }

    /// Fails the requests that wait for the map.
    pub(super) fn refuse_waiting_for_map(&mut self, error: &Error) {
        for (id, work, _) in std::mem::take(&mut self.tasks.waiting) {
            self.answer_work(id, &work, Err(error.clone()));
        }
    }

    /// Fails requests that have timed out while they waited for the map. Operations on all keys that waited
    /// for a newer map use the known one.
    pub(super) fn expire_waiting_for_map(&mut self, now: Instant) {
        let late = |(_, _, deadline): &mut (u32, Work, Instant)| *deadline <= now;
        let late: Vec<_> = self.tasks.waiting.extract_if(.., late).collect();
        for (id, work, _) in late {
            match work {
                Work::Keyspace(keyspace) if !self.masters().is_empty() => {
                    self.search(id, keyspace, now, now);
                }
                work => {
                    let error = self.unrouted_error();
                    self.answer_work(id, &work, Err(error));
                }
            }
        }
    }
}

/// The limit for an operation on all keys that finds no new key.
fn search_stall(config: &Config) -> std::time::Duration {
    config.command_timeout * crate::config::SEARCH_STALL_TIMEOUTS
}
