//! What flags and run files ask of a model's shape and the model cannot have: taken in silence, another model would be trained than
//! was asked for.

use std::fmt::Display;

use corella_train::{Family, ModelPlan};

use crate::cli::TrainArgs;
use crate::error::{Failure, Result};
use crate::shape::{GPT2_CUSTOM, LLAMA_CUSTOM, ModelShape, presets};

/// Refuses the name of no model.
pub fn known(name: &str) -> Result<()> {
    if name == GPT2_CUSTOM || name == LLAMA_CUSTOM || ModelShape::preset(name).is_some() {
        return Ok(());
    }
    Err(Failure::usage(format!("no model is called {name}")).hint(format!(
        "{}, or {GPT2_CUSTOM} and {LLAMA_CUSTOM} with --n-layer, --n-head, --n-embd",
        presets().join(", ")
    )))
}

/// Where something is asked for, which says how it is written there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Flags,
    File,
}

impl Place {
    fn key(self, key: &str) -> String {
        match self {
            Place::Flags => format!("--{}", key.replace('_', "-")),
            Place::File => key.to_owned(),
        }
    }

    fn value(self, key: &str, value: impl Display) -> String {
        match self {
            Place::Flags => format!("{} {value}", self.key(key)),
            Place::File => format!("{key} = {value}"),
        }
    }

    fn model(self, name: &str) -> String {
        match self {
            Place::Flags => format!("--model {name}"),
            Place::File => format!("name = \"{name}\""),
        }
    }
}

/// Blocks, heads, width; heads of keys and values and width of the feed-forward layer, which a GPT-2 does not have.
const SIZES: [&str; 5] = ["n_layer", "n_head", "n_embd", "n_kv_head", "n_ff"];
/// Where those begin that only a Llama has.
const OF_LLAMA: usize = 3;

/// What is asked of a shape: [`SIZES`] and what else there is, each where it is named.
pub struct Asked<'a> {
    place: Place,
    model: Option<&'a str>,
    sizes: [Option<usize>; 5],
    tied: Option<bool>,
    vocab_size: Option<usize>,
}

impl<'a> Asked<'a> {
    /// By flags.
    pub fn by_flags(args: &'a TrainArgs) -> Self {
        Asked {
            place: Place::Flags,
            model: args.model.as_deref(),
            sizes: [args.n_layer, args.n_head, args.n_embd, args.n_kv_head, args.n_ff],
            tied: None,
            vocab_size: args.vocab_size,
        }
    }

    /// By a run file.
    pub fn by_file(plan: &'a ModelPlan) -> Self {
        Asked {
            place: Place::File,
            model: Some(&plan.name),
            sizes: sizes(plan),
            tied: plan.tied,
            vocab_size: Some(plan.vocab_size),
        }
    }

    /// Refuses what the model called `name` does not have.
    pub fn of_name(&self, name: &str) -> Result<()> {
        if Family::of(name) != Family::Llama {
            self.nothing_of_a_llama(name)?;
        }
        let Some(preset) = ModelShape::preset(name) else { return Ok(()) };
        let published = preset.plan(name);
        let another = |what: String, there: String| {
            Failure::usage(format!("{what}, but {name} has {there}")).hint(format!(
                "{} and {} take any shape",
                self.place.model(GPT2_CUSTOM),
                self.place.model(LLAMA_CUSTOM)
            ))
        };
        self.differing(&published).map_or(Ok(()), |(what, there)| Err(another(what, there)))
    }

    fn nothing_of_a_llama(&self, name: &str) -> Result<()> {
        let refused = |key| Failure::usage(format!("{} is of a Llama, but the model is {name}", self.place.key(key)));
        if let Some(i) = (OF_LLAMA..SIZES.len()).find(|i| self.sizes[*i].is_some()) {
            return Err(refused(SIZES[i]).hint(format!("{}, or leave it out", self.place.model(LLAMA_CUSTOM))));
        }
        match self.tied {
            Some(_) => Err(refused("tied").hint("leave it out: a GPT-2's output head is always its embedding")),
            None => Ok(()),
        }
    }

    /// Refuses another shape or vocabulary than that of `first`, the model to start from.
    pub fn of_model(&self, first: &ModelPlan) -> Result<()> {
        let (place, is) = (self.place, "but the model to start from");
        let named = sizes(first).map(|size| size.map_or("none".to_owned(), |n| n.to_string()));
        let named = SIZES.iter().zip(named).map(|(key, n)| format!("{key} {n}")).collect::<Vec<_>>().join(", ");
        let refused = |what: String| {
            Err(Failure::usage(what).hint(format!(
                "shape and vocabulary are those of the model to start from, a {} with {named}, vocab_size {}",
                first.name, first.vocab_size
            )))
        };
        if let Some(name) = self.model {
            let sizes_of = |shape: ModelShape| sizes(&shape.plan(name));
            if Family::of(name) != first.family()
                || ModelShape::preset(name).is_some_and(|preset| sizes_of(preset) != sizes(first))
            {
                return refused(format!("{}, {is} is another", place.model(name)));
            }
        }
        if let Some((what, there)) = self.differing(first) {
            return refused(format!("{what}, {is} has {there}"));
        }
        // A run file has the tokenizer's own size: rows behind the vocabulary are padding.
        let fits = |size: usize| size == first.vocab_size || (place == Place::File && size < first.vocab_size);
        match self.vocab_size.filter(|size| !fits(*size)) {
            Some(size) => refused(format!("{}, {is} has {}", place.value("vocab_size", size), first.vocab_size)),
            None => Ok(()),
        }
    }

    /// The first thing that is asked for and otherwise in `there`, and what it is there.
    fn differing(&self, there: &ModelPlan) -> Option<(String, String)> {
        let none = || "none of its own".to_owned();
        let rows = SIZES.into_iter().zip(self.sizes).zip(sizes(there));
        let size = rows.filter_map(|((key, asked), there)| Some((key, asked?, there)));
        let size = size.into_iter().find(|(_, asked, there)| Some(*asked) != *there);
        if let Some((key, asked, there)) = size {
            return Some((self.place.value(key, asked), there.map_or_else(none, |n| n.to_string())));
        }
        let asked = self.tied.filter(|asked| Some(*asked) != there.tied)?;
        Some((self.place.value("tied", asked), there.tied.map_or_else(none, |tied| tied.to_string())))
    }
}

fn sizes(plan: &ModelPlan) -> [Option<usize>; 5] {
    [Some(plan.n_layer), Some(plan.n_head), Some(plan.n_embd), plan.n_kv_head, plan.n_ff]
}

/// Refuses a plan whose shape is not that of the model that it names.
pub fn name(plan: &ModelPlan) -> Result<()> {
    let asked = Asked::by_file(plan);
    if ModelShape::preset(&plan.name).is_none() || Family::of(&plan.name) != Family::Llama {
        return asked.of_name(&plan.name);
    }
    // What is absent follows from the rest, and not from the name.
    let mut whole = plan.clone();
    ModelShape::of(plan)?.set_plan(&mut whole);
    Asked::by_file(&whole).of_name(&plan.name)
}
