//! Attaching to another process, and noticing its end.
//!
//! Owns the handshake's states and the connection of each peer. Three steps, after which both have checked that the kernel
//! names the same user for the other, and nobody else has seen a descriptor of shared memory:
//!
//! | step | from | over | with |
//! |---|---|---|---|
//! | invitation | the lower port | the other's slot socket | one end of the connection |
//! | accept | the invited | the connection | the rings' file, its bell |
//! | confirm | the inviting | the connection | its bell |
//!
//! A connection that ends in between ends the attempt. Does not own what is sent over a slot's socket ([`crate::net`]).

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ancillary::{self, Credentials, Letter};
use super::bell::PeerBell;
use super::greeting::{EXTRA, GREETING, Greeting, Kind};
use super::link::{Link, LinkId};
use super::ring::{self, Side, Writer};
use super::segment::{self, Mapping};
use super::{Host, MAX_PEERS, Peers};
use crate::oneside::{Line, View};

/// Least time between two invitations of one process that does not answer them.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a process that wrote garbage into a ring is met on the wire only. It is known by its port, which an innocent
/// one may have soon.
const BARRED: Duration = Duration::from_secs(60);

/// Attempts at a time, and how long one may take when another wants its place: a peer that is awake answers within
/// milliseconds.
const MAX_ATTEMPTS: usize = 32;
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A peer, or an attempt.
#[derive(Debug)]
pub(super) struct Entry {
    connection: OwnedFd,
    port: u16,
    since: Instant,
    stage: Stage,
    /// Where the peer says which of our memory it works on.
    line: Option<Line>,
}

#[derive(Debug)]
enum Stage {
    /// We have asked.
    Invited,
    /// We have been asked and have accepted, with this file.
    Accepted(Arc<Mapping>),
    /// Attached; we read this side of the file.
    Live(Arc<Link>, Arc<Mapping>, Side),
}

/// A link has come or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// To the process with this port.
    Up(u16, LinkId),
    /// The process is gone, or has proved unfit.
    Down(u16, LinkId),
}

/// An invitation to be sent: dropped without that, the attempt ends.
#[derive(Debug)]
pub(crate) struct Invitation {
    /// The other end of the connection, to travel to the peer.
    pub(crate) end: OwnedFd,
    /// The connection to be watched, and its tag.
    pub(crate) watch: (RawFd, usize),
}

impl Entry {
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        self.reading().map(|(link, ..)| link)
    }

    /// The link, its memory, and the side that is read.
    pub(super) fn reading(&self) -> Option<(&Arc<Link>, &Arc<Mapping>, Side)> {
        match &self.stage {
            Stage::Live(link, map, side) => Some((link, map, *side)),
            Stage::Invited | Stage::Accepted(_) => None,
        }
    }
}

impl Host {
    /// Whether a datagram is from a process that memory may be shared with.
    pub(crate) fn knows(&self, letter: &Letter) -> bool {
        self.is_one_of_us(letter.from)
    }

    /// An invitation for the process with UDP port `port`, if it is time for one. `unwatch` is called with the
    /// connection of an attempt that ends for it.
    pub(crate) fn invite(&self, port: u16, unwatch: impl FnOnce(RawFd)) -> Option<Invitation> {
        let mut peers = self.lock();
        // The process with the lower port asks.
        if port <= self.port || !peers.may_meet(port, Instant::now()) {
            return None;
        }
        self.limit_attempts(&mut peers, unwatch)?;
        let tag = peers.vacant()?;
        peers.not_before(port, Instant::now() + AGAIN);
        let (ours, end) = ancillary::pair().ok()?;
        let watch = (ours.as_raw_fd(), tag);
        self.note_connection(tag, Some(&ours));
        let (since, line) = (Instant::now(), self.line());
        peers.entries[tag] = Some(Entry { connection: ours, port, since, stage: Stage::Invited, line });
        Some(Invitation { end, watch })
    }

