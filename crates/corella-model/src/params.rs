//! The parameter table: the one list of a model's tensors, the same kind of list for both families.
//!
//! It drives allocation, initialisation, weight decay, the names in files, the parameter count and the gradient tests. A
//! row of the table is a matrix or a vector in memory. Several tensors of a file may lie in one row (q, k and v of a Llama,
//! because they read the same input): these are the [`Part`]s of the row.

use std::fmt::Debug;

use corella_ops::KvKind;

use crate::role::Role;
use crate::text_model::ParamInfo;

/// How a row starts before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// All 1.
    Ones,
    /// All 0.
    Zeros,
}

/// Rows of a matrix in memory that files keep as a tensor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// Which tensor of the family.
    pub tensor: T,
    /// Its rows; 1 for a vector.
    pub rows: usize,
}

/// One row of the table: one matrix or vector in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec<T> {
    /// Block, if it belongs to one.
    pub layer: Option<usize>,
    /// Name in memory, unique in the model: the Hugging Face name where files keep it whole.
    pub name: String,
    /// Columns of a matrix, length of a vector.
    pub cols: usize,
    /// Whether it is a vector (bias or norm); vectors have no weight decay.
    pub vector: bool,
    /// How it starts.
    pub init: Init,
    /// What files keep, in the order of the rows.
    pub parts: Vec<Part<T>>,
}

impl<T: Copy> ParamSpec<T> {
    /// A matrix (Σ rows of `parts`, cols) that starts with the standard deviation `std`.
    pub fn matrix(layer: Option<usize>, name: String, parts: &[(T, usize)], cols: usize, std: f32) -> Self {
        let parts = parts.iter().map(|(tensor, rows)| Part { tensor: *tensor, rows: *rows }).collect();
        ParamSpec { layer, name, cols, vector: false, init: Init::Normal(std), parts }
    }

    /// A vector of `len` numbers.
    pub fn vector(layer: Option<usize>, name: String, tensor: T, len: usize, init: Init) -> Self {
        ParamSpec { layer, name, cols: len, vector: true, init, parts: vec![Part { tensor, rows: 1 }] }
    }
}

impl<T> ParamSpec<T> {
    /// Rows of all parts.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|p| p.rows).sum()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows() * self.cols
    }

    /// Whether it has no elements; a valid configuration has no such tensor.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape in memory.
    pub fn shape(&self) -> Vec<usize> {
        if self.vector { vec![self.cols] } else { vec![self.rows(), self.cols] }
    }

    /// Shape of one part.
    pub fn part_shape(&self, part: usize) -> Vec<usize> {
        if self.vector { vec![self.cols] } else { vec![self.parts[part].rows, self.cols] }
    }

    /// As the trainer sees it.
    pub fn info(&self) -> ParamInfo {
        ParamInfo { name: self.name.clone(), shape: self.shape(), decay: !self.vector }
    }
}

/// The shape of a model, from which its parameter table follows.
pub trait ModelConfig: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// What a tensor of a file is.
    type Tensor: Copy + Debug + PartialEq + Send + Sync;
    /// Rows of the table that are looked up by token or position; one of them may be the head too.
    const LOOKED_UP: &'static [usize];

    /// The parameter table, in its one order.
    fn table(&self) -> Vec<ParamSpec<Self::Tensor>>;
    /// What a tensor is for.
    fn role(tensor: Self::Tensor) -> Role;
    /// Row of the output head: that of the token embedding where both are one.
    fn head(&self) -> usize;
    /// V, the tokens that can be predicted.
    fn vocab_size(&self) -> usize;
    /// Most tokens of a sequence.
    fn context_len(&self) -> usize;
    /// C, the width of the residual stream.
    fn width(&self) -> usize;
    /// HS, the numbers of an attention head.
    fn head_size(&self) -> usize;
    /// Number of parameters, a tied head counted once.
    fn parameter_count(&self) -> usize;
    /// Bytes that a position takes in the cache of keys and values, all layers together.
    fn kv_token_bytes(&self, kind: KvKind) -> u64;
}
