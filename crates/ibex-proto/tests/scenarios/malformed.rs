//! Packets that are well formed and yet make no sense where they come: each is refused, none does harm.

use ibex_proto::sim::EndConfig;
use ibex_proto::{Event, QpState, WcStatus};
use ibex_wire::{Aeth, AtomicAckEth, ImmDt, Opcode, Psn, Reth, Syndrome};

use crate::util::*;

type Script = Vec<(Opcode, Option<Reth>, usize)>;

/// Plays requests to endpoint B from its expected number on; they must end in "invalid request".
fn invalid(script: &[(Opcode, Option<Reth>, usize)]) {
    let mut world = pair(EndConfig::default());
    world.recv(B, 4096);
    let log = log(&mut world);
    let start = world.ends[B].qp.rq_psn();
    let before = world.ends[B].host.memory.clone();
    for (index, (opcode, reth, len)) in script.iter().enumerate() {
        let mut headers: Vec<&dyn Emit> = Vec::new();
        let imm = ImmDt([0; 4]);
        if let Some(reth) = reth {
            headers.push(reth);
        }
        if opcode.has_imm() {
            headers.push(&imm);
        }
        inject(&mut world, B, *opcode, start + index as u32, &headers, &vec![0; *len]);
    }
    world.run(SOON);
    assert_eq!(world.ends[B].qp.state(), QpState::Err, "{script:?}");
    assert_eq!(world.ends[B].events, [Event::QpReqErr], "{script:?}");
    assert!(world.ends[B].recv_statuses().iter().all(|status| *status == WcStatus::WR_FLUSH_ERR));
    let nak = Syndrome::Nak(ibex_wire::NakCode::INVALID_REQUEST);
    let naks: Vec<Psn> =
        log.all().iter().filter(|seen| seen.syndrome == Some(nak)).map(|seen| seen.psn).collect();
    assert_eq!(naks, [start + (script.len() as u32 - 1)], "{script:?}");
    assert_eq!(world.ends[B].host.memory, before);
}

#[test]
fn sequences_that_are_no_messages() {
    use Opcode as O;
    let reth = |len| Some(Reth { va: va(0), rkey: KEY, len });
    let scripts: Vec<Script> = vec![
        // In the middle of nothing.
        vec![(O::RC_SEND_MIDDLE, None, 256)],
        vec![(O::RC_SEND_LAST, None, 10)],
        vec![(O::RC_WRITE_MIDDLE, None, 256)],
        vec![(O::RC_WRITE_LAST, None, 10)],
        // One message in another.
        vec![(O::RC_SEND_FIRST, None, 256), (O::RC_SEND_FIRST, None, 256)],
        vec![(O::RC_SEND_FIRST, None, 256), (O::RC_SEND_ONLY, None, 1)],
        vec![(O::RC_SEND_FIRST, None, 256), (O::RC_WRITE_MIDDLE, None, 256)],
        vec![(O::RC_SEND_FIRST, None, 256), (O::RC_READ_REQUEST, reth(4), 0)],
        vec![(O::RC_WRITE_FIRST, reth(600), 256), (O::RC_SEND_LAST, None, 4)],
        vec![(O::RC_WRITE_FIRST, reth(600), 256), (O::RC_WRITE_ONLY, reth(4), 4)],
        // Packets of the wrong length.
        vec![(O::RC_SEND_FIRST, None, 252)],
        vec![(O::RC_SEND_FIRST, None, 260)],
        vec![(O::RC_SEND_ONLY, None, 257)],
        vec![(O::RC_SEND_FIRST, None, 256), (O::RC_SEND_LAST, None, 0)],
        vec![(O::RC_SEND_FIRST, None, 256), (O::RC_SEND_LAST, None, 257)],
        vec![(O::RC_WRITE_ONLY, reth(257), 257)],
        // Messages of a length other than announced.
        vec![(O::RC_WRITE_ONLY, reth(5), 4)],
        vec![(O::RC_WRITE_ONLY, reth(4), 5)],
        vec![(O::RC_WRITE_ONLY_IMM, reth(0), 4)],
        vec![(O::RC_WRITE_FIRST, reth(256), 256)],
        vec![(O::RC_WRITE_FIRST, reth(0), 256)],
        vec![(O::RC_WRITE_FIRST, reth(600), 256), (O::RC_WRITE_LAST, None, 256)],
        vec![
            (O::RC_WRITE_FIRST, reth(600), 256),
            (O::RC_WRITE_MIDDLE, None, 256),
            (O::RC_WRITE_MIDDLE, None, 256),
        ],
        // Longer than a message may be.
        vec![(O::RC_WRITE_FIRST, reth((1 << 31) + 1), 256)],
        vec![(O::RC_READ_REQUEST, reth((1 << 31) + 1), 0)],
    ];
    for script in scripts {
        invalid(&script);
    }
}

