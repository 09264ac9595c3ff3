//! TLS by rustls with the ring provider, trusting the roots of Node and of the system unless the settings
//! name others.

mod authorities;
pub mod roots;
mod verifiers;

use std::{
    io,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, ClientConfig,
    client::danger::ServerCertVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::{
    authorities::{Authorities, read_pem},
    verifiers::{AcceptAny, ByAuthorities},
};
use super::stream::Wire;
use crate::{
    config::{Endpoint, Tls},
    error::{Cause, Error, ErrorCode},
};

/// Completes a TLS handshake with `host` over `tcp`.
pub async fn handshake(
    settings: &Tls,
    host: &str,
    endpoint: &Endpoint,
    tcp: Wire,
) -> Result<TlsStream<Wire>, Error> {
    let name = settings.servername.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| {
        option(
            "tls.servername",
            &format!("must be a host name or an address, got {name:?}"),
        )
    })?;
    TlsConnector::from(client_config(settings).await?)
        .connect(name, tcp)
        .await
        .map_err(|error| {
            Error::new(
                ErrorCode::Connect,
                format!(
                    "The TLS handshake with {endpoint} failed: {error}; {}.",
                    remedy(&error)
                ),
            )
            .caused_by(cause(&error))
        })
}

/// The cause, with Node's code for a certificate error.
fn cause(error: &io::Error) -> Cause {
    let Some(rustls::Error::InvalidCertificate(wrong)) =
        error.get_ref().and_then(|inner| inner.downcast_ref())
    else {
        return error.into();
    };
    let code = match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "CERT_HAS_EXPIRED",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "CERT_NOT_YET_VALID"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "ERR_TLS_CERT_ALTNAME_INVALID"
        }
        CertificateError::UnknownIssuer => "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        _ => "CERT_REJECTED",
    };
    Cause::coded(code, error)
}

/// The configuration of a store, built once: reading the system's certificates takes milliseconds, and TLS
/// sessions are resumed only with the same configuration.
async fn client_config(settings: &Tls) -> Result<Arc<ClientConfig>, Error> {
    if let Some(built) = settings.built.get() {
        return built.clone();
    }
    let settings = settings.clone();
    let build = move || {
        let built = settings
            .built
            .get_or_init(|| build(&settings).map(Arc::new));
        built.clone()
    };
    let built = tokio::task::spawn_blocking(build).await;
    built.unwrap_or_else(|_| Err(option("tls", "could not be read")))
}

fn build(settings: &Tls) -> Result<ClientConfig, Error> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| option("tls", &error.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = if settings.accept_invalid {
        Arc::new(AcceptAny)
    } else {
        let trusted = match settings.ca.is_empty() {
            true => roots::defaults(),
            false => Arc::new(authorities(settings)?),
        };
        Arc::new(ByAuthorities { trusted, provider })
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates("tls.cert", cert)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|_| option("tls.key", "must be an unencrypted private key in PEM"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| {
                    let advice = "use a key of RSA, P-256, P-384 or Ed25519 that belongs to it, or pass a client (\"client\")";
                    option("tls.cert", &format!("cannot be used ({error}); {advice}"))
                })
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(option(
            "tls",
            "needs cert and key together, got one of them",
        )),
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn authorities(settings: &Tls) -> Result<Authorities, Error> {
    let mut trusted = Authorities::default();
    let count: usize = settings.ca.iter().map(|pem| trusted.add_pem(pem)).sum();
    if count == 0 {
        return Err(option(
            "tls.ca",
            "must be certificates in PEM, found none that can be read",
        ));
    }
    if trusted.is_empty() {
        return Err(option(
            "tls.ca",
            "must have a certificate that is signed by itself: an authority's that may sign others, or the server's own; add the root",
        ));
    }
    Ok(trusted)
}

fn certificates(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = read_pem(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| option(name, "must be certificates in PEM"))?;
    if certificates.is_empty() {
        return Err(option(name, "must be certificates in PEM, found none"));
    }
    Ok(certificates)
}

/// The remedy for a failed handshake.
fn remedy(error: &io::Error) -> &'static str {
    let error = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    match error {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::UnknownIssuer => {
                "pass the certificate of the authority that signed the server's in PEM (\"tls.ca\")"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "set \"tls.servername\" to a subject alternative name of the server's certificate (a common name does not count)"
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "check the dates of the server's certificate, and the clock"
            }
            CertificateError::Other(other)
                if matches!(
                    other.0.downcast_ref(),
                    Some(webpki::Error::UnsupportedCertVersion)
                ) =>
            {
                "issue a certificate of X.509 version 3 to the server, or pass a client (\"client\")"
            }
            _ => {
                "check the server's certificate (P-521 keys and critical policies are not supported), or pass a client (\"client\")"
            }
        },
        Some(rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_)) => {
            "check that the server offers TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20, accepts the client's certificate, and has no P-521 key; or pass a client (\"client\")"
        }
        _ => "check that the port uses TLS, and the certificates",
    }
}

fn option(name: &str, complaint: &str) -> Error {
    Error::new(
        ErrorCode::Options,
        format!("Option \"{name}\" {complaint}."),
    )
}
