//! Ports: who has which on this address, across processes.
//!
//! Owns the claims. A port that a program binds is a name held on the address ([`crate::net::Held`]): the kernel frees it
//! with the process. The local ports of connections that nobody bound come from blocks of [`BLOCK`] that a process holds
//! whole, so that thousands of connections need no thousands of descriptors; they only name the caller to its peer, so
//! that a program which binds one of them itself, in another process, does no harm and is let.
//!
//! Ports are per port space and per address family, as with the kernel's `rdma_cm`.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ibex_wire::mad::{PortSpace, ServiceId};

use crate::net::{Held, Wire, random};

/// Ports given to bindings that ask for any: below the blocks, from where Linux' own ephemeral ports begin.
const BOUND: std::ops::Range<u16> = 32_768..49_152;

/// The first port of the blocks; from there IANA assigns none.
const BLOCKS_FROM: u32 = 49_152;

/// Ports in a block: as many bits as a word has.
const BLOCK: u32 = 64;

/// Blocks of a port space.
const BLOCKS: u32 = (65_536 - BLOCKS_FROM) / BLOCK;

/// The claims of one process.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    bound: Mutex<HashMap<Key, Claims>>,
    blocks: Mutex<Vec<Block>>,
}

/// A port space, whether for IPv6, and a port.
type Key = (PortSpace, bool, u16);

/// All of this process on one port.
#[derive(Debug)]
struct Claims {
    held: Weak<Held>,
    /// Whether each of them set `RDMA_OPTION_ID_REUSEADDR`.
    reuse: bool,
}

/// A block of ports of this process.
#[derive(Debug)]
struct Block {
    space: PortSpace,
    number: u32,
    used: u64,
    _held: Held,
}

/// A port that is had until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    claim: Claim,
}

#[derive(Debug)]
enum Claim {
    /// Bound by the program.
    Bound { _held: Arc<Held> },
    /// From a block.
    Block { ports: Arc<Ports>, space: PortSpace },
}

impl Ports {
    fn bound(&self) -> MutexGuard<'_, HashMap<Key, Claims>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocks(&self) -> MutexGuard<'_, Vec<Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a port for a program; 0 for any. With `reuse` it may be shared with others of this process that said so.
    ///
    /// # Errors
    /// `EADDRINUSE`; `EADDRNOTAVAIL` when all are; those of socket(2).
    pub(crate) fn bind(
        &self,
        wire: &Wire,
        space: PortSpace,
        v6: bool,
        port: u16,
        reuse: bool,
    ) -> Result<Port, i32> {
        let mut bound = self.bound();
        bound.retain(|_, claims| claims.held.strong_count() > 0);
        if port != 0 {
            return claim(&mut bound, wire, (space, v6, port), reuse);
        }
        let range = u64::from(BOUND.end - BOUND.start);
        let start = random() % range;
        for offset in 0..range {
            // Below 16384, the sum below 49152.
            let port = BOUND.start + ((start + offset) % range) as u16;
            match claim(&mut bound, wire, (space, v6, port), false) {
                Err(libc::EADDRINUSE) => {}
                outcome => return outcome,
            }
        }
        Err(libc::EADDRNOTAVAIL)
    }

    /// A port for a connection of a program that bound none.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` when all are in use; those of socket(2).
    pub(crate) fn ephemeral(self: &Arc<Ports>, wire: &Wire, space: PortSpace) -> Result<Port, i32> {
        let mut blocks = self.blocks();
        let free = blocks.iter().position(|block| block.space == space && block.used != u64::MAX);
        let at = match free {
            Some(at) => at,
            None => {
                let block = Block::take(wire, space)?;
                blocks.push(block);
                blocks.len() - 1
            }
        };
        let block = &mut blocks[at];
        let bit = block.used.trailing_ones();
        block.used |= 1 << bit;
        // Below 65536 by the number of blocks.
        let number = (BLOCKS_FROM + block.number * BLOCK + bit) as u16;
        Ok(Port { number, claim: Claim::Block { ports: self.clone(), space } })
    }

