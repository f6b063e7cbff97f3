//! Files that cost time to make, kept for the next start: compiled kernels, choices of algorithms. Each ends with a hash of its
//! content, and its name appears when it is whole.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Environment variable that names the folder; empty for none.
pub const FOLDER_VARIABLE: &str = "CORELLA_KERNEL_CACHE";

/// 64 bits of FNV-1a: names a file; its content is checked by a second hash inside.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// A hash of what a file depends on, for its name.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

/// `$CORELLA_KERNEL_CACHE`, or `corella/kernels` in the user's folder for caches.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return (!folder.is_empty()).then(|| PathBuf::from(folder));
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let caches = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(home)?;
    Some(caches.join("corella").join("kernels"))
}

/// The content of a file that is there, whole and undamaged.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::read(path).ok()?;
    let at = file.len().checked_sub(8)?;
    let stated = file.split_off(at);
    (hash(&[&file]).to_le_bytes() == stated[..]).then_some(file)
}

/// Keeps a content under a name, in the place of what may be there.
pub fn keep(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::rename(unfinished(path, content)?, path)
}

/// Keeps a content unless the name has one that is usable: of those who start at the same time the first one's stays. Returns
/// what is kept.
pub fn keep_first(path: &Path, content: Vec<u8>, usable: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let unfinished = unfinished(path, &content)?;
    // Unlike a renamed file, a linked one takes nobody's place. Not every file system has links.
    let linked = fs::hard_link(&unfinished, path).is_ok();
    let there = if linked { None } else { read(path).filter(|there| usable(there)) };
    if linked || there.is_some() {
        // One that stays is in nobody's way.
        let _ = fs::remove_file(&unfinished);
        return Ok(there.unwrap_or(content));
    }
    fs::rename(&unfinished, path)?;
    // Where another did the same meanwhile, the last one's is there for all.
    Ok(read(path).filter(|there| usable(there)).unwrap_or(content))
}

/// A whole file beside `path`, of a name that nobody else writes to: other machines, too, may share the folder, and containers the
/// numbers of their processes.
fn unfinished(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Keys of the hash are the process's own.
    let process = RandomState::new().hash_one(std::process::id());
    let unfinished = path.with_extension(format!("{process:016x}-{number}.tmp"));
    let write = || {
        let mut file = fs::File::create_new(&unfinished)?;
        file.write_all(content)?;
        file.write_all(&hash(&[content]).to_le_bytes())
    };
    write().inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    Ok(unfinished)
}

/// A folder for one test, removed at its end.
#[cfg(test)]
pub struct TestFolder(pub PathBuf);

#[cfg(test)]
impl TestFolder {
    pub fn new(name: &str) -> TestFolder {
        let folder = std::env::temp_dir().join(format!("corella-{name}-{}", std::process::id()));
        // What an earlier process of this number may have left.
        let _ = fs::remove_dir_all(&folder);
        TestFolder(folder)
    }
}

#[cfg(test)]
impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_or_cut_file_is_not_used() {
        let folder = TestFolder::new("damaged");
        let path = folder.0.join("a").join("kernel.cubin");
        assert_eq!(read(&path), None);
        keep(&path, b"machine code").expect("a file");
        assert_eq!(read(&path).as_deref(), Some(&b"machine code"[..]));
        let mut file = fs::read(&path).expect("the file");
        let with = |file: &[u8]| {
            fs::write(&path, file).expect("the file");
            read(&path)
        };
        assert_eq!(with(&file[..file.len() - 1]), None);
        assert_eq!(with(&[]), None);
        file[3] ^= 1;
        assert_eq!(with(&file), None);
        keep(&path, b"other code").expect("a file");
        assert_eq!(read(&path).as_deref(), Some(&b"other code"[..]));
    }

    #[test]
    fn the_first_file_stays_unless_it_is_of_no_use() {
        let folder = TestFolder::new("first");
        let path = folder.0.join("choice");
        let first = |content: &[u8]| keep_first(&path, content.to_vec(), |there| there != b"useless").expect("a file");
        assert_eq!(first(b"useless"), b"useless");
        assert_eq!(first(b"one"), b"one");
        assert_eq!(first(b"two"), b"one");
        assert_eq!(read(&path).as_deref(), Some(&b"one"[..]));
        fs::write(&path, b"damaged").expect("the file");
        assert_eq!(first(b"three"), b"three");
        assert_eq!(read(&path).as_deref(), Some(&b"three"[..]));
        assert_eq!(fs::read_dir(&folder.0).expect("the folder").count(), 1, "nothing unfinished stays");
    }

    #[test]
    fn the_hash_tells_where_a_part_ends() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        // FNV-1a's published value for "a", before which the length of the part is hashed here: the empty list is its start.
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
    }
}
