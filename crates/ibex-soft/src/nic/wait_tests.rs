//! Callers that block: deadlines and failures end the wait whatever the sockets do.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::event::EventQueue;
use crate::net::Config;
use crate::nic::{OpenNic, open};

/// How long anything may take before a test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// A NIC on a port of its own, and that port.
fn nic() -> (Arc<OpenNic>, u16) {
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = Config { port, ..Config::new(Ipv4Addr::LOCALHOST.into()) };
    (open(&config).unwrap(), port)
}

/// Waits in a thread of its own; what came of it.
fn waiter(open: &Arc<OpenNic>, deadline: Option<Instant>) -> mpsc::Receiver<Result<(), i32>> {
    let (tell, hear) = mpsc::channel();
    let open = open.clone();
    std::thread::spawn(move || {
        let events = EventQueue::<u32>::new().unwrap();
        let outcome = open.nic().wait_event(&events, deadline);
        drop(open);
        tell.send(outcome)
    });
    hear
}

#[test]
fn a_deadline_is_kept_while_sockets_stay_readable() {
    let (open, port) = nic();
    // Somebody else receives, and does not come to this packet.
    let engine = open.nic().engine.lock();
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .send_to(&[0; 16], (Ipv4Addr::LOCALHOST, port))
        .unwrap();
    let done = waiter(&open, Some(Instant::now() + Duration::from_millis(50)));
    let outcome = done.recv_timeout(LIMIT);
    drop(engine);
    assert_eq!(outcome, Ok(Err(libc::ETIMEDOUT)));
}

#[test]
fn a_debt_of_a_queue_pair_that_is_gone_keeps_nobody_awake() {
    let (open, _) = nic();
    // As a round leaves it whose queue pair is then destroyed.
    open.nic().owing.store(true, Ordering::SeqCst);
    let done = waiter(&open, Some(Instant::now() + Duration::from_millis(50)));
    assert_eq!(done.recv_timeout(LIMIT), Ok(Err(libc::ETIMEDOUT)));
    assert!(!open.nic().owing.load(Ordering::SeqCst));
}

#[test]
fn a_failure_of_the_device_ends_every_wait() {
    let (open, _) = nic();
    let waiters = [(); 3].map(|()| waiter(&open, None));
    // A leader and two followers, in most runs.
    std::thread::sleep(Duration::from_millis(50));
    open.nic().fail();
    for done in waiters {
        assert_eq!(done.recv_timeout(LIMIT), Ok(Err(libc::EIO)));
    }
}
