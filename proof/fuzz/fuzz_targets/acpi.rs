//! ACPI tables from an untrusted source: a MADT with arbitrary structures, or an IORT with
//! arbitrary nodes that route to ITSes 0 to 3 of a MADT, on two segments. The resulting description
//! must be consistent.
#![no_main]

use doorbell_fuzz::acpi::{describe, madt, table};
use doorbell_fuzz::description::check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0..128, structures)) => with_structures(structures),
        Some((_, nodes)) => with_nodes(nodes),
        None => {}
    }
});

fn with_structures(input: &[u8]) {
    // The local interrupt controller address and the flags. The parser ignores both.
    let table = table(*b"APIC", &[&[0; 8], input].concat());
    let description = describe(&[&table]);
    check(&description);
    assert!(description.cpus.len() * 40 <= input.len(), "a CPU has no structure");
}

fn with_nodes(input: &[u8]) {
    let iort = table(*b"IORT", input);
    let mut windows = vec![0; 8];
    for segment in 0..2u8 {
        windows.extend((0x4000_0000 + u64::from(segment) * 0x1000_0000).to_le_bytes());
        windows.extend([segment, 0, 0, 0xff, 0, 0, 0, 0]);
    }
    check(&describe(&[&madt(0..4), &iort, &table(*b"MCFG", &windows)]));
}
