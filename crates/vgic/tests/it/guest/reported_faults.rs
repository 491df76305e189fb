//! Regression tests for bugs reported in other GIC models. Programs (`proof/support/programs`)
//! cover bugs of ITS models, and `lists` covers bugs related to list registers.

use doorbell_test_support::guest::{Machine, Ram, inv, mapc, mapd, mapti, memory};
use gic_arch::gicr;
use gic_arch::gits::{self, Baser, Cbaser, PageSize};
use msi_types::{DeviceId, MsiMessage};
use std::ops::Range;
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::{AccessWidth, FaultReason, GuestMemory, MemoryFault, Vgic, VgicConfig, VmMemory};

const CONFIGURATION: Range<u64> = 0x4000_0000..0x4000_e000;
const PENDING: Range<u64> = 0x4001_0400..0x4001_2000;
const QUEUE: Range<u64> = 0x4002_0000..0x4002_1000;
const TABLES: Range<u64> = 0x4003_0000..0x4004_0000;
const ITS: u64 = 0x0808_0000;

/// Memory that contains an LPI configuration table, a pending table, a command queue and ITS
/// tables, and panics on any access outside of them.
struct OnlyTables(Arc<VmMemory<Ram>>);

impl GuestMemory for OnlyTables {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let end = address + bytes.len() as u64;
        let inside = |table: Range<u64>| address >= table.start && end <= table.end;
        let known = [CONFIGURATION, PENDING, QUEUE, TABLES].into_iter().any(inside);
        assert!(known, "read of {address:#x}..{end:#x}");
        self.0.read(address, bytes)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let end = address + bytes.len() as u64;
        assert!(address >= PENDING.start && end <= PENDING.end, "write of {address:#x}..{end:#x}");
        self.0.write(address, bytes)
    }
}

/// Maps events 0 and 1 of device 1 to these LPIs at the only redistributor.
fn map_events(gic: &Vgic, memory: &OnlyTables, lpis: [u32; 2]) {
    let commands = [
        mapc(0, 0),
        mapd(1, 1, TABLES.start),
        mapti(1, 0, lpis[0], 0),
        mapti(1, 1, lpis[1], 0),
        inv(1, 1),
    ];
    let words = commands.iter().flat_map(|command| command.encode()).flat_map(u64::to_le_bytes);
    let image: Vec<u8> = words.collect();
    memory.0.write(QUEUE.start, &image).unwrap();
    let write = |offset: u32, value| {
        gic.write_until_done(ITS + u64::from(offset), AccessWidth::Double, value).unwrap();
    };
    for table in [0, 1] {
        // The model keeps the mappings in host memory, so it never accesses these tables.
        let base = Baser::new()
            .with_page_size(PageSize::Size64K)
            .with_address(TABLES.start)
            .with_valid(true);
        write(gits::BASER.get(table).unwrap().offset(), base.into_bits());
    }
    write(
        gits::CBASER.offset(),
        Cbaser::new().with_address(QUEUE.start).with_valid(true).into_bits(),
    );
    gic.write_until_done(ITS + u64::from(gits::CTLR.offset()), AccessWidth::Word, 1).unwrap();
    write(gits::CWRITER.offset(), image.len() as u64);
    assert_eq!(gic.command_faults(0).unwrap().count, 0);
}

#[test]
fn invalidating_an_absent_lpi_touches_no_memory() {
    let config = VgicConfig::new(1)
        .with_lpi_id_bits(Some(20))
        .with_redistributor_invalidation(true)
        .with_its(vec![ItsConfig::new(ITS)]);
    let memory = Arc::new(OnlyTables(memory()));
    let machine = Machine::new(VgicConfig::new(1));
    let (gic, _vcpus) = Vgic::new(config, memory.clone(), machine.kicks.clone()).unwrap();
    let frame = machine.frame(0);
    let write = |offset: u32, value| {
        gic.write_until_done(frame + u64::from(offset), AccessWidth::Double, value).unwrap();
    };
    write(gicr::PROPBASER.offset(), CONFIGURATION.start | 15);
    write(gicr::PENDBASER.offset(), PENDING.start & !0xffff);
    gic.write_until_done(frame, AccessWidth::Word, 1).unwrap();
    // The distributor supports both LPIs, but the second LPI is beyond the redistributor's tables.
    map_events(&gic, &memory, [0xffff, 0xf_ffff]);

    for intid in [0, 1023, 8191, 8192, 0xffff, 0x1_0000, 0xf_ffff, 0x10_0000, 0xffff_ffff, u64::MAX]
    {
        write(gicr::INVLPIR.offset(), intid);
        write(gicr::INVALLR.offset(), intid);
    }
    for event in [0, 1] {
        let message = MsiMessage { address: ItsConfig::new(ITS).doorbell(), data: event };
        gic.its(0).unwrap().signal_msi(DeviceId::new(1), message);
    }
    gic.write_until_done(frame, AccessWidth::Word, 0).unwrap();

    assert_eq!(gic.events().count(FaultReason::LpiTable), 0);
    assert!(
        gic.events().count(FaultReason::NoSuchInterrupt) >= 3,
        "INTIDs that are not LPIs must be counted"
    );
    let mut last = [0];
    memory.0.read(PENDING.end - 1, &mut last).unwrap();
    assert_eq!(last, [0x80], "the pending LPI must be in the table");
}
