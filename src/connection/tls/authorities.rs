//! Trusted certificates. rustls trusts a root without checks. In Node, OpenSSL checks a root like every other
//! certificate of a chain, and does not accept a certificate as a root if another one has signed it. This
//! module adds these checks: a certificate that Node does not trust is not trusted here.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject},
};
use x509_cert::{
    certificate::{CertificateInner, Raw, TbsCertificateInner, Version},
    der::{
        Decode,
        asn1::ObjectIdentifier,
        oid::{AssociatedOid, db::rfc5280::*},
    },
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages},
    time::Validity,
};

/// Trusted certificates by their role.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    roots: Vec<Root>,
    /// Signed by another certificate: they complete a chain, but do not end it.
    intermediates: Vec<CertificateDer<'static>>,
    /// Self-signed: trusted as a server's own certificate.
    own: Vec<CertificateDer<'static>>,
}

#[derive(Debug)]
struct Root {
    anchor: TrustAnchor<'static>,
    validity: Validity,
    /// The limit of intermediates below it.
    path_length: Option<u8>,
}

impl Authorities {
    /// Adds the certificates of a PEM text, up to the first unreadable one, as Node does. Returns their number.
    pub(super) fn add_pem(&mut self, text: &str) -> usize {
        let certificates = read_pem(text).map_while(Result::ok);
        certificates
            .map_while(|certificate| self.add(certificate))
            .count()
    }

    /// None if it cannot be read.
    pub(super) fn add(&mut self, certificate: CertificateDer<'static>) -> Option<()> {
        let contents = contents(&certificate)?;
        if contents.subject != contents.issuer {
            self.intermediates.push(certificate);
            return Some(());
        }
        if may_issue(&contents).is_some_and(|may| may) {
            let constraints = extension::<BasicConstraints>(&contents)?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate).ok()?;
            self.roots.push(Root {
                anchor: anchor.to_owned(),
                validity: contents.validity,
                path_length: constraints.and_then(|found| found.path_len_constraint),
            });
        }
        if is_for_servers(&contents).is_some_and(|is| is) {
            self.own.push(certificate);
        }
        Some(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.own.is_empty()
    }

    /// The roots that can end a chain with `intermediates` now, and those that are not valid now.
    pub(super) fn roots(
        &self,
        intermediates: usize,
        now: UnixTime,
    ) -> (RootCertStore, RootCertStore) {
        let (mut valid, mut others) = (RootCertStore::empty(), RootCertStore::empty());
        for root in &self.roots {
            let fits = root
                .path_length
                .is_none_or(|length| intermediates <= usize::from(length));
            if fits {
                let store = match root.is_valid(now) {
                    true => &mut valid,
                    false => &mut others,
                };
                store.roots.push(root.anchor.clone());
            }
        }
        (valid, others)
    }

    /// The certificates between a server's and a root: those that the server sent and the configured ones, if
    /// they may issue others.
    pub(super) fn intermediates<'a>(
        &'a self,
        sent: &'a [CertificateDer<'a>],
    ) -> Vec<CertificateDer<'a>> {
        let all = sent.iter().chain(&self.intermediates);
        let issuing = all.filter(|certificate| {
            contents(certificate).is_some_and(|contents| {
                contents.subject != contents.issuer && may_issue(&contents) == Some(true)
            })
        });
        issuing.cloned().collect()
    }

    /// Whether this certificate is trusted as a server's own, without a chain.
    pub(super) fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.own.iter().any(|own| own == certificate)
    }
}

impl Root {
    fn is_valid(&self, now: UnixTime) -> bool {
        let Validity {
            not_before,
            not_after,
        } = self.validity;
        let seconds = now.as_secs();
        not_before.to_unix_duration().as_secs() <= seconds
            && seconds <= not_after.to_unix_duration().as_secs()
    }
}

/// Certificates in PEM, under every label that OpenSSL accepts.
pub(super) fn read_pem(
    text: &str,
) -> impl Iterator<Item = Result<CertificateDer<'static>, rustls::pki_types::pem::Error>> {
    let text = text
        .replace("TRUSTED CERTIFICATE-----", "CERTIFICATE-----")
        .replace("X509 CERTIFICATE-----", "CERTIFICATE-----");
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    certificates.into_iter()
}

/// Whether the key usage of this certificate permits a server. rustls decides on unreadable ones.
pub(super) fn may_serve(certificate: &CertificateDer<'_>) -> bool {
    contents(certificate).is_none_or(|contents| {
        let usage = extension::<KeyUsage>(&contents);
        usage.is_some_and(|usage| usage.is_none_or(is_for_tls))
    })
}

fn is_for_tls(KeyUsage(usages): KeyUsage) -> bool {
    let needed = KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement;
    !usages.is_disjoint(needed)
}

type Contents = TbsCertificateInner<Raw>;

fn contents(certificate: &CertificateDer<'_>) -> Option<Contents> {
    let read = CertificateInner::<Raw>::from_der(certificate).ok()?;
    Some(read.tbs_certificate)
}

/// An extension, if there is one. None if it cannot be read.
fn extension<'a, T: Decode<'a> + AssociatedOid>(contents: &'a Contents) -> Option<Option<T>> {
    let found = contents.get::<T>().ok()?;
    Some(found.map(|(_critical, extension)| extension))
}

/// Whether this certificate may issue others, by OpenSSL's `X509_check_ca` and its purpose "sslserver". None if
/// it cannot be determined.
fn may_issue(contents: &Contents) -> Option<bool> {
    let usage = extension::<KeyUsage>(contents)?;
    let is_authority = match extension::<BasicConstraints>(contents)? {
        Some(constraints) => constraints.ca,
        None => contents.version == Version::V1 || usage.is_some(),
    };
    let signs = usage.is_none_or(|usage| usage.key_cert_sign());
    let knows = |id| CRITICAL.contains(&id);
    let mut extensions = contents.extensions.iter().flatten();
    let is_known = extensions.all(|extension| !extension.critical || knows(extension.extn_id));
    Some(is_authority && signs && is_known && is_for_servers(contents)?)
}

fn is_for_servers(contents: &Contents) -> Option<bool> {
    let usage = extension::<ExtendedKeyUsage>(contents)?;
    Some(usage.is_none_or(|ExtendedKeyUsage(ids)| ids.contains(&ID_KP_SERVER_AUTH)))
}

/// Extensions that OpenSSL and either rustls or this module process.
const CRITICAL: [ObjectIdentifier; 6] = [
    ID_CE_BASIC_CONSTRAINTS,
    ID_CE_KEY_USAGE,
    ID_CE_EXT_KEY_USAGE,
    ID_CE_NAME_CONSTRAINTS,
    ID_CE_SUBJECT_ALT_NAME,
    ID_CE_CERTIFICATE_POLICIES,
];
