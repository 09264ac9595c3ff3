//! Requests on their way to the engine: one row of numbers each, and one string with all their texts, because
//! one large string crosses the boundary at the cost of a small one.
//!
//! A row is `[id, operation, key units, value units, number]`. The string contains the keys and values in the
//! order of the rows; their lengths are in UTF-16 units. `number` is milliseconds to live for SET (negative: no
//! expiry), REPLACE, SWAP and EXPIRE, COUNT for operations on all keys, and for MGET the number of rows that
//! follow, with a key each. `operation` is an [`Operation`] plus [`OPERATIONS`] times the number of the sealer,
//! which opens the reply of GET, seals the value of SET, REPLACE, SIGN_IN and SAVE, and does both for MERGE.
//!
//! For operations on all keys the value is empty, or a plus sign and the text that follows the prefix in keys
//! of user indexes.
//!
//! For DESTROY the value is the prefix of the key. So it is for RESTORE, ADD and MARKER; a second row has the text to
//! write and, if the marker of another key counts too, that key. Its number is the time of expiry up to which a
//! marker is ignored.
//!
//! For SWAP and MERGE the value is the text that the session was loaded from. A second row has two more texts:
//! the new text and, for MERGE, the stored text. For MERGE its number is the milliseconds to live, and the
//! number of the first row is the time limit of the merge in milliseconds.
//!
//! Operations on the sessions of a user have more rows; module `users` describes them.

use std::time::Duration;

mod users;

use super::{
    protocol::{OPERATIONS, Operation, REQUEST_COLUMNS},
    sealing::{Finder, Sealers},
};
use crate::{
    command::{Command, Expiry, Swap},
    conflict::Conflict,
    core::{Request, Work},
    error::{Error, ErrorCode},
    keyspace::{Keyspace, Question},
    marker::{By, Destroy, Mode, Restore, marker_of},
    sealing::Halves,
};

/// Reads the requests of one flush.
pub fn decode(rows: &[f64], text: &[u16], sealers: &Sealers) -> Vec<Request> {
    let mut reader = Reader { rows, text };
    let mut requests = Vec::with_capacity(rows.len() / REQUEST_COLUMNS);
    let mut halves = Halves::of(sealed_in(rows));
    let mut finder = sealers.finder();
    let mut opened = Vec::new();
    while let Some(row) = reader.row() {
        let work = match work(&row, &mut reader, &mut finder, &mut halves) {
            Ok(work) => work,
            Err(error) => Work::Refused(error),
        };
        if row.sealer != 0 && matches!(work, Work::Command(Command::Get { .. })) {
            opened.push((requests.len(), row.sealer));
        }
        requests.push(Request { id: row.id, work });
    }
    if !opened.is_empty() {
        sealers.expect(opened.iter().filter_map(|&(at, sealer)| {
            let request: &Request = &requests[at];
            match &request.work {
                Work::Command(Command::Get { key }) => Some((request.id, sealer, key.as_slice())),
                _ => None,
            }
        }));
    }
    requests
}

/// How many sessions may have to be sealed.
fn sealed_in(rows: &[f64]) -> usize {
    let seals = |row: &[f64; REQUEST_COLUMNS]| {
        let has_sealer = row[1] >= f64::from(OPERATIONS);
        has_sealer && Operation::of(operation_of(row).0) != Some(Operation::Get)
    };
    rows.as_chunks().0.iter().filter(|row| seals(row)).count()
}

/// The numbers of the operation and of the sealing that a row has.
fn operation_of(row: &[f64; REQUEST_COLUMNS]) -> (u32, u32) {
    (row[1] as u32 % OPERATIONS, row[1] as u32 / OPERATIONS)
}

