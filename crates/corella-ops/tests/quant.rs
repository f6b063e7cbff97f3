//! Weight formats against the Python package `gguf` (fixtures/quant/make.py).

use corella_ops::WeightFormat;
use corella_ops::quant::{dequantize_row, quantize_row};
use corella_ops::{Dtype, OpsError, OpsInfer, Store};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../../fixtures/quant/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn quantised() -> impl Iterator<Item = WeightFormat> {
    WeightFormat::ALL.into_iter().filter(|format| format.block_len() > 1)
}

/// Blocks of the fixture and the bits of the values that they stand for.
fn blocks_and_bits(format: WeightFormat) -> (Vec<u8>, Vec<u32>) {
    let mut blocks = fixture(format.name());
    let count = blocks.len() / (format.block_bytes() + 4 * format.block_len());
    let values = blocks.split_off(count * format.block_bytes());
    (blocks, values.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[test]
fn every_format_is_dequantised_to_the_bit() {
    for format in quantised() {
        let (blocks, bits) = blocks_and_bits(format);
        let mut row = vec![0.0; bits.len()];
        dequantize_row(format, &blocks, &mut row);
        for (i, (value, bits)) in row.iter().zip(&bits).enumerate() {
            assert_eq!(value.to_bits(), *bits, "{} weight {i}: {value} for {}", format.name(), f32::from_bits(*bits));
        }
    }
}

/// Packing for products loses nothing either.
#[test]
fn a_packed_weight_gives_its_rows_back_to_the_bit() -> Result<(), OpsError> {
    use corella_ops::OpsTrain;
    use corella_ops::cpu::{Cpu, CpuOptions};
    let ops = Cpu::new(CpuOptions { threads: Some(2), path: None })?;
    for format in quantised() {
        let (blocks, bits) = blocks_and_bits(format);
        // Two rows, the second in reverse order of blocks.
        let reversed: Vec<u8> = blocks.chunks_exact(format.block_bytes()).rev().flatten().copied().collect();
        let mut weight = ops.weight(format, 2, bits.len(), "fixture")?;
        ops.weight_rows(&mut weight, 0, &blocks);
        ops.weight_rows(&mut weight, 1, &reversed);
        let (mut ids, mut out) = (ops.ids(2)?, ops.buf(2 * bits.len(), Dtype::F32, "rows")?);
        ops.write_ids(&mut ids, &[1, 0]);
        ops.lookup(&mut out, &ids, &weight, 2, Store::Write);
        let mut rows = vec![0.0; 2 * bits.len()];
        ops.read(&out, &mut rows);
        let expected = bits.chunks_exact(format.block_len()).rev().flatten().chain(&bits);
        for (i, (value, bits)) in rows.iter().zip(expected).enumerate() {
            assert_eq!(value.to_bits(), *bits, "{} weight {i}", format.name());
        }
    }
    Ok(())
}

#[test]
fn rows_are_quantised_to_the_same_bytes() {
    for format in [WeightFormat::Q8_0, WeightFormat::Q4_0] {
        let mut fixture = fixture(&format!("to_{}", format.name()));
        let expected = fixture.split_off(6 * 64 * 4);
        let row: Vec<f32> = fixture.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut bytes = Vec::new();
        assert!(quantize_row(format, &row, &mut bytes));
        assert_eq!(bytes, expected, "{}", format.name());
    }
}
