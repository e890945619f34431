//! Connections inside one process, through the table of librdmacm: what is said, in which order, and what is refused.

#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use ibex_sys::*;
use support::cm::*;
use support::*;

#[test]
fn two_ends_meet_talk_and_part() {
    let channel = Chan::new();
    let listener = Cid::listening(Some(&channel), RDMA_PS_TCP);
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, listener.port());
    assert_eq!(caller.create_qp(), Ok(()));
    assert_eq!(caller.qp_state(), IBV_QPS_INIT);
    assert_eq!(caller.connect(b"who is there"), Ok(()));

    let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST);
    assert_eq!(request.listener(), listener.0);
    assert_eq!(&request.data()[..12], b"who is there");
    assert_eq!(request.data().len(), 56, "all that a request has room for");
    let conn = request.conn();
    assert_eq!((conn.responder_resources, conn.initiator_depth), (1, 1));
    assert_eq!((conn.retry_count, conn.rnr_retry_count), (7, 7));
    assert_eq!(conn.qp_num, c!((*(*caller.0).qp).qp_num));
    let called = request.id();
    drop(request);
    assert_eq!((called.port(), called.peer_port()), (listener.port(), caller.port()));
    assert_eq!(called.context(), caller.context());
    assert_eq!(called.create_qp(), Ok(()));
    let (memory, mr) = called.memory(64);
    called.recv(memory, mr);
    assert_eq!(called.accept(b"me"), Ok(()));
    assert_eq!(called.qp_state(), IBV_QPS_RTS);

    let mut data = Vec::new();
    for _ in 0..2 {
        let event = channel.expect(RDMA_CM_EVENT_ESTABLISHED);
        if event.id() == caller {
            data = event.data();
            assert_eq!(event.conn().qp_num, c!((*(*called.0).qp).qp_num));
        }
    }
    assert_eq!(&data[..2], b"me");
    assert_eq!(data.len(), 196, "all that a reply has room for");

    caller.send(42);
    let got = called.received();
    assert_eq!((got.status, got.byte_len), (IBV_WC_SUCCESS, 8));
    // SAFETY: the completion has given the memory back.
    assert_eq!(unsafe { memory.cast::<u64>().read_unaligned() }, 42);

    assert_eq!(caller.disconnect(), Ok(()));
    assert_eq!(caller.qp_state(), IBV_QPS_ERR);
    assert_eq!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).id(), called);
    assert_eq!(called.disconnect(), Ok(()));
    assert_eq!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).id(), caller);
    assert_eq!(c!(dispatch::rdma_dereg_mr(v(), mr)), 0);
    for id in [caller, called, listener] {
        id.destroy();
    }
}

#[test]
fn both_may_disconnect_at_once_or_one_may_be_destroyed() {
    let channel = Chan::new();
    let (one, other) = pair(&channel);
    assert_eq!(one.disconnect(), Ok(()));
    // Whether the other has heard of it by now or not.
    assert_eq!(other.disconnect(), Ok(()));
    let ended =
        [channel.expect(RDMA_CM_EVENT_DISCONNECTED).id(), channel.expect(RDMA_CM_EVENT_DISCONNECTED).id()];
    assert!(ended.contains(&one) && ended.contains(&other));
    assert_eq!(one.disconnect(), Err(libc::EINVAL), "it has ended");
    one.destroy();
    other.destroy();

    let (one, other) = pair(&channel);
    other.destroy();
    assert_eq!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).id(), one);
    one.destroy();
}

#[test]
fn a_connection_leaves_timewait() {
    let channel = Chan::new();
    let (one, other) = pair(&channel);
    assert_eq!(one.disconnect(), Ok(()));
    assert_eq!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).id(), other);
    assert_eq!(other.disconnect(), Ok(()));
    assert_eq!(channel.expect(RDMA_CM_EVENT_DISCONNECTED).id(), one);
    let over =
        [channel.expect(RDMA_CM_EVENT_TIMEWAIT_EXIT).id(), channel.expect(RDMA_CM_EVENT_TIMEWAIT_EXIT).id()];
    assert!(over.contains(&one) && over.contains(&other));
    one.destroy();
    other.destroy();
}

