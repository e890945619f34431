//! Who holds the RoCE port of the address, and who takes over.
//!
//! The holder is whoever listens on an abstract unix stream socket: binding the name is the
//! election. The others connect to it and never say a word: the hang-up tells them that the holder
//! is gone, however it went, and each tries to bind the name. The holder accepts nobody; connections
//! wait in the listener's backlog and are closed with it. Owns the socket on the RoCE port too, but
//! not what arrives there ([`super::rx`]).

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::error::NetError;
use super::forward;
use super::udp::Udp;

/// How long opening waits for a holder that is just dying to free the port; its sockets close within
/// microseconds of each other, on a loaded machine within milliseconds.
const OPEN_PATIENCE: Duration = Duration::from_millis(300);
/// Between two tries while somebody is just dying or just starting.
const RETRY: Duration = Duration::from_millis(1);
/// Between two tries when that has lasted: a stranger on the port, or a full backlog.
const SLOW_RETRY: Duration = Duration::from_millis(100);
/// Tries at the short interval.
const QUICK_TRIES: u32 = 50;

/// The part of this process in the election.
#[derive(Debug)]
enum Role {
    /// Nobody could be reached yet.
    Seeking,
    /// Connected to the holder.
    Follower(UnixStream),
    /// Elected; the port is not free yet.
    Elected(UnixListener),
    /// The holder: see [`Election::holder`].
    Holder,
}

#[derive(Debug)]
struct State {
    role: Role,
    tries: u32,
    retry_at: Option<Instant>,
}

/// The sockets of the holder.
#[derive(Debug)]
struct Holder {
    udp: Udp,
    name: UnixListener,
}

/// What one step of the election came to.
enum Step {
    Settled,
    Again,
    PortTaken,
}

/// The election for one address.
#[derive(Debug)]
pub(super) struct Election {
    name: UnixAddr,
    /// The same name, to connect to.
    peer: SockAddr,
    address: SocketAddr,
    buffer: usize,
    state: Mutex<State>,
    holder: OnceLock<Holder>,
    /// The follower's descriptor in `state`, readable without its lock: for poll and for fork's child.
    watched: AtomicI32,
    /// The elected's. Not for poll: connections wait on it for ever.
    elected: AtomicI32,
    generation: AtomicU64,
}

impl Election {
    /// Takes part in the election named `name` for the RoCE port at `address`.
    ///
    /// # Errors
    /// [`NetError::PortTaken`] when nobody of ours holds the port and it cannot be bound.
    pub(super) fn open(name: &str, address: SocketAddr, buffer: usize) -> Result<Self, NetError> {
        let election = Self {
            name: UnixAddr::from_abstract_name(name).map_err(NetError::io("name the holder's socket"))?,
            peer: forward::abstract_address(name.as_bytes())
                .map_err(NetError::io("name the holder's socket"))?,
            address,
            buffer,
            state: Mutex::new(State { role: Role::Seeking, tries: 0, retry_at: None }),
            holder: OnceLock::new(),
            watched: AtomicI32::new(-1),
            elected: AtomicI32::new(-1),
            generation: AtomicU64::new(0),
        };
        let deadline = Instant::now() + OPEN_PATIENCE;
        loop {
            let mut state = election.lock();
            let step = election.step(&mut state)?;
            let late = Instant::now() >= deadline;
            match step {
                Step::Settled => break,
                Step::PortTaken if late => {
                    return Err(NetError::PortTaken { address: address.ip(), port: address.port() });
                }
                // Somebody of ours has the name and cannot be reached: go on without, keep trying.
                Step::Again if late => {
                    state.retry_at = Some(Instant::now() + SLOW_RETRY);
                    break;
                }
                Step::Again | Step::PortTaken => {}
            }
            drop(state);
            std::thread::sleep(RETRY);
        }
        Ok(election)
    }

    /// The socket on the RoCE port, if this process holds it. Once it does, it does to the end.
    pub(super) fn holder(&self) -> Option<&Udp> {
        self.holder.get().map(|holder| &holder.udp)
    }

