//! The software RDMA device behind the C ABI of libibverbs.

pub mod abi;
mod cq;
mod device;
mod event;
mod memory;
mod mr;
mod net;
mod nic;
mod os;
mod qp;

pub use abi::verbs;
