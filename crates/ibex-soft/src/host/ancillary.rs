//! Datagrams on unix sockets with what travels beside their bytes: descriptors and the sender's credentials.
//!
//! Owns the control messages; a descriptor that was received has an owner before anything else is looked at. What the bytes
//! say is [`super::greeting`]'s and [`crate::net`]'s.
//!
//! Read first: unix(7) (`SCM_RIGHTS`, `SCM_CREDENTIALS`, `SO_PASSCRED`), cmsg(3), recvmsg(2).
//!
//! # Safety
//! All pointers given to the kernel come from references that live across the call, with the length of what they point
//! to; buffers are zeroed first. Control messages are walked by offsets that are checked against the length the kernel
//! returned. A number in an SCM_RIGHTS message is a new descriptor of this process that nobody else knows.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use socket2::SockAddr;

/// Most descriptors in one datagram.
pub(crate) const MAX_FDS: usize = 8;

/// The header of a control message (`struct cmsghdr` on 64-bit Linux): length, level, type.
const CONTROL_HEADER: usize = 16;

/// Room for [`MAX_FDS`] descriptors and one set of credentials, each with its header and padded to 8.
const CONTROL: usize =
    CONTROL_HEADER + MAX_FDS * size_of::<RawFd>() + CONTROL_HEADER + size_of::<libc::ucred>() + 4;

/// Room for the credentials only: the kernel writes them first, and gives nobody descriptors that find no room.
const CREDENTIALS: usize = CONTROL_HEADER + size_of::<libc::ucred>() + 4;

/// A buffer of control messages, aligned as their headers are.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// The process that sent a datagram, as the kernel says, in terms of this process's namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Its number; 0 if it has none here.
    pub(crate) pid: i32,
    /// Its real user.
    pub(crate) uid: u32,
}

/// A datagram received.
#[derive(Debug, Default)]
pub(crate) struct Letter {
    /// Bytes; those that did not fit are gone.
    pub(crate) length: usize,
    /// Descriptors that came with it.
    pub(crate) fds: Vec<OwnedFd>,
    /// Who sent it, if the socket asks for that.
    pub(crate) from: Option<Credentials>,
    /// The abstract name of the sender's socket, if it has one.
    pub(crate) name: Name,
}

/// An abstract name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; 107],
    length: usize,
}

impl Default for Name {
    fn default() -> Name {
        Name { bytes: [0; 107], length: 0 }
    }
}

impl Name {
    /// Its bytes; none if there is no name.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Has datagrams that arrive on `socket` carry their sender's credentials.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn ask_for_credentials(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: setsockopt(2) reads one int, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Two connected sockets that keep datagrams apart; neither blocks, both tell who sends.
///
/// # Errors
/// Those of socketpair(2) and setsockopt(2).
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socketpair(2) writes two ints, for which there is room.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let one = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: as above.
    let two = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    for socket in [&one, &two] {
        ask_for_credentials(std::os::fd::AsFd::as_fd(socket))?;
    }
    Ok((one, two))
}

