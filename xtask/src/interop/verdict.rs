//! Verdicts from exit codes and output of the programs.
//!
//! The programs' own words are the evidence: bytes and exchanges of `ibv_rc_pingpong`, the result rows of perftest. An
//! exit code of 0 alone would pass a program that moved nothing.

use super::cases::Check;
use super::process::Ended;

/// Why a case fails.
type Verdict = Result<(), String>;

/// A case of one process.
pub(super) fn single(check: &Check, ended: &Ended) -> Verdict {
    match check {
        Check::Prints(texts) => {
            exited_well("the program", ended)?;
            texts.iter().try_for_each(|text| has(ended, text))
        }
        Check::Refuses(texts) => match ended.code {
            None => Err("the program was killed by a signal".to_owned()),
            Some(0) => Err("the program ended with code 0".to_owned()),
            Some(_) if texts.iter().any(|text| ended.output.contains(text)) => Ok(()),
            Some(_) => Err(format!("none of {texts:?} is in the output")),
        },
        _ => Err("not a case of one process".to_owned()),
    }
}

/// A case of two processes that both end by themselves.
pub(super) fn pair(check: &Check, client: &Ended, server: &Ended) -> Verdict {
    exited_well("the client", client)?;
    exited_well("the server", server)?;
    match check {
        Check::Pingpong { size, iters } => {
            [client, server].into_iter().try_for_each(|ended| pingpong(ended, *size, *iters))
        }
        Check::Table { sizes, iters } => table(&client.output, sizes, *iters),
        Check::Payload { size, iters } => table(&client.output, &[*size], *iters),
        Check::Rping { count } => pings(client, *count),
        Check::BothSay(text) => [client, server].into_iter().try_for_each(|ended| has(ended, text)),
        _ => Err("not a case of two processes".to_owned()),
    }
}

/// A client whose server was killed: it must end with an error that it was told of.
pub(super) fn peer_lost(client: &Ended) -> Verdict {
    match client.code {
        None => Err("the client was killed by a signal".to_owned()),
        Some(0) => Err("the client ended with code 0".to_owned()),
        // perftest's words for a completion with an error; 12 is IBV_WC_RETRY_EXC_ERR.
        Some(_) if client.output.contains("Failed status 12") => Ok(()),
        Some(_) => Err("the client was not told of exceeded retries (status 12)".to_owned()),
    }
}

/// The words of the exchanges when a SEND (`wr_id` 2) was repeated as often as agreed without an answer.
const UNANSWERED: &str = "Failed status transport retry counter exceeded (12) for wr_id 2";

/// What a client is told when nobody serves the datagram service that it asks for: the kernel's answer, status 1.
const GONE: &str = "RDMA_CM_EVENT_UNREACHABLE, error: 1";

/// Whether rxe's acknowledgement of the last message was lost. The exchanges do not part: who has received the last message
/// and had its own acknowledged leaves at once, and takes its queue pair along. If its last acknowledgement was lost on the
/// way, nobody answers what the other end repeats. So it is with rxe at both ends; there the end that stays repeats for ever.
///
/// `rxe` must have finished with everything received and acknowledged, and `ibex` must have been told of an unanswered SEND.
/// The other way round is no excuse: the software device says its last acknowledgement twice.
///
/// `udaddy` without messages is the same: its server leaves when it has answered the last of its clients' questions, and whoever
/// lost an answer asks a service that is gone.
pub(super) fn left_unheard(check: &Check, rxe: &Ended, ibex: &Ended) -> bool {
    let (done, words) = match check {
        Check::Pingpong { size, iters } => (pingpong(rxe, *size, *iters), UNANSWERED),
        Check::BothSay(text) => (has(rxe, text), GONE),
        _ => return false,
    };
    let rxe_has_all = exited_well("rxe's end", rxe).and(done).is_ok();
    let told = ibex.code.is_some_and(|code| code != 0) && ibex.output.contains(words);
    rxe_has_all && told && !ibex.output.contains("invalid data")
}

/// Whether rxe's word that it parts was lost. `rping` asks for the end of the connection and leaves at once; the kernel says
/// so in one packet and forgets the connection with the process, so nothing repeats it, and nobody answers for a connection
/// that is gone. A server that has sent everything and waits to be told waits for ever; so it is with rxe at both ends.
///
/// `rxe`, the client, must have compared every exchange, which it can only if the server has done all of its work.
pub(super) fn left_untold(check: &Check, rxe: &Ended) -> bool {
    let Check::Rping { count } = check else { return false };
    exited_well("rxe's end", rxe).and_then(|()| pings(rxe, *count)).is_ok()
}

fn exited_well(who: &str, ended: &Ended) -> Verdict {
    match ended.code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("{who} ended with code {code}")),
        None => Err(format!("{who} was killed by a signal")),
    }
}

