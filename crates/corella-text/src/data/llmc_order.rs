//! The order in which llm.c visits shards and samples (karpathy/llm.c, `llmc/dataloader.h`), to compare runs with it.
//!
//! A sample is B · T tokens for each rank. Each rank shuffles by itself, from the seed 42 + rank: the shards at the start
//! of an epoch, the samples of a shard when it is opened; but it reads only its own lane of a sample, so that an epoch
//! covers the data once.

/// llm.c's first seed.
const SEED: u32 = 42;

/// The shape of a sample, and who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lanes {
    /// B: windows of a rank in a sample.
    pub b: u64,
    /// This rank.
    pub rank: u64,
    /// Number of ranks.
    pub world: u64,
}

/// Where a rank's windows begin.
#[derive(Debug)]
pub(super) struct LlmcOrder {
    /// Place of the first token of each shard in the stream, and how many samples it has.
    shards: Vec<(u64, u64)>,
    seq_len: u64,
    lanes: Lanes,
    random: Mt19937,
    shard_order: Vec<u32>,
    sample_order: Vec<u32>,
    /// Number of the first sample of the open shard since the start of training, and the shard's place in the order.
    first_sample: u64,
    open: usize,
}

impl LlmcOrder {
    /// `None` where a shard does not hold one sample and its last target.
    pub(super) fn new(shard_tokens: &[u64], seq_len: usize, lanes: Lanes) -> Option<LlmcOrder> {
        let seq_len = seq_len as u64;
        let sample = lanes.b * seq_len * lanes.world;
        let (mut shards, mut first) = (Vec::new(), 0);
        for tokens in shard_tokens {
            let samples = tokens.checked_sub(1)? / sample;
            if samples == 0 {
                return None;
            }
            shards.push((first, samples));
            first += tokens;
        }
        let mut order = LlmcOrder {
            shard_order: (0..shards.len() as u32).collect(),
            shards,
            seq_len,
            lanes,
            random: Mt19937::new(SEED),
            sample_order: Vec::new(),
            first_sample: 0,
            open: 0,
        };
        order.restart();
        (!order.shards.is_empty()).then_some(order)
    }

    /// Windows of an epoch, of all ranks.
    pub(super) fn windows(&self) -> u64 {
        self.shards.iter().map(|(_, samples)| samples).sum::<u64>() * self.lanes.b * self.lanes.world
    }

    /// First token of window `number` since the start of training. Windows of a sample are counted rank by rank.
    pub(super) fn start(&mut self, number: u64) -> u64 {
        let per_sample = self.lanes.b * self.lanes.world;
        let (sample, lane) = (number / per_sample, number % per_sample);
        if sample < self.first_sample {
            self.restart();
        }
        while sample >= self.first_sample + self.sample_order.len() as u64 {
            self.first_sample += self.sample_order.len() as u64;
            self.open += 1;
            if self.open == self.shard_order.len() {
                // The order of the epoch before is permuted again.
                self.random.permute(&mut self.shard_order);
                self.open = 0;
            }
            self.open_shard();
        }
        let (first, _) = self.shards[self.shard_order[self.open] as usize];
        let at = u64::from(self.sample_order[(sample - self.first_sample) as usize]);
        first + (at * per_sample + lane) * self.seq_len
    }

    fn restart(&mut self) {
        self.random = Mt19937::new(SEED.wrapping_add(self.lanes.rank as u32));
        self.shard_order = (0..self.shards.len() as u32).collect();
        self.random.permute(&mut self.shard_order);
        (self.first_sample, self.open) = (0, 0);
        self.open_shard();
    }

    fn open_shard(&mut self) {
        let samples = self.shard_order.get(self.open).map_or(0, |shard| self.shards[*shard as usize].1);
        self.sample_order = (0..samples as u32).collect();
        self.random.permute(&mut self.sample_order);
    }
}

