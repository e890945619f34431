//! Extended completion queues and queue pairs: walks over completions, requests built in place.
//!
//! # Safety
//! As `queue`. A walk is started, read and ended by one call here, a batch of requests likewise, so that the order of
//! calls of the manual pages holds and no other thread comes between.

#![allow(unsafe_code)]

use ibex_sys::{
    IBV_QP_INIT_ATTR_PD, IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, IBV_QPT_RC, IBV_SEND_INLINE, IBV_WC_STANDARD_FLAGS,
    IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE,
    IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, dispatch, ibv_cq_ex, ibv_cq_init_attr_ex,
    ibv_poll_cq_attr, ibv_qp_cap, ibv_qp_create_send_ops_flags, ibv_qp_ex, ibv_qp_init_attr_ex, ibv_sge,
    ibv_wc_opcode, ibv_wc_status,
};

use super::device::errno;
use super::{Cq, Lab, Node, NodeOptions, Pd, Qp, Send};

/// What a walk reads of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The member `wr_id`.
    pub wr_id: u64,
    /// The member `status`.
    pub status: ibv_wc_status,
    /// `ibv_wc_read_opcode`, and the other readers.
    pub opcode: ibv_wc_opcode,
    /// Bytes.
    pub byte_len: u32,
    /// Immediate data, big-endian as it came.
    pub imm: u32,
    /// The local queue pair.
    pub qp_num: u32,
    /// Bits of `ibv_wc_flags`.
    pub wc_flags: u32,
}

impl Cq {
    /// Creates an extended queue that answers what a classic completion has.
    ///
    /// # Errors
    /// The errno of `ibv_create_cq_ex`.
    pub fn try_extended(lab: &Lab, depth: u32) -> Result<Self, i32> {
        let wc_flags = u64::from(IBV_WC_STANDARD_FLAGS.0);
        let mut attr = ibv_cq_init_attr_ex { cqe: depth, wc_flags, ..Default::default() };
        // SAFETY: ibv_create_cq_ex(3), with an open context.
        let cq = unsafe { dispatch::ibv_create_cq_ex(lab.context(), &raw mut attr) };
        if cq.is_null() {
            return Err(errno());
        }
        // SAFETY: created just now.
        Ok(unsafe { Self::adopt(lab, dispatch::ibv_cq_ex_to_cq(cq)) })
    }

    /// Walks over at most `most` completions; none if there is none.
    ///
    /// # Panics
    /// When the queue is not an extended one, or a call fails with anything but `ENOENT`.
    pub fn walk(&self, most: usize) -> Vec<Seen> {
        let cq: *mut ibv_cq_ex = self.as_ptr().cast();
        let mut attr = ibv_poll_cq_attr::default();
        // SAFETY: an extended queue starts with the members of a classic one, and only those are made here by the case.
        let mut code = unsafe { dispatch::ibv_start_poll(cq, &raw mut attr) };
        let mut seen = Vec::new();
        if code == libc::ENOENT {
            return seen;
        }
        while code == 0 {
            seen.push(read(cq));
            if seen.len() == most {
                break;
            }
            // SAFETY: a walk is on.
            code = unsafe { dispatch::ibv_next_poll(cq) };
        }
        assert!(code == 0 || code == libc::ENOENT, "ibv_start_poll or ibv_next_poll: {code}");
        // SAFETY: the walk was started.
        unsafe { dispatch::ibv_end_poll(cq) };
        seen
    }
}

/// Reads the completion a walk has come to.
fn read(cq: *mut ibv_cq_ex) -> Seen {
    // SAFETY: a walk is on, on a live queue that was created with every flag read here.
    let wr_id = unsafe { (*cq).wr_id };
    // SAFETY: as above.
    let status = unsafe { (*cq).status };
    // SAFETY: as above.
    let opcode = unsafe { dispatch::ibv_wc_read_opcode(cq) };
    // SAFETY: as above.
    let byte_len = unsafe { dispatch::ibv_wc_read_byte_len(cq) };
    // SAFETY: as above.
    let imm = unsafe { dispatch::ibv_wc_read_imm_data(cq) };
    // SAFETY: as above.
    let qp_num = unsafe { dispatch::ibv_wc_read_qp_num(cq) };
    // SAFETY: as above.
    let wc_flags = unsafe { dispatch::ibv_wc_read_wc_flags(cq) };
    Seen { wr_id, status, opcode, byte_len, imm, qp_num, wc_flags }
}

impl Qp {
    /// Creates an extended queue pair with these operations.
    ///
    /// # Errors
    /// The errno of `ibv_create_qp_ex`.
    pub fn try_extended(
        pd: &Pd,
        cq: &Cq,
        cap: ibv_qp_cap,
        ops: ibv_qp_create_send_ops_flags,
    ) -> Result<Self, i32> {
        let mut attr = ibv_qp_init_attr_ex {
            send_cq: cq.as_ptr(),
            recv_cq: cq.as_ptr(),
            cap,
            qp_type: IBV_QPT_RC,
            comp_mask: (IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS).0,
            pd: pd.as_ptr(),
            send_ops_flags: u64::from(ops.0),
            ..Default::default()
        };
        let lab = pd.lab();
        // SAFETY: ibv_create_qp_ex(3), with live queues and domain.
        let qp = unsafe { dispatch::ibv_create_qp_ex(lab.verbs(), lab.context(), &raw mut attr) };
        if qp.is_null() {
            return Err(errno());
        }
        // SAFETY: created just now.
        Ok(unsafe { Self::adopt(qp, pd, cq, attr.cap) })
    }

