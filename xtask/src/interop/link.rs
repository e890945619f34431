//! Where the two ends of a case run: prefix of the command, environment, device, address.

use std::net::IpAddr;

use anyhow::Result;

use crate::dropin;

/// What a case's line may select by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The software device at both ends, one host.
    Loopback,
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

/// The drop-in libraries at `address`.
fn ibex(address: IpAddr, prefix: &[&str], configure: bool) -> Result<End> {
    let folder = dropin::folder().canonicalize()?;
    let mut env = vec![("LD_LIBRARY_PATH", folder.to_string_lossy().into_owned())];
    if configure {
        env.push(("IBEX_SOFT_ADDR", address.to_string()));
    }
    let prefix = prefix.iter().map(ToString::to_string).collect();
    Ok(End { label: "ibex", prefix, env, device: "ibex0", address })
}

impl Link {
    /// The software device at both ends, with its defaults.
    pub(super) fn loopback() -> Result<Link> {
        let end = ibex(IpAddr::from([127, 0, 0, 1]), &[], false)?;
        let name = "ibex → ibex".to_owned();
        Ok(Link { name, kind: Kind::Loopback, server: end.clone(), client: end, patience: 1 })
    }

    /// Both directions between the software device in network namespace b and rxe1, as `tests/vm/lib.sh` sets up.
    pub(super) fn kernel(series: &str, loss: u32) -> Result<[Link; 2]> {
        let soft = ibex(IpAddr::from([10, 78, 0, 2]), &["ip", "netns", "exec", "b"], true)?;
        let address = IpAddr::from([10, 78, 0, 1]);
        let rxe = End { label: "rxe", prefix: Vec::new(), env: Vec::new(), device: "rxe1", address };
        let suffix = if loss == 0 { String::new() } else { format!(", {loss} % loss") };
        let link = |client: &End, server: &End| Link {
            name: format!("{} → {} (Linux {series}){suffix}", client.label, server.label),
            kind: Kind::Kernel { loss },
            server: server.clone(),
            client: client.clone(),
            // Emulation, and with loss the kernel's retry timer on top.
            patience: 4,
        };
        Ok([link(&soft, &rxe), link(&rxe, &soft)])
    }
}
