//! A model that checks every page it reads.

use super::*;

pub(super) const V: usize = 12;

/// The logits behind `context`: a function of all its tokens, so that any wrong page changes them. It likes to repeat
/// what it said, so that prompt lookup has something to find.
pub(super) fn logits_behind(context: impl Iterator<Item = u32>) -> Vec<f32> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let (mut last, mut sum) = (0, 0u64);
    for token in context {
        hash = (hash ^ u64::from(token) ^ 0x55).wrapping_mul(0x0000_0100_0000_01b3);
        last = token;
        sum += u64::from(token);
    }
    let noise = |id: u64| ((hash.rotate_left(id as u32 * 5) >> 40) & 0xff) as f32 / 128.0;
    let liked = u64::from(last + 1) % V as u64;
    (0..V as u64).map(|id| noise(id) + if id == liked && sum % 3 > 0 { 3.0 } else { 0.0 }).collect()
}

/// A model that keeps tokens where others keep keys and values.
pub(super) struct PageModel {
    pub(super) limits: StepLimits,
    pub(super) pages: Vec<Vec<Option<u32>>>,
    pub(super) logits: Vec<f32>,
    pub(super) fed: usize,
    /// Whether it draws where it can, as a device does, and what it drew.
    pub(super) draws: bool,
    pub(super) drawn: Vec<Option<u32>>,
    /// Whether its logits are not numbers.
    pub(super) broken: bool,
    /// Whether it refuses the next step, as a device does that has an error.
    pub(super) refuses: bool,
}

impl PageModel {
    pub(super) fn new(limits: StepLimits) -> PageModel {
        let pages = vec![vec![None; limits.page_tokens]; limits.pages];
        let (logits, drawn) = (Vec::new(), Vec::new());
        PageModel { limits, pages, logits, fed: 0, draws: false, drawn, broken: false, refuses: false }
    }
}

impl StepModel for PageModel {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn backend_name(&self) -> String {
        "pages".to_owned()
    }

    fn draws(&self) -> bool {
        self.draws
    }

    fn step(&mut self, plan: &BatchPlan) -> Result<StepOut<'_>, PlanError> {
        self.limits.check(plan)?;
        if std::mem::take(&mut self.refuses) {
            return Err(PlanError::Backend("out of memory".to_owned()));
        }
        let size = self.limits.page_tokens;
        let mut rows = Vec::new();
        let mut at = 0;
        for seq in &plan.seqs {
            for position in seq.start..seq.start + seq.len {
                self.pages[seq.pages[position / size] as usize][position % size] = Some(plan.tokens[at]);
                rows.push((seq, position));
                at += 1;
            }
        }
        self.fed += at;
        self.logits.clear();
        let behind = |row: usize| {
            let (seq, position) = rows[row];
            let read = |p: usize| self.pages[seq.pages[p / size] as usize][p % size].expect("a position was written");
            logits_behind((0..=position).map(read))
        };
        self.logits.extend(plan.logit_rows.iter().flat_map(|row| behind(*row)));
        self.drawn = plan.draws.iter().map(|(row, draw)| Some(draw_of(behind(*row), draw))).collect();
        if self.broken {
            self.logits.fill(f32::NAN);
            self.drawn.fill(None);
        }
        Ok(StepOut { logits: &self.logits, drawn: &self.drawn, threads: Threads::NONE })
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        self.pages[to as usize] = self.pages[from as usize].clone();
    }
}

/// What a device draws.
pub(super) fn draw_of(mut logits: Vec<f32>, draw: &Draw) -> u32 {
    for edit in &draw.edits {
        logits[edit.id as usize] = edit.apply(logits[edit.id as usize]);
    }
    let Draw { temperature, top_k, top_p, min_p, .. } = *draw;
    let params = SampleParams { temperature, top_k, top_p, min_p, ..SampleParams::default() };
    let sampling = Sampling::new(params, V).expect("valid");
    Sampler::default().distribution(&logits[..draw.tokens], &sampling).pick(draw.bits)
}

pub(super) fn bytes_of(id: u32) -> Vec<u8> {
    vec![b'a' + id as u8]
}
