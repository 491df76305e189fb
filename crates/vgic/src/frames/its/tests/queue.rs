//! Tests for the command queue and the registers.

use super::rig::*;
use crate::AccessWidth::{Double, Half, Word};
use crate::frames::its::{
    Coherence, CommandFault, ErrorPolicy, Its, ItsConfig, PageSizes, RedistributorNaming,
    TableLevels, Targets,
};
use crate::lpi::LpiConfig;
use crate::monitor::GuestMemory;
use crate::monitor::events::{FaultDetail, FaultReason};
use alloc::vec;
use alloc::vec::Vec;
use gic_arch::Shareability;
use gic_arch::gits::{self, Baser, Cbaser, Ctlr, Cwriter, PageSize, TableKind, Typer};
use gic_arch::its::{
    Command, CommandError, CommandErrorReason, Level1Entry, MapAction, Opcode, RdBase,
};
use msi_types::{Delivery, DeviceId, EventId, MsiMessage, SignalMsi};

const BAD: [u64; 4] = [0xff, 0, 0, 0];

fn stalling() -> ItsConfig {
    ItsConfig::new(BASE).with_error_policy(ErrorPolicy::Stall)
}

fn last_reason(rig: &Rig) -> Option<(Opcode, CommandErrorReason)> {
    match rig.its.command_faults().last.map(|command| command.fault) {
        Some(CommandFault::Refused(CommandError { opcode, reason })) => Some((opcode, reason)),
        _ => None,
    }
}

#[test]
fn the_its_table_lists_each_register_once_in_order() {
    let mut expected = gits::REGISTERS.to_vec();
    expected.push(crate::frames::registers::ID_REGISTERS);
    expected.sort_by_key(|info| info.offset);
    let found: Vec<_> = Its::registers().iter().map(|register| register.info).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_stalled_queue_resumes_at_the_bad_command_after_a_retry() {
    let rig = Rig::running_with(1, stalling());
    let bad_at = rig.cwriter().offset();
    rig.queue_raw([BAD, mapd(1, 1).encode(), mapti(1, 0, 8200, 0).encode()]);
    assert_eq!((rig.creadr().stalled(), rig.creadr().offset()), (true, bad_at));
    rig.its.try_poll(true);
    assert_eq!(rig.send(1, 0), Delivery::Blocked);

    let mended: Vec<u8> = sync(0).encode().into_iter().flat_map(u64::to_le_bytes).collect();
    rig.ram.write(QUEUE + u64::from(bad_at), &mended).unwrap();
    let retry = rig.cwriter().with_retry(true);
    rig.its.write(gits::CWRITER.offset(), Double, retry.into_bits());

    assert!(!rig.creadr().stalled());
    assert_eq!(rig.creadr().offset(), rig.cwriter().offset());
    assert!(!rig.cwriter().retry());
    assert_eq!(rig.send(1, 0), Delivery::Pending);
}

#[test]
fn a_queue_outside_memory_stalls_whatever_the_policy() {
    let rig = Rig::running(1);
    rig.set_enabled(false);
    let queue = Cbaser::new().with_address(0x9000_0000).with_valid(true);
    rig.its.write(gits::CBASER.offset(), Double, queue.into_bits());
    rig.set_enabled(true);

    rig.its.write(gits::CWRITER.offset(), Double, 32);

    assert!(rig.creadr().stalled());
    let last = rig.its.command_faults().last.unwrap();
    assert_eq!((last.address, last.fault), (0x9000_0000, CommandFault::Unreadable));
}

#[test]
fn a_writer_offset_beyond_the_queue_is_dropped() {
    let rig = Rig::running(1);
    let before = rig.cwriter();

    rig.its.write(gits::CWRITER.offset(), Double, Cwriter::at_offset(0x1_0000).into_bits());

    assert_eq!(rig.cwriter(), before);
}

#[test]
fn the_queue_wraps_at_its_end() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1)]);

    for _ in 0..5 {
        rig.run((0..600).map(|_| mapti(1, 0, 8200, 0)));
    }

    assert_eq!(rig.its.command_faults().count, 0);
    assert_eq!(rig.creadr().offset(), (1 + 1 + 3000) % 2048 * 32);
}