#[test]
fn a_refusal_carries_its_reason_and_data() {
    let channel = Chan::new();
    let listener = Cid::listening(Some(&channel), RDMA_PS_TCP);
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, listener.port());
    assert_eq!(caller.create_qp(), Ok(()));
    assert_eq!(caller.connect(&[]), Ok(()));
    let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST);
    let called = request.id();
    drop(request);
    assert_eq!(called.reject(b"not today"), Ok(()));
    let event = channel.next();
    // 28 is "the consumer refused" (IBTA 12.6.7.2).
    assert_eq!((event.kind(), event.status(), event.id()), (RDMA_CM_EVENT_REJECTED, 28, caller));
    assert_eq!(&event.data()[..9], b"not today");
    drop(event);
    assert_eq!(caller.qp_state(), IBV_QPS_ERR);
    called.destroy();
    caller.destroy();

    // Destroyed without an answer is refused as well.
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, listener.port());
    assert_eq!(caller.connect(&[]), Ok(()));
    let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST);
    let called = request.id();
    drop(request);
    called.destroy();
    let event = channel.next();
    assert_eq!((event.kind(), event.id()), (RDMA_CM_EVENT_REJECTED, caller));
    drop(event);
    caller.destroy();

    // A listener that goes refuses what nobody has fetched.
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, listener.port());
    let elsewhere = Chan::new();
    assert_eq!(c!((t().migrate_id)(listener.0, elsewhere.0)), 0);
    assert_eq!(caller.connect(&[]), Ok(()));
    assert!(readable(elsewhere.fd(), 5000));
    listener.destroy();
    assert!(elsewhere.quiet(0), "undelivered events are discarded");
    let event = channel.next();
    assert_eq!((event.kind(), event.id()), (RDMA_CM_EVENT_REJECTED, caller));
    drop(event);
    caller.destroy();
}

#[test]
fn nobody_listens() {
    let channel = Chan::new();
    // Bound is not listening.
    let bound = Cid::new(Some(&channel), RDMA_PS_TCP);
    assert_eq!(bound.bind(own(0)), Ok(()));
    let start = Instant::now();
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, bound.port());
    assert_eq!(caller.connect(&[]), Ok(()));
    let event = channel.next();
    // 8 is "invalid service" (IBTA 12.6.7.2).
    assert_eq!((event.kind(), event.status()), (RDMA_CM_EVENT_REJECTED, 8));
    drop(event);
    assert!(start.elapsed() < Duration::from_millis(500), "it is said at once, not after retries");
    caller.destroy();
    bound.destroy();

    // Who listens again in that moment is found: some programs change listeners, and call at once. Once in another port
    // space, where it was refused (`ib_send_lat -R -c UD`).
    for space in [RDMA_PS_TCP, RDMA_PS_UDP] {
        let first = Cid::listening(Some(&channel), RDMA_PS_TCP);
        let port = first.port();
        first.destroy();
        let caller = Cid::resolved(&channel, space, port);
        assert_eq!(caller.connect(&[]), Ok(()));
        std::thread::sleep(Duration::from_millis(50));
        let second = Cid::new(Some(&channel), space);
        assert_eq!(second.bind(own(port)), Ok(()));
        assert_eq!(second.listen(1), Ok(()));
        let called = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).id();
        for id in [called, caller, second] {
            id.destroy();
        }
    }
}

#[test]
fn ports_are_one_listener_s() {
    let channel = Chan::new();
    let first = Cid::listening(Some(&channel), RDMA_PS_TCP);
    let port = first.port();
    assert_ne!(port, 0);
    let second = Cid::new(Some(&channel), RDMA_PS_TCP);
    assert_eq!(second.bind(own(port)), Err(libc::EADDRINUSE));
    assert_eq!(second.bind(at("0.0.0.0", port)), Err(libc::EADDRINUSE));
    // A space of its own.
    let datagrams = Cid::new(Some(&channel), RDMA_PS_UDP);
    assert_eq!(datagrams.bind(own(port)), Ok(()));
    assert_eq!(second.bind(at("192.0.2.1", 0)), Err(libc::EADDRNOTAVAIL));
    assert_eq!(second.listen(1), Ok(()), "an idle one takes any port");
    assert_ne!(second.port(), 0);
    assert_eq!(second.listen(1), Err(libc::EINVAL));
    first.destroy();
    let again = Cid::new(Some(&channel), RDMA_PS_TCP);
    assert_eq!(again.bind(own(port)), Ok(()), "free with its identifier");
    for id in [second, datagrams, again] {
        id.destroy();
    }
}

#[test]
fn shared_addresses_want_both_to_say_so() {
    let channel = Chan::new();
    let share = |id: Cid| {
        let mut on: i32 = 1;
        let code =
            c!((t().set_option)(id.0, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, (&raw mut on).cast(), 4));
        assert_eq!(code, 0);
    };
    let ids = [(); 3].map(|()| Cid::new(Some(&channel), RDMA_PS_TCP));
    share(ids[0]);
    share(ids[1]);
    assert_eq!(ids[0].bind(own(0)), Ok(()));
    let port = ids[0].port();
    // The port was any; it is not shared until one names it.
    assert_eq!(ids[2].bind(own(port)), Err(libc::EADDRINUSE));
    ids.into_iter().for_each(Cid::destroy);
}

