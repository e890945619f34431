//! `ibex devinfo`: what a device says of itself.
//!
//! Owns the selection; the attributes print and serialise themselves (`ibex::attr`).

use std::fmt::Write as _;

use anyhow::Result;
use ibex::{Device, DeviceAttr, GidEntry, Guid, Origin, PortAttr, Transport};
use serde::Serialize;

use crate::args::DevinfoArgs;
use crate::output;

#[derive(Serialize)]
struct Listing {
    devices: Vec<Info>,
}

#[derive(Serialize)]
struct Info {
    name: String,
    guid: Guid,
    origin: Origin,
    transport: Transport,
    netdev: Option<String>,
    numa_node: Option<u32>,
    /// With `-v`, of the built-in device.
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Vec<String>>,
    attr: DeviceAttr,
    ports: Vec<Port>,
}

#[derive(Serialize)]
struct Port {
    attr: PortAttr,
    gids: Vec<GidEntry>,
}

/// Prints the chosen device, or all.
///
/// # Errors
/// When a named device does not exist, or a device cannot be opened; the others are printed before that.
pub(crate) fn run(args: &DevinfoArgs) -> Result<()> {
    let devices = match &args.device {
        Some(name) => vec![Device::by_name(name)?],
        None => Device::all(),
    };
    let mut infos = Vec::new();
    let mut failure = None;
    for device in &devices {
        match info(device, args.verbose) {
            Ok(info) => infos.push(info),
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    output::complain(&earlier);
                }
            }
        }
    }
    if args.json {
        output::print_json(&Listing { devices: infos })?;
    } else {
        let texts: Vec<String> = infos.iter().map(|info| text(info, args.verbose)).collect();
        output::print(&texts.join("\n"))?;
    }
    failure.map_or(Ok(()), Err)
}

fn info(device: &Device, verbose: bool) -> Result<Info> {
    let context = device.open()?;
    let ports = context.ports()?.into_iter().map(|attr| {
        let gids = context.gid_table(attr.port)?;
        Ok(Port { attr, gids })
    });
    Ok(Info {
        name: device.name().to_owned(),
        guid: device.guid(),
        origin: device.origin(),
        transport: device.transport(),
        netdev: device.netdev(),
        numa_node: device.numa_node(),
        links: if verbose { context.links() } else { None },
        attr: context.query_device()?,
        ports: ports.collect::<Result<_>>()?,
    })
}

/// A line in the layout of `ibv_devinfo`, which eyes and scripts know.
fn line(text: &mut String, depth: usize, key: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:indent$}{:28}{value}", "", format!("{key}:"), indent = depth * 4);
}

fn text(info: &Info, verbose: bool) -> String {
    let mut text = String::new();
    line(&mut text, 0, "hca_id", &info.name);
    line(&mut text, 1, "transport", info.transport);
    line(&mut text, 1, "provider", info.origin);
    if let Some(node) = info.numa_node {
        line(&mut text, 1, "numa_node", node);
    }
    if verbose {
        text.push_str(&info.attr.to_string());
    } else {
        line(&mut text, 1, "fw_ver", &info.attr.fw_ver);
        line(&mut text, 1, "node_guid", info.attr.node_guid);
        line(&mut text, 1, "vendor_id", format_args!("{:#06x}", info.attr.vendor_id));
        line(&mut text, 1, "vendor_part_id", info.attr.vendor_part_id);
        line(&mut text, 1, "phys_port_cnt", info.attr.phys_port_cnt);
    }
    if let Some((available, peers)) = info.links.as_deref().and_then(<[String]>::split_first) {
        line(&mut text, 1, "links", available);
        for peer in peers {
            let (slot, way) = peer.split_once(": ").unwrap_or((peer, ""));
            line(&mut text, 2, slot, way);
        }
    }
    for port in &info.ports {
        if verbose {
            text.push_str(&port.attr.to_string());
        } else {
            let mtu = port.attr.active_mtu.map_or_else(|| "unknown".to_owned(), |mtu| mtu.to_string());
            line(&mut text, 1, "port", port.attr.port);
            line(&mut text, 2, "state", port.attr.state);
            line(&mut text, 2, "active_mtu", mtu);
            line(&mut text, 2, "lid", port.attr.lid.0);
            line(&mut text, 2, "link_layer", port.attr.link_layer);
        }
        let shown = if verbose { port.gids.len() } else { port.gids.len().min(2) };
        for gid in &port.gids[..shown] {
            line(&mut text, 2, &format!("GID[{:3}]", gid.index.0), gid);
        }
        if shown < port.gids.len() {
            line(&mut text, 2, "more", format_args!("{} GIDs, with -v", port.gids.len() - shown));
        }
    }
    text
}
