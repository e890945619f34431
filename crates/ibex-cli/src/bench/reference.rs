//! The references: the same ping-pong and the same rounds over UDP and TCP sockets, between the same two processes.
//!
//! Owns the sockets and how they wait: spinning on non-blocking calls or sleeping in blocking ones, as the RDMA
//! measurements beside them do. It is measured, never used to move data for anything else.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::patience::{LIMIT, Patience};
use super::pattern::Pattern;
use super::session::Session;
use super::stats::Tally;
use crate::args::Wait;
use crate::control::Control;

/// A blocking call returns after this long to look whether the peer lives.
const SLICE: Duration = Duration::from_millis(100);
/// How often a listener is looked at while the peer connects.
const ACCEPT: Duration = Duration::from_millis(1);

/// Sockets opened on the answering side, for the asking side to connect to.
#[derive(Debug)]
pub(crate) struct Listening {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listening {
    /// Binds both to `address`.
    pub(crate) fn bind(address: IpAddr) -> Result<Self> {
        let udp = UdpSocket::bind((address, 0)).context("cannot bind a UDP socket")?;
        let tcp = TcpListener::bind((address, 0)).context("cannot bind a TCP socket")?;
        Ok(Self { udp, tcp })
    }

    /// Their port numbers, UDP and TCP.
    pub(crate) fn ports(&self) -> Result<(u16, u16)> {
        Ok((self.udp.local_addr()?.port(), self.tcp.local_addr()?.port()))
    }

    /// The pair of sockets once the peer has connected from `peer`, its UDP socket being bound to `udp_port`.
    pub(crate) fn accept(self, peer: IpAddr, udp_port: u16, wait: Wait) -> Result<Sockets> {
        self.udp.connect((peer, udp_port)).context("cannot connect the UDP socket")?;
        self.tcp.set_nonblocking(true)?;
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.tcp.accept() {
                // Whoever else connects to this port is not part of the measurement.
                Ok((tcp, from)) if from.ip() == peer => return Sockets::new(self.udp, tcp, wait),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(ACCEPT),
                Err(error) => return Err(error).context("cannot accept the TCP reference connection"),
            }
            if Instant::now() > deadline {
                bail!("the peer did not open the TCP reference connection");
            }
        }
    }
}

/// One side's connected sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: UdpSocket,
    tcp: TcpStream,
    wait: Wait,
}

impl Sockets {
    /// Connects to the peer's ports; the second value is the own UDP port, which the peer must be told.
    pub(crate) fn connect(local: IpAddr, peer: IpAddr, ports: (u16, u16), wait: Wait) -> Result<(Self, u16)> {
        let udp = UdpSocket::bind((local, 0)).context("cannot bind a UDP socket")?;
        udp.connect((peer, ports.0)).context("cannot connect the UDP socket")?;
        let tcp = TcpStream::connect_timeout(&SocketAddr::new(peer, ports.1), LIMIT)
            .context("cannot open the TCP reference connection")?;
        let port = udp.local_addr()?.port();
        Ok((Self::new(udp, tcp, wait)?, port))
    }

    fn new(udp: UdpSocket, tcp: TcpStream, wait: Wait) -> Result<Self> {
        tcp.set_nodelay(true)?;
        match wait {
            Wait::Spin => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
            }
            Wait::Block => {
                tcp.set_nonblocking(false)?;
                udp.set_read_timeout(Some(SLICE))?;
                tcp.set_read_timeout(Some(SLICE))?;
                tcp.set_write_timeout(Some(SLICE))?;
            }
        }
        Ok(Self { udp, tcp, wait })
    }

    /// One call that may bring nothing, again and again.
    fn insist<T>(
        &self,
        patience: &mut Patience<'_>,
        mut call: impl FnMut() -> std::io::Result<T>,
    ) -> Result<T> {
        loop {
            match call() {
                Ok(value) => {
                    patience.rest();
                    return Ok(value);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    match self.wait {
                        Wait::Spin => patience.poll()?,
                        Wait::Block => patience.look()?,
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The peer's socket is gone, and so is the peer: the control connection is about to say so.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => patience.look()?,
                Err(error) => return Err(error).context("the reference socket failed"),
            }
        }
    }

    fn udp_send(&self, patience: &mut Patience<'_>, message: &[u8]) -> Result<()> {
        self.insist(patience, || self.udp.send(message)).map(|_| ())
    }

    fn udp_recv(&self, patience: &mut Patience<'_>, into: &mut [u8]) -> Result<usize> {
        self.insist(patience, || self.udp.recv(into))
    }

    fn tcp_send(&self, patience: &mut Patience<'_>, mut message: &[u8]) -> Result<()> {
        while !message.is_empty() {
            let count = self.insist(patience, || (&self.tcp).write(message))?;
            message = &message[count..];
        }
        Ok(())
    }

    fn tcp_recv(&self, patience: &mut Patience<'_>, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let count = self.insist(patience, || (&self.tcp).read(into))?;
            if count == 0 {
                bail!("the peer closed the TCP reference connection");
            }
            into = &mut into[count..];
        }
        Ok(())
    }
}

