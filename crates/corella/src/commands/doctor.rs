//! `corella doctor`: what this machine has, what is missing, what will be used and why.

use std::path::PathBuf;

use corella_cuda::{CardInfo, CudaError, cards, library};
use corella_model::Dtype;
use corella_ops::OpsTrain;
use corella_ops::cpu::{PATH_VARIABLE, Path as KernelPath};
use serde::Serialize;

use crate::cli::{Common, DeviceFlag};
use crate::error::{Failure, Result};
use crate::inputs::processor;
use crate::machine::{Memory, environment, memory};
use crate::output::deliver;
use crate::units::gib;

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
    gpu_libraries: Vec<Library>,
    gpus: Vec<Gpu>,
    /// What the flag stands for.
    device: String,
    device_why: String,
}

/// A library that GPU computation needs.
#[derive(Serialize)]
struct Library {
    name: &'static str,
    purpose: &'static str,
    found: Option<PathBuf>,
    /// Why it cannot be used, where it cannot.
    problem: Option<String>,
    /// What brings it; none of one that no command uses yet.
    package: Option<&'static str>,
}

/// A card that the driver knows.
#[derive(Serialize)]
struct Gpu {
    index: u32,
    name: String,
    architecture: String,
    memory_bytes: u64,
}

/// Libraries that a card needs, the first of the list.
const NEEDED: usize = 3;

/// Runs the command.
pub fn run(common: &Common) -> Result<()> {
    let ops = processor(common)?;
    let paths: Vec<&'static str> = KernelPath::available().iter().map(|path| path.name()).collect();
    let why = match std::env::var(PATH_VARIABLE) {
        Ok(forced) => format!("{PATH_VARIABLE}={forced}"),
        Err(_) => "the fastest that this processor can run".to_owned(),
    };
    let gpu_libraries = libraries();
    let found = cards();
    let (device, device_why) = chosen_device(common.device, &found, &gpu_libraries);
    let gpus = found.unwrap_or_default().into_iter().map(|card| Gpu {
        index: card.index,
        architecture: card.architecture(),
        memory_bytes: card.total_memory,
        name: card.name,
    });
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
        gpus: gpus.collect(),
        gpu_libraries,
        device,
        device_why,
    };
    if common.json {
        deliver(serde_json::to_string(&document)?)?;
    } else {
        deliver(sheet(&document))?;
    }
    match common.device {
        DeviceFlag::Cuda(index) if document.device != format!("cuda:{index}") => {
            Err(Failure::new(format!("cuda:{index} cannot be used: {}", document.device_why))
                .hint("install what is missing above, or leave --device out"))
        }
        _ => Ok(()),
    }
}

/// The libraries of CUDA, each with what is wrong with it.
fn libraries() -> Vec<Library> {
    let needed = [&library::DRIVER, &library::NVRTC, &library::CUBLASLT].map(|wanted| Library {
        name: wanted.name,
        purpose: wanted.purpose,
        found: wanted.find(),
        problem: wanted.load().err().map(|error| error.to_string()),
        package: Some(wanted.package),
    });
    // Not called yet: runs with several cards come later.
    let nccl = library::find("libnccl.so", true);
    let several = Library {
        name: "libnccl.so",
        purpose: "several cards; not used yet",
        problem: nccl.is_none().then(|| "not found".to_owned()),
        found: nccl,
        package: None,
    };
    needed.into_iter().chain([several]).collect()
}

/// What a device's flag stands for, and why.
fn chosen_device(
    asked: DeviceFlag,
    cards: &std::result::Result<Vec<CardInfo>, CudaError>,
    libraries: &[Library],
) -> (String, String) {
    let cpu = |why: String| ("cpu".to_owned(), why);
    let index = match asked {
        DeviceFlag::Cpu => return cpu("cards only with --device cuda or auto".to_owned()),
        DeviceFlag::Auto => 0,
        DeviceFlag::Cuda(index) => index,
    };
    let card = match cards {
        Err(error) => return cpu(error.to_string()),
        Ok(cards) => match cards.iter().find(|card| card.index == index) {
            None => return cpu(format!("the driver knows {} cards", cards.len())),
            Some(card) => card,
        },
    };
    match libraries.iter().take(NEEDED).find(|library| library.problem.is_some()) {
        Some(missing) => cpu(format!("{} cannot be loaded", missing.name)),
        None => (format!("cuda:{index}"), card.name.clone()),
    }
}

/// As people read it.
fn sheet(d: &Document) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (key, value) in d.environment.iter().filter(|(key, _)| *key != "command" && *key != "threads") {
        lines.push(format!("{key:12} {value}"));
    }
    lines.push(format!("{:12} {} of {} that the process may use", "threads", d.threads, d.cores));
    if let Some(memory) = d.memory {
        let limit =
            memory.limit.map(|limit| format!(", limited to {:.1} by the container", gib(limit))).unwrap_or_default();
        lines.push(format!("{:12} {:.1} GiB free of {:.1}{limit}", "", gib(memory.available), gib(memory.total)));
    }
    lines.push(format!("{:12} {}", "features", d.features.join(" ")));
    lines.push(format!(
        "{:12} {} ({}; can run: {})",
        "kernels",
        d.kernel_path,
        d.kernel_path_why,
        d.kernel_paths.join(", ")
    ));
    lines.push(format!("{:12} {}", "formats", d.formats.join(", ")));
    for gpu in &d.gpus {
        lines.push(format!(
            "{:12} {} ({}, {:.1} GiB)",
            format!("cuda:{}", gpu.index),
            gpu.name,
            gpu.architecture,
            gib(gpu.memory_bytes)
        ));
    }
    for (i, library) in d.gpu_libraries.iter().enumerate() {
        let head = if i == 0 { "cuda" } else { "" };
        let what = format!("{head:12} {} ({})", library.name, library.purpose);
        match (&library.problem, &library.found) {
            (Some(problem), Some(path)) => lines.push(format!("{what}: {problem}; {}", path.display())),
            (Some(_), None) => {
                let package = library.package.map(|package| format!("; {package}")).unwrap_or_default();
                lines.push(format!("{what}: missing{package}"));
            }
            (None, Some(path)) => lines.push(format!("{what}: {}", path.display())),
            (None, None) => lines.push(format!("{what}: loaded")),
        }
    }
    lines.push(format!("{:12} {}: {}", "will use", d.device, d.device_why));
    lines.join("\n")
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
