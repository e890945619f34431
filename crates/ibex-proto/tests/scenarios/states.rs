//! States: which change is possible, and what works in each. The table is the documentation.

use ibex_proto::sim::{EndConfig, Fate, qpn, rts, unconnected};
use ibex_proto::{Event, PostError, Qp, QpState, RtrAttr, WcStatus};
use ibex_wire::{Mtu, Psn};

use crate::util::*;

fn rtr() -> RtrAttr {
    RtrAttr {
        remote_qpn: qpn(1),
        path_mtu: Mtu::Mtu256,
        rq_psn: Psn::new(1),
        max_dest_rd_atomic: 1,
        min_rnr_timer: 1,
    }
}

/// A queue pair brought to `state` by the way the verbs know.
fn in_state(state: QpState) -> Qp {
    let config = EndConfig::default();
    let mut qp = unconnected(&config, 0);
    type Step<'a> = (QpState, &'a dyn Fn(&mut Qp));
    let steps: [Step<'_>; 3] = [
        (QpState::Rtr, &|qp| qp.to_rtr(rtr()).expect("from INIT")),
        (QpState::Rts, &|qp| qp.to_rts(rts(&EndConfig::default())).expect("from RTR")),
        (QpState::Sqd, &|qp| qp.to_sqd(false).expect("from RTS")),
    ];
    match state {
        QpState::Reset => qp.reset(),
        QpState::Err => qp.set_error(),
        state => {
            steps.iter().take_while(|(to, _)| *to as u8 <= state as u8).for_each(|(_, step)| step(&mut qp))
        }
    }
    assert_eq!(qp.state(), state);
    qp
}

const STATES: [QpState; 6] =
    [QpState::Reset, QpState::Init, QpState::Rtr, QpState::Rts, QpState::Sqd, QpState::Err];

#[test]
fn the_table() {
    let init = ibex_proto::InitAttr { pkey: ibex_wire::Pkey::DEFAULT, access: ibex_proto::RemoteAccess::ALL };
    let mut table = String::from("from    to_init to_rtr to_rts to_sqd resume set_error reset | post_send\n");
    for state in STATES {
        let mut row = format!("{:<7}", format!("{state:?}"));
        let mut cell = |width: usize, step: &dyn Fn(&mut Qp) -> Result<(), ibex_proto::BadTransition>| {
            let mut qp = in_state(state);
            let text = match step(&mut qp) {
                Ok(()) => format!("{:?}", qp.state()),
                Err(refused) => {
                    assert_eq!(
                        (refused.from, qp.state()),
                        (state, state),
                        "a refused change changes nothing"
                    );
                    "-".to_owned()
                }
            };
            row += &format!(" {text:<width$}");
        };
        cell(7, &|qp| qp.to_init(init));
        cell(6, &|qp| qp.to_rtr(rtr()));
        cell(6, &|qp| qp.to_rts(rts(&EndConfig::default())));
        cell(6, &|qp| qp.to_sqd(true));
        cell(6, &|qp| qp.resume());
        cell(9, &|qp| {
            qp.set_error();
            Ok(())
        });
        cell(5, &|qp| {
            qp.reset();
            Ok(())
        });
        let mut qp = in_state(state);
        let posted = match qp.post_send(wqe(write(0), 1)) {
            Err(PostError::State(_)) => "refused",
            Err(PostError::Full) => "full",
            Ok(()) if qp.poll_completion().is_some() => "flushed",
            Ok(()) if qp.wants_transmit() => "sent",
            Err(PostError::Operation { .. } | PostError::TooLong { .. }) => "not a write",
            Ok(()) => "waits",
        };
        table += &format!("{row} | {posted}\n");
    }
    assert_eq!(table, include_str!("../../src/states.txt"), "\n{table}");
}

