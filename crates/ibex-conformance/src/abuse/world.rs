//! The objects of a sequence: making, changing, asking, destroying.
//!
//! # Safety
//! Only pointers that a call gave and no call took back are passed (I3, I4 are the device's to keep beyond that); attribute
//! structures live on the stack for the length of the call; memory named by requests is the arena, which outlives all objects,
//! or nobody's, which the device must find out.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_int;

use ibex_sys::{
    IBV_MW_TYPE_1, IBV_MW_TYPE_2, IBV_QPS_ERR, IBV_QPS_INIT, IBV_QPS_RESET, IBV_QPS_RTR, IBV_QPS_RTS,
    IBV_QPS_SQD, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, dispatch, ibv_ah, ibv_ah_attr, ibv_cq, ibv_gid,
    ibv_global_route, ibv_mr, ibv_mtu, ibv_mw, ibv_pd, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap,
    ibv_qp_init_attr, ibv_qp_state, ibv_qp_type, ibv_srq, ibv_srq_attr, ibv_srq_init_attr,
};

use super::arena::{Arena, MIDDLE};
use super::input::Input;
use super::{Tally, check_errno};
use crate::lab::Lab;

/// Objects of each kind at most: enough to get them mixed up.
const MOST: usize = 5;

/// Who a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// A queue pair's number.
    Qp(u32),
    /// A shared receive queue's address.
    Srq(usize),
}

/// A queue pair.
pub(super) struct Pair {
    pub(super) qp: *mut ibv_qp,
    pub(super) num: u32,
    pub(super) service: ibv_qp_type,
}

/// Everything that is alive, and what is remembered of the dead.
pub(super) struct World<'a> {
    pub(super) lab: &'a Lab,
    pub(super) arena: Arena,
    pub(super) pds: Vec<*mut ibv_pd>,
    pub(super) cqs: Vec<*mut ibv_cq>,
    pub(super) mrs: Vec<*mut ibv_mr>,
    pub(super) mws: Vec<*mut ibv_mw>,
    pub(super) ahs: Vec<*mut ibv_ah>,
    pub(super) srqs: Vec<*mut ibv_srq>,
    pub(super) qps: Vec<Pair>,
    /// Keys of regions and windows, dead and alive.
    pub(super) keys: Vec<u32>,
    /// Numbers of queue pairs, dead and alive.
    pub(super) numbers: Vec<u32>,
    /// Requests posted whose completion has not come.
    pub(super) outstanding: HashMap<u64, Owner>,
    pub(super) next_id: u64,
    pub(super) tally: Tally,
}

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A call that gives 0 or an errno; whether it succeeded.
pub(super) fn succeeded(call: &str, ret: c_int) -> bool {
    if ret != 0 {
        check_errno(call, ret);
    }
    ret == 0
}

/// A call that gives a pointer, or null with errno.
fn made<T>(call: &str, pointer: *mut T) -> Option<*mut T> {
    if pointer.is_null() {
        check_errno(call, last_errno());
        return None;
    }
    Some(pointer)
}

impl<'a> World<'a> {
    /// With two connected queue pairs and what they need, so that short sequences get somewhere.
    pub(super) fn new(lab: &'a Lab, input: &mut Input<'_>) -> Self {
        let mut world = Self {
            lab,
            arena: Arena::new(),
            pds: Vec::new(),
            cqs: Vec::new(),
            mrs: Vec::new(),
            mws: Vec::new(),
            ahs: Vec::new(),
            srqs: Vec::new(),
            qps: Vec::new(),
            keys: vec![0, u32::MAX],
            numbers: vec![0, 1, 0xff_ffff],
            outstanding: HashMap::new(),
            next_id: 1,
            tally: Tally::default(),
        };
        let nothing = &mut Input::new(&[]);
        world.alloc_pd();
        world.create_cq(nothing);
        world.reg_mr(nothing);
        world.create_ah(nothing);
        let service = [IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD][input.below(4)];
        let cap = ibv_qp_cap {
            max_send_wr: 16,
            max_recv_wr: 16,
            max_send_sge: 3,
            max_recv_sge: 3,
            max_inline_data: 64,
        };
        for _ in 0..2 {
            let (pd, cq) = (world.pds[0], world.cqs[0]);
            let init =
                ibv_qp_init_attr { send_cq: cq, recv_cq: cq, cap, qp_type: service, ..Default::default() };
            world.make_qp(pd, init);
        }
        // Left and right: 0 and 1; the MTU of both: 4096, or what the port has.
        world.connect(&mut Input::new(&[0, 1, 4, 4]));
        world
    }

