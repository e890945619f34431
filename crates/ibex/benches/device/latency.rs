//! Round trips of 64 bytes: by WRITE and a look at memory, by SEND, and by UDP.
//!
//! Messages come in batches. A batch's payloads are made before its first message and compared after its last, and its
//! clock starts with its second message, when both sides have done that; so only posting, polling and moving is measured.
//! Batches use the two halves of the memory in turn: one half is compared while the other is in use.

use std::net::UdpSocket;
use std::time::Instant;

use crate::end::{self, End, Piece};
use crate::pattern::{Way, word};
use crate::peer::{Peer, Role};
use crate::{Amount, Measured, Result, median};

/// Bytes of a message.
const BYTES: usize = 64;
const WORDS: usize = BYTES / 8;
/// Messages of a batch.
const BATCH: usize = 64;
/// Bytes of a batch.
const HALF: usize = BATCH * BYTES;
/// What arrives lies behind what is sent, a half for even batches and one for odd ones.
const ARRIVALS: usize = 2 * HALF;

/// Half a round trip by WRITE, both sides spinning on memory, in µs.
pub(crate) fn write(peer: &mut Peer, amount: Amount) -> Result<Measured> {
    let mut end = end::meet(peer, ARRIVALS + 2 * HALF)?;
    let mut batches = Batches::new(peer.role);
    for batch in 0..amount.batches {
        batches.fill(&end, batch)?;
        batches.run(batch, |step, i| {
            let half = (batch % 2) as usize * HALF;
            let place = half + i * BYTES;
            match step {
                Step::Give => {
                    let to = (ARRIVALS + place) as u64;
                    end.write(&[Piece { at: place as u64, len: BYTES as u32, to }])
                }
                Step::Take(last) => end.await_word(ARRIVALS + place + BYTES - 8, last),
            }
        })?;
        batches.check(&end, batch)?;
        // Nothing that arrives here completes here: what was sent does, and its room is needed.
        while end.outstanding() > u64::from(end::DEPTH / 2) {
            end.poll()?;
        }
    }
    peer.meet()?;
    Ok(batches.half_trip())
}

/// Half a round trip by SEND, in µs.
pub(crate) fn send(peer: &mut Peer, amount: Amount) -> Result<Measured> {
    let mut end = end::meet(peer, ARRIVALS + 2 * HALF)?;
    end.receive_many(ARRIVALS, 2 * BATCH, BYTES as u32, BYTES)?;
    peer.meet()?;
    let mut batches = Batches::new(peer.role);
    for batch in 0..amount.batches {
        batches.exchange(&mut end, batch)?;
    }
    peer.meet()?;
    Ok(batches.half_trip())
}

/// Whole round trips by SEND and by UDP, in turns, in µs.
pub(crate) fn send_and_udp(peer: &mut Peer, amount: Amount) -> Result<(Measured, Measured)> {
    let mut end = end::meet(peer, ARRIVALS + 2 * HALF)?;
    end.receive_many(ARRIVALS, 2 * BATCH, BYTES as u32, BYTES)?;
    let mut socket = Socket::connect(peer)?;
    let mut rdma = Batches::new(peer.role);
    let mut udp = Batches::new(peer.role);
    for batch in 0..amount.batches {
        rdma.exchange(&mut end, batch)?;
        udp.over(&mut socket, batch)?;
    }
    peer.meet()?;
    let twice = |half: Measured| Measured { value: 2.0 * half.value, ..half };
    Ok((twice(rdma.half_trip()), twice(udp.half_trip())))
}

/// A step of a message.
enum Step {
    /// Send message `i`.
    Give,
    /// Wait for the peer's message `i`, whose last word is this.
    Take(u64),
}

/// The batches of one measurement.
struct Batches {
    role: Role,
    /// Microseconds of half a round trip, a batch each.
    times: Vec<f64>,
    errors: u64,
}

impl Batches {
    fn new(role: Role) -> Self {
        Self { role, times: Vec::new(), errors: 0 }
    }

    /// The way of what this side sends, and of what it receives.
    fn ways(&self) -> (Way, Way) {
        match self.role {
            Role::Asking => (Way::There, Way::Back),
            Role::Answering => (Way::Back, Way::There),
        }
    }

