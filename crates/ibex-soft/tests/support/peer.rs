//! A second process: the test binary runs itself again with one test named.
//!
//! Owns starting it and the socket over which the two exchange fixed-size facts.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Endpoint, LIMIT};

/// Names the socket for the second process.
const SOCKET: &str = "IBEX_TEST_SOCKET";

/// The second process; killed if the test ends before it.
pub(crate) struct Peer {
    pub(crate) child: Child,
    pub(crate) link: Link,
}

/// A connection to the other process.
pub(crate) struct Link(UnixStream);

/// Whether this process is the second one; then the connection to the first.
pub(crate) fn second() -> Option<Link> {
    let name = std::env::var(SOCKET).ok()?;
    let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("an abstract name");
    Some(Link::new(UnixStream::connect_addr(&address).expect("the first process listens")))
}

/// Starts the second process in the test `name`, which must begin by asking [`second`].
pub(crate) fn start(name: &str) -> Peer {
    start_with(name, &[])
}

/// The same, with more in its environment.
pub(crate) fn start_with(name: &str, environment: &[(&str, &str)]) -> Peer {
    // Tests of one binary may start the same one at the same time.
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let count = STARTED.fetch_add(1, Ordering::Relaxed);
    let socket = format!("ibex-soft-test-{}-{name}-{count}", std::process::id());
    let address = SocketAddr::from_abstract_name(socket.as_bytes()).expect("an abstract name");
    let listener = UnixListener::bind_addr(&address).expect("a free name");
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(SOCKET, socket)
        .envs(environment.iter().copied())
        .spawn()
        .expect("this binary runs");
    let (stream, _) = listener.accept().expect("the second process connects");
    Peer { child, link: Link::new(stream) }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Already gone if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Waits for the second process; its tests must have passed.
    pub(crate) fn join(mut self) {
        assert!(self.child.wait().expect("a child").success(), "the second process failed");
    }
}

impl Link {
    fn new(stream: UnixStream) -> Link {
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        Link(stream)
    }

    pub(crate) fn put(&mut self, value: u64) {
        self.0.write_all(&value.to_le_bytes()).expect("the other process reads");
    }

    pub(crate) fn take(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes).expect("the other process writes");
        u64::from_le_bytes(bytes)
    }

    /// Tells the other process the endpoint and learns its own.
    pub(crate) fn exchange(&mut self, mine: Endpoint) -> Endpoint {
        self.tell(mine);
        self.hear()
    }

    /// Tells the other process an endpoint.
    pub(crate) fn tell(&mut self, endpoint: Endpoint) {
        self.put(u64::from(endpoint.qpn));
        self.put(u64::from(endpoint.psn));
        self.0.write_all(&endpoint.gid).expect("the other process reads");
    }

    /// Learns an endpoint that the other process tells.
    pub(crate) fn hear(&mut self) -> Endpoint {
        let (qpn, psn) = (self.take() as u32, self.take() as u32);
        let mut gid = [0; 16];
        self.0.read_exact(&mut gid).expect("the other process writes");
        Endpoint { qpn, psn, gid }
    }

    /// Meets the other process.
    pub(crate) fn meet(&mut self) {
        self.put(7);
        assert_eq!(self.take(), 7);
    }
}