    /// One call.
    pub(super) fn call(&mut self, input: &mut Input<'_>) {
        match input.below(64) {
            0 => self.alloc_pd(),
            1 => self.dealloc_pd(input),
            2 => self.create_cq(input),
            3 => self.destroy_cq(input),
            4 => self.reg_mr(input),
            5 => self.dereg_mr(input),
            6 => self.rereg_mr(input),
            7 => self.alloc_mw(input),
            8 => self.dealloc_mw(input),
            9 => self.create_ah(input),
            10 => self.destroy_ah(input),
            11 => self.create_srq(input),
            12 => self.change_srq(input),
            13 => self.destroy_srq(input),
            14 => self.create_qp(input),
            15 => self.destroy_qp(input),
            16 => self.modify_qp(input),
            17 => self.query(input),
            18 => self.resize_cq(input),
            19 => self.bind_mw(input),
            20 => self.post_srq_recv(input),
            21..=26 => self.connect(input),
            27..=36 => self.post_recv(input),
            37..=50 => self.post_send(input),
            _ => self.poll(input),
        }
    }

    fn alloc_pd(&mut self) {
        if self.pds.len() < MOST {
            // SAFETY: ibv_alloc_pd(3), with an open context.
            let pd = unsafe { (self.lab.verbs().alloc_pd)(self.lab.context()) };
            self.pds.extend(made("ibv_alloc_pd", pd));
        }
    }

    fn dealloc_pd(&mut self, input: &mut Input<'_>) {
        if self.pds.len() > 1 {
            let at = input.below(self.pds.len());
            // SAFETY: alive.
            let ret = unsafe { (self.lab.verbs().dealloc_pd)(self.pds[at]) };
            if succeeded("ibv_dealloc_pd", ret) {
                self.pds.swap_remove(at);
            }
        }
    }

    fn create_cq(&mut self, input: &mut Input<'_>) {
        if self.cqs.len() < MOST {
            let entries = if self.cqs.is_empty() { 256 } else { input.number(64) as c_int };
            // SAFETY: ibv_create_cq(3), without a channel.
            let cq = unsafe {
                (self.lab.verbs().create_cq)(
                    self.lab.context(),
                    entries.min(1 << 12),
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    0,
                )
            };
            self.cqs.extend(made("ibv_create_cq", cq));
        }
    }

    fn destroy_cq(&mut self, input: &mut Input<'_>) {
        if self.cqs.len() > 1 {
            let at = input.below(self.cqs.len());
            // SAFETY: alive; no event of it was got.
            let ret = unsafe { (self.lab.verbs().destroy_cq)(self.cqs[at]) };
            if succeeded("ibv_destroy_cq", ret) {
                self.cqs.swap_remove(at);
            }
        }
    }

    fn resize_cq(&mut self, input: &mut Input<'_>) {
        let cq = input.one(&self.cqs);
        let entries = (input.number(128) as c_int).min(1 << 12);
        // SAFETY: alive.
        let ret = unsafe { (self.lab.verbs().resize_cq)(cq, entries) };
        succeeded("ibv_resize_cq", ret);
    }

    /// A range, mostly inside the middle; and whether it is.
    fn range(&self, input: &mut Input<'_>) -> (u64, u64) {
        let offset = if input.once_in(8) { u64::from(input.word()) } else { u64::from(input.byte()) * 256 };
        let len = if input.once_in(8) { u64::from(input.word()) } else { u64::from(input.byte()) * 300 };
        (self.arena.at(offset % (2 * MIDDLE as u64)), len)
    }

