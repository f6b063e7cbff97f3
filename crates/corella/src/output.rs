//! Printing. What a command was run for must arrive ([`deliver`]). The rest does not fail: whoever reads the output may be gone
//! (`corella plan … | head`, a terminal whose connection broke). The standard macros end the program then, and a run of days
//! would be lost with its terminal; what is printed is also in the run's files.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use crate::error::{Failure, Result};

/// Prints a line that is what a command was run for. A disk that takes no more is an error then; a reader that has left is not.
pub fn deliver(line: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    taken(writeln!(out, "{line}").and_then(|()| out.flush())).map(drop)
}

/// Whether somebody reads on after `printed`.
pub fn taken(printed: std::io::Result<()>) -> Result<bool> {
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("the output cannot be written: {error}"))
            .hint("make room where it goes, or send it somewhere else")),
    }
}

/// As `std::println!`; what nobody takes is dropped.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// As `std::eprintln!`; what nobody takes is dropped.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
