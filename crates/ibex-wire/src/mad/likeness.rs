//! A datagram of a manufacturer's class (IBTA 16.5): whether the other end is a software device of ibex.

use super::body::Body;
use super::{AttrId, BODY_LEN, MAD_LEN, MadHeader};
use crate::header::field;

/// One of the classes that manufacturers use with their number in front (30h to 4Fh).
const CLASS: u8 = 0x3a;

/// Version of what this class means here.
const CLASS_VERSION: u8 = 1;

/// The method of a question.
const GET: u8 = 0x01;

/// The method of its answer.
const GET_RESPONSE: u8 = 0x81;

/// The only attribute.
const LIKENESS: AttrId = AttrId(0x10);

/// Where the manufacturer's number is in the body, behind the header of segmentation, which is 0, and a reserved byte.
const OUI: core::ops::Range<usize> = 13..16;

/// A number that is nobody's: those with bit 1 of the first byte are for local use.
const LOCAL: [u8; 3] = [0x02, 0x49, 0x42];

/// What follows it.
const NAME: [u8; 4] = *b"ibex";

/// A question to whoever answers at an address, or the answer.
///
/// Other devices drop the question, or answer it with a status, which is no answer here.
///
/// ```text
/// 0 header, class 3Ah, Get or GetResp │ 24 segmentation, 0 │ 36 reserved │ 37 number 02-49-42 │ 40 "ibex" │ 44 forms
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Likeness {
    /// Whether it is an answer.
    pub answers: bool,
    /// A number that the question has and its answer repeats.
    pub transaction: u64,
    /// Forms of datagrams of its own that the sender understands, a bit each.
    pub forms: u8,
}

impl Likeness {
    /// Reads a datagram; `None` if it is another one.
    pub fn parse(bytes: &[u8; MAD_LEN]) -> Option<Likeness> {
        let (header, body) = bytes.split_first_chunk::<{ MadHeader::LEN }>()?;
        let header = MadHeader::parse(header);
        let answers = header.method == GET_RESPONSE;
        let known = header.base_version == MadHeader::BASE_VERSION
            && (header.class, header.class_version) == (CLASS, CLASS_VERSION)
            && (answers || header.method == GET)
            && header.status == 0
            && header.attribute == LIKENESS;
        let body: &Body = body.try_into().ok()?;
        let named = body[OUI] == LOCAL && field(body, OUI.end) == NAME;
        let forms = body[OUI.end + NAME.len()];
        (known && named).then_some(Likeness { answers, transaction: header.transaction, forms })
    }

    /// The bytes of the datagram.
    pub fn to_bytes(&self) -> [u8; MAD_LEN] {
        let mut head = [0; MadHeader::LEN];
        let mut body = [0; BODY_LEN];
        MadHeader {
            class: CLASS,
            class_version: CLASS_VERSION,
            method: if self.answers { GET_RESPONSE } else { GET },
            ..MadHeader::cm(LIKENESS, self.transaction)
        }
        .emit(&mut head);
        body[OUI].copy_from_slice(&LOCAL);
        body[OUI.end..][..NAME.len()].copy_from_slice(&NAME);
        body[OUI.end + NAME.len()] = self.forms;
        let mut out = [0; MAD_LEN];
        out[..MadHeader::LEN].copy_from_slice(&head);
        out[MadHeader::LEN..].copy_from_slice(&body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mad;
    use super::*;

    #[test]
    fn questions_and_answers_are_read_as_written_and_stand_where_the_class_has_them() {
        for answers in [false, true] {
            let likeness = Likeness { answers, transaction: 0x0102_0304_0506_0708, forms: 5 };
            let bytes = likeness.to_bytes();
            assert_eq!(Likeness::parse(&bytes), Some(likeness));
            assert_eq!(bytes[..4], [1, 0x3a, 1, if answers { 0x81 } else { 1 }]);
            assert_eq!(bytes[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(bytes[37..45], [0x02, 0x49, 0x42, b'i', b'b', b'e', b'x', 5]);
            assert!(Mad::parse(&bytes).is_err());
        }
    }

    #[test]
    fn a_question_that_comes_back_with_a_status_is_no_answer() {
        let mut bytes = Likeness { answers: false, transaction: 9, forms: 1 }.to_bytes();
        // As the kernel's management layer says that it knows no such class.
        bytes[3] |= 0x80;
        bytes[5] = 0x0c;
        assert_eq!(Likeness::parse(&bytes), None);
    }

    #[test]
    fn each_byte_that_says_what_it_is_is_looked_at() {
        let bytes = Likeness { answers: true, transaction: 9, forms: 1 }.to_bytes();
        for at in [0, 1, 2, 3, 4, 5, 16, 17, 37, 38, 39, 40, 41, 42, 43] {
            let mut other = bytes;
            other[at] ^= 0x40;
            assert_eq!(Likeness::parse(&other), None, "byte {at}");
        }
    }
}
