//! Every dependency must be usable under a permissive licence.

use std::process::Command;

/// Licences that need nothing but attribution.
const ALLOWED: [&str; 11] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "MIT-0",
    "Unlicense",
    // The list of certificate authorities: data, to be passed on with its licence text.
    "CDLA-Permissive-2.0",
];

/// Fails with the list of packages whose licence expression cannot be met by [`ALLOWED`] alone.
pub fn check() -> Result<(), String> {
    let out = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let bad: Vec<String> = packages
        .iter()
        .filter(|p| !p["license"].as_str().is_some_and(satisfied))
        .map(|p| format!("  {} {}: {}", p["name"], p["version"], p["license"]))
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
}

/// Whether an SPDX expression can be met: every AND-part has an allowed alternative.
fn satisfied(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" AND ").all(|part| {
        part.split(" OR ").any(|licence| ALLOWED.contains(&licence.split(" WITH ").next().unwrap_or("").trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    #[test]
    fn an_alternative_is_enough_but_every_conjunct_counts() {
        assert!(satisfied("MIT OR GPL-3.0"));
        assert!(satisfied("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!satisfied("GPL-3.0"));
        assert!(!satisfied("MIT AND GPL-3.0"));
    }
}
