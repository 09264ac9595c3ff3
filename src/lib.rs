//! The native half of connect-redis-native, a session store for Express.
//!
//! # The life of a `get`
//!
//! 1. `lib/redis-store.js` makes the key and adds a request to the batch of this turn of the event loop.
//! 2. At the end of the turn, `lib/native/batch.js` hands the batch over in one call:
//!    [`binding::RedisStore::submit`], which [`binding::submission`] decodes.
//! 3. [`driver::Store::submit`] gives the requests to [`core::Core::submit`], which finds the node of each
//!    ([`core`]'s router), queues it, and encodes its [`command`] into the node's output.
//! 4. The driver writes that output to the socket, on the same thread.
//! 5. When the reply comes, the event loop calls [`driver::Store::read`]: the driver reads into the node's
//!    [`connection::reader`], and [`core::Core::on_read`] cuts the bytes into replies and answers each
//!    request.
//! 6. `binding::delivery` collects the answers of the turn and calls JavaScript once for all of them.
//! 7. `lib/native/batch.js` fetches them and settles each in its caller's async context, where
//!    `lib/redis-store.js` parses the session and calls back.
//!
//! Opening a connection is [`connection::open`]; deadlines, retries and all work that the event loop cannot do
//! itself run on the driver's I/O thread.
//!
//! # Modules, in reading order
//!
//! - [`config`]: settings, with named defaults and units.
//! - [`error`]: the closed list of errors.
//! - [`command`]: the commands and their replies; one row each.
//! - [`connection`]: the only module that knows the topology of Redis.
//! - [`conflict`]: writes that do not undo concurrent ones.
//! - [`marker`]: markers, by which a destroyed session stays destroyed.
//! - [`users`]: the sessions of a user, listed and ended.
//! - [`sealing`]: encrypted and compressed sessions.
//! - [`keyspace`]: operations on all keys, as steps of single commands.
//! - [`core`]: a store as a state machine without I/O. `tests/simulation.rs` proves it.
//! - [`driver`]: sockets, time and threads for it.
//! - [`binding`]: the boundary to JavaScript.
//! - [`mutation`]: mistakes that the simulation must find.

pub mod binding;
pub mod command;
pub mod config;
pub mod conflict;
pub mod connection;
pub mod core;
pub mod driver;
pub mod error;
pub mod keyspace;
pub mod marker;
pub mod mutation;
pub mod sealing;
pub mod users;
