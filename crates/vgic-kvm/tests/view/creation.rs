//! Machines that come into being by KVM's attributes. Judged against a real KVM elsewhere; here is
//! what becomes of them.

use crate::board::ram;
use gic_arch::{Affinity, Iidr, gicd, gicr};
use std::sync::Arc;
use vgic::{ConfigError, CpuConfig, Vgic, VgicConfig};
use vgic_kvm::abi::{Attribute, Errno, RedistributorRegion, control, frame};
use vgic_kvm::{KvmCreation, KvmDevice, KvmIncomplete, KvmView, at_revision, kvm_config};

const GIC: KvmDevice = KvmDevice::Gic;
const IIDR: Attribute = Attribute::Distributor { offset: gicd::IIDR.offset() };
const INIT: Attribute = Attribute::Control(control::INIT);

fn address(frame: u64) -> Attribute {
    Attribute::Address(frame)
}

fn with_cpus(count: u16) -> KvmCreation {
    let mut creation = KvmCreation::new(40);
    for cpu in 0..count {
        creation.add_cpu(CpuConfig::in_clusters_of_sixteen(cpu)).unwrap();
    }
    creation
}

/// Complete, but without `INIT`.
fn placed(count: u16) -> KvmCreation {
    let mut creation = with_cpus(count);
    creation.set(GIC, address(frame::DISTRIBUTOR), 0x0800_0000).unwrap();
    creation.set(GIC, address(frame::REDISTRIBUTORS), 0x080a_0000).unwrap();
    creation
}

fn initialised(count: u16) -> KvmCreation {
    let mut creation = placed(count);
    creation.set(GIC, INIT, 0).unwrap();
    creation
}

fn add_its(creation: &mut KvmCreation, base: u64) -> KvmDevice {
    let its = creation.add_its();
    creation.set(its, address(frame::ITS), base).unwrap();
    its
}

/// Reads an attribute of a fresh machine's view.
fn viewed(config: &VgicConfig, attribute: Attribute) -> Result<u64, Errno> {
    let memory = Arc::new(ram());
    let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(|_| {})).unwrap();
    let state = gic.freeze(&mut vcpus).unwrap().save().unwrap();
    KvmView::new(config, state, &*memory).unwrap().get(GIC, attribute)
}

#[test]
fn the_view_shows_the_created_machine() {
    let mut creation = with_cpus(3);
    let region = |index, base, count| {
        RedistributorRegion::new().with_index(index).with_base(base).with_count(count).into_bits()
    };
    let regions = [region(0, 0x080a_0000, 2), region(1, 0x0900_0000, 4)];
    creation.set(GIC, Attribute::InterruptCount, 160).unwrap();
    creation.set(GIC, address(frame::DISTRIBUTOR), 0x0800_0000).unwrap();
    for value in regions {
        creation.set(GIC, address(frame::REDISTRIBUTOR_REGION), value).unwrap();
    }
    creation.set(GIC, INIT, 0).unwrap();
    let (first, second) =
        (add_its(&mut creation, 0x0808_0000), add_its(&mut creation, 0x0b00_0000));
    let config = creation.config().unwrap();

    let memory = Arc::new(ram());
    let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(|_| {})).unwrap();
    let state = gic.freeze(&mut vcpus).unwrap().save().unwrap();
    let view = KvmView::new(&config, state, &*memory).unwrap();
    for (device, attribute) in [
        (GIC, address(frame::DISTRIBUTOR)),
        (GIC, address(frame::REDISTRIBUTORS)),
        (GIC, address(frame::REDISTRIBUTOR_REGION)),
        (GIC, Attribute::InterruptCount),
        (GIC, IIDR),
        (first, address(frame::ITS)),
        (second, address(frame::ITS)),
    ] {
        assert_eq!(
            view.get(device, attribute),
            creation.get(device, attribute),
            "{device:?} {attribute:?}"
        );
        assert_eq!(view.has(device, attribute), Ok(()));
    }
    for index in 0..3 {
        assert_eq!(view.region(index), creation.region(index));
    }
    assert_eq!(view.region(1), Ok(regions[1]));
}

#[test]
fn each_missing_part_has_its_error() {
    let cpu = Affinity::from_packed(1);
    let errno = |creation: &KvmCreation| {
        let missing = creation.config().unwrap_err();
        (missing, missing.errno())
    };
    assert_eq!(errno(&with_cpus(1)).1, Errno::NoRegister);
    assert_eq!(errno(&placed(1)), (KvmIncomplete::NotInitialised, Errno::Busy));
    let mut creation = with_cpus(2);
    let one = RedistributorRegion::new().with_base(0x080a_0000).with_count(1).into_bits();
    creation.set(GIC, address(frame::REDISTRIBUTOR_REGION), one).unwrap();
    assert_eq!(errno(&creation), (KvmIncomplete::NoRedistributor(cpu), Errno::NoRegister));
    let mut creation = initialised(2);
    let its = creation.add_its();
    assert_eq!(errno(&creation), (KvmIncomplete::NoItsAddress(its), Errno::NoRegister));
    creation.set(its, address(frame::ITS), 0x0800_0000).unwrap();
    let overlap = ConfigError::Overlap { first: 0x0800_0000, second: 0x0800_0000 };
    assert_eq!(errno(&creation), (KvmIncomplete::Config(overlap), Errno::Invalid));
}

