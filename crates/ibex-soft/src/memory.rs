//! Memory of the user: the bytes that memory regions cover and work requests name.
//!
//! Owns every load and store of memory that belongs to the program using the device, and the check that a range is
//! mapped. Does not own who may touch what: keys, bounds and access flags are [`crate::mr`]'s.
//! See `ibv_reg_mr(3)` and `madvise(2)` (`MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`).
//!
//! # Safety
//! Such memory may be read and written by the program, by other queue pairs and by remote peers at any moment. So this
//! file never makes a Rust reference to it (invariant I2): it is touched by opaque machine instructions, volatile
//! accesses and real atomic instructions only. That a range is mapped is the promise made to [`UserMemory::new`].
#![allow(unsafe_code)]

use std::io;
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::AtomicU8;
use std::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(target_arch = "x86_64")]
use std::time::Instant;

/// From this many bytes on, the processor's own copy is as fast as libc's, and beats the block loop by a tenth to a half, where
/// it is any good.
#[cfg(target_arch = "x86_64")]
const LARGE: usize = 2048;

/// Below this many bytes, word-wise volatile accesses beat the set-up of the block loop.
const SMALL: usize = 32;

/// A range of the user's memory that stays mapped for as long as this value lives.
#[derive(Debug)]
pub(crate) struct UserMemory {
    addr: usize,
    len: usize,
}

impl UserMemory {
    /// Names a range of memory.
    ///
    /// # Safety
    /// `[addr, addr + len)` does not wrap, and is mapped readable, and writable if [`UserMemory::write`] or an atomic
    /// is going to be called, until the value is dropped. (`ibv_reg_mr(3)`: the memory must stay valid until
    /// `ibv_dereg_mr` returned.)
    pub(crate) unsafe fn new(addr: usize, len: usize) -> UserMemory {
        UserMemory { addr, len }
    }

    /// Where the range begins, as a number.
    pub(crate) fn address(&self) -> usize {
        self.addr
    }

    /// Where `len` bytes at `offset` begin, as a number.
    ///
    /// # Panics
    /// If the bytes are not inside the range.
    pub(crate) fn address_of(&self, offset: usize, len: usize) -> usize {
        self.check(offset, len);
        self.addr + offset
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies from the range, starting `offset` bytes into it.
    ///
    /// # Panics
    /// If the bytes are not inside the range: callers check bounds first, this only keeps a mistake from being unsound.
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        // SAFETY: inside the range by the check; mapped by the contract of `new`; `out` is exclusive.
        unsafe { copy((self.addr + offset) as *const u8, out.as_mut_ptr(), out.len()) }
    }

    /// Copies into the range, starting `offset` bytes into it. With `last`, the final (at most eight) bytes become
    /// visible only after all others and after everything written before: programs poll the last byte of a WRITE.
    ///
    /// # Panics
    /// If the bytes are not inside the range.
    pub(crate) fn write(&self, offset: usize, data: &[u8], last: bool) {
        self.check(offset, data.len());
        let target = self.addr + offset;
        let tail = if last { data.len().min(8) } else { 0 };
        let head = data.len() - tail;
        // SAFETY: inside the range by the check; mapped writable by the contract of `new`.
        unsafe { copy(data.as_ptr(), target as *mut u8, head) }
        if tail > 0 {
            fence(Ordering::Release);
            // SAFETY: as above; `head + tail` is the length checked.
            unsafe { copy_small(data[head..].as_ptr(), (target + head) as *mut u8, tail) }
        }
    }

    /// Copies `len` bytes at `offset` to `to_offset` of another range, or of this one. `last` as for
    /// [`UserMemory::write`].
    ///
    /// # Panics
    /// If the bytes are not inside both ranges.
    #[inline(always)]
    pub(crate) fn copy_to(&self, offset: usize, to: &UserMemory, to_offset: usize, len: usize, last: bool) {
        self.check(offset, len);
        to.check(to_offset, len);
        let (from, to) = (self.addr + offset, to.addr + to_offset);
        let tail = if last { len.min(8) } else { 0 };
        let head = len - tail;
        // SAFETY: inside both ranges by the checks; mapped by the contract of `new`.
        unsafe { copy(from as *const u8, to as *mut u8, head) }
        if tail > 0 {
            fence(Ordering::Release);
            // SAFETY: as above; `head + tail` is the length checked.
            unsafe { copy_small((from + head) as *const u8, (to + head) as *mut u8, tail) }
        }
    }

    /// Atomically replaces the 64-bit word at `offset` by `swap` if it equals `compare`; returns what was there.
    ///
    /// # Panics
    /// If the word is not inside the range or not aligned to 8.
    pub(crate) fn compare_swap(&self, offset: usize, compare: u64, swap: u64) -> u64 {
        match self.word(offset).compare_exchange(compare, swap, Ordering::AcqRel, Ordering::Acquire) {
            Ok(old) | Err(old) => old,
        }
    }

