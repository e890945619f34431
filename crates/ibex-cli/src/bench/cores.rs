//! A core for each side of a benchmark that spins.
//!
//! Owns the choice and the pinning. Two spinning processes on one core measure the scheduler, and the kernel likes to put
//! processes that talk to each other on one core. Sides that sleep are left where the kernel puts them, as the references
//! beside them are.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::args::Wait;

/// Which side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Asking,
    Answering,
}

/// Keeps this thread, and those it starts, on a core of its own if it spins, wherever it pleases otherwise. Does nothing
/// where there is but one core, or where it is not allowed: then the figures are what they are.
pub(crate) fn settle(side: Side, wait: Wait, allowed: &CpuSet) {
    let mut set = *allowed;
    if wait == Wait::Spin
        && let Some((first, second)) = pair(&numbers(allowed), siblings)
    {
        set.clear();
        set.set(if side == Side::Asking { first } else { second });
    }
    let _ = sched_setaffinity(None, &set);
}

/// The cores this process may use, asked before anything is pinned.
pub(crate) fn allowed() -> CpuSet {
    sched_getaffinity(None).unwrap_or_default()
}

fn numbers(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The first core and the first one that shares nothing with it; both sides come to the same result.
fn pair(allowed: &[usize], siblings: impl Fn(usize) -> Vec<usize>) -> Option<(usize, usize)> {
    let first = *allowed.first()?;
    let shared = siblings(first);
    let second = allowed[1..].iter().find(|cpu| !shared.contains(cpu)).or(allowed.get(1))?;
    Some((first, *second))
}

/// Hardware threads of the same core, as the kernel lists them: `0,4` or `0-1`.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse().ok()?..=to.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_get_different_cores() {
        assert_eq!(pair(&[0, 1], |_| vec![0]), Some((0, 1)));
        assert_eq!(pair(&[0, 1, 2, 3], |_| vec![0, 1]), Some((0, 2)));
        assert_eq!(pair(&[3, 7], |_| vec![3, 7]), Some((3, 7)));
        assert_eq!(pair(&[5], |_| vec![5]), None);
        assert_eq!(pair(&[], |_| vec![]), None);
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(parse("0,4\n"), [0, 4]);
        assert_eq!(parse("2-4,9\n"), [2, 3, 4, 9]);
        assert!(parse("").is_empty());
    }
}
