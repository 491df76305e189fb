//! Tests for guest errors. Each error must be recorded once, with the address of the register that
//! the guest wrote.

use doorbell_test_support::guest::Machine;
use gic_arch::gicr::{self, Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser, PageSize};
use gic_arch::its::{Command, CommandErrorReason, MapAction, Opcode};
use gic_arch::{IntId, gicd};
use msi_types::{Cpu, DeviceId};
use vgic::its::{CommandFault, ItsConfig, PageSizes};
use vgic::{AccessWidth, FaultDetail, FaultReason, GuestMemory, RegisterFrame, VgicConfig};

const ITS: u64 = 0x0808_0000;
const CONFIGURATION: u64 = 0x4001_0000;
const PENDING: u64 = 0x4004_0000;
const QUEUE: u64 = 0x4010_0000;
const DEVICES: u64 = 0x4020_0000;
/// Masks for each of bits 15:12, which are zero in the address of a 64 KiB page.
const BITS: [u64; 4] = [0x1000, 0x2000, 0x4000, 0x8000];
/// First address beyond memory.
const END: u64 = 0x4040_0000;

type Fault = (FaultReason, u64, FaultDetail);

fn its(page_sizes: PageSizes) -> Machine {
    let its = ItsConfig::new(ITS).with_page_sizes(page_sizes);
    let config = VgicConfig::new(3).with_can_clear_enable_lpis(true).with_message_based_spis(true);
    Machine::new(config.with_lpi_id_bits(Some(20)).with_its(vec![its]))
}

fn faults(machine: &Machine) -> Vec<Fault> {
    let mut faults = Vec::new();
    machine.gic.events().drain(|fault| faults.push((fault.reason, fault.address, fault.detail)));
    faults
}

fn write_its(machine: &Machine, offset: u32, value: u64) {
    machine.write(ITS + u64::from(offset), AccessWidth::Double, value);
}

fn set_enabled(machine: &Machine, enabled: bool) {
    machine.write(ITS, AccessWidth::Word, enabled.into());
}

fn queue(address: u64) -> Cbaser {
    Cbaser::new().with_address(address).with_valid(true)
}

fn baser(index: u32) -> u32 {
    gits::BASER.get(index).unwrap().offset()
}

/// Enables an ITS with this device table. Returns the faults, and the register's value.
fn faults_of_table(page_sizes: PageSizes, table: Baser) -> (Vec<Fault>, u64) {
    let machine = its(page_sizes);
    write_its(&machine, gits::CBASER.offset(), queue(QUEUE).into_bits());
    write_its(&machine, baser(0), table.into_bits());
    assert_eq!(faults(&machine), [], "the table takes effect when the ITS is enabled");
    set_enabled(&machine, true);
    let value = machine.read(ITS + u64::from(baser(0)), AccessWidth::Double);
    (faults(&machine), value)
}

fn pages(size: PageSize, pages_minus_one: u8) -> Baser {
    Baser::new().with_page_size(size).with_pages_minus_one(pages_minus_one).with_valid(true)
}

#[test]
fn an_unaligned_queue_that_is_written_as_two_words_is_recorded() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    let register = ITS + u64::from(gits::CBASER.offset());
    let unaligned = queue(QUEUE | BITS[1]).into_bits();
    machine.write(register, AccessWidth::Word, unaligned & 0xffff_ffff);
    machine.write(register + 4, AccessWidth::Word, unaligned >> 32);
    set_enabled(&machine, true);
    let recorded = (FaultReason::UnalignedQueue, register, FaultDetail::Value(unaligned));
    assert_eq!(faults(&machine), [recorded]);
    assert_eq!(machine.read(register, AccessWidth::Double), queue(QUEUE).into_bits());
}

fn wait_for_quiescence(machine: &Machine) {
    let ctlr = machine.read(ITS + u64::from(gits::CTLR.offset()), AccessWidth::Word);
    assert!(gits::Ctlr::from(u32::try_from(ctlr).unwrap()).quiescent());
}

