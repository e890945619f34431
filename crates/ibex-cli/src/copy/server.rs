//! `ibex serve`: accepts clients and gives each its own window, queue pair and thread.
//!
//! Owns the listening socket, the limit on clients and the end by a signal. The server is the passive side of the device:
//! it exposes memory and the client reaches it. Every client has a protection domain of its own, so that no client's
//! queue pair can use another's window.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::message::{Hello, Message, Problem, Report, SourceInfo, VERSION, Welcome, Wish};
use super::path::RelPath;
use super::place::{Dest, Place, Source, source_name};
use super::rdma::Exposure;
use super::receiver::Receiver;
use super::sender::Sender;
use super::tree::Tree;
use super::watch::Watch;
use crate::args::ServeArgs;
use crate::control::Control;
use crate::{device, output};

/// Clients served at once: each holds a window, a handful of threads and some file descriptors.
const CLIENTS: usize = 64;
/// A client says at once what it wants.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// First line of `--json`.
#[derive(Serialize)]
struct Listening<'a> {
    listening: &'a str,
    dir: String,
    device: &'a str,
}

/// One line of `--json` for each copy.
#[derive(Serialize)]
struct Served<'a> {
    client: &'a str,
    copy: &'static str,
    path: String,
    ok: bool,
    error: Option<String>,
    #[serde(flatten)]
    report: Option<Report>,
}

/// What all clients share.
struct Server {
    tree: Tree,
    context: ibex::Context,
    read_only: bool,
    json: bool,
    clients: AtomicUsize,
}

