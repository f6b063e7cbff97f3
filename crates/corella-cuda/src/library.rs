//! The libraries of CUDA, found and loaded at run time.
//!
//! The bindings of `cudarc` load a library when one of its functions is called first, and panic where library or function is
//! missing. So [`Library::load`] comes before every first call: it finds the file, also in the folders of Python packages, and
//! looks for every function that this crate calls.
//!
//! What is loaded runs. So folders are looked into that the system or the user's environment names, and never one that follows
//! from where the program was started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::CudaError;

/// A library that GPU computation needs.
#[derive(Debug)]
pub struct Library {
    /// Beginning of the file's name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// What brings it.
    pub package: &'static str,
    /// Whether Python packages bring it.
    in_packages: bool,
    /// Functions that this crate calls.
    symbols: &'static [&'static str],
    binding: Binding,
    state: OnceLock<Result<(), CudaError>>,
}

/// What can be asked of a module of `cudarc` before its first call.
#[derive(Clone, Copy, Debug)]
struct Binding {
    /// Whether the loader finds the library.
    present: fn() -> bool,
    /// Whether the library, which was found, has a function.
    has: fn(&'static str) -> bool,
}

macro_rules! binding {
    ($module:ident) => {
        Binding {
            present: || {
                // SAFETY: runs the initialisers of an installed library of CUDA, which expect nothing of their caller.
                unsafe { cudarc::$module::sys::is_culib_present() }
            },
            has: |symbol| {
                // SAFETY: the address is looked up and not called, so its type does not matter; `load` asks only after the
                // library was found, so that `culib` does not panic.
                unsafe { cudarc::$module::sys::culib().get::<unsafe extern "C" fn()>(symbol.as_bytes()).is_ok() }
            },
        }
    };
}

/// The driver.
pub static DRIVER: Library = Library {
    name: "libcuda.so",
    purpose: "driver",
    package: "the NVIDIA driver (Debian: nvidia-driver with libcuda1; in a container: the NVIDIA container toolkit)",
    in_packages: false,
    symbols: &[
        "cuInit",
        "cuGetErrorName",
        "cuDeviceGet",
        "cuDeviceGetCount",
        "cuDeviceGetName",
        "cuDeviceGetAttribute",
        "cuDeviceTotalMem_v2",
        "cuDevicePrimaryCtxRetain",
        "cuDevicePrimaryCtxRelease_v2",
        "cuCtxSetCurrent",
        "cuMemGetInfo_v2",
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemHostAlloc",
        "cuMemFreeHost",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuMemcpyDtoDAsync_v2",
        "cuMemsetD8Async",
        "cuStreamCreate",
        "cuStreamSynchronize",
        "cuStreamDestroy_v2",
        "cuEventCreate",
        "cuEventRecord",
        "cuEventSynchronize",
        "cuEventDestroy_v2",
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuModuleUnload",
        "cuFuncGetAttribute",
        "cuFuncSetAttribute",
        "cuLaunchKernel",
    ],
    binding: binding!(driver),
    state: OnceLock::new(),
};

/// The compiler of kernels.
pub static NVRTC: Library = Library {
    name: "libnvrtc.so",
    purpose: "compiles kernels",
    package: "pip install nvidia-cuda-nvrtc, or Debian: libnvrtc12, or the CUDA toolkit",
    in_packages: true,
    symbols: &[
        "nvrtcVersion",
        "nvrtcCreateProgram",
        "nvrtcCompileProgram",
        "nvrtcDestroyProgram",
        "nvrtcGetCUBINSize",
        "nvrtcGetCUBIN",
        "nvrtcGetProgramLogSize",
        "nvrtcGetProgramLog",
    ],
    binding: binding!(nvrtc),
    state: OnceLock::new(),
};

/// Matrix products.
pub static CUBLASLT: Library = Library {
    name: "libcublasLt.so",
    purpose: "matrix products",
    package: "pip install nvidia-cublas, or Debian: libcublaslt12, or the CUDA toolkit",
    in_packages: true,
    symbols: &[
        "cublasLtCreate",
        "cublasLtDestroy",
        "cublasLtGetVersion",
        "cublasLtMatmul",
        "cublasLtMatmulAlgoCheck",
        "cublasLtMatmulAlgoGetHeuristic",
        "cublasLtMatmulDescCreate",
        "cublasLtMatmulDescDestroy",
        "cublasLtMatmulDescSetAttribute",
        "cublasLtMatmulPreferenceCreate",
        "cublasLtMatmulPreferenceDestroy",
        "cublasLtMatmulPreferenceSetAttribute",
        "cublasLtMatrixLayoutCreate",
        "cublasLtMatrixLayoutDestroy",
    ],
    binding: binding!(cublaslt),
    state: OnceLock::new(),
};

impl Library {
    /// Loads it, once; after `Ok` every function that this crate calls is there.
    pub fn load(&'static self) -> Result<(), CudaError> {
        self.state.get_or_init(|| self.load_now()).clone()
    }

