//! What the source tree must look like: short files, and `unsafe` only behind its fence.

use std::path::{Path, PathBuf};

/// No file may be longer.
const HARD_CAP: usize = 800;
/// Half of the files must be shorter.
const MEDIAN_CAP: usize = 250;
/// The crates that may contain `unsafe`, each block argued.
const UNSAFE_ALLOWED: [&str; 2] = ["crates/corella-ops/", "crates/corella-cuda/"];

/// Every Rust file of the workspace with its text.
fn sources() -> Result<Vec<(PathBuf, String)>, String> {
    let mut found = Vec::new();
    for root in ["crates", "xtask"] {
        walk(Path::new(root), &mut found)?;
    }
    Ok(found)
}

fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) -> Result<(), String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            found.push((path, text));
        }
    }
    Ok(())
}

/// One concept per file: none over [`HARD_CAP`] lines, the median at most [`MEDIAN_CAP`].
pub fn file_sizes() -> Result<(), String> {
    let mut sizes: Vec<(usize, PathBuf)> = sources()?.into_iter().map(|(p, t)| (t.lines().count(), p)).collect();
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
    let wrong: Vec<String> = sources()?
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
    use super::opens_unsafe;

    #[test]
    fn code_counts_and_prose_does_not() {
        assert!(opens_unsafe(&["    let x = unsa", "fe { *p };"].concat()));
        assert!(!opens_unsafe(&["// unsa", "fe { is only written about here"].concat()));
    }
}
