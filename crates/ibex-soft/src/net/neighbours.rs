//! The processes on this address, and how each is reached: for people who ask.
//!
//! Owns finding them, from what the kernel lists of unix sockets, and the text that describes the links. Does not own links
//! ([`super::wire`], [`crate::host`]).
//!
//! Read first: proc_net(5) (`/proc/net/unix`).

use std::fmt::Write as _;

use super::config::LinkChoice;
use super::qpn;
use super::tx::Peer;
use super::wire::Wire;

impl Wire {
    /// Greets every process on this address; those not met before answer within a millisecond if they are awake.
    /// Returns whether there is any whose way is not known yet.
    pub(crate) fn greet_neighbours(&self) -> bool {
        let mut waiting = false;
        for slot in self.neighbours() {
            if self.link_of(slot).is_none() {
                self.hello(Peer { address: self.address(), qpn: qpn::join(slot, 0) });
                waiting = true;
            }
        }
        waiting
    }

    /// The slots of other processes on this address, ascending. None where the kernel does not list sockets.
    fn neighbours(&self) -> Vec<u16> {
        let list = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let named =
            |line: &str| self.names().parse(line.split(' ').next_back()?.strip_prefix('@')?.as_bytes());
        let mut slots: Vec<u16> = list.lines().filter_map(named).filter(|&slot| !self.is_own(slot)).collect();
        slots.sort_unstable();
        slots
    }

    /// The links this device has, the first line, and how it reaches each process on its address, a line for each.
    pub(crate) fn describe_links(&self) -> String {
        let mut text = match (self.link_choice(), self.host()) {
            (LinkChoice::Direct, Some(_)) => "direct, host, wire",
            (LinkChoice::Direct, None) => "direct, wire",
            (LinkChoice::Host, Some(_)) => "host, wire",
            (LinkChoice::Host | LinkChoice::Wire, _) => "wire",
        }
        .to_owned();
        for slot in self.neighbours() {
            let link = self.link_of(slot).and_then(|id| self.host().and_then(|host| host.link(id)));
            // Writing to a string cannot fail.
            let _ = match link {
                Some(link) => {
                    let ways = link.view().map(|view| {
                        let mapped = (view.maps() > 0).then_some("mapped, ");
                        let copied = view.copies().then_some("process_vm, ");
                        format!("{}{}", mapped.unwrap_or(""), copied.unwrap_or(""))
                    });
                    let (ways, packets) = (ways.unwrap_or_default(), link.packets());
                    write!(text, "\nslot {slot}: host ({ways}ring), {packets} packets sent")
                }
                None if self.port_of(slot).is_some() => write!(text, "\nslot {slot}: wire"),
                None => write!(text, "\nslot {slot}: no answer"),
            };
        }
        text
    }
}
