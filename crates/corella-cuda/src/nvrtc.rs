//! From the text of a kernel to machine code.

use std::ffi::{CString, c_char};
use std::ptr;

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use crate::error::CudaError;
use crate::kernels::{HEADERS, Source};
use crate::library::NVRTC;

/// NVRTC, loaded.
#[derive(Clone, Copy, Debug)]
pub struct Compiler {
    /// Major and minor version: part of the key under which machine code is kept.
    pub version: (i32, i32),
}

/// What came out of a file.
#[derive(Debug)]
pub struct Compiled {
    /// The machine code, an ELF file.
    pub cubin: Vec<u8>,
    /// What the assembler says of registers, shared memory and spills.
    pub log: String,
}

fn check(call: &'static str, result: nvrtcResult) -> Result<(), CudaError> {
    if result == nvrtcResult::NVRTC_SUCCESS {
        Ok(())
    } else {
        Err(CudaError::Call { call, why: format!("{result:?}") })
    }
}

/// A program of NVRTC, destroyed at the end.
struct Program(nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and is destroyed once; the result tells nothing that one could act on.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

/// What the compiler is told for a card, named as in `sm_80`. Hopper's `wgmma` is of what no later card runs, hence `sm_90a`.
pub fn options(architecture: &str) -> [String; 2] {
    let target = if architecture == "sm_90" { "sm_90a" } else { architecture };
    [format!("--gpu-architecture={target}"), "--ptxas-options=-v".to_owned()]
}

impl Compiler {
    /// Loads NVRTC.
    pub fn load() -> Result<Compiler, CudaError> {
        NVRTC.load()?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library is loaded; both places are valid for the call.
        check("nvrtcVersion", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
        Ok(Compiler { version: (major, minor) })
    }

    /// Compiles a file for a card, named as in `sm_80`.
    pub fn compile(self, source: &Source, architecture: &str) -> Result<Compiled, CudaError> {
        let text = |s: &str| CString::new(s).expect("kernels and names hold no zero byte");
        let (program_text, name) = (text(source.text), text(source.name));
        let headers = HEADERS.map(|(name, body)| (text(name), text(body)));
        let (names, texts) = (headers.each_ref().map(|h| h.0.as_ptr()), headers.each_ref().map(|h| h.1.as_ptr()));
        let options = options(architecture).map(|option| text(&option));
        let option_pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program = ptr::null_mut();
        // SAFETY: every string outlives the call and ends with a zero byte; both lists have one for each header.
        let created = unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                program_text.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as i32,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        check("nvrtcCreateProgram", created)?;
        let program = Program(program);
        // SAFETY: the program is valid, and the number of options is right.
        let compiled =
            unsafe { sys::nvrtcCompileProgram(program.0, option_pointers.len() as i32, option_pointers.as_ptr()) };
        let log = program.log()?;
        match compiled {
            nvrtcResult::NVRTC_ERROR_COMPILATION => {
                return Err(CudaError::Compile { file: source.name, architecture: architecture.to_owned(), log });
            }
            other => check("nvrtcCompileProgram", other)?,
        }
        Ok(Compiled { cubin: program.cubin()?, log })
    }
}

impl Program {
    fn log(&self) -> Result<String, CudaError> {
        let mut size = 0;
        // SAFETY: program and place are valid.
        check("nvrtcGetProgramLogSize", unsafe { sys::nvrtcGetProgramLogSize(self.0, &mut size) })?;
        let mut log = vec![0u8; size];
        // SAFETY: the buffer has the size that was asked for.
        check("nvrtcGetProgramLog", unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) })?;
        Ok(String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned())
    }

    fn cubin(&self) -> Result<Vec<u8>, CudaError> {
        let mut size = 0;
        // SAFETY: program and place are valid.
        check("nvrtcGetCUBINSize", unsafe { sys::nvrtcGetCUBINSize(self.0, &mut size) })?;
        let mut cubin = vec![0u8; size];
        // SAFETY: the buffer has the size that was asked for.
        check("nvrtcGetCUBIN", unsafe { sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()) })?;
        Ok(cubin)
    }
}
