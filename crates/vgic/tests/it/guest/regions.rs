//! Tests for redistributors in several regions. vCPUs fill them in order, and their addresses don't
//! affect interrupts.

use doorbell_test_support::guest::{ITS, Machine, RAM};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::lpi::Config;
use gic_arch::{Affinity, Priority, gicr};
use msi_types::{Delivery, DeviceId, EventId};
use vgic::its::{ItsConfig, RedistributorNaming};
use vgic::{
    AccessWidth, Block, CpuConfig, FaultReason, GuestMemory, RedistributorRegion, VgicConfig,
};

const DEVICE: DeviceId = DeviceId::new(7);
const CPUS: usize = 5;
const FIRST: u64 = 0x080a_0000;
const FAR: u64 = 0x1_0000_0000;
const BELOW: u64 = 0x0700_0000;

/// Returns three redistributor regions. The first is full with two vCPUs; the second is above 4 GiB
/// and has room for two vCPUs with wide strides; the third is below the others and has room for
/// four redistributors, of which one exists.
fn regions() -> Vec<RedistributorRegion> {
    vec![
        RedistributorRegion::new(FIRST, 2),
        RedistributorRegion::new(FAR, 2).with_stride(0x4_0000),
        RedistributorRegion::new(BELOW, 4).with_stride(0x3_0000),
    ]
}

fn config(redistributor_naming: RedistributorNaming) -> VgicConfig {
    let affinity = |cpu: u8| Affinity::new(0, 0, 3 * cpu, cpu % 2);
    let cpu = |cpu: u8| CpuConfig::new(affinity(cpu), 10 * u16::from(cpu));
    VgicConfig::new(0)
        .with_cpus((0..5).map(cpu).collect())
        .with_redistributors(regions())
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(ITS).with_redistributor_naming(redistributor_naming)])
        .with_spis(64)
}

fn machine() -> Machine {
    Machine::running(config(RedistributorNaming::ProcessorNumber))
}

fn typer(machine: &Machine, base: u64) -> gicr::Typer {
    gicr::Typer::from(machine.read(base + u64::from(gicr::TYPER.offset()), AccessWidth::Double))
}

#[test]
fn a_typer_walk_finds_every_redistributor_of_each_region() {
    let machine = machine();
    let cpus: Vec<_> = machine.gic.config().cpus.iter().map(|cpu| cpu.affinity).collect();
    let mut found = Vec::new();
    for region in regions() {
        let mut base = region.base;
        while !typer(&machine, base).last() {
            found.push(typer(&machine, base).affinity());
            base += region.stride;
        }
        found.push(typer(&machine, base).affinity());
    }
    assert_eq!(found, cpus);
}

#[test]
fn regions_are_listed_by_ascending_address() {
    let machine = machine();
    let redistributors = machine.gic.regions().iter().filter_map(|region| match region.block {
        Block::Redistributors(index) => Some((region.addresses.clone(), index)),
        _ => None,
    });
    let expected =
        [(BELOW..BELOW + 0xc_0000, 2), (FIRST..FIRST + 0x4_0000, 0), (FAR..FAR + 0x8_0000, 1)];
    assert_eq!(redistributors.collect::<Vec<_>>(), expected);
}

#[test]
fn addresses_before_and_after_a_region_are_unclaimed() {
    let machine = machine();
    for outside in [BELOW - 4, BELOW + 0xc_0000, FIRST + 0x4_0000, FAR - 4, FAR + 0x8_0000] {
        assert!(!machine.gic.claims(outside), "{outside:#x}");
        assert!(machine.gic.read(outside, AccessWidth::Word).is_err());
        assert!(machine.gic.write_until_done(outside, AccessWidth::Word, u64::MAX).is_err());
    }
}

#[test]
fn an_empty_region_may_overlap_other_frames() {
    let mut config = config(RedistributorNaming::ProcessorNumber);
    for base in [config.distributor, ITS, FAR] {
        config.redistributors.push(RedistributorRegion::new(base, 0));
    }
    let machine = Machine::new(config);
    for base in [machine.gic.config().distributor, ITS, FAR] {
        assert!(machine.gic.claims(base), "{base:#x}");
    }
}

