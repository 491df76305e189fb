//! What the ID registers say of GICv4 and MPAM, and what a guest makes of it.

use crate::machine::{Machine, Ram};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::{Affinity, gicd, gicr, gits, id};
use vgic::its::{ItsConfig, ItsVirtualLpis, Vmovp};
use vgic::{
    AccessWidth, ConfigError, FaultReason, GuestMemory, LpiTableSharing, RedistributorRegion, Vgic,
    VgicConfig, VirtualLpiVersion, VirtualLpis,
};

const ITS: u64 = 0x0808_0000;
const REDISTRIBUTORS: u64 = 0x080a_0000;
const VERSIONS: [VirtualLpiVersion; 2] = [VirtualLpiVersion::V4_0, VirtualLpiVersion::V4_1];

fn config(version: Option<VirtualLpiVersion>) -> VgicConfig {
    let announced = |version| ItsVirtualLpis { version, vmovp: Vmovp::OneIts };
    let stride = if version.is_some() { gicr::STRIDE_V4 } else { gicr::STRIDE_V3 };
    VgicConfig {
        lpi_id_bits: Some(16),
        its: vec![ItsConfig { virtual_lpis: version.map(announced), ..ItsConfig::new(ITS) }],
        redistributors: vec![RedistributorRegion { base: REDISTRIBUTORS, stride, count: 3 }],
        virtual_lpis: version.map(|version| VirtualLpis { version, dirty: true }),
        ..VgicConfig::new(3)
    }
}

fn refused(config: VgicConfig, change: impl FnOnce(&mut VgicConfig)) -> ConfigError {
    let mut config = config;
    change(&mut config);
    config.validate().unwrap_err()
}

fn distributor(machine: &Machine) -> gicd::Typer {
    gicd::Typer::from(u32::try_from(machine.read_gicd(gicd::TYPER)).unwrap())
}

fn redistributor(machine: &Machine, base: u64) -> gicr::Typer {
    gicr::Typer::from(machine.read(base + u64::from(gicr::TYPER.offset()), AccessWidth::Double))
}

fn its(machine: &Machine) -> gits::Typer {
    gits::Typer::from(machine.read(ITS + u64::from(gits::TYPER.offset()), AccessWidth::Double))
}

/// `PIDR2.ArchRev` of distributor, redistributor and ITS.
fn revisions(machine: &Machine) -> [u64; 3] {
    let of = |base| machine.read(base + u64::from(id::PIDR2.offset()), AccessWidth::Word) >> 4;
    [machine.gic.config().distributor, REDISTRIBUTORS, ITS].map(of)
}

#[test]
fn a_machine_of_which_nothing_is_said_is_a_gicv3() {
    let machine = Machine::new(config(None));
    let (distributor, its) = (distributor(&machine), its(&machine));
    let redistributor = redistributor(&machine, REDISTRIBUTORS);

    assert_eq!(revisions(&machine), [3; 3]);
    assert!(!distributor.dvis() && machine.read_gicd(gicd::TYPER2) == 0);
    assert!(!redistributor.vlpis() && !redistributor.dirty() && !redistributor.rvpeid());
    assert!(!redistributor.mpam() && !redistributor.vsgi() && redistributor.common_lpi_aff() == 0);
    assert!(!its.virtual_lpis() && !its.vmovp() && !its.vmapp() && !its.mpam() && !its.vsgi());
    assert_eq!(machine.gic.config().virtual_lpi_frames().count(), 0);
}

#[test]
fn every_frame_announces_the_version_of_virtual_lpis_that_is_configured() {
    for version in VERSIONS {
        let machine = Machine::new(config(Some(version)));
        let (redistributor, its) = (redistributor(&machine, REDISTRIBUTORS), its(&machine));
        let newer = version == VirtualLpiVersion::V4_1;

        assert_eq!(revisions(&machine), [4; 3]);
        assert!(distributor(&machine).dvis());
        assert!(redistributor.plpis() && redistributor.vlpis() && redistributor.dirty());
        assert!(its.physical() && its.virtual_lpis() && its.vmovp());
        assert_eq!((redistributor.rvpeid(), its.vmapp()), (newer, newer));
        assert!(!redistributor.vsgi() && !its.vsgi(), "nobody provides virtual SGIs");
    }
}

#[test]
fn dirty_and_the_form_of_vmovp_are_the_monitors_to_say() {
    let mut config = config(Some(VirtualLpiVersion::V4_0));
    let version = VirtualLpiVersion::V4_0;
    config.virtual_lpis = Some(VirtualLpis { version, dirty: false });
    config.its[0].virtual_lpis = Some(ItsVirtualLpis { version, vmovp: Vmovp::EveryIts });
    let machine = Machine::new(config);

    assert!(!redistributor(&machine, REDISTRIBUTORS).dirty());
    assert!(its(&machine).virtual_lpis() && !its(&machine).vmovp());
}

