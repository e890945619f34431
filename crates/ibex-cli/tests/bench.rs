//! `ibex bench` between two processes: the shape of the result, both ways of waiting, and a peer that dies.

#![allow(clippy::unwrap_used, reason = "in a test, failing is what an unwrap is for")]

mod common;

use std::time::{Duration, Instant};

use common::{LIMIT, Listener, ibex, run, stderr, success, wait};

/// How soon a dead peer must be noticed.
const NOTICE: Duration = Duration::from_secs(20);

fn rows(report: &serde_json::Value) -> Vec<(String, u64)> {
    let rows = report["results"].as_array().unwrap();
    for row in rows {
        assert_eq!(row["errors"], 0, "{row}");
        assert!(row["iters"].as_u64().unwrap() > 0, "{row}");
        assert!(row["p50_ns"].as_u64().unwrap() > 0, "{row}");
        assert!(row["p50_ns"].as_u64() <= row["p99_ns"].as_u64(), "{row}");
        assert!(row["p99_ns"].as_u64() <= row["p999_ns"].as_u64(), "{row}");
        assert!(row["msgs_per_s"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["gbytes_per_s"].as_f64().unwrap() > 0.0, "{row}");
    }
    let name =
        |row: &serde_json::Value| (row["op"].as_str().unwrap().to_owned(), row["bytes"].as_u64().unwrap());
    rows.iter().map(name).collect()
}

#[test]
fn every_operation_is_measured_in_both_modes() {
    for mode in ["spin", "block"] {
        let report =
            success(&run(&["bench", "--json", "--wait", mode, "--sizes", "2,64,65536", "--iters", "40"]));
        assert_eq!(report["device"], "ibex0");
        let rows = rows(&report);
        for op in ["send_lat", "write_lat", "read_lat", "send_bw", "write_bw", "read_bw", "tcp_lat", "tcp_bw"]
        {
            for bytes in [2, 64, 65536] {
                assert!(rows.contains(&(op.to_owned(), bytes)), "{mode}: {op} {bytes}: {rows:?}");
            }
        }
        assert!(rows.contains(&("udp_lat".to_owned(), 64)) && rows.contains(&("atomic_lat".to_owned(), 8)));
    }
}

#[test]
fn a_table_is_printed_for_people() {
    let output = run(&["bench", "--ops", "send_lat,udp_lat", "--sizes", "64", "--iters", "50"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("p99.9") && text.contains("send_lat") && text.contains("udp_lat"), "{text}");
}

#[test]
fn a_listening_peer_serves_benchmarks_one_after_another() {
    let peer = Listener::start(&["bench", "--listen", "127.0.0.1:0", "--json"]);
    for _ in 0..2 {
        let report = success(&run(&[
            "bench",
            &peer.address,
            "--json",
            "--ops",
            "send_lat",
            "--sizes",
            "64",
            "--iters",
            "20",
        ]));
        assert_eq!(rows(&report), [("send_lat".to_owned(), 64)]);
    }
}

#[test]
fn a_killed_peer_is_an_error_and_no_hang() {
    for (op, mode) in
        [("send_lat", "spin"), ("write_lat", "spin"), ("write_bw", "block"), ("udp_lat", "block")]
    {
        let mut peer = Listener::start(&["bench", "--listen", "127.0.0.1:0", "--json"]);
        let child = ibex(&["bench", &peer.address, "--json", "--wait", mode, "--ops", op, "--sizes", "4096"])
            .args(["--iters", "100000000"])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(700));
        peer.child.kill().unwrap();
        let killed = Instant::now();
        let output = wait(child, LIMIT);
        assert_eq!(output.status.code(), Some(1), "{op}: {}", stderr(&output));
        assert!(stderr(&output).contains("lost the peer"), "{op}: {}", stderr(&output));
        assert!(killed.elapsed() < NOTICE, "{op}: noticed after {:?}", killed.elapsed());
    }
}

/// The fields of a process after its name: state, parent, and so on.
fn stat(pid: &str) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit(") ").next()?.split(' ').map(str::to_owned).collect())
}

fn child_of(parent: u32) -> Option<String> {
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().map(|item| item.file_name().into_string().unwrap());
    let is_child = |pid: &String| stat(pid).is_some_and(|stat| stat.get(1) == Some(&parent.to_string()));
    pids.filter(|pid| pid.parse::<u32>().is_ok()).find(is_child)
}

#[test]
fn the_second_process_ends_with_the_first() {
    let mut first =
        ibex(&["bench", "--ops", "send_lat", "--sizes", "64", "--iters", "100000000"]).spawn().unwrap();
    let begin = Instant::now();
    let second = loop {
        if let Some(pid) = child_of(first.id()) {
            break pid;
        }
        assert!(begin.elapsed() < LIMIT, "no second process");
        std::thread::sleep(Duration::from_millis(10));
    };
    std::thread::sleep(Duration::from_millis(300));
    first.kill().unwrap();
    first.wait().unwrap();
    let killed = Instant::now();
    // A process that has ended but is not collected yet counts as ended.
    let running = || stat(&second).is_some_and(|stat| stat[0] != "Z");
    while running() {
        assert!(killed.elapsed() < NOTICE, "the second process outlives the first");
        std::thread::sleep(Duration::from_millis(20));
    }
}