    /// Atomically adds to the 64-bit word at `offset`, wrapping; returns what was there.
    ///
    /// # Panics
    /// If the word is not inside the range or not aligned to 8.
    pub(crate) fn fetch_add(&self, offset: usize, add: u64) -> u64 {
        self.word(offset).fetch_add(add, Ordering::AcqRel)
    }

    /// Whether the word at `offset` is aligned as the atomics need it.
    pub(crate) fn is_word(&self, offset: usize) -> bool {
        (self.addr + offset).is_multiple_of(8)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        self.check(offset, 8);
        let addr = self.addr + offset;
        assert!(addr.is_multiple_of(8), "an atomic's target is aligned to 8");
        // SAFETY: aligned and inside the range by the checks above; mapped for as long as `self` lives (`new`); every
        // access of the device to it is a machine instruction that tolerates concurrent ones.
        unsafe { AtomicU64::from_ptr(addr as *mut u64) }
    }

    #[inline(always)]
    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "access of {len} bytes at {offset} outside a range of {}", self.len);
    }
}

/// Copies memory named by a work request without a key (inline data).
///
/// # Safety
/// `[addr, addr + out.len())` is readable for the length of the call (`ibv_post_send(3)`, `IBV_SEND_INLINE`).
pub(crate) unsafe fn copy_inline(addr: u64, out: &mut [u8]) {
    // SAFETY: the caller's promise; `out` is exclusive.
    unsafe { copy(addr as usize as *const u8, out.as_mut_ptr(), out.len()) }
}

/// Makes the pages of a range present, as a device that pins them would, and so finds out whether they are mapped with
/// the rights needed.
///
/// # Errors
/// `EFAULT` if a page is not mapped or not writable though `write` is asked; `ENOMEM` if there is no memory for it.
pub(crate) fn populate(addr: usize, len: usize, write: bool) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let page = page_size();
    let start = addr & !(page - 1);
    let end = addr
        .checked_add(len)
        .and_then(|end| end.checked_add(page - 1))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?
        & !(page - 1);
    let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    loop {
        // SAFETY: populating changes no byte; a range that is not mapped gives an error.
        if unsafe { libc::madvise(start as *mut libc::c_void, end - start, advice) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => {}
            // Not writable; or a kernel before 5.14, which does not know the advice; or a mapping of a device, which
            // refuses it. The last two are not prefaulted.
            Some(libc::EINVAL) => return is_mapped(start, end, write),
            // madvise says ENOMEM for a hole in the range; a device that cannot pin says EFAULT.
            Some(libc::ENOMEM | libc::EFAULT) => return Err(io::Error::from_raw_os_error(libc::EFAULT)),
            _ => return Err(error),
        }
    }
}

/// Whether `[start, end)` is mapped with the rights needed, from what the kernel lists (`proc_pid_maps(5)`).
fn is_mapped(start: usize, end: usize, write: bool) -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut covered = start;
    for line in maps.lines() {
        let Some((from, to, rights)) = mapping(line) else { continue };
        if from <= covered && covered < to {
            let rights = rights.as_bytes();
            if rights.first() != Some(&b'r') || write && rights.get(1) != Some(&b'w') {
                break;
            }
            covered = to;
        }
        if covered >= end {
            return Ok(());
        }
    }
    Err(io::Error::from_raw_os_error(libc::EFAULT))
}

/// Start, end and rights of one line of the list, such as `55d0c000-55d0d000 rw-p …`.
fn mapping(line: &str) -> Option<(usize, usize, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?, rest))
}

/// The size of a page of memory, in bytes.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf only reads its argument.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
}

/// Copies `len` bytes by instructions the compiler cannot see through, so that no data race exists in its model.
///
/// # Safety
/// Both ranges are mapped for the length of the call, `from` readable and `to` writable; they may overlap only as
/// far as the resulting bytes do not matter.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if len < SMALL {
        // SAFETY: the caller's promise.
        unsafe { copy_small(from, to, len) }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if len >= LARGE && string_copies_well() {
        // SAFETY: the caller's promise.
        unsafe { copy_string(from, to, len) }
        return;
    }
    // SAFETY: the caller's promise; at least `SMALL` bytes, as the block copy needs.
    unsafe { copy_block(from, to, len) }
}

