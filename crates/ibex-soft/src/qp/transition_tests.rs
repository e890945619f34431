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
