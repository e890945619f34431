//! What the transport reaches through: scatter/gather lists, keys, receive requests of one queue pair.
//!
//! Owns the walk over a scatter/gather list and the mapping of refusals to the transport's faults. Bounds and rights
//! are [`crate::mr`]'s, loads and stores [`crate::memory`]'s.

use ibex_proto::{AtomicOp, Host, LocalFault, RecvWqe, RemoteAccess, RemoteFault};
use ibex_sys::ibv_sge;
use ibex_wire::Rkey;

use super::queue::{RecvQueue, SendQueue};
use crate::memory::UserMemory;
use crate::mr::{MrFault, MrTable, PdNumber, access};

/// The host of one call into the transport. Holding `mrs`, the guarded table, keeps every region it finds from being
/// deregistered before the access ends.
pub(crate) struct Hands<'a> {
    pub(crate) mrs: &'a MrTable,
    pub(crate) pd: PdNumber,
    /// The queue pair's number.
    pub(crate) qpn: u32,
    pub(crate) send: &'a SendQueue,
    pub(crate) recv: &'a mut RecvQueue,
}

impl From<MrFault> for LocalFault {
    fn from(_: MrFault) -> LocalFault {
        LocalFault::Protection
    }
}

impl From<MrFault> for RemoteFault {
    fn from(_: MrFault) -> RemoteFault {
        RemoteFault::Access
    }
}

/// Calls `each` for every stretch of memory that bytes `offset..offset + len` of a list cover, with its region's
/// memory, its offset there, and its place in `0..len`.
#[inline(always)]
pub(super) fn stretches(
    mrs: &MrTable,
    pd: PdNumber,
    list: &[ibv_sge],
    offset: u32,
    len: usize,
    write: bool,
    mut each: impl FnMut(&UserMemory, usize, std::ops::Range<usize>),
) -> Result<(), LocalFault> {
    // Mostly one element, for which a loop is too much.
    if let (0, [one]) = (offset, list)
        && len > 0
        && len <= one.length as usize
    {
        let (memory, at) = mrs.local(pd, one.lkey, one.addr, len as u64, write)?;
        each(memory, at, 0..len);
        return Ok(());
    }
    walk(mrs, pd, list, offset, len, write, each)
}

/// The same for any list.
#[inline(never)]
fn walk(
    mrs: &MrTable,
    pd: PdNumber,
    list: &[ibv_sge],
    offset: u32,
    len: usize,
    write: bool,
    mut each: impl FnMut(&UserMemory, usize, std::ops::Range<usize>),
) -> Result<(), LocalFault> {
    let mut skip = u64::from(offset);
    let mut done = 0;
    for sge in list {
        let length = u64::from(sge.length);
        if skip >= length {
            skip -= length;
            continue;
        }
        let part = usize::try_from(length - skip).map_or(len - done, |rest| rest.min(len - done));
        let va = sge.addr.checked_add(skip).ok_or(LocalFault::Protection)?;
        let (memory, at) = mrs.local(pd, sge.lkey, va, part as u64, write)?;
        each(memory, at, done..done + part);
        done += part;
        skip = 0;
        if done == len {
            return Ok(());
        }
    }
    if done == len { Ok(()) } else { Err(LocalFault::Length) }
}

/// The bytes a list covers, at most `u32::MAX`, which is above every limit.
#[inline]
pub(crate) fn capacity(list: &[ibv_sge]) -> u32 {
    // Mostly one element, for which a loop is too much.
    if let [one] = list {
        return one.length;
    }
    let bytes: u64 = list.iter().map(|sge| u64::from(sge.length)).sum();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Host for Hands<'_> {
    fn gather(&mut self, cookie: u64, offset: u32, out: &mut [u8]) -> Result<(), LocalFault> {
        if let Some(bytes) = self.send.inline(cookie) {
            let start = offset as usize;
            let part = bytes.get(start..start + out.len()).ok_or(LocalFault::Length)?;
            out.copy_from_slice(part);
            return Ok(());
        }
        let list = self.send.list(cookie);
        stretches(self.mrs, self.pd, list, offset, out.len(), false, |memory, at, range| {
            memory.read(at, &mut out[range]);
        })
    }

    fn scatter(&mut self, cookie: u64, offset: u32, data: &[u8]) -> Result<(), LocalFault> {
        let list = self.send.list(cookie);
        stretches(self.mrs, self.pd, list, offset, data.len(), true, |memory, at, range| {
            memory.write(at, &data[range], false);
        })
    }

    fn take_recv(&mut self) -> Option<RecvWqe> {
        let cookie = self.recv.take()?;
        Some(RecvWqe { cookie, capacity: capacity(self.recv.list(cookie)) })
    }

    fn place(&mut self, cookie: u64, offset: u32, data: &[u8], last: bool) -> Result<(), LocalFault> {
        let list = self.recv.list(cookie);
        let len = data.len();
        stretches(
            self.mrs,
            self.recv.pd().unwrap_or(self.pd),
            list,
            offset,
            len,
            true,
            |memory, at, range| {
                let ends = last && range.end == len;
                memory.write(at, &data[range], ends);
            },
        )
    }

    fn check_remote(
        &mut self,
        rkey: Rkey,
        va: u64,
        len: u32,
        access: RemoteAccess,
    ) -> Result<(), RemoteFault> {
        // The transport's rights have the bits of the verbs' access flags.
        self.mrs.remote(self.pd, self.qpn, rkey.0, va, u64::from(len), u32::from(access.0))?;
        Ok(())
    }

    fn write_remote(&mut self, rkey: Rkey, va: u64, data: &[u8], last: bool) -> Result<(), RemoteFault> {
        let len = data.len() as u64;
        let found = self.mrs.remote(self.pd, self.qpn, rkey.0, va, len, access::REMOTE_WRITE)?;
        found.memory.write(found.at, data, last);
        Ok(())
    }

    fn read_remote(&mut self, rkey: Rkey, va: u64, out: &mut [u8]) -> Result<(), RemoteFault> {
        let len = out.len() as u64;
        let found = self.mrs.remote(self.pd, self.qpn, rkey.0, va, len, access::REMOTE_READ)?;
        found.memory.read(found.at, out);
        Ok(())
    }

    fn atomic(&mut self, rkey: Rkey, va: u64, op: AtomicOp) -> Result<u64, RemoteFault> {
        let found = self.mrs.remote(self.pd, self.qpn, rkey.0, va, 8, access::REMOTE_ATOMIC)?;
        let (memory, at) = (found.memory, found.at);
        if !memory.is_word(at) {
            return Err(RemoteFault::Invalid);
        }
        Ok(match op {
            AtomicOp::CompareSwap { compare, swap } => memory.compare_swap(at, compare, swap),
            AtomicOp::FetchAdd { add } => memory.fetch_add(at, add),
        })
    }

    fn invalidate(&mut self, rkey: Rkey) -> Result<(), RemoteFault> {
        Ok(self.mrs.invalidate(self.pd, self.qpn, rkey.0)?)
    }

    fn local_invalidate(&mut self, rkey: Rkey) -> Result<(), LocalFault> {
        self.mrs.invalidate(self.pd, self.qpn, rkey.0).map_err(|_| LocalFault::Window)
    }

    fn bind(&mut self, cookie: u64) -> Result<(), LocalFault> {
        let bind = self.send.bind(cookie).ok_or(LocalFault::Operation)?;
        self.mrs.bind(self.pd, self.qpn, bind).map_err(|_| LocalFault::Window)
    }
}
