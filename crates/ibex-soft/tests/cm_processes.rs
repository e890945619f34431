//! Connections between processes: on one address and on two, through the holder of the RoCE port and past it, and what
//! becomes of them when a process ends, is killed or forks.
//!
//! The tests only give orders; all devices are in processes of their own, on a port of their own, so that nothing else on
//! the host takes part.

#![allow(unsafe_code)]

mod support;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ibex_sys::*;
use support::cm::*;
use support::*;

/// Orders to a worker, each answered by one number.
const LISTEN: u64 = 1;
const BIND: u64 = 2;
const CALL: u64 = 3;
const ACCEPT: u64 = 4;
const EXPECT: u64 = 5;
const SEND: u64 = 6;
const RECEIVE: u64 = 7;
const DISCONNECT: u64 = 8;
const RELEASE: u64 = 9;
const EXIT: u64 = 10;
const FORK: u64 = 11;
const DESCRIPTORS: u64 = 12;

/// Not a test but what the workers do; passes at once where nobody gives orders.
#[test]
fn worker() {
    let Some(mut link) = peer::second() else { return };
    let channel = Chan::new();
    // The one connection, and whatever was bound.
    let mut end: Option<Cid> = None;
    let mut bound = None;
    let mut memory = None;
    loop {
        let answer = match link.take() {
            LISTEN => {
                let id = Cid::listening(Some(&channel), RDMA_PS_TCP);
                bound = Some(id);
                u64::from(id.port())
            }
            BIND => {
                let id = Cid::new(Some(&channel), RDMA_PS_TCP);
                let code = id.bind(own(link.take() as u16)).err().unwrap_or(0);
                bound = Some(id);
                code as u64
            }
            CALL => {
                let (address, port) = (std::net::Ipv4Addr::from(link.take() as u32), link.take() as u16);
                let id = Cid::resolved_to(&channel, RDMA_PS_TCP, at(&address.to_string(), port));
                assert_eq!(id.create_qp(), Ok(()));
                assert_eq!(id.connect(b"call"), Ok(()));
                end = Some(id);
                0
            }
            ACCEPT => {
                let id = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).id();
                assert_eq!(id.create_qp(), Ok(()));
                let (at, mr) = id.memory(64);
                id.recv(at, mr);
                memory = Some(at);
                assert_eq!(id.accept(b"answer"), Ok(()));
                end = Some(id);
                0
            }
            EXPECT => {
                let event = channel.next();
                u64::from(event.kind().0) << 32 | u64::from(event.status() as u32)
            }
            SEND => {
                let id = end.expect("a connection");
                let mut bytes = link.take().to_le_bytes();
                let at = bytes.as_mut_ptr().cast();
                let flags = IBV_SEND_INLINE.0 as i32;
                let null = std::ptr::null_mut();
                assert_eq!(c!(dispatch::rdma_post_send(id.0, null, at, 8, std::ptr::null_mut(), flags)), 0);
                let mut wc = ibv_wc::default();
                assert_eq!(c!(dispatch::rdma_get_send_comp(v(), id.0, &mut wc)), 1);
                u64::from(wc.status.0)
            }
            RECEIVE => {
                assert_eq!(end.expect("a connection").received().status, IBV_WC_SUCCESS);
                // SAFETY: the completion has given the memory back.
                unsafe { memory.expect("a buffer").cast::<u64>().read_unaligned() }
            }
            DISCONNECT => end.expect("a connection").disconnect().err().unwrap_or(0) as u64,
            RELEASE => {
                end.take().into_iter().chain(bound.take()).for_each(Cid::destroy);
                0
            }
            DESCRIPTORS => std::fs::read_dir("/proc/self/fd").expect("proc(5)").count() as u64,
            FORK => {
                // SAFETY: the child calls only what the device promises to refuse there, and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    let mut refused = 0;
                    let id = end.expect("a connection");
                    refused += i32::from(id.disconnect() == Err(libc::EIO));
                    let mut event = std::ptr::null_mut();
                    refused += i32::from(c!((t().get_cm_event)(channel.raw(), &mut event)) == -1);
                    refused += i32::from(c!((t().destroy_id)(id.0)) == -1);
                    // And the device can be opened anew.
                    let again = Chan::new();
                    let id = Cid::listening(Some(&again), RDMA_PS_TCP);
                    id.destroy();
                    // SAFETY: ends the child without the parent's destructors.
                    unsafe { libc::_exit(refused) };
                }
                let mut status = 0;
                assert_eq!(c!(libc::waitpid(child, &mut status, 0)), child);
                libc::WEXITSTATUS(status) as u64
            }
            EXIT => {
                link.put(0);
                // As a program does that returns from main with a connection open.
                std::process::exit(0);
            }
            other => panic!("order {other}"),
        };
        link.put(answer);
    }
}

/// A process with a device at an address of the test's own.
struct Worker(peer::Peer);

impl Worker {
    fn start(address: &str, port: u16) -> Worker {
        let port = port.to_string();
        Worker(peer::start_with("worker", &[("IBEX_SOFT_ADDR", address), ("IBEX_SOFT_PORT", &port)]))
    }

    fn order(&mut self, order: u64, arguments: &[u64]) -> u64 {
        self.0.link.put(order);
        arguments.iter().for_each(|&argument| self.0.link.put(argument));
        self.0.link.take()
    }

