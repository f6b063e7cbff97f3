//! Addresses: whose they are, what a redirect names, and what must be quoted in them.

use ureq::http::Uri;

/// Whether two addresses have the same scheme, host and port. What is no address has no origin.
pub(crate) fn same_origin(a: &str, b: &str) -> bool {
    origin(a).is_some_and(|a| origin(b) == Some(a))
}

fn origin(address: &str) -> Option<(String, String, u16)> {
    let uri: Uri = address.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(usual);
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The address that a `location` header in the answer to `base` names.
pub(crate) fn join(base: &str, location: &str) -> String {
    let is_scheme = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if location.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)) {
        return location.to_owned();
    }
    let scheme = base.find("://").unwrap_or(0);
    if location.starts_with("//") {
        return format!("{}:{location}", &base[..scheme]);
    }
    let host = (scheme + 3).min(base.len());
    let root = base[host..].find(['/', '?', '#']).map_or(base.len(), |at| host + at);
    if location.starts_with('/') {
        return format!("{}{location}", &base[..root]);
    }
    let path = base[root..].split(['?', '#']).next().unwrap_or_default();
    let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
    format!("{}{folder}{location}", &base[..root])
}

/// Percent-encodes a path; the slashes stay if `slashes`.
pub(crate) fn quote(text: &str, slashes: bool) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => quoted.push(char::from(byte)),
            b'/' if slashes => quoted.push('/'),
            other => quoted.push_str(&format!("%{other:02X}")),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::{join, same_origin};

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (a, b, same) in [
            ("https://hub/x", "https://HUB:443/y?z", true),
            ("http://hub:80", "http://hub/a", true),
            ("http://hub:1/a", "http://hub:2/a", false),
            ("http://hub/a", "https://hub/a", false),
            ("https://hub/a", "https://hub.evil/a", false),
            ("https://hub/a", "https://hub@evil/a", false),
            ("/a", "/a", false),
        ] {
            assert_eq!(same_origin(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn a_redirect_is_joined_to_what_it_leaves_out() {
        let base = "http://hub:1/mirror/o/n?x=/y";
        for (location, found) in [
            ("https://store/a", "https://store/a"),
            ("//store/a", "http://store/a"),
            ("/mirror/o/m", "http://hub:1/mirror/o/m"),
            ("m?to=http://x/", "http://hub:1/mirror/o/m?to=http://x/"),
        ] {
            assert_eq!(join(base, location), found);
        }
        assert_eq!(join("http://hub", "a"), "http://hub/a");
    }
}
