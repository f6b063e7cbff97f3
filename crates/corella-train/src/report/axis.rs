//! Axes: from values to places on a drawing, and the numbers beside them.

/// An axis from the least to the greatest value shown, drawn between two places.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Axis {
    /// An axis in equal steps.
    pub fn linear(low: f64, high: f64, from: f64, to: f64) -> Axis {
        let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
        Axis { low, high, from, to, logarithmic: false }
    }

    /// An axis in equal factors; both values above 0.
    pub fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Axis {
        Axis { logarithmic: true, ..Axis::linear(low, high, from, to) }
    }

    /// Where a value lies.
    pub fn place(&self, value: f64) -> f64 {
        let of = |v: f64| if self.logarithmic { v.ln() } else { v };
        self.from + (of(value) - of(self.low)) / (of(self.high) - of(self.low)) * (self.to - self.from)
    }

    /// Least and greatest value.
    pub fn range(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Round values between the ends, about `count` of them.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        if !self.logarithmic {
            return ticks(self.low, self.high, count);
        }
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)));
        all.filter(|v| *v >= self.low && *v <= self.high).collect()
    }
}

/// Round numbers between two, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|t| *t <= high + step * 1e-9).collect()
}

/// A number in few characters: 1.5M, 12k, 0.034, 3e-4.
pub fn number(v: f64) -> String {
    let a = v.abs();
    let trim = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match a {
        0.0 => "0".to_owned(),
        a if a >= 1e9 => trim(format!("{:.2}", v / 1e9)) + "B",
        a if a >= 1e6 => trim(format!("{:.2}", v / 1e6)) + "M",
        a if a >= 1e4 => trim(format!("{:.1}", v / 1e3)) + "k",
        a if a >= 100.0 => trim(format!("{v:.1}")),
        a if a >= 1e-2 => trim(format!("{v:.3}")),
        _ => format!("{v:.1e}").replace(".0e", "e"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_numbers_short() {
        assert_eq!(Axis::linear(0.0, 1.0, 0.0, 1.0).ticks(5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(Axis::linear(7.0, 7.9, 0.0, 1.0).ticks(4), [7.0, 7.5]);
        assert_eq!(Axis::logarithmic(0.4, 7.6, 0.0, 1.0).ticks(5), [0.5, 1.0, 2.0, 5.0]);
        assert_eq!(
            [number(1_500_000.0), number(12_000.0), number(0.034), number(0.0003)],
            ["1.5M", "12k", "0.034", "3e-4"]
        );
    }

    #[test]
    fn equal_factors_lie_equally_far_apart() {
        let axis = Axis::logarithmic(1.0, 100.0, 0.0, 200.0);
        assert!((axis.place(10.0) - 100.0).abs() < 1e-9 && (axis.place(100.0) - 200.0).abs() < 1e-9);
        assert_eq!(Axis::linear(3.0, 3.0, 0.0, 10.0).place(3.0), 5.0, "a single value lies in the middle");
    }
}
