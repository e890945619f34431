//! Memory that peers can reach is never behind a reference (I2).
use ibex::SharedRegion;

fn main() {}

fn borrow(region: &mut SharedRegion) {
    let _: &mut [u8] = &mut *region;
    let _: &[u8] = region.as_ref();
    region[0] = 1;
}
