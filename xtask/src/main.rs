//! The project's own checks: `cargo xtask check`, and `cargo xtask kernels` for the CUDA kernels.
//!
//! Cheapest first: file sizes and the fence around `unsafe`, licences, format, clippy, documentation, fuzz targets, CUDA
//! kernels.

mod kernels;
mod licences;
mod tree;

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    match task.as_deref() {
        Some("check") => check(),
        Some("kernels") => exit_code(kernels::run(&std::env::args().nth(2).unwrap_or_default(), false)),
        _ => {
            eprintln!("usage: cargo xtask check, or cargo xtask kernels [NAME]");
            ExitCode::from(2)
        }
    }
}

/// A named check: what it is called, and what it found wrong.
type Check = (&'static str, fn() -> Result<(), String>);

fn check() -> ExitCode {
    let checks: [Check; 7] = [
        ("file sizes", tree::file_sizes),
        ("unsafe fence", tree::unsafe_fence),
        ("licences", licences::check),
        ("format", || cargo(&["fmt", "--all", "--check"], &[])),
        ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], &[])),
        ("docs", || cargo(&["doc", "--workspace", "--no-deps", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")])),
        ("fuzz targets", fuzz_targets),
    ];
    let mut failed = false;
    for (name, run) in checks {
        match run() {
            Ok(()) => println!("ok      {name}"),
            Err(why) => {
                println!("FAILED  {name}\n{why}");
                failed = true;
            }
        }
    }
    exit_code(kernels::run("", true) && !failed)
}

/// Lints the fuzz targets, a workspace of their own. Nothing is linked, so libFuzzer need not be built.
fn fuzz_targets() -> Result<(), String> {
    let place = ["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"];
    let flags = ["--bins", "--quiet", "--", "-D", "warnings"];
    cargo(&[&["clippy"], &place[..], &flags[..]].concat(), &[("CUSTOM_LIBFUZZER_PATH", "target/libfuzzer.a")])
}

fn exit_code(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs cargo with its output passed through.
fn cargo(args: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    let status = Command::new("cargo")
        .args(args)
        .envs(env.iter().copied())
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", args.join(" "))) }
}
