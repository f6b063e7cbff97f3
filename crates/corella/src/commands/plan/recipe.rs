//! What a plan of a published shape takes from its recipe, where only the shape is named.

use corella_model::Dtype;

use crate::cli::TrainArgs;

/// Tokens of an update in the recipes of the published GPT-2 (runs/gpt2-*.toml).
const BATCH_TOKENS: [(&str, usize); 4] =
    [("gpt2-124m", 524_288), ("gpt2-355m", 524_288), ("gpt2-774m", 524_288), ("gpt2-1558m", 1_048_576)];

/// The flags, with the batch of the recipe where a published shape is named and no batch is, and on cards its number format;
/// and what to tell of it. `train` has defaults of its own, for small machines: they are not what a shape was published with.
pub fn complete(mut train: TrainArgs, on_gpu: bool) -> (TrainArgs, Option<String>) {
    let published = train.model.as_deref().and_then(|name| BATCH_TOKENS.iter().find(|(known, _)| *known == name));
    let (Some((name, batch)), None) = (published, &train.source) else { return (train, None) };
    let mut flags = Vec::new();
    if train.batch_tokens.is_none() {
        train.batch_tokens = Some(*batch);
        flags.push(format!("--batch-tokens {batch}"));
        if on_gpu && train.micro_batch.is_none() {
            train.micro_batch = Some(0);
            flags.push("--micro-batch auto".to_owned());
        }
    }
    if on_gpu && train.dtype.is_none() {
        train.dtype = Some(Dtype::Bf16);
        flags.push(format!("--dtype {}", Dtype::Bf16.name()));
    }
    let note = format!("planned as {name} was published; `corella train` needs the flags for it: {}", flags.join(" "));
    (train, (!flags.is_empty()).then_some(note))
}

#[cfg(test)]
mod tests {
    use corella_train::RunPlan;

    use super::BATCH_TOKENS;

    #[test]
    fn the_batches_are_those_of_the_run_files() {
        let runs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runs");
        for (name, batch) in BATCH_TOKENS {
            let text = std::fs::read_to_string(runs.join(format!("{name}.toml"))).expect("a run file");
            let plan = RunPlan::from_toml(&text).expect("a plan");
            assert_eq!((plan.model.name.as_str(), plan.train.batch_tokens), (name, batch));
        }
    }
}
