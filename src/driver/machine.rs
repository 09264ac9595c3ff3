//! A core with its sockets. The thread that holds the lock runs a turn.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use ::tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    task::AbortHandle,
};

use super::{Batch, Shared};
use crate::{
    config::{SEND_THROUGH_MAX_BYTES, Servers, TURN_BYTES},
    connection::{self, cluster, stream::Stream},
    core::{Action, Connection, Core},
};

/// A core and its connections.
pub(super) struct Machine {
    pub(super) core: Core,
    pub(super) links: Vec<Option<Link>>,
    /// Batches that the I/O thread will decode.
    pub(super) inbox: VecDeque<Inbox>,
    /// The I/O thread is decoding a batch, which is no longer in `inbox`.
    pub(super) is_decoding: bool,
    /// None until the I/O thread has started.
    pub(super) runtime: Option<Handle>,
    /// Wakes the I/O thread's task.
    pub(super) waker: Option<Waker>,
    /// The time at which that task wakes by itself.
    pub(super) armed: Option<Instant>,
    /// The event loop left data to the I/O thread.
    pub(super) left_unread: bool,
    /// When the event loop last ran a turn of the store.
    pub(super) looked_at: Instant,
    /// The last request for the map of a cluster.
    discovery: Option<AbortHandle>,
    pub(super) has_ended: bool,
}

/// A batch to decode.
pub(super) struct Inbox {
    pub(super) batch: Batch,
    pub(super) deadline: Instant,
    pub(super) admitted: usize,
}

/// A connection, or the attempt at one.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) stream: Option<Stream>,
    pub(super) attempt: Option<AbortHandle>,
    /// False if TLS may hold written bytes that are not on the wire yet.
    pub(super) is_flushed: bool,
}

/// The outcome of a read.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) bytes: usize,
    /// There may be more data.
    pub(super) is_partial: bool,
}

impl Machine {
    pub(super) fn new(core: Core, now: Instant) -> Self {
        Self {
            core,
            links: Vec::new(),
            inbox: VecDeque::new(),
            is_decoding: false,
            runtime: None,
            waker: None,
            armed: None,
            left_unread: false,
            looked_at: now,
            discovery: None,
            has_ended: false,
        }
    }

    pub(super) fn link(&mut self, connection: Connection) -> Option<&mut Link> {
        let link = self.links.get_mut(connection.place())?.as_mut()?;
        (link.connection == connection).then_some(link)
    }

    pub(super) fn end(&mut self, servers: &Servers) {
        self.has_ended = true;
        for link in self.links.drain(..).flatten() {
            link.end();
        }
        if let Some(discovery) = self.discovery.take() {
            discovery.abort();
        }
        if let Servers::Sentinel(sentinel) = servers {
            sentinel.known.end();
        }
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Ends the core's turn and carries out its actions. `cx` is that of the I/O thread's task.
    pub(super) fn settle(
        &mut self,
        shared: &Arc<Shared>,
        now: Instant,
        mut cx: Option<&mut Context<'_>>,
    ) {
        if self.has_ended {
            return;
        }
        loop {
            self.core.end_turn(now);
            // Without the I/O thread, actions wait for it.
            if let Some(runtime) = self.runtime.clone() {
                for action in std::mem::take(&mut self.core.take_turn().actions) {
                    self.act(shared, &runtime, action);
                }
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
            self.end(&shared.config.servers);
        }
    }

    fn act(&mut self, shared: &Arc<Shared>, runtime: &Handle, action: Action) {
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
                let discovery = runtime.spawn(async move {
                    let answer = cluster::discover(Arc::clone(&shared.config), seeds).await;
                    shared.with(|machine| {
                        let now = Instant::now();
                        machine.core.on_discovered(answer, now);
                        machine.settle(&shared, now, None);
                        machine.wake();
                    });
                });
                self.discovery = Some(discovery.abort_handle());
            }
        }
    }

    /// Writes as much as the system accepts, on the event loop's thread only a little. Returns whether the
    /// connection was lost. The I/O thread's task writes the rest; it is woken unless it is the caller.
    pub(super) fn write(
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
        // As with large batches: the event loop would wait for the copy.
        if !is_task && self.core.output(connection).len() > SEND_THROUGH_MAX_BYTES {
            link.is_flushed = false;
            self.wake();
            return false;
        }
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

    /// Reads the available data, up to the limit of a turn. `until_empty`: reads until the system has no more,
    /// so that new data wakes the task.
    pub(super) fn read(
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
    pub(super) fn end(self) {
        if let Some(attempt) = self.attempt {
            attempt.abort();
        }
    }
}
