//! How many threads compute when nobody says.

/// One thread for each physical core that this process may use, within the container's limit: the two hardware threads of a
/// core share its arithmetic units, which one product keeps busy.
pub fn default() -> usize {
    // What the scheduler's mask and the control group's `cpu.max` allow.
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    allowed.min(physical_cores().unwrap_or(allowed)).max(1)
}

/// Physical cores, as Linux describes them.
fn physical_cores() -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()? {
        let path = entry.ok()?.path();
        // The list of hardware threads names the core; processors that are off have none.
        if let Ok(siblings) = std::fs::read_to_string(path.join("topology/core_cpus_list")) {
            cores.insert(siblings);
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_no_more_than_cores_and_at_least_one() {
        let threads = default();
        assert!(threads >= 1 && threads <= std::thread::available_parallelism().map_or(1, usize::from));
        assert!(physical_cores().is_none_or(|cores| threads <= cores));
    }
}
