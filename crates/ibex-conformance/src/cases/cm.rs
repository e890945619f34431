//! Connection management: who meets whom, what is said, and what is refused. `rdma_cm(7)`, `rdma_connect(3)`,
//! `rdma_accept(3)`, `rdma_get_cm_event(3)`; reasons of refusals: IBTA vol. 1, 12.6.7.2.

use ibex_sys::{
    IBV_QPS_ERR, IBV_QPS_INIT, IBV_QPS_RTS, IBV_WC_SUCCESS, RDMA_CM_EVENT_ADDR_RESOLVED,
    RDMA_CM_EVENT_CONNECT_REQUEST, RDMA_CM_EVENT_DISCONNECTED, RDMA_CM_EVENT_ESTABLISHED,
    RDMA_CM_EVENT_REJECTED, RDMA_CM_EVENT_UNREACHABLE, RDMA_PS_TCP, RDMA_PS_UDP, RDMA_UDP_QKEY,
};

use crate::Outcome;
use crate::lab::QUIET;
use crate::lab::cm::{Channel, CmLab, Id};

crate::group!("cm";
    two_ends_meet_talk_and_part,
    a_refusal_carries_its_reason_and_data,
    a_port_without_listener_is_refused,
    a_destroyed_end_disconnects_the_other,
    an_answer_that_never_comes_because_the_id_is_gone,
    ports_are_taken_once,
    synchronous_ids_wait_for_their_events,
    events_move_with_their_id,
    a_channel_that_does_not_block_says_so,
    commands_out_of_order_are_refused,
    datagram_services_are_resolved,
    datagram_services_may_refuse,
);

/// The reason "invalid service ID".
const INVALID_SERVICE: i32 = 8;

/// The reason "the consumer refused".
const CONSUMER: i32 = 28;

/// Runs a case with a channel, or says why it cannot.
fn with(case: fn(&CmLab, &Channel)) -> Outcome {
    match CmLab::open() {
        Ok(lab) => {
            case(&lab, &lab.channel());
            Outcome::Passed
        }
        Err(reason) => Outcome::Skipped(reason),
    }
}

/// Two connected ends with queue pairs: the one that called, and the one that was called.
fn connected(channel: &Channel) -> (Id, Id) {
    let listener = channel.listener(RDMA_PS_TCP);
    let caller = channel.resolved(RDMA_PS_TCP, listener.port());
    assert_eq!(caller.create_qp(), Ok(()));
    assert_eq!(caller.connect(&[]), Ok(()));
    let called = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).take_id();
    assert_eq!(called.create_qp(), Ok(()));
    assert_eq!(called.accept(&[]), Ok(()));
    let mut known = [false; 2];
    for _ in 0..2 {
        let event = channel.expect(RDMA_CM_EVENT_ESTABLISHED);
        known[usize::from(event.is_about(&called))] = true;
    }
    assert_eq!(known, [true; 2], "each end is told once");
    (caller, called)
}

fn two_ends_meet_talk_and_part() -> Outcome {
    with(|_, channel| {
        let listener = channel.listener(RDMA_PS_TCP);
        let caller = channel.resolved(RDMA_PS_TCP, listener.port());
        assert_eq!(caller.create_qp(), Ok(()));
        assert_eq!(caller.qp_state(), IBV_QPS_INIT);
        assert_eq!(caller.connect(b"who is there"), Ok(()));
        let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST);
        assert!(request.called(&listener));
        let data = request.data();
        assert_eq!((&data[..12], data.len()), (&b"who is there"[..], 56));
        let conn = request.conn();
        assert_eq!((conn.responder_resources, conn.initiator_depth, conn.retry_count), (1, 1, 7));
        assert_eq!(conn.qp_num, caller.qp_num());
        let called = request.take_id();
        assert_eq!((called.port(), called.peer_port()), (listener.port(), caller.port()));
        assert_eq!(called.create_qp(), Ok(()));
        let receive = called.post_recv();
        assert_eq!(called.accept(b"me"), Ok(()));
        for _ in 0..2 {
            let event = channel.expect(RDMA_CM_EVENT_ESTABLISHED);
            if event.is_about(&caller) {
                assert_eq!(&event.data()[..2], b"me");
                assert_eq!(event.conn().qp_num, called.qp_num());
            }
        }
        assert_eq!((caller.qp_state(), called.qp_state()), (IBV_QPS_RTS, IBV_QPS_RTS));
        assert_eq!(caller.send(b"hello").status, IBV_WC_SUCCESS);
        let (wc, bytes) = receive.wait();
        assert_eq!((wc.status, wc.byte_len, &bytes[..5]), (IBV_WC_SUCCESS, 5, &b"hello"[..]));

        assert_eq!(caller.disconnect(), Ok(()));
        assert_eq!(caller.qp_state(), IBV_QPS_ERR);
        assert!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).is_about(&called));
        assert_eq!(called.disconnect(), Ok(()));
        assert!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).is_about(&caller));
    })
}

