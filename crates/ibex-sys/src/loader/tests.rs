//! Loading without any RDMA library installed: every failure must say what to do about it.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use std::error::Error;

use super::{Kind, LoadError, open};
use crate::{Cm, IBV_WC_SUCCESS, Verbs};

const ABSENT: Kind =
    Kind { soname: "libibex-absent.so.1", variable: "IBEX_ABSENT", install: "`apt install absent`" };

#[test]
fn a_missing_library_says_what_was_tried_and_what_to_install() {
    let error = open::system(&ABSENT).map(drop).unwrap_err();
    let text = error.to_string();
    for part in ["libibex-absent.so.1", "LD_LIBRARY_PATH", "apt install absent", "IBEX_ABSENT"] {
        assert!(text.contains(part), "no {part} in: {text}");
    }
    let source = error.source().expect("the dynamic linker's own words");
    assert!(format!("{source:?} {source}").contains("libibex-absent.so.1"), "{source:?}");
}

#[test]
fn a_given_file_that_is_absent_is_named() {
    // SAFETY: there is no such file, so that nothing runs.
    let error = unsafe { Verbs::load_from("/nonexistent/libibverbs.so.1") }.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/nonexistent/libibverbs.so.1"), "{text}");
    assert!(text.contains("the file that was asked for"), "{text}");
}

#[test]
fn a_library_of_another_kind_is_refused_by_its_first_missing_function() {
    // SAFETY: the C library is loaded already; opening it again runs nothing.
    let error = unsafe { Cm::load_from("libc.so.6") }.unwrap_err();
    assert!(matches!(error, LoadError::Symbol { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("libc.so.6") && text.contains("rdma_create_event_channel"), "{text}");
}

unsafe extern "C" fn nothing() {}

/// An address for every symbol for which `known` is true; the functions are never called.
fn table(known: impl Fn(&CStr) -> bool) -> Result<Verbs, LoadError> {
    // SAFETY: none of the functions is called.
    unsafe { Verbs::from_static(|symbol| if known(symbol) { nothing as *mut c_void } else { null_mut() }) }
}

#[test]
fn a_missing_later_function_is_an_absent_capability() {
    let old = table(|symbol| symbol != c"ibv_reg_dmabuf_mr").unwrap();
    assert!(old.reg_dmabuf_mr.is_none());
    assert!(old.reg_mr_iova2.is_some());
    assert!(old.wait_comp_event.is_none(), "an extension of ibex never comes from a library");
}

#[test]
fn a_missing_first_function_is_an_error_that_names_it() {
    let text = table(|symbol| symbol != c"ibv_create_qp").unwrap_err().to_string();
    assert!(text.contains("ibv_create_qp") && text.contains("rdma-core"), "{text}");
}

#[test]
fn the_system_library_loads_or_says_how_to_get_it() {
    match Verbs::load() {
        Ok(table) => {
            assert!(std::ptr::eq(table, Verbs::load().unwrap()), "one table per process");
            // SAFETY: takes any value, returns a static string.
            let text = unsafe { (table.wc_status_str)(IBV_WC_SUCCESS) };
            // SAFETY: see above.
            assert_eq!(unsafe { CStr::from_ptr(text) }, c"success");
        }
        Err(error) => assert!(error.to_string().contains("apt install libibverbs1"), "{error}"),
    }
    match Cm::load() {
        Ok(table) => assert!(std::ptr::eq(table, Cm::load().unwrap()), "one table per process"),
        Err(error) => assert!(error.to_string().contains("apt install librdmacm1"), "{error}"),
    }
}
