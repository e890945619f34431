//! Opcodes: the transport service, the operation, the position in a message, and which headers follow (IBTA 9.2.1).
//!
//! One table, built at compile time, answers every question; unknown values stay representable.

use core::fmt;

use crate::{Aeth, AtomicAckEth, AtomicEth, Bth, Deth, Ieth, ImmDt, Reth};

/// The first byte of a packet: three bits of service, five of operation. Any value can be held; see
/// [`Opcode::is_known`].
///
/// The opcodes known, with the bytes from BTH to the payload and what lies there after BTH, in this order:
///
/// ```text
#[doc = include_str!("opcodes.txt")]
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

/// The transport service an opcode belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Service {
    /// Reliable connection.
    Rc,
    /// Unreliable connection.
    Uc,
    /// Reliable datagram; no opcode of it is known here.
    Rd,
    /// Unreliable datagram.
    Ud,
    /// Congestion notification and what else lies outside the services above.
    Other,
}

/// Where in its message a packet stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Position {
    /// The first of several.
    First,
    /// Neither first nor last.
    Middle,
    /// The last of several.
    Last,
    /// The whole message.
    Only,
}

/// What is known of an opcode; all zero for an unknown one.
#[derive(Clone, Copy)]
struct Traits {
    flags: u16,
    /// Bytes from the start of BTH to the payload.
    header_len: u8,
}

const KNOWN: u16 = 1 << 0;
const FIRST: u16 = 1 << 1;
const LAST: u16 = 1 << 2;
const PAYLOAD: u16 = 1 << 3;
const REQUEST: u16 = 1 << 4;
const RETH: u16 = 1 << 5;
const AETH: u16 = 1 << 6;
const ATOMIC_ETH: u16 = 1 << 7;
const ATOMIC_ACK: u16 = 1 << 8;
const IMM: u16 = 1 << 9;
const IETH: u16 = 1 << 10;
const DETH: u16 = 1 << 11;
const SEND: u16 = 1 << 12;
const WRITE: u16 = 1 << 13;
const READ_RESPONSE: u16 = 1 << 14;

const ONLY: u16 = FIRST | LAST;

const fn header_len(flags: u16) -> usize {
    let mut len = Bth::LEN;
    let optional = [
        (DETH, Deth::LEN),
        (RETH, Reth::LEN),
        (ATOMIC_ETH, AtomicEth::LEN),
        (AETH, Aeth::LEN),
        (ATOMIC_ACK, AtomicAckEth::LEN),
        (IMM, ImmDt::LEN),
        (IETH, Ieth::LEN),
    ];
    let mut i = 0;
    while i < optional.len() {
        if flags & optional[i].0 != 0 {
            len += optional[i].1;
        }
        i += 1;
    }
    len
}