/// Which protocol of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Udp,
    Tcp,
}

/// One side of a ping-pong.
pub(crate) struct PingPong<'s> {
    session: &'s Session<'s>,
    protocol: Protocol,
    bytes: usize,
}

impl<'s> PingPong<'s> {
    /// Over the session's sockets.
    pub(crate) fn new(session: &'s Session<'s>, protocol: Protocol, bytes: usize) -> Self {
        Self { session, protocol, bytes }
    }

    fn send(&self, patience: &mut Patience<'_>, k: u64) -> Result<()> {
        let message = self.session.ours.message(k, self.bytes);
        match self.protocol {
            Protocol::Udp => self.session.sockets.udp_send(patience, message),
            Protocol::Tcp => self.session.sockets.tcp_send(patience, message),
        }
    }

    /// Receives a message; its length.
    fn recv(&self, patience: &mut Patience<'_>, into: &mut [u8]) -> Result<usize> {
        match self.protocol {
            Protocol::Udp => self.session.sockets.udp_recv(patience, into),
            Protocol::Tcp => self.session.sockets.tcp_recv(patience, into).map(|()| self.bytes),
        }
    }

    fn check(&self, k: u64, received: &[u8]) -> u64 {
        u64::from(received.len() != self.bytes).max(self.session.theirs.errors(k, received))
    }

    /// Sends first, `iters` times from message `first` on.
    pub(crate) fn ask(&self, first: u64, iters: u64, tally: &mut Tally) -> Result<()> {
        let mut patience = Patience::new(self.session.control);
        let mut buffer = vec![0; self.bytes];
        for k in first..first + iters {
            let start = Instant::now();
            self.send(&mut patience, k)?;
            let length = self.recv(&mut patience, &mut buffer)?;
            tally.message(start.elapsed() / 2);
            tally.errors += self.check(k, &buffer[..length]);
        }
        Ok(())
    }

    /// Answers; the number of wrong messages.
    pub(crate) fn answer(&self, first: u64, iters: u64) -> Result<u64> {
        let mut patience = Patience::new(self.session.control);
        let mut buffer = vec![0; self.bytes];
        let mut errors = 0;
        for k in first..first + iters {
            let length = self.recv(&mut patience, &mut buffer)?;
            self.send(&mut patience, k)?;
            errors += self.check(k, &buffer[..length]);
        }
        Ok(errors)
    }
}

/// Sends a round of `count` messages from `first` on; until the peer's confirmation.
pub(crate) fn send_round(
    sockets: &Sockets,
    control: &Control,
    pattern: &Pattern,
    bytes: usize,
    first: u64,
    count: u64,
) -> Result<Duration> {
    let mut patience = Patience::new(control);
    let begin = Instant::now();
    for k in first..first + count {
        sockets.tcp_send(&mut patience, pattern.message(k, bytes))?;
    }
    sockets.tcp_recv(&mut patience, &mut [0])?;
    Ok(begin.elapsed())
}

/// Receives a round into `buffer` and confirms it; comparing is the caller's, afterwards.
pub(crate) fn recv_round(sockets: &Sockets, control: &Control, buffer: &mut [u8]) -> Result<()> {
    let mut patience = Patience::new(control);
    sockets.tcp_recv(&mut patience, buffer)?;
    sockets.tcp_send(&mut patience, &[1])
}
