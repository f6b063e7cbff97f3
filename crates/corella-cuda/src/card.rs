//! An NVIDIA card: its context, one stream, its compiled kernels.
//!
//! Two variables of the environment change how kernels are started: `CORELLA_PLAIN_LAUNCHES=1` starts each after everything before it,
//! also where the card could start it earlier (launching.rs), and `CORELLA_KERNEL_TIMES=1` also takes their times (times.rs).

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use corella_ops::Choices;
use cudarc::driver::sys::{
    self, CUdevice_attribute, CUfunction_attribute, CUgraphExec, CUmodule, CUresult, CUstreamCaptureMode,
};

use crate::compiled::compiled;
use crate::context::{Context, Pinned};
use crate::driver::{Address, Driver, Launch, Product};
use crate::error::CudaError;
use crate::kernels::SOURCES;
use crate::launching::{Kernel, Launches};
use crate::library::{CUBLASLT, DRIVER};
use crate::matrix_library::MatrixLibrary;
use crate::nvrtc::Compiler;
use crate::parallel::in_parallel;
use crate::staging::Staging;
use crate::times::{self, Times};

/// What every card since Ampere gives a block.
const MOST_SHARED: i32 = 99 << 10;
/// What recordings need of the driver: since CUDA 11.4.
const RECORDING: [&str; 6] = [
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphDestroy",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
];
/// Oldest architecture whose instructions the kernels use.
const OLDEST: (i32, i32) = (8, 0);
/// The architecture that has `wgmma`.
const HOPPER: (i32, i32) = (9, 0);

pub(crate) fn check(call: &'static str, result: CUresult) -> Result<(), CudaError> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut name = ptr::null();
    // SAFETY: the library is loaded, as it gave the result; the name it answers is a static string, or null.
    let known = unsafe { sys::cuGetErrorName(result, &mut name) } == CUresult::CUDA_SUCCESS && !name.is_null();
    let why = if known {
        // SAFETY: see above.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    } else {
        format!("error {}", result as u32)
    };
    Err(CudaError::Call { call, why })
}

/// What the driver says of a card.
#[derive(Clone, Debug)]
pub struct CardInfo {
    /// Number, as in `cuda:N`.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Compute capability, e.g. (9, 0).
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub total_memory: u64,
    device: i32,
}

impl CardInfo {
    /// Architecture as the compiler names it, e.g. `sm_90`.
    pub fn architecture(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }

    /// Why the kernels cannot run on it.
    fn usable(&self) -> Result<(), CudaError> {
        if self.capability >= OLDEST {
            return Ok(());
        }
        Err(CudaError::TooOld { name: self.name.clone(), capability: self.capability })
    }
}

/// The cards of this machine; an error where there is no driver or no card.
pub fn cards() -> Result<Vec<CardInfo>, CudaError> {
    DRIVER.load()?;
    // SAFETY: the library is loaded.
    check("cuInit", unsafe { sys::cuInit(0) })?;
    let mut count = 0;
    // SAFETY: the place is valid.
    check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
    (0..count).map(card).collect()
}

fn card(index: i32) -> Result<CardInfo, CudaError> {
    let mut device = 0;
    // SAFETY: the place is valid.
    check("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut device, index) })?;
    let mut name = [0u8; 128];
    // SAFETY: the buffer has the length that is passed.
    check("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, device) })?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
    let attribute = |which| {
        let mut value = 0;
        // SAFETY: the place is valid, the device was just found.
        check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&mut value, which, device) }).map(|()| value)
    };
    let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let mut total = 0;
    // SAFETY: the place is valid.
    check("cuDeviceTotalMem_v2", unsafe { sys::cuDeviceTotalMem_v2(&mut total, device) })?;
    Ok(CardInfo { index: index as u32, name, capability: (major, minor), total_memory: total as u64, device })
}

/// A card in use.
pub struct Card {
    name: String,
    multiplies_by_blocks: bool,
    total_memory: u64,
    // First, so that they end while stream and context are there.
    matrices: MatrixLibrary,
    kernels: Kernels,
    /// None where the system locks no pages: then the driver copies through pages of its own, and the host waits.
    staging: Option<Mutex<Staging<Pinned>>>,
    launches: Launches,
    /// Where the user asks for them.
    times: Option<Times>,
    context: Context,
}

