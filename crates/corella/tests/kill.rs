//! A run that is killed at any moment loses at most the updates since its last checkpoint.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{CORELLA, Folder, STOPPED, done, end_of, logged, losses, signal, small_run, start, tiny_run, wait_for};
use serde_json::Value;

/// Kills; the moments are drawn with a fixed seed, but what the process is doing then differs from machine to machine.
const KILLS: usize = 100;

#[test]
fn killed_at_a_hundred_random_moments_it_ends_with_the_losses_of_an_undisturbed_run() {
    let folder = Folder::new("kill");
    let data = folder.data();
    let (whole, killed) = (folder.join("whole"), folder.join("killed"));
    let (data, out) = (data.display().to_string(), killed.display().to_string());
    // With a constant learning rate the losses do not depend on how many updates are planned: the run cannot end before
    // the last kill, however fast the machine is.
    let mut args = tiny_run(&data, &out, "1000000000");
    args.push("--resume");
    let (mut seed, mut torn, mut resumed) = (1u64, 0, 0);
    for kill in 0..KILLS {
        let mut child = start(&args);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = Duration::from_micros((seed >> 33) % 20_000);
        match kill % 3 {
            // While it starts, or soon after.
            0 => {}
            // Some updates after it went on.
            1 => wait_for(&mut child, "an update", || grows(&killed.join("log.jsonl"))),
            // While a checkpoint is half written, one of the next few.
            _ => {
                let first = newest_checkpoint(&killed) + 3 + seed % 9;
                wait_for(&mut child, "a checkpoint", || newest_checkpoint(&killed) >= first);
                wait_for(&mut child, "the next one", || half_written(&killed));
            }
        }
        if kill % 3 < 2 {
            std::thread::sleep(random);
        }
        assert!(child.try_wait().expect("status").is_none(), "the run ended by itself before kill {kill}");
        child.kill().expect("killed");
        child.wait().expect("ended");
        torn += usize::from(half_written(&killed));
        resumed += usize::from(newest_checkpoint(&killed) > 0);
    }
    assert!(torn >= 10, "only {torn} of {KILLS} kills tore a checkpoint");
    assert!(resumed >= KILLS * 3 / 4, "only {resumed} of {KILLS} kills came after a first checkpoint");
    let steps = (newest_checkpoint(&killed) + 20).to_string();
    let mut last = tiny_run(&data, &out, &steps);
    last.push("--resume");
    done(&last);
    done(&tiny_run(&data, &whole.display().to_string(), &steps));
    assert_eq!(losses(&whole), losses(&killed));
    println!("{KILLS} kills, {torn} of them within a checkpoint's write, over {steps} updates");
}

/// Whether the file is longer a moment later.
fn grows(path: &Path) -> bool {
    let length = || std::fs::metadata(path).map_or(0, |m| m.len());
    let before = length();
    std::thread::sleep(Duration::from_millis(1));
    length() > before
}

fn checkpoint_names(run: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

fn half_written(run: &Path) -> bool {
    checkpoint_names(run).iter().any(|name| name.starts_with("partial-"))
}

fn newest_checkpoint(run: &Path) -> u64 {
    let steps = checkpoint_names(run).into_iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok());
    steps.max().unwrap_or(0)
}

/// With a constant learning rate the losses do not depend on how many updates are planned.
fn endless<'a>(source: &'a str, out: &'a str, steps: &'a str) -> Vec<&'a str> {
    [small_run(source, out, steps), vec!["--schedule", "constant"]].concat()
}

#[test]
fn sigterm_writes_a_checkpoint_and_the_run_goes_on_from_it() {
    let folder = Folder::new("term");
    let text = folder.text().display().to_string();
    let (whole, stopped) = (folder.join("whole"), folder.join("stopped"));
    let out = stopped.display().to_string();
    let mut child = start(&endless(&text, &out, "1000000000"));
    wait_for(&mut child, "ten updates", || logged(&stopped) >= 11);
    signal(&child, "TERM");
    let status = child.wait().expect("ended");
    assert_eq!(status.code(), Some(STOPPED), "it is not finished");
    // The first line is the validation before the first update.
    let made = losses(&stopped).len() - 1;
    assert!(checkpoint_names(&stopped).contains(&format!("step-{made:08}")), "{:?}", checkpoint_names(&stopped));
    let steps = (made + 10).to_string();
    done(&[endless(&text, &out, &steps), vec!["--resume"]].concat());
    done(&endless(&text, &whole.display().to_string(), &steps));
    assert_eq!(losses(&whole), losses(&stopped));
}

