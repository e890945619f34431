//! The second process of the cases that need one: this program, started again with a role in its environment.
//!
//! The child speaks lines on its standard input and output: the two ends exchange endpoints and words like `ready` with
//! them, and as channels of bytes the same pipes carry what the safe crate exchanges. A child is killed when its handle is dropped, so that no case leaves one behind.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::cases;

/// The environment variable that holds the role.
const ROLE: &str = "IBEX_CONFORMANCE_ROLE";

/// Plays the role the environment names, if it names one.
///
/// # Panics
/// When the role is unknown: a stale test binary.
pub fn run_if_asked() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let (_, body) = cases::roles()
        .into_iter()
        .find(|(name, _)| *name == role)
        .unwrap_or_else(|| panic!("no role {role} in this program"));
    body();
    true
}

/// A child process and its two pipes.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts this program in a role.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(role: &str) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let input = child.stdin.take().expect("piped above");
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        Self { child, input, output }
    }

    /// Sends a line.
    ///
    /// # Panics
    /// When the child is gone.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}")
            .and_then(|()| self.input.flush())
            .expect("the second process takes a line");
    }

    /// Reads a line.
    ///
    /// # Panics
    /// When the child ended instead of answering.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).expect("the second process's output is text");
        assert!(read > 0, "the second process ended instead of answering");
        line.trim_end().to_owned()
    }

    /// Waits until the child ends by itself; true if it did so with success.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn ends(&mut self) -> bool {
        self.child.wait().expect("a child can be waited for").success()
    }

    /// Kills the child without warning and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Either call fails only when the child has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The child's output, after the lines that were read from it.
impl Read for Peer {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.output.read(out)
    }
}

/// The child's input.
impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }
}

/// The child's side of the two pipes, as a channel of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Parent;

impl Read for Parent {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        io::stdin().read(out)
    }
}

impl Write for Parent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// The child's side: reads a line from the parent.
///
/// # Panics
/// When the parent is gone.
pub fn hear() -> String {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).expect("the parent's words are text");
    assert!(read > 0, "the parent ended");
    line.trim_end().to_owned()
}

/// The child's side: sends a line to the parent.
///
/// # Panics
/// When the parent is gone.
pub fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).expect("the parent takes a line");
}