    /// Answers an invitation from the process with UDP port `port`; the connection to be watched, and its tag. `unwatch`
    /// as for [`Host::invite`].
    pub(crate) fn accept(
        &self,
        port: u16,
        letter: &mut Letter,
        unwatch: impl FnOnce(RawFd),
    ) -> Option<(RawFd, usize)> {
        if !self.is_one_of_us(letter.from) || letter.fds.len() != 1 {
            return None;
        }
        let connection = letter.fds.pop()?;
        let mut peers = self.lock();
        if port >= self.port || !peers.may_meet(port, Instant::now()) {
            return None;
        }
        self.limit_attempts(&mut peers, unwatch)?;
        let tag = peers.vacant()?;
        let (file, map) = segment::create(ring::PAIR, false).ok()?;
        let [page, event] = self.bell.fds();
        let line = self.line();
        let greeting = self.greeting(Kind::Accept, line.as_ref()).emit();
        let mut fds = vec![file.as_fd(), page, event];
        fds.extend(self.files(line.as_ref()));
        ancillary::send(connection.as_fd(), None, &greeting, &fds).ok()?;
        let watch = (connection.as_raw_fd(), tag);
        self.note_connection(tag, Some(&connection));
        let (since, stage) = (Instant::now(), Stage::Accepted(Arc::new(map)));
        peers.entries[tag] = Some(Entry { connection, port, since, stage, line });
        Some(watch)
    }

    /// Sees to it that there is room for one more attempt: the oldest ends, if it takes too long. `None` if none does.
    fn limit_attempts(&self, peers: &mut Peers, unwatch: impl FnOnce(RawFd)) -> Option<()> {
        let attempts = peers.entries.iter().enumerate();
        let attempts = attempts.filter_map(|(tag, entry)| Some((tag, entry.as_ref()?)));
        let attempts = attempts.filter(|(_, entry)| entry.reading().is_none());
        let (count, oldest) = attempts
            .fold((0, None::<(Instant, usize)>), |(count, oldest), (tag, entry)| {
                (count + 1, oldest.into_iter().chain([(entry.since, tag)]).min())
            });
        let (since, tag) = oldest.filter(|_| count >= MAX_ATTEMPTS).unzip();
        if let (Some(since), Some(tag)) = (since, tag) {
            if since.elapsed() < ANSWERS_WITHIN {
                return None;
            }
            self.part(peers, tag, unwatch);
        }
        Some(())
    }

