//! What the terminal is given: a line plot in characters, lines that fit it, and words that its shell can be given back.

use unicode_width::UnicodeWidthStr;

/// Rows and columns of the plot's area.
const ROWS: usize = 12;
const COLUMNS: usize = 64;

/// A plot of `values` over `0 ..= total` (so that an unfinished run fills only a part), with its axis in `unit`.
///
/// Each column shows the mean of the values that fall into it.
pub fn plot(values: &[f64], total: usize, unit: &str) -> String {
    let Some(columns) = columns(values, total) else { return String::new() };
    let (low, high) = columns.iter().flatten().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let span = (high - low).max(1e-9);
    let mut rows = vec![vec![' '; COLUMNS]; ROWS];
    for (x, value) in columns.iter().enumerate() {
        if let Some(value) = value {
            let y = ((high - value) / span * (ROWS - 1) as f64).round() as usize;
            rows[y.min(ROWS - 1)][x] = '●';
        }
    }
    let mut out = String::new();
    for (y, row) in rows.iter().enumerate() {
        let label = if y % 3 == 0 || y == ROWS - 1 {
            format!("{:7.3}", high - span * y as f64 / (ROWS - 1) as f64)
        } else {
            " ".repeat(7)
        };
        let line: String = row.iter().collect();
        out.push_str(&format!("{label} ┤{}\n", line.trim_end()));
    }
    out.push_str(&format!(
        "{:8}└{}\n{:9}0{:>width$}\n",
        "",
        "─".repeat(COLUMNS),
        "",
        format!("{total} {unit}"),
        width = COLUMNS - 1
    ));
    out
}

/// Columns that every terminal has.
const WIDTH: usize = 80;

/// Words behind a head, in lines that fit a terminal; those behind the first begin below the first word.
pub fn wrapped(head: &str, words: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let indent = head.width();
    let (mut lines, mut line) = (Vec::new(), head.to_owned());
    for word in words {
        let word = word.as_ref();
        let begun = line.width() > indent;
        if begun && line.width() + 1 + word.width() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if begun {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// A word as a shell takes it: in quotes where it has to be.
pub fn in_shell(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The mean of the values in each column, `None` where there are none yet.
fn columns(values: &[f64], total: usize) -> Option<Vec<Option<f64>>> {
    if values.is_empty() || total == 0 {
        return None;
    }
    let mut sums = vec![(0.0, 0usize); COLUMNS];
    for (i, value) in values.iter().enumerate() {
        let slot = &mut sums[(i * COLUMNS / total.max(values.len())).min(COLUMNS - 1)];
        slot.0 += value;
        slot.1 += 1;
    }
    Some(sums.into_iter().map(|(sum, n)| (n > 0).then(|| sum / n as f64)).collect())
}

#[cfg(test)]
mod tests {
    use super::{in_shell, plot, wrapped};

    #[test]
    fn words_are_set_in_lines_that_fit() {
        let words = ["0123456789"; 14];
        let lines = wrapped("head ", words);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.chars().count() <= 80) && lines[1].starts_with("     0"), "{lines:?}");
        assert_eq!(lines.join(" ").split_whitespace().count(), 15);
        assert_eq!(wrapped("… ", [String::from("é")]), ["… é"]);
    }

    #[test]
    fn words_come_back_from_a_shell_as_they_are() {
        assert_eq!(in_shell("out/a-1_b.c"), "out/a-1_b.c");
        assert_eq!(
            [in_shell("my run"), in_shell("it's"), in_shell("$x"), in_shell("")],
            ["'my run'", r"'it'\''s'", "'$x'", "''"]
        );
    }

    #[test]
    fn a_falling_curve_starts_at_the_top_left_and_ends_at_the_bottom() {
        let values: Vec<f64> = (0..128).map(|i| 8.0 - i as f64 / 32.0).collect();
        let drawn = plot(&values, 256, "steps");
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines[0].starts_with("  7.") && lines[0].contains("┤●"));
        assert!(lines[11].chars().count() < 9 + 33, "half of the steps fill half of the width");
        assert!(lines[11].ends_with('●'));
    }
}
