//! Extended completion queues through the C interface: walks, readers, the clock, moderation.
#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ibex_sys::*;
use support::*;

/// An extended completion queue.
struct CqEx(*mut ibv_cq_ex, Arc<Context>);
// SAFETY: as for the others: verbs may be called from any thread.
unsafe impl Send for CqEx {}
// SAFETY: as above.
unsafe impl Sync for CqEx {}

fn attributes(cqe: u32, wc_flags: u64) -> ibv_cq_init_attr_ex {
    ibv_cq_init_attr_ex { cqe, wc_flags, ..Default::default() }
}

impl CqEx {
    fn create(context: &Arc<Context>, mut attr: ibv_cq_init_attr_ex) -> CqEx {
        let cq = c!(dispatch::ibv_create_cq_ex(context.0, &mut attr));
        assert!(!cq.is_null(), "create_cq_ex: {}", std::io::Error::last_os_error());
        CqEx(cq, context.clone())
    }

    fn refused(context: &Arc<Context>, mut attr: ibv_cq_init_attr_ex) -> i32 {
        let cq = c!(dispatch::ibv_create_cq_ex(context.0, &mut attr));
        assert!(cq.is_null());
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    fn classic(&self) -> *mut ibv_cq {
        dispatch::ibv_cq_ex_to_cq(self.0)
    }

    fn start(&self) -> i32 {
        c!(dispatch::ibv_start_poll(self.0, &mut ibv_poll_cq_attr::default()))
    }

    fn next(&self) -> i32 {
        c!(dispatch::ibv_next_poll(self.0))
    }

    fn end(&self) {
        c!(dispatch::ibv_end_poll(self.0));
    }

    fn wr_id(&self) -> u64 {
        c!((*self.0).wr_id)
    }

    fn status(&self) -> ibv_wc_status {
        c!((*self.0).status)
    }

    /// Starts a walk as soon as there is a completion.
    fn wait(&self) {
        let begin = Instant::now();
        loop {
            match self.start() {
                0 => return,
                code => assert_eq!(code, libc::ENOENT),
            }
            assert!(begin.elapsed() < LIMIT, "no completion");
        }
    }
}

impl Drop for CqEx {
    fn drop(&mut self) {
        assert_eq!(c!((v().destroy_cq)(self.classic())), 0, "destroy_cq");
    }
}

/// Two connected queue pairs whose completions all go to one extended queue.
struct Ends {
    a: Qp,
    b: Qp,
    memory: Mr,
    cq: Arc<CqEx>,
}

fn ends(attr: ibv_cq_init_attr_ex) -> Ends {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Arc::new(CqEx::create(&context, attr));
    let (a, b) = (raw_qp(&pd, &cq), raw_qp(&pd, &cq));
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    let memory = Mr::reg(&pd, 1 << 16, ALL);
    Ends { a, b, memory, cq }
}

/// A queue pair on an extended queue.
fn raw_qp(pd: &Arc<Pd>, cq: &CqEx) -> Qp {
    // The support library's queue is not used: its place is taken by a queue that stays empty.
    let idle = Cq::create(&pd.1, 1, None);
    let wish = Wish::default();
    let mut init = ibv_qp_init_attr {
        send_cq: cq.classic(),
        recv_cq: cq.classic(),
        cap: wish.cap,
        qp_type: IBV_QPT_RC,
        ..Default::default()
    };
    let qp = c!((v().create_qp)(pd.0, &mut init));
    assert!(!qp.is_null());
    let qp = Qp { qp, pd: pd.clone(), send: idle.clone(), recv: idle, wish, psn: 7, srq: None };
    qp.init();
    qp
}

const STANDARD: u64 = IBV_WC_STANDARD_FLAGS.0 as u64;
const TIMES: u64 =
    (IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.0 | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.0) as u64;

#[test]
fn a_walk_reads_what_completed_and_when() {
    let Ends { cq, memory, a, b } = ends(attributes(64, STANDARD | TIMES));
    assert_eq!(cq.start(), libc::ENOENT);
    let before = clock(&cq.1);
    b.recv(1, memory.sge(0, 100));
    a.run(IBV_WR_SEND_WITH_IMM, 2, &mut [memory.sge(200, 60)], |wr| {
        wr.imm = ibv_send_wr_imm { imm_data: 0x1234_5678 };
    });
    let (mut received, mut sent, mut last) = (false, false, before);
    while !(received && sent) {
        cq.wait();
        loop {
            assert_eq!(cq.status(), IBV_WC_SUCCESS);
            let opcode = c!(dispatch::ibv_wc_read_opcode(cq.0));
            if cq.wr_id() == 1 {
                assert_eq!(opcode, IBV_WC_RECV);
                assert_eq!(c!(dispatch::ibv_wc_read_byte_len(cq.0)), 60);
                assert_eq!(c!(dispatch::ibv_wc_read_imm_data(cq.0)), 0x1234_5678);
                assert_eq!(c!(dispatch::ibv_wc_read_wc_flags(cq.0)), IBV_WC_WITH_IMM.0);
                assert_eq!(c!(dispatch::ibv_wc_read_qp_num(cq.0)), b.num());
                assert_eq!(c!(dispatch::ibv_wc_read_src_qp(cq.0)), a.num());
                assert_eq!(c!(dispatch::ibv_wc_read_slid(cq.0)), 0);
                assert_eq!(c!(dispatch::ibv_wc_read_sl(cq.0)), 0);
                assert_eq!(c!(dispatch::ibv_wc_read_dlid_path_bits(cq.0)), 0);
                assert_eq!(c!(dispatch::ibv_wc_read_vendor_err(cq.0)), 0);
                received = true;
            } else {
                assert_eq!((cq.wr_id(), opcode), (2, IBV_WC_SEND));
                assert_eq!(c!(dispatch::ibv_wc_read_qp_num(cq.0)), a.num());
                sent = true;
            }
            let time = c!(dispatch::ibv_wc_read_completion_ts(cq.0));
            assert!(time >= last && time <= clock(&cq.1));
            last = time;
            let wall = c!(dispatch::ibv_wc_read_completion_wallclock_ns(cq.0));
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            assert!(Duration::from_nanos(wall) <= now && now - Duration::from_nanos(wall) < LIMIT);
            match cq.next() {
                0 => {}
                code => {
                    assert_eq!(code, libc::ENOENT);
                    break;
                }
            }
        }
        cq.end();
    }
    assert_eq!(cq.start(), libc::ENOENT, "N posted, exactly N completions");
    let none = (c!(dispatch::ibv_wc_read_cvlan(cq.0)), c!(dispatch::ibv_wc_read_flow_tag(cq.0)));
    assert_eq!(none, (0, 0), "readers that are not served are safe to call");
}

fn clock(context: &Context) -> u64 {
    let mut values = ibv_values_ex { comp_mask: IBV_VALUES_MASK_RAW_CLOCK.0, ..c!(std::mem::zeroed()) };
    assert_eq!(c!(dispatch::ibv_query_rt_values_ex(context.0, &mut values)), 0);
    assert_eq!(values.raw_clock.tv_sec, 0);
    values.raw_clock.tv_nsec as u64
}

#[test]
fn many_completions_each_exactly_once_whatever_way_they_are_polled() {
    let flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.0;
    for flags in [0, flags] {
        let attr = ibv_cq_init_attr_ex {
            comp_mask: IBV_CQ_INIT_ATTR_MASK_FLAGS.0,
            flags,
            ..attributes(128, STANDARD)
        };
        let Ends { cq, memory, a, b: _b } = ends(attr);
        let (mut posted, mut polled) = (0, 0);
        while polled < 600 {
            // The queue has 64 requests: that all of them can be posted again shows that polling frees them.
            while posted < 600 && posted - polled < 64 {
                a.rdma(IBV_WR_RDMA_WRITE, posted, memory.sge(0, 8), memory.addr() + 64, memory.rkey());
                posted += 1;
            }
            // In turn: the classic way, a walk that stops early, a walk that posts in its middle.
            let mut wc = ibv_wc::default();
            while c!(dispatch::ibv_poll_cq(cq.classic(), 1, &mut wc)) == 0 {}
            assert_eq!((wc.wr_id, wc.status), (polled, IBV_WC_SUCCESS));
            polled += 1;
            for stop in [1, 3, 40] {
                if cq.start() != 0 {
                    continue;
                }
                let mut seen = 0;
                loop {
                    assert_eq!((cq.wr_id(), cq.status()), (polled, IBV_WC_SUCCESS));
                    polled += 1;
                    seen += 1;
                    if posted < 600 {
                        a.rdma(
                            IBV_WR_RDMA_WRITE,
                            posted,
                            memory.sge(0, 8),
                            memory.addr() + 64,
                            memory.rkey(),
                        );
                        posted += 1;
                    }
                    if seen == stop || cq.next() != 0 {
                        break;
                    }
                }
                cq.end();
            }
        }
        assert_eq!(cq.start(), libc::ENOENT);
    }
}

#[test]
fn errors_are_walked_over_like_successes() {
    let Ends { cq, memory, a, b } = ends(attributes(64, STANDARD));
    for wr_id in 0..3 {
        b.recv(wr_id, memory.sge(0, 8));
    }
    b.to(IBV_QPS_ERR);
    cq.wait();
    for wr_id in 0..3 {
        assert_eq!((cq.wr_id(), cq.status()), (wr_id, IBV_WC_WR_FLUSH_ERR));
        assert_eq!(c!(dispatch::ibv_wc_read_qp_num(cq.0)), b.num());
        assert_eq!(cq.next(), if wr_id < 2 { 0 } else { libc::ENOENT });
    }
    cq.end();
    drop(a);
}

#[test]
fn what_is_not_served_is_refused() {
    let context = Context::open();
    let refused = |attr| CqEx::refused(&context, attr);
    for flag in [IBV_WC_EX_WITH_CVLAN, IBV_WC_EX_WITH_FLOW_TAG, IBV_WC_EX_WITH_TM_INFO] {
        assert_eq!(refused(attributes(8, u64::from(flag.0))), libc::EOPNOTSUPP);
    }
    assert_eq!(refused(attributes(8, 1 << 40)), libc::EOPNOTSUPP);
    let masked = |comp_mask, flags| ibv_cq_init_attr_ex { comp_mask, flags, ..attributes(8, 0) };
    let ignore = IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN.0;
    assert_eq!(refused(masked(IBV_CQ_INIT_ATTR_MASK_FLAGS.0, ignore)), libc::EOPNOTSUPP);
    assert_eq!(refused(masked(IBV_CQ_INIT_ATTR_MASK_PD.0, 0)), libc::EOPNOTSUPP);
    assert_eq!(refused(masked(1 << 9, 0)), libc::EINVAL);
    assert_eq!(refused(attributes(0, 0)), libc::EINVAL);
    assert_eq!(refused(ibv_cq_init_attr_ex { comp_vector: 1, ..attributes(8, 0) }), libc::EINVAL);
    let cq = CqEx::create(&context, attributes(8, 0));
    let mut attr = ibv_poll_cq_attr { comp_mask: 1 };
    assert_eq!(c!(dispatch::ibv_start_poll(cq.0, &mut attr)), libc::EINVAL);
}

#[test]
fn threads_take_turns_at_a_walk() {
    let Ends { cq, memory, a, b } = ends(attributes(128, STANDARD));
    let seen = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let begin = Instant::now();
                while seen.lock().unwrap().len() < 300 && begin.elapsed() < LIMIT {
                    if cq.start() != 0 {
                        continue;
                    }
                    loop {
                        // Under the walk, so that the order seen is that of the queue.
                        seen.lock().unwrap().push(cq.wr_id());
                        if cq.next() != 0 {
                            break;
                        }
                    }
                    cq.end();
                }
            });
        }
        let mut posted = 0;
        while posted < 300 {
            let mut sge = [memory.sge(0, 8)];
            let mut wr = wr(IBV_WR_RDMA_WRITE, posted, &mut sge);
            wr.wr.rdma = ibv_send_wr_rdma { remote_addr: memory.addr() + 64, rkey: memory.rkey() };
            match a.try_post(&mut wr) {
                0 => posted += 1,
                code => assert_eq!(code, libc::ENOMEM),
            }
        }
    });
    assert_eq!(*seen.lock().unwrap(), (0..300).collect::<Vec<_>>());
    drop((a, b));
}

