//! Posting and polling, and the account of both.
//!
//! # Safety
//! As `world`; request lists live on the stack for the length of the call.
#![allow(unsafe_code)]

use std::ffi::c_int;

use ibex_sys::{
    IBV_SEND_INLINE, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_BIND_MW,
    IBV_WR_LOCAL_INV, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND,
    IBV_WR_SEND_WITH_IMM, IBV_WR_SEND_WITH_INV, dispatch, ibv_mw_bind, ibv_mw_bind_info, ibv_recv_wr,
    ibv_send_wr, ibv_sge, ibv_wc, ibv_wr_opcode,
};

use super::arena::MIDDLE;
use super::input::Input;
use super::world::{Owner, World, succeeded};

const OPCODES: [ibv_wr_opcode; 13] = [
    IBV_WR_SEND,
    IBV_WR_SEND,
    IBV_WR_SEND,
    IBV_WR_SEND_WITH_IMM,
    IBV_WR_RDMA_WRITE,
    IBV_WR_RDMA_WRITE_WITH_IMM,
    IBV_WR_RDMA_READ,
    IBV_WR_ATOMIC_CMP_AND_SWP,
    IBV_WR_ATOMIC_FETCH_AND_ADD,
    IBV_WR_LOCAL_INV,
    IBV_WR_BIND_MW,
    IBV_WR_SEND_WITH_INV,
    ibv_wr_opcode(77),
];

