//! `corella plan --history`: the bill for GPT-2's quality since 2019.

use corella_train::estimate::history;

use crate::cli::Common;
use crate::error::Result;
use crate::output::deliver;

/// Prints each fall of the bill and what it came from.
pub fn print(common: &Common) -> Result<()> {
    let steps = history()?;
    if common.json {
        return deliver(serde_json::to_string(&steps)?);
    }
    let mut lines = vec!["The bill for GPT-2's quality, and by what factor each made it smaller:\n".to_owned()];
    lines.push(format!(
        "{:18} {:18} {:>9} {:>9} {:>7} {:>9} {:>9}",
        "from", "to", "dollars", "to", "data", "hardware", "software"
    ));
    for s in &steps {
        lines.push(format!(
            "{:18} {:18} {:9.1} {:9.1} {:6.1}x {:8.1}x {:8.1}x",
            s.from, s.to, s.dollars_from, s.dollars_to, s.data, s.hardware, s.software
        ));
        lines.push(format!("    {}", s.note));
    }
    deliver(lines.join("\n"))
}