#[test]
fn each_access_executes_at_most_its_budget_of_commands() {
    let rig = Rig::running_with(1, ItsConfig::new(BASE).with_work_per_access(10));
    let start = rig.cwriter().offset();

    rig.queue_raw((0..25).map(|_| sync(0).encode()));

    let done = |rig: &Rig| (rig.creadr().offset() - start) / 32;
    assert_eq!(done(&rig), 10);
    assert_eq!(done(&rig), 20);
    assert_eq!(done(&rig), 25);
}

#[test]
fn no_command_runs_while_the_its_is_disabled() {
    let rig = Rig::running(1);
    rig.set_enabled(false);
    let at = rig.creadr();

    rig.queue_raw([mapd(1, 1).encode()]);

    assert_eq!(rig.creadr(), at);
    rig.set_enabled(true);
    assert_eq!(rig.creadr().offset(), rig.cwriter().offset());
}

#[test]
fn tables_and_queue_cannot_be_changed_while_the_its_is_enabled() {
    let rig = Rig::running(1);
    let read = |offset| rig.its.read(offset, Double);
    let offsets = [gits::CBASER.offset(), gits::BASER.offset_of(0), gits::BASER.offset_of(1)];
    let before = offsets.map(read);

    for offset in offsets {
        rig.its.write(offset, Double, 0);
    }

    assert_eq!(offsets.map(read), before);
}

#[test]
fn an_idle_its_is_quiescent_exactly_while_disabled() {
    let rig = Rig::new(1, ItsConfig::new(BASE));
    let ctlr =
        |rig: &Rig| Ctlr::from_bits(rig.its.read(gits::CTLR.offset(), Word).try_into().unwrap());
    assert_eq!((ctlr(&rig).enabled(), ctlr(&rig).quiescent()), (false, true));
    rig.set_enabled(true);
    assert_eq!((ctlr(&rig).enabled(), ctlr(&rig).quiescent()), (true, false));
}

#[test]
fn read_only_baser_fields_survive_a_write_of_all_ones() {
    let rig =
        Rig::new(1, ItsConfig::new(BASE).with_collection_table(None).with_held_collections(4));

    for index in 0..8 {
        rig.its.write(gits::BASER.offset_of(index), Double, u64::MAX);
    }

    let devices = Baser::from_bits(rig.its.read(gits::BASER.offset_of(0), Double));
    assert_eq!((devices.kind(), devices.entry_bytes()), (TableKind::Devices, 8));
    assert_eq!(devices.page_size(), PageSize::Size64K);
    assert!(devices.indirect());
    assert!((1..8).all(|index| rig.its.read(gits::BASER.offset_of(index), Double) == 0));
}

#[test]
fn a_flat_table_ignores_indirect_and_keeps_a_written_page_size() {
    let config =
        ItsConfig::new(BASE).with_device_table(TableLevels::Flat).with_page_sizes(PageSizes::Any);
    let rig = Rig::new(1, config);
    let written = Baser::new().with_indirect(true).with_page_size(PageSize::Size16K);

    rig.its.write(gits::BASER.offset_of(0), Double, written.into_bits());

    let read = Baser::from_bits(rig.its.read(gits::BASER.offset_of(0), Double));
    assert_eq!((read.indirect(), read.page_size()), (false, PageSize::Size16K));
}

#[test]
fn a_non_coherent_its_reads_shareability_as_zero() {
    let config = ItsConfig::new(BASE).with_coherence(Coherence::NonCoherent);
    let rig = Rig::new(1, config);

    let shareable = Cbaser::new().with_shareability(Shareability::Inner).into_bits();
    rig.its.write(gits::CBASER.offset(), Double, shareable);
    rig.its.write(gits::BASER.offset_of(0), Double, shareable);

    assert_eq!(rig.its.read(gits::CBASER.offset(), Double), 0);
    let table = Baser::from_bits(rig.its.read(gits::BASER.offset_of(0), Double));
    assert_eq!(table.shareability(), Shareability::Non);
}

#[test]
fn a_64_bit_register_can_be_written_in_halves() {
    let rig = Rig::new(1, ItsConfig::new(BASE));

    rig.its.write(gits::CBASER.offset(), Word, 0x4000_0003);
    rig.its.write(gits::CBASER.offset() + 4, Word, 0x8000_0001);

    assert_eq!(rig.its.read(gits::CBASER.offset(), Double), 0x8000_0001_4000_0003);
    assert_eq!(rig.its.read(gits::CBASER.offset() + 4, Word), 0x8000_0001);
}

