//! `corella convert`: GPT-2 between Hugging Face folders and llm.c files.

use corella_model::gpt2::{save_hugging_face, save_llmc};

use crate::cli::{Common, ConvertArgs};
use crate::error::{Failure, Result};
use crate::inputs::open_weights;

/// Runs the command.
pub fn run(args: &ConvertArgs, common: &Common) -> Result<()> {
    if args.output.exists() {
        return Err(Failure::new(format!("{} exists already", args.output.display()))
            .hint("give a name that is not taken; nothing is overwritten"));
    }
    let (weights, folder) = open_weights(&args.input)?;
    let format = if args.output.extension().is_some_and(|e| e == "bin") {
        save_llmc(&weights, &args.output)?;
        "llm.c"
    } else {
        save_hugging_face(&weights, &args.output)?;
        let tokenizer = folder.join("tokenizer.json");
        if tokenizer.is_file() {
            std::fs::copy(&tokenizer, args.output.join("tokenizer.json"))?;
        }
        "Hugging Face"
    };
    let parameters = weights.config.parameter_count();
    if common.json {
        println!("{}", serde_json::json!({"output": args.output, "format": format, "parameters": parameters}));
    } else {
        println!("wrote {} ({format}, {parameters} parameters)", args.output.display());
    }
    Ok(())
}