#[test]
fn addresses_are_resolved_or_not() {
    let channel = Chan::new();
    let id = Cid::new(Some(&channel), RDMA_PS_TCP);
    assert!(id.context().is_null(), "no device before an address");
    assert_eq!(id.resolve_route(), Err(libc::EINVAL), "no address yet");
    assert_eq!(id.connect(&[]), Err(libc::EINVAL), "no route yet");
    assert_eq!(id.resolve_addr(at("0.0.0.0", 7471)), Ok(()), "the own host");
    drop(channel.expect(RDMA_CM_EVENT_ADDR_RESOLVED));
    assert!(!id.context().is_null());
    assert_eq!(c!((*id.0).port_num), 1);
    let peer = c!((*id.0).route.addr.dst.dst_sin);
    assert_eq!(peer.sin_addr.s_addr, own(0).sin_addr.s_addr);
    assert_eq!(id.resolve_route(), Ok(()));
    drop(channel.expect(RDMA_CM_EVENT_ROUTE_RESOLVED));
    assert_eq!(c!((*id.0).route.num_paths), 1);
    let path = c!(&*(*id.0).route.path_rec);
    assert_eq!((path.mtu, path.pkey), (IBV_MTU_4096.0 as u8, 0xffff));
    // SAFETY: all members of a GID cover its bytes.
    assert_eq!(unsafe { path.sgid.raw }, unsafe { path.dgid.raw });
    id.destroy();

    // From an address and port of one's own.
    let id = Cid::new(Some(&channel), RDMA_PS_TCP);
    let (mut from, mut to) = (own(0), own(1));
    let code = c!((t().resolve_addr)(id.0, (&raw mut from).cast(), (&raw mut to).cast(), 1000));
    assert_eq!(code, 0);
    drop(channel.expect(RDMA_CM_EVENT_ADDR_RESOLVED));
    assert_ne!(id.port(), 0);
    id.destroy();

    // From a loopback address nothing else can be reached, and an address of the other family never.
    let id = Cid::new(Some(&channel), RDMA_PS_TCP);
    assert_eq!(id.resolve_addr(at("192.0.2.1", 1)), Ok(()));
    let event = channel.next();
    assert_eq!(event.kind(), RDMA_CM_EVENT_ADDR_ERROR);
    assert!(event.status() < 0);
    drop(event);
    id.destroy();
}

#[test]
fn synchronous_identifiers_wait() {
    let listener = Cid::listening(None, RDMA_PS_TCP);
    let port = listener.port();
    let client = std::thread::spawn(move || {
        let id = Cid::new(None, RDMA_PS_TCP);
        assert_eq!(id.resolve_addr(own(port)), Ok(()));
        assert_eq!(id.resolve_route(), Ok(()));
        assert_eq!(id.create_qp(), Ok(()));
        assert_eq!(id.connect(b"hello"), Ok(()));
        let event = c!((*id.0).event);
        assert_eq!(c!((*event).event), RDMA_CM_EVENT_ESTABLISHED);
        id.send(7);
        assert_eq!(id.disconnect(), Ok(()));
        id.destroy();

        let id = Cid::new(None, RDMA_PS_TCP);
        assert_eq!(id.resolve_addr(own(port)), Ok(()));
        assert_eq!(id.resolve_route(), Ok(()));
        assert_eq!(id.connect(&[]), Err(libc::ECONNREFUSED));
        id.destroy();
    });
    let mut request = null_mut();
    assert_eq!(c!((t().get_request)(listener.0, &mut request)), 0);
    let called = Cid(request);
    let event = c!((*called.0).event);
    assert_eq!(c!((*event).event), RDMA_CM_EVENT_CONNECT_REQUEST);
    assert_eq!(called.create_qp(), Ok(()));
    let (memory, mr) = called.memory(64);
    called.recv(memory, mr);
    assert_eq!(called.accept(&[]), Ok(()), "returns when the connection is established");
    assert_eq!(called.received().status, IBV_WC_SUCCESS);
    assert_eq!(called.disconnect(), Ok(()));
    assert_eq!(c!(dispatch::rdma_dereg_mr(v(), mr)), 0);
    called.destroy();
    assert_eq!(c!((t().get_request)(listener.0, &mut request)), 0);
    assert_eq!(Cid(request).reject(&[]), Ok(()));
    Cid(request).destroy();
    client.join().unwrap();
    listener.destroy();
}

