//! Every verb of the data path and of object life, as an unsafe function with its contract.
#![allow(unsafe_code)]