#[test]
fn what_arrives_in_each_state() {
    for state in STATES {
        let mut qp = in_state(state);
        let mut host = ibex_proto::sim::MemHost::new(64);
        host.expose(KEY, 0, 64, ibex_proto::RemoteAccess::ALL);
        let mut bytes = [0; 12 + 16 + 4];
        ibex_wire::Bth {
            ack_req: true,
            ..ibex_wire::Bth::new(ibex_wire::Opcode::RC_WRITE_ONLY, qpn(0), Psn::new(1))
        }
        .emit(bytes.first_chunk_mut().expect("12"));
        ibex_wire::Reth { va: va(0), rkey: KEY, len: 4 }.emit(bytes[12..].first_chunk_mut().expect("16"));
        let packet = ibex_wire::Packet::parse(&bytes).expect("valid");
        qp.handle_packet(0, &packet, &mut host);
        let serves = matches!(state, QpState::Rtr | QpState::Rts | QpState::Sqd);
        assert_eq!(host.written, if serves { 4 } else { 0 }, "{state:?}");
        let answer = qp.poll_transmit(0, &mut host, &mut [0; 1500]);
        assert_eq!(answer.is_some(), serves, "{state:?}");
        let event = qp.poll_event();
        assert_eq!(event, (state == QpState::Rtr).then_some(Event::CommEst), "{state:?}");
        assert_eq!(qp.counters().dropped, u64::from(!serves));
        assert_eq!(qp.rq_psn(), Psn::new(if serves { 2 } else { 0 }));
    }
}

#[test]
fn communication_is_established_once() {
    let mut world = pair(EndConfig::default());
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[B].events, [], "only in RTR");
}

#[test]
fn other_partitions_and_services_are_dropped() {
    let mut world = pair(EndConfig::default());
    let psn = world.ends[B].qp.rq_psn();
    for (opcode, pkey) in
        [(ibex_wire::Opcode::UC_SEND_ONLY, 0xffff), (ibex_wire::Opcode::RC_SEND_ONLY, 0x8001)]
    {
        let mut bytes = [0; 12];
        ibex_wire::Bth { pkey: ibex_wire::Pkey(pkey), ..ibex_wire::Bth::new(opcode, qpn(B), psn) }
            .emit(&mut bytes);
        world.net.deliver_at(world.now, B, &bytes);
        world.step();
    }
    assert_eq!(world.ends[B].qp.counters().dropped, 2);
    assert_eq!(world.ends[B].qp.rq_psn(), psn);
}

#[test]
fn draining_finishes_what_was_begun() {
    let mut world = pair(EndConfig {
        tuning: ibex_proto::Tuning { max_window: 2, ..Default::default() },
        ..EndConfig::default()
    });
    let log = log(&mut world);
    world.post(A, write(0), pattern(256 * 10));
    world.post(A, write(0), pattern(4));
    world.drain();
    world.ends[A].qp.to_sqd(true).expect("from RTS");
    world.post(A, write(0), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS], "the first was begun, the others not");
    assert_eq!(world.ends[A].events, [Event::SqDrained]);
    // The other direction works on.
    world.post(B, write(0), pattern(4));
    world.run(SOON);
    assert_eq!(world.ends[B].send_statuses(), [WcStatus::SUCCESS]);
    log.clear();
    world.ends[A].qp.resume().expect("from SQD");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS; 3]);
    assert_eq!(world.ends[A].events, [Event::SqDrained]);
}

#[test]
fn draining_an_idle_queue_is_done_at_once() {
    let mut world = pair(EndConfig::default());
    world.ends[A].qp.to_sqd(true).expect("from RTS");
    world.drain();
    assert_eq!(world.ends[A].events, [Event::SqDrained]);
    let mut quiet = pair(EndConfig::default());
    quiet.ends[A].qp.to_sqd(false).expect("from RTS");
    quiet.drain();
    assert_eq!(quiet.ends[A].events, [], "not asked for");
}

#[test]
fn draining_survives_loss() {
    let mut world = pair(EndConfig::default());
    world.post(A, read(0), vec![0; 1000]);
    let mut lost = 0;
    watch(&mut world, move |_| {
        lost += 1;
        if lost <= 3 { Fate::Drop } else { Fate::Pass }
    });
    world.drain();
    world.ends[A].qp.to_sqd(true).expect("from RTS");
    world.run(SOON);
    assert_eq!(world.ends[A].send_statuses(), [WcStatus::SUCCESS]);
    assert_eq!(world.ends[A].events, [Event::SqDrained]);
}
