//! The parts of a model: files, code, configuration, tensors.

use std::path::{Path, PathBuf};

use corella_model::AnyModel;
use corella_model::gpt2;
use corella_model::llama;
use corella_model::place::Place;
use serde::Serialize;

/// A tensor of the list of parameters.
#[derive(Debug, Serialize)]
pub struct TensorRow {
    /// Its name.
    pub name: String,
    /// Its shape, (out, in) for matrices.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub dtype: &'static str,
    /// Numbers.
    pub parameters: usize,
    /// Bytes.
    pub bytes: u64,
    /// Block that it belongs to.
    #[serde(skip)]
    layer: Option<usize>,
}

impl TensorRow {
    fn of((layer, place): (Option<usize>, &Place)) -> Self {
        TensorRow {
            name: place.name.clone(),
            // A single row is a vector: no matrix has fewer rows than the model is wide.
            shape: if place.rows == 1 { vec![place.cols] } else { vec![place.rows, place.cols] },
            dtype: place.format.name(),
            parameters: place.rows * place.cols,
            bytes: place.bytes(),
            layer,
        }
    }
}

/// What a model is made of.
#[derive(Debug, Serialize)]
pub struct Anatomy {
    /// `gpt2` or `llama`.
    pub family: &'static str,
    /// `base`, or `instruct` where the files say so.
    pub kind: &'static str,
    /// Where it was found.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub file_bytes: u64,
    /// Lines of the program that compute the forward pass.
    pub code_lines: usize,
    /// Numbers, a tied head counted once.
    pub parameters: usize,
    /// Bytes of these numbers.
    pub parameter_bytes: u64,
    /// Bytes that a token takes in the cache of keys and values, in 16 bits.
    pub kv_bytes_per_token: u64,
    /// Name and value of every dimension.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// The list of parameters.
    pub tensors: Vec<TensorRow>,
}

impl Anatomy {
    /// Takes a model apart.
    pub fn of(model: &AnyModel, at: &Path) -> Self {
        let tensors: Vec<TensorRow> = model.tensors().into_iter().map(TensorRow::of).collect();
        let (family, config, kv, source) = match model {
            AnyModel::Gpt2(g) => {
                let c = &g.config;
                let config = serde_json::json!({"vocab_size": c.vocab_size(), "n_layer": c.n_layer(),
                    "n_head": c.n_head(), "n_embd": c.n_embd(), "context": c.seq_len(), "tied": c.tied()});
                ("gpt2", config, 2 * 2 * c.n_layer() * c.n_embd(), gpt2::FORWARD_SOURCE)
            }
            AnyModel::Llama(l) => {
                let c = &l.config;
                let config = serde_json::json!({"vocab_size": c.vocab_size, "n_layer": c.n_layer,
                    "n_head": c.n_head, "n_kv_head": c.n_kv_head, "head_size": c.head_size, "n_embd": c.n_embd,
                    "n_ff": c.n_ff, "context": c.context_len, "norm_eps": c.norm_eps_in_text(), "tied": c.tied,
                    "rope_theta": c.rope.theta, "rope_scaling": rope_scaling(&c.rope.scaling)});
                ("llama", config, 2 * 2 * c.n_layer * c.n_kv_head * c.head_size, llama::FORWARD_SOURCE)
            }
        };
        Anatomy {
            family,
            kind: if model.is_instruct() { "instruct" } else { "base" },
            path: at.to_path_buf(),
            file_bytes: if at.is_dir() { size_on_disk(at) } else { model.file_bytes() },
            code_lines: code_lines(source),
            parameters: model.parameter_count(),
            parameter_bytes: tensors.iter().map(|t| t.bytes).sum(),
            kv_bytes_per_token: kv as u64,
            config: config.as_object().cloned().unwrap_or_default(),
            tensors,
        }
    }

    /// The lines to print; of the blocks only the first unless `all`.
    pub fn lines(&self, all: bool) -> Vec<String> {
        let per = self.parameter_bytes as f64 * 8.0 / self.parameters as f64;
        let config: Vec<String> = self.config.iter().map(|(k, v)| format!("{k} {v}")).collect();
        let mut lines = vec![
            format!("{}: a {} {} model", self.path.display(), self.kind, self.family),
            format!("files      {}", bytes(self.file_bytes)),
            format!("code       {} lines compute the forward pass", self.code_lines),
            format!("parameters {} ({}, {per:.2} bits each)", self.parameters, bytes(self.parameter_bytes)),
            format!("KV cache   {} per token in 16 bits", bytes(self.kv_bytes_per_token)),
            format!("config     {}", config.join(", ")),
            String::new(),
        ];
        let shown = self.tensors.iter().filter(|t| all || t.layer.is_none_or(|l| l == 0));
        lines.extend(shown.map(|t| {
            let share = 100.0 * t.parameters as f64 / self.parameters as f64;
            let shape = format!("{:?}", t.shape);
            format!("{:<44} {shape:>20} {:>5} {:>14} {share:>6.2} %", t.name, t.dtype, t.parameters)
        }));
        let layers = self.tensors.iter().filter_map(|t| t.layer).max().map_or(0, |l| l + 1);
        if !all && layers > 1 {
            lines.push(format!("… and so on for {layers} blocks (--all prints every tensor)"));
        }
        lines
    }
}

fn rope_scaling(scaling: &llama::RopeScaling) -> String {
    match scaling {
        llama::RopeScaling::None => "none".to_owned(),
        llama::RopeScaling::Linear { factor } => format!("all frequencies / {factor}"),
        llama::RopeScaling::Llama3 { factor, .. } => format!("Llama 3.1, low frequencies / {factor}"),
        llama::RopeScaling::Divisors(d) => format!("{} divisors from the file", d.len()),
    }
}

/// Lines that compute: neither empty nor comments.
fn code_lines(source: &str) -> usize {
    source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// Bytes of the files of a folder.
fn size_on_disk(dir: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| if m.is_file() { m.len() } else { 0 });
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}

/// A size in decimal units.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.2} GB", n as f64 / 1e9),
        _ => format!("{:.1} TB", n as f64 / 1e12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lines_are_counted_as_people_do() {
        assert_eq!(bytes(811_706_777_600), "811.71 GB");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(code_lines("// why\n\nlet x = 1;\n    /// doc\n    x\n"), 2);
        for source in [gpt2::FORWARD_SOURCE, llama::FORWARD_SOURCE] {
            assert!((60..400).contains(&code_lines(source)), "a couple of hundred lines");
        }
    }
}
