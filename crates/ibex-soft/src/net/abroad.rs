//! Devices like this one at other addresses.
//!
//! Owns who is known to be one: whoever a queue pair connects to is asked, by a management datagram
//! ([`ibex_wire::mad::Likeness`]) that other devices drop or refuse, and is known once it has answered with the number of the
//! question. To those an acknowledgement may travel beside a short message ([`super::express`]), over a line
//! ([`super::lines`]). A queue pair that hears nothing for its timeout puts its peer in doubt, as does one that connects later:
//! what was known is forgotten until there is another answer, and all that is lost meanwhile is speed.
//!
//! What a question says is not believed: whoever forges its source would have packets sent to somebody who drops them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ibex_wire::icrc::Flow;
use ibex_wire::mad::Likeness;
use ibex_wire::{ICRC_LEN, Packet};

use super::express::FORM;
use super::management;
use super::slot::random;
use super::tx::Path;
use super::udp::Target;
use super::wire::Wire;

/// Least time between two questions to one address, milliseconds.
const ASK_AGAIN_MS: u32 = 10;

/// How long an answer holds for queue pairs that connect later, milliseconds.
const TRUST_MS: u32 = 1000;

/// Addresses remembered. More are not asked: they are reached as every device is.
const MOST: usize = 1024;

/// What is known of one address.
#[derive(Debug)]
struct Device {
    /// The number of the last question.
    question: u64,
    /// When it was asked, milliseconds of the link's age.
    asked: u32,
    /// Whether it was answered.
    like: bool,
}

/// What is known of other addresses.
#[derive(Debug, Default)]
pub(super) struct Abroad(Mutex<HashMap<IpAddr, Device>>);

impl Abroad {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Device>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the device at `address` is known to be like this one.
    pub(super) fn is_like(&self, address: IpAddr) -> bool {
        self.lock().get(&address).is_some_and(|device| device.like)
    }

    /// Forgets that it is; whether that was known.
    fn doubt(&self, address: IpAddr) -> bool {
        self.lock().get_mut(&address).is_some_and(|device| std::mem::take(&mut device.like))
    }

    /// The number of a question that is to be asked now, and whether the answer to the last one is forgotten with it.
    fn question(&self, address: IpAddr, now: u32) -> Option<(u64, bool)> {
        let mut devices = self.lock();
        if devices.len() >= MOST && !devices.contains_key(&address) {
            devices.retain(|_, device| device.like);
            if devices.len() >= MOST {
                return None;
            }
        }
        let question = random();
        let device = devices.entry(address).or_insert(Device {
            question,
            asked: now.wrapping_sub(TRUST_MS),
            like: false,
        });
        let holds = if device.like { TRUST_MS } else { ASK_AGAIN_MS };
        if now.wrapping_sub(device.asked) < holds {
            return None;
        }
        (device.question, device.asked) = (question, now);
        Some((question, std::mem::take(&mut device.like)))
    }

    /// Notes an answer; whether it tells anything new.
    fn answered(&self, address: IpAddr, question: u64) -> bool {
        let mut devices = self.lock();
        let device = devices.get_mut(&address).filter(|device| device.question == question);
        device.is_some_and(|device| !std::mem::replace(&mut device.like, true))
    }
}

impl Wire {
    /// Asks the device at another address whether it is one like this, unless that is known or was asked a moment ago.
    pub(super) fn ask_abroad(&self, address: IpAddr) {
        if self.wants_packets() {
            // Then nothing would be different.
            return;
        }
        let Some((transaction, forgotten)) = self.abroad().question(address, self.age()) else { return };
        if forgotten {
            self.lines().end(address);
        }
        self.say(self.roce_address(address), Likeness { answers: false, transaction, forms: FORM });
    }

    /// Forgets what is known of the device at another address.
    pub(super) fn doubt_abroad(&self, address: IpAddr) {
        if self.abroad().doubt(address) {
            self.lines().end(address);
        }
    }

    /// Takes in a packet for queue pair 1 that came from another address, if it is a question or an answer of this kind.
    pub(super) fn acquaint(&self, source: SocketAddr, packet: &[u8]) -> bool {
        let likeness = Packet::parse(packet).ok();
        let likeness = likeness.and_then(|packet| Likeness::parse(management::open(&packet)?.0));
        let Some(likeness) = likeness else { return false };
        self.capture_from(source.ip(), packet);
        if !likeness.answers {
            self.say(source, Likeness { answers: true, forms: FORM, ..likeness });
        } else if likeness.forms & FORM != 0 && self.abroad().answered(source.ip(), likeness.transaction) {
            self.counters().acquainted.add(1);
            self.lines().note_change();
        }
        true
    }

    /// Sends it. Lost if there is no room, as it may be on its way.
    fn say(&self, to: SocketAddr, likeness: Likeness) {
        let Some(flow) = Flow::new(self.own_address(), to) else { return };
        let mut sealed = [0; management::PACKET + ICRC_LEN];
        let packet = management::packet(random() as u32, &likeness.to_bytes());
        sealed[..management::PACKET].copy_from_slice(&packet);
        flow.seal(0, &mut sealed);
        let target = Target::new(to);
        self.capture(&Path::Udp(target, flow, None), &sealed, sealed.len());
        if self.own().send(&target, &sealed, sealed.len()).is_ok() {
            self.counters().tx_packets.add(1);
            self.counters().tx_bytes.add(sealed.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_device_is_known_by_the_answer_to_the_last_question_only() {
        let abroad = Abroad::default();
        assert!(!abroad.answered(THERE, 0) && !abroad.is_like(THERE));
        let (first, _) = abroad.question(THERE, 5).unwrap();
        assert_eq!(abroad.question(THERE, 5 + ASK_AGAIN_MS - 1), None);
        let (second, forgotten) = abroad.question(THERE, 5 + ASK_AGAIN_MS).unwrap();
        assert!(!forgotten && !abroad.answered(THERE, first) && !abroad.is_like(THERE));
        assert!(abroad.answered(THERE, second) && abroad.is_like(THERE));
        assert!(!abroad.answered(THERE, second), "nothing new");
    }

    #[test]
    fn what_is_known_is_asked_again_later_and_when_it_is_in_doubt() {
        let abroad = Abroad::default();
        let known = |now| {
            let (question, forgotten) = abroad.question(THERE, now)?;
            abroad.answered(THERE, question).then_some(forgotten)
        };
        // The age of a link wraps.
        let start = u32::MAX - 3;
        assert_eq!(known(start), Some(false));
        assert_eq!(known(start.wrapping_add(TRUST_MS - 1)), None);
        assert_eq!(known(start.wrapping_add(TRUST_MS)), Some(true));
        assert!(abroad.doubt(THERE) && !abroad.is_like(THERE) && !abroad.doubt(THERE));
        assert_eq!(known(start.wrapping_add(TRUST_MS + ASK_AGAIN_MS)), Some(false));
    }

    #[test]
    fn addresses_remembered_are_bounded() {
        let abroad = Abroad::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..3 * MOST as u32 {
            let question = abroad.question(address(number), 1);
            if number % 2 == 0 {
                question.map(|(question, _)| abroad.answered(address(number), question));
            }
        }
        assert!(abroad.lock().len() <= MOST);
        assert!(abroad.is_like(address(0)) && abroad.question(address(u32::MAX), 1).is_none());
    }
}
