//! "A lossy zip of the internet": the bytes of the corpus beside the bytes of the parameters.

use std::path::Path;

use corella_model::AnyModel;
use corella_train::RunPlan;
use serde::Serialize;

use super::anatomy::bytes;

/// Tokens that Llama 3 was trained on: "over 15T" (The Llama 3 Herd of Models, arXiv 2407.21783).
const LLAMA3_TOKENS: f64 = 15e12;
/// Bytes of English text per token of Llama 3's tokenizer, about.
const LLAMA3_BYTES_PER_TOKEN: f64 = 4.4;
/// WebText: "40 GB of text" (Radford et al. 2019).
const WEBTEXT_BYTES: u64 = 40_000_000_000;
/// Parameters of the Llama 3 and 3.1 that were published: 8B, 70B, 405B.
const LLAMA3_PARAMETERS: [usize; 3] = [8_030_261_248, 70_553_706_496, 405_853_388_800];
/// Parameters of the GPT-2 that were published: 124M, 355M, 774M, 1558M.
const GPT2_PARAMETERS: [usize; 4] = [124_439_808, 354_823_168, 774_030_080, 1_557_611_200];

/// What a model was trained on.
#[derive(Debug, Serialize)]
pub struct Corpus {
    /// Bytes of text.
    pub bytes: u64,
    /// Where the figure is from.
    pub source: String,
}

impl Corpus {
    /// The figure that was given, the size of the text of a run, or that of the published models.
    pub fn of(path: &Path, model: &AnyModel, given: Option<u64>) -> Option<Self> {
        let corpus = |bytes: u64, source: &str| Some(Corpus { bytes, source: source.to_owned() });
        if let Some(bytes) = given {
            return corpus(bytes, "as given");
        }
        if let Some((bytes, name)) = run_text(path) {
            return Some(Corpus { bytes, source: format!("the size of {name}, which this run trains on") });
        }
        // A run trains on what its plan says, whatever its shape.
        if path.join("run.toml").is_file() {
            return None;
        }
        let parameters = model.parameter_count();
        match model {
            AnyModel::Llama(_) if LLAMA3_PARAMETERS.contains(&parameters) => corpus(
                (LLAMA3_TOKENS * LLAMA3_BYTES_PER_TOKEN) as u64,
                "15 trillion tokens as published for Llama 3, at about 4.4 bytes of text each",
            ),
            AnyModel::Gpt2(_) if GPT2_PARAMETERS.contains(&parameters) => {
                corpus(WEBTEXT_BYTES, "WebText, as published for GPT-2")
            }
            _ => None,
        }
    }

    /// The lines of the comparison.
    pub fn lines(&self, parameter_bytes: u64) -> Vec<String> {
        let ratio = self.bytes as f64 / parameter_bytes as f64;
        let mut lines = vec![
            String::new(),
            format!("a lossy zip: {} of text ({})", bytes(self.bytes), self.source),
            format!("             {} of parameters: 1 to {ratio:.1}", bytes(parameter_bytes)),
        ];
        if ratio > 5.0 {
            let why = "far less than any archive that gives every byte back, so most of it is forgotten or blurred";
            lines.push(format!("             {why}"));
        }
        lines
    }
}

/// Bytes and name of the text that a run folder names in its plan.
fn run_text(path: &Path) -> Option<(u64, String)> {
    let text = std::fs::read_to_string(path.join("run.toml")).ok()?;
    let data = RunPlan::from_toml(&text).ok()?.data.path;
    let size = std::fs::metadata(&data).ok().filter(|m| m.is_file())?.len();
    Some((size, data))
}
