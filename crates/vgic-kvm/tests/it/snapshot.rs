//! Tests of the JSON, the attributes and the memory of snapshots.

use crate::guest::{DEVICES, Guest, RAM_BYTES};
use doorbell_test_support::guest::ram;
use std::sync::Arc;
use vgic::saved_state::SavedState;
use vgic::{GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig, VmMemory};
use vgic_kvm::abi::{Attribute, Errno, frame};
use vgic_kvm::snapshot::{KvmAttributes, KvmSnapshot, TableUse};
use vgic_kvm::{KvmDevice, KvmRegister, KvmView};

#[test]
fn a_snapshot_round_trips_through_json() {
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

/// Returns the state of a machine that has not been used.
fn unused(config: &VgicConfig) -> SavedState {
    let memory = Arc::new(VmMemory(ram(0, RAM_BYTES)));
    let (gic, mut vcpus) = Vgic::new(config.clone(), memory, Arc::new(|_| ())).unwrap();
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    gic.save().unwrap()
}

/// A VM that counts the attributes that are written to it.
struct Counted<'v> {
    vm: KvmView<'v>,
    writes: usize,
}

impl KvmAttributes for Counted<'_> {
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        self.vm.get(device, attribute)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        self.writes += 1;
        self.vm.set(device, attribute, value)
    }
}

#[test]
fn a_restored_vm_has_the_same_snapshot() {
    let guest = Guest::after_messages();
    let (memory, snapshot) = (guest.ram.clone(), guest.snapshot());
    let config = snapshot.config().unwrap();
    let mut vm = KvmView::new(&config, unused(&config), &*memory).unwrap();

    assert!(snapshot.rehearse().unwrap().is_empty());
    snapshot.restore(&mut vm).unwrap();

    assert_eq!(KvmSnapshot::take(&mut vm, snapshot.cpus.clone(), 1, &*memory).unwrap(), snapshot);
}

#[test]
fn a_snapshot_of_another_vm_is_refused_before_anything_changes() {
    let guest = Guest::after_messages();
    let (memory, snapshot) = (guest.ram.clone(), guest.snapshot());
    let config = snapshot.config().unwrap();
    let vm = KvmView::new(&config, unused(&config), &*memory).unwrap();
    let mut vm = Counted { vm, writes: 0 };
    let mut refused = |other: &KvmSnapshot| {
        let error = other.restore(&mut vm).unwrap_err();
        assert_eq!(vm.writes, 0, "{error}");
        (error.device, error.attribute, error.errno)
    };
    let mut others = snapshot.clone();
    others.interrupts += 32;
    assert_eq!(refused(&others), (KvmDevice::Gic, Attribute::InterruptCount, Errno::Invalid));
    let mut moved = snapshot.clone();
    moved.attributes[0].value += 0x2_0000;
    let base = Attribute::Address(frame::ITS);
    assert_eq!(refused(&moved), (KvmDevice::Its(0), base, Errno::Invalid));
    for index in 1..snapshot.attributes.len() {
        let mut less = snapshot.clone();
        let missing = less.attributes.remove(index);
        let expected = (missing.device, missing.attribute, Errno::NoRegister);
        assert_eq!(refused(&less), expected);
    }
}

#[test]
fn a_rehearsal_refuses_invalid_machines() {
    let (count, base) = (Attribute::InterruptCount, Attribute::Address(frame::ITS));
    let cases: [(fn(&mut KvmSnapshot), _, _); _] = [
        (|it| it.interrupts = 32, count, Errno::Invalid),
        (|it| it.interrupts = 65, count, Errno::Invalid),
        (|it| it.interrupts = 1024, count, Errno::Invalid),
        (|it| it.cpus[0].number = 512, count, Errno::Invalid),
        (|it| it.cpus = vec![it.cpus[0]; 513], count, Errno::TooBig),
        (|it| it.memory[0].bytes = u64::MAX, count, Errno::Invalid),
        (|it| it.attributes[0].value += 0x1000, base, Errno::Invalid),
        (|it| it.attributes[0].value = 1 << 52, base, Errno::TooBig),
        (|it| it.attributes.push(it.attributes[0]), base, Errno::Exists),
    ];
    let snapshot = Guest::after_messages().snapshot();
    for (change, attribute, errno) in cases {
        let mut changed = snapshot.clone();
        change(&mut changed);
        let error = changed.rehearse().unwrap_err();
        assert_eq!((error.attribute, error.errno), (attribute, errno));
    }
}

#[test]
fn a_rehearsal_counts_ignored_attributes() {
    let mut snapshot = Guest::after_messages().snapshot();
    snapshot.attributes.extend([0, 1].map(KvmDevice::Its).map(|device| KvmRegister {
        device,
        attribute: Attribute::InterruptCount,
        value: 0,
    }));
    assert_eq!(snapshot.rehearse().unwrap().attributes, 2);
}

/// Memory that contains zeros after a guest's RAM.
struct Endless<'m>(&'m dyn GuestMemory);

impl GuestMemory for Endless<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        bytes.fill(0);
        if address < RAM_BYTES as u64 { self.0.read(address, bytes) } else { Ok(()) }
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

#[test]
fn exports_beyond_64_mib_contain_what_kvm_reads() {
    let guest = Guest::after_messages();
    let memory = guest.ram.clone();
    let KvmSnapshot { cpus, interrupts, attributes, .. } = guest.snapshot();
    let mut snapshot = KvmSnapshot::new(cpus, interrupts, attributes);
    // Devices in place of the guest's own, each with an empty translation table of 512 KiB.
    for page in 0..256 {
        let (entry, table) = (8 * (2 + page), 0x1000_0000 + page * 0x8_0000);
        let word = 1 << 63 | u64::from(page < 255) << 49 | table >> 8 << 5 | 15;
        memory.write(DEVICES + entry, &word.to_le_bytes()).unwrap();
    }
    memory.write(DEVICES + 8, &[0; 8]).unwrap();
    snapshot.copy_tables(&Endless(&*memory)).unwrap();
    assert!(snapshot.memory.iter().map(|range| range.bytes).sum::<u64>() > 128 << 20);
    assert!(snapshot.rehearse().unwrap().is_empty());
}
