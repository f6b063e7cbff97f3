//! What the processor can do at most, at the start of a bench and beside each of its rows.

use corella_ops::cpu::Cpu;
use corella_ops::cpu::probe::{Ceilings, Memory, bf16_now, ceilings, f32_now, f32_products_now, int8_now};
use corella_ops::{Dtype, OpsTrain};

use super::{Bound, CeilingsOut, median};

/// The processor as a bench compares with it.
pub struct Processor {
    /// What it did at most when the bench began.
    first: Ceilings,
    /// What is read to learn how fast that goes; there from the first row on that memory bounds.
    memory: Option<Memory>,
}

impl Processor {
    /// Measures the processor behind `cpu`.
    pub fn of(cpu: &Cpu) -> Processor {
        Processor { first: ceilings(cpu, &Memory::new()), memory: None }
    }

    /// As people read it.
    pub fn sentence(&self, cpu: &Cpu) -> String {
        let Ceilings { f32_gflops, bf16_gflops, read_gbs, .. } = self.first;
        let bf16 = bf16_gflops.map_or("as many".to_owned(), |rate| format!("{rate:.0}"));
        format!(
            "{}, {} threads; measured at the start: {f32_gflops:.0} GFLOP/s in f32, {bf16} in bf16, {read_gbs:.1} GB/s from memory",
            cpu.name(),
            cpu.threads()
        )
    }

    /// The rates of this moment of what bounds, in 10⁹ operations or bytes per second, one for each way of measuring: on a shared
    /// host they change from second to second.
    pub fn now(&mut self, cpu: &Cpu, bound: Bound) -> Vec<f64> {
        match bound {
            Bound::Compute(Dtype::Bf16, _) | Bound::Products(Dtype::Bf16, _) => vec![bf16_now(cpu)],
            Bound::Products(Dtype::F32, _) => vec![f32_products_now(cpu)],
            Bound::Compute(Dtype::F32, _) => vec![f32_now(cpu)],
            Bound::Integers(_) => vec![int8_now(cpu).unwrap_or_else(|| f32_now(cpu))],
            // As fast as this machine reads so much: from memory, or from a cache that it fits into.
            Bound::Memory(bytes) => self.memory.get_or_insert_default().read_now(cpu, bytes as usize),
            Bound::Traffic(bytes) => self.memory.get_or_insert_default().traffic_now(cpu, bytes as usize),
        }
    }

    /// What bounds at most, as measured when the bench began.
    pub fn ceiling(&self, bound: Bound) -> f64 {
        let Ceilings { f32_gflops, bf16_gflops, int8_gops, read_gbs } = self.first;
        match bound {
            Bound::Compute(Dtype::Bf16, _) | Bound::Products(Dtype::Bf16, _) => bf16_gflops.unwrap_or(f32_gflops),
            Bound::Compute(Dtype::F32, _) | Bound::Products(Dtype::F32, _) => f32_gflops,
            Bound::Integers(_) => int8_gops.unwrap_or(f32_gflops),
            Bound::Memory(_) | Bound::Traffic(_) => read_gbs,
        }
    }

    /// The ceilings once more, and the best of both: the machine may have changed its mind since.
    pub fn again(self, cpu: &Cpu) -> CeilingsOut {
        let (first, again) = (self.first, ceilings(cpu, &self.memory.unwrap_or_default()));
        CeilingsOut {
            f32_gflops: first.f32_gflops.max(again.f32_gflops),
            bf16_gflops: first.bf16_gflops.into_iter().chain(again.bf16_gflops).reduce(f64::max),
            int8_gops: first.int8_gops.into_iter().chain(again.int8_gops).reduce(f64::max),
            read_gbs: first.read_gbs.max(again.read_gbs),
            copy_gbs: None,
            upload_gbs: None,
            download_gbs: None,
            datasheet: None,
        }
    }
}

/// What the processor did beside the repetitions of a row.
#[derive(Default)]
pub struct Beside {
    /// At each moment a rate for each way of measuring.
    moments: Vec<Vec<f64>>,
}

impl Beside {
    /// Adds what was measured at a moment.
    pub fn add(&mut self, rates: Vec<f64>) {
        self.moments.push(rates);
    }

    /// The median of one way of measuring.
    fn usual_of(&self, way: usize) -> Option<f64> {
        let mut rates: Vec<f64> = self.moments.iter().filter_map(|rates| rates.get(way).copied()).collect();
        (!rates.is_empty()).then(|| median(&mut rates))
    }

    /// The median of the best way of measuring, as rows are medians. `None` where nothing was measured.
    pub fn usual(&self) -> Option<f64> {
        let ways = self.moments.iter().map(Vec::len).max().unwrap_or(0);
        (0..ways).filter_map(|way| self.usual_of(way)).reduce(f64::max)
    }

    /// The best of all. `None` where nothing was measured.
    pub fn most(&self) -> Option<f64> {
        self.moments.iter().flatten().copied().reduce(f64::max)
    }
}
