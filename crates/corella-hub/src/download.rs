//! One file over an unreliable connection.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::address::join;
use crate::cache::{RepoCache, create_parent, is_whole};
use crate::client::HubClient;
use crate::{HubError, Notice};

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transferred<'a> {
    /// File inside the repository.
    pub path: &'a str,
    /// Bytes that lie on disk now.
    pub bytes: u64,
    /// Its size.
    pub size: u64,
}

/// What the hub says of a file.
struct Description {
    /// Checksum: SHA-256 for large files, git's SHA-1 for small ones.
    etag: String,
    /// Size in bytes.
    size: u64,
}

/// Fetches `url` into a blob and returns it.
pub(crate) fn fetch(
    client: &HubClient,
    cache: &RepoCache,
    url: &str,
    file: &str,
    progress: &mut dyn FnMut(Transferred<'_>),
) -> Result<PathBuf, HubError> {
    let description = describe(client, url)?;
    let blob = cache.blob(&description.etag);
    // One of another size was cut short, and is replaced.
    let is_there = || is_whole(&blob, Some(description.size));
    if is_there() {
        return Ok(blob);
    }
    create_parent(&blob)?;
    let part = blob.with_file_name(format!("{}.incomplete", description.etag));
    let mut out = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(HubError::io(&part))?;
    // A second process waits here, and then finds the blob.
    match out.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            client.say(Notice::OtherProcess { file });
            out.lock().map_err(HubError::io(&part))?;
        }
        Err(TryLockError::Error(error)) => return Err(HubError::io(&part)(error)),
    }
    if is_there() {
        return Ok(blob);
    }
    let there = out.seek(SeekFrom::End(0)).map_err(HubError::io(&part))?;
    let mut rest = Rest { client, url, part: &part, file, size: description.size, at: there, goes_on: there > 0 };
    rest.pull_all(&mut out, progress)?;
    match verify(&mut out, &part, &description, file) {
        // What was there before may have been damaged: then nothing is wrong with what the hub sends.
        Err(HubError::Corrupt { what, .. }) if rest.goes_on => {
            client.say(Notice::Anew { file, what: &what });
            (rest.at, rest.goes_on) = (0, false);
            rest.pull_all(&mut out, progress)?;
            verify(&mut out, &part, &description, file)?;
        }
        other => other?,
    }
    out.sync_all().map_err(HubError::io(&part))?;
    fs::rename(&part, &blob).map_err(HubError::io(&part))?;
    Ok(blob)
}

/// Checksum and size of a file, out of the hub's answer to HEAD.
fn describe(client: &HubClient, url: &str) -> Result<Description, HubError> {
    let mut url = url.to_owned();
    for _ in 0..5 {
        let response = client.ask(&url, client.settings.tries, || client.head(&url))?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        // A renamed repository answers with a redirect inside the hub; a large file with one to the store, which is
        // followed by GET alone.
        if let Some(inside) = header("location").filter(|l| l.starts_with('/') && !l.starts_with("//"))
            && header("x-linked-etag").is_none()
        {
            url = join(&url, inside);
            continue;
        }
        let bad = |what: String| HubError::BadAnswer { url: url.clone(), what };
        let etag = header("x-linked-etag").or_else(|| header("etag")).ok_or_else(|| bad("no ETag".to_owned()))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        if !(1..=128).contains(&etag.len()) || !etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(bad(format!("the ETag {etag:?} is not a checksum")));
        }
        let size = header("x-linked-size").or_else(|| header("content-length"));
        let size = size.and_then(|s| s.parse().ok()).ok_or_else(|| bad("no size".to_owned()))?;
        return Ok(Description { etag: etag.to_owned(), size });
    }
    Err(HubError::BadAnswer { url, what: "more than five redirects".to_owned() })
}

