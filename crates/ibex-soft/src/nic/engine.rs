//! The receive engine: packets from the link into queue pairs, and what they give rise to.
//!
//! Owns one bounded round, and how callers that poll take part. Whoever holds the engine's lock is the only receiver,
//! so packets of one queue pair are handled in order.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockReadGuard, TryLockError};

use ibex_proto::{Ack, Nanos};
use ibex_wire::{Opcode, Packet, Pkey};

use super::fetch::Ahead;
use super::{Nic, QpTable};
use crate::host::Link;
use crate::mr::MrTable;
use crate::net::express::{Beside, Express};
use crate::net::management;
use crate::net::{Datagram, MAX_PACKET, Received, RxRing, Scan, Sink, TxBatch};
use crate::qp::{Qp, Taken};

/// Packets in one round: two full batches of the kernel's, after which acknowledgements are due.
const BUDGET: usize = 64;

/// Empty polls in a row after which a spinning caller yields, and how often it then does: a peer that shares the
/// processor has to get its turn. A poll takes a third of a microsecond; callers that are answered within a few
/// microseconds never come here, and do not look idle to the scheduler, which would put them on one processor.
const IDLE_POLLS: u32 = 1000;
const YIELD_EVERY: u32 = 100;

/// The same where a poll makes no system call and takes a fortieth of a microsecond: peers in shared memory answer within
/// two, and if one has not after three, it may well be waiting for this processor.
const IDLE_LOOKS: u32 = 128;
const YIELD_LOOKS: u32 = 64;

/// Queue pairs in a round up to which each sends by itself.
const FEW: usize = 2;

/// How long a timer waits for a round in progress: a few of the scheduler's slices, should its thread have lost the processor.
const DIRTY_NS: Nanos = 1_000_000;

/// The receiving state.
pub(super) struct Engine {
    /// The same queue pairs as in the NIC's table: a round needs no lock of theirs to find one.
    queue_pairs: QpTable,
    ring: RxRing,
    tx: TxBatch,
    /// Queue pairs that got packets in this round.
    dirty: Vec<Arc<Qp>>,
    /// Queue pairs that were left owing an acknowledgement: to be driven by the next round, whoever's it is.
    owing: Owing,
    /// The link that an acknowledgement was left to, last.
    left: Option<Arc<Link>>,
    /// What is fetched for the next round.
    ahead: Ahead,
    /// Inline rounds in a row that found nothing.
    empty: u32,
}

impl Engine {
    pub(super) fn new() -> Engine {
        Engine {
            queue_pairs: QpTable::default(),
            ring: RxRing::new(),
            tx: TxBatch::new(),
            dirty: Vec::new(),
            owing: Owing::default(),
            left: None,
            ahead: Ahead::default(),
            empty: 0,
        }
    }

    /// Packets for a queue pair are handed to it from now on.
    pub(super) fn admit(&mut self, qp: Arc<Qp>) {
        self.queue_pairs.insert(qp);
    }

    /// No more packets for a queue pair that is going, and it is on no list: there it would keep its completion queues in use.
    pub(super) fn release(&mut self, num: u32) {
        self.queue_pairs.remove(num);
        self.owing.release(num);
    }
}

/// Queue pairs that were left owing an acknowledgement.
#[derive(Default)]
struct Owing {
    queue_pairs: Vec<Arc<Qp>>,
    /// One that is settled, kept in case that it is the next to owe something: in a conversation no reference is counted.
    spare: Option<Arc<Qp>>,
}

impl Owing {
    /// Enters a queue pair, whose lock is held.
    #[inline]
    fn enter(&mut self, qp: &Arc<Qp>) {
        qp.owing.store(true, Ordering::Relaxed);
        let known = self.spare.take().filter(|spare| Arc::ptr_eq(spare, qp));
        self.queue_pairs.push(known.unwrap_or_else(|| qp.clone()));
    }

    /// Takes one out that may still owe something.
    #[inline]
    fn next(&mut self) -> Option<Arc<Qp>> {
        while let Some(qp) = self.queue_pairs.pop() {
            if qp.owing.load(Ordering::Relaxed) {
                return Some(qp);
            }
            self.spare = Some(qp);
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.queue_pairs.is_empty()
    }

    fn settled(&mut self, qp: Arc<Qp>) {
        self.spare = Some(qp);
    }

    /// Forgets a queue pair.
    fn release(&mut self, num: u32) {
        self.queue_pairs.retain(|qp| qp.num != num);
        self.spare.take_if(|qp| qp.num == num);
    }
}

/// What a round that has something to do needs, got when first needed and held until its end.
struct Means<'a> {
    nic: &'a Nic,
    regions: Regions<'a>,
    time: Time<'a>,
}

