//! The order of the commands that write or end a session and its index entry.

use super::{
    Call, Which,
    sign_in::{SignIn, Step},
};
use crate::{
    command::{Command, Expiry, Reply},
    error::Error,
    marker::Destroy,
};

/// A save of a session that has an entry. Its texts are in one piece, which saves three allocations.
#[derive(Clone)]
pub struct Save {
    texts: Vec<u8>,
    /// The ends of the first three texts.
    ends: [usize; 3],
    /// The time to live of the session.
    pub expiry: Expiry,
}

impl Save {
    /// `texts` are the key and the value of the session, the index of its user, and its handle; `ends` are the
    /// ends of each.
    pub fn new(texts: Vec<u8>, ends: [usize; 4], expiry: Expiry) -> Self {
        let [key, value, index, _] = ends;
        Self {
            texts,
            ends: [key, value, index],
            expiry,
        }
    }

    /// The key of the session.
    pub fn key(&self) -> &[u8] {
        &self.texts[..self.ends[0]]
    }

    /// The value to write.
    pub fn value(&self) -> &[u8] {
        &self.texts[self.ends[0]..self.ends[1]]
    }

    /// The index of its user.
    pub fn index(&self) -> &[u8] {
        &self.texts[self.ends[1]..self.ends[2]]
    }

    /// The handle of the session.
    pub fn handle(&self) -> &[u8] {
        &self.texts[self.ends[2]..]
    }

    /// The same save of another value.
    #[must_use]
    pub fn with_value(&self, value: &[u8]) -> Self {
        let [key, before, index] = self.ends;
        let after = index - before + key + value.len();
        Self {
            texts: [self.key(), value, &self.texts[before..]].concat(),
            ends: [key, key + value.len(), after],
            expiry: self.expiry,
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
    /// Replies the number of entries, 0 if the limit is reached, or -1 if there is a younger marker.
    SignIn {
        /// The session and its entry.
        sign_in: Box<SignIn>,
        /// The pending step.
        step: Step,
        /// When the marker from before the sign-in expires; -1 if there is none.
        known: i64,
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
    pub fn save(save: &Save) -> (Self, Vec<Command>) {
        let listed = Command::HExists {
            key: save.index().to_vec(),
            field: save.handle().to_vec(),
        };
        let set = Command::Set {
            key: save.key().to_vec(),
            value: save.value().to_vec(),
            expiry: save.expiry,
            only_existing: true,
        };
        let flow = Self::Save {
            written: None,
            listed: None,
        };
        (flow, vec![set, listed])
    }

    /// Writes the entry of a session, then the session.
    pub fn sign_in(sign_in: SignIn) -> (Self, Vec<Command>) {
        let (step, command) = sign_in.first();
        let flow = Self::SignIn {
            sign_in: Box::new(sign_in),
            step,
            known: -1,
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
    pub fn on_reply(&mut self, part: Part, outcome: Result<Reply, Error>) -> Next {
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
            } => sign_in.on_reply(step, known, count, outcome),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn save() -> Save {
        Save::new(
            b"s:a{}u:{h}handle".to_vec(),
            [3, 5, 10, 16],
            Expiry::After(1000),
        )
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
    fn a_save_of_another_value_has_the_other_texts_of_before() {
        for value in ["", "longer than before"] {
            let save = save().with_value(value.as_bytes());
            let texts = [save.key(), save.value(), save.index(), save.handle()];
            let wanted: [&[u8]; 4] = [b"s:a", value.as_bytes(), b"u:{h}", b"handle"];
            assert_eq!(texts, wanted);
        }
    }

    #[test]
    fn entries_are_dropped_after_their_sessions_and_only_those_that_are_gone() {
        let items = ["a", "b"].map(|name| Item {
            key: format!("s:{name}").into_bytes(),
            handle: name.into(),
            entry: format!("entry of {name}").into_bytes(),
        });
        let (mut flow, commands) = Flow::revoke(b"u:{h}".to_vec(), b"s:", items.into());
        assert_eq!(commands.len(), 2);
        let first = flow.on_reply(1, Ok(Reply::Count(1)));
        assert!(matches!(first, Next::Wait));
        let Command::User(call) = only(flow.on_reply(0, Err(refused("READONLY")))) else {
            panic!("no entry is dropped");
        };
        assert_eq!(call.which, Which::Remove);
        assert_eq!(call.arguments, [&b"b"[..], b"entry of b"]);
        let done = flow.on_reply(0, Ok(Reply::Count(1)));
        assert!(matches!(done, Next::Done(Err(_))));
    }

    #[test]
    fn a_save_says_whether_the_session_and_its_entry_were_there() {
        for (written, listed, wanted) in [
            (Reply::Ok, Reply::Count(1), Reply::Ok),
            (Reply::Ok, Reply::Count(0), Reply::Count(0)),
            (Reply::Nil, Reply::Count(1), Reply::Nil),
            (Reply::Nil, Reply::Count(0), Reply::Nil),
        ] {
            let (mut flow, commands) = Flow::save(&save());
            assert_eq!(commands.len(), 2);
            assert!(matches!(flow.on_reply(1, Ok(listed)), Next::Wait));
            let Next::Done(Ok(reply)) = flow.on_reply(0, Ok(written)) else {
                panic!("not done");
            };
            assert_eq!(reply, wanted);
        }
    }
}
