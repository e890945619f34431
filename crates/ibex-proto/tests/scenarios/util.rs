//! What the scenarios share: a log of the wire, packets made by hand, short names.

use std::cell::RefCell;
use std::rc::Rc;

use ibex_proto::sim::{BASE, EndConfig, Fate, Sighting, World, qpn};
use ibex_proto::{RemoteAccess, SendOp, SendWqe};
use ibex_wire::{Bth, Header, Mtu, Opcode, Psn, Rkey, Syndrome, padding};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// A limit for runs that must end soon, in virtual time.
pub(crate) const SOON: u64 = 10 * SECOND;

/// The key to all of an endpoint's memory, with all rights.
pub(crate) const KEY: Rkey = Rkey(7);

/// The requester in most scenarios.
pub(crate) const A: usize = 0;
/// The responder in most scenarios.
pub(crate) const B: usize = 1;

/// Two connected queue pairs with MTU 256, each with all its memory exposed under [`KEY`].
pub(crate) fn pair(config: EndConfig) -> World {
    let mut world = World::pair(config, Mtu::Mtu256);
    for end in &mut world.ends {
        let len = end.host.memory.len() as u64;
        end.host.expose(KEY, 0, len, RemoteAccess::ALL);
    }
    world
}

/// A packet seen on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) now: u64,
    pub(crate) from: usize,
    pub(crate) opcode: Opcode,
    pub(crate) psn: Psn,
    pub(crate) ack_req: bool,
    pub(crate) solicited: bool,
    pub(crate) syndrome: Option<Syndrome>,
    pub(crate) len: usize,
}

/// Everything seen on the wire so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<Seen>>>);

impl Log {
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.borrow().clone()
    }

    pub(crate) fn count(&self, matches: impl Fn(&Seen) -> bool) -> usize {
        self.0.borrow().iter().filter(|seen| matches(seen)).count()
    }

    pub(crate) fn opcodes(&self, from: usize) -> Vec<Opcode> {
        self.0.borrow().iter().filter(|seen| seen.from == from).map(|seen| seen.opcode).collect()
    }

    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// Logs every packet, and lets `decide` choose its fate.
pub(crate) fn watch(world: &mut World, mut decide: impl FnMut(&Seen) -> Fate + 'static) -> Log {
    let log = Log::default();
    let lines = log.0.clone();
    world.tap(move |sighting: &Sighting<'_>| {
        let bth = sighting.packet.bth();
        let seen = Seen {
            now: sighting.now,
            from: sighting.from,
            opcode: bth.opcode,
            psn: bth.psn,
            ack_req: bth.ack_req,
            solicited: bth.solicited,
            syndrome: sighting.packet.aeth().map(|aeth| aeth.syndrome),
            len: sighting.packet.payload().len(),
        };
        lines.borrow_mut().push(seen);
        decide(&seen)
    });
    log
}

/// Logs every packet and lets all pass.
pub(crate) fn log(world: &mut World) -> Log {
    watch(world, |_| Fate::Pass)
}

/// Drops the first packet that matches, logs all.
pub(crate) fn drop_first(world: &mut World, matches: impl Fn(&Seen) -> bool + 'static) -> Log {
    let mut armed = true;
    watch(world, move |seen| {
        if armed && matches(seen) {
            armed = false;
            return Fate::Drop;
        }
        Fate::Pass
    })
}

pub(crate) fn va(offset: u64) -> u64 {
    BASE + offset
}

pub(crate) fn write(offset: u64) -> SendOp {
    SendOp::Write { rkey: KEY, va: va(offset), imm: None }
}

pub(crate) fn read(offset: u64) -> SendOp {
    SendOp::Read { rkey: KEY, va: va(offset) }
}

pub(crate) fn add(offset: u64, add: u64) -> SendOp {
    SendOp::FetchAdd { rkey: KEY, va: va(offset), add }
}

/// A signalled request without flags.
pub(crate) fn wqe(op: SendOp, len: usize) -> SendWqe {
    SendWqe { cookie: 0, op, len: len as u32, signaled: true, fence: false, solicited: false }
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 256 * 7) as u8).collect()
}

/// Makes a packet to endpoint `to`.
pub(crate) fn craft(to: usize, opcode: Opcode, psn: Psn, headers: &[&dyn Emit], payload: &[u8]) -> Vec<u8> {
    let pad = padding(payload.len());
    let bth = Bth { ack_req: true, pad: pad as u8, ..Bth::new(opcode, qpn(to), psn) };
    let mut bytes = vec![0; opcode.header_len()];
    let mut at = Bth::LEN;
    bth.put(&mut bytes).expect("room");
    for header in headers {
        at += header.emit_at(&mut bytes[at..]);
    }
    assert_eq!(at, bytes.len(), "the headers this opcode has");
    bytes.extend(payload);
    bytes.extend(vec![0; pad]);
    bytes
}

/// Makes a packet to endpoint `to` and delivers it at once.
pub(crate) fn inject(
    world: &mut World,
    to: usize,
    opcode: Opcode,
    psn: Psn,
    headers: &[&dyn Emit],
    payload: &[u8],
) {
    let bytes = craft(to, opcode, psn, headers, payload);
    world.net.deliver_at(world.now, to, &bytes);
    world.step();
}

/// [`Header`] as an object, for lists of different headers.
pub(crate) trait Emit {
    fn emit_at(&self, out: &mut [u8]) -> usize;
}

impl<T: Header> Emit for T {
    fn emit_at(&self, out: &mut [u8]) -> usize {
        self.put(out).expect("room");
        T::LEN
    }
}