    fn reg_mr(&mut self, input: &mut Input<'_>) {
        if self.mrs.len() >= 2 * MOST {
            return;
        }
        let pd = input.one(&self.pds);
        let (mut addr, mut len) = self.range(input);
        let mut access = c_int::from(input.byte() & 0x3f);
        if self.mrs.is_empty() {
            (addr, len, access) = (self.arena.at(0), MIDDLE as u64, 0x1f);
        } else if !self.arena.holds(addr, len) && addr >= 4096 {
            // A program that registers memory of others' has only itself to blame: absurd ones must be unmapped.
            addr %= 4096;
        }
        // SAFETY: ibv_reg_mr(3): memory of the arena, or an address that is never mapped, which it must find out.
        let mr = unsafe {
            (self.lab.verbs().reg_mr)(
                pd,
                std::ptr::with_exposed_provenance_mut(addr as usize),
                len as usize,
                access,
            )
        };
        if let Some(mr) = made("ibv_reg_mr", mr) {
            self.mrs.push(mr);
            self.know(mr);
        }
    }

    fn know(&mut self, mr: *mut ibv_mr) {
        // SAFETY: alive.
        let public = unsafe { &*mr };
        self.keys.extend([public.lkey, public.rkey]);
    }

    fn dereg_mr(&mut self, input: &mut Input<'_>) {
        if self.mrs.len() > 1 {
            let at = input.below(self.mrs.len());
            // SAFETY: alive.
            let ret = unsafe { (self.lab.verbs().dereg_mr)(self.mrs[at]) };
            if succeeded("ibv_dereg_mr", ret) {
                self.mrs.swap_remove(at);
            }
        }
    }