    /// The words of message `i` of a batch.
    fn words(way: Way, batch: u64, i: usize) -> [u64; WORDS] {
        std::array::from_fn(|place| word(way, batch * BATCH as u64 + i as u64, place as u64))
    }

    /// Makes the payloads that this side sends.
    fn fill(&self, end: &End, batch: u64) -> Result<()> {
        let half = (batch % 2) as usize * HALF;
        for i in 0..BATCH {
            for (place, word) in Self::words(self.ways().0, batch, i).into_iter().enumerate() {
                end.region.store_u64(half + i * BYTES + 8 * place, word)?;
            }
        }
        Ok(())
    }

    /// Compares what has come.
    fn check(&mut self, end: &End, batch: u64) -> Result<()> {
        let half = ARRIVALS + (batch % 2) as usize * HALF;
        for i in 0..BATCH {
            let expected = Self::words(self.ways().1, batch, i);
            for (place, word) in expected.into_iter().enumerate() {
                if end.region.load_u64(half + i * BYTES + 8 * place)? != word {
                    self.errors += 1;
                    break;
                }
            }
        }
        Ok(())
    }

    /// One batch of messages there and back.
    fn run(&mut self, batch: u64, mut step: impl FnMut(Step, usize) -> Result<()>) -> Result<()> {
        let (_, theirs) = self.ways();
        let last = |i: usize| word(theirs, batch * BATCH as u64 + i as u64, WORDS as u64 - 1);
        let mut start = Instant::now();
        for i in 0..BATCH {
            if i == 1 {
                start = Instant::now();
            }
            if self.role == Role::Asking {
                step(Step::Give, i)?;
                step(Step::Take(last(i)), i)?;
            } else {
                step(Step::Take(last(i)), i)?;
                step(Step::Give, i)?;
            }
        }
        self.times.push(start.elapsed().as_secs_f64() * 1e6 / (2 * (BATCH - 1)) as f64);
        Ok(())
    }

    /// One batch by SEND. Receives are posted again for the batch after the next.
    fn exchange(&mut self, end: &mut End, batch: u64) -> Result<()> {
        let half = (batch % 2) as usize * HALF;
        self.fill(end, batch)?;
        let mut strays = 0;
        self.run(batch, |step, i| match step {
            Step::Give => end.send(&[Piece { at: (half + i * BYTES) as u64, len: BYTES as u32, to: 0 }]),
            Step::Take(_) => {
                let arrival = end.await_arrival()?;
                strays += u64::from(arrival.at != ARRIVALS + half + i * BYTES || arrival.len != BYTES as u32);
                Ok(())
            }
        })?;
        self.errors += strays;
        self.check(end, batch)?;
        end.receive_many(ARRIVALS + half, BATCH, BYTES as u32, BYTES)
    }

    /// One batch by UDP.
    fn over(&mut self, socket: &mut Socket, batch: u64) -> Result<()> {
        let bytes = |way, i| -> Vec<u8> {
            Self::words(way, batch, i).into_iter().flat_map(u64::to_ne_bytes).collect()
        };
        let (ours, theirs) = self.ways();
        let sent: Vec<Vec<u8>> = (0..BATCH).map(|i| bytes(ours, i)).collect();
        let mut got = vec![[0; BYTES]; BATCH];
        self.run(batch, |step, i| match step {
            Step::Give => socket.send(&sent[i]),
            Step::Take(_) => socket.receive(&mut got[i]),
        })?;
        self.errors += (0..BATCH).filter(|&i| got[i][..] != bytes(theirs, i)[..]).count() as u64;
        Ok(())
    }

    fn half_trip(self) -> Measured {
        Measured { value: median(&self.times), errors: self.errors }
    }
}

/// The reference: a connected UDP socket that never sleeps.
struct Socket(UdpSocket);

impl Socket {
    fn connect(peer: &mut Peer) -> Result<Socket> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        let port = peer.exchange(&socket.local_addr()?.port().to_le_bytes())?;
        socket.connect(("127.0.0.1", u16::from_le_bytes(port.as_slice().try_into()?)))?;
        socket.set_nonblocking(true)?;
        peer.meet()?;
        Ok(Socket(socket))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        // Loopback with one message under way: there is always room.
        self.0.send(bytes)?;
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8]) -> Result<()> {
        loop {
            match self.0.recv(into) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
