//! Opening a journal that somebody changed: refused or repaired, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| portolan_fuzz::journal::open_changed(input));
