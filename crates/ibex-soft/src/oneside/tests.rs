//! Both sides of the publication in one process: what a permit needs, who waits for it, and a peer that writes nonsense.
//!
//! # Safety
//! Ranges are of locals that outlive them.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hazard::{GRACE, PATIENCE};
use super::tables::SIZE;
use super::*;
use crate::host::segment;
use crate::memory::UserMemory;

const OURS: u32 = 0x4001;
const THEIRS: u32 = 0x8002;
const RKEY: u32 = 0x1234_5601;
const WRITE: u32 = 2;
const READ: u32 = 4;

/// An owner, alive, and a peer of it.
struct Both {
    owner: Arc<OneSide>,
    view: View,
    line: Option<Line>,
}

fn both() -> Both {
    let owner = Arc::new(OneSide::new().unwrap());
    let line = owner.admit().unwrap();
    let files = owner.files(&line).unwrap().map(|file| file.try_clone_to_owned().unwrap());
    let view = View::attach(&line.greeting(), files, std::process::id().cast_signed()).unwrap();
    Both { owner, view, line: Some(line) }
}

fn region(address: usize, len: usize) -> RegionEntry {
    RegionEntry { rkey: RKEY, pd: 7, access: WRITE | 1, iova: 0x1000, address, len }
}

fn served(pd: u32) -> QpEntry {
    QpEntry { remote: THEIRS, pd, access: Access(WRITE | READ) }
}

fn wanted() -> Wanted {
    Wanted { queue_pairs: (OURS, THEIRS), rkey: RKEY, va: 0x1000, len: 64, right: WRITE }
}

/// With the process alive, as its device's thread has it.
fn alive(test: impl FnOnce(&mut Both)) {
    let mut both = both();
    let owner = both.owner.clone();
    assert!(both.view.permit(&wanted()).is_none(), "not alive yet");
    let life = owner.live();
    assert!(life.is_some());
    test(&mut both);
    drop(life);
    assert!(both.view.permit(&wanted()).is_none(), "not alive any more");
}

#[test]
fn a_permit_needs_key_bounds_rights_domain_and_queue_pair() {
    alive(|both| {
        let (owner, view) = (&both.owner, &both.view);
        owner.enter_queue_pair(OURS, &served(7));
        owner.enter_region(&region(0x5000, 4096));
        assert!(view.permit(&wanted()).is_some());
        assert!(view.permit(&Wanted { va: 0x1000 + 4096 - 64, ..wanted() }).is_some());
        let refused = [
            Wanted { va: 0x1000 + 4096 - 63, ..wanted() },
            Wanted { va: 0xfff, ..wanted() },
            Wanted { va: u64::MAX, ..wanted() },
            Wanted { len: u64::MAX, ..wanted() },
            Wanted { rkey: RKEY ^ 2, ..wanted() },
            Wanted { rkey: RKEY & !1, ..wanted() },
            Wanted { right: READ, ..wanted() },
            Wanted { queue_pairs: (OURS + 1, THEIRS), ..wanted() },
            Wanted { queue_pairs: (OURS, THEIRS + 1), ..wanted() },
        ];
        for wanted in refused {
            assert!(view.permit(&wanted).is_none(), "{wanted:?}");
        }
        owner.enter_queue_pair(OURS, &served(8));
        assert!(view.permit(&wanted()).is_none(), "another domain");
        owner.enter_queue_pair(OURS, &QpEntry { access: Access(READ), ..served(7) });
        assert!(view.permit(&wanted()).is_none(), "not through this queue pair");
        owner.enter_queue_pair(OURS, &served(7));
        owner.leave_queue_pair(OURS);
        owner.await_queue_pair(OURS);
        assert!(view.permit(&wanted()).is_none(), "gone");
        owner.enter_queue_pair(OURS, &served(7));
        owner.leave_region(RKEY & !1).unwrap();
        assert!(view.permit(&wanted()).is_none(), "withdrawn");
    });
}

