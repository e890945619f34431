//! The table of queue pair state transitions, and the check of a requested one.
//!
//! Owns which attributes a transition needs and allows, per service, and the ranges of their values. Does not own what
//! a transition does ([`super`]). See `ibv_modify_qp(3)`; IBTA vol. 1 clause 11.2.5.2, tables 91 and 92.

use ibex_sys::{
    IBV_QP_ACCESS_FLAGS as ACCESS, IBV_QP_AV as AV, IBV_QP_CUR_STATE as CUR, IBV_QP_DEST_QPN as DEST,
    IBV_QP_EN_SQD_ASYNC_NOTIFY as NOTIFY, IBV_QP_MAX_DEST_RD_ATOMIC as DEST_RD,
    IBV_QP_MAX_QP_RD_ATOMIC as QP_RD, IBV_QP_MIN_RNR_TIMER as RNR_TIMER, IBV_QP_PATH_MTU as MTU,
    IBV_QP_PKEY_INDEX as PKEY, IBV_QP_PORT as PORT, IBV_QP_QKEY as QKEY, IBV_QP_RETRY_CNT as RETRY,
    IBV_QP_RNR_RETRY as RNR, IBV_QP_RQ_PSN as RQ_PSN, IBV_QP_SQ_PSN as SQ_PSN, IBV_QP_STATE as STATE,
    IBV_QP_TIMEOUT as TIMEOUT, IBV_QPS_ERR as ERR, IBV_QPS_INIT as INIT, IBV_QPS_RESET as RESET,
    IBV_QPS_RTR as RTR, IBV_QPS_RTS as RTS, IBV_QPS_SQD as SQD, IBV_QPS_SQE as SQE, IBV_QPT_RC, IBV_QPT_UC,
    IBV_QPT_UD, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_state, ibv_qp_type,
};

/// Attributes a transition needs, and those it allows besides; the state itself is always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) required: ibv_qp_attr_mask,
    pub(crate) optional: ibv_qp_attr_mask,
}

const NONE: ibv_qp_attr_mask = ibv_qp_attr_mask(0);

/// Why a change of attributes was refused; always `EINVAL` to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No such transition exists.
    #[error("no transition from {from} to {to}")]
    Transition { from: ibv_qp_state, to: ibv_qp_state },
    /// Attributes the transition needs were not given.
    #[error("attributes missing: {0}")]
    Missing(ibv_qp_attr_mask),
    /// Attributes that the transition does not take were given.
    #[error("attributes not allowed here: {0}")]
    NotAllowed(ibv_qp_attr_mask),
    /// `cur_qp_state` is not the state the queue pair is in.
    #[error("the queue pair is in state {0}")]
    CurrentState(ibv_qp_state),
    /// A value is out of its range.
    #[error("value of {0} out of range")]
    Range(ibv_qp_attr_mask),
}

/// The rule of a transition; `None` if there is no such transition.
pub(crate) fn rule(service: ibv_qp_type, from: ibv_qp_state, to: ibv_qp_state) -> Option<Rule> {
    let (rc, uc, ud) = (service == IBV_QPT_RC, service == IBV_QPT_UC, service == IBV_QPT_UD);
    if !(rc || uc || ud) {
        return None;
    }
    // What a connected service may change once it runs; a datagram service has its Q_Key instead of access rights.
    let rights = if ud { QKEY } else { ACCESS };
    let timer = if rc { RNR_TIMER } else { NONE };
    let (required, optional) = match (from, to) {
        (_, RESET | ERR) => (NONE, NONE),
        (RESET, INIT) => (PKEY | PORT | rights, NONE),
        (INIT, INIT) => (NONE, PKEY | PORT | rights),
        (INIT, RTR) if rc => (AV | MTU | DEST | RQ_PSN | DEST_RD | RNR_TIMER, ACCESS | PKEY),
        (INIT, RTR) if uc => (AV | MTU | DEST | RQ_PSN, ACCESS | PKEY),
        (INIT, RTR) => (NONE, PKEY | QKEY),
        (RTR, RTS) if rc => (TIMEOUT | RETRY | RNR | SQ_PSN | QP_RD, CUR | ACCESS | RNR_TIMER),
        (RTR, RTS) => (SQ_PSN, CUR | rights),
        (RTS, RTS) => (NONE, CUR | rights | timer),
        (RTS, SQD) => (NONE, NOTIFY),
        (SQD, RTS) => (NONE, CUR | rights | timer),
        (SQD, SQD) if rc => {
            (NONE, PKEY | PORT | ACCESS | AV | TIMEOUT | RETRY | RNR | QP_RD | DEST_RD | RNR_TIMER)
        }
        (SQD, SQD) if uc => (NONE, PKEY | ACCESS | AV),
        (SQD, SQD) => (NONE, PKEY | QKEY),
        (SQE, RTS) if !rc => (NONE, CUR | rights),
        _ => return None,
    };
    Some(Rule { required, optional })
}

