//! Who is told how a copy goes on.
//!
//! Owns the trait; the client's progress bar is in `progress`, the server forwards problems to its client.

use super::message::Problem;

/// Told about a copy while it runs, on either side.
pub(crate) trait Watch {
    /// How much there is in all.
    fn totals(&mut self, files: u64, bytes: u64);
    /// So many more bytes are done: copied, or found to be there already.
    fn advance(&mut self, bytes: u64);
    /// Something was not copied, or a remark.
    fn problem(&mut self, problem: &Problem);
}
