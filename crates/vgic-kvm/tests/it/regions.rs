//! Tests that a state doesn't depend on redistributor addresses, with several regions.

use crate::board::{
    ITS, Levels, RAM, Ram, TRANSLATIONS, ram, restore_machine, save_machine, set_up_tables,
};
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;
use gic_arch::{Affinity, IntId, Priority, gicd, gicr, icc};
use msi_types::{DeviceId, EventId};
use std::sync::Arc;
use vgic::saved_state::{CollectionState, DeviceState, EventState, SavedState};
use vgic::{CpuConfig, GuestMemory, RedistributorRegion, Vcpu, Vgic, VgicConfig};
use vgic_kvm::{KvmView, kvm_config, kvm_its_config};

const CONFIGURATION: u64 = RAM + 0x18_0000;

/// Returns the configuration of a machine with five vCPUs in three regions: two vCPUs fill the
/// first region, two are in a region above 4 GiB with wide strides, and one is in a region below
/// the others with room for four.
fn config() -> VgicConfig {
    let region = |base, stride, count| RedistributorRegion::new(base, count).with_stride(stride);
    let affinity = |cpu: u8| Affinity::new(0, 0, 3 * cpu, cpu % 2);
    let cpu = |cpu: u8| CpuConfig::new(affinity(cpu), 10 * u16::from(cpu));
    kvm_config(0, 96)
        .with_cpus((0..5).map(cpu).collect())
        .with_redistributors(vec![
            region(0x080a_0000, 0x2_0000, 2),
            region(0x1_0000_0000, 0x4_0000, 2),
            region(0x0700_0000, 0x3_0000, 4),
        ])
        .with_its(vec![kvm_its_config(ITS)])
}

fn machine(config: &VgicConfig, memory: &Arc<Ram>) -> (Arc<Vgic>, Vec<Vcpu>) {
    Vgic::new(config.clone(), memory.clone(), Arc::new(|_| {})).unwrap()
}

/// Maps event n of a device to LPI 8192 + n in collection n, pending at vCPU n.
fn with_pending_lpis(mut state: SavedState, memory: &Ram) -> SavedState {
    let byte = Config::new().with_enable(true).with_priority(Priority::new(0xa0)).into_bits();
    memory.write(CONFIGURATION, &[byte; 64]).unwrap();
    set_up_tables(&mut state, Levels::Flat, memory);
    let mut events = Vec::new();
    for (number, cpu) in (0_u16..).zip(&mut state.cpus) {
        let propbaser = gicr::Propbaser::new().with_id_bits_minus_one(15);
        cpu.redistributor.propbaser = propbaser.with_address(CONFIGURATION).into_bits();
        cpu.redistributor.ctlr |= gicr::Ctlr::new().with_enable_lpis(true).into_bits();
        (cpu.interface.pmr, cpu.interface.igrpen1) = (0xf8, true);
        let collection = CollectionId::new(number);
        state.its[0].collections.push(CollectionState::new(collection, cpu.affinity));
        let intid = IntId::new(8192 + u32::from(number));
        let mut event = EventState::new(EventId::new(number.into()), intid, collection);
        event.pending = true;
        events.push(event);
    }
    let mut device = DeviceState::new(DeviceId::new(7), 5, TRANSLATIONS);
    device.events = events;
    state.its[0].devices = vec![device];
    let control = gicd::Ctlr::from(state.distributor.ctlr).with_enable_grp1(true);
    state.distributor.ctlr = control.into_bits();
    state
}

#[test]
fn pending_lpis_migrate_with_several_regions() {
    let (config, memory) = (config(), Arc::new(ram()));
    let (source, mut vcpus) = machine(&config, &memory);
    let state = with_pending_lpis(save_machine(&source, &mut vcpus), &memory);
    let registers = KvmView::new(&config, state, &*memory).unwrap().save().unwrap();

    let (target, mut vcpus) = machine(&config, &memory);
    let mut view = KvmView::new(&config, save_machine(&target, &mut vcpus), &*memory).unwrap();
    view.load(&registers).unwrap();
    restore_machine(&target, &mut vcpus, &view.into_state()).unwrap();

    let mut acknowledge = || -> Vec<_> {
        let iar = icc::IAR1.encoding();
        vcpus.iter_mut().map(|vcpu| vcpu.read_sysreg(iar).unwrap()).collect()
    };
    assert_eq!(acknowledge(), [8192, 8193, 8194, 8195, 8196]);
    assert_eq!(acknowledge(), [1023; 5]);
}
