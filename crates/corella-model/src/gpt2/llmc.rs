//! llm.c's model files: a header of 256 words, then sixteen tensors, each for all layers.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use corella_ops::quant::half::bf16_to_f32;

use super::config::Gpt2Config;
use super::params::{ParamSpec, param_specs};
use super::weights::Gpt2Weights;
use crate::formats::sniff::LLMC_MODEL as MAGIC;
use crate::{ModelError, SpecialIds};

/// Versions: all tensors f32, or all bf16.
const F32: u32 = 3;
const BF16: u32 = 5;
const HEADER_WORDS: usize = 256;
/// The vocabulary is padded to a multiple of this.
const PADDING: usize = 128;
/// GPT-2's token between documents.
const END_OF_TEXT: u32 = 50_256;
/// Number of tensors in the file.
const TENSORS: usize = 16;

/// The table's indices in the order of the file: tensor by tensor, each with all its layers.
fn file_order(table: &[ParamSpec]) -> impl Iterator<Item = usize> + '_ {
    (0..TENSORS).flat_map(move |slot| (0..table.len()).filter(move |i| table[*i].llmc == slot))
}

/// Reads a file of version 3 (f32) or 5 (bf16).
pub fn load(path: &Path) -> Result<Gpt2Weights, ModelError> {
    let file = File::open(path).map_err(ModelError::io(path))?;
    let size = file.metadata().map_err(ModelError::io(path))?.len();
    let mut input = BufReader::new(file);
    let mut header = [0u8; HEADER_WORDS * 4];
    input.read_exact(&mut header).map_err(ModelError::io(path))?;
    let words: Vec<u32> = header.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if words[0] != MAGIC {
        return Err(ModelError::bad(path, format!("magic {} instead of {MAGIC}", words[0])));
    }
    let width = match words[1] {
        F32 => 4,
        BF16 => 2,
        other => return Err(ModelError::bad(path, format!("version {other}; versions {F32} and {BF16} are read"))),
    };
    let field = |i: usize| words[i] as usize;
    let config = Gpt2Config::new(field(3), field(4), field(5), field(6), field(2))?;
    let padded = field(7);
    if padded < config.vocab_size() || padded > config.vocab_size() + 4096 {
        let why = format!("padded vocabulary {padded} does not fit the vocabulary {}", config.vocab_size());
        return Err(ModelError::bad(path, why));
    }
    let padding = (padded - config.vocab_size()) * config.n_embd();
    let expected = header.len() as u64 + (config.parameter_count() + padding) as u64 * width as u64;
    if size != expected {
        return Err(ModelError::bad(path, format!("{size} bytes, but this header needs {expected}")));
    }
    let table = param_specs(&config);
    let mut tensors = vec![Vec::new(); table.len()];
    for i in file_order(&table) {
        let skip = if table[i].llmc == 0 { padding } else { 0 };
        let mut bytes = vec![0; (table[i].len() + skip) * width];
        input.read_exact(&mut bytes).map_err(ModelError::io(path))?;
        let mut values: Vec<f32> = if width == 4 {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        } else {
            bytes.chunks_exact(2).map(|b| bf16_to_f32(u16::from_le_bytes([b[0], b[1]]))).collect()
        };
        values.truncate(table[i].len());
        tensors[i] = values;
    }
    // The file does not say; its tokens are those of GPT-2.
    let end = (config.vocab_size() > END_OF_TEXT as usize).then_some(END_OF_TEXT);
    let special = SpecialIds { bos: end, eos: end.into_iter().collect() };
    Ok(Gpt2Weights { config, special, tensors })
}

/// Writes version 3 (f32), with the vocabulary padded by zeros to a multiple of 128.
pub fn save(weights: &Gpt2Weights, path: &Path) -> Result<(), ModelError> {
    let config = &weights.config;
    let padded = config.vocab_size().next_multiple_of(PADDING);
    let fields = [config.seq_len(), config.vocab_size(), config.n_layer(), config.n_head(), config.n_embd(), padded];
    let mut header = vec![0u32; HEADER_WORDS];
    (header[0], header[1]) = (MAGIC, F32);
    for (word, field) in header[2..].iter_mut().zip(fields) {
        // A validated configuration holds values up to 2^24.
        *word = field as u32;
    }
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for word in &header {
            out.write_all(&word.to_le_bytes())?;
        }
        let table = param_specs(config);
        for i in file_order(&table) {
            for value in &weights.tensors[i] {
                out.write_all(&value.to_le_bytes())?;
            }
            if table[i].llmc == 0 {
                out.write_all(&vec![0; (padded - config.vocab_size()) * config.n_embd() * 4])?;
            }
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(ModelError::io(path))
}
