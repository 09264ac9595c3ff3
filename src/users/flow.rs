//! The order of the commands that write or end a session and its index entry.
//!
//! On one server a sign-in is one script. In a cluster, where the two are in different slots, the entry comes
//! first, and the session is written unless a marker is younger than the sign-in: a revoke that has read the
//! entry leaves a marker. A second read of the index instead would miss a revoke that has read the entry but
//! not dropped it yet.

use std::time::{Duration, Instant};

use super::{Call, Which};
use crate::{
    command::{Command, Expiry, Reply},
    error::Error,
    marker::{self, By, Destroy, Restore},
};

/// The location of a session's entry.
#[derive(Clone)]
pub struct Place {
    /// The index of its user.
    pub index: Vec<u8>,
    /// The handle of the session.
    pub handle: Vec<u8>,
}

/// A save of a session that has an entry.
#[derive(Clone)]
pub struct Save {
    /// The session.
    pub key: Vec<u8>,
    /// The value to write.
    pub value: Vec<u8>,
    /// Its time to live.
    pub expiry: Expiry,
    /// The location of its entry.
    pub place: Place,
}

/// A save of a session that may have no entry.
pub struct SignIn {
    /// The save.
    pub save: Save,
    /// The prefix of the key.
    pub prefix: Vec<u8>,
    /// The text of the entry.
    pub text: Vec<u8>,
    /// The limit of entries.
    pub limit: Limit,
    /// Markers are ignored.
    pub ignores_markers: bool,
    /// No script may name both keys, as in a cluster.
    pub by_turns: bool,
}

/// The limit for the entries of a user.
#[derive(Clone, Copy)]
pub enum Limit {
    /// Entries are not counted.
    None,
    /// Entries are counted.
    Counted,
    /// No entry is added if there are this many others.
    AtMost(u32),
}

impl Limit {
    /// The argument of the scripts.
    pub fn argument(self) -> Vec<u8> {
        match self {
            Self::None => vec![],
            Self::Counted => b"counted".to_vec(),
            Self::AtMost(limit) => limit.to_string().into_bytes(),
        }
    }
}

/// A session to end, and its entry.
pub struct Item {
    /// The session.
    pub key: Vec<u8>,
    /// Its handle.
    pub handle: Vec<u8>,
    /// Its entry, as it was read.
    pub entry: Vec<u8>,
}

/// Several commands about sessions and an index, in their order.
pub enum Flow {
    /// SET XX of a session, and a check of its entry. Replies OK; nil if the session does not exist; 0 if the
    /// entry does not.
    Save {
        /// The reply to the SET.
        written: Option<Reply>,
        /// The reply to the HEXISTS.
        listed: Option<Reply>,
    },
    /// Replies the number of entries, or 0 if the limit is reached. A negative number is -1 minus the
    /// milliseconds left of a younger marker.
    SignIn {
        /// The session and its entry.
        sign_in: Box<SignIn>,
        /// The pending step.
        step: Step,
        /// The most that a marker from before the sign-in has left, and the time of that information.
        known: (i64, Instant),
        /// The number of entries.
        count: i64,
    },
    /// Ends sessions, then drops their entries. Replies the number of ended sessions.
    Revoke {
        /// The index.
        index: Vec<u8>,
        /// The sessions to end.
        items: Vec<Option<Item>>,
        /// The number of unanswered DELs.
        left: usize,
        /// The number of ended sessions.
        ended: i64,
        /// The error of a session that could not be ended.
        error: Option<Error>,
    },
}

/// The step that a sign-in waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The lifetime of an earlier marker.
    Marker,
    /// The entry.
    Entry,
    /// The session, unless there is a marker.
    Unmarked,
    /// The session.
    Session,
}

/// The number of a command among those of one step.
pub type Part = u32;

/// The next step of a [`Flow`].
pub enum Next {
    /// Wait for more replies.
    Wait,
    /// Run these commands; their parts are their positions.
    Run(Vec<Command>),
    /// It is over.
    Done(Result<Reply, Error>),
}

