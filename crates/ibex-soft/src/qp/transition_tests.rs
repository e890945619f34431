//! Tests of the transition table.

use super::*;
use ibex_sys::{IBV_MTU_1024, IBV_MTU_4096, IBV_QP_ALT_PATH};

const LIMITS: Limits = Limits { mtu: 3, rd_atomic: 16, gids: 2 };
const STATES: [ibv_qp_state; 7] = [RESET, INIT, RTR, RTS, SQD, SQE, ERR];

fn legal() -> ibv_qp_attr {
    let mut attr = ibv_qp_attr { port_num: 1, path_mtu: IBV_MTU_1024, dest_qp_num: 5, ..Default::default() };
    attr.ah_attr.is_global = 1;
    attr
}

fn attempt(
    from: ibv_qp_state,
    to: ibv_qp_state,
    mask: ibv_qp_attr_mask,
    attr: ibv_qp_attr,
) -> Result<ibv_qp_state, Refusal> {
    check(IBV_QPT_RC, from, &ibv_qp_attr { qp_state: to, ..attr }, mask | STATE, &LIMITS)
}

#[test]
fn the_edges_of_the_reliable_service_are_those_of_the_specification() {
    let mut edges = String::new();
    for from in STATES {
        for to in STATES {
            if rule(IBV_QPT_RC, from, to).is_some() && to != RESET && to != ERR {
                edges.push_str(&format!("{from}>{to} "));
            }
        }
    }
    assert_eq!(edges, "RESET>INIT INIT>INIT INIT>RTR RTR>RTS RTS>RTS RTS>SQD SQD>RTS SQD>SQD ");
    for from in STATES {
        for to in [RESET, ERR] {
            assert!(rule(IBV_QPT_RC, from, to).is_some(), "{from} to {to} is always possible");
        }
    }
}

#[test]
fn each_missing_attribute_is_named() {
    let rule = rule(IBV_QPT_RC, INIT, RTR).unwrap();
    assert_eq!(attempt(INIT, RTR, rule.required, legal()), Ok(RTR));
    for bit in (0..32).map(|bit| ibv_qp_attr_mask(1 << bit)).filter(|&bit| rule.required.contains(bit)) {
        assert_eq!(attempt(INIT, RTR, rule.required & !bit, legal()), Err(Refusal::Missing(bit)));
    }
}

#[test]
fn attributes_foreign_to_a_transition_are_refused() {
    let init = PKEY | PORT | ACCESS;
    assert_eq!(attempt(RESET, INIT, init, legal()), Ok(INIT));
    assert_eq!(attempt(RESET, INIT, init | AV, legal()), Err(Refusal::NotAllowed(AV)));
    assert_eq!(
        attempt(RTS, RTS, IBV_QP_ALT_PATH, legal()),
        Err(Refusal::NotAllowed(IBV_QP_ALT_PATH)),
        "path migration is not offered"
    );
    assert_eq!(attempt(RESET, RTS, NONE, legal()), Err(Refusal::Transition { from: RESET, to: RTS }));
    assert_eq!(attempt(SQE, RTS, NONE, legal()), Err(Refusal::Transition { from: SQE, to: RTS }));
}

#[test]
fn values_out_of_range_are_refused() {
    let needed = rule(IBV_QPT_RC, INIT, RTR).unwrap().required;
    let refused = |change: &dyn Fn(&mut ibv_qp_attr)| {
        let mut attr = legal();
        change(&mut attr);
        attempt(INIT, RTR, needed, attr).expect_err("out of range")
    };
    assert_eq!(refused(&|attr| attr.path_mtu = IBV_MTU_4096), Refusal::Range(MTU), "beyond the port's MTU");
    assert_eq!(refused(&|attr| attr.path_mtu.0 = 0), Refusal::Range(MTU));
    assert_eq!(refused(&|attr| attr.ah_attr.is_global = 0), Refusal::Range(AV));
    assert_eq!(refused(&|attr| attr.ah_attr.grh.sgid_index = 2), Refusal::Range(AV));
    assert_eq!(refused(&|attr| attr.dest_qp_num = 1 << 24), Refusal::Range(DEST));
    assert_eq!(refused(&|attr| attr.min_rnr_timer = 32), Refusal::Range(RNR_TIMER));
    assert_eq!(refused(&|attr| attr.max_dest_rd_atomic = 17), Refusal::Range(DEST_RD));
}

