//! RoCEv2 packet formats and the invariant CRC.
