//! The control messages of a copy and the report at its end.
//!
//! Owns their shape only. The client speaks first ([`Message::Hello`]), the server answers [`Message::Welcome`] or
//! [`Message::Refused`]; then the receiving side decides per file ([`Message::Answers`]) and returns slots
//! ([`Message::Free`]) while the sending side's stream of records goes through the window (`record`, `window`).

use serde::{Deserialize, Serialize};

use super::path::RelPath;

/// Incremented when messages or records change their meaning.
pub(crate) const VERSION: u32 = 1;

/// What travels over the control connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Client to server: what is wanted.
    Hello(Hello),
    /// Server to client: it can be done, and this is the window.
    Welcome(Welcome),
    /// Server to client: it cannot, and why.
    Refused(String),
    /// Client to server: the client's queue pair is connected too. Nothing is posted before this is known.
    Ready,
    /// Receiver to sender: decisions about files, each once.
    Answers(Vec<Answer>),
    /// Receiver to sender: how many slots have been used up since the beginning.
    Free(u64),
    /// Receiver to sender: the rest of this file is of no use.
    Cancel(u64),
    /// Receiver to sender: something could not be copied, as it happens.
    Problem(Problem),
    /// Receiver to sender: everything is in its place.
    Done(Report),
    /// Sender to receiver, when the receiver is to READ: the next slot holds this many bytes.
    Filled(u32),
    /// Either: the copy ends here, and why.
    Abort(String),
}

/// A client's wish.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) wish: Wish,
    /// Where the client's queue pair is.
    pub(crate) endpoint: ibex::Endpoint,
}

/// Which way, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// Send me what is at this path.
    Get { path: Vec<u8> },
    /// Take what I send, to this path.
    Put {
        path: Vec<u8>,
        /// The source's own name; none when only its contents are meant.
        name: Option<Vec<u8>>,
        /// Whether the source is a directory.
        dir: bool,
        checksum: bool,
    },
}

/// The server's side of the pair.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) endpoint: ibex::Endpoint,
    /// The window, encoded by the library.
    pub(crate) window: ibex::RemoteHandle,
    pub(crate) slots: u64,
    /// For a download: the name of what is sent (none when only its contents are), and whether it is a directory.
    pub(crate) source: Option<SourceInfo>,
}

/// What a download sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceInfo {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) dir: bool,
}

/// The receiver's decision about one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Not needed: it is there already, or cannot be received.
    Skip(u64),
    /// Send it.
    Want {
        id: u64,
        /// Bytes at hand already, from an earlier copy.
        have: u64,
        /// BLAKE3 of those; the sender continues after them only if its own bytes have the same.
        hash: [u8; 32],
    },
}

/// Something that was not copied, or a remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) path: String,
    pub(crate) error: String,
    /// Whether the copy counts as failed.
    pub(crate) fatal: bool,
}

impl Problem {
    pub(crate) fn new(path: &RelPath, error: impl std::fmt::Display, fatal: bool) -> Self {
        Self { path: path.to_string(), error: error.to_string(), fatal }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.error)
    }
}

/// What a copy did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Files whose contents were received, wholly or from where an earlier copy had stopped.
    pub(crate) files_copied: u64,
    /// Of those, files that continued a part.
    pub(crate) files_resumed: u64,
    /// Files that were there already.
    pub(crate) files_unchanged: u64,
    /// Directories present afterwards.
    pub(crate) dirs: u64,
    /// Symbolic links present afterwards.
    pub(crate) links: u64,
    /// Bytes of contents that travelled.
    pub(crate) bytes_copied: u64,
    /// Bytes of contents that did not need to: unchanged files and continued parts.
    pub(crate) bytes_skipped: u64,
    /// Entries that were not copied.
    pub(crate) failed: u64,
}
