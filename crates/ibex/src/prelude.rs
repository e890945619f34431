//! What most programs use: `use ibex::prelude::*;`.

pub use crate::mem::{Access, Buf, FrozenBuf, GIB, KIB, MIB, Pool, RemoteHandle, SharedRegion};
pub use crate::oob::{self, Endpoint};
pub use crate::{CompletionQueue, Context, Device, Op, ProtectionDomain, Provider, QueuePair, Wait};