#[test]
fn a_refused_region_leaves_nothing_behind() {
    let mut creation = with_cpus(2);
    creation.set(GIC, address(frame::DISTRIBUTOR), 0x0800_0000).unwrap();
    let over = RedistributorRegion::new().with_base(0x0800_0000).with_count(2).into_bits();
    assert_eq!(creation.set(GIC, address(frame::REDISTRIBUTOR_REGION), over), Err(Errno::Invalid));
    assert_eq!(creation.get(GIC, address(frame::REDISTRIBUTORS)), Ok(frame::NOWHERE));
    assert_eq!(creation.set(GIC, address(frame::REDISTRIBUTORS), 0x080a_0000), Ok(()));
    creation.set(GIC, INIT, 0).unwrap();
    assert!(creation.config().is_ok());
}

#[test]
fn the_revision_is_what_the_guest_sees() {
    for (revision, announced) in [(2, 0), (3, 6)] {
        let mut creation = initialised(1);
        let value = u64::from(Iidr::from(0x4b00_043b).with_revision(revision).into_bits());
        creation.set(GIC, IIDR, value).unwrap();
        assert_eq!(creation.get(GIC, IIDR), Ok(value));
        add_its(&mut creation, 0x0808_0000);
        let config = creation.config().unwrap();
        let control =
            Attribute::Redistributor { cpu: Affinity::from_packed(0), offset: gicr::CTLR.offset() };
        assert_eq!((viewed(&config, IIDR), viewed(&config, control)), (Ok(value), Ok(announced)));
    }
    for revision in [0, 1, 4] {
        let value = Iidr::from(0x4b00_043b).with_revision(revision);
        assert_eq!(placed(1).set(GIC, IIDR, value.into_bits().into()), Err(Errno::Invalid));
        assert_eq!(at_revision(kvm_config(1, 64), value).map(drop), Err(Errno::Invalid));
    }
}

#[test]
fn the_maintenance_ppi_is_set_before_init() {
    let mut creation = placed(1);
    let interrupt = Attribute::MaintenanceInterrupt;
    assert_eq!((creation.get(GIC, interrupt), creation.maintenance_interrupt()), (Ok(0), None));
    for intid in [15, 32, 1056, 8192] {
        assert_eq!(creation.set(GIC, interrupt, intid), Err(Errno::Invalid), "{intid}");
    }
    creation.set(GIC, interrupt, 24).unwrap();
    creation.set(GIC, interrupt, 25).unwrap();
    creation.set(GIC, INIT, 0).unwrap();
    assert_eq!(creation.set(GIC, interrupt, 24), Err(Errno::Busy));
    assert_eq!(creation.get(GIC, interrupt), Ok(25));
}

#[test]
fn a_machine_without_an_its_has_no_lpis() {
    assert_eq!(initialised(1).config().unwrap().lpi_id_bits, None);
}

#[test]
fn registers_are_busy_before_the_model_is_made() {
    let mut creation = initialised(1);
    let its = add_its(&mut creation, 0x0808_0000);
    let cpu = Affinity::from_packed(0);
    for (device, attribute, errno) in [
        (GIC, Attribute::Distributor { offset: gicd::CTLR.offset() }, Errno::Busy),
        (GIC, Attribute::Levels { cpu, info: 0, first: 0 }, Errno::Busy),
        (
            GIC,
            Attribute::Levels { cpu: Affinity::from_packed(7), info: 0, first: 0 },
            Errno::Invalid,
        ),
        (GIC, Attribute::Its { offset: 0 }, Errno::NoRegister),
        (its, Attribute::Its { offset: 0 }, Errno::Busy),
        (its, Attribute::Its { offset: 2 }, Errno::Invalid),
        (its, IIDR, Errno::NoRegister),
        (KvmDevice::Its(7), address(frame::ITS), Errno::NoDevice),
    ] {
        assert_eq!(creation.get(device, attribute), Err(errno), "{device:?} {attribute:x?}");
        assert_eq!(creation.set(device, attribute, 0), Err(errno), "{device:?} {attribute:x?}");
    }
    assert_eq!(creation.has(KvmDevice::Its(7), address(frame::ITS)), Err(Errno::NoDevice));
}
