//! The programs of rdmacm-utils, which connect by rdma_cm.
//!
//! `rping` moves data by SEND, READ and WRITE and compares it (`-V`); the others exchange messages and say so. `udaddy` has
//! one port, 7174, and no option for another. `cmtime`'s server never ends.

use super::{Case, Check, case};

/// Programs that take an address and a port, and no device.
pub(super) const PROGRAMS: [&str; 5] = ["rping", "ucmatose", "udaddy", "rdma_client", "cmtime"];

/// What `ucmatose` and `udaddy` print when every connection has moved its messages.
const DONE: Check = Check::BothSay("return status 0");

fn rping(options: &str, size: usize, count: usize) -> Case {
    case("rping", &format!("-V -v -S {size} -C {count} {options}"), Check::Rping { count })
}

/// Every program, and each option that changes what goes over the wire.
pub(super) fn all() -> Vec<Case> {
    vec![
        rping("", 64, 100).quick(),
        rping("", 65_000, 100),
        // Queue pairs made and moved between states by the program itself.
        rping("-q", 4096, 50),
        case("ucmatose", "-c 4", DONE).quick(),
        case("ucmatose", "-c 4 -C 100 -S 65536", DONE),
        // Each connection moves to another event channel.
        case("ucmatose", "-c 4 -m", DONE),
        case("ucmatose", "-c 1 -C 0", DONE),
        case("ucmatose", "-c 64 -C 10", DONE),
        case("udaddy", "", DONE).quick(),
        case("udaddy", "-c 8 -C 50 -S 1024", DONE),
        case("rdma_client", "", Check::BothSay("end 0")).quick(),
        case("cmtime", "-c 100", Check::Steps).quick(),
    ]
}

/// Between the kernel's rdma_cm and ours. `udaddy`'s messages are datagrams: where packets are lost it only connects.
pub(super) fn kernel(loss: u32) -> Vec<Case> {
    let mut list = vec![
        rping("", 1000, 100).quick(),
        rping("-q", 4096, 30),
        case("ucmatose", "-c 4", DONE).quick(),
        case("ucmatose", "-c 4 -C 100 -S 4096", DONE),
        case("udaddy", "-c 8 -C 0", DONE),
        case("rdma_client", "", Check::BothSay("end 0")),
        case("cmtime", "-c 20", Check::Steps),
    ];
    if loss == 0 {
        list.push(case("udaddy", "", DONE).quick());
        list.push(case("udaddy", "-c 4 -C 20 -S 512", DONE));
    }
    list
}
