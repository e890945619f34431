//! Running the command as a user does: arguments in, exit status and output out, nothing left behind.

#![allow(dead_code, reason = "each test file uses its part of it")]
#![allow(clippy::unwrap_used, reason = "in a test, failing is what an unwrap is for")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A run that takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The command on the built-in device.
pub(crate) fn ibex(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ibex"));
    command.args(args).env("IBEX_DEVICE", "soft").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end, which must come within [`LIMIT`].
pub(crate) fn run(args: &[&str]) -> Output {
    wait(ibex(args).spawn().unwrap(), LIMIT)
}

/// Waits for a child; one that outlives `limit` is killed and fails the test.
pub(crate) fn wait(mut child: Child, limit: Duration) -> Output {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > limit {
            child.kill().unwrap();
            panic!("still running after {limit:?}: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as JSON.
pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {:?}, standard error: {}", String::from_utf8_lossy(&output.stdout), stderr(output))
    })
}

/// Asserts success and gives the JSON.
pub(crate) fn success(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}: {}", output.status, stderr(output));
    json(output)
}

/// A process that listens and says where in its first line of JSON. Killed when dropped.
pub(crate) struct Listener {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Listener {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = ibex(args).stderr(Stdio::inherit()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let first: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let address = first["listening"].as_str().unwrap().to_owned();
        Self { child, address }
    }

    /// Serves a directory.
    pub(crate) fn serve(dir: &Path) -> Self {
        Self::start(&["serve", dir.to_str().unwrap(), "--listen", "127.0.0.1:0", "--json"])
    }

    /// `ibex://ADDRESS/path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("ibex://{}/{path}", self.address)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of this test, removed at its end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(label: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{label}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A path as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file with contents that depend on `seed`; makes its directory.
    pub(crate) fn write(&self, name: &str, length: usize, seed: u8) -> Vec<u8> {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes: Vec<u8> =
            (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect();
        std::fs::write(path, &bytes).unwrap();
        bytes
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
