//! What is done at once on the thread of whoever asks or watches, so that no other one is woken.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    super::{
        Reading, Request, Watch, Work,
        job::{Job, ReplyTo},
        lane::Lane,
    },
    Worker,
};

impl Worker {
    /// Whether nothing that was asked before is still to be sent.
    pub(in crate::engine) fn is_calm(&self) -> bool {
        self.inbox.is_empty() && self.closing.is_none() && self.map.is_calm()
    }

    /// Sends `requests` at once, on the thread of whoever asks, and says whether this task must look
    /// at what is left. Gives them back if they are more than commands about one key each. Only
    /// while [`Self::is_calm`].
    pub(in crate::engine) fn send_through(
        &mut self,
        requests: Vec<Request>,
        deadline: Instant,
    ) -> Result<bool, Vec<Request>> {
        let is_plain = |request: &Request| match &request.work {
            Work::Command(command) => command.key().is_some(),
            _ => false,
        };
        if !requests.iter().all(is_plain) {
            return Err(requests);
        }
        for Request { id, work } in requests {
            if let Work::Command(command) = work {
                self.enter(Job::new(command, ReplyTo::Caller(id), deadline));
            }
        }
        self.deliver();
        for lane in &mut self.map.lanes {
            lane.dispatch();
            lane.link.write_now();
        }
        // A timer that is set is set to an earlier deadline.
        Ok(self.timer_at.is_none() || !self.map.is_calm())
    }

    /// Reads what has come on a watched connection, on the thread of whoever watches it, and says
    /// whether this task must look at what is left.
    pub(in crate::engine) fn read_through(&mut self, watch: &Watch) -> (Reading, bool) {
        let at = watch.lane;
        let lane = &mut self.map.lanes[at];
        let Some(connection) = lane.link.connection() else {
            return (Reading::Ended, false);
        };
        let is_watched = connection
            .socket()
            .is_some_and(|socket| Arc::ptr_eq(socket, &watch.socket));
        if !is_watched || connection.has_ended() {
            return (Reading::Ended, true);
        }
        if !self.reading {
            return (Reading::On, false);
        }
        self.read_now(at);
        let reading = if self.map.lanes[at].has_ended() {
            Reading::Ended
        } else {
            Reading::On
        };
        // Of a cluster, what others have answered meanwhile goes the same way.
        for other in 0..self.map.lanes.len() {
            if other != at && self.map.lanes[other].flying().next().is_some() {
                self.read_now(other);
            }
        }
        // The end of one is for this task to tell.
        let ended = self.map.lanes.iter_mut().any(Lane::has_ended);
        for lane in &mut self.map.lanes {
            if !lane.queue.is_empty() {
                lane.dispatch();
                lane.link.write_now();
            }
        }
        self.notice();
        self.deliver();
        let more = ended || self.closing.is_some() || !self.map.is_calm();
        (reading, more)
    }

    /// Reads what the socket of a watched connection, which will tell of more, has now.
    fn read_now(&mut self, at: usize) {
        while self.map.lanes[at].read_now() {
            self.read(at);
            if !self.map.lanes[at].holds_back() {
                break;
            }
        }
    }
}
