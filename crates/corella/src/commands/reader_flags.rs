//! Flags of the commands that read documents: what in a source is a text.

use clap::Args;
use corella_text::data::readers::ReadOptions;

/// Which field holds a text, and what stands between two.
#[derive(Debug, Args)]
pub struct ReaderFlags {
    /// Field of JSON lines, or column of Parquet, that holds the text [default: text, content, …]
    #[arg(long)]
    pub field: Option<String>,
    /// What separates documents inside a text file
    #[arg(long, default_value = corella_text::tokenizer::END_OF_TEXT)]
    pub separator: String,
}

/// What to do where records hold no text in the usual fields.
pub const NAME_FIELD: &str = "--field NAME names the field or column that holds the text";

impl ReaderFlags {
    /// The options for the library.
    pub fn options(&self) -> ReadOptions {
        ReadOptions { field: self.field.clone(), separator: self.separator.clone(), ..ReadOptions::default() }
    }
}
