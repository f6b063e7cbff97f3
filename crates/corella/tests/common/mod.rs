//! Runs the real program in a folder of its own.
#![allow(dead_code)] // Each test file uses a part of it.

pub mod models;
#[cfg(unix)]
pub mod server;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The program that cargo built for this test.
pub const CORELLA: &str = env!("CARGO_BIN_EXE_corella");

/// Exit code of a run that a signal stopped.
pub const STOPPED: i32 = 130;

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("corella-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A text that a small model can learn something from.
    pub fn text(&self) -> PathBuf {
        let path = self.join("my.txt");
        let lines: String = (0..1500)
            .map(|i| format!("The {} fox number {i} saw {} geese.\n", ["red", "old", "quick"][i % 3], i * 7 % 10))
            .collect();
        std::fs::write(&path, lines).expect("written");
        path
    }

    /// The same as token shards, with which a run starts in milliseconds.
    pub fn data(&self) -> PathBuf {
        let (text, data) = (self.text().display().to_string(), self.join("data"));
        done(&["prepare", &text, "--vocab-size", "280", "--out", &data.display().to_string()]);
        data
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes a folder of all tests when their process is gone, however it ended: a shell waits for the end of its input.
#[cfg(unix)]
pub fn remove_at_the_end(folder: &Folder) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", "read _; rm -rf \"$0\""]).arg(&folder.0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell")
}

/// Runs the program to its end.
pub fn corella(args: &[&str]) -> Output {
    Command::new(CORELLA).args(args).output().expect("the program starts")
}

/// Starts the program and leaves it running, its output unread.
pub fn start(args: &[&str]) -> Child {
    Command::new(CORELLA).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Sends a signal by its name.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().expect("a shell");
    assert!(sent.success());
}

/// The last line of a text, as JSON.
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the program and expects exit code 0.
pub fn done(args: &[&str]) -> String {
    let output = corella(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

/// Runs and expects this exit code, these words and a hint.
pub fn refused(args: &[&str], code: i32, words: &str) {
    let output = corella(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
    assert!(message.contains(words) && message.contains("hint:"), "{args:?}: {words} is missing: {message}");
}

/// Flags of a training run of `steps` updates that takes a second.
pub fn small_run<'a>(source: &'a str, out: &'a str, steps: &'a str) -> Vec<&'a str> {
    let fixed = "--n-layer 2 --n-head 2 --n-embd 32 --seq-len 32 --vocab-size 300 --micro-batch 4 --checkpoint-every 3 --val-every 5 --sample-every 0 --warmup-steps 1";
    let mut args = vec!["train", source, "--out", out, "--steps", steps];
    args.extend(fixed.split(' '));
    args
}

/// Flags of a training run on prepared data whose updates take a fraction of a millisecond; the learning rate is constant.
pub fn tiny_run<'a>(data: &'a str, out: &'a str, steps: &'a str) -> Vec<&'a str> {
    let fixed = "--n-layer 1 --n-head 2 --n-embd 16 --seq-len 16 --micro-batch 2 --checkpoint-every 3 --val-every 5 --val-tokens 64 --sample-every 0 --warmup-steps 1 --schedule constant --threads 1";
    let mut args = vec!["train", "--data", data, "--out", out, "--steps", steps];
    args.extend(fixed.split(' '));
    args
}

/// Whole lines in a run's log so far; also of a run that is writing it.
pub fn logged(run: &Path) -> usize {
    std::fs::read_to_string(run.join("log.jsonl")).map_or(0, |text| text.matches('\n').count())
}

/// Waits for something that a run is to do, for as long as a very busy machine may take.
pub fn wait_for(child: &mut Child, what: &str, mut condition: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(child.try_wait().expect("status").is_none(), "the run ended by itself before {what}");
        assert!(begin.elapsed().as_secs() < 300, "{what} does not come");
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}

/// Waits for the end of a program that is to end by itself; `why` it may not have ended.
pub fn end_of(child: &mut Child, why: &str) -> std::process::ExitStatus {
    let begin = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a state") {
            return status;
        }
        if begin.elapsed().as_secs() >= 60 {
            let _ = child.kill();
            panic!("{why}");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// `step`, `loss`, `norm` and `val_loss` of every line of a run's log, as text: equal only if equal to the bit.
pub fn losses(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).expect("a log");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    lines.map(|v| format!("{} {} {} {}", v["step"], v["loss"], v["norm"], v["val_loss"])).collect()
}
