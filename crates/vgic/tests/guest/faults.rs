//! Faults seen in other models, beside those at the ITS (`its/tests/faults.rs`) and in list registers (`lists`).

use crate::machine::{Machine, Ram};
use gic_arch::{IntId, gicd, gicr, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use std::ops::Range;
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::{AccessWidth, FaultReason, GuestMemory, MemoryFault, Vgic, VgicConfig};

const SPURIOUS: u64 = 1023;
const SPI: u32 = 40;
const PPI: u32 = 27;
const CONFIGURATION: Range<u64> = 0x4000_0000..0x4000_e000;
const PENDING: Range<u64> = 0x4001_0400..0x4001_2000;

/// Memory that has an LPI configuration table and a pending table, and punishes every access beside them.
struct OnlyTables(Ram);

impl GuestMemory for OnlyTables {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let end = address + bytes.len() as u64;
        let inside = |table: Range<u64>| address >= table.start && end <= table.end;
        assert!(inside(CONFIGURATION) || inside(PENDING), "read of {address:#x}..{end:#x}");
        self.0.read(address, bytes)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let end = address + bytes.len() as u64;
        assert!(address >= PENDING.start && end <= PENDING.end, "write of {address:#x}..{end:#x}");
        self.0.write(address, bytes)
    }
}

fn set_bit(machine: &Machine, array: gic_arch::IntIdField, intid: u32) {
    let bit = array.locate(IntId::new(intid)).unwrap();
    machine.write_gicd(bit.register(), bit.mask());
}

#[test]
fn invalidating_an_lpi_that_does_not_exist_reads_and_writes_nothing_beside_the_tables() {
    let config = VgicConfig {
        lpi_id_bits: Some(20),
        redistributor_invalidation: true,
        its: vec![ItsConfig::new(0x0808_0000)],
        ..VgicConfig::new(1)
    };
    let memory = Arc::new(OnlyTables(Ram::default()));
    let machine = Machine::new(VgicConfig::new(1));
    let (gic, _vcpus) = Vgic::new(config, memory, machine.kicks.clone()).unwrap();
    let frame = machine.frame(0);
    let write = |offset: u32, value| {
        gic.write(frame + u64::from(offset), AccessWidth::Double, value).unwrap();
    };
    write(gicr::PROPBASER.offset(), CONFIGURATION.start | 15);
    write(gicr::PENDBASER.offset(), PENDING.start & !0xffff);
    gic.write(frame, AccessWidth::Word, 1).unwrap();

    for intid in [0, 1023, 8191, 8192, 0xffff, 0x1_0000, 0xf_ffff, 0x10_0000, 0xffff_ffff, u64::MAX] {
        write(gicr::INVLPIR.offset(), intid);
        write(gicr::INVALLR.offset(), intid);
    }
    gic.write(frame, AccessWidth::Word, 0).unwrap();

    assert_eq!(gic.events().count(FaultReason::LpiTable), 0);
    assert!(gic.events().count(FaultReason::NoSuchInterrupt) >= 3, "INTIDs that are no LPI are counted");
}

#[test]
fn a_pending_interrupt_that_was_disabled_is_not_acknowledged_until_it_is_enabled_again() {
    let mut machine = Machine::running(VgicConfig::new(1));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    machine.gic.set_line(Line::Spi(SPI), Level::High);

    set_bit(&machine, gicd::ICENABLER, SPI);

    assert_eq!(machine.mrs(0, icc::HPPIR1.encoding()), SPURIOUS);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.enable_spi(SPI);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));
}

#[test]
fn a_private_interrupt_that_was_disabled_is_not_acknowledged() {
    let mut machine = Machine::running(VgicConfig::new(1));
    let bit = gicr::ISENABLER.locate(IntId::new(PPI)).unwrap();
    machine.write_gicr(0, bit.register(), bit.mask());
    machine.gic.set_line(Line::Ppi { cpu: Cpu::new(0), intid: PPI }, Level::High);

    let bit = gicr::ICENABLER.locate(IntId::new(PPI)).unwrap();
    machine.write_gicr(0, bit.register(), bit.mask());

    assert_eq!(machine.acknowledge(0), SPURIOUS);
}

#[test]
fn a_level_that_stays_asserted_is_not_lost_by_being_disabled_moved_or_cleared() {
    let mut machine = Machine::running(VgicConfig::new(2));
    machine.enable_spi(SPI);
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    // Disabled while active, pending state cleared, moved to the other CPU, deactivated: the wire is still high.
    set_bit(&machine, gicd::ICENABLER, SPI);
    set_bit(&machine, gicd::ICPENDR, SPI);
    let route = gicd::Irouter::to(machine.gic.config().cpus[1].affinity);
    machine.write_gicd(gicd::IROUTER.get(SPI).unwrap(), route);
    machine.end(0, SPI.into());
    machine.enable_spi(SPI);

    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert_eq!(machine.acknowledge(1), u64::from(SPI));
}
