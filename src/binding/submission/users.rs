//! Requests about the sessions of a user.
//!
//! | operation | rows: key, value, number |
//! |---|---|
//! | INDEX | index, handle, milliseconds to live; kind and text of the entry, empty, limit as for SIGN_IN |
//! | SIGN_IN | session, its text, milliseconds to live; index, handle, limit, -1 for none, -2 if entries are
//! only counted; text of the entry, prefix, flags: 1 to ignore markers, 2 if no script may name both keys |
//! | SAVE | session, its text, milliseconds to live; index, handle |
//! | ENTRIES | index, handle or empty |
//! | REVOKE | index, prefix, how many; for each session, handle; entry |
//! | REMOVE | index, empty, how many; for each handle, entry |
//! | RENEW | index, handle; entry, what it is to be |
//! | SWEEP | index, empty, milliseconds; for entries before their session: empty, empty, milliseconds |

use super::{Reader, Row, expiry};
use crate::{
    binding::{protocol::Operation, sealing::Finder},
    command::Command,
    core::Work,
    error::Error,
    sealing::Halves,
    users::{Call, Item, Limit, Save, SignIn, Which},
};

pub(super) fn is_one(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Index
            | Operation::Entries
            | Operation::Revoke
            | Operation::Remove
            | Operation::Sweep
            | Operation::Renew
    )
}

type Text = Result<Vec<u8>, Error>;

pub(super) fn work(
    operation: Operation,
    row: &Row,
    (key, value): (Text, Text),
    reader: &mut Reader<'_>,
) -> Result<Work, Error> {
    let count = match operation {
        Operation::Revoke => 2 * row.number as usize,
        Operation::Remove => row.number as usize,
        Operation::Index | Operation::Sweep | Operation::Renew => 1,
        _ => 0,
    };
    // All rows are read before an error, so that they are not taken for the next request.
    let more: Vec<_> = (0..count).map(|_| reader.second_row()).collect();
    let mut more = more.into_iter();
    let mut next = || more.next().unwrap_or_else(|| Ok((vec![], vec![], 0.0)));
    let (key, value) = (key?, value?);
    let script = |which, arguments| {
        let call = Call::new(which, &key, arguments);
        Ok(Work::Command(Command::User(Box::new(call))))
    };
    match operation {
        Operation::Index => {
            let life = expiry(row.number).milliseconds();
            let life = life.map_or(vec![], |expire_ms| expire_ms.to_string().into_bytes());
            let (text, _, limit) = next()?;
            let limit = limit_of(limit).argument();
            script(Which::Index, vec![value, life, limit, text])
        }
        Operation::Entries => {
            let handle = Some(value).filter(|handle| !handle.is_empty());
            script(Which::Entries, handle.into_iter().collect())
        }
        Operation::Remove => {
            let mut arguments = Vec::with_capacity(2 * count);
            for _ in 0..count {
                let (handle, entry, _) = next()?;
                arguments.extend([handle, entry]);
            }
            script(Which::Remove, arguments)
        }
        Operation::Renew => {
            let (before, after, _) = next()?;
            script(Which::Renew, vec![value, before, after])
        }
        Operation::Sweep => {
            let ages = [row.number, next()?.2];
            let ages = ages.map(|ms| (ms as u64).to_string().into_bytes());
            script(Which::Sweep, ages.into())
        }
        Operation::Revoke => {
            let mut items = Vec::with_capacity(count / 2);
            for _ in 0..count / 2 {
                let (session, handle, _) = next()?;
                let (entry, ..) = next()?;
                items.push(Item {
                    key: session,
                    handle,
                    entry,
                });
            }
            Ok(Work::Revoke {
                index: key,
                prefix: value,
                items,
            })
        }
        _ => Err(super::unknown(row)),
    }
}

/// SAVE or SIGN_IN.
pub(super) fn saving(
    operation: Operation,
    row: &Row,
    reader: &mut Reader<'_>,
    (finder, halves): (&mut Finder<'_>, &mut Halves),
) -> Result<Work, Error> {
    let (index, handle, limit) = match reader.row() {
        Some(place) => (place.key_units, place.value_units, place.number),
        None => (0, 0, 0.0),
    };
    let texts = reader.joined([row.key_units, row.value_units, index, handle]);
    // Read before an error, so that it is not taken for the next request.
    let more = (operation == Operation::SignIn).then(|| reader.second_row());
    let (texts, ends) = texts?;
    let mut save = Save::new(texts, ends, expiry(row.number));
    if let Some(sealer) = finder.of(row.sealer)? {
        let sealed = sealer.seal(save.key(), save.value(), halves)?;
        save = save.with_value(&sealed);
    }
    let Some(more) = more else {
        return Ok(Work::Save(save));
    };
    let (text, prefix, flags) = more?;
    Ok(Work::SignIn(Box::new(SignIn {
        save,
        prefix,
        text,
        limit: limit_of(limit),
        ignores_markers: flags as u32 & 1 != 0,
        by_turns: flags as u32 & 2 != 0,
    })))
}

fn limit_of(number: f64) -> Limit {
    if number >= 0.0 {
        Limit::AtMost(number as u32)
    } else if number == -1.0 {
        Limit::None
    } else {
        Limit::Counted
    }
}
