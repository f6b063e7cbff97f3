//! A card that the tests emulate: the backend's launches go to the emulator instead of a driver.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corella_cuda::kernels::SOURCES;
use corella_cuda::{Address, CudaError, Driver, Launch, Product};

use crate::emulator::{Kernels, Memory, Watch, watched_kernels};

/// Compiled kernels by entry point, and the arrays that were allocated.
pub struct EmulatedCard {
    files: HashMap<&'static str, &'static Kernels>,
    arrays: Mutex<HashMap<Address, Array>>,
    /// Whether blocks and threads run from the last to the first.
    backwards: bool,
    recordings: Mutex<Recordings>,
    /// How often a recording has run.
    pub replays: Arc<AtomicUsize>,
    /// Whether it records, as newer drivers do.
    pub records: bool,
    /// How many recordings it cannot keep before it keeps one.
    pub refuses: AtomicUsize,
    /// Whether it has what Hopper has: products of the warps of a block together.
    pub by_blocks: bool,
    /// Kernels that have run.
    pub launched: Arc<Mutex<HashSet<String>>>,
}

/// What a recording keeps.
enum Recorded {
    Launch { entry: String, shape: Launch, arguments: Vec<Vec<u128>> },
    Clear { at: Address, bytes: usize },
}

#[derive(Default)]
struct Recordings {
    /// The one that is being made.
    open: Option<Vec<Recorded>>,
    kept: HashMap<u64, Vec<Recorded>>,
    made: u64,
}

/// An array that any thread may give back.
struct Array {
    _memory: Memory,
}

// SAFETY: the memory is one mapping of this process, which belongs to no thread; the card's lock keeps its users apart.
unsafe impl Send for Array {}

impl EmulatedCard {
    /// `None`, with a message, where there is no C++ compiler.
    pub fn new(backwards: bool) -> Option<EmulatedCard> {
        EmulatedCard::watching(Watch::Nothing, backwards)
    }

    /// The same with libraries that watch for mistakes.
    pub fn watching(watch: Watch, backwards: bool) -> Option<EmulatedCard> {
        let mut files = HashMap::new();
        for source in SOURCES {
            let file = watched_kernels(source.name, watch)?;
            files.extend(source.entries.iter().map(|entry| (*entry, file)));
        }
        Some(EmulatedCard {
            files,
            arrays: Mutex::default(),
            backwards,
            recordings: Mutex::default(),
            replays: Arc::default(),
            records: true,
            refuses: AtomicUsize::new(0),
            by_blocks: false,
            launched: Arc::default(),
        })
    }

    fn recordings(&self) -> MutexGuard<'_, Recordings> {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A card answers these with an error, and the recording is lost.
    fn not_while_recording(&self, call: &'static str) -> Result<(), CudaError> {
        let recording = self.recordings().open.is_some();
        if recording { Err(CudaError::Call { call, why: "while recording".to_owned() }) } else { Ok(()) }
    }

    fn file(&self, entry: &str) -> Result<&'static Kernels, CudaError> {
        self.files.get(entry).copied().ok_or_else(|| CudaError::NoKernel { entry: entry.to_owned() })
    }

    fn start(&self, entry: &str, shape: Launch, arguments: &[*const c_void]) -> Result<(), CudaError> {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.to_owned());
        self.file(entry)?
            .run(entry, (shape.grid, shape.block, shape.shared as usize), arguments, self.backwards)
            .map_err(|why| CudaError::Call { call: "launch", why })
    }

    fn any_file(&self) -> &'static Kernels {
        self.files.values().next().expect("kernels")
    }
}

impl Driver for EmulatedCard {
    fn name(&self) -> &str {
        "emulated"
    }

    fn multiplies_by_blocks(&self) -> bool {
        self.by_blocks
    }

    fn total_memory(&self) -> u64 {
        0
    }

    fn allocate(&self, bytes: usize) -> Result<Address, CudaError> {
        self.not_while_recording("allocate")?;
        // What was never written is no number.
        let memory = self.any_file().memory(&vec![0xff; bytes]);
        let at = memory.at as Address;
        self.arrays.lock().unwrap_or_else(PoisonError::into_inner).insert(at, Array { _memory: memory });
        Ok(at)
    }

    fn release(&self, at: Address, _bytes: usize) {
        self.not_while_recording("release").expect("memory is not released while recording");
        self.arrays.lock().unwrap_or_else(PoisonError::into_inner).remove(&at);
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), CudaError> {
        self.not_while_recording("upload")?;
        // SAFETY: the address came from `allocate`; writing behind the array would meet the page that may not be touched.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.not_while_recording("download")?;
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), CudaError> {
        self.not_while_recording("copy")?;
        // SAFETY: as above; the arrays are different ones, or different pages of one.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.not_while_recording("wait")
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        if let Some(open) = &mut self.recordings().open {
            open.push(Recorded::Clear { at, bytes });
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, entry: &str, shape: Launch, arguments: &[*const c_void]) -> Result<(), CudaError> {
        if let Some(open) = &mut self.recordings().open {
            let sizes = self.file(entry)?.parameters(entry);
            assert_eq!(sizes.len(), arguments.len(), "{entry}");
            let arguments = arguments.iter().zip(sizes).map(|(argument, size)| {
                let mut copy = vec![0u128; size.div_ceil(16)];
                // SAFETY: the caller's argument has the size of the kernel's parameter, and the copy has room for it.
                unsafe { std::ptr::copy_nonoverlapping(argument.cast::<u8>(), copy.as_mut_ptr().cast(), size) };
                copy
            });
            let arguments = arguments.collect();
            open.push(Recorded::Launch { entry: entry.to_owned(), shape, arguments });
            return Ok(());
        }
        self.start(entry, shape, arguments)
    }

    unsafe fn library_product(&self, _product: &Product) -> Result<bool, CudaError> {
        Ok(false)
    }

    fn begin_recording(&self) -> Result<bool, CudaError> {
        if !self.records {
            return Ok(false);
        }
        self.not_while_recording("begin_recording")?;
        self.recordings().open = Some(Vec::new());
        Ok(true)
    }

    fn end_recording(&self) -> Result<Option<u64>, CudaError> {
        let mut recordings = self.recordings();
        recordings.made += 1;
        let number = recordings.made;
        let open = recordings.open.take().expect("a recording that was begun");
        let fewer = |left: usize| left.checked_sub(1);
        if self.refuses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            return Ok(None);
        }
        recordings.kept.insert(number, open);
        Ok(Some(number))
    }

    unsafe fn replay(&self, recording: u64) -> Result<(), CudaError> {
        self.replays.fetch_add(1, Ordering::Relaxed);
        for step in &self.recordings().kept[&recording] {
            match step {
                Recorded::Launch { entry, shape, arguments } => {
                    let pointers: Vec<*const c_void> = arguments.iter().map(|a| a.as_ptr().cast()).collect();
                    self.start(entry, *shape, &pointers)?;
                }
                // SAFETY: as in `clear`.
                Recorded::Clear { at, bytes } => unsafe { std::ptr::write_bytes(*at as *mut u8, 0, *bytes) },
            }
        }
        Ok(())
    }

    fn forget(&self, recording: u64) {
        self.recordings().kept.remove(&recording).expect("a recording that was kept");
    }
}