fn work(
    row: &Row,
    reader: &mut Reader<'_>,
    finder: &mut Finder<'_>,
    halves: &mut Halves,
) -> Result<Work, Error> {
    let operation = Operation::of(row.operation);
    if let Some(operation @ (Operation::Save | Operation::SignIn)) = operation {
        return users::saving(operation, row, reader, (finder, halves));
    }
    let key = reader.bytes(row.key_units);
    let value = reader.bytes(row.value_units);
    if operation == Some(Operation::MGet) {
        let keys: Vec<_> = (0..row.number as usize)
            .map_while(|_| {
                let units = reader.row()?.key_units;
                Some(reader.bytes(units))
            })
            .collect();
        let keys = keys.into_iter().collect::<Result<_, _>>()?;
        return Ok(Work::Command(Command::MGet { keys }));
    }
    if let Some(operation) = operation.filter(|&operation| users::is_one(operation)) {
        return users::work(operation, row, (key, value), reader);
    }
    // Read before any failure, so that texts of this request are not taken for those of the next one.
    let (mine, theirs, more) = match operation {
        Some(
            Operation::Swap
            | Operation::Merge
            | Operation::Restore
            | Operation::Add
            | Operation::Marker,
        ) => reader.second_row()?,
        _ => (vec![], vec![], 0.0),
    };
    let key = key?;
    if operation == Some(Operation::Get) {
        return Ok(Work::Command(Command::Get { key }));
    }
    let sealer = finder.of(row.sealer)?;
    let question = match operation {
        Some(operation @ (Operation::Set | Operation::Replace)) => {
            let value = match sealer {
                Some(sealer) => sealer.seal(&key, &value?, halves)?,
                None => value?,
            };
            return Ok(Work::Command(Command::Set {
                key,
                value,
                expiry: expiry(row.number),
                only_existing: operation == Operation::Replace,
            }));
        }
        Some(Operation::Swap) => {
            let swap = Swap::new(key, value?, mine, expiry(row.number));
            return Ok(Work::Command(Command::Swap(swap)));
        }
        Some(Operation::Merge) => {
            let conflict = Box::new(Conflict {
                key,
                base: value?,
                mine,
                theirs,
                expiry: expiry(more),
                sealer: sealer.cloned(),
            });
            let time = Duration::from_millis(row.number as u64);
            return Ok(Work::Merge(conflict, time));
        }
        Some(Operation::Ping) => return Ok(Work::Command(Command::Ping)),
        Some(Operation::Pttl) => return Ok(Work::Command(Command::Pttl { key })),
        Some(Operation::Expire) => {
            return Ok(Work::Command(Command::Expire {
                key,
                expire_ms: row.number as i64,
            }));
        }
        Some(Operation::Destroy) => {
            return Ok(Work::Command(Destroy::session(&value?, key)));
        }
        Some(operation @ (Operation::Restore | Operation::Add | Operation::Marker)) => {
            let prefix = value?;
            let mut markers = vec![marker_of(&prefix, &key), marker_of(&prefix, &prefix)];
            if !theirs.is_empty() {
                markers.push(marker_of(&prefix, &theirs));
            }
            let restore = Restore {
                markers,
                key,
                value: mine,
                expiry: expiry(row.number),
                known: more as i64,
                mode: match operation {
                    Operation::Add => Mode::Add,
                    Operation::Marker => Mode::Ask,
                    _ => Mode::Write,
                },
                by: By::Hash,
                repeated: false,
            };
            return Ok(Work::Command(Command::Restore(Box::new(restore))));
        }
        Some(Operation::Length) => Question::Length,
        Some(Operation::Ids) => Question::Ids,
        Some(Operation::Clear) => Question::Clear,
        Some(_) | None => return Err(unknown(row)),
    };
    Ok(Work::Keyspace(Keyspace {
        question,
        index_prefix: value?.strip_prefix(b"+").map(|rest| [&key, rest].concat()),
        prefix: key,
        count: row.number as u32,
    }))
}

fn unknown(row: &Row) -> Error {
    Error::new(
        ErrorCode::Options,
        format!(
            "Operation {} is unknown to the native binary; install the same version of the package and its binary.",
            row.operation
        ),
    )
}

/// A time to live that is that of before.
const KEEP: f64 = -2.0;

/// Milliseconds to live; [`KEEP`], or any other negative number: no expiry.
fn expiry(number: f64) -> Expiry {
    if number >= 0.0 {
        Expiry::After(number as u64)
    } else if number == KEEP {
        Expiry::Keep
    } else {
        Expiry::Never
    }
}

struct Row {
    id: u32,
    operation: u32,
    /// Of [`Sealers`]; 0 for none.
    sealer: u32,
    key_units: usize,
    value_units: usize,
    number: f64,
}

struct Reader<'a> {
    rows: &'a [f64],
    text: &'a [u16],
}

