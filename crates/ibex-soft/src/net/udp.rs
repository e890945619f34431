//! UDP sockets that carry many equal datagrams in one system call (GSO, GRO).
//!
//! Owns a socket and its options: no fragmentation (which also makes the kernel send identification
//! 0, and i for the i-th segment), coalescing on receive, large buffers. It knows nothing of RoCE.
//!
//! Coalescing can be switched off while datagrams come one at a time: with it, the kernel looks at the far end of each
//! datagram's buffer for the segments' size, which is a cache miss when another processor wrote it. Over loopback this
//! makes 0.2 µs of the 1.7 µs one way.
//!
//! `quinn-udp` does the same for more systems; here it costs too much. It asks for a timestamp,
//! packet information and the traffic class with every datagram and clears 32 message headers before
//! every receive: 4.4 µs for a spinning 64-byte round trip over loopback where bare sockets take
//! 3.6 µs, as do these.
//!
//! Read first: udp(7) (`UDP_SEGMENT`, `UDP_GRO`), ip(7) (`IP_MTU_DISCOVER`), cmsg(3), recvmsg(2).
//!
//! # Safety
//! All pointers given to the kernel come from references that live across the call, with the length
//! of what they point to. Address and control storage is zeroed first, so that every byte of it is
//! initialised whatever the kernel writes.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Of asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Segments in one datagram given to the kernel; more fail with EINVAL (`UDP_MAX_SEGMENTS` was 64
/// before Linux 6.9).
pub(super) const MAX_SEGMENTS: usize = 64;

/// The largest UDP payload over IPv4, segments together: 65 535 − 20 − 8.
pub(super) const MAX_PAYLOAD: usize = 65_507;

/// Room for one control message with an int: its header is 16 bytes, and it is padded to 8.
const CONTROL: usize = 24;
/// The header of a control message (`struct cmsghdr` on 64-bit Linux): length, level, type.
const CONTROL_HEADER: usize = 16;

/// A destination in the form the kernel wants, kept so that it is made once.
#[derive(Clone, Copy)]
pub(super) struct Target {
    address: SocketAddr,
    storage: libc::sockaddr_in6,
    length: libc::socklen_t,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("length", &self.length).finish_non_exhaustive()
    }
}

/// What was received into a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burst {
    /// Bytes.
    pub(super) length: usize,
    /// Bytes of each datagram in it, the last may be shorter.
    pub(super) segment: usize,
    /// Who sent them all.
    pub(super) source: IpAddr,
    /// From which port.
    pub(super) port: u16,
}

/// A non-blocking UDP socket bound to one address.
#[derive(Debug)]
pub(super) struct Udp {
    socket: UdpSocket,
    port: u16,
    receive_buffer: usize,
    /// Whether what the kernel hands out may be several datagrams.
    coalescing: AtomicBool,
    /// Whether it sends to one address only.
    connected: bool,
}

