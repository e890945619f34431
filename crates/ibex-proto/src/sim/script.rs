//! Scripts: any bytes read as a sequence of calls, packets and accidents, for fuzzing and property tests.
//!
//! The peer is hostile here: packets with any opcode, number, header and length reach a live queue pair between
//! regular traffic. Nothing may panic, nothing may run without bound, every request posted completes once and in order,
//! and when the noise is over the queue pairs come to rest.

use ibex_wire::{Bth, Mtu, Opcode, Packet, Pkey, Psn, Qkey, Rkey, padding};

use super::host::BASE;
use super::host::Region;
use super::net::Faults;
use super::world::{EndConfig, Fate, QKEY, World, qpn};
use crate::{Completion, LocalFault, QpState, QpType, RemoteAccess, SendOp, SendWqe, Tuning};

const MEMORY: usize = 1 << 14;
const KEY: Rkey = Rkey(7);
/// Far more than the retries of both ends can last.
const REST: u64 = 1_000_000_000_000;

/// The script's bytes; zeroes follow their end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// Lengths of messages: around packet boundaries.
    fn len(&mut self) -> usize {
        let byte = self.u8();
        let packets = usize::from(byte >> 4 & 7) * 256;
        match byte & 15 {
            0 => packets,
            1 => packets + 1,
            2 => packets.saturating_sub(1),
            more => packets + usize::from(more) * 16,
        }
    }
}

/// Plays a script.
///
/// # Panics
/// If the queue pairs break a promise. This is the point.
pub fn play(script: &[u8]) {
    let mut bytes = Bytes(script);
    let shape = bytes.u8();
    let config = EndConfig {
        // Reliable connections have the most to get wrong.
        qp_type: [QpType::Rc, QpType::Rc, QpType::Uc, QpType::Ud][usize::from(bytes.u8() & 3)],
        memory: MEMORY,
        sq_depth: 8,
        tuning: Tuning {
            max_window: [1, 4, 64][usize::from(shape) % 3],
            read_chunk: 2,
            ack_every: 2,
            keep_ahead: u32::from(shape & 0x0c) * 2,
            probe: 20_000,
            sparse_acks: u32::from(shape & 1) * 3,
            peer_repairs: shape & 2 != 0,
        },
        psn: Psn::new(if shape & 8 != 0 { 0xff_fffe } else { 0x7f_fffe }),
        max_dest_rd_atomic: shape >> 4 & 3,
        max_rd_atomic: shape >> 6,
        retry: Some(2),
        rnr_retry: Some(2),
        ..EndConfig::default()
    };
    let mut world = World::new(&[(config, config, Mtu::Mtu256)], Faults::NONE, 0);
    for end in &mut world.ends {
        end.host.expose(KEY, 0, MEMORY as u64, RemoteAccess::ALL);
    }
    let mut ledger = [Ledger::default(), Ledger::default()];
    // A script of this many acts has said what it has to say.
    for _ in 0..400 {
        if bytes.is_empty() {
            break;
        }
        act(&mut bytes, &mut world, &mut ledger, &config);
        world.drain();
        check(&world, &mut ledger);
    }
    world.tap(|_| Fate::Pass);
    for end in &mut world.ends {
        if matches!(end.qp.state(), QpState::Sqd | QpState::Sqe) {
            end.qp.resume().expect("SQD and SQE can be left");
        }
    }
    world.run(REST);
    check(&world, &mut ledger);
    for (end, ledger) in world.ends.iter().zip(&ledger) {
        assert_eq!(ledger.done, ledger.posted.len(), "requests are outstanding and nothing happens any more");
        assert!(!end.qp.wants_transmit() && end.qp.poll_timeout().is_none(), "restless without work");
    }
}

/// What was posted to one send queue since it was last reset, and how much of it has completed.
#[derive(Default)]
struct Ledger {
    posted: Vec<u64>,
    done: usize,
    seen: usize,
    recvs_done: usize,
}