#[test]
fn an_identifier_changes_channels_with_its_events() {
    let (one, other) = (Chan::new(), Chan::new());
    let id = Cid::new(Some(&one), RDMA_PS_TCP);
    assert_eq!(id.resolve_addr(own(1)), Ok(()));
    assert_eq!(c!((t().migrate_id)(id.0, other.0)), 0);
    assert!(one.quiet(0));
    assert_eq!(other.expect(RDMA_CM_EVENT_ADDR_RESOLVED).id(), id);
    // Synchronous from here on, and back.
    assert_eq!(c!((t().migrate_id)(id.0, null_mut())), 0);
    assert_eq!(id.resolve_route(), Ok(()));
    assert_eq!(c!((t().migrate_id)(id.0, one.0)), 0);
    assert_eq!(id.connect(&[]), Ok(()));
    assert_eq!(one.next().kind(), RDMA_CM_EVENT_REJECTED);
    id.destroy();
}

#[test]
fn a_channel_without_events_blocks_or_says_so() {
    let channel = Chan::new();
    let mut event = null_mut();
    set_nonblocking(channel.fd());
    assert_eq!(c!((t().get_cm_event)(channel.0, &mut event)), -1);
    assert_eq!(errno(), libc::EAGAIN);
    let blocking = Chan::new();
    let id = Cid::new(Some(&blocking), RDMA_PS_TCP);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let (mut event, blocking) = (null_mut(), &blocking);
            assert_eq!(c!((t().get_cm_event)(blocking.raw(), &mut event)), 0);
            Event(event).kind().0
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished());
        assert_eq!(id.resolve_addr(own(1)), Ok(()));
        assert_eq!(waiter.join().unwrap(), RDMA_CM_EVENT_ADDR_RESOLVED.0);
    });
    id.destroy();
}

#[test]
fn destroying_waits_for_acknowledgements() {
    let channel = Chan::new();
    let id = Cid::new(Some(&channel), RDMA_PS_TCP);
    assert_eq!(id.resolve_addr(own(1)), Ok(()));
    let event = channel.expect(RDMA_CM_EVENT_ADDR_RESOLVED);
    let destroyer = std::thread::spawn(move || id.destroy());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!destroyer.is_finished());
    drop(event);
    destroyer.join().unwrap();
}

#[test]
fn without_a_queue_pair_the_program_moves_its_own() {
    let channel = Chan::new();
    let listener = Cid::listening(Some(&channel), RDMA_PS_TCP);
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, listener.port());
    let pd = c!((*caller.0).pd);
    let cq = c!((v().create_cq)(caller.context(), 64, null_mut(), null_mut(), 0));
    let mut qps = Vec::new();
    let mut make = || {
        let cap = ibv_qp_cap {
            max_send_wr: 4,
            max_recv_wr: 4,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 8,
        };
        let mut init =
            ibv_qp_init_attr { send_cq: cq, recv_cq: cq, cap, qp_type: IBV_QPT_RC, ..Default::default() };
        let qp = c!((v().create_qp)(pd, &mut init));
        assert!(!qp.is_null());
        qps.push(qp);
        qp
    };
    let step = |id: Cid, qp: *mut ibv_qp, state: ibv_qp_state| {
        let (mut attr, mut mask) = (ibv_qp_attr { qp_state: state, ..Default::default() }, 0);
        let init = t().init_qp_attr.expect("it is there");
        assert_eq!(c!(init(id.0, &mut attr, &mut mask)), 0, "{state}");
        assert_eq!(c!((v().modify_qp)(qp, &mut attr, mask)), 0, "{state}");
    };
    let (ours, theirs) = (make(), make());
    let mut param = rdma_conn_param { qp_num: c!((*ours).qp_num), ..parameters(&[]) };
    assert_eq!(c!((t().connect)(caller.0, &mut param)), 0);
    let called = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).id();
    for state in [IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS] {
        step(called, theirs, state);
    }
    let mut param = rdma_conn_param { qp_num: c!((*theirs).qp_num), ..parameters(&[]) };
    assert_eq!(c!((t().accept)(called.0, &mut param)), 0);
    let response = channel.expect(RDMA_CM_EVENT_CONNECT_RESPONSE);
    assert_eq!(response.id(), caller);
    assert_eq!(response.conn().qp_num, c!((*theirs).qp_num));
    drop(response);
    for state in [IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS] {
        step(caller, ours, state);
    }
    assert_eq!(c!(t().establish.expect("it is there")(caller.0)), 0);
    assert_eq!(channel.expect(RDMA_CM_EVENT_ESTABLISHED).id(), called);
    caller.destroy();
    drop(channel.expect(RDMA_CM_EVENT_DISCONNECTED));
    called.destroy();
    listener.destroy();
    for qp in qps {
        assert_eq!(c!((v().destroy_qp)(qp)), 0);
    }
    assert_eq!(c!((v().destroy_cq)(cq)), 0);
}

