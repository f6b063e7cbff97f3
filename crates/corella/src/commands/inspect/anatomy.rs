//! The parts of a model: files, code, configuration, tensors.

use std::path::Path;

use corella_model::exchange::Exchange;
use corella_model::params::ParamSpec;
use corella_model::place::{Place, RowOrder};
use corella_model::{AnyModel, ModelPart, Role, gpt2, llama};
use corella_ops::WeightFormat;
use corella_train::console::grouped;
use serde::Serialize;

use super::files::{FileRow, file_lines, files_of};
use super::sums::{FormatRow, LayerRow, PartRow, formats, layers, parts};
use crate::shape::ModelShape;
use crate::terminal::wrapped;
use crate::units::size;

/// Bits that a parameter keeps of what was read: about 3.6, measured on models of GPT's kind (Morris et al. 2025, arXiv
/// 2505.24832).
const BITS_KEPT: f64 = 3.6;
/// Parameters of the largest GPT-2, with its vocabulary and with that padded to 50,304.
const LARGEST_GPT2: [usize; 2] = [1_557_611_200, 1_557_686_400];

/// A tensor of the list of parameters.
#[derive(Debug, Serialize)]
pub struct TensorRow {
    /// Its name.
    pub name: String,
    /// Its shape in the file: (out, in) for matrices, (in, out) for those of GPT-2 in Hugging Face's files.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub dtype: &'static str,
    /// Numbers.
    pub parameters: usize,
    /// Bytes.
    pub bytes: u64,
    /// Block that it belongs to; none of what stands before and behind the blocks.
    pub layer: Option<usize>,
    /// What it is for.
    pub role: Role,
    /// The part of the model that it belongs to.
    pub part: ModelPart,
}

impl TensorRow {
    fn of((layer, role, place): (Option<usize>, Role, &Place)) -> Self {
        TensorRow {
            name: place.name.clone(),
            // A single row is a vector: no matrix has fewer rows than the model is wide.
            shape: if place.rows == 1 { vec![place.cols] } else { in_file(vec![place.rows, place.cols], place.order) },
            dtype: place.format.name(),
            parameters: place.rows * place.cols,
            bytes: place.bytes(),
            layer,
            role,
            part: role.part(),
        }
    }
}

/// A shape of memory as a file has it whose rows lie so.
fn in_file(mut shape: Vec<usize>, order: RowOrder) -> Vec<usize> {
    if order == RowOrder::Transposed {
        shape.reverse();
    }
    shape
}

/// The list of parameters of a shape, by the names of Hugging Face's files.
fn rows_of<C: Exchange>(config: &C, format: WeightFormat) -> Vec<TensorRow> {
    let table = config.table();
    let parts = table.iter().flat_map(|spec| (0..spec.parts.len()).map(move |part| (spec, part)));
    let row = |(spec, part): (&ParamSpec<C::Tensor>, usize)| {
        let tensor = spec.parts[part].tensor;
        let shape = in_file(spec.part_shape(part), config.hugging_face_order(tensor));
        let parameters = shape.iter().product();
        let role = C::role(tensor);
        let mut names = config.hugging_face_names(tensor, spec.layer).into_iter();
        TensorRow {
            name: names.next().unwrap_or_else(|| spec.name.clone()),
            shape,
            dtype: format.name(),
            parameters,
            bytes: (parameters * format.block_bytes()) as u64,
            layer: spec.layer,
            role,
            part: role.part(),
        }
    };
    parts.map(row).collect()
}

