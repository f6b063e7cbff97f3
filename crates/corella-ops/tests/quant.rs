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

/// Packing for products loses nothing either: whole panels of 16 rows at once, single rows, and rows that many threads read,
/// on each path.
#[test]
fn a_packed_weight_gives_its_rows_back_to_the_bit() -> Result<(), OpsError> {
    use corella_ops::OpsTrain;
    use corella_ops::cpu::{Cpu, CpuOptions, Path};
    const ROWS: usize = 83;
    for (path, format) in Path::available().into_iter().flat_map(|path| quantised().map(move |format| (path, format))) {
        let ops = Cpu::new(CpuOptions { threads: Some(2), path: Some(path), ..CpuOptions::default() })?;
        let (blocks, bits) = blocks_and_bits(format);
        let (block, len) = (format.block_bytes(), format.block_len());
        // Row r begins r blocks later.
        let row = |r: usize| [&blocks[r * block % blocks.len()..], &blocks[..r * block % blocks.len()]].concat();
        let rows: Vec<Vec<u8>> = (0..ROWS).map(row).collect();
        let mut by_hand = ops.weight(format, ROWS, bits.len(), "fixture")?;
        for range in [40..75, 75..ROWS, 0..7, 7..40] {
            ops.weight_rows(&mut by_hand, range.start, &rows[range].concat());
        }
        let mut filled = ops.weight(format, ROWS, bits.len(), "fixture")?;
        let row_bytes = rows[0].len();
        let Ok(()) = ops.weight_fill::<std::convert::Infallible>(&mut filled, ROWS, row_bytes, &|first, bytes| {
            let all = bytes.chunks_exact_mut(row_bytes).zip(&rows[first..]);
            all.for_each(|(to, row)| to.copy_from_slice(row));
            Ok(())
        });
        let (mut ids, mut out) = (ops.ids(ROWS)?, ops.buf(ROWS * bits.len(), Dtype::F32, "rows")?);
        ops.write_ids(&mut ids, &(0..ROWS as u32).collect::<Vec<_>>());
        for weight in [&by_hand, &filled] {
            ops.lookup(&mut out, &ids, weight, ROWS, Store::Write);
            let mut values = vec![0.0; ROWS * bits.len()];
            ops.read(&out, &mut values);
            for (i, value) in values.iter().enumerate() {
                let (r, k) = (i / bits.len(), i % bits.len());
                let expected = bits[(r * len + k) % bits.len()];
                assert_eq!(value.to_bits(), expected, "{} {} row {r} weight {k}", path.name(), format.name());
            }
        }
    }
    Ok(())
}

/// Rows that cannot be read are the caller's error, whichever thread met it.
#[test]
fn filling_a_weight_ends_with_the_error_of_its_reader() -> Result<(), OpsError> {
    use corella_ops::cpu::{Cpu, CpuOptions};
    let ops = Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() })?;
    let mut weight = ops.weight(WeightFormat::F32, 5000, 64, "fixture")?;
    let read = |first: usize, _: &mut [u8]| if first > 3000 { Err(first) } else { Ok(()) };
    assert!(ops.weight_fill(&mut weight, 5000, 256, &read).is_err_and(|first| first > 3000));
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
