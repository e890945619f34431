//! Arithmetic of CRC-32: tables, linear contributions, and rolling a register back.
//!
//! Owns no packet format. A "register" is the shift register's content, reflected, without the final inversion; it
//! is linear in the bytes fed, which everything here uses: the effect of a field is the xor of its bytes' effects,
//! and feeding a zero byte multiplies by x^8 modulo the polynomial, which can be undone.

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// The effect of each byte value on a register that is otherwise zero.
static BYTES: [u32; 256] = byte_table();

const fn byte_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = times_x_pow(byte as u32, 8);
        byte += 1;
    }
    table
}

/// `register` times x, `n` times.
const fn times_x_pow(mut register: u32, n: u32) -> u32 {
    let mut i = 0;
    while i < n {
        register = register >> 1 ^ if register & 1 != 0 { POLYNOMIAL } else { 0 };
        i += 1;
    }
    register
}

/// `register` divided by x, `n` times. The polynomial's constant term, the reflected top bit, makes this possible.
const fn over_x_pow(mut register: u32, n: u32) -> u32 {
    let mut i = 0;
    while i < n {
        let carry = register & 1 << 31 != 0;
        register = if carry { (register ^ POLYNOMIAL) << 1 | 1 } else { register << 1 };
        i += 1;
    }
    register
}

/// The effect on the register of a 16-bit big-endian field that is followed by `after` bytes: two tables, one for
/// the high byte and one for the low byte.
pub(super) const fn contribution(after: usize) -> [[u32; 256]; 2] {
    let bytes = byte_table();
    let mut tables = [[0; 256]; 2];
    let mut byte = 0;
    while byte < 256 {
        let mut register = bytes[byte];
        let mut i = 0;
        while i < after {
            register = register >> 8 ^ bytes[register as usize & 0xff];
            i += 1;
        }
        tables[1][byte] = register;
        tables[0][byte] = register >> 8 ^ bytes[register as usize & 0xff];
        byte += 1;
    }
    tables
}

/// The contribution of `value`, from the tables of its field.
#[inline]
pub(super) fn lookup(tables: &[[u32; 256]; 2], value: u16) -> u32 {
    let [high, low] = value.to_be_bytes();
    tables[0][usize::from(high)] ^ tables[1][usize::from(low)]
}

/// The register after `bytes`, starting from ones.
pub(super) fn register(bytes: &[u8]) -> u32 {
    !crc32fast::hash(bytes)
}

/// The finished CRC after feeding `head` and `tail` to `register`.
#[inline]
pub(super) fn finish(register: u32, head: &[u8; 12], tail: &[u8]) -> u32 {
    let mut register = register;
    // Twelve bytes are too few for the wide methods of crc32fast, and its call costs more than this loop.
    for byte in head {
        register = register >> 8 ^ BYTES[(register as u8 ^ byte) as usize];
    }
    if tail.is_empty() {
        return !register;
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(!register);
    hasher.update(tail);
    hasher.finalize()
}

/// x^-8, x^-16, …: what undoes 0 to 255 bytes.
static BACK_BYTES: [u32; 256] = back_table(8);
/// What undoes 0 to 255 times 256 bytes.
static BACK_PAGES: [u32; 256] = back_table(8 * 256);

const fn back_table(bits: u32) -> [u32; 256] {
    // One is the top bit in reflected order.
    let step = over_x_pow(1 << 31, bits);
    let mut table = [1 << 31; 256];
    let mut i = 1;
    while i < 256 {
        table[i] = multiply(table[i - 1], step);
        i += 1;
    }
    table
}

/// Undoes `bytes` zero bytes (fewer than 65536) fed to `register`.
pub(super) fn roll_back(register: u32, bytes: usize) -> u32 {
    debug_assert!(bytes < 65536, "no packet is this long");
    multiply(multiply(register, BACK_BYTES[bytes & 0xff]), BACK_PAGES[bytes >> 8 & 0xff])
}

/// The product of two residues modulo the polynomial.
const fn multiply(a: u32, b: u32) -> u32 {
    let mut product = 0;
    let mut power = b;
    let mut i = 0;
    while i < 32 {
        // Branch-free: bit 31 − i of `a` is the coefficient of x^i.
        product ^= power & (a >> (31 - i) & 1).wrapping_neg();
        power = power >> 1 ^ POLYNOMIAL & (power & 1).wrapping_neg();
        i += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dividing_undoes_multiplying() {
        for register in [1, 0x8000_0000, 0xdead_beef, u32::MAX] {
            assert_eq!(over_x_pow(times_x_pow(register, 77), 77), register);
            assert_eq!(multiply(register, 1 << 31), register);
        }
    }

    #[test]
    fn rolling_back_undoes_zero_bytes() {
        for bytes in [0, 1, 2, 255, 256, 257, 4200, 65535] {
            let register = 0x1234_5678;
            let fed = (0..bytes).fold(register, |r: u32, _| r >> 8 ^ BYTES[r as usize & 0xff]);
            assert_eq!(roll_back(fed, bytes), register, "{bytes} bytes");
        }
    }

    #[test]
    fn finishing_is_the_usual_crc() {
        let bytes: [u8; 100] = core::array::from_fn(|i| (i * 7) as u8);
        let start = register(&bytes[..20]);
        let head = bytes[20..32].try_into().expect("twelve bytes");
        assert_eq!(finish(start, head, &bytes[32..]), crc32fast::hash(&bytes));
        assert_eq!(finish(start, head, &[]), crc32fast::hash(&bytes[..32]));
        // The check value every description of this CRC gives.
        assert_eq!(!register(b"123456789"), 0xcbf4_3926);
    }
}