#[test]
fn its_typer_reports_the_configuration() {
    let config = ItsConfig::new(BASE)
        .with_device_id_bits(20)
        .with_event_id_bits(11)
        .with_held_collections(5)
        .with_redistributor_naming(RedistributorNaming::Address);
    let rig = Rig::new(1, config);
    let typer = Typer::from_bits(rig.its.read(gits::TYPER.offset(), Double));
    assert_eq!(
        (typer.device_id_bits(), typer.event_id_bits(), typer.itt_entry_bytes()),
        (20, 11, 8)
    );
    assert_eq!((typer.hcc(), typer.cct(), typer.pta(), typer.physical()), (5, true, true, true));
}

#[test]
fn device_ids_beyond_the_table_are_out_of_range() {
    let rig = Rig::running(1);

    rig.run([mapd(8191, 1)]);
    assert_eq!(rig.its.command_faults().count, 0);

    rig.run([mapd(8192, 1)]);
    assert_eq!(last_reason(&rig), Some((Opcode::Mapd, CommandErrorReason::DeviceOutOfRange)));
}

#[test]
fn a_two_level_table_covers_only_valid_first_level_entries() {
    let rig = Rig::new(1, ItsConfig::new(BASE));
    rig.provide_tables();
    let table = Baser::new().with_indirect(true).with_address(DEVICES).with_valid(true);
    rig.its.write(gits::BASER.offset_of(0), Double, table.into_bits());
    rig.set_enabled(true);
    rig.run([mapd(0x2000, 1)]);
    assert_eq!(last_reason(&rig), Some((Opcode::Mapd, CommandErrorReason::DeviceOutOfRange)));

    let entry = Level1Entry::new().with_address(RAM).with_valid(true);
    rig.ram.write_u64(DEVICES + 8, entry.into_bits()).unwrap();
    rig.run([mapd(0x2000, 1), mapd(0x3fff, 1)]);

    assert_eq!(rig.its.command_faults().count, 1, "an entry becomes valid without a command");
}

#[test]
fn collections_held_by_the_its_need_no_table() {
    let config = ItsConfig::new(BASE).with_held_collections(2).with_collection_table(None);
    let rig = Rig::new(1, config);
    rig.provide_tables();
    rig.set_enabled(true);

    rig.run([mapc(0, 0), mapc(1, 0)]);
    assert_eq!(rig.its.command_faults().count, 0);
    rig.run([mapc(2, 0)]);
    assert_eq!(last_reason(&rig), Some((Opcode::Mapc, CommandErrorReason::CollectionOutOfRange)));
}

#[test]
fn a_collection_id_beyond_the_typer_limit_is_out_of_range() {
    let config = ItsConfig::new(BASE).with_collection_id_bits(Some(2)).with_held_collections(1);
    let rig = Rig::running_with(1, config);
    let typer = Typer::from_bits(rig.its.read(gits::TYPER.offset(), Double));
    assert_eq!((typer.cil(), typer.collection_id_bits_minus_one()), (true, 1));

    rig.run([mapc(3, 0), mapd(1, 1), mapti(1, 0, 8200, 3)]);
    assert_eq!(rig.its.command_faults().count, 0);
    rig.run([mapc(4, 0)]);
    assert_eq!(last_reason(&rig), Some((Opcode::Mapc, CommandErrorReason::CollectionOutOfRange)));
    rig.run([mapti(1, 1, 8201, 4)]);
    assert_eq!(last_reason(&rig), Some((Opcode::Mapti, CommandErrorReason::CollectionOutOfRange)));
}

