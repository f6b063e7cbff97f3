//! The rule of Llama 3.1 behind a list of divisors: GGUF files keep the divisors, configurations the rule.
//!
//! The rule has a divisor of 1 for wavelengths up to H = original_context / high_freq_factor, the whole factor from
//! L = original_context / low_freq_factor on, and between them a line in 1 / wavelength. So the divisors say H and L, and which
//! original context these are parts of is free: the one that the file names, else that of the published models.

use std::iter;

use super::rope::{Rope, RopeScaling};

/// Factors for low and high frequencies in all published models.
const PUBLISHED: (f64, f64) = (1.0, 4.0);
/// Original context of the published models.
const PUBLISHED_CONTEXT: usize = 8192;
/// Exponents of the powers of two that are tried as the original context.
const CONTEXTS: std::ops::RangeInclusive<u32> = 5..=20;
/// How far a divisor may be from the rule's, relative to it: what rounding makes of it.
const ROUNDING: f32 = 1e-5;

impl Rope {
    /// The same frequencies with the three regimes of Llama 3.1 in place of a divisor for each pair, if there are such: what a
    /// Hugging Face configuration can say.
    pub fn with_regimes(&self, head_size: usize) -> Option<Rope> {
        let RopeScaling::Divisors { divisors, original_context } = &self.scaling else { return Some(self.clone()) };
        let factor = divisors.iter().copied().fold(1.0, f32::max);
        let solved = Mixed::of(self.theta, head_size, divisors, factor);
        // The numbers of a configuration are short; rounding has moved what comes out of the divisors.
        let solved_with = |context: usize| {
            let exact = solved.as_ref().map(|mixed| mixed.factors(context as f64));
            exact.into_iter().flat_map(move |(low, high)| [(quarters(low), quarters(high)), (low, high)])
        };
        let with = |context: usize| move |factors| (context, factors);
        let named = original_context.iter().copied();
        let mut tried = named
            .flat_map(|context| iter::once(PUBLISHED).chain(solved_with(context)).map(with(context)))
            .chain([(PUBLISHED_CONTEXT, PUBLISHED)])
            .chain(CONTEXTS.map(|exponent| (1 << exponent, PUBLISHED)))
            // With fewer than two mixed pairs nothing can be solved.
            .chain(solved_with(PUBLISHED_CONTEXT).map(with(PUBLISHED_CONTEXT)));
        let fits = |(context, (low, high)): (usize, (f64, f64))| {
            let scaling = RopeScaling::Llama3 {
                factor,
                low_freq_factor: low as f32,
                high_freq_factor: high as f32,
                original_context: context as f32,
            };
            let rope = Rope { theta: self.theta, scaling };
            rope.check(head_size).ok()?;
            let same = rope.divisors(head_size)?.iter().zip(divisors).all(|(a, b)| (a / b - 1.0).abs() < ROUNDING);
            same.then_some(rope)
        };
        tried.find_map(fits)
    }
}

fn quarters(x: f64) -> f64 {
    (x * 4.0).round() / 4.0
}

/// The line on which the mixed pairs lie: smooth = slope / wavelength − offset.
struct Mixed {
    slope: f64,
    offset: f64,
}

impl Mixed {
    /// Through the first and the last pair that are neither whole nor divided whole; `None` where there are no two.
    fn of(theta: f64, head_size: usize, divisors: &[f32], factor: f32) -> Option<Mixed> {
        let factor = f64::from(factor);
        let point = |(i, divisor): (usize, &f32)| {
            let wavelength = 2.0 * std::f64::consts::PI * theta.powf((2 * i) as f64 / head_size as f64);
            let smooth = (1.0 / f64::from(*divisor) - 1.0 / factor) / (1.0 - 1.0 / factor);
            (smooth > 0.0 && smooth < 1.0).then_some((1.0 / wavelength, smooth))
        };
        let points: Vec<(f64, f64)> = divisors.iter().enumerate().filter_map(point).collect();
        let [(x0, y0), .., (x1, y1)] = points[..] else { return None };
        let slope = (y0 - y1) / (x0 - x1);
        Some(Mixed { slope, offset: slope * x0 - y0 })
    }

    /// Factors for low and high frequencies with this original context.
    fn factors(&self, context: f64) -> (f64, f64) {
        let between = context / self.slope;
        let low = self.offset * between;
        (low, low + between)
    }
}
