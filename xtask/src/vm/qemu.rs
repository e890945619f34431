//! One QEMU process: its command line, its two output ports, its bounded life.
//!
//! The process is ended by its own pid, when both ports have reported the end of the script or the time is up; it
//! also dies with this program (`setpriv --pdeathsig`, prctl(2) PR_SET_PDEATHSIG), on Ctrl-C for instance, and the
//! guest switches itself off after its limit. The processor is emulated (QEMU's "TCG"): the same on every machine, in
//! containers and nested machines where /dev/kvm is absent, or there and not working; neither KVM nor root is needed.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::stream::{Demux, Mark};

/// Bytes of memory given to the guest, in MiB. The kernel and the suite need under 1 GiB; tmpfs takes the rest.
const MEMORY_MIB: u32 = 2048;

/// Everything one run needs to know.
pub(crate) struct Machine<'a> {
    /// Kernel image.
    pub(crate) image: &'a Path,
    /// Initial file system.
    pub(crate) initramfs: &'a Path,
    /// Folder of the host the guest may write to.
    pub(crate) share: &'a Path,
    /// Where the serial console goes (kernel messages).
    pub(crate) console: &'a Path,
    /// The word of the marks in the output.
    pub(crate) word: &'a str,
    /// Wall clock for the whole life of the machine.
    pub(crate) limit: Duration,
    /// Pass the script's output, and its errors, on while it runs.
    pub(crate) echo: (bool, bool),
}

/// What came out of a run.
pub(crate) struct Outcome {
    /// The script's exit code.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its standard error, and QEMU's.
    pub(crate) stderr: Vec<u8>,
    /// From the start of QEMU to the start of the script.
    pub(crate) ready: Duration,
}

/// What the two reading threads tell.
enum Event {
    Ready,
    Exit(i32),
    Closed,
}

impl Machine<'_> {
    /// Boots, runs, ends.
    ///
    /// # Errors
    /// If QEMU cannot be started, ends before the script does, or the limit passes.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let start = Instant::now();
        let mut child = Owned(self.command().spawn().context("cannot start qemu-system-x86_64")?);
        let (events, inbox) = mpsc::channel();
        let out = child.0.stdout.take().context("QEMU has no standard output")?;
        let err = child.0.stderr.take().context("QEMU has no standard error")?;
        let (word, (echo, echo_errors)) = (self.word.to_owned(), self.echo);
        let out = {
            let (word, events) = (word.clone(), events.clone());
            thread::spawn(move || read_port(out, &word, echo.then(std::io::stdout), &events))
        };
        let err = thread::spawn(move || read_port(err, &word, echo_errors.then(std::io::stderr), &events));

        let (mut ready, mut code, mut exits, mut closed) = (None, 0, 0, 0);
        let verdict = loop {
            match inbox.recv_timeout(self.limit.saturating_sub(start.elapsed())) {
                Ok(Event::Ready) => ready = Some(start.elapsed()),
                Ok(Event::Exit(value)) => {
                    // The port of standard error always says 0.
                    code = code.max(value);
                    exits += 1;
                    if exits == 2 {
                        break Ok(());
                    }
                }
                Ok(Event::Closed) => {
                    closed += 1;
                    if closed == 2 {
                        break Err("QEMU ended before the script did".to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    break Err(format!(
                        "the machine did not finish within {} s; give it more with --limit",
                        self.limit.as_secs()
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => break Err("QEMU's output ended".to_owned()),
            }
        };
        drop(child);
        // Both pipes are closed now, so the threads end.
        let (stdout, stderr) = (join(out), join(err));
        match verdict {
            Ok(()) => Ok(Outcome { code, stdout, stderr, ready: ready.unwrap_or_default() }),
            Err(what) => bail!("{what}{}", self.explain(&stdout, &stderr)),
        }
    }

    /// The last lines of all that was printed, for an error: the script's output names the test that hung.
    fn explain(&self, stdout: &[u8], stderr: &[u8]) -> String {
        let console = std::fs::read(self.console).unwrap_or_default();
        let mut text = String::new();
        for (name, bytes) in [("console", console.as_slice()), ("stderr", stderr), ("stdout", stdout)] {
            let lines: Vec<_> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
            for line in &lines[lines.len().saturating_sub(12)..] {
                text.push_str(&format!("\n  {name}: {line}"));
            }
        }
        text
    }

    fn command(&self) -> Command {
        // The guest's own bound is a little later, so that the host's message is the one seen.
        // `no_timer_check`: on a crowded host the emulated timer may not tick during the few milliseconds in which the
        // kernel watches for it, and it would panic.
        // `tsc=reliable`: the emulated counters are one and the same; without it the kernel reads another clock, in a system
        // call, which no real machine does.
        let cmdline = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable ibex.mark={} ibex.limit={}",
            self.word,
            self.limit.as_secs() + 30
        );
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "q35", "-smp", "2"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-m", &MEMORY_MIB.to_string(), "-nodefaults", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs).args(["-append", &cmdline]);
        command.arg("-serial").arg(format!("file:{}", escape(self.console)));
        command.args(["-device", "virtio-serial-pci"]);
        // Port 0 is reserved for a console. Not `-chardev stdio`: it closes with standard input, and the guest's
        // writes then block.
        for (number, name, chardev) in
            [(1, "out", "file,id=out,path=/dev/stdout"), (2, "err", "file,id=err,path=/dev/stderr")]
        {
            command.args(["-chardev", chardev]);
            command.args(["-device", &format!("virtserialport,nr={number},chardev={name},name=ibex.{name}")]);
        }
        command
            .args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]);
        command.arg("-virtfs").arg(format!(
            "local,path={},mount_tag=share,security_model=none,multidevs=remap",
            escape(self.share)
        ));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A comma ends a value in QEMU's options unless doubled.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Reads one port to its end; passes the script's bytes on and keeps them.
fn read_port(
    mut port: impl Read,
    word: &str,
    mut echo: Option<impl Write>,
    events: &Sender<Event>,
) -> Vec<u8> {
    let mut demux = Demux::new(word);
    let mut kept = Vec::new();
    let mut chunk = [0; 8192];
    let mut pass = |bytes: &[u8]| {
        kept.extend_from_slice(bytes);
        if let Some(echo) = &mut echo {
            // A reader that went away (`| head`) is no reason to lose the result.
            let _ = echo.write_all(bytes).and_then(|()| echo.flush());
        }
    };
    while let Ok(count @ 1..) = port.read(&mut chunk) {
        for mark in demux.feed(&chunk[..count], &mut pass) {
            // The other end is gone only when the run is over.
            let _ = events.send(match mark {
                Mark::Ready => Event::Ready,
                Mark::Exit(code) => Event::Exit(code),
            });
        }
    }
    demux.finish(&mut pass);
    let _ = events.send(Event::Closed);
    kept
}

fn join(thread: thread::JoinHandle<Vec<u8>>) -> Vec<u8> {
    // A reading thread cannot panic; were it to, its output is lost and the verdict stands.
    thread.join().unwrap_or_default()
}

/// A child that does not outlive its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(escape(Path::new("/a,b/c")), "/a,,b/c");
    }

    #[test]
    fn a_port_is_read_to_its_end() {
        let (events, inbox) = mpsc::channel();
        let input = "\x1ew ready\nhello\n\x1ew exit 3\n".as_bytes();
        assert_eq!(read_port(input, "w", None::<std::io::Stdout>, &events), b"hello\n");
        let got: Vec<Event> = inbox.try_iter().collect();
        assert!(matches!(got[..], [Event::Ready, Event::Exit(3), Event::Closed]));
    }
}
