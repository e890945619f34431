//! perftest: every program with every transport service that it offers.
//!
//! What perftest 4.5 offers: SEND over RC, UC and UD; WRITE over RC and UC; READ and atomics over RC; events (`-e`) not with
//! WRITE's latency; a shared receive queue with SEND; rdma_cm (`-R`) not with UC. It knows devices by their vendor: the
//! extended calls (`ibv_wr_*`) it uses with Mellanox's, Amazon's and HiSilicon's only, and with any other it goes back to
//! `ibv_post_send` as if told so (`--use_old_post_send`); cases run with and without the option. The extended calls have
//! their witness in `ibv_rc_pingpong -N`.

use super::{BUFFER, Case, Check, case};

const LATENCY: [&str; 3] = ["ib_send_lat", "ib_write_lat", "ib_read_lat"];
pub(super) const BANDWIDTH: [&str; 3] = ["ib_send_bw", "ib_write_bw", "ib_read_bw"];
const ATOMIC: [&str; 2] = ["ib_atomic_lat", "ib_atomic_bw"];

/// Asks for the classic calls.
const OLD: &str = "--use_old_post_send";

/// Messages of one size.
fn perf(program: &'static str, options: &str, size: u64, iters: u64) -> Case {
    // Atomics have one size and no option for it.
    let size_option = if program.starts_with("ib_atomic") { String::new() } else { format!("-s {size}") };
    let text = format!("{options} {size_option} -n {iters}");
    case(program, &text, Check::Table { sizes: vec![size], iters })
}

/// As [`perf`], by the classic calls.
fn old(program: &'static str, options: &str, size: u64, iters: u64) -> Case {
    perf(program, &format!("{OLD} {options}"), size, iters)
}

/// Buffers in files, which perftest itself fills with random bytes. One size above a page, so that every message has the
/// same place.
fn payload(program: &'static str, options: &str, iters: u64) -> Case {
    let size = 65_536;
    let text = format!("{options} -s {size} -n {iters} --mmap={BUFFER}");
    case(program, &text, Check::Payload { size, iters })
}

/// All sizes, 2 B to 8 MiB. Slow for a reason of its own: perftest calibrates the cycle counter again for every size, a
/// second of spinning at both ends.
fn all_sizes(program: &'static str, options: &str, iters: u64) -> Case {
    let text = format!("{options} -a -n {iters}");
    let sizes = (1..=23).map(|power| 1 << power).collect();
    case(program, &text, Check::Table { sizes, iters }).seconds(240)
}

/// Everything, for one host.
pub(super) fn all() -> Vec<Case> {
    [reliable(), atomics(), connected(), datagrams(), shared_receives(), managed(), shapes()].concat()
}

/// RC: sizes, both directions, several queue pairs, events, all sizes, payload, classic and extended calls.
fn reliable() -> Vec<Case> {
    let mut list = Vec::new();
    for program in LATENCY {
        for size in [2, 64, 4096, 65_536] {
            let case = old(program, "", size, 1000);
            list.push(if size == 64 { case.quick() } else { case });
        }
        list.push(perf(program, "", 64, 1000));
        list.push(all_sizes(program, OLD, 50));
    }
    list.push(old("ib_send_lat", "-e", 64, 1000).quick());
    list.push(old("ib_read_lat", "-e", 64, 1000));
    for program in BANDWIDTH {
        for size in [1, 4096, 65_536, 1 << 20] {
            let iters = if size > 65_536 { 200 } else { 2000 };
            list.push(old(program, "", size, iters));
        }
        list.push(perf(program, "", 65_536, 2000));
        list.push(payload(program, OLD, 500));
        list.push(payload(program, "", 500).quick());
        list.push(old(program, "-b", 65_536, 1000).quick());
        list.push(perf(program, "-b", 65_536, 1000));
        list.push(old(program, "-q 4", 4096, 1000));
        list.push(perf(program, "-q 4", 4096, 1000));
        list.push(old(program, "-b -q 4 -l 4", 4096, 1000));
        list.push(perf(program, "-b -q 4 -l 4", 4096, 1000).quick());
        list.push(all_sizes(program, "", 50));
    }
    list.push(old("ib_send_bw", "-e", 4096, 2000).quick());
    list.push(perf("ib_send_bw", "-e -b -q 4", 4096, 1000));
    list.push(old("ib_read_bw", "-e", 4096, 2000));
    list
}

fn atomics() -> Vec<Case> {
    let mut list = Vec::new();
    for program in ATOMIC {
        for operation in ["FETCH_AND_ADD", "CMP_AND_SWAP"] {
            list.push(old(program, &format!("-A {operation}"), 8, 1000).quick());
            list.push(perf(program, &format!("-A {operation}"), 8, 1000));
        }
    }
    list.push(old("ib_atomic_bw", "-b -q 4", 8, 1000));
    list.push(perf("ib_atomic_bw", "-b -q 4", 8, 1000));
    list
}

/// UC. What is lost stays lost, so a receiver that waits for every message gets no more of them than it has room for.
fn connected() -> Vec<Case> {
    let mut list = Vec::new();
    for program in ["ib_send_lat", "ib_write_lat"] {
        list.push(old(program, "-c UC", 64, 1000).quick());
        list.push(perf(program, "-c UC", 4096, 1000));
    }
    list.push(old("ib_send_lat", "-c UC -e", 64, 500));
    for options in ["-c UC", "-c UC -q 4", "-c UC -b"] {
        list.push(old("ib_write_bw", options, 65_536, 500));
        list.push(perf("ib_write_bw", options, 4096, 500));
        list.push(old("ib_send_bw", options, 4096, 128));
        list.push(perf("ib_send_bw", options, 64, 128));
    }
    list.push(perf("ib_send_bw", "-c UC -e", 4096, 128).quick());
    list
}