/// Whether the string instruction is worth being used: it is announced, and not much slower than the block loop. An emulated
/// processor announces it and takes fifty times as long.
#[cfg(target_arch = "x86_64")]
#[inline]
fn string_copies_well() -> bool {
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let well = std::arch::is_x86_feature_detected!("ermsb") && string_measures_well();
            KNOWN.store(1 + u8::from(well), Ordering::Relaxed);
            well
        }
        known => known == 2,
    }
}

/// The shortest of a few times each: a thread that lost the processor meanwhile says nothing.
#[cfg(target_arch = "x86_64")]
#[cold]
fn string_measures_well() -> bool {
    const COPIES: usize = 4;
    let from = [1_u8; LARGE];
    let mut to = [0_u8; LARGE];
    let mut best = |copy: unsafe fn(*const u8, *mut u8, usize)| {
        let once = |_| {
            let began = Instant::now();
            for _ in 0..COPIES {
                // SAFETY: both are `LARGE` bytes, at least 32, and the second is exclusive.
                unsafe { copy(from.as_ptr(), std::hint::black_box(to.as_mut_ptr()), LARGE) }
            }
            began.elapsed()
        };
        (0..3).map(once).min().unwrap_or_default()
    };
    best(copy_string) <= 2 * best(copy_block)
}

/// One string instruction. Its stores may become visible in any order, but before every store that follows.
///
/// # Safety
/// As [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy_string(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: touches exactly `[from, from + len)` and `[to, to + len)`; the direction flag is clear (x86-64 psABI).
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rsi") from => _,
            inout("rdi") to => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Blocks of 64 bytes through vector registers, indifferent to alignment: payload stands behind headers of 12 to 28 bytes in
