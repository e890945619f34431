//! The command line: every subcommand, option and default, and the help that explains them.
//!
//! Owns no behaviour beyond parsing; values that need more than parsing (a device's name, a remote path) are resolved
//! where they are used.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The port of `ibex serve` and of `ibex bench --listen`, unless another is named.
pub(crate) const DEFAULT_PORT: u16 = 7471;

/// RDMA on this host: devices, measurements, file copies.
#[derive(Debug, Parser)]
#[command(
    name = "ibex",
    version,
    after_help = "Exit status: 0 success, 1 failure (the reason is on standard error), 2 wrong usage.\n\
                  Without --device, a NIC is used if the host has one, otherwise the built-in software device \
                  (IBEX_DEVICE chooses too)."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the RDMA devices of this host
    Devices(DevicesArgs),
    /// Show what a device says of itself: limits, ports, GIDs
    Devinfo(DevinfoArgs),
    /// Measure latency and bandwidth between two processes, every payload verified
    Bench(BenchArgs),
    /// Serve a directory to `ibex cp`
    Serve(ServeArgs),
    /// Copy files and directories to or from a host that runs `ibex serve`
    Cp(CpArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DevinfoArgs {
    /// The device to show; all of them without it
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Show every attribute and the whole GID table
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print JSON (always complete) instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the two sides of a measurement wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wait {
    /// Poll without sleeping: the lowest latency, one busy core a side
    Spin,
    /// Sleep until the device or the socket has something: completion channel, blocking recv
    Block,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
What is measured:
  send_lat, write_lat  HALF the round trip of a ping-pong (as perftest prints it); udp_lat and tcp_lat likewise,
                       between the same two processes and in the same --wait mode
  read_lat, atomic_lat the whole time from post to completion; the peer's program takes no part.
                       Atomics alternate between fetch-and-add and compare-and-swap
  send_bw, write_bw, read_bw, tcp_bw
                       many messages in flight, in rounds; the clock runs from the first post to the last completion
                       of each round (tcp_bw: to the peer's confirmation). The percentiles are of the time one message
                       took from post to completion (tcp_bw: of a round's time divided by its messages)
  msgs/s and GB/s      messages and their bytes (1 GB = 10^9) divided by the time measured; in a ping-pong the messages
                       of both directions count

What is verified: every byte of every message, warm-up included. Each message is a different window of a
pseudo-random pattern that both sides derive from a seed of the run. Latency: each side compares what it received after
its answer has left. Bandwidth: every message of a round has its own destination, and the receiving side compares all of
them when the round's clock has stopped. Atomics: each returned value and the final one. A message that differs, is missing
or failed counts as an error; with any error the exit status is 1.

With --wait spin each side keeps to a core of its own, and write_lat polls the target memory for the last bytes of the message; with --wait block it is a
WRITE with immediate, since memory cannot be slept on. A spinning peer polls its queue while it is READ from or
written to, which drives a software device; a sleeping one does nothing.")]
pub(crate) struct BenchArgs {
    /// `HOST[:PORT]` of a peer that runs `ibex bench --listen`; a second process on this host is started without it
    #[arg(value_name = "SERVER", conflicts_with = "listen")]
    pub(crate) server: Option<String>,
    /// Be the peer of a benchmark started elsewhere, until interrupted
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:7471")]
    pub(crate) listen: Option<String>,
    /// Serve one benchmark and end
    #[arg(long, hide = true, requires = "listen")]
    pub(crate) once: bool,
    /// The device to use on this side
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Few sizes, short measurements: under ten seconds in all
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// How both sides wait, for RDMA and for the UDP and TCP references alike
    #[arg(long, value_enum, default_value_t = Wait::Spin)]
    pub(crate) wait: Wait,
    /// Only these measurements, separated by commas (send_lat,udp_lat,…)
    #[arg(long, value_name = "OP,…", value_delimiter = ',')]
    pub(crate) ops: Vec<String>,
    /// Only these message sizes in bytes, separated by commas (2 to 16777216)
    #[arg(long, value_name = "BYTES,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(2..=16 << 20))]
    pub(crate) sizes: Vec<u32>,
    /// Exactly this many messages per measurement, instead of as many as fit its time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) iters: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Everything below DIR can be read and written by whoever reaches the address: the default is this host only. No path, and no
symbolic link, leads a client outside DIR. The address is for control only; file contents travel by one-sided RDMA
operations (READ to download, WRITE to upload) through a window that each client gets for itself. Stop it with Ctrl-C.

A client that is not on this host reaches the built-in device only if the device uses an address the client can reach:
IBEX_SOFT_ADDR=<address of this host> on both sides.")]
pub(crate) struct ServeArgs {
    /// The directory to serve
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where to accept clients
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7471")]
    pub(crate) listen: String,
    /// Refuse uploads
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The device to use
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Print one JSON object a line: the address, then each finished copy
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
One of SRC and DST is local, the other remote:
  HOST:PATH                 PATH below the served directory; HOST: alone is that directory itself. An argument is remote
                            when a colon comes before any slash; write ./a:b for a local file of that name
  [IPV6]:PATH               the same for an IPv6 address
  ibex://HOST[:PORT]/PATH   with another port than 7471 (or give --port)

Directories are copied whole, without an option. As with cp: if DST is an existing directory, SRC is put into it under its
own name, otherwise the copy is DST; the contents of `dir/.` or `HOST:` go into DST directly. A directory copy that was
interrupted is continued by the same command, to the same place.

Kept: contents, permission bits (not setuid, setgid, sticky), modification times, empty files and directories, symbolic
links that stay inside the copied tree (as links). Links that lead outside are refused; sockets, devices and pipes are
skipped with a warning. Ownership and extended attributes are not copied.

A file is received into .NAME.ibex-part beside its place, checked against the sender's BLAKE3 checksum, synced and
renamed: its place holds the old file or the whole new one, never a part. A part left by an interrupted copy is checked and
continued. A file that is already there with the same size and modification time is not copied again (--checksum compares
contents instead). What fails for one file is reported, the rest goes on, and the exit status is 1.")]
pub(crate) struct CpArgs {
    /// What to copy
    #[arg(value_name = "SRC")]
    pub(crate) src: PathBuf,
    /// Where to
    #[arg(value_name = "DST")]
    pub(crate) dst: PathBuf,
    /// Accepted for habit: directories are always copied whole
    #[arg(short, long, visible_short_alias = 'R')]
    pub(crate) recursive: bool,
    /// Compare the contents of files that look unchanged, instead of size and modification time
    #[arg(short, long)]
    pub(crate) checksum: bool,
    /// The port of a HOST:PATH
    #[arg(short = 'P', long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub(crate) port: u16,
    /// The device to use
    #[arg(short, long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// No progress bar and no summary; errors are still printed
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print the outcome as one JSON object, without a progress bar
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