#[test]
fn responses_that_do_not_fit() {
    let ack = Aeth { syndrome: Syndrome::ACK, msn: 0 };
    let result = AtomicAckEth { original: 1 };
    // An atomic's result, READ data for an atomic, and data of the wrong length.
    let cases: [(_, Opcode, Vec<&dyn Emit>, usize); 5] = [
        (read(0), Opcode::RC_ATOMIC_ACK, vec![&ack, &result], 0),
        (add(0, 1), Opcode::RC_READ_RESPONSE_ONLY, vec![&ack], 8),
        (read(0), Opcode::RC_READ_RESPONSE_ONLY, vec![&ack], 7),
        (read(0), Opcode::RC_READ_RESPONSE_ONLY, vec![&ack], 9),
        (read(0), Opcode::RC_READ_RESPONSE_FIRST, vec![&ack], 256),
    ];
    for (op, opcode, headers, len) in cases {
        let mut world = pair(EndConfig::default());
        watch(&mut world, |seen| {
            if seen.from == A { ibex_proto::sim::Fate::Drop } else { ibex_proto::sim::Fate::Pass }
        });
        let psn = world.ends[A].qp.sq_psn();
        let cookie = world.post(A, op, vec![0xdd; 8]);
        world.drain();
        inject(&mut world, A, opcode, psn, &headers, &vec![1; len]);
        world.run(SOON);
        assert_eq!(world.ends[A].send_statuses(), [WcStatus::BAD_RESP_ERR], "{opcode}");
        assert_eq!(world.ends[A].host.sends[&cookie], [0xdd; 8]);
    }
}

#[test]
fn data_for_a_write_is_ignored() {
    // A WRITE is answered with data: a peer that has lost its way. There is no READ to fail.
    let mut world = pair(EndConfig::default());
    let psn = world.ends[A].qp.sq_psn();
    watch(&mut world, |_| ibex_proto::sim::Fate::Drop);
    world.post(A, write(0), pattern(8));
    world.drain();
    let ack = Aeth { syndrome: Syndrome::ACK, msn: 0 };
    inject(&mut world, A, Opcode::RC_READ_RESPONSE_ONLY, psn, &[&ack], &[1; 8]);
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::BAD_RESP_ERR]);
}

#[test]
fn acknowledgements_of_what_was_never_sent() {
    let mut world = pair(EndConfig::default());
    let psn = world.ends[A].qp.sq_psn();
    world.post(A, write(0), pattern(2000));
    for ahead in [100, 1000, 1 << 22, 1 << 23, (1 << 24) - 1] {
        for syndrome in [0x1f, 0x20, 0x60, 0x61, 0x62, 0x63, 0x7f] {
            let aeth = Aeth { syndrome: Syndrome::from_byte(syndrome), msn: 0 };
            inject(&mut world, A, Opcode::RC_ACK, psn + ahead, &[&aeth], &[]);
        }
    }
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
}
