//! What the user names, turned into a list of files.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::super::DataError;
use super::super::folder::is_own_folder;

/// A file to read, and how it is called in reports and indexes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How it is called.
    pub name: String,
}

impl SourceFile {
    /// A file that is called by its path.
    pub fn at(path: &Path) -> SourceFile {
        SourceFile { path: path.to_path_buf(), name: path.display().to_string() }
    }
}

/// The files that a path, a folder or a pattern (`*`, `?`, `[…]`, `**`) stands for, in the order of their names.
///
/// Hidden files below a folder are left out: version control and editors' leavings are not text of the user's. So are folders
/// that [`super::super::prepare`] wrote or is writing, where naming one itself is an error, and folders of training runs, whose
/// logs are nobody's text. Links to folders below a folder are not followed, so there is no way in circles.
pub fn expand(source: &Path) -> Result<Vec<SourceFile>, DataError> {
    let mut paths = Vec::new();
    let pattern = source.to_string_lossy();
    if source.exists() || !is_pattern(&pattern) {
        if is_own_folder(source) {
            return Err(DataError::Prepared { path: source.to_path_buf() });
        }
        collect(source, &mut paths)?;
    } else {
        // Errors are told of the whole pattern, with their places in it.
        glob::Pattern::new(&pattern).map_err(|e| DataError::bad(source, e.to_string()))?;
        let parts: Vec<Component<'_>> = source.components().collect();
        matching(PathBuf::new(), &parts, source, &mut paths)?;
        if paths.is_empty() {
            return Err(DataError::bad(source, "no file matches"));
        }
    }
    Ok(paths.iter().map(|p| SourceFile::at(p)).collect())
}

