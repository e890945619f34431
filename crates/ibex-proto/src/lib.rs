//! RDMA transport state machines without I/O, clock or threads.