#[test]
fn parameters_out_of_range_are_refused() {
    let channel = Chan::new();
    let listener = Cid::listening(Some(&channel), RDMA_PS_TCP);
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, listener.port());
    assert_eq!(caller.connect(&[0; 57]), Err(libc::EINVAL), "one byte too many");
    let mut param = rdma_conn_param { responder_resources: 200, ..parameters(&[]) };
    assert_eq!(c!((t().connect)(caller.0, &mut param)), -1);
    assert_eq!(errno(), libc::EINVAL);
    assert_eq!(caller.accept(&[]), Err(libc::EINVAL), "nobody called it");
    assert_eq!(caller.disconnect(), Err(libc::EINVAL), "not connected");
    assert_eq!(caller.connect(&[0; 56]), Ok(()), "and it can still call");
    let called = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).id();
    assert_eq!(called.accept(&[0; 197]), Err(libc::EINVAL));
    assert_eq!(called.reject(&[0; 149]), Err(libc::EINVAL));
    assert_eq!(caller.connect(&[]), Err(libc::EINVAL), "once");
    for id in [caller, called, listener] {
        id.destroy();
    }
    let mut id = null_mut();
    assert_eq!(c!((t().create_id)(channel.0, &mut id, null_mut(), RDMA_PS_IPOIB)), -1);
    assert_eq!(errno(), libc::EOPNOTSUPP);
    assert_eq!(name(RDMA_CM_EVENT_TIMEWAIT_EXIT), "RDMA_CM_EVENT_TIMEWAIT_EXIT");
    assert_eq!(name(rdma_cm_event_type(99)), "UNKNOWN EVENT");
}

#[test]
fn a_full_backlog_makes_callers_wait() {
    let channel = Chan::new();
    let calls = Chan::new();
    let listener = Cid::new(Some(&channel), RDMA_PS_TCP);
    assert_eq!(listener.bind(own(0)), Ok(()));
    assert_eq!(listener.listen(2), Ok(()));
    let callers: Vec<Cid> = (0..5).map(|_| Cid::resolved(&calls, RDMA_PS_TCP, listener.port())).collect();
    for caller in &callers {
        assert_eq!(caller.create_qp(), Ok(()));
        assert_eq!(caller.connect(&[]), Ok(()));
    }
    let mut called = Vec::new();
    let mut established = 0;
    while established < 10 {
        for (channel, limit) in [(&channel, 20), (&calls, 20)] {
            if channel.quiet(limit) {
                continue;
            }
            let event = channel.next();
            match event.kind() {
                RDMA_CM_EVENT_CONNECT_REQUEST => {
                    let id = event.id();
                    assert_eq!(id.create_qp(), Ok(()));
                    assert_eq!(id.accept(&[]), Ok(()));
                    called.push(id);
                }
                RDMA_CM_EVENT_ESTABLISHED => established += 1,
                other => panic!("{}", name(other)),
            }
        }
    }
    callers.into_iter().chain(called).for_each(Cid::destroy);
    listener.destroy();
}

#[test]
fn datagram_services_are_resolved() {
    let channel = Chan::new();
    let listener = Cid::listening(Some(&channel), RDMA_PS_UDP);
    let caller = Cid::resolved(&channel, RDMA_PS_UDP, listener.port());
    assert_eq!(caller.create_qp(), Ok(()));
    assert_eq!(caller.qp_state(), IBV_QPS_RTS);
    assert_eq!(caller.connect(b"which"), Ok(()));
    let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST);
    assert_eq!(request.listener(), listener.0);
    assert_eq!(&request.data()[..5], b"which");
    assert_eq!(request.data().len(), 180, "all that a request has room for");
    let called = request.id();
    drop(request);
    assert_eq!(called.create_qp(), Ok(()));
    let (memory, mr) = called.memory(64);
    called.recv(memory, mr);
    assert_eq!(called.accept(b"this"), Ok(()));
    let event = channel.expect(RDMA_CM_EVENT_ESTABLISHED);
    assert_eq!(event.id(), caller);
    assert_eq!(&event.data()[..4], b"this");
    let mut ud = event.ud();
    assert_eq!((ud.qp_num, ud.qkey), (c!((*(*called.0).qp).qp_num), RDMA_UDP_QKEY));
    drop(event);
    let ah = c!((v().create_ah)((*caller.0).pd, &mut ud.ah_attr));
    assert!(!ah.is_null());
    let mut bytes = *b"datagram";
    let at = bytes.as_mut_ptr().cast();
    let flags = IBV_SEND_INLINE.0 as i32;
    let code = c!(dispatch::rdma_post_ud_send(caller.0, null_mut(), at, 8, null_mut(), flags, ah, ud.qp_num));
    assert_eq!(code, 0);
    let got = called.received();
    assert_eq!((got.status, got.byte_len), (IBV_WC_SUCCESS, 48), "the header comes first");
    assert_eq!(c!((v().destroy_ah)(ah)), 0);
    assert_eq!(c!(dispatch::rdma_dereg_mr(v(), mr)), 0);

    // Refused, and nobody there.
    let second = Cid::resolved(&channel, RDMA_PS_UDP, listener.port());
    assert_eq!(second.connect(&[]), Ok(()));
    let request = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).id();
    assert_eq!(request.reject(&[]), Ok(()));
    let event = channel.next();
    assert_eq!((event.kind(), event.id()), (RDMA_CM_EVENT_UNREACHABLE, second));
    // 2 is "rejected" (IBTA 12.11.2.1).
    assert_eq!(event.status(), 2);
    drop(event);
    for id in [caller, called, second, request, listener] {
        id.destroy();
    }
}

