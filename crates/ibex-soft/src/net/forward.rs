//! Datagrams between processes of one address, over their slot sockets.
//!
//! Owns the names of those sockets and the 32-byte header of what travels between them: packets of
//! the holder for somebody else, first packets to a peer whose port is not known yet, and hellos.
//! Both sides are the same build or at least the same host, so words are in its byte order; a
//! version says whether they understand each other. Does not own the sockets ([`super::slot`]).

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use socket2::SockAddr;

/// Bytes of [`Header`] on the socket.
pub(super) const HEADER: usize = 32;

/// First bytes of every datagram: a name and a version, so that a stranger's are told apart.
const MAGIC: [u8; 4] = *b"ibx\x02";

/// Bytes of the longest abstract name: `sun_path` of sockaddr_un without its first.
const NAME_ROOM: usize = 107;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No packets: the sender tells its port.
    Hello,
    /// Packets of a process on this address, without ICRC: they never left the host's memory.
    Local,
    /// Packets that came to the RoCE port from elsewhere, each with its ICRC.
    Foreign,
    /// No packets: an invitation to share memory, its connection beside it ([`crate::host`]).
    Invite,
}

/// The header before the packets of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Whether the sender asks for the receiver's port.
    pub(super) ask: bool,
    /// Bytes of each packet, the last may be shorter.
    pub(super) segment: u16,
    /// Position of the first packet in what the holder received: its likely IP identification.
    pub(super) first: u16,
    /// The UDP port: of the sender's own socket, or for `Foreign` the one the packets came from.
    pub(super) port: u16,
    /// The address the packets came from.
    pub(super) source: IpAddr,
}

impl Header {
    pub(super) fn emit(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = match self.kind {
            Kind::Hello => 1,
            Kind::Local => 2,
            Kind::Foreign => 3,
            Kind::Invite => 4,
        };
        bytes[5] = self.ask.into();
        bytes[6..8].copy_from_slice(&self.segment.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.first.to_ne_bytes());
        bytes[10..12].copy_from_slice(&self.port.to_ne_bytes());
        let source = match self.source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytes[16..32].copy_from_slice(&source.octets());
        bytes
    }

    /// The header and the packets of `datagram`, or `None` if it is not one of ours.
    pub(super) fn parse(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, packets) = datagram.split_first_chunk::<HEADER>()?;
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[4] {
            1 => Kind::Hello,
            2 => Kind::Local,
            3 => Kind::Foreign,
            4 => Kind::Invite,
            _ => return None,
        };
        let source: [u8; 16] = *bytes[16..].first_chunk()?;
        let header = Self {
            kind,
            ask: bytes[5] != 0,
            segment: half(6),
            first: half(8),
            port: half(10),
            source: IpAddr::V6(Ipv6Addr::from(source)).to_canonical(),
        };
        // Packets are cut by their size, and nothing can be cut into pieces of none.
        let cut = matches!(kind, Kind::Local | Kind::Foreign);
        let sound = bytes[..4] == MAGIC && (header.segment > 0 || packets.is_empty() && !cut);
        sound.then_some((header, packets))
    }
}

/// The names in the abstract namespace of unix(7) that belong to one address and port.
#[derive(Debug, Clone)]
pub(super) struct Names {
    base: String,
}

impl Names {
    /// The names of the device at `address`.
    pub(super) fn new(address: SocketAddr) -> Self {
        // A link-local address exists once per interface: its text has the interface's index.
        Self { base: format!("ibex-soft/{address}/") }
    }

    /// The name that whoever holds the RoCE port listens on.
    pub(super) fn holder(&self) -> String {
        format!("{}holder", self.base)
    }

    /// The name `name` among those of this address.
    pub(super) fn other(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// The name of slot `slot`'s datagram socket.
    pub(super) fn slot(&self, slot: u16) -> String {
        format!("{}{slot}", self.base)
    }

    /// The same as an address to send to, made without allocating.
    pub(super) fn slot_address(&self, slot: u16) -> io::Result<SockAddr> {
        let mut name = [0; NAME_ROOM];
        let mut rest = &mut name[..];
        write!(rest, "{}{slot}", self.base)?;
        let used = NAME_ROOM - rest.len();
        abstract_address(&name[..used])
    }

    /// The slot whose socket has this name, if it is one of ours.
    pub(super) fn parse(&self, name: &[u8]) -> Option<u16> {
        let digits = name.strip_prefix(self.base.as_bytes())?;
        std::str::from_utf8(digits).ok()?.parse().ok().filter(|&slot| slot > 0 && slot < super::qpn::SLOTS)
    }
}

/// The address of an abstract name.
pub(super) fn abstract_address(name: &[u8]) -> io::Result<SockAddr> {
    // One byte stays zero, which says that the name is an abstract one.
    let mut path = [0; NAME_ROOM + 1];
    let used = path.get_mut(1..=name.len()).ok_or(io::ErrorKind::InvalidInput)?;
    used.copy_from_slice(name);
    SockAddr::unix(Path::new(OsStr::from_bytes(&path[..=name.len()])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_way() {
        for (kind, source) in [(Kind::Hello, "127.0.0.1"), (Kind::Local, "::1"), (Kind::Foreign, "192.0.2.1")]
        {
            let source = source.parse().unwrap();
            let header =
                Header { kind, ask: kind == Kind::Local, segment: 1040, first: 3, port: 50_000, source };
            let datagram = [&header.emit()[..], b"packets"].concat();
            assert_eq!(Header::parse(&datagram), Some((header, &b"packets"[..])));
            assert_eq!(Header::parse(&datagram[..HEADER - 1]), None);
            let mut strange = datagram.clone();
            strange[3] += 1;
            assert_eq!(Header::parse(&strange), None);
            let endless = Header { segment: 0, ..header }.emit();
            // Once this ended a receiver: packets of no length were cut, though there were none.
            assert_eq!(Header::parse(&endless).is_some(), kind == Kind::Hello);
            assert_eq!(Header::parse(&[&endless[..], b"packets"].concat()), None);
        }
    }

    #[test]
    fn names_are_told_apart() {
        let names = Names::new("127.0.0.1:4791".parse().unwrap());
        assert_eq!(names.parse(names.slot(1023).as_bytes()), Some(1023));
        for strange in
            ["ibex-soft/127.0.0.1:4791/0", "ibex-soft/127.0.0.1:4791/1024", "ibex-soft/127.0.0.2:4791/7", ""]
        {
            assert_eq!(names.parse(strange.as_bytes()), None, "{strange}");
        }
        assert_eq!(names.parse(names.holder().as_bytes()), None);
        let address = names.slot_address(7).unwrap();
        assert_eq!(address.as_abstract_namespace(), Some(names.slot(7).as_bytes()));
        assert!(abstract_address(&[b'x'; NAME_ROOM]).is_ok());
        assert!(abstract_address(&[b'x'; NAME_ROOM + 1]).is_err());
    }
}
