//! Sending: batches of packets, where they go, and what happens when they cannot.
//!
//! Owns the buffer in which packets to one destination collect until one system call takes them all,
//! their ICRC, and the choice between the peer's UDP port and its slot socket. A packet that cannot
//! be sent is counted and dropped, as a wire would: the transport above recovers.
//!
//! Read first: udp(7) (`UDP_SEGMENT`): all segments of a batch are of one size, the last may be
//! shorter. A packet that is longer than those before it begins a new batch.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ibex_wire::ICRC_LEN;
use ibex_wire::icrc::Flow;

use std::sync::{Arc, Weak};

use super::forward::{Header, Kind};
use super::lines::Line;
use super::qpn;
use super::udp::{MAX_PAYLOAD, Target};
use super::wire::Wire;
use crate::host::{self, Link, LinkId, Room, Sent};

/// The largest packet a batch takes, bytes: headers, 4096 bytes of payload and padding, without the ICRC.
pub(crate) const MAX_PACKET: usize = 4096 + 64;

/// Bytes of records after which those collected for a link are published: enough to make the cost of publishing small,
/// and little enough that the receiver begins while the sender goes on.
const HOST_BATCH: usize = 16 << 10;

/// Sends tried when the socket buffer, or a slot's queue of ten datagrams, is full. Each gives way to
/// other threads, among them whoever empties it; a network card takes microseconds for that, too.
const FULL_TRIES: u32 = 64;

/// The queue pair a packet is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// Address of the device the queue pair is on.
    pub(crate) address: IpAddr,
    /// Its queue pair number.
    pub(crate) qpn: u32,
}

/// Where a packet travels to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Over UDP to this socket, with ICRC.
    Udp(SocketAddr),
    /// To the socket of this slot on our address, without.
    Slot(u16),
    /// Through this link's shared memory, without.
    Host(LinkId),
}

/// A route, ready to be used.
#[derive(Debug, Clone)]
pub(super) enum Path {
    Udp(Target, Flow, Option<Weak<Line>>),
    Slot(u16),
    Host(Arc<Link>),
    /// There is none: the link is just gone, or the destination's address family is not ours.
    None,
}

/// Packets collected for one system call; keep one and reuse it.
///
/// What is still in it when it is dropped is not sent.
#[derive(Debug)]
pub(crate) struct TxBatch {
    buffer: Box<[u8]>,
    route: Route,
    /// `route`, prepared.
    path: Path,
    /// Packets collected.
    count: usize,
    /// Bytes collected.
    end: usize,
    /// Bytes of each packet but the last.
    segment: usize,
    /// Whether the last one was shorter, so that none can follow.
    closed: bool,
    /// Whether a packet was not asked for because its link was full.
    stalled: bool,
    /// [`Wire::line_changes`] when the path was prepared.
    changes: u32,
    /// Whether the path is, or might be, a line.
    lined: bool,
}