static TABLE: [Traits; 256] = {
    let mut table = [Traits { flags: 0, header_len: 0 }; 256];
    const S: u16 = REQUEST | SEND | PAYLOAD;
    const W: u16 = REQUEST | WRITE | PAYLOAD;
    const R: u16 = READ_RESPONSE | PAYLOAD;
    let rows = [
        (Opcode::RC_SEND_FIRST, S | FIRST),
        (Opcode::RC_SEND_MIDDLE, S),
        (Opcode::RC_SEND_LAST, S | LAST),
        (Opcode::RC_SEND_LAST_IMM, S | LAST | IMM),
        (Opcode::RC_SEND_ONLY, S | ONLY),
        (Opcode::RC_SEND_ONLY_IMM, S | ONLY | IMM),
        (Opcode::RC_WRITE_FIRST, W | FIRST | RETH),
        (Opcode::RC_WRITE_MIDDLE, W),
        (Opcode::RC_WRITE_LAST, W | LAST),
        (Opcode::RC_WRITE_LAST_IMM, W | LAST | IMM),
        (Opcode::RC_WRITE_ONLY, W | ONLY | RETH),
        (Opcode::RC_WRITE_ONLY_IMM, W | ONLY | RETH | IMM),
        (Opcode::RC_READ_REQUEST, REQUEST | ONLY | RETH),
        (Opcode::RC_READ_RESPONSE_FIRST, R | FIRST | AETH),
        (Opcode::RC_READ_RESPONSE_MIDDLE, R),
        (Opcode::RC_READ_RESPONSE_LAST, R | LAST | AETH),
        (Opcode::RC_READ_RESPONSE_ONLY, R | ONLY | AETH),
        (Opcode::RC_ACK, ONLY | AETH),
        (Opcode::RC_ATOMIC_ACK, ONLY | AETH | ATOMIC_ACK),
        (Opcode::RC_COMPARE_SWAP, REQUEST | ONLY | ATOMIC_ETH),
        (Opcode::RC_FETCH_ADD, REQUEST | ONLY | ATOMIC_ETH),
        (Opcode::RC_SEND_LAST_INV, S | LAST | IETH),
        (Opcode::RC_SEND_ONLY_INV, S | ONLY | IETH),
        (Opcode::UC_SEND_FIRST, S | FIRST),
        (Opcode::UC_SEND_MIDDLE, S),
        (Opcode::UC_SEND_LAST, S | LAST),
        (Opcode::UC_SEND_LAST_IMM, S | LAST | IMM),
        (Opcode::UC_SEND_ONLY, S | ONLY),
        (Opcode::UC_SEND_ONLY_IMM, S | ONLY | IMM),
        (Opcode::UC_WRITE_FIRST, W | FIRST | RETH),
        (Opcode::UC_WRITE_MIDDLE, W),
        (Opcode::UC_WRITE_LAST, W | LAST),
        (Opcode::UC_WRITE_LAST_IMM, W | LAST | IMM),
        (Opcode::UC_WRITE_ONLY, W | ONLY | RETH),
        (Opcode::UC_WRITE_ONLY_IMM, W | ONLY | RETH | IMM),
        (Opcode::UD_SEND_ONLY, S | ONLY | DETH),
        (Opcode::UD_SEND_ONLY_IMM, S | ONLY | DETH | IMM),
    ];
    let mut i = 0;
    while i < rows.len() {
        let (opcode, flags) = rows[i];
        table[opcode.0 as usize] = Traits { flags: flags | KNOWN, header_len: header_len(flags) as u8 };
        i += 1;
    }
    table
};

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        #[allow(missing_docs, reason = "the names are the documentation")]
        impl Opcode {
            $($(#[$doc])* pub const $name: Opcode = Opcode($value);)*

            /// The constants' names, for tables and tests.
            pub const ALL: &[(Opcode, &str)] = &[$((Opcode::$name, stringify!($name)),)*];
        }
    };
}

opcodes! {
    RC_SEND_FIRST = 0x00;
    RC_SEND_MIDDLE = 0x01;
    RC_SEND_LAST = 0x02;
    RC_SEND_LAST_IMM = 0x03;
    RC_SEND_ONLY = 0x04;
    RC_SEND_ONLY_IMM = 0x05;
    RC_WRITE_FIRST = 0x06;
    RC_WRITE_MIDDLE = 0x07;
    RC_WRITE_LAST = 0x08;
    RC_WRITE_LAST_IMM = 0x09;
    RC_WRITE_ONLY = 0x0a;
    RC_WRITE_ONLY_IMM = 0x0b;
    RC_READ_REQUEST = 0x0c;
    RC_READ_RESPONSE_FIRST = 0x0d;
    RC_READ_RESPONSE_MIDDLE = 0x0e;
    RC_READ_RESPONSE_LAST = 0x0f;
    RC_READ_RESPONSE_ONLY = 0x10;
    RC_ACK = 0x11;
    RC_ATOMIC_ACK = 0x12;
    RC_COMPARE_SWAP = 0x13;
    RC_FETCH_ADD = 0x14;
    RC_SEND_LAST_INV = 0x16;
    RC_SEND_ONLY_INV = 0x17;
    UC_SEND_FIRST = 0x20;
    UC_SEND_MIDDLE = 0x21;
    UC_SEND_LAST = 0x22;
    UC_SEND_LAST_IMM = 0x23;
    UC_SEND_ONLY = 0x24;
    UC_SEND_ONLY_IMM = 0x25;
    UC_WRITE_FIRST = 0x26;
    UC_WRITE_MIDDLE = 0x27;
    UC_WRITE_LAST = 0x28;
    UC_WRITE_LAST_IMM = 0x29;
    UC_WRITE_ONLY = 0x2a;
    UC_WRITE_ONLY_IMM = 0x2b;
    UD_SEND_ONLY = 0x64;
    UD_SEND_ONLY_IMM = 0x65;
}