/// Every kernel that the card can run, loaded.
#[derive(Default)]
struct Kernels {
    modules: Vec<CUmodule>,
    functions: HashMap<&'static str, Kernel>,
}

impl Drop for Kernels {
    fn drop(&mut self) {
        for module in &self.modules {
            // SAFETY: loaded below, unloaded once; no kernel of it runs any more. Where that fails, the card is lost.
            let _ = unsafe { sys::cuModuleUnload(*module) };
        }
    }
}

// SAFETY: context, stream, events, modules, functions and handle are names that the driver lets any thread use; `bind` makes the
// context that of the calling thread before each call. Page-locked memory belongs to no thread.
unsafe impl Send for Card {}
// SAFETY: as above; the driver and cuBLASLt lock what they share, and staging has a lock of its own.
unsafe impl Sync for Card {}

impl Card {
    /// Takes the card of this number and compiles the kernels for it, or finds them compiled.
    pub fn open(index: u32) -> Result<Card, CudaError> {
        let cards = cards()?;
        let count = cards.len();
        let info = cards.into_iter().nth(index as usize).ok_or(CudaError::NoCard { index, count })?;
        info.usable()?;
        CUBLASLT.load()?;
        let context = Context::new(info.device)?;
        let kernels = kernels(&info.architecture())?;
        let name = format!("{} {}", info.name, info.architecture());
        let matrices = MatrixLibrary::new(context.stream, &name)?;
        let staging = Pinned::new(context.stream).ok().map(|pinned| Mutex::new(Staging::new(pinned)));
        let times = Times::wanted(context.stream);
        let launches = Launches::new(context.stream, info.capability, times.is_some());
        let (multiplies_by_blocks, total_memory) = (info.capability == HOPPER, info.total_memory);
        Ok(Card { name, multiplies_by_blocks, total_memory, matrices, kernels, staging, launches, times, context })
    }

    /// Free and total bytes of its memory.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        self.context.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both places are valid.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) })?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // The fields go next, in the context of this thread and after all work. Where that fails, the card is lost.
        let _ = self.context.bind().and_then(|()| self.context.wait());
        if let Some(Ok(table)) = self.times.as_ref().map(Times::table) {
            table.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Compiles the kernels, or finds them compiled, and loads them into the context of this thread.
fn kernels(architecture: &str) -> Result<Kernels, CudaError> {
    let compiler = Compiler::load()?;
    // All at once: one after the other they take half a minute, the first time.
    let cubins = in_parallel(SOURCES, |source| compiled(compiler, source, architecture));
    let mut kernels = Kernels::default();
    for (source, cubin) in SOURCES.iter().zip(cubins) {
        let cubin = cubin?;
        let mut module = ptr::null_mut();
        // SAFETY: the image is a whole ELF file of the compiler, which the cache has checked.
        check("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&mut module, cubin.as_ptr().cast()) })?;
        kernels.modules.push(module);
        for entry in source.entries {
            let name = CString::new(*entry).expect("names hold no zero byte");
            let mut function = ptr::null_mut();
            // SAFETY: module and name are valid.
            check("cuModuleGetFunction", unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) })?;
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            if source.dynamic_shared {
                let mut declared = 0;
                let size = CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
                // SAFETY: the function was just found, and the place is valid.
                check("cuFuncGetAttribute", unsafe { sys::cuFuncGetAttribute(&mut declared, size, function) })?;
                // SAFETY: as above. What the kernel declares counts too.
                let set = unsafe { sys::cuFuncSetAttribute(function, attribute, MOST_SHARED - declared) };
                check("cuFuncSetAttribute", set)?;
            }
            let early = source.early.contains(entry);
            kernels.functions.insert(*entry, Kernel { function, early });
        }
    }
    Ok(kernels)
}

impl Driver for Card {
    fn name(&self) -> &str {
        &self.name
    }

    fn multiplies_by_blocks(&self) -> bool {
        self.multiplies_by_blocks
    }

    fn total_memory(&self) -> u64 {
        self.total_memory
    }

