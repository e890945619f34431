//! Where the two ends of a case run: prefix of the command, environment, device, address.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;

use crate::dropin;

/// What a case's line may select by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The software device at both ends, one host.
    Loopback,
    /// As `Loopback`, with addresses that are not the default.
    Addressed,
    /// The software device at one end, the kernel's rxe at the other; emulated, so everything is slow.
    Kernel {
        /// Per cent of packets lost in each direction.
        loss: u32,
    },
}

/// One end.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Who serves verbs here, in words of the table.
    pub(super) label: &'static str,
    /// Command that starts the program, before the program's name; empty for none.
    pub(super) prefix: Vec<String>,
    /// Environment of the program.
    pub(super) env: Vec<(&'static str, String)>,
    /// Name of the RDMA device.
    pub(super) device: &'static str,
    /// Address of the device, to which the other end's client connects.
    pub(super) address: IpAddr,
}

/// A server's end and a client's end.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// As in the table, for example `ibex → rxe 6.1, 1 % loss`: client to server.
    pub(super) name: String,
    /// What runs over it.
    pub(super) kind: Kind,
    pub(super) server: End,
    pub(super) client: End,
    /// Factor on every time limit.
    pub(super) patience: u32,
}

/// The drop-in libraries, the device at its default address.
fn ibex() -> Result<End> {
    let folder = dropin::folder().canonicalize()?;
    let env = vec![("LD_LIBRARY_PATH", folder.to_string_lossy().into_owned())];
    Ok(End { label: "ibex", prefix: Vec::new(), env, device: "ibex0", address: IpAddr::from([127, 0, 0, 1]) })
}

/// The drop-in libraries, the device at `device`; the programs' TCP connection stays where it was.
fn ibex_at(device: IpAddr) -> Result<End> {
    let mut end = ibex()?;
    end.env.push(("IBEX_SOFT_ADDR", device.to_string()));
    Ok(end)
}

impl Link {
    /// The software device at both ends of this host: with its defaults; at two addresses, where every packet passes
    /// by port 4791 as between hosts; at an IPv6 address.
    pub(super) fn local() -> Result<[Link; 3]> {
        let link = |name: &str, kind, server: End, client: End| {
            let name = format!("ibex → ibex{name}");
            Link { name, kind, server, client, patience: 1 }
        };
        let second = |last| ibex_at(IpAddr::from([127, 0, 0, last]));
        let v6 = ibex_at(IpAddr::from(Ipv6Addr::LOCALHOST))?;
        Ok([
            link("", Kind::Loopback, ibex()?, ibex()?),
            link(", two addresses", Kind::Addressed, second(2)?, second(3)?),
            link(", IPv6", Kind::Addressed, v6.clone(), v6),
        ])
    }

    /// Both directions between the software device in network namespace b and rxe1, as `tests/vm/lib.sh` sets up.
    pub(super) fn kernel(series: &str, loss: u32) -> Result<[Link; 2]> {
        let inside = IpAddr::from([10, 78, 0, 2]);
        let prefix = ["ip", "netns", "exec", "b"].map(str::to_owned).to_vec();
        let soft = End { prefix, address: inside, ..ibex_at(inside)? };
        let address = IpAddr::from([10, 78, 0, 1]);
        let rxe = End { label: "rxe", prefix: Vec::new(), env: Vec::new(), device: "rxe1", address };
        let suffix = if loss == 0 { String::new() } else { format!(", {loss} % loss") };
        let link = |client: &End, server: &End| Link {
            name: format!("{} → {} (Linux {series}){suffix}", client.label, server.label),
            kind: Kind::Kernel { loss },
            server: server.clone(),
            client: client.clone(),
            // Emulation, and with loss the kernel's retry timer on top.
            patience: 2,
        };
        Ok([link(&soft, &rxe), link(&rxe, &soft)])
    }
}