    fn give_back(&self, space: PortSpace, port: u16) {
        let mut blocks = self.blocks();
        let offset = u32::from(port) - BLOCKS_FROM;
        let of = |block: &Block| block.space == space && block.number == offset / BLOCK;
        if let Some(at) = blocks.iter().position(of) {
            blocks[at].used &= !(1 << (offset % BLOCK));
            if blocks[at].used == 0 {
                blocks.swap_remove(at);
            }
        }
    }
}

/// Claims one port, first of all in this process.
fn claim(bound: &mut HashMap<Key, Claims>, wire: &Wire, key: Key, reuse: bool) -> Result<Port, i32> {
    let (space, v6, number) = key;
    if let Some(claims) = bound.get(&key)
        && let Some(held) = claims.held.upgrade()
    {
        if !(reuse && claims.reuse) {
            return Err(libc::EADDRINUSE);
        }
        return Ok(Port { number, claim: Claim::Bound { _held: held } });
    }
    let name = format!("port/{}{:x}/{number}", if v6 { "6/" } else { "" }, space.0);
    let held = Arc::new(wire.hold(&name).map_err(|error| errno_of(&error))?);
    bound.insert(key, Claims { held: Arc::downgrade(&held), reuse });
    Ok(Port { number, claim: Claim::Bound { _held: held } })
}

impl Block {
    /// Takes a block that no process has.
    fn take(wire: &Wire, space: PortSpace) -> Result<Block, i32> {
        // Anywhere, so that a port is not soon used again by the next process.
        let start = random() as u32 % BLOCKS;
        for offset in 0..BLOCKS {
            let number = (start + offset) % BLOCKS;
            match wire.hold(&format!("ports/{:x}/{number}", space.0)) {
                Ok(held) => return Ok(Block { space, number, used: 0, _held: held }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Err(libc::EADDRNOTAVAIL)
    }
}

impl Port {
    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Claim::Block { ports, space } = &self.claim {
            ports.give_back(*space, self.number);
        }
    }
}

/// The name of a service's mailbox.
pub(super) fn mailbox(service: ServiceId) -> String {
    format!("service/{:x}", service.0)
}

/// The errno of a failed system call.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    match error.kind() {
        io::ErrorKind::AddrInUse => libc::EADDRINUSE,
        _ => error.raw_os_error().unwrap_or(libc::EIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Config;

    fn wire() -> Wire {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        Wire::open(&Config { port, ..Config::new("127.0.0.1".parse().unwrap()) }).unwrap()
    }

    #[test]
    fn a_port_is_one_holder_s_until_it_lets_go() {
        let wire = wire();
        // As two processes have them.
        let (ours, theirs) = (Ports::default(), Ports::default());
        let bind = |ports: &Ports, space, reuse| ports.bind(&wire, space, false, 7471, reuse);
        let first = bind(&ours, PortSpace::TCP, false).unwrap();
        assert_eq!(first.number(), 7471);
        assert_eq!(bind(&ours, PortSpace::TCP, true).unwrap_err(), libc::EADDRINUSE);
        assert_eq!(bind(&theirs, PortSpace::TCP, false).unwrap_err(), libc::EADDRINUSE);
        let other = bind(&theirs, PortSpace::UDP, true).unwrap();
        drop(first);
        drop(bind(&theirs, PortSpace::TCP, false).unwrap());
        let shared = bind(&theirs, PortSpace::UDP, true).unwrap();
        drop(other);
        assert_eq!(bind(&ours, PortSpace::UDP, true).unwrap_err(), libc::EADDRINUSE);
        drop(shared);
        drop(bind(&ours, PortSpace::UDP, true).unwrap());
    }

    #[test]
    fn ephemeral_ports_are_different_and_cost_one_name_a_block() {
        let wire = wire();
        let (ours, theirs) = (Arc::new(Ports::default()), Arc::new(Ports::default()));
        let mut all = Vec::new();
        for _ in 0..200 {
            all.push(ours.ephemeral(&wire, PortSpace::TCP).unwrap());
            all.push(theirs.ephemeral(&wire, PortSpace::TCP).unwrap());
        }
        let numbers: std::collections::BTreeSet<u16> = all.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), all.len());
        assert_eq!(ours.blocks().len(), 4);
        drop(all);
        assert_eq!(ours.blocks().len(), 0);
        assert!(ours.bind(&wire, PortSpace::TCP, false, 0, false).unwrap().number() >= BOUND.start);
    }
}
