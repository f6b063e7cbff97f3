//! A run that is killed at any moment loses at most the updates since its last checkpoint.
#![cfg(unix)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{CORELLA, Folder, corella, done, losses, small_run, stderr};

fn start(args: &[&str]) -> Child {
    Command::new(CORELLA).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

fn terminate(child: &Child) {
    let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().expect("a shell");
    assert!(sent.success());
}

#[test]
fn killed_again_and_again_it_ends_with_the_losses_of_an_undisturbed_run() {
    let folder = Folder::new("kill");
    let text = folder.text();
    let (text, whole, killed) = (text.display().to_string(), folder.join("whole"), folder.join("killed"));
    done(&small_run(&text, &whole.display().to_string(), "1200"));

    let out = killed.display().to_string();
    let mut args = small_run(&text, &out, "1200");
    args.push("--resume");
    let mut kills = 0;
    // Moments spread over start, updates and checkpoint writes, the same in every test run.
    for attempt in 0..30u64 {
        let mut child = start(&args);
        let longer = if attempt % 5 == 4 { 250 } else { 0 };
        std::thread::sleep(Duration::from_millis(20 + attempt * 7919 % 130 + longer));
        if child.try_wait().expect("status").is_none() {
            child.kill().expect("killed");
            kills += 1;
        }
        child.wait().expect("ended");
    }
    assert!(kills > 10, "only {kills} runs were still alive when they were to be killed");
    let before = losses(&killed).len();
    assert!(before >= 3, "the kills were to fall behind the first checkpoint, not at update {before}");
    done(&args);
    assert_eq!(losses(&whole), losses(&killed));
}

#[test]
fn sigterm_writes_a_checkpoint_and_the_run_goes_on_from_it() {
    let folder = Folder::new("term");
    let text = folder.text().display().to_string();
    let (whole, stopped) = (folder.join("whole"), folder.join("stopped"));
    done(&small_run(&text, &whole.display().to_string(), "400"));
    let out = stopped.display().to_string();
    let mut args = small_run(&text, &out, "400");
    args.extend(["--checkpoint-every", "0"]);
    // The later of two equal flags wins nowhere: leave the first out.
    let first = args.iter().position(|a| *a == "--checkpoint-every").expect("a flag");
    args.drain(first..first + 2);
    let mut child = start(&args);
    while !stopped.join("log.jsonl").is_file() || losses(&stopped).len() < 10 {
        assert!(child.try_wait().expect("status").is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    terminate(&child);
    let status = child.wait().expect("ended");
    assert!(status.success(), "{status}");
    let seen = losses(&stopped).len();
    assert!(seen < losses(&whole).len(), "it was to stop before its end");
    let checkpoints = std::fs::read_dir(stopped.join("checkpoints")).expect("a folder").count();
    assert_eq!(checkpoints, 1);
    args.push("--resume");
    done(&args);
    assert_eq!(losses(&whole), losses(&stopped));
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let folder = Folder::new("lock");
    let text = folder.text().display().to_string();
    let out = folder.join("run").display().to_string();
    let args = small_run(&text, &out, "100000");
    let mut child = start(&args);
    while !folder.join("run/log.jsonl").is_file() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = corella(&[args.clone(), vec!["--resume"]].concat());
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(second.status.code(), Some(1));
    let message = stderr(&second);
    assert!(message.contains("in use by another process") && message.contains("hint:"), "{message}");
}

#[test]
fn a_disk_that_takes_no_more_leaves_the_checkpoint_before() {
    let folder = Folder::new("full");
    let text = folder.text().display().to_string();
    let out = folder.join("run").display().to_string();
    done(&small_run(&text, &out, "6"));
    let mut args = small_run(&text, &out, "30");
    args.push("--resume");
    // A limit on the size of files stands for a full disk: the write fails in the middle of the weights.
    let script = format!("trap '' XFSZ; ulimit -f 40; exec {CORELLA} {}", args.join(" "));
    let limited = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert_eq!(limited.status.code(), Some(1));
    let message = stderr(&limited);
    assert!(message.contains("safetensors") && message.contains("hint: make room"), "{message}");
    done(&["generate", &out, "-p", "The red fox", "--max-tokens", "5"]);
    done(&args);
}
