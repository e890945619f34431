//! The software RDMA device behind the C ABI of libibverbs.
