//! One process, two queue pairs: SEND of 64 bytes from the post to the completions of both sides.

use std::time::Instant;

use crate::end::{self, Idle, Piece};
use crate::pattern::{Way, word};
use crate::{Amount, Figures, Result, median};

const BYTES: usize = 64;
const WORDS: usize = BYTES / 8;
/// Messages of a batch, for which receives are posted together.
const BATCH: usize = 64;

/// Microseconds a message, one at a time.
pub(crate) fn measure(amount: Amount) -> Result<Figures> {
    let (context, pd) = end::open()?;
    let bytes = BATCH * BYTES;
    let (mut a, mut b) = end::couple(Idle::new(&context, &pd, bytes)?, Idle::new(&context, &pd, bytes)?)?;
    let mut times = Vec::new();
    let mut errors = 0_u64;
    for batch in 0..amount.batches {
        for at in 0..BATCH * WORDS {
            a.region.store_u64(8 * at, word(Way::There, batch, at as u64))?;
        }
        let start = Instant::now();
        b.receive_many(0, BATCH, BYTES as u32, BYTES)?;
        for i in 0..BATCH {
            a.send(&[Piece { at: (i * BYTES) as u64, len: BYTES as u32, to: 0 }])?;
            let arrival = b.await_arrival()?;
            errors += u64::from(arrival.at != i * BYTES || arrival.len != BYTES as u32);
            a.poll()?;
        }
        times.push(start.elapsed().as_secs_f64() * 1e6 / BATCH as f64);
        for at in 0..BATCH * WORDS {
            errors += u64::from(b.region.load_u64(8 * at)? != word(Way::There, batch, at as u64));
        }
    }
    let mut figures = Figures::new();
    figures.insert("send_64_us".to_owned(), median(&times).into());
    figures.insert("errors".to_owned(), errors.into());
    Ok(figures)
}
