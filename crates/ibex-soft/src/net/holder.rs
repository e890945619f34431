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
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::error::NetError;
use super::forward;
use super::interest::Interest;
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

/// The election for one address. The sockets to watch are in the set of [`Interest`], also the alarm
/// for the next try.
#[derive(Debug)]
pub(super) struct Election {
    interest: Arc<Interest>,
    name: UnixAddr,
    /// The same name, to connect to.
    peer: SockAddr,
    address: SocketAddr,
    buffer: usize,
    state: Mutex<State>,
    holder: OnceLock<Holder>,
    /// The descriptor in `state`, readable without its lock: for fork's child.
    role_fd: AtomicI32,
}

impl Election {
    /// Takes part in the election named `name` for the RoCE port at `address`.
    ///
    /// # Errors
    /// [`NetError::PortTaken`] when nobody of ours holds the port and it cannot be bound.
    pub(super) fn open(
        name: &str,
        address: SocketAddr,
        buffer: usize,
        interest: Arc<Interest>,
    ) -> Result<Self, NetError> {
        let election = Self {
            interest,
            name: UnixAddr::from_abstract_name(name).map_err(NetError::io("name the holder's socket"))?,
            peer: forward::abstract_address(name.as_bytes())
                .map_err(NetError::io("name the holder's socket"))?,
            address,
            buffer,
            state: Mutex::new(State { role: Role::Seeking, tries: 0, retry_at: None }),
            holder: OnceLock::new(),
            role_fd: AtomicI32::new(-1),
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
                    election.retry(&mut state, SLOW_RETRY);
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

    /// All descriptors. Async-signal-safe.
    pub(super) fn fds(&self) -> impl Iterator<Item = RawFd> {
        let role = self.role_fd.load(Ordering::Acquire);
        let holder = self.holder.get().map(|holder| [holder.udp.fd(), holder.name.as_raw_fd()]);
        (role >= 0).then_some(role).into_iter().chain(holder.into_iter().flatten())
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
                self.retry(&mut state, wait);
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
                self.interest.add(udp.fd()).map_err(NetError::io("watch the RoCE port"))?;
                if let Role::Elected(name) = std::mem::replace(&mut state.role, Role::Holder) {
                    // Never set before: only this role leads here, under the lock.
                    let _ = self.holder.set(Holder { udp, name });
                }
                self.role_fd.store(-1, Ordering::Release);
                self.interest.alarm(None);
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
                self.interest.add(socket.as_raw_fd()).map_err(NetError::io("watch the holder"))?;
                self.set_role(state, Role::Follower(OwnedFd::from(socket).into()));
                Ok(Step::Settled)
            }
            // Bound and not listening yet, already closing, or more than net.core.somaxconn of us.
            Err(_) => Ok(Step::Again),
        }
    }

    fn set_role(&self, state: &mut State, role: Role) {
        let fd = match &role {
            Role::Follower(stream) => stream.as_raw_fd(),
            Role::Elected(listener) => listener.as_raw_fd(),
            Role::Seeking | Role::Holder => -1,
        };
        // Before the old one is closed, so that a fork never sees a number that means something else.
        self.role_fd.store(fd, Ordering::Release);
        if let Role::Follower(stream) = std::mem::replace(&mut state.role, role) {
            self.interest.remove(stream.as_raw_fd());
        }
        if state.retry_at.is_some() {
            self.interest.alarm(None);
        }
        (state.tries, state.retry_at) = (0, None);
    }

    /// Has [`Election::tend`] called again after `wait`.
    fn retry(&self, state: &mut State, wait: Duration) {
        state.retry_at = Some(Instant::now() + wait);
        self.interest.alarm(Some(wait));
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
