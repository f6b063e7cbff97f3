//! How far work is whose result comes at its end: on a terminal a bar that is drawn over, elsewhere a line every few seconds.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Cells of the bar.
const BAR: usize = 24;
/// Begins the terminal's line anew.
const CLEAR: &str = "\r\x1b[2K";

/// Draws on standard error; nothing before the first pause is over, so that short work stays silent.
pub struct Meter<W: Write = io::Stderr> {
    out: W,
    quiet: bool,
    terminal: bool,
    every: Duration,
    total: usize,
    started: Instant,
    drawn: Instant,
    line: bool,
}

impl Meter {
    /// For so many steps; one that is quiet shows nothing.
    pub fn new(total: usize, quiet: bool) -> Meter {
        let terminal = io::stderr().is_terminal();
        let every = if terminal { Duration::from_millis(200) } else { Duration::from_secs(5) };
        Meter::on(io::stderr(), total, quiet, terminal, every)
    }
}

impl<W: Write> Meter<W> {
    fn on(out: W, total: usize, quiet: bool, terminal: bool, every: Duration) -> Meter<W> {
        let now = Instant::now();
        Meter { out, quiet, terminal, every, total, started: now, drawn: now, line: false }
    }

    /// So many steps are done; `what` says more, and is asked only where it is shown.
    pub fn at(&mut self, done: usize, what: impl FnOnce() -> String) {
        // The result itself says that all is done.
        if self.quiet || done >= self.total || self.drawn.elapsed() < self.every {
            return;
        }
        self.drawn = Instant::now();
        let left = self.started.elapsed().as_secs_f64() / done.max(1) as f64 * (self.total - done) as f64;
        let text = format!("{done} of {} {}; {} left", self.total, what(), corella_train::console::duration(left));
        // Whoever watched may be gone; the work goes on.
        let _ = if self.terminal {
            let full = BAR * done / self.total;
            write!(self.out, "{CLEAR}[{}{}] {text}", "#".repeat(full), " ".repeat(BAR - full))
        } else {
            writeln!(self.out, "{text}")
        }
        .and_then(|()| self.out.flush());
        self.line = self.terminal;
    }
}

impl<W: Write> Drop for Meter<W> {
    fn drop(&mut self) {
        if self.line {
            let _ = self.out.write_all(CLEAR.as_bytes()).and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(quiet: bool, terminal: bool, every: Duration) -> String {
        let mut out = Vec::new();
        let mut meter = Meter::on(&mut out, 4, quiet, terminal, every);
        (1..=4).for_each(|done| meter.at(done, || format!("windows: loss {done}")));
        drop(meter);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_or_a_bar_say_how_far_it_is_and_the_end_is_left_to_the_result() {
        assert_eq!(drawn(false, false, Duration::ZERO).lines().count(), 3);
        assert!(drawn(false, false, Duration::ZERO).starts_with("1 of 4 windows: loss 1; "));
        let bar = drawn(false, true, Duration::ZERO);
        assert!(bar.contains("[############            ] 2 of 4 windows: loss 2; ") && bar.ends_with(CLEAR), "{bar:?}");
        assert_eq!(drawn(true, true, Duration::ZERO) + &drawn(false, false, Duration::from_secs(60)), "");
    }
}
