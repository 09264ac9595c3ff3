//! The part of the driver on the event loop's thread: it writes requests and reads their replies. Waking
//! another thread would take longer than either.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use super::{
    Batch, Reading, Shared, Store, Watch,
    machine::{Inbox, Machine},
};
use crate::config::{BUSY_LOOP, SEND_THROUGH_MAX, SEND_THROUGH_MAX_BYTES};

impl Store {
    /// Takes the `count` requests of `batch`, as many as `max_pending` admits; the others fail with
    /// `QueueFull`. After [`Store::close`] all fail with `Closed`. `size` is their approximate size in bytes.
    pub fn submit(&self, count: usize, size: usize, batch: Batch, command_timeout: Duration) {
        let shared = &self.shared;
        let now = Instant::now();
        let is_small = count <= SEND_THROUGH_MAX && size <= SEND_THROUGH_MAX_BYTES;
        // A small batch is decoded here, before the lock is taken; a large one on the I/O thread.
        let (batch, requests) = if is_small {
            match catch_unwind(AssertUnwindSafe(batch)) {
                Ok(requests) => (None, Some(requests)),
                Err(_) => return shared.crashed(),
            }
        } else {
            (Some(batch), None)
        };
        shared.with(move |machine| {
            if let Err(error) = self.ensure_started(machine) {
                let requests = requests.or_else(|| batch.map(|batch| batch()));
                machine.core.reject(requests.unwrap_or_default(), &error);
                return machine.settle(shared, now, None);
            }
            let deadline = now + command_timeout;
            let admitted = machine.core.admit(count);
            match requests {
                // Requests must not overtake batches that are not decoded yet.
                Some(requests) if machine.inbox.is_empty() && !machine.is_decoding => {
                    machine.core.submit(requests, admitted, deadline, now);
                    machine.end_turn_of_loop(shared, now);
                }
                requests => {
                    let decoded = requests.map(|requests| Box::new(move || requests) as Batch);
                    machine.inbox.extend(decoded.or(batch).map(|batch| Inbox {
                        batch,
                        deadline,
                        admitted,
                    }));
                    machine.wake();
                }
            }
        });
    }

    /// Reads a connection and delivers the answers.
    pub fn read(&self, watch: &Watch) -> Reading {
        let shared = &self.shared;
        let is_open = shared.with(|machine| {
            let now = Instant::now();
            if !machine.core.is_open(watch.connection) {
                return false;
            }
            let cx = &mut Context::from_waker(Waker::noop());
            machine.read_for_loop(watch.connection.place(), now, cx);
            // In a cluster, the replies of other nodes are delivered in the same turn.
            for place in 0..machine.links.len() {
                if place != watch.connection.place()
                    && let Some(link) = &machine.links[place]
                    && machine.core.expects_replies(link.connection)
                {
                    machine.read_for_loop(place, now, cx);
                }
            }
            machine.end_turn_of_loop(shared, now);
            machine.core.is_open(watch.connection)
        });
        if is_open { Reading::On } else { Reading::Ended }
    }
}

impl Machine {
    fn read_for_loop(&mut self, place: usize, now: Instant, cx: &mut Context<'_>) {
        if self.read(place, false, now, cx).is_partial {
            // TLS may hold decrypted data that no poll handle can see.
            self.left_unread = true;
            self.wake();
        }
    }

    /// Ends a turn on the event loop's thread, and wakes the I/O thread if work is left for it.
    fn end_turn_of_loop(&mut self, shared: &std::sync::Arc<Shared>, now: Instant) {
        self.looked_at = now;
        self.settle(shared, now, None);
        let mut wake_at = self.core.wake_at();
        if self.core.has_queued() {
            // Requests wait for room on the wire: if the event loop is busy, the I/O thread continues with them.
            let tick = now + BUSY_LOOP;
            wake_at = Some(wake_at.map_or(tick, |at| at.min(tick)));
        }
        if let Some(at) = wake_at
            && self.armed.is_none_or(|armed| at < armed)
        {
            // Avoids waking it again before it has run.
            self.armed = Some(at);
            self.wake();
        }
    }
}
