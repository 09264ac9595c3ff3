//! Drives a [`Core`]: opens connections, moves bytes, keeps time. Decides nothing. Two threads do it: the
//! [I/O thread](tokio), and the [event loop's](event_loop), so that a request and its reply need no other
//! one to be woken.

mod event_loop;
mod runtime;
mod tokio;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use ::tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    task::AbortHandle,
};
use socket2::Socket;

use crate::{
    config::{Config, Servers, TURN_BYTES},
    connection::{self, Opened, cluster, stream::Stream},
    core::{Action, Completion, Connection, Core, Notice, Request, Stats},
    error::Error,
};

/// Where answers go: each request's exactly once.
pub trait Sink: Send + Sync + 'static {
    /// Takes all of `completions`, and returns whether more may come: if not, none do until
    /// [`Store::resume`], unless a deadline has come. Must not block.
    fn deliver(&self, completions: &mut Vec<Completion>) -> bool;
    /// Takes a notice. Must not block.
    fn notice(&self, notice: Notice);
    /// Takes a new connection that the event loop is to poll, if [`Config::watched`]: whenever the socket
    /// can be read, it calls [`Store::read`]. Must not block.
    fn watch(&self, watch: Watch) {
        drop(watch);
    }
}

/// A connection that the event loop polls for replies.
#[derive(Clone)]
pub struct Watch {
    connection: Connection,
    /// Open for as long as it is polled.
    pub socket: Arc<Socket>,
}

/// The outcome of [`Store::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The socket is to be polled further.
    On,
    /// The connection has ended.
    Ended,
}

/// The requests of one flush. Large ones are decoded on the I/O thread.
pub type Batch = Box<dyn FnOnce() -> Vec<Request> + Send>;

/// A running store. Dropping it ends it at once, without answers.
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    /// Both threads take turns with the whole store: a turn is short, and with one lock there is one order of
    /// events.
    machine: Mutex<Machine>,
    sink: Arc<dyn Sink>,
    config: Arc<Config>,
}

/// A core and what it drives.
struct Machine {
    core: Core,
    links: Vec<Option<Link>>,
    /// Batches that are to be decoded on the I/O thread.
    inbox: VecDeque<Inbox>,
    /// The I/O thread decodes one that is not in `inbox` any more.
    is_decoding: bool,
    /// None until the I/O thread could be started.
    runtime: Option<Handle>,
    /// Wakes the I/O thread's task.
    waker: Option<Waker>,
    /// When that task wakes by itself.
    armed: Option<Instant>,
    /// The event loop left data to the I/O thread.
    left_unread: bool,
    /// When the event loop last looked at the store.
    looked_at: Instant,
    has_ended: bool,
}

struct Inbox {
    batch: Batch,
    deadline: Instant,
    admitted: usize,
}

/// A connection, or the attempt at one.
struct Link {
    connection: Connection,
    stream: Option<Stream>,
    attempt: Option<AbortHandle>,
    /// TLS may hold bytes that were written and are not on the wire.
    is_flushed: bool,
}

/// How much there was to read.
#[derive(Default)]
struct Progress {
    bytes: usize,
    /// There may be more.
    is_partial: bool,
}

impl Store {
    /// Starts a store; it connects at once.
    pub fn start(config: Config, sink: Arc<dyn Sink>) -> Self {
        let config = Arc::new(config);
        let now = Instant::now();
        let shared = Arc::new(Shared {
            machine: Mutex::new(Machine {
                core: Core::new(Arc::clone(&config), now, fastrand::u64(..)),
                links: Vec::new(),
                inbox: VecDeque::new(),
                is_decoding: false,
                runtime: None,
                waker: None,
                armed: None,
                left_unread: false,
                looked_at: now,
                has_ended: false,
            }),
            sink,
            config,
        });
        let store = Self { shared };
        store.shared.with(|machine| {
            if let Err(error) = store.ensure_started(machine) {
                store.shared.sink.notice(Notice::Failed(error));
            }
        });
        store
    }

