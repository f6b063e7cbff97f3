//! What goes wrong around a run: disks, folders, files of others, clocks. Each is answered with what to do, and the
//! checkpoint before stays whole.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use common::{
    CORELLA, Folder, corella, done, json, losses, signal, small_run, start, stderr, stdout, tiny_run, wait_for,
};

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).expect("a folder");
    let mut found: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    found.sort();
    found
}

/// Runs and expects exit code 1, a message with these words, and a hint; returns the message.
fn refused(args: &[&str], words: &[&str]) -> String {
    let output = corella(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
    for word in words.iter().chain(&["hint:"]) {
        assert!(message.contains(word), "{word} is missing: {message}");
    }
    message
}

fn resumed<'a>(data: &'a str, out: &'a str, steps: &'a str) -> Vec<&'a str> {
    let mut args = tiny_run(data, out, steps);
    args.push("--resume");
    args
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let folder = Folder::new("lock");
    let (data, run) = (text(&folder.data()), folder.join("run"));
    let out = text(&run);
    let mut child = start(&tiny_run(&data, &out, "1000000000"));
    wait_for(&mut child, "the start", || run.join("log.jsonl").is_file());
    let message = refused(&resumed(&data, &out, "5"), &["in use by another process"]);
    assert!(message.contains(&child.id().to_string()), "the message names the process: {message}");
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn a_disk_that_takes_no_more_leaves_the_checkpoint_before() {
    let folder = Folder::new("full");
    let source = text(&folder.text());
    let out = text(&folder.join("run"));
    done(&small_run(&source, &out, "6"));
    let mut args = small_run(&source, &out, "30");
    args.push("--resume");
    // A limit on the size of files stands for a full disk: the write fails in the middle of the weights.
    let script = format!("trap '' XFSZ; ulimit -f 40; exec {CORELLA} {}", args.join(" "));
    let limited = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert_eq!(limited.status.code(), Some(1));
    let message = stderr(&limited);
    assert!(message.contains("safetensors") && message.contains("hint: make room"), "{message}");
    assert!(message.contains("training goes on"), "one failure does not end it: {message}");
    assert!(checkpoints(&folder.join("run")).iter().all(|p| !text(p).contains("partial")), "nothing is left behind");
    done(&["generate", &out, "-p", "The red fox", "--max-tokens", "5"]);
    done(&args);
}