/// Whether a source is a pattern, of several files: it has one of its signs.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Collects what lies in `base` and fits the rest of a pattern. The crate's own search cannot be used: it panics at names that
/// are not UTF-8. Here they are matched with the replacement character for what is none.
fn matching(base: PathBuf, parts: &[Component<'_>], pattern: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let Some((part, rest)) = parts.split_first() else { return collect(&base, files) };
    let text = part.as_os_str().to_string_lossy();
    if !is_pattern(&text) {
        let next = base.join(part);
        return if next.exists() { matching(next, rest, pattern, files) } else { Ok(()) };
    }
    let dir = if base.as_os_str().is_empty() { Path::new(".") } else { &base };
    if !dir.is_dir() {
        return Ok(());
    }
    if text == "**" {
        // As the last part it stands for everything below, which is collected once.
        if rest.is_empty() {
            return collect(dir, files);
        }
        // What fits without a folder, and what fits below each.
        let mut found = Vec::new();
        matching(base.clone(), rest, pattern, &mut found)?;
        for name in entries(dir)?.iter().filter(|n| !is_hidden(n)) {
            let next = base.join(name);
            if fs::symlink_metadata(&next).is_ok_and(|m| m.is_dir()) && !is_written_here(&next) {
                matching(next, parts, pattern, &mut found)?;
            }
        }
        found.sort();
        found.dedup();
        files.append(&mut found);
        return Ok(());
    }
    let wanted = glob::Pattern::new(&text).map_err(|e| DataError::bad(pattern, e.to_string()))?;
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    for name in entries(dir)? {
        let next = base.join(&name);
        // A folder fits the middle of a pattern, a file its end.
        if wanted.matches_with(&name.to_string_lossy(), options)
            && (rest.is_empty() || next.is_dir())
            && next.exists()
            && !is_written_here(&next)
        {
            matching(next, rest, pattern, files)?;
        }
    }
    Ok(())
}

/// The names in a folder, sorted.
fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>, DataError> {
    let inside = fs::read_dir(dir).map_err(DataError::io(dir))?;
    let mut names: Vec<_> =
        inside.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>().map_err(DataError::io(dir))?;
    names.sort();
    Ok(names)
}

/// Whether a folder is one that this program wrote, or is writing: prepared data, or a run with its plan beside its log or its
/// checkpoints.
fn is_written_here(dir: &Path) -> bool {
    let is_run =
        || dir.join("run.toml").is_file() && (dir.join("log.jsonl").is_file() || dir.join("checkpoints").is_dir());
    is_own_folder(dir) || is_run()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let meta = fs::metadata(path).map_err(DataError::io(path))?;
    if !meta.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for name in entries(path)?.iter().filter(|n| !is_hidden(n)) {
        let inside = path.join(name);
        let link = fs::symlink_metadata(&inside).map_err(DataError::io(&inside))?.is_symlink();
        if !(link && inside.is_dir()) && inside.exists() && !is_written_here(&inside) {
            collect(&inside, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::expand;

    #[test]
    fn patterns_find_what_they_name() {
        let dir = std::env::temp_dir().join(format!("corella-sources-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for file in ["a.txt", "b.md", ".hidden.txt", "x/a.txt", "x/y/a.txt", "x/y/[1].txt", "x/.git/a.txt"] {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "text").expect("written");
        }
        let found = |pattern: &str| -> Vec<String> {
            let files = expand(&dir.join(pattern)).map_err(|e| e.to_string()).unwrap_or_default();
            let start = dir.display().to_string().len() + 1;
            files.iter().map(|f| f.name[start..].to_owned()).collect()
        };
        assert_eq!(found("*.txt"), ["a.txt"]);
        assert_eq!(found("?.[mt]*"), ["a.txt", "b.md"]);
        assert_eq!(found("*/a.txt"), ["x/a.txt"]);
        assert_eq!(found("**/a.txt"), ["a.txt", "x/a.txt", "x/y/a.txt"]);
        assert_eq!(found("x/**"), ["x/a.txt", "x/y/[1].txt", "x/y/a.txt"]);
        assert_eq!(found("x/y/[1].txt"), ["x/y/[1].txt"], "a name that is there is no pattern");
        assert_eq!(found("*"), ["a.txt", "b.md", "x/a.txt", "x/y/[1].txt", "x/y/a.txt"]);
        assert_eq!(found(".h*"), [".hidden.txt"]);
        assert!(found("a.txt/*").is_empty() && found("*.none").is_empty() && found("a**").is_empty());
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn runs_below_a_folder_are_no_text() {
        let dir = std::env::temp_dir().join(format!("corella-sources-runs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let files =
            ["a.txt", "out/run/run.toml", "out/run/log.jsonl", "out/run/config.json", "plans/run.toml", "b/x.txt"];
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "text").expect("written");
        }
        for pattern in ["", "**", "**/*"] {
            let files = expand(&dir.join(pattern)).expect("found");
            let found: Vec<&str> =
                files.iter().filter_map(|file| file.path.strip_prefix(&dir).ok()?.to_str()).collect();
            assert_eq!(found, ["a.txt", "b/x.txt", "plans/run.toml"], "{pattern}");
        }
        fs::create_dir(dir.join("plans/checkpoints")).expect("made");
        assert_eq!(expand(&dir).expect("found").len(), 2, "a run that has not begun its log");
        fs::remove_dir_all(&dir).expect("removed");
    }

    /// Names that are not UTF-8: file systems of Linux have them.
    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_are_not_utf_8_are_found() {
        use std::os::unix::ffi::OsStrExt;
        let dir = std::env::temp_dir().join(format!("corella-sources-raw-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join(std::ffi::OsStr::from_bytes(b"bad\xff\xfename.txt")), "text").expect("written");
        for pattern in ["*", "bad*.txt", "bad??name.txt", "**/*"] {
            let files = expand(&dir.join(pattern)).expect("found");
            assert_eq!(files.len(), 1, "{pattern}");
            assert_eq!(fs::read_to_string(&files[0].path).expect("read"), "text");
        }
        fs::remove_dir_all(&dir).expect("removed");
    }
}
