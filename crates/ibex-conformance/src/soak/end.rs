//! One end of a connection, with a model of what must happen.
//!
//! Owns the choice of operations and every check. Messages are numbered; what message *k* of a side is (SEND, SEND with
//! immediate data, WRITE with immediate data), its length and its bytes follow from the seed, so that the receiver knows what
//! must come. Between messages an end writes to, reads from and counts in a part of the peer's memory that nobody else writes,
//! of which it keeps a copy.
//!
//! ```text
//!  region │ slots of sends │ slots of receives │ inbox: the peer's to write │ two words: the peer's to count in │
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ibex_sys::{
    IBV_QPS_ERR, IBV_SEND_FENCE, IBV_SEND_SOLICITED, IBV_WC_RECV, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_SUCCESS,
    IBV_WC_WITH_IMM, IBV_WC_WR_FLUSH_ERR, ibv_gid, ibv_mtu, ibv_qp_cap, ibv_wc,
};

use super::plan::{Connection, rng};
use crate::lab::{Lab, LinkOptions, Node, NodeOptions, Recv, Region, Send, Sge, gid_bytes, imm_data};

/// Requests outstanding in each queue.
const DEPTH: usize = 16;
/// Bytes of the inbox.
const INBOX: usize = 1 << 17;
/// Of the `wr_id` of receives; sends count from 0.
const RECEIVES: u64 = 1 << 63;
/// Acknowledgement timeout: 4.096 µs · 2^15 = 134 ms, seven times: a second for the peer to be scheduled in.
const TIMEOUT: u8 = 15;

/// What an end tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Introduction {
    qpn: u32,
    gid: [u8; 16],
    /// Of the inbox.
    addr: u64,
    rkey: u32,
}

impl fmt::Display for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gid = u128::from_be_bytes(self.gid);
        write!(f, "{},{gid:x},{},{}", self.qpn, self.addr, self.rkey)
    }
}

impl FromStr for Introduction {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split(',').collect();
        let word = |index: usize| words.get(index).copied().unwrap_or_default();
        Ok(Self {
            qpn: word(0).parse()?,
            gid: u128::from_str_radix(word(1), 16)?.to_be_bytes(),
            addr: word(2).parse()?,
            rkey: word(3).parse()?,
        })
    }
}

/// What must be true when a request has succeeded.
#[derive(Debug)]
enum Check {
    Nothing,
    /// These bytes are in the slot.
    Slot(Vec<u8>),
}

#[derive(Debug)]
struct Posted {
    id: u64,
    slot: usize,
    signaled: bool,
    check: Check,
    /// Whether the peer's answer brings data, which later writes must not overtake.
    fetches: bool,
}

/// A message, as both sides know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Send,
    SendImm,
    WriteImm,
}

struct Message {
    kind: Kind,
    len: usize,
    /// Where a WRITE with immediate data goes, in the inbox.
    offset: usize,
    solicited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Working,
    /// All is sent; the last look at the peer's memory is under way.
    Closing,
    /// Finished or broken, with every request accounted for.
    Over,
}

/// One end.
pub(super) struct End {
    connection: Connection,
    side: usize,
    seed: u64,
    stage: Stage,
    why: Option<String>,
    killed: bool,
    node: Node,
    region: Region,
    peer: Option<Introduction>,
    link: LinkOptions,
    slots: Vec<usize>,
    posted: VecDeque<Posted>,
    next_id: u64,
    sent: u64,
    received: u64,
    receives_posted: u64,
    receives_done: u64,
    /// The peer's inbox as this end has written it.
    shadow: Vec<u8>,
    /// The peer's words as this end has counted in them.
    words: [u64; 2],
    checked: u64,
}