#[test]
fn two_hundred_connections_at_once() {
    let (calls, answers) = (Chan::new(), Chan::new());
    let listener = Cid::listening(Some(&answers), RDMA_PS_TCP);
    let port = listener.port();
    const COUNT: usize = 200;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut called, mut established) = (Vec::new(), 0);
            while established < COUNT {
                let event = answers.next();
                match event.kind() {
                    RDMA_CM_EVENT_CONNECT_REQUEST => {
                        let id = event.id();
                        assert_eq!(id.create_qp(), Ok(()));
                        assert_eq!(id.accept(&[]), Ok(()));
                        called.push(id);
                    }
                    RDMA_CM_EVENT_ESTABLISHED => established += 1,
                    other => panic!("{}", name(other)),
                }
            }
            called
        });
        let callers: Vec<Cid> = (0..COUNT).map(|_| Cid::resolved(&calls, RDMA_PS_TCP, port)).collect();
        for caller in &callers {
            assert_eq!(caller.create_qp(), Ok(()));
            assert_eq!(caller.connect(&[]), Ok(()));
        }
        for _ in &callers {
            drop(calls.expect(RDMA_CM_EVENT_ESTABLISHED));
        }
        let called = server.join().unwrap();
        assert_eq!(called.len(), COUNT);
        callers.into_iter().chain(called).for_each(Cid::destroy);
    });
    listener.destroy();
}

/// Looks a name up, in C strings; the addresses found, local and remote.
fn look_up(
    node: Option<&str>,
    service: Option<&str>,
    hints: &rdma_addrinfo,
) -> Result<*mut rdma_addrinfo, i32> {
    let text = |text: Option<&str>| text.map(|text| std::ffi::CString::new(text).expect("no zero in it"));
    let (node, service) = (text(node), text(service));
    let pointer =
        |text: &Option<std::ffi::CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    let mut found = null_mut();
    match c!((t().getaddrinfo)(pointer(&node), pointer(&service), hints, &mut found)) {
        0 => Ok(found),
        -1 => Err(-errno()),
        code => Err(code),
    }
}

#[test]
fn names_become_addresses() {
    let mut hints = rdma_addrinfo { ai_port_space: RDMA_PS_TCP.0 as i32, ..Default::default() };
    let found = look_up(Some("192.0.2.7"), Some("7471"), &hints).expect("a numeric address");
    let info = c!(&*found);
    assert_eq!((info.ai_family, info.ai_qp_type), (libc::AF_INET, IBV_QPT_RC.0 as i32));
    assert!(info.ai_src_addr.is_null());
    let address = c!(info.ai_dst_addr.cast::<libc::sockaddr_in>().read());
    assert_eq!(
        (address.sin_port, address.sin_addr.s_addr),
        (at("192.0.2.7", 7471).sin_port, at("192.0.2.7", 0).sin_addr.s_addr)
    );
    c!((t().freeaddrinfo)(found));

    // Of a name's addresses, the one of the device's family.
    let found = look_up(Some("localhost"), Some("1"), &hints).expect("every host knows itself");
    assert_eq!(c!((*found).ai_family), libc::AF_INET);
    c!((t().freeaddrinfo)(found));

    hints.ai_flags = RAI_PASSIVE;
    hints.ai_port_space = RDMA_PS_UDP.0 as i32;
    let found = look_up(None, Some("7471"), &hints).expect("any address");
    let info = c!(&*found);
    assert_eq!(info.ai_qp_type, IBV_QPT_UD.0 as i32);
    assert!(info.ai_dst_addr.is_null() && !info.ai_src_addr.is_null());
    c!((t().freeaddrinfo)(found));

    hints.ai_flags = RAI_NUMERICHOST;
    assert_eq!(look_up(Some("localhost"), Some("1"), &hints).map(drop), Err(libc::EAI_NONAME));
    hints.ai_flags = RAI_SA;
    assert_eq!(look_up(Some("192.0.2.7"), Some("1"), &hints).map(drop), Err(-libc::EOPNOTSUPP));
    assert_eq!(look_up(None, None, &hints).map(drop), Err(-libc::EINVAL));
}

