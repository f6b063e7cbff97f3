//! Damaged and missing CUDA libraries: a message with a way out, never a crash.

mod common;

use std::path::Path;
use std::process::Command;

use common::{CORELLA, Folder};

/// A driver of a few functions, none of which a card answers.
const DRIVER: &str = "int cuInit(unsigned flags) { (void)flags; return 100; }\n";

/// `libcuda.so.1` with a text of C in it; false, with a message, where there is no compiler.
fn driver(dir: &Path) -> bool {
    let source = dir.join("driver.c");
    std::fs::write(&source, DRIVER).expect("a file");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(dir.join("libcuda.so.1")).arg(&source).status();
    match compiled {
        Ok(status) if status.success() => {
            // Found under either name before a real driver is.
            std::fs::copy(dir.join("libcuda.so.1"), dir.join("libcuda.so")).expect("a copy");
            true
        }
        _ => {
            println!("skipped: no C compiler");
            false
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_driver_without_its_functions_is_an_error_with_a_hint() {
    let dir = Folder::new("stub-driver");
    if !driver(&dir.0) {
        return;
    }
    let run = |args: &[&str]| {
        let out = Command::new(CORELLA).args(args).env("LD_LIBRARY_PATH", &dir.0).output().expect("the program starts");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    };
    let (code, text) = run(&["doctor"]);
    assert!(code == Some(0) && text.contains("libcuda.so has no function"), "{text}");
    let (code, text) = run(&["train", "nothing.txt", "--device", "cuda"]);
    assert!(code == Some(1) && text.contains("has no function") && text.contains("hint:"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// What the folder holds in which the program is started is not the user's environment: nothing of it runs.
#[cfg(target_os = "linux")]
#[test]
fn libraries_of_an_environment_that_only_lies_there_do_not_run() {
    let dir = Folder::new("stray-environment");
    let lib = dir.0.join(".venv/lib/python3.12/site-packages/nvidia/cuda/lib");
    std::fs::create_dir_all(&lib).expect("a folder");
    let (source, ran) = (dir.0.join("library.c"), dir.0.join("ran"));
    let text = "#include <fcntl.h>\n__attribute__((constructor)) static void run(void) { creat(\"ran\", 0600); }\n";
    std::fs::write(&source, text).expect("a file");
    let library = lib.join("libcuda.so.1");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler");
        return;
    }
    for name in ["libnvrtc.so.12", "libnvrtc-builtins.so.12", "libcublasLt.so.12"] {
        std::fs::copy(&library, lib.join(name)).expect("a copy");
    }
    for environment in [None, Some(".venv")] {
        let mut doctor = Command::new(CORELLA);
        doctor
            .args(["doctor", "--device", "auto"])
            .current_dir(&dir.0)
            .env_remove("VIRTUAL_ENV")
            .env_remove("CONDA_PREFIX");
        if let Some(path) = environment {
            doctor.env("VIRTUAL_ENV", path);
        }
        let out = doctor.output().expect("the program starts");
        assert!(out.status.success() && !ran.exists(), "{environment:?}: {}", String::from_utf8_lossy(&out.stdout));
    }
}
