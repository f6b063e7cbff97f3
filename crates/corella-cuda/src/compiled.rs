//! Compiled kernels on disk: a file for each source, compiler and card, named by a hash of all that it depends on.

use crate::cache;
use crate::error::CudaError;
use crate::kernels::{HEADERS, Source};
use crate::nvrtc::{self, Compiler};

/// A file's machine code: as it was compiled before, or now. A cache that cannot be read or written costs time only.
pub fn compiled(compiler: Compiler, source: &Source, architecture: &str) -> Result<Vec<u8>, CudaError> {
    let version = format!("{}.{}", compiler.version.0, compiler.version.1);
    let options = nvrtc::options(architecture);
    let mut parts: Vec<&[u8]> = vec![source.text.as_bytes(), version.as_bytes()];
    parts.extend(options.iter().map(|option| option.as_bytes()));
    parts.extend(HEADERS.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
    let name = format!("{}-{architecture}-{:016x}.cubin", source.name, cache::hash(&parts));
    let path = cache::folder().map(|folder| folder.join(name));
    if let Some(cubin) = path.as_ref().and_then(|path| cache::read(path)) {
        return Ok(cubin);
    }
    let cubin = compiler.compile(source, architecture)?.cubin;
    if let Some(path) = path {
        // Whoever starts at the same time writes the same.
        let _ = cache::keep(&path, &cubin);
    }
    Ok(cubin)
}
