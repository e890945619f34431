//! The command line: exit status, messages, help, and the listing commands.

#![allow(clippy::unwrap_used, reason = "in a test, failing is what an unwrap is for")]

mod common;

use common::{run, stderr, success};

#[test]
fn wrong_usage_is_status_2_with_a_hint() {
    let wrong: [&[&str]; 8] = [
        &[],
        &["frobnicate"],
        &["cp", "only-one"],
        &["serve"],
        &["bench", "--wait", "sometimes"],
        &["bench", "--sizes", "1"],
        &["bench", "--listen", "127.0.0.1:1", "peer"],
        &["devinfo", "--no-such-option"],
    ];
    for args in wrong {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("--help") || stderr(&output).contains("Usage"),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_says_what_is_measured_and_what_is_kept() {
    for (command, words) in [
        ("bench", ["HALF the round trip", "every byte of every message"]),
        ("cp", ["BLAKE3", ".ibex-part"]),
        ("serve", ["this host only", "Ctrl-C"]),
    ] {
        let output = run(&[command, "--help"]);
        // Lines are wrapped to the terminal.
        let help = String::from_utf8(output.stdout).unwrap();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.success());
        for word in words {
            assert!(help.contains(word), "{command}: {word}");
        }
    }
}

#[test]
fn failures_are_status_1_with_the_remedy_on_standard_error() {
    let output = run(&["devinfo", "--device", "nothing0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nothing0") && stderr(&output).contains("ibex0"), "{}", stderr(&output));

    let output = run(&["bench", "--ops", "send"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("send_lat"), "{}", stderr(&output));

    let output = run(&["cp", "a", "b"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("HOST:PATH"), "{}", stderr(&output));

    // Port 1 of this host: nobody listens there.
    let output = run(&["cp", "ibex://127.0.0.1:1/x", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("127.0.0.1:1"), "{}", stderr(&output));

    let output = run(&["serve", "/no/such/dir"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no/such/dir"), "{}", stderr(&output));
}

#[test]
fn devices_are_listed() {
    let listing = success(&run(&["devices", "--json"]));
    let devices = listing["devices"].as_array().unwrap();
    let soft = devices.iter().find(|device| device["name"] == "ibex0").expect("the built-in device");
    assert_eq!(soft["ports"][0]["port"], 1);
    assert!(soft["ports"][0]["gid"].is_string());

    let output = run(&["devices"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.lines().any(|line| line.starts_with("ibex0 ") && line.contains("ACTIVE")), "{text}");
}

#[test]
fn devinfo_shows_attributes() {
    let listing = success(&run(&["devinfo", "--device", "ibex0", "--json"]));
    let device = &listing["devices"][0];
    assert_eq!(device["name"], "ibex0");
    assert!(device["attr"]["max_qp"].as_u64().unwrap() > 0);
    assert!(!device["ports"][0]["gids"].as_array().unwrap().is_empty());

    let short = String::from_utf8(run(&["devinfo", "-d", "ibex0"]).stdout).unwrap();
    let long = String::from_utf8(run(&["devinfo", "-v", "-d", "ibex0"]).stdout).unwrap();
    assert!(short.contains("hca_id:") && short.contains("link_layer:"), "{short}");
    assert!(long.contains("max_qp_rd_atom:") && long.contains("GID[  1]:"), "{long}");
    assert!(long.len() > short.len());
}