impl End {
    pub(super) fn new(lab: &Lab, seed: u64, connection: Connection, side: usize) -> Self {
        let cap = ibv_qp_cap {
            max_send_wr: DEPTH as u32,
            max_recv_wr: DEPTH as u32,
            max_send_sge: 3,
            max_recv_sge: 3,
            max_inline_data: 0,
        };
        let options =
            NodeOptions { cap, cq_depth: 2 * DEPTH as i32, channel: true, ..NodeOptions::default() };
        let node = lab.node(&options);
        let region = node.open_region(2 * DEPTH * connection.most + INBOX + 16);
        let link = LinkOptions { timeout: TIMEOUT, ..LinkOptions::default() };
        node.to_init(&link);
        let mut end = Self {
            connection,
            side,
            seed,
            stage: Stage::New,
            why: None,
            killed: false,
            node,
            region,
            peer: None,
            link,
            slots: (0..DEPTH).collect(),
            posted: VecDeque::new(),
            next_id: 0,
            sent: 0,
            received: 0,
            receives_posted: 0,
            receives_done: 0,
            shadow: vec![0; INBOX],
            words: [0; 2],
            checked: 0,
        };
        for _ in 0..DEPTH {
            end.post_receive();
        }
        end
    }

    pub(super) fn connection(&self) -> usize {
        self.connection.id
    }

    pub(super) fn side(&self) -> usize {
        self.side
    }

    pub(super) fn introduction(&self) -> Introduction {
        let addr = self.region.addr() + (2 * DEPTH * self.connection.most) as u64;
        Introduction {
            qpn: self.node.qp.num(),
            gid: gid_bytes(self.node.lab.gid().1),
            addr,
            rkey: self.region.rkey(),
        }
    }

    pub(super) fn is_introduced(&self) -> bool {
        self.stage != Stage::New
    }

    /// The peer died before it could be met.
    pub(super) fn forsake(&mut self) {
        self.stage = Stage::Over;
    }

    /// Connects to the peer.
    pub(super) fn connect(&mut self, peer: &Introduction) {
        let gid = ibv_gid { raw: peer.gid };
        let (mut attr, mask) = self.node.rtr_attr(&self.link, peer.qpn, gid);
        attr.path_mtu = ibv_mtu(self.connection.mtu.min(attr.path_mtu.0));
        self.node.qp.modify(&attr, mask).expect("INIT to RTR");
        let (attr, mask) = Node::rts_attr(&self.link);
        self.node.qp.modify(&attr, mask).expect("RTR to RTS");
        self.peer = Some(peer.clone());
        self.stage = Stage::Working;
    }

    /// Operations whose outcome has been checked.
    pub(super) fn operations(&self) -> u64 {
        self.checked
    }

    /// Why the connection broke, if it did.
    pub(super) fn broken(&self) -> Option<&str> {
        self.why.as_deref()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.stage == Stage::Over
    }

    /// For a message about an end that is stuck.
    pub(super) fn describe(&self) -> String {
        format!(
            "connection {} side {}: {:?}, sent {} received {} of {}, posted {:?}, state {}",
            self.connection.id,
            self.side,
            self.stage,
            self.sent,
            self.received,
            self.connection.messages,
            self.posted.iter().map(|it| it.id).collect::<Vec<_>>(),
            self.node.qp.state()
        )
    }

    /// The peer's process is dead: whatever is posted from now on must fail in time.
    pub(super) fn peer_killed(&mut self) {
        self.killed = true;
    }

    /// The other side says that the connection is broken.
    pub(super) fn give_up(&mut self) {
        if self.why.is_none() && matches!(self.stage, Stage::Working | Stage::Closing) {
            self.why = Some("the other side".to_owned());
            self.node.qp.to_state(IBV_QPS_ERR).expect("any state to ERR");
        }
    }

    /// Does something, if there is something to do; true if anything happened.
    pub(super) fn step(&mut self, rng: &mut fastrand::Rng) -> bool {
        if matches!(self.stage, Stage::New | Stage::Over) {
            return false;
        }
        let done = self.node.cq.poll(rng.usize(1..=2 * DEPTH));
        let mut moved = !done.is_empty();
        for wc in &done {
            self.complete(wc);
        }
        if self.why.is_some() {
            if self.posted.is_empty() && self.receives_done == self.receives_posted {
                let more = self.node.cq.poll(1);
                assert!(more.is_empty(), "a completion of nothing: {more:?}");
                self.stage = Stage::Over;
                moved = true;
            }
            return moved;
        }
        let room = self.slots.len();
        if self.stage == Stage::Closing {
            if self.posted.is_empty() && self.received == self.connection.messages {
                if self.killed {
                    // Nothing of this end's depends on the peer any more: it need not notice.
                    self.give_up();
                } else {
                    self.stage = Stage::Over;
                }
                moved = true;
            } else if self.killed && self.posted.is_empty() {
                self.probe();
                moved = true;
            }
            return moved;
        }
        if self.sent == self.connection.messages {
            if room >= 2 {
                self.look_at_everything();
                self.stage = Stage::Closing;
                moved = true;
            }
        } else if room > 0 && rng.u8(0..4) > 0 {
            let count = rng.usize(1..=room.min(4));
            let batch: Vec<Send> = (0..count).filter_map(|_| self.choose(rng)).collect();
            if !batch.is_empty() {
                self.node.qp.post(&batch);
                moved = true;
            }
        }
        moved
    }