/// Sends a datagram with descriptors, of which there are at most [`MAX_FDS`], to `to` or where the socket is connected.
/// Does not block.
///
/// # Errors
/// Those of sendmsg(2).
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    to: Option<&SockAddr>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<libc::c_void>(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain old data, for which all zeroes mean: no name, no control.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if let Some(to) = to {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = to.len();
    }
    let mut control = Control([0; CONTROL]);
    if !fds.is_empty() {
        if fds.len() > MAX_FDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = CONTROL_HEADER + size_of_val(fds);
        control.0[..8].copy_from_slice(&length.to_ne_bytes());
        control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
        for (place, fd) in control.0[CONTROL_HEADER..].chunks_exact_mut(4).zip(fds) {
            place.copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
        }
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = length;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `header` names the vector, the address and the control buffer, which all live across the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives a datagram into `buffer`. Does not block. A length of 0 is the end of a connected socket.
///
/// # Errors
/// Those of recvmsg(2), `WouldBlock` if there is none.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Letter> {
    take(socket, buffer, CONTROL, 0)
}

/// [`receive`] without the descriptors that may come beside: a stranger's are never this process's, so that closing them
/// cannot block it.
///
/// # Errors
/// As [`receive`].
pub(crate) fn receive_bare(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Letter> {
    take(socket, buffer, CREDENTIALS, 0)
}

/// Looks at the datagram that [`receive`] would take next, without descriptors; it stays where it is.
///
/// # Errors
/// As [`receive`].
pub(crate) fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Letter> {
    take(socket, buffer, CREDENTIALS, libc::MSG_PEEK)
}

/// recvmsg(2) with `room` bytes for control messages.
fn take(socket: BorrowedFd<'_>, buffer: &mut [u8], room: usize, flags: libc::c_int) -> io::Result<Letter> {
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; CONTROL]);
    // SAFETY: sockaddr_un is plain old data.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    // SAFETY: as above; msghdr's zeroes mean nothing given.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = room.min(CONTROL);
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `header` names the vector, the address and the control buffer, which all live across the call.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let mut letter = Letter { length, ..Letter::default() };
    let filled = header.msg_controllen.min(CONTROL);
    letter.open(&control.0[..filled]);
    // Family, a zero byte that marks the name as abstract, the name.
    let named = (header.msg_namelen as usize).min(size_of::<libc::sockaddr_un>());
    if named > 3 && address.sun_path[0] == 0 {
        letter.name.length = named - 3;
        for (to, from) in letter.name.bytes.iter_mut().zip(&address.sun_path[1..named - 2]) {
            *to = from.cast_unsigned();
        }
    }
    Ok(letter)
}

impl Letter {
    /// Takes what is in the control messages.
    fn open(&mut self, mut control: &[u8]) {
        let word = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes)
        };
        while control.len() >= CONTROL_HEADER {
            let length = control.first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes));
            if length < CONTROL_HEADER || length > control.len() {
                break;
            }
            let body = &control[CONTROL_HEADER..length];
            match (word(control, 8), word(control, 12)) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for number in body.chunks_exact(4) {
                        // SAFETY: the kernel made this descriptor for this datagram; it has no other owner.
                        self.fds.push(unsafe { OwnedFd::from_raw_fd(word(number, 0)) });
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    self.from = Some(Credentials { pid: word(body, 0), uid: word(body, 4).cast_unsigned() });
                }
                _ => {}
            }
            control = control.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        }
    }
}

/// The real user of this process, if it is to share memory with other processes of the same: not if it runs with more
/// rights than the user who started it, and not if the user has no name of its own in this user namespace, where
/// everybody unknown looks alike.
pub(crate) fn user() -> Option<u32> {
    // SAFETY: getauxval(3) takes no pointer.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    // SAFETY: getuid(2) cannot fail.
    let uid = unsafe { libc::getuid() };
    let unknown = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?;
    (unknown.trim().parse() != Ok(uid)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn descriptors_and_credentials_travel() {
        let (one, two) = pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send(one.as_fd(), None, b"hello", &[writer.as_fd(), reader.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let letter = receive(two.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..letter.length], b"hello");
        assert_eq!(letter.fds.len(), 2);
        // SAFETY: getuid(2) cannot fail.
        let uid = unsafe { libc::getuid() };
        assert_eq!(letter.from, Some(Credentials { pid: std::process::id().cast_signed(), uid }));
        drop(letter);
        drop(one);
        assert_eq!(receive(two.as_fd(), &mut buffer).unwrap().length, 0, "the end");
    }

    #[test]
    fn descriptors_are_left_to_who_asks_for_them() {
        let (one, two) = pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        for bytes in [b"taken", b"given"] {
            send(one.as_fd(), None, bytes, &[writer.as_fd()]).unwrap();
        }
        drop(writer);
        let mut buffer = [0; 16];
        for look in [peek, receive_bare] {
            let letter = look(two.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..letter.length], b"taken");
            assert_eq!(letter.fds.len(), 0);
            assert!(letter.from.is_some());
        }
        let letter = receive(two.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..letter.length], letter.fds.len()), (&b"given"[..], 1));
        drop(letter);
        // No writer is left: neither of the two datagrams' descriptors was kept.
        assert_eq!(io::Read::read(&mut &reader, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn more_descriptors_than_there_is_room_for_are_refused() {
        let (one, _two) = pair().unwrap();
        let fds = [one.as_fd(); MAX_FDS + 1];
        assert!(send(one.as_fd(), None, b"x", &fds).is_err());
        assert!(send(one.as_fd(), None, b"x", &fds[1..]).is_ok());
    }
}
