//! What the library describes products with. Each is given back when it is dropped, so that nothing stays where making a plan
//! fails half-way.

use std::ptr;

use corella_ops::Dtype;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preferred, cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType_t,
};

use super::{Call, Columns};
use crate::driver::{Finish, Product};
use crate::error::CudaError;

pub fn check(call: &'static str, status: cublasStatus_t) -> Result<(), CudaError> {
    let ok = status == cublasStatus_t::CUBLAS_STATUS_SUCCESS;
    if ok { Ok(()) } else { Err(CudaError::Call { call, why: format!("{status:?}") }) }
}

/// The library, begun.
pub struct Handle(pub cublasLtHandle_t);

impl Handle {
    /// The card's context must be current.
    pub fn new() -> Result<Handle, CudaError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the library is loaded, the place is valid.
        check("cublasLtCreate", unsafe { sys::cublasLtCreate(&mut handle) })?;
        Ok(Handle(handle))
    }

    /// The library's version.
    pub fn version(&self) -> usize {
        // SAFETY: the library is loaded; it expects nothing.
        unsafe { sys::cublasLtGetVersion() }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once. Where that fails, the card is lost.
        unsafe { sys::cublasLtDestroy(self.0) };
    }
}

/// What is computed, apart from the operands' addresses: sums in f32, which operands are turned, what follows.
pub struct Operation(pub cublasLtMatmulDesc_t);

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once.
        unsafe { sys::cublasLtMatmulDescDestroy(self.0) };
    }
}

impl Operation {
    pub fn new(p: &Product) -> Result<Operation, CudaError> {
        let mut made = ptr::null_mut();
        let (sums, scale) = (cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType_t::CUDA_R_32F);
        // SAFETY: the place is valid.
        check("cublasLtMatmulDescCreate", unsafe { sys::cublasLtMatmulDescCreate(&mut made, sums, scale) })?;
        let made = Operation(made);
        // CUBLAS_OP_N and CUBLAS_OP_T.
        let turned = |yes: bool| i32::from(yes);
        let call = Call::of(p);
        made.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &turned(call.b_turned))?;
        made.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &turned(call.a_turned))?;
        let epilogue = match p.finish {
            Finish::Plain | Finish::Add => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            Finish::Bias(_) => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
        };
        made.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        // The addresses tell the library how they are aligned.
        made.point(p)?;
        Ok(made)
    }

    /// Sets the address of the bias.
    pub fn point(&self, p: &Product) -> Result<(), CudaError> {
        if let Finish::Bias(bias) = p.finish
            && let Some(bias) = bias.get(p.out_dtype)
        {
            self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        Ok(())
    }

    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<(), CudaError> {
        // SAFETY: each caller passes the type that the manual gives for the attribute; it is copied.
        let status = unsafe {
            sys::cublasLtMatmulDescSetAttribute(self.0, attribute, ptr::from_ref(value).cast(), size_of::<T>())
        };
        check("cublasLtMatmulDescSetAttribute", status)
    }
}

/// How a matrix lies in memory.
pub struct Layout(pub cublasLtMatrixLayout_t);

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once.
        unsafe { sys::cublasLtMatrixLayoutDestroy(self.0) };
    }
}

impl Layout {
    pub fn new(dtype: Dtype, m: Columns) -> Result<Layout, CudaError> {
        let kind = match dtype {
            Dtype::F32 => cudaDataType_t::CUDA_R_32F,
            Dtype::Bf16 => cudaDataType_t::CUDA_R_16BF,
        };
        let mut made = ptr::null_mut();
        // SAFETY: the place is valid.
        let status = unsafe {
            sys::cublasLtMatrixLayoutCreate(&mut made, kind, m.rows as u64, m.columns as u64, m.stride as i64)
        };
        check("cublasLtMatrixLayoutCreate", status)?;
        Ok(Layout(made))
    }
}

/// What algorithms may use.
pub struct Preference(pub cublasLtMatmulPreference_t);

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once.
        unsafe { sys::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}

impl Preference {
    /// Algorithms that take at most so much memory beside their operands.
    pub fn new(workspace: usize) -> Result<Preference, CudaError> {
        let mut made = ptr::null_mut();
        // SAFETY: the place is valid.
        check("cublasLtMatmulPreferenceCreate", unsafe { sys::cublasLtMatmulPreferenceCreate(&mut made) })?;
        let made = Preference(made);
        let (key, bytes) = (Preferred::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace as u64);
        // SAFETY: the attribute is a u64.
        let set = unsafe {
            sys::cublasLtMatmulPreferenceSetAttribute(made.0, key, ptr::from_ref(&bytes).cast(), size_of::<u64>())
        };
        check("cublasLtMatmulPreferenceSetAttribute", set)?;
        Ok(made)
    }
}

/// A product's descriptors.
pub struct Described {
    /// What is computed.
    pub operation: Operation,
    /// Of our b, our a and the result, in the library's order.
    layouts: [Layout; 3],
}

impl Described {
    pub fn new(p: &Product) -> Result<Described, CudaError> {
        let (operation, call) = (Operation::new(p)?, Call::of(p));
        let layouts =
            [Layout::new(p.dtype, call.b)?, Layout::new(p.dtype, call.a)?, Layout::new(p.out_dtype, call.out)?];
        Ok(Described { operation, layouts })
    }

    /// Names of the three layouts.
    pub fn layouts(&self) -> [cublasLtMatrixLayout_t; 3] {
        self.layouts.each_ref().map(|layout| layout.0)
    }
}
