//! The control connection between two ibex processes: JSON messages over TCP, and the knowledge that the peer lives.
//!
//! Owns framing, the greeting, heartbeats and the verdict that a peer is gone. Payloads of a benchmark or a copy never
//! travel here: they go by RDMA. A frame is a little-endian `u32` length and that many bytes of JSON; length 0 is a
//! heartbeat. A reader thread takes frames off the socket at all times, so that a killed peer is noticed at once
//! (end of file, reset) and a silent one after [`SILENCE`], whatever the owner is doing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sent first by both sides: another service on the port, or another version, is told apart before any message.
const GREETING: [u8; 8] = *b"ibexctl1";
/// A message is small (a list of decisions at most); a larger length is no message of ours.
const MAX_FRAME: usize = 4 << 20;
/// How long connecting and greeting may take.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// A heartbeat goes out this often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A peer that has sent nothing for this long, not even a heartbeat, is gone: several heartbeats were missed.
const SILENCE: Duration = Duration::from_secs(15);
/// Heartbeats stop when the owner has not called [`Control::tick`] for this long, so that a stuck process does not pass
/// for a living one. Above any single disk operation that is not a failure.
const STUCK: Duration = Duration::from_secs(60);
/// The kernel's buffer takes a frame at once unless the peer has stopped reading.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How often blocked threads look at the clock.
const SLICE: Duration = Duration::from_millis(500);

/// A control connection. Dropping it closes the connection and ends its threads.
#[derive(Debug)]
pub(crate) struct Control {
    shared: Arc<Shared>,
    incoming: Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
    /// Dropped first on close: wakes the heartbeat thread.
    stop: Option<Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    /// Serialises writers; what they write to is `stream`.
    writing: Mutex<()>,
    peer: String,
    closed: AtomicBool,
    reason: Mutex<Option<String>>,
    born: Instant,
    /// Milliseconds since `born` of the owner's last sign of life.
    ticked: AtomicU64,
}

impl Control {
    /// Connects to a listening ibex. `peer` is `HOST:PORT`.
    pub(crate) fn connect(peer: &str) -> Result<Self> {
        let addresses =
            peer.to_socket_addrs().with_context(|| format!("cannot find {peer}: use HOST:PORT"))?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, GREETING_TIME) {
                Ok(stream) => return Self::over(stream, peer.to_owned()),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => {
                Err(error).with_context(|| format!("cannot connect to {peer}; is ibex listening there?"))
            }
            None => bail!("{peer} has no address"),
        }
    }

    /// Takes over an accepted connection.
    pub(crate) fn accept(stream: TcpStream, from: SocketAddr) -> Result<Self> {
        Self::over(stream, from.to_string())
    }

    fn over(mut stream: TcpStream, peer: String) -> Result<Self> {
        let greet = |stream: &mut TcpStream| -> std::io::Result<[u8; 8]> {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(GREETING_TIME))?;
            stream.set_write_timeout(Some(WRITE_TIME))?;
            stream.write_all(&GREETING)?;
            let mut theirs = [0; 8];
            stream.read_exact(&mut theirs)?;
            stream.set_read_timeout(Some(SLICE))?;
            Ok(theirs)
        };
        let theirs =
            greet(&mut stream).with_context(|| format!("{peer} does not answer as an ibex would"))?;
        ensure!(theirs == GREETING, "{peer} is not an ibex of this version");
        let shared = Arc::new(Shared {
            stream,
            writing: Mutex::new(()),
            peer,
            closed: AtomicBool::new(false),
            reason: Mutex::new(None),
            born: Instant::now(),
            ticked: AtomicU64::new(0),
        });
        let (deliver, incoming) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let reader = Arc::clone(&shared);
        let heart = Arc::clone(&shared);
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(body).context("cannot start a thread")
        };
        let threads = vec![
            spawn("control-reader", Box::new(move || reader.read_all(&deliver)))?,
            spawn("control-heart", Box::new(move || heart.beat(&stopped)))?,
        ];
        Ok(Self { shared, incoming, threads, stop: Some(stop) })
    }

    /// The peer, for messages.
    pub(crate) fn peer(&self) -> &str {
        &self.shared.peer
    }

    /// The address this side of the connection uses.
    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        self.shared.stream.local_addr().context("the control connection has no local address")
    }

    /// The peer's address.
    pub(crate) fn peer_addr(&self) -> Result<SocketAddr> {
        self.shared.stream.peer_addr().context("the control connection has no peer address")
    }

    /// A sign of life of the owner; heartbeats depend on it. Called at every bounded step of long work.
    pub(crate) fn tick(&self) {
        self.shared.ticked.store(self.shared.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is closed.
    pub(crate) fn send(&self, message: &impl Serialize) -> Result<()> {
        let body = serde_json::to_vec(message).context("cannot express a message as JSON")?;
        ensure!(body.len() <= MAX_FRAME, "a control message of {} bytes is too long", body.len());
        self.tick();
        self.alive()?;
        // What is written is the peer's, even if it closes right after reading it.
        if self.shared.write_frame(&body) { Ok(()) } else { Err(self.gone()) }
    }

    /// The next message, waiting at most `limit`; `None` when none came.
    ///
    /// # Errors
    /// When the connection is closed and every message before that was taken, or the message is malformed.
    pub(crate) fn recv<T: DeserializeOwned>(&self, limit: Duration) -> Result<Option<T>> {
        self.tick();
        let frame = match self.incoming.recv_timeout(limit) {
            Ok(frame) => frame,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
        };
        let message = serde_json::from_slice(&frame)
            .with_context(|| format!("{} sent a message that is not understood", self.peer()))?;
        Ok(Some(message))
    }

    /// The next message, which must come within `limit`.
    pub(crate) fn expect<T: DeserializeOwned>(&self, limit: Duration) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(message) = self.recv(left.min(SLICE))? {
                return Ok(message);
            }
            ensure!(!left.is_zero(), "{} did not answer within {} s", self.peer(), limit.as_secs());
        }
    }

    /// Fails when the peer is gone. One atomic load: cheap enough for a spin loop.
    pub(crate) fn alive(&self) -> Result<()> {
        if self.shared.closed.load(Ordering::Acquire) { Err(self.gone()) } else { Ok(()) }
    }

    fn gone(&self) -> anyhow::Error {
        let reason = lock(&self.shared.reason).clone();
        anyhow::Error::new(PeerGone {
            peer: self.shared.peer.clone(),
            reason: reason.unwrap_or_else(|| "the connection is closed".to_owned()),
        })
    }
}