/// Limits of the device that attribute values are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The port's active MTU, as its enumeration value (1 = 256 … 5 = 4096 bytes).
    pub(crate) mtu: u32,
    /// Most READ and atomic requests outstanding, as requester and as responder.
    pub(crate) rd_atomic: u8,
    /// Entries of the port's GID table.
    pub(crate) gids: u8,
}

/// Checks a change of attributes and returns the state it leads to.
///
/// # Errors
/// [`Refusal`] says what is wrong; nothing has been changed then.
pub(crate) fn check(
    service: ibv_qp_type,
    now: ibv_qp_state,
    attr: &ibv_qp_attr,
    mask: ibv_qp_attr_mask,
    limits: &Limits,
) -> Result<ibv_qp_state, Refusal> {
    if mask.contains(CUR) && attr.cur_qp_state != now {
        return Err(Refusal::CurrentState(now));
    }
    let to = if mask.contains(STATE) { attr.qp_state } else { now };
    let rule = rule(service, now, to).ok_or(Refusal::Transition { from: now, to })?;
    let missing = rule.required & !mask;
    if !missing.is_empty() {
        return Err(Refusal::Missing(missing));
    }
    let extra = mask & !(rule.required | rule.optional | STATE);
    if !extra.is_empty() {
        return Err(Refusal::NotAllowed(extra));
    }
    ranges(attr, mask, limits)?;
    Ok(to)
}

fn ranges(attr: &ibv_qp_attr, mask: ibv_qp_attr_mask, limits: &Limits) -> Result<(), Refusal> {
    let known_rights = crate::mr::access::KNOWN;
    let ah = &attr.ah_attr;
    let checks = [
        (PORT, attr.port_num == 1),
        (PKEY, attr.pkey_index == 0),
        (ACCESS, attr.qp_access_flags & !known_rights == 0),
        (MTU, (1..=limits.mtu).contains(&attr.path_mtu.0)),
        // RoCE routes by GID alone. Port 0 is what programs leave there that fill in only the rest.
        (AV, ah.is_global != 0 && ah.port_num <= 1 && ah.grh.sgid_index < limits.gids),
        (TIMEOUT, attr.timeout < 32),
        (RETRY, attr.retry_cnt < 8),
        (RNR, attr.rnr_retry < 8),
        (RNR_TIMER, attr.min_rnr_timer < 32),
        (QP_RD, attr.max_rd_atomic <= limits.rd_atomic),
        (DEST_RD, attr.max_dest_rd_atomic <= limits.rd_atomic),
        (DEST, attr.dest_qp_num < 1 << 24),
    ];
    match checks.iter().find(|(flag, good)| mask.contains(*flag) && !good) {
        Some((flag, _)) => Err(Refusal::Range(*flag)),
        None => Ok(()),
    }
}

/// Copies the attributes named by `mask`, except the states.
pub(crate) fn apply(to: &mut ibv_qp_attr, from: &ibv_qp_attr, mask: ibv_qp_attr_mask) {
    macro_rules! copy {
        ($($flag:ident => $field:ident),* $(,)?) => {
            $( if mask.contains($flag) { to.$field = from.$field; } )*
        };
    }
    copy! {
        NOTIFY => en_sqd_async_notify, ACCESS => qp_access_flags, PKEY => pkey_index, PORT => port_num,
        QKEY => qkey, AV => ah_attr, MTU => path_mtu, TIMEOUT => timeout, RETRY => retry_cnt, RNR => rnr_retry,
        QP_RD => max_rd_atomic, RNR_TIMER => min_rnr_timer, DEST_RD => max_dest_rd_atomic, DEST => dest_qp_num,
    }
    // Programs pass whole words; a PSN is its low 24 bits.
    if mask.contains(RQ_PSN) {
        to.rq_psn = from.rq_psn & 0x00ff_ffff;
    }
    if mask.contains(SQ_PSN) {
        to.sq_psn = from.sq_psn & 0x00ff_ffff;
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
