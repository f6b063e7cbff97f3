//! Puts the commit into `corella --version`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    let output = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output().ok();
    let commit = output.filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    // Built from an archive without git there is no commit to name.
    println!("cargo::rustc-env=CORELLA_COMMIT={}", commit.as_deref().map_or("unknown commit", str::trim));
}
