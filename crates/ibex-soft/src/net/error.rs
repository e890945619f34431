//! Errors of opening and growing the wire link, each with its remedy. Losing a packet is none.

use std::io;
use std::net::IpAddr;

/// Why the wire link could not be opened, or could not give out a queue pair number.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    /// An environment variable does not parse.
    #[error("{variable}={value:?} is not {expected}; correct or unset it")]
    Environment { variable: &'static str, value: String, expected: &'static str },
    /// `IBEX_SOFT_NETDEV` names an interface that is not there.
    #[error("there is no network interface {name:?}; `ip link` lists them, IBEX_SOFT_NETDEV chooses")]
    NoInterface { name: String },
    /// `IBEX_SOFT_NETDEV` names an interface without an address.
    #[error(
        "network interface {name:?} has no usable address; give it one (`ip addr add`) or set IBEX_SOFT_ADDR"
    )]
    NoAddress { name: String },
    /// The address is not one of this host's, in this network namespace.
    #[error(
        "{address} is not an address of this host in this network namespace; `ip addr` lists them, IBEX_SOFT_ADDR chooses"
    )]
    NotLocal { address: IpAddr },
    /// The RoCE port is held by a socket that is no ibex device.
    #[error(
        "UDP port {port} of {address} is taken, and not by another ibex process: the kernel's rdma_rxe (`rdma link`) or another RoCE program has it; \
             remove it, choose another address with IBEX_SOFT_ADDR, or use another network namespace"
    )]
    PortTaken { address: IpAddr, port: u16 },
    /// Every slot of the address is owned by some process.
    #[error(
        "all 1023 process slots of {address} are taken; end some ibex processes, or use another address (IBEX_SOFT_ADDR)"
    )]
    NoSlot { address: IpAddr },
    /// This process has given out all the queue pair numbers it may have.
    #[error("this process has used up its queue pair numbers; destroy queue pairs it no longer needs")]
    NoQpn,
    /// A system call failed for a reason that has no remedy of its own.
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

impl NetError {
    /// The errno that verbs report for this error.
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::Environment { .. } => libc::EINVAL,
            Self::NoInterface { .. } => libc::ENODEV,
            Self::NoAddress { .. } | Self::NotLocal { .. } => libc::EADDRNOTAVAIL,
            Self::PortTaken { .. } => libc::EADDRINUSE,
            Self::NoSlot { .. } | Self::NoQpn => libc::ENOSPC,
            Self::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// For `map_err`: wraps the failure to do `what`.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
