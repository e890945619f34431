//! Rust's type names in the notation of the golden files.
//!
//! Pointers lose `mut` and `const`, paths all but their last segment, optional functions their `Option`; sizes of the
//! machine's word are `u64` and `i64`.

/// Renders what `core::any::type_name` gave.
pub(super) fn render(type_name: &str) -> String {
    let (text, rest) = one(type_name);
    assert!(rest.is_empty(), "`{rest}` is left of `{type_name}`");
    text
}

/// Renders the type at the start of `text`; the rest is what follows it.
fn one(text: &str) -> (String, &str) {
    if let Some(rest) = text.strip_prefix("core::option::Option<") {
        let (inner, rest) = one(rest);
        return (inner, rest.strip_prefix('>').expect("a closing angle bracket"));
    }
    if let Some(rest) = text.strip_prefix("*mut ").or_else(|| text.strip_prefix("*const ")) {
        let (target, rest) = one(rest);
        return (format!("*{target}"), rest);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (element, rest) = one(rest);
        let (length, rest) = rest.strip_prefix("; ").and_then(|rest| rest.split_once(']')).expect("an array");
        return (format!("[{element}; {length}]"), rest);
    }
    if let Some(mut rest) = text.strip_prefix("unsafe extern \"C\" fn(") {
        let mut arguments = Vec::new();
        while !rest.starts_with(')') {
            let (argument, after) = one(rest);
            arguments.push(argument);
            rest = after.strip_prefix(", ").unwrap_or(after);
        }
        rest = &rest[1..];
        let mut result = String::new();
        if let Some(after) = rest.strip_prefix(" -> ") {
            let (inner, after) = one(after);
            result = format!(" -> {inner}");
            rest = after;
        }
        return (format!("fn({}){result}", arguments.join(", ")), rest);
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let name = path.rsplit("::").next().unwrap_or(path);
    let name = match name {
        "usize" => "u64",
        "isize" => "i64",
        "c_void" => "void",
        name => name,
    };
    (name.to_owned(), rest)
}

#[test]
fn types_in_one_notation() {
    use core::any::type_name;
    use core::ffi::{c_char, c_int, c_void};

    use crate::{ibv_mtu, ibv_qp};

    type Slot = Option<unsafe extern "C" fn(*mut ibv_qp, ibv_mtu, *const c_void) -> *mut *mut ibv_qp>;
    assert_eq!(render(type_name::<Slot>()), "fn(*ibv_qp, ibv_mtu, *void) -> **ibv_qp");
    assert_eq!(render(type_name::<Option<unsafe extern "C" fn()>>()), "fn()");
    assert_eq!(render(type_name::<[c_char; 64]>()), "[i8; 64]");
    assert_eq!(render(type_name::<c_int>()), "i32");
    assert_eq!(render(type_name::<usize>()), "u64");
}
