//! How many packets a second one core makes and takes: two queue pairs in one thread, nothing between them.
//!
//! `cargo run --release -p ibex-proto --example packet_rate`. Every line counts both ends' work: a request posted,
//! made, taken, and its acknowledgement made and taken. The ICRC is the link's and counted apart.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ibex_proto::{
    AtomicOp, Completion, Host, InitAttr, LocalFault, RcCaps, RcQp, RecvWqe, RemoteAccess, RemoteFault,
    RtrAttr, RtsAttr, SendOp, SendWqe, Tuning, WcStatus,
};
use ibex_wire::icrc::Flow;
use ibex_wire::{MAX_PACKET, Mtu, Packet, Pkey, Psn, Qpn, Rkey};

/// Memory that is always there.
struct Flat {
    bytes: Vec<u8>,
    recvs: u64,
}

impl Host for Flat {
    fn gather(&mut self, _: u64, offset: u32, out: &mut [u8]) -> Result<(), LocalFault> {
        out.copy_from_slice(&self.bytes[offset as usize..][..out.len()]);
        Ok(())
    }

    fn scatter(&mut self, _: u64, offset: u32, data: &[u8]) -> Result<(), LocalFault> {
        self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn take_recv(&mut self) -> Option<RecvWqe> {
        self.recvs += 1;
        Some(RecvWqe { cookie: self.recvs, capacity: self.bytes.len() as u32 })
    }

    fn place(&mut self, _: u64, offset: u32, data: &[u8], _: bool) -> Result<(), LocalFault> {
        self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn check_remote(&mut self, _: Rkey, va: u64, len: u32, _: RemoteAccess) -> Result<(), RemoteFault> {
        let fits = va.checked_add(u64::from(len)).is_some_and(|end| end <= self.bytes.len() as u64);
        if fits { Ok(()) } else { Err(RemoteFault::Access) }
    }

    fn write_remote(&mut self, _: Rkey, va: u64, data: &[u8], _: bool) -> Result<(), RemoteFault> {
        self.bytes[va as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn read_remote(&mut self, _: Rkey, va: u64, out: &mut [u8]) -> Result<(), RemoteFault> {
        out.copy_from_slice(&self.bytes[va as usize..][..out.len()]);
        Ok(())
    }

    fn atomic(&mut self, _: Rkey, _: u64, _: AtomicOp) -> Result<u64, RemoteFault> {
        Ok(0)
    }

    fn local_invalidate(&mut self, _: Rkey) -> Result<(), LocalFault> {
        Err(LocalFault::Window)
    }

    fn bind(&mut self, _: u64) -> Result<(), LocalFault> {
        Err(LocalFault::Window)
    }

    fn invalidate(&mut self, _: Rkey) -> Result<(), RemoteFault> {
        Ok(())
    }
}

const DEPTH: u32 = 128;

fn queue_pair(own: u32, peer: u32) -> RcQp {
    let mut qp = RcQp::new(RcCaps { local_qpn: Qpn::new(own), sq_depth: DEPTH, tuning: Tuning::default() });
    let rtr = RtrAttr {
        remote_qpn: Qpn::new(peer),
        path_mtu: Mtu::Mtu4096,
        rq_psn: Psn::new(0),
        max_dest_rd_atomic: 16,
        min_rnr_timer: 1,
    };
    let rts = RtsAttr {
        sq_psn: Psn::new(0),
        timeout: Some(1_000_000_000),
        retry: Some(7),
        rnr_retry: None,
        max_rd_atomic: 16,
    };
    let up = qp
        .to_init(InitAttr { pkey: Pkey::DEFAULT, access: RemoteAccess::ALL })
        .and_then(|()| qp.to_rtr(rtr))
        .and_then(|()| qp.to_rts(rts));
    up.expect("the states in order");
    qp
}

/// Moves all of one end's packets to the other; how many.
fn carry(from: &mut RcQp, from_host: &mut Flat, to: &mut RcQp, to_host: &mut Flat, buf: &mut [u8]) -> u64 {
    let mut packets = 0;
    while let Some(transmit) = from.poll_transmit(0, from_host, buf) {
        let packet = Packet::parse(&buf[..transmit.len]).expect("a valid packet");
        to.handle_packet(0, &packet, to_host);
        packets += 1;
    }
    packets
}

fn measure(name: &str, op: SendOp, len: u32) {
    let (mut a, mut b) = (queue_pair(1, 2), queue_pair(2, 1));
    let host = || Flat { bytes: vec![0; 1 << 20], recvs: 0 };
    let (mut a_host, mut b_host) = (host(), host());
    let mut buf = vec![0; MAX_PACKET];
    let (mut packets, mut messages) = (0, 0u64);
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        for cookie in 0..u64::from(DEPTH) {
            let wqe = SendWqe { cookie, op, len, signaled: true, fence: false, solicited: false };
            a.post_send(wqe).expect("everything before has completed");
        }
        while a.wants_transmit() || b.wants_transmit() {
            packets += carry(&mut a, &mut a_host, &mut b, &mut b_host, &mut buf);
            packets += carry(&mut b, &mut b_host, &mut a, &mut a_host, &mut buf);
        }
        while let Some(completion) = a.poll_completion() {
            if let Completion::Send(done) = completion {
                assert_eq!(done.status, WcStatus::SUCCESS);
                messages += 1;
            }
        }
        while b.poll_completion().is_some() {}
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = |count: u64| count as f64 / seconds / 1e6;
    println!(
        "{name:<6} {len:>8} B  {:>7.2} M messages/s  {:>7.2} M packets/s  {:>6.2} GB/s",
        rate(messages),
        rate(packets),
        rate(messages * u64::from(len)) / 1e3
    );
}

fn icrc(len: usize) {
    let flow = Flow::v4(Ipv4Addr::LOCALHOST, 4791, Ipv4Addr::LOCALHOST, 4791);
    let mut sealed = vec![0x5a; len];
    let rounds = 200_000;
    let time = |work: &mut dyn FnMut(u16)| {
        let started = Instant::now();
        (0..rounds).for_each(|round| work(round as u16));
        started.elapsed().as_nanos() as f64 / f64::from(rounds)
    };
    let seal = time(&mut |id| flow.seal(id, &mut sealed));
    flow.seal(0, &mut sealed);
    let verify = time(&mut |_| assert!(flow.verify_any_identification(0, &sealed).is_some()));
    let recover = time(&mut |_| assert!(flow.verify_any_identification(77, &sealed).is_some()));
    println!(
        "icrc   {len:>8} B  seal {seal:.0} ns  verify {verify:.0} ns  verify with another identification {recover:.0} ns"
    );
}

fn main() {
    let write = SendOp::Write { rkey: Rkey(1), va: 0, imm: None };
    let send = SendOp::Send { imm: None, inv: None };
    let read = SendOp::Read { rkey: Rkey(1), va: 0 };
    for (name, op) in [("send", send), ("write", write), ("read", read)] {
        for len in [8, 64, 4096, 1 << 20] {
            measure(name, op, len);
        }
    }
    for len in [32, 96, 1024, 4144] {
        icrc(len);
    }
}
