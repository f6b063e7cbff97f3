//! Tokens drawn on the card: the logits stay there.

use corella_ops::{Draw, Edit};

use crate::array::Buf;
use crate::backend::{Cuda, done};
use crate::driver::Launch;
use crate::spare::Lent;

/// Threads of a block that draws, as in kernels/draw.cu.
const THREADS: u32 = 512;
/// Draws of a launch: their weights, 8 bytes a token, are what scratch memory must hold.
const MOST_DRAWS: usize = 32;
/// Words of `struct Draw` and `struct Edit` of kernels/draw.cu.
const DRAW_WORDS: usize = 12;
const EDIT_WORDS: usize = 5;

/// What stands for the token of a row that is not numbers, as in kernels/draw.cu.
const NO_TOKEN: u32 = u32::MAX;

/// The halves of a number of 64 bits, as they lie in memory.
fn halves(bits: u64) -> [u32; 2] {
    [bits as u32, (bits >> 32) as u32]
}

/// `struct Draw`.
fn draw_words(row: usize, draw: &Draw, first_edit: usize) -> [u32; DRAW_WORDS] {
    let top_k = draw.top_k.map_or(draw.tokens, |k| k.min(draw.tokens));
    let [p0, p1] = halves(f64::from(draw.top_p.unwrap_or(1.0)).to_bits());
    let [l0, l1] = halves(draw.least_weight());
    let [b0, b1] = halves(draw.bits);
    let [row, tokens, top_k, first, edits] =
        [row, draw.tokens, top_k, first_edit, draw.edits.len()].map(|number| number as u32);
    [row, tokens, draw.temperature.to_bits(), top_k, p0, p1, l0, l1, b0, b1, first, edits]
}

/// `struct Edit`.
fn edit_words(edit: &Edit) -> [u32; EDIT_WORDS] {
    let penalty = edit.penalty.unwrap_or_default();
    let kinds =
        u32::from(edit.bias.is_some()) | u32::from(edit.penalty.is_some()) << 1 | u32::from(edit.forbidden) << 2;
    let [bias, repetition, taken] = [edit.bias.unwrap_or(0.0), penalty.repetition, penalty.taken].map(f32::to_bits);
    [edit.id, kinds, bias, repetition, taken]
}

impl Cuda {
    /// See [`corella_ops::OpsInfer::draw`].
    #[track_caller]
    pub(crate) fn draw_tokens(&self, logits: &mut Buf, v: usize, draws: &[(usize, &Draw)]) -> Vec<Option<u32>> {
        let mut tokens = Vec::new();
        for draws in draws.chunks(MOST_DRAWS) {
            let mut bytes = vec![0; 4 * draws.len()];
            self.draw_some(logits, v, draws, &mut bytes);
            let ids = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            tokens.extend(ids.map(|id| (id != NO_TOKEN).then_some(id)));
        }
        tokens
    }

    #[track_caller]
    fn draw_some(&self, logits: &mut Buf, v: usize, draws: &[(usize, &Draw)], tokens: &mut [u8]) {
        let (mut words, mut edits) = (Vec::new(), Vec::new());
        for (row, draw) in draws {
            logits.holds((row + 1) * v);
            let known = |id: usize| id < draw.tokens && draw.tokens <= v;
            assert!(draw.tokens > 0 && draw.edits.iter().all(|edit| known(edit.id as usize)), "tokens of a draw");
            words.extend(draw_words(*row, draw, edits.len() / EDIT_WORDS));
            edits.extend(draw.edits.iter().flat_map(edit_words));
        }
        let edits_at = 4 * words.len() as u64;
        words.extend(edits);
        let plan = done(Lent::holding(self.spare(), self.shared_driver(), &words));
        // In few sizes: where scratch memory grows, the card is waited for and all recordings go.
        let (drawn, tops) = (self.scratch("drawn tokens", 4 * MOST_DRAWS), self.scratch("tops", 4 * MOST_DRAWS));
        let (plan, edits, logits, width) = (plan.at(), plan.at() + edits_at, logits.f32(), v as u64);
        let each = |blocks: usize| Launch { grid: [blocks as u32, 1, 1], block: THREADS, shared: 0 };
        self.run("draw_prepare", each(draws.len()), &[&drawn, &tops, &logits, &plan, &edits, &width]);
        if draws.iter().any(|(_, draw)| draw.temperature != 0.0) {
            let weights = self.scratch("weights of tokens", 8 * draws.len().next_power_of_two() * v);
            let all = Launch { grid: [v.div_ceil(256).min(512) as u32, draws.len() as u32, 1], block: 256, shared: 0 };
            self.run("draw_weights", all, &[&weights, &logits, &tops, &plan, &width]);
            self.run("draw_select", each(draws.len()), &[&drawn, &logits, &weights, &tops, &plan, &width]);
        }
        done(self.driver().download(drawn, tokens));
    }
}