fn has(ended: &Ended, text: &str) -> Verdict {
    if ended.output.contains(text) { Ok(()) } else { Err(format!("{text:?} is not in the output")) }
}

/// `cmtime`'s client: a row for every step of a connection, from first to last.
pub(super) fn steps(client: &Ended) -> Verdict {
    exited_well("the client", client)?;
    ["create id", "resolve addr", "resolve route", "create qp", "connect", "disconnect", "destroy"]
        .iter()
        .try_for_each(|step| {
            let has_row = client
                .output
                .lines()
                .any(|line| line.strip_prefix(step).is_some_and(|rest| rest.trim_start().starts_with(':')));
            if has_row { Ok(()) } else { Err(format!("there is no row for the step {step:?}")) }
        })
}

/// One line per exchange, each numbered, printed after the comparison.
fn pings(client: &Ended, count: usize) -> Verdict {
    let seen = client.output.lines().filter(|line| line.starts_with("ping data: rdma-ping-")).count();
    if seen == count { Ok(()) } else { Err(format!("{seen} exchanges, wanted {count}")) }
}

/// `8192000 bytes in …` counts both directions; `-c` writes "invalid data" and goes on.
fn pingpong(ended: &Ended, size: u64, iters: u64) -> Verdict {
    if ended.output.contains("invalid data") {
        return Err("the payload differs from what was sent".to_owned());
    }
    has(ended, &format!("{} bytes in ", size * iters * 2))?;
    has(ended, &format!("{iters} iters in "))
}

/// Buffers of a perftest run with one queue pair and messages of `size` bytes: at the client, the message sent or read
/// is the first half; at the server, the message received or served is the second half.
pub(super) fn payload(client: &[u8], server: &[u8], size: usize) -> Verdict {
    let sent = client.get(..size).ok_or("the client's buffer is too short")?;
    let arrived = server.get(size..2 * size).ok_or("the server's buffer is too short")?;
    let first = sent.first().copied().unwrap_or_default();
    if sent.iter().all(|&byte| byte == first) {
        return Err("the payload is one byte repeated, which proves nothing".to_owned());
    }
    match sent.iter().zip(arrived).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(format!("the payload differs from byte {at} on")),
    }
}

/// Every size once, with enough iterations. The measured figures are no evidence: perftest's
/// calibration of the cycle counter fails now and then on an emulated processor and makes all of them infinite.
fn table(output: &str, sizes: &[u64], iters: u64) -> Verdict {
    let rows = rows(output);
    let seen: Vec<u64> = rows.iter().map(|row| row.bytes).collect();
    if seen != sizes {
        return Err(format!("results are for the sizes {seen:?}, wanted {sizes:?}"));
    }
    for row in rows {
        if row.iterations < iters {
            return Err(format!("{} B: {} iterations, wanted {iters}", row.bytes, row.iterations));
        }
    }
    Ok(())
}

/// A result row of perftest.
#[derive(Debug, PartialEq)]
struct Row {
    bytes: u64,
    iterations: u64,
}

