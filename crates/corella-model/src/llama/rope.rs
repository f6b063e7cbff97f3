//! Rotary positions (Su et al., arXiv 2104.09864): the angle by which each pair of a head turns per position.

use crate::ModelError;

/// Base and scaling of the frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base: pair i of a head of size HS turns by theta^(−2i/HS) per position.
    pub theta: f64,
    /// What longer contexts change.
    pub scaling: RopeScaling,
}

/// How the frequencies are changed for contexts longer than those first trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by one factor (position interpolation; Chen et al., arXiv 2306.15595).
    Linear {
        /// Divides every frequency.
        factor: f32,
    },
    /// Llama 3.1's three regimes: high frequencies stay, low ones are divided, those between are mixed.
    Llama3 {
        /// Divides low frequencies.
        factor: f32,
        /// Wavelengths above original_context / this are divided.
        low_freq_factor: f32,
        /// Wavelengths below original_context / this stay.
        high_freq_factor: f32,
        /// Context that was first trained on.
        original_context: f32,
    },
    /// A divisor for each pair, as GGUF files keep it (`rope_freqs.weight`).
    Divisors {
        /// The divisors.
        divisors: Vec<f32>,
        /// Context that was first trained on, where the file says it.
        original_context: Option<usize>,
    },
}

impl Rope {
    /// Checks that every frequency for heads of size `head_size` is a positive number.
    pub(super) fn check(&self, head_size: usize) -> Result<(), ModelError> {
        let bad = |field, value: String, rule: &str| Err(ModelError::BadConfig { field, value, rule: rule.to_owned() });
        if !(self.theta.is_finite() && self.theta > 1.0) {
            return bad("rope_theta", self.theta.to_string(), "must be above 1 and finite");
        }
        let positive = |x: f32| x.is_finite() && x > 0.0;
        match &self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } if positive(*factor) => Ok(()),
            RopeScaling::Linear { factor } => bad("rope factor", factor.to_string(), "must be above 0 and finite"),
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context } => {
                if !positive(*factor) || !positive(*low) || !positive(*original_context) {
                    return bad("rope_scaling", format!("{:?}", self.scaling), "must hold numbers above 0");
                }
                if !(high.is_finite() && high > low) {
                    return bad("high_freq_factor", high.to_string(), "must be above low_freq_factor");
                }
                Ok(())
            }
            RopeScaling::Divisors { divisors, .. } => {
                if divisors.len() != head_size / 2 || !divisors.iter().all(|d| positive(*d)) {
                    let found = format!("{} numbers", divisors.len());
                    return bad("rope_freqs", found, "must hold a number above 0 for each pair of a head");
                }
                Ok(())
            }
        }
    }

    /// Radians per position for each of the HS/2 pairs, in f32 arithmetic as in `transformers`.
    pub fn frequencies(&self, head_size: usize) -> Vec<f32> {
        let base = (0..head_size / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_size as f32;
            1.0 / self.theta.powf(f64::from(exponent)) as f32
        });
        match &self.scaling {
            RopeScaling::None => base.collect(),
            RopeScaling::Linear { factor } => base.map(|f| f / factor).collect(),
            RopeScaling::Divisors { divisors, .. } => base.zip(divisors).map(|(f, d)| f / d).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context: old } => base
                .map(|f| {
                    let wavelength = 2.0 * std::f32::consts::PI / f;
                    if wavelength < old / high {
                        f
                    } else if wavelength > old / low {
                        f / factor
                    } else {
                        let smooth = (old / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                })
                .collect(),
        }
    }

    /// What divides each frequency, as GGUF files keep it; none where nothing is scaled pair by pair.
    pub fn divisors(&self, head_size: usize) -> Option<Vec<f32>> {
        match &self.scaling {
            RopeScaling::None | RopeScaling::Linear { .. } => None,
            RopeScaling::Divisors { divisors, .. } => Some(divisors.clone()),
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context: old } => {
                let divisor = |i: usize| {
                    let exponent = (2 * i) as f64 / head_size as f64;
                    let wavelength = 2.0 * std::f64::consts::PI * self.theta.powf(exponent);
                    let [factor, low, high, old] = [*factor, *low, *high, *old].map(f64::from);
                    if wavelength < old / high {
                        1.0
                    } else if wavelength > old / low {
                        factor
                    } else {
                        let smooth = (old / wavelength - low) / (high - low);
                        1.0 / ((1.0 - smooth) / factor + smooth)
                    }
                };
                Some((0..head_size / 2).map(|i| divisor(i) as f32).collect())
            }
        }
    }

    /// The context that was first trained on, where it is known.
    pub fn original_context(&self) -> Option<usize> {
        match &self.scaling {
            // A context is a whole number; what is none says nothing.
            RopeScaling::Llama3 { original_context, .. } => Some(*original_context as usize).filter(|n| *n > 0),
            RopeScaling::Divisors { original_context, .. } => *original_context,
            RopeScaling::None | RopeScaling::Linear { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama3(factor: f32) -> Rope {
        let scaling =
            RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
        Rope { theta: 500_000.0, scaling }
    }

    /// Check values computed from the formula by hand, for heads of 128 (8B) and of 64 (1B).
    #[test]
    fn the_three_regimes_have_the_published_borders_and_values() {
        /// Head size, factor, pairs with their frequencies, the first mixed and the first divided pair.
        type Case<'a> = (usize, f32, &'a [(usize, f64)], usize, usize);
        let cases: [Case; 2] = [
            (
                128,
                8.0,
                &[(28, 3.211446e-3), (29, 2.166571e-3), (34, 1.785078e-4), (35, 9.556212e-5), (63, 3.068926e-7)],
                29,
                35,
            ),
            (
                64,
                32.0,
                &[(14, 3.211446e-3), (15, 1.290548e-3), (17, 9.708288e-5), (18, 1.946164e-5), (31, 9.418307e-8)],
                15,
                18,
            ),
        ];
        for (head_size, factor, values, first_mixed, first_divided) in cases {
            let rope = llama3(factor);
            let frequencies = rope.frequencies(head_size);
            for (i, expected) in values {
                let gap = f64::from(frequencies[*i]) / expected - 1.0;
                assert!(gap.abs() < 1e-6, "pair {i}: {} instead of {expected}", frequencies[*i]);
            }
            let divisors = rope.divisors(head_size).expect("scaled");
            for (i, d) in divisors.iter().enumerate() {
                assert_eq!(*d == 1.0, i < first_mixed, "pair {i}");
                assert_eq!(*d == factor, i >= first_divided, "pair {i}");
            }
            let scaling = RopeScaling::Divisors { divisors, original_context: None };
            let from_file = Rope { theta: rope.theta, scaling };
            for (a, b) in from_file.frequencies(head_size).iter().zip(frequencies) {
                assert!((a / b - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_linear_factor_divides_every_frequency() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 8.0 } };
        let expected = [0.125, 0.0125, 0.00125, 0.000125];
        let found = rope.frequencies(8);
        let close = found.iter().zip(expected).all(|(a, b): (&f32, f32)| (a / b - 1.0).abs() < 1e-6);
        assert!(close && found.len() == 4, "{found:?}");
        assert_eq!(rope.divisors(8), None);
    }
}
