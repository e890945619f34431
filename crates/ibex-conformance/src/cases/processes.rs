//! Two processes through the safe crate: they meet out of band, over TCP and over pipes, share memory by handles that
//! travel as bytes, and one of them is killed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ibex::state::Init;
use ibex::{Access, RcOptions, RemoteHandle, RemoteRegion, Status, oob};

use super::ownership::{content, has_atomics};
use crate::Outcome;
use crate::child::{Parent, Peer, hear, say};
use crate::lab::safe::{End, EndOptions, done, failed, impatient, is_soft, open};
use crate::lab::{PATIENCE, pattern};

crate::group!("processes";
    they_meet_over_tcp,
    they_meet_over_pipes,
    a_stranger_is_not_an_endpoint,
    memory_is_shared_by_handles,
    messages_go_back_and_forth,
    a_killed_peer_is_an_error_in_time,
    a_killed_peer_takes_no_other_with_it,
    a_peer_that_leaves_in_good_order_is_an_error_too,
);

/// What a second process can be asked to do.
pub(crate) fn roles() -> Vec<(&'static str, fn())> {
    vec![("meet_over_tcp", meet_over_tcp), ("meet_over_pipes", meet_over_pipes)]
}

/// Bytes of the memory that the second process exposes.
const REGION: usize = 1 << 16;

/// Options of both processes; `soon` gives up soon.
fn options(soon: bool) -> EndOptions {
    let link = if soon { impatient().0 } else { RcOptions::default() };
    EndOptions { link, ..EndOptions::default() }
}

/// Connects an end to the one at the other end of a channel; both are ready to receive when this returns.
fn meet(channel: &mut (impl Read + Write), end: End<Init>, options: &EndOptions) -> End {
    let peer = oob::exchange(channel, end.qp.endpoint()).expect("the other process is an end too");
    let end = end.connect(&peer, options);
    oob::barrier(channel).expect("the other process is connected too");
    end
}

/// The second process, which is told over its standard input where to connect.
fn meet_over_tcp() {
    let address = hear();
    let mut channel = TcpStream::connect(address).expect("the parent listens");
    serve(&mut channel);
}

/// The second process, which meets the parent over its standard input and output.
fn meet_over_pipes() {
    serve(&mut Parent);
}

/// The second process: exposes memory, sends its handle, echoes messages, and does what it is told line by line.
fn serve(channel: &mut (impl Read + Write)) {
    let options = options(true);
    let end = meet(channel, End::new(&open(), &options), &options);
    let region = end.pd.shared(REGION).expect("memory");
    region.write_at(0, &pattern(1, REGION)).expect("inside");
    let mut access = Access::REMOTE_READ | Access::REMOTE_WRITE;
    access.set(Access::REMOTE_ATOMIC, has_atomics(&end));
    let handle = region.expose(access).expect("a registration");
    channel.write_all(&handle.to_bytes()).and_then(|()| channel.flush()).expect("the parent reads");
    // Ends with the parent, or by being killed.
    loop {
        match hear().as_str() {
            "post" => {
                let receive = end.qp.recv(end.room()).expect("room");
                say("posted");
                let (message, wc) = done(receive);
                let echo = message.iter().map(|byte| !byte).collect::<Vec<_>>();
                done(end.qp.send_with_imm(end.buf(&echo), wc.imm().unwrap_or(0)).expect("room"));
                say("echoed");
            }
            "check" => {
                assert!(content(&region, 0, REGION) == pattern(2, REGION), "the parent's WRITE is not here");
                say("checked");
            }
            "count" => say(&region.load_u64(0).expect("a word").to_string()),
            "withdraw" => {
                region.withdraw(&handle).expect("exposed");
                say("withdrawn");
            }
            "end" => return,
            other => panic!("what is {other}?"),
        }
    }
}

/// The second process and the end that is connected to it.
struct Pair {
    peer: Peer,
    end: End,
    remote: RemoteRegion,
}

