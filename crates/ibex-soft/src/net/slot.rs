//! The slots of this process and the queue pair numbers given out from them.
//!
//! Owns the slot sockets: holding one is owning the slot, and the kernel takes it back when the
//! process is gone, however it went. Does not own what arrives on them ([`super::rx`]).
//!
//! Numbers are given out from a random start and then upwards, so that a packet of a queue pair that
//! is gone seldom finds a new one.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::error::NetError;
use super::forward::Names;
use super::qpn;

/// Slots one process may own: 64 × 16 384, a million queue pairs.
pub(super) const MAX_OWN: usize = 64;

/// Words of a slot's bitmap.
const WORDS: usize = (qpn::INDICES / 64) as usize;

/// A slot of this process.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u16,
    pub(super) socket: UnixDatagram,
}

/// All slots of this process. They are only ever added, so reading them takes no lock.
#[derive(Debug)]
pub(super) struct Slots {
    address: IpAddr,
    buffer: usize,
    owned: [OnceLock<Slot>; MAX_OWN],
    numbers: Mutex<Vec<Numbers>>,
}

/// The numbers of one slot, at the same position as the slot itself.
#[derive(Debug)]
struct Numbers {
    slot: u16,
    used: Box<[u64; WORDS]>,
    free: u32,
    next: u32,
}

impl Slots {
    /// No slots yet, for the device at `address`; their sockets will ask for `buffer` bytes.
    pub(super) fn new(address: IpAddr, buffer: usize) -> Self {
        Self { address, buffer, owned: [const { OnceLock::new() }; MAX_OWN], numbers: Mutex::new(Vec::new()) }
    }

    /// The slots, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.owned.iter().map_while(OnceLock::get)
    }

    /// The slot this process had first.
    pub(super) fn first(&self) -> Option<&Slot> {
        self.owned[0].get()
    }

    /// The descriptors of the slot sockets.
    pub(super) fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.iter().map(|slot| slot.socket.as_raw_fd())
    }

    /// Gives out a number; `added` is told about each new slot before its first number is out, and
    /// may refuse it.
    ///
    /// # Errors
    /// [`NetError::NoQpn`] when this process has all the slots it may have, [`NetError::NoSlot`]
    /// when others have the rest.
    pub(super) fn alloc(
        &self,
        names: &Names,
        mut added: impl FnMut(&Slot) -> Result<(), NetError>,
    ) -> Result<u32, NetError> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.iter_mut().find_map(Numbers::take) {
            return Ok(number);
        }
        let mut slot = self.add(names, &numbers, &mut added)?;
        slot.take().ok_or(NetError::NoQpn).inspect(|_| numbers.push(slot))
    }

    /// Takes the first slot, so that this process can send and be greeted.
    ///
    /// # Errors
    /// As [`Slots::alloc`].
    pub(super) fn open(
        &self,
        names: &Names,
        mut added: impl FnMut(&Slot) -> Result<(), NetError>,
    ) -> Result<(), NetError> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.add(names, &numbers, &mut added)?;
        numbers.push(slot);
        Ok(())
    }

    /// Takes a number back.
    pub(super) fn free(&self, number: u32) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = numbers.iter_mut().find(|of| of.slot == qpn::slot(number)) {
            of.put(qpn::index(number));
        }
    }

    /// Binds the next free slot, searching from a random one.
    fn add(
        &self,
        names: &Names,
        numbers: &[Numbers],
        added: &mut impl FnMut(&Slot) -> Result<(), NetError>,
    ) -> Result<Numbers, NetError> {
        let place = self.owned.get(numbers.len()).ok_or(NetError::NoQpn)?;
        let slots = u64::from(qpn::SLOTS) - 1;
        let start = random() % slots;
        for offset in 0..slots {
            // 1..=1023, the remainder fits.
            let number = ((start + offset) % slots) as u16 + 1;
            let name =
                SocketAddr::from_abstract_name(names.slot(number)).map_err(NetError::io("name a slot"))?;
            let socket = match UnixDatagram::bind_addr(&name) {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(source) => return Err(NetError::Io { what: "bind a slot socket", source }),
            };
            socket.set_nonblocking(true).map_err(NetError::io("set up a slot socket"))?;
            let options = socket2::SockRef::from(&socket);
            // On unix sockets the sender's buffer is the one that counts; capped without an error.
            options.set_send_buffer_size(self.buffer).map_err(NetError::io("set up a slot socket"))?;
            let first = (random() as u32) & (qpn::INDICES - 1);
            let slot = place.get_or_init(|| Slot { number, socket });
            added(slot)?;
            return Ok(Numbers::new(slot.number, first));
        }
        Err(NetError::NoSlot { address: self.address })
    }
}

impl Numbers {
    fn new(slot: u16, next: u32) -> Self {
        let mut numbers = Self { slot, used: Box::new([0; WORDS]), free: qpn::INDICES, next };
        if qpn::slot(qpn::MULTICAST) == slot {
            // Marked as used for ever: packets to it would be multicast.
            let index = qpn::index(qpn::MULTICAST);
            numbers.used[index as usize / 64] |= 1 << (index % 64);
            numbers.free -= 1;
        }
        numbers
    }

    /// The next free number after the last one given out.
    fn take(&mut self) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        let mut index = self.next;
        loop {
            let word = self.used[index as usize / 64] | ((1u64 << (index % 64)) - 1);
            if word == u64::MAX {
                // Nothing free from here to the end of the word.
                index = (index / 64 + 1) * 64 % qpn::INDICES;
                continue;
            }
            index = index / 64 * 64 + word.trailing_ones();
            self.used[index as usize / 64] |= 1 << (index % 64);
            self.free -= 1;
            self.next = (index + 1) % qpn::INDICES;
            return Some(qpn::join(self.slot, index));
        }
    }

    fn put(&mut self, index: u32) {
        let bit = 1u64 << (index % 64);
        let word = &mut self.used[index as usize / 64];
        if *word & bit != 0 && qpn::join(self.slot, index) != qpn::MULTICAST {
            *word &= !bit;
            self.free += 1;
        }
    }
}

/// A number nobody can foresee, from the keys the standard library draws for its hash maps.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
