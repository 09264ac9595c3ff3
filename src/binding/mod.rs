//! The boundary to JavaScript, and the only place that names Node-API. Bytes go in, answers come
//! out, nothing is decided here.

mod credentials;
mod delivery;
mod options;
mod panics;
pub mod roots;
pub mod submission;
#[cfg(unix)]
mod watcher;

#[cfg(unix)]
use std::rc::Rc;
use std::{sync::Arc, time::Duration};

use napi::bindgen_prelude::{Array, Env, Float64ArraySlice, Function, Utf16String};
use napi_derive::napi;

use crate::{
    config::Credentials,
    engine::Engine,
    error::{Error, ErrorCode},
};
use credentials::Questions;
use delivery::Delivery;
use options::Settings;

/// The native half of a store. The JavaScript half, `lib/batch.js`, is its only caller.
#[napi]
pub struct RedisStore {
    engine: Arc<Engine>,
    #[cfg(unix)]
    caller: Rc<watcher::Caller>,
    delivery: Arc<Delivery>,
    questions: Option<Arc<Questions>>,
    command_timeout: Duration,
}

#[napi]
impl RedisStore {
    /// Starts a store, which connects at once. `wake` is called without arguments, on the thread
    /// of the event loop, when answers wait for [`RedisStore::drain`]; once for however many.
    /// `ask`, if it is given, is called with a number at every connect, for credentials that
    /// [`RedisStore::answer`] brings.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: &Env,
        settings: Settings,
        wake: Function<'_, (), ()>,
        ask: Option<Function<'_, u32, ()>>,
    ) -> napi::Result<Self> {
        panics::keep_silent();
        let questions = ask
            .map(|ask| Questions::new(&ask).map(Arc::new))
            .transpose()?;
        let mut config = settings.into_config(questions.clone().map(|questions| questions as _));
        #[cfg(unix)]
        let caller = watcher::Caller::new(env, &wake)?;
        #[cfg(unix)]
        {
            config.watched &= watcher::is_possible();
        }
        #[cfg(not(unix))]
        {
            let _ = env;
            config.watched = false;
        }
        let command_timeout = config.command_timeout;
        let delivery = Arc::new(Delivery::new(&wake)?);
        let engine = Engine::start(config, Arc::clone(&delivery) as _)
            .map_err(|error| napi::Error::from_reason(error.to_string()))?;
        Ok(Self {
            engine: Arc::new(engine),
            #[cfg(unix)]
            caller,
            delivery,
            questions,
            command_timeout,
        })
    }

    /// Answers the question `number` for credentials; without a password but with a `failure`,
    /// there are none.
    #[napi(catch_unwind)]
    pub fn answer(
        &self,
        number: u32,
        username: Option<String>,
        password: Option<String>,
        failure: Option<String>,
    ) {
        let Some(questions) = &self.questions else {
            return;
        };
        let answer = match failure {
            None => Ok(Credentials { username, password }),
            Some(failure) => Err(Error::new(
                ErrorCode::Auth,
                "The function of the option \"credentials\" gave none; see the cause.",
            )
            .caused_by(failure)),
        };
        questions.answer(number, answer);
    }

    /// Takes `count` requests, which the first `used` numbers of `rows` describe; see [`submission`]
    /// for the shape of both.
    #[napi(catch_unwind)]
    pub fn submit(&self, count: u32, used: u32, rows: &[f64], text: Utf16String) {
        let rows = rows[..rows.len().min(used as usize)].to_vec();
        self.engine.submit(
            count as usize,
            text.len(),
            Box::new(move || submission::decode(&rows, &text)),
            self.command_timeout,
        );
    }

    /// Moves answers out, as many as `rows` has room for; see [`delivery`] for its shape. Returns
    /// the texts that they refer to, in order. `pending` is how many requests have no answer yet.
    #[napi(catch_unwind)]
    pub fn drain<'env>(
        &self,
        env: &'env Env,
        rows: Float64ArraySlice<'_>,
        pending: u32,
    ) -> napi::Result<Array<'env>> {
        let (texts, roomy) = self.delivery.drain(env, rows, pending as usize)?;
        #[cfg(unix)]
        for watch in self.delivery.watches() {
            watcher::start(&self.caller, &self.delivery, &self.engine, &watch);
        }
        if roomy {
            self.engine.resume();
        }
        Ok(texts)
    }

    /// What was counted so far; see [`Stats::numbers`](crate::engine::Stats::numbers).
    #[napi(catch_unwind)]
    pub fn stats(&self) -> Vec<f64> {
        self.engine.stats().numbers()
    }

    /// Answers what is pending, closes the connection and then answers `id`.
    #[napi(catch_unwind)]
    pub fn close(&self, id: u32) {
        self.engine.close(id);
    }
}

/// The codes of errors, by the numbers that answers carry.
#[napi]
pub fn error_codes() -> Vec<&'static str> {
    ErrorCode::ALL.iter().map(|code| code.name()).collect()
}
