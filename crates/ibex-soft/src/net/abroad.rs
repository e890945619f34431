//! Devices like this one at other addresses.
//!
//! Owns who is known to be one: whoever a queue pair connects or sends to is asked, by a management datagram
//! ([`ibex_wire::mad::Likeness`]) that other devices drop or refuse, and is known once it has answered with the number of the
//! question. To those there is a line ([`super::lines`]), on which an acknowledgement may travel beside a short message
//! ([`super::express`]).
//!
//! A queue pair that had to repeat something puts its peer in doubt: another device may have taken its place, or something on
//! the way may not let such messages through. The line ends then, and everything goes as to any other device until there is
//! another answer. Questions are repeated while packets are sent, each after twice the time of the one before.
//!
//! What a question says is not believed: whoever forges its source would have packets sent to somebody who drops them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibex_wire::icrc::Flow;
use ibex_wire::mad::Likeness;
use ibex_wire::{ICRC_LEN, Packet};

use super::express::FORM;
use super::lines::Line;
use super::management;
use super::slot::random;
use super::tx::{Path, Peer};
use super::udp::{Target, Udp};
use super::wire::Wire;

/// Time between the first question to an address and the second, milliseconds.
const ASK_AGAIN_MS: u32 = 10;

/// How often that doubles: at last there is a question in 1.3 seconds, if there is anything to send.
const DOUBLINGS: u32 = 7;

/// How long a line lasts after which questions may follow each other quickly again, milliseconds.
const LASTED_MS: u32 = 1000;

/// Addresses remembered.
const MOST: usize = 1024;

/// Questions answered in a millisecond: whoever answers receives nothing meanwhile.
const ANSWERS: u32 = 16;

/// What is known of one address.
#[derive(Debug)]
struct Device {
    /// The number of the question that is not answered.
    question: Option<u64>,
    /// When the last one was asked, milliseconds of the link's age.
    asked: u32,
    /// Questions since a line [lasted](LASTED_MS).
    questions: u32,
    /// The line, and since when there is one.
    line: Option<(u32, Arc<Line>)>,
}

/// What is known of other addresses.
#[derive(Debug, Default)]
pub(super) struct Abroad {
    devices: Mutex<HashMap<IpAddr, Device>>,
    /// Lines, so that who has none need not lock the others.
    lines: AtomicUsize,
    answers: Mutex<(u32, u32)>,
}

impl Abroad {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line to the device at `address`, if that is known to be like this one.
    pub(super) fn line(&self, address: IpAddr) -> Option<Arc<Line>> {
        if self.lines.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.lock().get(&address).and_then(|device| device.line.as_ref()).map(|(_, line)| line.clone())
    }

    /// Ends the line of a device; since when there was one.
    fn end(&self, device: &mut Device) -> Option<u32> {
        let (since, line) = device.line.take()?;
        line.end();
        self.lines.fetch_sub(1, Ordering::Relaxed);
        Some(since)
    }

    /// Ends the line to an address; whether there was one.
    fn doubt(&self, address: IpAddr, now: u32) -> bool {
        let mut devices = self.lock();
        let Some(device) = devices.get_mut(&address) else { return false };
        let Some(since) = self.end(device) else { return false };
        if now.wrapping_sub(since) >= LASTED_MS {
            device.questions = 0;
        }
        true
    }

    /// The number of a question that is to be asked now.
    fn question(&self, address: IpAddr, now: u32) -> Option<u64> {
        let mut devices = self.lock();
        if devices.len() >= MOST && !devices.contains_key(&address) {
            // Whom nothing was asked for longest, those with a line last.
            let age = |device: &Device| (device.line.is_none(), now.wrapping_sub(device.asked));
            let oldest = devices.iter().max_by_key(|(_, device)| age(device)).map(|(address, _)| *address)?;
            self.end(&mut devices.remove(&oldest)?);
        }
        let new = Device { question: None, asked: now.wrapping_sub(ASK_AGAIN_MS), questions: 0, line: None };
        let device = devices.entry(address).or_insert(new);
        let pause = ASK_AGAIN_MS << device.questions.saturating_sub(1).min(DOUBLINGS);
        if device.line.is_some() || now.wrapping_sub(device.asked) < pause {
            return None;
        }
        let question = random();
        (device.question, device.asked) = (Some(question), now);
        device.questions = device.questions.saturating_add(1);
        Some(question)
    }