#[test]
fn a_moderated_queue_raises_its_event_after_the_count_or_the_period() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let channel = Channel::create(&context);
    let cq = Cq::create(&context, 64, Some(&channel));
    let (a, b) = (Qp::create(&pd, &cq, &cq, Wish::default()), Qp::create(&pd, &cq, &cq, Wish::default()));
    a.connect(b.endpoint(1));
    b.connect(a.endpoint(1));
    let memory = Mr::reg(&pd, 4096, ALL);
    let moderate = |cq_count, cq_period| {
        let moderate = ibv_moderate_cq { cq_count, cq_period };
        let mut attr = ibv_modify_cq_attr { attr_mask: IBV_CQ_ATTR_MODERATE.0, moderate };
        assert_eq!(c!(dispatch::ibv_modify_cq(cq.0, &mut attr)), 0);
    };
    let run = |count: u64| {
        for wr_id in 0..count {
            a.rdma(IBV_WR_RDMA_WRITE, wr_id, memory.sge(0, 8), memory.addr() + 64, memory.rkey());
        }
        for wr_id in 0..count {
            assert_eq!(cq.success().wr_id, wr_id);
        }
    };
    // The count: nothing before the fourth, long before the period.
    moderate(4, u16::MAX);
    cq.arm(false);
    run(3);
    assert!(!readable(channel.fd(), 0));
    run(1);
    assert!(readable(channel.fd(), 0));
    assert_eq!(channel.get(), Some(cq.0));
    // The period: one completion, and nobody polls.
    moderate(1000, 30_000);
    cq.arm(false);
    let begin = Instant::now();
    run(1);
    assert!(!readable(channel.fd(), 0), "too early after {:?}", begin.elapsed());
    assert!(readable(channel.fd(), 10_000));
    assert!(begin.elapsed() >= Duration::from_millis(30), "{:?}", begin.elapsed());
    assert_eq!(channel.get(), Some(cq.0));
    assert!(!readable(channel.fd(), 40), "one arming gives one event");
    // Events by count in between do not disturb the next one's time.
    moderate(2, 20_000);
    for _ in 0..5 {
        cq.arm(false);
        run(2);
        assert_eq!(channel.get(), Some(cq.0));
    }
    cq.arm(false);
    let begin = Instant::now();
    run(1);
    assert!(readable(channel.fd(), 10_000));
    assert!(begin.elapsed() >= Duration::from_millis(20), "{:?}", begin.elapsed());
    assert_eq!(channel.get(), Some(cq.0));
    // Off: at once. What was held back is raised when the setting changes.
    cq.arm(false);
    run(1);
    moderate(0, 0);
    assert_eq!(channel.get(), Some(cq.0));
    cq.arm(false);
    run(1);
    assert_eq!(channel.get(), Some(cq.0));
    let mut unknown = ibv_modify_cq_attr { attr_mask: 2, ..Default::default() };
    assert_eq!(c!(dispatch::ibv_modify_cq(cq.0, &mut unknown)), libc::EOPNOTSUPP);
    // Destroyed with an event held back: nothing comes of it.
    moderate(1000, 1000);
    cq.arm(false);
    run(1);
    drop((a, b, cq));
    assert!(!readable(channel.fd(), 20));
}

