//! What the wire link is told before it opens: address, port, buffer sizes, faults.
//!
//! Owns the `IBEX_SOFT_*` variables of the network side. Interfaces are looked up here; whether the
//! address is really ours is for bind(2) to say, in [`super::Wire::open`].
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `IBEX_SOFT_ADDR` | IPv4 or IPv6 address of the device; `fe80::…%INTERFACE` for a link-local one | 127.0.0.1 |
//! | `IBEX_SOFT_NETDEV` | interface whose first address to use, IPv4 before IPv6, when `IBEX_SOFT_ADDR` is unset | none |
//! | `IBEX_SOFT_PORT` | UDP port instead of 4791; for tests: only devices on the same port meet | 4791 |
//! | `IBEX_SOFT_BUFFER` | socket buffers to ask for, bytes, 65536 to 1 GiB; smaller ones lose packets sooner | 8 MiB |
//! | `IBEX_SOFT_LOSS`, `_DUP`, `_REORDER`, `_CORRUPT` | percent of sent packets to lose, double, let others overtake, damage; 0 to 100 | 0 |
//! | `IBEX_SOFT_DELAY` | microseconds by which packets leave later, 0 to 10 000 000 | 0 |
//! | `IBEX_SOFT_PCAP` | file to append packets to, `%p` in it becomes the process's number; turns off what needs no packets | none |
//! | `IBEX_SOFT_SEED` | seed of those choices | 1 |
//! | `IBEX_SOFT_LINK` | the best link that may be used: `auto`, `direct`, `host`, `wire`; see [`LinkChoice`] | auto |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::str::FromStr;

use super::error::NetError;
use super::fault::Faults;
use super::ifaddr::{self, InterfaceAddress};

/// The UDP destination port of RoCEv2, assigned by IANA.
pub(crate) const ROCE_PORT: u16 = 4791;

/// Socket buffer size asked for, bytes. The kernel grants at most `net.core.rmem_max` and
/// `wmem_max`; 8 MiB is what a 10 GB/s sender fills in the millisecond a sleeping receiver needs.
const BUFFER: usize = 8 << 20;

/// Bytes of headers around the payload of the largest packet, without the IP header: UDP 8, BTH 12,
/// RETH 16, immediate 4, ICRC 4.
const HEADERS: usize = 8 + 12 + 16 + 4 + 4;

/// The best link that may be used to reach a queue pair, in ascending order: each allows those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum LinkChoice {
    /// UDP, even inside one process.
    Wire,
    /// Rings in shared memory to processes of the same user on this host, and to the process itself.
    Host,
    /// Between queue pairs of one process the operation itself, without packets. `auto` means the same.
    #[default]
    Direct,
}

impl FromStr for LinkChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" | "direct" => Ok(Self::Direct),
            "host" => Ok(Self::Host),
            "wire" => Ok(Self::Wire),
            _ => Err(()),
        }
    }
}

/// The configuration of a wire link.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The address of the device.
    pub(crate) address: IpAddr,
    /// Interface index of a link-local IPv6 address, otherwise 0.
    pub(crate) scope: u32,
    /// The RoCE port, 4791 unless a test chose its own.
    pub(crate) port: u16,
    /// Socket buffer size to ask for, bytes.
    pub(crate) buffer: usize,
    /// Faults to inject when sending.
    pub(crate) faults: Faults,
    /// The best link that may be used.
    pub(crate) link: LinkChoice,
    /// File to write packets to.
    pub(crate) capture: Option<PathBuf>,
}

impl Config {
    /// The defaults at `address`: port 4791, 8 MiB buffers, no faults, every link.
    pub(crate) fn new(address: IpAddr) -> Self {
        Self {
            address,
            scope: 0,
            port: ROCE_PORT,
            buffer: BUFFER,
            faults: Faults::default(),
            link: LinkChoice::default(),
            capture: None,
        }
    }

