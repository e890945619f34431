//! Printing of flag sets by the names of their bits. Owns nothing else.

use core::fmt::{Formatter, Result};

/// Writes the names of the bits set in `value`, joined by ` | `, each without `prefix`; bits without a name in
/// hexadecimal; `0` for the empty set. A named value of several bits is used only when all of them are left to print.
pub(crate) fn flags(
    f: &mut Formatter<'_>,
    value: u64,
    names: impl Iterator<Item = (u64, &'static str)>,
    prefix: &str,
) -> Result {
    let mut rest = value;
    let mut separator = "";
    for (bits, name) in names {
        if bits != 0 && rest & bits == bits {
            write!(f, "{separator}{}", name.strip_prefix(prefix).unwrap_or(name))?;
            rest &= !bits;
            separator = " | ";
        }
    }
    if rest != 0 || separator.is_empty() {
        match rest {
            0 => f.write_str("0")?,
            rest => write!(f, "{separator}{rest:#x}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::*;

    #[test]
    fn enumerators_are_printed_by_name() {
        assert_eq!(format!("{:?}", IBV_WC_RETRY_EXC_ERR), "IBV_WC_RETRY_EXC_ERR");
        assert_eq!(IBV_WC_RETRY_EXC_ERR.to_string(), "RETRY_EXC_ERR");
        assert_eq!(IBV_QPS_RTS.to_string(), "RTS");
        assert_eq!(format!("{:?}", IBV_NODE_UNKNOWN), "IBV_NODE_UNKNOWN");
    }

    #[test]
    fn a_value_of_a_newer_library_is_printed_as_a_number() {
        assert_eq!(format!("{:?}", ibv_wc_status(99)), "ibv_wc_status(99)");
        assert_eq!(ibv_wc_status(99).to_string(), "99");
        assert_eq!(ibv_wc_status(99).name(), None);
    }

    #[test]
    fn flags_are_printed_one_by_one() {
        let access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
        assert_eq!(access.to_string(), "LOCAL_WRITE | REMOTE_READ");
        assert_eq!(format!("{access:?}"), "IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ");
        assert_eq!(ibv_access_flags(0).to_string(), "0");
        assert_eq!(
            (IBV_ACCESS_LOCAL_WRITE | ibv_access_flags(1 << 30)).to_string(),
            "LOCAL_WRITE | 0x40000000"
        );
    }

    #[test]
    fn flags_are_sets() {
        let mut mask = IBV_QP_STATE | IBV_QP_PORT;
        assert!(mask.contains(IBV_QP_PORT) && !mask.contains(IBV_QP_PORT | IBV_QP_AV));
        mask |= IBV_QP_AV;
        mask &= !IBV_QP_STATE;
        assert_eq!(mask, IBV_QP_AV.union(IBV_QP_PORT));
        assert!((mask & IBV_QP_STATE).is_empty());
    }

    #[test]
    fn a_gid_is_printed_as_an_address() {
        let mut raw = [0; 16];
        raw[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        let gid = ibv_gid::from_raw(raw);
        assert_eq!(gid.to_string(), "::ffff:127.0.0.1");
        assert_eq!(format!("{:?}", ibv_gid_entry { gid, ..Default::default() }.gid), "::ffff:127.0.0.1");
        assert_ne!(gid, ibv_gid::default());
    }

    #[test]
    fn plain_data_starts_as_zeros() {
        let attr = ibv_qp_attr::default();
        assert_eq!((attr.qp_state, attr.alt_timeout, attr.ah_attr.port_num), (IBV_QPS_RESET, 0, 0));
        let wr = ibv_send_wr::default();
        assert!(wr.next.is_null() && wr.sg_list.is_null());
    }
}
