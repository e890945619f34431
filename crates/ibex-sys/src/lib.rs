//! C types, inline dispatch and run-time loader for libibverbs and librdmacm.