#[test]
fn a_run_whose_terminal_is_gone_goes_on_and_a_hangup_leaves_a_checkpoint() {
    let folder = Folder::new("hangup");
    let (data, run) = (folder.data().display().to_string(), folder.join("run"));
    let out = run.display().to_string();
    let args = tiny_run(&data, &out, "1000000000");
    let mut command = Command::new(CORELLA);
    let mut child = command.args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop((child.stdout.take(), child.stderr.take()));
    let seen = logged(&run);
    wait_for(&mut child, "updates without a reader", || logged(&run) > seen + 20);
    signal(&child, "HUP");
    assert_eq!(child.wait().expect("ended").code(), Some(STOPPED));
    let made = losses(&run).len() - 1;
    assert!(checkpoint_names(&run).contains(&format!("step-{made:08}")), "{:?}", checkpoint_names(&run));
}

#[test]
fn the_heartbeat_is_whole_whenever_it_is_read_and_goes_on() {
    let folder = Folder::new("heart");
    let (data, run) = (folder.data().display().to_string(), folder.join("run"));
    let out = run.display().to_string();
    let mut child = start(&[tiny_run(&data, &out, "1000000000"), vec!["--price", "36"]].concat());
    let path = run.join("heartbeat.json");
    wait_for(&mut child, "a heartbeat", || path.is_file());
    let read = || -> Value { serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("whole") };
    let mut seen = Vec::new();
    wait_for(&mut child, "four heartbeats", || {
        let step = read()["step"].as_u64().expect("a step");
        if seen.last().is_none_or(|last| *last != step) {
            seen.push(step);
        }
        seen.len() == 4
    });
    assert!(seen.is_sorted(), "{seen:?}");
    let beat = read();
    assert_eq!((beat["pid"].as_u64(), beat["steps"].as_u64()), (Some(u64::from(child.id())), Some(1_000_000_000)));
    let number = |key: &str| beat[key].as_f64().unwrap_or_else(|| panic!("{key}: {beat}"));
    assert!(number("loss") > 0.0 && number("eta_seconds") > 0.0 && number("seconds_per_step") > 0.0);
    // At 36 dollars an hour, a cent a second.
    assert!((number("dollars") - 0.01 * number("elapsed_seconds")).abs() < 1e-9, "{beat}");
    signal(&child, "TERM");
    assert_eq!(child.wait().expect("ended").code(), Some(STOPPED));
    assert_eq!(read()["state"], "stopped");
}

#[test]
fn sigterm_in_an_update_of_minutes_is_answered_at_once_and_the_update_is_made_again() {
    let folder = Folder::new("term-long");
    let data = folder.data().display().to_string();
    let (whole, stopped) = (folder.join("whole"), folder.join("stopped"));
    let out = stopped.display().to_string();
    // 2,000,000 micro-batches in an update: minutes on a fast core.
    let long = ["--batch-tokens", "64000000"];
    let mut child = start(&[tiny_run(&data, &out, "2"), long.to_vec()].concat());
    wait_for(&mut child, "the start", || stopped.join("heartbeat.json").is_file());
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, "TERM");
    let asked = Instant::now();
    assert_eq!(child.wait().expect("ended").code(), Some(STOPPED));
    assert!(asked.elapsed() < Duration::from_secs(20), "a machine that is taken away waits 30 seconds");
    assert_eq!(checkpoint_names(&stopped), ["step-00000000"]);
    // The run's plan holds unless something else is asked for.
    let short = ["--batch-tokens", "32"];
    done(&[tiny_run(&data, &out, "6"), short.to_vec(), vec!["--resume"]].concat());
    done(&[tiny_run(&data, &whole.display().to_string(), "6"), short.to_vec()].concat());
    assert_eq!(losses(&whole), losses(&stopped), "the half update left no trace");
}

