//! The header that `librdmacm`'s services put before a program's private data in a REQ and a SIDR_REQ (IBTA annex A11).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::header::field;

/// Who calls whom, in IP addresses.
///
/// ```text
/// 0 version │ 1 IP version, 4 bits reserved │ 2–3 source port │ 4–19 source address │ 20–35 destination address
/// ```
///
/// An IPv4 address is in the last four of the sixteen bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CmaHeader {
    /// The caller's port.
    pub src_port: u16,
    /// The caller's address.
    pub src: IpAddr,
    /// The address called; of the same family.
    pub dst: IpAddr,
}

/// Why private data does not begin with a [`CmaHeader`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CmaError {
    /// Its version is not 0.
    Version(u8),
    /// The IP version is neither 4 nor 6.
    IpVersion(u8),
}

impl fmt::Display for CmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CmaError::Version(version) => {
                write!(f, "version {version} of the private data format; only 0 is known")
            }
            CmaError::IpVersion(version) => write!(f, "IP version {version}; it must be 4 or 6"),
        }
    }
}

impl core::error::Error for CmaError {}

impl CmaHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 36;

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// The versions are not known ones.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<CmaHeader, CmaError> {
        // The kernel checks the major version only, the high half.
        if bytes[0] >> 4 != 0 {
            return Err(CmaError::Version(bytes[0]));
        }
        let address = |at| match bytes[1] >> 4 {
            4 => Ok(IpAddr::V4(Ipv4Addr::from(field::<4>(bytes, at + 12)))),
            6 => Ok(IpAddr::V6(Ipv6Addr::from(field::<16>(bytes, at)))),
            version => Err(CmaError::IpVersion(version)),
        };
        Ok(CmaHeader { src_port: u16::from_be_bytes(field(bytes, 2)), src: address(4)?, dst: address(20)? })
    }

    /// Writes the header. The family is the destination's; a source of another one is written as "any address".
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        out.fill(0);
        out[2..4].copy_from_slice(&self.src_port.to_be_bytes());
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out[1] = 4 << 4;
                out[16..20].copy_from_slice(&src.octets());
                out[32..36].copy_from_slice(&dst.octets());
            }
            (_, IpAddr::V4(dst)) => {
                out[1] = 4 << 4;
                out[32..36].copy_from_slice(&dst.octets());
            }
            (src, IpAddr::V6(dst)) => {
                out[1] = 6 << 4;
                if let IpAddr::V6(src) = src {
                    out[4..20].copy_from_slice(&src.octets());
                }
                out[20..36].copy_from_slice(&dst.octets());
            }
        }
    }

    /// The caller's address and port.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.src, self.src_port)
    }
}
