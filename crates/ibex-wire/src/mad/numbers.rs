//! The numbers of connection management that are not also the transport's: identifiers, addresses, services, reasons.
//!
//! Values that a peer chooses are newtypes with constants, so that an unknown one can be carried and printed.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// One end's name for a connection in the making or made ("local communication ID"), chosen by that end; 0 names none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CommId(pub u32);

impl CommId {
    /// No connection: what a message carries that refuses one its sender keeps no record of.
    pub const NONE: CommId = CommId(0);
}

impl fmt::Debug for CommId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommId({:#010x})", self.0)
    }
}

/// The globally unique number of a channel adapter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Guid(pub u64);

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({:#018x})", self.0)
    }
}

/// A port's address. On RoCEv2 it is the IPv6 address, or the IPv4 address mapped into one (`::ffff:a.b.c.d`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// No address.
    pub const ZERO: Gid = Gid([0; 16]);

    /// The IP address it stands for; an IPv4 address comes back as one.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }
}

impl From<IpAddr> for Gid {
    fn from(address: IpAddr) -> Gid {
        Gid(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({})", Ipv6Addr::from(self.0))
    }
}

/// What a listener offers and a caller asks for.
///
/// The services of `librdmacm` are a port space and a port (IBTA annex A11): `0x0000_0000_<space>_<port>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ServiceId(pub u64);

impl ServiceId {
    /// The service of a port in a port space of IP addresses.
    pub const fn ip(space: PortSpace, port: u16) -> ServiceId {
        ServiceId((space.0 as u64) << 16 | port as u64)
    }

    /// The port space and the port, if this is such a service.
    pub const fn port(self) -> Option<(PortSpace, u16)> {
        let space = PortSpace((self.0 >> 16) as u16);
        match space {
            PortSpace::TCP | PortSpace::UDP | PortSpace::IB | PortSpace::IPOIB if self.0 >> 32 == 0 => {
                Some((space, self.0 as u16))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceId({:#018x})", self.0)
    }
}

/// A space of port numbers, with the numbers of `enum rdma_port_space`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortSpace(pub u16);

impl PortSpace {
    /// Reliable connections (`RDMA_PS_TCP`).
    pub const TCP: PortSpace = PortSpace(0x0106);
    /// Datagrams, resolved by SIDR (`RDMA_PS_UDP`).
    pub const UDP: PortSpace = PortSpace(0x0111);
    /// Any service of InfiniBand (`RDMA_PS_IB`).
    pub const IB: PortSpace = PortSpace(0x013f);
    /// IP over InfiniBand (`RDMA_PS_IPOIB`); datagrams.
    pub const IPOIB: PortSpace = PortSpace(0x0002);
}

impl fmt::Debug for PortSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            PortSpace::TCP => "TCP",
            PortSpace::UDP => "UDP",
            PortSpace::IB => "IB",
            PortSpace::IPOIB => "IPOIB",
            PortSpace(number) => return write!(f, "PortSpace({number:#06x})"),
        };
        f.write_str(name)
    }
}

/// The kind of queue pair a connection is for, 2 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TransportService(pub u8);

impl TransportService {
    /// Reliable connection.
    pub const RC: TransportService = TransportService(0);
    /// Unreliable connection.
    pub const UC: TransportService = TransportService(1);
    /// Reliable datagram, which nobody built.
    pub const RD: TransportService = TransportService(2);
    /// See the extended transport type.
    pub const EXTENDED: TransportService = TransportService(3);
}

/// Which message is meant by an MRA or a REJ, 2 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Which(pub u8);

impl Which {
    /// The REQ.
    pub const REQ: Which = Which(0);
    /// The REP.
    pub const REP: Which = Which(1);
    /// In an MRA: a LAP. In a REJ: no message, the connection.
    pub const OTHER: Which = Which(2);
}

/// Declares a newtype of reasons with names for printing.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident($raw:ty) { $($(#[$item:meta])* $code:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub $raw);

        impl $name {
            $($(#[$item])* pub const $code: $name = $name($value);)*
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $($name::$code => f.write_str(stringify!($code)),)*
                    $name(code) => write!(f, concat!(stringify!($name), "({})"), code),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $($name::$code => f.write_str($text),)*
                    $name(code) => write!(f, "reason {code}"),
                }
            }
        }
    };
}

