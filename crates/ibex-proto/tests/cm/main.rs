//! Connection management, one scenario after the other: two engines, every datagram delivered or dropped by hand.

mod answers;
mod ends;
mod handshake;
mod hostile;
mod kernel;
mod repeats;
mod sidr;
mod states;
mod util;
