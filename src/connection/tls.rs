//! TLS by rustls with the ring provider, trusting the system's roots unless told otherwise.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

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
                    "The TLS handshake with {endpoint} failed: {error}; check that the port speaks TLS, and the certificates."
                ),
            )
            .caused_by(cause(&error))
        })
}

/// With the code that Node gives to what is wrong with a certificate.
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

/// The configuration of a store, built with its first connection: reading the system's certificates
/// takes milliseconds, and sessions are resumed only with the same configuration.
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
        Arc::new(AcceptAny(provider))
    } else {
        let roots = roots(settings)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| option("tls.ca", &error.to_string()))?
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
                .map_err(|error| option("tls.cert", &error.to_string()))
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

fn roots(settings: &Tls) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if settings.ca.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        // As Node: beside the others, and of no consequence if it cannot be read.
        if let Some(extra) = std::env::var_os("NODE_EXTRA_CA_CERTS")
            && let Ok(certificates) = CertificateDer::pem_file_iter(extra)
        {
            roots.add_parsable_certificates(certificates.flatten());
        }
    }
    for pem in &settings.ca {
        for certificate in certificates("tls.ca", pem)? {
            roots
                .add(certificate)
                .map_err(|error| option("tls.ca", &error.to_string()))?;
        }
    }
    Ok(roots)
}

fn certificates(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| option(name, "must be certificates in PEM"))?;
    if certificates.is_empty() {
        return Err(option(name, "must be certificates in PEM, found none"));
    }
    Ok(certificates)
}

fn option(name: &str, complaint: &str) -> Error {
    Error::new(
        ErrorCode::Options,
        format!("Option \"{name}\" {complaint}."),
    )
}

/// What `rejectUnauthorized: false` asks for: encryption without knowing to whom.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
