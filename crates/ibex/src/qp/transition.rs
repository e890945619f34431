//! Which attributes a transition of a reliable connected queue pair needs, and what is wrong with a refused one.
//!
//! Devices answer EINVAL to any mistake. This table (IBTA volume 1, table 96; ibv_modify_qp(3)) and the checks of values
//! turn that into the name of the attribute.

use std::fmt;

use ibex_sys::*;

use super::state::QpState;
use crate::attr::{Mtu, PortAttr, PortState};

/// What a transition needs and allows besides `IBV_QP_STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// State before.
    pub from: QpState,
    /// State after.
    pub to: QpState,
    /// Attributes that must be given.
    pub required: ibv_qp_attr_mask,
    /// Attributes that may be given.
    pub optional: ibv_qp_attr_mask,
}

/// The union of some flags, as a constant.
const fn flags(list: &[ibv_qp_attr_mask]) -> ibv_qp_attr_mask {
    let mut mask = ibv_qp_attr_mask(0);
    let mut at = 0;
    while at < list.len() {
        mask = mask.union(list[at]);
        at += 1;
    }
    mask
}

const fn rule(
    from: QpState,
    to: QpState,
    required: &[ibv_qp_attr_mask],
    optional: &[ibv_qp_attr_mask],
) -> Rule {
    Rule { from, to, required: flags(required), optional: flags(optional) }
}

/// The transitions between working states. Every state may besides go to RESET and to ERR, with nothing else given.
#[rustfmt::skip]
pub const RC: &[Rule] = &[
    rule(QpState::RESET, QpState::INIT,
        &[IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_ACCESS_FLAGS],
        &[]),
    rule(QpState::INIT, QpState::INIT,
        &[],
        &[IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_ACCESS_FLAGS]),
    rule(QpState::INIT, QpState::RTR,
        &[IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN, IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER],
        &[IBV_QP_ALT_PATH, IBV_QP_ACCESS_FLAGS, IBV_QP_PKEY_INDEX]),
    rule(QpState::RTR, QpState::RTS,
        &[IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_SQ_PSN, IBV_QP_MAX_QP_RD_ATOMIC],
        &[IBV_QP_CUR_STATE, IBV_QP_ALT_PATH, IBV_QP_ACCESS_FLAGS, IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MIG_STATE]),
    rule(QpState::RTS, QpState::RTS,
        &[],
        &[IBV_QP_CUR_STATE, IBV_QP_ACCESS_FLAGS, IBV_QP_ALT_PATH, IBV_QP_PATH_MIG_STATE, IBV_QP_MIN_RNR_TIMER]),
    rule(QpState::RTS, QpState::SQD,
        &[],
        &[IBV_QP_EN_SQD_ASYNC_NOTIFY]),
    rule(QpState::SQD, QpState::RTS,
        &[],
        &[IBV_QP_CUR_STATE, IBV_QP_ALT_PATH, IBV_QP_ACCESS_FLAGS, IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MIG_STATE]),
    rule(QpState::SQD, QpState::SQD,
        &[],
        &[IBV_QP_PORT, IBV_QP_AV, IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_MAX_QP_RD_ATOMIC,
          IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_CUR_STATE, IBV_QP_ALT_PATH, IBV_QP_ACCESS_FLAGS, IBV_QP_PKEY_INDEX,
          IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MIG_STATE]),
];

/// Something wrong with a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// There is no such transition.
    NoTransition {
        /// State before.
        from: QpState,
        /// State asked for.
        to: QpState,
    },
    /// An attribute that must be given is not.
    Missing(ibv_qp_attr_mask),
    /// An attribute that may not be given is.
    Excess(ibv_qp_attr_mask),
    /// An attribute has a value that cannot be: which, and why.
    Value {
        /// The attribute.
        attribute: ibv_qp_attr_mask,
        /// What is wrong, and what would be right.
        why: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTransition { from, to } => {
                write!(f, "there is no transition from {from} to {to}")?;
                let mut next = RC.iter().filter(|rule| rule.from == *from && rule.to != *from).peekable();
                if next.peek().is_some() {
                    f.write_str(", only to")?;
                    next.try_for_each(|rule| write!(f, " {},", rule.to))?;
                    f.write_str(" RESET, ERR")?;
                }
                Ok(())
            }
            Self::Missing(attribute) => write!(f, "{attribute} must be given"),
            Self::Excess(attribute) => write!(f, "{attribute} must not be given"),
            Self::Value { attribute, why } => write!(f, "{attribute}: {why}"),
        }
    }
}

/// The rule of a transition, if there is one.
#[must_use]
pub fn find(from: QpState, to: QpState) -> Option<Rule> {
    if to == QpState::RESET || to == QpState::ERR {
        return Some(Rule { from, to, required: ibv_qp_attr_mask(0), optional: IBV_QP_CUR_STATE });
    }
    RC.iter().find(|rule| rule.from == from && rule.to == to).copied()
}

