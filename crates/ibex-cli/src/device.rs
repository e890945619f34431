//! Which device a command uses.
//!
//! Owns the meaning of `--device`, the one remark a user gets when the built-in device takes the place of a missing NIC,
//! and waiting for an operation without waiting for ever.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ibex::{Context, Device, Op, Unfinished, Work};

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
