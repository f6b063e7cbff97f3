//! The certificates that are trusted instead of the built-in ones: those of a company's proxy, for example.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::HubError;

/// Certificates out of a file.
#[derive(Clone)]
pub struct Roots(Arc<Vec<Certificate<'static>>>);

impl Roots {
    /// The certificates of a PEM file that `variable` names. As for OpenSSL and `requests` they are all that is trusted.
    pub fn read(variable: &str, path: &Path) -> Result<Roots, HubError> {
        let refused =
            |what: String| HubError::BadRoots { variable: variable.to_owned(), path: path.to_path_buf(), what };
        let text = std::fs::read(path).map_err(|e| refused(e.to_string()))?;
        let mut found = Vec::new();
        for item in parse_pem(&text) {
            if let PemItem::Certificate(certificate) = item.map_err(|e| refused(e.to_string()))? {
                found.push(certificate);
            }
        }
        if found.is_empty() {
            return Err(refused("it holds no certificate in PEM form".to_owned()));
        }
        Ok(Roots(Arc::new(found)))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn to_ureq(&self) -> RootCerts {
        RootCerts::Specific(Arc::clone(&self.0))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.count())
    }
}
