//! Listeners: who answers for a service on an address, and how many callers may wait for it.

use std::collections::HashMap;

use ibex_wire::mad::{Gid, ServiceId};

use super::{Cm, CmError, ListenParams, ListenerId};

/// One listener.
#[derive(Debug)]
struct Listener {
    service: ServiceId,
    local: Option<Gid>,
    backlog: usize,
    /// Requests given to the host that the program has not fetched or answered.
    waiting: usize,
}

/// All of a process.
#[derive(Default, Debug)]
pub(super) struct Listeners {
    by_id: HashMap<ListenerId, Listener>,
    by_service: HashMap<(ServiceId, Option<Gid>), ListenerId>,
    last: u32,
}

impl Listeners {
    /// Who listens to `service` at `local`: a listener of the address before one of all addresses.
    pub(super) fn find(&self, service: ServiceId, local: Gid) -> Option<ListenerId> {
        self.by_service
            .get(&(service, Some(local)))
            .or_else(|| self.by_service.get(&(service, None)))
            .copied()
    }

    /// Takes a place in the backlog, if there is one.
    pub(super) fn enter(&mut self, id: ListenerId) -> bool {
        match self.by_id.get_mut(&id) {
            Some(listener) if listener.waiting < listener.backlog => {
                listener.waiting += 1;
                true
            }
            _ => false,
        }
    }

    /// Gives the place back; the listener may be gone.
    pub(super) fn leave(&mut self, id: ListenerId) {
        if let Some(listener) = self.by_id.get_mut(&id) {
            listener.waiting = listener.waiting.saturating_sub(1);
        }
    }
}

impl Cm {
    /// Offers a service. Requests come as [`Event::Request`](super::Event::Request) and
    /// [`Event::SidrRequest`](super::Event::SidrRequest). One listener may be for all addresses and others of the same
    /// service for single ones; these come first then.
    ///
    /// # Errors
    ///
    /// [`CmError::InUse`] if the very same is offered already.
    pub fn listen(&mut self, params: &ListenParams) -> Result<ListenerId, CmError> {
        let key = (params.service, params.local);
        let listeners = &mut self.listeners;
        if listeners.by_service.contains_key(&key) {
            return Err(CmError::InUse(params.service));
        }
        // Numbers come again after 2^32 listeners, and are skipped while in use.
        let id = loop {
            listeners.last = listeners.last.wrapping_add(1);
            let id = ListenerId(listeners.last);
            if !listeners.by_id.contains_key(&id) {
                break id;
            }
        };
        let (service, local) = key;
        listeners.by_id.insert(id, Listener { service, local, backlog: params.backlog.max(1), waiting: 0 });
        listeners.by_service.insert(key, id);
        Ok(id)
    }

    /// Ends a listener. Its requests that are not answered yet stay, and are the host's to answer or release.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`].
    pub fn unlisten(&mut self, listener: ListenerId) -> Result<(), CmError> {
        let gone = self.listeners.by_id.remove(&listener).ok_or(CmError::Unknown)?;
        self.listeners.by_service.remove(&(gone.service, gone.local));
        Ok(())
    }
}