impl Udp {
    /// Binds `address` (port 0: any) and asks for `buffer` bytes in each direction.
    ///
    /// # Errors
    /// Those of bind(2); options that the kernel lacks only cost speed and are no error.
    pub(super) fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        do_not_fragment(fd, address)?;
        // Without coalescing datagrams come one by one, which is all that is lost (Linux < 5.0).
        let coalescing = set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let sock = socket2::SockRef::from(&socket);
        // The kernel caps both at net.core.{r,w}mem_max without an error.
        sock.set_recv_buffer_size(buffer)?;
        sock.set_send_buffer_size(buffer)?;
        let receive_buffer = sock.recv_buffer_size()?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port, receive_buffer, coalescing: coalescing.into(), connected: false })
    }

    /// A socket of `address` (port 0: any) that only sends, to `to`, and asks for `buffer` bytes: the kernel looks up the way
    /// once, not with each datagram, which over loopback saves 0.1 us of 0.7. It numbers what it sends by IPv4 from a random
    /// start.
    ///
    /// # Errors
    /// Those of bind(2) and connect(2).
    pub(super) fn connect(address: SocketAddr, to: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        do_not_fragment(socket.as_raw_fd(), address)?;
        socket.connect(to)?;
        let sock = socket2::SockRef::from(&socket);
        sock.set_send_buffer_size(buffer)?;
        // Nobody receives; the kernel raises it to its least.
        sock.set_recv_buffer_size(0)?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port, receive_buffer: 0, coalescing: false.into(), connected: true })
    }

    /// The bare socket, its options kept.
    #[cfg(test)]
    pub(super) fn into_std(self) -> UdpSocket {
        self.socket
    }

    /// The port it is bound to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// `SO_RCVBUF` as granted, in the kernel's accounting.
    pub(super) fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Its descriptor, for poll(2).
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether what is received may be several datagrams at once.
    #[inline]
    pub(super) fn coalesces(&self) -> bool {
        self.coalescing.load(Ordering::Relaxed)
    }

    /// Switches coalescing on or off; only whoever receives may. What is in the socket when it is switched off, coalesced,
    /// is handed out without its segments' size.
    pub(super) fn coalesce(&self, wanted: bool) {
        // A kernel without it goes on without.
        let done = set(self.fd(), libc::SOL_UDP, libc::UDP_GRO, wanted.into()).is_ok();
        if done {
            self.coalescing.store(wanted, Ordering::Relaxed);
        }
    }

    /// Sends `data` as datagrams of `segment` bytes each, the last may be shorter; `to` is who it is connected to, if it is.
    ///
    /// # Errors
    /// Those of sendmsg(2); `WouldBlock` when the send buffer is full, EIO or EINVAL when the route
    /// cannot segment.
    pub(super) fn send(&self, to: &Target, data: &[u8], segment: usize) -> io::Result<()> {
        let mut refused = false;
        loop {
            let sent = if segment < data.len() {
                let size = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
                self.send_many(to, data, size)
            } else {
                self.send_one(to, data)
            };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // What became of an earlier one; this one has not been sent.
                io::ErrorKind::ConnectionRefused if self.connected && !refused => refused = true,
                _ => return Err(error),
            }
        }
    }

    /// The name of a destination as the kernel is to have it.
    fn name(&self, to: &Target) -> (*const libc::sockaddr_in6, libc::socklen_t) {
        if self.connected { (std::ptr::null(), 0) } else { (&raw const to.storage, to.length) }
    }

    /// sendto(2) of one datagram.
    fn send_one(&self, to: &Target, data: &[u8]) -> libc::c_long {
        let (name, length) = self.name(to);
        // SAFETY: sendto(2): data and name live across the call, their lengths are given, and it writes to neither; no
        // name has no length. Not through the C library's function: see `recv_many`.
        unsafe {
            libc::syscall(
                libc::SYS_sendto,
                self.fd(),
                data.as_ptr(),
                data.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                name,
                length,
            )
        }
    }

    /// sendmsg(2) of datagrams of `size` bytes each.
    fn send_many(&self, to: &Target, data: &[u8], size: u16) -> libc::c_long {
        let mut vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        let mut control = Control([0; CONTROL]);
        let mut header = message(&mut vector);
        let (name, length) = self.name(to);
        header.msg_name = name.cast_mut().cast();
        header.msg_namelen = length;
        header.msg_controllen = control.put(libc::SOL_UDP, libc::UDP_SEGMENT, size);
        header.msg_control = (&raw mut control).cast();
        // SAFETY: sendmsg(2): header, name, vector, data and control live across the call, and it writes to none of
        // them. Not through the C library's function: see `recv_many`.
        unsafe {
            libc::syscall(
                libc::SYS_sendmsg,
                self.fd(),
                &raw const header,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        }
    }

    /// Receives one burst into `buffer`, or `None` when there is nothing.
    ///
    /// # Errors
    /// Those of recvmsg(2) other than EAGAIN; EMSGSIZE when the burst did not fit.
    #[inline]
    pub(super) fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Burst>> {
        if self.coalesces() { self.recv_many(buffer) } else { self.recv_one(buffer) }
    }

    /// [`Udp::recv`] of one datagram.
    fn recv_one(&self, buffer: &mut [u8]) -> io::Result<Option<Burst>> {
        let mut name = empty();
        let mut name_length = size_of_val(&name) as libc::socklen_t;
        // SAFETY: recvfrom(2): buffer, name and its length live across the call and are exclusively borrowed; their
        // lengths are given. Not through the C library's function: see `recv_many`.
        let length = unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                self.fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                &raw mut name,
                &raw mut name_length,
            )
        };
        if length < 0 {
            return nothing();
        }
        // Never negative here; as long as the datagram was.
        let length = length as usize;
        if length > buffer.len() {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let (source, port) = sender(&name)?;
        Ok(Some(Burst { length, segment: length.max(1), source, port }))
    }

    /// [`Udp::recv`] of what may be several datagrams.
    fn recv_many(&self, buffer: &mut [u8]) -> io::Result<Option<Burst>> {
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut control = Control([0; CONTROL]);
        let mut name = empty();
        let mut header = message(&mut vector);
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = size_of_val(&name) as libc::socklen_t;
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = CONTROL as _;
        // SAFETY: recvmsg(2): header, name, vector, buffer and control live across the call and are
        // exclusively borrowed; their lengths are given. The C library's function is a cancellation point, which
        // costs a spinning caller 5 % of its time; this call never blocks, so that there is nothing to cancel.
        let length =
            unsafe { libc::syscall(libc::SYS_recvmsg, self.fd(), &raw mut header, libc::MSG_DONTWAIT) };
        if length < 0 {
            return nothing();
        }
        if header.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        // Never negative here, and never more than the buffer holds.
        let length = length as usize;
        let segment = control.get(header.msg_controllen, libc::SOL_UDP, libc::UDP_GRO);
        let segment = segment.filter(|&size| size > 0).unwrap_or(length.max(1));
        let (source, port) = sender(&name)?;
        Ok(Some(Burst { length, segment, source, port }))
    }

    /// A number that sockets of one network namespace share, and no others; 0 if the kernel has none (Linux < 5.14).
    pub(super) fn network(&self) -> u64 {
        let mut cookie = 0u64;
        let mut length = size_of_val(&cookie) as libc::socklen_t;
        // SAFETY: getsockopt(2): `cookie` and `length` live across the call; at most `length` bytes are written.
        let result = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        if result == 0 { cookie } else { 0 }
    }

    /// Datagrams dropped so far because the receive buffer was full.
    pub(super) fn dropped(&self) -> u64 {
        // SK_MEMINFO_* of linux/sock_diag.h: nine counters, the last is the drops.
        let mut info = [0u32; 9];
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: getsockopt(2): `info` and `length` live across the call; at most `length` bytes are written.
        let result = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { info[8].into() } else { 0 }
    }
}