/// Serves until a signal ends it.
///
/// # Errors
/// When the directory, the address or the device cannot be used.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    let tree = Tree::open(&args.dir).with_context(|| format!("cannot serve {}", args.dir.display()))?;
    let listener = listen(&args.listen)?;
    let address = listener.local_addr().context("the socket has no address")?;
    let context = device::open(args.device.as_deref(), args.json)?;
    end_on_signal(args.json)?;
    announce(args, &address, context.device().name())?;
    let server = Arc::new(Server {
        tree,
        context,
        read_only: args.read_only,
        json: args.json,
        clients: AtomicUsize::new(0),
    });
    loop {
        match listener.accept() {
            Ok((stream, from)) => serve_client(&server, stream, from),
            Err(error) => {
                // Out of descriptors, mostly: it passes when a client leaves.
                output::say(&format!("ibex: cannot accept a client: {error}"));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Binds the address of `--listen`.
pub(crate) fn listen(text: &str) -> Result<TcpListener> {
    let addresses: Vec<SocketAddr> =
        text.to_socket_addrs().with_context(|| format!("{text:?} is no ADDR:PORT to listen on"))?.collect();
    TcpListener::bind(addresses.as_slice())
        .with_context(|| format!("cannot listen on {text}; choose another address with --listen"))
}

fn announce(args: &ServeArgs, address: &SocketAddr, device: &str) -> Result<()> {
    let shown = address.to_string();
    if args.json {
        return output::print_json_line(&Listening {
            listening: &shown,
            dir: args.dir.display().to_string(),
            device,
        });
    }
    let mode = if args.read_only { " (read only)" } else { "" };
    output::print(&format!(
        "serving {}{mode} on {shown} with device {device}; end with Ctrl-C\n\
         copy from here:  ibex cp ibex://{shown}/PATH .\n",
        args.dir.display()
    ))
}

/// Ends the process on the usual signals. Copies under way are cut off like by any other end of the server: their clients
/// notice at once, and parts stay to be continued.
fn end_on_signal(json: bool) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot wait for signals")?;
    let body = move || {
        if signals.forever().next().is_some() {
            if !json {
                output::say("ibex: stopped");
            }
            std::process::exit(0);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(body).context("cannot start a thread")?;
    Ok(())
}

/// Counts a client for as long as it is served.
struct Seat(Arc<Server>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve_client(server: &Arc<Server>, stream: TcpStream, from: SocketAddr) {
    let before = server.clients.fetch_add(1, Ordering::Relaxed);
    let seat = Seat(Arc::clone(server));
    let body = move || {
        let control = match Control::accept(stream, from) {
            Ok(control) => control,
            // Not a client of ours: nothing to answer.
            Err(error) => return output::say(&format!("ibex: {}", output::one_line(&error))),
        };
        if before >= CLIENTS {
            let _ = control
                .send(&Message::Refused(format!("{CLIENTS} clients are being served; try again later")));
            return;
        }
        seat.0.session(&control);
    };
    let name = format!("client-{}", from.port());
    if let Err(error) = std::thread::Builder::new().name(name).spawn(body) {
        output::say(&format!("ibex: cannot serve {from}: {error}"));
    }
}

impl Server {
    fn session(&self, control: &Control) {
        let hello = match control.expect::<Message>(HELLO_TIME) {
            Ok(Message::Hello(hello)) if hello.version == VERSION => hello,
            Ok(Message::Hello(hello)) => {
                let why = format!("this server speaks version {VERSION} and not {}", hello.version);
                let _ = control.send(&Message::Refused(why));
                return;
            }
            Ok(_) | Err(_) => {
                return output::say(&format!("ibex: {} did not say what it wants", control.peer()));
            }
        };
        let (copy, path) = match &hello.wish {
            Wish::Get { path } => ("get", path.clone()),
            Wish::Put { path, .. } => ("put", path.clone()),
        };
        let path = std::ffi::OsStr::from_bytes(&path).display().to_string();
        let result = self.copy(control, hello);
        if let Err(error) = &result {
            let _ = control.send(&Message::Abort(output::one_line(error)));
        }
        let error = result.as_ref().err().map(output::one_line);
        if self.json {
            let ok = result.as_ref().is_ok_and(|report| report.failed == 0);
            let served = Served { client: control.peer(), copy, path, ok, error, report: result.ok() };
            if let Err(error) = output::print_json_line(&served) {
                output::complain(&error);
            }
        } else if let Some(error) = error {
            output::say(&format!("ibex: {} {copy} {:?}: {error}", control.peer(), Path::new(&path)));
        }
    }

    fn copy(&self, control: &Control, hello: Hello) -> Result<Report> {
        let mut watch = Forward { control };
        match hello.wish {
            Wish::Get { path } => {
                let opened = RelPath::parse(&path).and_then(|rel| {
                    let place = Place::Served(self.tree.clone(), rel);
                    Source::open(place, source_name(&path), || control.tick())
                });
                let source = refuse(control, opened)?;
                let exposure = refuse(control, Exposure::for_reading(&self.context, &hello.endpoint))?;
                self.welcome(control, &exposure, Some(source.info.clone()))?;
                Sender::run(control, exposure.into_outlet(), &source, &mut watch)
            }
            Wish::Put { path, name, dir, checksum } => {
                let resolved = self.destination(&path, SourceInfo { name, dir });
                let dest = refuse(control, resolved)?;
                let exposure = refuse(control, Exposure::for_writing(&self.context, &hello.endpoint))?;
                self.welcome(control, &exposure, None)?;
                Receiver::run(control, exposure.into_inlet(), &dest, checksum, &mut watch)
            }
        }
    }

    fn destination(&self, path: &[u8], source: SourceInfo) -> Result<Dest> {
        ensure!(!self.read_only, "this server is read only");
        if let Some(name) = &source.name {
            RelPath::root().join(name)?;
        }
        let place = Place::Served(self.tree.clone(), RelPath::parse(path)?);
        Dest::resolve(&place, path.ends_with(b"/"), &source)
    }

    /// Announces the window and waits until the client is connected to it.
    fn welcome(&self, control: &Control, exposure: &Exposure, source: Option<SourceInfo>) -> Result<()> {
        control.send(&Message::Welcome(Welcome {
            endpoint: exposure.endpoint(),
            window: exposure.window(),
            slots: exposure.slots(),
            source,
        }))?;
        match control.expect::<Message>(HELLO_TIME)? {
            Message::Ready => Ok(()),
            Message::Abort(why) => bail!("the client gave up: {why}"),
            other => bail!("the client sent a message out of place: {other:?}"),
        }
    }
}

/// Lets the client know why it cannot have what it wants.
fn refuse<T>(control: &Control, result: Result<T>) -> Result<T> {
    if let Err(error) = &result {
        let _ = control.send(&Message::Refused(output::one_line(error)));
    }
    result
}

/// Tells the client what goes wrong on this side, when it goes wrong.
struct Forward<'a> {
    control: &'a Control,
}

impl Watch for Forward<'_> {
    fn totals(&mut self, _: u64, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn problem(&mut self, problem: &Problem) {
        // If the client is gone the copy ends at its next step anyway.
        let _ = self.control.send(&Message::Problem(problem.clone()));
    }
}
