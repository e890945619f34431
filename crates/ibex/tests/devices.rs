//! Finding the built-in device, opening it, and what it says of itself.
#![cfg(feature = "soft")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

use ibex::prelude::*;
use ibex::{DeviceError, GidType, Origin, PortNum, PortState};

#[test]
fn the_built_in_device_is_found_by_name_and_guid() {
    let device = Device::by_name("soft").unwrap();
    assert_eq!((device.name(), device.origin()), ("ibex0", Origin::Soft));
    assert_eq!(Device::by_name("ibex0").unwrap().guid(), device.guid());
    assert_eq!(Device::by_guid(device.guid()).unwrap().name(), "ibex0");
    let error = Device::by_name("mlx9_9").unwrap_err();
    assert!(matches!(error, DeviceError::NotFound { .. }));
    assert!(error.to_string().contains("ibex0"), "{error}");
}

#[test]
fn attributes_print_and_serialise() {
    let ctx = Device::by_name("soft").unwrap().open().unwrap();
    let attr = ctx.query_device().unwrap();
    assert!(attr.max_qp > 0 && attr.phys_port_cnt == 1);
    assert!(attr.to_string().contains("max_qp_wr:"));
    let port = ctx.query_port(PortNum::FIRST).unwrap();
    assert_eq!((port.state, port.is_ethernet()), (PortState::ACTIVE, true));
    assert!(port.to_string().contains("PORT_ACTIVE (4)"));
    let json = serde_json::to_value(&port).unwrap();
    assert_eq!((&json["state"], &json["link_layer"]), (&"ACTIVE".into(), &"Ethernet".into()));
    assert!(matches!(ctx.query_port(PortNum(9)), Err(DeviceError::Query { .. })));
}

#[test]
fn the_best_gid_is_the_address_and_both_ways_to_the_table_agree() {
    let ctx = Device::by_name("soft").unwrap().open().unwrap();
    let table = ctx.gid_table(PortNum::FIRST).unwrap();
    assert!(table.len() >= 2);
    for entry in &table {
        assert_eq!(entry.kind, GidType::RoceV2);
        assert_eq!(ctx.gid_entry(PortNum::FIRST, entry.index).unwrap().as_ref(), Some(entry));
    }
    let best = ctx.best_gid(PortNum::FIRST).unwrap();
    assert!(best.gid.to_ipv4().is_some(), "{best}");
}

#[test]
fn a_context_outlives_its_handles_and_closes() {
    let ctx = Device::by_name("soft").unwrap().open().unwrap();
    let before = ibex::leaks();
    let pd = ctx.alloc_pd().unwrap();
    ctx.close().unwrap();
    let region = pd.shared(100).unwrap();
    drop(pd);
    assert_eq!(region.len(), 100);
    assert!(region.read_at(99, &mut [0, 0]).is_err());
    assert!(region.load_u64(4).is_err());
    drop(region);
    assert_eq!(ibex::leaks(), before);
}