    fn rereg_mr(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.mrs.len());
        let pd = input.one(&self.pds);
        let (mut addr, len) = self.range(input);
        if !self.arena.holds(addr, len) {
            addr %= 4096;
        }
        let (flags, access) = (c_int::from(input.byte() & 0xf), c_int::from(input.byte() & 0x1f));
        let memory = std::ptr::with_exposed_provenance_mut(addr as usize);
        // SAFETY: alive; the memory is as in `reg_mr`.
        let ret =
            unsafe { (self.lab.verbs().rereg_mr)(self.mrs[at], flags, pd, memory, len as usize, access) };
        if ret == 0 {
            self.know(self.mrs[at]);
        } else {
            check_errno("ibv_rereg_mr", last_errno());
        }
    }

    fn alloc_mw(&mut self, input: &mut Input<'_>) {
        if self.mws.len() < MOST {
            let (pd, kind) = (input.one(&self.pds), input.one(&[IBV_MW_TYPE_1, IBV_MW_TYPE_2]));
            // SAFETY: alive.
            let mw = unsafe { dispatch::ibv_alloc_mw(pd, kind) };
            if let Some(mw) = made("ibv_alloc_mw", mw) {
                self.mws.push(mw);
                // SAFETY: alive.
                self.keys.push(unsafe { (*mw).rkey });
            }
        }
    }

    fn dealloc_mw(&mut self, input: &mut Input<'_>) {
        if !self.mws.is_empty() {
            let at = input.below(self.mws.len());
            // SAFETY: alive.
            let ret = unsafe { dispatch::ibv_dealloc_mw(self.mws[at]) };
            if succeeded("ibv_dealloc_mw", ret) {
                self.mws.swap_remove(at);
            }
        }
    }

    fn address(&self, input: &mut Input<'_>) -> ibv_ah_attr {
        let (index, own) = self.lab.gid();
        let gid = if input.once_in(16) { ibv_gid { raw: [input.byte(); 16] } } else { own };
        let sgid_index = if input.once_in(16) { input.byte() } else { index };
        ibv_ah_attr {
            grh: ibv_global_route { dgid: gid, sgid_index, hop_limit: 64, ..Default::default() },
            is_global: u8::from(!input.once_in(16)),
            port_num: if input.once_in(16) { input.byte() } else { 1 },
            ..Default::default()
        }
    }

    fn create_ah(&mut self, input: &mut Input<'_>) {
        if self.ahs.len() < MOST {
            let pd = input.one(&self.pds);
            let mut attr = self.address(input);
            // SAFETY: alive; the attributes are readable.
            let ah = unsafe { (self.lab.verbs().create_ah)(pd, &raw mut attr) };
            self.ahs.extend(made("ibv_create_ah", ah));
        }
    }

    fn destroy_ah(&mut self, input: &mut Input<'_>) {
        if !self.ahs.is_empty() {
            let at = input.below(self.ahs.len());
            // SAFETY: alive.
            let ret = unsafe { (self.lab.verbs().destroy_ah)(self.ahs[at]) };
            if succeeded("ibv_destroy_ah", ret) {
                self.ahs.swap_remove(at);
            }
        }
    }

    fn create_srq(&mut self, input: &mut Input<'_>) {
        if self.srqs.len() < MOST {
            let pd = input.one(&self.pds);
            let attr = ibv_srq_attr { max_wr: input.number(32), max_sge: input.number(4), srq_limit: 0 };
            let mut init = ibv_srq_init_attr { attr, ..Default::default() };
            // SAFETY: alive; the attributes are readable and writable.
            let srq = unsafe { (self.lab.verbs().create_srq)(pd, &raw mut init) };
            self.srqs.extend(made("ibv_create_srq", srq));
        }
    }

    fn change_srq(&mut self, input: &mut Input<'_>) {
        if !self.srqs.is_empty() {
            let srq = input.one(&self.srqs);
            let mut attr = ibv_srq_attr { max_wr: input.number(64), max_sge: 0, srq_limit: input.number(32) };
            let mask = c_int::from(input.byte() & 7);
            // SAFETY: alive; the attributes are readable.
            let ret = unsafe { (self.lab.verbs().modify_srq)(srq, &raw mut attr, mask) };
            succeeded("ibv_modify_srq", ret);
        }
    }

    fn destroy_srq(&mut self, input: &mut Input<'_>) {
        if !self.srqs.is_empty() {
            let at = input.below(self.srqs.len());
            // SAFETY: alive; no event of it was got.
            let ret = unsafe { (self.lab.verbs().destroy_srq)(self.srqs[at]) };
            if succeeded("ibv_destroy_srq", ret) {
                let gone = Owner::Srq(self.srqs.swap_remove(at) as usize);
                self.outstanding.retain(|_, owner| *owner != gone);
            }
        }
    }

    fn create_qp(&mut self, input: &mut Input<'_>) {
        if self.qps.len() >= MOST {
            return;
        }
        let pd = input.one(&self.pds);
        let service =
            input.one(&[IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, ibv_qp_type(8), ibv_qp_type(99)]);
        let srq = if self.srqs.is_empty() || !input.once_in(3) {
            std::ptr::null_mut()
        } else {
            input.one(&self.srqs)
        };
        let cap = ibv_qp_cap {
            max_send_wr: input.number(32),
            max_recv_wr: input.number(32),
            max_send_sge: input.number(5),
            max_recv_sge: input.number(5),
            max_inline_data: input.number(100),
        };
        let init = ibv_qp_init_attr {
            send_cq: input.one(&self.cqs),
            recv_cq: input.one(&self.cqs),
            srq,
            cap,
            qp_type: service,
            sq_sig_all: c_int::from(input.byte() & 1),
            ..Default::default()
        };
        self.make_qp(pd, init);
    }

    fn make_qp(&mut self, pd: *mut ibv_pd, mut init: ibv_qp_init_attr) {
        let service = init.qp_type;
        // SAFETY: alive; the attributes are readable and writable.
        let qp = unsafe { (self.lab.verbs().create_qp)(pd, &raw mut init) };
        if let Some(qp) = made("ibv_create_qp", qp) {
            // SAFETY: alive.
            let num = unsafe { (*qp).qp_num };
            self.numbers.push(num);
            self.qps.push(Pair { qp, num, service });
        }
    }

    fn destroy_qp(&mut self, input: &mut Input<'_>) {
        if !self.qps.is_empty() {
            let at = input.below(self.qps.len());
            // SAFETY: alive; no event of it was got.
            let ret = unsafe { (self.lab.verbs().destroy_qp)(self.qps[at].qp) };
            if succeeded("ibv_destroy_qp", ret) {
                let gone = Owner::Qp(self.qps.swap_remove(at).num);
                self.outstanding.retain(|_, owner| *owner != gone);
            }
        }
    }

    fn modify(&mut self, at: usize, attr: &ibv_qp_attr, mask: u32) {
        let mut attr = *attr;
        let state = ibv_qp_attr_mask(mask).contains(ibex_sys::IBV_QP_STATE).then_some(attr.qp_state);
        // SAFETY: alive; the attributes are readable.
        let ret = unsafe { (self.lab.verbs().modify_qp)(self.qps[at].qp, &raw mut attr, mask as c_int) };
        if succeeded("ibv_modify_qp", ret) && state == Some(IBV_QPS_RESET) {
            let gone = Owner::Qp(self.qps[at].num);
            self.outstanding.retain(|_, owner| *owner != gone);
        }
    }

    /// Two queue pairs (or one with itself) all the way to RTS.
    fn connect(&mut self, input: &mut Input<'_>) {
        if self.qps.is_empty() {
            return;
        }
        let (left, right) = (input.below(self.qps.len()), input.below(self.qps.len()));
        let (index, gid) = self.lab.gid();
        for (at, other) in [(left, right), (right, left)] {
            let service = self.qps[at].service;
            let number = self.qps[other].num;
            let base = ibv_qp_attr {
                port_num: 1,
                qp_access_flags: 0xe,
                qkey: 0x1234,
                path_mtu: ibv_mtu(1 + input.below(5) as u32),
                dest_qp_num: number,
                max_dest_rd_atomic: 4,
                max_rd_atomic: 4,
                min_rnr_timer: 1,
                timeout: 10,
                retry_cnt: 1,
                rnr_retry: 1,
                ah_attr: ibv_ah_attr {
                    grh: ibv_global_route {
                        dgid: gid,
                        sgid_index: index,
                        hop_limit: 64,
                        ..Default::default()
                    },
                    is_global: 1,
                    port_num: 1,
                    ..Default::default()
                },
                ..Default::default()
            };
            use ibex_sys as s;
            let (init, rtr, rts) = if service == IBV_QPT_UD {
                (s::IBV_QP_QKEY, ibv_qp_attr_mask(0), s::IBV_QP_SQ_PSN)
            } else if service == IBV_QPT_UC {
                (
                    s::IBV_QP_ACCESS_FLAGS,
                    s::IBV_QP_AV | s::IBV_QP_PATH_MTU | s::IBV_QP_DEST_QPN | s::IBV_QP_RQ_PSN,
                    s::IBV_QP_SQ_PSN,
                )
            } else {
                (
                    s::IBV_QP_ACCESS_FLAGS,
                    s::IBV_QP_AV
                        | s::IBV_QP_PATH_MTU
                        | s::IBV_QP_DEST_QPN
                        | s::IBV_QP_RQ_PSN
                        | s::IBV_QP_MAX_DEST_RD_ATOMIC
                        | s::IBV_QP_MIN_RNR_TIMER,
                    s::IBV_QP_SQ_PSN
                        | s::IBV_QP_TIMEOUT
                        | s::IBV_QP_RETRY_CNT
                        | s::IBV_QP_RNR_RETRY
                        | s::IBV_QP_MAX_QP_RD_ATOMIC,
                )
            };
            let steps = [
                (IBV_QPS_RESET, ibv_qp_attr_mask(0)),
                (IBV_QPS_INIT, init | s::IBV_QP_PKEY_INDEX | s::IBV_QP_PORT),
                (IBV_QPS_RTR, rtr),
                (IBV_QPS_RTS, rts),
            ];
            for (state, mask) in steps {
                let attr = ibv_qp_attr { qp_state: state, ..base };
                self.modify(at, &attr, (mask | s::IBV_QP_STATE).0);
            }
        }
    }

    fn modify_qp(&mut self, input: &mut Input<'_>) {
        if self.qps.is_empty() {
            return;
        }
        let at = input.below(self.qps.len());
        let states = [
            IBV_QPS_RESET,
            IBV_QPS_INIT,
            IBV_QPS_RTR,
            IBV_QPS_RTS,
            IBV_QPS_SQD,
            IBV_QPS_ERR,
            ibv_qp_state(9),
        ];
        let attr = ibv_qp_attr {
            qp_state: input.one(&states),
            cur_qp_state: input.one(&states),
            path_mtu: ibv_mtu(input.number(6)),
            qkey: input.word(),
            rq_psn: input.number(20),
            sq_psn: input.number(20),
            dest_qp_num: input.one(&self.numbers),
            qp_access_flags: input.number(31),
            ah_attr: self.address(input),
            pkey_index: input.number(1) as u16,
            max_rd_atomic: input.number(17) as u8,
            max_dest_rd_atomic: input.number(17) as u8,
            min_rnr_timer: input.number(32) as u8,
            port_num: input.number(2) as u8,
            timeout: 10u8.wrapping_add(input.number(3) as u8),
            retry_cnt: input.number(1) as u8,
            rnr_retry: input.number(1) as u8,
            ..Default::default()
        };
        let mask = if input.once_in(4) { input.word() & 0x1f_ffff } else { ibex_sys::IBV_QP_STATE.0 };
        self.modify(at, &attr, mask);
    }

    fn query(&mut self, input: &mut Input<'_>) {
        if let (false, 0) = (self.qps.is_empty(), input.below(2)) {
            let pair = &self.qps[input.below(self.qps.len())];
            let (mut attr, mut init) = (ibv_qp_attr::default(), ibv_qp_init_attr::default());
            // SAFETY: alive; the attributes are writable.
            let ret =
                unsafe { (self.lab.verbs().query_qp)(pair.qp, &raw mut attr, 0x1f_ffff, &raw mut init) };
            assert_eq!(ret, 0, "ibv_query_qp");
            assert_eq!(init.qp_type, pair.service, "ibv_query_qp tells another service");
        } else if !self.srqs.is_empty() {
            let mut attr = ibv_srq_attr::default();
            // SAFETY: alive; the attributes are writable.
            let ret = unsafe { (self.lab.verbs().query_srq)(input.one(&self.srqs), &raw mut attr) };
            assert_eq!(ret, 0, "ibv_query_srq");
        }
    }

    /// Destroys everything, which must be possible in the right order; nothing may have been touched that was not registered.
    pub(super) fn end(mut self) -> Tally {
        let verbs = self.lab.verbs();
        for pair in self.qps.drain(..) {
            // SAFETY: alive.
            assert_eq!(unsafe { (verbs.destroy_qp)(pair.qp) }, 0, "ibv_destroy_qp");
        }
        for srq in self.srqs.drain(..) {
            // SAFETY: alive.
            assert_eq!(unsafe { (verbs.destroy_srq)(srq) }, 0, "ibv_destroy_srq");
        }
        for ah in self.ahs.drain(..) {
            // SAFETY: alive.
            assert_eq!(unsafe { (verbs.destroy_ah)(ah) }, 0, "ibv_destroy_ah");
        }
        for mw in self.mws.drain(..) {
            // SAFETY: alive.
            assert_eq!(unsafe { dispatch::ibv_dealloc_mw(mw) }, 0, "ibv_dealloc_mw");
        }
        for mr in self.mrs.drain(..) {
            // SAFETY: alive.
            assert_eq!(unsafe { (verbs.dereg_mr)(mr) }, 0, "ibv_dereg_mr");
        }
        for cq in self.cqs.drain(..) {
            // SAFETY: alive.
            assert_eq!(unsafe { (verbs.destroy_cq)(cq) }, 0, "ibv_destroy_cq");
        }
        for pd in self.pds.drain(..) {
            // SAFETY: alive.
            assert_eq!(unsafe { (verbs.dealloc_pd)(pd) }, 0, "ibv_dealloc_pd");
        }
        self.arena.check();
        self.tally
    }
}
