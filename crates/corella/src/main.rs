//! The corella program.
fn main() {}