    /// Opens a line if this answers the last question; whether it does.
    fn answered(
        &self,
        address: IpAddr,
        question: u64,
        now: u32,
        line: impl FnOnce() -> Option<Arc<Line>>,
    ) -> bool {
        let mut devices = self.lock();
        let Some(device) = devices.get_mut(&address).filter(|device| device.question == Some(question))
        else {
            return false;
        };
        device.question = None;
        device.line = line().map(|line| (now, line));
        self.lines.fetch_add(device.line.is_some().into(), Ordering::Relaxed);
        device.line.is_some()
    }

    /// Whether another question may be answered now.
    fn may_answer(&self, now: u32) -> bool {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.0 != now {
            *answers = (now, 0);
        }
        answers.1 += 1;
        answers.1 <= ANSWERS
    }
}

impl Wire {
    /// Asks the device at another address whether it is one like this, unless that is known or was asked a moment ago.
    pub(super) fn ask_abroad(&self, address: IpAddr) {
        if self.captures() {
            // Then everything is to be seen in forms that others know.
            return;
        }
        if let Some(transaction) = self.abroad().question(address, self.age()) {
            let question = Likeness { answers: false, transaction, forms: FORM };
            self.say(self.own(), self.roce_address(address), question);
        }
    }

    /// Ends the line to a peer, to which something had to be repeated, and asks it anew.
    #[cold]
    pub(crate) fn doubt(&self, peer: Peer) {
        if self.abroad().doubt(peer.address, self.age()) {
            self.lines().note_change();
        }
        self.ask_abroad(peer.address);
    }

    /// Takes in a packet for queue pair 1 that came to `udp` from another address, if it is a question or an answer of this
    /// kind.
    pub(super) fn acquaint(&self, udp: &Udp, source: SocketAddr, packet: &[u8]) -> bool {
        let likeness = Packet::parse(packet).ok();
        let likeness = likeness.and_then(|packet| Likeness::parse(management::open(&packet)?.0));
        let Some(likeness) = likeness else { return false };
        self.capture_from(source.ip(), packet);
        if !likeness.answers {
            if self.abroad().may_answer(self.age()) {
                // From where it was asked, as firewalls expect.
                self.say(udp, source, Likeness { answers: true, forms: FORM, ..likeness });
            }
            return true;
        }
        let there = source.ip();
        let line = || self.lines().abroad(self.own(), self.own_address(), self.roce_address(there));
        if likeness.forms & FORM != 0 && self.abroad().answered(there, likeness.transaction, self.age(), line)
        {
            self.counters().acquainted.add(1);
            self.lines().note_change();
        }
        true
    }

