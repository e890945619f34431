//! Acknowledge extended transport header and its syndrome (IBTA 9.5.1, 9.7.5).
//!
//! Owns the coding of acknowledgements, negative ones and receiver-not-ready timers. What each does to a queue pair
//! is `ibex-proto`'s.

use core::fmt;

use crate::header::{field, header};

/// The acknowledge header.
///
/// ```text
/// 0 syndrome │ 1–3 message sequence number
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aeth {
    /// What is being said.
    pub syndrome: Syndrome,
    /// Messages the responder has completed, modulo 2^24.
    pub msn: u32,
}

impl Aeth {
    /// Bytes on the wire.
    pub const LEN: usize = 4;

    /// Reads a header.
    #[inline]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Aeth {
        let word = u32::from_be_bytes(field(bytes, 0));
        Aeth { syndrome: Syndrome::from_byte(bytes[0]), msn: word & 0xff_ffff }
    }

    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::LEN]) {
        *out = (u32::from(self.syndrome.to_byte()) << 24 | self.msn & 0xff_ffff).to_be_bytes();
    }
}

header!(Aeth);

/// The first byte of an [`Aeth`]: bits 5–6 choose the kind, bits 0–4 are its value. Bit 7 is reserved and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Syndrome {
    /// Positive; the value is a credit count, 31 meaning "no end-to-end flow control".
    Ack {
        /// 0 to 31.
        credits: u8,
    },
    /// The receiver had no buffer; retry after the timer.
    RnrNak {
        /// Index into [`RNR_TIMER_NS`].
        timer: u8,
    },
    /// Negative.
    Nak(NakCode),
    /// The kind that is not defined.
    Reserved(u8),
}

impl Syndrome {
    /// A positive acknowledgement without credits, as devices that need no end-to-end flow control send it.
    pub const ACK: Syndrome = Syndrome::Ack { credits: 31 };

    /// Decodes; every byte has a meaning.
    #[inline]
    pub const fn from_byte(byte: u8) -> Syndrome {
        let value = byte & 0x1f;
        match byte >> 5 & 3 {
            0 => Syndrome::Ack { credits: value },
            1 => Syndrome::RnrNak { timer: value },
            3 => Syndrome::Nak(NakCode(value)),
            _ => Syndrome::Reserved(value),
        }
    }

    /// Encodes; values are cut to five bits.
    #[inline]
    pub const fn to_byte(self) -> u8 {
        match self {
            Syndrome::Ack { credits } => credits & 0x1f,
            Syndrome::RnrNak { timer } => 1 << 5 | timer & 0x1f,
            Syndrome::Reserved(value) => 2 << 5 | value & 0x1f,
            Syndrome::Nak(code) => 3 << 5 | code.0 & 0x1f,
        }
    }
}

/// Why a request was refused, 5 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NakCode(pub u8);

impl NakCode {
    /// The packet's PSN is not the next one; send again from the one named.
    pub const PSN_SEQUENCE: NakCode = NakCode(0);
    /// The request is malformed, out of order, too long or not supported.
    pub const INVALID_REQUEST: NakCode = NakCode(1);
    /// The key, its rights or its bounds do not allow the access.
    pub const REMOTE_ACCESS: NakCode = NakCode(2);
    /// The responder failed through no fault of the request.
    pub const REMOTE_OPERATIONAL: NakCode = NakCode(3);
    /// Reliable datagram only.
    pub const INVALID_RD_REQUEST: NakCode = NakCode(4);
}

impl fmt::Debug for NakCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            NakCode::PSN_SEQUENCE => "PSN_SEQUENCE",
            NakCode::INVALID_REQUEST => "INVALID_REQUEST",
            NakCode::REMOTE_ACCESS => "REMOTE_ACCESS",
            NakCode::REMOTE_OPERATIONAL => "REMOTE_OPERATIONAL",
            NakCode::INVALID_RD_REQUEST => "INVALID_RD_REQUEST",
            NakCode(code) => return write!(f, "NakCode({code})"),
        };
        f.write_str(name)
    }
}

/// Nanoseconds of each receiver-not-ready timer code (IBTA table 45). Code 0 is the longest.
pub const RNR_TIMER_NS: [u64; 32] = {
    // The table of the specification, in units of 10 microseconds.
    const UNITS: [u64; 32] = [
        65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
        3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
    ];
    let mut table = [0; 32];
    let mut code = 0;
    while code < 32 {
        table[code] = UNITS[code] * 10_000;
        code += 1;
    }
    table
};

/// Nanoseconds of a receiver-not-ready timer code; only its low five bits count.
#[inline]
pub const fn rnr_timer_ns(code: u8) -> u64 {
    RNR_TIMER_NS[(code & 0x1f) as usize]
}

/// The code of the shortest timer that is at least `ns` long; the longest there is (code 0) beyond 491.52 ms.
pub const fn rnr_timer_code(ns: u64) -> u8 {
    let mut code = 1;
    while code < 32 {
        if RNR_TIMER_NS[code as usize] >= ns {
            return code;
        }
        code += 1;
    }
    0
}
