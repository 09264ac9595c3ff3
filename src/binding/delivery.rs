//! Answers on their way to JavaScript: collected here, announced by one call for all of them, and fetched by
//! JavaScript.
//!
//! A row is `[id, kind, number]`. `kind` is the type of the answer, and determines how many texts of the
//! returned array belong to it. Two numbers precede the rows: the number of rows, and the number of answers
//! that are left for another turn of the event loop.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use napi::{
    Status,
    bindgen_prelude::{Array, Env, Float64ArraySlice, Function},
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};

use super::{
    panics,
    protocol::{ANSWER_COLUMNS, ANSWER_HEADER, Answer, Notice as NoticeKind},
    sealing::Sealers,
    texts::Texts,
};
use crate::{
    command::Reply,
    config::UNREAD_BYTES,
    core::{Circuit, Completion, Notice},
    driver::{Sink, Watch},
    error::Error,
};

/// If Redis has no other commands to execute, half of the answers, but at least this many, are delivered one
/// turn of the event loop before the others: their callers' next requests are on the wire while JavaScript
/// processes the rest, so that JavaScript and Redis work at the same time.
const FIRST_MIN: usize = 2;

/// The limit of answers in one turn of the event loop, in bytes: JavaScript parses a megabyte in some
/// milliseconds.
const TURN_TEXT_BYTES: usize = 2 << 20;

/// The number of replies that are opened before another thread gets its turn.
const OPENED_AT_ONCE: usize = 32;

/// The id of a notice.
const NO_ID: f64 = -1.0;

type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The queue of answers, and the call that announces them.
pub struct Delivery {
    waiting: Mutex<Waiting>,
    wake: Wake,
}

enum Item {
    Completion(Completion),
    Notice(Notice),
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// The total size of the answers.
    bytes: usize,
    /// The store has stopped reading replies.
    full: bool,
    /// A call to JavaScript is pending or running, and will fetch these answers too.
    announced: bool,
    /// Some answers of this call were delivered.
    started: bool,
    /// Connections that are not polled yet.
    watches: Vec<Watch>,
}

impl Waiting {
    /// Takes the answers for one turn of the event loop, at most `room`.
    fn take(&mut self, room: usize, pending: usize) -> Vec<Item> {
        let all = self.items.len();
        let most = if self.started || pending > all {
            all
        } else {
            all.div_ceil(2).max(FIRST_MIN)
        };
        let mut bytes = 0;
        let large = self.items.iter().take(most).take_while(|item| {
            let fits = bytes < TURN_TEXT_BYTES;
            bytes += item.bytes();
            fits
        });
        let most = most.min(room).min(large.count());
        let items: Vec<Item> = self.items.drain(..most).collect();
        self.bytes -= items.iter().map(Item::bytes).sum::<usize>();
        self.announced = !self.items.is_empty();
        self.started = self.announced;
        items
    }
}

impl Delivery {
    /// `wake` does not keep the event loop alive; pending requests do.
    pub fn new(wake: &Function<'_, (), ()>) -> napi::Result<Self> {
        let wake = wake.build_threadsafe_function().weak::<true>().build()?;
        Ok(Self {
            waiting: Mutex::default(),
            wake,
        })
    }