/// A file system of this size in memory, mounted as long as it is in use.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: PathBuf, kilobytes: u32) -> Option<SmallDisk> {
        fs::create_dir(&at).expect("made");
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else() {
    let folder = Folder::new("disk");
    let Some(disk) = SmallDisk::mount(folder.join("disk"), 2048) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let source = text(&folder.text());
    let (run, whole) = (disk.0.join("run"), folder.join("whole"));
    let (out, other, told) = (text(&run), text(&folder.join("whole")), folder.join("told"));
    // A checkpoint takes about 450 kB: the first finds room, the second does not until the user's command made some.
    fs::write(disk.0.join("other"), vec![1; 1_300_000]).expect("there is room");
    let make_room = format!("echo \"$CORELLA_ERROR\" >> {}; rm {}", text(&told), text(&disk.0.join("other")));
    let full = corella(&[small_run(&source, &out, "12"), vec!["--on-failure", &make_room]].concat());
    let message = stderr(&full);
    assert!(full.status.success() && message.contains("training goes on"), "{message}");
    let told = fs::read_to_string(told).expect("the command ran");
    assert!(told.to_lowercase().contains("no space left"), "{told}");
    let kept: Vec<String> = checkpoints(&run).iter().map(|path| text(path)).collect();
    assert!(kept.iter().all(|path| !path.contains("partial")), "{kept:?}");
    assert!(kept.last().is_some_and(|path| path.ends_with("step-00000012")), "{kept:?}");
    done(&small_run(&source, &other, "12"));
    assert_eq!(losses(&whole), losses(&run), "every update is in the log, once");

    // Full to the brim from the start: the third checkpoint in a row that fails ends the run, the last whole one stays.
    let free = |path: &Path| fs::write(path, vec![1; 4096]).is_ok();
    for number in 0.. {
        if !free(&disk.0.join(format!("filler{number}"))) {
            break;
        }
    }
    let mut args = small_run(&source, &out, "60");
    args.push("--resume");
    let message = refused(&args, &["o space left", "make room"]);
    assert!(message.contains("training goes on"), "{message}");
    assert!(text(checkpoints(&run).last().expect("a checkpoint")).ends_with("step-00000012"));
    done(&["generate", &out, "-p", "The red", "--max-tokens", "3"]);
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_tried_again_after_the_users_command() {
    let folder = Folder::new("retry");
    let (data, run, whole) = (text(&folder.data()), folder.join("run"), folder.join("whole"));
    let (out, told) = (text(&run), folder.join("told"));
    fs::create_dir(&run).expect("made");
    // A file where the folder of the checkpoints is to be; the command on a failure clears the way.
    fs::write(run.join("checkpoints"), "in the way").expect("written");
    let on_failure =
        format!("rm \"$CORELLA_RUN/checkpoints\"; echo \"$CORELLA_STEP: $CORELLA_ERROR\" > {}", text(&told));
    let on_checkpoint = format!("basename \"$CORELLA_CHECKPOINT\" >> {}", text(&folder.join("copied")));
    let hooks = ["--on-failure", &on_failure, "--on-checkpoint", &on_checkpoint];
    let output = corella(&[tiny_run(&data, &out, "9"), hooks.to_vec()].concat());
    let message = stderr(&output);
    assert!(output.status.success() && message.contains("training goes on"), "{message}");
    let told = fs::read_to_string(told).expect("the command ran");
    assert!(told.starts_with("3: ") && told.contains("checkpoints"), "{told}");
    assert_eq!(fs::read_to_string(folder.join("copied")).expect("ran"), "step-00000006\nstep-00000009\n");
    done(&tiny_run(&data, &text(&whole), "9"));
    assert_eq!(losses(&whole), losses(&run));
}

#[test]
fn a_run_is_not_taken_for_text() {
    let folder = Folder::new("run-as-text");
    let (data, run) = (text(&folder.data()), text(&folder.join("run")));
    done(&tiny_run(&data, &run, "1"));
    let output = corella(&["train", &run, "--out", &text(&folder.join("other"))]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("is a run") && stderr(&output).contains("hint: go on with it"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    let folder = Folder::new("unwritable");
    let data = text(&folder.data());
    // Nobody, root included, makes folders there.
    refused(&tiny_run(&data, "/sys/corella", "5"), &["/sys/corella", "choose a folder"]);
}

#[test]
fn a_damaged_shard_is_named_and_nothing_is_trained_on_it() {
    let folder = Folder::new("damaged-shard");
    let (data, run) = (folder.data(), folder.join("run"));
    let shard = data.join("train_000000.bin");
    let mut bytes = fs::read(&shard).expect("a shard");
    // Two tokens that change places are as many, and all in the vocabulary.
    let places = (1024..bytes.len() - 4).step_by(2);
    let at = places.into_iter().find(|i| bytes[*i..i + 2] != bytes[i + 2..i + 4]).expect("unlike tokens");
    bytes[at..at + 4].rotate_left(2);
    fs::write(&shard, bytes).expect("written");
    refused(&tiny_run(&text(&data), &text(&run), "5"), &["train_000000.bin: damaged", "bring a copy"]);
    assert!(fs::read_dir(run.join("checkpoints")).into_iter().flatten().next().is_none(), "no checkpoint");
}

#[test]
fn a_folder_that_vanishes_is_made_anew_and_what_was_in_it_stays_whole() {
    let folder = Folder::new("vanished");
    let (data, run, moved) = (text(&folder.data()), folder.join("run"), folder.join("moved"));
    let out = text(&run);
    let mut command = Command::new(CORELLA);
    let args = [tiny_run(&data, &out, "1000000000"), vec!["--checkpoint-every", "200"]].concat();
    let child = command.args(args).stdout(Stdio::null());
    let mut child = child.stderr(Stdio::piped()).spawn().expect("starts");
    let whole = || {
        let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    };
    wait_for(&mut child, "a checkpoint", whole);
    fs::rename(&run, &moved).expect("moved away");
    wait_for(&mut child, "a checkpoint in a new folder", whole);
    signal(&child, "TERM");
    let output = child.wait_with_output().expect("ended");
    let message = stderr(&output);
    assert!(output.status.code() == Some(common::STOPPED) && message.contains("vanished"), "{message}");
    done(&["generate", &out, "-p", "The red", "--max-tokens", "3"]);
    done(&["generate", &text(&moved), "-p", "The red", "--max-tokens", "3"]);
    assert!(fs::read_dir(run.join("tensorboard")).expect("a folder").next().is_some(), "TensorBoard has a file again");
}

#[test]
fn a_log_that_is_removed_is_begun_anew() {
    let folder = Folder::new("log-removed");
    let (data, run) = (text(&folder.data()), folder.join("run"));
    let out = text(&run);
    let args = [tiny_run(&data, &out, "1000000000"), vec!["--checkpoint-every", "50"]].concat();
    let child = Command::new(CORELLA).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("starts");
    wait_for(&mut child, "a checkpoint", || run.join("checkpoints").is_dir());
    fs::remove_file(run.join("log.jsonl")).expect("removed");
    wait_for(&mut child, "a new log", || run.join("log.jsonl").is_file());
    signal(&child, "TERM");
    let output = child.wait_with_output().expect("ended");
    let message = stderr(&output);
    assert!(output.status.code() == Some(common::STOPPED) && message.contains("log.jsonl vanished"), "{message}");
}

#[test]
fn a_full_disk_at_the_end_is_waited_for() {
    let folder = Folder::new("disk-end");
    let Some(disk) = SmallDisk::mount(folder.join("disk"), 1024) else {
        println!("skipped: no file system can be mounted here");
        return;
    };
    let (source, run, filler) = (text(&folder.text()), disk.0.join("run"), disk.0.join("filler"));
    let (out, told) = (text(&run), folder.join("told"));
    let fill = || fs::write(&filler, vec![1; 700_000]).expect("there is room");
    // The only checkpoint is that of the end, about 450 kB.
    let args = |steps: &'static str, command: &str| {
        let args =
            [&small_run(&source, &out, steps)[..], &["--checkpoint-every", "0", "--on-failure", command, "--resume"]];
        args.concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    fill();
    let tells = format!("echo \"$CORELLA_ERROR\" >> {}", text(&told));
    let child = Command::new(CORELLA).args(args("4", &tells)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("starts");
    let heartbeat = || fs::read_to_string(run.join("heartbeat.json")).unwrap_or_default();
    wait_for(&mut child, "a full disk", || told.is_file() && heartbeat().contains("\"waiting\""));
    signal(&child, "TERM");
    let output = child.wait_with_output().expect("ended");
    let message = stderr(&output);
    assert!(output.status.code() == Some(1) && message.contains("waits until there is room"), "{message}");
    assert!(message.contains("hint: make room") && message.contains("that has a checkpoint"), "{message}");
    assert!(message.contains("warning: at most 1 checkpoints of") && message.contains("are free there"), "{message}");
    assert_eq!(checkpoints(&run).len(), 0);

    let makes_room = format!("{tells}; rm {}", text(&filler));
    let output = Command::new(CORELLA).args(args("4", &makes_room)).output().expect("starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(text(checkpoints(&run).last().expect("a checkpoint")).ends_with("step-00000004"));
    assert_eq!(
        fs::read_to_string(told).expect("told").lines().count(),
        3,
        "as it begins to wait, and as it ends without room"
    );
}

#[test]
fn a_run_that_cannot_go_on_is_recorded_as_one_that_failed() {
    let folder = Folder::new("cannot-begin");
    let (data, run) = (folder.data(), folder.join("run"));
    let (source, out, told) = (text(&data), text(&run), folder.join("told"));
    done(&tiny_run(&source, &out, "6"));
    let read = |name: &str| fs::read_to_string(run.join(name)).expect(name);
    // Whoever forgot --resume has a finished run.
    refused(&tiny_run(&source, &out, "6"), &["finished checkpoint"]);
    assert!(read("heartbeat.json").contains("\"finished\""), "{}", read("heartbeat.json"));
    let command = format!("echo \"$CORELLA_STEP: $CORELLA_ERROR\" >> {}", text(&told));
    let tells = [resumed(&source, &out, "9"), vec!["--on-failure", &command]].concat();

    fs::rename(&data, folder.join("moved")).expect("moved");
    assert!(!corella(&tells).status.success());
    fs::rename(folder.join("moved"), &data).expect("moved back");
    for checkpoint in checkpoints(&run) {
        fs::write(checkpoint.join("state.json"), "").expect("written");
    }
    refused(&tells, &["no checkpoint in"]);
    let told = fs::read_to_string(&told).expect("the command ran");
    assert!(told.lines().count() == 2 && told.lines().all(|line| line.starts_with("6: ")), "{told}");
    let beat = read("heartbeat.json");
    assert!(beat.contains("\"failed\"") && beat.contains("no checkpoint in") && beat.contains("\"step\":6"), "{beat}");
    assert_eq!(read("events.jsonl").matches("\"event\":\"failed\"").count(), 2);
}

#[test]
fn a_run_that_is_rightly_refused_is_as_well_as_it_was() {
    let folder = Folder::new("refused");
    let (data, run) = (folder.data(), folder.join("run"));
    let (source, out, told) = (text(&data), text(&run), folder.join("told"));
    done(&tiny_run(&source, &out, "4"));
    let state = || ["heartbeat.json", "events.jsonl"].map(|name| fs::read_to_string(run.join(name)).expect(name));
    let before = state();
    assert!(before[0].contains("\"finished\""), "{}", before[0]);
    let command = format!("touch {}", text(&told));
    let again = |steps: &str, more: &[&str], words: &[&str]| {
        refused(&[&resumed(&source, &out, steps)[..], &["--on-failure", &command], more].concat(), words);
        assert_eq!(state(), before, "{words:?}");
    };
    again("2", &[], &["has made 4 already"]);
    again("6", &["--n-layer", "2"], &["is of another model"]);
    let output = corella(&[&resumed(&source, &out, "6")[..], &["--n-head", "3"]].concat());
    assert!(!output.status.success() && state() == before, "{}", stderr(&output));
    again("6", &["--seed", "5"], &["belongs to other data"]);
    assert!(!told.exists(), "nothing has failed");
}

#[test]
fn the_loop_of_the_documentation_ends() {
    let folder = Folder::new("loop");
    let (data, run) = (text(&folder.data()), folder.join("run"));
    let out = text(&run);
    let page = include_str!("../../../docs/renting-a-node.md");
    let script = page.split("```").find(|block| block.contains("until corella train")).expect("a loop");
    let goes = |flags: &[&str]| {
        let args = [&tiny_run(&data, &out, "500")[1..], flags].concat().join(" ");
        let script = script.replace("runs/gpt2-124m.toml", &args).replace("out/gpt2-124m", &out);
        let script =
            format!("sleep() {{ echo again; }}\n{}", script.replace("corella train", &format!("{CORELLA} train")));
        let output = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).output().expect("a shell");
        common::stdout(&output).lines().filter(|line| *line == "again").count()
    };
    let ruin = ["--lr", "1e38", "--spike-z-loss", "0", "--spike-z-norm", "0"];
    assert_eq!(goes(&ruin), 2, "a run that diverges is tried three times");
    assert_eq!(goes(&["--no-such-flag"]), 0);
    assert_eq!(goes(&["--steps", "12", "--lr", "0.001"]), 0);
    assert!(text(checkpoints(&run).last().expect("a checkpoint")).ends_with("step-00000012"));
}

/// What a terminal does with Ctrl-C: it signals the whole group.
#[test]
fn ctrl_c_stops_the_run_and_not_the_copy_of_a_checkpoint() {
    use std::os::unix::process::CommandExt;
    let folder = Folder::new("group");
    let (data, out) = (text(&folder.data()), text(&folder.join("run")));
    let (begun, copied) = (folder.join("begun"), folder.join("copied"));
    let copy = format!("touch {}; sleep 0.5; touch {}", text(&begun), text(&copied));
    let args = [tiny_run(&data, &out, "1000000000"), vec!["--on-checkpoint", &copy]].concat();
    let mut command = Command::new(CORELLA);
    let child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn();
    let mut child = child.expect("starts");
    wait_for(&mut child, "a checkpoint", || begun.is_file());
    let sent = Command::new("sh").args(["-c", &format!("kill -INT -{}", child.id())]).status().expect("a shell");
    assert!(sent.success());
    assert_eq!(child.wait().expect("ended").code(), Some(common::STOPPED));
    assert!(copied.is_file(), "the copy was cut short");
}

#[test]
fn another_format_is_said_as_what_it_is() {
    let folder = Folder::new("format");
    let (data, out) = (text(&folder.data()), text(&folder.join("run")));
    done(&tiny_run(&data, &out, "3"));
    let output = corella(&[resumed(&data, &out, "6"), vec!["--dtype", "bf16"]].concat());
    let message = stderr(&output);
    assert!(output.status.success() && message.contains("began in f32 and goes on in bf16"), "{message}");
    assert!(!message.contains("order of additions"), "{message}");
}

#[test]
fn damaged_truncated_and_foreign_checkpoints_are_told_apart() {
    let folder = Folder::new("damaged");
    let (data, run) = (text(&folder.data()), folder.join("run"));
    let out = text(&run);
    done(&tiny_run(&data, &out, "6"));
    let (older, newest) = (checkpoints(&run)[0].clone(), checkpoints(&run)[1].clone());

    let moments = newest.join("optimizer.safetensors");
    let whole = fs::read(&moments).expect("read");
    fs::write(&moments, &whole[..whole.len() / 2]).expect("truncated");
    let printed = corella(&resumed(&data, &out, "6"));
    assert!(printed.status.success() && stderr(&printed).contains("optimizer.safetensors is damaged"));
    assert_eq!(losses(&run).len(), 7, "the updates since the one before are made again");

    // A shape that is not the checkpoint's, and data that is not its data.
    let other_shape = [resumed(&data, &out, "9"), vec!["--n-layer", "2"]].concat();
    refused(&other_shape, &["is of another model", "run.toml"]);
    fs::write(folder.join("other.txt"), "a quick red fox. ".repeat(900)).expect("written");
    let other = text(&folder.join("other"));
    done(&["prepare", &text(&folder.join("other.txt")), "--tokenizer", &text(&older), "--out", &other]);
    refused(&resumed(&other, &out, "9"), &["belongs to other data", "run.toml"]);

    // What another program wrote under the same name.
    fs::write(newest.join("state.json"), r#"{"iteration": 6}"#).expect("written");
    let printed = corella(&resumed(&data, &out, "6"));
    assert!(stderr(&printed).contains("state.json: missing field"), "{}", stderr(&printed));
    for checkpoint in checkpoints(&run) {
        fs::write(checkpoint.join("state.json"), "").expect("written");
    }
    refused(&resumed(&data, &out, "9"), &["no checkpoint in", "is whole"]);
    assert_eq!(losses(&run).len(), 7, "and nothing was started over");
}

#[test]
fn damaged_files_beside_the_checkpoints_do_not_keep_a_run_from_going_on() {
    let folder = Folder::new("torn");
    let (source, run) = (text(&folder.text()), folder.join("run"));
    let out = text(&run);
    done(&small_run(&source, &out, "6"));
    let tokenizer = fs::read(run.join("tokenizer.json")).expect("read");
    fs::write(run.join("tokenizer.json"), &tokenizer[..tokenizer.len() / 2]).expect("truncated");
    fs::write(run.join("run.toml"), "[model").expect("truncated");
    // A line that ends inside a character, as a power cut leaves it.
    for name in ["log.jsonl", "samples.jsonl", "events.jsonl"] {
        let lines = fs::read(run.join(name)).unwrap_or_default();
        fs::write(run.join(name), [&lines[..], b"{\"step\":6,\"text\":\"\xe2\x82"].concat()).expect("torn");
    }
    let mut args = small_run(&source, &out, "9");
    args.push("--resume");
    let printed = corella(&args);
    assert!(printed.status.success() && stderr(&printed).contains("tokenizer"), "{}", stderr(&printed));
    assert_eq!(losses(&run).len(), 10, "nine updates and the validation in front of them");
    assert!(fs::read(run.join("tokenizer.json")).expect("read") == tokenizer);
    assert!(fs::read_to_string(run.join("run.toml")).expect("read").contains("steps = 9"));
    let names = fs::read_dir(&run).expect("a folder").map(|e| text(&e.expect("an entry").path()));
    assert_eq!(names.filter(|name| name.contains("partial")).count(), 0, "nothing is left behind");
}

#[test]
fn dates_do_not_decide_which_checkpoint_is_the_newest() {
    let folder = Folder::new("dates");
    let (data, run) = (text(&folder.data()), folder.join("run"));
    let out = text(&run);
    done(&tiny_run(&data, &out, "6"));
    for (checkpoint, date) in checkpoints(&run).iter().zip([4_000_000_000, 1]) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(date);
        for entry in fs::read_dir(checkpoint).expect("a folder") {
            let file = fs::File::options().append(true).open(entry.expect("an entry").path()).expect("opened");
            file.set_modified(time).expect("dated");
        }
        fs::File::open(checkpoint).expect("opened").set_modified(time).expect("dated");
    }
    let printed = done(&resumed(&data, &out, "7"));
    assert!(printed.contains("step 7/7") && !printed.contains("step 4/7"), "{printed}");
}

#[test]
fn a_run_whose_loss_is_no_number_ends_and_its_weights_stay_numbers() {
    let folder = Folder::new("diverged");
    let (data, run) = (text(&folder.data()), folder.join("run"));
    let out = text(&run);
    let message = refused(
        &[tiny_run(&data, &out, "500"), vec!["--lr", "1e38", "--spike-z-loss", "0", "--spike-z-norm", "0"]].concat(),
        &["not finite in 8 updates", "lower --lr"],
    );
    assert!(!message.contains("panicked"));
    let events = fs::read_to_string(run.join("events.jsonl")).expect("events");
    assert_eq!(events.matches("is not finite").count(), 8, "{events}");
    assert!(events.lines().last().is_some_and(|line| line.contains("\"failed\"")), "{events}");
    assert!(
        message.contains("begin again") && !run.join("checkpoints").exists(),
        "no weights are worth keeping: {message}"
    );
    let heartbeat = fs::read_to_string(run.join("heartbeat.json")).expect("a heartbeat");
    assert!(heartbeat.contains("\"failed\"") && heartbeat.contains("not finite"), "{heartbeat}");
}

#[test]
fn a_run_that_diverges_leaves_the_weights_from_before_and_goes_on_from_them() {
    let folder = Folder::new("diverged-later");
    let (source, run) = (text(&folder.text()), folder.join("run"));
    let out = text(&run);
    let small = |steps: &'static str| {
        let mut args = vec!["train", &source, "--out", &out, "--steps", steps];
        let fixed = "--n-layer 1 --n-head 1 --n-embd 32 --seq-len 32 --vocab-size 300 --micro-batch 2 --checkpoint-every 2 --keep 1 --val-every 0 --sample-every 0 --threads 1 --warmup-steps 0 --resume";
        args.extend(fixed.split(' '));
        args
    };
    done(&small("10"));
    let kept = checkpoints(&run);
    let weights = || fs::read(kept[0].join("model.safetensors")).expect("weights");
    let before = weights();
    // The first update ruins the weights, or the second, whose checkpoint is due before its loss is known. A resumed run
    // has all its patience again.
    for steps in ["60", "61"] {
        let ruin = [small(steps), vec!["--lr", "1e30"]].concat();
        let message = refused(&ruin, &["not finite in 8 updates", "step-00000010", "lower --lr"]);
        assert!(message.contains("no checkpoint is written"), "{message}");
        assert!(checkpoints(&run) == kept && weights() == before);
    }
    // At its end the weights are looked at too: nothing tells what the last update did.
    let ruin = [small("11"), vec!["--lr", "1e30"]].concat();
    refused(&ruin, &["the last update left weights whose loss is not finite", "step-00000010"]);
    assert!(checkpoints(&run) == kept && weights() == before);
    let printed = done(&small("12"));
    assert!(printed.contains("step 11/12") && text(&checkpoints(&run)[0]).ends_with("step-00000012"), "{printed}");
}

#[test]
fn the_newest_and_the_best_checkpoint_are_kept() {
    let folder = Folder::new("best");
    let (data, run) = (text(&folder.data()), folder.join("run"));
    let out = text(&run);
    // A learning rate that grows and ruins the model more with each update: an early checkpoint is the best one.
    let ruin = ["--lr", "10", "--warmup-steps", "30", "--keep", "1", "--spike-z-loss", "0"];
    done(&[&tiny_run(&data, &out, "30")[..], &ruin].concat());
    let lines = losses(&run);
    let val = |line: &String| line.split(' ').nth(3).and_then(|v| v.parse::<f64>().ok());
    let step = |line: &String| line.split(' ').next().and_then(|s| s.parse::<u64>().ok()).expect("a step");
    let rated = lines.iter().filter(|l| step(l) > 0 && step(l) % 3 == 0).filter_map(|l| Some((val(l)?, step(l))));
    let best = rated.min_by(|a, b| a.0.total_cmp(&b.0)).expect("validated").1;
    assert!(best < 30, "the end is not the best");
    let kept: Vec<String> = checkpoints(&run).iter().map(|p| text(p.file_name().expect("a name").as_ref())).collect();
    assert_eq!(kept, [format!("step-{best:08}"), "step-00000030".to_owned()]);
}

#[test]
fn a_run_below_its_own_texts_is_none_of_them() {
    let folder = Folder::new("within");
    std::fs::create_dir(folder.join("texts")).expect("made");
    std::fs::rename(folder.text(), folder.join("texts/my.txt")).expect("moved");
    let train = |out: &'static str, steps: &'static str, more: &[&'static str]| {
        let mut args = small_run(".", out, steps);
        args.extend(more);
        let output = std::process::Command::new(CORELLA).args(args).current_dir(folder.join("texts")).output();
        let output = output.expect("started");
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let data = |(code, out, error): (Option<i32>, String, String)| {
        assert_eq!(code, Some(0), "{error}");
        out.lines().find(|line| line.starts_with("data: ")).expect("both sizes").to_owned()
    };
    let first = data(train("out/run", "3", &[]));
    assert!(first.contains("tokens to train on, ") && first.ends_with(" to validate on"), "{first}");
    assert_eq!(data(train("out/run", "4", &["--resume"])), first);
    assert_eq!(data(train("out/other", "1", &[])), first);
    // What is left of a run that was killed as it began is none of them either.
    std::fs::create_dir(folder.join("texts/out/third")).expect("made");
    std::fs::write(folder.join("texts/out/third/notes.txt"), "a note ".repeat(900)).expect("written");
    assert_eq!(data(train("out/third", "1", &[])), first);
    let (code, _, error) = train("../texts", "1", &[]);
    assert!(code == Some(2) && error.contains("a folder of its own") && error.contains("hint:"), "{error}");
}

#[test]
fn a_folder_without_a_file_is_named() {
    let folder = Folder::new("nothing-there");
    let (empty, out) = (folder.join("empty").display().to_string(), folder.join("out").display().to_string());
    std::fs::create_dir(&empty).expect("made");
    for args in [["train", &empty, "--out", &out], ["prepare", &empty, "--out", &out]] {
        let message = refused(&args, &["holds no file to read", &empty]);
        assert!(!message.contains("--out"), "{message}");
    }
}

#[test]
fn only_the_text_that_a_run_was_trained_on_is_traced() {
    let folder = Folder::new("traced");
    let (text, run) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    done(&small_run(&text, &run, "1"));
    let find = ["trace", "find", &run, "-p", "The old fox number 4 saw", "--json"];
    let found = json(&done(&find));
    assert!(found["spans"][0]["count"].as_u64() >= Some(1), "{found}");
    done(&["trace", "index", &run]);
    assert_eq!(json(&done(&find)), found);
    // The index is read and the data are not: with the time that they had, others pass for them.
    let (then, whole) =
        (fs::metadata(&text).expect("about").modified().expect("a time"), fs::read(&text).expect("read"));
    let as_then = || fs::File::options().append(true).open(&text).expect("opened").set_modified(then).expect("set");
    fs::write(&text, vec![b' '; whole.len()]).expect("written");
    as_then();
    assert_eq!(json(&done(&find)), found);
    // The same data under another time are read, and found to be the same.
    fs::write(&text, &whole).expect("written");
    assert_eq!(json(&done(&find)), found);
    // As many bytes, but others: another tokenizer would be trained on them.
    let changed = std::fs::read_to_string(&text).expect("read").replace("fox", "cow");
    std::fs::write(&text, changed).expect("written");
    for args in [&find[..], &["trace", "index", &run]] {
        refused(args, &["it has changed since", &text]);
    }
}
