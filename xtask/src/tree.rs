//! What the source tree must look like: short files, and `unsafe` only behind its fence.

use std::path::{Path, PathBuf};

/// No file may be longer.
const HARD_CAP: usize = 800;
/// Half of the files must be shorter.
const MEDIAN_CAP: usize = 250;
/// The crates that may contain `unsafe`, each block argued.
const UNSAFE_ALLOWED: [&str; 2] = ["crates/corella-ops/", "crates/corella-cuda/"];

/// Endings of what people write and read as code: Rust, kernels, pages, scripts.
const WRITTEN: [&str; 8] = ["rs", "cu", "cuh", "js", "css", "html", "py", "sh"];
/// Where it lies.
const ROOTS: [&str; 5] = ["crates", "fixtures", "fuzz", "scripts", "xtask"];

/// Every file below a folder whose name ends in one of `endings`, with its text.
fn sources(root: &Path, endings: &[&str]) -> Result<Vec<(PathBuf, String)>, String> {
    let mut found = Vec::new();
    for below in ROOTS {
        walk(&root.join(below), endings, &mut found)?;
    }
    Ok(found)
}

fn walk(dir: &Path, endings: &[&str], found: &mut Vec<(PathBuf, String)>) -> Result<(), String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.is_dir() {
            // What builds leave behind.
            if path.file_name().is_none_or(|name| name != "target") {
                walk(&path, endings, found)?;
            }
        } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            found.push((path, text));
        }
    }
    Ok(())
}

/// One concept per file: none over [`HARD_CAP`] lines, the median at most [`MEDIAN_CAP`].
pub fn file_sizes() -> Result<(), String> {
    sizes_below(Path::new(""))
}

fn sizes_below(root: &Path) -> Result<(), String> {
    let mut sizes: Vec<(usize, PathBuf)> =
        sources(root, &WRITTEN)?.into_iter().map(|(p, t)| (t.lines().count(), p)).collect();
    sizes.sort();
    let median = sizes.get(sizes.len() / 2).map_or(0, |s| s.0);
    let mut wrong: Vec<String> = sizes
        .iter()
        .filter(|(lines, _)| *lines > HARD_CAP)
        .map(|(lines, path)| format!("  {}: {lines} lines, at most {HARD_CAP}", path.display()))
        .collect();
    if median > MEDIAN_CAP {
        wrong.push(format!("  the median file has {median} lines, at most {MEDIAN_CAP}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// `unsafe` code appears in the allowed crates only.
pub fn unsafe_fence() -> Result<(), String> {
    let wrong: Vec<String> = sources(Path::new(""), &["rs"])?
        .iter()
        .filter(|(path, _)| !UNSAFE_ALLOWED.iter().any(|allowed| path.starts_with(allowed)))
        .flat_map(|(path, text)| {
            text.lines()
                .enumerate()
                .filter(|(_, line)| opens_unsafe(line))
                .map(move |(i, _)| format!("  {}:{}: unsafe outside the fence", path.display(), i + 1))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn opens_unsafe(line: &str) -> bool {
    let code = line.trim_start();
    !code.starts_with("//") && ["{", "fn ", "impl "].iter().any(|after| code.contains(&["unsafe", after].join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_or_a_script_that_is_too_long_is_named_as_rust_is() {
        let root = std::env::temp_dir().join(format!("corella-xtask-tree-{}", std::process::id()));
        for folder in ROOTS {
            std::fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        std::fs::create_dir_all(root.join("fuzz/target")).expect("a folder");
        let long = "x\n".repeat(HARD_CAP + 1);
        let written = ["crates/a.rs", "crates/b.cu", "crates/c.js", "scripts/d.py", "fixtures/e.sh"];
        let short = (0..6).map(|i| format!("crates/short{i}.rs"));
        for file in short {
            std::fs::write(root.join(file), "x\n").expect("a file");
        }
        for file in written.into_iter().chain(["crates/data.json", "fuzz/target/made.rs"]) {
            std::fs::write(root.join(file), &long).expect("a file");
        }
        let found = sizes_below(&root);
        std::fs::remove_dir_all(&root).expect("removed");
        let wrong = found.expect_err("five are too long");
        assert_eq!(wrong.lines().count(), written.len(), "{wrong}");
        assert!(written.iter().all(|file| wrong.contains(file)), "{wrong}");
    }

    #[test]
    fn code_counts_and_prose_does_not() {
        assert!(opens_unsafe(&["    let x = unsa", "fe { *p };"].concat()));
        assert!(!opens_unsafe(&["// unsa", "fe { is only written about here"].concat()));
    }
}