#[test]
fn extended_attributes_tell_what_there_is_and_fit_shorter_structures() {
    let context = Context::open();
    let mut attr = ibv_device_attr_ex::default();
    assert_eq!(c!(dispatch::ibv_query_device_ex(v(), context.0, null_mut(), &mut attr)), 0);
    assert_eq!((attr.hca_core_clock, attr.completion_timestamp_mask), (1_000_000, u64::MAX));
    assert_eq!((attr.cq_mod_caps.max_cq_count, attr.cq_mod_caps.max_cq_period), (u16::MAX, u16::MAX));
    assert_eq!((attr.raw_packet_caps, attr.tso_caps.max_tso, attr.odp_caps.general_caps), (0, 0, 0));
    assert_eq!(attr.device_cap_flags_ex, u64::from(attr.orig_attr.device_cap_flags));
    assert_eq!(attr.phys_port_cnt_ex, 1);
    let query = c!((*dispatch::verbs_get_ctx(context.0)).query_device_ex).unwrap();
    let input = ibv_query_device_ex_input { comp_mask: 1 };
    assert_eq!(c!(query(context.0, &input, &mut attr, size_of_val(&attr))), libc::EINVAL);
    // A program from before the clock was reported.
    let short = std::mem::offset_of!(ibv_device_attr_ex, completion_timestamp_mask);
    let mut old = ibv_device_attr_ex { hca_core_clock: 77, ..Default::default() };
    assert_eq!(c!(query(context.0, null_mut(), &mut old, short)), 0);
    assert_eq!((old.orig_attr.max_qp, old.hca_core_clock), (attr.orig_attr.max_qp, 77));
    assert_eq!(c!(query(context.0, null_mut(), &mut old, 64)), libc::EINVAL);
    let mut values: ibv_values_ex = c!(std::mem::zeroed());
    values.comp_mask = 2;
    assert_eq!(c!(dispatch::ibv_query_rt_values_ex(context.0, &mut values)), libc::EOPNOTSUPP);
}
