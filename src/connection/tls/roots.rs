//! The roots that are trusted where the settings name none: Node's own and the system's, parsed once a
//! process.

use std::sync::{Arc, OnceLock};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

static GIVEN: OnceLock<Vec<String>> = OnceLock::new();
static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();

/// Takes the roots of Node, as PEM: images without the system's certificates have no others. The first
/// ones that are given count.
pub fn give(certificates: Vec<String>) {
    let _ = GIVEN.set(certificates);
}

/// Whether [`give`] was called.
pub fn are_given() -> bool {
    GIVEN.get().is_some()
}

/// Every root that is trusted by default.
pub(super) fn defaults() -> Arc<RootCertStore> {
    Arc::clone(ROOTS.get_or_init(|| Arc::new(load())))
}

fn load() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for text in GIVEN.get().into_iter().flatten() {
        add(&mut roots, CertificateDer::pem_slice_iter(text.as_bytes()));
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    // As in Node: added to the others, and ignored if it cannot be read.
    if let Some(extra) = std::env::var_os("NODE_EXTRA_CA_CERTS")
        && let Ok(certificates) = CertificateDer::pem_file_iter(extra)
    {
        add(&mut roots, certificates);
    }
    roots
}

fn add<E>(
    roots: &mut RootCertStore,
    certificates: impl Iterator<Item = Result<CertificateDer<'static>, E>>,
) {
    roots.add_parsable_certificates(certificates.flatten());
}