impl<'a> Means<'a> {
    fn new(nic: &'a Nic) -> Means<'a> {
        Means { nic, regions: Regions { nic, guard: None }, time: Time { nic, now: None } }
    }
}

struct Regions<'a> {
    nic: &'a Nic,
    guard: Option<RwLockReadGuard<'a, MrTable>>,
}

impl Regions<'_> {
    /// The table of regions.
    #[inline]
    fn table(&mut self) -> &MrTable {
        self.guard.get_or_insert_with(|| self.nic.regions())
    }
}

struct Time<'a> {
    nic: &'a Nic,
    now: Option<Nanos>,
}

impl Time<'_> {
    /// When the round first wanted to know the time.
    #[inline]
    fn now(&mut self) -> Nanos {
        *self.now.get_or_insert_with(|| self.nic.now())
    }
}

/// What a round does with what it receives.
struct Intake<'a, 'n> {
    means: &'a mut Means<'n>,
    queue_pairs: &'a QpTable,
    dirty: &'a mut Vec<Arc<Qp>>,
    owing: &'a mut Owing,
    left: &'a mut Option<Arc<Link>>,
    lazy: bool,
}

impl Intake<'_, '_> {
    /// Takes in a packet.
    #[inline(never)]
    fn packet(&mut self, source: IpAddr, bytes: &[u8]) {
        let nic = self.means.nic;
        // What does not parse, or is for nobody, is dropped: IBTA 9.6.1 answers nothing there.
        let Ok(packet) = Packet::parse(bytes) else { return };
        if packet.bth().dest_qpn.get() == management::QPN {
            nic.cm.deliver(source, bytes, &packet);
            return;
        }
        let Some(qp) = self.queue_pairs.get(packet.bth().dest_qpn.get()) else { return };
        let far = nic.fetch.approach(qp);
        // Before the queue pair's lock.
        let mrs = self.means.regions.table();
        let mut inner = qp.lock();
        if far {
            inner.prefetch();
        }
        if packet.opcode() == Opcode::RC_ACK
            && let Some(aeth) = packet.aeth()
        {
            let ack = Ack { psn: packet.bth().psn, aeth };
            match qp.take_ack(nic, &mut inner, source, packet.bth().pkey, &ack) {
                Taken::Not => {}
                Taken::Done | Taken::Owes => return,
                Taken::Drive => {
                    inner.dirty = true;
                    self.dirty.push(qp.clone());
                    return;
                }
            }
        }
        // When requests come does not matter.
        let now = if packet.bth().opcode.is_request() { 0 } else { self.means.time.now() };
        if qp.receive(&mut inner, mrs, now, source, &packet)
            && !inner.dirty
            && !qp.complete_received(&mut inner)
        {
            inner.dirty = true;
            self.dirty.push(qp.clone());
        }
    }

    /// Takes in a short message; false, and nothing has happened to its queue pair, if it is to come as packets.
    #[inline]
    fn message(&mut self, source: IpAddr, express: &mut Express<'_>) -> bool {
        let nic = self.means.nic;
        if let Some(other) = express.take_other() {
            self.acknowledged(source, other, express.bth.pkey);
        }
        let Some(qp) = self.queue_pairs.get(express.bth.dest_qpn.get()) else { return false };
        let far = nic.fetch.approach(qp);
        // Before the queue pair's lock.
        let mrs = self.means.regions.table();
        let mut inner = qp.lock();
        if far {
            inner.prefetch();
        }
        if !inner.accepts(source) {
            return false;
        }
        // Over one queue pair the acknowledgement finds its message without the link.
        let left = if self.lazy && self.queue_pairs.is_several() { Some(&mut *self.left) } else { None };
        match qp.take_express(nic, mrs, &mut inner, express, left) {
            Taken::Not => return false,
            Taken::Done => {}
            Taken::Owes if self.lazy => self.owing.enter(qp),
            Taken::Owes | Taken::Drive => {
                inner.dirty = true;
                self.dirty.push(qp.clone());
            }
        }
        true
    }

