//! Any bytes as connection management messages, and as a script of commands, forgeries and accidents on two live
//! connection managers.

#![no_main]

use ibex_wire::mad::{CmaHeader, Likeness, Mad, Route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(bytes) = bytes.try_into()
        && let Some(likeness) = Likeness::parse(bytes)
    {
        assert_eq!(Likeness::parse(&likeness.to_bytes()), Some(likeness));
    }
    if let Ok(mad) = Mad::parse(bytes) {
        assert!(Route::of(bytes).is_ok());
        assert_eq!(Mad::parse(&mad.to_bytes()), Ok(mad), "what was understood is written the same way again");
    }
    if let Some(head) = bytes.first_chunk() {
        if let Ok(header) = CmaHeader::parse(head) {
            let mut out = [0; CmaHeader::LEN];
            header.emit(&mut out);
            assert_eq!(CmaHeader::parse(&out), Ok(header));
        }
    }
    ibex_proto::cm::sim::play(bytes);
});
