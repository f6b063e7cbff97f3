//! What this machine has: memory, as far as the process may use it.

use sysinfo::System;

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
        available = available.min(group.free_memory);
    }
    (total > 0).then_some(Memory { total, available, limit })
}

/// Bytes that a run may take, where the system says.
pub fn available_memory() -> Option<u64> {
    memory().map(|memory| memory.available)
}
