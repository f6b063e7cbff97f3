//! Products whose algorithm is measured, on a card.

use corella_cuda::{Address, Bias, Card, CudaError, Driver, Finish, Operand, Product};
use corella_ops::Dtype;
use corella_ops::quant::half::f32_to_bf16;

/// Large enough to be measured.
const M: usize = 1024;
const N: usize = 2048;
const K: usize = 520;

/// Small whole numbers, whose sums are exact in any order.
fn a(i: usize, k: usize) -> f32 {
    ((i + k) % 3) as f32 - 1.0
}

fn b(j: usize, k: usize) -> f32 {
    ((2 * j + k) % 5) as f32 - 2.0
}

fn bias(j: usize) -> f32 {
    (j % 7) as f32
}

/// Memory of a card with bytes in it.
struct Held<'a> {
    card: &'a Card,
    at: Address,
    bytes: usize,
}

impl Held<'_> {
    fn new<'a>(card: &'a Card, bytes: &[u8]) -> Result<Held<'a>, CudaError> {
        let held = Held { card, at: card.allocate(bytes.len())?, bytes: bytes.len() };
        card.upload(held.at, bytes)?;
        Ok(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.card.release(self.at, self.bytes);
    }
}

/// A matrix of so many outer indices in bf16, in their order or with k as the slow one.
fn operand(card: &Card, outer: usize, transposed: bool, at: fn(usize, usize) -> f32) -> Result<Held<'_>, CudaError> {
    let (rows, columns) = if transposed { (K, outer) } else { (outer, K) };
    let numbers = (0..rows * columns).map(|x| (x / columns, x % columns));
    let numbers = numbers.map(|(row, column)| if transposed { at(column, row) } else { at(row, column) });
    let bytes: Vec<u8> = numbers.flat_map(|x| f32_to_bf16(x).to_le_bytes()).collect();
    Held::new(card, &bytes)
}

/// What is replaced, what is added to and what gets a bias is right, and tried without a trace, the first time and later.
pub fn measured_products_are_products(card: &Card) -> Result<(), CudaError> {
    // Sums repeat with i modulo 3 and j modulo 5.
    let sums: Vec<f32> = (0..15).map(|x| (0..K).map(|k| a(x / 5, k) * b(x % 5, k)).sum()).collect();
    let biases: Vec<u8> = (0..N).flat_map(|j| bias(j).to_le_bytes()).collect();
    let biases = Held::new(card, &biases)?;
    let out = Held::new(card, &vec![0xff; 4 * M * N])?;
    for (a_transposed, b_transposed) in [(false, false), (false, true), (true, true)] {
        let (a_held, b_held) = (operand(card, M, a_transposed, a)?, operand(card, N, b_transposed, b)?);
        let a = Operand { at: a_held.at, transposed: a_transposed };
        let b = Operand { at: b_held.at, transposed: b_transposed };
        let bias_held = Bias { f32: biases.at, bf16: None };
        let (out, dtype, out_dtype) = (out.at, Dtype::Bf16, Dtype::F32);
        // The result so far is so many sums and biases.
        let steps = [(Finish::Plain, 1.0, 0.0), (Finish::Add, 2.0, 0.0), (Finish::Add, 3.0, 0.0)];
        let steps = steps.into_iter().chain([
            (Finish::Bias(bias_held), 1.0, 1.0),
            (Finish::Add, 2.0, 1.0),
            (Finish::Plain, 1.0, 0.0),
        ]);
        for (step, (finish, of_sums, of_biases)) in steps.enumerate() {
            let p = Product { m: M, n: N, k: K, dtype, out_dtype, out, out_stride: N, a, b, finish, measured: true };
            // SAFETY: the arrays above have the sizes of the product.
            assert!(unsafe { card.library_product(&p) }?, "{p:?}");
            let mut bytes = vec![0; 4 * M * N];
            card.download(out, &mut bytes)?;
            for (x, got) in bytes.chunks_exact(4).enumerate() {
                let (i, j) = (x / N, x % N);
                let expected = of_sums * sums[i % 3 * 5 + j % 5] + of_biases * bias(j);
                let got = f32::from_le_bytes(got.try_into().expect("four bytes"));
                assert_eq!(got, expected, "step {step} ({i}, {j}), {p:?}");
            }
        }
    }
    Ok(())
}
