//! The shared test cases: one body per operation, run on any backend and compared with the f64 reference.
//!
//! Every array that an operation writes begins as NaN, so that reading it shows; every array that it adds to begins with
//! numbers, so that overwriting it shows; and behind each stands a margin that must stay as it was.

mod attention;
mod infer;
mod layers;
mod llama;
mod optimizer;
mod random;

use crate::contract::{Dtype, OpsError, OpsInfer, OpsTrain, ParamPart};
use crate::contract_infer::KvKind;
use crate::cpu::Bf16;
use crate::quant::WeightFormat;
use crate::reference::Reference;
pub use infer::random_rows;
pub use random::Random;
use std::ops::Deref;

/// Elements behind every array, none of which an operation may touch.
const MARGIN: usize = 5;
/// Exact in bf16 too.
const MARK: f32 = 12_352.0;

/// Named results of a case, margins included.
pub type Outputs = Vec<(&'static str, Vec<f32>)>;

/// Computes the outputs of a case on a backend.
type Run<B> = Box<dyn Fn(&On<B>) -> Result<Outputs, OpsError>>;

/// A backend, and the format of the activations and weights that a case is run with.
pub struct On<'a, B> {
    ops: &'a B,
    dtype: Dtype,
}

impl<B> Deref for On<'_, B> {
    type Target = B;

    fn deref(&self) -> &B {
        self.ops
    }
}

/// A computation with fixed inputs.
pub struct Case<B> {
    /// Operation and shape.
    pub name: String,
    rounding: Allowed,
    run: Run<B>,
}

/// How far, relative to the largest element of an output, roundings that the contract allows may take it.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    /// Not at all.
    Nothing,
    /// This share.
    Share(f64),
    /// What the backend says of products with weights in BF16: [`OpsInfer::bf16_rounding`].
    Bf16Weights,
}

impl<B> Case<B> {
    fn new(name: String, run: impl Fn(&On<B>) -> Result<Outputs, OpsError> + 'static) -> Self {
        Case::rounded(name, Allowed::Nothing, run)
    }

    fn rounded(name: String, rounding: Allowed, run: impl Fn(&On<B>) -> Result<Outputs, OpsError> + 'static) -> Self {
        Case { name, rounding, run: Box::new(run) }
    }

    /// Computes the outputs, with activations and weights in a format.
    pub fn run(&self, ops: &B, dtype: Dtype) -> Result<Outputs, OpsError> {
        (self.run)(&On { ops, dtype })
    }
}

/// The cases of training, the same for every backend and format.
pub fn training<B: OpsTrain>() -> Vec<Case<B>> {
    let mut cases = layers::cases();
    cases.extend(attention::cases());
    cases.extend(optimizer::cases());
    cases.extend(llama::cases());
    cases
}

/// All cases of a format, those of training first.
pub fn all<B: OpsInfer>(dtype: Dtype) -> Vec<Case<B>> {
    let mut cases = training();
    cases.extend(layers::large_cases());
    cases.extend(attention::cached_cases());
    if dtype == Dtype::F32 {
        cases.extend(infer::cases(B::kv_kinds()));
    }
    cases
}

/// The cases of inference, with these kinds of cache. In bf16 they are for backends whose steps are
/// ([`OpsInfer::step_dtype`]).
pub fn inference<B: OpsInfer>(kinds: &[KvKind]) -> Vec<Case<B>> {
    let mut cases = attention::cached_cases();
    cases.extend(infer::cases(kinds));
    cases
}

/// Runs those cases of [`inference`] whose names are wanted on a backend and on the reference, and says what differs.
pub fn inference_differences<B: OpsInfer>(
    ops: &B,
    dtype: Dtype,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<String>, OpsError> {
    let mut cases = inference::<B>(B::kv_kinds());
    let mut reference = inference::<Reference>(B::kv_kinds());
    cases.retain(|case| wanted(&case.name));
    reference.retain(|case| wanted(&case.name));
    let expected = Expected::of(&reference, dtype)?;
    compare(&expected.cases, dtype, &cases, ops, ops.bf16_rounding())
}

/// How far a right result may be off, relative to the largest of its array. f32: a few roundings of 6e-8 on sums of up to
/// 1,024 products. bf16: a few of 2e-3, where results are stored.
pub fn tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 5e-6,
        Dtype::Bf16 => 6e-3,
    }
}

/// What the reference computes for every case of a format.
pub struct Expected {
    dtype: Dtype,
    /// Each case's name and outputs.
    cases: Vec<(String, Outputs)>,
}