    /// Fills `rows`. Returns the texts they refer to, whether reading can resume after the queue was full, and
    /// whether the answer to `closing` is among them. `pending` is the number of requests that JavaScript has
    /// no answer to yet.
    #[expect(
        unsafe_code,
        reason = "the rows are written where JavaScript reads them"
    )]
    pub fn drain<'env>(
        &self,
        env: &'env Env,
        mut rows: Float64ArraySlice<'_>,
        pending: usize,
        closing: Option<u32>,
        sealers: &Sealers,
    ) -> napi::Result<(Array<'env>, bool, bool)> {
        // SAFETY: JavaScript runs on this thread only, so no other code sees the memory until this
        // call returns, and no JavaScript runs during it.
        let rows = unsafe { rows.as_mut() };
        let Some(([count, left], rows)) = rows.split_first_chunk_mut::<ANSWER_HEADER>() else {
            return Ok((env.create_array(0)?, false, false));
        };
        let (items, remain, roomy): (Vec<Item>, usize, bool) = {
            // A poisoned queue is intact: no change to it can panic half-way.
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let items = waiting.take(rows.len() / ANSWER_COLUMNS, pending);
            let roomy = waiting.full && waiting.bytes < UNREAD_BYTES;
            waiting.full &= !roomy;
            (items, waiting.items.len(), roomy)
        };
        *count = items.len() as f64;
        *left = remain as f64;
        let mut ended = false;
        let mut opener = sealers.opener();
        let mut texts = Texts::default();
        for (at, (row, item)) in rows.chunks_exact_mut(ANSWER_COLUMNS).zip(items).enumerate() {
            if opener.is_some() && at % OPENED_AT_ONCE == OPENED_AT_ONCE - 1 {
                // Unlocks it.
                drop(opener.take());
                opener = sealers.opener();
            }
            let (id, (kind, number)) = match item {
                Item::Completion(Completion { id, outcome }) => {
                    ended |= Some(id) == closing;
                    let outcome = match &mut opener {
                        Some(opener) => opener.open(id, outcome),
                        None => outcome,
                    };
                    (id.into(), encode(outcome, &mut texts))
                }
                Item::Notice(notice) => {
                    let kind = encode_notice(notice, &mut texts);
                    (NO_ID, (Answer::Notice, kind.number()))
                }
            };
            row.copy_from_slice(&[id, kind.number(), number]);
        }
        drop(opener);
        Ok((texts.into_array(env)?, roomy, ended))
    }

    /// Records that a call is running, so that new answers need no other one. Returns whether none was: the
    /// caller must then deliver the answers that [`Self::is_waited_for`] reports.
    pub fn announce(&self) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut waiting.announced, true)
    }

    /// Whether answers wait to be fetched; if not, the next ones are announced again.
    pub fn is_waited_for(&self) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.announced = !waiting.items.is_empty() || !waiting.watches.is_empty();
        waiting.announced
    }

    /// The connections that are to be watched.
    pub fn watches(&self) -> Vec<Watch> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut waiting.watches)
    }

    fn push(&self, items: impl Iterator<Item = Item>, watch: Option<Watch>) -> bool {
        let (announced, roomy) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            for item in items {
                waiting.bytes += item.bytes();
                waiting.items.push_back(item);
            }
            waiting.watches.extend(watch);
            waiting.full |= waiting.bytes >= UNREAD_BYTES;
            let announced = std::mem::replace(&mut waiting.announced, true);
            (announced, !waiting.full)
        };
        if !announced {
            // Fails only after the environment has ended, together with all waiting callers.
            self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
        roomy
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Completion(Completion {
                outcome: Ok(Reply::Text(text)),
                ..
            }) => text.len(),
            Self::Completion(Completion {
                outcome: Ok(Reply::Texts(texts)),
                ..
            }) => texts.iter().flatten().map(Vec::len).sum(),
            _ => 0,
        }
    }
}

fn encode_notice(notice: Notice, texts: &mut Texts) -> NoticeKind {
    match notice {
        Notice::Circuit(Circuit::Closed) => NoticeKind::Closed,
        Notice::Circuit(Circuit::Open) => NoticeKind::Open,
        Notice::Circuit(Circuit::HalfOpen) => NoticeKind::HalfOpen,
        Notice::Ready => NoticeKind::Ready,
        Notice::Reconnecting => NoticeKind::Reconnecting,
        Notice::Crashed => {
            texts.push(panics::last().map(String::into_bytes));
            NoticeKind::Crashed
        }
        Notice::Failed(error) => {
            texts.push(Some(error.code.name().into()));
            encode_error(error, texts);
            NoticeKind::Failed
        }
    }
}

