//! How long each kernel takes: where [`VARIABLE`] is set, every kernel is put between two events, nothing is recorded for later, and
//! when the card is given back a table goes to the standard error.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::CUstream;

use crate::driver::{Launch, Product};
use crate::error::CudaError;
use crate::event::{Event, NEEDED};
use crate::library::DRIVER;

/// The variable that asks for the table.
pub(crate) const VARIABLE: &str = "CORELLA_KERNEL_TIMES";
/// Pairs of events that are kept until they are read.
const MOST_PENDING: usize = 8192;

/// Times of the kernels of one stream. The card's context must be current in every call, and at the end.
pub(crate) struct Times {
    stream: CUstream,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pending: Vec<(String, [Event; 2])>,
    /// Events that can be used again.
    free: Vec<Event>,
    /// Milliseconds and calls.
    sums: HashMap<String, (f64, usize)>,
}

impl Times {
    /// None where nobody asks, or the driver cannot tell.
    pub fn wanted(stream: CUstream) -> Option<Times> {
        std::env::var_os(VARIABLE)?;
        if !DRIVER.has(&NEEDED) {
            eprintln!("warning: {VARIABLE} needs a driver of CUDA 12.8 or newer; no times are taken");
            return None;
        }
        Some(Times { stream, state: Mutex::default() })
    }

    /// Runs what starts a kernel between two events.
    pub fn around<T>(
        &self,
        name: impl FnOnce() -> String,
        start: impl FnOnce() -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let from = state.record(self.stream)?;
        let result = start()?;
        let to = state.record(self.stream)?;
        state.pending.push((name(), [from, to]));
        if state.pending.len() == MOST_PENDING {
            state.settle()?;
        }
        Ok(result)
    }

    /// Lines of the table, the longest time first; percentages are of all kernels together.
    pub fn table(&self) -> Result<Vec<String>, CudaError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.settle()?;
        let mut rows: Vec<_> = state.sums.iter().collect();
        rows.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
        let all: f64 = rows.iter().map(|(_, (ms, _))| ms).sum();
        let line = |(name, (ms, calls)): &(&String, &(f64, usize))| {
            format!("{ms:10.3} ms {:5.1} % {calls:7} × {:9.1} µs  {name}", 100.0 * ms / all, 1e3 * ms / *calls as f64)
        };
        Ok(rows.iter().map(line).collect())
    }
}

impl State {
    /// An event behind everything that the stream was given.
    fn record(&mut self, stream: CUstream) -> Result<Event, CudaError> {
        let event = self.free.pop().map_or_else(Event::new, Ok)?;
        event.record(stream)?;
        Ok(event)
    }

    /// Waits for the last event, and adds up.
    fn settle(&mut self) -> Result<(), CudaError> {
        for (name, [from, to]) in std::mem::take(&mut self.pending) {
            let ms = to.since(&from)?;
            let sum = self.sums.entry(name).or_default();
            *sum = (sum.0 + f64::from(ms), sum.1 + 1);
            self.free.extend([from, to]);
        }
        Ok(())
    }
}

/// A kernel with its grid.
pub(crate) fn kernel(entry: &str, shape: Launch) -> String {
    let [x, y, z] = shape.grid;
    format!("{entry} {x}·{y}·{z} × {}", shape.block)
}

/// A product with its shape.
pub(crate) fn product(p: &Product) -> String {
    let turned = |operand: crate::driver::Operand| if operand.transposed { "ᵀ" } else { "" };
    let finish = format!("{:?}", p.finish);
    let finish = finish.split('(').next().unwrap_or_default();
    format!(
        "product {}×{}×{} {}{} {} → {}, {finish}",
        p.m,
        p.n,
        p.k,
        turned(p.a),
        turned(p.b),
        p.dtype.name(),
        p.out_dtype.name()
    )
}
