//! The roots that are trusted if the settings name none: Node's own and the system's, parsed once per process.

use std::sync::{Arc, OnceLock};

use super::authorities::Authorities;

static GIVEN: OnceLock<Vec<String>> = OnceLock::new();
static ROOTS: OnceLock<Arc<Authorities>> = OnceLock::new();

/// Takes the roots of Node, as PEM: images without the system's certificates have no others. Only the first
/// call counts.
pub fn give(certificates: Vec<String>) {
    let _ = GIVEN.set(certificates);
}

/// Whether [`give`] was called.
pub fn are_given() -> bool {
    GIVEN.get().is_some()
}

/// Everything that is trusted by default.
pub(super) fn defaults() -> Arc<Authorities> {
    Arc::clone(ROOTS.get_or_init(|| Arc::new(load())))
}

fn load() -> Authorities {
    let mut trusted = Authorities::default();
    for text in GIVEN.get().into_iter().flatten() {
        trusted.add_pem(text);
    }
    for certificate in rustls_native_certs::load_native_certs().certs {
        // Ignored if it cannot be read.
        let _ = trusted.add(certificate);
    }
    // As in Node: added to the others, and ignored if it cannot be read.
    if let Some(extra) = std::env::var_os("NODE_EXTRA_CA_CERTS")
        && let Ok(text) = std::fs::read_to_string(extra)
    {
        trusted.add_pem(&text);
    }
    trusted
}
