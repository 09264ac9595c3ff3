//! The roots that Node trusts, which only JavaScript can read.

use napi_derive::napi;

use crate::connection::roots;

/// Takes the roots of Node, in PEM. Only the first call of a process counts.
#[napi(catch_unwind)]
pub fn give_roots(certificates: Vec<String>) {
    roots::give(certificates);
}

/// Whether `give_roots` has not been called yet.
#[napi(catch_unwind)]
pub fn needs_roots() -> bool {
    !roots::are_given()
}