    /// Takes what came on the connection watched under `tag`, or notices its end. When the end has come, `unwatch` is
    /// called before the descriptor is closed.
    pub(crate) fn attend(&self, tag: usize, unwatch: impl FnOnce(RawFd)) -> Option<Change> {
        let mut peers = self.lock();
        let entry = peers.entries.get(tag)?.as_ref()?;
        let mut bytes = [0; GREETING];
        let advanced = match ancillary::receive(entry.connection.as_fd(), &mut bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return None;
            }
            // Its end, or an error, which comes to the same.
            Err(_) | Ok(Letter { length: 0, .. }) => None,
            Ok(letter) if !self.is_one_of_us(letter.from) => None,
            Ok(letter) => {
                let length = letter.length;
                Greeting::parse(&bytes[..length])
                    .and_then(|said| self.advance(&mut peers, tag, &said, letter))
            }
        };
        match advanced {
            Some((port, id)) => {
                self.changed();
                Some(Change::Up(port, id))
            }
            None => self.part(&mut peers, tag, unwatch),
        }
    }

    /// Parts with a peer whose link is down although its connection is not: it wrote garbage.
    pub(crate) fn expel(&self, unwatch: impl FnOnce(RawFd)) -> Option<Change> {
        let mut peers = self.lock();
        let unfit =
            |entry: &Option<Entry>| entry.as_ref().is_some_and(|e| e.link().is_some_and(|l| l.is_down()));
        let tag = peers.entries.iter().position(unfit)?;
        if let Some(entry) = &peers.entries[tag] {
            let port = entry.port;
            peers.not_before(port, Instant::now() + BARRED);
        }
        self.part(&mut peers, tag, unwatch)
    }

    /// The next step of a handshake; `None` if what came does not belong there.
    fn advance(
        &self,
        peers: &mut Peers,
        tag: usize,
        said: &Greeting,
        letter: Letter,
    ) -> Option<(u16, LinkId)> {
        let pid = letter.from.map_or(0, |from| from.pid);
        let entry = peers.entries.get(tag)?.as_ref()?;
        if said.port != entry.port {
            return None;
        }
        let port = entry.port;
        let mut fds = letter.fds;
        let (map, writes, reads, bell, view) = match (&entry.stage, said.kind) {
            (Stage::Invited, Kind::Accept) => {
                let files = fds.split_off(fds.len().min(3));
                let [file, page, event] = fds.try_into().ok()?;
                let map = segment::open(file.as_fd(), ring::PAIR).ok()?;
                let bell = PeerBell::new(&page, event).ok()?;
                let line = entry.line.as_ref();
                let greeting = self.greeting(Kind::Confirm, line).emit();
                let mut fds = self.bell.fds().to_vec();
                fds.extend(self.files(line));
                ancillary::send(entry.connection.as_fd(), None, &greeting, &fds).ok()?;
                (Arc::new(map), Side::Back, Side::Forth, bell, see(said, files, pid))
            }
            (Stage::Accepted(map), Kind::Confirm) => {
                let files = fds.split_off(fds.len().min(2));
                let [page, event] = fds.try_into().ok()?;
                let bell = PeerBell::new(&page, event).ok()?;
                (map.clone(), Side::Forth, Side::Back, bell, see(said, files, pid))
            }
            _ => return None,
        };
        peers.count += 1;
        let id = peers.count;
        let link = Arc::new(Link::new(id, port, map.clone(), Writer::new(writes), bell, view));
        if let Some(Some(entry)) = peers.entries.get_mut(tag) {
            if let Some(line) = &mut entry.line {
                line.attached(link.view().as_ref());
            }
            entry.stage = Stage::Live(link, map, reads);
        }
        Some((port, id))
    }

    /// Closes a connection.
    fn part(&self, peers: &mut Peers, tag: usize, unwatch: impl FnOnce(RawFd)) -> Option<Change> {
        self.note_connection(tag, None);
        let entry = peers.entries.get_mut(tag)?.take()?;
        unwatch(entry.connection.as_raw_fd());
        let link = entry.link()?;
        link.take_down();
        self.gone.fetch_add(link.express_packets(), Ordering::Relaxed);
        self.changed();
        Some(Change::Down(entry.port, link.id))
    }

    fn greeting(&self, kind: Kind, line: Option<&Line>) -> Greeting {
        let pid = std::process::id().cast_signed();
        Greeting { kind, port: self.port, pid, extra: line.map_or([0; EXTRA], Line::greeting) }
    }

    /// A place for a peer to say which of our memory it works on.
    fn line(&self) -> Option<Line> {
        self.memory.as_ref()?.admit()
    }

    /// The files about our memory that go with it.
    fn files<'a>(&'a self, line: Option<&'a Line>) -> impl Iterator<Item = BorrowedFd<'a>> {
        let both = self.memory.as_ref().zip(line);
        both.and_then(|(memory, line)| memory.files(line)).into_iter().flatten()
    }

    fn is_one_of_us(&self, from: Option<Credentials>) -> bool {
        from.is_some_and(|from| from.uid == self.user)
    }
}

/// The peer's memory, if it has told of it.
fn see(said: &Greeting, files: Vec<OwnedFd>, pid: i32) -> Option<View> {
    View::attach(&said.extra, files.try_into().ok()?, pid).ok()
}

impl Peers {
    /// Whether the process with this port is neither a peer nor to be left alone for now.
    fn may_meet(&mut self, port: u16, now: Instant) -> bool {
        self.avoided.retain(|&(_, until)| until > now);
        !self.avoided.iter().any(|&(known, _)| known == port)
            && !self.entries.iter().flatten().any(|entry| entry.port == port)
    }

    fn not_before(&mut self, port: u16, until: Instant) {
        self.avoided.push((port, until));
    }

    /// A tag not in use.
    fn vacant(&mut self) -> Option<usize> {
        let free = self.entries.iter().position(Option::is_none);
        if free.is_none() && self.entries.len() < MAX_PEERS {
            self.entries.push(None);
            return Some(self.entries.len() - 1);
        }
        free
    }
}
