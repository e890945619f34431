//! A host made of plain vectors: what a device's memory looks like to the simulator.
//!
//! Owns buffers of requests, one flat address space for peers with keys and rights, and switches that make single
//! accesses fail.

use std::collections::{HashMap, VecDeque};

use ibex_wire::Rkey;

use crate::{AtomicOp, Host, LocalFault, RecvWqe, RemoteAccess, RemoteFault};

/// The address of the first byte of [`MemHost::memory`].
pub const BASE: u64 = 0x7f00_0000_0000;

/// A key to a part of a host's memory.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// The key.
    pub rkey: Rkey,
    /// Its first byte's address.
    pub va: u64,
    /// Bytes.
    pub len: u64,
    /// What peers may do.
    pub access: RemoteAccess,
    /// Cleared by invalidation.
    pub valid: bool,
}

/// A host in memory.
#[derive(Default)]
pub struct MemHost {
    /// What peers can reach, from [`BASE`] on.
    pub memory: Vec<u8>,
    /// The keys to it.
    pub regions: Vec<Region>,
    /// Send requests' buffers by cookie: read by gather, filled by scatter.
    pub sends: HashMap<u64, Vec<u8>>,
    /// Receive requests posted.
    pub recv_queue: VecDeque<(u64, Vec<u8>)>,
    /// Receive requests taken by the transport; they stay here with what was placed in them.
    pub recv_taken: HashMap<u64, Vec<u8>>,
    /// Fails gathering for this cookie from this offset on.
    pub gather_fault: Option<(u64, u32, LocalFault)>,
    /// Fails scattering for this cookie.
    pub scatter_fault: Option<(u64, LocalFault)>,
    /// Fails placing in this receive request.
    pub place_fault: Option<(u64, LocalFault)>,
    /// Fails reading for peers, from this address on.
    pub read_fault: Option<(u64, RemoteFault)>,
    /// The regions that bind requests make, by cookie; a request that is not here fails.
    pub binds: HashMap<u64, Region>,
    /// Local operations carried out, in order: the key bound or invalidated.
    pub local: Vec<Rkey>,
    /// Atomics executed.
    pub atomics: u64,
    /// Bytes written by peers.
    pub written: u64,
    /// Bytes placed in receive requests.
    pub placed: u64,
    /// Calls whose `last` was set.
    pub lasts: u64,
}

impl MemHost {
    /// A host with `len` bytes for peers and no key to them.
    pub fn new(len: usize) -> MemHost {
        MemHost { memory: vec![0; len], ..MemHost::default() }
    }

    /// Gives out a key to `len` bytes from offset `at`.
    pub fn expose(&mut self, rkey: Rkey, at: u64, len: u64, access: RemoteAccess) -> Region {
        let region = Region { rkey, va: BASE + at, len, access, valid: true };
        self.regions.push(region);
        region
    }

    fn reach(&self, rkey: Rkey, va: u64, len: u64, access: RemoteAccess) -> Result<usize, RemoteFault> {
        let region = self
            .regions
            .iter()
            .find(|region| region.valid && region.rkey == rkey)
            .ok_or(RemoteFault::Access)?;
        let end = va.checked_add(len).ok_or(RemoteFault::Access)?;
        if !region.access.contains(access) || va < region.va || end > region.va + region.len {
            return Err(RemoteFault::Access);
        }
        Ok((va - BASE) as usize)
    }
}

