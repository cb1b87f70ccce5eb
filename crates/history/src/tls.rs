//! TLS to ClickHouse: whom to trust, and who to be.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::Error;
use crate::options::Tls;

/// What TLS is done with. Reads the files.
pub(crate) fn config(tls: Option<&Tls>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("tls", Path::new("-"), &error))?;
    let builder = match tls.and_then(|tls| tls.ca_file.as_deref()) {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.ca_file", path)? {
                roots.add(certificate).map_err(|error| wrong("tls.ca_file", path, &error))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_native_roots().map_err(|error| Error::Tls {
            field: "tls.ca_file",
            path: "the machine's own authorities".into(),
            reason: error.to_string(),
        })?,
    };
    match tls.and_then(|tls| tls.client_cert_file.as_deref().zip(tls.client_key_file.as_deref())) {
        Some((certificate, key)) => {
            let chain = certificates("tls.client_cert_file", certificate)?;
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("tls.client_key_file", key, &error))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| wrong("tls.client_cert_file", certificate, &error))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(field, path, &error))?;
    if found.is_empty() {
        return Err(wrong(field, path, &"it has no certificate"));
    }
    Ok(found)
}

fn wrong(field: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Tls { field, path: path.to_owned(), reason: reason.to_string() }
}
