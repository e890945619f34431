//! Numbers that peers send as text: nothing gets in that the type says cannot be.

use ibex::{Endpoint, Psn, Qpn};

#[test]
fn numbers_of_24_bits_are_checked_when_read() {
    assert!(serde_json::from_str::<Qpn>("16777215").is_ok());
    assert!(serde_json::from_str::<Qpn>("16777216").is_err());
    assert!(serde_json::from_str::<Psn>("4294967295").is_err());
}

#[test]
fn an_endpoint_with_too_large_a_number_is_refused() {
    let text = r#"{"qpn":4294967295,"psn":1,"gid":"::ffff:127.0.0.1","lid":0,"mtu":1024,"rd_atomic":1}"#;
    assert!(serde_json::from_str::<Endpoint>(text).is_err());
}