/// What a model is made of.
#[derive(Debug, Serialize)]
pub struct Anatomy {
    /// `gpt2` or `llama`.
    pub family: &'static str,
    /// `base`, or `instruct` where the files say so.
    pub kind: &'static str,
    /// Where it was found, or the name of a published shape.
    pub path: String,
    /// Its files; none of a published shape.
    pub files: Vec<FileRow>,
    /// Bytes of all its files.
    pub file_bytes: u64,
    /// Lines of the program that compute the forward pass.
    pub code_lines: usize,
    /// Numbers, a tied head counted once.
    pub parameters: usize,
    /// Bytes of these numbers.
    pub parameter_bytes: u64,
    /// Bits that each takes, on average.
    pub bits_per_parameter: f64,
    /// Bytes that so many parameters can learn by heart, about.
    pub capacity_bytes: u64,
    /// Bits of a parameter that learn by heart.
    pub bits_kept: f64,
    /// Why others state another size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// Bytes that a token takes in the cache of keys and values, in 16 bits.
    pub kv_bytes_per_token: u64,
    /// Name and value of every dimension.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// How large its parts are.
    pub parts: Vec<PartRow>,
    /// How large its blocks are.
    pub layers: Vec<LayerRow>,
    /// The formats that its numbers are stored in.
    pub formats: Vec<FormatRow>,
    /// The list of parameters.
    pub tensors: Vec<TensorRow>,
}

impl Anatomy {
    /// Takes a model apart.
    pub fn of(model: &AnyModel, at: &Path) -> Self {
        let shape = match model {
            AnyModel::Gpt2(checkpoint) => ModelShape::Gpt2(checkpoint.config.clone()),
            AnyModel::Llama(checkpoint) => ModelShape::Llama(checkpoint.config.clone()),
        };
        let kind = if model.is_instruct() { "instruct" } else { "base" };
        Anatomy::new(&shape, kind, at, model.tensors().into_iter().map(TensorRow::of).collect())
    }

    /// A published shape without any file, its numbers in the format that they were published in.
    pub fn of_preset(shape: &ModelShape, name: &Path) -> Self {
        let tensors = match shape {
            ModelShape::Gpt2(config) => rows_of(config, WeightFormat::F32),
            ModelShape::Llama(config) => rows_of(config, WeightFormat::Bf16),
        };
        Anatomy::new(shape, "base", name, tensors)
    }

    fn new(shape: &ModelShape, kind: &'static str, at: &Path, tensors: Vec<TensorRow>) -> Self {
        let (family, config, kv, source) = match shape {
            ModelShape::Gpt2(c) => {
                let config = serde_json::json!({"vocab_size": c.vocab_size(), "n_layer": c.n_layer(),
                    "n_head": c.n_head(), "head_size": c.head_size(), "n_embd": c.n_embd(), "n_ff": 4 * c.n_embd(),
                    "context": c.seq_len(), "tied": c.tied()});
                ("gpt2", config, 2 * 2 * c.n_layer() * c.n_embd(), gpt2::FORWARD_SOURCE)
            }
            ModelShape::Llama(c) => {
                let config = serde_json::json!({"vocab_size": c.vocab_size, "n_layer": c.n_layer,
                    "n_head": c.n_head, "n_kv_head": c.n_kv_head, "head_size": c.head_size, "n_embd": c.n_embd,
                    "n_ff": c.n_ff, "context": c.context_len, "norm_eps": c.norm_eps_in_text(), "tied": c.tied,
                    "rope_theta": c.rope.theta, "rope_scaling": rope_scaling(&c.rope.scaling)});
                ("llama", config, 2 * 2 * c.n_layer * c.n_kv_head * c.head_size, llama::FORWARD_SOURCE)
            }
        };
        let (parameters, files) = (shape.parameter_count(), files_of(at));
        let parameter_bytes = tensors.iter().map(|t| t.bytes).sum();
        Anatomy {
            family,
            kind,
            // Not every path is UTF-8, which JSON is.
            path: at.display().to_string(),
            file_bytes: files.iter().map(|file| file.bytes).sum(),
            files,
            code_lines: code_lines(source),
            parameters,
            parameter_bytes,
            bits_per_parameter: parameter_bytes as f64 * 8.0 / parameters as f64,
            capacity_bytes: (parameters as f64 * BITS_KEPT / 8.0) as u64,
            bits_kept: BITS_KEPT,
            note: (family == "gpt2" && LARGEST_GPT2.contains(&parameters)).then_some(
                "rounded it is 1.6 billion; its makers call it 1.5B, after the 1,542 million of their paper, which were counted wrongly",
            ),
            kv_bytes_per_token: kv as u64,
            config: config.as_object().cloned().unwrap_or_default(),
            parts: parts(&tensors),
            layers: layers(&tensors),
            formats: formats(&tensors),
            tensors,
        }
    }

