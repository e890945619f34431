//! Names and rates: `ibv_wc_status_str(3)`, `ibv_event_type_str(3)`, `ibv_rate_to_mbps(3)`; sysfs as programs read it.
//!
//! Owns functions that need no device.
//!
//! # Safety
//! As `object`; strings returned are static.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};

use ibex_sys::{
    IBV_EVENT_CQ_ERR, IBV_FORK_UNNEEDED, IBV_NODE_CA, IBV_PORT_ACTIVE, IBV_RATE_MAX, IBV_WC_SUCCESS,
    ibv_event_type, ibv_fork_status, ibv_node_type, ibv_port_state, ibv_rate, ibv_wc_status,
};

use super::object::caught;
use crate::device;
use crate::net::Config;

/// Statuses from 0, as IBTA 11.6.2 calls them.
const STATUSES: [&CStr; 24] = [
    c"success",
    c"local length error",
    c"local QP operation error",
    c"local EE context operation error",
    c"local protection error",
    c"Work Request Flushed Error",
    c"memory bind operation error",
    c"bad response error",
    c"local access error",
    c"remote invalid request error",
    c"remote access error",
    c"remote operation error",
    c"transport retry counter exceeded",
    c"RNR retry counter exceeded",
    c"local RDD violation error",
    c"remote invalid RD request",
    c"aborted error",
    c"invalid EE context number",
    c"invalid EE context state",
    c"fatal error",
    c"response timeout error",
    c"general error",
    c"tag matching error",
    c"tag matching rendezvous incomplete",
];

/// Events from 0.
const EVENTS: [&CStr; 21] = [
    c"CQ error",
    c"local work queue catastrophic error",
    c"invalid request local work queue error",
    c"local access violation work queue error",
    c"communication established",
    c"send queue drained",
    c"path migration succeeded",
    c"path migration failed",
    c"local catastrophic error",
    c"port active",
    c"port error",
    c"LID changed",
    c"P_Key changed",
    c"SM changed",
    c"SRQ catastrophic error",
    c"SRQ limit reached",
    c"last WQE reached",
    c"client reregistration",
    c"GID table changed",
    c"work queue fatal error",
    c"device speed changed",
];

/// Port states from 0.
const PORT_STATES: [&CStr; 6] =
    [c"no state change (NOP)", c"down", c"init", c"armed", c"active", c"active deferred"];

/// Node types from 0; 0 is none.
const NODES: [&CStr; 8] = [
    c"unknown",
    c"InfiniBand channel adapter",
    c"InfiniBand switch",
    c"InfiniBand router",
    c"iWARP NIC",
    c"usNIC",
    c"usNIC UDP",
    c"unspecified",
];

/// Rates: value, multiple of 2.5 Gb/s, Mb/s (IBTA 9.11; from 14 Gb/s on the signalling rate is no multiple).
const RATES: [(u32, c_int, c_int); 23] = [
    (2, 1, 2500),
    (5, 2, 5000),
    (3, 4, 10_000),
    (6, 8, 20_000),
    (4, 12, 30_000),
    (7, 16, 40_000),
    (8, 24, 60_000),
    (9, 32, 80_000),
    (10, 48, 120_000),
    (11, 6, 14_062),
    (12, 22, 56_250),
    (13, 45, 112_500),
    (14, 67, 168_750),
    (15, 10, 25_781),
    (16, 40, 103_125),
    (17, 80, 206_250),
    (18, 120, 309_375),
    (19, 11, 28_125),
    (20, 20, 53_125),
    (21, 160, 425_000),
    (22, 240, 637_500),
    (23, 320, 850_000),
    (24, 480, 1_275_000),
];

