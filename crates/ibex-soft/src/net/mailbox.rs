//! Named sockets of this address besides the slots': names held for their own sake, and mailboxes.
//!
//! Owns what connection management needs of the network: a port is a name that one process of the address holds, a
//! listener a mailbox with a name, to which whoever receives a request passes it on. The kernel takes names back when the
//! process is gone, however it went. Does not own what the names mean ([`crate::cm`]), nor the slots' sockets
//! ([`super::slot`]).
//!
//! Read first: unix(7), "abstract".

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::SockRef;

use super::forward::{HEADER, Header, Kind, abstract_address};
use super::interest::Interest;
use super::management;
use super::qpn;
use super::rx::{Datagram, Received, Sink};
use super::wire::Wire;

/// Bytes of the longest packet a mailbox takes: a management datagram with its headers is 276.
const LETTER: usize = 512;

/// All names that a link holds.
#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    names: Mutex<Vec<Arc<UnixDatagram>>>,
    open: Mutex<Vec<Arc<UnixDatagram>>>,
    /// Entries of `open`, so that who polls need not lock it.
    count: AtomicUsize,
}

/// A name of this address that this process holds until it drops this.
#[derive(Debug)]
pub(crate) struct Held {
    socket: Arc<UnixDatagram>,
    all: Arc<Mailboxes>,
    interest: Arc<Interest>,
}

impl Mailboxes {
    fn names(&self) -> MutexGuard<'_, Vec<Arc<UnixDatagram>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<UnixDatagram>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `each` with every descriptor. Waits for no lock: for the child of a fork.
    pub(super) fn each_fd(&self, mut each: impl FnMut(RawFd)) {
        if let Ok(names) = self.names.try_lock() {
            names.iter().for_each(|socket| each(socket.as_raw_fd()));
        }
    }
}

impl Held {
    /// Makes the name a mailbox: what is sent to it is received with everything else.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn listen(&self) -> io::Result<()> {
        self.interest.add(self.socket.as_raw_fd())?;
        self.all.open().push(self.socket.clone());
        self.all.count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self.all.open();
        if let Some(at) = open.iter().position(|socket| Arc::ptr_eq(socket, &self.socket)) {
            open.swap_remove(at);
            self.all.count.fetch_sub(1, Ordering::SeqCst);
            self.interest.remove(self.socket.as_raw_fd());
        }
        drop(open);
        self.all.names().retain(|socket| !Arc::ptr_eq(socket, &self.socket));
    }
}

impl Wire {
    /// Takes a name of this address.
    ///
    /// # Errors
    /// `EADDRINUSE` if a process has it; those of socket(2).
    pub(crate) fn hold(&self, name: &str) -> io::Result<Held> {
        let name = SocketAddr::from_abstract_name(self.names().other(name))?;
        let socket = UnixDatagram::bind_addr(&name)?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(socket);
        let all = self.mailboxes().clone();
        all.names().push(socket.clone());
        Ok(Held { socket, all, interest: self.interest().clone() })
    }

    /// Passes a packet on to the mailbox of that name, without waiting for room. `source` is the address it came from.
    ///
    /// # Errors
    /// `ECONNREFUSED` if there is none; `EAGAIN` if it is full.
    pub(crate) fn post(&self, name: &str, source: IpAddr, packet: &[u8]) -> io::Result<()> {
        let to = abstract_address(self.names().other(name).as_bytes())?;
        let header = self.letter(source, packet).emit();
        let parts = [IoSlice::new(&header), IoSlice::new(packet)];
        // Opening took a slot.
        let from = self.slots().first().ok_or(io::ErrorKind::NotConnected)?;
        SockRef::from(&from.socket).send_to_vectored(&parts, &to).map(drop)
    }

    /// Passes a packet on to the process that owns `slot`, without waiting for room. `source` is the address it came from.
    ///
    /// # Errors
    /// `ECONNREFUSED` if nobody owns it; `EAGAIN` if its queue is full.
    pub(crate) fn relay(&self, slot: u16, source: IpAddr, packet: &[u8]) -> io::Result<()> {
        self.send_to_slot(slot, &self.letter(source, packet), packet)
    }

    /// Whether a process owns `slot`. It is told our port, which does no harm.
    pub(crate) fn alive(&self, slot: u16) -> bool {
        let told = self.slots().first().map(|first| self.greet(first, slot, false));
        !told.is_some_and(|told| told.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    }

    /// The header of a packet that is passed on, its ICRC checked and gone.
    fn letter(&self, source: IpAddr, packet: &[u8]) -> Header {
        Header {
            kind: Kind::Local,
            ask: false,
            // A management datagram's length.
            segment: packet.len() as u16,
            first: 0,
            port: self.own().port(),
            source,
        }
    }
}

/// What came to the mailboxes; only packets for queue pair 1 are taken from there.
pub(super) fn receive(wire: &Wire, budget: usize, sink: &mut impl Sink) -> Received {
    let mut total = Received::default();
    if wire.mailboxes().count.load(Ordering::Relaxed) == 0 {
        return total;
    }
    for socket in wire.mailboxes().open().iter() {
        let mut letter = [0; HEADER + LETTER];
        let mut letters = 0;
        // Bad ones count, too, or a flood of them would never end.
        while letters < budget {
            let Ok(length) = socket.recv(&mut letter) else { break };
            letters += 1;
            match Header::parse(&letter[..length]) {
                Some((header, packet)) if header.kind == Kind::Local && is_management(packet) => {
                    sink.datagram(Datagram { source: header.source, packet });
                    total.packets += 1;
                }
                _ => wire.counters().rx_malformed.add(1),
            }
        }
        total.more |= letters >= budget;
    }
    wire.counters().rx_packets.add(total.packets as u64);
    total
}

/// Whether these bytes are a packet for queue pair 1.
fn is_management(packet: &[u8]) -> bool {
    packet.len() >= ibex_wire::Bth::LEN && qpn::destination(packet) == management::QPN
}