impl TxBatch {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        Self {
            // A packet is written before its length, and so whether it fits, is known.
            buffer: vec![0; MAX_PAYLOAD + MAX_PACKET + ICRC_LEN].into_boxed_slice(),
            route: Route::Slot(0),
            path: Path::None,
            count: 0,
            end: 0,
            segment: 0,
            closed: false,
            stalled: false,
            changes: 0,
            lined: false,
        }
    }

    /// Lets `write` put one packet (BTH to padding, without the ICRC) for `to` into the batch; it
    /// gets [`MAX_PACKET`] bytes and returns how many it wrote, 0 for none.
    ///
    /// What was collected before is sent first when the packet cannot join it. Returns whether there
    /// was a packet, so that `while batch.push(…) {}` drains a queue.
    ///
    /// # Panics
    /// If `write` claims more bytes than it was given, or fewer than a BTH.
    pub(crate) fn push(&mut self, wire: &Wire, to: Peer, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let route = wire.route(to);
        let changes = wire.line_changes();
        if route != self.route || changes != self.changes {
            self.flush(wire);
            self.path = Path::new(wire, route);
            (self.route, self.changes) = (route, changes);
            self.lined = matches!(route, Route::Udp(to) if wire.may_have_line(to));
        }
        if let Path::Host(_) = &self.path {
            return self.push_record(wire, write);
        }
        if let Path::Slot(slot) = self.path
            && self.count == 0
            && wire.awaits_port(slot)
        {
            self.stalled = true;
            return false;
        }
        if self.closed || self.count == wire.max_segments() || self.end + self.segment > MAX_PAYLOAD {
            self.flush(wire);
        }
        let start = self.end;
        let written = write(&mut self.buffer[start..start + MAX_PACKET]);
        if written == 0 {
            return false;
        }
        let length = match self.path {
            Path::Udp(..) => written + ICRC_LEN,
            Path::Slot(_) | Path::Host(_) | Path::None => written,
        };
        if self.count > 0 && length > self.segment {
            self.flush(wire);
            self.buffer.copy_within(start..start + written, 0);
        }
        if let Path::Udp(_, flow, _) = &self.path {
            // The kernel numbers the segments of a batch from 0; a batch has at most 64.
            flow.seal(self.count as u16, &mut self.buffer[self.end..self.end + length]);
        }
        if self.count == 0 {
            self.segment = length;
        }
        self.closed = length < self.segment;
        self.end += length;
        self.count += 1;
        true
    }

    /// [`TxBatch::push`] for a link: packets of any size collect as the records they will be.
    fn push_record(&mut self, wire: &Wire, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.count == wire.max_records() || self.end + host::record(MAX_PACKET) > HOST_BATCH {
            self.flush(wire);
        }
        let Path::Host(link) = &self.path else { return false };
        if link.room(self.end + host::record(MAX_PACKET)) == Room::Wait {
            self.flush(wire);
            self.stalled = true;
            return false;
        }
        let start = self.end + host::HEADER;
        let written = write(&mut self.buffer[start..start + MAX_PACKET]);
        if written == 0 {
            return false;
        }
        self.buffer[self.end..start].copy_from_slice(&host::header(written));
        self.end += host::record(written);
        self.count += 1;
        true
    }

    /// Sends what was collected if it is to go at once, or if that costs little.
    pub(crate) fn hand_over(&mut self, wire: &Wire, at_once: bool) {
        if at_once || matches!(self.path, Path::Host(_)) {
            self.flush(wire);
        }
    }

    /// Whether, since this was last asked, a packet had to wait for room on its link.
    pub(crate) fn take_stalled(&mut self) -> bool {
        std::mem::take(&mut self.stalled)
    }

    /// Whether there is, or could be opened, a line to the peer of the last packet: [`Wire::line`].
    #[inline]
    pub(crate) fn is_lined(&self) -> bool {
        self.lined
    }

    /// Makes it as good as new, for another user: what was not sent is forgotten, and so is a link that is down.
    pub(crate) fn reset(&mut self) {
        (self.count, self.end, self.segment, self.closed, self.stalled) = (0, 0, 0, false, false);
        if matches!(&self.path, Path::Host(link) if link.is_down()) {
            (self.route, self.path) = (Route::Slot(0), Path::None);
        }
    }

    /// Sends what was collected. Call it before going to do something else.
    #[inline]
    pub(crate) fn flush(&mut self, wire: &Wire) {
        if self.count > 0 {
            self.send_all(wire);
        }
    }

    fn send_all(&mut self, wire: &Wire) {
        let packets = &mut self.buffer[..self.end];
        match (&self.path, wire.injector()) {
            (Path::Host(link), None) => send_records(wire, link, packets, self.count),
            // One record: its padding is left behind.
            (Path::Host(_), Some(mut injector)) => {
                let length = host::length(packets);
                injector.send(wire, &self.path, &mut packets[host::HEADER..][..length], length);
            }
            (_, None) => transmit(wire, &self.path, packets, self.segment),
            (_, Some(mut injector)) => injector.send(wire, &self.path, packets, self.segment),
        }
        (self.count, self.end, self.segment, self.closed) = (0, 0, 0, false);
    }
}

impl Path {
    fn new(wire: &Wire, route: Route) -> Self {
        match route {
            Route::Udp(address) => {
                let near = address.ip() == wire.address();
                let line = near.then(|| wire.lines().find(address)).flatten();
                match Flow::new(line.as_ref().map_or(wire.own_address(), |line| line.from), address) {
                    Some(flow) => Self::Udp(Target::new(address), flow, line.as_ref().map(Arc::downgrade)),
                    None => Self::None,
                }
            }
            Route::Slot(slot) => Self::Slot(slot),
            Route::Host(id) => wire.host().and_then(|host| host.link(id)).map_or(Self::None, Self::Host),
        }
    }
}

