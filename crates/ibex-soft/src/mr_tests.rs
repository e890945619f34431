//! Tests of keys, bounds and rights.
#![allow(unsafe_code)]

use super::*;

fn region(pd: PdNumber, access: u32, iova: u64, len: u64) -> Region {
    // SAFETY: no test reads or writes through it.
    let memory = unsafe { UserMemory::new(0x1000, len as usize) };
    Region { pd, access, iova, len, memory }
}

#[test]
fn keys_are_distinct_and_stale_ones_fail() {
    let mut table = MrTable::default();
    let first = table.insert(region(1, access::REMOTE_READ, 0x1000, 64)).unwrap();
    let second = table.insert(region(1, 0, 0x1000, 64)).unwrap();
    assert_ne!(first.lkey, second.lkey);
    assert_ne!(first.lkey, first.rkey);
    assert_ne!(first.lkey >> 8, 0, "key 0 is never given");
    assert!(table.local(1, first.lkey, 0x1000, 64, false).is_ok());
    assert_eq!(table.local(1, first.rkey, 0x1000, 64, false).unwrap_err(), MrFault::Key);
    assert_eq!(table.remote(1, 9, first.lkey, 0x1000, 64, 0).unwrap_err(), MrFault::Key);
    assert!(table.remove(first.lkey).is_ok());
    assert!(table.remove(first.lkey).is_err());
    assert_eq!(table.local(1, first.lkey, 0x1000, 1, false).unwrap_err(), MrFault::Key);
    let mut later = Vec::new();
    for _ in 0..200 {
        let keys = table.insert(region(1, 0, 0, 1)).unwrap();
        later.push(keys.lkey);
        table.remove(keys.lkey).unwrap();
    }
    assert!(!later.contains(&first.lkey));
}

#[test]
fn keys_depend_on_the_secret_and_are_never_zero() {
    // With this secret the first generation of entry 1 would have the key 0.
    for secret in [0, 1 << 8 | 1 << 1, 0xdead_beef] {
        let mut table = MrTable::with_secret(secret);
        let keys: Vec<Keys> = (0..8).map(|_| table.insert(region(1, 0, 0, 1)).unwrap()).collect();
        assert!(keys.iter().all(|keys| keys.lkey != 0 && keys.rkey != 0));
        assert!(keys.iter().all(|keys| table.local(1, keys.lkey, 0, 1, false).is_ok()));
        assert!(keys.iter().all(|keys| table.remove(keys.lkey).is_ok()));
        assert!(keys.iter().all(|keys| table.local(1, keys.lkey, 0, 1, false).is_err()));
    }
    let first = |secret| MrTable::with_secret(secret).insert(region(1, 0, 0, 1)).unwrap().rkey;
    assert_ne!(first(0x1234_5600), first(0x6543_2100));
}

#[test]
fn bounds_domain_and_rights_are_checked() {
    let mut table = MrTable::default();
    let rights = access::LOCAL_WRITE | access::REMOTE_WRITE;
    let keys = table.insert(region(3, rights, 0x1000, 64)).unwrap();
    let remote = |pd, va, len, need| table.remote(pd, 9, keys.rkey, va, len, need).map(|found| found.at);
    assert_eq!(remote(3, 0x1000, 64, access::REMOTE_WRITE), Ok(0));
    assert_eq!(remote(3, 0x103f, 1, access::REMOTE_WRITE), Ok(63));
    assert_eq!(remote(3, 0x1040, 1, access::REMOTE_WRITE), Err(MrFault::Bounds));
    assert_eq!(remote(3, 0xfff, 1, access::REMOTE_WRITE), Err(MrFault::Bounds));
    assert_eq!(remote(3, 0x1001, u64::MAX, access::REMOTE_WRITE), Err(MrFault::Bounds));
    assert_eq!(remote(4, 0x1000, 64, access::REMOTE_WRITE), Err(MrFault::Domain));
    assert_eq!(remote(3, 0x1000, 64, access::REMOTE_READ), Err(MrFault::Access));
    assert_eq!(remote(3, 0x1000, 8, access::REMOTE_ATOMIC), Err(MrFault::Access));
}

#[test]
fn access_flags_follow_the_manual() {
    assert!(check_access(0).is_ok());
    assert!(check_access(access::REMOTE_READ).is_ok());
    assert!(check_access(access::LOCAL_WRITE | access::REMOTE_WRITE | access::REMOTE_ATOMIC).is_ok());
    assert_eq!(check_access(access::REMOTE_WRITE), Err(libc::EINVAL));
    assert_eq!(check_access(access::REMOTE_ATOMIC), Err(libc::EINVAL));
    assert_eq!(check_access(1 << 6), Err(libc::EINVAL), "on-demand paging is not offered");
    assert_eq!(check_access(1 << 15), Err(libc::EINVAL));
    assert!(check_access(1 << 20).is_ok(), "relaxed ordering is a hint");
}
