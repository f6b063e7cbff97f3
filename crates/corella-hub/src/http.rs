//! Requests to the hub: the token, redirects, and tries after failures that may pass.

use std::thread::sleep;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, Response};
use ureq::tls::TlsConfig;

use crate::address::{join, same_origin};
use crate::client::HubClient;
use crate::{HubError, Notice, Roots};

/// Longest wait that a server may ask for before the next try: the hub counts requests in windows of 300 s.
const LONGEST_WAIT: Duration = Duration::from_secs(310);
/// Most redirects that a download follows.
const REDIRECTS: usize = 10;

/// An answer, and whether the request that it answers showed the token.
pub(crate) struct Answer {
    pub(crate) response: Response<ureq::Body>,
    with_token: bool,
}

/// What sends the requests.
pub(crate) fn agent(roots: Option<&Roots>) -> Agent {
    let mut tls = TlsConfig::builder();
    if let Some(roots) = roots {
        tls = tls.root_certs(roots.to_ureq());
    }
    Agent::config_builder()
        .tls_config(tls.build())
        .user_agent(concat!("corella/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        // They are followed here, where it is known who may see the token.
        .max_redirects(0)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

impl HubClient {
    /// GET that follows redirects.
    ///
    /// The token is shown to the hub alone, which is the endpoint's scheme, host and port: the store that a redirect names has
    /// its own signature in the address, and another port may be another person's.
    pub(crate) fn get(&self, url: &str, headers: &[(&str, String)]) -> Result<Answer, Box<ureq::Error>> {
        let (mut url, mut own) = (url.to_owned(), true);
        for _ in 0..=REDIRECTS {
            own &= same_origin(&url, &self.settings.endpoint);
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            let token = self.settings.token.as_ref().filter(|_| own);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let response = request.call()?;
            let location = response.headers().get("location").and_then(|v| v.to_str().ok());
            match (response.status().as_u16(), location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => url = join(&url, location),
                _ => return Ok(Answer { response, with_token: token.is_some() }),
            }
        }
        Err(Box::new(ureq::Error::TooManyRedirects))
    }

    /// HEAD without following redirects: the hub's own answer describes the file.
    pub(crate) fn head(&self, url: &str) -> Result<Answer, Box<ureq::Error>> {
        let mut request = self.agent.head(url).header("accept-encoding", "identity");
        let token = self.settings.token.as_ref().filter(|_| same_origin(url, &self.settings.endpoint));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Ok(Answer { response: request.call()?, with_token: token.is_some() })
    }

    /// Sends a request up to `tries` times, until it succeeds (or redirects, for HEAD), or fails for good.
    pub(crate) fn ask(
        &self,
        url: &str,
        tries: u32,
        send: impl Fn() -> Result<Answer, Box<ureq::Error>>,
    ) -> Result<Response<ureq::Body>, HubError> {
        for attempt in 1.. {
            let last = attempt >= tries.max(1);
            match send() {
                Ok(answer) => match answer.response.status().as_u16() {
                    200..=399 | 416 => return Ok(answer.response),
                    408 | 429 | 500 | 502 | 503 | 504 if !last => {
                        let why = self.refusal(url, &answer).to_string();
                        self.wait(attempt, &why, Some(answer.response.headers()));
                    }
                    _ => return Err(self.refusal(url, &answer)),
                },
                Err(source) if last || !may_pass(&source) => {
                    return Err(HubError::Transport { url: url.to_owned(), source });
                }
                Err(source) => self.wait(attempt, &format!("{url}: {source}"), None),
            }
        }
        unreachable!("the loop returns at the last attempt")
    }

    /// The whole answer to a GET, of at most `limit` bytes, and the page that it names as the next one; an answer that breaks off
    /// is asked for again, up to `tries` times in all.
    pub(crate) fn get_whole(&self, url: &str, tries: u32, limit: u64) -> Result<(Vec<u8>, Option<String>), HubError> {
        for attempt in 1.. {
            let left = tries.max(1).saturating_sub(attempt);
            let mut response = self.ask(url, left + 1, || self.get(url, &[]))?;
            let next = next_page(response.headers()).map(|next| join(url, next));
            match response.body_mut().with_config().limit(limit).read_to_vec() {
                Ok(bytes) => return Ok((bytes, next)),
                Err(source) if left == 0 || !may_pass(&source) => {
                    return Err(HubError::Transport { url: url.to_owned(), source: Box::new(source) });
                }
                Err(source) => self.wait(attempt, &format!("{url}: {source}"), None),
            }
        }
        unreachable!("the loop returns at the last attempt")
    }

    /// Waits before the next try: as long as the server asks, else longer each time.
    pub(crate) fn wait(&self, attempt: u32, why: &str, headers: Option<&HeaderMap>) {
        let asked = headers.and_then(asked_wait).map(Duration::from_secs);
        let own = self.settings.first_wait.saturating_mul(1 << (attempt - 1).min(6));
        let wait = asked.unwrap_or(own).min(LONGEST_WAIT);
        self.say(Notice::Again { why, wait });
        sleep(wait);
    }

    fn refusal(&self, url: &str, answer: &Answer) -> HubError {
        let code = answer.response.headers().get("x-error-code").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let url = url.to_owned();
        match answer.response.status().as_u16() {
            401 if answer.with_token => HubError::TokenRefused { url, code, from: self.settings.token_from.clone() },
            401 => HubError::Unauthorized { url, code },
            403 => HubError::Forbidden { url, code },
            404 => HubError::NotFound { url, code },
            429 => HubError::RateLimited { url },
            status => HubError::Status { url, status },
        }
    }
}

/// Seconds until the next try that an answer asks for: the hub names the rest of its window in `ratelimit`, others say
/// `retry-after`.
fn asked_wait(headers: &HeaderMap) -> Option<u64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let window = text("ratelimit").and_then(rest_of_window);
    // The seconds are whole: a moment later the window is over for certain.
    window.map(|seconds| seconds.saturating_add(1)).or_else(|| text("retry-after")?.trim().parse().ok())
}

/// Of `"api";r=0;t=55` the seconds after `t`, where no request is left (`r`). Of several limits the one that lasts longest counts.
fn rest_of_window(ratelimit: &str) -> Option<u64> {
    let seconds = |limit: &str| -> Option<u64> {
        let number = |name: &str| {
            let fields = limit.split(';').skip(1).filter_map(|field| field.split_once('='));
            fields.filter(|(key, _)| key.trim() == name).find_map(|(_, value)| value.trim().parse::<u64>().ok())
        };
        (number("r").unwrap_or(0) == 0).then(|| number("t")).flatten()
    };
    ratelimit.split(',').filter_map(seconds).max()
}

/// The address that a `link` header calls the next one.
fn next_page(headers: &HeaderMap) -> Option<&str> {
    let links = headers.get("link")?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (address, relation) = link.trim().strip_prefix('<')?.split_once('>')?;
        relation.replace('"', "").split(';').any(|part| part.trim() == "rel=next").then_some(address)
    })
}

