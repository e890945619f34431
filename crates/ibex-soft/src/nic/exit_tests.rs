//! What the end of the process may not pass over.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use ibex_sys::{IBV_QPT_RC, ibv_qp_cap};

use crate::cq::Cq;
use crate::event::EventQueue;
use crate::net::Config;
use crate::nic::open;
use crate::qp::{Parts, Qp};

/// Once a queue pair that another thread had locked just then was passed over, with what its peer had not asked to have
/// acknowledged: the peer took messages that had been received for lost.
#[test]
fn a_queue_pair_in_use_is_come_back_to() {
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let open = open(&Config { port, ..Config::new(Ipv4Addr::LOCALHOST.into()) }).unwrap();
    let nic = open.nic();
    let num = nic.wire.alloc_qpn().unwrap();
    let cq = Arc::new(Cq::new(8, 1, None, false));
    let qp = Arc::new(Qp::new(Parts {
        num,
        service: IBV_QPT_RC,
        own: nic.wire.address(),
        name: 1,
        pd: 1,
        events: Arc::new(EventQueue::new().unwrap()),
        send_cq: cq.clone(),
        recv_cq: cq,
        srq: None,
        cap: ibv_qp_cap { max_send_wr: 1, max_recv_wr: 1, ..ibv_qp_cap::default() },
        sq_sig_all: false,
        tuning: ibex_proto::Tuning::default(),
        timer: nic.add_timer(num),
    }));
    nic.attach(qp.clone());
    let paid = || (0..1000).any(|_| nic.try_pay());
    let inner = qp.lock();
    // Also from a thread of its own: none may wait for the lock.
    assert!(!std::thread::scope(|scope| scope.spawn(paid).join().unwrap()));
    drop(inner);
    assert!(paid());
    nic.detach(num);
}
