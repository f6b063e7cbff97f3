//! Numbers of tokens as people write them.

/// Letters behind a number, and the power of ten that each stands for.
const UNITS: [(char, u32); 4] = [('k', 3), ('m', 6), ('b', 9), ('t', 12)];

/// A whole number: digits, with an exponent (300e9) or K, M, B or T behind it (33.55B). What is no whole number, or does not
/// fit 64 bits, is an error that says how to write it.
pub fn count(text: &str) -> Result<u64, String> {
    exact(&text.to_ascii_lowercase())
        .ok_or_else(|| "no whole number; write it as 33554432000, 300e9 or 33.55B (K, M, B, T)".to_owned())
}

/// The number without rounding: the digits before and behind the point, and as many zeros as are left.
fn exact(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(letter, power)| Some((text.strip_suffix(*letter)?, *power)));
    let (number, power) = match (unit, text.split_once('e')) {
        (Some(found), _) => found,
        (None, Some((number, exponent))) => (number, exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?),
        (None, None) => (text, 0),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !whole.chars().chain(part.chars()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let part = part.trim_end_matches('0');
    let zeros = power.checked_sub(u32::try_from(part.len()).ok()?)?;
    let digits: u64 = format!("{whole}{part}").parse().ok()?;
    digits.checked_mul(10u64.checked_pow(zeros)?)
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn numbers_are_read_as_people_write_them_and_to_the_digit() {
        for (text, number) in [
            ("33554432000", 33_554_432_000),
            ("300e9", 300_000_000_000),
            ("1E+6", 1_000_000),
            ("33.55B", 33_550_000_000),
            ("3.9m", 3_900_000),
            ("0.5k", 500),
            ("15T", 15_000_000_000_000),
            ("2.0", 2),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(count(text).unwrap_or(0), number, "{text}");
        }
        for text in
            ["", "B", "1.5", "-1", "1e-3", "0.0005k", "1e3k", "nan", "inf", "1e99", "99999999999T", ".5", "1,000"]
        {
            assert!(count(text).is_err(), "{text}");
        }
    }
}
