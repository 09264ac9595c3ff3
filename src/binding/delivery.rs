//! Answers on their way out: collected here, announced by one call however many they are, and
//! fetched by JavaScript when it has the time.
//!
//! A row is `[id, kind, number]`. `kind` says what the answer is and how many texts of the returned
//! array it takes; the first number of all rows is how many answers follow.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use napi::{
    Status,
    bindgen_prelude::{Array, Env, Float64ArraySlice, Function, ToNapiValue},
    check_status, sys,
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};

use crate::{
    command::Reply,
    engine::{Completion, Sink},
    error::{Error, ErrorCode},
};

const COLUMNS: usize = 3;

const TEXT_MAX_BYTES: usize = 256 << 20;

/// Nothing is there.
const NIL: f64 = 0.0;
/// Done.
const OK: f64 = 1.0;
/// `number` is the answer.
const COUNT: f64 = 2.0;
/// The next text is the answer.
const TEXT: f64 = 3.0;
/// The next `number` texts are the answer.
const TEXTS: f64 = 4.0;
/// An error: `number` is its code, the next text its message, the one after that its cause.
const ERROR: f64 = 5.0;

type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The queue of answers, and the call that announces them.
pub struct Delivery {
    waiting: Mutex<Waiting>,
    wake: Wake,
}

#[derive(Default)]
struct Waiting {
    completions: VecDeque<Completion>,
    /// A call is on its way or being served: whoever it wakes takes these answers too.
    announced: bool,
}

impl Delivery {
    /// `wake` does not keep the event loop alive; whoever has requests pending does.
    pub fn new(wake: &Function<'_, (), ()>) -> napi::Result<Self> {
        let wake = wake.build_threadsafe_function().weak::<true>().build()?;
        Ok(Self {
            waiting: Mutex::default(),
            wake,
        })
    }

    /// Fills `rows` and returns the texts they refer to.
    #[expect(
        unsafe_code,
        reason = "the rows are written where JavaScript reads them"
    )]
    pub fn drain<'env>(
        &self,
        env: &'env Env,
        mut rows: Float64ArraySlice<'_>,
    ) -> napi::Result<Array<'env>> {
        // SAFETY: JavaScript runs on this thread only, so nobody else sees the memory until this
        // call returns, and no JavaScript runs during it.
        let rows = unsafe { rows.as_mut() };
        let Some((count, rows)) = rows.split_first_mut() else {
            return env.create_array(0);
        };
        let room = rows.len() / COLUMNS;
        let completions: Vec<Completion> = {
            // A poisoned queue is as good as before: nothing in here can panic half-way.
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let take = room.min(waiting.completions.len());
            waiting.announced = waiting.completions.len() > take;
            waiting.completions.drain(..take).collect()
        };
        *count = completions.len() as f64;
        let mut texts = Vec::with_capacity(completions.len());
        for (row, completion) in rows.chunks_exact_mut(COLUMNS).zip(completions) {
            let (kind, number) = encode(completion.outcome, &mut texts);
            row.copy_from_slice(&[completion.id.into(), kind, number]);
        }
        Array::from_vec(env, texts)
    }
}

fn encode(outcome: Result<Reply, Error>, texts: &mut Vec<Option<Text>>) -> (f64, f64) {
    match outcome.and_then(presentable) {
        Ok(Reply::Nil) => (NIL, 0.0),
        Ok(Reply::Ok | Reply::Page { .. }) => (OK, 0.0),
        Ok(Reply::Count(count)) => (COUNT, count as f64),
        Ok(Reply::Text(text)) => {
            texts.push(Some(Text(text)));
            (TEXT, 0.0)
        }
        Ok(Reply::Texts(values)) => {
            let count = values.len();
            texts.extend(values.into_iter().map(|value| value.map(Text)));
            (TEXTS, count as f64)
        }
        Err(error) => {
            texts.push(Some(Text(error.message.into_bytes())));
            texts.push(error.cause.map(|cause| Text(cause.into_bytes())));
            let code = ErrorCode::ALL.iter().position(|code| *code == error.code);
            (ERROR, code.unwrap_or_default() as f64)
        }
    }
}

/// V8 has no string for more than 512 MB, and an answer that cannot be made would take those beside
/// it along.
fn presentable(reply: Reply) -> Result<Reply, Error> {
    let largest = match &reply {
        Reply::Text(text) => text.len(),
        Reply::Texts(texts) => texts.iter().flatten().map(Vec::len).max().unwrap_or(0),
        _ => 0,
    };
    if largest <= TEXT_MAX_BYTES {
        return Ok(reply);
    }
    Err(Error::new(
        ErrorCode::Decode,
        format!(
            "Redis answered with {largest} bytes, which is more than a string may hold ({TEXT_MAX_BYTES}); check what is stored under these keys."
        ),
    ))
}

impl Sink for Delivery {
    fn deliver(&self, completions: Vec<Completion>) {
        let announced = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.completions.extend(completions);
            std::mem::replace(&mut waiting.announced, true)
        };
        if !announced {
            // Fails only when the environment is gone, and with it everybody who waits.
            self.wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}

/// Bytes that become a JavaScript string: latin1 for ASCII, which V8 copies without looking.
struct Text(Vec<u8>);

#[expect(
    unsafe_code,
    reason = "napi has no safe way to a string without checking it as UTF-8 first"
)]
impl ToNapiValue for Text {
    unsafe fn to_napi_value(env: sys::napi_env, text: Self) -> napi::Result<sys::napi_value> {
        let bytes = text.0;
        let mut value = std::ptr::null_mut();
        let length = bytes.len() as isize;
        // SAFETY: `env` is the live environment this is called in, and the bytes are copied before
        // the call returns. Both functions take any bytes: latin1 all of them, UTF-8 replaces what
        // is malformed.
        let status = unsafe {
            if bytes.is_ascii() {
                sys::napi_create_string_latin1(env, bytes.as_ptr().cast(), length, &mut value)
            } else {
                sys::napi_create_string_utf8(env, bytes.as_ptr().cast(), length, &mut value)
            }
        };
        check_status!(status, "A string could not be created")?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_no_string_can_hold_is_an_error() {
        let mut texts = Vec::new();
        let fits = encode(Ok(Reply::Text(vec![b'x'; 10])), &mut texts);
        assert_eq!((fits.0, texts.len()), (TEXT, 1));
        for reply in [
            Reply::Text(vec![0; TEXT_MAX_BYTES + 1]),
            Reply::Texts(vec![None, Some(vec![0; TEXT_MAX_BYTES + 1])]),
        ] {
            let (kind, code) = encode(Ok(reply), &mut Vec::new());
            assert_eq!(
                (kind, ErrorCode::ALL[code as usize]),
                (ERROR, ErrorCode::Decode)
            );
        }
    }
}
