//! The native half of connect-redis-native, a session store for Express.
//!
//! # The life of a `get`
//!
//! 1. `lib/redis-store.js` makes the key and puts a request into the batch of the event loop's turn.
//! 2. With the end of the turn, `lib/native/batch.js` hands the batch over in one call: [`binding`].
//! 3. [`engine`] queues it and puts what waits on the wire, without waiting for replies.
//! 4. [`connection`] encodes the [`command`]s of a turn into one write and cuts what comes back into
//!    replies. Under Node, except on Windows, steps 3 to 5 run on the event loop's thread where they
//!    can.
//! 5. [`engine`] collects the answers of its turn; [`binding`] announces them by one call.
//! 6. `lib/native/batch.js` fetches them and settles each in its caller's async context, where
//!    `lib/redis-store.js` parses the session and calls back.
//!
//! # Modules, in reading order
//!
//! - [`config`]: settings, with named defaults and units.
//! - [`error`]: the closed list of errors.
//! - [`command`]: the commands and their replies.
//! - [`connection`]: the one place that knows how Redis is run.
//! - [`guard`]: writes that undo nobody else's.
//! - [`scan`]: questions about all keys, as steps of single commands.
//! - [`engine`]: queue, deadlines, retries, circuit breaker, counts, close; a lane for each server. Knows no
//!   JavaScript.
//! - [`runtime`]: the thread that the tasks of all stores run on.
//! - [`binding`]: the boundary to JavaScript.

pub mod binding;
pub mod command;
pub mod config;
pub mod connection;
pub mod engine;
pub mod error;
pub mod guard;
pub mod runtime;
pub mod scan;
