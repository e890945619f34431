//! Memory regions: `ibv_mr`, access flags, re-registration, advice, DMA handles.
//!
//! Man pages: `ibv_reg_mr(3)`, `ibv_rereg_mr(3)`, `ibv_reg_dmabuf_mr(3)`, `ibv_reg_mr_ex(3)`, `ibv_advise_mr(3)`,
//! `ibv_alloc_dmah(3)`.
#![allow(missing_docs, reason = "members and constants carry their C names; the man page documents them")]

use core::ffi::{c_int, c_void};

use super::{ibv_context, ibv_pd};
use crate::macros::{c_data, c_enum, c_flags, c_object, c_opaque};

c_flags! {
    /// What may be done with a region, locally and remotely.
    pub flags ibv_access_flags: u32, "IBV_ACCESS_" {
        IBV_ACCESS_LOCAL_WRITE = 1,
        IBV_ACCESS_REMOTE_WRITE = 1 << 1,
        IBV_ACCESS_REMOTE_READ = 1 << 2,
        IBV_ACCESS_REMOTE_ATOMIC = 1 << 3,
        IBV_ACCESS_MW_BIND = 1 << 4,
        IBV_ACCESS_ZERO_BASED = 1 << 5,
        IBV_ACCESS_ON_DEMAND = 1 << 6,
        IBV_ACCESS_HUGETLB = 1 << 7,
        IBV_ACCESS_FLUSH_GLOBAL = 1 << 8,
        IBV_ACCESS_FLUSH_PERSISTENT = 1 << 9,
        IBV_ACCESS_RELAXED_ORDERING = 1 << 20,
    }

    /// What `ibv_rereg_mr` is to change.
    pub flags ibv_rereg_mr_flags: u32, "IBV_REREG_MR_" {
        IBV_REREG_MR_CHANGE_TRANSLATION = 1 << 0,
        IBV_REREG_MR_CHANGE_PD = 1 << 1,
        IBV_REREG_MR_CHANGE_ACCESS = 1 << 2,
        IBV_REREG_MR_FLAGS_SUPPORTED = 7,
    }

    /// Bits of [`ibv_mr_init_attr::comp_mask`].
    pub flags ibv_mr_init_attr_mask: u32, "IBV_REG_MR_MASK_" {
        IBV_REG_MR_MASK_IOVA = 1 << 0,
        IBV_REG_MR_MASK_ADDR = 1 << 1,
        IBV_REG_MR_MASK_FD = 1 << 2,
        IBV_REG_MR_MASK_FD_OFFSET = 1 << 3,
        IBV_REG_MR_MASK_DMAH = 1 << 4,
        IBV_REG_MR_MASK_BUF = 1 << 5,
    }

    /// Bits of [`ibv_dmah_init_attr::comp_mask`].
    pub flags ibv_dmah_init_attr_mask: u32, "IBV_DMAH_INIT_ATTR_MASK_" {
        IBV_DMAH_INIT_ATTR_MASK_CPU_ID = 1 << 0,
        IBV_DMAH_INIT_ATTR_MASK_PH = 1 << 1,
        IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE = 1 << 2,
    }
}

/// The lowest optional access flag; a kernel that does not know an optional flag ignores it.
pub const IBV_ACCESS_OPTIONAL_FIRST: u32 = 1 << 20;
/// All optional access flags (bits 20 to 29).
pub const IBV_ACCESS_OPTIONAL_RANGE: u32 = 0x3ff0_0000;

/// Flag of `ibv_advise_mr`: return only when the advice has been carried out.
pub const IBV_ADVISE_MR_FLAG_FLUSH: u32 = 1 << 0;

c_enum! {
    /// How far a failed `ibv_rereg_mr` got, which says whether the old region is still usable.
    pub enum ibv_rereg_mr_err_code: i32, "IBV_REREG_MR_ERR_" {
        IBV_REREG_MR_ERR_INPUT = -1,
        IBV_REREG_MR_ERR_DONT_FORK_NEW = -2,
        IBV_REREG_MR_ERR_DO_FORK_OLD = -3,
        IBV_REREG_MR_ERR_CMD = -4,
        IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW = -5,
    }

    /// Advice for `ibv_advise_mr`.
    pub enum ibv_advise_mr_advice: u32, "IBV_ADVISE_MR_ADVICE_" {
        IBV_ADVISE_MR_ADVICE_PREFETCH = 0,
        IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE = 1,
        IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT = 2,
    }

    /// Kind of memory behind a DMA handle, for TLP processing hints.
    pub enum ibv_tph_mem_type: u32, "IBV_TPH_MEM_TYPE_" {
        IBV_TPH_MEM_TYPE_VM = 0,
        IBV_TPH_MEM_TYPE_PM = 1,
    }
}

c_opaque! {
    /// A buffer from `ibv_alloc_buf` (rdma-core 64).
    pub struct ibv_buf;
}

c_object! {
    /// A memory region.
    pub struct ibv_mr {
        pub context: *mut ibv_context,
        pub pd: *mut ibv_pd,
        pub addr: *mut c_void,
        pub length: usize,
        pub handle: u32,
        pub lkey: u32,
        pub rkey: u32,
    }

    /// A DMA handle.
    pub struct ibv_dmah {
        pub context: *mut ibv_context,
    }
}

c_data! {
    /// Input of `ibv_reg_mr_ex`.
    pub struct ibv_mr_init_attr {
        pub length: usize,
        pub access: c_int,
        pub comp_mask: u64,
        pub iova: u64,
        pub addr: *mut c_void,
        pub fd: c_int,
        pub fd_offset: u64,
        pub dmah: *mut ibv_dmah,
        pub buf: *mut ibv_buf,
    }

    /// Input of `ibv_alloc_dmah`.
    pub struct ibv_dmah_init_attr {
        pub comp_mask: u32,
        pub cpu_id: u32,
        pub ph: u8,
        pub tph_mem_type: u8,
    }
}
