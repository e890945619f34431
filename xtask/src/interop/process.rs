//! One case as processes: started, watched, ended in bounded time, judged.
//!
//! A client starts when its server's TCP port is seen listening in `/proc/<pid>/net/tcp` (proc(5)), so nothing sleeps on
//! a guess and no connection is wasted on a probe.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cases::{Case, Check};
use super::command::{self, Role};
use super::link::{End, Kind, Link, Table};
use super::verdict;

/// How often a process is looked at.
const TICK: Duration = Duration::from_millis(2);

/// Processor time after which a client of a bandwidth test is past its set-up and moves data. Clock ticks of 10 ms:
/// perftest's calibration of the cycle counter alone spins for 20 to 30 of them.
const MOVING_TICKS: u64 = 100;

/// How long a server must have rested. Starting a program pauses for less, except in an emulated machine, where time
/// limits are longer too.
const REST: Duration = Duration::from_millis(150);

/// perftest's words when its calibration of the cycle counter against the clock failed, which happens now and then on
/// an emulated or crowded processor. It then ends with code 1 and without its result: such a run says nothing about
/// the device and is repeated.
const UNCALIBRATED: &str = "Can't produce a report";

/// perftest with `-R` connects twice, and between the two its server does not listen. The kernel's server needs longer for
/// that than the software device's client for its second request, which is then refused as it should be (reason 8: no
/// such service). Seen only with the kernel at the server's end: there such a run is repeated.
const NOT_YET: &str = "Event: RDMA_CM_EVENT_REJECTED; error: 8.";

/// Runs of one case at most, if each was spoilt by [`UNCALIBRATED`] or [`NOT_YET`].
const ATTEMPTS: usize = 6;

/// Further runs of one case at most after [`verdict::left_unheard`] or [`verdict::left_untold`], which each row tells. Such a
/// loss hits one run in a hundred, one in ten with `udaddy`'s eight answers; a device that loses such words by itself would
/// soon need more.
const UNHEARD: u32 = 2;

/// How long a server is given to end after an rxe client that parted from it, where packets are lost: what is repeated at all
/// has been by then.
const PARTING: Duration = Duration::from_secs(20);

/// How a case ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What is wrong, with the end of both outputs; `None` if nothing is.
    pub(super) failure: Option<String>,
    /// Commands and all output.
    pub(super) transcript: String,
    /// The failure is [`verdict::left_unheard`] or [`verdict::left_untold`].
    unheard: bool,
    /// Runs before this one that ended so.
    pub(super) repeated: u32,
}

/// What one process left.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// Exit code, or `None` if it was killed by a signal.
    pub(super) code: Option<i32>,
    /// Standard output and standard error, as they came.
    pub(super) output: String,
}

/// Runs `case` over `link`.
///
/// # Errors
/// If a process cannot be started or watched; a case that fails is an [`Outcome`].
pub(super) fn run(case: &Case, link: &Link) -> Result<(Outcome, Duration)> {
    let start = Instant::now();
    let mut attempts = 0;
    let mut repeated = 0;
    loop {
        attempts += 1;
        let deadline = Instant::now() + Duration::from_secs(case.seconds) * link.patience;
        let mut outcome =
            if case.is_pair() { pair(case, link, deadline)? } else { single(case, link, deadline)? };
        if outcome.unheard && repeated < UNHEARD {
            repeated += 1;
            continue;
        }
        outcome.repeated = repeated;
        let said = |text| outcome.failure.is_some() && outcome.transcript.contains(text);
        let spoilt = said(UNCALIBRATED) || (link.table == Table::IbexToRxe && said(NOT_YET));
        if !spoilt || attempts == ATTEMPTS {
            return Ok((outcome, start.elapsed()));
        }
    }
}

fn single(case: &Case, link: &Link, deadline: Instant) -> Result<Outcome> {
    let mut process = Running::start(&command::words(case, link, Role::Single, 0, ""), &link.server)?;
    let failure = match process.wait(deadline)? {
        None => Some("does not end".to_owned()),
        Some(ended) => verdict::single(&case.check, &ended).err(),
    };
    Ok(outcome(failure, &[("", &process)]))
}

