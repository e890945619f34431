//! Counters of the wire link: relaxed atomics, read as one [`Snapshot`].
//!
//! They are hints for people and tests, not for decisions; values read together need not be of one
//! instant.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The live counters, shared by all threads of a link.
        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)+ }

        /// The counters of a link, read once.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct Snapshot {
            $($(#[$doc])* pub(crate) $name: u64,)+
            /// Datagrams the kernel dropped because a receive buffer of this process was full.
            pub(crate) rx_overflow: u64,
        }

        impl Counters {
            pub(super) fn snapshot(&self, rx_overflow: u64) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)+ rx_overflow }
            }
        }
    };
}

counters! {
    /// Packets given to the network, after faults were applied.
    tx_packets,
    /// Their bytes, BTH to ICRC.
    tx_bytes,
    /// System calls that carried more than one packet.
    tx_gso_batches,
    /// Packets that could not be sent: full socket buffers, no route, nobody owns the slot.
    tx_dropped,
    /// Packets sent through memory shared with their receiver.
    tx_via_host,
    /// Packets sent over a slot socket because the peer's own port was not known yet.
    tx_via_slot,
    /// Packets lost, doubled or delayed on purpose.
    tx_faults,
    /// Packets from sockets handed to the transport.
    rx_packets,
    /// Their bytes, BTH to ICRC.
    rx_bytes,
    /// Packets with a wrong ICRC, dropped.
    rx_bad_icrc,
    /// Datagrams that are no RoCE packet: too short, not a multiple of four, or a bad forward header.
    rx_malformed,
    /// Packets for a slot that is not ours and that nobody owns.
    rx_stray,
    /// Packets accepted although their IP identification had to be guessed.
    rx_guessed_ident,
    /// Packets received through memory shared with their sender, and handed over, too.
    rx_via_host,
    /// Packets the holder passed on to their owner.
    forwarded,
    /// Packets the holder could not pass on.
    forward_dropped,
    /// Times this process became the holder after another had gone.
    takeovers,
    /// Peers attached to through shared memory.
    attached,
    /// The same, gone again.
    detached,
    /// Ports of peers on this address learned.
    learned,
    /// Ports of peers on this address forgotten.
    forgotten,
    /// Devices at other addresses that turned out to be like this one.
    acquainted,
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The same where one thread at a time counts.
    #[inline]
    pub(super) fn add_alone(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
