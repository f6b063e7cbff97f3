//! What a compiled kernel takes of the card, as its assembler reports it.

/// Resources of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The entry point.
    pub entry: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a block, without what a launch adds.
    pub shared: u32,
    /// Bytes of the stack of a thread: arrays with computed indices.
    pub stack: u32,
    /// Bytes of registers that were moved out to memory and back.
    pub spills: u32,
}

/// Reads the report of `--ptxas-options=-v`, one entry for each kernel in the order of compilation.
pub fn read(log: &str) -> Vec<Resources> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(entry) = between(line, "Compiling entry function '", "'") {
            kernels.push(Resources { entry: entry.to_owned(), ..Resources::default() });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        if line.contains("stack frame") {
            kernel.stack = number_before(line, " bytes stack frame");
            kernel.spills = number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        } else if line.contains(" registers") {
            kernel.registers = number_before(line, " registers");
            kernel.shared = number_before(line, " bytes smem");
        }
    }
    kernels
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// The number in front of `unit`; 0 where the unit is not named.
fn number_before(line: &str, unit: &str) -> u32 {
    let Some((front, _)) = line.split_once(unit) else { return 0 };
    let digits = front.len() - front.bytes().rev().take_while(u8::is_ascii_digit).count();
    front[digits..].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Resources, read};

    #[test]
    fn the_assemblers_report_is_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'norm' for 'sm_90'\n\
            ptxas info    : Function properties for norm\n    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 128 bytes smem, 400 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'cast' for 'sm_90'\n\
            ptxas info    : Function properties for cast\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 12 registers, used 0 barriers, 400 bytes cmem[0]\n";
        let norm = Resources { entry: "norm".into(), registers: 40, shared: 128, stack: 16, spills: 20 };
        let cast = Resources { entry: "cast".into(), registers: 12, ..Resources::default() };
        assert_eq!(read(log), [norm, cast]);
    }
}
