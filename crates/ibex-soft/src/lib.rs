//! The software RDMA device behind the C ABI of libibverbs.

mod config;

pub use config::{Config, ConfigError, Place};
