//! Tests of windows: what may be bound, which keys are valid when, and the fence.
#![allow(unsafe_code)]

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ibex_sys::dispatch::ibv_inc_rkey;

use super::*;
use crate::memory::UserMemory;
use crate::mr::{Held, Keys, Region};

const PD: PdNumber = 3;
const QPN: u32 = 17;
const ALL: u32 = access::LOCAL_WRITE | access::MW_BIND;

fn region(table: &mut MrTable, pd: PdNumber, rights: u32) -> Keys {
    // SAFETY: no test reads or writes through it.
    let memory = unsafe { UserMemory::new(0x1_0000, 4096) };
    table.insert(Region { pd, access: rights, iova: 0x1_0000, len: 4096, memory }).unwrap()
}

fn tables() -> (MrTable, Keys) {
    let mut table = MrTable::with_secret(0xdead_beef);
    let keys = region(&mut table, PD, ALL);
    (table, keys)
}

fn wish(window: u32, region: Keys) -> Bind {
    Bind {
        window,
        rkey: ibv_inc_rkey(window),
        region: Some(region.lkey),
        addr: 0x1_0100,
        len: 256,
        access: access::REMOTE_WRITE,
    }
}

fn write(table: &MrTable, key: u32, va: u64, len: u64) -> Result<usize, MrFault> {
    table.remote(PD, QPN, key, va, len, access::REMOTE_WRITE).map(|found| found.at)
}

#[test]
fn a_window_gives_its_range_and_rights_and_nothing_else() {
    let (mut table, keys) = tables();
    let key = table.insert_window(PD, WindowKind::Type2).unwrap();
    assert_eq!(write(&table, key, 0x1_0100, 1), Err(MrFault::Key), "not bound yet");
    let bind = wish(key, keys);
    table.bind(PD, QPN, &bind).unwrap();
    let key = bind.rkey;
    assert_eq!(write(&table, key, 0x1_0100, 256), Ok(0x100));
    assert_eq!(write(&table, key, 0x1_01ff, 1), Ok(0x1ff));
    assert_eq!(write(&table, key, 0x1_0100, 257), Err(MrFault::Bounds));
    assert_eq!(write(&table, key, 0x1_00ff, 1), Err(MrFault::Bounds));
    assert_eq!(write(&table, key, u64::MAX, 2), Err(MrFault::Bounds));
    let read = table.remote(PD, QPN, key, 0x1_0100, 1, access::REMOTE_READ).map(|found| found.at);
    assert_eq!(read, Err(MrFault::Access));
    assert_eq!(table.remote(PD, QPN + 1, key, 0x1_0100, 1, 0).unwrap_err(), MrFault::Domain);
    assert_eq!(table.remote(PD + 1, QPN, key, 0x1_0100, 1, 0).unwrap_err(), MrFault::Domain);
    for stale in [bind.window, ibv_inc_rkey(key)] {
        assert_eq!(write(&table, stale, 0x1_0100, 1), Err(MrFault::Key));
    }
    assert_eq!(table.local(PD, key, 0x1_0100, 1, false).unwrap_err(), MrFault::Key, "never an lkey");
    assert_eq!(write(&table, keys.rkey, 0x1_0100, 1), Err(MrFault::Access), "the region's own key as before");
}

#[test]
fn zero_based_windows_count_from_their_start() {
    let (mut table, keys) = tables();
    let key = table.insert_window(PD, WindowKind::Type2).unwrap();
    let rights = access::REMOTE_WRITE | access::ZERO_BASED;
    table.bind(PD, QPN, &Bind { access: rights, ..wish(key, keys) }).unwrap();
    assert_eq!(write(&table, ibv_inc_rkey(key), 0, 256), Ok(0x100));
    assert_eq!(write(&table, ibv_inc_rkey(key), 1, 256), Err(MrFault::Bounds));
    let key = table.insert_window(PD, WindowKind::Type1).unwrap();
    let refused = table.bind(PD, QPN, &Bind { access: rights, ..wish(key, keys) });
    assert_eq!(refused, Err(MrFault::Access), "only type 2");
}

