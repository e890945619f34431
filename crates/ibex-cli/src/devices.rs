//! `ibex devices`: one line for each RDMA device.
//!
//! Owns the summary of a device; `devinfo` shows everything.

use anyhow::Result;
use ibex::{Device, DeviceError, Guid, LinkLayer, Origin, PortState, Transport};
use serde::Serialize;

use crate::args::DevicesArgs;
use crate::output::{self, Align, Table};

#[derive(Serialize)]
struct Listing {
    devices: Vec<Summary>,
}

#[derive(Serialize)]
struct Summary {
    name: String,
    guid: Guid,
    origin: Origin,
    transport: Transport,
    numa_node: Option<u32>,
    ports: Vec<Port>,
    /// Why nothing is known of the ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Port {
    port: u8,
    state: PortState,
    link_layer: LinkLayer,
    /// Bytes.
    active_mtu: Option<u32>,
    netdev: Option<String>,
    /// The address a connection uses unless another is chosen.
    gid: Option<String>,
}

/// Prints the devices of this host, the built-in one last.
pub(crate) fn run(args: &DevicesArgs) -> Result<()> {
    let devices: Vec<Summary> = Device::all().iter().map(summary).collect();
    if args.json {
        return output::print_json(&Listing { devices });
    }
    let mut table = Table::new(&[
        ("device", Align::Left),
        ("port", Align::Right),
        ("state", Align::Left),
        ("link layer", Align::Left),
        ("mtu", Align::Right),
        ("netdev", Align::Left),
        ("gid", Align::Left),
        ("guid", Align::Left),
        ("provider", Align::Left),
    ]);
    for device in &devices {
        if let Some(error) = &device.error {
            output::say(&format!("ibex: {error}"));
        }
        let dash = || "-".to_owned();
        if device.ports.is_empty() {
            let mut row = vec![device.name.clone()];
            row.extend((0..6).map(|_| dash()));
            row.extend([device.guid.to_string(), device.origin.to_string()]);
            table.row(row);
        }
        for port in &device.ports {
            table.row(vec![
                device.name.clone(),
                port.port.to_string(),
                port.state.to_string(),
                port.link_layer.to_string(),
                port.active_mtu.map_or_else(dash, |mtu| mtu.to_string()),
                port.netdev.clone().unwrap_or_else(dash),
                port.gid.clone().unwrap_or_else(dash),
                device.guid.to_string(),
                device.origin.to_string(),
            ]);
        }
    }
    output::print(&table.render())
}

/// A device that cannot be opened is listed all the same, with the reason.
fn summary(device: &Device) -> Summary {
    let (ports, error) = match ports(device) {
        Ok(ports) => (ports, None),
        Err(error) => (Vec::new(), Some(output::one_line(&anyhow::Error::new(error)))),
    };
    Summary {
        name: device.name().to_owned(),
        guid: device.guid(),
        origin: device.origin(),
        transport: device.transport(),
        numa_node: device.numa_node(),
        ports,
        error,
    }
}

fn ports(device: &Device) -> Result<Vec<Port>, DeviceError> {
    let context = device.open()?;
    let port = |attr: ibex::PortAttr| {
        let gid = context.best_gid(attr.port).ok();
        Port {
            port: attr.port.0,
            state: attr.state,
            link_layer: attr.link_layer,
            active_mtu: attr.active_mtu.map(ibex::Mtu::bytes),
            netdev: gid.as_ref().and_then(|entry| entry.netdev.clone()).or_else(|| device.netdev()),
            gid: gid.map(|entry| entry.gid.to_string()),
        }
    };
    Ok(context.ports()?.into_iter().map(port).collect())
}
