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
//! | SWEEP | index, empty, time in microseconds; for entries before their session: empty, empty, time |

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
            let times = [row.number, next()?.2];
            let times = times.map(|time| (time as u64).to_string().into_bytes());
            script(Which::Sweep, times.into())
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

#[cfg(test)]
mod tests {
    use super::super::{Sealers, decode};
    use super::*;

    /// A save or a sign-in with these texts, and a GET of "g" after it.
    fn decoded(operation: Operation, texts: [&[u16]; 4]) -> [Work; 2] {
        let [key, value, index, handle] = texts.map(|text| text.len() as f64);
        let mut rows = vec![
            [1.0, operation.number(), key, value, 500.0],
            [0.0, 0.0, index, handle, 3.0],
        ];
        let mut text = texts.concat();
        if operation == Operation::SignIn {
            rows.push([0.0, 0.0, 1.0, 2.0, 1.0]);
            text.extend("ts:".encode_utf16());
        }
        rows.push([2.0, 0.0, 1.0, 0.0, 0.0]);
        text.extend("g".encode_utf16());
        let requests = decode(rows.as_flattened(), &text, &Sealers::default());
        let works: Vec<_> = requests.into_iter().map(|request| request.work).collect();
        works.try_into().ok().expect("two requests")
    }

    fn texts_of(save: &Save) -> [&str; 4] {
        let texts = [save.key(), save.value(), save.index(), save.handle()];
        texts.map(|text| str::from_utf8(text).expect("UTF-8"))
    }

    #[test]
    fn the_texts_of_a_save_are_told_apart_in_any_script() {
        for texts in [
            ["key", "value", "index", "handle"],
            ["k\u{e9}", "", "\u{1f511}i", "h"],
            ["", "v\u{4e16}", "", "\u{e9}"],
        ] {
            let units = texts.map(|text| text.encode_utf16().collect::<Vec<_>>());
            let units = units.each_ref().map(Vec::as_slice);
            let [Work::Save(save), Work::Command(Command::Get { key })] =
                decoded(Operation::Save, units)
            else {
                panic!("not a save and a GET");
            };
            assert_eq!((texts_of(&save), key.as_slice()), (texts, &b"g"[..]));
            let [Work::SignIn(sign_in), Work::Command(Command::Get { key })] =
                decoded(Operation::SignIn, units)
            else {
                panic!("not a sign-in and a GET");
            };
            assert_eq!(
                (texts_of(&sign_in.save), key.as_slice()),
                (texts, &b"g"[..])
            );
            assert_eq!(
                (&sign_in.text[..], &sign_in.prefix[..]),
                (&b"t"[..], &b"s:"[..])
            );
            assert!(matches!(sign_in.limit, Limit::AtMost(3)));
            assert!(sign_in.ignores_markers && !sign_in.by_turns);
        }
    }

    #[test]
    fn a_lone_surrogate_in_any_text_refuses_only_its_save() {
        for operation in [Operation::Save, Operation::SignIn] {
            for at in 0..4 {
                let mut texts: [&[u16]; 4] = [&[0x61]; 4];
                texts[at] = &[0x61, 0xd800];
                let [work, next] = decoded(operation, texts);
                assert!(matches!(work, Work::Refused(_)));
                assert!(matches!(next, Work::Command(Command::Get { key }) if key == b"g"));
            }
        }
    }
}
