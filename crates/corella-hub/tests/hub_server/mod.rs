//! A server on this machine that speaks the hub's protocol: listing, HEAD and GET of resolve addresses, redirects to a
//! store under another host name, ranges, refusals, and broken connections.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

/// The commit that `main` names.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it arrived: method, path with query, headers in lower case.
pub type Request = (String, String, Vec<(String, String)>);

/// What the server has and how it behaves.
#[derive(Default)]
pub struct State {
    /// Files by path; those above 1,000 bytes lie in the store.
    pub files: Vec<(String, Vec<u8>)>,
    /// Token that it demands.
    pub token: Option<String>,
    /// The commit that `main` names.
    pub commit: String,
    /// Address of the store, where it is not this server under another name.
    pub store: Option<String>,
    /// Path under which the hub lies, beginning with a slash; empty for none.
    pub prefix: String,
    /// Bytes of content after which a connection breaks, for the next requests in turn.
    pub cuts: Vec<usize>,
    /// The same for listings.
    pub listing_cuts: Vec<usize>,
    /// Statuses to answer the next requests with, in turn.
    pub refusals: Vec<u16>,
    /// A header of these answers; `retry-after: 0` where there is none.
    pub refused_with: Option<String>,
    /// Does not name the files with the commit, but in pages of two.
    pub in_pages: bool,
    /// Ignores ranges.
    pub no_ranges: bool,
    /// Flips a bit of what it sends.
    pub corrupt: bool,
    /// Everything that was asked.
    pub seen: Vec<Request>,
}

/// A running server; it ends with the test process.
#[derive(Clone)]
pub struct HubServer {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl HubServer {
    /// A server of data set (or model) `o/n` with these files.
    pub fn start(files: &[(&str, &[u8])]) -> HubServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, commit: COMMIT.to_owned(), ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared, port));
            }
        });
        HubServer { endpoint: format!("http://127.0.0.1:{port}"), state }
    }

    /// To look at and to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Ranges of all requests for content, `-` where there was none.
    pub fn ranges(&self) -> Vec<String> {
        let state = self.state();
        let gets = state.seen.iter().filter(|(method, path, _)| method == "GET" && path.starts_with("/store/"));
        gets.map(|(_, _, headers)| header(headers, "range").unwrap_or("-").to_owned()).collect()
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn answer(stream: TcpStream, shared: &Mutex<State>, port: u16) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let mut words = lines[0].split(' ');
    let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let mut state = shared.lock().expect("not poisoned");
    state.seen.push((method.clone(), path.clone(), headers.clone()));
    let (head, body, cut) = respond(&mut state, &method, &path, &headers, port);
    drop(state);
    let mut stream = reader.into_inner();
    let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes());
    if method != "HEAD" {
        let _ = stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())]);
    }
}

type Answer = (String, Vec<u8>, Option<usize>);

fn plain(head: &str, body: Vec<u8>) -> Answer {
    (format!("{head}\r\ncontent-length: {}", body.len()), body, None)
}

