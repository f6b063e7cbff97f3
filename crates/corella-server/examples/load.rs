//! A load test on loopback: hundreds of streams at once, of which many leave in the middle. Ends with exit code 1 if any
//! answer is neither a whole stream nor 429, if the same request gives another text, if pages are held at the end, or if
//! the server's memory has grown.
//!
//! ```text
//! corella serve MODEL --port 8080 &
//! cargo run --release -p corella-server --example load -- 127.0.0.1:8080 --streams 400 --seconds 60
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Growth of memory, from a third of the time to the end, that is not called growth.
const SLACK: u64 = 24 << 20;
/// Longest silence of a server under load.
const SILENCE: Duration = Duration::from_secs(120);

type Failure = Box<dyn Error + Send + Sync>;

/// What has been seen.
#[derive(Default)]
struct Seen {
    whole: u64,
    left: u64,
    refused: u64,
    tokens: u64,
    wrong: Vec<String>,
    texts: HashMap<String, String>,
}

/// Numbers that differ between workers and are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("which server? ADDRESS:PORT [--streams N] [--seconds N]")?;
    let (mut streams, mut seconds) = (400, 60);
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        match name.as_str() {
            "--streams" => streams = value.parse()?,
            "--seconds" => seconds = value.parse()?,
            other => return Err(format!("{other} is not known").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&address, streams, Duration::from_secs(seconds)))
}

async fn run(address: &str, streams: u64, time: Duration) -> Result<(), Failure> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let end = Instant::now() + time;
    let workers: Vec<_> =
        (0..streams).map(|worker| tokio::spawn(work(address.to_owned(), worker, end, seen.clone()))).collect();
    tokio::time::sleep(time / 3).await;
    let early = metric(address, "process_resident_memory_bytes").await?;
    for worker in workers {
        worker.await?;
    }
    let rest = Instant::now() + Duration::from_secs(60);
    let mut held = metric(address, "corella_pages_held").await?;
    while held > 0 && Instant::now() < rest {
        tokio::time::sleep(Duration::from_millis(50)).await;
        held = metric(address, "corella_pages_held").await?;
    }
    let late = metric(address, "process_resident_memory_bytes").await?;
    let seen = seen.lock().map_err(|_| "a worker failed")?;
    println!(
        "{} streams at once for {} s: {} whole, {} left in the middle, {} answered with 429; {} tokens; {} different \
         requests with one text each; memory {:.1} MiB after a third of the time, {:.1} MiB at the end; {held} pages held",
        streams,
        time.as_secs(),
        seen.whole,
        seen.left,
        seen.refused,
        seen.tokens,
        seen.texts.len(),
        early as f64 / 1048576.0,
        late as f64 / 1048576.0,
    );
    seen.wrong.iter().take(10).for_each(|what| println!("WRONG: {what}"));
    let grown = late > early + SLACK;
    if !seen.wrong.is_empty() || held > 0 || grown || seen.whole == 0 {
        return Err(format!("{} wrong, {held} pages held, memory grown: {grown}", seen.wrong.len()).into());
    }
    Ok(())
}

async fn work(address: String, worker: u64, end: Instant, seen: Arc<Mutex<Seen>>) {
    let mut random = Random(worker * 7919 + 1);
    while Instant::now() < end {
        let outcome = request(&address, &mut random, &seen).await;
        let pause = match outcome {
            Ok(429) => 200 + random.below(1800),
            Ok(_) => 0,
            Err(error) => {
                if let Ok(mut seen) = seen.lock() {
                    seen.wrong.push(error.to_string());
                }
                1000
            }
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// One request; the reader stays to the end or leaves in the middle.
async fn request(address: &str, random: &mut Random, seen: &Mutex<Seen>) -> Result<u16, Failure> {
    let prompt = ["Once upon a time", "The town of", "A long page begins here. ".repeat(4).trim_end()]
        [random.below(3) as usize]
        .to_owned();
    let body = json!({
        "prompt": prompt, "max_tokens": 4 + 4 * random.below(8), "seed": random.below(3), "n": 1 + random.below(2), "stream": true,
        "stream_options": {"include_usage": true},
    })
    .to_string();
    let leave_after = match random.below(3) {
        0 => Some(random.below(3000)),
        _ => None,
    };
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if leave_after.is_some_and(|most| read.len() as u64 >= most) {
            seen.lock().map_err(|_| "a worker failed")?.left += 1;
            return Ok(200);
        }
        match tokio::time::timeout(SILENCE, stream.read(&mut piece)).await? {
            Ok(0) => break,
            Ok(n) => read.extend_from_slice(&piece[..n]),
            // A server that refuses may close before it has read everything.
            Err(error) if read.is_empty() => return Err(error.into()),
            Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&read);
    let status: u16 = text.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
    let mut seen = seen.lock().map_err(|_| "a worker failed")?;
    match status {
        200 => {
            let documents: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
            if documents.last() != Some(&"[DONE]") {
                return Err(format!("a stream without its end: {body}: {:?}", documents.last()).into());
            }
            let documents: Vec<Value> = documents
                .iter()
                .filter(|d| **d != "[DONE]")
                .map(|d| serde_json::from_str(d))
                .collect::<Result<_, _>>()?;
            let written = written(&documents);
            seen.tokens += documents.last().and_then(|d| d["usage"]["completion_tokens"].as_u64()).unwrap_or(0);
            seen.whole += 1;
            let first = seen.texts.entry(body.clone()).or_insert_with(|| written.clone());
            if *first != written {
                return Err(format!("{body}: {first:?}, then {written:?}").into());
            }
        }
        429 => seen.refused += 1,
        other => return Err(format!("status {other}: {body}").into()),
    }
    Ok(status)
}

/// The texts of all choices.
fn written(documents: &[Value]) -> String {
    let mut texts = [String::new(), String::new()];
    for choice in documents.iter().flat_map(|d| d["choices"].as_array().into_iter().flatten()) {
        if let (Some(i), Some(text)) = (choice["index"].as_u64(), choice["text"].as_str()) {
            texts[i as usize % 2].push_str(text);
        }
    }
    texts.join("\u{1}")
}

async fn metric(address: &str, name: &str) -> Result<u64, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let line = text.lines().find_map(|l| l.strip_prefix(name).filter(|l| l.starts_with(' ')));
    Ok(line.ok_or_else(|| format!("no {name} in /metrics"))?.trim().parse()?)
}
