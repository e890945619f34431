//! The cases, a file for each subject.
//!
//! A file holds what must hold for one part of the verbs and cites the manual page or the specification where a status
//! is not obvious. It does not hold the machinery: that is [`crate::lab`].

use crate::Case;

pub mod access;
pub mod cm;
pub mod data;
pub mod device;
pub mod events;
pub mod extended;
pub mod failure;
pub mod modify;
pub mod ownership;
pub mod posting;
pub mod processes;
pub mod queues;
pub mod remote;
pub mod requests;
pub mod srq;
pub mod states;
pub mod teardown;
pub mod threads;
pub mod uc;
pub mod ud;
pub mod windows;

/// Every case of the suite.
pub fn all() -> Vec<Case> {
    [
        device::cases(),
        states::cases(),
        modify::cases(),
        uc::cases(),
        ud::cases(),
        srq::cases(),
        data::cases(),
        queues::cases(),
        events::cases(),
        access::cases(),
        failure::cases(),
        ownership::cases(),
        teardown::cases(),
        posting::cases(),
        requests::cases(),
        extended::cases(),
        windows::cases(),
        threads::cases(),
        remote::cases(),
        processes::cases(),
        cm::cases(),
    ]
    .concat()
}

/// What a second process can be asked to do.
pub(crate) fn roles() -> Vec<(&'static str, fn())> {
    [failure::roles(), processes::roles()].concat()
}