reasons! {
    /// Why a connection was refused or given up (IBTA 12.6.7.2). `librdmacm` hands it to programs as an event's status.
    RejectReason(u16) {
        /// No queue pair could be had.
        NO_QP = 1, "no queue pair available";
        /// No end-to-end context could be had.
        NO_EEC = 2, "no end-to-end context available";
        /// Memory, table places or the like are used up.
        NO_RESOURCES = 3, "no resources available";
        /// The sender asked as often as it may and gave up.
        TIMEOUT = 4, "no answer in time";
        /// A field asks for something not supported.
        UNSUPPORTED = 5, "unsupported request";
        /// The receiver knows no such connection.
        INVALID_COMM_ID = 6, "unknown connection";
        /// The three numbers that name a connection do not belong together.
        INVALID_COMM_INSTANCE = 7, "connection numbers do not belong together";
        /// Nobody listens.
        INVALID_SERVICE_ID = 8, "nobody listens to that service";
        /// The listener is for another kind of queue pair.
        INVALID_TRANSPORT_TYPE = 9, "the service is of another transport";
        /// The queue pair named is still connected from before.
        STALE_CONN = 10, "the queue pair is still in an older connection";
        /// The reliable datagram channel named does not exist.
        RDC_NOT_EXIST = 11, "no such reliable datagram channel";
        /// The primary remote GID is not the receiver's.
        INVALID_GID = 12, "wrong remote address";
        /// The primary remote LID is not the receiver's.
        INVALID_LID = 13, "wrong remote LID";
        /// Service level.
        INVALID_SL = 14, "service level not available";
        /// Traffic class.
        INVALID_TRAFFIC_CLASS = 15, "traffic class not available";
        /// Hop limit.
        INVALID_HOP_LIMIT = 16, "hop limit not acceptable";
        /// Packet rate.
        INVALID_PACKET_RATE = 17, "packet rate not acceptable";
        /// The alternate path's GID.
        INVALID_ALT_GID = 18, "wrong alternate address";
        /// The alternate path's LID.
        INVALID_ALT_LID = 19, "wrong alternate LID";
        /// The alternate path's service level.
        INVALID_ALT_SL = 20, "alternate service level not available";
        /// The alternate path's traffic class.
        INVALID_ALT_TRAFFIC_CLASS = 21, "alternate traffic class not available";
        /// The alternate path's hop limit.
        INVALID_ALT_HOP_LIMIT = 22, "alternate hop limit not acceptable";
        /// The alternate path's packet rate.
        INVALID_ALT_PACKET_RATE = 23, "alternate packet rate not acceptable";
        /// Ask the management port named in the additional information.
        PORT_CM_REDIRECT = 24, "another manager is in charge";
        /// Ask the port named in the additional information.
        PORT_REDIRECT = 25, "another port is in charge";
        /// The path MTU is not possible.
        INVALID_MTU = 26, "path MTU not acceptable";
        /// Too many READs and atomics at once are asked for.
        INSUFFICIENT_RESP_RESOURCES = 27, "too few responder resources";
        /// The program said no.
        CONSUMER_DEFINED = 28, "refused by the program";
        /// The receiver-not-ready retry count.
        INVALID_RNR_RETRY = 29, "receiver-not-ready retry count not acceptable";
        /// The sender has a connection of that number already.
        DUPLICATE_LOCAL_COMM_ID = 30, "connection number in use";
        /// The class version is unknown.
        INVALID_CLASS_VERSION = 31, "unknown version of connection management";
        /// The flow label.
        INVALID_FLOW_LABEL = 32, "flow label not acceptable";
        /// The alternate path's flow label.
        INVALID_ALT_FLOW_LABEL = 33, "alternate flow label not acceptable";
    }
}

reasons! {
    /// The outcome of a service ID resolution (IBTA 12.11.2.2).
    SidrStatus(u8) {
        /// The queue pair and its key are in the answer.
        SUCCESS = 0, "resolved";
        /// Nobody listens.
        UNSUPPORTED = 1, "nobody listens to that service";
        /// The program said no.
        REJECT = 2, "refused by the program";
        /// There is a listener without a queue pair.
        NO_QP = 3, "no queue pair available";
        /// Ask elsewhere.
        REDIRECT = 4, "another port is in charge";
        /// The class version is unknown.
        UNSUPPORTED_VERSION = 5, "unknown version of connection management";
    }
}