#[test]
fn each_operand_out_of_range_has_its_reason() {
    use CommandErrorReason::*;
    let rig = Rig::running(2);
    rig.run([mapd(1, 2), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 9)]);
    let beyond = |collection| Command::Mapc {
        collection: icid(collection),
        target: target(2),
        action: MapAction::Map,
    };
    let wide = Command::Mapd {
        device: DeviceId::new(2),
        itt: RAM,
        event_bits_minus_one: 16,
        action: MapAction::Map,
    };
    for (command, reason) in [
        (wide, IttSizeOutOfRange),
        (beyond(0), ProcessorNumberOutOfRange),
        (mapc(8192, 0), CollectionOutOfRange),
        (mapti(7, 0, 8200, 0), UnmappedDevice),
        (mapti(1, 4, 8200, 0), EventOutOfRange),
        (mapti(1, 2, 8191, 0), PhysicalIdOutOfRange),
        (mapti(1, 2, 0x1_0000, 0), PhysicalIdOutOfRange),
        (mapti(1, 2, 8200, 8192), CollectionOutOfRange),
        (movi(1, 0, 9), UnmappedCollection),
        (movi(1, 1, 0), UnmappedCollection),
        (movi(1, 2, 0), UnmappedInterrupt),
        (int(1, 2), UnmappedInterrupt),
        (int(1, 1), UnmappedCollection),
        (clear(9000, 0), DeviceOutOfRange),
        (inv(1, 7), EventOutOfRange),
        (discard(1, 3), UnmappedInterrupt),
        (invall(9), UnmappedCollection),
        (movall(0, 2), ProcessorNumberOutOfRange),
        (sync(2), ProcessorNumberOutOfRange),
    ] {
        rig.run([command]);
        assert_eq!(last_reason(&rig), Some((command.opcode(), reason)), "{command}");
    }
}

#[test]
fn an_its_with_pta_identifies_redistributors_by_address() {
    let config = ItsConfig::new(BASE).with_redistributor_naming(RedistributorNaming::Address);
    let rig = Rig::running(2);
    let addresses = Targets::Addresses([0x80a_0000, 0x80c_0000].into());
    let its = Its::new(config, addresses, rig.lpis.clone(), rig.events.clone()).unwrap();
    let rig = Rig { its, ..rig };
    rig.provide_tables();
    rig.set_enabled(true);
    let second = RdBase::from_address(0x80c_0000);
    let mapc = Command::Mapc { collection: icid(0), target: second, action: MapAction::Map };

    rig.run([mapc, mapd(1, 1), mapti(1, 0, 8200, 0), int(1, 0)]);

    assert_eq!(rig.its.command_faults().count, 0);
    assert_eq!(drain(&mut rig.vcpu(1)), [8200]);
}

#[test]
fn several_itses_keep_the_same_device_ids_apart() {
    let one = Rig::running(1);
    let targets = Targets::ProcessorNumbers([0].into());
    let its =
        Its::new(ItsConfig::new(BASE + 0x2_0000), targets, one.lpis.clone(), one.events.clone())
            .unwrap();
    one.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);

    assert_eq!(its.translate(DeviceId::new(1), 0), Delivery::Blocked);
    assert_eq!(one.send(1, 0), Delivery::Pending);
}

#[test]
fn only_the_exact_doorbell_address_accepts_messages() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 1, 8200, 0)]);
    let send = |address| rig.its.signal_msi(DeviceId::new(1), MsiMessage { address, data: 1 });

    assert_eq!(send(BASE + 0x1_0044), Delivery::NoDoorbell);
    assert_eq!(send(BASE + 0x40), Delivery::NoDoorbell);
    assert_eq!(send(BASE + 0x1_0040), Delivery::Pending);
}

#[test]
fn a_write_to_the_doorbell_without_a_device_id_does_nothing() {
    let rig = Rig::running(1);
    rig.run([mapd(0, 1), mapti(0, 0, 8200, 0)]);

    rig.its.write(gits::TRANSLATER.offset(), Half, 0);

    assert_eq!(rig.pending(0), NO_LPIS);
}

#[test]
fn removing_the_collection_table_keeps_only_held_collections() {
    let rig = Rig::running_with(1, ItsConfig::new(BASE).with_held_collections(1));
    rig.run([mapc(1, 0), mapd(1, 1), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 1)]);
    rig.set_enabled(false);
    rig.its.write(gits::BASER.offset_of(1), Double, 0);
    rig.set_enabled(true);

    assert_eq!(rig.send(1, 0), Delivery::Pending);
    assert_eq!(rig.send(1, 1), Delivery::Blocked);
}

#[test]
fn an_its_reset_drops_mappings_tables_and_pending_lpis() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0), int(1, 0)]);

    rig.its.reset();

    assert_eq!(rig.pending(0), NO_LPIS);
    assert_eq!(rig.its.read(gits::CBASER.offset(), Double), 0);
    rig.provide_tables();
    rig.set_enabled(true);
    assert_eq!(rig.send(1, 0), Delivery::Blocked);
}

