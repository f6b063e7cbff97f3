//! Who may ask: keys, host names, origins, and whose cached prompts a request may share.

use axum::http::{HeaderMap, HeaderValue, Method, header};
use corella_infer::CacheScope;
use subtle::ConstantTimeEq;

use crate::error::ApiError;

/// The rules of a server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Keys, any of which opens it; none: open to everyone who reaches it.
    pub keys: Vec<String>,
    /// Host names under which it answers; none: any. Stops pages of other sites from reaching a server on this machine
    /// through a name of their own (DNS rebinding).
    pub hosts: Vec<String>,
    /// Origins whose pages may ask and read answers (CORS); `*`: all.
    pub origins: Vec<String>,
}

impl Access {
    /// The key of a request, if it is one of ours. Every key is compared in full, so that time tells nothing.
    fn key<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, given) = value.split_once(' ')?;
        let given = given.trim();
        let mut found = subtle::Choice::from(0);
        for key in &self.keys {
            found |= key.as_bytes().ct_eq(given.as_bytes());
        }
        (scheme.eq_ignore_ascii_case("bearer") && bool::from(found)).then_some(given)
    }

    /// 401 without a proper key, where keys are asked for.
    pub(crate) fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.keys.is_empty() || self.key(headers).is_some() { Ok(()) } else { Err(ApiError::unauthorized()) }
    }

    /// 403 under a foreign name.
    pub(crate) fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.hosts.is_empty() {
            return Ok(());
        }
        let host = headers.get(header::HOST).map(|h| h.to_str().unwrap_or_default()).ok_or_else(ApiError::no_host)?;
        let name = match host.rsplit_once(':') {
            // The colons of a bare IPv6 address are no port.
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
            _ => host,
        };
        if self.hosts.iter().any(|h| h.eq_ignore_ascii_case(name)) { Ok(()) } else { Err(ApiError::foreign_host(name)) }
    }

    /// Prompts cached for one key are found by the same key only: the time of an answer tells nobody what others asked.
    pub fn scope(&self, headers: &HeaderMap) -> CacheScope {
        self.key(headers).map_or_else(CacheScope::default, CacheScope::salted)
    }

    /// The origin to name in an answer: one of the list, never whatever was sent.
    pub fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        if self.origins.iter().any(|o| o == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let listed = self.origins.iter().any(|o| o.as_bytes() == origin.as_bytes());
        listed.then(|| origin.clone())
    }

    /// 403 to work that a page of another site wants done: its browser says where it comes from. It could not read the
    /// answer, but the work would be done. Clients that are no browsers name no origin.
    pub(crate) fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        if method != Method::POST || self.allowed_origin(headers).is_some() {
            return Ok(());
        }
        let origin = origin.to_str().unwrap_or_default();
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if is_at(origin, host) { Ok(()) } else { Err(ApiError::foreign_origin(origin)) }
    }

    /// Whether this is a browser asking beforehand.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }
}

/// Whether an origin is the site at `host`. A proxy may speak https in front of a server that does not, so the scheme only
/// says which port need not be named.
fn is_at(origin: &str, host: &str) -> bool {
    let Some((scheme, site)) = origin.split_once("://") else { return false };
    let usual = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |name: &str| name.strip_suffix(usual).unwrap_or(name).to_ascii_lowercase();
    !site.is_empty() && plain(site) == plain(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a header"))])
    }

    #[test]
    fn a_key_opens_and_nothing_else_does() {
        let access = Access { keys: vec!["first".into(), "second".into()], ..Access::default() };
        let check = |value| access.check_key(&headers(header::AUTHORIZATION, value)).is_ok();
        assert!(check("Bearer second") && check("bearer first"));
        assert!(!check("Bearer secon") && !check("Bearer ") && !check("second") && !check("Basic second"));
        assert!(access.check_key(&HeaderMap::new()).is_err());
        assert!(Access::default().check_key(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn only_the_listed_names_are_answered() {
        let access =
            Access { hosts: vec!["localhost".into(), "127.0.0.1".into(), "[::1]".into()], ..Access::default() };
        let check = |value| access.check_host(&headers(header::HOST, value)).is_ok();
        assert!(
            check("localhost:8080") && check("127.0.0.1") && check("[::1]:80") && check("[::1]") && check("LOCALHOST")
        );
        assert!(!check("evil.example:8080") && !check("localhost.evil.example") && !check(""));
        let error = access.check_host(&HeaderMap::new()).expect_err("no name");
        assert!(error.message.contains("no `Host` header"), "{}", error.message);
    }

    #[test]
    fn an_origin_is_allowed_only_if_it_is_listed() {
        let access = Access { origins: vec!["https://a.example".into()], ..Access::default() };
        assert!(access.allowed_origin(&headers(header::ORIGIN, "https://a.example")).is_some());
        assert!(access.allowed_origin(&headers(header::ORIGIN, "https://b.example")).is_none());
        assert!(Access::default().allowed_origin(&headers(header::ORIGIN, "https://a.example")).is_none());
    }

    #[test]
    fn pages_of_other_sites_get_no_work_done() {
        let access = Access { origins: vec!["https://a.example".into()], ..Access::default() };
        let check = |access: &Access, origin: &str, host: &str| {
            let mut all = headers(header::ORIGIN, origin);
            all.insert(header::HOST, HeaderValue::from_str(host).expect("a header"));
            assert!(access.check_origin(&Method::GET, &all).is_ok(), "what only reads is the browser's to guard");
            access.check_origin(&Method::POST, &all).is_ok()
        };
        for (origin, host) in [
            ("http://localhost:8080", "localhost:8080"),
            ("HTTP://LocalHost:8080", "localhost:8080"),
            ("https://corella.example", "corella.example"),
            ("https://corella.example", "corella.example:443"),
            ("http://[::1]", "[::1]:80"),
            ("https://a.example", "localhost:8080"),
        ] {
            assert!(check(&access, origin, host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("https://b.example", "localhost:8080"),
            ("http://localhost", "localhost:8080"),
            ("http://localhost:8081", "localhost:8080"),
            ("http://[::1]", "[::1]:443"),
            ("http://localhost.b.example:8080", "localhost:8080"),
            ("null", "localhost:8080"),
            ("null", "null"),
            ("", "localhost:8080"),
            ("http://", ""),
            ("chrome-extension://localhost:8080", "localhost:8080"),
        ] {
            assert!(!check(&access, origin, host), "{origin} at {host}");
        }
        let all = Access { origins: vec!["*".into()], ..Access::default() };
        assert!(check(&all, "null", "localhost:8080") && check(&all, "https://b.example", "localhost:8080"));
        assert!(access.check_origin(&Method::POST, &headers(header::HOST, "localhost")).is_ok(), "no browser");
    }

    #[test]
    fn each_key_has_its_own_cache() {
        let access = Access { keys: vec!["a".into(), "b".into()], ..Access::default() };
        let scope = |key: &str| access.scope(&headers(header::AUTHORIZATION, &format!("Bearer {key}")));
        assert_eq!(scope("a"), scope("a"));
        assert_ne!(scope("a"), scope("b"));
    }
}