    /// Starts the I/O thread and this store's task on it, unless that was done.
    fn ensure_started(&self, machine: &mut Machine) -> Result<(), Error> {
        if machine.runtime.is_none() {
            let handle = runtime::handle()?;
            handle.spawn(tokio::Task::run(Arc::clone(&self.shared)));
            machine.runtime = Some(handle);
            machine.settle(&self.shared, Instant::now(), None);
        }
        Ok(())
    }

    /// Goes on reading replies after the sink was full.
    pub fn resume(&self) {
        self.shared.with(|machine| {
            machine.core.set_reading(true, Instant::now());
            machine.left_unread = true;
            machine.wake();
        });
    }

    /// Finishes what is pending, closes the connections and then answers `id`.
    pub fn close(&self, id: u32) {
        self.shared.with(|machine| {
            machine.core.close(id);
            machine.settle(&self.shared, Instant::now(), None);
            machine.wake();
        });
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        let machine = self.shared.machine.lock();
        // Numbers are numbers, even if a turn has panicked half-way.
        machine.unwrap_or_else(PoisonError::into_inner).core.stats()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.with(Machine::end);
    }
}

impl Shared {
    /// The machine; none once a turn has panicked, which was reported then.
    fn lock(&self) -> Option<MutexGuard<'_, Machine>> {
        self.machine.lock().ok()
    }

    /// Runs a turn. A panic ends the store, and nothing else.
    fn with<T: Default>(&self, turn: impl FnOnce(&mut Machine) -> T) -> T {
        let turn = || self.lock().map(|mut machine| turn(&mut machine));
        match catch_unwind(AssertUnwindSafe(turn)) {
            Ok(outcome) => outcome.unwrap_or_default(),
            Err(_) => {
                self.crashed();
                T::default()
            }
        }
    }

    fn crashed(&self) {
        self.sink.notice(Notice::Crashed);
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.end();
    }

    /// An attempt to connect has ended.
    fn opened(self: &Arc<Self>, connection: Connection, outcome: Result<(Stream, Opened), Error>) {
        self.with(|machine| {
            let now = Instant::now();
            match outcome {
                Ok((stream, opened)) => {
                    if !machine.core.on_open(connection, Ok(opened), now) {
                        return;
                    }
                    if let Some(socket) = stream.socket() {
                        let socket = Arc::clone(socket);
                        self.sink.watch(Watch { connection, socket });
                    }
                    if let Some(link) = machine.link(connection) {
                        link.stream = Some(stream);
                        link.attempt = None;
                    }
                }
                Err(error) => {
                    machine.core.on_open(connection, Err(error), now);
                }
            }
            machine.settle(self, now, None);
            machine.wake();
        });
    }
}

impl Machine {
    fn link(&mut self, connection: Connection) -> Option<&mut Link> {
        let link = self.links.get_mut(connection.place())?.as_mut()?;
        (link.connection == connection).then_some(link)
    }

