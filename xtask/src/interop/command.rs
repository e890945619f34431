//! Command lines: a case's options with what its end adds.
//!
//! Programs of ibverbs-utils and perftest take a device (`-d`), a GID (`-g`, or `-x` in perftest), a port (`-p`) and, at
//! the client, the server's address as the last word. Those of rdmacm-utils take addresses only; see their man pages.

use super::cases::{BUFFER, Case, Check};
use super::link::{End, Link};

/// Which process a command line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A case of one process.
    Single,
    Server,
    Client,
}

/// The words of a command, the end's prefix first. `buffer` is the path of the end's own buffer file.
pub(super) fn words(case: &Case, link: &Link, role: Role, port: u16, buffer: &str) -> Vec<String> {
    let end = if role == Role::Client { &link.client } else { &link.server };
    let mut words = end.prefix.clone();
    if matches!(case.check, Check::ClientInterrupted) && role == Role::Client {
        // Where this is started in the background, the shell has control-C ignored, and so does what is started from here.
        words.extend(["env", "--default-signal=INT"].map(str::to_owned));
    }
    words.push(program(case, role).to_owned());
    let mut push = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    let address = if case.is_managed() { link.server.address } else { link.meeting }.to_string();
    let port = port.to_string();
    match case.program {
        "rping" => {
            push(&[if role == Role::Server { "-s" } else { "-c" }, "-a", &address, "-p", &port]);
        }
        "ucmatose" | "cmtime" => push(&[side(role), &address, "-p", &port]),
        "udaddy" => push(&[side(role), &address]),
        "rdma_client" => push(&["-s", &address, "-p", &port]),
        _ => push(&device(case, end).iter().map(String::as_str).collect::<Vec<_>>()),
    }
    words.extend(case.options.iter().map(|option| option.replace(BUFFER, buffer)));
    if role != Role::Single && !super::cases::addresses_by_option(case) {
        words.extend(["-p".to_owned(), port]);
        if role == Role::Client {
            words.push(address);
        }
    }
    words
}

fn program(case: &Case, role: Role) -> &'static str {
    if case.program == "rdma_client" && role == Role::Server { "rdma_server" } else { case.program }
}

/// Option before the server's address in `ucmatose` and its kin: where to bind, or where to connect.
fn side(role: Role) -> &'static str {
    if role == Role::Server { "-b" } else { "-s" }
}

/// Device and GID, unless the case is about choosing them.
fn device(case: &Case, end: &End) -> Vec<String> {
    let mut words = Vec::new();
    if case.program != "ibv_devices" && !case.has("-d") && !case.has("-l") {
        words.extend(["-d".to_owned(), end.device.to_owned()]);
    }
    if case.program.ends_with("_pingpong") && !case.has("-g") {
        words.extend(["-g".to_owned(), end.gid.to_string()]);
    }
    if case.program.starts_with("ib_") {
        words.extend(["-x".to_owned(), end.gid.to_string()]);
    }
    words
}