/// Sends records over a link, and counts them either way.
fn send_records(wire: &Wire, link: &Link, records: &[u8], count: usize) {
    let counters = wire.counters();
    if wire.captures() {
        let mut rest = records;
        while !rest.is_empty() {
            let length = host::length(rest);
            wire.capture(&Path::None, &rest[host::HEADER..][..length], length);
            rest = &rest[host::record(length)..];
        }
    }
    let sent = link.send(records, count);
    if sent == Sent::Later
        && let Some(host) = wire.host()
    {
        host.note_kept();
    }
    match sent {
        Sent::Now | Sent::Later => counters.tx_via_host.add(count as u64),
        Sent::Lost => counters.tx_dropped.add(count as u64),
    }
}

/// Sends `packets`, each of `segment` bytes, the last perhaps shorter; counts them either way.
pub(super) fn transmit(wire: &Wire, path: &Path, packets: &mut [u8], segment: usize) {
    let counters = wire.counters();
    let count = packets.len().div_ceil(segment);
    if !matches!(path, Path::Host(_)) {
        wire.capture(path, packets, segment);
    }
    if matches!(path, Path::Udp(..) | Path::Slot(_)) {
        // An answer may come the same way.
        wire.warm();
    }
    let result = match path {
        Path::Udp(target, flow, line) => match send(wire, target, line.as_ref(), packets, segment) {
            Err(error) if count > 1 && matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => {
                // A route without segmentation: from now on one by one, and these once more.
                wire.stop_segmenting();
                for packet in packets.chunks_mut(segment) {
                    flow.seal(0, packet);
                    transmit(wire, path, packet, segment);
                }
                return;
            }
            result => result,
        },
        Path::Slot(slot) => {
            counters.tx_via_slot.add(count as u64);
            let header = Header {
                kind: Kind::Local,
                ask: wire.may_ask(*slot),
                // At most MAX_PACKET.
                segment: segment as u16,
                first: 0,
                port: wire.own().port(),
                source: wire.address(),
            };
            patiently(|| wire.send_to_slot(*slot, &header, packets))
        }
        Path::Host(link) => {
            // What the injector lets through comes packet by packet.
            let mut record = vec![0; host::record(packets.len())];
            record[..host::HEADER].copy_from_slice(&host::header(packets.len()));
            record[host::HEADER..][..packets.len()].copy_from_slice(packets);
            return send_records(wire, link, &record, 1);
        }
        Path::None => Err(io::ErrorKind::Unsupported.into()),
    };
    match result {
        Ok(()) => {
            counters.tx_packets.add(count as u64);
            counters.tx_bytes.add(packets.len() as u64);
            counters.tx_gso_batches.add((count > 1).into());
        }
        Err(_) => counters.tx_dropped.add(count as u64),
    }
}

/// Sends by the line, or else by our own socket.
fn send(
    wire: &Wire,
    target: &Target,
    line: Option<&Weak<Line>>,
    packets: &mut [u8],
    segment: usize,
) -> io::Result<()> {
    let Some(line) = line else { return patiently(|| wire.own().send(target, packets, segment)) };
    if let Some(line) = line.upgrade() {
        return patiently(|| line.udp.send(target, packets, segment));
    }
    // It has ended since these were sealed for it.
    let flow = Flow::new(wire.own_address(), target.address()).ok_or(io::ErrorKind::Unsupported)?;
    for (index, packet) in packets.chunks_mut(segment).enumerate() {
        flow.seal(index as u16, packet);
    }
    patiently(|| wire.own().send(target, packets, segment))
}

/// Tries again a few times while the socket buffer, or the receiver's queue, is full.
pub(super) fn patiently(mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..FULL_TRIES {
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            result => return result,
        }
    }
    send()
}

/// Where packets for `to` go, seen from `wire`.
pub(super) fn route(wire: &Wire, to: Peer) -> Route {
    if to.address != wire.address() {
        return Route::Udp(wire.roce_address(to.address));
    }
    match qpn::slot(to.qpn) {
        // Management queue pairs are the holder's.
        0 => Route::Udp(wire.roce_address(to.address)),
        slot => match (wire.link_of(slot), wire.port_of(slot)) {
            (Some(link), _) => Route::Host(link),
            (None, Some(port)) => Route::Udp(wire.neighbour(port)),
            (None, None) => Route::Slot(slot),
        },
    }
}