impl Expected {
    /// Computes it.
    pub fn new(dtype: Dtype) -> Result<Expected, OpsError> {
        Expected::of(&all(dtype), dtype)
    }

    fn of(cases: &[Case<Reference>], dtype: Dtype) -> Result<Expected, OpsError> {
        let run = |case: &Case<Reference>| Ok((case.name.clone(), case.run(&Reference, dtype)?));
        Ok(Expected { dtype, cases: cases.iter().map(run).collect::<Result<_, OpsError>>()? })
    }

    /// Runs every case on a backend, and says what differs.
    ///
    /// Inputs are rounded to the format first, for both. An output may differ from the reference by
    /// [`tolerance`] times the largest element of the reference's output.
    pub fn differences<B: OpsInfer>(&self, ops: &B) -> Result<Vec<String>, OpsError> {
        compare(&self.cases, self.dtype, &all(self.dtype), ops, ops.bf16_rounding())
    }

    /// As [`Expected::differences`], for the cases of training.
    pub fn training_differences<B: OpsTrain>(&self, ops: &B) -> Result<Vec<String>, OpsError> {
        let cases = training();
        // Those of training come first.
        let expected = &self.cases[..cases.len().min(self.cases.len())];
        compare(expected, self.dtype, &cases, ops, 0.0)
    }
}

/// Runs cases on a backend and says what differs. A case or an output that has no counterpart differs too: left out, it would look
/// like one that agrees.
fn compare<B: OpsTrain>(
    expected: &[(String, Outputs)],
    dtype: Dtype,
    cases: &[Case<B>],
    ops: &B,
    bf16: f64,
) -> Result<Vec<String>, OpsError> {
    let names = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(", ");
    let mut found = Vec::new();
    if cases.len() != expected.len() {
        found.push(format!("{} cases, of which the reference has {}", cases.len(), expected.len()));
    }
    for (case, (name, outputs)) in cases.iter().zip(expected) {
        if case.name != *name {
            found.push(format!("{}: the reference has {name} in its place", case.name));
            continue;
        }
        let allowed = match case.rounding {
            Allowed::Nothing => 0.0,
            Allowed::Share(share) => share,
            Allowed::Bf16Weights => bf16,
        };
        let got = case.run(ops, dtype)?;
        let (here, there) =
            (names(&mut got.iter().map(|(name, _)| *name)), names(&mut outputs.iter().map(|(n, _)| *n)));
        if here != there {
            found.push(format!("{name}: outputs {here}, of the reference {there}"));
            continue;
        }
        for ((output, got), (_, expected)) in got.iter().zip(outputs) {
            if let Some(difference) = difference(got, expected, tolerance(dtype) + allowed) {
                found.push(format!("{name}: {output}: {difference}"));
            }
        }
    }
    Ok(found)
}

/// Runs every case on a backend and on the reference, and says what differs: see [`Expected::differences`].
pub fn differences<B: OpsInfer>(ops: &B, dtype: Dtype) -> Result<Vec<String>, OpsError> {
    Expected::new(dtype)?.differences(ops)
}

fn difference(got: &[f32], expected: &[f32], tolerance: f64) -> Option<String> {
    if got.len() != expected.len() {
        return Some(format!("{} numbers instead of {}", got.len(), expected.len()));
    }
    let body = expected.len() - MARGIN;
    let scale = expected[..body].iter().fold(0.0f64, |scale, x| scale.max(f64::from(x.abs())));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        if i >= body && *g != MARK {
            return Some(format!("the margin was changed to {g}"));
        }
        let error = (f64::from(*g) - f64::from(*e)).abs();
        if i < body && (error > tolerance * scale || error.is_nan()) {
            return Some(format!("element {i} is {g} instead of {e} (scale {scale:.3e})"));
        }
    }
    None
}

/// Makes the arrays of a case on a backend.
struct Arrays<'a, B> {
    ops: &'a B,
    dtype: Dtype,
    random: Random,
}

impl<'a, B: OpsTrain> Arrays<'a, B> {
    fn new(on: &On<'a, B>, seed: usize) -> Self {
        Arrays { ops: on.ops, dtype: on.dtype, random: Random::new(seed as u64) }
    }

    fn filled(&self, values: Vec<f32>) -> Result<B::Buf, OpsError> {
        self.filled_as(self.dtype, values)
    }

    fn filled_as(&self, dtype: Dtype, mut values: Vec<f32>) -> Result<B::Buf, OpsError> {
        if dtype == Dtype::Bf16 {
            values.iter_mut().for_each(|x| *x = Bf16::round(*x).to_f32());
        }
        values.extend([MARK; MARGIN]);
        let mut buf = self.ops.buf(values.len(), dtype, "case")?;
        self.ops.write(&mut buf, &values);
        Ok(buf)
    }

