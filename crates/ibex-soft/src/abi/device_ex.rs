//! Extended device attributes and the device's clock: `ibv_query_device_ex(3)`, `ibv_query_rt_values_ex(3)`.
//!
//! Owns what of the extended attributes is reported: the clock by which completions are stamped, and event moderation.
//! On-demand paging, segmentation, hashing, raw packets, pacing, tag matching, device memory and atomics over a bus are
//! absent, which is zero.
//!
//! # Safety
//! As `object`. Structures of older programs are shorter, of newer ones longer: never more is written than they say.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::{offset_of, size_of};

use ibex_sys::{
    IBV_VALUES_MASK_RAW_CLOCK, ibv_context, ibv_cq_moderation_caps, ibv_device_attr, ibv_device_attr_ex,
    ibv_query_device_ex_input, ibv_values_ex,
};

use super::context::{copy_prefix, shared};
use super::object::{code, given};
use crate::{device, os};

/// The clock's rate in kHz: it counts nanoseconds.
const CLOCK_KHZ: u64 = 1_000_000;

/// `ibv_query_device_ex(3)`, of which verbs.h passes the size it knows.
pub(super) unsafe extern "C" fn query_device_ex(
    context: *mut ibv_context,
    input: *const ibv_query_device_ex_input,
    attr: *mut ibv_device_attr_ex,
    size: usize,
) -> c_int {
    code(|| {
        if !input.is_null() {
            // SAFETY: verbs.h passes on the program's pointer, which the manual wants readable.
            let asked = unsafe { (*input).comp_mask };
            if asked != 0 {
                return Err(libc::EINVAL);
            }
        }
        // The first version of the structure had the classic attributes and the mask.
        if size < size_of::<ibv_device_attr>() || size < offset_of!(ibv_device_attr_ex, comp_mask) + 4 {
            return Err(libc::EINVAL);
        }
        // SAFETY: the context is open (manual).
        let nic = unsafe { shared(context) }?.nic()?;
        let orig_attr = device::attributes(nic.wire.address());
        let answer = ibv_device_attr_ex {
            orig_attr,
            completion_timestamp_mask: u64::MAX,
            hca_core_clock: CLOCK_KHZ,
            device_cap_flags_ex: u64::from(orig_attr.device_cap_flags),
            cq_mod_caps: ibv_cq_moderation_caps { max_cq_count: u16::MAX, max_cq_period: u16::MAX },
            phys_port_cnt_ex: u32::from(orig_attr.phys_port_cnt),
            ..Default::default()
        };
        // SAFETY: `size` bytes are writable (manual).
        unsafe { copy_prefix(&answer, given(attr)?, size) };
        Ok(())
    })
}

/// `ibv_query_rt_values_ex(3)`: the clock that stamps completions, all of it in `tv_nsec`, as programs expect of a counter.
pub(super) unsafe extern "C" fn query_rt_values(
    context: *mut ibv_context,
    values: *mut ibv_values_ex,
) -> c_int {
    code(|| {
        // SAFETY: the context is open (manual).
        unsafe { shared(context) }?.nic()?;
        // SAFETY: the values are readable and writable (manual).
        let mut answer = unsafe { given(values)?.read() };
        if answer.comp_mask & !IBV_VALUES_MASK_RAW_CLOCK.0 != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        if answer.comp_mask & IBV_VALUES_MASK_RAW_CLOCK.0 != 0 {
            // Nanoseconds since boot: below 2^63 for 292 years.
            answer.raw_clock = libc::timespec { tv_sec: 0, tv_nsec: os::clock_ns() as i64 };
        }
        // SAFETY: as above.
        unsafe { values.write(answer) }
        Ok(())
    })
}
