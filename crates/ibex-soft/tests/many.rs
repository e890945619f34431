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

/// A conversation over several queue pairs: the acknowledgement of one travels with a message of another, or with none.
/// Without a timeout, so that one that is lost stays lost.
#[test]
fn in_turn_each_message_is_acknowledged() {
    const NAME: &str = "in_turn_each_message_is_acknowledged";
    const COUNT: usize = 5;
    const ROUNDS: usize = 4000;
    const SIZE: usize = 64;
    const RECEIVED: u64 = 1;
    const SENT: u64 = 2;

    struct Side {
        qps: Vec<Qp>,
        memory: Mr,
        received: [usize; COUNT],
        unsent: [usize; COUNT],
    }

    impl Side {
        fn connect(link: &mut peer::Link) -> Side {
            let context = Context::open();
            let pd = Pd::alloc(&context);
            let memory = Mr::reg(&pd, 2 * COUNT * SIZE, ALL);
            let make = |index: usize| {
                let cq = Cq::create(&context, 64, None);
                let qp = Qp::create(&pd, &cq, &cq, Wish { timeout: 0, ..Wish::default() });
                qp.recv(RECEIVED, memory.sge(index * SIZE, SIZE));
                qp
            };
            let qps: Vec<_> = (0..COUNT).map(make).collect();
            for qp in &qps {
                let other = link.exchange(qp.endpoint(1));
                qp.connect(other);
            }
            link.meet();
            Side { qps, memory, received: [0; COUNT], unsent: [0; COUNT] }
        }

        /// Polls for one queue pair until it is so.
        fn until(&mut self, index: usize, so: impl Fn(&Side) -> bool) {
            while !so(self) {
                match self.qps[index].send.success().wr_id {
                    SENT => self.unsent[index] -= 1,
                    other => {
                        assert_eq!(other, RECEIVED);
                        self.received[index] += 1;
                    }
                }
            }
        }

        fn send(&mut self, index: usize, round: usize) {
            // Room for two: sometimes the one before has not been acknowledged yet.
            self.until(index, |side| side.unsent[index] < 1 + round % 2);
            let at = (COUNT + index) * SIZE;
            self.memory.fill(at..at + SIZE, round as u64);
            self.qps[index].send_one(SENT, self.memory.sge(at, SIZE));
            self.unsent[index] += 1;
        }

        fn receive(&mut self, index: usize, round: usize) {
            self.until(index, |side| side.received[index] > 0);
            self.received[index] -= 1;
            let at = index * SIZE;
            self.memory.check(at..at + SIZE, round as u64, (COUNT + index) * SIZE);
            self.qps[index].recv(RECEIVED, self.memory.sge(at, SIZE));
        }

        fn finish(&mut self) {
            (0..COUNT).for_each(|index| self.until(index, |side| side.unsent[index] == 0));
        }
    }

    // In turn, and answered over the same or over another.
    let over =
        |round: usize| (round % COUNT, if round.is_multiple_of(3) { round * 7 / 3 } else { round } % COUNT);
    if let Some(mut link) = peer::second() {
        let mut side = Side::connect(&mut link);
        for round in 0..ROUNDS {
            let (there, back) = over(round);
            side.receive(there, round);
            side.send(back, round);
        }
        side.finish();
        link.meet();
        return;
    }
    let mut second = peer::start(NAME);
    let mut side = Side::connect(&mut second.link);
    for round in 0..ROUNDS {
        let (there, back) = over(round);
        side.send(there, round);
        side.receive(back, round);
    }
    side.finish();
    second.link.meet();
    second.join();
}
