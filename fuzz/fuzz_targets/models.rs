//! Model files: GGUF, llama2.c and llm.c alone, safetensors with config.json and index in a folder.
#![no_main]

use std::path::Path;

use corella_fuzz::{Scratch, parts};
use corella_model::formats::{gguf, safetensors};
use corella_model::params::ModelConfig;
use corella_model::{AnyModel, Source};
use libfuzzer_sys::fuzz_target;

/// Opens a model and reads every tensor.
fn open(path: &Path) {
    match AnyModel::open(path) {
        Ok(AnyModel::Gpt2(checkpoint)) => read(&*checkpoint),
        Ok(AnyModel::Llama(checkpoint)) => read(&*checkpoint),
        Err(_) => {}
    }
}

fn read<C: ModelConfig>(source: &dyn Source<C>) {
    for row in 0..source.config().table().len() {
        let _ = source.values(row);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let scratch = Scratch::default();
    match kind % 4 {
        0 => {
            let _ = gguf::parse(data, data.len() as u64, Path::new("a.gguf"));
            open(&scratch.file("a.gguf", data));
        }
        1 => {
            let _ = safetensors::parse(data, data.len() as u64, Path::new("a.safetensors"));
            // llama2.c and llm.c have no ending of their own.
            open(&scratch.file("a.bin", data));
        }
        2 => {
            let [config, weights] = parts(data);
            scratch.file("config.json", config);
            scratch.file("model.safetensors", weights);
            open(scratch.folder());
        }
        _ => {
            let [config, index, first, second] = parts(data);
            scratch.file("config.json", config);
            scratch.file("model.safetensors.index.json", index);
            scratch.file("model-00001-of-00002.safetensors", first);
            scratch.file("model-00002-of-00002.safetensors", second);
            open(scratch.folder());
        }
    }
});
