//! A devicetree from an untrusted source. The parser must not panic for any bytes, and a
//! description that it returns must be consistent.
//!
//! Inputs that start with a devicetree's magic number are parsed unchanged. All others are
//! interpreted as a program that assembles a well-formed devicetree from nodes and properties that
//! the parser recognizes. Such an input passes the format checks and reaches the semantic checks.
//! Finally, a few bytes of the result may be overwritten.
#![no_main]

use doorbell_fuzz::description::check;
use doorbell_fuzz::devicetree::{MAGIC, assemble};
use gic_firmware::{Description, devicetree};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if input.starts_with(&MAGIC) {
        return answer(devicetree::parse(input));
    }
    let Some((&first, rest)) = input.split_first() else { return };
    let (overwrites, program) = rest.split_at(rest.len().min(3 * usize::from(first % 8)));
    let mut blob = assemble(program);
    for overwrite in overwrites.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([overwrite[0], overwrite[1]])) % blob.len();
        blob[at] = overwrite[2];
    }
    let parsed = devicetree::parse(&blob);
    if overwrites.is_empty() {
        assert!(parsed.is_ok(), "a well-formed devicetree was rejected: {parsed:?}");
    }
    answer(parsed);
});

/// Checks that the description that the parser returned is consistent.
fn answer(parsed: Result<Description, devicetree::DtbError>) {
    match parsed {
        Ok(description) => check(&description),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
