//! A local key is not a remote one.
use ibex::{Access, Buf, RemoteHandle};

fn main() {}

fn handle(buf: &Buf) -> RemoteHandle {
    RemoteHandle::from_parts(buf.as_ptr() as u64, buf.len() as u64, buf.lkey(), Access::REMOTE_READ)
}
