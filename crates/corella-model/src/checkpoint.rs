//! A checkpoint: a model's shape, and for every part of its parameter table the place where a file keeps it.

use std::path::Path;

use corella_ops::WeightFormat;

use crate::ModelError;
use crate::exchange::{Exchange, gguf, hugging_face};
use crate::formats::sniff::{HEAD, Kind, sniff};
use crate::formats::{Cause, FormatError, ModelFile};
use crate::params::{ModelConfig, ParamSpec};
use crate::place::Place;
use crate::source::Source;
use crate::special_ids::SpecialIds;

/// A checkpoint that is open for reading.
#[derive(Debug)]
pub struct Checkpoint<C> {
    /// The shape.
    pub config: C,
    /// Begin and end of a text.
    pub special: SpecialIds,
    /// The template for conversations that comes with it.
    pub chat_template: Option<String>,
    /// Tensors of the files that are no part of the model, without buffers that old files hold.
    pub left_out: Vec<String>,
    /// The open files.
    pub files: Vec<ModelFile>,
    /// For each row of the parameter table, for each of its parts, where it lies.
    pub places: Vec<Vec<Place>>,
}

impl<C: Exchange> Checkpoint<C> {
    /// Opens a Hugging Face folder, a GGUF file, or a file of the kind that only this family has.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return hugging_face::open(path);
        }
        let head = ModelFile::open(path)?.head(HEAD)?;
        match sniff(&head) {
            Kind::Gguf => gguf::open(path),
            kind if kind == C::OWN_FILE => C::open_own_file(path),
            Kind::Llama2CLater => {
                let found = head.get(4).copied().unwrap_or(0).into();
                Err(Cause::UnsupportedVersion { found, supported: "llama2.c's files of version 0" }.of(path).into())
            }
            Kind::Pickle => Err(Cause::PickleRefused.of(path).into()),
            _ if head.is_empty() => Err(Cause::Empty.of(path).into()),
            kind => {
                let found = format!("{:?}", String::from_utf8_lossy(&head[..head.len().min(4)]));
                Err(Cause::BadMagic { expected: "model", found, looks_like: kind.describe() }.of(path).into())
            }
        }
    }
}

impl<C: ModelConfig> Checkpoint<C> {
    /// With the place of every part of the table as `find` gives it for a row and the number of its part.
    pub(crate) fn with_places(
        config: C,
        special: SpecialIds,
        files: Vec<ModelFile>,
        mut find: impl FnMut(&C, &ParamSpec<C::Tensor>, usize) -> Result<Place, FormatError>,
    ) -> Result<Self, FormatError> {
        let table = config.table();
        let mut row = |spec: &ParamSpec<C::Tensor>| {
            (0..spec.parts.len()).map(|part| find(&config, spec, part)).collect::<Result<Vec<_>, _>>()
        };
        let places = table.iter().map(&mut row).collect::<Result<_, _>>()?;
        Ok(Checkpoint { config, special, chat_template: None, left_out: Vec::new(), files, places })
    }

    /// An error if a file changed since it was opened.
    pub fn check_unchanged(&self) -> Result<(), FormatError> {
        self.files.iter().try_for_each(ModelFile::check_unchanged)
    }

    /// Bytes of a row of the table, as the files keep it.
    pub fn bytes(&self, row: usize) -> u64 {
        self.places[row].iter().map(Place::bytes).sum()
    }

    /// The format of most numbers where that is a plain one, else F32.
    pub fn plain_format(&self) -> WeightFormat {
        let first = self.places.iter().flatten().find(|place| place.rows > 1).map(|place| place.format);
        first.filter(|format| format.block_len() == 1).unwrap_or(WeightFormat::F32)
    }
}

impl<C: ModelConfig> Source<C> for Checkpoint<C> {
    fn config(&self) -> &C {
        &self.config
    }

    fn format(&self, row: usize, part: usize) -> WeightFormat {
        self.places[row][part].format
    }

    fn read_rows(&self, row: usize, part: usize, first: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        let place = &self.places[row][part];
        place.read_rows(&self.files, first, bytes)?;
        // A file that was replaced while it was read would give a mixture of two models.
        self.files[place.file].check_unchanged()
    }
}
