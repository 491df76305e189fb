//! Tests for sets of tables from blobs and from memory.

use super::bytes::{describe, gicd, iort, madt, mcfg, rules, table, usual_madt};
use gic_firmware::Rule;
use gic_firmware::acpi::{Signature, Table, TableErrorKind, TableSet, parse};

#[test]
fn wrong_checksum_is_a_warning() {
    let mut madt = madt(&[gicd(0x1000_0000, 3)]);
    madt[9] ^= 1;
    let machine = describe(&[madt]);
    assert_eq!(rules(&machine), [Rule::TableChecksum]);
    assert!(machine.gic.is_some());
}

#[test]
fn truncated_tables_and_impossible_lengths_are_errors() {
    let whole = usual_madt();
    for length in 0..whole.len() {
        let error = Table::new(&whole[..length]).unwrap_err();
        let expected = if length < 36 { 0 } else { 4 };
        assert_eq!(error.offset, expected, "{error}");
    }
    let mut short = whole.clone();
    short[4..8].copy_from_slice(&35u32.to_le_bytes());
    let error = Table::new(&short).unwrap_err();
    assert_eq!(
        error.to_string(),
        "APIC byte 0x4: the header states an impossible length of 35 bytes"
    );
}

#[test]
fn bytes_after_a_table_are_ignored() {
    let mut longer = usual_madt();
    longer.extend([0xff; 7]);
    assert_eq!(describe(&[longer]), describe(&[usual_madt()]));
}

#[test]
fn tables_are_identified_by_signature() {
    let (madt, iort, mcfg) = (usual_madt(), iort(&[]), mcfg(&[]));
    let other = table(*b"FACP", &[0; 100]);
    let blobs = [&other, &mcfg, &iort, &madt].map(Vec::as_slice);
    let tables = TableSet::from_blobs(blobs).unwrap();
    assert_eq!(tables.madt.table().bytes(), madt);
    assert!(tables.iort.is_some() && tables.mcfg.is_some());
    let error = TableSet::from_blobs([other.as_slice()]).unwrap_err();
    assert_eq!((error.table, error.kind), (Signature::MADT, TableErrorKind::Absent));
}

/// Returns a machine's memory with a root pointer at 0x100 and these tables.
fn memory(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut memory = vec![0; 0x100];
    let xsdt = 0x200u64;
    memory.extend(*b"RSD PTR \0VENDOR\x02");
    memory.extend([0; 8]);
    memory.extend(xsdt.to_le_bytes());
    memory.resize(0x1000, 0);
    let mut addresses = Vec::new();
    for table in tables {
        addresses.extend((memory.len() as u64).to_le_bytes());
        memory.extend(table);
    }
    let list = table(*b"XSDT", &addresses);
    memory[0x200..0x200 + list.len()].copy_from_slice(&list);
    memory
}

fn follow(memory: &[u8]) -> Result<TableSet<'_>, TableErrorKind> {
    let read = |address, length| memory.get(usize::try_from(address).ok()?..)?.get(..length);
    TableSet::from_memory(0x100, read).map_err(|error| error.kind)
}

#[test]
fn root_pointer_locates_the_tables() {
    let (madt, iort) = (usual_madt(), iort(&[]));
    let memory = memory(&[table(*b"FACP", &[0; 90]), madt.clone(), iort.clone()]);
    let tables = follow(&memory).unwrap();
    assert_eq!(tables.madt.table().bytes(), madt);
    assert_eq!(tables.iort.unwrap().table().bytes(), iort);
}

#[test]
fn broken_root_pointer_is_an_error() {
    let good = memory(&[usual_madt()]);
    let changed = |at: usize, byte| {
        let mut memory = good.clone();
        memory[at] = byte;
        memory
    };
    assert!(matches!(follow(&changed(0x100, b'X')), Err(TableErrorKind::Signature(_))));
    assert_eq!(follow(&changed(0x10f, 0)), Err(TableErrorKind::NoXsdt));
    assert_eq!(follow(&changed(0x11a, 0x7f)), Err(TableErrorKind::Unreadable(0x7f_0200)));
    assert_eq!(follow(&changed(0x227, 0x7f)), Err(TableErrorKind::Unreadable(0x7f00_1000)));
    assert_eq!(follow(&good[..0x110]), Err(TableErrorKind::Unreadable(0x100)));
}

/// Encodes a FADT up to the hypervisor vendor, with `ARM_BOOT_ARCH`.
fn fadt(boot: u16, vendor: [u8; 8]) -> Vec<u8> {
    let mut body = vec![0; 240];
    body[129 - 36..131 - 36].copy_from_slice(&boot.to_le_bytes());
    body[268 - 36..].copy_from_slice(&vendor);
    table(*b"FACP", &body)
}

#[test]
fn a_fadt_names_hypervisor_and_psci() {
    let madt = table(*b"APIC", &[0; 8]);
    let read = |fadt: &[u8]| {
        let machine = parse(&TableSet::from_blobs([&*madt, fadt]).unwrap());
        [machine.hypervisor, machine.psci].map(|fact| fact.map(|fact| fact.value))
    };
    let text = |text: &str| Some(String::from(text));
    assert_eq!(read(&fadt(3, *b"QEMU\0\0\0\0")), [text("QEMU"), text("hvc")]);
    assert_eq!(read(&fadt(1, [0; 8])), [None, text("smc")]);
    assert_eq!(read(&fadt(0, [1; 8])), [text(""), None]);
    // Before ACPI 6.0, a FADT ends before the vendor.
    assert_eq!(read(&table(*b"FACP", &fadt(3, *b"QEMU    ")[36..260])), [None, text("hvc")]);
}