    fn end(&mut self) {
        self.has_ended = true;
        for link in self.links.drain(..).flatten() {
            link.end();
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Ends the core's turn and does what it asks for. `cx` is that of the I/O thread's task.
    fn settle(&mut self, shared: &Arc<Shared>, now: Instant, mut cx: Option<&mut Context<'_>>) {
        if self.has_ended {
            return;
        }
        loop {
            self.core.end_turn(now);
            let actions = std::mem::take(&mut self.core.take_turn().actions);
            for action in actions {
                self.act(shared, action);
            }
            let mut lost = false;
            while let Some(connection) = self.core.take_turn().writes.pop() {
                lost |= self.write(connection, now, cx.as_deref_mut());
            }
            if !lost {
                break;
            }
        }
        let turn = self.core.take_turn();
        for notice in turn.notices.drain(..) {
            shared.sink.notice(notice);
        }
        let ended = turn.ended;
        if !turn.completions.is_empty() {
            let reading = shared.sink.deliver(&mut turn.completions);
            self.core.set_reading(reading, now);
        }
        if ended {
            self.end();
        }
    }

    fn act(&mut self, shared: &Arc<Shared>, action: Action) {
        let Some(runtime) = &self.runtime else {
            return;
        };
        match action {
            Action::Open {
                connection,
                target,
                predecessor,
            } => {
                let shared = Arc::clone(shared);
                let attempt = runtime.spawn(async move {
                    let config = Arc::clone(&shared.config);
                    let opened = connection::open(config, target, predecessor).await;
                    shared.opened(connection, opened);
                });
                let place = connection.place();
                if self.links.len() <= place {
                    self.links.resize_with(place + 1, || None);
                }
                self.links[place] = Some(Link {
                    connection,
                    stream: None,
                    attempt: Some(attempt.abort_handle()),
                    is_flushed: true,
                });
            }
            Action::Close(connection) => {
                if self.link(connection).is_some()
                    && let Some(link) = self.links[connection.place()].take()
                {
                    link.end();
                }
            }
            Action::Discover => {
                let shared = Arc::clone(shared);
                let Servers::Cluster(seeds) = &shared.config.servers else {
                    return;
                };
                let seeds = seeds.clone();
                runtime.spawn(async move {
                    let answer = cluster::discover(Arc::clone(&shared.config), seeds).await;
                    shared.with(|machine| {
                        let now = Instant::now();
                        machine.core.on_discovered(answer, now);
                        machine.settle(&shared, now, None);
                        machine.wake();
                    });
                });
            }
        }
    }

    /// Writes as much as the system takes. Returns whether the connection was lost. What is left is for the
    /// I/O thread's task, which is woken unless it is the one that writes.
    fn write(
        &mut self,
        connection: Connection,
        now: Instant,
        cx: Option<&mut Context<'_>>,
    ) -> bool {
        let Some(Some(link)) = self.links.get_mut(connection.place()) else {
            return false;
        };
        let Some(stream) = link
            .stream
            .as_mut()
            .filter(|_| link.connection == connection)
        else {
            return false;
        };
        let is_task = cx.is_some();
        let mut noop = Context::from_waker(Waker::noop());
        let cx = cx.unwrap_or(&mut noop);
        let name = |core: &Core, error| core.lost_error(connection, error);
        let failed = loop {
            let output = self.core.output(connection);
            if output.is_empty() {
                link.is_flushed = true;
                break match Pin::new(&mut *stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => None,
                    Poll::Ready(Err(error)) => Some(name(&self.core, Some(&error))),
                    Poll::Pending => {
                        link.is_flushed = false;
                        None
                    }
                };
            }
            match Pin::new(&mut *stream).poll_write(cx, output) {
                Poll::Ready(Ok(0)) => break Some(name(&self.core, None)),
                Poll::Ready(Ok(count)) => self.core.on_written(connection, count),
                Poll::Ready(Err(error)) => break Some(name(&self.core, Some(&error))),
                Poll::Pending => {
                    link.is_flushed = false;
                    break None;
                }
            }
        };
        if let Some(error) = failed {
            self.core.on_lost(connection, &error, now);
            return true;
        }
        if !link.is_flushed && !is_task {
            self.wake();
        }
        false
    }

    /// Reads what has come, up to a turn's share, and says how much that was. `until_empty`: until the
    /// system has no more, so that the task is woken by what comes then.
    fn read(
        &mut self,
        place: usize,
        until_empty: bool,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Progress {
        let mut progress = Progress::default();
        let Some(Some(link)) = self.links.get_mut(place) else {
            return progress;
        };
        let connection = link.connection;
        let Some(stream) = link.stream.as_mut() else {
            return progress;
        };
        let until_empty = until_empty || stream.may_buffer();
        loop {
            let Some(room) = self.core.room(connection) else {
                return progress;
            };
            let mut room = ReadBuf::new(room);
            let error = match Pin::new(&mut *stream).poll_read(cx, &mut room) {
                Poll::Pending => return progress,
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                    let count = room.filled().len();
                    self.core.on_read(connection, count, now);
                    progress.bytes += count;
                    if !until_empty {
                        return progress;
                    }
                    if progress.bytes >= TURN_BYTES {
                        progress.is_partial = true;
                        return progress;
                    }
                    continue;
                }
                Poll::Ready(Ok(())) => None,
                Poll::Ready(Err(error)) => Some(error),
            };
            let error = self.core.lost_error(connection, error.as_ref());
            self.core.on_lost(connection, &error, now);
            return progress;
        }
    }
}

impl Link {
    fn end(self) {
        if let Some(attempt) = self.attempt {
            attempt.abort();
        }
    }
}
