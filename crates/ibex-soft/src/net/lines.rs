//! Ways to devices like this one: lines.
//!
//! Owns which there are: to the processes of this address that queue pairs of ours send to by UDP and keep a line for, and in the same way to
//! other addresses where such a device is ([`super::abroad`]). A line only sends: everything is received by the link's own socket, to which the sender's port
//! is but a part of what the ICRC covers.
//!
//! On this address it is a connected socket. A connected IPv4 socket numbers its datagrams from a random start, which the ICRC
//! covers, too, and neither end can see: on a line both compute it as though the numbers were 0, 1, 2, … within each batch, as
//! they are without. What travels so is between two ports of this device, on one address, and never seen by a device that knows
//! better. To other addresses, where it may be seen, all goes by the link's unconnected socket.
//!
//! A forked child may keep its copies: they hold up nobody, having no name that anybody knows.
//!
//! Read first: connect(2) on datagram sockets, udp(7).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ibex_wire::icrc::Flow;

use super::tx::{Path, patiently};
use super::udp::{Target, Udp};

/// Connected sockets at most, which bounds descriptors; what goes to other processes goes without.
const MOST: usize = 64;

/// A way to one process, or to whoever holds the RoCE port of another address; it lasts as long as a queue pair keeps it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) udp: Arc<Udp>,
    /// Its own address.
    pub(super) from: SocketAddr,
    to: SocketAddr,
    target: Target,
    flow: Flow,
    /// Whether it is no longer known that such a device is there.
    ended: AtomicBool,
    changes: Arc<AtomicU32>,
}

impl Line {
    /// The port of the process that it goes to.
    #[inline]
    pub(super) fn port(&self) -> u16 {
        self.to.port()
    }

    /// Whether it goes to another address, this one, and may be used.
    #[inline]
    pub(super) fn leads_to(&self, address: IpAddr) -> bool {
        self.to.ip() == address && !self.ended.load(Ordering::Relaxed)
    }

    /// Whether it goes to another address at all.
    #[inline]
    pub(crate) fn is_abroad(&self) -> bool {
        self.to.ip() != self.from.ip()
    }

    /// Has nobody use it again.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Where it leads, for those who send past it.
    pub(super) fn path(&self) -> Path {
        Path::Udp(self.target, self.flow, None)
    }

    /// Sends one packet, which has room for its ICRC behind it.
    ///
    /// # Errors
    /// As [`Udp::send`].
    pub(super) fn send(&self, packet: &mut [u8]) -> io::Result<()> {
        self.flow.seal(0, packet);
        patiently(|| self.udp.send(&self.target, packet, packet.len()))
    }
}

/// The lines there are.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Mutex<Vec<Weak<Line>>>,
    /// How often there was one more or one less, or there may be, wrapping.
    changes: Arc<AtomicU32>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Lines {
    /// A number that is another one when lines have come or gone, or may now be had.
    #[inline]
    pub(super) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The line to `to`, if there is one.
    pub(super) fn find(&self, to: SocketAddr) -> Option<Arc<Line>> {
        find(&self.lines.lock().unwrap_or_else(PoisonError::into_inner), to)
    }

    /// The line to `to`, another process of this address, made from the `address` of `own` if there is none yet, asking for
    /// `buffer` bytes. `None` if there are too many, or none can be made.
    pub(super) fn open(
        &self,
        own: &Udp,
        mut address: SocketAddr,
        to: SocketAddr,
        buffer: usize,
    ) -> Option<Arc<Line>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = find(&lines, to) {
            return Some(line);
        }
        lines.retain(|line| line.strong_count() > 0);
        if lines.len() == MOST {
            return None;
        }
        address.set_port(0);
        let udp = Udp::connect(address, to, buffer).ok()?;
        // A thread of the program's may have gone into another namespace since, where `to` is somebody else, or nobody.
        if udp.network() != own.network() {
            return None;
        }
        address.set_port(udp.port());
        let line = self.make(Arc::new(udp), address, to)?;
        lines.push(Arc::downgrade(&line));
        self.note_change();
        Some(line)
    }

    /// A line by the link's own socket, whose address is `from`, to the RoCE port `to` of another address.
    pub(super) fn abroad(&self, own: &Arc<Udp>, from: SocketAddr, to: SocketAddr) -> Option<Arc<Line>> {
        self.make(own.clone(), from, to)
    }

    fn make(&self, udp: Arc<Udp>, from: SocketAddr, to: SocketAddr) -> Option<Arc<Line>> {
        let (flow, target, changes) = (Flow::new(from, to)?, Target::new(to), self.changes.clone());
        Some(Arc::new(Line { udp, from, to, target, flow, ended: false.into(), changes }))
    }

    /// Has everybody look anew which lines there are, or could be.
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

fn find(lines: &[Weak<Line>], to: SocketAddr) -> Option<Arc<Line>> {
    lines.iter().filter_map(Weak::upgrade).find(|line| line.to == to)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;

    fn local(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn a_line_is_shared_and_lasts_as_long_as_it_is_kept_and_their_number_is_bounded() {
        let lines = Lines::default();
        let own = Udp::bind(local(0), 1 << 16).unwrap();
        let open = |port| lines.open(&own, local(0), local(port), 1 << 16);
        assert!(lines.find(local(9)).is_none());
        let first = open(9).unwrap();
        let changes = lines.changes();
        assert!(
            Arc::ptr_eq(&first, &open(9).unwrap()) && Arc::ptr_eq(&first, &lines.find(local(9)).unwrap())
        );
        assert_eq!(changes, lines.changes());
        drop(first);
        assert!(lines.find(local(9)).is_none());
        assert_ne!(changes, lines.changes());
        let kept: Vec<_> = (100..200).filter_map(open).collect();
        assert_eq!(kept.len(), MOST);
        drop(kept);
        assert!(open(300).is_some());
    }

    #[test]
    fn a_peer_that_was_away_is_reached_again() {
        let peer = UdpSocket::bind(local(0)).unwrap();
        let to = peer.local_addr().unwrap();
        let lines = Lines::default();
        let own = Udp::bind(local(0), 1 << 16).unwrap();
        let line = lines.open(&own, local(0), to, 1 << 16).unwrap();
        let send = |byte: u8| line.udp.send(&Target::new(to), &[byte], 1);
        drop(peer);
        // The kernel tells of the first at the second, which is sent nevertheless.
        (1..=3).for_each(|byte| send(byte).unwrap());
        let peer = UdpSocket::bind(to).unwrap();
        send(4).unwrap();
        let mut byte = [0];
        assert_eq!(peer.recv_from(&mut byte).unwrap(), (1, line.from));
        assert_eq!(byte, [4]);
    }

    #[test]
    fn a_line_to_another_address_shares_the_socket_and_may_end() {
        let there = SocketAddr::from(([127, 0, 0, 9], 4791));
        let lines = Lines::default();
        let own = Arc::new(Udp::bind(local(0), 1 << 16).unwrap());
        let near = lines.open(&own, local(own.port()), local(9), 1 << 16).unwrap();
        let far = lines.abroad(&own, local(own.port()), there).unwrap();
        assert!(Arc::ptr_eq(&far.udp, &own) && far.from == local(own.port()));
        assert!(far.is_abroad() && !near.is_abroad());
        assert!(far.leads_to(there.ip()) && !far.leads_to(far.from.ip()) && lines.find(there).is_none());
        far.end();
        assert!(!far.leads_to(there.ip()));
    }
}