#[test]
fn endpoints_are_made_of_what_was_looked_up() {
    let attributes = || {
        let cap = ibv_qp_cap {
            max_send_wr: 4,
            max_recv_wr: 4,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: 0,
        };
        ibv_qp_init_attr { cap, sq_sig_all: 1, ..Default::default() }
    };
    let space = RDMA_PS_TCP.0 as i32;
    let address = std::net::Ipv4Addr::from(u32::from_be(own(0).sin_addr.s_addr)).to_string();
    let hints = rdma_addrinfo { ai_flags: RAI_PASSIVE, ai_port_space: space, ..Default::default() };
    let found = look_up(Some(&address), Some("0"), &hints).expect("the own address");
    let (mut listener, mut init) = (null_mut(), attributes());
    assert_eq!(result(c!((t().create_ep)(&mut listener, found, null_mut(), &mut init))), Ok(()));
    c!((t().freeaddrinfo)(found));
    let listener = Cid(listener);
    assert_eq!(listener.listen(0), Ok(()));
    let port = listener.port().to_string();
    let client = std::thread::spawn(move || {
        let hints = rdma_addrinfo { ai_port_space: space, ..Default::default() };
        let found = look_up(Some(&address), Some(&port), &hints).expect("the own address");
        let (mut id, mut init) = (null_mut(), attributes());
        assert_eq!(result(c!((t().create_ep)(&mut id, found, null_mut(), &mut init))), Ok(()));
        c!((t().freeaddrinfo)(found));
        assert!(init.cap.max_inline_data >= 16, "what holds a list holds as many bytes");
        let id = Cid(id);
        assert_eq!(result(c!((t().connect)(id.0, null_mut()))), Ok(()));
        id.send(5);
        assert_eq!(id.disconnect(), Ok(()));
        c!((t().destroy_ep)(id.0));
    });
    let mut called = null_mut();
    assert_eq!(result(c!((t().get_request)(listener.0, &mut called))), Ok(()));
    let called = Cid(called);
    let (memory, mr) = called.memory(64);
    called.recv(memory, mr);
    assert_eq!(result(c!((t().accept)(called.0, null_mut()))), Ok(()));
    assert_eq!(called.received().status, IBV_WC_SUCCESS);
    assert_eq!(called.disconnect(), Ok(()));
    client.join().expect("the client");
    assert_eq!(c!(dispatch::rdma_dereg_mr(v(), mr)), 0);
    c!((t().destroy_ep)(called.0));
    c!((t().destroy_ep)(listener.0));
}

#[test]
fn what_is_not_served_is_refused() {
    let channel = Chan::new();
    let id = Cid::new(Some(&channel), RDMA_PS_UDP);
    assert_eq!(id.bind(own(0)), Ok(()));
    let mut group = at("239.0.0.1", 0);
    let join = c!((t().join_multicast)(id.0, (&raw mut group).cast(), null_mut()));
    assert_eq!(result(join), Err(libc::EOPNOTSUPP));
    let mut ece = ibv_ece::default();
    let local = t().set_local_ece.expect("it is there");
    assert_eq!(result(c!(local(id.0, &mut ece))), Err(libc::EOPNOTSUPP));
    let mut wide = [0u8; 8];
    let option = |level, option, size| {
        result(c!((t().set_option)(id.0, level, option, wide.as_ptr().cast_mut().cast(), size)))
    };
    assert_eq!(option(RDMA_OPTION_IB, RDMA_OPTION_IB_PATH, 8), Err(libc::EOPNOTSUPP));
    assert_eq!(option(RDMA_OPTION_ID, 99, 1), Err(libc::ENOSYS));
    assert_eq!(option(RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, 4), Err(libc::EINVAL));
    assert_eq!(option(RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, 4), Err(libc::EINVAL), "bound already");
    assert_eq!(option(RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, 1), Ok(()));
    wide[0] = 32;
    let timeout = RDMA_OPTION_ID_ACK_TIMEOUT;
    let refused = result(c!((t().set_option)(id.0, RDMA_OPTION_ID, timeout, wide.as_mut_ptr().cast(), 1)));
    assert_eq!(refused, Err(libc::EINVAL), "five bits");
    // An event of the program's own.
    let write = t().write_cm_event.expect("it is there");
    assert_eq!(result(c!(write(id.0, RDMA_CM_EVENT_USER, 3, 4))), Ok(()));
    let event = channel.next();
    assert_eq!((event.kind(), event.status(), event.id()), (RDMA_CM_EVENT_USER, 3, id));
    drop(event);
    assert_eq!(result(c!(write(id.0, RDMA_CM_EVENT_ESTABLISHED, 0, 0))), Err(libc::EINVAL));
    let mut count = 0;
    let devices = c!((t().get_devices)(&mut count));
    assert_eq!(count, 1);
    assert_eq!(c!(*devices), id.context());
    c!((t().free_devices)(devices));
    id.destroy();
}

