//! `ibex serve` and `ibex cp`: files and directories by one-sided operations.
//!
//! The two sides hold a control connection (`crate::control`) and a queue pair. The serving side exposes a window of slots;
//! the client READs from it to download and WRITEs into it to upload. Through the window goes one stream of records
//! (`record`): what there is, then the contents the receiver asked for. Layers, top down:
//!
//! - `client`, `server`: the two commands; `progress`: what the user sees; `location`: `HOST:PATH`
//! - `sender`, `receiver`, `decide`: the protocol; `message`, `record`: its encoding
//! - `place`, `walk`, `tree`, `path`: names, and that none leads astray; `part`, `finish`: files being received
//! - `window`: the seam to the device; `rdma`: the device behind it

mod client;
mod decide;
mod finish;
mod location;
mod message;
mod part;
mod path;
mod place;
mod progress;
mod rdma;
mod receiver;
mod record;
mod sender;
mod server;
mod tree;
mod walk;
mod watch;
mod window;

#[cfg(test)]
mod scratch;
#[cfg(test)]
mod tests;

pub(crate) use client::run as cp;
pub(crate) use server::{listen, run as serve};
