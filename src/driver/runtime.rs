//! The one Tokio runtime of the process, on a thread of its own. It is never shut down: stores of worker
//! threads come and go, and the exit of the process ends it.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread,
};

use ::tokio::runtime::{Builder, Handle};

use crate::error::{Error, ErrorCode};

/// A lock, so that two stores that start at the same time create one thread.
static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);

/// The runtime, started if necessary. After a failure (no free descriptor or thread) the next call tries again.
pub(super) fn handle() -> Result<Handle, Error> {
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = &*handle {
        return Ok(running.clone());
    }
    let started = start().map_err(|error| {
        Error::new(
            ErrorCode::Connect,
            format!(
                "The I/O thread of the store could not be started: {error}; raise the limits of this process (open files, threads)."
            ),
        )
        .caused_by(&error)
    })?;
    Ok(handle.insert(started).clone())
}

/// One thread serves all stores: its work per command is a fraction of that of JavaScript and Redis, and a
/// second thread would compete with them for a core.
fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("redis-store-io".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}
