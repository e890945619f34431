//! libibverbs.so.1 and librdmacm.so.1 served by the software device.
