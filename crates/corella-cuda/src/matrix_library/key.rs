//! What the plan of a product depends on.

use std::fmt;

use corella_ops::Dtype;

use crate::driver::{Finish, Product};

/// Products of fewer multiplications are not measured: a few microseconds, most of which no algorithm changes.
const LEAST_MULTIPLICATIONS: usize = 1_000_000_000;

/// What follows the sums, without addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Follows {
    Plain,
    Add,
    Bias,
}

/// A product without its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    m: usize,
    n: usize,
    k: usize,
    out_stride: usize,
    bf16: bool,
    out_bf16: bool,
    a_transposed: bool,
    b_transposed: bool,
    follows: Follows,
    /// Whether its algorithm is chosen by measuring: where it is asked for and worth it.
    pub measured: bool,
}

impl Key {
    pub fn of(p: &Product) -> Key {
        let follows = match p.finish {
            Finish::Plain => Follows::Plain,
            Finish::Add => Follows::Add,
            Finish::Bias(_) => Follows::Bias,
        };
        Key {
            m: p.m,
            n: p.n,
            k: p.k,
            out_stride: p.out_stride,
            bf16: p.dtype == Dtype::Bf16,
            out_bf16: p.out_dtype == Dtype::Bf16,
            a_transposed: p.a.transposed,
            b_transposed: p.b.transposed,
            follows,
            measured: p.measured && p.m.saturating_mul(p.n).saturating_mul(p.k) >= LEAST_MULTIPLICATIONS,
        }
    }

    /// Whether it adds to its result.
    pub fn adds(&self) -> bool {
        self.follows == Follows::Add
    }

    /// The same product without what follows.
    pub fn plain(self) -> Key {
        Key { follows: Follows::Plain, ..self }
    }
}

/// In words that name a measured product in a file; another one has others.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = |bf16| if bf16 { Dtype::Bf16.name() } else { Dtype::F32.name() };
        let order = |transposed| if transposed { "columns" } else { "rows" };
        let Key { m, n, k, out_stride, bf16, out_bf16, a_transposed, b_transposed, follows, measured: _ } = self;
        let (from, to) = (format(*bf16), format(*out_bf16));
        let (a, b) = (order(*a_transposed), order(*b_transposed));
        write!(f, "m {m} n {n} k {k} stride {out_stride} {from} to {to} a {a} b {b} {follows:?}")
    }
}