fn a_refusal_carries_its_reason_and_data() -> Outcome {
    with(|_, channel| {
        let listener = channel.listener(RDMA_PS_TCP);
        let caller = channel.resolved(RDMA_PS_TCP, listener.port());
        assert_eq!(caller.create_qp(), Ok(()));
        assert_eq!(caller.connect(&[]), Ok(()));
        let called = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).take_id();
        assert_eq!(called.reject(b"not today"), Ok(()));
        let event = channel.next();
        assert!(event.is_about(&caller));
        assert_eq!((event.kind(), event.status()), (RDMA_CM_EVENT_REJECTED, CONSUMER));
        assert_eq!(&event.data()[..9], b"not today");
    })
}

fn a_port_without_listener_is_refused() -> Outcome {
    with(|lab, channel| {
        let bound = channel.id(RDMA_PS_TCP);
        assert_eq!(bound.bind(lab.address(0)), Ok(()));
        let caller = channel.resolved(RDMA_PS_TCP, bound.port());
        assert_eq!(caller.create_qp(), Ok(()));
        assert_eq!(caller.connect(&[]), Ok(()));
        let event = channel.next();
        assert_eq!((event.kind(), event.status()), (RDMA_CM_EVENT_REJECTED, INVALID_SERVICE));
    })
}

fn a_destroyed_end_disconnects_the_other() -> Outcome {
    with(|_, channel| {
        for first in [true, false] {
            let (caller, called) = connected(channel);
            let (goes, stays) = if first { (caller, called) } else { (called, caller) };
            drop(goes);
            assert!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).is_about(&stays));
        }
    })
}

fn an_answer_that_never_comes_because_the_id_is_gone() -> Outcome {
    with(|_, channel| {
        let listener = channel.listener(RDMA_PS_TCP);
        let caller = channel.resolved(RDMA_PS_TCP, listener.port());
        assert_eq!(caller.create_qp(), Ok(()));
        assert_eq!(caller.connect(&[]), Ok(()));
        drop(channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).take_id());
        let event = channel.next();
        assert!(event.is_about(&caller));
        assert_eq!(event.kind(), RDMA_CM_EVENT_REJECTED);
    })
}

fn ports_are_taken_once() -> Outcome {
    with(|lab, channel| {
        let first = channel.listener(RDMA_PS_TCP);
        let port = first.port();
        assert_ne!(port, 0);
        let second = channel.id(RDMA_PS_TCP);
        assert_eq!(second.bind(lab.address(port)), Err(libc::EADDRINUSE));
        let datagrams = channel.id(RDMA_PS_UDP);
        assert_eq!(datagrams.bind(lab.address(port)), Ok(()), "a space of its own");
        drop(first);
        assert_eq!(second.bind(lab.address(port)), Ok(()), "free with its identifier");
    })
}

