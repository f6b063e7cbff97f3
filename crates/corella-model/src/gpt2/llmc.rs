//! llm.c's model files: a header of 256 words, then sixteen tensors, each for all layers.

use std::io::{BufWriter, Write};
use std::path::Path;

use corella_ops::WeightFormat;

use super::config::Gpt2Config;
use super::params::Tensor;
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::exchange::encode;
use crate::formats::atomic::AtomicFile;
use crate::formats::sniff::LLMC_MODEL as MAGIC;
use crate::formats::{Cause, ModelFile};
use crate::params::{ModelConfig, ParamSpec};
use crate::place::{Place, RowOrder};
use crate::source::Source;
use crate::special_ids::SpecialIds;

/// Versions: all tensors f32, or all bf16.
const VERSIONS: [(u32, WeightFormat); 2] = [(3, WeightFormat::F32), (5, WeightFormat::Bf16)];
const HEADER_WORDS: usize = 256;
const HEADER_BYTES: usize = HEADER_WORDS * 4;
/// The vocabulary is padded to a multiple of this.
const PADDING: usize = 128;
/// GPT-2's token between documents.
const END_OF_TEXT: u32 = 50_256;
/// Most rows that a file may pad its vocabulary with.
const MOST_PADDING: usize = 4096;

/// The table's rows in the order of the file: tensor by tensor, each with all its layers.
fn file_order(table: &[ParamSpec<Tensor>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..table.len()).collect();
    order.sort_by_key(|row| table[*row].parts[0].tensor);
    order
}

/// Opens a file of version 3 (f32) or 5 (bf16).
pub fn open(path: &Path) -> Result<Checkpoint<Gpt2Config>, ModelError> {
    let file = ModelFile::open(path)?;
    let mut header = [0; HEADER_BYTES];
    file.read_at(0, &mut header).map_err(|_| Cause::Truncated { field: "the header".to_owned() }.of(path))?;
    let words: Vec<u32> = header.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if words[0] != MAGIC {
        let found = words[0].to_string();
        return Err(Cause::BadMagic { expected: "llm.c", found, looks_like: None }.of(path).into());
    }
    let Some((_, format)) = VERSIONS.into_iter().find(|(version, _)| *version == words[1]) else {
        let (found, supported) = (words[1].into(), "versions 3 (f32) and 5 (bf16)");
        return Err(Cause::UnsupportedVersion { found, supported }.at(path, 4).into());
    };
    let field = |i: usize| words[i] as usize;
    let config = Gpt2Config::new(field(3), field(4), field(5), field(6), field(2))?;
    let padded = field(7);
    if padded < config.vocab_size() || padded > config.vocab_size() + MOST_PADDING {
        let rule = format!("must be from {} to {MOST_PADDING} above it", config.vocab_size());
        return Err(ModelError::BadConfig { field: "padded_vocab_size", value: padded.to_string(), rule });
    }
    let size = format.block_bytes() as u64;
    let padding = ((padded - config.vocab_size()) * config.n_embd()) as u64 * size;
    let expected = HEADER_BYTES as u64 + config.parameter_count() as u64 * size + padding;
    if file.size() != expected {
        return Err(Cause::Unsupported {
            field: "the size of the file".to_owned(),
            found: file.size().to_string(),
            allowed: format!("a llm.c model of this header has {expected} bytes"),
        }
        .of(path)
        .into());
    }
    let table = config.table();
    let (mut begins, mut at) = (vec![0; table.len()], HEADER_BYTES as u64);
    for row in file_order(&table) {
        begins[row] = at;
        at += table[row].len() as u64 * size + if table[row].parts[0].tensor == Tensor::Wte { padding } else { 0 };
    }
    let mut begins = begins.into_iter();
    // The file does not say; its tokens are those of GPT-2.
    let end = (config.vocab_size() > END_OF_TEXT as usize).then_some(END_OF_TEXT);
    let special = SpecialIds { bos: end, eos: end.into_iter().collect() };
    let checkpoint = Checkpoint::with_places(config, special, vec![file], |_, spec, _| {
        Ok(Place {
            name: spec.name.clone(),
            file: 0,
            // One part a row: the places are asked for in the order of the table.
            begin: begins.next().unwrap_or(0),
            format,
            rows: spec.rows(),
            cols: spec.cols,
            order: RowOrder::AsStored,
        })
    });
    Ok(checkpoint?)
}

/// Writes version 3 (f32) or 5 (bf16), with the vocabulary padded by zeros to a multiple of 128.
pub fn save(source: &dyn Source<Gpt2Config>, format: WeightFormat, path: &Path) -> Result<(), ModelError> {
    let config = source.config();
    let bad = |field, value: String, rule: &str| ModelError::BadConfig { field, value, rule: rule.to_owned() };
    let Some((version, _)) = VERSIONS.into_iter().find(|(_, known)| *known == format) else {
        return Err(bad("format", format.name().to_owned(), "llm.c's files hold F32 or BF16"));
    };
    if !config.tied() {
        return Err(bad("output head", "its own".to_owned(), "in llm.c's files it is the token embedding"));
    }
    let padded = config.vocab_size().next_multiple_of(PADDING);
    let fields = [config.seq_len(), config.vocab_size(), config.n_layer(), config.n_head(), config.n_embd(), padded];
    let mut header = vec![0u32; HEADER_WORDS];
    (header[0], header[1]) = (MAGIC, version);
    for (word, field) in header[2..].iter_mut().zip(fields) {
        // A validated configuration holds values up to 2^24.
        *word = field as u32;
    }
    let io = || ModelError::io(path);
    let mut out = BufWriter::with_capacity(1 << 20, AtomicFile::create(path).map_err(io())?);
    out.write_all(&header.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()).map_err(io())?;
    let table = config.table();
    for row in file_order(&table) {
        let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(|e| Cause::from(e).of(path));
        encode(source, (row, 0, table[row].cols), format, &mut write)?;
        if table[row].parts[0].tensor == Tensor::Wte {
            let padding = (padded - config.vocab_size()) * config.n_embd() * format.block_bytes();
            out.write_all(&vec![0; padding]).map_err(io())?;
        }
    }
    out.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(AtomicFile::commit).map_err(io())
}
