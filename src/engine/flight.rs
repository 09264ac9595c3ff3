//! The chunks on the wire: who waits for which reply, oldest first.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Future},
    stream::FuturesUnordered,
};
use tokio::time::Instant;

use super::job::{Job, ReplyTo};
use crate::connection::Replies;

/// The number of a chunk, in the order of sending, and its jobs.
pub(super) type Chunk = (u64, VecDeque<Job>);

/// Chunks whose replies have not come.
#[derive(Default)]
pub(super) struct Flight {
    replies: FuturesUnordered<BoxFuture<'static, (u64, Replies)>>,
    /// Ascending by number. A chunk leaves when it lands; most land in order.
    chunks: VecDeque<Chunk>,
    next_number: u64,
}

/// A chunk whose replies have come, or whose connection is gone.
pub(super) struct Landed {
    pub(super) number: u64,
    pub(super) jobs: VecDeque<Job>,
    pub(super) replies: Replies,
}

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn launch(
        &mut self,
        jobs: VecDeque<Job>,
        replies: impl Future<Output = Replies> + Send + 'static,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        self.chunks.push_back((number, jobs));
        // Chunks reach the wire in the order of their first polls, which a used-up task budget could
        // put off and so reverse.
        let replies = tokio::task::unconstrained(replies);
        self.replies
            .push(replies.map(move |replies| (number, replies)).boxed());
    }

    /// The next chunk to land; none if nothing is on the wire.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Landed>> {
        let Some((number, replies)) = ready!(self.replies.poll_next_unpin(cx)) else {
            return Poll::Ready(None);
        };
        let found = self.chunks.binary_search_by_key(&number, |chunk| chunk.0);
        let jobs = found.ok().and_then(|at| self.chunks.remove(at));
        Poll::Ready(jobs.map(|(number, jobs)| Landed {
            number,
            jobs,
            replies,
        }))
    }

    /// [`Self::poll_next`] as a future.
    pub(super) async fn next(&mut self) -> Option<Landed> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.chunks.iter().flat_map(|chunk| &chunk.1)
    }

    pub(super) fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.chunks.iter_mut().flat_map(|chunk| chunk.1.iter_mut())
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.chunks
            .iter()
            .flat_map(|chunk| &chunk.1)
            .find(|job| !matches!(job.reply_to, ReplyTo::Nobody))
            .map(|job| job.deadline)
    }

    /// Forgets everything on the wire and returns its jobs together with those of `lost`, in the
    /// order they were sent.
    pub(super) fn abandon(&mut self, lost: Vec<Chunk>) -> Vec<Job> {
        self.replies.clear();
        self.chunks.extend(lost);
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.make_contiguous().sort_by_key(|chunk| chunk.0);
        chunks.into_iter().flat_map(|chunk| chunk.1).collect()
    }
}
