//! The requests of callers, their answers, and the invariants of both.

use std::{collections::BTreeMap, time::Duration};

use connect_redis_native::{
    command::Reply,
    config::MARKER_TTL,
    error::{Error, ErrorCode},
};

/// The message of a lost connection.
pub const LOST: &str = "lost";

/// The kind of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Get,
    /// SET and swaps: the written value contains the request's id.
    Write,
    Delete,
    /// SET unless a marker expires after this time, in milliseconds.
    Restore(i64),
    Touch(Duration),
    Other,
}

pub struct Record {
    pub asked: Asked,
    pub key: usize,
    pub submitted: Duration,
    /// The latest time at which it must be settled.
    pub settled_by: Duration,
    pub settled: Option<(Duration, Result<Reply, Error>)>,
}

/// All requests of a run, by their ascending numbers.
#[derive(Default)]
pub struct Model {
    pub records: BTreeMap<u32, Record>,
    /// The requests that are not settled.
    pub open: BTreeMap<u32, Duration>,
    /// How often a write was sent, according to the bytes that the system accepted.
    pub written: BTreeMap<u32, u32>,
    /// The times of data losses.
    pub losses: Vec<Duration>,
    /// When the newest marker of a key expires that was the reply to a restore.
    pub known: BTreeMap<usize, i64>,
    /// The times of refused markers.
    pub unmarked: Vec<(usize, Duration)>,
}

/// The value that request `id` writes to `key`.
pub fn value_of(key: usize, id: u32) -> Vec<u8> {
    format!("{{\"k\":{key},\"by\":{id}}}").into_bytes()
}

fn read_value(value: &[u8]) -> Option<(usize, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (key, by) = text.strip_prefix("{\"k\":")?.split_once(",\"by\":")?;
    Some((key.parse().ok()?, by.strip_suffix('}')?.parse().ok()?))
}

/// The request that wrote `value`.
pub fn value_by(value: &[u8]) -> u32 {
    read_value(value).map_or(u32::MAX, |(_, by)| by)
}

impl Model {
    pub fn settle(&mut self, id: u32, outcome: Result<Reply, Error>, now: Duration) {
        let record = self.records.get_mut(&id).expect("a request that was made");
        assert!(record.settled.is_none(), "request {id} is settled twice");
        self.open.remove(&id);
        match (&record.asked, &outcome) {
            (Asked::Get, Ok(Reply::Text(value))) => {
                let (key, _) = read_value(value).expect("a value that was written");
                assert_eq!(key, record.key, "request {id} got the reply to another");
            }
            (Asked::Get, Ok(Reply::Nil))
            | (Asked::Write, Ok(Reply::Ok | Reply::Nil | Reply::Text(_)))
            | (Asked::Restore(_), Ok(Reply::Ok | Reply::Nil))
            | (Asked::Delete | Asked::Touch(_), Ok(Reply::Count(0 | 1)))
            | (Asked::Other, Ok(_))
            | (_, Err(_)) => {}
            (Asked::Restore(known), Ok(Reply::Marker { end, .. })) => {
                assert!(end > known, "restore {id} was refused for an older marker");
                self.known.insert(record.key, *end);
            }
            (asked, outcome) => panic!("{asked:?} {id} got {outcome:?}"),
        }
        record.settled = Some((now, outcome));
        self.check_retry(id);
        self.check_destroyed(id);
    }

    /// Only a written request uses up its retry: a request that fails because its connection was lost was
    /// written twice, or once if a later write of its session prevents a repetition.
    fn check_retry(&self, id: u32) {
        let record = &self.records[&id];
        let Some((_, Err(error))) = &record.settled else {
            return;
        };
        if record.asked != Asked::Write || error.message != LOST {
            return;
        }
        let written = self.written.get(&id).copied().unwrap_or(0);
        let is_last = !self.records.range(id + 1..).any(|(_, later)| {
            later.key == record.key
                && matches!(
                    later.asked,
                    Asked::Write | Asked::Restore(_) | Asked::Delete
                )
        });
        let least = if is_last { 2 } else { 1 };
        assert!(
            written >= least,
            "write {id} failed, though it was written {written} times"
        );
    }

    /// A destroyed session stays destroyed: a later restore writes nothing while the marker lives, unless the
    /// marker was refused, or is known to the restore.
    fn check_destroyed(&self, id: u32) {
        let restore = &self.records[&id];
        let (&Asked::Restore(known), Some((now, Ok(Reply::Ok)))) =
            (&restore.asked, &restore.settled)
        else {
            return;
        };
        for (destroy, record) in self.records.range(..id) {
            let (Asked::Delete, Some((_, Ok(_)))) = (&record.asked, &record.settled) else {
                continue;
            };
            let since = record.submitted;
            let is_excused = record.key != restore.key
                || since + MARKER_TTL <= *now
                || known >= (since + MARKER_TTL).as_millis() as i64
                || self.losses.iter().any(|loss| *loss >= since)
                || self
                    .unmarked
                    .iter()
                    .any(|(key, at)| *key == record.key && *at >= since);
            assert!(
                is_excused,
                "restore {id} wrote what destroy {destroy} has removed"
            );
        }
    }

    /// Every request is settled within a turn of its deadline.
    pub fn check_deadlines(&self, now: Duration) {
        for (id, by) in &self.open {
            assert!(*by >= now, "request {id} was due at {by:?}, it is {now:?}");
        }
    }

    fn is_acknowledged(&self, record: &Record) -> bool {
        matches!(
            (&record.asked, &record.settled),
            (Asked::Write | Asked::Restore(_), Some((_, Ok(Reply::Ok))))
                | (Asked::Delete, Some((_, Ok(_))))
        )
    }

    /// Order within a session: a get sees the last acknowledged write before it in the order of the requests,
    /// or a later one.
    pub fn check_order(&self) {
        let mut floors: BTreeMap<usize, u32> = BTreeMap::new();
        for (id, record) in &self.records {
            if self.is_acknowledged(record) {
                floors.insert(record.key, *id);
            }
            let (Asked::Get, Some((at, Ok(reply)))) = (&record.asked, &record.settled) else {
                continue;
            };
            let Some(floor) = floors.get(&record.key) else {
                continue;
            };
            let written = self.records[floor].submitted;
            if self
                .losses
                .iter()
                .any(|loss| *loss >= written && loss <= at)
            {
                continue;
            }
            let seen = match reply {
                Reply::Text(value) => read_value(value).map_or(0, |(_, by)| by),
                // The latest request that may have removed it.
                _ => self.last_delete(record.key),
            };
            assert!(
                seen >= *floor,
                "get {id} of key {} saw write {seen}, though {floor} was acknowledged",
                record.key
            );
        }
    }

    fn last_delete(&self, key: usize) -> u32 {
        let deletes = self.records.iter().filter(|(_, record)| {
            record.key == key && matches!(record.asked, Asked::Delete | Asked::Other)
        });
        deletes.max_by_key(|(id, _)| **id).map_or(0, |(id, _)| *id)
    }

    /// Requests made since `since` are served.
    pub fn check_served(&self, since: Duration, context: &str, is_a_strange_proxy: bool) {
        for (id, record) in self.records.iter().filter(|(_, it)| it.submitted >= since) {
            match &record.settled {
                _ if record.asked == Asked::Other && is_a_strange_proxy => {}
                Some((_, Ok(_))) => {}
                // A merge or swap can fail because of other writers.
                Some((_, Err(error))) if error.code == ErrorCode::Conflict => {}
                other => panic!("request {id} ({:?}), {context}: {other:?}", record.asked),
            }
        }
    }
}
