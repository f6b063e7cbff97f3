//! The text of the kernels, compiled for the host by the system's C++ compiler, and called as a driver would.
//!
//! `emulated/emulated.h` says what is noticed. What this cannot show: speed, the instructions that stand in place of the
//! emulated ones (their fragments are written down twice, from the same manual), and what the compiler for the card makes of
//! the text.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use corella_cuda::kernels::{HEADERS, SOURCES};
use corella_ops::quant::half::{bf16_to_f32, f32_to_bf16};
use libloading::Library;

/// The crate's folder, with kernels/ and emulated/ in it.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Undefined arithmetic, indices outside arrays and misaligned vectors stop a kernel.
const FLAGS: [&str; 10] = [
    "-std=c++17",
    "-O1",
    "-w",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fsanitize=bounds,alignment,shift,signed-integer-overflow",
    "-fsanitize-undefined-trap-on-error",
    "-DCORELLA_EMULATED",
];

type Launch =
    unsafe extern "C" fn(*const c_char, *const u32, *const u32, usize, *const *const c_void, c_int) -> *const c_char;
type Parameters = unsafe extern "C" fn(*const c_char, *mut usize) -> c_int;
type Waits = unsafe extern "C" fn() -> c_int;
type Alloc = unsafe extern "C" fn(usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void, usize);

/// A file of kernels as a library of the host.
pub struct Kernels {
    library: Library,
}

/// Compiled libraries by the text that they were made from, and whether they watch for races. One kernel runs at a time: the
/// emulator's threads are global.
static LOADED: LazyLock<Mutex<HashMap<(String, Watch), &'static Kernels>>> = LazyLock::new(Mutex::default);
static RUNNING: Mutex<()> = Mutex::new(());

/// What else a library does than to run kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    Nothing,
    /// It stops a kernel whose threads touch one place of shared memory without a barrier between (emulated/races.h).
    Races,
}

impl Watch {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Watch::Nothing => &[],
            Watch::Races => &["-DCORELLA_RACES", "-fsanitize=thread"],
        }
    }
}

/// The system's C++ compiler, if it works.
fn compiler() -> Option<String> {
    let names = std::env::var("CXX").into_iter().chain(["c++", "g++", "clang++"].map(str::to_owned));
    names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success()))
}

/// A file of kernels/, or `None`, with a message, where there is no compiler.
pub fn kernels(file: &str) -> Option<&'static Kernels> {
    watched_kernels(file, Watch::Nothing)
}

/// The same, watched.
pub fn watched_kernels(file: &str, watch: Watch) -> Option<&'static Kernels> {
    let source = SOURCES.iter().find(|source| source.name == file).expect("a file of the table");
    load(source.text, file, source.entries, watch)
}

/// The kernels `entries` of a text.
pub fn load(text: &str, name: &str, entries: &[&str], watch: Watch) -> Option<&'static Kernels> {
    let Some(compiler) = compiler() else {
        println!("skipped: no C++ compiler");
        return None;
    };
    let mut loaded = LOADED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(kernels) = loaded.get(&(text.to_owned(), watch)) {
        return Some(kernels);
    }
    // SAFETY: the library was made from our own text and has no initialisers.
    let library =
        unsafe { Library::new(build(&compiler, text, name, entries, watch)) }.expect("the library that was just built");
    let kernels: &'static Kernels = Box::leak(Box::new(Kernels { library }));
    loaded.insert((text.to_owned(), watch), kernels);
    Some(kernels)
}

/// Builds the library, or finds it: its file is named by what went into it, and stays for the next run of the tests.
fn build(compiler: &str, text: &str, name: &str, entries: &[&str], watch: Watch) -> PathBuf {
    let list: String = entries.iter().map(|name| format!("KERNEL({name})")).collect();
    let source =
        format!("#include \"emulated.h\"\n#line 1 \"{name}\"\n{text}\n#define KERNELS {list}\n#include \"launch.h\"\n");
    let mut hasher = DefaultHasher::new();
    (compiler, FLAGS, watch, &source, HEADERS).hash(&mut hasher);
    for file in ["emulated.h", "fiber.h", "launch.h", "races.h", "warp_products.h"] {
        std::fs::read(format!("{ROOT}/emulated/{file}")).expect("the emulator's text").hash(&mut hasher);
    }
    let key = format!("{:016x}", hasher.finish());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("{key}.so"));
    // Another process may be building it.
    let lock = File::create(folder.join(format!("{key}.lock"))).expect("a file beside the library");
    lock.lock().expect("the lock on a library");
    if library.exists() {
        return library;
    }
    let own = format!("{key}-{}", std::process::id());
    let [from, object, to] = ["cpp", "o", "so"].map(|end| folder.join(format!("{own}.{end}")));
    std::fs::write(&from, source).expect("the text for the compiler");
    let run = |command: &mut Command| {
        let result = command.output().expect("the compiler starts");
        assert!(result.status.success(), "{name}:\n{}", String::from_utf8_lossy(&result.stderr));
    };
    let includes = ["emulated", "kernels"].map(|folder| format!("-I{ROOT}/{folder}"));
    run(Command::new(compiler)
        .args(FLAGS)
        .args(watch.flags())
        .args(includes)
        .arg("-c")
        .arg(&from)
        .arg("-o")
        .arg(&object));
    // Linked by itself, so that no library of the sanitizer comes along.
    run(Command::new(compiler).arg("-shared").arg(&object).arg("-o").arg(&to));
    for file in [from, object] {
        std::fs::remove_file(file).expect("the text for the compiler, and its object");
    }
    std::fs::rename(&to, &library).expect("the library's file");
    library
}

