//! The list of cases: program, options, what must be seen.

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
    /// The server is killed while data moves: the client exits with a completion's error, in bounded time.
    ServerKilled,
    /// The client is interrupted (control-C) while data moves: the server ends by itself.
    ClientInterrupted,
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) program: &'static str,
    /// Options of both ends, those of the link (device, port, peer) aside.
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

    fn quick(mut self) -> Case {
        self.quick = true;
        self
    }

    fn seconds(mut self, seconds: u64) -> Case {
        self.seconds = seconds;
        self
    }
}

/// The cases of a link, in the order in which they run.
pub(super) fn all(link: &Link) -> Vec<Case> {
    match link.kind {
        Kind::Loopback => loopback(),
        Kind::Addressed => addressed(),
        Kind::Kernel { loss } => kernel(loss),
    }
}

/// `text` is the options, separated by spaces.
fn case(program: &'static str, text: &str, check: Check) -> Case {
    let options = text.split_whitespace().map(str::to_owned).collect();
    Case { program, options, check, quick: false, seconds: 60 }
}

fn pingpong(options: &str, size: u64, iters: u64) -> Case {
    let text = format!("{options} -s {size} -n {iters}");
    case("ibv_rc_pingpong", &text, Check::Pingpong { size, iters })
}

/// perftest with messages of one size, posted by the classic calls.
fn perf(program: &'static str, options: &str, size: u64, iters: u64) -> Case {
    // Atomics have one size and no option for it.
    let size_option = if program.starts_with("ib_atomic") { String::new() } else { format!(" -s {size}") };
    let text = format!("--use_old_post_send -x 1{size_option} -n {iters} {options}");
    case(program, &text, Check::Table { sizes: vec![size], iters })
}

/// perftest with buffers in files, which perftest itself fills with random bytes. One size above a page, so that
/// every message has the same place.
fn perf_payload(program: &'static str, options: &str, iters: u64) -> Case {
    let size = 65_536;
    let text = format!("--use_old_post_send -x 1 -s {size} -n {iters} --mmap={BUFFER} {options}");
    case(program, &text, Check::Payload { size, iters })
}

/// Stands for the path of an end's buffer file.
pub(super) const BUFFER: &str = "FILE";

/// perftest over all its sizes, 2 B to 8 MiB. Slow for a reason of its own: it calibrates the cycle counter again for
/// every size, a second of spinning at both ends.
fn perf_all_sizes(program: &'static str, iters: u64) -> Case {
    let text = format!("--use_old_post_send -x 1 -a -n {iters}");
    let sizes = (1..=23).map(|power| 1 << power).collect();
    case(program, &text, Check::Table { sizes, iters }).seconds(240)
}

const LATENCY: [&str; 3] = ["ib_send_lat", "ib_write_lat", "ib_read_lat"];
const BANDWIDTH: [&str; 3] = ["ib_send_bw", "ib_write_bw", "ib_read_bw"];

const DEVINFO: &[&str] = &[
    "hca_id:\tibex0",
    "PORT_ACTIVE",
    "link_layer:\t\tEthernet",
    "max_qp:",
    "GID[  0]:",
    "GID[  1]:",
    "::ffff:127.0.0.1",
    "RoCE v2",
];

fn loopback() -> Vec<Case> {
    let mut list = vec![
        case("ibv_devices", "", Check::Prints(&["ibex0"])).quick(),
        case("ibv_devinfo", "-v", Check::Prints(DEVINFO)).quick(),
        case("ibv_devinfo", "-l", Check::Prints(&["1 HCA found", "ibex0"])),
        pingpong("-g 0", 4096, 1000).quick(),
        pingpong("-g 1", 4096, 1000),
        pingpong("-g 1 -c", 4096, 1000),
        pingpong("-g 1 -e", 4096, 1000).quick(),
        pingpong("-g 0 -e -c", 65_536, 500),
    ];
    for size in [1, 64, 1024, 4095, 4097, 65_536, 262_144] {
        list.push(pingpong("-g 1 -m 4096", size, 500));
    }
    list.push(pingpong("-g 1 -c -m 4096", 1 << 20, 200).quick());
    list.push(pingpong("-g 1 -e -c -m 1024", 1 << 20, 100));

    for program in LATENCY {
        for size in [2, 64, 4096, 65_536] {
            let case = perf(program, "", size, 1000);
            list.push(if size == 64 { case.quick() } else { case });
        }
        list.push(perf_all_sizes(program, 50));
    }
    list.push(perf("ib_send_lat", "-e", 64, 1000).quick());
    list.push(perf("ib_read_lat", "-e", 64, 1000));
    for program in BANDWIDTH {
        for size in [1, 4096, 65_536, 1 << 20] {
            let case = perf(program, "", size, if size > 65_536 { 200 } else { 2000 });
            list.push(if size == 65_536 { case.quick() } else { case });
        }
        list.push(perf_payload(program, "", 500).quick());
        list.push(perf(program, "-b", 65_536, 1000).quick());
        list.push(perf(program, "-q 4", 4096, 1000).quick());
        list.push(perf(program, "-b -q 4 -l 4", 4096, 1000));
        list.push(perf_all_sizes(program, 50));
    }
    list.push(perf("ib_send_bw", "-e", 4096, 2000).quick());
    list.push(perf("ib_read_bw", "-e", 4096, 2000));
    for program in ["ib_atomic_lat", "ib_atomic_bw"] {
        for operation in ["FETCH_AND_ADD", "CMP_AND_SWAP"] {
            list.push(perf(program, &format!("-A {operation}"), 8, 1000).quick());
        }
    }
    list.push(perf("ib_atomic_bw", "-b -q 4", 8, 1000));
    list.extend(shapes());
    list.extend(misuse());
    list
}