impl Flow {
    /// Saves a session that has an entry already.
    pub fn save(save: Save) -> (Self, Vec<Command>) {
        let Save {
            key,
            value,
            expiry,
            place: Place { index, handle },
        } = save;
        let listed = Command::HExists {
            key: index,
            field: handle,
        };
        let set = Command::Set {
            key,
            value,
            expiry,
            only_existing: true,
        };
        let flow = Self::Save {
            written: None,
            listed: None,
        };
        (flow, vec![set, listed])
    }

    /// Writes the entry of a session, then the session.
    pub fn sign_in(sign_in: SignIn, now: Instant) -> (Self, Vec<Command>) {
        let command = sign_in.marker();
        let flow = Self::SignIn {
            sign_in: Box::new(sign_in),
            step: Step::Marker,
            known: (-1, now),
            count: 0,
        };
        (flow, vec![command])
    }

    /// Ends the sessions `items` of `index`, at least one, whose keys start with `prefix`.
    pub fn revoke(index: Vec<u8>, prefix: &[u8], items: Vec<Item>) -> (Self, Vec<Command>) {
        let each = items.iter();
        let commands = each.map(|item| Destroy::session(prefix, item.key.clone()));
        let commands = commands.collect();
        let flow = Self::Revoke {
            index,
            left: items.len(),
            items: items.into_iter().map(Some).collect(),
            ended: 0,
            error: None,
        };
        (flow, commands)
    }

    /// Takes the reply to a part.
    pub fn on_reply(&mut self, part: Part, outcome: Result<Reply, Error>, now: Instant) -> Next {
        match self {
            Self::Save { written, listed } => {
                let reply = match outcome {
                    Ok(reply) => reply,
                    Err(error) => return Next::Done(Err(error)),
                };
                *(if part == 0 {
                    &mut *written
                } else {
                    &mut *listed
                }) = Some(reply);
                match (written.take(), listed.take()) {
                    (Some(Reply::Nil), Some(_)) => Next::Done(Ok(Reply::Nil)),
                    (Some(_), Some(Reply::Count(0))) => Next::Done(Ok(Reply::Count(0))),
                    (Some(reply), Some(_)) => Next::Done(Ok(reply)),
                    (one, other) => {
                        (*written, *listed) = (one, other);
                        Next::Wait
                    }
                }
            }
            Self::SignIn {
                sign_in,
                step,
                known,
                count,
            } => sign_in.on_reply(step, known, count, outcome, now),
            Self::Revoke {
                index,
                items,
                left,
                ended,
                error,
            } => {
                if *left == 0 {
                    // After an error, the entry is dropped when the index is next read.
                    return Next::Done(error.take().map_or(Ok(Reply::Count(*ended)), Err));
                }
                *left -= 1;
                match outcome {
                    Ok(Reply::Count(count)) => *ended += count,
                    Ok(_) => {}
                    Err(failure) => {
                        items[part as usize] = None;
                        *error = error.take().or(Some(failure));
                    }
                }
                if *left > 0 {
                    return Next::Wait;
                }
                let gone = items.drain(..).flatten();
                let arguments: Vec<_> = gone.flat_map(|item| [item.handle, item.entry]).collect();
                if arguments.is_empty() {
                    return Next::Done(error.take().map_or(Ok(Reply::Count(*ended)), Err));
                }
                let call = Call::new(Which::Remove, index, arguments);
                Next::Run(vec![Command::User(Box::new(call))])
            }
        }
    }
}

impl SignIn {
    fn life(&self) -> Vec<u8> {
        let life = self.save.expiry.milliseconds();
        life.map_or(vec![], |expire_ms| expire_ms.to_string().into_bytes())
    }

    fn call(&self, which: Which, more: Option<Vec<u8>>) -> Call {
        let Place { index, handle } = &self.save.place;
        let limit = self.limit.argument();
        let kind: &[u8] = if which == Which::SignIn { b"a:" } else { b"p:" };
        let text = [kind, &self.text].concat();
        let mut arguments = vec![handle.clone(), self.life(), limit, text];
        arguments.extend(more);
        Call::new(which, index, arguments)
    }

    /// Both in one script.
    pub fn both(&self) -> Command {
        let mut call = self.call(Which::SignIn, Some(self.save.value.clone()));
        call.keys.push(self.save.key.clone());
        call.expiry = self.save.expiry;
        Command::User(Box::new(call))
    }