#[test]
fn gaps_between_redistributors_read_as_zero() {
    let machine = machine();
    let padding = [FAR + 0x2_0008, FAR + 0x6_0008, BELOW + 0x2_0008];
    let unfilled = [BELOW + 0x3_0008, BELOW + 0x9_0008];
    for address in padding.into_iter().chain(unfilled) {
        machine.write(address, AccessWidth::Word, u64::MAX);
        assert_eq!(machine.read(address, AccessWidth::Word), 0, "{address:#x}");
    }
    assert_eq!(machine.gic.events().count(FaultReason::UnknownRegister), 10);
}

/// Sets up LPIs as a kernel does: event n of a device is mapped to LPI 8192 + n in collection n, at
/// vCPU n.
fn with_lpis(redistributor_naming: RedistributorNaming) -> Machine {
    let machine = Machine::running(config(redistributor_naming));
    let byte = Config::new().with_enable(true).with_priority(Priority::new(0xa0)).into_bits();
    machine.ram.write(RAM + 0x4_0000, &[byte; 64]).unwrap();
    machine.enable_lpis(16, RAM + 0x4_0000, RAM + 0x10_0000);
    machine.start_its();
    let itt = RAM + 0x20_0000;
    machine.run([Command::Mapd {
        device: DEVICE,
        itt,
        event_bits_minus_one: 4,
        action: MapAction::Map,
    }]);
    for cpu in 0..CPUS {
        let number = u32::try_from(cpu).unwrap();
        let collection = CollectionId::new(u16::try_from(cpu).unwrap());
        let (target, event, intid) = (target(&machine, cpu), EventId::new(number), 8192 + number);
        machine.run([
            Command::Mapc { collection, target, action: MapAction::Map },
            Command::Mapti { device: DEVICE, event, intid, collection },
        ]);
    }
    machine
}

/// Returns the RDbase operand by which ITS commands identify a redistributor.
fn target(machine: &Machine, cpu: usize) -> RdBase {
    match machine.gic.config().its[0].redistributor_naming {
        RedistributorNaming::ProcessorNumber => {
            RdBase::from_processor_number(machine.gic.config().cpus[cpu].processor_number)
        }
        RedistributorNaming::Address => RdBase::from_address(machine.frame(cpu)),
    }
}

fn send_all(machine: &Machine) {
    for event in 0..CPUS {
        let event = u32::try_from(event).unwrap();
        assert_eq!(machine.send(DEVICE.get(), event), Delivery::Pending);
    }
}

fn acknowledge_all(machine: &mut Machine) -> Vec<Vec<u64>> {
    let mut all = |cpu| {
        let taken = std::iter::from_fn(|| {
            let intid = Some(machine.acknowledge(cpu)).filter(|intid| *intid != 1023)?;
            machine.end(cpu, intid);
            Some(intid)
        });
        let mut taken: Vec<_> = taken.collect();
        taken.sort_unstable();
        taken
    };
    (0..CPUS).map(&mut all).collect()
}

/// Returns the expected result: vCPU n has handled only LPI 8192 + n.
fn each_at_home() -> Vec<Vec<u64>> {
    (8192..8197).map(|lpi| vec![lpi]).collect()
}

#[test]
fn lpis_reach_every_region_by_processor_number_and_by_address() {
    for naming in [RedistributorNaming::ProcessorNumber, RedistributorNaming::Address] {
        let mut machine = with_lpis(naming);
        send_all(&machine);
        assert_eq!(acknowledge_all(&mut machine), each_at_home(), "{naming:?}");
    }
}

#[test]
fn movall_moves_lpis_between_redistributor_regions() {
    for naming in [RedistributorNaming::ProcessorNumber, RedistributorNaming::Address] {
        let mut machine = with_lpis(naming);
        send_all(&machine);
        let (from, to) = (target(&machine, 1), target(&machine, 4));
        machine.run([Command::Movall { from, to }]);
        let expected = [vec![8192], vec![], vec![8194], vec![8195], vec![8193, 8196]];
        assert_eq!(acknowledge_all(&mut machine), expected, "{naming:?}");
    }
}
