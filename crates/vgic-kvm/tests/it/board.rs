//! A test machine with KVM's configuration, and guest memory with the addresses of all tables.

use gic_arch::gicr;
use gic_arch::gits::{Baser, Cbaser, Ctlr, PageSize, TableKind};
use gic_arch::its::Level1Entry;
use std::sync::Arc;
use vgic::saved_state::{RestoreError, SavedState};
use vgic::{GuestMemory, Vcpu, Vgic, VgicConfig, VmMemory};
use vgic_kvm::abi::Errno;
use vgic_kvm::abi::{Attribute, control};
use vgic_kvm::{KvmDevice, KvmView, LeftOut, kvm_config, kvm_its_config};

pub(crate) const CPUS: u16 = 3;
pub(crate) const SPIS: u32 = 64;
pub(crate) const ITS: u64 = 0x0808_0000;
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_BYTES: usize = 2 << 20;
pub(crate) const QUEUE: u64 = RAM;
pub(crate) const DEVICES: u64 = RAM + 0x1_0000;
pub(crate) const COLLECTIONS: u64 = RAM + 0x2_0000;
pub(crate) const PENDING: u64 = RAM + 0x4_0000;
/// Second level of the device table, of eight pages.
pub(crate) const SECOND_LEVEL: u64 = RAM + 0x8_0000;
/// Translation tables of 4 KiB each.
pub(crate) const TRANSLATIONS: u64 = RAM + 0x10_0000;
/// Number of devices in a page.
pub(crate) const PAGE: u64 = 0x2000;

pub(crate) type Ram = VmMemory<doorbell_test_support::guest::Ram>;

pub(crate) fn ram() -> Ram {
    VmMemory(doorbell_test_support::guest::ram(RAM, RAM_BYTES))
}

pub(crate) fn put(memory: &Ram, words: &[(u64, u64)]) {
    for (address, word) in words {
        memory.write(*address, &word.to_le_bytes()).unwrap();
    }
}

pub(crate) fn word(memory: &Ram, address: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.read(address, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

pub(crate) fn config() -> VgicConfig {
    kvm_config(CPUS, 32 + SPIS).with_its(vec![kvm_its_config(ITS)])
}

/// Returns the state of a machine after reset.
pub(crate) fn fresh() -> SavedState {
    let (gic, mut vcpus) = Vgic::new(config(), Arc::new(ram()), Arc::new(|_| {})).unwrap();
    save_machine(&gic, &mut vcpus)
}

/// Saves a machine.
pub(crate) fn save_machine(gic: &Vgic, vcpus: &mut [Vcpu]) -> SavedState {
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    gic.save().unwrap()
}

/// Restores a machine.
pub(crate) fn restore_machine(
    gic: &Vgic,
    vcpus: &mut [Vcpu],
    state: &SavedState,
) -> Result<(), RestoreError> {
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    gic.restore(state)
}

/// Restores a machine from `state` and saves it again, or returns the restore's error.
pub(crate) fn through_a_machine(
    state: &SavedState,
    memory: Arc<Ram>,
) -> Result<SavedState, String> {
    let (gic, mut vcpus) = Vgic::new(config(), memory, Arc::new(|_| {})).unwrap();
    restore_machine(&gic, &mut vcpus, state).map_err(|error| error.to_string())?;
    Ok(save_machine(&gic, &mut vcpus))
}

/// Number of levels of the device table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Levels {
    Flat,
    Two,
}

pub(crate) fn table(kind: TableKind, address: u64) -> Baser {
    Baser::new()
        .with_page_size(PageSize::Size64K)
        .with_kind(kind)
        .with_entry_bytes_minus_one(7)
        .with_valid(true)
        .with_address(address)
}

/// Returns a state whose ITS is set up and enabled. If the device table has two levels, also writes
/// its first level to memory.
pub(crate) fn with_tables(levels: Levels, memory: &Ram) -> SavedState {
    let mut state = fresh();
    set_up_tables(&mut state, levels, memory);
    state
}

/// Sets up and enables the ITS, gives each redistributor a pending table, and wakes it. LPIs remain
/// disabled.
pub(crate) fn set_up_tables(state: &mut SavedState, levels: Levels, memory: &Ram) {
    let its = &mut state.its[0];
    let devices = table(TableKind::Devices, DEVICES).with_indirect(levels == Levels::Two);
    its.baser[0] = devices.into_bits();
    its.baser[1] = table(TableKind::Collections, COLLECTIONS).into_bits();
    its.cbaser =
        Cbaser::new().with_valid(true).with_address(QUEUE).with_pages_minus_one(15).into_bits();
    its.ctlr = Ctlr::new().with_enabled(true).into_bits();
    if levels == Levels::Two {
        for page in 0..8 {
            let entry =
                Level1Entry::new().with_valid(true).with_address(SECOND_LEVEL + 0x1_0000 * page);
            put(memory, &[(DEVICES + 8 * page, entry.into_bits())]);
        }
    }
    for (cpu, pending) in state.cpus.iter_mut().zip((PENDING..).step_by(0x1_0000)) {
        let ids = gicr::Propbaser::new().with_id_bits_minus_one(15);
        cpu.redistributor.propbaser = ids.into_bits();
        cpu.redistributor.pendbaser = pending;
        cpu.redistributor.waker = 0;
    }
}

/// Restores the tables from memory, and checks that nothing is left out.
pub(crate) fn restore_tables(levels: Levels, memory: &Ram) -> Result<SavedState, Errno> {
    let (state, left_out) = restore_tables_of(with_tables(levels, memory), memory)?;
    assert!(left_out.is_empty(), "{left_out}");
    Ok(state)
}

/// Restores the tables from memory into a state, in place of its mappings.
pub(crate) fn restore_tables_of(
    state: SavedState,
    memory: &dyn GuestMemory,
) -> Result<(SavedState, LeftOut), Errno> {
    let config = config();
    let mut view = KvmView::new(&config, state, memory).unwrap();
    view.set(KvmDevice::Its(0), Attribute::Control(control::ITS_RESTORE_TABLES), 0)?;
    let left_out = view.left_out();
    Ok((view.into_state(), left_out))
}

/// Saves the pending bits of a state.
pub(crate) fn save_pending(state: SavedState, memory: &dyn GuestMemory) -> LeftOut {
    saved(state, memory, KvmDevice::Gic, control::SAVE_PENDING_TABLES)
}

/// Saves the tables of a state.
pub(crate) fn save_tables(state: SavedState, memory: &dyn GuestMemory) -> LeftOut {
    saved(state, memory, KvmDevice::Its(0), control::ITS_SAVE_TABLES)
}

fn saved(state: SavedState, memory: &dyn GuestMemory, device: KvmDevice, command: u64) -> LeftOut {
    let config = config();
    let mut view = KvmView::new(&config, state, memory).unwrap();
    assert_eq!(view.set(device, Attribute::Control(command), 0), Ok(()));
    view.left_out()
}