#[test]
fn a_register_that_is_written_before_quiescence_is_recorded() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    let offsets = [baser(0), baser(1), gits::CBASER.offset()];
    for (offset, is_hasty) in offsets.into_iter().flat_map(|one| [(one, true), (one, false)]) {
        set_enabled(&machine, true);
        set_enabled(&machine, false);
        faults(&machine);
        if !is_hasty {
            wait_for_quiescence(&machine);
        }
        let at = ITS + u64::from(offset);
        machine.write(at, AccessWidth::Double, machine.read(at, AccessWidth::Double));
        let recorded = faults(&machine).into_iter().map(|(reason, at, _)| (reason, at));
        let hasty = is_hasty.then_some((FaultReason::ItsNotQuiescent, at));
        assert_eq!(recorded.collect::<Vec<_>>(), hasty.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn an_invalidation_before_the_previous_one_completes_is_recorded() {
    let config = VgicConfig::new(2).with_direct_lpi(true).with_lpi_id_bits(Some(16));
    let machine = Machine::new(config.with_can_clear_enable_lpis(true));
    let start = |cpu| {
        let tables = Propbaser::new().with_id_bits_minus_one(15).with_address(CONFIGURATION);
        machine.write_gicr(cpu, gicr::PROPBASER, tables);
        let table = PENDING + cpu as u64 * 0x1_0000;
        let pending = Pendbaser::new().with_address(table).with_pending_table_zero(true);
        machine.write_gicr(cpu, gicr::PENDBASER, pending);
        machine.write_gicr(cpu, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    };
    start(0);
    start(1);
    let [one, all] = [(gicr::INVLPIR, 8200), (gicr::INVALLR, 0)];
    for (first, second) in [(one, one), (one, all), (all, one), (all, all)] {
        machine.write_gicr(0, first.0, first.1);
        machine.write_gicr(1, second.0, second.1);
        while machine.read_gicr(1, gicr::SYNCR) != 0 {}
        assert_eq!(faults(&machine), [], "redistributors are tracked separately");
        machine.write_gicr(0, second.0, second.1);
        let register = machine.frame(0) + u64::from(second.0.offset());
        let reasons = faults(&machine).into_iter().map(|(reason, at, _)| (reason, at));
        let recorded = (FaultReason::InvalidationInProgress, register);
        assert_eq!(reasons.collect::<Vec<_>>(), [recorded]);
        while machine.read_gicr(0, gicr::SYNCR) != 0 {}
    }
    machine.write_gicr(0, one.0, one.1);
    machine.set_enable_lpis(0, false);
    start(0);
    machine.write_gicr(0, one.0, one.1);
    assert_eq!(faults(&machine), [], "disabling LPIs ends the wait");
}

#[test]
fn after_a_restore_cbaser_can_be_written_without_waiting() {
    let mut machine = its(PageSizes::Only(PageSize::Size64K));
    let saved = machine.save();
    set_enabled(&machine, true);
    set_enabled(&machine, false);
    machine.restore(&saved);
    faults(&machine);
    write_its(&machine, gits::CBASER.offset(), queue(QUEUE).into_bits());
    assert_eq!(faults(&machine), []);
}

#[test]
fn a_translation_table_outside_of_memory_is_recorded() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    machine.start_its();
    for (itt, missing) in [(QUEUE, None), (END, Some(END)), (END - 0x100, Some(END + 0xff))] {
        let (device, action) = (DeviceId::new(0), MapAction::Map);
        machine.queue([Command::Mapd { device, itt, event_bits_minus_one: 5, action }]);
        let recorded = missing.map(|byte| {
            let register = ITS + u64::from(gits::CREADR.offset());
            (FaultReason::TranslationTable, register, FaultDetail::Memory(byte))
        });
        assert_eq!(faults(&machine), recorded.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn an_unaligned_queue_is_recorded_at_each_enable() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    let register = ITS + u64::from(gits::CBASER.offset());
    for bit in BITS {
        let written = queue(QUEUE | bit).into_bits();
        let unaligned = (FaultReason::UnalignedQueue, register, FaultDetail::Value(written));
        write_its(&machine, gits::CBASER.offset(), written);
        assert_eq!(faults(&machine), []);
        for _ in 0..2 {
            set_enabled(&machine, true);
            set_enabled(&machine, true);
            assert_eq!(faults(&machine), [unaligned]);
            set_enabled(&machine, false);
        }
        wait_for_quiescence(&machine);
        assert_eq!(machine.read(register, AccessWidth::Double), queue(QUEUE).into_bits());
    }

    write_its(&machine, gits::CBASER.offset(), queue(QUEUE).into_bits());
    set_enabled(&machine, true);
    assert_eq!(faults(&machine), []);
}

#[test]
fn an_invalid_queue_is_not_checked_for_alignment() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    write_its(&machine, gits::CBASER.offset(), queue(QUEUE + 0x1000).with_valid(false).into());
    set_enabled(&machine, true);
    assert_eq!(faults(&machine), []);
}

#[test]
fn its_tables_inside_memory_record_no_fault() {
    let any = PageSizes::Any;
    for (size, bytes) in
        [(PageSize::Size4K, 0x1000), (PageSize::Size16K, 0x4000), (PageSize::Size64K, 0x1_0000)]
    {
        // The last byte of the table is the last byte of memory.
        let table = pages(size, 15).with_address(END - 16 * bytes);
        assert_eq!(faults_of_table(any, table).0, [], "{size:?}");
    }
    let outside = pages(PageSize::Size64K, 0).with_address(END).with_valid(false);
    assert_eq!(faults_of_table(any, outside).0, []);
}

#[test]
fn its_tables_outside_of_memory_are_faults_at_gits_baser() {
    let any = PageSizes::Any;
    let at = |address| {
        let detail = FaultDetail::Memory(address);
        vec![(FaultReason::ItsTable, ITS + u64::from(baser(0)), detail)]
    };
    for (size, bytes) in
        [(PageSize::Size4K, 0x1000), (PageSize::Size16K, 0x4000), (PageSize::Size64K, 0x1_0000)]
    {
        let table = |address| pages(size, 1).with_address(address);
        assert_eq!(faults_of_table(any, table(END)).0, at(END));
        assert_eq!(faults_of_table(any, table(END).with_indirect(true)).0, at(END));
        assert_eq!(faults_of_table(any, table(END - bytes)).0, at(END), "the second page");
    }
}

#[test]
fn a_table_not_aligned_to_its_pages_is_a_fault() {
    let any = PageSizes::Any;
    let of_16k = [0x1000, 0x2000].map(|bits| (any, PageSize::Size16K, bits));
    let of_64k = BITS.map(|bits| (any, PageSize::Size64K, bits));
    let only_64k = (PageSizes::Only(PageSize::Size64K), PageSize::Size4K, 0x8000);
    for (page_sizes, size, bits) in of_16k.into_iter().chain(of_64k).chain([only_64k]) {
        let table = pages(size, 0).into_bits() | DEVICES | bits;
        let (faults, value) = faults_of_table(page_sizes, Baser::from_bits(table));
        let register = ITS + u64::from(baser(0));
        let detail = FaultDetail::Value(value);
        assert_eq!(faults, [(FaultReason::UnalignedItsTable, register, detail)], "{size:?}");
    }
}

#[test]
fn a_fault_of_a_failed_command_reports_the_commands_address() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    write_its(&machine, gits::CBASER.offset(), queue(QUEUE).into_bits());
    set_enabled(&machine, true);
    // The queue contains a valid SYNC, an INV for a device beyond the device table, and a command
    // with an unknown opcode.
    for (word, at) in [[5, 0, 0, 0], [0x1_0000_000c, 0, 0, 0], [0x77, 0, 0, 0]].iter().zip(0..) {
        let bytes: Vec<u8> = word.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        machine.ram.write(QUEUE + at * 32, &bytes).unwrap();
    }

    write_its(&machine, gits::CWRITER.offset(), 96);

    let mut commands = Vec::new();
    machine.gic.events().drain(|fault| {
        assert_eq!(fault.frame, RegisterFrame::Its(ITS));
        assert_eq!(fault.address, ITS + u64::from(gits::CREADR.offset()));
        let FaultDetail::Command(command) = fault.detail else { panic!("{fault}") };
        commands.push(command);
    });
    let [refused, unknown] = commands[..] else { panic!("{commands:?}") };
    let CommandFault::Refused(error) = refused.fault else { panic!("{refused}") };
    assert_eq!((error.opcode, error.reason), (Opcode::Inv, CommandErrorReason::DeviceOutOfRange));
    assert_eq!(refused.address, QUEUE + 32);
    assert_eq!(
        refused.to_string(),
        "command at 0x40100020 (opcode 0x0c, INV): DeviceID out of range (error code 0x010c01)"
    );
    let CommandFault::Unknown(opcode) = unknown.fault else { panic!("{unknown}") };
    assert_eq!((opcode.0, unknown.address), (0x77, QUEUE + 64));
    assert_eq!(machine.gic.command_faults(0).unwrap().last, Some(unknown));
}

#[test]
fn a_queue_outside_of_memory_is_a_fault_at_its_register() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    write_its(&machine, gits::CBASER.offset(), queue(END).into_bits());
    set_enabled(&machine, true);

    write_its(&machine, gits::CWRITER.offset(), 32);

    let last = machine.gic.command_faults(0).unwrap().last.unwrap();
    assert_eq!((last.fault, last.address), (CommandFault::Unreadable, END));
    let register = ITS + u64::from(gits::CBASER.offset());
    assert_eq!(faults(&machine), [(FaultReason::ItsTable, register, FaultDetail::Command(last))]);
}

#[test]
fn writes_of_tables_in_use_are_faults_at_their_registers() {
    let machine = its(PageSizes::Only(PageSize::Size64K));
    set_enabled(&machine, true);
    for offset in [gits::CBASER.offset(), baser(0), baser(1)] {
        write_its(&machine, offset, 7);
        let at = ITS + u64::from(offset);
        let detail = FaultDetail::Value(7);
        assert_eq!(faults(&machine), [(FaultReason::ItsTablesInUse, at, detail)]);
    }
    set_lpi_tables(&machine, 0, 15, PENDING);
    enable_lpis(&machine, 0, true);
    for offset in [gicr::PROPBASER.offset(), gicr::PENDBASER.offset()] {
        let at = machine.frame(0) + u64::from(offset);
        machine.write(at, AccessWidth::Double, 7);
        let detail = FaultDetail::Value(7);
        assert_eq!(faults(&machine), [(FaultReason::LpiTablesInUse, at, detail)]);
    }
}

fn set_lpi_tables(machine: &Machine, cpu: usize, id_bits_minus_one: u8, pending: u64) {
    let propbaser =
        Propbaser::new().with_id_bits_minus_one(id_bits_minus_one).with_address(CONFIGURATION);
    machine.write_gicr(cpu, gicr::PROPBASER, propbaser);
    machine.write_gicr(cpu, gicr::PENDBASER, Pendbaser::from(pending));
}

fn enable_lpis(machine: &Machine, cpu: usize, enable: bool) {
    machine.write(machine.frame(cpu), AccessWidth::Word, enable.into());
}

/// Builds a fault at a redistributor register.
fn at_gicr(
    machine: &Machine,
    cpu: usize,
    reason: FaultReason,
    at: u32,
    detail: FaultDetail,
) -> Fault {
    (reason, machine.frame(cpu) + u64::from(at), detail)
}

#[test]
fn an_unaligned_pending_table_is_recorded_at_each_enable() {
    let machine = its(PageSizes::Any);
    let unaligned = BITS.map(|bit| (PENDING | bit, 2));
    for (written, enables) in unaligned.into_iter().chain([(PENDING | 0x0f80, 0)]) {
        set_lpi_tables(&machine, 0, 15, written);
        assert_eq!(faults(&machine), [], "the table takes effect when LPIs are enabled");
        let (reason, detail) = (FaultReason::UnalignedPendingTable, FaultDetail::Value(written));
        let fault = at_gicr(&machine, 0, reason, gicr::PENDBASER.offset(), detail);
        for _ in 0..2 {
            enable_lpis(&machine, 0, true);
            enable_lpis(&machine, 0, true);
            enable_lpis(&machine, 0, false);
        }
        assert_eq!(faults(&machine), vec![fault; enables]);
    }
}

#[test]
fn overlapping_pending_tables_in_use_are_a_fault() {
    let machine = its(PageSizes::Any);
    // A pending table for 20 INTID bits takes 128 KiB.
    set_lpi_tables(&machine, 0, 19, PENDING);
    set_lpi_tables(&machine, 1, 19, PENDING + 0x1_0000);
    set_lpi_tables(&machine, 2, 19, PENDING + 0x3_0000);
    let shared = |cpu, other| {
        let detail = FaultDetail::Redistributor(Cpu::new(other));
        at_gicr(&machine, cpu, FaultReason::SharedPendingTable, gicr::PENDBASER.offset(), detail)
    };

    (0..3).for_each(|cpu| enable_lpis(&machine, cpu, true));
    assert_eq!(faults(&machine), [shared(1, 0)]);

    enable_lpis(&machine, 0, false);
    enable_lpis(&machine, 0, true);
    assert_eq!(faults(&machine), [shared(0, 1)]);

    enable_lpis(&machine, 0, false);
    enable_lpis(&machine, 1, false);
    enable_lpis(&machine, 1, true);
    assert_eq!(faults(&machine), [], "the other table is not in use");
}

#[test]
fn lpi_tables_too_small_or_outside_of_memory_are_faults() {
    let machine = its(PageSizes::Any);
    set_lpi_tables(&machine, 0, 12, PENDING);
    enable_lpis(&machine, 0, true);
    let written = FaultDetail::Value(CONFIGURATION | 0xc);
    let small = at_gicr(&machine, 0, FaultReason::LpiTable, gicr::PROPBASER.offset(), written);
    assert_eq!(faults(&machine), [small]);

    set_lpi_tables(&machine, 1, 15, END);
    enable_lpis(&machine, 1, true);
    let missing = FaultDetail::Memory(END + 0x400);
    let outside = at_gicr(&machine, 1, FaultReason::LpiTable, gicr::PENDBASER.offset(), missing);
    assert_eq!(faults(&machine), [outside]);
}

#[test]
fn a_write_for_a_missing_interrupt_is_a_fault_at_the_written_register() {
    let machine = its(PageSizes::Any);
    let distributor = machine.gic.config().distributor;
    let absent = IntId::new(machine.gic.config().spis + 32);
    let enable = gicd::ISENABLER.locate(absent).unwrap();
    let route = gicd::irouter(absent).unwrap();
    let interrupt = FaultDetail::Interrupt(absent);
    let expected = [
        (enable.register().offset(), u64::from(enable.mask()), AccessWidth::Word, interrupt),
        (route.offset(), 0, AccessWidth::Double, interrupt),
        (gicd::SETSPI_NSR.offset(), absent.get().into(), AccessWidth::Word, interrupt),
        (gicd::CLRSPI_NSR.offset(), absent.get().into(), AccessWidth::Word, interrupt),
    ];
    for (offset, value, width, detail) in expected {
        let address = distributor + u64::from(offset);
        machine.write(address, width, value);
        assert_eq!(faults(&machine), [(FaultReason::NoSuchInterrupt, address, detail)]);
    }
}