    fn marker(&self) -> Command {
        Command::Pttl {
            key: marker::marker_of(&self.prefix, &self.save.key),
        }
    }

    fn session(&self) -> Command {
        Command::Set {
            key: self.save.key.clone(),
            value: self.save.value.clone(),
            expiry: self.save.expiry,
            only_existing: false,
        }
    }

    fn unmarked(&self, known_left: i64) -> Command {
        let Save {
            key, value, expiry, ..
        } = &self.save;
        Command::Restore(Box::new(Restore {
            markers: vec![marker::marker_of(&self.prefix, key)],
            key: key.clone(),
            value: value.clone(),
            expiry: *expiry,
            known_left,
            adds: false,
            by: By::Hash,
            repeated: false,
        }))
    }

    fn on_reply(
        &self,
        step: &mut Step,
        known: &mut (i64, Instant),
        count: &mut i64,
        outcome: Result<Reply, Error>,
        now: Instant,
    ) -> Next {
        let (next, command) = match (*step, outcome) {
            (Step::Marker, outcome) => {
                let life = i64::try_from(marker::life_ms()).unwrap_or(i64::MAX);
                let left = match outcome {
                    Ok(Reply::Count(-1)) => life,
                    Ok(Reply::Count(left)) => left.max(-1),
                    // PTTL is denied: then markers are ignored.
                    Err(error) if error.refuses_command() => -1,
                    Err(error) => return Next::Done(Err(error)),
                    Ok(_) => -1,
                };
                *known = (left, now);
                let entry = self.call(Which::Index, None);
                (Step::Entry, Command::User(Box::new(entry)))
            }
            (Step::Entry, Ok(Reply::Count(0))) => return Next::Done(Ok(Reply::Count(0))),
            (Step::Entry, Ok(Reply::Count(entries))) => {
                *count = entries;
                if self.ignores_markers {
                    (Step::Session, self.session())
                } else {
                    (Step::Unmarked, self.unmarked(left_by(*known, now)))
                }
            }
            (Step::Unmarked, Ok(Reply::Count(left))) => {
                return Next::Done(Ok(Reply::Count(-1 - left)));
            }
            // The marker is in another slot, or access to it is denied.
            (Step::Unmarked, Ok(Reply::Nil)) => (Step::Session, self.session()),
            (Step::Unmarked, Err(error)) if error.refuses_command() => {
                (Step::Session, self.session())
            }
            (Step::Unmarked | Step::Session, Ok(_)) => {
                return Next::Done(Ok(Reply::Count(*count)));
            }
            (_, outcome) => return Next::Done(outcome),
        };
        *step = next;
        Next::Run(vec![command])
    }
}

