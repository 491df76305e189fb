//! Tests of the JSON, the attributes and the memory of snapshots.

use crate::guest::{Guest, RAM_BYTES};
use vgic::GuestMemory as _;
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, frame};
use vgic_kvm::snapshot::{KvmSnapshot, TableUse};

#[test]
fn json_round_trips() {
    let snapshot = Guest::after_messages().snapshot();
    let json = serde_json::to_string(&snapshot).unwrap();
    assert!(
        json.starts_with(r#"{"format":"kvm-vgic","version":1,"cpus":[{"affinity":0,"#),
        "{json}"
    );
    assert_eq!(serde_json::from_str::<KvmSnapshot>(&json).unwrap(), snapshot);
}

#[test]
fn snapshots_contain_every_attribute() {
    let snapshot = Guest::after_messages().snapshot();
    let base = (KvmDevice::Its(0), Attribute::Address(frame::ITS));
    assert_eq!(snapshot.get(base.0, base.1), Some(0x0808_0000));
    let saved = snapshot.attributes.iter().map(|saved| (saved.device, saved.attribute));
    assert!(saved.eq([base].into_iter().chain(snapshot.complete())));
}

#[test]
fn snapshots_contain_the_tables() {
    let guest = Guest::after_messages();
    let (ram, snapshot) = (guest.ram.clone(), guest.snapshot());
    let tables = snapshot.tables(&*ram).unwrap();
    let usages: Vec<_> = tables.iter().map(|table| table.usage).collect();
    assert!(usages.contains(&TableUse::Devices(0)), "{usages:?}");
    assert!(usages.contains(&TableUse::Translations(0, msi_types::DeviceId::new(1))), "{usages:?}");
    let mut memory = vec![0; RAM_BYTES];
    for range in &snapshot.memory {
        for data in &range.data {
            let start = usize::try_from(range.address + data.at).unwrap();
            memory[start..start + data.hex.len()].copy_from_slice(&data.hex);
        }
    }
    for table in tables {
        let mut bytes = vec![0; usize::try_from(table.bytes).unwrap()];
        ram.read(table.address, &mut bytes).unwrap();
        let start = usize::try_from(table.address).unwrap();
        assert_eq!(memory[start..start + bytes.len()], bytes, "{table:?}");
    }
}
