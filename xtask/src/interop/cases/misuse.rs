//! Programs used wrongly, and peers that vanish.

use super::perf::BANDWIDTH;
use super::{Case, Check, case};

/// What must be refused with words, then [`vanishing`].
pub(super) fn all() -> Vec<Case> {
    let mut list = vec![
        case("ibv_devinfo", "-d nowhere", Check::Refuses(&["IB device 'nowhere' wasn't found"])).quick(),
        case("ibv_devinfo", "-i 2", Check::Refuses(&["Invalid port requested"])),
        case("ibv_rc_pingpong", "-i 2", Check::Refuses(&["Failed to modify QP to INIT"])).quick(),
        case("ibv_rc_pingpong", "-g 200", Check::Refuses(&["can't read sgid of index 200"])),
        case(
            "ibv_rc_pingpong",
            "-r 100000000",
            Check::Refuses(&["Couldn't create CQ", "Couldn't create QP"]),
        ),
        case("ib_write_bw", "-i 3", Check::Refuses(&["Unable to query port 3"])),
    ];
    list.extend(vanishing());
    list
}

/// Peers that vanish while data moves.
pub(super) fn vanishing() -> Vec<Case> {
    let options = "--use_old_post_send -s 65536 -D 60";
    let mut list: Vec<Case> =
        BANDWIDTH.iter().map(|program| case(program, options, Check::ServerKilled).quick()).collect();
    list.push(case("ib_write_bw", options, Check::ClientInterrupted));
    list
}