fn check(world: &World, ledger: &mut [Ledger; 2]) {
    for (end, ledger) in world.ends.iter().zip(ledger) {
        for completion in &end.completions[ledger.seen..] {
            match completion {
                Completion::Send(done) => {
                    assert_eq!(Some(&done.cookie), ledger.posted.get(ledger.done), "out of order, or twice");
                    ledger.done += 1;
                }
                Completion::Recv(done) => {
                    assert!(end.host.recv_taken.contains_key(&done.cookie), "completed without being taken");
                    ledger.recvs_done += 1;
                    assert!(ledger.recvs_done <= end.host.recv_taken.len(), "completed twice");
                }
            }
        }
        ledger.seen = end.completions.len();
    }
}

fn act(bytes: &mut Bytes<'_>, world: &mut World, ledger: &mut [Ledger; 2], config: &EndConfig) {
    let act = bytes.u8();
    let end = usize::from(act >> 7);
    match act & 15 {
        0..=2 => post(bytes, world, end, &mut ledger[end]),
        3 => {
            let len = bytes.len();
            world.recv(end, len);
        }
        4..=6 => inject(bytes, world, end),
        7 | 8 => {
            world.step();
        }
        9 => {
            let later = world.now + u64::from(bytes.u16()) * 256;
            world.advance(later);
        }
        10 => {
            let mut fates = bytes.u8();
            world.tap(move |_| {
                let fate = [Fate::Pass, Fate::Drop, Fate::Twice, Fate::Late(3000)][usize::from(fates & 3)];
                fates = fates.rotate_right(2);
                fate
            });
        }
        11 => world.ends[end].qp.set_access(RemoteAccess(bytes.u8() & 0b1110)),
        12 => {
            let host = &mut world.ends[end].host;
            let cookie = u64::from(bytes.u8());
            host.gather_fault = Some((cookie, 0, LocalFault::Protection));
            host.scatter_fault = Some((cookie, LocalFault::Length));
            host.place_fault = Some((cookie, LocalFault::Operation));
        }
        13 => match bytes.u8() & 3 {
            // Refused or not: a state that does not fit must not do harm.
            0 => drop(world.ends[end].qp.to_sqd(true)),
            1 => drop(world.ends[end].qp.resume()),
            2 => world.ends[end].qp.set_error(),
            _ => world.ends[end].host.regions[0].valid ^= true,
        },
        14 => {
            // A new life, in which most things work again.
            world.reconnect(0, config, config, Mtu::Mtu256);
            for (end, ledger) in world.ends.iter_mut().zip(ledger) {
                ledger.posted.truncate(ledger.done);
                end.host.regions[0].valid = true;
                end.host.gather_fault = None;
                end.host.scatter_fault = None;
                end.host.place_fault = None;
            }
        }
        _ => world.ends[end].qp.set_min_rnr_timer(bytes.u8()),
    }
}

fn post(bytes: &mut Bytes<'_>, world: &mut World, end: usize, ledger: &mut Ledger) {
    let (kind, len) = (bytes.u8(), bytes.len());
    let imm = (kind & 0x10 != 0).then_some([kind; 4]);
    let va = BASE + u64::from(bytes.u8()) * 72;
    let (op, len) = match kind & 7 {
        0 | 1 => (SendOp::Send { imm, inv: (kind & 0x20 != 0).then_some(KEY) }, len),
        2 | 3 => (SendOp::Write { rkey: KEY, va, imm }, len),
        4 | 5 => (SendOp::Read { rkey: KEY, va }, len),
        6 => (SendOp::FetchAdd { rkey: KEY, va, add: 1 }, 8),
        _ => (SendOp::CompareSwap { rkey: KEY, va, compare: 0, swap: 1 }, 8),
    };
    // What a service does not have is refused; some of that is fine, most is not.
    let (op, len) = match world.ends[end].qp.qp_type() {
        QpType::Ud if kind & 7 < 7 => {
            let remote_qpn = qpn(world.ends[end].peer);
            let qkey = Qkey(if kind & 0x20 != 0 { 1 << 31 } else { QKEY.0 ^ u32::from(kind & 1) });
            (SendOp::Datagram { remote_qpn, qkey, address: u64::from(kind), imm }, len)
        }
        QpType::Rc | QpType::Uc if kind & 0xf == 8 => (SendOp::BindMw, 0),
        QpType::Rc | QpType::Uc if kind & 0xf == 10 => (SendOp::LocalInv { rkey: KEY }, 0),
        _ => (op, len),
    };
    let wqe = SendWqe {
        cookie: 0,
        op,
        len: len as u32,
        signaled: kind & 8 != 0,
        fence: kind & 0x40 != 0,
        solicited: kind & 0x80 != 0,
    };
    if let Ok(cookie) = world.try_post(end, wqe, vec![kind; len]) {
        ledger.posted.push(cookie);
        if kind & 0x10 != 0 {
            let region = Region { rkey: KEY, va: BASE, len: 4096, access: RemoteAccess::ALL, valid: true };
            world.ends[end].host.binds.insert(cookie, region);
        }
    }
}

