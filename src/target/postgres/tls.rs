//! TLS to the server: which certificates are trusted, and what is verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

/// The extent of certificate verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// Issuer, dates, and host name.
    Full,
    /// Issuer and dates.
    Authority,
    Nothing,
}

/// How the server and this client authenticate themselves.
pub(super) struct TlsSpec {
    pub(super) verify: Verify,
    /// The trusted certificates; None for this machine's.
    pub(super) roots: Option<PathBuf>,
    /// The client's certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl TlsSpec {
    /// Returns a connector for TLS sessions.
    ///
    /// # Errors
    /// If a file cannot be read or holds no certificates.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::try_new(self, provider.clone())?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("sslkey", key, error))?;
                config
                    .with_client_auth_cert(certificates("sslcert", certificate)?, secret)
                    .map_err(|error| unreadable("sslkey", key, error))?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }
}

fn unreadable(parameter: &str, path: &Path, error: impl std::fmt::Display) -> Error {
    Error::pipeline(format!("cannot use the target's `{parameter}={}`: {error}", path.display()))
        .hint("use a PEM file; its path is relative to the pipeline file's folder")
}

fn certificates(parameter: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| unreadable(parameter, path, error))?;
    if found.is_empty() { Err(unreadable(parameter, path, "no certificate in it")) } else { Ok(found) }
}

/// A verifier that checks a server's certificate as far as configured.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    /// The certificates of `sslrootcert`, in case the server's own certificate is among them.
    given: Vec<CertificateDer<'static>>,
    /// None if nothing is verified.
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn try_new(spec: &TlsSpec, provider: Arc<CryptoProvider>) -> Result<Self> {
        if spec.verify == Verify::Nothing {
            return Ok(Self { verify: spec.verify, given: Vec::new(), inner: None, provider });
        }
        let mut roots = RootCertStore::empty();
        let given = match &spec.roots {
            Some(path) => certificates("sslrootcert", path)?,
            None => Vec::new(),
        };
        if let Some(path) = &spec.roots {
            for certificate in &given {
                roots.add(certificate.clone()).map_err(|error| unreadable("sslrootcert", path, error))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(Error::pipeline("this machine has no trusted certificates to verify the server's certificate")
                .hint("install `ca-certificates`, or write `sslrootcert=FILE` into the target's URL"));
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let inner = inner.build().map_err(Error::internal)?;
        Ok(Self { verify: spec.verify, given, inner: Some(inner), provider })
    }

    /// Returns whether the only error is that a given certificate is its own authority, as `openssl req -x509` creates. Its dates were
    /// verified before.
    fn is_given(&self, certificate: &CertificateDer<'_>, error: &rustls::Error) -> bool {
        matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.0.to_string().contains("CaUsedAsEndEntity"))
            && self.given.contains(certificate)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        let of_other_host = |error: &rustls::Error| {
            use CertificateError::{NotValidForName, NotValidForNameContext};
            matches!(error, rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
        };
        match inner.verify_server_cert(certificate, intermediates, server, ocsp_response, now) {
            Err(error) if self.is_given(certificate, &error) => {
                if self.verify == Verify::Full {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, server)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            // The name is verified last, so everything else is valid.
            Err(error) if self.verify == Verify::Authority && of_other_host(&error) => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
