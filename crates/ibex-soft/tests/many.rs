//! Many queue pairs in one process: more than one slot of numbers holds.

mod support;

use ibex_sys::*;
use support::*;

#[test]
fn twenty_thousand_queue_pairs_have_numbers_of_their_own() {
    let context = Context::open();
    let pd = Pd::alloc(&context);
    let cq = Cq::create(&context, 64, None);
    let cap =
        ibv_qp_cap { max_send_wr: 1, max_recv_wr: 1, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0 };
    let wish = Wish { cap, ..Wish::default() };
    let pairs: Vec<Qp> = (0..20_000).map(|_| Qp::create(&pd, &cq, &cq, wish)).collect();
    let mut numbers: Vec<u32> = pairs.iter().map(Qp::num).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), pairs.len());
    // The last of them, of another slot than the first, reach each other.
    let (first, last) = (&pairs[0], &pairs[pairs.len() - 1]);
    assert_ne!(first.num() >> 14, last.num() >> 14);
    first.connect(last.endpoint(1));
    last.connect(first.endpoint(1));
    let memory = Mr::reg(&pd, 4096, ALL);
    memory.fill(0..1000, 1);
    first.rdma(IBV_WR_RDMA_WRITE, 1, memory.sge(0, 1000), memory.addr() + 2000, memory.rkey());
    assert_eq!(cq.success().wr_id, 1);
    memory.check(2000..3000, 1, 0);
}