#[test]
fn mapping_beyond_the_budget_fails_and_keeps_existing_mappings() {
    let size = LpiConfig { entries: 128, devices: 3, ..LpiConfig::new(1) };
    let rig = Rig::sized(size, ItsConfig::new(BASE));
    rig.provide_tables();
    rig.set_enabled(true);
    rig.enable_lpis(0);
    rig.run([mapc(0, 0), mapd(1, 16), mapd(2, 1), mapd(3, 1), mapd(4, 1)]);
    let last = |rig: &Rig| rig.its.command_faults().last.map(|command| command.fault);
    assert_eq!(last(&rig), Some(CommandFault::NoRoom(Opcode::Mapd)));

    rig.run([mapti(1, 0, 8200, 0), mapti(1, 0x8000, 8201, 0), mapti(1, 0xffff, 8202, 0)]);

    assert_eq!(last(&rig), Some(CommandFault::NoRoom(Opcode::Mapti)));
    assert_eq!(rig.send(1, 0x8000), Delivery::Pending);
    assert_eq!(rig.send(1, 0xffff), Delivery::Blocked);
    rig.run([unmapd(1), mapti(2, 0, 8203, 0)]);
    assert_eq!(rig.send(2, 0), Delivery::Pending, "unmapped events must return their budget");
}

#[test]
fn events_of_a_device_with_16_event_id_bits_are_mapped_sparsely() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 16)]);
    let events = [0, 31, 32, 2047, 2048, 0x7fff, 0xffff];
    rig.run(events.iter().zip(8200..).map(|(event, lpi)| mapti(1, *event, lpi, 0)));

    for event in events {
        assert_eq!(rig.send(1, event), Delivery::Pending, "event {event}");
    }
    assert_eq!(rig.send(1, 1), Delivery::Blocked);
    assert_eq!(rig.send(1, 0x1_0000), Delivery::Blocked);
    assert_eq!(drain(&mut rig.vcpu(0)).len(), events.len());
}

#[test]
fn device_ids_of_32_bits_are_mapped_sparsely() {
    let rig = Rig::new(1, ItsConfig::new(BASE).with_device_id_bits(32));
    rig.provide_tables();
    let table = Baser::new()
        .with_indirect(true)
        .with_pages_minus_one(63)
        .with_address(DEVICES)
        .with_valid(true);
    rig.its.write(gits::BASER.offset_of(0), Double, table.into_bits());
    rig.set_enabled(true);
    rig.enable_lpis(0);
    rig.run([mapc(0, 0)]);
    for device in [0u32, 0x1234_5678, 0xffff_ffff] {
        let entry = Level1Entry::new().with_address(RAM).with_valid(true);
        rig.ram.write_u64(DEVICES + u64::from(device / 8192) * 8, entry.into_bits()).unwrap();
        rig.run([mapd(device, 1), mapti(device, 1, 8200, 0)]);
        assert_eq!(rig.send(device, 1), Delivery::Pending, "device {device:#x}");
    }
}

#[test]
fn a_dropped_message_is_recorded_with_its_reason() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 3)]);
    for (device, event) in [(7, 0), (1, 4), (2, 0), (1, 1)] {
        rig.run(if device == 2 { vec![mapd(2, 1)] } else { Vec::new() });
        rig.send(device, event);
    }
    rig.set_enabled(false);
    rig.send(1, 0);
    rig.set_enabled(true);
    rig.disable_lpis(0);
    rig.send(1, 0);

    let mut dropped = Vec::new();
    rig.events.drain(|fault| dropped.push((fault.reason, fault.address, fault.detail)));
    let message = |(reason, device, event)| {
        let (device, event) = (DeviceId::new(device), EventId::new(event));
        (reason, rig.its.config.doorbell(), FaultDetail::Message { device, event })
    };
    let expected = [
        (FaultReason::UnmappedDevice, 7, 0),
        (FaultReason::EventOutOfRange, 1, 4),
        (FaultReason::UnmappedEvent, 2, 0),
        (FaultReason::UnmappedCollection, 1, 1),
        (FaultReason::ItsDisabled, 1, 0),
        (FaultReason::LpisDisabled, 1, 0),
    ];
    assert_eq!(dropped, expected.map(message));
}
