//! A sign-in: the first save of a session with a user, which writes its index entry.
//!
//! On one server a sign-in is one script. In a cluster, where the two are in different slots, the entry comes
//! first, and the session is written unless a marker is younger than the sign-in: a revoke that has read the
//! entry leaves a marker. A second read of the index instead would miss a revoke that has read the entry but
//! not dropped it yet.

use super::{
    Call, Which,
    flow::{Next, Save},
};
use crate::{
    command::{Command, Reply},
    error::Error,
    marker::{self, By, Mode, Restore},
};

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

/// The step that a sign-in waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Whether there is an earlier marker.
    Marker,
    /// The entry.
    Entry,
    /// The session, unless there is a marker.
    Unmarked,
    /// The session.
    Session,
}

impl SignIn {
    fn life(&self) -> Vec<u8> {
        let life = self.save.expiry.milliseconds();
        life.map_or(vec![], |expire_ms| expire_ms.to_string().into_bytes())
    }

    fn call(&self, which: Which, more: Option<Vec<u8>>) -> Call {
        let save = &self.save;
        let limit = self.limit.argument();
        let kind: &[u8] = if which == Which::SignIn { b"a:" } else { b"p:" };
        let text = [kind, &self.text].concat();
        let mut arguments = vec![save.handle().to_vec(), self.life(), limit, text];
        arguments.extend(more);
        Call::new(which, save.index(), arguments)
    }

    /// Both in one script.
    pub fn both(&self) -> Command {
        let mut call = self.call(Which::SignIn, Some(self.save.value().to_vec()));
        call.keys.push(self.save.key().to_vec());
        call.expiry = self.save.expiry;
        Command::User(Box::new(call))
    }

    /// The first step.
    pub(super) fn first(&self) -> (Step, Command) {
        if self.ignores_markers {
            return (Step::Entry, self.entry());
        }
        (Step::Marker, self.restore(Mode::Ask, -1))
    }

    fn entry(&self) -> Command {
        Command::User(Box::new(self.call(Which::Index, None)))
    }

    fn session(&self) -> Command {
        Command::Set {
            key: self.save.key().to_vec(),
            value: self.save.value().to_vec(),
            expiry: self.save.expiry,
            only_existing: false,
        }
    }

    fn restore(&self, mode: Mode, known: i64) -> Command {
        let key = self.save.key();
        let value = self.save.value();
        Command::Restore(Box::new(Restore {
            markers: vec![marker::marker_of(&self.prefix, key)],
            key: key.to_vec(),
            value: if mode == Mode::Ask {
                vec![]
            } else {
                value.to_vec()
            },
            expiry: self.save.expiry,
            known,
            mode,
            by: By::Hash,
            repeated: false,
        }))
    }

    /// Takes the reply to a step.
    pub(super) fn on_reply(
        &self,
        step: &mut Step,
        known: &mut i64,
        count: &mut i64,
        outcome: Result<Reply, Error>,
    ) -> Next {
        let (next, command) = match (*step, outcome) {
            (Step::Marker, outcome) => {
                *known = match outcome {
                    Ok(Reply::Marker { end, .. }) => end,
                    // It may not be read: then it is not heeded either.
                    Err(error) if error.refuses_command() => -1,
                    Err(error) => return Next::Done(Err(error)),
                    Ok(_) => -1,
                };
                (Step::Entry, self.entry())
            }
            (Step::Entry, Ok(Reply::Count(0))) => return Next::Done(Ok(Reply::Count(0))),
            (Step::Entry, Ok(Reply::Count(entries))) => {
                *count = entries;
                if self.ignores_markers {
                    (Step::Session, self.session())
                } else {
                    (Step::Unmarked, self.restore(Mode::Write, *known))
                }
            }
            (Step::Unmarked, Ok(Reply::Marker { .. })) => return Next::Done(Ok(Reply::Count(-1))),
            // Its marker is in another slot, or denied.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::Expiry,
        error::{Cause, ErrorCode},
        users::Flow,
    };

    fn sign_in(ignores_markers: bool) -> SignIn {
        SignIn {
            save: Save::new(
                b"s:a{}u:{h}handle".to_vec(),
                [3, 5, 10, 16],
                Expiry::After(1000),
            ),
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
        error.caused_by(Cause::server(word.to_owned()))
    }

    #[test]
    fn the_entry_comes_first_and_then_the_session_unless_a_marker_is_younger() {
        let (mut flow, first) = Flow::sign_in(sign_in(false));
        let [Command::Restore(asked)] = first.as_slice() else {
            panic!("the marker is not asked for");
        };
        assert_eq!((asked.mode, asked.known), (Mode::Ask, -1));
        assert_eq!(asked.markers, [b"s:{s:a}"]);
        let (left, end) = (59_000, 1_700_000_059_000);
        let entry = only(flow.on_reply(0, Ok(Reply::Marker { left, end })));
        let Command::User(call) = entry else {
            panic!("no entry");
        };
        assert_eq!(call.which, Which::Index);
        assert_eq!(call.arguments[1..], [&b"1000"[..], b"counted", b"p:text"]);
        let Command::Restore(restore) = only(flow.on_reply(0, Ok(Reply::Count(2)))) else {
            panic!("the session is written whatever the marker says");
        };
        assert_eq!((restore.mode, restore.known), (Mode::Write, end));
        let end = end + 1;
        let marked = flow.on_reply(0, Ok(Reply::Marker { left, end }));
        assert!(matches!(marked, Next::Done(Ok(Reply::Count(-1)))));
    }

    #[test]
    fn a_session_whose_marker_cannot_be_asked_is_written() {
        for refusal in [Ok(Reply::Nil), Err(refused("NOPERM"))] {
            let (mut flow, _) = Flow::sign_in(sign_in(false));
            only(flow.on_reply(0, Err(refused("NOPERM"))));
            only(flow.on_reply(0, Ok(Reply::Count(3))));
            let set = only(flow.on_reply(0, refusal));
            assert!(matches!(set, Command::Set { .. }));
            let done = flow.on_reply(0, Ok(Reply::Ok));
            assert!(matches!(done, Next::Done(Ok(Reply::Count(3)))));
        }
        let (mut flow, _) = Flow::sign_in(sign_in(true));
        let set = only(flow.on_reply(0, Ok(Reply::Count(1))));
        assert!(matches!(set, Command::Set { .. }));
    }

    #[test]
    fn no_session_is_written_without_its_entry() {
        for outcome in [Ok(Reply::Count(0)), Err(refused("OOM"))] {
            let (mut flow, _) = Flow::sign_in(sign_in(false));
            only(flow.on_reply(0, Ok(Reply::Count(-2))));
            assert!(matches!(flow.on_reply(0, outcome), Next::Done(_)));
        }
    }
}
