//! UCX over shared memory, by Debian's `ucx_perftest` between two processes, pinned as ibex's are.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Port of the two processes' first words to each other.
const PORT: u16 = 23_457;
/// A server listens at once, on a machine that is not overloaded.
const START: Duration = Duration::from_secs(10);

/// UCX's figures; none if `ucx_perftest` is not installed.
///
/// # Errors
/// If it is installed and fails.
pub(super) fn measure(quick: bool) -> Result<Option<Value>> {
    if Command::new("ucx_perftest").arg("-h").output().is_err() {
        return Ok(None);
    }
    let many: u64 = if quick { 200_000 } else { 2_000_000 };
    let put = row("ucp_put_lat", 64, many)?;
    let am = row("ucp_am_lat", 64, many)?;
    let rate = row("ucp_am_bw", 64, many)?;
    let small = row("ucp_put_bw", 64 << 10, many / 20)?;
    let large = row("ucp_put_bw", 1 << 20, many / 200)?;
    Ok(Some(json!({
        "put_64_us": put.typical_us,
        "am_64_us": am.typical_us,
        "rate_64_mps": rate.messages_per_s / 1e6,
        "bw_64k_gbytes_per_s": small.gbytes_per_s(64 << 10),
        "bw_1m_gbytes_per_s": large.gbytes_per_s(1 << 20),
    })))
}

/// The last line of a run.
#[derive(Debug, PartialEq)]
struct Row {
    /// The middle of all half round trips.
    typical_us: f64,
    /// Over the whole run.
    messages_per_s: f64,
}

impl Row {
    fn gbytes_per_s(&self, size: u32) -> f64 {
        self.messages_per_s * f64::from(size) / 1e9
    }
}

/// The server: killed when it is no longer needed.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself after its client.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn row(test: &str, size: u32, iterations: u64) -> Result<Row> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let start = |core: usize, args: &[&str]| {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string(), "ucx_perftest", "-p", &PORT.to_string()]);
        command.args(args).env("UCX_TLS", "sm,self").stdin(Stdio::null());
        command
    };
    let server = start(cores - 1, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _server = Server(server.context("cannot start ucx_perftest")?);
    listens()?;
    let (size, iterations) = (size.to_string(), iterations.to_string());
    let client = ["127.0.0.1", "-t", test, "-s", &size, "-n", &iterations, "-w", "1000", "-f"];
    let output = start(0, &client).output().context("cannot start ucx_perftest")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| format!("ucx_perftest -t {test} printed no result:\n{text}"))
}

/// Waits for the server in the system's table of sockets: it serves one connection, so none may be tried.
fn listens() -> Result<()> {
    let begin = Instant::now();
    let mark = format!(":{PORT:04X} ");
    while begin.elapsed() < START {
        let listening = ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
            std::fs::read_to_string(table)
                .is_ok_and(|text| text.lines().any(|line| line.contains(&mark) && line.contains(" 0A ")))
        });
        if listening {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("ucx_perftest does not listen on port {PORT}")
}

/// The line of numbers: iterations; typical, average and overall latency; average and overall MB/s and messages/s.
fn parse(text: &str) -> Option<Row> {
    text.lines().rev().find_map(|line| {
        let numbers: Option<Vec<f64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() == 8)?;
        Some(Row { typical_us: numbers[1], messages_per_s: numbers[7] })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read() {
        let text = "+---+\n| Test | # iterations |\n   100000   0.157  0.172  0.181  355.17  340.90  5819124  5500000\n";
        assert_eq!(parse(text), Some(Row { typical_us: 0.157, messages_per_s: 5_500_000.0 }));
        assert_eq!(parse("+---+\n"), None);
    }
}