    /// Takes in an acknowledgement that came beside a message for another queue pair.
    #[inline(never)]
    fn acknowledged(&mut self, source: IpAddr, beside: Beside, pkey: Pkey) {
        let (Some(qp), Some(ack)) = (self.queue_pairs.get(beside.to), beside.ack()) else { return };
        let mut inner = qp.lock();
        match qp.take_ack(self.means.nic, &mut inner, source, pkey, &ack) {
            Taken::Done | Taken::Owes => {}
            Taken::Drive => {
                inner.dirty = true;
                self.dirty.push(qp.clone());
            }
            Taken::Not => {
                // The usual way takes the lock after that of the regions.
                drop(inner);
                if let Some(packet) = beside.packet(pkey) {
                    self.packet(source, &packet);
                }
            }
        }
    }

    /// Takes in a message as packets.
    #[cold]
    fn unpack(&mut self, source: IpAddr, express: &Express<'_>) {
        express.unpack(&mut [0; MAX_PACKET], |packet| self.packet(source, packet));
    }
}

impl Sink for Intake<'_, '_> {
    #[inline]
    fn datagram(&mut self, datagram: Datagram<'_>) {
        let Datagram { source, packet } = datagram;
        let Some(mut express) = Express::of_packet(packet) else { return self.packet(source, packet) };
        let alone = express.packets() == 1;
        if self.message(source, &mut express) {
            return;
        }
        if alone { self.packet(source, packet) } else { self.unpack(source, &express) }
    }

    #[inline]
    fn express(&mut self, express: &mut Express<'_>) -> bool {
        self.message(self.means.nic.wire.address(), express)
    }
}

/// Fails the device if a panic passes: queue pairs on the engine's lists might never be driven again, and who waits for
/// them has to learn of it. It is forgotten at the end of a round: whether the thread is panicking says nothing, since
/// a program's own panic may run verbs in its destructors.
struct Fuse<'a>(&'a Nic);

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

impl Nic {
    /// One round for a caller that polls: returns at once if another thread receives already.
    pub(crate) fn progress(&self) {
        let Some(mut engine) = self.engine.try_lock() else {
            // The holder may have been preempted: on a busy machine spinning here would keep it so.
            std::thread::yield_now();
            return;
        };
        let received = self.round(&mut engine, Scan::Quick, self.will_look_in());
        if received.packets > 0 {
            engine.empty = 0;
            return;
        }
        engine.empty = engine.empty.saturating_add(1);
        let Engine { queue_pairs, ahead, .. } = &mut *engine;
        self.fetch.look_ahead(ahead, queue_pairs);
        let idle = engine.empty;
        drop(engine);
        let (idling, every) =
            if received.sockets { (IDLE_POLLS, YIELD_EVERY) } else { (IDLE_LOOKS, YIELD_LOOKS) };
        if idle > idling && idle.is_multiple_of(every) {
            std::thread::yield_now();
        }
    }

    /// One round for a thread that was woken; `None` if another receives already. If it `may_leave`, what it owes may wait for
    /// the device's thread.
    pub(super) fn try_round(&self, scan: Scan, may_leave: bool) -> Option<Received> {
        let mut engine = self.engine.try_lock()?;
        // Asked with the lock held: the thread has the lock when it pays and goes to sleep.
        Some(self.round(&mut engine, scan, may_leave && self.will_look_in()))
    }

    /// Receives once. With `lazy`, acknowledgements may be left for requests that the caller is about to post, or for the
    /// next round.
    fn round(&self, engine: &mut Engine, scan: Scan, lazy: bool) -> Received {
        let fuse = Fuse(self);
        let Engine { queue_pairs, ring, tx, dirty, owing, left, .. } = engine;
        // The tables are locked and the clock is read when there is something to do: most rounds of a spinning caller
        // find nothing.
        let mut means = Means::new(self);
        // Also true after the queue pair that owed something was destroyed.
        let owed = self.owing.load(Ordering::Relaxed);
        self.wire.send_left(left.as_ref());
        while let Some(qp) = owing.next() {
            let mrs = means.regions.table();
            let mut inner = qp.lock();
            if inner.owes() {
                qp.drive_with(self, mrs, &mut inner, tx, means.time.now());
                tx.flush(&self.wire);
            }
            drop(inner);
            owing.settled(qp);
        }
        let mut intake = Intake { means: &mut means, queue_pairs, dirty, owing, left, lazy };
        let received = self.wire.recv(ring, scan, BUDGET, &mut intake);
        self.cm.work(self);
        // What a queue pair sends leaves while it is locked, or a request that is just being posted would overtake it. Where
        // a batch costs a system call and many queue pairs share one, that is left to their transports.
        let few = dirty.len() <= FEW;
        if !dirty.is_empty() {
            for qp in dirty.drain(..) {
                let mrs = means.regions.table();
                let mut inner = qp.lock();
                inner.dirty = false;
                if !lazy {
                    qp.drive_with(self, mrs, &mut inner, tx, means.time.now());
                    tx.hand_over(&self.wire, few);
                } else if qp.drive_lazily(self, mrs, &mut inner, tx, means.time.now()) {
                    owing.enter(&qp);
                } else {
                    tx.hand_over(&self.wire, few);
                }
            }
        }
        self.wire.push_on();
        self.stalled.each(|num| {
            if let Some(qp) = queue_pairs.get(num) {
                let mrs = means.regions.table();
                let mut inner = qp.lock();
                qp.drive_with(self, mrs, &mut inner, tx, means.time.now());
                tx.flush(&self.wire);
            }
        });
        tx.flush(&self.wire);
        let owes = !owing.is_empty() || left.as_ref().is_some_and(|link| link.has_left());
        if owed || owes {
            self.owing.store(owes, Ordering::Relaxed);
        }
        std::mem::forget(fuse);
        received
    }