fn synchronous_ids_wait_for_their_events() -> Outcome {
    with(|lab, _| {
        let listener = Id::new(lab, None, RDMA_PS_TCP);
        assert_eq!(listener.bind(lab.address(0)), Ok(()));
        assert_eq!(listener.listen(4), Ok(()));
        let to = lab.address(listener.port());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let id = Id::new(lab, None, RDMA_PS_TCP);
                assert_eq!(id.resolve_addr(to), Ok(()));
                assert_eq!(id.resolve_route(), Ok(()));
                assert_eq!(id.create_qp(), Ok(()));
                assert_eq!(id.connect(&[]), Ok(()));
                assert_eq!(id.send(b"hello").status, IBV_WC_SUCCESS);
                assert_eq!(id.disconnect(), Ok(()));
                let id = Id::new(lab, None, RDMA_PS_TCP);
                assert_eq!(id.resolve_addr(to), Ok(()));
                assert_eq!(id.resolve_route(), Ok(()));
                assert_eq!(id.create_qp(), Ok(()));
                assert_eq!(id.connect(&[]), Err(libc::ECONNREFUSED));
            });
            let called = listener.get_request().expect("a request");
            assert_eq!(called.create_qp(), Ok(()));
            let receive = called.post_recv();
            assert_eq!(called.accept(&[]), Ok(()));
            assert_eq!(receive.wait().0.status, IBV_WC_SUCCESS);
            assert_eq!(called.disconnect(), Ok(()));
            drop(called);
            let called = listener.get_request().expect("a second request");
            assert_eq!(called.reject(&[]), Ok(()));
        });
    })
}

fn events_move_with_their_id() -> Outcome {
    with(|lab, channel| {
        let mut id = channel.id(RDMA_PS_TCP);
        assert_eq!(id.resolve_addr(lab.address(1)), Ok(()));
        assert!(channel.ready_within(crate::lab::PATIENCE));
        let other = lab.channel();
        assert_eq!(id.migrate(&other), Ok(()));
        assert!(!channel.ready_within(QUIET));
        assert!(other.expect(RDMA_CM_EVENT_ADDR_RESOLVED).is_about(&id));
    })
}

fn a_channel_that_does_not_block_says_so() -> Outcome {
    with(|_, channel| assert_eq!(channel.nothing_without_blocking(), libc::EAGAIN))
}

fn commands_out_of_order_are_refused() -> Outcome {
    with(|lab, channel| {
        let id = channel.id(RDMA_PS_TCP);
        assert_eq!(id.bind(lab.address(0)), Ok(()));
        // Without a device librdmacm does not survive the question.
        assert_eq!(id.resolve_route(), Err(libc::EINVAL), "without a peer's address");
        assert_eq!(id.bind(lab.address(0)), Err(libc::EINVAL), "bound already");
        assert_eq!(id.listen(1), Ok(()));
        assert_eq!(id.resolve_addr(lab.address(1)), Err(libc::EINVAL), "listening");
    })
}

fn datagram_services_are_resolved() -> Outcome {
    with(|_, channel| {
        let listener = channel.listener(RDMA_PS_UDP);
        let caller = channel.resolved(RDMA_PS_UDP, listener.port());
        assert_eq!(caller.create_qp(), Ok(()));
        assert_eq!(caller.qp_state(), IBV_QPS_RTS);
        assert_eq!(caller.connect(b"which"), Ok(()));
        let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST);
        assert!(request.called(&listener));
        assert_eq!(&request.data()[..5], b"which");
        let called = request.take_id();
        assert_eq!(called.create_qp(), Ok(()));
        assert_eq!(called.accept(b"this"), Ok(()));
        let event = channel.expect(RDMA_CM_EVENT_ESTABLISHED);
        assert!(event.is_about(&caller));
        assert_eq!(&event.data()[..4], b"this");
        let ud = event.ud();
        assert_eq!((ud.qp_num, ud.qkey, ud.ah_attr.is_global), (called.qp_num(), RDMA_UDP_QKEY, 1));
    })
}

fn datagram_services_may_refuse() -> Outcome {
    with(|_, channel| {
        let listener = channel.listener(RDMA_PS_UDP);
        let caller = channel.resolved(RDMA_PS_UDP, listener.port());
        assert_eq!(caller.create_qp(), Ok(()));
        assert_eq!(caller.connect(&[]), Ok(()));
        let called = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).take_id();
        assert_eq!(called.reject(&[]), Ok(()));
        let event = channel.next();
        assert!(event.is_about(&caller));
        // 2 is "rejected" (IBTA 12.11.2.1).
        assert_eq!((event.kind(), event.status()), (RDMA_CM_EVENT_UNREACHABLE, 2));
    })
}