    fn call(&mut self, address: &str, port: u64) {
        let address: std::net::Ipv4Addr = address.parse().expect("an IPv4 address");
        self.order(CALL, &[u64::from(u32::from(address)), port]);
    }

    fn expect(&mut self, kind: rdma_cm_event_type) -> u32 {
        let event = self.order(EXPECT, &[]);
        assert_eq!(rdma_cm_event_type((event >> 32) as u32), kind);
        event as u32
    }

    fn kill(mut self) {
        self.0.child.kill().expect("it runs");
        self.0.child.wait().expect("a child");
    }
}

/// A RoCE port that nothing else uses.
fn free_port() -> u16 {
    let free = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("its address").port()
}

const A: &str = "127.0.3.1";
const B: &str = "127.0.3.2";

fn connect(server: &mut Worker, at: &str, client: &mut Worker) -> u64 {
    let port = server.order(LISTEN, &[]);
    client.call(at, port);
    server.order(ACCEPT, &[]);
    client.expect(RDMA_CM_EVENT_ESTABLISHED);
    server.expect(RDMA_CM_EVENT_ESTABLISHED);
    port
}

fn talk_and_part(server: &mut Worker, client: &mut Worker) {
    assert_eq!(client.order(SEND, &[4711]), 0);
    assert_eq!(server.order(RECEIVE, &[]), 4711);
    assert_eq!(client.order(DISCONNECT, &[]), 0);
    server.expect(RDMA_CM_EVENT_DISCONNECTED);
    assert_eq!(server.order(DISCONNECT, &[]), 0);
    client.expect(RDMA_CM_EVENT_DISCONNECTED);
}

#[test]
fn two_processes_of_one_address() {
    let port = free_port();
    let (mut server, mut client) = (Worker::start(A, port), Worker::start(A, port));
    connect(&mut server, A, &mut client);
    talk_and_part(&mut server, &mut client);
}

#[test]
fn through_the_holders_of_two_addresses() {
    let port = free_port();
    // The first of each address holds its RoCE port; every datagram has to be passed on by it.
    let mut holders = [Worker::start(A, port), Worker::start(B, port)];
    let (mut server, mut client) = (Worker::start(A, port), Worker::start(B, port));
    connect(&mut server, A, &mut client);
    talk_and_part(&mut server, &mut client);
    // The holder refuses for its whole address.
    let unused = holders[0].order(LISTEN, &[]);
    holders[0].order(RELEASE, &[]);
    client.order(RELEASE, &[]);
    client.call(A, unused);
    assert_eq!(client.expect(RDMA_CM_EVENT_REJECTED), 8);
}

#[test]
fn a_port_is_one_process_s_until_it_is_gone() {
    let port = free_port();
    let (mut one, mut other) = (Worker::start(A, port), Worker::start(A, port));
    assert_eq!(one.order(BIND, &[7471]), 0);
    assert_eq!(other.order(BIND, &[7471]), libc::EADDRINUSE as u64);
    one.order(RELEASE, &[]);
    other.order(RELEASE, &[]);
    assert_eq!(other.order(BIND, &[7471]), 0);
    assert_eq!(one.order(BIND, &[7471]), libc::EADDRINUSE as u64);
    one.order(RELEASE, &[]);
    other.kill();
    assert_eq!(one.order(BIND, &[7471]), 0);
}

#[test]
fn a_process_that_ends_says_so() {
    let port = free_port();
    let (mut server, mut client) = (Worker::start(A, port), Worker::start(A, port));
    connect(&mut server, A, &mut client);
    client.order(EXIT, &[]);
    server.expect(RDMA_CM_EVENT_DISCONNECTED);
}

#[test]
fn a_killed_process_is_noticed_by_who_sends() {
    let port = free_port();
    let (mut server, mut client) = (Worker::start(A, port), Worker::start(A, port));
    let service = connect(&mut server, A, &mut client);
    server.kill();
    assert_eq!(client.order(SEND, &[1]), u64::from(IBV_WC_RETRY_EXC_ERR.0));
    // Of a process that is gone the end is agreed to at once.
    let start = Instant::now();
    assert_eq!(client.order(DISCONNECT, &[]), 0);
    client.expect(RDMA_CM_EVENT_DISCONNECTED);
    assert!(start.elapsed() < Duration::from_secs(5));
    client.order(RELEASE, &[]);
    client.call(A, service);
    assert_eq!(client.expect(RDMA_CM_EVENT_REJECTED), 8, "its listener went with it");
}

#[test]
fn a_forked_child_is_refused_and_the_parent_goes_on() {
    let port = free_port();
    let (mut server, mut client) = (Worker::start(A, port), Worker::start(A, port));
    connect(&mut server, A, &mut client);
    assert_eq!(client.order(FORK, &[]), 3);
    assert_eq!(server.order(FORK, &[]), 3);
    talk_and_part(&mut server, &mut client);
}

#[test]
fn nothing_stays_of_connections_that_are_gone() {
    let port = free_port();
    let (mut server, mut client) = (Worker::start(A, port), Worker::start(A, port));
    let mut counts = Vec::new();
    for _ in 0..4 {
        connect(&mut server, A, &mut client);
        talk_and_part(&mut server, &mut client);
        server.order(RELEASE, &[]);
        client.order(RELEASE, &[]);
        counts.push([server.order(DESCRIPTORS, &[]), client.order(DESCRIPTORS, &[])]);
    }
    // The first round opens what stays for the process's life.
    assert_eq!(counts[1], counts[3], "{counts:?}");
}
