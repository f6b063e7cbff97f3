//! `cargo xtask kernels`: compiles every CUDA kernel to machine code for every card that it is meant for, without a card.

use corella_cuda::CudaError;
use corella_cuda::kernels::{ARCHITECTURES, CLASSIFIER_DECLARES, SOURCES, Source};
use corella_cuda::nvrtc::Compiler;
use corella_cuda::parallel::in_parallel;
use corella_cuda::resources::{self, Resources};

/// What one file came to on one card.
type Outcome = Result<Vec<Resources>, String>;

/// Prints registers, shared memory and spills of each kernel, or with `quiet` of wrong ones only. False where one does not
/// compile, spills, keeps arrays on the stack, declares shared memory that its launches need, or is not the one that the table names; files whose names do not contain `filter`
/// are left out.
pub fn run(filter: &str, quiet: bool) -> bool {
    let compiler = match Compiler::load() {
        Ok(compiler) => compiler,
        Err(CudaError::Missing { library, .. }) => {
            println!("skipped kernels: {library} was not found; scripts/cuda_venv.sh brings it, and no card is needed");
            return true;
        }
        Err(error) => {
            println!("FAILED  kernels: {error}");
            return false;
        }
    };
    let jobs: Vec<(&Source, &str)> = SOURCES
        .iter()
        .filter(|source| source.name.contains(filter))
        .flat_map(|source| ARCHITECTURES.into_iter().map(move |card| (source, card)))
        .collect();
    let mut failed = false;
    if !quiet {
        println!("{:28} {:7} {:>9} {:>7} {:>6} {:>7}", "kernel", "card", "registers", "shared", "stack", "spills");
    }
    for ((source, card), outcome) in
        jobs.iter().zip(in_parallel(&jobs, |(source, card)| compile(compiler, source, card)))
    {
        match outcome {
            Ok(kernels) => {
                for k in kernels {
                    let too_much = k.entry == "classifier_held" && k.shared as usize > CLASSIFIER_DECLARES;
                    let bad = k.spills > 0 || k.stack > 0 || too_much;
                    failed |= bad;
                    let mark = if bad { "  FAILED" } else { "" };
                    let Resources { entry, registers, shared, stack, spills } = k;
                    if bad || !quiet {
                        println!("{entry:28} {card:7} {registers:>9} {shared:>7} {stack:>6} {spills:>7}{mark}");
                    }
                }
            }
            Err(why) => {
                failed = true;
                println!("FAILED  {} {card}: {why}", source.name);
            }
        }
    }
    let (major, minor) = compiler.version;
    println!(
        "{} kernels: {} files for each of their cards, NVRTC {major}.{minor}",
        if failed { "FAILED " } else { "ok     " },
        SOURCES.len()
    );
    !failed
}

fn compile(compiler: Compiler, source: &Source, card: &str) -> Outcome {
    let compiled = compiler.compile(source, card).map_err(|e| e.to_string())?;
    let kernels = resources::read(&compiled.log);
    let mut found: Vec<&str> = kernels.iter().map(|k| k.entry.as_str()).collect();
    let mut named: Vec<&str> = source.entries.to_vec();
    found.sort_unstable();
    named.sort_unstable();
    if found == named { Ok(kernels) } else { Err(format!("the table names {named:?}, the file has {found:?}")) }
}