/// The peer ended, was killed, or stopped answering.
#[derive(Debug)]
pub(crate) struct PeerGone {
    peer: String,
    reason: String,
}

impl std::fmt::Display for PeerGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lost the peer {}: {}", self.peer, self.reason)
    }
}

impl std::error::Error for PeerGone {}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.close("closed on this side".to_owned());
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Notes the first reason and unblocks everyone.
    fn close(&self, reason: String) {
        lock(&self.reason).get_or_insert(reason);
        self.closed.store(true, Ordering::Release);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn write_frame(&self, body: &[u8]) -> bool {
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(body);
        let _writing = lock(&self.writing);
        match (&self.stream).write_all(&frame) {
            Ok(()) => true,
            Err(error) => {
                // Part of the frame may be out: nothing sent later would be understood.
                self.close(explain(&error));
                false
            }
        }
    }

    fn read_all(&self, deliver: &Sender<Vec<u8>>) {
        let mut buffer = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        let mut heard = Instant::now();
        while !self.closed.load(Ordering::Acquire) {
            match (&self.stream).read(&mut chunk) {
                Ok(0) => return self.close("it ended or was killed".to_owned()),
                Ok(count) => {
                    heard = Instant::now();
                    buffer.extend_from_slice(&chunk[..count]);
                    if let Err(error) = split(&mut buffer, deliver) {
                        return self.close(error.to_string());
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if heard.elapsed() > SILENCE {
                        return self.close(format!("it has been silent for {} s", SILENCE.as_secs()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.close(explain(&error)),
            }
        }
    }

    fn beat(&self, stopped: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(HEARTBEAT) {
            let ticked = Duration::from_millis(self.ticked.load(Ordering::Relaxed));
            if self.born.elapsed().saturating_sub(ticked) < STUCK {
                self.write_frame(&[]);
            }
        }
    }
}

/// Hands complete frames over and keeps the rest.
fn split(buffer: &mut Vec<u8>, deliver: &Sender<Vec<u8>>) -> Result<()> {
    let mut at = 0;
    while let Some(head) = buffer[at..].first_chunk::<4>() {
        let length = u32::from_le_bytes(*head) as usize;
        ensure!(length <= MAX_FRAME, "it sent a control message of {length} bytes");
        let Some(body) = buffer.get(at + 4..at + 4 + length) else { break };
        if length > 0 {
            // The owner may have gone; then nobody needs it.
            let _ = deliver.send(body.to_vec());
        }
        at += 4 + length;
    }
    buffer.drain(..at);
    Ok(())
}

fn explain(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            "it ended or was killed".to_owned()
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "it has stopped reading".to_owned(),
        _ => error.to_string(),
    }
}

/// A poisoned lock guards nothing that a panic could have left half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Control, Control) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let far = std::thread::spawn(move || {
            let (stream, from) = listener.accept().unwrap();
            Control::accept(stream, from).unwrap()
        });
        (Control::connect(&address).unwrap(), far.join().unwrap())
    }

    #[test]
    fn messages_arrive_in_order() {
        let (near, far) = pair();
        for number in 0..1000_u32 {
            near.send(&number).unwrap();
        }
        for number in 0..1000_u32 {
            assert_eq!(far.expect::<u32>(Duration::from_secs(5)).unwrap(), number);
        }
        assert_eq!(far.recv::<u32>(Duration::from_millis(1)).unwrap(), None);
    }

    #[test]
    fn a_closed_peer_is_noticed_and_what_it_said_before_is_kept() {
        let (near, far) = pair();
        near.send(&"last words").unwrap();
        drop(near);
        assert_eq!(far.expect::<String>(Duration::from_secs(5)).unwrap(), "last words");
        let error = far.expect::<String>(Duration::from_secs(5)).unwrap_err();
        assert!(error.is::<PeerGone>(), "{error}");
        assert!(far.alive().is_err());
    }

    #[test]
    fn an_oversized_frame_closes_the_connection() {
        let (near, far) = pair();
        (&near.shared.stream).write_all(&u32::MAX.to_le_bytes()).unwrap();
        let error = far.expect::<String>(Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("control message of"), "{error}");
    }

    #[test]
    fn another_service_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let far = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
            let _ = stream.read(&mut [0; 64]);
        });
        let error = Control::connect(&address).unwrap_err();
        assert!(error.to_string().contains("not an ibex"), "{error}");
        far.join().unwrap();
    }
}
