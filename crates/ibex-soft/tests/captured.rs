//! A capture: with one, operations between two queue pairs of one process travel as packets, so that it has them.
//!
//! # Safety
//! The environment is changed by the only test of this program, before anything reads it.
#![allow(unsafe_code)]

mod support;

use support::*;

#[test]
fn what_queue_pairs_of_one_process_do_is_in_the_capture() {
    let path = std::env::temp_dir().join(format!("ibex-captured-{}.pcap", std::process::id()));
    c!(std::env::set_var("IBEX_SOFT_PCAP", &path));
    let pair = Pair::new();
    // Marked, to be found again; no longer than one packet's payload.
    let mark = *b"only if this travels is it seen.";
    for (at, word) in mark.chunks_exact(8).enumerate() {
        let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        pair.am.word(at).store(word, std::sync::atomic::Ordering::SeqCst);
    }
    pair.b.recv(1, pair.bm.sge(0, 32));
    pair.a.send_one(2, pair.am.sge(0, 32));
    pair.a.send.success();
    pair.b.recv.success();
    let capture = std::fs::read(&path).expect("a capture");
    let seen = capture.windows(mark.len()).any(|window| window == mark);
    std::fs::remove_file(&path).expect("still there");
    assert!(seen, "{} bytes without it", capture.len());
}
