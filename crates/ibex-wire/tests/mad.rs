//! Connection management datagrams: golden bytes put together by hand from the layouts of the specification (volume 1,
//! chapter 12, tables "message contents"), with different values in neighbouring fields, and properties.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ibex_wire::mad::{
    AttrId, CmaError, CmaHeader, CommId, Drep, Dreq, Gid, Guid, MAD_LEN, Mad, MadError, Message, Mra,
    PortSpace, Private, Rej, RejectReason, Rep, Req, ReqPath, Route, Rtu, ServiceId, SidrRep, SidrReq,
    SidrStatus, TransportService, Which,
};
use ibex_wire::{Pkey, Psn, Qkey, Qpn};
use proptest::prelude::*;

/// The bytes of a hexadecimal string in which blanks do not count, and zeros up to a datagram's length.
fn mad(text: &str) -> [u8; MAD_LEN] {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal") as u8;
    let mut out = [0; MAD_LEN];
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    assert!(digits.len() <= 2 * MAD_LEN && digits.len().is_multiple_of(2));
    out
}

/// Both ways: the message has these bytes, and these bytes are the message.
fn golden(message: Message, text: &str) {
    let bytes = mad(text);
    let expected = Mad { transaction: 0x1122_3344_5566_7788, message };
    assert_eq!(Mad::parse(&bytes), Ok(expected));
    assert_eq!(expected.to_bytes(), bytes);
}

/// A common header.
fn header(attribute: &str) -> String {
    format!("01 07 02 03 0000 0000 1122334455667788 {attribute} 0000 00000000")
}

