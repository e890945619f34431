//! Memory in flight must outlive every way out of a function, forgetting included: borrowed memory cannot be registered.
use ibex::ProtectionDomain;

fn main() {}

fn register(pd: &ProtectionDomain) {
    let local = [0_u8; 64];
    let _ = pd.register(&local[..]);
}
