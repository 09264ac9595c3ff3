//! Work that takes many commands: it runs beside the store's task, sends its steps to the inbox, and
//! its answer last.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    Completion, Message, Work,
    job::{Job, ReplyTo},
    worker::{Worker, closed_error},
};
use crate::{
    command::{Command, Reply},
    error::{Error, ErrorCode},
    guard::Conflict,
    scan::{Keyspace, Step},
};

impl Worker {
    /// Starts to answer a question about all keys. Its first SCAN takes its place behind what was
    /// asked before it, and before what is asked later.
    pub(super) fn ask(&mut self, id: u32, keyspace: Keyspace, deadline: Instant) {
        self.larger += 1;
        let lanes = self.map.masters().to_vec();
        let Some(&first_lane) = lanes.first() else {
            self.waiting.push((id, Work::Keyspace(keyspace), deadline));
            return;
        };
        let (reply, first) = oneshot::channel();
        let mut job = Job::new(
            keyspace.scan(b"0".to_vec()),
            ReplyTo::Step(reply),
            Instant::now() + self.config.command_timeout,
        );
        job.pinned = Some(first_lane);
        self.map.enter(job);
        let split = self.map.is_cluster();
        self.run(id, move |steps| {
            Box::pin(async move {
                let first = first.map(|reply| reply.unwrap_or_else(|_| Err(closed_error())));
                keyspace
                    .answer(&lanes, split, first, |step| steps.run(step))
                    .await
            })
        });
    }

    /// An MGET whose keys are in many slots: a GET each, in one pipeline a node.
    pub(super) fn get_each(&mut self, id: u32, keys: Vec<Vec<u8>>, deadline: Instant) {
        self.larger += 1;
        let waiting: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let (reply, answer) = oneshot::channel();
                self.map.enter(Job::new(
                    Command::Get { key },
                    ReplyTo::Step(reply),
                    deadline,
                ));
                answer
            })
            .collect();
        self.run(id, move |_| {
            Box::pin(async move {
                let texts = join_all(waiting)
                    .await
                    .into_iter()
                    .map(|answer| match answer {
                        Ok(Ok(Reply::Text(text))) => Ok(Some(text)),
                        Ok(Ok(_)) => Ok(None),
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(closed_error()),
                    });
                texts.collect::<Result<_, _>>().map(Reply::Texts)
            })
        });
    }

    /// A PING to every master of a cluster.
    pub(super) fn ping_each(&mut self, id: u32, deadline: Instant) {
        self.larger += 1;
        let lanes = self.map.masters().to_vec();
        if lanes.is_empty() {
            return self
                .waiting
                .push((id, Work::Command(Command::Ping), deadline));
        }
        let waiting: Vec<_> = lanes
            .into_iter()
            .map(|lane| {
                let (reply, answer) = oneshot::channel();
                let mut job = Job::new(Command::Ping, ReplyTo::Step(reply), deadline);
                job.pinned = Some(lane);
                self.map.enter(job);
                answer
            })
            .collect();
        self.run(id, move |_| {
            Box::pin(async move {
                for answer in join_all(waiting).await {
                    answer.unwrap_or_else(|_| Err(closed_error()))?;
                }
                Ok(Reply::Ok)
            })
        });
    }

    /// Merges a write, within `time`.
    pub(super) fn merge(&mut self, id: u32, conflict: Conflict, time: Duration) {
        self.larger += 1;
        self.run(id, move |steps| {
            Box::pin(async move {
                let run = |command| {
                    steps.run(Step {
                        lane: None,
                        command,
                    })
                };
                let merged = timeout(time, conflict.settle(run)).await;
                merged.unwrap_or_else(|_| Err(late_error()))
            })
        });
    }

    /// Runs larger work beside this task; its answer comes back by the inbox.
    fn run(
        &self,
        id: u32,
        work: impl FnOnce(Steps) -> BoxFuture<'static, Result<Reply, Error>> + Send + 'static,
    ) {
        let inbox = self.own_inbox.clone();
        tokio::spawn(async move {
            let work = AssertUnwindSafe(work(Steps(inbox.clone()))).catch_unwind();
            let outcome = work.await.unwrap_or_else(|_| Err(failed_error()));
            if let Some(inbox) = inbox.upgrade() {
                let _ = inbox.send(Message::Answer(Completion { id, outcome }));
            }
        });
    }
}

fn failed_error() -> Error {
    Error::new(
        ErrorCode::Connect,
        "The native half failed in the midst of this; please report it.",
    )
}

fn late_error() -> Error {
    Error::new(
        ErrorCode::Timeout,
        "The session was written by others, and could not be merged in time (option \"commandTimeoutMs\").",
    )
}

/// How larger work runs its commands.
struct Steps(mpsc::WeakUnboundedSender<Message>);

impl Steps {
    fn run(&self, step: Step) -> impl Future<Output = Result<Reply, Error>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        if let Some(inbox) = self.0.upgrade() {
            let _ = inbox.send(Message::Step { step, reply });
        }
        async move { answer.await.unwrap_or_else(|_| Err(closed_error())) }
    }
}
