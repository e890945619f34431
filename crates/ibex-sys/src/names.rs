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