#[test]
fn a_wrong_current_state_is_refused() {
    let attr = ibv_qp_attr { cur_qp_state: RTR, ..legal() };
    assert_eq!(attempt(RTS, RTS, CUR, attr), Err(Refusal::CurrentState(RTS)));
}

/// Names of the attributes in a mask, in the order of their bits.
fn names(mask: ibv_qp_attr_mask) -> String {
    let all = [
        (CUR, "CUR"),
        (NOTIFY, "NOTIFY"),
        (ACCESS, "ACCESS"),
        (PKEY, "PKEY"),
        (PORT, "PORT"),
        (QKEY, "QKEY"),
        (AV, "AV"),
        (MTU, "MTU"),
        (TIMEOUT, "TIMEOUT"),
        (RETRY, "RETRY"),
        (RNR, "RNR"),
        (RQ_PSN, "RQ_PSN"),
        (QP_RD, "QP_RD"),
        (RNR_TIMER, "RNR_TIMER"),
        (SQ_PSN, "SQ_PSN"),
        (DEST_RD, "DEST_RD"),
        (DEST, "DEST"),
    ];
    let known = all.iter().fold(NONE, |sum, (bit, _)| sum | *bit);
    assert_eq!(mask & !known, NONE, "an attribute without a name");
    let named: Vec<&str> = all.iter().filter(|(bit, _)| mask.contains(*bit)).map(|(_, name)| *name).collect();
    named.join(" ")
}

/// The specification's tables, without what this device does not offer: alternate paths and migration.
#[test]
fn every_row_is_that_of_the_specification() {
    let table = "\
RC RESET>INIT: ACCESS PKEY PORT;
RC INIT>INIT: ; ACCESS PKEY PORT
RC INIT>RTR: AV MTU RQ_PSN RNR_TIMER DEST_RD DEST; ACCESS PKEY
RC RTR>RTS: TIMEOUT RETRY RNR QP_RD SQ_PSN; CUR ACCESS RNR_TIMER
RC RTS>RTS: ; CUR ACCESS RNR_TIMER
RC RTS>SQD: ; NOTIFY
RC SQD>RTS: ; CUR ACCESS RNR_TIMER
RC SQD>SQD: ; ACCESS PKEY PORT AV TIMEOUT RETRY RNR QP_RD RNR_TIMER DEST_RD
UC RESET>INIT: ACCESS PKEY PORT;
UC INIT>INIT: ; ACCESS PKEY PORT
UC INIT>RTR: AV MTU RQ_PSN DEST; ACCESS PKEY
UC RTR>RTS: SQ_PSN; CUR ACCESS
UC RTS>RTS: ; CUR ACCESS
UC RTS>SQD: ; NOTIFY
UC SQD>RTS: ; CUR ACCESS
UC SQD>SQD: ; ACCESS PKEY AV
UC SQE>RTS: ; CUR ACCESS
UD RESET>INIT: PKEY PORT QKEY;
UD INIT>INIT: ; PKEY PORT QKEY
UD INIT>RTR: ; PKEY QKEY
UD RTR>RTS: SQ_PSN; CUR QKEY
UD RTS>RTS: ; CUR QKEY
UD RTS>SQD: ; NOTIFY
UD SQD>RTS: ; CUR QKEY
UD SQD>SQD: ; PKEY QKEY
UD SQE>RTS: ; CUR QKEY";
    let mut found = Vec::new();
    for (service, name) in [(IBV_QPT_RC, "RC"), (IBV_QPT_UC, "UC"), (IBV_QPT_UD, "UD")] {
        for from in STATES {
            for to in STATES {
                let Some(rule) = rule(service, from, to) else { continue };
                if to == RESET || to == ERR {
                    assert_eq!((rule.required, rule.optional), (NONE, NONE));
                    continue;
                }
                let row = format!("{name} {from}>{to}: {}; {}", names(rule.required), names(rule.optional));
                found.push(row.trim_end().to_owned());
            }
        }
        for from in STATES {
            assert!(rule(service, from, RESET).is_some() && rule(service, from, ERR).is_some());
        }
    }
    assert_eq!(found, table.lines().collect::<Vec<_>>());
    assert_eq!(rule(ibex_sys::IBV_QPT_RAW_PACKET, RESET, INIT), None);
}
