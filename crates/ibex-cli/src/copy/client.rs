//! `ibex cp`: the client of a copy, in either direction.
//!
//! Owns what the user gives and gets: locations, the progress bar, the outcome, exit status. The client is the active side
//! of the device: it READs from the server's window to download and WRITEs into it to upload.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::location::Location;
use super::message::{Hello, Message, Problem, Report, SourceInfo, VERSION, Welcome, Wish};
use super::place::{Dest, Place, Source, source_name};
use super::progress::Progress;
use super::rdma::Attachment;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::args::CpArgs;
use crate::control::{Control, PeerGone};
use crate::device::{self, DeviceFailed};
use crate::output;

/// A device may report a dead peer before the control connection does; it gets this long to confirm.
const CONFIRM: Duration = Duration::from_millis(500);
/// How long the pauses are between two looks.
const SLICE: Duration = Duration::from_millis(20);

/// The outcome, as `--json` prints it.
#[derive(Serialize)]
struct Outcome<'a> {
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
    problems: &'a [Problem],
    /// Why the copy ended early.
    error: Option<String>,
    seconds: f64,
    gbytes_per_s: f64,
}

/// Copies.
///
/// # Errors
/// When the copy could not be made or ended early, or single entries failed.
pub(crate) fn run(args: &CpArgs) -> Result<()> {
    let begin = Instant::now();
    let mut progress = Progress::new(!args.quiet && !args.json);
    let result = copy(args, &mut progress);
    progress.close();
    let seconds = begin.elapsed().as_secs_f64();
    let (report, error) = match result {
        Ok(report) if report.failed == 0 => (report, None),
        Ok(report) => {
            let what = count(report.failed, "entry was", "entries were");
            let error = anyhow::anyhow!("{what} not copied (named above); the same command tries again");
            (report, Some(error))
        }
        Err(error) => (Report::default(), Some(error)),
    };
    let speed = report.bytes_copied as f64 / seconds / 1e9;
    if args.json {
        output::print_json(&Outcome {
            ok: error.is_none(),
            report: &report,
            problems: &progress.problems,
            error: error.as_ref().map(output::one_line),
            seconds,
            gbytes_per_s: speed,
        })?;
    } else if !args.quiet && (error.is_none() || report.files_copied > 0) {
        output::print(&summary(&report, seconds, speed))?;
    }
    error.map_or(Ok(()), Err)
}

fn summary(report: &Report, seconds: f64, speed: f64) -> String {
    let mut text = format!(
        "{}, {} in {seconds:.2} s ({} GB/s)",
        count(report.files_copied, "file", "files"),
        output::bytes(report.bytes_copied),
        output::digits(speed)
    );
    if report.files_unchanged > 0 {
        text.push_str(&format!("; {} were there already", report.files_unchanged));
    }
    if report.files_resumed > 0 {
        text.push_str(&format!("; {} continued", report.files_resumed));
    }
    if report.bytes_skipped > 0 {
        text.push_str(&format!("; {} not sent again", output::bytes(report.bytes_skipped)));
    }
    text.push('\n');
    text
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn copy(args: &CpArgs, progress: &mut Progress) -> Result<Report> {
    let src = Location::parse(args.src.as_os_str(), args.port)?;
    let dst = Location::parse(args.dst.as_os_str(), args.port)?;
    match (src, dst) {
        (Location::Remote { server, path }, Location::Local(to)) => {
            download(args, &server, path, &to, progress)
        }
        (Location::Local(from), Location::Remote { server, path }) => {
            upload(args, &from, &server, path, progress)
        }
        (Location::Local(_), Location::Local(_)) => {
            bail!("both SRC and DST are on this host; one must be HOST:PATH (cp copies locally)")
        }
        (Location::Remote { .. }, Location::Remote { .. }) => {
            bail!("both SRC and DST are remote; copy to this host first, or run ibex on one of the two")
        }
    }
}

fn download(
    args: &CpArgs,
    server: &str,
    path: Vec<u8>,
    to: &Path,
    progress: &mut Progress,
) -> Result<Report> {
    let control = Control::connect(server)?;
    let attachment = Attachment::new(&device::open(args.device.as_deref(), args.quiet || args.json)?)?;
    let welcome = greet(&control, Wish::Get { path }, &attachment)?;
    let receive = || {
        let source = welcome.source.as_ref().context("the server did not say what it sends")?;
        let dest = Dest::resolve(&Place::Local(to.to_owned()), ends_with_slash(to), source)?;
        device::check_route(&attachment.endpoint(), &welcome.endpoint, &control)?;
        let inlet = attachment.inlet(&welcome)?;
        control.send(&Message::Ready)?;
        Receiver::run(&control, inlet, &dest, args.checksum, progress)
    };
    conclude(&control, receive())
}

fn upload(
    args: &CpArgs,
    from: &Path,
    server: &str,
    path: Vec<u8>,
    progress: &mut Progress,
) -> Result<Report> {
    let written = from.as_os_str().as_bytes();
    ensure!(!written.is_empty(), "SRC is empty");
    let source = Source::open(Place::Local(from.to_owned()), source_name(written), || {})?;
    let control = Control::connect(server)?;
    let attachment = Attachment::new(&device::open(args.device.as_deref(), args.quiet || args.json)?)?;
    let SourceInfo { name, dir } = source.info.clone();
    let wish = Wish::Put { path, name, dir, checksum: args.checksum };
    let welcome = greet(&control, wish, &attachment)?;
    let send = || {
        device::check_route(&attachment.endpoint(), &welcome.endpoint, &control)?;
        let outlet = attachment.outlet(&welcome)?;
        control.send(&Message::Ready)?;
        Sender::run(&control, outlet, &source, progress)
    };
    conclude(&control, send())
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/")
}

/// States the wish and waits for the server to be ready. Listing a large tree takes the server a while, but it shows
/// signs of life meanwhile.
fn greet(control: &Control, wish: Wish, attachment: &Attachment) -> Result<Welcome> {
    control.send(&Message::Hello(Hello { version: VERSION, wish, endpoint: attachment.endpoint() }))?;
    loop {
        match control.recv::<Message>(SLICE)? {
            None => {}
            Some(Message::Welcome(welcome)) => return Ok(welcome),
            Some(Message::Refused(why)) => bail!("{} refuses: {why}", control.peer()),
            Some(other) => bail!("the server sent a message out of place: {other:?}"),
        }
    }
}

/// Tells the server about a failure here; tells the user about a failure there, and what to do.
fn conclude(control: &Control, result: Result<Report>) -> Result<Report> {
    let error = match result {
        Ok(report) => return Ok(report),
        Err(error) => error,
    };
    let mut gone = error.is::<PeerGone>() || control.alive().is_err();
    // Only the device's errors are worth waiting for a better explanation.
    let end = Instant::now() + if error.is::<DeviceFailed>() { CONFIRM } else { Duration::ZERO };
    while !gone && Instant::now() < end {
        std::thread::sleep(SLICE);
        gone = control.alive().is_err();
    }
    if gone
        && !error.is::<PeerGone>()
        && let Err(gone) = control.alive()
    {
        return Err(again(gone.context(output::one_line(&error))));
    }
    let _ = control.send(&Message::Abort(output::one_line(&error)));
    Err(if gone { again(error) } else { error })
}

fn again(error: anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}; run the same command again to go on from here", output::one_line(&error))
}
