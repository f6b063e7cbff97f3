//! A run that is killed at any moment loses at most the updates since its last checkpoint.
#![cfg(unix)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Folder, done, losses, signal, small_run, start, tiny_run};

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
        let begin = Instant::now();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = Duration::from_micros((seed >> 33) % 20_000);
        match kill % 3 {
            // While it starts, or soon after.
            0 => {}
            // Some updates after it went on.
            1 => wait_for(begin, || grows(&killed.join("log.jsonl"))),
            // While a checkpoint is half written, one of the next few.
            _ => {
                let first = newest_checkpoint(&killed) + 3 + seed % 9;
                wait_for(begin, || newest_checkpoint(&killed) >= first);
                wait_for(begin, || half_written(&killed));
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

fn wait_for(begin: Instant, mut condition: impl FnMut() -> bool) {
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the run does not get on");
    }
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

#[test]
fn sigterm_writes_a_checkpoint_and_the_run_goes_on_from_it() {
    let folder = Folder::new("term");
    let text = folder.text().display().to_string();
    let (whole, stopped) = (folder.join("whole"), folder.join("stopped"));
    done(&small_run(&text, &whole.display().to_string(), "400"));
    let out = stopped.display().to_string();
    let mut args = small_run(&text, &out, "400");
    let mut child = start(&args);
    while !stopped.join("log.jsonl").is_file() || losses(&stopped).len() < 10 {
        assert!(child.try_wait().expect("status").is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&child, "TERM");
    let status = child.wait().expect("ended");
    assert!(status.success(), "{status}");
    assert!(losses(&stopped).len() < losses(&whole).len(), "it was to stop before its end");
    args.push("--resume");
    done(&args);
    assert_eq!(losses(&whole), losses(&stopped));
}

#[test]
fn sigterm_in_an_update_of_minutes_is_answered_at_once_and_the_update_is_made_again() {
    let folder = Folder::new("term-long");
    let data = folder.data().display().to_string();
    let (whole, stopped) = (folder.join("whole"), folder.join("stopped"));
    let out = stopped.display().to_string();
    // 200,000 micro-batches in an update: about a minute on a fast core.
    let long = ["--batch-tokens", "6400000"];
    let mut child = start(&[tiny_run(&data, &out, "2"), long.to_vec()].concat());
    let begin = Instant::now();
    while !stopped.join("heartbeat.json").is_file() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the run does not start");
    }
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, "TERM");
    let asked = Instant::now();
    assert!(child.wait().expect("ended").success());
    assert!(asked.elapsed() < Duration::from_secs(20), "a machine that is taken away waits 30 seconds");
    assert_eq!(checkpoint_names(&stopped), ["step-00000000"]);
    let mut short = tiny_run(&data, &out, "6");
    short.push("--resume");
    done(&short);
    done(&tiny_run(&data, &whole.display().to_string(), "6"));
    assert_eq!(losses(&whole), losses(&stopped), "the half update left no trace");
}