#[test]
fn an_its_without_virtual_lpis_stays_a_gicv3_its() {
    let mut config = config(Some(VirtualLpiVersion::V4_1));
    config.its[0].virtual_lpis = None;
    let machine = Machine::new(config);

    assert_eq!(revisions(&machine), [4, 4, 3]);
    assert!(!its(&machine).virtual_lpis());
}

#[test]
fn mpam_has_partition_zero_alone() {
    let mut config = config(None);
    (config.mpam, config.its[0].mpam) = (true, true);
    let machine = Machine::new(config);
    machine.write_gicr(1, gicr::PARTIDR, u32::MAX);
    machine.write(ITS + u64::from(gits::PARTIDR.offset()), AccessWidth::Word, u64::MAX);

    assert!(redistributor(&machine, REDISTRIBUTORS).mpam() && its(&machine).mpam());
    assert_eq!([machine.read_gicr(1, gicr::MPAMIDR), machine.read_gicr(1, gicr::PARTIDR)], [0, 0]);
    for register in [gits::MPAMIDR.offset(), gits::PARTIDR.offset()] {
        assert_eq!(machine.read(ITS + u64::from(register), AccessWidth::Word), 0);
    }
}

#[test]
fn redistributors_say_who_shares_a_configuration_table() {
    use LpiTableSharing::{Aff1, Aff2, Aff3, All};
    for (sharing, code) in [(All, 0), (Aff3, 1), (Aff2, 2), (Aff1, 3)] {
        let machine = Machine::new(VgicConfig { lpi_table_sharing: sharing, ..config(None) });
        assert_eq!(redistributor(&machine, REDISTRIBUTORS).common_lpi_aff(), code);
    }
}

/// The CPUs that a guest finds which was told no stride.
fn walk(machine: &Machine) -> Vec<Affinity> {
    let (mut found, mut base) = (Vec::new(), REDISTRIBUTORS);
    loop {
        let typer = redistributor(machine, base);
        found.push(typer.affinity());
        if typer.last() || found.len() > machine.vcpus.len() {
            return found;
        }
        base += typer.stride();
    }
}

#[test]
fn a_guest_that_was_told_no_stride_finds_each_redistributor() {
    for version in [None, Some(VirtualLpiVersion::V4_0), Some(VirtualLpiVersion::V4_1)] {
        let machine = Machine::new(config(version));
        let expected: Vec<_> = machine.gic.config().cpus.iter().map(|cpu| cpu.affinity).collect();
        assert_eq!(walk(&machine), expected, "{version:?}");
    }
}

#[test]
fn the_frames_for_virtual_lpis_lie_behind_each_redistributors_own() {
    let config = config(Some(VirtualLpiVersion::V4_0));
    let frames: Vec<_> = config.virtual_lpi_frames().collect();
    assert_eq!(frames, [0x080c_0000..0x080e_0000, 0x0810_0000..0x0812_0000, 0x0814_0000..0x0816_0000]);
}

#[test]
fn what_the_monitor_lets_through_to_those_frames_reads_as_zero_and_is_counted() {
    let machine = Machine::new(config(Some(VirtualLpiVersion::V4_1)));
    let before: Vec<_> = (0..3).map(|cpu| own_registers(&machine, cpu)).collect();
    let frames: Vec<_> = machine.gic.config().virtual_lpi_frames().collect();
    let mut accesses = 0;
    for address in frames.into_iter().flatten().step_by(4) {
        machine.write(address, AccessWidth::Word, u64::MAX);
        assert_eq!(machine.read(address, AccessWidth::Word), 0, "{address:#x}");
        accesses += 2;
    }

    let after: Vec<_> = (0..3).map(|cpu| own_registers(&machine, cpu)).collect();
    assert_eq!(after, before);
    assert_eq!(machine.gic.events().count(FaultReason::UnknownRegister), accesses);
}

fn own_registers(machine: &Machine, cpu: usize) -> Vec<u64> {
    let base = machine.frame(cpu);
    let offsets = (0..0x100).chain(0x1_0000..0x1_0e00).step_by(4);
    let defined =
        offsets.filter(|offset| gicr::REGISTERS.iter().any(|info| info.index_of(*offset).is_some()));
    defined.map(|offset| machine.read(base + u64::from(offset), AccessWidth::Word)).collect()
}

