//! Drives a [`Core`]: opens connections, moves bytes, keeps time, and makes no decisions. Two threads share the
//! work, the [I/O thread](tokio) and the [event loop's](event_loop), so that a request and its reply need not
//! wake another thread.

mod event_loop;
mod machine;
mod runtime;
mod tokio;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use socket2::Socket;

use crate::{
    config::Config,
    connection::{Opened, stream::Stream},
    core::{Completion, Connection, Core, Notice, Request, Stats},
    error::Error,
};
use machine::Machine;

/// The limit of yields to a caller that waits for the lock: after these it is not scheduled.
const GIVE_WAY_MAX: usize = 1000;

/// The receiver of answers: exactly one for each request.
pub trait Sink: Send + Sync + 'static {
    /// Takes all of `completions`. If it returns false, no more are delivered until [`Store::resume`], except
    /// for deadlines that pass. Must not block.
    fn deliver(&self, completions: &mut Vec<Completion>) -> bool;
    /// Takes a notice. Must not block.
    fn notice(&self, notice: Notice);
    /// Takes a new connection for the event loop to poll, if [`Config::watched`]: it calls [`Store::read`]
    /// whenever the socket is readable. Must not block.
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
    /// Poll the socket further.
    On,
    /// The connection has ended.
    Ended,
}

/// The requests of one flush. Large ones are decoded on the I/O thread.
pub type Batch = Box<dyn FnOnce() -> Vec<Request> + Send>;

/// A running store. Dropping it ends it at once, and pending requests get no answer.
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    /// Both threads take turns with the whole store: a turn is short, and with one lock there is one order of
    /// events.
    machine: Mutex<Machine>,
    /// A caller waits for the lock. Otherwise the I/O thread's task, which runs turns in a row, would lock it
    /// again before the caller's thread has woken up. Only a hint, so Relaxed is enough.
    is_wanted: AtomicBool,
    sink: Arc<dyn Sink>,
    config: Arc<Config>,
}

impl Store {
    /// Starts a store; it connects at once.
    pub fn start(config: Config, sink: Arc<dyn Sink>) -> Self {
        let config = Arc::new(config);
        let now = Instant::now();
        let core = Core::new(Arc::clone(&config), now, fastrand::u64(..));
        let shared = Arc::new(Shared {
            machine: Mutex::new(Machine::new(core, now)),
            is_wanted: AtomicBool::new(false),
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

    /// Starts the I/O thread and this store's task on it, if they do not run yet.
    fn ensure_started(&self, machine: &mut Machine) -> Result<(), Error> {
        if machine.runtime.is_none() {
            let handle = runtime::handle()?;
            handle.spawn(tokio::Task::run(Arc::clone(&self.shared)));
            machine.runtime = Some(handle);
            machine.settle(&self.shared, Instant::now(), None);
        }
        Ok(())
    }

    /// Resumes reading after the sink was full.
    pub fn resume(&self) {
        self.shared.with(|machine| {
            machine.core.set_reading(true, Instant::now());
            machine.left_unread = true;
            machine.wake();
        });
    }

    /// Finishes pending requests, closes the connections and then answers `id`.
    pub fn close(&self, id: u32) {
        self.shared.with(|machine| {
            machine.core.close(id);
            machine.settle(&self.shared, Instant::now(), None);
            machine.wake();
        });
    }

    /// The counters so far.
    pub fn stats(&self) -> Stats {
        let machine = self.shared.machine.lock();
        // Counters are usable even if a turn has panicked.
        machine.unwrap_or_else(PoisonError::into_inner).core.stats()
    }

    /// Whether any server that holds keys is connected.
    pub fn is_serving(&self) -> bool {
        let machine = self.shared.machine.lock();
        machine.is_ok_and(|machine| machine.core.is_serving())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let servers = &self.shared.config.servers;
        self.shared.with(|machine| machine.end(servers));
    }
}

impl Shared {
    /// The machine. None after a turn has panicked, which was reported at that time.
    fn lock(&self) -> Option<MutexGuard<'_, Machine>> {
        self.machine.lock().ok()
    }

    /// Runs a turn. A panic ends only this store.
    fn with<T: Default>(&self, turn: impl FnOnce(&mut Machine) -> T) -> T {
        let turn = || {
            self.is_wanted.store(true, Ordering::Relaxed);
            let machine = self.lock();
            self.is_wanted.store(false, Ordering::Relaxed);
            machine.map(|mut machine| turn(&mut machine))
        };
        match catch_unwind(AssertUnwindSafe(turn)) {
            Ok(outcome) => outcome.unwrap_or_default(),
            Err(_) => {
                self.crashed();
                T::default()
            }
        }
    }

    /// Yields to a caller that waits for the lock.
    fn give_way(&self) {
        for _ in 0..GIVE_WAY_MAX {
            if !self.is_wanted.load(Ordering::Relaxed) {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn crashed(&self) {
        self.sink.notice(Notice::Crashed);
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.end(&self.config.servers);
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
