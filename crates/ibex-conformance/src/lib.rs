//! One test suite for every RDMA provider.
