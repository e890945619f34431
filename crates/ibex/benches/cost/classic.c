/* The yardstick: post and poll in C, through the inline functions of verbs.h, over the verbs of noop.c.
 * Arguments: `reused` or `built`, and the number of iterations. */
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int noop_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int noop_poll_cq(struct ibv_cq *cq, int room, struct ibv_wc *wc);

static struct ibv_context context;
static struct ibv_qp qp = {.context = &context};
static struct ibv_cq cq = {.context = &context};
static char memory[4096];

/* One completion, checked as a careful program does. */
static inline void reap(struct ibv_cq *cq, uint64_t expected)
{
	struct ibv_wc wc;
	int polled;

	do
		polled = ibv_poll_cq(cq, 1, &wc);
	while (polled == 0);
	if (polled < 0 || wc.status != IBV_WC_SUCCESS || wc.wr_id != expected)
		abort();
}

static __attribute__((noinline)) void reused(struct ibv_qp *qp, struct ibv_cq *cq, uint64_t count)
{
	struct ibv_sge sge = {.addr = (uintptr_t)memory, .length = 64, .lkey = 1};
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
	struct ibv_send_wr *bad;

	for (uint64_t i = 0; i < count; i++) {
		wr.wr_id = i;
		if (ibv_post_send(qp, &wr, &bad))
			abort();
		reap(cq, i);
	}
}

static __attribute__((noinline)) void built(struct ibv_qp *qp, struct ibv_cq *cq, uint64_t count)
{
	struct ibv_send_wr *bad;

	for (uint64_t i = 0; i < count; i++) {
		struct ibv_sge sge = {.addr = (uintptr_t)memory, .length = 64, .lkey = 1};
		struct ibv_send_wr wr = {.wr_id = i,
					 .sg_list = &sge,
					 .num_sge = 1,
					 .opcode = IBV_WR_SEND,
					 .send_flags = IBV_SEND_SIGNALED};
		if (ibv_post_send(qp, &wr, &bad))
			abort();
		reap(cq, i);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	uint64_t count = strtoull(argv[2], NULL, 10);
	context.ops.post_send = noop_post_send;
	context.ops.poll_cq = noop_poll_cq;
	if (!strcmp(argv[1], "reused"))
		reused(&qp, &cq, count);
	else if (!strcmp(argv[1], "built"))
		built(&qp, &cq, count);
	else
		return 2;
	return 0;
}
