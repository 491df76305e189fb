//! A MADT from an untrusted source: any structures make a description, which must hold together.
#![no_main]

use doorbell_fuzz::acpi::{describe, table};
use doorbell_fuzz::description::check;
use gic_firmware::acpi::{Madt, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The local interrupt controller address and the flags, which nobody reads.
    let table = table(*b"APIC", &[&[0; 8], input].concat());
    let madt = Madt::new(Table::new(&table).expect("the header is sound")).expect("it is a MADT");
    assert!(madt.structures().count() <= input.len(), "a structure without bytes");
    let description = describe(&[&table]);
    check(&description);
    assert!(description.cpus.len() * 40 <= input.len(), "a CPU without a structure");
});