fn encode(outcome: Result<Reply, Error>, texts: &mut Texts) -> (Answer, f64) {
    match outcome {
        Ok(Reply::Nil) => (Answer::Nil, 0.0),
        Ok(Reply::Ok | Reply::Page(_)) => (Answer::Ok, 0.0),
        Ok(Reply::Count(count)) => (Answer::Count, count as f64),
        Ok(Reply::Text(text)) => texts.add(text),
        Ok(Reply::Texts(values)) => {
            let count = values.len();
            values.into_iter().for_each(|value| texts.push(value));
            (Answer::Texts, count as f64)
        }
        Ok(Reply::Marker { left, end }) => {
            for number in [left, end] {
                texts.push(Some(number.to_string().into_bytes()));
            }
            (Answer::Texts, 2.0)
        }
        Err(error) => {
            let code = error.code as u8;
            encode_error(error, texts);
            (Answer::Error, f64::from(code))
        }
    }
}

fn encode_error(error: Error, texts: &mut Texts) {
    let (cause, code) = error
        .cause
        .map_or((None, None), |cause| (Some(cause.message), cause.code));
    for text in [Some(error.message), cause, code] {
        texts.push(text.map(String::into_bytes));
    }
}

impl Sink for Delivery {
    fn deliver(&self, completions: &mut Vec<Completion>) -> bool {
        self.push(completions.drain(..).map(Item::Completion), None)
    }

    fn notice(&self, notice: Notice) {
        self.push([Item::Notice(notice)].into_iter(), None);
    }

    fn watch(&self, watch: Watch) {
        self.push([].into_iter(), Some(watch));
    }
}

#[cfg(test)]
mod tests {
    use super::{Completion, Item, Notice, Reply, TURN_TEXT_BYTES, Waiting};

    fn waiting(count: usize) -> Waiting {
        let mut waiting = Waiting::default();
        add(&mut waiting, count);
        waiting.announced = true;
        waiting
    }

    fn add(waiting: &mut Waiting, count: usize) {
        waiting
            .items
            .extend((0..count).map(|_| Item::Notice(Notice::Ready)));
    }

    #[test]
    fn half_goes_first_where_nothing_else_is_asked() {
        let mut waiting = waiting(64);
        assert_eq!(waiting.take(512, 64).len(), 32);
        assert!(waiting.announced);
        // Independent of the number that have arrived meanwhile.
        add(&mut waiting, 100);
        assert_eq!(waiting.take(512, 132).len(), 132);
        assert!(!waiting.announced);
    }

    #[test]
    fn all_go_at_once_where_redis_has_more_to_do() {
        let mut waiting = waiting(64);
        assert_eq!(waiting.take(512, 65).len(), 64);
        assert!(!waiting.announced);
    }

    #[test]
    fn large_answers_are_spread_over_turns() {
        let mut waiting = Waiting::default();
        let text = || Reply::Text(vec![b'x'; TURN_TEXT_BYTES / 2]);
        for id in 0..5 {
            let outcome = Ok(text());
            let item = Item::Completion(Completion { id, outcome });
            waiting.bytes += item.bytes();
            waiting.items.push_back(item);
        }
        let turns: Vec<_> = (0..3).map(|_| waiting.take(512, 9).len()).collect();
        assert_eq!(turns, [2, 2, 1]);
        assert_eq!(waiting.bytes, 0);
    }

    #[test]
    fn few_are_not_divided_and_no_turn_takes_more_than_there_is_room_for() {
        assert_eq!(waiting(1).take(512, 1).len(), 1);
        assert_eq!(waiting(2).take(512, 2).len(), 2);
        let mut many = waiting(5);
        assert_eq!(many.take(2, 9).len(), 2);
        assert_eq!(many.take(2, 9).len(), 2);
        assert_eq!(many.take(2, 9).len(), 1);
        assert!(!many.announced);
        assert_eq!(many.take(2, 9).len(), 0);
    }
}