    /// Sleeps until a completion comes, a little while at most.
    pub(super) fn sleep(&mut self) {
        self.node.cq.arm(false);
        // What came before the arming raises no event.
        let done = self.node.cq.poll(2 * DEPTH);
        for wc in &done {
            self.complete(wc);
        }
        if done.is_empty() && self.node.cq.event_within(Duration::from_millis(20)) {
            self.node.cq.take_event();
        }
    }

    /// A request that must fail, the peer being dead.
    fn probe(&mut self) {
        let peer = self.peer.clone().expect("introduced");
        let (id, slot) = self.slot();
        let sge = self.slot_sge(slot, 0, 8);
        self.posted.push_back(Posted { id, slot, signaled: true, check: Check::Nothing, fetches: false });
        self.node.qp.post(&[Send::message(id, &[sge]).remote(peer.addr, peer.rkey)]);
    }

    fn slot(&mut self) -> (u64, usize) {
        let slot = self.slots.pop().expect("the caller has seen that there is one");
        let id = self.next_id;
        self.next_id += 1;
        (id, slot)
    }

    fn slot_offset(&self, slot: usize) -> usize {
        slot * self.connection.most
    }

    fn slot_sge(&self, slot: usize, from: usize, len: usize) -> Sge {
        self.region.sge((self.slot_offset(slot) + from) as u64, len as u32)
    }

