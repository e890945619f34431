//! The link between real processes: this test binary runs itself again as each of them.
//!
//! A process is told what to do by lines on its standard input and answers each with one line.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;

/// Says that the test binary is a child, and on which port.
const PORT: &str = "IBEX_NET_TEST_CHILD";

/// The name of the test that is the child's main function.
const MAIN: &str = "net::tests::processes::child_main";

/// One process, killed when it goes out of scope.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    qpn: u32,
}

impl Process {
    fn start(config: &Config) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", MAIN, "--nocapture", "--test-threads=1"])
            .env(PORT, config.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, input, output, qpn: 0 };
        process.qpn = process.ask("qpn").parse().unwrap();
        process
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the child died at {command:?}");
            // The test harness writes lines of its own, and its last one without an end.
            if let Some(at) = line.find("> ") {
                return line[at + 2..].trim().to_owned();
            }
        }
    }

    fn is_holder(&mut self) -> bool {
        self.ask("holder") == "true"
    }

    /// SIGKILL: nothing of its own cleans up.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what a child does. Passes at once in the parent.
#[test]
fn child_main() {
    let Ok(port) = std::env::var(PORT) else { return };
    let config = Config { port: port.parse().unwrap(), link: LinkChoice::Wire, ..Config::new(LOOPBACK) };
    let mut end = End::open(&config);
    let qpn = end.wire.alloc_qpn().unwrap();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        end.wire.housekeeping(Instant::now());
        let answer = match words[..] {
            ["qpn"] => qpn.to_string(),
            ["holder"] => end.wire.is_holder().to_string(),
            ["send", to, number] => {
                let to = Peer { address: LOOPBACK, qpn: to.parse().unwrap() };
                end.send(to, number.parse().unwrap(), 1000);
                "sent".to_owned()
            }
            ["receive"] => end.receive().iter().fold(String::new(), |mut text, (_, number)| {
                write!(text, "{number} ").unwrap();
                text
            }),
            ["via_slot"] => end.wire.snapshot().tx_via_slot.to_string(),
            _ => panic!("{line}"),
        };
        println!("> {answer}");
    }
}

/// Asks `process` until it answers `wanted`.
fn until(process: &mut Process, command: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = process.ask(command);
        if answer == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{command}: {answer:?} instead of {wanted:?}");
    }
}

#[test]
fn three_processes_reach_each_other_and_survive_a_killed_holder() {
    let config = private(LOOPBACK);
    let mut processes: Vec<_> = (0..3).map(|_| Process::start(&config)).collect();
    let qpns: Vec<_> = processes.iter().map(|process| process.qpn).collect();
    for from in 0..3 {
        for to in (0..3).filter(|&to| to != from) {
            let number = 10 * from + to;
            processes[from].ask(&format!("send {} {number}", qpns[to]));
            until(&mut processes[to], "receive", &number.to_string());
            // The answer to its question, which is no packet.
            assert_eq!(processes[from].ask("receive"), "");
        }
    }
    let holder = processes.iter_mut().position(Process::is_holder).unwrap();
    processes.remove(holder).kill();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes.iter_mut().any(Process::is_holder) {
        assert!(Instant::now() < deadline, "nobody took over");
    }
    // A stranger's packets reach both that are left, one of them through the new holder.
    let socket = foreign_socket("127.0.0.2");
    let [left, right] = &mut processes[..] else { panic!() };
    if right.is_holder() {
        std::mem::swap(left, right);
    }
    let to = SocketAddr::new(LOOPBACK, config.port);
    for (number, qpn) in [left.qpn, right.qpn].into_iter().enumerate() {
        let mut sealed = [0; 128];
        let length = packet(&mut sealed, qpn, 70 + number as u32, 64) + ICRC_LEN;
        Flow::new(socket.local_addr().unwrap(), to).unwrap().seal(0, &mut sealed[..length]);
        socket.send_to(&sealed[..length], to).unwrap();
    }
    until(left, "receive", "70");
    until(right, "receive", "71");
    // Their own packets still go directly.
    let before = left.ask("via_slot");
    let to = right.qpn;
    left.ask(&format!("send {to} 72"));
    until(right, "receive", "72");
    assert_eq!(left.ask("via_slot"), before);
    // One more joins.
    let mut late = Process::start(&config);
    assert!(!late.is_holder());
    late.ask(&format!("send {to} 73"));
    until(right, "receive", "73");
}

#[test]
fn a_forked_child_keeps_nothing_alive() {
    // Played without fork(2), which a test harness with threads cannot use: the link itself is disarmed.
    let config = private(LOOPBACK);
    let end = End::open(&config);
    assert!(end.wire.is_holder());
    let slot = end.wire.slots().first().unwrap().number;
    end.wire.disarm_in_child();
    // Everything is free for another although `end` has not been dropped.
    let other = End::open(&config);
    // A process that another test starts meanwhile has a copy of every descriptor until its exec(2): once the port was not free
    // at that very moment.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !other.wire.is_holder() {
        assert!(Instant::now() < deadline, "somebody keeps the port");
        other.wire.housekeeping(Instant::now());
        std::thread::yield_now();
    }
    let name = std::os::unix::net::SocketAddr::from_abstract_name(other.wire.names().slot(slot)).unwrap();
    let free = std::os::unix::net::UnixDatagram::bind_addr(&name).is_ok();
    assert!(free || other.wire.slots().first().unwrap().number == slot);
    assert!(end.wire.own().recv(&mut [0; 8]).is_err());
}