/// The most that a marker can have left now, by earlier information.
fn left_by((left, at): (i64, Instant), now: Instant) -> i64 {
    if left < 0 {
        return -1;
    }
    let passed: Duration = now.saturating_duration_since(at);
    // Both times are rounded to milliseconds.
    let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
    left.saturating_sub(passed).saturating_add(1).max(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn sign_in(ignores_markers: bool) -> SignIn {
        SignIn {
            save: Save {
                key: b"s:a".to_vec(),
                value: b"{}".to_vec(),
                expiry: Expiry::After(1000),
                place: Place {
                    index: b"u:{h}".to_vec(),
                    handle: b"handle".to_vec(),
                },
            },
            prefix: b"s:".to_vec(),
            text: b"text".to_vec(),
            limit: Limit::Counted,
            ignores_markers,
            by_turns: true,
        }
    }

    fn only(next: Next) -> Command {
        match next {
            Next::Run(mut commands) if commands.len() == 1 => commands.remove(0),
            _ => panic!("not one command"),
        }
    }

    fn refused(word: &str) -> Error {
        let error = Error::new(ErrorCode::Server, "refused");
        error.caused_by(crate::error::Cause::server(word.to_owned()))
    }

    #[test]
    fn the_entry_comes_first_and_then_the_session_unless_a_marker_is_younger() {
        let now = Instant::now();
        let (mut flow, first) = Flow::sign_in(sign_in(false), now);
        assert!(matches!(first.as_slice(), [Command::Pttl { key }] if key == b"s:{s:a}"));
        let entry = only(flow.on_reply(0, Ok(Reply::Count(59_000)), now));
        let Command::User(call) = entry else {
            panic!("no entry");
        };
        assert_eq!(call.which, Which::Index);
        assert_eq!(call.arguments[1..], [&b"1000"[..], b"counted", b"p:text"]);
        let later = now + Duration::from_millis(10);
        let Command::Restore(restore) = only(flow.on_reply(0, Ok(Reply::Count(2)), later)) else {
            panic!("the session is written whatever the marker says");
        };
        // The most that the earlier marker has left.
        assert_eq!(restore.known_left, 58_991);
        let left = flow.on_reply(0, Ok(Reply::Count(59_999)), later);
        assert!(matches!(left, Next::Done(Ok(Reply::Count(-60_000)))));
    }

    #[test]
    fn a_session_whose_marker_cannot_be_asked_is_written() {
        let now = Instant::now();
        for refusal in [Ok(Reply::Nil), Err(refused("NOPERM"))] {
            let (mut flow, _) = Flow::sign_in(sign_in(false), now);
            only(flow.on_reply(0, Err(refused("NOPERM")), now));
            only(flow.on_reply(0, Ok(Reply::Count(3)), now));
            let set = only(flow.on_reply(0, refusal, now));
            assert!(matches!(set, Command::Set { .. }));
            let done = flow.on_reply(0, Ok(Reply::Ok), now);
            assert!(matches!(done, Next::Done(Ok(Reply::Count(3)))));
        }
        let (mut flow, _) = Flow::sign_in(sign_in(true), now);
        only(flow.on_reply(0, Ok(Reply::Count(-2)), now));
        let set = only(flow.on_reply(0, Ok(Reply::Count(1)), now));
        assert!(matches!(set, Command::Set { .. }));
    }

    #[test]
    fn no_session_is_written_without_its_entry() {
        let now = Instant::now();
        for outcome in [Ok(Reply::Count(0)), Err(refused("OOM"))] {
            let (mut flow, _) = Flow::sign_in(sign_in(false), now);
            only(flow.on_reply(0, Ok(Reply::Count(-2)), now));
            assert!(matches!(flow.on_reply(0, outcome, now), Next::Done(_)));
        }
    }

    #[test]
    fn entries_are_dropped_after_their_sessions_and_only_those_that_are_gone() {
        let now = Instant::now();
        let items = ["a", "b"].map(|name| Item {
            key: format!("s:{name}").into_bytes(),
            handle: name.into(),
            entry: format!("entry of {name}").into_bytes(),
        });
        let (mut flow, commands) = Flow::revoke(b"u:{h}".to_vec(), b"s:", items.into());
        assert_eq!(commands.len(), 2);
        let first = flow.on_reply(1, Ok(Reply::Count(1)), now);
        assert!(matches!(first, Next::Wait));
        let Command::User(call) = only(flow.on_reply(0, Err(refused("READONLY")), now)) else {
            panic!("no entry is dropped");
        };
        assert_eq!(call.which, Which::Remove);
        assert_eq!(call.arguments, [&b"b"[..], b"entry of b"]);
        let done = flow.on_reply(0, Ok(Reply::Count(1)), now);
        assert!(matches!(done, Next::Done(Err(_))));
    }

    #[test]
    fn a_save_says_whether_the_session_and_its_entry_were_there() {
        let now = Instant::now();
        for (written, listed, wanted) in [
            (Reply::Ok, Reply::Count(1), Reply::Ok),
            (Reply::Ok, Reply::Count(0), Reply::Count(0)),
            (Reply::Nil, Reply::Count(1), Reply::Nil),
            (Reply::Nil, Reply::Count(0), Reply::Nil),
        ] {
            let (mut flow, commands) = Flow::save(sign_in(false).save);
            assert_eq!(commands.len(), 2);
            assert!(matches!(flow.on_reply(1, Ok(listed), now), Next::Wait));
            let Next::Done(Ok(reply)) = flow.on_reply(0, Ok(written), now) else {
                panic!("not done");
            };
            assert_eq!(reply, wanted);
        }
    }
}
