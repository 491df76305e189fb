//! Tests for machines with an older revision or with several redistributor regions.

use crate::board::{ram, save_machine};
use gic_arch::{Affinity, Iidr, gicd, gicr};
use std::sync::Arc;
use vgic::{CpuConfig, RedistributorRegion, Vgic, VgicConfig};
use vgic_kvm::abi::{self, Attribute, Errno, frame};
use vgic_kvm::{KvmDevice, KvmView, at_revision, kvm_config, kvm_its_config};

/// Calls `read` with the view of a machine after reset.
fn viewed<T>(config: &VgicConfig, read: impl FnOnce(&KvmView<'_>) -> T) -> T {
    let memory = Arc::new(ram());
    let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(|_| {})).unwrap();
    let state = save_machine(&gic, &mut vcpus);
    read(&KvmView::new(config, state, &*memory).unwrap())
}

#[test]
fn the_view_shows_the_revision() {
    let attributes = [
        Attribute::Distributor { offset: gicd::IIDR.offset() },
        Attribute::Redistributor { cpu: Affinity::from_packed(0), offset: gicr::CTLR.offset() },
    ];
    for (revision, announced) in [(2, 0), (3, 6)] {
        let iidr = Iidr::from(0x4b00_043b).with_revision(revision);
        let machine = kvm_config(1, 64).with_its(vec![kvm_its_config(0x0808_0000)]);
        let config = at_revision(machine, iidr).unwrap();
        let values =
            viewed(&config, |view| attributes.map(|attribute| view.get(KvmDevice::Gic, attribute)));
        assert_eq!(values, [Ok(iidr.into_bits().into()), Ok(announced)]);
    }
    for revision in [0, 1, 4] {
        let iidr = Iidr::from(0x4b00_043b).with_revision(revision);
        assert_eq!(at_revision(kvm_config(1, 64), iidr).map(drop), Err(Errno::Invalid));
    }
}

#[test]
fn the_view_shows_the_regions() {
    let regions = [(0x080a_0000, 2), (0x0900_0000, 4)];
    let config = kvm_config(0, 64)
        .with_cpus((0..3).map(CpuConfig::in_clusters_of_sixteen).collect())
        .with_redistributors(
            regions.map(|(base, count)| RedistributorRegion::new(base, count)).into(),
        );
    let coded = |index: u8| {
        let (base, count) = regions[usize::from(index)];
        let count = u16::try_from(count).unwrap();
        let region = abi::RedistributorRegion::new().with_index(index.into()).with_count(count);
        Ok(region.with_base(base).into_bits())
    };
    viewed(&config, |view| {
        assert_eq!(
            [0, 1, 2].map(|index| view.region(index)),
            [coded(0), coded(1), Err(Errno::NoEntry)]
        );
        let first = Attribute::Address(frame::REDISTRIBUTORS);
        assert_eq!(view.get(KvmDevice::Gic, first), Ok(regions[0].0));
    });
}
