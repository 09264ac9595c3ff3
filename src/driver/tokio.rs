//! The task of a store on the I/O thread: it keeps time, writes what the event loop could not write, and reads
//! if the event loop does not or is busy.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use ::tokio::time::{Sleep, sleep_until};

use super::{
    Shared,
    machine::{Inbox, Machine},
};
use crate::config::{BUSY_LOOP, OVERDUE_BYTES};

/// The number of turns before other tasks of this thread run.
const TURNS: usize = 8;

pub(super) struct Task {
    shared: Arc<Shared>,
    timer: Pin<Box<Sleep>>,
    /// Bytes read since a timer became due.
    overdue_bytes: usize,
}

impl Task {
    /// Runs until the store has ended.
    pub(super) async fn run(shared: Arc<Shared>) {
        let mut task = Self {
            shared,
            timer: Box::pin(sleep_until(::tokio::time::Instant::now())),
            overdue_bytes: 0,
        };
        let poll = |cx: &mut Context<'_>| {
            let turns = AssertUnwindSafe(|| task.poll(cx));
            catch_unwind(turns).unwrap_or_else(|_| {
                task.shared.crashed();
                Poll::Ready(())
            })
        };
        std::future::poll_fn(poll).await;
    }

    /// Ready when the store has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            self.shared.give_way();
            self.decode();
            let shared = Arc::clone(&self.shared);
            let Some(mut machine) = shared.lock() else {
                return Poll::Ready(());
            };
            if machine.has_ended {
                return Poll::Ready(());
            }
            if !matches!(&machine.waker, Some(waker) if waker.will_wake(cx.waker())) {
                machine.waker = Some(cx.waker().clone());
            }
            let is_done = self.turn(&mut machine, cx);
            if machine.has_ended {
                return Poll::Ready(());
            }
            let is_due = self.arm(&mut machine, cx);
            if is_done && !is_due && machine.inbox.is_empty() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Decodes one batch without holding the lock.
    fn decode(&self) {
        let taken = self.shared.lock().and_then(|mut machine| {
            let taken = machine.inbox.pop_front();
            machine.is_decoding = taken.is_some();
            taken
        });
        if let Some(Inbox {
            batch,
            deadline,
            admitted,
        }) = taken
        {
            let requests = batch();
            if let Some(mut machine) = self.shared.lock() {
                machine.is_decoding = false;
                let now = Instant::now();
                machine.core.submit(requests, admitted, deadline, now);
            }
        }
    }

    /// Moves bytes and checks what is due. Returns whether the turn is complete.
    fn turn(&mut self, machine: &mut Machine, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let is_due = machine.core.wake_at().is_some_and(|at| at <= now);
        let is_busy = now.saturating_duration_since(machine.looked_at) >= BUSY_LOOP;
        let reads_watched = is_due || is_busy || std::mem::take(&mut machine.left_unread);
        let mut is_done = true;
        let mut left_unread = false;
        for place in 0..machine.links.len() {
            let Some(link) = &machine.links[place] else {
                continue;
            };
            let connection = link.connection;
            if !link.is_flushed || !machine.core.output(connection).is_empty() {
                machine.write(connection, now, Some(cx));
            }
            let Some(Some(stream)) = machine.links[place].as_ref().map(|link| &link.stream) else {
                continue;
            };
            let is_watched = stream.socket().is_some();
            if is_watched && !reads_watched {
                continue;
            }
            let progress = machine.read(place, true, now, cx);
            self.overdue_bytes += progress.bytes;
            is_done &= !progress.is_partial;
            left_unread |= progress.is_partial && is_watched;
        }
        machine.left_unread |= left_unread;
        // Replies that arrived before their deadline count, up to a limit of bytes.
        if is_due && (is_done || self.overdue_bytes >= OVERDUE_BYTES) {
            machine.core.on_timer(now);
        }
        if !is_due || is_done || self.overdue_bytes >= OVERDUE_BYTES {
            self.overdue_bytes = 0;
        }
        machine.settle(&self.shared, now, Some(cx));
        is_done
    }

    /// Sets the timer to the next time at which something is due. Returns whether that time has passed.
    fn arm(&mut self, machine: &mut Machine, cx: &mut Context<'_>) -> bool {
        let tick = (self.shared.config.watched && machine.core.has_unanswered())
            .then(|| Instant::now() + BUSY_LOOP);
        let at = machine.core.wake_at().into_iter().chain(tick).min();
        machine.armed = at;
        let Some(at) = at else {
            return false;
        };
        self.timer.as_mut().reset(at.into());
        self.timer.as_mut().poll(cx).is_ready()
    }
}
