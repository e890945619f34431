//! Which device a command uses.
//!
//! Owns the meaning of `--device`, the one remark a user gets when the built-in device takes the place of a missing NIC,
//! and waiting for an operation without waiting for ever.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ibex::{Context, Device, Endpoint, Op, Unfinished, Work};

use crate::control::Control;
use crate::output;

/// A wait looks this often whether the peer still lives.
const SLICE: Duration = Duration::from_millis(100);

/// Opens the device, and says on standard error what the user should know about the choice, unless nothing is to be said
/// (`quiet`).
pub(crate) fn open(name: Option<&str>, quiet: bool) -> Result<Context> {
    let device = match name {
        Some(name) => Device::by_name(name)?,
        None => Device::any()?,
    };
    if !quiet && let Some(notice) = device.notice() {
        output::say(&format!("ibex: {notice}"));
    }
    device.open().with_context(|| format!("cannot use device {}", device.name()))
}

/// Checks that two devices can reach each other, as far as their addresses tell.
///
/// # Errors
/// When one is on its host's loopback and the other is not there, with what to set where.
pub(crate) fn check_route(own: &Endpoint, peer: &Endpoint, control: &Control) -> Result<()> {
    let on_loopback =
        |endpoint: &Endpoint| endpoint.gid.to_ipv4().is_some_and(|address| address.is_loopback());
    let (here, there) = (control.local_addr()?.ip(), control.peer_addr()?.ip());
    // On one host both ends of the control connection have the same address, or both are on loopback.
    let same_host = here == there || (here.is_loopback() && there.is_loopback());
    let set_here = format!("IBEX_SOFT_ADDR={here} on this host");
    let set_there = format!("IBEX_SOFT_ADDR={there} where the peer is started");
    let remedy = match (on_loopback(own), on_loopback(peer)) {
        (true, true) if !same_host => format!("{set_here} and {set_there}"),
        (true, false) if same_host => "the same IBEX_SOFT_ADDR for both processes".to_owned(),
        (false, true) if same_host => "the same IBEX_SOFT_ADDR for both processes".to_owned(),
        (true, false) => set_here,
        (false, true) => set_there,
        _ => return Ok(()),
    };
    bail!("the devices cannot reach each other ({} here, {} there): set {remedy}", own.gid, peer.gid)
}

/// An operation failed. The reason may well be that the peer is gone, which the device learns by its own timeouts and the
/// control connection at about the same time.
#[derive(Debug)]
pub(crate) struct DeviceFailed(pub(crate) String);

impl std::fmt::Display for DeviceFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DeviceFailed {}

/// Waits for an operation's end, at most `limit`, and only as long as the peer behind `control` lives.
///
/// # Errors
/// When the operation failed, the peer is gone (which is said in preference: it is the reason), or the limit has passed.
pub(crate) fn settle<T: Work>(op: Op<'_, T>, control: &Control, limit: Duration) -> Result<T::Output> {
    let failed = match op.wait_timeout(SLICE) {
        Ok(output) => return Ok(output),
        Err(Unfinished::Failed(failed)) => failed,
        Err(Unfinished::Pending(op)) => return settle_slowly(op, control, limit),
    };
    control.alive()?;
    Err(DeviceFailed(failed.to_string()).into())
}

#[cold]
fn settle_slowly<T: Work>(mut op: Op<'_, T>, control: &Control, limit: Duration) -> Result<T::Output> {
    let deadline = Instant::now() + limit;
    loop {
        control.tick();
        control.alive()?;
        match op.wait_timeout(SLICE) {
            Ok(output) => return Ok(output),
            Err(Unfinished::Pending(still)) => op = still,
            Err(Unfinished::Failed(failed)) => {
                control.alive()?;
                return Err(DeviceFailed(failed.to_string()).into());
            }
        }
        ensure!(Instant::now() < deadline, "an operation has not ended after {} s", limit.as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn devices_on_different_loopbacks_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let far = std::thread::spawn(move || {
            let (stream, from) = listener.accept().unwrap();
            Control::accept(stream, from).unwrap()
        });
        let control = Control::connect(&address).unwrap();
        let _far = far.join().unwrap();
        let at = |gid: &str| {
            let gid = gid.parse().unwrap();
            Endpoint::new(ibex::Qpn::default(), ibex::Psn::random(), gid, ibex::Lid(0), ibex::Mtu::B1024, 1)
        };
        let (loopback, other) = (at("127.0.0.1"), at("10.0.0.1"));
        assert!(check_route(&loopback, &loopback, &control).is_ok());
        assert!(check_route(&other, &other, &control).is_ok());
        assert!(check_route(&at("fe80::1"), &other, &control).is_ok());
        let error = check_route(&loopback, &other, &control).unwrap_err().to_string();
        assert!(error.contains("IBEX_SOFT_ADDR"), "{error}");
    }
}