impl World<'_> {
    fn id(&mut self, owner: Owner) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.outstanding.insert(id, owner);
        id
    }

    /// A key: mostly the first region's, else any that ever was, or almost one.
    fn key(&self, input: &mut Input<'_>, remote: bool) -> u32 {
        match input.below(40) {
            0 => input.one(&self.keys),
            1 => input.one(&self.keys).wrapping_add(1),
            2 => input.word(),
            // The first region was made by `new`: its keys follow the two made up ones.
            _ => self.keys[if remote { 3 } else { 2 }],
        }
    }

    /// An address in the middle, rarely beside it.
    fn place(&self, input: &mut Input<'_>) -> u64 {
        let offset = if input.once_in(32) { u64::from(input.word()) } else { u64::from(input.byte()) * 64 };
        self.arena.at(offset)
    }

    fn elements(&self, input: &mut Input<'_>) -> Vec<ibv_sge> {
        (0..input.below(4))
            .map(|_| ibv_sge {
                addr: self.place(input),
                length: if input.once_in(32) { input.word() } else { u32::from(input.byte()) * 12 },
                lkey: self.key(input, false),
            })
            .collect()
    }

    pub(super) fn post_recv(&mut self, input: &mut Input<'_>) {
        if self.qps.is_empty() {
            return;
        }
        let at = input.below(self.qps.len());
        let (qp, owner) = (self.qps[at].qp, Owner::Qp(self.qps[at].num));
        // SAFETY: alive; the request lives until the call returns.
        self.receive("ibv_post_recv", owner, input, |wr, bad| unsafe {
            dispatch::ibv_post_recv(qp, wr, bad)
        });
    }

    pub(super) fn post_srq_recv(&mut self, input: &mut Input<'_>) {
        if self.srqs.is_empty() {
            return;
        }
        let srq = input.one(&self.srqs);
        let owner = Owner::Srq(srq as usize);
        // SAFETY: alive; the request lives until the call returns.
        let post = |wr, bad| unsafe { dispatch::ibv_post_srq_recv(srq, wr, bad) };
        self.receive("ibv_post_srq_recv", owner, input, post);
    }

    /// One receive request, posted by `post`.
    fn receive(
        &mut self,
        call: &str,
        owner: Owner,
        input: &mut Input<'_>,
        post: impl FnOnce(*mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int,
    ) {
        let mut sges = self.elements(input);
        let wr_id = self.id(owner);
        let mut wr = ibv_recv_wr {
            wr_id,
            sg_list: sges.as_mut_ptr(),
            num_sge: sges.len() as c_int,
            ..Default::default()
        };
        let mut bad = std::ptr::null_mut();
        let ret = post(&raw mut wr, &raw mut bad);
        self.posted(call, ret, wr_id, std::ptr::eq(bad, &raw const wr));
    }

    fn posted(&mut self, call: &str, ret: c_int, id: u64, named: bool) {
        if !succeeded(call, ret) {
            self.tally.refused += 1;
            self.outstanding.remove(&id);
            assert!(named, "{call} does not name the request that it refuses");
        }
    }

    pub(super) fn bind_mw(&mut self, input: &mut Input<'_>) {
        if self.qps.is_empty() || self.mws.is_empty() {
            return;
        }
        let (at, mw) = (input.below(self.qps.len()), input.one(&self.mws));
        let wr_id = self.id(Owner::Qp(self.qps[at].num));
        let bind_info = self.window(input);
        let mut bind = ibv_mw_bind { wr_id, send_flags: u32::from(input.byte() & 7), bind_info };
        // SAFETY: alive; the request lives until the call returns.
        let ret = unsafe { dispatch::ibv_bind_mw(self.qps[at].qp, mw, &raw mut bind) };
        if succeeded("ibv_bind_mw", ret) {
            // SAFETY: alive.
            self.keys.push(unsafe { (*mw).rkey });
        } else {
            self.outstanding.remove(&wr_id);
        }
    }

    fn window(&self, input: &mut Input<'_>) -> ibv_mw_bind_info {
        ibv_mw_bind_info {
            mr: input.one(&self.mrs),
            addr: self.place(input),
            length: u64::from(input.byte()) * 100,
            mw_access_flags: u32::from(input.byte() & 0x3f),
        }
    }

    pub(super) fn post_send(&mut self, input: &mut Input<'_>) {
        if self.qps.is_empty() {
            return;
        }
        let at = input.below(self.qps.len());
        let owner = Owner::Qp(self.qps[at].num);
        let mut sges = self.elements(input);
        // Inline rarely: most payloads are too long for it.
        let mut flags = u32::from(input.byte() & if input.once_in(8) { 0x1f } else { 0x17 });
        if flags & IBV_SEND_INLINE.0 != 0 {
            // Inline data is read by the call itself: it has to be the program's.
            let inside = sges.iter().all(|sge| self.arena.holds(sge.addr, u64::from(sge.length)));
            if !inside {
                flags &= !IBV_SEND_INLINE.0;
            }
        }
        let opcode = input.one(&OPCODES);
        let wr_id = self.id(owner);
        let mut wr = ibv_send_wr {
            wr_id,
            sg_list: sges.as_mut_ptr(),
            num_sge: sges.len() as c_int,
            opcode,
            send_flags: flags,
            ..Default::default()
        };
        wr.imm.imm_data = self.key(input, true);
        if self.qps[at].service == ibex_sys::IBV_QPT_UD {
            if self.ahs.is_empty() {
                self.outstanding.remove(&wr_id);
                return;
            }
            wr.wr.ud.ah = input.one(&self.ahs);
            wr.wr.ud.remote_qpn = input.one(&self.numbers);
            wr.wr.ud.remote_qkey = if input.once_in(8) { input.word() } else { 0x1234 };
        } else if matches!(opcode, IBV_WR_ATOMIC_CMP_AND_SWP | IBV_WR_ATOMIC_FETCH_AND_ADD) {
            wr.wr.atomic.remote_addr = self.place(input);
            wr.wr.atomic.rkey = self.key(input, true);
            wr.wr.atomic.compare_add = u64::from(input.byte());
        } else {
            wr.wr.rdma.remote_addr = self.place(input);
            wr.wr.rdma.rkey = self.key(input, true);
        }
        if opcode == IBV_WR_BIND_MW {
            if self.mws.is_empty() {
                self.outstanding.remove(&wr_id);
                return;
            }
            wr.tail.bind_mw.mw = input.one(&self.mws);
            wr.tail.bind_mw.rkey = self.key(input, true);
            wr.tail.bind_mw.bind_info = self.window(input);
            self.keys.push(self.key(input, true));
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: alive; the request and what it points to live until the call returns.
        let ret = unsafe { dispatch::ibv_post_send(self.qps[at].qp, &raw mut wr, &raw mut bad) };
        self.posted("ibv_post_send", ret, wr_id, std::ptr::eq(bad, &raw const wr));
        // Not more than programs do: keys would fill memory.
        self.keys.truncate(256);
    }

    /// Polls every queue; each completion must be of something outstanding.
    pub(super) fn poll(&mut self, input: &mut Input<'_>) {
        let rounds = 1 + input.below(4);
        for _ in 0..rounds {
            for index in 0..self.cqs.len() {
                let mut wcs = [ibv_wc::default(); 8];
                // SAFETY: alive; room for eight.
                let count = unsafe { dispatch::ibv_poll_cq(self.cqs[index], 8, wcs.as_mut_ptr()) };
                let count = usize::try_from(count).unwrap_or_else(|_| panic!("ibv_poll_cq: {count}"));
                for wc in &wcs[..count] {
                    if wc.status.0 == 0 {
                        self.tally.succeeded += 1;
                    } else {
                        self.tally.failed += 1;
                    }
                    let owner = self.outstanding.remove(&wc.wr_id);
                    assert!(owner.is_some(), "a completion of nothing that is outstanding: {wc:?}");
                    if let Some(Owner::Qp(num)) = owner {
                        assert_eq!(wc.qp_num, num, "a completion of another queue pair's request: {wc:?}");
                    }
                    assert!(wc.byte_len as usize <= 4 * MIDDLE || wc.status.0 != 0, "{wc:?}");
                }
            }
        }
    }
}