/// The next connection, if it comes in time; reading from it is bounded too.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("an option of a socket");
    let end = Instant::now() + PATIENCE;
    let channel = loop {
        match listener.accept() {
            Ok((channel, _)) => break channel,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(Instant::now() < end, "nobody connects");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    };
    channel.set_nonblocking(false).expect("an option of a socket");
    channel.set_read_timeout(Some(PATIENCE)).expect("an option of a socket");
    channel
}

/// Starts the second process and meets it over a TCP connection of the loopback interface.
fn over_tcp(soon: bool) -> Pair {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut peer = Peer::start("meet_over_tcp");
    peer.say(&listener.local_addr().expect("an address").to_string());
    let mut channel = accept(&listener);
    let (end, remote) = connect(&mut channel, soon);
    Pair { peer, end, remote }
}

/// Starts the second process and meets it over its pipes.
fn over_pipes(soon: bool) -> Pair {
    let mut peer = Peer::start("meet_over_pipes");
    let (end, remote) = connect(&mut peer, soon);
    Pair { peer, end, remote }
}

fn connect(channel: &mut (impl Read + Write), soon: bool) -> (End, RemoteRegion) {
    let options = options(soon);
    let end = meet(channel, End::new(&open(), &options), &options);
    let mut bytes = [0; RemoteHandle::SIZE];
    channel.read_exact(&mut bytes).expect("the second process sends its handle");
    let remote = end.qp.bind(RemoteHandle::from_bytes(&bytes).expect("a handle")).expect("a range");
    (end, remote)
}

/// A message goes over and comes back with its bits turned.
fn echoes(pair: &mut Pair, seed: u64, len: usize) {
    let end = &pair.end;
    let receive = end.qp.recv(end.room()).expect("room");
    pair.peer.say("post");
    assert_eq!(pair.peer.hear(), "posted");
    let payload = pattern(seed, len);
    done(end.qp.send_with_imm(end.buf(&payload), seed as u32).expect("room"));
    let (message, wc) = done(receive);
    assert_eq!((message.len(), wc.imm()), (len, Some(seed as u32)));
    assert!(message.iter().zip(&payload).all(|(left, right)| *left == !right), "message {seed}");
    assert_eq!(pair.peer.hear(), "echoed");
}

fn they_meet_over_tcp() -> Outcome {
    let mut pair = over_tcp(false);
    echoes(&mut pair, 1, 100);
    pair.peer.say("end");
    Outcome::Passed
}

fn they_meet_over_pipes() -> Outcome {
    let mut pair = over_pipes(false);
    echoes(&mut pair, 2, 100);
    pair.peer.say("end");
    Outcome::Passed
}