    /// Sends it. Lost if there is no room, as it may be on its way.
    fn say(&self, udp: &Udp, to: SocketAddr, likeness: Likeness) {
        let mut from = self.own_address();
        from.set_port(udp.port());
        let Some(flow) = Flow::new(from, to) else { return };
        let mut sealed = [0; management::PACKET + ICRC_LEN];
        let packet = management::packet(random() as u32, &likeness.to_bytes());
        sealed[..management::PACKET].copy_from_slice(&packet);
        flow.seal(0, &mut sealed);
        let target = Target::new(to);
        self.capture(&Path::Udp(target, flow, None), &sealed, sealed.len());
        if udp.send(&target, &sealed, sealed.len()).is_ok() {
            self.counters().tx_packets.add(1);
            self.counters().tx_bytes.add(sealed.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::lines::Lines;
    use super::*;

    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// What is known, and lines to wherever.
    struct World {
        abroad: Abroad,
        lines: Lines,
        own: Arc<Udp>,
    }

    impl World {
        fn new() -> World {
            let own = Udp::bind((Ipv4Addr::LOCALHOST, 0).into(), 1 << 16).unwrap();
            World { abroad: Abroad::default(), lines: Lines::default(), own: Arc::new(own) }
        }

        fn answered(&self, address: IpAddr, question: u64, now: u32) -> bool {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, self.own.port()));
            let line = || self.lines.abroad(&self.own, from, (address, 4791).into());
            self.abroad.answered(address, question, now, line)
        }

        /// Asks and is answered at once, if there is a question.
        fn meet(&self, address: IpAddr, now: u32) -> bool {
            self.abroad.question(address, now).is_some_and(|question| self.answered(address, question, now))
        }

        fn knows(&self, address: IpAddr) -> bool {
            self.abroad.line(address).is_some()
        }
    }

    #[test]
    fn a_device_is_known_by_the_answer_to_the_last_question_only() {
        let world = World::new();
        assert!(!world.answered(THERE, 0, 5) && !world.knows(THERE));
        let first = world.abroad.question(THERE, 5).unwrap();
        assert_eq!(world.abroad.question(THERE, 5 + ASK_AGAIN_MS - 1), None);
        let second = world.abroad.question(THERE, 5 + ASK_AGAIN_MS).unwrap();
        assert!(!world.answered(THERE, first, 16) && !world.knows(THERE));
        assert!(world.answered(THERE, second, 16) && world.knows(THERE));
        assert_eq!(world.abroad.question(THERE, 100_000), None, "it is known");
        assert!(world.abroad.doubt(THERE, 17) && !world.knows(THERE));
        assert!(!world.answered(THERE, second, 18), "once is enough");
    }

    #[test]
    fn questions_go_on_and_become_seldom() {
        let world = World::new();
        // The age of a link wraps.
        let start = u32::MAX - 300;
        let asked: Vec<u32> = (0..10_000)
            .filter(|ms| world.abroad.question(THERE, start.wrapping_add(*ms)).is_some())
            .collect();
        assert_eq!(asked[..5], [0, 10, 30, 70, 150]);
        let last = ASK_AGAIN_MS << DOUBLINGS;
        assert_eq!(asked[asked.len() - 1] - asked[asked.len() - 2], last);
        assert!(world.abroad.question(THERE, start.wrapping_add(10_000 + last)).is_some());
    }

    /// Once a second doubt that came soon after the answer to the first had nobody asked any more.
    #[test]
    fn a_device_that_is_doubted_twice_in_a_moment_is_asked_again_later() {
        let world = World::new();
        assert!(world.meet(THERE, 1));
        assert!(world.abroad.doubt(THERE, 2000) && world.meet(THERE, 2000));
        assert!(world.abroad.doubt(THERE, 2003) && !world.meet(THERE, 2003));
        assert!(!world.abroad.doubt(THERE, 2004), "nothing was known");
        let again = (2004..4000).find(|now| world.meet(THERE, *now));
        assert_eq!(again, Some(2000 + ASK_AGAIN_MS));
        assert!(world.knows(THERE));
    }

    #[test]
    fn a_line_that_never_lasts_is_tried_seldom_and_one_that_lasted_is_had_again_at_once() {
        let world = World::new();
        let tries = (0..20_000)
            .filter(|now| {
                let met = world.meet(THERE, *now);
                world.abroad.doubt(THERE, *now);
                met
            })
            .count();
        assert!((16..26).contains(&tries), "{tries}");
        let mut now = 20_000;
        while !world.meet(THERE, now) {
            now += 1;
        }
        now += LASTED_MS;
        assert!(world.abroad.doubt(THERE, now) && world.meet(THERE, now));
    }

    #[test]
    fn addresses_remembered_are_bounded_and_those_with_a_line_stay() {
        let world = World::new();
        let address = |number: u32| IpAddr::from((number + 1).to_be_bytes());
        assert!(world.meet(address(0), 0));
        for number in 1..3 * MOST as u32 {
            assert!(world.abroad.question(address(number), number).is_some());
        }
        assert_eq!(world.abroad.lock().len(), MOST);
        assert!(world.knows(address(0)));
        for number in 0..2 * MOST as u32 {
            assert!(world.meet(address(number + 100_000), 5000 + number));
        }
        assert!(!world.knows(address(0)), "others are newer");
        assert_eq!(world.abroad.lines.load(Ordering::Relaxed), MOST);
    }

    #[test]
    fn a_flood_of_questions_is_not_answered() {
        let abroad = Abroad::default();
        let answers = |now| (0..1000).filter(|_| abroad.may_answer(now)).count();
        assert_eq!((answers(7), answers(7), answers(8)), (ANSWERS as usize, 0, ANSWERS as usize));
    }
}
