//! One random run of an unreliable service: random messages over a random network.
//!
//! Checks what the service promises: whatever is received was sent, whole and intact, each receive request completes
//! at most once and in order, every send request completes successfully and in order; and over a network that only loses,
//! nothing arrives twice or out of order.

use std::collections::HashMap;

use ibex_wire::Mtu;

use super::Rng;
use super::net::Faults;
use super::plan::Limits;
use super::world::{EndConfig, NETWORK_HEADER, QKEY, World, qpn};
use super::{BASE, Report};
use crate::{QpType, RecvCompletion, RemoteAccess, SendOp, SendWqe, WcOpcode, WcStatus};

/// Messages of a run. Enough for holes in and between them.
const MESSAGES: u32 = 60;
/// Virtual time after which a run counts as stuck.
const DEADLINE: u64 = 10_000_000_000;

/// A message, by the number that its immediate data carries.
struct Message {
    payload: Vec<u8>,
    opcode: WcOpcode,
    solicited: bool,
}

/// Runs one seed for UC or UD.
///
/// # Errors
/// What was wrong, in words.
///
/// # Panics
/// If the queue pairs break a contract of the simulator, or `qp_type` is RC.
pub fn run_unreliable(seed: u64, qp_type: QpType, limits: &Limits) -> Result<Report, String> {
    assert!(qp_type != QpType::Rc, "reliable connections have `run`");
    let mut rng = Rng::new(seed);
    let only_loses = rng.one_in(2);
    let mut draw = |limit: u32| rng.range(0, u64::from(limit)) as u32;
    let faults = Faults {
        loss: draw(limits.loss),
        duplicate: if only_loses { 0 } else { draw(limits.duplicate) },
        reorder: if only_loses { 0 } else { draw(limits.reorder) },
        corrupt: draw(limits.corrupt),
        ..Faults::NONE
    };
    let mtu = rng.pick(&[Mtu::Mtu256, Mtu::Mtu1024]);
    let depth = rng.range(1, 16) as u32;
    let config = EndConfig { qp_type, sq_depth: depth, ..EndConfig::default() };
    let mut world = World::new(&[(config, config, mtu)], faults, rng.bits());
    let key = ibex_wire::Rkey(7);
    let memory = world.ends[1].host.memory.len() as u64;
    world.ends[1].host.expose(key, 0, memory, RemoteAccess::ALL);
    let room = mtu.bytes() * if qp_type == QpType::Ud { 1 } else { 6 };
    let mut messages: HashMap<[u8; 4], Message> = HashMap::new();
    let mut posted = Vec::new();
    let mut recvs = Vec::new();
    for number in 0..MESSAGES {
        if rng.chance(800_000) {
            // Some are too short for some messages.
            let len = rng.range(room as u64 / 2, room as u64) as usize + NETWORK_HEADER.len();
            recvs.push(world.recv(1, len));
        }
        let imm = number.to_ne_bytes();
        let len = rng.below(room as u64 + 1) as usize;
        let payload = rng.bytes(len);
        let (op, opcode) = match qp_type {
            QpType::Ud => {
                let to = SendOp::Datagram { remote_qpn: qpn(1), qkey: QKEY, address: 0, imm: Some(imm) };
                (to, WcOpcode::RECV)
            }
            _ if rng.one_in(3) => {
                let write = SendOp::Write { rkey: key, va: BASE, imm: Some(imm) };
                (write, WcOpcode::RECV_RDMA_WITH_IMM)
            }
            _ => (SendOp::Send { imm: Some(imm), inv: None }, WcOpcode::RECV),
        };
        let solicited = rng.one_in(2);
        let wqe = SendWqe { cookie: 0, op, len: len as u32, signaled: true, fence: false, solicited };
        messages.insert(imm, Message { payload: payload.clone(), opcode, solicited });
        posted.push(world.try_post(0, wqe, payload).map_err(|error| format!("message {number}: {error}"))?);
        if rng.one_in(3) || (posted.len() as u32).is_multiple_of(depth) {
            world.run(DEADLINE);
        } else {
            world.drain();
        }
    }
    world.run(DEADLINE);
    let sends = world.ends[0].sends();
    let cookies: Vec<u64> = sends.iter().map(|done| done.cookie).collect();
    if cookies != posted || sends.iter().any(|done| done.status != WcStatus::SUCCESS) {
        return Err("a send request did not complete once, in order and successfully".into());
    }
    let received = world.ends[1].recvs();
    if !received.iter().map(|done| &done.cookie).eq(recvs.iter().take(received.len())) {
        return Err("a receive request did not complete once and in order".into());
    }
    let mut last = None;
    for done in &received {
        let number = done.imm.ok_or("immediate data is missing")?;
        let message = messages.get(&number).ok_or("a message that nobody sent")?;
        let buffer = &world.ends[1].host.recv_taken[&done.cookie];
        check(done, message, buffer, qp_type).map_err(|what| format!("message {number:?}: {what}"))?;
        let number = u32::from_ne_bytes(number);
        if only_loses && last.is_some_and(|last| last >= number) {
            return Err(format!("message {number} came after {last:?}"));
        }
        last = Some(number);
    }
    Ok(Report {
        requests: sends.len() as u64,
        messages: received.len() as u64,
        packets: world.net.offered,
        lost: world.net.lost,
        time: world.now,
        ..Report::default()
    })
}

fn check(done: &RecvCompletion, message: &Message, buffer: &[u8], qp_type: QpType) -> Result<(), String> {
    let header: &[u8] = if qp_type == QpType::Ud { &NETWORK_HEADER } else { &[] };
    let len = header.len() + message.payload.len();
    let as_expected = done.status == WcStatus::SUCCESS
        && done.opcode == message.opcode
        && done.byte_len as usize == len
        && done.solicited == message.solicited
        && done.grh == (qp_type == QpType::Ud)
        && done.src_qpn == qpn(0);
    if !as_expected {
        return Err(format!("completed as {done:?}"));
    }
    if message.opcode == WcOpcode::RECV && buffer[..len] != [header, &message.payload].concat() {
        return Err("the payload is not what was sent".into());
    }
    Ok(())
}