fn a_stranger_is_not_an_endpoint() -> Outcome {
    let end = End::new(&open(), &EndOptions::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    for speech in [&b"GET / HTTP/1.1\r\nHost: somebody-else\r\n\r\n"[..], b"too short", b""] {
        let stranger = std::thread::spawn(move || {
            let mut channel = TcpStream::connect(address).expect("the case listens");
            channel.write_all(speech).expect("the case reads");
        });
        let mut channel = accept(&listener);
        let error = oob::exchange(&mut channel, end.qp.endpoint()).expect_err("no endpoint");
        let typed = match error {
            ibex::ExchangeError::NotAnEndpoint { .. } => speech.len() >= ibex::Endpoint::SIZE,
            ibex::ExchangeError::Io(_) => speech.len() < ibex::Endpoint::SIZE,
            _ => false,
        };
        assert!(typed, "{error}");
        stranger.join().expect("no panic");
    }
    Outcome::Passed
}

fn memory_is_shared_by_handles() -> Outcome {
    let mut pair = over_tcp(false);
    let Pair { peer, end, remote } = &mut pair;
    let big = end.pd.pool().block(REGION).blocks(1).build().expect("a pool");
    // The second process waits in read(2) of its standard input all the while: its device serves these alone.
    let (mut buf, _) = done(end.qp.read(big.take().expect("a buffer"), remote.all()).expect("room"));
    assert!(buf[..] == pattern(1, REGION), "read something else than what is there");
    buf.copy_from_slice(&pattern(2, REGION));
    let (mut buf, _) = done(end.qp.write(buf, remote.all()).expect("room"));
    peer.say("check");
    assert_eq!(peer.hear(), "checked");
    if remote.handle().access().contains(Access::REMOTE_ATOMIC) {
        let word = remote.u64_at(0).expect("a word");
        done(end.qp.write(end.buf(&0_u64.to_ne_bytes()), remote.all()).expect("room"));
        for count in 0..20 {
            assert_eq!(done(end.qp.fetch_add(word, 1).expect("room")), count);
        }
        assert_eq!(done(end.qp.compare_swap(word, 20, 7).expect("room")), 20);
        peer.say("count");
        assert_eq!(peer.hear(), "7");
    }
    // Withdrawn by its owner: an error here, and the end of this connection.
    peer.say("withdraw");
    assert_eq!(peer.hear(), "withdrawn");
    buf.set_len(64);
    let refused = failed(end.qp.write(buf, remote.all()).expect("room"));
    assert_eq!(refused.status(), Status::REM_ACCESS_ERR, "{refused}");
    assert_eq!(refused.into_payload().expect("given back").len(), 64);
    peer.say("end");
    Outcome::Passed
}

fn messages_go_back_and_forth() -> Outcome {
    let mut pair = over_pipes(false);
    for (seed, len) in [0, 1, 64, 1024, 4095, 4096].into_iter().enumerate() {
        echoes(&mut pair, seed as u64, len);
    }
    assert_eq!(pair.end.pool.free(), pair.end.pool.blocks());
    pair.peer.say("end");
    Outcome::Passed
}

/// Operations towards a process that is gone end with an error and their buffers, not before the retries could have run
/// and not long after.
fn is_given_up(end: &End, remote: &RemoteRegion) {
    let (_, least) = impatient();
    let start = Instant::now();
    let first = end.qp.write(end.buf(&pattern(1, 64)), remote.all()).expect("room");
    let second = end.qp.send(end.buf(&pattern(2, 64))).expect("room");
    let receive = end.qp.recv(end.buf(&pattern(3, 64))).expect("room");
    let first = failed(first);
    assert_eq!(first.status(), Status::RETRY_EXC_ERR, "{first}");
    assert_eq!(first.status().fault(), ibex::Fault::Fabric);
    assert!(first.to_string().contains("does not answer"), "{first}");
    assert!(first.into_payload().expect("given back")[..] == pattern(1, 64));
    let taken = start.elapsed();
    // Half of the time, since timers may be coarse.
    assert!(taken >= least / 2, "given up after {taken:?}");
    // Devices may take up to four times the timeout (IBTA 9.7.6.1.3), and machines are busy.
    let most = if is_soft(end.pd.context()) { least * 4 + Duration::from_secs(5) } else { PATIENCE };
    assert!(taken <= most, "given up only after {taken:?}");
    for (seed, op) in [(2, second), (3, receive)] {
        let flushed = failed(op);
        assert_eq!(flushed.status(), Status::WR_FLUSH_ERR, "{flushed}");
        assert!(flushed.into_payload().expect("given back")[..] == pattern(seed, 64));
    }
    assert_eq!(end.pool.free(), end.pool.blocks());
}

fn a_killed_peer_is_an_error_in_time() -> Outcome {
    let Pair { peer, end, remote } = over_tcp(true);
    // It lives.
    done(end.qp.write(end.buf(b"alive"), remote.all()).expect("room"));
    peer.kill();
    is_given_up(&end, &remote);
    Outcome::Passed
}

fn a_killed_peer_takes_no_other_with_it() -> Outcome {
    let (doomed, mut well) = (over_pipes(true), over_pipes(false));
    doomed.peer.kill();
    is_given_up(&doomed.end, &doomed.remote);
    for seed in 0..5 {
        echoes(&mut well, seed, 512);
    }
    well.peer.say("end");
    Outcome::Passed
}

fn a_peer_that_leaves_in_good_order_is_an_error_too() -> Outcome {
    let Pair { mut peer, end, remote } = over_tcp(true);
    done(end.qp.write(end.buf(b"alive"), remote.all()).expect("room"));
    peer.say("end");
    assert!(peer.ends(), "the second process ended otherwise than told");
    is_given_up(&end, &remote);
    Outcome::Passed
}