    /// Changes when the descriptors do.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The descriptors to watch. Async-signal-safe.
    pub(super) fn fds(&self) -> impl Iterator<Item = RawFd> {
        let held = self.holder.get().map(|holder| holder.udp.fd());
        let watched = self.watched.load(Ordering::Acquire);
        held.into_iter().chain((watched >= 0).then_some(watched))
    }

    /// All descriptors, also those that nobody need watch. Async-signal-safe.
    pub(super) fn all_fds(&self) -> impl Iterator<Item = RawFd> {
        let elected = self.elected.load(Ordering::Acquire);
        let held = self.holder.get().map(|holder| holder.name.as_raw_fd());
        self.fds().chain((elected >= 0).then_some(elected)).chain(held)
    }

    /// Takes part further: notices a hang-up, tries again when it is time to. Returns when to call
    /// again at the latest, and whether this process has just become the holder.
    pub(super) fn tend(&self, now: Instant) -> (Option<Instant>, bool) {
        if self.holder.get().is_some() {
            return (None, false);
        }
        let mut state = self.lock();
        match &state.role {
            Role::Follower(stream) if alive(stream) => return (None, false),
            Role::Follower(_) => self.set_role(&mut state, Role::Seeking),
            Role::Seeking | Role::Elected(_) if state.retry_at.is_some_and(|at| now < at) => {
                return (state.retry_at, false);
            }
            Role::Seeking | Role::Elected(_) => {}
            Role::Holder => return (None, false),
        }
        match self.step(&mut state) {
            Ok(Step::Settled) => (None, self.holder.get().is_some()),
            // Out of descriptors or memory is retried like a busy port.
            Ok(Step::Again | Step::PortTaken) | Err(_) => {
                state.tries += 1;
                let wait = if state.tries < QUICK_TRIES { RETRY } else { SLOW_RETRY };
                state.retry_at = Some(now + wait);
                (state.retry_at, false)
            }
        }
    }

    /// One try to get from the present role to holder or follower.
    fn step(&self, state: &mut State) -> Result<Step, NetError> {
        if matches!(state.role, Role::Seeking) {
            match UnixListener::bind_addr(&self.name) {
                Ok(listener) => self.set_role(state, Role::Elected(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return self.follow(state),
                Err(source) => return Err(NetError::Io { what: "bind the holder's socket", source }),
            }
        }
        if !matches!(state.role, Role::Elected(_)) {
            return Ok(Step::Settled);
        }
        match Udp::bind(self.address, self.buffer) {
            Ok(udp) => {
                if let Role::Elected(name) = std::mem::replace(&mut state.role, Role::Holder) {
                    // Never set before: only this role leads here, under the lock.
                    let _ = self.holder.set(Holder { udp, name });
                }
                self.elected.store(-1, Ordering::Release);
                self.generation.fetch_add(1, Ordering::AcqRel);
                Ok(Step::Settled)
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Step::PortTaken),
            Err(source) => Err(NetError::Io { what: "bind the RoCE port", source }),
        }
    }

    /// Connects to the holder.
    fn follow(&self, state: &mut State) -> Result<Step, NetError> {
        let set_up = NetError::io("set up the connection to the holder");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(set_up)?;
        match socket.connect(&self.peer) {
            Ok(()) => {
                self.set_role(state, Role::Follower(OwnedFd::from(socket).into()));
                Ok(Step::Settled)
            }
            // Bound and not listening yet, already closing, or more than net.core.somaxconn of us.
            Err(_) => Ok(Step::Again),
        }
    }

    fn set_role(&self, state: &mut State, role: Role) {
        let (watched, elected) = match &role {
            Role::Follower(stream) => (stream.as_raw_fd(), -1),
            Role::Elected(listener) => (-1, listener.as_raw_fd()),
            Role::Seeking | Role::Holder => (-1, -1),
        };
        // Before the old one is closed, so that nobody watches a number that means something else.
        self.watched.store(watched, Ordering::Release);
        self.elected.store(elected, Ordering::Release);
        state.role = role;
        (state.tries, state.retry_at) = (0, None);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the holder at the other end still is: it never writes, so anything but "not yet" is its end.
fn alive(mut stream: &UnixStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}