/// every packet.
///
/// # Safety
/// As [`copy`]; `len` is at least 32.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy_block(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the loop touches exactly `[from, from + len)` and `[to, to + len)`: whole blocks of 64 while 64 remain,
    // then blocks of 16, then the last 16 bytes again from the end (`len` is at least 32). It clobbers what it names.
    unsafe {
        std::arch::asm!(
            "lea {end}, [{from} + {len}]",
            "lea {tail}, [{to} + {len}]",
            "sub {len}, 64",
            "jb 3f",
            "2:",
            "movdqu {a}, [{from}]",
            "movdqu {b}, [{from} + 16]",
            "movdqu {c}, [{from} + 32]",
            "movdqu {d}, [{from} + 48]",
            "movdqu [{to}], {a}",
            "movdqu [{to} + 16], {b}",
            "movdqu [{to} + 32], {c}",
            "movdqu [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "sub {len}, 64",
            "jae 2b",
            "3:",
            "add {len}, 48",
            "js 5f",
            "4:",
            "movdqu {a}, [{from}]",
            "movdqu [{to}], {a}",
            "add {from}, 16",
            "add {to}, 16",
            "sub {len}, 16",
            "jns 4b",
            "5:",
            "movdqu {a}, [{end} - 16]",
            "movdqu [{tail} - 16], {a}",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            len = inout(reg) len => _,
            end = out(reg) _,
            tail = out(reg) _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Word-wise volatile copy: nobody has measured better here yet.
///
/// # Safety
/// As [`copy`].
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_block(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { copy_small(from, to, len) }
}

/// Copies in ascending order with volatile accesses of 8, 4, 2 and 1 bytes, so that an aligned power of two of at most
/// eight bytes arrives whole.
///
/// # Safety
/// As [`copy`].
unsafe fn copy_small(from: *const u8, to: *mut u8, len: usize) {
    let mut at = 0;
    while len - at >= 8 {
        // SAFETY: `at + 8 <= len`; the caller's promise covers the access.
        unsafe { copy_word::<u64>(from, to, at) }
        at += 8;
    }
    if len - at >= 4 {
        // SAFETY: `at + 4 <= len`.
        unsafe { copy_word::<u32>(from, to, at) }
        at += 4;
    }
    if len - at >= 2 {
        // SAFETY: `at + 2 <= len`.
        unsafe { copy_word::<u16>(from, to, at) }
        at += 2;
    }
    if len > at {
        // SAFETY: `at + 1 <= len`.
        unsafe { copy_word::<u8>(from, to, at) }
    }
}

/// A word without alignment: a packed field makes the volatile access legal at any address.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T: Copy>(T);

/// # Safety
/// `size_of::<T>()` bytes at offset `at` of both pointers are mapped, as [`copy`] says.
unsafe fn copy_word<T: Copy>(from: *const u8, to: *mut u8, at: usize) {
    let from = from.wrapping_add(at).cast::<Unaligned<T>>();
    let to = to.wrapping_add(at).cast::<Unaligned<T>>();
    // SAFETY: the caller's promise; `Unaligned` has alignment 1 and every bit pattern of these integers is valid.
    let word = unsafe { from.read_volatile() };
    // SAFETY: the caller's promise.
    unsafe { to.write_volatile(word) }
}

/// Bytes of a line of the processor's caches.
pub(crate) const LINE: usize = 64;

/// Brings the line at an address near, and the one behind it; any address will do.
#[inline]
pub(crate) fn prefetch_at(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    for line in [address, address.wrapping_add(LINE)] {
        // SAFETY: a prefetch faults never, wherever it goes.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Brings all of `value` near, its lines at once and not one after the other as they are come to.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(LINE) {
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: a prefetch faults never, wherever it goes.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: &mut [u8]) -> UserMemory {
        // SAFETY: the test keeps `bytes` alive and touches it through the value only while it exists.
        unsafe { UserMemory::new(bytes.as_mut_ptr() as usize, bytes.len()) }
    }

    /// Whichever of them is used here.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_ways_to_copy_much_copy_exactly() {
        assert_eq!(string_copies_well(), string_copies_well(), "it is found out once");
        let source: Vec<u8> = (0..9000u32).map(|i| (i * 7 + 3) as u8).collect();
        for copy in [copy_string, copy_block] {
            for len in [32, 2047, 2048, 2049, 4100, 8997] {
                for shift in 0..3 {
                    let mut target = vec![0; 9010];
                    // SAFETY: both ranges lie in the vectors, `len` is at least 32, and the second is exclusive.
                    unsafe { copy(source[shift..].as_ptr(), target[2 * shift..].as_mut_ptr(), len) }
                    assert!(target[2 * shift..][..len] == source[shift..][..len], "{len} bytes, {shift}");
                    assert!(
                        target[..2 * shift].iter().chain(&target[2 * shift + len..]).all(|&byte| byte == 0)
                    );
                }
            }
        }
    }

    #[test]
    fn every_length_and_alignment_is_copied_exactly() {
        let source: Vec<u8> = (0..9000u32).map(|i| (i * 7 + 3) as u8).collect();
        for len in (0..200).chain([255, 256, 257, 511, 640, 2047, 2048, 2049, 2056, 4096, 8997]) {
            for shift in 0..9 {
                let mut target = vec![0xAAu8; 9020];
                memory(&mut target).write(shift, &source[..len], len % 2 == 0);
                assert_eq!(&target[shift..shift + len], &source[..len], "write of {len} at {shift}");
                assert!(target[..shift].iter().all(|&b| b == 0xAA));
                assert!(
                    target[shift + len..].iter().all(|&b| b == 0xAA),
                    "write of {len} at {shift} ran over"
                );
                let mut back = vec![0x55u8; len + 2];
                memory(&mut target).read(shift, &mut back[1..=len]);
                assert_eq!(&back[1..=len], &source[..len]);
                assert_eq!((back[0], back[len + 1]), (0x55, 0x55));
                let mut third = vec![0x33u8; 9020];
                memory(&mut target).copy_to(shift, &memory(&mut third), 9, len, len % 2 == 0);
                assert_eq!(&third[9..9 + len], &source[..len], "copy of {len} from {shift}");
                assert_eq!((third[8], third[9 + len]), (0x33, 0x33));
            }
        }
    }

    #[test]
    fn atomics_return_what_was_there() {
        let mut words = [7u64, u64::MAX];
        // SAFETY: `words` outlives the value.
        let memory = unsafe { UserMemory::new(words.as_mut_ptr() as usize, 16) };
        assert_eq!(memory.compare_swap(0, 7, 9), 7);
        assert_eq!(memory.compare_swap(0, 7, 11), 9);
        assert_eq!(memory.fetch_add(8, 2), u64::MAX);
        assert_eq!(memory.fetch_add(8, 0), 1);
    }

    #[test]
    #[should_panic(expected = "outside a range")]
    fn a_mistake_in_bounds_panics() {
        let mut bytes = [0u8; 8];
        memory(&mut bytes).write(4, &[0; 8], false);
    }

    #[test]
    fn populate_tells_mapped_from_unmapped() {
        let mut bytes = vec![1u8; 10_000];
        populate(bytes.as_mut_ptr() as usize, bytes.len(), true).expect("a vector is mapped writable");
        populate(0, 0, true).expect("nothing to populate");
        let error = populate(8192, 4096, false).expect_err("low memory is never mapped");
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert!(populate(usize::MAX - 10, 100, false).is_err());
        let start = bytes.as_ptr() as usize;
        assert!(is_mapped(start, start + bytes.len(), true).is_ok());
        assert!(is_mapped(4096, start + bytes.len(), false).is_err());
        let code = (populate as fn(usize, usize, bool) -> io::Result<()>) as usize;
        assert!(populate(code, 1, false).is_ok());
        assert_eq!(populate(code, 1, true).unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }
}