/// What shows that addresses are used as they should be. The GID is the first one: an IPv6 address has no other.
fn addressed() -> Vec<Case> {
    let perf = |program, options: &str, size, iters| {
        let text = format!("--use_old_post_send -x 0 -s {size} -n {iters} {options}");
        case(program, &text, Check::Table { sizes: vec![size], iters })
    };
    vec![
        pingpong("-g 0 -c", 65_536, 500).quick(),
        pingpong("-g 0 -e", 4096, 500),
        perf("ib_send_lat", "", 64, 500),
        perf("ib_write_bw", "-q 4", 65_536, 500),
        perf("ib_read_bw", "-b", 65_536, 500),
    ]
}

/// Other shapes of the same traffic: inline data, lists of requests, queues of one entry, small MTU, many queue pairs, a
/// run by time, and perftest without a hint, which falls back to the classic calls by itself.
fn shapes() -> Vec<Case> {
    vec![
        perf("ib_send_lat", "-I 64", 64, 500),
        perf("ib_write_lat", "-I 64", 64, 500),
        perf("ib_write_bw", "-l 16", 4096, 512),
        perf("ib_send_bw", "-l 16 --recv_post_list=16", 4096, 512),
        perf("ib_write_bw", "-Q 1", 4096, 500),
        perf("ib_send_bw", "-t 1 -r 2", 65_536, 300),
        perf("ib_send_bw", "-m 256", 65_536, 300),
        perf("ib_read_bw", "-m 256", 65_536, 300),
        perf("ib_write_bw", "-q 64", 4096, 64),
        perf("ib_write_bw", "--mr_per_qp --perform_warm_up -q 2", 65_536, 200),
        perf("ib_write_bw", "--reversed", 65_536, 200),
        case("ib_write_bw", "-x 1 -s 65536 -D 2", Check::Table { sizes: vec![65_536], iters: 1 }),
        case("ib_send_lat", "-s 64 -n 500", Check::Table { sizes: vec![64], iters: 500 }),
    ]
}

/// Programs used wrongly, and peers that vanish.
fn misuse() -> Vec<Case> {
    let mut list = vec![
        case("ibv_devinfo", "-d nowhere", Check::Refuses(&["IB device 'nowhere' wasn't found"])).quick(),
        case("ibv_devinfo", "-i 2", Check::Refuses(&["Invalid port requested"])),
        case("ibv_rc_pingpong", "-i 2", Check::Refuses(&["Failed to modify QP to INIT"])).quick(),
        case("ibv_rc_pingpong", "-g 200", Check::Refuses(&["can't read sgid of index 200"])),
        case(
            "ibv_rc_pingpong",
            "-r 100000000",
            Check::Refuses(&["Couldn't create CQ", "Couldn't create QP"]),
        ),
        case("ibv_rc_pingpong", "-N", Check::Refuses(&["Couldn't create QP"])),
        case("ib_write_bw", "-i 3", Check::Refuses(&["Unable to query port 3"])),
        case("ib_send_bw", "-R", Check::Refuses(&["rdma_create_event_channel failed"])).quick(),
    ];
    for program in BANDWIDTH {
        let options = "--use_old_post_send -x 1 -s 65536 -D 60";
        list.push(case(program, options, Check::ServerKilled).quick());
    }
    list.push(case("ib_write_bw", "--use_old_post_send -x 1 -s 65536 -D 60", Check::ClientInterrupted));
    list
}

/// Against the kernel: fewer exchanges, as the machine is emulated; at least 100 messages each, so that 1 % loss hits.
fn kernel(loss: u32) -> Vec<Case> {
    let mut list = vec![
        pingpong("-g 1", 4096, 200).quick(),
        pingpong("-g 1 -c", 65_536, 100),
        pingpong("-g 1 -e", 1024, 200),
    ];
    for program in LATENCY {
        list.push(perf(program, reads(program), 64, 200));
    }
    for program in BANDWIDTH {
        list.push(perf(program, reads(program), 4096, 200));
        list.push(perf_payload(program, reads(program), 128).quick());
    }
    list.push(perf("ib_send_bw", "-b -q 4", 4096, 128));
    for program in ["ib_atomic_lat", "ib_atomic_bw"] {
        list.push(perf(program, reads(program), 8, 200).quick());
    }
    if loss == 0 {
        list.push(pingpong("-g 1 -c", 1 << 20, 100));
        list.push(perf("ib_write_bw", "-b -q 4", 4096, 128));
        list.push(perf("ib_read_bw", "-o 16 -b -q 4", 4096, 128));
    }
    list
}

/// perftest asks each end for as many outstanding READs and atomics as the *other* device can have: 128 for rxe, which
/// a device of 16 refuses. Between devices of different make the number has to be given.
fn reads(program: &str) -> &'static str {
    if program.contains("read") || program.contains("atomic") { "-o 16" } else { "" }
}