fn name(table: &[&'static CStr], index: Option<usize>, unknown: &'static CStr) -> *const c_char {
    index.and_then(|index| table.get(index)).copied().unwrap_or(unknown).as_ptr()
}

/// `ibv_wc_status_str(3)`.
pub extern "C" fn ibv_wc_status_str(status: ibv_wc_status) -> *const c_char {
    const _: () = assert!(IBV_WC_SUCCESS.0 == 0);
    name(&STATUSES, usize::try_from(status.0).ok(), c"unknown")
}

/// `ibv_event_type_str(3)`.
pub extern "C" fn ibv_event_type_str(event: ibv_event_type) -> *const c_char {
    const _: () = assert!(IBV_EVENT_CQ_ERR.0 == 0);
    name(&EVENTS, usize::try_from(event.0).ok(), c"unknown")
}

/// `ibv_port_state_str(3)`.
pub extern "C" fn ibv_port_state_str(state: ibv_port_state) -> *const c_char {
    const _: () = assert!(IBV_PORT_ACTIVE.0 == 4);
    name(&PORT_STATES, usize::try_from(state.0).ok(), c"invalid state")
}

/// `ibv_node_type_str(3)`.
pub extern "C" fn ibv_node_type_str(node: ibv_node_type) -> *const c_char {
    const _: () = assert!(IBV_NODE_CA.0 == 1);
    name(&NODES, usize::try_from(node.0).ok(), c"unknown")
}

/// `ibv_rate_to_mult(3)`: −1 for an unknown rate.
pub extern "C" fn ibv_rate_to_mult(rate: ibv_rate) -> c_int {
    RATES.iter().find(|known| known.0 == rate.0).map_or(-1, |known| known.1)
}

/// `mult_to_ibv_rate(3)`.
pub extern "C" fn mult_to_ibv_rate(mult: c_int) -> ibv_rate {
    RATES.iter().find(|known| known.1 == mult).map_or(IBV_RATE_MAX, |known| ibv_rate(known.0))
}

/// `ibv_rate_to_mbps(3)`: −1 for an unknown rate.
pub extern "C" fn ibv_rate_to_mbps(rate: ibv_rate) -> c_int {
    RATES.iter().find(|known| known.0 == rate.0).map_or(-1, |known| known.2)
}

/// `mbps_to_ibv_rate(3)`.
pub extern "C" fn mbps_to_ibv_rate(mbps: c_int) -> ibv_rate {
    RATES.iter().find(|known| known.2 == mbps).map_or(IBV_RATE_MAX, |known| ibv_rate(known.0))
}

/// `ibv_fork_init(3)`: nothing to be done, since no hardware holds the physical pages of a region; a child of fork cannot
/// use its parent's contexts.
pub extern "C" fn ibv_fork_init() -> c_int {
    0
}

/// `ibv_is_fork_initialized(3)`.
pub extern "C" fn ibv_is_fork_initialized() -> ibv_fork_status {
    IBV_FORK_UNNEEDED
}

/// `ibv_dontfork_range`, which providers call; nothing to be done, as for [`ibv_fork_init`].
pub extern "C" fn ibv_dontfork_range(_base: *mut std::ffi::c_void, _size: usize) -> c_int {
    0
}

/// `ibv_dofork_range`; as [`ibv_dontfork_range`].
pub extern "C" fn ibv_dofork_range(_base: *mut std::ffi::c_void, _size: usize) -> c_int {
    0
}

/// `ibv_get_sysfs_path`.
pub extern "C" fn ibv_get_sysfs_path() -> *const c_char {
    c"/sys".as_ptr()
}

/// `ibv_read_sysfs_file`: the length of a file's text without its newline, or −1. For this device's folder, which is
/// not there, answers what programs look for.
///
/// # Safety
/// `dir` and `file` are strings; `size` bytes at `buf` are writable.
pub unsafe extern "C" fn ibv_read_sysfs_file(
    dir: *const c_char,
    file: *const c_char,
    buf: *mut c_char,
    size: usize,
) -> c_int {
    let read = caught(|| {
        if dir.is_null() || file.is_null() || buf.is_null() || size == 0 {
            return Err(libc::EINVAL);
        }
        // SAFETY: the caller's promise.
        let dir = unsafe { CStr::from_ptr(dir) }.to_string_lossy();
        // SAFETY: the caller's promise.
        let file = unsafe { CStr::from_ptr(file) }.to_string_lossy();
        let own = format!("/sys/class/infiniband/{}", device::NAME);
        let text = match dir.strip_prefix(&own) {
            Some(below) => {
                let path = format!("{below}/{file}");
                attribute(path.trim_matches('/')).ok_or(libc::ENOENT)?
            }
            None => {
                let path = format!("{dir}/{file}");
                std::fs::read_to_string(path).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?
            }
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let len = text.len().min(size - 1);
        // SAFETY: `size` bytes are writable (caller), of which `len` and one more are written.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), len) };
        // SAFETY: as above.
        unsafe { *buf.wrapping_add(len) = 0 }
        Ok(len as c_int)
    });
    read.unwrap_or_else(|errno| {
        crate::os::set_errno(errno);
        -1
    })
}

/// What the kernel would show in a file of the device's folder.
fn attribute(path: &str) -> Option<String> {
    let address = Config::from_env().ok()?.address;
    let guid = || {
        let bytes = device::guid(address).to_ne_bytes();
        let words: Vec<String> =
            bytes.chunks(2).map(|word| format!("{:02x}{:02x}", word[0], word[1])).collect();
        words.join(":")
    };
    let gids = device::gids(address);
    let at = |prefix: &str| {
        let index: usize = path.strip_prefix(prefix)?.parse().ok()?;
        gids.get(index)
    };
    if let Some(gid) = at("ports/1/gids/") {
        let words: Vec<String> =
            gid.chunks(2).map(|word| format!("{:02x}{:02x}", word[0], word[1])).collect();
        return Some(words.join(":"));
    }
    if at("ports/1/gid_attrs/types/").is_some() {
        return Some("RoCE v2".into());
    }
    Some(match path {
        "node_type" => "1: CA".into(),
        "node_guid" | "sys_image_guid" => guid(),
        "node_desc" => device::NAME.into(),
        "fw_ver" => env!("CARGO_PKG_VERSION").into(),
        "ports/1/state" => "4: ACTIVE".into(),
        "ports/1/phys_state" => "5: LinkUp".into(),
        "ports/1/link_layer" => "Ethernet".into(),
        "ports/1/lid" | "ports/1/sm_lid" => "0x0".into(),
        "ports/1/pkeys/0" => "0xffff".into(),
        _ => return None,
    })
}
