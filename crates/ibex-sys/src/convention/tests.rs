//! Every row of the table in the module's documentation, with the values that libraries and drivers were seen to return.
#![allow(unsafe_code)]

use core::ptr::null_mut;

use super::*;

fn set_errno(errno: c_int) {
    // SAFETY: no preconditions; the address is this thread's own.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: writable, see above.
    unsafe { *location = errno };
}

#[test]
fn a_status_is_an_errno_of_either_sign() {
    assert_eq!(status(0), Ok(()));
    assert_eq!(status(libc::EINVAL), Err(Errno::EINVAL));
    // siw's post_send
    assert_eq!(status(-libc::EINVAL), Err(Errno::EINVAL));
    // cxgb4's flush
    assert_eq!(status(-libc::EMSGSIZE), Err(Errno::EMSGSIZE));
    assert_eq!(status(c_int::MIN), Err(Errno::EIO));
}

#[test]
fn a_status_of_minus_one_is_in_errno() {
    set_errno(libc::ENOSPC);
    assert_eq!(status(-1), Err(Errno::ENOSPC));
    set_errno(0);
    assert_eq!(status(-1), Err(Errno::EIO));
}

#[test]
fn a_null_pointer_is_in_errno() {
    let mut there = 7;
    assert_eq!(pointer(&raw mut there).map(NonNull::as_ptr), Ok(&raw mut there));
    set_errno(libc::ENOMEM);
    assert_eq!(pointer(null_mut::<u8>()), Err(Errno::ENOMEM));
}

#[test]
fn minus_one_is_in_errno_and_other_values_are_results() {
    assert_eq!(minus_one(0), Ok(0));
    assert_eq!(minus_one(3), Ok(3));
    set_errno(libc::EAGAIN);
    assert_eq!(minus_one(-1), Err(Errno::EAGAIN));
    set_errno(0);
    assert_eq!(minus_one(-1), Err(Errno::EIO));
}

#[test]
fn counts() {
    assert_eq!(count(0), Ok(0));
    assert_eq!(count(16), Ok(16));
    assert_eq!(count(-libc::EINVAL), Err(Errno::EINVAL));
    set_errno(libc::ENODEV);
    assert_eq!(count(-1), Err(Errno::ENODEV));
    assert_eq!(long_count(5), Ok(5));
    assert_eq!(long_count(-(libc::EOPNOTSUPP as isize)), Err(Errno::EOPNOTSUPP));
    assert_eq!(long_count(isize::MIN), Err(Errno::EIO));
}

#[test]
fn an_empty_queue_is_no_failure() {
    assert_eq!(more(0), Ok(true));
    assert_eq!(more(libc::ENOENT), Ok(false));
    assert_eq!(more(libc::EINVAL), Err(Errno::EINVAL));
}

#[test]
fn name_resolution_has_two_conventions() {
    assert_eq!(name_resolution(0), Ok(()));
    set_errno(libc::ENODEV);
    assert_eq!(name_resolution(-1), Err(Errno::ENODEV));
    set_errno(0);
    assert_eq!(name_resolution(libc::EAI_BADFLAGS), Err(Errno::EINVAL));
    assert_eq!(name_resolution(libc::EAI_NONAME), Err(Errno::EADDRNOTAVAIL));
    assert_eq!(name_resolution(libc::EAI_AGAIN), Err(Errno::EAGAIN));
}

#[test]
fn an_errno_has_a_name_and_words() {
    assert_eq!(Errno::EINVAL.to_string(), "Invalid argument (EINVAL)");
    assert_eq!(format!("{:?}", Errno::ENOSPC), "ENOSPC");
    assert_eq!(format!("{:?}", Errno(9999)), "Errno(9999)");
    assert!(Errno(9999).to_string().contains("9999"));
    assert_eq!(std::io::Error::from(Errno::EPIPE).kind(), std::io::ErrorKind::BrokenPipe);
}
