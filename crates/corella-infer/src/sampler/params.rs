//! How to draw: what a caller asks for, and the checked form of it.

use std::ops::RangeInclusive;

use crate::error::{Field, RequestError};

/// Smallest and largest value of a logit bias, as in OpenAI's interface.
const BIAS: f32 = 100.0;
/// Smallest and largest frequency and presence penalty, as in OpenAI's interface.
const PENALTY: f32 = 2.0;

/// How to draw, as a caller asks for it. The defaults draw from the model's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleParams {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// The filters see the model's own probabilities, and the temperature acts on what they leave.
    pub temperature_last: bool,
    /// Only the K likeliest tokens.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability (Holtzman et al., arXiv 1904.09751).
    pub top_p: Option<f32>,
    /// Only tokens at least this likely, relative to the likeliest (Nguyen et al., arXiv 2407.01082).
    pub min_p: Option<f32>,
    /// Only the tokens closest to the expected surprise that together reach this probability (Meister et al.,
    /// arXiv 2202.00666).
    pub typical_p: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens in prompt and output (Keskar et al., arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Taken from a token's logit once for each time that it stands in the output.
    pub frequency_penalty: f32,
    /// Taken from a token's logit if it stands in the output.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of all draws.
    pub seed: u64,
}

impl SampleParams {
    /// Repetition penalties that are taken: no logit becomes too large for f32 by one.
    pub const REPETITION_PENALTY: RangeInclusive<f32> = 0.01..=100.0;
}

impl Default for SampleParams {
    fn default() -> Self {
        SampleParams {
            temperature: 1.0,
            temperature_last: false,
            top_k: None,
            top_p: None,
            min_p: None,
            typical_p: None,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// The number that was meant: as an f64, -0.1 of 32 bits would be shown as -0.10000000149011612.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(value.into())
}

/// Parameters within their ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    params: SampleParams,
}

impl Sampling {
    /// The model's own distribution: no temperature, no filter.
    pub fn plain() -> Sampling {
        Sampling { params: SampleParams::default() }
    }

    /// Checks `params` for a vocabulary of `vocab_size` tokens.
    pub fn new(mut params: SampleParams, vocab_size: usize) -> Result<Sampling, RequestError> {
        let check = |ok: bool, field, value: f32, rule| {
            if ok { Ok(()) } else { Err(RequestError::OutOfRange { field, value: as_written(value), rule }) }
        };
        let p = &params;
        check(
            p.temperature.is_finite() && p.temperature >= 0.0,
            Field::Temperature,
            p.temperature,
            "must be 0 or more",
        )?;
        check(p.top_k != Some(0), Field::TopK, 0.0, "must be 1 or more")?;
        for (field, value) in [(Field::TopP, p.top_p), (Field::MinP, p.min_p), (Field::TypicalP, p.typical_p)] {
            let value = value.unwrap_or(1.0);
            // Whoever asks for a min_p of 0 gets no filter, and does not come here with it.
            let least = field == Field::MinP;
            let rule = if least { "must be between 0 and 1" } else { "must be above 0 and at most 1" };
            check(value > 0.0 && value <= 1.0, field, value, rule)?;
        }
        let penalty = p.repetition_penalty;
        let taken = SampleParams::REPETITION_PENALTY.contains(&penalty);
        check(taken, Field::RepetitionPenalty, penalty, "must be between 0.01 and 100")?;
        let penalties = [(Field::FrequencyPenalty, p.frequency_penalty), (Field::PresencePenalty, p.presence_penalty)];
        for (field, value) in penalties {
            check((-PENALTY..=PENALTY).contains(&value), field, value, "must be between -2 and 2")?;
        }
        for (id, bias) in &p.logit_bias {
            if *id as usize >= vocab_size {
                return Err(RequestError::BadToken { field: Field::LogitBias, id: *id, vocab_size });
            }
            check((-BIAS..=BIAS).contains(bias), Field::LogitBias, *bias, "must be between -100 and 100")?;
        }
        // Where one of both changes nothing their order does not either.
        let filters = p.top_k.is_some() || [p.top_p, p.min_p, p.typical_p].iter().any(Option::is_some);
        let matters = filters && p.temperature != 1.0;
        params.temperature_last &= matters;
        Ok(Sampling { params })
    }

    /// The parameters.
    pub fn params(&self) -> &SampleParams {
        &self.params
    }

    /// Whether the distribution is the one of the logits: no temperature, no filter.
    pub fn leaves_all(&self) -> bool {
        let p = &self.params;
        let filters = [p.top_p, p.min_p, p.typical_p];
        p.temperature == 1.0 && p.top_k.is_none() && filters.iter().all(Option::is_none)
    }

    /// Whether the tokens before a position change what is drawn there.
    pub fn has_penalties(&self) -> bool {
        let p = &self.params;
        p.repetition_penalty != 1.0 || p.frequency_penalty != 0.0 || p.presence_penalty != 0.0
    }
}
