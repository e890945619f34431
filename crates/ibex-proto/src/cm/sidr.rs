//! Service ID resolution: which queue pair serves a datagram service? One question, one answer, no connection.

use ibex_wire::mad::{CommId, Gid, MAD_LEN, Mad, Message, Private, ServiceId, SidrRep, SidrReq, SidrStatus};
use ibex_wire::{Qkey, Qpn};

use super::answer::split_header;
use super::call::{at_most, check_path, with_header};
use super::engine::Origin;
use super::repeat::{Repeat, code_ns};
use super::{Cm, CmError, Event, ListenerId, SidrId, SidrParams, SidrReply, SidrReplyParams, SidrRequest};
use crate::Nanos;

/// How long an answer is remembered (1.1 s), to be repeated if the question is.
const ANSWER_MEMORY: Nanos = 4096 << 18;

/// One resolution.
#[derive(Debug)]
pub(super) struct Sidr {
    role: Role,
    local: Gid,
    remote: Gid,
    deadline: Option<Nanos>,
}

#[derive(Debug)]
enum Role {
    /// This end asks.
    Asking(Repeat),
    /// This end is asked, and the program thinks.
    Asked { name: CommId, service: ServiceId, transaction: u64, waiting: Option<ListenerId> },
    /// This end has answered.
    Answered { name: CommId, mad: Box<[u8; MAD_LEN]> },
}

impl Cm {
    /// Asks which queue pair serves a service. [`Event::SidrReply`] or [`Event::SidrUnreachable`] follows.
    ///
    /// # Errors
    ///
    /// [`CmError::PrivateData`], [`CmError::Range`], [`CmError::TooMany`].
    pub fn sidr_request(&mut self, now: Nanos, params: &SidrParams) -> Result<SidrId, CmError> {
        let path = &params.path;
        check_path(path)?;
        at_most("response_timeout", params.response_timeout, 31)?;
        at_most("max_cm_retries", params.max_cm_retries, 15)?;
        let private = with_header(params.cma.as_ref(), &params.private)?;
        let id = self.new_id().ok_or(CmError::TooMany(self.config.max_connections))?;
        let message = Message::SidrReq(SidrReq {
            request_id: id,
            pkey: path.pkey,
            service_id: params.service,
            private,
        });
        let mad = Mad { transaction: self.ids.transaction(id), message }.to_bytes();
        let timeout = 2 * code_ns(path.packet_life_time) + code_ns(params.response_timeout);
        // Not quite as quickly as requests for connections: Linux forgets a question when it has answered it, so one that comes
        // again just then is a new one to the program there.
        let fast = self.config.fast_retry.saturating_mul(4);
        let repeat = Repeat::new(mad, fast, timeout, params.max_cm_retries);
        let at = now + repeat.wait();
        let (local, remote) = (path.local, path.remote);
        self.sidrs.insert(id, Sidr { role: Role::Asking(repeat), local, remote, deadline: None });
        self.arm_sidr(id, Some(at));
        self.transmit(local, remote, mad);
        Ok(SidrId(id))
    }

    /// A question: new, or once more.
    pub(super) fn on_sidr_req(&mut self, _now: Nanos, origin: Origin, req: &SidrReq) {
        let name = req.request_id;
        if let Some(known) = self.sidr_names.get(&(origin.from, name)).and_then(|id| self.sidrs.get(id)) {
            self.counters.duplicates += 1;
            if let Role::Answered { mad, .. } = &known.role {
                let (local, remote, mad) = (known.local, known.remote, **mad);
                self.transmit(local, remote, mad);
            }
            return;
        }
        let service = req.service_id;
        let Some(listener) = self.listeners.find(service, origin.to) else {
            return self.refuse_sidr(origin, req, SidrStatus::UNSUPPORTED);
        };
        let Ok((cma, private)) = split_header(service, &req.private) else {
            return self.refuse_sidr(origin, req, SidrStatus::REJECT);
        };
        let Some(id) = self.new_id().filter(|_| self.listeners.enter(listener)) else {
            self.counters.overflow += 1;
            return;
        };
        let request = Box::new(SidrRequest {
            local: origin.to,
            remote: origin.from,
            service,
            cma,
            private: private.to_vec(),
        });
        let role = Role::Asked { name, service, transaction: origin.transaction, waiting: Some(listener) };
        self.sidrs.insert(id, Sidr { role, local: origin.to, remote: origin.from, deadline: None });
        self.sidr_names.insert((origin.from, name), id);
        self.push_event(Event::SidrRequest { listener, sidr: SidrId(id), request });
    }

    fn refuse_sidr(&mut self, origin: Origin, req: &SidrReq, status: SidrStatus) {
        let rep = SidrRep { status, request_id: req.request_id, service_id: req.service_id, ..BARE };
        self.respond(origin, Message::SidrRep(rep));
    }

    /// Says the program has fetched this request, as [`taken`](Cm::taken) does for connections.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`].
    pub fn sidr_taken(&mut self, sidr: SidrId) -> Result<(), CmError> {
        match self.sidrs.get_mut(&sidr.0).map(|sidr| &mut sidr.role) {
            Some(Role::Asked { waiting, .. }) => {
                if let Some(listener) = waiting.take() {
                    self.listeners.leave(listener);
                }
                Ok(())
            }
            _ => Err(CmError::Unknown),
        }
    }

