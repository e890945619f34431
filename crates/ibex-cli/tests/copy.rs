//! `ibex serve` and `ibex cp` between processes: both directions, errors per file, a killed server, several clients.

#![allow(clippy::unwrap_used, reason = "in a test, failing is what an unwrap is for")]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, Instant};

use common::{LIMIT, Listener, Scratch, ibex, json, run, stderr, success, wait};

/// How soon a dead server must be noticed.
const NOTICE: Duration = Duration::from_secs(10);

#[test]
fn a_tree_goes_up_and_comes_down_again() {
    let scratch = Scratch::new("both");
    let big = scratch.write("src/big", 5_000_001, 1);
    scratch.write("src/sub/dir/empty", 0, 0);
    for index in 0..50 {
        scratch.write(&format!("src/sub/{index}"), index * 37, index as u8);
    }
    std::fs::create_dir_all(scratch.path("src/nothing/inside")).unwrap();
    symlink("sub/1", scratch.path("src/link")).unwrap();
    std::fs::set_permissions(scratch.path("src/big"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::create_dir(scratch.path("stock")).unwrap();

    let server = Listener::serve(&scratch.path("stock"));
    let outcome = success(&run(&["cp", "--json", &scratch.text("src"), &server.url("")]));
    assert_eq!((&outcome["ok"], &outcome["files_copied"]), (&true.into(), &52.into()));
    let outcome = success(&run(&["cp", "--json", &server.url("src"), &scratch.text("back")]));
    assert_eq!((&outcome["files_copied"], &outcome["failed"]), (&52.into(), &0.into()));

    for place in ["stock/src", "back"] {
        assert!(scratch.read(&format!("{place}/big")) == big);
        assert_eq!(scratch.read(&format!("{place}/sub/7")), scratch.read("src/sub/7"));
        assert_eq!(scratch.read(&format!("{place}/sub/dir/empty")), b"");
        assert!(scratch.path(place).join("nothing/inside").is_dir());
        assert_eq!(
            std::fs::read_link(scratch.path(place).join("link")).unwrap(),
            std::path::Path::new("sub/1")
        );
        let (from, to) = (scratch.path("src/big").metadata().unwrap(), scratch.path(place).join("big"));
        let to = to.metadata().unwrap();
        assert_eq!((from.mode(), from.mtime(), from.mtime_nsec()), (to.mode(), to.mtime(), to.mtime_nsec()));
    }
    let outcome = success(&run(&["cp", "--json", &server.url("src/."), &scratch.text("back")]));
    assert_eq!((&outcome["files_unchanged"], &outcome["bytes_copied"]), (&52.into(), &0.into()));
}

#[test]
fn a_single_file_and_plain_output() {
    let scratch = Scratch::new("single");
    let bytes = scratch.write("stock/f", 100_000, 3);
    let server = Listener::serve(&scratch.path("stock"));
    let port = server.address.rsplit(':').next().unwrap();
    let output = run(&["cp", "-P", port, "127.0.0.1:f", &scratch.text("g")]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(scratch.read("g") == bytes);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("1 file,"), "{text}");
    let output = run(&["cp", "-q", "-P", port, &scratch.text("g"), "127.0.0.1:h"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(scratch.read("stock/h") == bytes);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_arrives() {
    let scratch = Scratch::new("errors");
    scratch.write("src/good", 1000, 1);
    symlink("/etc/passwd", scratch.path("src/leak")).unwrap();
    std::fs::create_dir_all(scratch.path("stock/src/taken")).unwrap();
    scratch.write("src/taken", 10, 1);
    let server = Listener::serve(&scratch.path("stock"));
    let output = run(&["cp", "--json", &scratch.text("src"), &server.url("")]);
    assert_eq!(output.status.code(), Some(1));
    let outcome = json(&output);
    assert_eq!((&outcome["ok"], &outcome["failed"]), (&false.into(), &2.into()));
    let said = stderr(&output);
    assert!(said.contains("leak: ") && said.contains("taken: a directory is in its place"), "{said}");
    assert_eq!(scratch.read("stock/src/good"), scratch.read("src/good"));
}

#[test]
fn paths_outside_the_served_directory_are_refused() {
    let scratch = Scratch::new("escape");
    scratch.write("secret", 10, 1);
    scratch.write("stock/inside", 10, 1);
    symlink("../secret", scratch.path("stock/leak")).unwrap();
    symlink("..", scratch.path("stock/up")).unwrap();
    let server = Listener::serve(&scratch.path("stock"));
    for path in ["../secret", "/etc/passwd", "a/../../secret", "leak", "up/secret"] {
        let output = run(&["cp", &server.url(path), &scratch.text("stolen")]);
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(!scratch.path("stolen").exists(), "{path}");
        let output = run(&["cp", &scratch.text("stock/inside"), &server.url(&format!("{path}.new"))]);
        let outside = matches!(path, "../secret" | "/etc/passwd" | "a/../../secret" | "up/secret");
        assert_eq!(output.status.code(), Some(i32::from(outside)), "{path}: {}", stderr(&output));
    }
    assert!(!scratch.path("secret.new").exists());
}

#[test]
fn a_read_only_server_takes_nothing() {
    let scratch = Scratch::new("readonly");
    scratch.write("stock/f", 10, 1);
    let server = Listener::start(&[
        "serve",
        &scratch.text("stock"),
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--read-only",
    ]);
    let output = run(&["cp", &scratch.text("stock/f"), &server.url("g")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("read only"), "{}", stderr(&output));
    success(&run(&["cp", "--json", &server.url("f"), &scratch.text("f")]));
}

#[test]
fn a_killed_server_leaves_a_part_that_is_continued() {
    let scratch = Scratch::new("killed");
    // Large enough to be interrupted.
    scratch.write("stock/big", 96 << 20, 9);

    let mut server = Listener::serve(&scratch.path("stock"));
    let part = scratch.path(".copy.ibex-part");
    let client = ibex(&["cp", "--json", &server.url("big"), &scratch.text("copy")]).spawn().unwrap();
    let begin = Instant::now();
    while part.metadata().map_or(0, |meta| meta.len()) < 4 << 20 {
        assert!(begin.elapsed() < LIMIT, "nothing arrives");
        std::thread::sleep(Duration::from_millis(1));
    }
    server.child.kill().unwrap();
    let killed = Instant::now();
    let output = wait(client, LIMIT);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(killed.elapsed() < NOTICE, "noticed after {:?}", killed.elapsed());
    let said = stderr(&output);
    assert!(said.contains("lost the peer") && said.contains("run the same command again"), "{said}");
    assert!(!scratch.path("copy").exists());

    let server = Listener::serve(&scratch.path("stock"));
    let outcome = success(&run(&["cp", "--json", &server.url("big"), &scratch.text("copy")]));
    assert_eq!(outcome["files_resumed"], 1);
    assert!(outcome["bytes_skipped"].as_u64().unwrap() >= 4 << 20);
    assert!(scratch.read("copy") == scratch.read("stock/big"));
    assert!(!part.exists());
}

#[test]
fn several_clients_at_once() {
    let scratch = Scratch::new("several");
    let expected: Vec<Vec<u8>> =
        (0..4_u8).map(|index| scratch.write(&format!("stock/{index}"), 3_000_000, index)).collect();
    let server = Listener::serve(&scratch.path("stock"));
    let clients: Vec<_> = (0..4)
        .map(|index| {
            ibex(&["cp", "--json", &server.url(&index.to_string()), &scratch.text(&format!("to{index}"))])
                .spawn()
                .unwrap()
        })
        .collect();
    for client in clients {
        success(&wait(client, LIMIT));
    }
    for (index, bytes) in expected.iter().enumerate() {
        assert!(scratch.read(&format!("to{index}")) == *bytes);
    }
}

#[test]
fn ctrl_c_ends_a_server_with_success() {
    let scratch = Scratch::new("signal");
    std::fs::create_dir(scratch.path("stock")).unwrap();
    let mut server = Listener::serve(&scratch.path("stock"));
    let kill =
        std::process::Command::new("kill").args(["-INT", &server.child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = server.child.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < NOTICE);
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
}
