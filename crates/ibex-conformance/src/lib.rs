//! One test suite for every RDMA provider.
//!
//! The suite runs against one device: the built-in one in plain `cargo test`, the kernel's `rdma_rxe` in the virtual
//! machine, a NIC where somebody has one. It speaks to the device twice: through the C interface ([`lab`]: exact
//! statuses, states and refusals), and through the safe crate `ibex` ([`lab::safe`]: what becomes of buffers when operations are
//! dropped, forgotten or late).
//!
//! - [`Case`]: a test with a name and a body that returns [`Outcome`]; failures are panics with a message.
//! - [`cases::all`]: every case there is.
//! - [`child`]: the second process of the cases that need one.
//! - [`abuse`]: any bytes as a sequence of calls.
//! - [`runner`]: runs cases and reports in libtest's format.
//! - [`soak`]: random operations between processes that fail at random.
//!
//! A case never passes for want of a device: [`lab::Lab::open`] and [`lab::safe::open`] panic when there is none. A capability that the
//! provider lacks is skipped with its reason printed, and the reason is the provider's own report.
//!
//! `IBEX_CONFORMANCE_PROVIDER` is `soft` (the default) or `system`; `IBEX_DEVICE` names the device; `IBEX_CONFORMANCE_KNOWN`
//! lists the cases that this provider is known to fail ([`runner::KNOWN`]).

#![deny(unsafe_code)]

pub mod abuse;
pub mod cases;
pub mod child;
pub mod lab;
pub mod runner;
pub mod soak;

/// How a case that did not fail ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything held.
    Passed,
    /// The provider reports that it lacks what the case is about; the reason says what.
    Skipped(String),
}

/// One test of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: `group::what_must_hold`.
    pub name: &'static str,
    /// Its body. A failure is a panic.
    pub run: fn() -> Outcome,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Builds a list of cases named after their functions: `group!("group"; a, b)`.
macro_rules! group {
    ($group:literal; $($case:ident),* $(,)?) => {
        /// The cases of this group.
        pub fn cases() -> Vec<$crate::Case> {
            vec![$($crate::Case { name: concat!($group, "::", stringify!($case)), run: $case }),*]
        }
    };
}
pub(crate) use group;