    fn allocate(&self, bytes: usize) -> Result<Address, CudaError> {
        self.context.bind()?;
        let mut at = 0;
        // SAFETY: the place is valid.
        check("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&mut at, bytes) })?;
        Ok(at)
    }

    fn release(&self, at: Address, _bytes: usize) {
        if self.context.bind().is_ok() && self.context.wait().is_ok() {
            // SAFETY: the memory came from `allocate`, is given back once, and nothing uses it any more. Where that fails,
            // the card is lost and its memory with it.
            let _ = unsafe { sys::cuMemFree_v2(at) };
        }
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        if let Some(staging) = &self.staging {
            let mut staging = staging.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the caller's array has room for the bytes.
            return unsafe { staging.upload(to, bytes) };
        }
        // SAFETY: the bytes live until `wait` returns; the caller's array has room for them.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), self.context.stream) };
        check("cuMemcpyHtoDAsync", copied)?;
        self.context.wait()
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        if let Some(staging) = &self.staging {
            let mut staging = staging.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the caller's array is as long.
            return unsafe { staging.download(from, bytes) };
        }
        // SAFETY: the bytes live until `wait` returns; the caller's array is as long.
        let copied =
            unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from, bytes.len(), self.context.stream) };
        check("cuMemcpyDtoHAsync", copied)?;
        self.context.wait()
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: the caller's arrays are as long, and do not overlap.
        check("cuMemcpyDtoDAsync", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.context.stream) })
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: the caller's array is as long.
        check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(at, 0, bytes, self.context.stream) })
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.context.bind()?;
        self.context.wait()
    }

    unsafe fn launch(&self, entry: &str, shape: Launch, arguments: &[*const c_void]) -> Result<(), CudaError> {
        self.context.bind()?;
        let kernel =
            *self.kernels.functions.get(entry).ok_or_else(|| CudaError::NoKernel { entry: entry.to_owned() })?;
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(|p| p.cast_mut()).collect();
        // SAFETY: the kernel is loaded, its context bound; the caller's arguments fit it and live until this returns.
        let mut start = || unsafe { self.launches.start(kernel, shape, &mut pointers) };
        match &self.times {
            Some(times) => times.around(|| times::kernel(entry, shape), start),
            None => start(),
        }
    }

    unsafe fn library_product(&self, product: &Product) -> Result<bool, CudaError> {
        self.context.bind()?;
        // SAFETY: the caller's promise.
        unsafe { self.matrices.product(product, self.times.as_ref()) }
    }

    fn choices(&self) -> Choices {
        self.matrices.choices()
    }

    fn take_choices(&self, choices: &Choices) {
        self.matrices.take_choices(choices);
    }

    fn begin_recording(&self) -> Result<bool, CudaError> {
        if self.times.is_some() || !DRIVER.has(&RECORDING) {
            return Ok(false);
        }
        self.context.bind()?;
        // Other threads may go on to use other streams as they like.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as this.
        let begun = unsafe { sys::cuStreamBeginCapture_v2(self.context.stream, mode) };
        Ok(begun == CUresult::CUDA_SUCCESS)
    }

    fn end_recording(&self) -> Result<Option<u64>, CudaError> {
        self.context.bind()?;
        let mut graph = ptr::null_mut();
        // SAFETY: the place is valid; the stream is recorded by this thread.
        let ended = unsafe { sys::cuStreamEndCapture(self.context.stream, &mut graph) };
        if ended != CUresult::CUDA_SUCCESS || graph.is_null() {
            self.launches.become_plain();
            return Ok(None);
        }
        let mut ready: CUgraphExec = ptr::null_mut();
        // SAFETY: the place and the graph are valid.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0) };
        // SAFETY: what was made of the graph does not need it; it is given back once.
        check("cuGraphDestroy", unsafe { sys::cuGraphDestroy(graph) })?;
        if made != CUresult::CUDA_SUCCESS {
            self.launches.become_plain();
            return Ok(None);
        }
        Ok(Some(ready as u64))
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: the number came from `end_recording` and was not forgotten; its memory is the caller's promise.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(recording as CUgraphExec, self.context.stream) })
    }

    fn forget(&self, recording: u64) {
        if self.context.bind().is_ok() && self.context.wait().is_ok() {
            // SAFETY: the number came from `end_recording`; nothing of it runs any more. Where that fails, the card is lost.
            let _ = unsafe { sys::cuGraphExecDestroy(recording as CUgraphExec) };
        }
    }
}
