//! Extended queue pairs: `ibv_create_qp_ex(3)`, and which operations one has.
//!
//! Owns the attributes served and the functions in an `ibv_qp_ex`. Building requests is [`super::wr`]'s.
//!
//! verbs.h calls every function without looking whether it is there. So all are: an operation that was not asked for, or
//! that the device does not have, makes `ibv_wr_complete` fail with `EOPNOTSUPP`.
//!
//! # Safety
//! As `object`.
#![allow(unsafe_code)]

use ibex_sys::{
    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP, IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD, IBV_QP_EX_WITH_BIND_MW,
    IBV_QP_EX_WITH_LOCAL_INV, IBV_QP_EX_WITH_RDMA_READ, IBV_QP_EX_WITH_RDMA_WRITE,
    IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, IBV_QP_EX_WITH_SEND, IBV_QP_EX_WITH_SEND_WITH_IMM,
    IBV_QP_EX_WITH_SEND_WITH_INV, IBV_QP_INIT_ATTR_CREATE_FLAGS, IBV_QP_INIT_ATTR_MAX_TSO_HEADER,
    IBV_QP_INIT_ATTR_PD, IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, ibv_context,
    ibv_qp, ibv_qp_create_send_ops_flags, ibv_qp_ex, ibv_qp_init_attr_ex, ibv_qp_type,
};

use super::object::{given, pointer};
use super::{qp, wr};

/// Bits of `comp_mask` that verbs.h knows.
const KNOWN: u32 = (1 << 7) - 1;

/// The operations a queue pair of this type can have.
pub(super) fn served(service: ibv_qp_type) -> u64 {
    let datagrams = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
    let unreliable = datagrams
        | IBV_QP_EX_WITH_RDMA_WRITE
        | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
        | IBV_QP_EX_WITH_LOCAL_INV
        | IBV_QP_EX_WITH_BIND_MW;
    let reliable = unreliable
        | IBV_QP_EX_WITH_RDMA_READ
        | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
        | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD
        | IBV_QP_EX_WITH_SEND_WITH_INV;
    let ops = match service {
        IBV_QPT_RC => reliable,
        IBV_QPT_UC => unreliable,
        IBV_QPT_UD => datagrams,
        _ => ibv_qp_create_send_ops_flags(0),
    };
    u64::from(ops.0)
}

/// `ibv_create_qp_ex(3)`, for what is more than `ibv_create_qp` can say.
pub(super) unsafe extern "C" fn create_qp_ex(
    _context: *mut ibv_context,
    attr: *mut ibv_qp_init_attr_ex,
) -> *mut ibv_qp {
    pointer(|| {
        // SAFETY: the attributes are readable (manual).
        let asked = unsafe { given(attr)?.read() };
        let has = |bit: ibex_sys::ibv_qp_init_attr_mask| asked.comp_mask & bit.0 != 0;
        if asked.comp_mask & !KNOWN != 0 || !has(IBV_QP_INIT_ATTR_PD) {
            return Err(libc::EINVAL);
        }
        let allowed = IBV_QP_INIT_ATTR_PD
            | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
            | IBV_QP_INIT_ATTR_CREATE_FLAGS
            | IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
        // The last two may be named if they ask for nothing.
        if asked.comp_mask & !allowed.0 != 0
            || has(IBV_QP_INIT_ATTR_CREATE_FLAGS) && asked.create_flags != 0
            || has(IBV_QP_INIT_ATTR_MAX_TSO_HEADER) && asked.max_tso_header != 0
        {
            return Err(libc::EOPNOTSUPP);
        }
        let send_ops = has(IBV_QP_INIT_ATTR_SEND_OPS_FLAGS).then_some(asked.send_ops_flags);
        // SAFETY: domain and attributes are the program's (manual), of which the classic ones are the first members.
        unsafe { qp::create(asked.pd, attr.cast(), send_ops) }
    })
}

/// A queue pair's functions.
pub(super) fn functions(ops: u64) -> ibv_qp_ex {
    macro_rules! if_asked {
        ($flag:expr, $function:expr, $refusal:expr) => {
            Some(if ops & u64::from($flag.0) != 0 { $function } else { $refusal })
        };
    }
    ibv_qp_ex {
        wr_atomic_cmp_swp: if_asked!(
            IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP,
            wr::atomic_cmp_swp,
            wr::no_atomic_cmp_swp
        ),
        wr_atomic_fetch_add: if_asked!(
            IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD,
            wr::atomic_fetch_add,
            wr::no_atomic_fetch_add
        ),
        wr_bind_mw: if_asked!(IBV_QP_EX_WITH_BIND_MW, wr::bind_mw, wr::no_bind_mw),
        wr_local_inv: if_asked!(IBV_QP_EX_WITH_LOCAL_INV, wr::local_inv, wr::no_local_inv),
        wr_rdma_read: if_asked!(IBV_QP_EX_WITH_RDMA_READ, wr::rdma_read, wr::no_rdma),
        wr_rdma_write: if_asked!(IBV_QP_EX_WITH_RDMA_WRITE, wr::rdma_write, wr::no_rdma),
        wr_rdma_write_imm: if_asked!(
            IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM,
            wr::rdma_write_imm,
            wr::no_rdma_write_imm
        ),
        wr_send: if_asked!(IBV_QP_EX_WITH_SEND, wr::send, wr::no_send),
        wr_send_imm: if_asked!(IBV_QP_EX_WITH_SEND_WITH_IMM, wr::send_imm, wr::no_send_imm),
        wr_send_inv: if_asked!(IBV_QP_EX_WITH_SEND_WITH_INV, wr::send_inv, wr::no_send_inv),
        wr_send_tso: Some(wr::no_send_tso),
        wr_set_ud_addr: Some(wr::set_ud_addr),
        wr_set_xrc_srqn: Some(wr::no_set_xrc_srqn),
        wr_set_inline_data: Some(wr::set_inline_data),
        wr_set_inline_data_list: Some(wr::set_inline_data_list),
        wr_set_sge: Some(wr::set_sge),
        wr_set_sge_list: Some(wr::set_sge_list),
        wr_start: Some(wr::start),
        wr_complete: Some(wr::complete),
        wr_abort: Some(wr::abort),
        wr_atomic_write: Some(wr::no_atomic_write),
        wr_flush: Some(wr::no_flush),
        ..Default::default()
    }
}
