//! `corella doctor`: what this machine has, what is missing, what will be used and why.

use std::path::{Path, PathBuf};

use corella_model::Dtype;
use corella_ops::OpsTrain;
use corella_ops::cpu::{PATH_VARIABLE, Path as KernelPath};
use serde::Serialize;

use crate::cli::Common;
use crate::error::Result;
use crate::inputs::backend;
use crate::machine::{Memory, environment, memory};

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    environment: std::collections::BTreeMap<String, String>,
    cores: usize,
    threads: usize,
    features: Vec<&'static str>,
    kernel_paths: Vec<&'static str>,
    kernel_path: String,
    kernel_path_why: String,
    formats: Vec<&'static str>,
    memory: Option<Memory>,
    gpu_driver: bool,
    gpu_libraries: Vec<Library>,
    device: &'static str,
    device_why: &'static str,
}

/// A library that GPU computation needs.
#[derive(Serialize)]
struct Library {
    name: &'static str,
    purpose: &'static str,
    found: Option<PathBuf>,
    /// What brings it, where it is missing.
    package: &'static str,
}

/// Beginning of the file name, purpose, and the packages that bring it.
const LIBRARIES: [(&str, &str, &str); 4] = [
    (
        "libcuda.so",
        "driver",
        "the NVIDIA driver (Debian: nvidia-driver with libcuda1; in a container: the NVIDIA container toolkit)",
    ),
    ("libnvrtc.so", "compiles kernels", "pip install nvidia-cuda-nvrtc, or Debian: libnvrtc12, or the CUDA toolkit"),
    ("libcublasLt.so", "matrix products", "pip install nvidia-cublas, or Debian: libcublaslt12, or the CUDA toolkit"),
    ("libnccl.so", "several GPUs", "pip install nvidia-nccl-cu13, or NVIDIA's libnccl2"),
];

/// Runs the command.
pub fn run(common: &Common) -> Result<()> {
    let ops = backend(common)?;
    let paths: Vec<&'static str> = KernelPath::available().iter().map(|path| path.name()).collect();
    let why = match std::env::var(PATH_VARIABLE) {
        Ok(forced) => format!("{PATH_VARIABLE}={forced}"),
        Err(_) => "the fastest that this processor can run".to_owned(),
    };
    let places = places();
    let gpu_libraries: Vec<Library> =
        LIBRARIES.map(|(name, purpose, package)| Library { name, purpose, found: find(name, &places), package }).into();
    let document = Document {
        environment: environment(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        threads: ops.threads(),
        features: features(),
        kernel_path: ops.name(),
        kernel_path_why: why,
        kernel_paths: paths,
        formats: Dtype::ALL.map(Dtype::name).into(),
        memory: memory(),
        gpu_driver: Path::new("/proc/driver/nvidia/version").exists(),
        gpu_libraries,
        device: "cpu",
        device_why: "this version computes on the processor only",
    };
    if common.json {
        println!("{}", serde_json::to_string(&document)?);
    } else {
        print(&document);
    }
    Ok(())
}

fn print(d: &Document) {
    for (key, value) in d.environment.iter().filter(|(key, _)| *key != "command" && *key != "threads") {
        println!("{key:12} {value}");
    }
    println!("{:12} {} of {} that the process may use", "threads", d.threads, d.cores);
    if let Some(memory) = d.memory {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let limit =
            memory.limit.map(|limit| format!(", limited to {:.1} by the container", gib(limit))).unwrap_or_default();
        println!("{:12} {:.1} GiB free of {:.1}{limit}", "", gib(memory.available), gib(memory.total));
    }
    println!("{:12} {}", "features", d.features.join(" "));
    println!("{:12} {} ({}; can run: {})", "kernels", d.kernel_path, d.kernel_path_why, d.kernel_paths.join(", "));
    println!("{:12} {}", "formats", d.formats.join(", "));
    println!("{:12} {}", "gpu driver", if d.gpu_driver { "loaded" } else { "not loaded" });
    for library in &d.gpu_libraries {
        match &library.found {
            Some(path) => println!("{:12} {} ({}): {}", "", library.name, library.purpose, path.display()),
            None => println!("{:12} {} ({}): missing; {}", "", library.name, library.purpose, library.package),
        }
    }
    println!("{:12} {}: {}", "will use", d.device, d.device_why);
}

/// The processor's features that kernels ask for, as far as it has them.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! present {
            ($($name:tt),*) => { [$(($name, is_x86_feature_detected!($name))),*] };
        }
        let known = present!(
            "avx",
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512dq",
            "avx512vl",
            "avx512bf16",
            "avx512vnni"
        );
        let mut found: Vec<&'static str> = known.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        // The compiler does not ask for these; the system lists them.
        let listed = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let others = ["avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"];
        found.extend(others.into_iter().filter(|name| listed.contains(name)));
        found
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// Folders in which the system's loader and Python's packages keep libraries.
fn places() -> Vec<PathBuf> {
    let split = |name: &str| std::env::var_os(name).map(|v| std::env::split_paths(&v).collect::<Vec<_>>());
    let mut places = split("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/wsl/lib",
        "/usr/local/cuda/lib64",
        "/usr/local/nvidia/lib64",
    ];
    places.extend(usual.map(PathBuf::from));
    // Wheels keep theirs in site-packages/nvidia/*/lib of the active environment.
    let roots = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    for python in roots.flat_map(|root| folders(&root.join("lib"))) {
        for package in folders(&python.join("site-packages/nvidia")) {
            places.push(package.join("lib"));
        }
    }
    places
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// The first file whose name is the library's, with or without a version behind it.
fn find(name: &str, places: &[PathBuf]) -> Option<PathBuf> {
    places.iter().find_map(|dir| {
        let entries = std::fs::read_dir(dir).ok()?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths.into_iter().find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    })
}