#[test]
fn a_virtual_invalidation_that_is_let_through_leaves_the_physical_lpi_of_that_number_alone() {
    const VIRTUAL: u64 = 1 << 63;
    let mut machine = Machine::running(VgicConfig {
        direct_lpi: true,
        its: Vec::new(),
        ..config(Some(VirtualLpiVersion::V4_1))
    });
    let table = gicr::Propbaser::new().with_id_bits_minus_one(13).with_address(Ram::BASE);
    machine.ram.write(Ram::BASE, &[0xa1]).unwrap();
    machine.write_gicr(1, gicr::PROPBASER, table);
    machine.write_gicr(1, gicr::PENDBASER, gicr::Pendbaser::new().with_address(Ram::BASE + 0x1_0000));
    machine.write_gicr(1, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    machine.write_gicr(1, gicr::SETLPIR, 8192);
    assert!(machine.vcpus[1].inputs().irq, "it has read the configuration");
    machine.ram.write(Ram::BASE, &[0xa0]).unwrap();

    machine.write_gicr(1, gicr::INVLPIR, VIRTUAL | 8192);
    machine.write_gicr(1, gicr::INVALLR, VIRTUAL);

    assert_eq!(machine.acknowledge(1), 8192, "enabled as it was last read");
    machine.end(1, 8192);
    machine.write_gicr(1, gicr::SETLPIR, 8192);
    machine.write_gicr(1, gicr::INVLPIR, 8192);
    assert_eq!(machine.acknowledge(1), 1023);
}

#[test]
fn a_command_about_virtual_lpis_that_is_let_through_fails_and_the_next_one_is_executed() {
    const VMAPTI: u64 = 0x2a;
    let machine = Machine::new(config(Some(VirtualLpiVersion::V4_0)));
    let write = |offset: u32, value| machine.write(ITS + u64::from(offset), AccessWidth::Double, value);
    let mapc = Command::Mapc {
        collection: CollectionId::new(0),
        target: RdBase::from_processor_number(2),
        action: MapAction::Map,
    };
    let words = [VMAPTI, 0, 0, 0].into_iter().chain(mapc.encode());
    let queue: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    machine.ram.write(Ram::BASE, &queue).unwrap();
    write(gits::BASER.get(1).unwrap().offset(), 1 << 63 | (Ram::BASE + 0x2_0000));
    write(gits::CBASER.offset(), 1 << 63 | Ram::BASE);
    write(gits::CTLR.offset(), 1);

    write(gits::CWRITER.offset(), 64);

    assert_eq!(machine.read(ITS + u64::from(gits::CREADR.offset()), AccessWidth::Double), 64);
    assert_eq!(machine.gic.command_faults(0).unwrap().count, 1);
}

#[test]
fn a_machine_that_announces_more_than_can_be_is_refused_with_its_reason() {
    let version = VirtualLpiVersion::V4_1;
    let announced = |version| ConfigError::VirtualLpisOfIts { its: ITS, announced: version };
    let near = |config: &mut VgicConfig| config.redistributors[0].stride = 0x3_0000;
    assert_eq!(refused(config(Some(version)), near), ConfigError::VirtualLpiStride(0x3_0000));
    let without_lpis = |config: &mut VgicConfig| {
        config.its.clear();
        config.lpi_id_bits = None;
    };
    assert_eq!(refused(config(Some(version)), without_lpis), ConfigError::VirtualLpisWithoutLpis);
    let alone = refused(config(Some(version)), |config| config.virtual_lpis = None);
    assert_eq!(alone, announced(version));
    let older = VirtualLpis { version: VirtualLpiVersion::V4_0, dirty: true };
    let mixed = refused(config(Some(version)), |config| config.virtual_lpis = Some(older));
    assert_eq!(mixed, announced(version));
}

#[test]
fn a_state_of_a_machine_with_virtual_lpis_is_none_of_a_machine_without() {
    let mut source = Machine::new(config(Some(VirtualLpiVersion::V4_0)));
    let saved = source.gic.freeze(&mut source.vcpus).unwrap().save();
    for other in [None, Some(VirtualLpiVersion::V4_1)] {
        let mut other = Machine::new(config(other));
        assert!(restores(&other.gic, &mut other.vcpus, &saved).is_err());
    }
    let mut same = Machine::new(config(Some(VirtualLpiVersion::V4_0)));
    assert_eq!(restores(&same.gic, &mut same.vcpus, &saved), Ok(()));
}

fn restores(
    gic: &Vgic,
    vcpus: &mut [vgic::Vcpu],
    saved: &vgic::saved_state::SavedState,
) -> Result<(), vgic::saved_state::RestoreError> {
    gic.freeze(vcpus).unwrap().restore(saved)
}