impl Opcode {
    #[inline(always)]
    fn traits(self) -> Traits {
        TABLE[self.0 as usize]
    }

    #[inline(always)]
    fn has(self, flag: u16) -> bool {
        self.traits().flags & flag != 0
    }

    /// Whether this crate knows the opcode; the questions below answer "no" for those it does not.
    #[inline]
    pub fn is_known(self) -> bool {
        self.has(KNOWN)
    }

    /// The service, from the top three bits.
    pub const fn service(self) -> Service {
        match self.0 >> 5 {
            0 => Service::Rc,
            1 => Service::Uc,
            2 => Service::Rd,
            3 => Service::Ud,
            _ => Service::Other,
        }
    }

    /// Bytes from the start of BTH to the payload; 0 for an unknown opcode.
    #[inline]
    pub fn header_len(self) -> usize {
        self.traits().header_len as usize
    }

    /// First, middle, last or only packet of its message.
    pub fn position(self) -> Position {
        match (self.has(FIRST), self.has(LAST)) {
            (true, true) => Position::Only,
            (true, false) => Position::First,
            (false, true) => Position::Last,
            (false, false) => Position::Middle,
        }
    }

    /// First or only packet of its message.
    #[inline]
    pub fn starts_message(self) -> bool {
        self.has(FIRST)
    }

    /// Last or only packet of its message.
    #[inline]
    pub fn ends_message(self) -> bool {
        self.has(LAST)
    }

    /// From requester to responder; the others are responses.
    #[inline]
    pub fn is_request(self) -> bool {
        self.has(REQUEST)
    }

    /// A packet of a SEND.
    #[inline]
    pub fn is_send(self) -> bool {
        self.has(SEND)
    }

    /// A packet of a WRITE.
    #[inline]
    pub fn is_write(self) -> bool {
        self.has(WRITE)
    }

    /// A packet of a READ's response.
    #[inline]
    pub fn is_read_response(self) -> bool {
        self.has(READ_RESPONSE)
    }

    /// A compare-and-swap or fetch-and-add request.
    #[inline]
    pub fn is_atomic(self) -> bool {
        self.has(ATOMIC_ETH)
    }

    /// May carry payload; the others must not.
    #[inline]
    pub fn has_payload(self) -> bool {
        self.has(PAYLOAD)
    }

    /// A [`Reth`] follows.
    #[inline]
    pub fn has_reth(self) -> bool {
        self.has(RETH)
    }

    /// An [`Aeth`] follows.
    #[inline]
    pub fn has_aeth(self) -> bool {
        self.has(AETH)
    }

    /// An [`AtomicEth`] follows.
    #[inline]
    pub fn has_atomic_eth(self) -> bool {
        self.has(ATOMIC_ETH)
    }

    /// An [`AtomicAckEth`] follows.
    #[inline]
    pub fn has_atomic_ack_eth(self) -> bool {
        self.has(ATOMIC_ACK)
    }

    /// An [`ImmDt`] follows.
    #[inline]
    pub fn has_imm(self) -> bool {
        self.has(IMM)
    }

    /// An [`Ieth`] follows.
    #[inline]
    pub fn has_ieth(self) -> bool {
        self.has(IETH)
    }

    /// A [`Deth`] follows.
    #[inline]
    pub fn has_deth(self) -> bool {
        self.has(DETH)
    }
}

impl fmt::Debug for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Opcode::ALL.iter().find(|(opcode, _)| opcode == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "Opcode({:#04x})", self.0),
        }
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
