//! The other process: this program again, and the pipe between the two.
//!
//! Owns the child and the words that both sides exchange outside the measurement: endpoints, memory, ports, counts. Nothing
//! goes over the pipe while something is measured.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Result;

/// Which side this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Begins, and knows the figures.
    Asking,
    Answering,
}

/// The argument that makes a process the answering side.
pub(crate) const ANSWER: &str = "--answer";

/// The other process, at the other end of a pipe.
pub(crate) struct Peer {
    pub(crate) role: Role,
    child: Option<(Child, ChildStdin, ChildStdout)>,
}

impl Peer {
    /// Starts the answering side, with the arguments of this one.
    pub(crate) fn start(row: &str, args: &[String]) -> Result<Peer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(row).args(&args[1..]).arg(ANSWER).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (to, from) = child.stdin.take().zip(child.stdout.take()).ok_or("the child has no pipes")?;
        Ok(Peer { role: Role::Asking, child: Some((child, to, from)) })
    }

    /// The asking side, which started this process.
    pub(crate) fn parent() -> Peer {
        Peer { role: Role::Answering, child: None }
    }

    /// Sends `ours` and returns as many bytes of the peer's.
    pub(crate) fn exchange(&mut self, ours: &[u8]) -> Result<Vec<u8>> {
        let mut theirs = vec![0; ours.len()];
        match &mut self.child {
            Some((_, to, from)) => {
                to.write_all(ours)?;
                to.flush()?;
                from.read_exact(&mut theirs)?;
            }
            None => {
                let mut to = std::io::stdout().lock();
                to.write_all(ours)?;
                to.flush()?;
                std::io::stdin().lock().read_exact(&mut theirs)?;
            }
        }
        Ok(theirs)
    }

    /// Returns when the peer has come here too.
    pub(crate) fn meet(&mut self) -> Result<()> {
        self.exchange(&[1]).map(drop)
    }

    /// The peer's number, for one of ours.
    pub(crate) fn sum_errors(&mut self, ours: u64) -> Result<u64> {
        let theirs = self.exchange(&ours.to_le_bytes())?;
        Ok(u64::from_le_bytes(theirs.as_slice().try_into()?))
    }

    /// Waits for the child to end well.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if let Some((mut child, to, from)) = self.child.take() {
            drop((to, from));
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("the second process ended with {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some((child, ..)) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