fn pair(case: &Case, link: &Link, deadline: Instant) -> Result<Outcome> {
    let port = free_port(link.meeting)?;
    let buffers = match case.check {
        Check::Payload { size, .. } => {
            Some([Buffer::create(size, "server")?, Buffer::create(size, "client")?])
        }
        _ => None,
    };
    let start = |role, end, buffer: usize| {
        let path =
            buffers.as_ref().map_or(String::new(), |both| both[buffer].path.to_string_lossy().into_owned());
        Running::start(&command::words(case, link, role, port, &path), end)
    };
    let mut server = start(Role::Server, &link.server, 0)?;
    let ready = if case.is_managed() {
        server.settles(REST * link.patience, deadline)?
    } else {
        server.listens(port, deadline)?
    };
    if !ready {
        return Ok(outcome(Some("the server does not listen".to_owned()), &[("server", &server)]));
    }
    let mut client = start(Role::Client, &link.client, 1)?;
    let mut unheard = false;
    let failure = match case.check {
        Check::ServerKilled => {
            client.moves(deadline)?;
            server.child.kill()?;
            match client.wait(deadline)? {
                None => Some("the client does not end after its server was killed".to_owned()),
                Some(ended) => verdict::peer_lost(&ended).err(),
            }
        }
        Check::ClientInterrupted => {
            client.moves(deadline)?;
            client.interrupt()?;
            match server.wait(deadline)? {
                None => Some("the server does not end after its client was interrupted".to_owned()),
                Some(ended) if ended.code.is_none() => Some("the server was killed by a signal".to_owned()),
                Some(_) => None,
            }
        }
        Check::Steps => match client.wait(deadline)? {
            None => Some("the client does not end".to_owned()),
            Some(ended) if server.ended()? => Some(format!("the server ended; the client {}", code(&ended))),
            Some(ended) => verdict::steps(&ended).err(),
        },
        _ => {
            // The client first: a failed client is told at once, while its server may wait for ever.
            let client_ended = client.wait(deadline)?;
            let failed = client_ended.as_ref().is_some_and(|ended| ended.code != Some(0));
            let may_be_untold =
                matches!((link.kind, link.table), (Kind::Kernel { loss: 1.. }, Table::RxeToIbex))
                    && client_ended.as_ref().is_some_and(|ended| verdict::left_untold(&case.check, ended));
            let server_deadline = if failed {
                Instant::now() + Duration::from_secs(1)
            } else if may_be_untold {
                deadline.min(Instant::now() + PARTING)
            } else {
                deadline
            };
            let server_ended = server.wait(server_deadline)?;
            unheard = may_be_untold && server_ended.is_none();
            if let (Some(client), Some(server)) = (&client_ended, &server_ended) {
                unheard = match (link.kind, link.table) {
                    (Kind::Kernel { loss: 1.. }, Table::IbexToRxe) => {
                        verdict::left_unheard(&case.check, server, client)
                    }
                    (Kind::Kernel { loss: 1.. }, Table::RxeToIbex) => {
                        verdict::left_unheard(&case.check, client, server)
                    }
                    _ => false,
                };
            }
            match (client_ended, server_ended) {
                (Some(client), Some(server)) => verdict::pair(&case.check, &client, &server)
                    .and_then(|()| {
                        buffers.as_ref().map_or(Ok(()), |[server, client]| client.arrived_in(server))
                    })
                    .err(),
                (Some(client), None) if client.code != Some(0) => {
                    Some(format!("the client ended {}", code(&client)))
                }
                (None, None) => Some("neither process ends".to_owned()),
                (None, Some(server)) => {
                    Some(format!("the client does not end; the server ended {}", code(&server)))
                }
                (Some(_), None) => Some("the server does not end".to_owned()),
            }
        }
    };
    Ok(Outcome { unheard, ..outcome(failure, &[("server", &server), ("client", &client)]) })
}

fn code(ended: &Ended) -> String {
    ended.code.map_or_else(|| "by a signal".to_owned(), |code| format!("with code {code}"))
}

fn outcome(failure: Option<String>, processes: &[(&str, &Running)]) -> Outcome {
    let transcript: String = processes
        .iter()
        .map(|(role, process)| {
            let indented: String = process.output().lines().map(|line| format!("  | {line}\n")).collect();
            format!("  {role}$ {}\n{indented}", process.command)
        })
        .collect();
    let failure = failure.map(|reason| format!("  {reason}\n{}", tail(&transcript)));
    Outcome { failure, transcript, unheard: false, repeated: 0 }
}

