//! A panic is a bug of this package. It fails the affected requests and prints nothing: its message may quote
//! data, and standard error belongs to the application.

use std::{
    panic,
    sync::{Mutex, Once, PoisonError},
};

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Stores the location of a panic instead of printing it. The hook affects this library only: other native
/// modules have their own standard library.
pub fn keep_silent() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string);
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = place;
        }));
    });
}

/// The location of the last panic.
pub fn last() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