    /// The defaults at the first address of interface `name`: IPv4 before IPv6, link-local last.
    ///
    /// # Errors
    /// [`NetError::NoInterface`], [`NetError::NoAddress`].
    pub(crate) fn on_interface(name: &str) -> Result<Self, NetError> {
        let all = ifaddr::addresses().map_err(NetError::io("list the network interfaces"))?;
        let best =
            all.into_iter().filter(|entry| entry.name == name).min_by_key(|entry| match entry.address {
                IpAddr::V4(_) => 0,
                IpAddr::V6(v6) if !v6.is_unicast_link_local() => 1,
                IpAddr::V6(_) => 2,
            });
        match best {
            Some(InterfaceAddress { address, scope, .. }) => Ok(Self { scope, ..Self::new(address) }),
            None if ifaddr::mtu(name).is_ok() => Err(NetError::NoAddress { name: name.to_owned() }),
            None => Err(NetError::NoInterface { name: name.to_owned() }),
        }
    }

    /// The configuration that the environment asks for; 127.0.0.1 without any.
    ///
    /// # Errors
    /// A variable that does not parse, or an interface that is missing or has no address.
    pub(crate) fn from_env() -> Result<Self, NetError> {
        let config = match (variable("IBEX_SOFT_ADDR")?, variable("IBEX_SOFT_NETDEV")?) {
            (Some(address), _) => Self::parse_address(&address)?,
            (None, Some(name)) => Self::on_interface(&name)?,
            (None, None) => Self::new(Ipv4Addr::LOCALHOST.into()),
        };
        config.tuned_by_env()
    }

    /// The same configuration with port, buffers, faults and links from the environment.
    ///
    /// # Errors
    /// A variable that does not parse.
    pub(crate) fn tuned_by_env(mut self) -> Result<Self, NetError> {
        const PERCENT: &str = "a percentage from 0 to 100";
        let percent =
            |name| Ok(number::<f64>(name, PERCENT, |&p| (0.0..=100.0).contains(&p))?.unwrap_or(0.0));
        if let Some(port) = number("IBEX_SOFT_PORT", "a UDP port from 1 to 65535", |&port| port > 0)? {
            self.port = port;
        }
        let sizes = (1 << 16)..=(1 << 30);
        if let Some(size) =
            number("IBEX_SOFT_BUFFER", "a size from 65536 to 1073741824", |n| sizes.contains(n))?
        {
            self.buffer = size;
        }
        self.faults = Faults {
            loss: percent("IBEX_SOFT_LOSS")?,
            duplicate: percent("IBEX_SOFT_DUP")?,
            reorder: percent("IBEX_SOFT_REORDER")?,
            corrupt: percent("IBEX_SOFT_CORRUPT")?,
            delay: number("IBEX_SOFT_DELAY", "microseconds from 0 to 10000000", |&us| us <= 10_000_000)?
                .unwrap_or(0),
            seed: number("IBEX_SOFT_SEED", "a seed from 0 to 2^64 - 1", |_| true)?.unwrap_or(1),
        };
        self.link = number("IBEX_SOFT_LINK", "auto, direct, host or wire", |_| true)?.unwrap_or_default();
        self.capture = variable("IBEX_SOFT_PCAP")?.map(PathBuf::from);
        Ok(self)
    }

