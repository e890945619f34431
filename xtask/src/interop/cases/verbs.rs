//! The programs of ibverbs-utils: what the device says of itself, and the five exchanges.
//!
//! Debian's `ibv_{rc,uc,ud,srq}_pingpong` (rdma-core 44) all know `-e` and `-c`; the extended calls (`-N`) are an option of
//! `ibv_rc_pingpong` only.

use super::{Case, Check, case};

const DEVINFO: &[&str] = &[
    "hca_id:\tibex0",
    "PORT_ACTIVE",
    "link_layer:\t\tEthernet",
    "max_qp:",
    "GID[  0]:",
    "GID[  1]:",
    "::ffff:127.0.0.1",
    "RoCE v2",
];

/// One process that prints.
pub(super) fn info() -> Vec<Case> {
    vec![
        case("ibv_devices", "", Check::Prints(&["ibex0"])).quick(),
        case("ibv_devinfo", "-v", Check::Prints(DEVINFO)).quick(),
        case("ibv_devinfo", "-l", Check::Prints(&["1 HCA found", "ibex0"])),
    ]
}

fn pingpong(program: &'static str, options: &str, size: u64, iters: u64) -> Case {
    let text = format!("{options} -s {size} -n {iters}");
    case(program, &text, Check::Pingpong { size, iters })
}

fn rc(options: &str, size: u64, iters: u64) -> Case {
    pingpong("ibv_rc_pingpong", options, size, iters)
}

/// Every exchange in every mode.
pub(super) fn pingpongs() -> Vec<Case> {
    let mut list = vec![
        rc("", 4096, 1000),
        rc("-g 0", 4096, 1000).quick(),
        rc("-c", 4096, 1000),
        rc("-e", 4096, 1000).quick(),
        rc("-g 0 -e -c", 65_536, 500),
        rc("-N", 4096, 1000).quick(),
        rc("-N -e -c", 65_536, 500),
    ];
    for size in [1, 64, 1024, 4095, 4097, 65_536, 262_144] {
        list.push(rc("-m 4096", size, 500));
    }
    list.push(rc("-c -m 4096", 1 << 20, 200).quick());
    list.push(rc("-e -c -m 1024", 1 << 20, 100));
    for program in ["ibv_uc_pingpong", "ibv_srq_pingpong"] {
        list.push(pingpong(program, "", 4096, 1000));
        list.push(pingpong(program, "-c", 65_536, 500).quick());
        list.push(pingpong(program, "-e", 4096, 1000));
        list.push(pingpong(program, "-e -c -m 4096", 65_536, 300));
    }
    list.push(pingpong("ibv_srq_pingpong", "-q 1 -c", 4096, 500));
    list.push(pingpong("ibv_srq_pingpong", "-q 64 -c", 4096, 1000));
    list.push(pingpong("ibv_ud_pingpong", "", 1024, 1000));
    list.push(pingpong("ibv_ud_pingpong", "-c", 1024, 1000).quick());
    list.push(pingpong("ibv_ud_pingpong", "-e", 1024, 1000));
    list.push(pingpong("ibv_ud_pingpong", "-e -c", 64, 500));
    list
}

/// One of each, for links that differ by addresses only.
pub(super) fn some() -> Vec<Case> {
    vec![
        rc("-c", 65_536, 500).quick(),
        rc("-e", 4096, 500),
        rc("-N", 4096, 500),
        pingpong("ibv_uc_pingpong", "-c", 65_536, 500),
        pingpong("ibv_ud_pingpong", "-c", 1024, 500),
        pingpong("ibv_srq_pingpong", "-e -c", 4096, 500),
    ]
}

/// Against the kernel: fewer exchanges, as the machine is emulated; at least 100 messages each, so that 1 % loss hits.
/// An unreliable exchange ends with its first lost packet, so these need a link without loss.
pub(super) fn kernel(loss: u32) -> Vec<Case> {
    let mut list = vec![
        rc("", 4096, 200).quick(),
        rc("-c", 65_536, 100),
        rc("-e", 1024, 200),
        rc("-N", 4096, 200),
        pingpong("ibv_srq_pingpong", "-c", 4096, 200).quick(),
    ];
    if loss == 0 {
        list.push(rc("-c", 1 << 20, 100));
        list.push(pingpong("ibv_uc_pingpong", "-c", 4096, 200).quick());
        list.push(pingpong("ibv_uc_pingpong", "-e", 1024, 200));
        list.push(pingpong("ibv_ud_pingpong", "-c", 1024, 200).quick());
        list.push(pingpong("ibv_ud_pingpong", "-e", 64, 200));
        list.push(pingpong("ibv_srq_pingpong", "-e", 1024, 200));
    }
    list
}
