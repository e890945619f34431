//! Where the two ends of a case run: prefix of the command, environment, device, address.

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{dropin, util};

/// Which list of cases a link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The software device at both ends, one host, everything by default: shared memory between the processes.
    Host,
    /// As `Host`, with UDP between the processes.
    Wire,
    /// As `Wire`, with other addresses, or in two network namespaces.
    Addressed,
    /// As `Addressed`, with IPv6 addresses. perftest's rdma_cm knows none.
    Ipv6,
    /// The software device at one end, the kernel's rxe at the other; emulated, so everything is slow.
    Kernel {
        /// Per cent of packets lost in each direction.
        loss: u32,
    },
}

/// One end.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Command that starts the program, before the program's name; empty for none.
    pub(super) prefix: Vec<String>,
    /// Environment of the program.
    pub(super) env: Vec<(&'static str, String)>,
    /// Name of the RDMA device.
    pub(super) device: &'static str,
    /// Address of the device, to which the other end's client connects by rdma_cm.
    pub(super) address: IpAddr,
    /// Index of the GID made of `address`.
    pub(super) gid: u8,
}

/// A server's end and a client's end.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Which table of the report has it.
    pub(super) table: Table,
    /// Its column there, for example `host` or `6.1, 1 %`.
    pub(super) column: String,
    /// What runs over it.
    pub(super) kind: Kind,
    pub(super) server: End,
    pub(super) client: End,
    /// Where the server listens for the TCP connection of programs that connect by one.
    pub(super) meeting: IpAddr,
    /// Factor on every time limit.
    pub(super) patience: u32,
}

/// Tables of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) enum Table {
    /// The software device at both ends.
    Ibex,
    /// The software device is the client, rxe the server.
    IbexToRxe,
    /// The other way round.
    RxeToIbex,
}

impl Table {
    /// Client and server.
    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Ibex => "ibex → ibex",
            Table::IbexToRxe => "ibex → rxe",
            Table::RxeToIbex => "rxe → ibex",
        }
    }
}

/// Address of the device unless told.
fn ibex_address() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

/// The drop-in libraries, the device at its default address.
fn ibex() -> Result<End> {
    let folder = dropin::folder().canonicalize()?;
    let env = vec![("LD_LIBRARY_PATH", folder.to_string_lossy().into_owned())];
    Ok(End { prefix: Vec::new(), env, device: "ibex0", address: ibex_address(), gid: 1 })
}

/// The drop-in libraries, the device at `address`. An IPv6 address has one GID, the first.
fn ibex_at(address: IpAddr) -> Result<End> {
    let mut end = ibex()?;
    end.env.push(("IBEX_SOFT_ADDR", address.to_string()));
    Ok(End { address, gid: u8::from(address.is_ipv4()), ..end })
}

impl Link {
    /// The software device at both ends of this host: by default (shared memory); over UDP; in two network namespaces,
    /// which no shared memory joins; at two addresses, where every packet passes by port 4791 as between hosts; at an
    /// IPv6 address.
    pub(super) fn local(namespaces: &Namespaces) -> Result<Vec<Link>> {
        let link = |column: &str, kind, server: End, client: End| Link {
            table: Table::Ibex,
            column: column.to_owned(),
            kind,
            // The device's address only where there is no other: Debian's exchanges listen at IPv4 addresses only.
            meeting: if server.prefix.is_empty() { ibex_address() } else { server.address },
            server,
            client,
            patience: 1,
        };
        let mut wire = ibex()?;
        wire.env.push(("IBEX_SOFT_LINK", "wire".to_owned()));
        let second = |last| ibex_at(IpAddr::from([127, 0, 0, last]));
        let v6 = ibex_at(IpAddr::from(Ipv6Addr::LOCALHOST))?;
        Ok(vec![
            link("host", Kind::Host, ibex()?, ibex()?),
            link("wire", Kind::Wire, wire.clone(), wire),
            link("namespaces", Kind::Addressed, namespaces.end(0)?, namespaces.end(1)?),
            link("addresses", Kind::Addressed, second(2)?, second(3)?),
            link("IPv6", Kind::Ipv6, v6.clone(), v6),
        ])
    }

    /// Both directions between the software device in network namespace b and rxe1, as `tests/vm/lib.sh` sets up.
    pub(super) fn kernel(series: &str, loss: u32) -> Result<[Link; 2]> {
        let prefix = ["ip", "netns", "exec", "b"].map(str::to_owned).to_vec();
        let soft = End { prefix, ..ibex_at(IpAddr::from([10, 78, 0, 2]))? };
        let rxe = rxe("rxe1", IpAddr::from([10, 78, 0, 1]));
        let column = if loss == 0 { series.to_owned() } else { format!("{series}, {loss} %") };
        let link = |table, client: &End, server: &End| Link {
            table,
            column: column.clone(),
            kind: Kind::Kernel { loss },
            meeting: server.address,
            server: server.clone(),
            client: client.clone(),
            // Emulation, and with loss the kernel's retry timer on top.
            patience: 2,
        };
        Ok([link(Table::IbexToRxe, &soft, &rxe), link(Table::RxeToIbex, &rxe, &soft)])
    }

    /// The same cases with rxe0 and the system's libraries at both ends: whether the cases ask for what a program can do.
    pub(super) fn reference() -> Link {
        let end = rxe("rxe0", IpAddr::from([10, 77, 0, 1]));
        Link {
            table: Table::Ibex,
            column: "reference".to_owned(),
            kind: Kind::Wire,
            meeting: end.address,
            server: end.clone(),
            client: end,
            patience: 2,
        }
    }

    /// Table and column, as printed.
    pub(super) fn name(&self) -> String {
        format!("{}, {}", self.table.name(), self.column)
    }
}

/// The kernel's device with the system's libraries.
fn rxe(device: &'static str, address: IpAddr) -> End {
    End { prefix: Vec::new(), env: Vec::new(), device, address, gid: 1 }
}

/// Two network namespaces of this host with a veth pair between them, removed when this is dropped.
pub(super) struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// Addresses of the two ends.
    const ADDRESSES: [[u8; 4]; 2] = [[10, 79, 0, 1], [10, 79, 0, 2]];

    /// Makes them; names hold the process's id, so several runs do not meet.
    ///
    /// # Errors
    /// Without root, or without iproute2's `ip`.
    pub(super) fn create() -> Result<Namespaces> {
        let names = ["a", "b"].map(|side| format!("ibex-interop-{}-{side}", std::process::id()));
        for name in &names {
            ip(&["netns", "add", name]).context("network namespaces need root")?;
        }
        // From here on dropping removes them.
        let made = Namespaces { names };
        let [a, b] = &made.names;
        ip(&["-n", a, "link", "add", "v", "type", "veth", "peer", "name", "v", "netns", b])?;
        for (name, address) in made.names.iter().zip(Self::ADDRESSES) {
            ip(&["-n", name, "addr", "add", &format!("{}/24", IpAddr::from(address)), "dev", "v"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "v", "up"])?;
        }
        Ok(made)
    }

    fn end(&self, side: usize) -> Result<End> {
        let prefix = ["ip", "netns", "exec", &self.names[side]].map(str::to_owned).to_vec();
        Ok(End { prefix, ..ibex_at(IpAddr::from(Self::ADDRESSES[side]))? })
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // The pair of interfaces ends with its namespace. A namespace that was not made cannot be removed.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    util::run(Command::new("ip").args(args))
}