    /// Answers a resolution, once.
    ///
    /// # Errors
    ///
    /// [`CmError::Unknown`], [`CmError::PrivateData`] (136 bytes).
    pub fn sidr_reply(&mut self, now: Nanos, sidr: SidrId, params: &SidrReplyParams) -> Result<(), CmError> {
        let id = sidr.0;
        let private = Private::new(&params.private)?;
        let known = self.sidrs.get_mut(&id).ok_or(CmError::Unknown)?;
        let Role::Asked { name, service, transaction, waiting } = &known.role else {
            return Err(CmError::Unknown);
        };
        let success = params.status == SidrStatus::SUCCESS;
        let rep = SidrRep {
            request_id: *name,
            status: params.status,
            qpn: if success { params.qpn } else { Qpn::default() },
            qkey: if success { params.qkey } else { Qkey::default() },
            service_id: *service,
            private,
            ..BARE
        };
        let mad = Mad { transaction: *transaction, message: Message::SidrRep(rep) }.to_bytes();
        if let Some(listener) = *waiting {
            self.listeners.leave(listener);
        }
        known.role = Role::Answered { name: *name, mad: Box::new(mad) };
        let (local, remote) = (known.local, known.remote);
        self.arm_sidr(id, Some(now + ANSWER_MEMORY));
        self.transmit(local, remote, mad);
        self.linger(id, now + ANSWER_MEMORY);
        Ok(())
    }

    /// Says every answer that is remembered once more.
    pub(super) fn repeat_answers(&mut self) {
        let answers: Vec<_> = self
            .sidrs
            .values()
            .filter_map(|sidr| match &sidr.role {
                Role::Answered { mad, .. } => Some((sidr.local, sidr.remote, **mad)),
                _ => None,
            })
            .collect();
        for (local, remote, mad) in answers {
            self.transmit(local, remote, mad);
        }
    }

    /// The host has no more use for a resolution: one that was asked is forgotten, one to be answered is refused. No more
    /// events of it come, but those queued already.
    pub fn sidr_release(&mut self, now: Nanos, sidr: SidrId) {
        match self.sidrs.get(&sidr.0).map(|sidr| &sidr.role) {
            Some(Role::Asking(_)) => self.forget_sidr(sidr.0),
            Some(Role::Asked { .. }) => {
                let refusal = SidrReplyParams {
                    status: SidrStatus::REJECT,
                    qpn: Qpn::default(),
                    qkey: Qkey::default(),
                    private: Vec::new(),
                };
                let refused = self.sidr_reply(now, sidr, &refusal);
                debug_assert_eq!(refused, Ok(()));
            }
            Some(Role::Answered { .. }) | None => {}
        }
    }

    /// An answer.
    pub(super) fn on_sidr_rep(&mut self, origin: Origin, rep: &SidrRep) {
        let id = rep.request_id;
        let asking = |sidr: &&Sidr| sidr.remote == origin.from && matches!(sidr.role, Role::Asking(_));
        if self.sidrs.get(&id).filter(asking).is_none() {
            self.counters.ignored += 1;
            return;
        }
        let reply = SidrReply {
            status: rep.status,
            qpn: rep.qpn,
            qkey: rep.qkey,
            info: rep.info[..usize::from(rep.info_len).min(SidrRep::INFO)].to_vec(),
            private: rep.private,
        };
        self.push_event(Event::SidrReply { sidr: SidrId(id), reply: Box::new(reply) });
        self.forget_sidr(id);
    }

    /// A resolution's timer ran out. Afterwards it has another deadline, or is gone.
    pub(super) fn sidr_timeout(&mut self, now: Nanos, id: CommId) {
        let Some(sidr) = self.sidrs.get_mut(&id) else { return };
        if let Role::Asking(repeat) = &mut sidr.role {
            if repeat.again() {
                let (local, remote, mad, at) = (sidr.local, sidr.remote, *repeat.mad, now + repeat.wait());
                self.counters.repeated += 1;
                self.transmit(local, remote, mad);
                return self.arm_sidr(id, Some(at));
            }
            self.push_event(Event::SidrUnreachable { sidr: SidrId(id) });
        }
        self.forget_sidr(id);
    }

    fn arm_sidr(&mut self, id: CommId, at: Option<Nanos>) {
        if let Some(sidr) = self.sidrs.get_mut(&id) {
            self.timers.disarm(id, sidr.deadline);
            sidr.deadline = at;
            self.timers.arm(id, at);
        }
    }

    /// Removes a resolution and all that belongs to it.
    pub(super) fn forget_sidr(&mut self, id: CommId) {
        let Some(sidr) = self.sidrs.remove(&id) else { return };
        self.timers.disarm(id, sidr.deadline);
        self.lingering.disarm(id, sidr.deadline);
        match sidr.role {
            Role::Asking(_) => {}
            Role::Asked { name, .. } | Role::Answered { name, .. } => {
                self.sidr_names.remove(&(sidr.remote, name));
            }
        }
    }
}

/// An answer that says nothing.
const BARE: SidrRep = SidrRep {
    request_id: CommId::NONE,
    status: SidrStatus::SUCCESS,
    info_len: 0,
    qpn: Qpn::new(0),
    service_id: ServiceId(0),
    qkey: Qkey(0),
    info: [0; SidrRep::INFO],
    private: Private::ZERO,
};
