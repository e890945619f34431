//! Configuration of the software device: which address it stands on.
//!
//! Owns the environment variables `IBEX_SOFT_*` and their parsing. Does not own what they resolve to (the address of an
//! interface, its MTU): that is [`crate::net`].
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `IBEX_SOFT_ADDR` | IP address the device is bound to | `127.0.0.1`: reachable from this host only |
//! | `IBEX_SOFT_NETDEV` | interface whose first IPv4 address the device is bound to; `IBEX_SOFT_ADDR` wins | none |

use std::net::{IpAddr, Ipv4Addr};

/// Where the device stands. The default is the loopback address: nothing is exposed to a network unless asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Bound to this address of the host.
    Address(IpAddr),
    /// Bound to the first IPv4 address of this interface.
    Interface(String),
}

/// Configuration of one device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The address or interface the device is bound to.
    pub place: Place,
}

impl Default for Config {
    fn default() -> Self {
        Config { place: Place::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)) }
    }
}

/// A variable of the environment that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `IBEX_SOFT_ADDR` is not an IP address.
    #[error("IBEX_SOFT_ADDR is {0:?}, which is no IP address; give one of this host's, for example 192.0.2.7")]
    Address(String),
    /// A variable is not valid Unicode.
    #[error("{0} is not valid UTF-8; unset it or give an address or an interface name")]
    Encoding(&'static str),
}

impl Config {
    /// Reads `IBEX_SOFT_ADDR` and `IBEX_SOFT_NETDEV`; an empty variable counts as unset.
    ///
    /// # Errors
    /// [`ConfigError`] names the variable that cannot be parsed.
    pub fn from_env() -> Result<Config, ConfigError> {
        if let Some(text) = variable("IBEX_SOFT_ADDR")? {
            let address = text.trim().parse().map_err(|_| ConfigError::Address(text.clone()))?;
            return Ok(Config { place: Place::Address(address) });
        }
        if let Some(name) = variable("IBEX_SOFT_NETDEV")? {
            return Ok(Config { place: Place::Interface(name) });
        }
        Ok(Config::default())
    }
}

fn variable(name: &'static str) -> Result<Option<String>, ConfigError> {
    match std::env::var(name) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(ConfigError::Encoding(name)),
    }
}