/// A file of which a part may be there.
struct Rest<'a> {
    client: &'a HubClient,
    url: &'a str,
    /// Where it is written.
    part: &'a Path,
    /// Its name inside the repository.
    file: &'a str,
    /// Its size.
    size: u64,
    /// Bytes that are there.
    at: u64,
    /// Whether they are not all of one answer.
    goes_on: bool,
}

impl Rest<'_> {
    /// Fetches what is missing, in as many requests as it takes.
    fn pull_all(&mut self, out: &mut File, progress: &mut dyn FnMut(Transferred<'_>)) -> Result<(), HubError> {
        let (client, url) = (self.client, self.url);
        let mut failures = 0;
        while self.at < self.size {
            let before = self.at;
            if let Some(broken) = self.pull(out, progress)? {
                // What moved the file on was not in vain: only tries without a byte count.
                failures = if self.at > before { 1 } else { failures + 1 };
                if failures >= client.settings.tries {
                    return Err(HubError::Transport { url: url.to_owned(), source: Box::new(broken) });
                }
                client.wait(failures, &format!("{url}: {broken}"), None);
            }
        }
        Ok(())
    }

    /// One request for the rest. `Some` if the connection broke.
    fn pull(
        &mut self,
        out: &mut File,
        progress: &mut dyn FnMut(Transferred<'_>),
    ) -> Result<Option<ureq::Error>, HubError> {
        let (client, url, at) = (self.client, self.url, self.at);
        let range = if at > 0 { vec![("range", format!("bytes={at}-"))] } else { Vec::new() };
        let mut response = client.ask(url, client.settings.tries, || client.get(url, &range))?;
        self.goes_on = response.status() == 206
            && response.headers().get("content-range").and_then(|v| v.to_str().ok()).is_some_and(|v| {
                v.strip_prefix("bytes ").and_then(|v| v.split_once('-')).is_some_and(|(from, _)| from.parse() == Ok(at))
            });
        if !self.goes_on {
            // The server sends the whole again, or what lies here is no part of it.
            self.at = 0;
            out.set_len(0).map_err(HubError::io(self.part))?;
            if response.status() == 416 {
                return Ok(Some(io::Error::other("the server refuses the range (416)").into()));
            }
        }
        out.seek(SeekFrom::Start(self.at)).map_err(HubError::io(self.part))?;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) if self.at < self.size => {
                    return Ok(Some(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                }
                Ok(0) => return Ok(None),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Ok(Some(e.into())),
            };
            if self.at + n as u64 > self.size {
                let what = format!("more than the {} bytes promised", self.size);
                return Err(HubError::BadAnswer { url: url.to_owned(), what });
            }
            out.write_all(&buffer[..n]).map_err(HubError::io(self.part))?;
            self.at += n as u64;
            progress(Transferred { path: self.file, bytes: self.at, size: self.size });
        }
    }
}

/// Compares what lies on disk with the hub's description; a file that differs is emptied.
fn verify(out: &mut File, part: &Path, description: &Description, file: &str) -> Result<(), HubError> {
    let len = out.metadata().map_err(HubError::io(part))?.len();
    let mut what = (len != description.size).then(|| format!("{len} bytes, but {} were promised", description.size));
    let is_sha256 = description.etag.len() == 64 && description.etag.bytes().all(|b| b.is_ascii_hexdigit());
    if what.is_none() && is_sha256 {
        out.seek(SeekFrom::Start(0)).map_err(HubError::io(part))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match out.read(&mut buffer).map_err(HubError::io(part))? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let found: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
        what = (!found.eq_ignore_ascii_case(&description.etag))
            .then(|| format!("its SHA-256 is {found}, not {}", description.etag));
    }
    match what {
        None => Ok(()),
        Some(what) => {
            // Not removed: a process that waits for it has opened it, and would fetch into a file without a name.
            out.set_len(0).map_err(HubError::io(part))?;
            Err(HubError::Corrupt { path: file.to_owned(), what })
        }
    }
}
