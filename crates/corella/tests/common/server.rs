//! A running server, and a client that sends exactly what a test wants.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CORELLA, Folder, done, json, remove_at_the_end, small_run};

/// A model that was trained for a moment; all tests serve the same one.
pub fn model() -> &'static str {
    static MODEL: OnceLock<(Child, String)> = OnceLock::new();
    &MODEL
        .get_or_init(|| {
            let folder = Folder::new("serve");
            // A static value is never dropped, so the folder would stay.
            let remover = remove_at_the_end(&folder);
            let text = folder.text().display().to_string();
            let run = folder.join("run").display().to_string();
            let mut args = small_run(&text, &run, "30");
            args.extend(["--seq-len", "256", "--micro-batch", "1"]);
            done(&args);
            std::mem::forget(folder);
            (remover, run)
        })
        .1
}

/// A running server; it goes with the test.
pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    pub fn start(flags: &[&str]) -> Server {
        Server::of(model(), flags)
    }

    /// A server that another command starts beside its work; the rest of what it prints comes line by line.
    pub fn beside(args: &[&str]) -> (Server, Lines<BufReader<ChildStdout>>) {
        let mut child = Command::new(CORELLA)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let first = lines.next().expect("a line").expect("text");
        let address = json(&first)["address"].as_str().expect("an address").to_owned();
        (Server { child, address }, lines)
    }

    /// Waits until the model answers.
    pub fn ready(&self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while self.get("/health").status != 200 {
            assert!(Instant::now() < end, "the model did not load");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A server of another model.
    pub fn of(model: &str, flags: &[&str]) -> Server {
        let fixed = ["serve", model, "--port", "0", "--json", "--threads", "1"];
        let (server, _) = Server::beside(&[&fixed[..], flags].concat());
        server.ready(60);
        server
    }

    pub fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.open();
        // The server may answer and close before everything is sent.
        let _ = stream.write_all(bytes);
        Answer::read(stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.with(path, "")
    }

    pub fn with(&self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").as_bytes())
    }

    pub fn post_bytes(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, "", body.to_string().as_bytes())
    }

    pub fn complete(&self, body: Value) -> Value {
        let answer = self.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        json(&answer.body)
    }

    /// What is found of a text in the training data, once these are read.
    pub fn traced(&self, text: &str) -> Value {
        loop {
            let found = json(&self.post("/corella/trace", &serde_json::json!({"text": text})).body);
            if found["hint"].as_str().is_none_or(|hint| !hint.contains("being read")) {
                return found;
            }
        }
    }

    pub fn metric(&self, name: &str) -> u64 {
        self.any_metric(&format!("corella_{name}")).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Memory of the server in use, where the system tells.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.any_metric("process_resident_memory_bytes")
    }

    fn any_metric(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics").body;
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))?;
        Some(line.parse().expect("a number"))
    }

    /// Waits until nothing is under way and no page is held.
    pub fn rests(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.metric("running") + self.metric("waiting") + self.metric("queued") + self.metric("pages_held") > 0 {
            assert!(Instant::now() < end, "something is still under way");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn read(mut stream: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let head = head.to_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
        Answer { status, head, body }
    }

    pub fn error(&self) -> Value {
        json(&self.body)["error"].clone()
    }

    /// The documents of a stream, the last marker left out.
    pub fn events(&self) -> Vec<Value> {
        let data: Vec<&str> = self.body.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"), "{}", self.body);
        data[..data.len() - 1].iter().map(|d| json(d)).collect()
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 || more.len() < size {
            break;
        }
        whole.push_str(&more[..size]);
        rest = more[size..].trim_start_matches("\r\n");
    }
    whole
}

/// The text of the first choice.
pub fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("text")
}