#[test]
fn memory_is_taken_back_after_the_last_copy() {
    alive(|both| {
        both.owner.enter_queue_pair(OURS, &served(7));
        both.owner.enter_region(&region(0x5000, 4096));
        let permit = both.view.permit(&wanted()).unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            let owner = &both.owner;
            let taker = scope.spawn(move || owner.leave_region(RKEY & !1));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!taker.is_finished());
            assert!(both.view.permit(&wanted()).is_none(), "no new copy begins");
            drop(permit);
            assert_eq!(taker.join().unwrap(), Ok(()));
        });
        assert!(start.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn a_copy_that_does_not_end_keeps_its_memory() {
    alive(|both| {
        both.owner.enter_queue_pair(OURS, &served(7));
        both.owner.enter_region(&region(0x5000, 4096));
        let permit = both.view.permit(&wanted()).unwrap();
        let start = Instant::now();
        assert_eq!(both.owner.leave_region(RKEY & !1), Err(libc::EBUSY));
        assert!(start.elapsed() >= PATIENCE);
        assert!(both.view.permit(&wanted()).is_some(), "still there");
        drop(permit);
        assert_eq!(both.owner.leave_region(RKEY & !1), Ok(()));
    });
}

/// The view that the owner has of its peer, which tells it whether that lives.
fn view_of(peer: &Arc<OneSide>) -> Arc<View> {
    let line = peer.admit().unwrap();
    let files = peer.files(&line).unwrap().map(|file| file.try_clone_to_owned().unwrap());
    Arc::new(View::attach(&line.greeting(), files, std::process::id().cast_signed()).unwrap())
}

#[test]
fn what_a_dead_peer_was_doing_does_not_count() {
    alive(|both| {
        both.owner.enter_queue_pair(OURS, &served(7));
        both.owner.enter_region(&region(0x5000, 4096));
        let peer = Arc::new(OneSide::new().unwrap());
        let life = peer.live();
        both.line.as_mut().unwrap().attached(Some(&view_of(&peer)));
        let permit = both.view.permit(&wanted()).unwrap();
        assert_eq!(both.owner.leave_region(RKEY & !1), Err(libc::EBUSY), "it lives");
        // Its connection does not end: a child of its own holds it.
        drop(life);
        let start = Instant::now();
        assert_eq!(both.owner.leave_region(RKEY & !1), Ok(()));
        assert!(start.elapsed() >= GRACE, "another of its threads may still be in the middle");
        drop(permit);
    });
}

#[test]
fn a_living_peer_that_was_parted_with_is_waited_for() {
    alive(|both| {
        both.owner.enter_queue_pair(OURS, &served(7));
        both.owner.enter_region(&region(0x5000, 4096));
        let peer = Arc::new(OneSide::new().unwrap());
        let _life = peer.live();
        both.line.as_mut().unwrap().attached(Some(&view_of(&peer)));
        let permit = both.view.permit(&wanted()).unwrap();
        // The peer has not noticed yet.
        both.line = None;
        assert!(both.view.permit(&wanted()).is_none(), "nothing new begins");
        let others: Vec<Line> = (0..9).map(|_| both.owner.admit().unwrap()).collect();
        assert_eq!(both.owner.leave_region(RKEY & !1), Err(libc::EBUSY), "still copying");
        drop((permit, others));
        assert_eq!(both.owner.leave_region(RKEY & !1), Ok(()));
    });
}

#[test]
fn the_end_of_a_link_waits_for_no_word_in_shared_memory() {
    alive(|both| {
        both.owner.enter_queue_pair(OURS, &served(7));
        both.owner.enter_region(&region(0x5000, 4096));
        let _permit = both.view.permit(&wanted()).unwrap();
        both.view.close();
    });
}

#[test]
fn a_view_that_is_closed_permits_nothing() {
    alive(|both| {
        both.owner.enter_queue_pair(OURS, &served(7));
        both.owner.enter_region(&region(0x5000, 4096));
        both.view.close();
        assert!(both.view.permit(&wanted()).is_none());
    });
}

#[test]
fn memory_in_a_file_is_mapped_and_other_memory_copied() {
    alive(|both| {
        let (file, mapping) = segment::create(8192, false).unwrap();
        // Where the file is mapped is not looked at here: only the file is.
        let address = 0x7000_0000_0000;
        shares().enter(address, 8192, file.as_raw_fd(), 0).unwrap();
        assert_eq!(shares().enter(address + 4096, 4096, file.as_raw_fd(), 0), Err(libc::EINVAL));
        both.owner.enter_queue_pair(OURS, &served(7));
        both.owner.enter_region(&region(address + 128, 4096));
        let permit = both.view.permit(&Wanted { va: 0x1000 + 8, ..wanted() }).unwrap();
        let mut map = None;
        match both.view.reach(&permit, 64, &mut map).unwrap() {
            Path::Mapped(memory, at) => memory.write(at, b"0123456789", false),
            path => panic!("{path:?}"),
        }
        let mut got = [0; 10];
        mapping.read(136, &mut got);
        assert_eq!(&got, b"0123456789");
        drop(permit);
        both.owner.leave_region(RKEY & !1).unwrap();
        shares().leave(address);

        let bytes = vec![7u8; 4096];
        both.owner.enter_region(&region(bytes.as_ptr() as usize, 4096));
        let permit = both.view.permit(&wanted()).unwrap();
        let Some(Path::Process { pid, address }) = both.view.reach(&permit, 64, &mut map) else {
            panic!("not copied")
        };
        let mut out = [0u8; 64];
        let base = out.as_mut_ptr().expose_provenance();
        // SAFETY: the local outlives the range, and is looked at only after the copy.
        let memory = unsafe { UserMemory::new(base, 64) };
        let mut pieces = Pieces::new();
        assert!(pieces.add(&memory, 0, 64));
        assert!(pieces.read(pid, address));
        assert_eq!(out, [7; 64]);
    });
}

#[test]
fn files_that_the_peer_has_closed_are_not_kept() {
    alive(|both| {
        both.owner.enter_queue_pair(OURS, &served(7));
        // Where they are mapped is not looked at.
        let address = 0x7100_0000_0000;
        for _ in 0..3 {
            let (file, _) = segment::create(8192, false).unwrap();
            shares().enter(address, 8192, file.as_raw_fd(), 0).unwrap();
            both.owner.enter_region(&region(address, 4096));
            let permit = both.view.permit(&wanted()).unwrap();
            let mut map = None;
            let path = both.view.reach(&permit, 64, &mut map);
            assert!(matches!(path, Some(Path::Mapped(..))), "{path:?}");
            drop(permit);
            assert_eq!(both.view.maps(), 1);
            both.owner.leave_region(RKEY & !1).unwrap();
            shares().leave(address);
        }
        both.view.close();
        assert_eq!(both.view.maps(), 0, "nor any, once it is gone");
    });
}

#[test]
fn nonsense_in_the_tables_is_survived() {
    let both = both();
    let (file, tables) = segment::create(SIZE, false).unwrap();
    let line = both.owner.admit().unwrap();
    let [_, hazards] = both.owner.files(&line).unwrap().map(|file| file.try_clone_to_owned().unwrap());
    let view = View::attach(&line.greeting(), [file, hazards], std::process::id().cast_signed()).unwrap();
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state ^ state >> 33
    };
    // Alive, for ever.
    tables.word(tables::LIFE_AT).store(1, std::sync::atomic::Ordering::SeqCst);
    let (region, queue_pair) = (tables::region_index(RKEY), tables::queue_pair_index(OURS));
    let mut map = None;
    for _ in 0..2000 {
        for word in 0..8 {
            let value = if random() % 3 == 0 { u64::MAX - random() % 100 } else { random() };
            tables.word(tables::region_at(region, word)).store(value, std::sync::atomic::Ordering::SeqCst);
        }
        let words = [u64::from(OURS) << 32 | 1, u64::MAX, u64::from(THEIRS)];
        for (index, word) in words.into_iter().enumerate() {
            tables
                .word(tables::queue_pair_at(queue_pair, index))
                .store(word, std::sync::atomic::Ordering::SeqCst);
        }
        tables
            .word(tables::region_at(region, 0))
            .store(u64::from(RKEY) << 32 | 1, std::sync::atomic::Ordering::SeqCst);
        tables.word(tables::region_at(region, 1)).store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
        let va = tables.word(tables::region_at(region, 2)).load(std::sync::atomic::Ordering::SeqCst);
        let Some(permit) = view.permit(&Wanted { va, ..wanted() }) else { continue };
        // No file of that number, or not with that inode.
        assert!(!matches!(view.reach(&permit, 64, &mut map), Some(Path::Mapped(..))));
    }
}
