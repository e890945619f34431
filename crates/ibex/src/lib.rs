//! RDMA for Rust: sound verbs over any device, and a software device where there is none.
