//! Messages of 64 bytes a second: SENDs posted in lists, receives posted in lists, completions polled in lists.

use std::time::Instant;

use crate::end::{self, End, LIST, Piece};
use crate::pattern::{Way, word};
use crate::peer::{Peer, Role};
use crate::{Amount, Measured, Result};

const BYTES: usize = 64;
const WORDS: usize = BYTES / 8;
/// Receives posted, and so many places at either side.
const RECEIVES: usize = 512;
/// Sends outstanding at most: less than the receives, so that a receiver that keeps up is never found unready.
const SENDS: u64 = 256;

/// Millions of messages a second, every one of them compared.
pub(crate) fn send(peer: &mut Peer, amount: Amount) -> Result<Measured> {
    let mut end = end::meet(peer, RECEIVES * BYTES)?;
    // The asking side's share of a warm-up comes first.
    let count = amount.messages.next_multiple_of(RECEIVES as u64);
    let measured = match peer.role {
        Role::Asking => {
            peer.meet()?;
            let seconds = asking(&mut end, count)?;
            Measured { value: count as f64 / seconds / 1e6, errors: 0 }
        }
        Role::Answering => {
            end.receive_many(0, RECEIVES, BYTES as u32, BYTES)?;
            peer.meet()?;
            Measured { value: 0.0, errors: answering(&mut end, count)? }
        }
    };
    peer.meet()?;
    Ok(measured)
}

/// Seconds from the first message to the completion of the last.
fn asking(end: &mut End, count: u64) -> Result<f64> {
    let mut list = [Piece::default(); LIST];
    let start = Instant::now();
    for first in (0..count).step_by(LIST) {
        while end.outstanding() > SENDS - LIST as u64 {
            end.poll()?;
        }
        for (i, piece) in list.iter_mut().enumerate() {
            let number = first + i as u64;
            // Twice the outstanding messages have places, so none is changed before it has gone.
            let at = number as usize % RECEIVES * BYTES;
            for place in 0..WORDS {
                end.region.store_u64(at + 8 * place, word(Way::There, number, place as u64))?;
            }
            *piece = Piece { at: at as u64, len: BYTES as u32, to: 0 };
        }
        end.send(&list)?;
        end.poll()?;
    }
    while end.outstanding() > 0 {
        end.poll()?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Receives and compares; the number of wrong messages.
fn answering(end: &mut End, count: u64) -> Result<u64> {
    let mut errors = 0;
    let mut number = 0;
    // Places whose message has been read, to be posted again in lists.
    let mut read = Vec::with_capacity(2 * LIST);
    while number < count {
        end.poll()?;
        for arrival in &end.arrivals {
            let mut good = arrival.len == BYTES as u32;
            for place in 0..WORDS {
                good &=
                    end.region.load_u64(arrival.at + 8 * place)? == word(Way::There, number, place as u64);
            }
            errors += u64::from(!good);
            number += 1;
            read.push(arrival.at);
        }
        if read.len() >= LIST {
            end.receive(read.drain(..LIST), BYTES as u32)?;
        }
    }
    Ok(errors)
}