/// Whether the server's certificate is not trusted. The library hands this on as it came, inside of an error of input and output.
pub(crate) fn is_certificate(error: &ureq::Error) -> bool {
    error.to_string().contains("invalid peer certificate")
}

/// Whether the same request may succeed a little later.
fn may_pass(error: &ureq::Error) -> bool {
    use ureq::Error::{BadUri, BodyExceedsLimit, Http, RequireHttpsOnly, Tls, TooManyRedirects};
    !is_certificate(error)
        && !matches!(error, BadUri(_) | BodyExceedsLimit(_) | Http(_) | RequireHttpsOnly(_) | Tls(_) | TooManyRedirects)
}

#[cfg(test)]
mod tests {
    use super::{HeaderMap, asked_wait, next_page};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn the_rest_of_the_window_is_waited_for() {
        for (pairs, seconds) in [
            (&[("ratelimit", "\"api\";r=0;t=55")][..], Some(56)),
            (&[("ratelimit", "\"resolvers\"; r=0; t=299"), ("retry-after", "1")], Some(300)),
            (&[("ratelimit", "\"api\";r=7;t=55, \"pages\";r=0;t=3")], Some(4)),
            (&[("ratelimit", "\"api\";r=7;t=55"), ("retry-after", "9")], Some(9)),
            (&[("ratelimit", "r=0;t"), ("retry-after", "Sat, 28 Nov 2026 10:00:00 GMT")], None),
            (&[], None),
        ] {
            assert_eq!(asked_wait(&headers(pairs)), seconds, "{pairs:?}");
        }
    }

    #[test]
    fn the_next_page_is_the_one_called_next() {
        let next = |link: &str| next_page(&headers(&[("link", link)])).map(str::to_owned);
        let two = "<http://h/a?cursor=1>; rel=\"prev\", <http://h/a?cursor=3>; rel=\"next\"";
        assert_eq!(next(two).as_deref(), Some("http://h/a?cursor=3"));
        assert_eq!(next("</a?cursor=x>;rel=next").as_deref(), Some("/a?cursor=x"));
        assert_eq!((next("<a>; rel=\"last\""), next("a")), (None, None));
    }
}
