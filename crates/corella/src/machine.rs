//! What this machine has: processor, memory as far as the process may use it, system.

use std::collections::BTreeMap;

use sysinfo::{CpuRefreshKind, System};

use crate::units::gib;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Of the machine.
    pub total: u64,
    /// Not in use.
    pub available: u64,
    /// Limit of the container (cgroup), where there is one below the machine's total.
    pub limit: Option<u64>,
}

/// Reads it; `None` on a system that does not say.
pub fn memory() -> Option<Memory> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let (total, mut available, mut limit) = (system.total_memory(), system.available_memory(), None);
    if let Some(group) = system.cgroup_limits()
        && group.total_memory < total
    {
        limit = Some(group.total_memory);
        // What only keeps files in memory gives way, as it does in what the system calls available.
        available = available.min(group.free_memory.max(group.total_memory.saturating_sub(group.rss)));
    }
    (total > 0).then_some(Memory { total, available, limit })
}

/// Bytes that a run may take, where the system says.
pub fn available_memory() -> Option<u64> {
    memory().map(|memory| memory.available)
}

/// The most memory that this process has held at once, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Lets [`peak_memory`] begin anew with what is held now; false where the system does not let it.
pub fn forget_peak_memory() -> bool {
    // proc(5): 5 resets the peak.
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The processor's name, where the system says.
pub fn processor() -> Option<String> {
    let mut system = System::new().ok()?;
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).filter(|name| !name.is_empty())
}

/// Program, machine and system, as a report shows them.
pub fn environment() -> BTreeMap<String, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Of any bytes, as file names are.
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let command = arguments.collect::<Vec<_>>().join(" ");
    let known = [
        ("program", Some(format!("corella {} ({})", env!("CARGO_PKG_VERSION"), env!("CORELLA_COMMIT")))),
        ("processor", processor()),
        ("threads", Some(threads.to_string())),
        ("memory", memory().map(|m| format!("{:.1} GiB", gib(m.total)))),
        ("system", System::long_os_version().ok()),
        ("command", Some(command)),
    ];
    known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_begins_anew() {
        let large = std::hint::black_box(vec![1u8; 1 << 28]);
        let before = peak_memory();
        drop(large);
        if forget_peak_memory() {
            let (before, after) = (before.expect("told"), peak_memory().expect("told"));
            assert!(after < before - (1 << 27), "{after} of {before}");
        }
    }
}
