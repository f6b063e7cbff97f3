//! Several continuations side by side, line by line as they grow.

use unicode_width::UnicodeWidthChar;

use crate::printable;

/// Characters between two columns.
const GAP: &str = " │ ";
/// Columns narrower than this are not worth reading.
const NARROWEST: usize = 24;

/// One continuation, broken into lines of a width.
#[derive(Clone, Debug, Default)]
struct Column {
    /// Lines that will not change, and the one that grows.
    lines: Vec<Line>,
    ended: bool,
}

/// A line: its text, colours included, and the cells that it takes.
#[derive(Clone, Debug, Default)]
struct Line {
    text: String,
    width: usize,
    /// Where the word that may have to go to the next line begins: bytes and cells.
    word: (usize, usize),
}

/// Text that arrives for several columns at once.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<Column>,
    width: usize,
    printed: usize,
}

impl Columns {
    /// `n` columns on a terminal of `width` cells; `None` where they would be too narrow.
    pub fn new(n: usize, width: usize) -> Option<Columns> {
        let column = (width + GAP.chars().count()).checked_div(n)?.checked_sub(GAP.chars().count())?;
        let columns = vec![Column { lines: vec![Line::default()], ended: false }; n];
        (column >= NARROWEST).then_some(Columns { columns, width: column, printed: 0 })
    }

    /// More text for a column; `paint` gives each character its colour.
    pub fn push(&mut self, column: usize, text: &str, paint: &dyn Fn(&str) -> String) {
        let width = self.width;
        for c in text.chars() {
            self.columns[column].push(c, width, paint);
        }
    }

    /// A column is complete.
    pub fn end(&mut self, column: usize) {
        self.columns[column].ended = true;
    }

    /// The lines that cannot change any more and were not returned before.
    pub fn ready(&mut self) -> String {
        // The last line of a column that goes on may still grow.
        let whole = |c: &Column| if c.ended { usize::MAX } else { c.lines.len() - 1 };
        let longest = self.columns.iter().map(|c| c.lines.len()).max().unwrap_or(0);
        let ready = self.columns.iter().map(whole).min().unwrap_or(0).min(longest);
        let mut out = String::new();
        for row in self.printed..ready {
            let cells: Vec<String> = self.columns.iter().map(|c| c.cell(row, self.width)).collect();
            out.push_str(cells.join(GAP).trim_end());
            out.push('\n');
        }
        self.printed = ready.max(self.printed);
        out
    }
}

impl Column {
    fn push(&mut self, c: char, width: usize, paint: &dyn Fn(&str) -> String) {
        let Some(line) = self.lines.last_mut() else { return };
        if c == '\n' {
            self.lines.push(Line::default());
            return;
        }
        // Whatever moves the cursor would break the columns.
        let c = if c == '\t' { ' ' } else { printable::picture(c).unwrap_or(c) };
        let cells = c.width().unwrap_or(0);
        if line.width + cells > width {
            let next = line.break_off(c == ' ');
            self.lines.push(next);
            if c == ' ' {
                return;
            }
        }
        if let Some(line) = self.lines.last_mut() {
            line.text.push_str(&paint(c.encode_utf8(&mut [0; 4])));
            line.width += cells;
            if c == ' ' {
                line.word = (line.text.len(), line.width);
            }
        }
    }

    fn cell(&self, row: usize, width: usize) -> String {
        match self.lines.get(row) {
            Some(line) => format!("{}{}", line.text, " ".repeat(width.saturating_sub(line.width))),
            None => " ".repeat(width),
        }
    }
}

impl Line {
    /// The begun word, as the next line; nothing if the word fills the line or has just ended.
    fn break_off(&mut self, ended: bool) -> Line {
        let (at, cells) = self.word;
        if ended || cells == 0 {
            return Line::default();
        }
        let word = Line { text: self.text.split_off(at), width: self.width - cells, word: (0, 0) };
        self.width = cells;
        word
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;

    fn plain(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn lines_come_out_when_no_column_can_change_them() {
        let mut columns = Columns::new(2, 51).expect("wide enough");
        columns.push(0, "one two three four five six seven", &plain);
        assert_eq!(columns.ready(), "", "the other column has not begun");
        columns.push(1, "uno\ndue", &plain);
        assert_eq!(columns.ready(), "one two three four five  │ uno\n");
        columns.end(1);
        assert_eq!(columns.ready(), "");
        columns.end(0);
        assert_eq!(columns.ready(), "six seven                │ due\n");
        assert_eq!(columns.ready(), "");
    }

    #[test]
    fn wide_characters_count_twice_and_long_words_are_cut() {
        let mut columns = Columns::new(1, 24).expect("wide enough");
        columns.push(0, &"日".repeat(13), &plain);
        columns.end(0);
        assert_eq!(columns.ready(), format!("{}\n日\n", "日".repeat(12)));
        assert!(Columns::new(4, 80).is_none(), "three columns fit, four would be too narrow");
        assert!(Columns::new(1000, 80).is_none());
    }
}