    /// One to three elements that cover a slot's first `len` bytes.
    fn gather(&self, slot: usize, len: usize, rng: &mut fastrand::Rng) -> Vec<Sge> {
        let mut cuts = vec![0, len];
        cuts.extend((0..rng.usize(0..3)).map(|_| rng.usize(0..=len)));
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| self.slot_sge(slot, cut[0], cut[1] - cut[0])).collect()
    }

    /// The next request.
    fn choose(&mut self, rng: &mut fastrand::Rng) -> Option<Send> {
        if self.slots.is_empty() {
            return None;
        }
        // The last of a queue's requests must be signalled, or nothing would ever free the queue.
        let silent = self.posted.iter().rev().take_while(|it| !it.signaled).count();
        let signaled = silent + 1 >= DEPTH / 2 || self.slots.len() == 1 || rng.u8(0..3) > 0;
        if self.sent < self.connection.messages && rng.bool() {
            return Some(self.message(signaled, rng));
        }
        Some(match rng.u8(0..8) {
            0..=2 => self.write(signaled, rng),
            3..=5 => self.read(signaled, rng),
            _ => self.count(signaled, rng),
        })
    }

    fn finish(&mut self, send: Send, slot: usize, signaled: bool, check: Check, fetches: bool) -> Send {
        self.posted.push_back(Posted { id: send.id, slot, signaled, check, fetches });
        if signaled { send } else { send.unsignalled() }
    }

    /// A WRITE that follows a READ may overtake it unless it is fenced.
    fn fenced(&self, send: Send) -> Send {
        if self.posted.iter().any(|it| it.fetches) { send.flag(IBV_SEND_FENCE) } else { send }
    }

    fn message(&mut self, signaled: bool, rng: &mut fastrand::Rng) -> Send {
        let number = self.sent;
        self.sent += 1;
        let message = self.about(self.side, number);
        let bytes = self.content(self.side, number, message.len);
        let (id, slot) = self.slot();
        self.region.write(self.slot_offset(slot), &bytes);
        let sges = self.gather(slot, message.len, rng);
        let imm = number as u32;
        let peer = self.peer.clone().expect("introduced");
        let send = match message.kind {
            Kind::Send => Send::message(id, &sges),
            Kind::SendImm => Send::message_imm(id, &sges, imm),
            Kind::WriteImm => {
                self.shadow[message.offset..message.offset + message.len].copy_from_slice(&bytes);
                let send = Send::write_imm(id, &sges, &self.region, 0, imm);
                self.fenced(send.remote(peer.addr + message.offset as u64, peer.rkey))
            }
        };
        let send = if message.solicited { send.flag(IBV_SEND_SOLICITED) } else { send };
        self.finish(send, slot, signaled, Check::Nothing, false)
    }

    fn write(&mut self, signaled: bool, rng: &mut fastrand::Rng) -> Send {
        let (offset, len) = self.range(rng);
        let peer = self.peer.clone().expect("introduced");
        let (id, slot) = self.slot();
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        self.region.write(self.slot_offset(slot), &bytes);
        self.shadow[offset..offset + len].copy_from_slice(&bytes);
        let sges = self.gather(slot, len, rng);
        let send = Send::write(id, &sges, &self.region, 0).remote(peer.addr + offset as u64, peer.rkey);
        let send = self.fenced(send);
        self.finish(send, slot, signaled, Check::Nothing, false)
    }

    fn read(&mut self, signaled: bool, rng: &mut fastrand::Rng) -> Send {
        let (offset, len) = self.range(rng);
        self.read_range(offset, len, signaled, rng)
    }

    fn read_range(&mut self, offset: usize, len: usize, signaled: bool, rng: &mut fastrand::Rng) -> Send {
        let peer = self.peer.clone().expect("introduced");
        let (id, slot) = self.slot();
        self.region.write(self.slot_offset(slot), &vec![0x5a; len]);
        let sges = self.gather(slot, len, rng);
        let expected = self.shadow[offset..offset + len].to_vec();
        let send = Send::read(id, &sges, &self.region, 0).remote(peer.addr + offset as u64, peer.rkey);
        self.finish(send, slot, signaled, Check::Slot(expected), true)
    }

    /// An atomic operation on one of the peer's words.
    fn count(&mut self, signaled: bool, rng: &mut fastrand::Rng) -> Send {
        let peer = self.peer.clone().expect("introduced");
        let (id, slot) = self.slot();
        let sge = self.slot_sge(slot, 0, 8);
        let which = rng.usize(0..2);
        let at = peer.addr + (INBOX + 8 * which) as u64;
        let old = self.words[which];
        let send = if rng.bool() {
            let add = rng.u64(..);
            self.words[which] = old.wrapping_add(add);
            Send::fetch_add(id, sge, &self.region, 0, add)
        } else {
            let (compare, swap) = (if rng.bool() { old } else { !old }, rng.u64(..));
            if compare == old {
                self.words[which] = swap;
            }
            Send::compare_swap(id, sge, &self.region, 0, compare, swap)
        };
        self.finish(send.remote(at, peer.rkey), slot, signaled, Check::Slot(old.to_ne_bytes().to_vec()), true)
    }

    /// The last requests: the peer's whole inbox, piece by piece, as far as there are slots, and a word.
    fn look_at_everything(&mut self) {
        let mut rng = rng(self.seed, 77);
        let piece = self.connection.most;
        let pieces = INBOX.div_ceil(piece).min(self.slots.len() - 1);
        let mut batch = Vec::new();
        for index in 0..pieces {
            let offset = (index * piece).min(INBOX - piece);
            batch.push(self.read_range(offset, piece, true, &mut rng));
        }
        batch.push(self.count(true, &mut rng));
        self.node.qp.post(&batch);
    }

    fn range(&self, rng: &mut fastrand::Rng) -> (usize, usize) {
        let len = if rng.u8(0..10) == 0 {
            self.connection.most
        } else {
            rng.usize(0..=self.connection.most.min(3000))
        };
        (rng.usize(0..=INBOX - len), len)
    }

    fn about(&self, side: usize, number: u64) -> Message {
        let mut rng = rng(self.seed, (self.connection.id as u64) << 40 | (side as u64) << 39 | number << 1);
        let kind = [Kind::Send, Kind::SendImm, Kind::WriteImm][rng.usize(0..3)];
        let (offset, len) = self.range(&mut rng);
        Message { kind, len, offset, solicited: rng.bool() }
    }

    fn content(&self, side: usize, number: u64, len: usize) -> Vec<u8> {
        let mut rng =
            rng(self.seed, (self.connection.id as u64) << 40 | (side as u64) << 39 | number << 1 | 1);
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        bytes
    }

    fn receive_offset(&self, number: u64) -> usize {
        (DEPTH + (number % DEPTH as u64) as usize) * self.connection.most
    }

    fn post_receive(&mut self) {
        let offset = self.receive_offset(self.receives_posted);
        let sge = self.region.sge(offset as u64, self.connection.most as u32);
        self.node.qp.post_recv(&[Recv::new(RECEIVES + self.receives_posted, &[sge])]);
        self.receives_posted += 1;
    }

    fn complete(&mut self, wc: &ibv_wc) {
        assert_eq!(wc.qp_num, self.node.qp.num(), "a completion of another queue pair");
        if wc.wr_id >= RECEIVES { self.complete_receive(wc) } else { self.complete_send(wc) }
    }

    fn complete_send(&mut self, wc: &ibv_wc) {
        let at = self.posted.iter().position(|it| it.id == wc.wr_id);
        let at = at.unwrap_or_else(|| panic!("{}: a completion of nothing: {wc:?}", self.describe()));
        if wc.status == IBV_WC_SUCCESS {
            assert!(self.posted[at].signaled, "a completion of an unsignalled request: {wc:?}");
        }
        for before in self.posted.drain(..at).collect::<Vec<_>>() {
            let flushed = wc.status == IBV_WC_WR_FLUSH_ERR && self.why.is_some();
            assert!(!before.signaled && !flushed, "no completion of request {}: {wc:?} came", before.id);
            self.verify(&before);
        }
        let posted = self.posted.pop_front().expect("found above");
        if wc.status == IBV_WC_SUCCESS {
            self.verify(&posted);
        } else {
            self.fail(wc);
            self.slots.push(posted.slot);
        }
    }

    /// A request has succeeded.
    fn verify(&mut self, posted: &Posted) {
        if let Check::Slot(expected) = &posted.check {
            let found = self.region.read(self.slot_offset(posted.slot), expected.len());
            if found != *expected {
                let at = found.iter().zip(expected).position(|(found, expected)| found != expected);
                panic!(
                    "{}: request {}: wrong byte at {at:?} of {}",
                    self.describe(),
                    posted.id,
                    expected.len()
                );
            }
        }
        self.slots.push(posted.slot);
        self.checked += 1;
    }

    fn fail(&mut self, wc: &ibv_wc) {
        if self.why.is_none() {
            self.why = Some(format!("{:?} of request {}", wc.status, wc.wr_id));
        } else {
            assert_eq!(wc.status, IBV_WC_WR_FLUSH_ERR, "a second failure: {wc:?} after {:?}", self.why);
        }
    }

    fn complete_receive(&mut self, wc: &ibv_wc) {
        let number = wc.wr_id - RECEIVES;
        assert_eq!(number, self.receives_done, "{}: receives complete in order", self.describe());
        self.receives_done += 1;
        if wc.status != IBV_WC_SUCCESS {
            self.fail(wc);
            return;
        }
        let message = self.about(1 - self.side, self.received);
        let bytes = self.content(1 - self.side, self.received, message.len);
        let (opcode, offset) = match message.kind {
            Kind::WriteImm => (IBV_WC_RECV_RDMA_WITH_IMM, 2 * DEPTH * self.connection.most + message.offset),
            _ => (IBV_WC_RECV, self.receive_offset(number)),
        };
        let about = format!("{}: message {}", self.describe(), self.received);
        assert_eq!((wc.opcode, wc.byte_len as usize), (opcode, message.len), "{about}");
        let has_imm = wc.wc_flags & IBV_WC_WITH_IMM.0 != 0;
        assert_eq!(has_imm, message.kind != Kind::Send, "{about}");
        if has_imm {
            assert_eq!(u32::from_be(imm_data(wc)), self.received as u32, "{about}");
        }
        // A WRITE's bytes may be overwritten by a later one before this is seen; the peer checks them by reading.
        if message.kind != Kind::WriteImm {
            assert!(self.region.read(offset, message.len) == bytes, "{about}: wrong bytes");
        }
        self.received += 1;
        self.checked += 1;
        if self.why.is_none() {
            self.post_receive();
        }
    }
}