#[test]
fn binds_that_the_rules_forbid_are_refused() {
    let (mut table, keys) = tables();
    let plain = region(&mut table, PD, access::LOCAL_WRITE);
    let readable = region(&mut table, PD, access::MW_BIND);
    let zero_based = region(&mut table, PD, ALL | access::ZERO_BASED);
    let foreign = region(&mut table, PD + 1, ALL);
    let key = table.insert_window(PD, WindowKind::Type2).unwrap();
    let other = table.insert_window(PD, WindowKind::Type2).unwrap();
    let bind = wish(key, keys);
    let refused = |bind: Bind| table.bind(PD, QPN, &bind).unwrap_err();
    let on = |keys: Keys| Bind { region: Some(keys.lkey), ..bind };
    assert_eq!(refused(on(plain)), MrFault::Access, "registered without MW_BIND");
    assert_eq!(refused(on(readable)), MrFault::Access, "remote writing without local");
    assert!(table.bind(PD, QPN, &Bind { access: access::REMOTE_READ, ..on(readable) }).is_ok());
    table.invalidate(PD, QPN, bind.rkey).unwrap();
    assert_eq!(refused(on(zero_based)), MrFault::Access);
    assert_eq!(refused(on(foreign)), MrFault::Domain);
    assert_eq!(refused(Bind { region: Some(keys.rkey), ..bind }), MrFault::Key);
    assert_eq!(refused(Bind { region: Some(key), ..bind }), MrFault::Key);
    assert_eq!(refused(Bind { len: 4096, ..bind }), MrFault::Bounds);
    assert_eq!(refused(Bind { addr: 0, ..bind }), MrFault::Bounds);
    assert_eq!(refused(Bind { len: 0, ..bind }), MrFault::Bounds, "type 2 is not unbound that way");
    assert_eq!(refused(Bind { access: 1, ..bind }), MrFault::Access, "no right of windows");
    assert_eq!(refused(Bind { rkey: other, ..bind }), MrFault::Domain, "a key of another window");
    assert_eq!(refused(Bind { window: keys.rkey, rkey: keys.rkey, ..bind }), MrFault::Key, "no window");
    assert_eq!(table.bind(PD + 1, QPN, &bind), Err(MrFault::Domain));
    table.bind(PD, QPN, &bind).unwrap();
    let again = Bind { rkey: ibv_inc_rkey(bind.rkey), ..bind };
    assert_eq!(refused(again), MrFault::Key, "valid: it must be invalidated first");
    assert_eq!(write(&table, bind.rkey, 0x1_0100, 1), Ok(0x100), "and a refused bind changes nothing");
}

#[test]
fn invalidation_takes_the_right_away_and_frees_the_region() {
    let (mut table, keys) = tables();
    let key = table.insert_window(PD, WindowKind::Type2).unwrap();
    let bind = wish(key, keys);
    table.bind(PD, QPN, &bind).unwrap();
    assert_eq!(table.remove(keys.lkey).unwrap_err(), Held::Bound);
    assert_eq!(table.region_mut(keys.lkey).unwrap_err(), Held::Bound);
    assert_eq!(table.invalidate(PD, QPN, key), Err(MrFault::Key), "an old key");
    assert_eq!(table.invalidate(PD, QPN + 1, bind.rkey), Err(MrFault::Domain));
    assert_eq!(table.invalidate(PD, QPN, keys.rkey), Err(MrFault::Key), "a region cannot be invalidated");
    table.invalidate(PD, QPN, bind.rkey).unwrap();
    assert_eq!(table.invalidate(PD, QPN, bind.rkey), Err(MrFault::Key));
    assert_eq!(write(&table, bind.rkey, 0x1_0100, 1), Err(MrFault::Key));
    // Bound again, to another queue pair and under the next key; then its end revokes it.
    let again = Bind { rkey: ibv_inc_rkey(bind.rkey), ..bind };
    table.bind(PD, QPN + 1, &again).unwrap();
    table.revoke_all(QPN);
    assert_eq!(table.remove(keys.lkey).unwrap_err(), Held::Bound);
    table.revoke_all(QPN + 1);
    assert!(table.remove(keys.lkey).is_ok());
    assert!(table.by_qp.lock().unwrap().is_empty());
}