impl<'a> Reader<'a> {
    fn row(&mut self) -> Option<Row> {
        let (row, rest) = self.rows.split_first_chunk::<REQUEST_COLUMNS>()?;
        self.rows = rest;
        let (operation, sealer) = operation_of(row);
        Some(Row {
            id: row[0] as u32,
            operation,
            sealer,
            key_units: row[2] as usize,
            value_units: row[3] as usize,
            number: row[4],
        })
    }

    /// The texts and the number of a request's second row.
    fn second_row(&mut self) -> Result<(Vec<u8>, Vec<u8>, f64), Error> {
        let Some(row) = self.row() else {
            return Ok((vec![], vec![], 0.0));
        };
        let (first, second) = (self.bytes(row.key_units), self.bytes(row.value_units));
        Ok((first?, second?, row.number))
    }

    fn bytes(&mut self, units: usize) -> Result<Vec<u8>, Error> {
        let text = self.units(units);
        ascii(text).map_or_else(|| utf8(text), Ok)
    }

    /// Texts that follow each other, in one piece, and the end of each.
    fn joined<const N: usize>(
        &mut self,
        units: [usize; N],
    ) -> Result<(Vec<u8>, [usize; N]), Error> {
        let mut end = 0_usize;
        let mut ends = units.map(|units| {
            end = end.saturating_add(units).min(self.text.len());
            end
        });
        let texts = self.units(end);
        if let Some(bytes) = ascii(texts) {
            return Ok((bytes, ends));
        }
        let mut bytes = Vec::new();
        let mut begin = 0;
        for end in &mut ends {
            bytes.extend(utf8(&texts[begin..*end])?);
            begin = *end;
            *end = bytes.len();
        }
        Ok((bytes, ends))
    }

    fn units(&mut self, count: usize) -> &'a [u16] {
        let (text, rest) = self.text.split_at(count.min(self.text.len()));
        self.text = rest;
        text
    }
}

/// ASCII text; None if it is not. The check is vectorized and nearly always true: ids and most JSON are ASCII.
fn ascii(text: &[u16]) -> Option<Vec<u8>> {
    let is_ascii = text.iter().fold(0, |all, unit| all | unit) < 0x80;
    is_ascii.then(|| text.iter().map(|&unit| unit as u8).collect())
}

fn utf8(text: &[u16]) -> Result<Vec<u8>, Error> {
    String::from_utf16(text).map(String::into_bytes).map_err(|_| {
        Error::new(
            ErrorCode::Options,
            "A session id, prefix or serialized session must be well-formed Unicode, got a lone surrogate; it would be read back changed.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn rows_share_one_text() {
        let rows = [
            [1.0, 1.0, 2.0, 3.0, 500.0],
            [2.0, 4.0, 0.0, 0.0, 2.0],
            [0.0, 0.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 2.0, 0.0, 0.0],
            [3.0, 0.0, 1.0, 0.0, 0.0],
        ];
        let requests = decode(
            rows.as_flattened(),
            &units("k\u{e9}val\u{61}bcg"),
            &Sealers::default(),
        );
        let works: Vec<_> = requests
            .into_iter()
            .map(|request| (request.id, request.work))
            .collect();
        let [
            (
                1,
                Work::Command(Command::Set {
                    key,
                    value,
                    expiry: Expiry::After(500),
                    ..
                }),
            ),
            (2, Work::Command(Command::MGet { keys })),
            (3, Work::Command(Command::Get { key: last })),
        ] = works.as_slice()
        else {
            panic!("the rows were read as something else");
        };
        assert_eq!(
            (key.as_slice(), value.as_slice()),
            ("k\u{e9}".as_bytes(), b"val".as_slice())
        );
        assert_eq!(keys, &[b"a".to_vec(), b"bc".to_vec()]);
        assert_eq!(last, b"g");
    }

    #[test]
    fn a_lone_surrogate_refuses_its_own_request_only() {
        let rows = [[1.0, 0.0, 1.0, 0.0, 0.0], [2.0, 0.0, 1.0, 0.0, 0.0]];
        let requests = decode(rows.as_flattened(), &[0xd800, 0x61], &Sealers::default());
        assert!(
            matches!(&requests[0].work, Work::Refused(error) if error.code == ErrorCode::Options)
        );
        assert!(matches!(&requests[1].work, Work::Command(Command::Get { key }) if key == b"a"));
    }
}
