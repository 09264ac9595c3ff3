//! A panic is a bug of ours. It fails the requests it concerns, and prints nothing: its message may
//! quote what it stumbled over, and standard error belongs to the application.

use std::{
    panic,
    sync::{Mutex, Once, PoisonError},
};

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the place of a panic instead of printing it. The hook is this library's own: Node and
/// other native modules have theirs.
pub fn keep_silent() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string);
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = place;
        }));
    });
}

/// Where the last panic happened.
pub fn last() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
