//! Work requests as plain values, turned into C structures when they are posted, and what completions carry in unions.
//!
//! # Safety
//! Only unions of plain data are read, each member of which is valid for every bit pattern.

#![allow(unsafe_code)]

use ibex_sys::{
    IBV_SEND_SIGNALED, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_RDMA_READ,
    IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, ibv_gid,
    ibv_send_flags, ibv_wc, ibv_wr_opcode,
};

use super::{Ah, Region};

/// A scatter/gather entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sge {
    /// Address of the first byte.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// Local key.
    pub lkey: u32,
}

/// A send work request; signalled unless [`Send::unsignalled`].
#[derive(Debug, Clone)]
pub struct Send {
    /// `wr_id`.
    pub id: u64,
    /// Opcode.
    pub opcode: ibv_wr_opcode,
    /// Local memory.
    pub sges: Vec<Sge>,
    /// Flags.
    pub flags: ibv_send_flags,
    /// Immediate data, as a number.
    pub imm: u32,
    /// Address and key of remote memory.
    pub remote: (u64, u32),
    /// `compare_add` and `swap` of an atomic.
    pub atomic: (u64, u64),
    /// Address, queue pair and key of a datagram.
    pub datagram: Option<(Ah, u32, u32)>,
}

impl Send {
    fn new(id: u64, opcode: ibv_wr_opcode, sges: &[Sge]) -> Self {
        Self {
            id,
            opcode,
            sges: sges.to_vec(),
            flags: IBV_SEND_SIGNALED,
            imm: 0,
            remote: (0, 0),
            atomic: (0, 0),
            datagram: None,
        }
    }

    /// As a datagram to a queue pair, with a key.
    pub fn datagram(self, ah: &Ah, qpn: u32, qkey: u32) -> Self {
        Self { datagram: Some((ah.clone(), qpn, qkey)), ..self }
    }

    /// SEND.
    pub fn message(id: u64, sges: &[Sge]) -> Self {
        Self::new(id, IBV_WR_SEND, sges)
    }

    /// SEND with immediate data.
    pub fn message_imm(id: u64, sges: &[Sge], imm: u32) -> Self {
        Self { imm, ..Self::new(id, IBV_WR_SEND_WITH_IMM, sges) }
    }

    /// RDMA WRITE to an offset of a region.
    pub fn write(id: u64, sges: &[Sge], target: &Region, offset: u64) -> Self {
        Self::new(id, IBV_WR_RDMA_WRITE, sges).to(target, offset)
    }

    /// RDMA WRITE with immediate data.
    pub fn write_imm(id: u64, sges: &[Sge], target: &Region, offset: u64, imm: u32) -> Self {
        Self { imm, ..Self::new(id, IBV_WR_RDMA_WRITE_WITH_IMM, sges) }.to(target, offset)
    }

    /// RDMA READ from an offset of a region.
    pub fn read(id: u64, sges: &[Sge], source: &Region, offset: u64) -> Self {
        Self::new(id, IBV_WR_RDMA_READ, sges).to(source, offset)
    }

    /// Compare and swap of eight bytes.
    pub fn compare_swap(id: u64, sge: Sge, target: &Region, offset: u64, compare: u64, swap: u64) -> Self {
        Self { atomic: (compare, swap), ..Self::new(id, IBV_WR_ATOMIC_CMP_AND_SWP, &[sge]) }
            .to(target, offset)
    }

    /// Fetch and add of eight bytes.
    pub fn fetch_add(id: u64, sge: Sge, target: &Region, offset: u64, add: u64) -> Self {
        Self { atomic: (add, 0), ..Self::new(id, IBV_WR_ATOMIC_FETCH_AND_ADD, &[sge]) }.to(target, offset)
    }

    fn to(self, region: &Region, offset: u64) -> Self {
        Self { remote: (region.addr().wrapping_add(offset), region.rkey()), ..self }
    }

    /// With another remote address and key.
    pub fn remote(self, addr: u64, rkey: u32) -> Self {
        Self { remote: (addr, rkey), ..self }
    }

    /// With one more flag.
    pub fn flag(self, flag: ibv_send_flags) -> Self {
        Self { flags: self.flags | flag, ..self }
    }

    /// Without a completion of its own when it succeeds.
    pub fn unsignalled(self) -> Self {
        Self { flags: ibv_send_flags(self.flags.0 & !IBV_SEND_SIGNALED.0), ..self }
    }
}

/// A receive work request.
#[derive(Debug, Clone)]
pub struct Recv {
    /// `wr_id`.
    pub id: u64,
    /// Local memory.
    pub sges: Vec<Sge>,
}

impl Recv {
    /// A receive into the given memory.
    pub fn new(id: u64, sges: &[Sge]) -> Self {
        Self { id, sges: sges.to_vec() }
    }
}

/// Immediate data of a completion, big-endian as it came.
pub fn imm_data(wc: &ibv_wc) -> u32 {
    // SAFETY: both members are 32-bit numbers.
    unsafe { wc.imm.imm_data }
}

/// The sixteen bytes of a GID.
pub fn gid_bytes(gid: ibv_gid) -> [u8; 16] {
    // SAFETY: every bit pattern is a raw GID.
    unsafe { gid.raw }
}
