//! Broken and malicious model files: each gives the error that names its cause, without a large allocation. The numbers in
//! the tests' names are those of the rows of one list; what is wrong with tokenizers (L17) is tested where they are read.

mod configs;
mod gguf;
mod safetensors;
mod shards;
mod templates;

use std::path::PathBuf;

use corella_model::formats::{Cause, FormatError};

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("corella-hostile-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The cause of a refusal; the address space must not have grown by what a bad length asked for.
fn cause<T>(result: Result<T, FormatError>) -> Cause {
    let Err(error) = result else { panic!("a broken file was accepted") };
    assert!(!error.to_string().is_empty());
    if let Some(peak) = peak_address_space() {
        assert!(peak < 8 << 30, "{peak} bytes of address space");
    }
    error.cause
}

/// Most address space that this process ever had, where the system says so.
fn peak_address_space() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmPeak:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
