//! What a process or a host still holds.

/// Descriptors open in this process.
///
/// # Panics
/// When `/proc` cannot be read.
pub(super) fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("proc is mounted");
    let mut list: Vec<String> = entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| {
            let text = target.to_string_lossy().into_owned();
            // Sockets and pipes are numbered: only their kind can be compared.
            text.split(':').next().unwrap_or_default().to_owned()
        })
        // The directory that is being read.
        .filter(|text| !text.starts_with("/proc/"))
        .collect();
    list.sort();
    list
}

/// Mappings of this process that are shared memory without a name in the file system.
///
/// # Panics
/// When `/proc` cannot be read.
pub(super) fn shared_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc is mounted");
    maps.lines().filter(|line| line.contains("/memfd:")).count()
}

/// Unix sockets of this network namespace whose name contains `text`.
///
/// # Panics
/// When `/proc` cannot be read.
pub(super) fn sockets_named(text: &str) -> Vec<String> {
    let list = std::fs::read_to_string("/proc/net/unix").expect("proc is mounted");
    list.lines()
        .filter_map(|line| line.split('@').nth(1))
        .filter(|name| name.contains(text))
        .map(str::to_owned)
        .collect()
}