    /// The lines to print; of the blocks only the first unless `all`.
    pub fn lines(&self, all: bool) -> Vec<String> {
        let article = if self.kind == "instruct" { "an" } else { "a" };
        let mut lines = vec![format!("{}: {article} {} {} model", self.path, self.kind, self.family)];
        if self.files.is_empty() {
            lines.push("files      none: the published shape, in the number format of its weights".to_owned());
        } else {
            lines.extend(file_lines(&self.files, all));
        }
        lines.push(format!("code       {} lines compute the forward pass", self.code_lines));
        lines.push(format!(
            "parameters {} ({}, {:.2} bits each)",
            grouped(self.parameters as u64),
            size(self.parameter_bytes),
            self.bits_per_parameter
        ));
        lines.extend(self.note.into_iter().flat_map(|note| wrapped("           ", note.split(' '))));
        let capacity = format!(
            "about {} can be learnt by heart, at {BITS_KEPT} bits per parameter (arXiv 2505.24832)",
            size(self.capacity_bytes)
        );
        lines.extend(wrapped("capacity   ", capacity.split(' ')));
        lines.push(format!("KV cache   {} per token in 16 bits", size(self.kv_bytes_per_token)));
        let comma = |i| if i + 1 < self.config.len() { "," } else { "" };
        lines.extend(wrapped(
            "config     ",
            self.config.iter().enumerate().map(|(i, (key, value))| format!("{key} {value}{}", comma(i))),
        ));
        lines.push(String::new());
        lines.extend(self.table(all));
        let layers = self.layers.len();
        if !all && layers > 1 {
            let inside = self.layers.iter().map(|layer| layer.sum.parameters).sum::<usize>();
            let share = 100.0 * inside as f64 / self.parameters as f64;
            let inside = grouped(inside as u64);
            let more = format!(
                "and so on: {layers} blocks with {inside} parameters, {share:.2} % (--all prints every tensor)"
            );
            lines.extend(wrapped("… ", more.split(' ')));
        }
        lines
    }
}

impl Anatomy {
    /// The list of parameters, its columns as wide as what stands in them; of the blocks only the first unless `all`.
    fn table(&self, all: bool) -> Vec<String> {
        let shown = self.tensors.iter().filter(|t| all || t.layer.is_none_or(|l| l == 0));
        let row = |t: &TensorRow| {
            let shape: Vec<String> = t.shape.iter().map(usize::to_string).collect();
            let share = 100.0 * t.parameters as f64 / self.parameters as f64;
            [t.name.clone(), shape.join("×"), t.dtype.to_owned(), t.parameters.to_string(), format!("{share:.1}")]
        };
        let titles = ["tensor", "shape", "type", "numbers", "%"].map(str::to_owned);
        let rows: Vec<[String; 5]> = std::iter::once(titles).chain(shown.map(row)).collect();
        let widths: [usize; 5] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let line = |row: &[String; 5]| {
            let [name, shape, dtype, numbers, share] = row;
            let [a, b, c, d, e] = widths;
            format!("{name:<a$} {shape:>b$} {dtype:>c$} {numbers:>d$} {share:>e$}")
        };
        rows.iter().map(line).collect()
    }
}

fn rope_scaling(scaling: &llama::RopeScaling) -> String {
    match scaling {
        llama::RopeScaling::None => "none".to_owned(),
        llama::RopeScaling::Linear { factor } => format!("all frequencies / {factor}"),
        llama::RopeScaling::Llama3 { factor, .. } => format!("Llama 3.1, low frequencies / {factor}"),
        llama::RopeScaling::Divisors { divisors, .. } => format!("{} divisors from the file", divisors.len()),
    }
}

/// Lines that compute: neither empty nor comments.
fn code_lines(source: &str) -> usize {
    source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_people_do() {
        assert_eq!(code_lines("// why\n\nlet x = 1;\n    /// doc\n    x\n"), 2);
        for source in [gpt2::FORWARD_SOURCE, llama::FORWARD_SOURCE] {
            assert!((60..400).contains(&code_lines(source)), "a couple of hundred lines");
        }
    }
}
