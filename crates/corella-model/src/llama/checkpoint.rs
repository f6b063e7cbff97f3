//! A Llama's checkpoint: its shape, and for every part of the parameter table the place where a file keeps it.

use std::path::Path;

use corella_ops::WeightFormat;

use super::config::LlamaConfig;
use super::params::{ParamSpec, param_specs};
use super::source::LlamaSource;
use super::{gguf, hugging_face, llama2c};
use crate::checkpoint::Place;
use crate::formats::sniff::{HEAD, Kind, sniff};
use crate::formats::{Cause, FormatError, ModelFile};
use crate::{ModelError, SpecialIds};

/// A checkpoint that is open for reading.
#[derive(Debug)]
pub struct LlamaCheckpoint {
    /// The shape.
    pub config: LlamaConfig,
    /// Begin and end of a text.
    pub special: SpecialIds,
    /// The open files.
    pub files: Vec<ModelFile>,
    /// For each row of the parameter table, for each of its parts, where it lies.
    pub places: Vec<Vec<Place>>,
}

impl LlamaCheckpoint {
    /// Opens a Hugging Face folder, a GGUF file or a llama2.c file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return hugging_face::open(path);
        }
        let head = ModelFile::open(path)?.head(HEAD)?;
        match sniff(&head) {
            Kind::Gguf => gguf::open(path),
            Kind::PerhapsLlama2C => llama2c::open(path),
            Kind::Pickle => Err(Cause::PickleRefused.of(path).into()),
            kind => {
                let found = format!("{:?}", String::from_utf8_lossy(&head[..head.len().min(4)]));
                Err(Cause::BadMagic { expected: "model", found, looks_like: kind.describe() }.of(path).into())
            }
        }
    }

    /// The parameter table.
    pub fn table(&self) -> Vec<ParamSpec> {
        param_specs(&self.config)
    }

    /// An error if a file changed since it was opened.
    pub fn check_unchanged(&self) -> Result<(), FormatError> {
        self.files.iter().try_for_each(ModelFile::check_unchanged)
    }
}

impl LlamaSource for LlamaCheckpoint {
    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn format(&self, row: usize, part: usize) -> WeightFormat {
        self.places[row][part].format
    }

    fn read_rows(&self, row: usize, part: usize, use_rows: &mut dyn FnMut(usize, &[u8])) -> Result<(), FormatError> {
        let place = &self.places[row][part];
        place.read_pieces(&self.files, use_rows)?;
        // A file that was replaced while it was read would give a mixture of two models.
        self.files[place.file].check_unchanged()
    }
}

/// Finds the places of every part of the table with `find`, which is given the part, its layer and its shape.
pub(super) fn all_places(
    config: &LlamaConfig,
    mut find: impl FnMut(&ParamSpec, usize) -> Result<Place, FormatError>,
) -> Result<Vec<Vec<Place>>, FormatError> {
    let table = param_specs(config);
    table.iter().map(|spec| (0..spec.parts.len()).map(|part| find(spec, part)).collect()).collect()
}