    /// Normal random numbers: an input, or an output that is added to.
    fn numbers(&mut self, len: usize) -> Result<B::Buf, OpsError> {
        let values = self.random.normals(len);
        self.filled(values)
    }

    /// An output that is written.
    fn unset(&self, len: usize) -> Result<B::Buf, OpsError> {
        self.filled(vec![f32::NAN; len])
    }

    /// An output that is written in f32 whatever the format: statistics of rows, losses.
    fn unset_f32(&self, len: usize) -> Result<B::Buf, OpsError> {
        self.filled_as(Dtype::F32, vec![f32::NAN; len])
    }

    /// An output that is added to, in f32 whatever the format.
    fn numbers_f32(&mut self, len: usize) -> Result<B::Buf, OpsError> {
        let values = self.random.normals(len);
        self.filled_as(Dtype::F32, values)
    }

    /// A parameter with random values and a random gradient.
    fn param(&mut self, rows: usize, cols: usize) -> Result<B::Param, OpsError> {
        let mut param = self.ops.param(rows, cols, true, self.dtype, "case")?;
        for part in [ParamPart::Value, ParamPart::Grad] {
            let mut values = self.random.normals(rows * cols);
            if self.dtype == Dtype::Bf16 && part == ParamPart::Value {
                values.iter_mut().for_each(|x| *x = Bf16::round(*x).to_f32());
            }
            self.ops.param_write(&mut param, part, &values);
        }
        Ok(param)
    }

    fn ids(&mut self, len: usize, below: usize) -> Result<B::Ids, OpsError> {
        let values: Vec<u32> = (0..len).map(|_| self.random.below(below) as u32).collect();
        let mut ids = self.ops.ids(len)?;
        self.ops.write_ids(&mut ids, &values);
        Ok(ids)
    }

    /// The array with its margin.
    fn read(&self, buf: &B::Buf, len: usize) -> Vec<f32> {
        let mut out = vec![0.0; len + MARGIN];
        self.ops.read(buf, &mut out);
        out
    }

    /// A part of a parameter, with a margin for the comparison.
    fn part(&self, param: &B::Param, part: ParamPart, len: usize) -> Vec<f32> {
        let mut out = vec![MARK; len + MARGIN];
        self.ops.param_read(param, part, &mut out[..len]);
        out
    }
}

impl<B: OpsInfer> Arrays<'_, B> {
    /// A packed weight with random values, loaded in two pieces.
    fn weight(&mut self, format: WeightFormat, rows: usize, cols: usize) -> Result<B::Weight, OpsError> {
        let bytes = random_rows(&mut self.random, format, rows, cols);
        let (mut weight, cut) = (self.ops.weight(format, rows, cols, "case")?, rows / 3);
        let (first, rest) = bytes.split_at(bytes.len() / rows * cut);
        self.ops.weight_rows(&mut weight, cut, rest);
        self.ops.weight_rows(&mut weight, 0, first);
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outputs: Vec<(&'static str, usize)>) -> Case<Reference> {
        let numbers = |len: usize| [vec![1.0; len], vec![MARK; MARGIN]].concat();
        Case::new(name.to_owned(), move |_| Ok(outputs.iter().map(|(name, len)| (*name, numbers(*len))).collect()))
    }

    #[test]
    fn what_has_no_counterpart_differs() {
        let both = || vec![("out", 3), ("lse", 2)];
        let all = |last: Vec<_>| [case("a", both()), case("b", both()), case("c", last)];
        let expected = Expected::of(&all(both()), Dtype::F32).expect("runs");
        let found =
            |cases: &[Case<Reference>]| compare(&expected.cases, Dtype::F32, cases, &Reference, 0.0).expect("runs");
        assert_eq!(found(&all(both())), [""; 0]);
        assert_eq!(found(&all(both())[..2]), ["2 cases, of which the reference has 3"]);
        assert_eq!(found(&all(vec![("out", 3)])), ["c: outputs out, of the reference out, lse"]);
        assert_eq!(found(&all(vec![("out", 3), ("dx", 2)])), ["c: outputs out, dx, of the reference out, lse"]);
        assert_eq!(found(&all(vec![("out", 3), ("lse", 1)])), ["c: lse: 6 numbers instead of 7"]);
        let other = [case("a", both()), case("d", both()), case("c", both())];
        assert_eq!(found(&other), ["d: the reference has b in its place"]);
    }
}