/// The end of a long text: the reason of a failure is there, and a table of CI must stay readable.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A TCP port that nothing uses at `address`, or anywhere here if the address is another host's.
fn free_port(address: IpAddr) -> Result<u16> {
    // Below the range of ports that the system hands out to outgoing connections (32768 and up), and apart for
    // several runs on one machine.
    const RANGE: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..RANGE {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + ((std::process::id() * 97 + step) % RANGE) as u16;
        let local = if address.is_loopback() { address } else { IpAddr::from([0, 0, 0, 0]) };
        if TcpListener::bind(SocketAddr::new(local, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free TCP port between 20000 and 30000")
}

/// A file that a perftest program uses as its buffer: first what it sends, then what it receives.
struct Buffer {
    path: PathBuf,
    size: u64,
}

impl Buffer {
    /// A file for messages of `size` bytes in each direction, in memory: not every file system's pages can be pinned.
    fn create(size: u64, role: &str) -> Result<Buffer> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ibex-interop-{}-{number}-{role}", std::process::id());
        let path = PathBuf::from("/dev/shm").join(name);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let buffer = Buffer { path, size };
        // A page more than both halves: perftest rounds up to cache lines.
        file.set_len(2 * size + 4096)?;
        Ok(buffer)
    }

    /// Whether the first half of this client's buffer equals the second half of the server's.
    fn arrived_in(&self, server: &Buffer) -> std::result::Result<(), String> {
        let read = |buffer: &Buffer| fs::read(&buffer.path).map_err(|error| error.to_string());
        let size = usize::try_from(self.size).map_err(|error| error.to_string())?;
        verdict::payload(&read(self)?, &read(server)?, size)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A process and the file that its output goes to. Killed if it still runs when this is dropped.
struct Running {
    child: Child,
    command: String,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Running {
    fn start(words: &[String], end: &End) -> Result<Running> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("ibex-interop-{}-{number}.log", std::process::id()));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let mut text = String::new();
        for (key, value) in &end.env {
            command.env(key, value);
            text.push_str(&format!("{key}={value} "));
        }
        text.push_str(&words.join(" "));
        let child = command.spawn().with_context(|| format!("cannot start {}", words[0]))?;
        Ok(Running { child, command: text, log, status: None })
    }

    fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits for the end; `None` at the deadline, with the process still running.
    fn wait(&mut self, deadline: Instant) -> Result<Option<Ended>> {
        let ended = self.until(deadline, |_| Ok(false))?;
        Ok(ended.map(|status| Ended { code: status.code(), output: self.output() }))
    }

    /// Waits until `done`, the end of the process (its status is returned) or the deadline.
    fn until(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Option<ExitStatus>> {
        loop {
            if self.status.is_none() {
                self.status = self.child.try_wait()?;
            }
            if self.status.is_some() || Instant::now() >= deadline || done(self.child.id())? {
                return Ok(self.status);
            }
            thread::sleep(TICK);
        }
    }

    /// Waits until the process listens on `port`; false if it ends or the deadline passes before.
    fn listens(&mut self, port: u16, deadline: Instant) -> Result<bool> {
        let mut listening = false;
        self.until(deadline, |pid| {
            listening = ["tcp", "tcp6"].iter().any(|table| {
                fs::read_to_string(format!("/proc/{pid}/net/{table}"))
                    .is_ok_and(|text| has_listener(&text, port))
            });
            Ok(listening)
        })?;
        Ok(listening)
    }

    /// Waits until the process rests: rdma_cm's listeners are in no table that every device has, so a server counts as
    /// listening when all its threads sleep and have used no processor time for so long. False if it ends or the
    /// deadline passes.
    fn settles(&mut self, long: Duration, deadline: Instant) -> Result<bool> {
        let mut rest: Option<(u64, Instant)> = None;
        let mut settled = false;
        self.until(deadline, |pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let ticks = processor_ticks(&stat).filter(|_| all_sleep(pid));
            rest = match (ticks, rest) {
                (Some(now), Some((then, since))) if now == then => {
                    settled = since.elapsed() >= long;
                    Some((then, since))
                }
                (now, _) => now.map(|now| (now, Instant::now())),
            };
            Ok(settled)
        })?;
        Ok(settled)
    }

    /// Whether the process has ended.
    fn ended(&mut self) -> Result<bool> {
        Ok(self.until(Instant::now(), |_| Ok(true))?.is_some())
    }

    /// Waits until the process has used so much processor time that it must be past its set-up, or has ended.
    fn moves(&mut self, deadline: Instant) -> Result<()> {
        self.until(deadline, |pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            Ok(processor_ticks(&stat).is_some_and(|ticks| ticks >= MOVING_TICKS))
        })?;
        Ok(())
    }

    /// What control-C does.
    fn interrupt(&self) -> Result<()> {
        crate::util::run(Command::new("sh").args(["-c", &format!("kill -INT {}", self.child.id())]))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            // It may have ended meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.log);
    }
}

/// Whether a table like /proc/net/tcp has a socket in state LISTEN (0A) on `port`, at any address.
fn has_listener(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let local = columns.next().and_then(|local| local.rsplit_once(':'));
        let state = columns.nth(1);
        local.is_some_and(|(_, number)| u16::from_str_radix(number, 16) == Ok(port)) && state == Some("0A")
    })
}

/// Whether every thread waits for something.
fn all_sleep(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks
        .flatten()
        .all(|task| fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| is_sleeping(&stat)))
}

/// Whether a thread's `stat` says that it waits for something (state S).
fn is_sleeping(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

/// User and system time from `/proc/<pid>/stat`: fields 14 and 15, counted after the name in parentheses.
fn processor_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
            0: 0100007F:4E20 00000000:0000 0A 00000000:00000000\n   \
            1: 0100007F:4E21 0100007F:9C40 01 00000000:00000000\n";
        assert!(has_listener(table, 20_000));
        assert!(!has_listener(table, 20_001));
    }

    #[test]
    fn processor_time_is_found_behind_a_name_with_parentheses() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 12 30 0 0 20 0 1 0 100 0 0";
        assert_eq!(processor_ticks(stat), Some(42));
        assert!(is_sleeping(stat));
        assert!(!is_sleeping("7 (a S) R 1 7"));
    }

    #[test]
    fn two_ports_in_a_row_differ() {
        let address = IpAddr::from([127, 0, 0, 1]);
        assert_ne!(free_port(address).expect("a port"), free_port(address).expect("a port"));
    }
}