/// A packet as nobody sends it, or nearly as somebody would.
fn inject(bytes: &mut Bytes<'_>, world: &mut World, to: usize) {
    let opcode = bytes.u8();
    let flags = bytes.u8();
    let qp = &world.ends[to].qp;
    let service = match qp.qp_type() {
        QpType::Rc => 0,
        QpType::Uc => 0x20,
        QpType::Ud => 0x60,
    };
    // Other services' packets only now and then.
    let opcode = Opcode(if opcode < 0xf0 { opcode & 0x1f | service } else { opcode << 4 | opcode & 0xf });
    let near = if opcode.is_request() { qp.rq_psn() } else { qp.sq_psn() };
    // Mostly numbers close to what is expected, behind and ahead of it.
    let psn = match flags & 3 {
        0 => near,
        1 => near + u32::from(bytes.u8()),
        2 => near - u32::from(bytes.u8()),
        _ => Psn::new(bytes.u32()),
    };
    let mut packet = vec![0; opcode.header_len().max(Bth::LEN)];
    for byte in &mut packet[Bth::LEN..] {
        *byte = bytes.u8();
    }
    if opcode.has_reth() || opcode.has_atomic_eth() {
        // A key and an address that work, unless the script insists, so that the packet goes deeper.
        if flags & 4 == 0 {
            let offset = u64::from(packet[Bth::LEN + 7]) * 8;
            packet[Bth::LEN..Bth::LEN + 8].copy_from_slice(&(BASE + offset).to_be_bytes());
            packet[Bth::LEN + 8..Bth::LEN + 12].copy_from_slice(&KEY.0.to_be_bytes());
        }
        if flags & 8 == 0 && opcode.has_reth() {
            packet[Bth::LEN + 12..Bth::LEN + 14].fill(0);
            packet[Bth::LEN + 14] &= 0xf;
        }
    }
    if opcode.has_deth() && flags & 4 == 0 {
        packet[Bth::LEN..Bth::LEN + 4].copy_from_slice(&QKEY.0.to_be_bytes());
    }
    let len = if opcode.has_payload() { bytes.len() } else { 0 };
    let pad = if opcode.ends_message() { padding(len) } else { 0 };
    let len = if opcode.ends_message() { len } else { len & !3 };
    packet.extend(std::iter::repeat_n(flags, len));
    packet.extend(std::iter::repeat_n(0, pad));
    let bth = Bth {
        solicited: flags & 0x10 != 0,
        ack_req: flags & 0x20 != 0,
        pad: pad as u8,
        pkey: if flags & 0xc0 == 0xc0 { Pkey(1) } else { Pkey::DEFAULT },
        ..Bth::new(opcode, qpn(to), psn)
    };
    if let Some(head) = packet.first_chunk_mut() {
        bth.emit(head);
    }
    // What does not parse never gets as far as a queue pair.
    if Packet::parse(&packet).is_ok() {
        world.net.deliver_at(world.now, to, &packet);
    }
}