/// What is wrong with the set of attributes given for a transition.
#[must_use]
pub fn check(from: QpState, to: QpState, given: ibv_qp_attr_mask) -> Vec<Finding> {
    let Some(rule) = find(from, to) else { return vec![Finding::NoTransition { from, to }] };
    let given = given & !IBV_QP_STATE;
    let missing = rule.required & !given;
    let excess = given & !(rule.required | rule.optional);
    let mut findings = Vec::new();
    if !missing.is_empty() {
        findings.push(Finding::Missing(missing));
    }
    if !excess.is_empty() {
        findings.push(Finding::Excess(excess));
    }
    findings
}

/// What is wrong with the values given, as far as the port shows.
#[must_use]
pub fn check_values(attr: &ibv_qp_attr, given: ibv_qp_attr_mask, port: Option<&PortAttr>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |attribute, why: String| findings.push(Finding::Value { attribute, why });
    let has = |attribute| given.contains(attribute);
    if has(IBV_QP_TIMEOUT) && attr.timeout > 31 {
        wrong(IBV_QP_TIMEOUT, format!("{} has more than 5 bits", attr.timeout));
    }
    if has(IBV_QP_RETRY_CNT) && attr.retry_cnt > 7 {
        wrong(IBV_QP_RETRY_CNT, format!("{} has more than 3 bits", attr.retry_cnt));
    }
    if has(IBV_QP_RNR_RETRY) && attr.rnr_retry > 7 {
        wrong(IBV_QP_RNR_RETRY, format!("{} has more than 3 bits", attr.rnr_retry));
    }
    if has(IBV_QP_MIN_RNR_TIMER) && attr.min_rnr_timer > 31 {
        wrong(IBV_QP_MIN_RNR_TIMER, format!("{} has more than 5 bits", attr.min_rnr_timer));
    }
    if has(IBV_QP_DEST_QPN) && attr.dest_qp_num > 0x00ff_ffff {
        wrong(IBV_QP_DEST_QPN, format!("{:#x} has more than 24 bits", attr.dest_qp_num));
    }
    if has(IBV_QP_PATH_MTU) && Mtu::from_sys(attr.path_mtu).is_none() {
        wrong(IBV_QP_PATH_MTU, format!("{} is not an index of an MTU (1 to 5)", attr.path_mtu.0));
    }
    let Some(port) = port else { return findings };
    if port.state != PortState::ACTIVE && has(IBV_QP_AV) {
        wrong(IBV_QP_AV, format!("port {} is {}; bring its link up", port.port, port.state));
    }
    if has(IBV_QP_PATH_MTU)
        && let (Some(mtu), Some(active)) = (Mtu::from_sys(attr.path_mtu), port.active_mtu)
        && mtu > active
    {
        wrong(IBV_QP_PATH_MTU, format!("{mtu} is more than the port's {active}"));
    }
    if has(IBV_QP_AV) && port.is_ethernet() && attr.ah_attr.is_global == 0 {
        wrong(IBV_QP_AV, "a global route (GID) is needed on Ethernet".to_owned());
    }
    if has(IBV_QP_AV)
        && attr.ah_attr.is_global != 0
        && u32::from(attr.ah_attr.grh.sgid_index) >= port.gid_tbl_len
    {
        let (index, len) = (attr.ah_attr.grh.sgid_index, port.gid_tbl_len);
        wrong(IBV_QP_AV, format!("GID index {index} is outside the port's table of {len}"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attribute_is_both_required_and_optional() {
        for rule in RC {
            assert!((rule.required & rule.optional).is_empty(), "{rule:?}");
            assert!(!(rule.required | rule.optional).contains(IBV_QP_STATE), "{rule:?}");
        }
    }

    #[test]
    fn refused_transitions_are_explained() {
        let given = IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_SQ_PSN;
        let text: Vec<_> =
            check(QpState::INIT, QpState::RTR, given).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "AV | RQ_PSN | MIN_RNR_TIMER | MAX_DEST_RD_ATOMIC | DEST_QPN must be given",
                "SQ_PSN must not be given"
            ]
        );
        let skipped = &check(QpState::INIT, QpState::RTS, given)[0];
        assert_eq!(skipped.to_string(), "there is no transition from INIT to RTS, only to RTR, RESET, ERR");
        assert!(check(QpState::RTS, QpState::ERR, IBV_QP_STATE).is_empty());
    }

    #[test]
    fn values_out_of_range_are_found() {
        let attr = ibv_qp_attr { timeout: 32, retry_cnt: 8, path_mtu: ibv_mtu(9), ..ibv_qp_attr::default() };
        let given = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_PATH_MTU;
        assert_eq!(check_values(&attr, given, None).len(), 3);
        assert!(check_values(&attr, IBV_QP_RNR_RETRY, None).is_empty());
    }
}