fn respond(state: &mut State, method: &str, path: &str, headers: &[(String, String)], port: u16) -> Answer {
    if !state.refusals.is_empty() {
        let status = state.refusals.remove(0);
        let header = state.refused_with.as_deref().unwrap_or("retry-after: 0");
        return plain(&format!("{status} No\r\n{header}"), Vec::new());
    }
    if let Some(hash) = path.strip_prefix("/store/") {
        return content(state, hash, headers);
    }
    if state.token.as_ref().is_some_and(|t| header(headers, "authorization") != Some(&format!("Bearer {t}"))) {
        return plain("401 Unauthorized\r\nx-error-code: GatedRepo", Vec::new());
    }
    let Some(path) = path.strip_prefix(&state.prefix) else {
        return plain("404 Not Found", Vec::new());
    };
    // One repository, as a data set and as a model, which had another name once.
    if path.contains("/o/old/") {
        let location = format!("{}{}", state.prefix, path.replace("/o/old/", "/o/n/"));
        return plain(&format!("307 Temporary Redirect\r\nlocation: {location}"), Vec::new());
    }
    let commit = &state.commit;
    let apis = ["/api/datasets/o/n/revision/main", "/api/models/o/n/revision/main"];
    let resolve = format!("/o/n/resolve/{commit}/");
    if apis.iter().any(|api| path.starts_with(api)) {
        let files: Vec<_> = state
            .files
            .iter()
            .map(|(name, bytes)| serde_json::json!({"rfilename": name, "size": bytes.len()}))
            .collect();
        let files = if state.in_pages { serde_json::Value::Null } else { files.into() };
        let (head, body, _) =
            plain("200 OK", serde_json::json!({"sha": commit, "siblings": files}).to_string().into_bytes());
        return (head, body, (!state.listing_cuts.is_empty()).then(|| state.listing_cuts.remove(0)));
    }
    if let Some((_, query)) = path.split_once(&format!("/o/n/tree/{commit}?recursive=true")) {
        return tree_page(state, query.trim_start_matches("&cursor=").parse().unwrap_or(0), path);
    }
    let name = path.trim_start_matches("/datasets").strip_prefix(&resolve).unwrap_or("").replace("%20", " ");
    let Some((_, bytes)) = state.files.iter().find(|(n, _)| *n == name) else {
        return plain("404 Not Found\r\nx-error-code: EntryNotFound", Vec::new());
    };
    let common = format!("x-repo-commit: {commit}");
    if bytes.len() <= 1000 {
        // Small files come from git: the ETag is a SHA-1, which is not checked here.
        return plain(&format!("200 OK\r\n{common}\r\netag: \"{}\"", &sha256(bytes)[..40]), bytes.clone());
    }
    let (hash, size) = (sha256(bytes), bytes.len());
    let store = state.store.clone().unwrap_or_else(|| format!("http://localhost:{port}"));
    let head = format!(
        "302 Found\r\n{common}\r\nx-linked-etag: \"{hash}\"\r\nx-linked-size: {size}\r\nlocation: {store}/store/{hash}"
    );
    assert!(matches!(method, "GET" | "HEAD"));
    plain(&head, Vec::new())
}

/// Two entries of the tree, one of them a folder, and where the next are.
fn tree_page(state: &State, from: usize, path: &str) -> Answer {
    let page = state.files.iter().skip(from).take(2);
    let mut entries: Vec<_> =
        page.map(|(name, bytes)| serde_json::json!({"type": "file", "path": name, "size": bytes.len()})).collect();
    entries.push(serde_json::json!({"type": "directory", "path": "data", "size": 0}));
    let address = path.split('&').next().unwrap_or(path);
    let next = if from + 2 < state.files.len() {
        format!("\r\nlink: <{address}&cursor={}>; rel=\"next\"", from + 2)
    } else {
        String::new()
    };
    plain(&format!("200 OK{next}"), serde_json::Value::from(entries).to_string().into_bytes())
}

fn content(state: &mut State, hash: &str, headers: &[(String, String)]) -> Answer {
    let mut bytes = state.files.iter().find(|(_, b)| sha256(b) == hash).expect("a stored file").1.clone();
    if state.corrupt {
        bytes[100] ^= 1;
    }
    let size = bytes.len();
    let from = header(headers, "range")
        .filter(|_| !state.no_ranges)
        .map(|r| r.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().expect("an open range"));
    let cut = (!state.cuts.is_empty()).then(|| state.cuts.remove(0));
    match from {
        Some(from) if from >= size => plain("416 Range Not Satisfiable", Vec::new()),
        Some(from) => {
            let head = format!(
                "206 Partial Content\r\ncontent-range: bytes {from}-{}/{size}\r\ncontent-length: {}",
                size - 1,
                size - from
            );
            (head, bytes.split_off(from), cut)
        }
        None => (format!("200 OK\r\ncontent-length: {size}"), bytes, cut),
    }
}
