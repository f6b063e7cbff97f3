//! Compiled kernels on disk: a file for each source, compiler and card, named by a hash of all that it depends on.

use std::fs;
use std::hash::Hasher;
use std::io::Write;
use std::path::PathBuf;

use crate::error::CudaError;
use crate::kernels::{HEADERS, Source};
use crate::nvrtc::Compiler;

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

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

/// `$CORELLA_KERNEL_CACHE`, or `corella/kernels` in the user's folder for caches.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return (!folder.is_empty()).then(|| PathBuf::from(folder));
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let caches = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(home)?;
    Some(caches.join("corella").join("kernels"))
}

/// A file's machine code: as it was compiled before, or now. A cache that cannot be read or written costs time only.
pub fn compiled(compiler: Compiler, source: &Source, architecture: &str) -> Result<Vec<u8>, CudaError> {
    let version = format!("{}.{}", compiler.version.0, compiler.version.1);
    let mut parts: Vec<&[u8]> = vec![source.text.as_bytes(), version.as_bytes(), architecture.as_bytes()];
    parts.extend(HEADERS.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
    let name = format!("{}-{architecture}-{:016x}.cubin", source.name, hash(&parts));
    let path = folder().map(|folder| folder.join(name));
    if let Some(cubin) = path.as_ref().and_then(|path| unwrap(fs::read(path).ok()?)) {
        return Ok(cubin);
    }
    let cubin = compiler.compile(source, architecture)?.cubin;
    if let Some(path) = path {
        // Whoever starts at the same time writes the same; the name appears when the file is whole.
        let _ = keep(&path, &cubin);
    }
    Ok(cubin)
}

/// The content of a file whose hash is right.
fn unwrap(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let at = file.len().checked_sub(8)?;
    let stated = file.split_off(at);
    (hash(&[&file]).to_le_bytes() == stated[..]).then_some(file)
}

fn keep(path: &std::path::Path, cubin: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(cubin)?;
    file.write_all(&hash(&[cubin]).to_le_bytes())?;
    drop(file);
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::{hash, keep, unwrap};

    #[test]
    fn a_damaged_or_cut_file_is_not_used() {
        let path = std::env::temp_dir().join(format!("corella-kernel-{}", std::process::id()));
        keep(&path, b"machine code").expect("a file");
        let mut file = std::fs::read(&path).expect("the file");
        std::fs::remove_file(&path).expect("the file");
        assert_eq!(unwrap(file.clone()).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(unwrap(file[..file.len() - 1].to_vec()), None);
        assert_eq!(unwrap(Vec::new()), None);
        file[3] ^= 1;
        assert_eq!(unwrap(file), None);
    }

    #[test]
    fn the_hash_tells_where_a_part_ends() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        // FNV-1a's published value for "a", before which the length of the part is hashed here: the empty list is its start.
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
    }
}