/// Rows that begin with two whole numbers and go on with a third number, after the line `#bytes …`.
fn rows(output: &str) -> Vec<Row> {
    let table = output.lines().skip_while(|line| !line.trim_start().starts_with("#bytes"));
    table
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            // A third column tells a row from a pair of numbers in a message.
            columns.get(2)?.parse::<f64>().ok()?;
            Some(Row { bytes: columns.first()?.parse().ok()?, iterations: columns.get(1)?.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>, output: &str) -> Ended {
        Ended { code, output: output.to_owned() }
    }

    #[test]
    fn pingpong_counts_both_directions() {
        let good =
            ended(Some(0), "8192000 bytes in 0.01 seconds = 9000 Mbit/sec\n1000 iters in 0.01 seconds = 7\n");
        let check = Check::Pingpong { size: 4096, iters: 1000 };
        assert_eq!(pair(&check, &good, &good), Ok(()));
        let wrong = ended(Some(0), &format!("invalid data in page 0\n{}", good.output));
        assert!(pair(&check, &good, &wrong).is_err());
        assert!(pair(&check, &good, &ended(Some(1), &good.output)).is_err());
        assert!(pair(&check, &ended(Some(0), ""), &good).is_err());
    }

    #[test]
    fn only_rxe_may_leave_unheard() {
        let left = ended(Some(0), "512 bytes in 0.01 seconds = 9\n4 iters in 0.01 seconds = 7\n");
        let told = ended(Some(1), "Failed status transport retry counter exceeded (12) for wr_id 2\n");
        let check = Check::Pingpong { size: 64, iters: 4 };
        assert!(left_unheard(&check, &left, &told));
        assert!(!left_unheard(&check, &told, &left));
        assert!(!left_unheard(&Check::BothSay(""), &left, &told), "other programs part");
        let less = Check::Pingpong { size: 64, iters: 5 };
        assert!(!left_unheard(&less, &left, &told), "rxe has not got everything");
        let invalid = ended(Some(0), &format!("invalid data in page 0\n{}", left.output));
        assert!(!left_unheard(&check, &invalid, &told));
        let receive = ended(Some(1), &told.output.replace("wr_id 2", "wr_id 1"));
        assert!(!left_unheard(&check, &left, &receive));
        assert!(!left_unheard(&check, &left, &ended(None, &told.output)));
        let asks = Check::BothSay("return status 0");
        let gone = ended(Some(1), "udaddy: event: RDMA_CM_EVENT_UNREACHABLE, error: 1\n");
        assert!(left_unheard(&asks, &ended(Some(0), "return status 0\n"), &gone));
        assert!(!left_unheard(&asks, &ended(Some(1), "return status 0\n"), &gone), "rxe has failed");
        assert!(!left_unheard(&asks, &ended(Some(0), ""), &gone), "rxe has not answered all");
        assert!(!left_unheard(&asks, &gone, &ended(Some(0), "return status 0\n")), "ours may not");
    }

    #[test]
    fn only_who_has_compared_everything_may_leave_untold() {
        let check = Check::Rping { count: 2 };
        let done = "ping data: rdma-ping-0: ABC\nping data: rdma-ping-1: BCD\n";
        assert!(left_untold(&check, &ended(Some(0), done)));
        assert!(!left_untold(&check, &ended(Some(1), done)));
        assert!(!left_untold(&check, &ended(Some(0), "ping data: rdma-ping-0: ABC\n")));
        assert!(!left_untold(&Check::BothSay(""), &ended(Some(0), done)), "the others wait for the answer");
    }

    #[test]
    fn pings_are_counted() {
        let client = ended(Some(0), "ping data: rdma-ping-0: AB\nping data: rdma-ping-1: BC\n");
        let check = |count| pair(&Check::Rping { count }, &client, &ended(Some(0), ""));
        assert_eq!(check(2), Ok(()));
        assert!(check(3).is_err());
    }

    #[test]
    fn every_step_of_a_connection_needs_its_row() {
        let all = "create id    : 1\nresolve addr : 1\nresolve route: 1\ncreate qp    : 1\nconnect      : 1\n\
            disconnect   : 1\ndestroy      : 1\n";
        assert_eq!(steps(&ended(Some(0), all)), Ok(()));
        assert!(steps(&ended(Some(0), &all.replace("\nconnect", "\nconnecting"))).is_err());
        assert!(steps(&ended(Some(1), all)).is_err());
    }

    #[test]
    fn perftest_rows_are_read_and_held_against_what_was_asked() {
        let output = " TX depth : 128\n 1000 1 2 3\n #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   \
            MsgRate[Mpps]\n 65536      2000             1234.5            1200.1               0.019\n---\n";
        assert_eq!(rows(output), [Row { bytes: 65_536, iterations: 2000 }]);
        assert_eq!(table(output, &[65_536], 2000), Ok(()));
        assert!(table(output, &[65_536], 2001).is_err());
        assert!(table(output, &[2, 65_536], 2000).is_err());
        assert!(table("", &[2], 1).is_err());
    }

    #[test]
    fn a_payload_is_compared_across_the_halves() {
        assert_eq!(payload(&[1, 2, 9, 9], &[0, 0, 1, 2], 2), Ok(()));
        assert!(payload(&[1, 2, 9, 9], &[1, 2, 9, 9], 2).is_err());
        assert!(payload(&[0, 0, 0, 0], &[0, 0, 0, 0], 2).is_err());
        assert!(payload(&[1, 2, 9, 9], &[0, 0, 1], 2).is_err());
    }

    #[test]
    fn a_refusal_needs_an_exit_code_and_its_words() {
        let check = Check::Refuses(&["no such", "not there"]);
        assert_eq!(single(&check, &ended(Some(1), "it is not there")), Ok(()));
        assert!(single(&check, &ended(Some(0), "it is not there")).is_err());
        assert!(single(&check, &ended(None, "it is not there")).is_err());
        assert!(single(&check, &ended(Some(1), "other")).is_err());
    }

    #[test]
    fn a_lost_peer_is_an_error_and_no_signal() {
        assert_eq!(peer_lost(&ended(Some(1), " Failed status 12: wr_id 0")), Ok(()));
        assert!(peer_lost(&ended(Some(1), "Couldn't read")).is_err());
        assert!(peer_lost(&ended(None, "Failed status 12")).is_err());
    }
}