fn v4(last: u8) -> Gid {
    Gid::from(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
}

#[test]
fn req() {
    let private = Private::new(b"\x01\x02\x03").expect("3 of 92");
    let message = Req {
        local_comm_id: CommId(0xa1a2_a3a4),
        service_id: ServiceId::ip(PortSpace::TCP, 7174),
        local_ca_guid: Guid(0x0102_0304_0506_0708),
        local_qkey: Qkey(0x8001_0203),
        local_qpn: Qpn::new(0x12_3456),
        responder_resources: 0x10,
        initiator_depth: 0x0f,
        local_eecn: 0x65_4321,
        remote_eecn: 0xab_cdef,
        remote_response_timeout: 20,
        service: TransportService::UC,
        flow_control: true,
        starting_psn: Psn::new(0xfe_dcba),
        local_response_timeout: 19,
        retry_count: 5,
        pkey: Pkey(0xfffe),
        mtu: 3,
        rdc_exists: true,
        rnr_retry_count: 6,
        max_cm_retries: 15,
        srq: true,
        extended_transport: 1,
        primary: ReqPath {
            local_lid: 0xffff,
            remote_lid: 0xfffe,
            local_gid: v4(1),
            remote_gid: v4(2),
            flow_label: 0xa_bcde,
            rate: 0x2a,
            traffic_class: 0x68,
            hop_limit: 64,
            sl: 9,
            subnet_local: true,
            ack_timeout: 17,
            sap_supported: false,
        },
        alternate: ReqPath {
            local_lid: 1,
            remote_lid: 2,
            local_gid: Gid([0x11; 16]),
            remote_gid: Gid([0x22; 16]),
            flow_label: 1,
            rate: 1,
            traffic_class: 2,
            hop_limit: 3,
            sl: 4,
            subnet_local: false,
            ack_timeout: 31,
            sap_supported: true,
        },
        private,
    };
    assert!(message.has_alternate());
    let text = format!(
        "{} a1a2a3a4 00000000 0000000001061c06 0102030405060708 00000000 80010203
         123456 10 654321 0f abcdef a3 fedcba 9d fffe 3e f9
         ffff fffe 00000000000000000000ffff0a000001 00000000000000000000ffff0a000002
         abcde 02a 68 40 98 88
         0001 0002 {} {} 00001 001 02 03 40 fc
         010203",
        header("0010"),
        "11".repeat(16),
        "22".repeat(16),
    );
    golden(Message::Req(message), &text);
}

#[test]
fn mra_and_rej() {
    let mra = Mra {
        local_comm_id: CommId(1),
        remote_comm_id: CommId(2),
        which: Which::REP,
        service_timeout: 24,
        private: Private::new(&[0xee]).expect("1 of 222"),
    };
    golden(Message::Mra(mra), &format!("{} 00000001 00000002 40 c0 ee", header("0011")));

    let mut info = [0; Rej::INFO];
    info[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let rej = Rej {
        local_comm_id: CommId(3),
        remote_comm_id: CommId(0),
        which: Which::OTHER,
        reason: RejectReason::TIMEOUT,
        info_len: 8,
        info,
        private: Private::new(b"no").expect("2 of 148"),
    };
    assert_eq!(rej.additional_info(), [1, 2, 3, 4, 5, 6, 7, 8]);
    let zeros = "00".repeat(64);
    golden(
        Message::Rej(rej),
        &format!("{} 00000003 00000000 80 10 0004 0102030405060708 {zeros} 6e6f", header("0012")),
    );
    assert_eq!(Rej { info_len: 127, ..rej }.additional_info().len(), Rej::INFO);
}

#[test]
fn rep_and_rtu() {
    let rep = Rep {
        local_comm_id: CommId(0xb1b2_b3b4),
        remote_comm_id: CommId(0xa1a2_a3a4),
        local_qkey: Qkey(7),
        local_qpn: Qpn::new(0x65_4321),
        local_eecn: 0x01_0203,
        starting_psn: Psn::new(0x0a_0b0c),
        responder_resources: 4,
        initiator_depth: 5,
        target_ack_delay: 15,
        failover: 1,
        flow_control: true,
        rnr_retry_count: 7,
        srq: true,
        local_ca_guid: Guid(0x1112_1314_1516_1718),
        private: Private::new(&[9; 196]).expect("all of it"),
    };
    let text = format!(
        "{} b1b2b3b4 a1a2a3a4 00000007 654321 00 010203 00 0a0b0c 00 04 05 7b f0 1112131415161718 {}",
        header("0013"),
        "09".repeat(196),
    );
    golden(Message::Rep(rep), &text);
    let rtu = Rtu {
        local_comm_id: CommId(1),
        remote_comm_id: CommId(2),
        private: Private::new(&[3]).expect("1 of 224"),
    };
    golden(Message::Rtu(rtu), &format!("{} 00000001 00000002 03", header("0014")));
}

#[test]
fn dreq_and_drep() {
    let dreq = Dreq {
        local_comm_id: CommId(1),
        remote_comm_id: CommId(2),
        remote_qpn: Qpn::new(0xab_cdef),
        private: Private::new(&[3]).expect("1 of 220"),
    };
    golden(Message::Dreq(dreq), &format!("{} 00000001 00000002 abcdef 00 03", header("0015")));
    let drep = Drep { local_comm_id: CommId(2), remote_comm_id: CommId(1), private: Private::ZERO };
    golden(Message::Drep(drep), &format!("{} 00000002 00000001", header("0016")));
}

#[test]
fn sidr() {
    let req = SidrReq {
        request_id: CommId(5),
        pkey: Pkey(0xffff),
        service_id: ServiceId::ip(PortSpace::UDP, 0x1234),
        private: Private::new(&[6]).expect("1 of 216"),
    };
    golden(Message::SidrReq(req), &format!("{} 00000005 ffff 0000 0000000001111234 06", header("0017")));
    let mut info = [0; SidrRep::INFO];
    info[71] = 0xee;
    let rep = SidrRep {
        request_id: CommId(5),
        status: SidrStatus::NO_QP,
        info_len: 72,
        qpn: Qpn::new(0x11_2233),
        service_id: ServiceId::ip(PortSpace::UDP, 0x1234),
        qkey: Qkey(0x0123_4567),
        info,
        private: Private::new(&[8]).expect("1 of 136"),
    };
    let zeros = "00".repeat(71);
    golden(
        Message::SidrRep(rep),
        &format!("{} 00000005 03 48 0000 112233 00 0000000001111234 01234567 {zeros} ee 08", header("0018")),
    );
}

#[test]
fn header_of_services() {
    let bytes = |text: &str| -> [u8; CmaHeader::LEN] { *mad(text).first_chunk().expect("36 of 256") };
    let both = |header: CmaHeader, text: &str| {
        let mut out = [0xff; CmaHeader::LEN];
        header.emit(&mut out);
        assert_eq!(out, bytes(text));
        assert_eq!(CmaHeader::parse(&out), Ok(header));
    };
    let v4 = |last| IpAddr::V4(Ipv4Addr::new(192, 168, 0, last));
    let zeros = "00".repeat(12);
    both(
        CmaHeader { src_port: 0xc001, src: v4(1), dst: v4(2) },
        &format!("00 40 c001 {zeros} c0a80001 {zeros} c0a80002"),
    );
    let v6 = |last| IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last));
    both(
        CmaHeader { src_port: 1, src: v6(1), dst: v6(2) },
        "00 60 0001 fe800000000000000000000000000001 fe800000000000000000000000000002",
    );
    assert_eq!(CmaHeader::parse(&bytes("10 40")), Err(CmaError::Version(0x10)));
    assert_eq!(CmaHeader::parse(&bytes("00 50")), Err(CmaError::IpVersion(5)));
}