    /// Reads `ADDRESS` or `ADDRESS%INTERFACE`.
    fn parse_address(text: &str) -> Result<Self, NetError> {
        let wrong = || NetError::Environment {
            variable: "IBEX_SOFT_ADDR",
            value: text.to_owned(),
            expected: "an IPv4 or IPv6 address (a link-local one followed by %INTERFACE)",
        };
        let (address, interface) = text.split_once('%').map_or((text, None), |(a, i)| (a, Some(i)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let mut config = Self::new(address.to_canonical());
        let local = matches!(config.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !local {
            return if interface.is_none() { Ok(config) } else { Err(wrong()) };
        }
        let all = ifaddr::addresses().map_err(NetError::io("list the network interfaces"))?;
        let named = |entry: &&InterfaceAddress| interface.is_none_or(|name| entry.name == name);
        let entry = all.iter().filter(|entry| entry.address == config.address).find(named);
        config.scope = entry.ok_or(NetError::NotLocal { address })?.scope;
        Ok(config)
    }

    /// `address` with `port`, and with the scope it needs on this device's network.
    pub(super) fn socket_address(&self, address: IpAddr, port: u16) -> SocketAddr {
        match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, self.scope).into(),
            _ => SocketAddr::new(address, port),
        }
    }
}

/// The largest IB MTU for the device at `address`: what its interface carries, less all headers.
pub(super) fn mtu_of(address: IpAddr) -> Result<usize, NetError> {
    let all = ifaddr::addresses().map_err(NetError::io("list the network interfaces"))?;
    // 127.0.0.2 and the like are no interface's address, but lie in the network of one.
    let exact = all.iter().find(|entry| entry.address == address);
    let near = || all.iter().filter(|e| e.prefix > 0).find(|entry| ifaddr::same_network(entry, address));
    // Addresses that come from elsewhere (routes of type local) get what every interface carries.
    const ETHERNET: usize = 1500;
    let link = match exact.or_else(near) {
        Some(entry) => ifaddr::mtu(&entry.name).map_err(NetError::io("ask for the interface's MTU"))?,
        None => ETHERNET,
    };
    Ok(ib_mtu(link, address))
}

/// The largest IB MTU in a link MTU of `link` bytes.
fn ib_mtu(link: usize, address: IpAddr) -> usize {
    let ip = if address.is_ipv4() { 20 } else { size_of::<Ipv6Addr>() * 2 + 8 };
    let room = link.saturating_sub(ip + HEADERS);
    [4096, 2048, 1024, 512].into_iter().find(|&mtu| mtu <= room).unwrap_or(256)
}

fn variable(name: &'static str) -> Result<Option<String>, NetError> {
    // What the program has set comes before its environment.
    if let Some(text) = crate::settings::installed(name) {
        return Ok(Some(text));
    }
    match std::env::var(name) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(value)) => Err(NetError::Environment {
            variable: name,
            value: value.to_string_lossy().into_owned(),
            expected: "valid UTF-8",
        }),
    }
}

fn number<T: FromStr>(
    name: &'static str,
    expected: &'static str,
    valid: impl Fn(&T) -> bool,
) -> Result<Option<T>, NetError> {
    let Some(value) = variable(name)? else { return Ok(None) };
    match value.parse().ok().filter(|parsed| valid(parsed)) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(NetError::Environment { variable: name, value, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_leaves_room_for_every_header() {
        let v4 = Ipv4Addr::LOCALHOST.into();
        let v6 = Ipv6Addr::LOCALHOST.into();
        for (link, over_v4, over_v6) in [
            (65_536, 4096, 4096),
            (9000, 4096, 4096),
            (4180, 4096, 4096),
            (4160, 4096, 2048),
            (1500, 1024, 1024),
            (1280, 1024, 1024),
            (1087, 512, 512),
            (576, 512, 256),
            (68, 256, 256),
        ] {
            assert_eq!((ib_mtu(link, v4), ib_mtu(link, v6)), (over_v4, over_v6), "{link}");
        }
        assert_eq!(mtu_of(v4).unwrap(), 4096);
        assert_eq!(mtu_of("127.9.9.9".parse().unwrap()).unwrap(), 4096);
    }

    #[test]
    fn addresses_are_read_with_their_interface() {
        let address = |text| Config::parse_address(text).map(|config| config.address);
        assert_eq!(address("192.0.2.7").unwrap(), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(address("::ffff:192.0.2.7").unwrap(), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(address("2001:db8::1").unwrap(), "2001:db8::1".parse::<IpAddr>().unwrap());
        for wrong in ["", "192.0.2", "192.0.2.7%lo", "host"] {
            assert!(matches!(address(wrong), Err(NetError::Environment { .. })), "{wrong}");
        }
        assert!(matches!(address("fe80::dead:beef:1%lo"), Err(NetError::NotLocal { .. })));
    }

    #[test]
    fn interfaces_have_addresses() {
        let config = Config::on_interface("lo").unwrap();
        assert_eq!(config.address, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(Config::on_interface("a-name-that-is-much-too-long").is_err());
    }
}
