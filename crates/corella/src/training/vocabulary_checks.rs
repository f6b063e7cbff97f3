//! A plan and its flags against the vocabulary of the data: what is asked for and not there is refused.

use corella_text::data::Dataset;
use corella_text::tokenizer::Tokenizer;

use super::wanted::Wanted;
use crate::cli::TrainArgs;
use crate::error::{Failure, Result};
use crate::inputs::{check_finished, is_prepared};
use crate::shape::ModelShape;

/// Vocabularies are padded to multiples of this, or of a part of it.
const PADDING: usize = 128;

fn first_vocabulary(wanted: &Wanted) -> Option<usize> {
    wanted.first.as_ref().map(ModelShape::vocab_size)
}

/// Refuses a flag or a run file that asks for another vocabulary than that of the tokenizer that is named: only one that is trained
/// on the text can have any size. The rows of a model that starts from another may be padded.
pub fn named_tokenizer(args: &TrainArgs, wanted: &Wanted) -> Result<()> {
    let name = &wanted.plan.data.tokenizer;
    let in_file = Some(wanted.plan.model.vocab_size).filter(|_| wanted.from_file && !args.resume);
    let asked = [("--vocab-size", args.vocab_size), ("vocab_size =", in_file)];
    let Some((key, Some(size))) = asked.into_iter().find(|(_, size)| size.is_some()).filter(|_| name != "own") else {
        return Ok(());
    };
    let there = crate::tokenizers::load(name)?.vocab_size();
    if size == there || Some(size) == first_vocabulary(wanted) {
        return Ok(());
    }
    if size > there && size <= there.next_multiple_of(PADDING) {
        eprintln!("note: the model has the {there} tokens of the tokenizer; no rows are padded for {key} {size}");
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{key} {size} is for a vocabulary that is trained on the text, and the tokenizer {name} has {there} tokens"
    ))
    .hint("leave the size out to train with that tokenizer, or the tokenizer to train a vocabulary of that size"))
}

/// Refuses flags and a run file that ask for another vocabulary than that of a prepared folder. What goes on was checked
/// at its beginning.
pub fn data(args: &TrainArgs, wanted: &Wanted, data: &Dataset) -> Result<()> {
    let (source, plan) = (&wanted.source, &wanted.plan);
    if !is_prepared(source) {
        return Ok(());
    }
    let from_file = wanted.from_file && !args.resume;
    let there = data.tokenizer.vocab_size();
    let in_file = Some(plan.model.vocab_size).filter(|size| from_file && Some(*size) != first_vocabulary(wanted));
    let sizes = [("--vocab-size", args.vocab_size), ("vocab_size =", in_file)];
    if let Some((key, Some(size))) = sizes.into_iter().find(|(_, size)| size.is_some_and(|size| size != there)) {
        let what = format!("{key} {size}, but {} was prepared with a vocabulary of {there}", source.display());
        return another_vocabulary(what);
    }
    let in_file = Some(plan.data.tokenizer.as_str()).filter(|_| from_file);
    for (key, name) in [("--tokenizer", args.tokenizer.as_deref()), ("tokenizer =", in_file)] {
        if let Some(name) = name.filter(|name| *name != "own")
            && !is_of(name, data)?
        {
            return another_vocabulary(format!("{key} {name}, but {} was prepared with another one", source.display()));
        }
    }
    Ok(())
}

/// Refuses flags that ask a run that goes on for another tokenizer than the one it has.
pub fn kept(args: &TrainArgs, kept: &Tokenizer) -> Result<()> {
    let hint = "leave the flag out, or begin another run with --out";
    if let Some(name) = args.tokenizer.as_deref().filter(|name| *name != "own")
        && crate::tokenizers::load(name)?.fingerprint() != kept.fingerprint()
    {
        return Err(Failure::usage(format!("--tokenizer {name}, but the run began with another one")).hint(hint));
    }
    let there = kept.vocab_size();
    match args.vocab_size {
        Some(size) if size < there => {
            Err(Failure::usage(format!("--vocab-size {size}, but the run has a vocabulary of {there}")).hint(hint))
        }
        // A short text gives fewer tokens than were asked for, so the command that began the run may say this.
        Some(size) if size > there => {
            eprintln!(
                "note: the run goes on with its vocabulary of {there} tokens, whatever --vocab-size {size} asks for"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

fn is_of(name: &str, data: &Dataset) -> Result<bool> {
    Ok(crate::tokenizers::load(name)?.fingerprint() == data.tokenizer.fingerprint())
}

fn another_vocabulary(what: String) -> Result<()> {
    Err(Failure::usage(what).hint(
        "leave the flag out, or write the vocab_size and tokenizer = \"own\": the vocabulary is that of the data; `corella prepare` makes another",
    ))
}

/// The vocabulary of a prepared folder in place of the plan's, before anything is trained on it. Returns the tokens that
/// there are to train on; `None` where the data are not prepared.
pub fn settle_vocabulary(args: &TrainArgs, wanted: &mut Wanted) -> Result<Option<u64>> {
    check_finished(&wanted.source)?;
    if !is_prepared(&wanted.source) {
        return Ok(None);
    }
    let there = Dataset::open(&wanted.source)?;
    data(args, wanted, &there)?;
    wanted.plan.model.vocab_size = there.tokenizer.vocab_size();
    Ok(Some(there.train.len()))
}
