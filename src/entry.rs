//! What slapd looks up in the module.

use crate::boundary::xs_register;
use crate::guard::{guard, log_panics};
use crate::log;
use std::ffi::{c_char, c_int};

/// slapd calls it after `moduleload libxmppsync`. 0: registered; else slapd refuses to start.
///
/// It is here and not in the shim because symbols of C objects in a cdylib are not exported
/// (rust-lang/rust#78827).
#[unsafe(no_mangle)]
extern "C" fn init_module(_argc: c_int, _argv: *mut *mut c_char) -> c_int {
    guard("init_module", -1, || {
        log_panics();
        log::install();
        // SAFETY: slapd is single-threaded here and has set up its configuration engine.
        unsafe { xs_register() }
    })
}

/// slapd calls it before it unloads the module. Every database is closed by then, and with the last one the
/// thread was joined.
#[unsafe(no_mangle)]
extern "C" fn term_module() -> c_int {
    0
}
