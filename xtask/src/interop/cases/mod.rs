//! The list of cases: program, options, what must be seen.
//!
//! [`verbs`] has the programs of ibverbs-utils, [`perf`] perftest, [`manager`] those of rdmacm-utils, [`misuse`] what must be
//! refused or survived. A case is written without device, address, port and GID index: the link gives these
//! ([`super::command`]), so that one case runs over several links and has one line in the table.

mod manager;
mod misuse;
mod perf;
mod verbs;

use super::link::{Kind, Link};

/// What a case must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// One process; it exits 0 and prints every one of these.
    Prints(&'static [&'static str]),
    /// One process; it exits with a code other than 0 and one of these is in its output.
    Refuses(&'static [&'static str]),
    /// `ibv_*_pingpong`: both exit 0 and report the bytes (both directions) and the exchanges.
    Pingpong { size: u64, iters: u64 },
    /// perftest: both exit 0, the client reports a row for every size with at least this many iterations.
    Table { sizes: Vec<u64>, iters: u64 },
    /// As `Table` with one size, over a file of each end's own as buffer: what the client sent (or read) is afterwards
    /// byte for byte what the server received (or served).
    Payload { size: u64, iters: u64 },
    /// `rping -V -v`: both exit 0, the client has compared this many exchanges.
    Rping { count: usize },
    /// Both exit 0 and print this.
    BothSay(&'static str),
    /// `cmtime`: the client exits 0 with a row for each step; its server never ends by itself.
    Steps,
    /// The server is killed while data moves: the client exits with a completion's error, in bounded time.
    ServerKilled,
    /// The client is interrupted (control-C) while data moves: the server ends by itself.
    ClientInterrupted,
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The client's program; the server's too, `rdma_client` aside.
    pub(super) program: &'static str,
    /// Options of both ends, those of the link aside.
    pub(super) options: Vec<String>,
    pub(super) check: Check,
    /// Whether `--quick` runs it.
    pub(super) quick: bool,
    /// Limit in seconds, before the link's patience. Far above what the case takes alone: two spinning processes on a
    /// crowded machine make little way.
    pub(super) seconds: u64,
}

impl Case {
    /// Program and options, as the table shows them.
    pub(super) fn line(&self) -> String {
        let mut line = self.program.to_owned();
        for option in &self.options {
            line.push(' ');
            line.push_str(option);
        }
        match self.check {
            Check::ServerKilled => line.push_str(" (server killed)"),
            Check::ClientInterrupted => line.push_str(" (client interrupted)"),
            _ => {}
        }
        line
    }

    /// Whether two processes take part.
    pub(super) fn is_pair(&self) -> bool {
        !matches!(self.check, Check::Prints(_) | Check::Refuses(_))
    }

    /// Whether an option is given.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }

    /// Whether the two ends connect by rdma_cm and not over TCP.
    pub(super) fn is_managed(&self) -> bool {
        addresses_by_option(self) || self.has("-R")
    }

    fn quick(mut self) -> Case {
        self.quick = true;
        self
    }

    fn slow(mut self) -> Case {
        self.quick = false;
        self
    }

    fn seconds(mut self, seconds: u64) -> Case {
        self.seconds = seconds;
        self
    }
}

/// Whether the program takes the address by an option, and its port likewise or not at all.
pub(super) fn addresses_by_option(case: &Case) -> bool {
    manager::PROGRAMS.contains(&case.program)
}

/// Stands for the path of an end's buffer file.
pub(super) const BUFFER: &str = "FILE";

/// The cases of a link, in the order in which they run.
pub(super) fn all(link: &Link) -> Vec<Case> {
    match link.kind {
        Kind::Host => {
            [verbs::info(), verbs::pingpongs(), perf::all(), manager::all(), misuse::all()].concat()
        }
        Kind::Wire => {
            // The programs alone are the same as over the host link.
            let cases = [verbs::pingpongs(), perf::all(), manager::all(), misuse::vanishing()].concat();
            cases
                .into_iter()
                .map(|case| if stands_for_the_wire(&case) { case } else { case.slow() })
                .collect()
        }
        Kind::Addressed | Kind::Ipv6 => {
            let mut cases = [verbs::some(), perf::some(), manager::all()].concat();
            cases.retain(|case| link.kind == Kind::Addressed || !case.has("-R"));
            let represents =
                |case: &Case| case.program == "ibv_rc_pingpong" && case.has("-c") || case.program == "rping";
            cases.into_iter().map(|case| if represents(&case) { case } else { case.slow() }).collect()
        }
        Kind::Kernel { loss } => [verbs::kernel(loss), perf::kernel(loss), manager::kernel(loss)].concat(),
    }
}

/// What a quick run keeps of the wire link: one case of each service and direction of data.
fn stands_for_the_wire(case: &Case) -> bool {
    let lossy = matches!(case.program, "ibv_uc_pingpong" | "ibv_ud_pingpong" | "ibv_srq_pingpong");
    let moved = matches!(case.check, Check::Payload { .. } | Check::Rping { .. });
    case.quick && (lossy || moved || case.program == "ucmatose")
}

/// `text` is the options, separated by spaces.
fn case(program: &'static str, text: &str, check: Check) -> Case {
    let options = text.split_whitespace().map(str::to_owned).collect();
    Case { program, options, check, quick: false, seconds: 60 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_stands_twice_in_a_list() {
        let kernel = |loss| [verbs::kernel(loss), perf::kernel(loss), manager::kernel(loss)].concat();
        let host = [verbs::info(), verbs::pingpongs(), perf::all(), manager::all(), misuse::all()].concat();
        for list in [host, [verbs::some(), perf::some(), manager::all()].concat(), kernel(0), kernel(1)] {
            let mut lines: Vec<String> = list.iter().map(Case::line).collect();
            lines.sort();
            let doubled: Vec<&[String]> = lines.windows(2).filter(|pair| pair[0] == pair[1]).collect();
            assert!(doubled.is_empty(), "{doubled:?}");
        }
    }
}
