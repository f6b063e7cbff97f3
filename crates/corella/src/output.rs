//! Printing that does not fail: whoever reads the output may be gone (`corella plan … | head`, a terminal whose connection
//! broke). The standard macros end the program then, and a run of days would be lost with its terminal; what is printed is
//! also in the run's files.

/// As `std::println!`; what nobody takes is dropped.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// As `std::print!`; what nobody takes is dropped.
macro_rules! print {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}

/// As `std::eprintln!`; what nobody takes is dropped.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