#[test]
fn the_acknowledgement_timeout_is_the_program_s() {
    let channel = Chan::new();
    let listener = Cid::listening(Some(&channel), RDMA_PS_TCP);
    let caller = Cid::resolved(&channel, RDMA_PS_TCP, listener.port());
    let mut timeout = 9u8;
    let at = (&raw mut timeout).cast();
    assert_eq!(
        result(c!((t().set_option)(caller.0, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, at, 1))),
        Ok(())
    );
    assert_eq!(caller.create_qp(), Ok(()));
    assert_eq!(caller.connect(&[]), Ok(()));
    let called = channel.expect(RDMA_CM_EVENT_CONNECT_REQUEST).id();
    assert_eq!(called.create_qp(), Ok(()));
    assert_eq!(called.accept(&[]), Ok(()));
    drop(channel.expect(RDMA_CM_EVENT_ESTABLISHED));
    drop(channel.expect(RDMA_CM_EVENT_ESTABLISHED));
    let timeout_of = |id: Cid| {
        let (mut attr, mut init) = (ibv_qp_attr::default(), ibv_qp_init_attr::default());
        assert_eq!(c!((v().query_qp)((*id.0).qp, &mut attr, IBV_QP_TIMEOUT.0 as i32, &mut init)), 0);
        attr.timeout
    };
    assert_eq!(timeout_of(caller), 9);
    assert!((10..20).contains(&timeout_of(called)), "a tenth of a second, about");
    for id in [caller, called, listener] {
        id.destroy();
    }
}

/// Ends that come and go in every order, in many threads, while others do the same.
#[test]
fn threads_that_connect_and_part_as_they_please() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 20;
    let answers = Chan::new();
    let listener = Cid::listening(Some(&answers), RDMA_PS_TCP);
    let port = listener.port();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut ended, mut made) = (0, 0);
            // Every call is answered or refused, and what was answered ends.
            while ended < THREADS * ROUNDS {
                let event = answers.next();
                let id = event.id();
                match event.kind() {
                    RDMA_CM_EVENT_CONNECT_REQUEST => {
                        made += 1;
                        drop(event);
                        match made % 4 {
                            0 => assert_eq!(id.reject(&[]), Ok(())),
                            1 => {}
                            _ => {
                                assert_eq!(id.create_qp(), Ok(()));
                                // Fails if the caller has gone meanwhile.
                                if id.accept(&[]).is_ok() {
                                    continue;
                                }
                            }
                        }
                        id.destroy();
                        ended += 1;
                    }
                    RDMA_CM_EVENT_DISCONNECTED | RDMA_CM_EVENT_REJECTED | RDMA_CM_EVENT_UNREACHABLE => {
                        drop(event);
                        let _ = id.disconnect();
                        id.destroy();
                        ended += 1;
                    }
                    _ => {}
                }
            }
        });
        for thread in 0..THREADS {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let id = Cid::new(None, RDMA_PS_TCP);
                    assert_eq!(id.resolve_addr(own(port)), Ok(()));
                    assert_eq!(id.resolve_route(), Ok(()));
                    assert_eq!(id.create_qp(), Ok(()));
                    match id.connect(&[]) {
                        Ok(()) if (thread + round) % 2 == 0 => assert_eq!(id.disconnect(), Ok(())),
                        Ok(()) | Err(libc::ECONNREFUSED) => {}
                        Err(other) => panic!("connect: {other}"),
                    }
                    id.destroy();
                }
            });
        }
        server.join().expect("the server");
    });
    listener.destroy();
}