impl Kernels {
    /// Runs a kernel with pointers to its arguments; what went wrong, if anything did.
    pub fn run(
        &self,
        name: &str,
        (grid, block, shared): ([u32; 3], u32, usize),
        arguments: &[*const c_void],
        backwards: bool,
    ) -> Result<(), String> {
        let _one = RUNNING.lock().unwrap_or_else(|e| e.into_inner());
        let c_name = CString::new(name).expect("a name");
        // SAFETY: the symbol has this type; the caller's arguments are those of the kernel, by the macro `launch!`, and live
        // until it returns; grid and block are three numbers each.
        unsafe {
            let launch = self.library.get::<Launch>(b"emulated_launch").expect("the emulator's interface");
            let error = launch(
                c_name.as_ptr(),
                grid.as_ptr(),
                [block, 1, 1].as_ptr(),
                shared,
                arguments.as_ptr(),
                c_int::from(backwards),
            );
            if !error.is_null() {
                return Err(CStr::from_ptr(error).to_string_lossy().into_owned());
            }
            let waits = self.library.get::<Waits>(b"emulated_waits").expect("the emulator's interface")();
            let early = SOURCES.iter().any(|source| source.early.contains(&name));
            if waits == c_int::from(early) {
                return Ok(());
            }
            let how_many = ["some of its threads wait", "no thread waits", "its threads wait"][(waits + 1) as usize];
            Err(format!("{name}: {how_many} for the kernels before, and the table says: early {early}"))
        }
    }

    /// Bytes of each parameter of a kernel.
    pub fn parameters(&self, name: &str) -> Vec<usize> {
        let c_name = CString::new(name).expect("a name");
        let mut sizes = [0; 32];
        // SAFETY: the symbol has this type; the name ends with a zero byte, and kernels have fewer parameters than this.
        let count = unsafe {
            let parameters = self.library.get::<Parameters>(b"emulated_parameters").expect("the emulator's interface");
            parameters(c_name.as_ptr(), sizes.as_mut_ptr())
        };
        sizes[..usize::try_from(count).expect("a kernel of this name")].to_vec()
    }

    /// `bytes` in memory behind which no page may be touched.
    pub fn memory(&'static self, bytes: &[u8]) -> Memory {
        // SAFETY: the symbol has this type; the memory has room for the bytes and nobody else knows it.
        let at = unsafe {
            let at = self.library.get::<Alloc>(b"emulated_alloc").expect("the emulator's interface")(bytes.len());
            assert!(!at.is_null(), "memory of the emulator");
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast::<u8>(), bytes.len());
            at
        };
        Memory { kernels: self, at, bytes: bytes.len() }
    }

    /// Numbers in f32.
    pub fn f32(&'static self, values: &[f32]) -> Memory {
        self.memory(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Numbers rounded to bf16.
    pub fn bf16(&'static self, values: &[f32]) -> Memory {
        self.memory(&values.iter().flat_map(|x| f32_to_bf16(*x).to_le_bytes()).collect::<Vec<u8>>())
    }
}

/// An array of the emulated device.
pub struct Memory {
    kernels: &'static Kernels,
    /// Its address, an argument of kernels.
    pub at: *mut c_void,
    bytes: usize,
}

impl Memory {
    /// Its content.
    pub fn read(&self) -> Vec<u8> {
        // SAFETY: the memory holds this many bytes, and kernels run under a lock that no test holds here.
        unsafe { std::slice::from_raw_parts(self.at.cast::<u8>(), self.bytes) }.to_vec()
    }

    /// Its content as f32.
    pub fn read_f32(&self) -> Vec<f32> {
        self.read().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Its content, bf16, as f32.
    pub fn read_bf16(&self) -> Vec<f32> {
        self.read().chunks_exact(2).map(|b| bf16_to_f32(u16::from_le_bytes([b[0], b[1]]))).collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the memory came from this library and is given back once.
        unsafe {
            self.kernels.library.get::<Free>(b"emulated_free").expect("the emulator's interface")(self.at, self.bytes)
        }
    }
}

/// `launch!(kernels, "name", (grid, block, shared bytes), backwards, arguments…)`: arguments are values of the kernel's types.
macro_rules! launch {
    ($kernels:expr, $name:expr, $shape:expr, $backwards:expr, $($argument:expr),* $(,)?) => {
        $kernels.run($name, $shape, &[$(std::ptr::from_ref(&$argument).cast::<std::ffi::c_void>()),*], $backwards)
    };
}
pub(crate) use launch;
