//! Bandwidth by WRITE, and memcpy of the same size beside it.
//!
//! A round is many WRITEs over a few places, then a SEND: when it has come, the answering side compares every byte of every
//! place and answers. Each round has other bytes. memcpy moves the same bytes over as many places of the same size
//! within one process, a round of each in turn.

use std::hint::black_box;
use std::time::Instant;

use crate::end::{self, End, Piece};
use crate::pattern::{Way, word};
use crate::peer::{Peer, Role};
use crate::{Amount, Measured, Result, median};

/// Places at either side; with one, a copy would only warm the cache for the next.
const PLACES: usize = 4;
/// WRITEs outstanding at most.
const OUTSTANDING: u64 = 16;
/// Bytes of the message that ends a round.
const NOTE: usize = 8;

/// GB/s of WRITE and of memcpy with messages of `size` bytes.
pub(crate) fn write(peer: &mut Peer, amount: Amount, size: usize) -> Result<(Measured, Measured)> {
    let note = PLACES * size;
    let mut end = end::meet(peer, note + 2 * NOTE)?;
    end.receive([note + NOTE].into_iter(), NOTE as u32)?;
    peer.meet()?;
    let count = amount.round / size as u64;
    let mut errors = 0;
    let (mut writes, mut copies) = (Vec::new(), Vec::new());
    let mut memory = Copies::new(size);
    for round in 0..amount.rounds {
        match peer.role {
            Role::Asking => {
                fill(&end, size, round)?;
                let start = Instant::now();
                for i in 0..count {
                    let at = (i % PLACES as u64) * size as u64;
                    while end.outstanding() >= OUTSTANDING {
                        end.poll()?;
                    }
                    end.write_signalled(Piece { at, len: size as u32, to: at })?;
                }
                while end.outstanding() > 0 {
                    end.poll()?;
                }
                // What the last completion says has reached the peer's memory.
                writes.push(count as f64 * size as f64 / start.elapsed().as_secs_f64() / 1e9);
                tell(&mut end, note)?;
                end.await_arrival()?;
                copies.push(memory.round(count, round));
            }
            Role::Answering => {
                end.await_arrival()?;
                errors += compare(&end, size, round)?;
                tell(&mut end, note)?;
            }
        }
        end.receive([note + NOTE].into_iter(), NOTE as u32)?;
    }
    peer.meet()?;
    Ok((Measured { value: median(&writes), errors }, Measured { value: median(&copies), errors: 0 }))
}

/// The message that ends a round.
fn tell(end: &mut End, note: usize) -> Result<()> {
    end.send(&[Piece { at: note as u64, len: NOTE as u32, to: 0 }])
}

/// The number of a place's bytes in a round.
fn number(round: u64, place: usize) -> u64 {
    round * PLACES as u64 + place as u64
}

fn fill(end: &End, size: usize, round: u64) -> Result<()> {
    for place in 0..PLACES {
        for at in 0..size / 8 {
            end.region.store_u64(place * size + 8 * at, word(Way::There, number(round, place), at as u64))?;
        }
    }
    Ok(())
}

/// How many places have a wrong byte.
fn compare(end: &End, size: usize, round: u64) -> Result<u64> {
    let mut errors = 0;
    for place in 0..PLACES {
        for at in 0..size / 8 {
            if end.region.load_u64(place * size + 8 * at)?
                != word(Way::There, number(round, place), at as u64)
            {
                errors += 1;
                break;
            }
        }
    }
    Ok(errors)
}

/// Memory of the reference.
struct Copies {
    size: usize,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copies {
    fn new(size: usize) -> Self {
        Self { size, from: vec![1; PLACES * size], to: vec![2; PLACES * size] }
    }

    /// GB/s of a round of copies.
    fn round(&mut self, count: u64, round: u64) -> f64 {
        self.from.fill(round as u8);
        let start = Instant::now();
        for i in 0..count {
            let at = (i % PLACES as u64) as usize * self.size;
            let range = at..at + self.size;
            black_box(&mut self.to)[range.clone()].copy_from_slice(&black_box(&self.from)[range]);
        }
        count as f64 * self.size as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}