/// UD, within one packet.
fn datagrams() -> Vec<Case> {
    vec![
        old("ib_send_lat", "-c UD", 64, 1000).quick(),
        perf("ib_send_lat", "-c UD", 1024, 1000),
        old("ib_send_lat", "-c UD -e", 64, 500),
        old("ib_send_bw", "-c UD", 1024, 256).quick(),
        perf("ib_send_bw", "-c UD", 64, 256),
        old("ib_send_bw", "-c UD -b", 1024, 128),
        perf("ib_send_bw", "-c UD -q 4", 1024, 128),
        perf("ib_send_bw", "-c UD -e", 1024, 128),
    ]
}

fn shared_receives() -> Vec<Case> {
    vec![
        old("ib_send_lat", "--use-srq", 64, 1000),
        old("ib_send_bw", "--use-srq -q 4", 4096, 1000).quick(),
        perf("ib_send_bw", "--use-srq -q 4 -b", 4096, 1000),
        perf("ib_send_bw", "--use-srq -e", 4096, 1000),
        perf("ib_send_bw", "-c UD --use-srq", 1024, 128),
    ]
}

/// Connected by rdma_cm.
fn managed() -> Vec<Case> {
    let mut list: Vec<Case> = LATENCY.iter().map(|program| perf(program, "-R", 64, 1000)).collect();
    for program in BANDWIDTH {
        list.push(perf(program, "-R", 65_536, 1000));
        list.push(perf(program, "-R -b -q 4", 4096, 500));
    }
    list.extend(ATOMIC.map(|program| perf(program, "-R", 8, 1000)));
    list.push(old("ib_send_bw", "-R -e", 4096, 1000).quick());
    list.push(perf("ib_send_bw", "-R --use-srq -q 4", 4096, 500));
    list.push(old("ib_send_lat", "-R -c UD", 64, 1000).quick());
    list.push(perf("ib_send_bw", "-R -c UD", 1024, 128));
    list
}

/// Other shapes of the same traffic: inline data, lists of requests, queues of one entry, small MTU, many queue pairs, a
/// run by time.
fn shapes() -> Vec<Case> {
    vec![
        old("ib_send_lat", "-I 64", 64, 500),
        old("ib_write_lat", "-I 64", 64, 500),
        perf("ib_write_lat", "-I 64", 64, 500),
        old("ib_write_bw", "-l 16", 4096, 512),
        old("ib_send_bw", "-l 16 --recv_post_list=16", 4096, 512),
        old("ib_write_bw", "-Q 1", 4096, 500),
        old("ib_send_bw", "-t 1 -r 2", 65_536, 300),
        old("ib_send_bw", "-m 256", 65_536, 300),
        old("ib_read_bw", "-m 256", 65_536, 300),
        old("ib_write_bw", "-q 64", 4096, 64),
        old("ib_write_bw", "--mr_per_qp --perform_warm_up -q 2", 65_536, 200),
        old("ib_write_bw", "--reversed", 65_536, 200),
        case("ib_write_bw", "-s 65536 -D 2", Check::Table { sizes: vec![65_536], iters: 1 }),
    ]
}

/// What shows that addresses are used as they should be.
pub(super) fn some() -> Vec<Case> {
    vec![
        old("ib_send_lat", "", 64, 500),
        perf("ib_write_bw", "-q 4", 65_536, 500),
        old("ib_read_bw", "-b", 65_536, 500),
        payload("ib_write_bw", "", 300),
        perf("ib_write_lat", "-c UC", 64, 500),
        perf("ib_send_lat", "-c UD", 64, 500),
        perf("ib_send_bw", "-R", 4096, 500),
        perf("ib_send_lat", "-R -c UD", 64, 500),
    ]
}

/// Against the kernel: as few messages as loss of 1 % still hits. perftest asks each end for as many outstanding READs and
/// atomics as the *other* device can have: 128 for rxe, which a device of 16 refuses, so the number has to be given.
pub(super) fn kernel(loss: u32) -> Vec<Case> {
    let reads = |program: &str| {
        if program.contains("read") || program.contains("atomic") { "-o 16" } else { "" }
    };
    let mut list = Vec::new();
    for program in LATENCY {
        list.push(old(program, reads(program), 64, 200));
    }
    for program in BANDWIDTH {
        list.push(perf(program, reads(program), 4096, 200));
        list.push(payload(program, &format!("{OLD} {}", reads(program)), 128).quick());
    }
    list.push(old("ib_send_bw", "-b -q 4", 4096, 128));
    for program in ATOMIC {
        list.push(old(program, reads(program), 8, 200).quick());
    }
    list.push(old("ib_send_bw", "--use-srq -q 4", 4096, 128));
    list.push(perf("ib_send_bw", "-R", 4096, 128));
    if loss == 0 {
        list.push(old("ib_write_bw", "-b -q 4", 4096, 128));
        list.push(old("ib_read_bw", "-o 16 -b -q 4", 4096, 128));
        list.push(old("ib_send_lat", "-c UC", 64, 200));
        list.push(old("ib_write_lat", "-c UC", 64, 200));
        list.push(old("ib_write_bw", "-c UC", 4096, 128));
        // Few enough packets that a socket holds them all while a process of the emulated machine waits for its turn.
        list.push(old("ib_send_bw", "-c UC", 4096, 16));
        list.push(old("ib_send_lat", "-c UD", 64, 200).quick());
        list.push(old("ib_send_bw", "-c UD", 1024, 64));
        list.push(perf("ib_read_lat", "-o 16 -R", 64, 200));
        list.push(perf("ib_send_lat", "-R -c UD", 64, 200));
    }
    list
}