#[test]
fn sigterm_in_an_evaluation_of_minutes_leaves_a_checkpoint_at_once() {
    let folder = Folder::new("term-eval");
    let (data, run) = (folder.data().display().to_string(), folder.join("run"));
    let out = run.display().to_string();
    // 200,000 questions: minutes, even on a fast core and for this model.
    let few = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eval/items/piqa.jsonl");
    let few = std::fs::read_to_string(few).expect("items");
    let items = folder.join("piqa.jsonl");
    std::fs::write(&items, few.repeat(200_000 / few.lines().count())).expect("written");
    let items = items.display().to_string();
    let flags = ["--eval", &items, "--eval-every", "1", "--eval-limit", "0"];
    let mut child = start(&[tiny_run(&data, &out, "1000000000"), flags.to_vec()].concat());
    let state = || std::fs::read_to_string(run.join("heartbeat.json")).unwrap_or_default();
    wait_for(&mut child, "an evaluation", || state().contains(r#""state":"evaluating""#));
    signal(&child, "TERM");
    let asked = Instant::now();
    assert_eq!(child.wait().expect("ended").code(), Some(STOPPED));
    assert!(asked.elapsed() < Duration::from_secs(20), "a machine that is taken away waits 30 seconds");
    assert_eq!(checkpoint_names(&run), ["step-00000001"]);
    assert!(!losses(&run).is_empty() && state().contains(r#""state":"stopped""#));
}

#[test]
fn what_a_stopped_run_was_to_be_followed_by_is_not_begun() {
    let folder = Folder::new("chain");
    let (data, out) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let once = "if [ $CORELLA_STEP = 3 ]; then kill -TERM $PPID; fi";
    // The run stops itself after its first checkpoint; the shell goes on with what follows `&&` after a code of 0 alone.
    let train = [tiny_run(&data, &out, "1000000000"), vec!["--on-checkpoint", once]].concat();
    let script = r#""$@" && echo followed"#;
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", script, "sh", CORELLA]).args(train).output().expect("a shell");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("stopped after") && printed.contains("and --resume"), "{printed}");
    assert!(!printed.contains("followed"), "{printed}");
    assert_eq!(output.status.code(), Some(STOPPED));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error"), "nothing went wrong");
}

#[test]
fn a_second_ctrl_c_ends_a_run_within_a_micro_batch_and_the_last_checkpoint_stays() {
    let folder = Folder::new("twice");
    let (data, run) = (folder.data().display().to_string(), folder.join("run"));
    let out = run.display().to_string();
    let flags =
        "--n-layer 4 --n-head 4 --n-embd 256 --seq-len 128 --recompute --val-every 0 --sample-every 0 --threads 1";
    let run_of = |steps: &'static str, more: &[&'static str]| {
        let args = ["train", "--data", &data, "--out", &out, "--steps", steps].into_iter().chain(flags.split(' '));
        args.chain(more.iter().copied()).map(str::to_owned).collect::<Vec<String>>()
    };
    let status = Command::new(CORELLA).args(run_of("1", &["--micro-batch", "1"])).stdout(Stdio::null()).status();
    assert!(status.expect("starts").success());
    // 16,384 tokens at once: more than a second on a fast core.
    let mut command = Command::new(CORELLA);
    command.args(run_of("1000", &["--resume", "--micro-batch", "128", "--batch-tokens", "16384"]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let said = BufReader::new(child.stderr.take().expect("a pipe"));
    let events = || std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    wait_for(&mut child, "the update", || events().contains("resumed"));
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, "INT");
    let mut lines = said.lines().map(|line| line.expect("text"));
    let answer = lines.find(|line| line.contains("stopping after this micro-batch")).expect("an answer");
    assert!(answer.contains("again: at once"), "{answer}");
    signal(&child, "INT");
    assert_eq!(end_of(&mut child, "it goes on").code(), Some(STOPPED));
    assert!(!events().contains("stopped"), "it did not wait for the micro-batch: {}", events());
    assert_eq!(checkpoint_names(&run), ["step-00000001"]);
}
