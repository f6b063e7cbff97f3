//! Flags of a model's shape that the model cannot have: taken in silence, another model would be trained than was asked for.

use corella_train::ModelPlan;

use crate::cli::TrainArgs;
use crate::error::{Failure, Result};
use crate::shape::{GPT2_CUSTOM, LLAMA_CUSTOM, ModelShape};

/// Refuses the name of no model.
pub fn known(name: &str) -> Result<()> {
    if name == GPT2_CUSTOM || name == LLAMA_CUSTOM || ModelShape::preset(name).is_some() {
        return Ok(());
    }
    Err(Failure::usage(format!("no model is called {name}"))
        .hint("gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m, llama-3.2-1b, llama-3.1-8b …, or gpt2-custom and llama-custom with --n-layer, --n-head, --n-embd"))
}

/// Refuses flags of a shape that the model called `name` does not have.
pub fn fit_name(args: &TrainArgs, name: &str) -> Result<()> {
    let shape = [("--n-layer", args.n_layer), ("--n-head", args.n_head), ("--n-embd", args.n_embd)];
    let of_llama = [("--n-kv-head", args.n_kv_head), ("--n-ff", args.n_ff)];
    let given = |flags: &[(&'static str, Option<usize>)]| flags.iter().find(|flag| flag.1.is_some()).map(|flag| flag.0);
    if let Some(flag) = given(&of_llama).filter(|_| !name.starts_with("llama")) {
        return Err(Failure::usage(format!("{flag} is of a Llama, but the model is {name}"))
            .hint(format!("--model {LLAMA_CUSTOM}, or leave it out")));
    }
    let fixed = ModelShape::preset(name).is_some();
    if let Some(flag) = given(&shape).or(given(&of_llama)).filter(|_| fixed) {
        return Err(Failure::usage(format!("{flag} would make another model of {name}"))
            .hint(format!("--model {GPT2_CUSTOM} or --model {LLAMA_CUSTOM} take any shape")));
    }
    Ok(())
}

/// Refuses flags that ask for another shape than that of the model to start from.
pub fn fit_model(args: &TrainArgs, first: &ModelPlan) -> Result<()> {
    let mut asked = vec![
        ("--n-layer", args.n_layer, Some(first.n_layer)),
        ("--n-head", args.n_head, Some(first.n_head)),
        ("--n-embd", args.n_embd, Some(first.n_embd)),
        ("--n-kv-head", args.n_kv_head, first.n_kv_head),
        ("--n-ff", args.n_ff, first.n_ff),
        ("--vocab-size", args.vocab_size, Some(first.vocab_size)),
    ];
    let hint = "leave it out: shape and vocabulary are those of the model to start from";
    if let Some(name) = &args.model {
        let family = |name: &str| name.starts_with("llama");
        let mut preset = first.clone();
        if let Some(shape) = ModelShape::preset(name) {
            shape.set_plan(&mut preset);
        }
        let of = |plan: &ModelPlan| (plan.n_layer, plan.n_head, plan.n_embd, plan.n_kv_head, plan.n_ff);
        if family(name) != family(&first.name) || of(&preset) != of(first) {
            let what = format!("--model {name}, but the model to start from is another");
            return Err(Failure::usage(what).hint(hint));
        }
    }
    asked.retain(|(_, asked, there)| asked.is_some() && asked != there);
    match asked[..] {
        [(flag, Some(asked), there), ..] => {
            let there = there.map_or("none of its own".to_owned(), |n| n.to_string());
            let what = format!("{flag} {asked}, but the model to start from has {there}");
            Err(Failure::usage(what).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Blocks, heads, width, heads of keys and values, width of the feed-forward layer.
fn sizes(plan: &ModelPlan) -> [(&'static str, Option<usize>); 5] {
    [
        ("n_layer", Some(plan.n_layer)),
        ("n_head", Some(plan.n_head)),
        ("n_embd", Some(plan.n_embd)),
        ("n_kv_head", plan.n_kv_head),
        ("n_ff", plan.n_ff),
    ]
}

/// Refuses a plan whose shape is not that of the model that it names.
pub fn name(plan: &ModelPlan) -> Result<()> {
    let name = &plan.name;
    let of_llama = [("n_kv_head", plan.n_kv_head), ("n_ff", plan.n_ff)];
    if let Some((key, _)) = of_llama.iter().find(|key| key.1.is_some() && !name.starts_with("llama")) {
        return Err(Failure::usage(format!("{key} is of a Llama, but the model is {name}"))
            .hint(format!("name = \"{LLAMA_CUSTOM}\", or leave it out")));
    }
    if plan.tied.is_some() && !name.starts_with("llama") {
        return Err(Failure::usage(format!("tied is of a Llama, but the model is {name}"))
            .hint("leave it out: a GPT-2's output head is always its embedding"));
    }
    let Some(preset) = ModelShape::preset(name) else { return Ok(()) };
    let (mut published, mut here) = (plan.clone(), plan.clone());
    preset.set_plan(&mut published);
    // What is absent follows from the rest.
    ModelShape::of(plan)?.set_plan(&mut here);
    match sizes(&here).into_iter().zip(sizes(&published)).find(|(here, there)| here != there) {
        Some(((key, Some(here)), (_, Some(there)))) => {
            Err(Failure::usage(format!("{key} is {here}, but {name} has {there}"))
                .hint(format!("{GPT2_CUSTOM} and {LLAMA_CUSTOM} take any shape")))
        }
        _ if here.tied != published.tied => {
            Err(Failure::usage(format!("tied is {}, but {name} is otherwise", here.tied.unwrap_or(true)))
                .hint(format!("{LLAMA_CUSTOM} takes either")))
        }
        _ => Ok(()),
    }
}

/// Refuses a plan that asks for another shape than that of `first`, the model to start from.
pub fn model(plan: &ModelPlan, first: &ModelPlan) -> Result<()> {
    let refused = |what: String| {
        Err(Failure::usage(format!("{what}, but the model to start from has another")).hint(format!(
            "it is a {} with n_layer = {}, n_head = {}, n_embd = {}, vocab_size = {}",
            first.name, first.n_layer, first.n_head, first.n_embd, first.vocab_size
        )))
    };
    let is_llama = |plan: &ModelPlan| plan.name.starts_with("llama");
    if is_llama(plan) != is_llama(first) {
        return refused(format!("the model is {}", plan.name));
    }
    let differs = |(here, there): &((_, Option<usize>), (_, Option<usize>))| here.1.is_some() && here.1 != there.1;
    if let Some(((key, Some(here)), _)) = sizes(plan).into_iter().zip(sizes(first)).find(differs) {
        return refused(format!("{key} is {here}"));
    }
    if plan.tied.is_some() && plan.tied != first.tied {
        return refused("tied is written".to_owned());
    }
    // Rows behind the vocabulary are padding.
    if plan.vocab_size > first.vocab_size {
        return refused(format!("vocab_size is {}", plan.vocab_size));
    }
    Ok(())
}
