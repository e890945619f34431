//! The second process of a benchmark: this program again, listening on this host.
//!
//! Owns the child: where it listens, and that it never outlives the benchmark. It ends by itself when its control
//! connection closes; one that does not is killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::args::Wait;

/// Starting takes far less; opening a device may take a moment.
const START: Duration = Duration::from_secs(10);
/// Once it is no longer needed it ends at once.
const END: Duration = Duration::from_secs(3);

/// The running child. Dropping it ends it.
pub(crate) struct Second {
    child: Child,
}

#[derive(Deserialize)]
struct Line {
    listening: String,
}

impl Second {
    /// Starts it with the same device, to wait the same way.
    pub(crate) fn start(device: Option<&str>, wait: Wait) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program to start it again")?;
        let mut command = Command::new(program);
        command.args(["bench", "--listen", "127.0.0.1:0", "--once", "--json"]);
        command.args(["--wait", if wait == Wait::Spin { "spin" } else { "block" }]);
        if let Some(device) = device {
            command.args(["--device", device]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the second process")?;
        Ok(Self { child })
    }

    /// Where it listens; waits until it does.
    ///
    /// # Errors
    /// When it ends first (its reason is on standard error) or does not say where in time.
    pub(crate) fn address(&mut self) -> Result<String> {
        let out = self.child.stdout.take().context("the second process was asked before")?;
        let (tell, told) = mpsc::channel();
        let body = move || {
            let mut line = String::new();
            let read = BufReader::new(out).read_line(&mut line);
            let _ = tell.send(read.map(|_| line));
        };
        std::thread::Builder::new().name("second".to_owned()).spawn(body).context("cannot start a thread")?;
        let line = match told.recv_timeout(START) {
            Ok(line) => line.context("cannot read from the second process")?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                bail!("the second process did not start within {} s", START.as_secs())
            }
        };
        ensure!(!line.is_empty(), "the second process ended before it began");
        let Line { listening } = serde_json::from_str(&line)
            .with_context(|| format!("the second process said {line:?} instead of its address"))?;
        Ok(listening)
    }

    /// Waits for it to end.
    pub(crate) fn finish(mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the second process")? {
                ensure!(status.success(), "the second process ended with {status}");
                return Ok(());
            }
            if begin.elapsed() > END {
                bail!("the second process did not end");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