    /// Sends what callers' rounds left owing. Waits for a round in progress: what it leaves is sent, too.
    pub(super) fn pay(&self) {
        let mut engine = self.engine.lock();
        let Engine { tx, owing, left, .. } = &mut *engine;
        self.owing.store(false, Ordering::Relaxed);
        self.wire.send_left(left.as_ref());
        if owing.is_empty() {
            return;
        }
        let mrs = self.regions();
        let now = self.now();
        for qp in owing.queue_pairs.drain(..) {
            let mut inner = qp.lock();
            qp.pay(self, &mrs, &mut inner, tx, now);
            tx.flush(&self.wire);
        }
    }

    /// [`Nic::pay`] without waiting for any lock; false if one was held, and something may still be owed.
    pub(super) fn try_pay(&self) -> bool {
        let Some(mut engine) = self.engine.try_lock() else { return false };
        let Engine { tx, owing, left, .. } = &mut *engine;
        let mut missed = left.as_ref().is_some_and(|link| !link.try_settle());
        let mrs = match self.mrs.try_read() {
            Ok(mrs) => mrs,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let qps = match self.qps.try_read() {
            Ok(qps) => qps,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let now = self.now();
        // What peers did not ask to have acknowledged is to be told, too.
        for qp in qps.iter() {
            let Some(mut inner) = qp.try_lock().filter(|inner| inner.may_send()) else {
                missed = true;
                continue;
            };
            inner.owe_all();
            qp.pay(self, &mrs, &mut inner, tx, now);
            tx.flush(&self.wire);
            // Behind messages of this end's in a full ring it has to wait.
            missed |= inner.owes_only_ack();
            if inner.owe_again(self.wire.address()) {
                qp.pay(self, &mrs, &mut inner, tx, now);
                tx.flush(&self.wire);
            }
        }
        owing.queue_pairs.retain(|qp| match qp.try_lock().filter(|inner| inner.may_send()) {
            Some(mut inner) => {
                qp.pay(self, &mrs, &mut inner, tx, now);
                tx.flush(&self.wire);
                false
            }
            None => true,
        });
        !missed && owing.is_empty()
    }

    /// Looks at every queue pair, and every completion queue with an event held back, whose time has come.
    pub(super) fn run_timers(&self) {
        loop {
            let now = self.now();
            let due = self.timers.lock().unwrap_or_else(PoisonError::into_inner).take_alarm(now);
            let Some(cq) = due else { break };
            if let Some(cq) = cq.upgrade() {
                cq.expire(now);
            }
        }
        loop {
            let now = self.now();
            let due = self.timers.lock().unwrap_or_else(PoisonError::into_inner).take_due(now);
            let Some(num) = due else { return };
            if num == management::QPN {
                self.cm.timeout(self);
                continue;
            }
            let mrs = self.regions();
            let qps = self.qps.read().unwrap_or_else(PoisonError::into_inner);
            let Some(qp) = qps.get(num) else { continue };
            let mut inner = qp.lock();
            if inner.dirty {
                // A round is in the middle of its packets and drives it afterwards. To complete the first of them before
                // the rest is taken in would show an answer before the acknowledgement of what it answers.
                let due = now.saturating_add(DIRTY_NS);
                self.timer(&qp.timer, due);
                inner.timer = due;
                continue;
            }
            let mut tx = self.batch();
            qp.timeout(self, &mrs, &mut inner, &mut tx, now);
            tx.flush(&self.wire);
            drop(inner);
            self.return_batch(tx);
        }
    }
}
