//! Credentials that JavaScript provides at every connect: a numbered question is sent to JavaScript, and the
//! answer carries the same number.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt};
use napi::{
    Status,
    bindgen_prelude::Function,
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use tokio::sync::oneshot;

use crate::{
    config::{Credentials, CredentialsSource},
    error::{Error, ErrorCode},
};

type Ask = ThreadsafeFunction<u32, (), u32, Status, false, true>;
type Answer = Result<Credentials, Error>;

/// The questions that JavaScript has not answered.
pub struct Questions {
    ask: Ask,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    next: u32,
    answers: HashMap<u32, oneshot::Sender<Answer>>,
}

impl Questions {
    /// `ask` is called with the number of a question.
    pub fn new(ask: &Function<'_, u32, ()>) -> napi::Result<Self> {
        Ok(Self {
            ask: ask.build_threadsafe_function().weak::<true>().build()?,
            open: Arc::default(),
        })
    }

    /// Answers the question `number`.
    pub fn answer(&self, number: u32, answer: Answer) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = open.answers.remove(&number) {
            let _ = waiting.send(answer);
        }
    }
}

impl CredentialsSource for Questions {
    fn ask(&self) -> BoxFuture<'static, Answer> {
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Questions of attempts that have timed out need no answer.
            open.answers.retain(|_, waiting| !waiting.is_closed());
            open.next = open.next.wrapping_add(1);
            let number = open.next;
            open.answers.insert(number, sender);
            number
        };
        self.ask
            .call(number, ThreadsafeFunctionCallMode::NonBlocking);
        let gone = || {
            Error::new(
                ErrorCode::Auth,
                "The store was closed while it waited for credentials.",
            )
        };
        answer
            .map(move |answer| answer.unwrap_or_else(|_| Err(gone())))
            .boxed()
    }
}