#[test]
fn services_and_addresses() {
    assert_eq!(ServiceId::ip(PortSpace::TCP, 7174).0, 0x0106_1c06);
    assert_eq!(ServiceId::ip(PortSpace::IB, 1).0, 0x013f_0001);
    assert_eq!(ServiceId::ip(PortSpace::UDP, 9).port(), Some((PortSpace::UDP, 9)));
    assert_eq!(ServiceId(0x0107_0001).port(), None);
    assert_eq!(ServiceId(0x1_0106_0001).port(), None);
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(Gid::from(address).0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!(Gid::from(address).ip(), address);
}

#[test]
fn what_is_not_served_is_said() {
    let good = mad(&header("0014"));
    assert!(Mad::parse(&good).is_ok());
    assert_eq!(Mad::parse(&good[..255]), Err(MadError::Length(255)));
    assert_eq!(Mad::parse(&[]), Err(MadError::Length(0)));
    assert_eq!(Mad::parse(&[good, good].concat()), Err(MadError::Length(512)));
    let with = |at: usize, value| {
        let mut bytes = good;
        bytes[at] = value;
        Mad::parse(&bytes)
    };
    assert_eq!(with(0, 2), Err(MadError::BaseVersion(2)));
    assert_eq!(with(1, 4), Err(MadError::Class(4)));
    assert_eq!(with(2, 1), Err(MadError::ClassVersion(1)));
    assert_eq!(with(3, 0x81), Err(MadError::Method(0x81)));
    assert_eq!(with(17, 0x19), Err(MadError::Attribute(AttrId::LAP)));
    assert_eq!(with(17, 0x0f), Err(MadError::Attribute(AttrId(0x0f))));
}

#[test]
fn routes() {
    let route = |attribute: &str, rest: &str| Route::of(&mad(&format!("{} {rest}", header(attribute))));
    let ids = "00000001 00000002";
    for attribute in ["0011", "0012", "0013", "0014", "0015", "0016"] {
        assert_eq!(route(attribute, ids), Ok(Route::Connection(CommId(2))));
    }
    assert_eq!(route("0012", "00000001 00000000"), Ok(Route::Unnamed(CommId(1))));
    let service = Ok(Route::Service(ServiceId(0x0106_0001)));
    assert_eq!(route("0010", "00000001 00000000 0000000001060001"), service);
    assert_eq!(route("0017", "00000001 ffff0000 0000000001060001"), service);
    assert_eq!(route("0018", "00000001"), Ok(Route::Connection(CommId(1))));
    assert!(route("0019", ids).is_err());
}

#[test]
fn private_data_that_does_not_fit() {
    let error = Private::<4>::new(&[0; 5]).expect_err("5 of 4");
    assert_eq!((error.len, error.max), (5, 4));
    assert_eq!(format!("{:?}", Private::<4>::new(&[1, 2]).expect("2 of 4")), "Private<4>(0102)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes of a message parse; what was understood is written the same way again, and reserved bits are zero.
    #[test]
    fn parsing_is_total_and_emitting_stable(
        attribute in 0x10_u8..=0x18, transaction: u64, body in prop::collection::vec(any::<u8>(), 232),
    ) {
        let mut bytes = mad("01 07 02 03");
        bytes[8..16].copy_from_slice(&transaction.to_be_bytes());
        bytes[17] = attribute;
        bytes[24..].copy_from_slice(&body);
        let parsed = Mad::parse(&bytes).expect("a message");
        prop_assert_eq!(parsed.transaction, transaction);
        prop_assert_eq!(parsed.message.attribute(), AttrId(u16::from(attribute)));
        let emitted = parsed.to_bytes();
        prop_assert_eq!(Mad::parse(&emitted), Ok(parsed));
        for (at, (ours, theirs)) in emitted.iter().zip(&bytes).enumerate() {
            prop_assert_eq!(ours & !theirs, 0, "a bit set at {} that was not there", at);
        }
    }

    #[test]
    fn anything_parses_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Mad::parse(&bytes);
        let _ = Route::of(&bytes);
        if let Some(head) = bytes.first_chunk() {
            let _ = CmaHeader::parse(head);
        }
    }
}
