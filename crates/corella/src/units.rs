//! Numbers and their units as people write and read them.

/// Letters behind a number, and the power of ten that each stands for.
const UNITS: [(char, u32); 4] = [('k', 3), ('m', 6), ('b', 9), ('t', 12)];

/// Letters in front of the B of bytes; each stands for 1000 or, with an i behind it, 1024 times the one before.
const SIZES: [char; 4] = ['k', 'm', 'g', 't'];

/// Most bytes that a flag takes: every number up to there is exact wherever it is counted.
const MOST_BYTES: u128 = 9_000_000_000_000_000;

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
    let (digits, places) = decimal(number)?;
    let zeros = power.checked_sub(places)?;
    u64::try_from(digits).ok()?.checked_mul(10u64.checked_pow(zeros)?)
}

/// A number of bytes, with K, M, G or T (powers of 1000) or KiB, MiB, GiB or TiB (powers of 1024).
pub fn bytes(text: &str) -> Result<usize, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let (digits, places) = decimal(number).ok_or_else(|| format!("{text} is no number of bytes"))?;
    let size = size_of(&unit.to_ascii_lowercase())
        .ok_or_else(|| format!("{unit} is no unit; K, M, G, T, KiB, MiB, GiB, TiB are"))?;
    let too_much = || format!("{text} is too much");
    let (all, parts) = (digits.checked_mul(size).ok_or_else(too_much)?, 10u128.checked_pow(places));
    let parts = parts.filter(|parts| all.is_multiple_of(*parts));
    let bytes = all / parts.ok_or_else(|| format!("{text} is no whole number of bytes"))?;
    usize::try_from(bytes).ok().filter(|_| bytes <= MOST_BYTES).ok_or_else(too_much)
}

/// What a unit stands for: k, kb, ki or kib, and the same for the others; nothing or b for bytes.
fn size_of(unit: &str) -> Option<u128> {
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let Some(letter) = unit.chars().next() else { return Some(1) };
    let base: u128 = match &unit[letter.len_utf8()..] {
        "" => 1000,
        "i" => 1024,
        _ => return None,
    };
    let power = SIZES.iter().position(|size| *size == letter)?;
    Some(base.pow(power as u32 + 1))
}

/// The digits of a number without its point, and how many stand behind it; zeros at its end do not count.
fn decimal(number: &str) -> Option<(u128, u32)> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !whole.chars().chain(part.chars()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let part = part.trim_end_matches('0');
    Some((format!("{whole}{part}").parse().ok()?, u32::try_from(part.len()).ok()?))
}

/// A size in the decimal unit that suits it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => megabytes(bytes),
        1_000_000_000..1_000_000_000_000 => format!("{:.2} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} TB", bytes as f64 / 1e12),
    }
}

/// Bytes in MB, for sizes that stand beside each other.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Bytes of memory in GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn numbers_of_bytes_are_read_with_their_units_and_to_the_byte() {
        for (text, number) in [
            ("64", 64),
            ("64b", 64),
            ("1.5M", 1_500_000),
            ("2 kb", 2000),
            ("1k", 1000),
            ("1KiB", 1024),
            ("1.5KiB", 1536),
            ("3mi", 3 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
            ("0.001GB", 1_000_000),
            ("8999999999999999", 8_999_999_999_999_999),
        ] {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn texts_that_say_no_number_of_bytes_are_refused() {
        for (text, why) in [
            ("", "no number"),
            ("x", "no number"),
            ("-1", "no number"),
            (".5k", "no number"),
            ("1.2.3", "no number"),
            ("5bbb", "no unit"),
            ("5kbb", "no unit"),
            ("1i", "no unit"),
            ("1ib", "no unit"),
            ("1kii", "no unit"),
            ("1 parsec", "no unit"),
            ("1é", "no unit"),
            ("1.5", "no whole number"),
            ("0.1KiB", "no whole number"),
            ("1.0005k", "no whole number"),
            ("9999999T", "too much"),
            ("99999999999999999999999999999999999999T", "too much"),
        ] {
            let refused = bytes(text).expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn sizes_are_shown_as_people_read_them() {
        assert_eq!(size(811_706_777_600), "811.71 GB");
        assert_eq!([size(999), size(1_000_000)], ["999 bytes", "1.0 MB"]);
        assert_eq!(gib(3 << 29), 1.5);
    }
}