    /// The extended view.
    ///
    /// # Panics
    /// When the queue pair has none.
    fn extended(&self) -> *mut ibv_qp_ex {
        let convert = self.lab().verbs().qp_to_qp_ex.expect("a library that has extended queue pairs");
        // SAFETY: a live queue pair.
        let qp = unsafe { convert(self.as_ptr()) };
        assert!(!qp.is_null(), "ibv_qp_to_qp_ex of an extended queue pair");
        qp
    }

    /// Posts requests by `ibv_wr_start`, the builders and `ibv_wr_complete`.
    ///
    /// # Errors
    /// The errno that `ibv_wr_complete` returned.
    pub fn try_build(&self, sends: &[Send]) -> Result<(), i32> {
        let qp = self.extended();
        // SAFETY: a live extended queue pair, used by this thread only between here and the end of this function.
        unsafe { dispatch::ibv_wr_start(qp) };
        for send in sends {
            build(qp, send);
        }
        // SAFETY: as above.
        let ret = unsafe { dispatch::ibv_wr_complete(qp) };
        if ret == 0 { Ok(()) } else { Err(ret.abs()) }
    }

    /// Builds requests and gives them up with `ibv_wr_abort`.
    pub fn abort(&self, sends: &[Send]) {
        let qp = self.extended();
        // SAFETY: as in `try_build`.
        unsafe { dispatch::ibv_wr_start(qp) };
        for send in sends {
            build(qp, send);
        }
        // SAFETY: as above.
        unsafe { dispatch::ibv_wr_abort(qp) };
    }
}

/// Builds one request.
fn build(qp: *mut ibv_qp_ex, send: &Send) {
    // SAFETY: a live queue pair; the program sets this member before each request.
    unsafe { (*qp).wr_id = send.id }
    // SAFETY: as above.
    unsafe { (*qp).wr_flags = send.flags.0 & !IBV_SEND_INLINE.0 }
    let ((addr, rkey), (compare_add, swap)) = (send.remote, send.atomic);
    let imm = send.imm.to_be();
    match send.opcode {
        // SAFETY: between start and complete; memory is the caller's concern. So are the others.
        IBV_WR_SEND => unsafe { dispatch::ibv_wr_send(qp) },
        // SAFETY: as above.
        IBV_WR_SEND_WITH_IMM => unsafe { dispatch::ibv_wr_send_imm(qp, imm) },
        // SAFETY: as above.
        IBV_WR_RDMA_WRITE => unsafe { dispatch::ibv_wr_rdma_write(qp, rkey, addr) },
        // SAFETY: as above.
        IBV_WR_RDMA_WRITE_WITH_IMM => unsafe { dispatch::ibv_wr_rdma_write_imm(qp, rkey, addr, imm) },
        // SAFETY: as above.
        IBV_WR_RDMA_READ => unsafe { dispatch::ibv_wr_rdma_read(qp, rkey, addr) },
        // SAFETY: as above.
        IBV_WR_ATOMIC_CMP_AND_SWP => unsafe {
            dispatch::ibv_wr_atomic_cmp_swp(qp, rkey, addr, compare_add, swap);
        },
        // SAFETY: as above.
        IBV_WR_ATOMIC_FETCH_AND_ADD => unsafe {
            dispatch::ibv_wr_atomic_fetch_add(qp, rkey, addr, compare_add);
        },
        other => panic!("{other:?} is not built here"),
    }
    if send.flags.0 & IBV_SEND_INLINE.0 != 0 {
        let sge = send.sges[0];
        let from = std::ptr::with_exposed_provenance_mut(usize::try_from(sge.addr).expect("an address"));
        // SAFETY: inline data is readable until the call returns: the case keeps its region.
        unsafe { dispatch::ibv_wr_set_inline_data(qp, from, sge.len as usize) }
        return;
    }
    let list: Vec<ibv_sge> =
        send.sges.iter().map(|sge| ibv_sge { addr: sge.addr, length: sge.len, lkey: sge.lkey }).collect();
    match list[..] {
        // SAFETY: as above.
        [one] => unsafe { dispatch::ibv_wr_set_sge(qp, one.lkey, one.addr, one.length) },
        // SAFETY: as above; the list is copied before the call returns.
        _ => unsafe { dispatch::ibv_wr_set_sge_list(qp, list.len(), list.as_ptr()) },
    }
}

impl Node {
    /// A node with an extended queue pair.
    ///
    /// # Errors
    /// The errno of `ibv_create_qp_ex`.
    pub fn try_extended(lab: &Lab, ops: ibv_qp_create_send_ops_flags) -> Result<Self, i32> {
        let options = NodeOptions::default();
        let pd = lab.pd();
        let cq = Cq::try_new(lab, options.cq_depth, false)?;
        let mut cap = options.cap;
        cap.max_inline_data = 64;
        let qp = Qp::try_extended(&pd, &cq, cap, ops)?;
        Ok(Self { lab: lab.clone(), qp, cq, pd })
    }
}
