//! What a device says of itself is consistent.

use crate::Outcome;
use crate::lab::{Cq, Lab};

crate::group!("device";
    attributes_are_usable,
    the_port_is_active,
    the_chosen_gid_is_in_the_table,
    a_port_that_does_not_exist_is_refused,
    a_gid_beyond_the_table_is_refused,
    the_device_opens_twice,
    the_default_partition_key,
    queue_depths_beyond_the_device_are_refused,
);

fn attributes_are_usable() -> Outcome {
    let lab = Lab::open();
    let attr = lab.attr();
    assert!(attr.max_qp > 0 && attr.max_qp_wr > 0 && attr.max_sge > 0);
    assert!(attr.max_cq > 0 && attr.max_cqe > 0 && attr.max_mr > 0 && attr.max_pd > 0);
    assert!(attr.max_qp_rd_atom > 0 && attr.max_qp_init_rd_atom > 0);
    assert!(attr.max_mr_size >= 1 << 30);
    assert!(attr.phys_port_cnt >= 1);
    assert_ne!(attr.page_size_cap, 0);
    assert_ne!(attr.node_guid, 0);
    Outcome::Passed
}

fn the_port_is_active() -> Outcome {
    let lab = Lab::open();
    let port = lab.port();
    assert_eq!(port.state, ibex_sys::IBV_PORT_ACTIVE);
    assert!((1..=5).contains(&port.active_mtu.0), "active MTU {:?}", port.active_mtu);
    assert!(port.active_mtu.0 <= port.max_mtu.0);
    assert!(port.gid_tbl_len > 0 && port.pkey_tbl_len > 0 && port.max_msg_sz >= 1 << 20);
    Outcome::Passed
}

fn the_chosen_gid_is_in_the_table() -> Outcome {
    let lab = Lab::open();
    let (index, gid) = lab.gid();
    assert_eq!(lab.query_gid(1, i32::from(index)).map(crate::lab::gid_bytes), Ok(crate::lab::gid_bytes(gid)));
    Outcome::Passed
}

fn a_port_that_does_not_exist_is_refused() -> Outcome {
    let lab = Lab::open();
    // Ports count from 1.
    for port in [0, lab.attr().phys_port_cnt + 1] {
        assert!(lab.query_port(port).is_err(), "port {port} was answered");
    }
    Outcome::Passed
}

fn a_gid_beyond_the_table_is_refused() -> Outcome {
    let lab = Lab::open();
    assert!(lab.query_gid(1, lab.port().gid_tbl_len).is_err());
    assert!(lab.query_gid(1, -1).is_err());
    Outcome::Passed
}

fn the_device_opens_twice() -> Outcome {
    let (first, second) = (Lab::open(), Lab::open());
    assert_eq!(first.attr().node_guid, second.attr().node_guid);
    drop(first);
    let _pd = second.pd();
    Outcome::Passed
}

fn the_default_partition_key() -> Outcome {
    let lab = Lab::open();
    assert_eq!(lab.query_pkey(1, 0).map(u16::from_be), Ok(0xffff));
    Outcome::Passed
}

fn queue_depths_beyond_the_device_are_refused() -> Outcome {
    let lab = Lab::open();
    assert!(Cq::try_new(&lab, 0, false).is_err(), "a completion queue of no entries");
    assert!(Cq::try_new(&lab, lab.attr().max_cqe + 1, false).is_err(), "a completion queue beyond max_cqe");
    let cq = Cq::try_new(&lab, 100, false).expect("a queue within the limits");
    assert!(cq.capacity() >= 100, "asked for 100 entries, got {}", cq.capacity());
    Outcome::Passed
}