impl Host for MemHost {
    fn gather(&mut self, cookie: u64, offset: u32, out: &mut [u8]) -> Result<(), LocalFault> {
        assert!(!out.is_empty(), "the contract: nothing is asked for nothing");
        if let Some((at, from, fault)) = self.gather_fault
            && at == cookie
            && offset + out.len() as u32 > from
        {
            return Err(fault);
        }
        let from = self.sends.get(&cookie).and_then(|bytes| bytes.get(offset as usize..));
        let bytes = from.and_then(|bytes| bytes.get(..out.len())).ok_or(LocalFault::Protection)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn scatter(&mut self, cookie: u64, offset: u32, data: &[u8]) -> Result<(), LocalFault> {
        assert!(!data.is_empty(), "the contract: nothing is stored for nothing");
        if let Some((at, fault)) = self.scatter_fault
            && at == cookie
        {
            return Err(fault);
        }
        let to = self.sends.get_mut(&cookie).and_then(|bytes| bytes.get_mut(offset as usize..));
        let to = to.and_then(|bytes| bytes.get_mut(..data.len())).ok_or(LocalFault::Length)?;
        to.copy_from_slice(data);
        Ok(())
    }

    fn take_recv(&mut self) -> Option<RecvWqe> {
        let (cookie, bytes) = self.recv_queue.pop_front()?;
        let capacity = bytes.len() as u32;
        self.recv_taken.insert(cookie, bytes);
        Some(RecvWqe { cookie, capacity })
    }

    fn place(&mut self, cookie: u64, offset: u32, data: &[u8], last: bool) -> Result<(), LocalFault> {
        assert!(!data.is_empty(), "the contract: nothing is placed for nothing");
        if let Some((at, fault)) = self.place_fault
            && at == cookie
        {
            return Err(fault);
        }
        let taken = self.recv_taken.get_mut(&cookie).expect("only requests taken are filled");
        let to = &mut taken[offset as usize..][..data.len()];
        to.copy_from_slice(data);
        self.placed += data.len() as u64;
        self.lasts += u64::from(last);
        Ok(())
    }

    fn check_remote(
        &mut self,
        rkey: Rkey,
        va: u64,
        len: u32,
        access: RemoteAccess,
    ) -> Result<(), RemoteFault> {
        assert!(len > 0, "the contract: nothing needs no right");
        self.reach(rkey, va, u64::from(len), access).map(|_| ())
    }

    fn write_remote(&mut self, rkey: Rkey, va: u64, data: &[u8], last: bool) -> Result<(), RemoteFault> {
        let at = self.reach(rkey, va, data.len() as u64, RemoteAccess::WRITE)?;
        self.memory[at..at + data.len()].copy_from_slice(data);
        self.written += data.len() as u64;
        self.lasts += u64::from(last);
        Ok(())
    }

    fn read_remote(&mut self, rkey: Rkey, va: u64, out: &mut [u8]) -> Result<(), RemoteFault> {
        if let Some((from, fault)) = self.read_fault
            && va + out.len() as u64 > from
        {
            return Err(fault);
        }
        let at = self.reach(rkey, va, out.len() as u64, RemoteAccess::READ)?;
        out.copy_from_slice(&self.memory[at..at + out.len()]);
        Ok(())
    }

    fn atomic(&mut self, rkey: Rkey, va: u64, op: AtomicOp) -> Result<u64, RemoteFault> {
        let at = self.reach(rkey, va, 8, RemoteAccess::ATOMIC)?;
        let cell = self.memory[at..].first_chunk_mut::<8>().expect("eight bytes are in reach");
        let original = u64::from_ne_bytes(*cell);
        let new = match op {
            AtomicOp::CompareSwap { compare, swap } if original == compare => swap,
            AtomicOp::CompareSwap { .. } => original,
            AtomicOp::FetchAdd { add } => original.wrapping_add(add),
        };
        *cell = new.to_ne_bytes();
        self.atomics += 1;
        Ok(original)
    }

    fn invalidate(&mut self, rkey: Rkey) -> Result<(), RemoteFault> {
        let region = self.regions.iter_mut().find(|region| region.valid && region.rkey == rkey);
        region.ok_or(RemoteFault::Access)?.valid = false;
        Ok(())
    }

    fn local_invalidate(&mut self, rkey: Rkey) -> Result<(), LocalFault> {
        self.invalidate(rkey).map_err(|_| LocalFault::Window)?;
        self.local.push(rkey);
        Ok(())
    }

    fn bind(&mut self, cookie: u64) -> Result<(), LocalFault> {
        let region = *self.binds.get(&cookie).ok_or(LocalFault::Window)?;
        self.regions.push(region);
        self.local.push(region.rkey);
        Ok(())
    }
}