/// The Mersenne twister of 32 bits (Matsumoto and Nishimura 1998), as PyTorch and llm.c seed it.
#[derive(Debug)]
struct Mt19937 {
    state: [u32; 624],
    next: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Mt19937 { state, next: 624 }
    }

    fn draw(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// llm.c's `random_permutation`.
    fn permute(&mut self, order: &mut [u32]) {
        for i in (1..order.len()).rev() {
            let j = self.draw() as usize % (i + 1);
            order.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twister_and_the_permutation_are_the_published_ones() {
        // The first numbers from seed 5489 (the reference implementation's default), and the 10,000th (C++ standard).
        let mut random = Mt19937::new(5489);
        assert_eq!([random.draw(), random.draw(), random.draw()], [3_499_211_612, 581_869_302, 3_890_346_734]);
        assert_eq!((3..10_000).map(|_| random.draw()).last(), Some(4_123_659_995));
        let mut order: Vec<u32> = (0..10).collect();
        Mt19937::new(42).permute(&mut order);
        assert_eq!(order, [1, 3, 9, 7, 6, 0, 8, 4, 5, 2]);
    }

    #[test]
    fn ranks_cover_every_shard_once_in_an_epoch() {
        for world in [1, 2, 3] {
            let (b, t) = (2, 5);
            let tokens = [101, 64, 93];
            let mut seen = Vec::new();
            for rank in 0..world {
                let mut order = LlmcOrder::new(&tokens, t, Lanes { b, rank, world }).expect("large enough");
                let per_sample = b * world;
                for number in order.windows()..2 * order.windows() {
                    let lane = number % per_sample;
                    if lane / b == rank {
                        seen.push(order.start(number));
                    }
                }
            }
            seen.sort_unstable();
            let mut expected = Vec::new();
            let mut first = 0;
            for n in tokens {
                let windows = (n - 1) / (b * t as u64 * world) * b * world;
                expected.extend((0..windows).map(|w| first + w * t as u64));
                first += n;
            }
            assert_eq!(seen, expected);
        }
        assert!(LlmcOrder::new(&[101, 10], 5, Lanes { b: 2, rank: 0, world: 1 }).is_none());
    }

    /// Expected: llm.c's rule in a few lines of Python with NumPy's twister. `random_permutation` of the shards at the
    /// start of an epoch, of 0 .. n when a shard is opened, and first token + sample · B · T · ranks + rank · B · T.
    #[test]
    fn shards_and_samples_come_in_llm_cs_order_for_two_epochs() {
        let alone = [
            195, 185, 175, 245, 165, 215, 205, 225, 235, 131, 111, 101, 121, 151, 141, 30, 60, 10, 0, 50, 40, 80, 70,
            90, 20, 195, 205, 215, 165, 225, 235, 245, 175, 185, 111, 101, 121, 131, 141, 151, 10, 90, 40, 70, 80, 30,
            50, 60, 20, 0,
        ];
        let second_of_two = [
            175, 215, 195, 235, 50, 30, 70, 90, 10, 111, 151, 131, 111, 151, 131, 235, 195, 215, 175, 50, 90, 10, 70,
            30,
        ];
        for (rank, world, expected) in [(0, 1, &alone[..]), (1, 2, &second_of_two)] {
            let make = || LlmcOrder::new(&[101, 64, 93], 5, Lanes { b: 2, rank, world }).expect("large enough");
            let first = |order: &mut LlmcOrder, sample: usize| order.start(sample as u64 * 2 * world + 2 * rank);
            let mut order = make();
            let found: Vec<u64> = (0..expected.len()).map(|sample| first(&mut order, sample)).collect();
            assert_eq!(found, expected);
            // A run that is taken up goes to any sample at once, forward over the borders of shards and back.
            for sample in (0..expected.len()).step_by(3) {
                assert_eq!(first(&mut make(), sample), expected[sample], "sample {sample}");
                for back in [0, sample / 2, sample] {
                    assert_eq!(first(&mut order, back), expected[back], "sample {back}");
                }
            }
        }
    }
}
