//! Settings of the device by code: what the environment says otherwise.
//!
//! Owns the process's settings. What each means, its range and its default are the variable's, see [`crate::net`]'s
//! configuration: a setting is kept as the text the variable would have, so that there is one check for both.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::net::Config;

/// The best link that may be used to reach a queue pair; each allows those that come after it here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Link {
    /// Between queue pairs of one process the operation itself, without packets.
    #[default]
    Direct,
    /// Shared memory to processes of the same user on this host, and to the process itself.
    Host,
    /// RoCEv2 over UDP, even inside one process.
    Wire,
}

/// Settings that were refused; none of them is in force.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// How the device is made, for this process: each setting comes before the environment variable of the same meaning, and holds
/// for contexts opened after [`Settings::install`].
///
/// ```
/// use std::time::Duration;
///
/// use ibex_soft::{Link, Settings};
///
/// // A device that loses every hundredth packet and answers a millisecond late.
/// Settings::new()
///     .address("127.0.0.9".parse().unwrap())
///     .link(Link::Wire)
///     .loss(1.0)
///     .delay(Duration::from_millis(1))
///     .seed(7)
///     .install()?;
/// // … open the device, exercise a program …
/// Settings::new().install()?; // back to what the environment says
/// # Ok::<(), ibex_soft::SettingsError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(Vec<(&'static str, String)>);

static INSTALLED: RwLock<Settings> = RwLock::new(Settings(Vec::new()));

/// The text that a variable's setting has, if it is set by code.
pub(crate) fn installed(variable: &str) -> Option<String> {
    let settings = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
    settings.0.iter().rev().find(|(name, _)| *name == variable).map(|(_, value)| value.clone())
}

impl Settings {
    /// No setting: everything is as the environment says.
    pub fn new() -> Settings {
        Settings::default()
    }

    fn set(mut self, name: &'static str, value: impl ToString) -> Settings {
        self.0.push((name, value.to_string()));
        self
    }

    /// The device's address, one of this host's (`IBEX_SOFT_ADDR`).
    pub fn address(self, address: IpAddr) -> Settings {
        self.set("IBEX_SOFT_ADDR", address)
    }

    /// The interface whose first address is the device's, unless an address is set (`IBEX_SOFT_NETDEV`).
    pub fn interface(self, name: &str) -> Settings {
        self.set("IBEX_SOFT_NETDEV", name)
    }

    /// The UDP port, 1 to 65535, instead of 4791: only devices on the same port meet (`IBEX_SOFT_PORT`).
    pub fn port(self, port: u16) -> Settings {
        self.set("IBEX_SOFT_PORT", port)
    }

    /// Socket buffers to ask for, 64 KiB to 1 GiB (`IBEX_SOFT_BUFFER`).
    pub fn buffer(self, bytes: usize) -> Settings {
        self.set("IBEX_SOFT_BUFFER", bytes)
    }

    /// The best link that may be used (`IBEX_SOFT_LINK`).
    pub fn link(self, link: Link) -> Settings {
        let name = match link {
            Link::Direct => "direct",
            Link::Host => "host",
            Link::Wire => "wire",
        };
        self.set("IBEX_SOFT_LINK", name)
    }

    /// Percent of sent packets to lose, 0 to 100 (`IBEX_SOFT_LOSS`).
    pub fn loss(self, percent: f64) -> Settings {
        self.set("IBEX_SOFT_LOSS", percent)
    }

    /// Percent of sent packets to send twice, 0 to 100 (`IBEX_SOFT_DUP`).
    pub fn duplicate(self, percent: f64) -> Settings {
        self.set("IBEX_SOFT_DUP", percent)
    }

    /// Percent of sent packets that the next one overtakes, 0 to 100 (`IBEX_SOFT_REORDER`).
    pub fn reorder(self, percent: f64) -> Settings {
        self.set("IBEX_SOFT_REORDER", percent)
    }

    /// Percent of packets sent by UDP in which a bit is turned, 0 to 100 (`IBEX_SOFT_CORRUPT`).
    pub fn corrupt(self, percent: f64) -> Settings {
        self.set("IBEX_SOFT_CORRUPT", percent)
    }

    /// How much later packets leave by UDP, at most 10 s, in whole microseconds (`IBEX_SOFT_DELAY`).
    pub fn delay(self, delay: Duration) -> Settings {
        self.set("IBEX_SOFT_DELAY", delay.as_micros())
    }

    /// Seed of the choice of packets to harm (`IBEX_SOFT_SEED`).
    pub fn seed(self, seed: u64) -> Settings {
        self.set("IBEX_SOFT_SEED", seed)
    }

    /// A file to append every packet to, for tshark and its like; what needs no packets is turned off (`IBEX_SOFT_PCAP`).
    pub fn capture(self, file: impl AsRef<Path>) -> Settings {
        self.set("IBEX_SOFT_PCAP", file.as_ref().display())
    }

    /// Puts these settings, and no earlier ones, in force for contexts opened from now on.
    ///
    /// # Errors
    /// [`SettingsError`] if a value is out of its range, or an interface is missing; earlier settings stay in force.
    pub fn install(self) -> Result<(), SettingsError> {
        let replace = |settings| {
            std::mem::replace(&mut *INSTALLED.write().unwrap_or_else(PoisonError::into_inner), settings)
        };
        let before = replace(self);
        match Config::from_env() {
            Ok(_) => Ok(()),
            Err(error) => {
                replace(before);
                Err(SettingsError(error.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_before_the_environment_and_are_checked_like_it() {
        Settings::new().loss(2.5).delay(Duration::from_micros(30)).link(Link::Host).install().unwrap();
        let config = Config::from_env().unwrap();
        assert_eq!((config.faults.loss, config.faults.delay), (2.5, 30));
        let error = Settings::new().loss(101.0).install().unwrap_err();
        assert!(error.to_string().contains("IBEX_SOFT_LOSS=\"101\" is not a percentage"), "{error}");
        assert_eq!(Config::from_env().unwrap(), config, "refused settings change nothing");
        Settings::new().install().unwrap();
        assert_eq!(installed("IBEX_SOFT_LOSS"), None);
    }
}