    fn load_now(&self) -> Result<(), CudaError> {
        if !(self.binding.present)() {
            // Where the loader does not look by itself, it takes what is in memory already under the name asked for.
            if let Some(path) = self.find() {
                keep_loaded(&path);
            }
        }
        if !(self.binding.present)() {
            return Err(CudaError::Missing { library: self.name, package: self.package });
        }
        match self.symbols.iter().find(|symbol| !(self.binding.has)(symbol)) {
            Some(symbol) => Err(CudaError::Symbol { library: self.name, symbol }),
            None => Ok(()),
        }
    }

    /// Whether it is there, whole, and has these functions, which newer versions brought.
    pub fn has(&'static self, symbols: &[&'static str]) -> bool {
        self.load().is_ok() && symbols.iter().all(|symbol| (self.binding.has)(symbol))
    }

    /// Its file, where there is one in the usual folders.
    pub fn find(&self) -> Option<PathBuf> {
        find(self.name, self.in_packages)
    }
}

/// The first file in the usual folders whose name begins with `name`, with or without a version behind it; where Python packages
/// bring it, in theirs too.
pub fn find(name: &str, in_packages: bool) -> Option<PathBuf> {
    let packages = if in_packages { package_folders(environment) } else { Vec::new() };
    system_folders(environment).iter().chain(&packages).find_map(|dir| first_in(dir, name))
}

fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The file in `dir` whose name is the library's, with or without a version behind it.
fn first_in(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter().find(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Folders in which the system's loader looks. Relative ones would be others wherever the program is started.
fn system_folders(environment: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let listed = environment("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/wsl/lib",
        "/usr/local/cuda/lib64",
        "/usr/local/nvidia/lib64",
    ];
    let listed = std::env::split_paths(&listed).filter(|path| path.is_absolute());
    listed.chain(usual.map(PathBuf::from)).collect()
}

/// Folders in which Python packages keep libraries: site-packages/nvidia/*/lib of the environment that is active. One that only
/// lies there, a `.venv` of whoever owns the current folder say, is not.
fn package_folders(environment: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(environment).map(PathBuf::from);
    let pythons = active.filter(|root| root.is_absolute()).flat_map(|root| folders(&root.join("lib")));
    pythons
        .flat_map(|python| folders(&python.join("site-packages/nvidia")))
        .map(|package| package.join("lib"))
        .collect()
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// Loads a library and, first, the part of NVRTC that lies beside it under a name of its own. They stay until the end.
#[cfg(unix)]
fn keep_loaded(path: &Path) {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let beside = path.parent().and_then(|dir| first_in(dir, "libnvrtc-builtins.so"));
    for file in beside.iter().map(PathBuf::as_path).chain([path]) {
        // SAFETY: runs the initialisers of an installed library of CUDA, which expect nothing of their caller.
        if let Ok(library) = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) } {
            std::mem::forget(library);
        }
    }
}

#[cfg(not(unix))]
fn keep_loaded(path: &Path) {
    // SAFETY: as above.
    if let Ok(library) = unsafe { libloading::Library::new(path) } {
        std::mem::forget(library);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_folder_depends_on_where_the_program_was_started() {
        let root = std::env::temp_dir().join(format!("corella-library-{}", std::process::id()));
        let lib = root.join("lib/python3.12/site-packages/nvidia/cu13/lib");
        std::fs::create_dir_all(&lib).expect("made");
        let with = |value: OsString| move |name: &str| (name != "CONDA_PREFIX").then(|| value.clone());
        assert_eq!(package_folders(with(root.clone().into())), std::slice::from_ref(&lib));
        let paths = std::env::join_paths([Path::new("."), Path::new(""), &lib, Path::new("lib")]).expect("no colon");
        let listed = system_folders(with(paths));
        assert!(listed[0] == lib && listed.iter().all(|path| path.is_absolute()), "{listed:?}");
        // The same environment, named as seen from the folder that it is in: `.venv` was looked for like this.
        let up: PathBuf = std::env::current_dir().expect("a folder").components().skip(1).map(|_| "..").collect();
        let relative = up.join(root.strip_prefix("/").expect("an absolute path"));
        assert!(relative.join("lib").is_dir() && relative.is_relative());
        assert_eq!(package_folders(with(relative.into())), [""; 0].map(PathBuf::from));
        assert_eq!(package_folders(|_| None), [""; 0].map(PathBuf::from));
        std::fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn the_driver_is_never_taken_from_a_package() {
        assert!(!DRIVER.in_packages && NVRTC.in_packages && CUBLASLT.in_packages);
    }
}
