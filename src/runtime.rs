//! The one Tokio runtime of the process, on a thread of its own. It is never torn down: stores of
//! worker threads come and go above it, and process exit ends it with everything else.

use std::{future::Future, sync::OnceLock, thread};

use tokio::runtime::{Builder, EnterGuard, Handle};

use crate::error::{Error, ErrorCode};

static HANDLE: OnceLock<Result<Handle, String>> = OnceLock::new();

/// Runs `task` on the runtime, which the first call starts.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    match HANDLE.get_or_init(|| start().map_err(|error| error.to_string())) {
        Ok(handle) => {
            handle.spawn(task);
            Ok(())
        }
        Err(error) => Err(Error::new(
            ErrorCode::Options,
            format!("The I/O thread could not be started: {error}."),
        )),
    }
}

/// What the calling thread makes meanwhile, such as timers, belongs to the runtime, once that runs.
pub fn enter() -> Option<EnterGuard<'static>> {
    let handle = HANDLE.get()?.as_ref().ok()?;
    Some(handle.enter())
}

/// One thread serves every store: the work per command is a fraction of what JavaScript and Redis
/// spend on it, and a second thread would take a core from them.
fn start() -> std::io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("redis-store-io".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}
