//! An IORT from an untrusted source, with arbitrary nodes that route to the MADT's controllers.
//!
//! The input is the part of the table after the header. The MADT has ITSes 0 to 3, and the MCFG has
//! two segments.
#![no_main]

use doorbell_fuzz::acpi::{describe, madt, table};
use doorbell_fuzz::description::check;
use gic_firmware::acpi::{Iort, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let iort = table(*b"IORT", input);
    let nodes = Iort::new(Table::new(&iort).expect("the header is valid")).expect("it is an IORT");
    assert!(nodes.nodes().count() <= input.len(), "a node has no bytes");
    let mut windows = vec![0; 8];
    for segment in 0..2u8 {
        windows.extend((0x4000_0000 + u64::from(segment) * 0x1000_0000).to_le_bytes());
        windows.extend([segment, 0, 0, 0xff, 0, 0, 0, 0]);
    }
    check(&describe(&[&madt(0..4), &iort, &table(*b"MCFG", &windows)]));
});
