//! "A lossy zip of the internet": the bytes of the corpus beside the bytes of the parameters.

use std::path::Path;

use corella_text::data::read_info;
use corella_text::data::readers::expand;
use corella_text::tiny_internet::World;
use corella_train::folder;
use serde::Serialize;

use super::anatomy::Anatomy;
use crate::inputs::{TINY_INTERNET, WORLD_SEED, is_prepared, tiny_pages};
use crate::terminal::wrapped;
use crate::units::size;

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
    /// What its size and that of the model say about each other, in sentences.
    pub comparison: Vec<String>,
}

impl Corpus {
    /// The figure that was given, the size of the text of a run, or that of the published models.
    pub fn of(path: &Path, model: &Anatomy, given: Option<u64>) -> Option<Self> {
        let corpus = |bytes: u64, source: &str| {
            let comparison = comparison(bytes, model.parameter_bytes, model.capacity_bytes);
            Some(Corpus { bytes, source: source.to_owned(), comparison })
        };
        if let Some(bytes) = given {
            return corpus(bytes, "as given");
        }
        if let Some((bytes, name)) = run_text(path) {
            return corpus(bytes, &format!("{name}, which this run trains on"));
        }
        // A run trains on what its plan says, whatever its shape.
        if folder::is_run(path) {
            return None;
        }
        match model.family {
            "llama" if LLAMA3_PARAMETERS.contains(&model.parameters) => corpus(
                (LLAMA3_TOKENS * LLAMA3_BYTES_PER_TOKEN) as u64,
                "15 trillion tokens as published for Llama 3, at about 4.4 bytes of text each",
            ),
            "gpt2" if GPT2_PARAMETERS.contains(&model.parameters) => {
                corpus(WEBTEXT_BYTES, "WebText, as published for GPT-2")
            }
            _ => None,
        }
    }

    /// The lines of the comparison.
    pub fn lines(&self) -> Vec<String> {
        let text = format!("{} of text ({})", size(self.bytes), self.source);
        let title = wrapped("a lossy zip: ", text.split(' '));
        let comparison = self.comparison.iter().flat_map(|line| wrapped("             ", line.split(' ')));
        std::iter::once(String::new()).chain(title).chain(comparison).collect()
    }
}

/// What the bytes of a text, of parameters and of what these can keep say about each other.
fn comparison(text: u64, parameters: u64, capacity: u64) -> Vec<String> {
    let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    let mut lines = Vec::new();
    let (to_one, times) = (ratio(text, parameters), ratio(parameters, text));
    if to_one >= 1.0 {
        lines.push(format!("{} of parameters: 1 to {to_one:.1}", size(parameters)));
    } else {
        lines.push(format!("{} of parameters, {times:.1} times as large: no zip at all", size(parameters)));
    }
    if to_one > 5.0 {
        let far = "far less than any archive that gives every byte back, so most of it is forgotten or blurred";
        lines.push(far.to_owned());
    }
    if capacity >= text {
        lines.push("its capacity is the whole text and more: read often enough, it can be learnt by heart".to_owned());
    } else {
        lines.push(format!("its capacity is {:.3} % of these bytes", 100.0 * ratio(capacity, text)));
    }
    lines
}

/// Bytes and name of the text that a run folder names in its plan, where they can be known.
fn run_text(run: &Path) -> Option<(u64, String)> {
    let plan = folder::plan(run)?;
    let data = Path::new(&plan.data.path);
    let name = data.display();
    if data == Path::new(TINY_INTERNET) {
        let corpus = tiny_pages(&World::new(WORLD_SEED), plan.train.seed);
        let bytes = corpus.documents.iter().map(|page| page.text.len() as u64).sum();
        return Some((bytes, "the tiny internet".to_owned()));
    }
    if is_prepared(data) {
        let info = read_info(data).ok()?;
        return Some((info.train.bytes, format!("the texts to train on in {name}"))).filter(|(bytes, _)| *bytes > 0);
    }
    let files = expand(data).ok()?;
    // What is packed has other bytes than its text.
    let sizes = files.iter().map(|file| std::fs::metadata(&file.path).ok().filter(|_| is_plain(&file.path)));
    let bytes = sizes.map(|meta| meta.map(|meta| meta.len())).sum::<Option<u64>>()?;
    Some((bytes, format!("the size of {name}"))).filter(|(bytes, _)| *bytes > 0)
}

/// Whether a file's bytes are text, by its name.
fn is_plain(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    !["gz", "tgz", "zst", "zip", "tar", "parquet", "bin", "npy"].iter().any(|packed| ending == *packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_are_larger_than_the_text_are_said_to_be() {
        let lines = |text, parameters, capacity| comparison(text, parameters, capacity).join("; ");
        let small = lines(200_000, 15_000_000, 1_700_000);
        assert!(small.contains("15.0 MB of parameters, 75.0 times as large") && small.contains("by heart"), "{small}");
        let llama = lines(66_000_000_000_000, 811_706_777_600, 182_634_024_960);
        assert!(llama.contains("811.71 GB of parameters: 1 to 81.3") && llama.contains("0.277 %"), "{llama}");
    }
}
