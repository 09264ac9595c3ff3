//! The boundary to JavaScript, and the only module that uses Node-API. It converts requests and answers, and
//! makes no decisions.

mod credentials;
mod delivery;
mod options;
mod panics;
pub mod protocol;
pub mod roots;
pub mod sealing;
pub mod submission;
mod texts;
#[cfg(unix)]
mod watcher;

#[cfg(unix)]
use std::rc::Rc;
use std::{sync::Arc, time::Duration};

use napi::bindgen_prelude::{Array, Env, Float64ArraySlice, Function, Utf16String};
use napi_derive::napi;

use crate::{
    config::Credentials,
    driver::Store,
    error::{Error, ErrorCode},
};
use credentials::Questions;
use delivery::Delivery;
use options::Settings;
use sealing::{Sealers, Sealing};

/// The native half of a store. The JavaScript half, `lib/native/batch.js`, is its only caller.
#[napi]
pub struct RedisStore {
    /// None after the store is closed and JavaScript has the answer. Dropped at once instead of at a garbage
    /// collection, because tools that look for open handles would report it.
    live: Option<Live>,
    /// The counters at that time.
    counted: Vec<f64>,
}

struct Live {
    store: Arc<Store>,
    #[cfg(unix)]
    caller: Rc<watcher::Caller>,
    delivery: Arc<Delivery>,
    questions: Option<Arc<Questions>>,
    sealers: Arc<Sealers>,
    command_timeout: Duration,
    /// The request that is answered when the store has closed.
    closing: Option<u32>,
}

#[napi]
impl RedisStore {
    /// Starts a store, which connects at once. `wake` is called without arguments, on the thread
    /// of the event loop, when answers wait for [`RedisStore::drain`]: one call for all of them.
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
        let store = Store::start(config, Arc::clone(&delivery) as _);
        Ok(Self {
            live: Some(Live {
                store: Arc::new(store),
                #[cfg(unix)]
                caller,
                delivery,
                questions,
                sealers: Arc::default(),
                command_timeout,
                closing: None,
            }),
            counted: Vec::new(),
        })
    }

    /// Answers the question `number` for credentials. `failure`, without a password, is the reason why there
    /// are none.
    #[napi(catch_unwind)]
    pub fn answer(
        &self,
        number: u32,
        username: Option<String>,
        password: Option<String>,
        failure: Option<String>,
    ) {
        let Some(questions) = self.live.as_ref().and_then(|live| live.questions.as_ref()) else {
            return;
        };
        let answer = match failure {
            None => Ok(Credentials { username, password }),
            Some(failure) => Err(Error::new(
                ErrorCode::Auth,
                "The function of the option \"credentials\" returned no credentials; see the cause.",
            )
            .caused_by(failure)),
        };
        questions.answer(number, answer);
    }

    /// The number by which requests name `sealing`. Their keys begin with so many bytes of the client; 0 once
    /// the store is closed.
    #[napi(catch_unwind)]
    pub fn add_sealing(&self, sealing: &Sealing, key_prefix_bytes: u32) -> u32 {
        match &self.live {
            Some(live) => live.sealers.add(sealing.inner(), key_prefix_bytes as usize),
            None => 0,
        }
    }

    /// Takes `count` requests, which the first `used` numbers of `rows` describe; see [`submission`]
    /// for the shape of both.
    #[napi(catch_unwind)]
    pub fn submit(&self, count: u32, used: u32, rows: &[f64], text: Utf16String) {
        let Some(live) = &self.live else { return };
        let rows = rows[..rows.len().min(used as usize)].to_vec();
        let sealers = Arc::clone(&live.sealers);
        live.store.submit(
            count as usize,
            text.len(),
            Box::new(move || submission::decode(&rows, &text, &sealers)),
            live.command_timeout,
        );
    }

    /// Moves answers out, as many as `rows` has room for; see [`delivery`] for its shape. Returns
    /// the texts that they refer to, in order. `pending` is how many requests have no answer yet.
    #[napi(catch_unwind)]
    pub fn drain<'env>(
        &mut self,
        env: &'env Env,
        rows: Float64ArraySlice<'_>,
        pending: u32,
    ) -> napi::Result<Array<'env>> {
        let Some(live) = &self.live else {
            return env.create_array(0);
        };
        let (texts, roomy, ended) =
            live.delivery
                .drain(env, rows, pending as usize, live.closing, &live.sealers)?;
        #[cfg(unix)]
        for watch in live.delivery.watches() {
            watcher::start(&live.caller, &live.delivery, &live.store, &watch);
        }
        if roomy {
            live.store.resume();
        }
        if ended {
            self.counted = live.store.stats().numbers();
            self.live = None;
        }
        Ok(texts)
    }

    /// The counters so far; see [`Stats::numbers`](crate::core::Stats::numbers).
    #[napi(catch_unwind)]
    pub fn stats(&self) -> Vec<f64> {
        match &self.live {
            Some(live) => live.store.stats().numbers(),
            None => self.counted.clone(),
        }
    }

    /// Whether any server that holds keys is connected.
    #[napi(catch_unwind)]
    pub fn is_serving(&self) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| live.store.is_serving())
    }

    /// Answers pending requests, closes the connection and then answers `id`.
    #[napi(catch_unwind)]
    pub fn close(&mut self, id: u32) {
        if let Some(live) = &mut self.live {
            live.closing = Some(id);
            live.store.close(id);
        }
    }
}