#[test]
fn type_1_windows_serve_the_domain_and_are_bound_again_at_will() {
    let (mut table, keys) = tables();
    let key = table.insert_window(PD, WindowKind::Type1).unwrap();
    let first = wish(key, keys);
    table.bind(PD, QPN + 5, &first).unwrap();
    assert_eq!(write(&table, first.rkey, 0x1_0100, 8), Ok(0x100), "any queue pair");
    assert_eq!(table.invalidate(PD, QPN + 5, first.rkey), Err(MrFault::Access));
    let second = Bind { rkey: ibv_inc_rkey(first.rkey), addr: 0x1_0200, ..first };
    table.bind(PD, QPN, &second).unwrap();
    assert_eq!(write(&table, first.rkey, 0x1_0100, 8), Err(MrFault::Key));
    assert_eq!(write(&table, second.rkey, 0x1_0200, 8), Ok(0x200));
    table.revoke_all(QPN);
    assert_eq!(write(&table, second.rkey, 0x1_0200, 8), Ok(0x200), "no queue pair's");
    let none = Bind { rkey: ibv_inc_rkey(second.rkey), region: None, addr: 0, len: 0, ..second };
    table.bind(PD, QPN, &none).unwrap();
    assert_eq!(write(&table, none.rkey, 0x1_0200, 8), Err(MrFault::Key));
    assert!(table.remove(keys.lkey).is_ok());
}

#[test]
fn freeing_revokes_and_old_keys_do_not_come_back_soon() {
    let (mut table, keys) = tables();
    let key = table.insert_window(PD, WindowKind::Type2).unwrap();
    let bind = wish(key, keys);
    table.bind(PD, QPN, &bind).unwrap();
    table.remove_window(PD + 1, bind.rkey);
    assert_eq!(write(&table, bind.rkey, 0x1_0100, 8), Ok(0x100), "another domain's");
    table.remove_window(PD, bind.rkey);
    assert_eq!(write(&table, bind.rkey, 0x1_0100, 8), Err(MrFault::Key));
    for _ in 0..1000 {
        let next = table.insert_window(PD, WindowKind::Type2).unwrap();
        assert_ne!(next >> 8, key >> 8);
        table.remove_window(PD, next);
        region(&mut table, PD, ALL);
    }
    assert_eq!(write(&table, bind.rkey, 0x1_0100, 8), Err(MrFault::Key));
    assert!(table.remove(keys.lkey).is_ok());
}

#[test]
fn closing_a_domain_takes_windows_before_their_regions() {
    let (mut table, keys) = tables();
    let key = table.insert_window(PD, WindowKind::Type2).unwrap();
    table.bind(PD, QPN, &wish(key, keys)).unwrap();
    table.remove_domains(&[PD]);
    assert_eq!(write(&table, ibv_inc_rkey(key), 0x1_0100, 8), Err(MrFault::Key));
    // The entry serves another region, which no window holds.
    for _ in 0..200 {
        let keys = region(&mut table, PD, ALL);
        assert!(table.remove(keys.lkey).is_ok());
    }
    assert_eq!(table.windows, 0);
}

#[test]
fn no_key_is_ever_zero() {
    // With this secret, entry 1 has a key whose upper bits are zero.
    let mut table = MrTable::with_secret(1 << 8);
    let all: Vec<u32> = (0..4).map(|_| table.insert_window(PD, WindowKind::Type2).unwrap()).collect();
    assert!(all.iter().all(|key| key >> 8 != 0));
}

#[test]
fn a_bind_waits_for_copies_by_the_earlier_right() {
    let (mut table, keys) = tables();
    let key = table.insert_window(PD, WindowKind::Type1).unwrap();
    let first = wish(key, keys);
    table.bind(PD, QPN, &first).unwrap();
    let (table, done) = (RwLock::new(table), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Both hold the table for reading, as whoever drives queue pairs does.
        let guard = table.read().unwrap();
        let copying = guard.remote(PD, QPN, first.rkey, 0x1_0100, 8, access::REMOTE_WRITE).unwrap();
        scope.spawn(|| {
            let second = Bind { rkey: ibv_inc_rkey(first.rkey), ..first };
            table.read().unwrap().bind(PD, QPN, &second).unwrap();
            done.store(true, Ordering::Release);
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!done.load(Ordering::Acquire), "a copy is in progress");
        drop(copying);
    });
    assert!(done.load(Ordering::Acquire));
}
