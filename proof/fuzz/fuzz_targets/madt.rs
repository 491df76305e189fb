//! A MADT from an untrusted source. The resulting description must be consistent for any structures
//! in the table.
#![no_main]

use doorbell_fuzz::acpi::{describe, table};
use doorbell_fuzz::description::check;
use gic_firmware::acpi::{Madt, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The local interrupt controller address and the flags. The parser ignores both.
    let table = table(*b"APIC", &[&[0; 8], input].concat());
    let madt = Madt::new(Table::new(&table).expect("the header is valid")).expect("it is a MADT");
    assert!(madt.structures().count() <= input.len(), "a structure has no bytes");
    let description = describe(&[&table]);
    check(&description);
    assert!(description.cpus.len() * 40 <= input.len(), "a CPU has no structure");
});