impl Target {
    /// Prepares `address`.
    pub(super) fn new(address: SocketAddr) -> Self {
        let mut storage = empty();
        let length = match address {
            SocketAddr::V4(v4) => {
                let wanted = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_in (16 bytes, alignment 4) fits into sockaddr_in6 (28, 4), and
                // every bit pattern of its bytes is valid there.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(wanted) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                storage = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { address, storage, length: length as libc::socklen_t }
    }

    /// The address.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One control message, aligned as `struct cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Control {
    /// Writes a message with a 16-bit value; returns the length of the control data.
    fn put(&mut self, level: libc::c_int, kind: libc::c_int, value: u16) -> usize {
        let length = CONTROL_HEADER + size_of::<u16>();
        self.0[..8].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&level.to_ne_bytes());
        self.0[12..16].copy_from_slice(&kind.to_ne_bytes());
        self.0[16..18].copy_from_slice(&value.to_ne_bytes());
        CONTROL
    }

    /// Reads the int of the message, if `length` bytes of control data hold one of this kind.
    fn get(&self, length: usize, level: libc::c_int, kind: libc::c_int) -> Option<usize> {
        let word =
            |at: usize| i32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        let whole = length >= CONTROL_HEADER + size_of::<libc::c_int>();
        if !whole || word(8) != level || word(12) != kind {
            return None;
        }
        usize::try_from(word(16)).ok()
    }
}

/// What a receive that failed comes to: often that there is nothing.
fn nothing() -> io::Result<Option<Burst>> {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Ok(None),
        _ => Err(error),
    }
}

/// A message header with nothing in it but one vector.
fn message(vector: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: msghdr is plain old data, for which all zeroes mean: no name, no control.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header
}

/// Storage for an address of either family.
fn empty() -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: 0,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    }
}

/// The address and port in what recvmsg(2) filled.
fn sender(name: &libc::sockaddr_in6) -> io::Result<(IpAddr, u16)> {
    let port = u16::from_be(name.sin6_port);
    match libc::c_int::from(name.sin6_family) {
        // sockaddr_in has its address where sockaddr_in6 has the flow label, both after the port.
        libc::AF_INET => Ok((Ipv4Addr::from(name.sin6_flowinfo.to_ne_bytes()).into(), port)),
        libc::AF_INET6 => Ok((Ipv6Addr::from(name.sin6_addr.s6_addr).into(), port)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sets "don't fragment", and believes no ICMP message about the path.
fn do_not_fragment(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        SocketAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    }
}

/// setsockopt(2) with an int.
fn set(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: setsockopt(2) reads `value`, which lives across the call, and its length is given.
    let result = unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of_val(&value) as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
