//! The register writes and commands of ArceOS (`somehal` 0.11.3, `arm-gic-driver` 0.18.1), as
//! recorded in an EL2 hypervisor's trace, with RAM moved to 0x4000_0000. The guest makes three
//! mistakes: its command queue is aligned to only 4 KiB, it does not read back the page size of its
//! ITS tables, and its redistributors share one pending table.

use doorbell_test_support::guest::Machine;
use gic_arch::{gicr, gits};
use msi_types::{Cpu, Delivery, DeviceId, MsiMessage};
use vgic::its::ItsConfig;
use vgic::{AccessWidth, FaultDetail, FaultReason, GuestFault, GuestMemory, VgicConfig};

const ITS: u64 = 0x0808_0000;
const PENDING: u64 = 0x4002_0000;
const CBASER: u64 = 0xb8e0_0000_0000_0401;
const COMMANDS: [[u64; 4]; 5] = [
    [0x9, 0, 0x8000_0000_0000_0000, 0],             // MAPC 0 to 0
    [0x5, 0, 0, 0],                                 // SYNC 0
    [0x8_0000_0008, 0x6, 0x8000_0000_4004_4400, 0], // MAPD 8
    [0x8_0000_000a, 0x2000_0000_0000, 0, 0],        // MAPTI 8, 0, 8192, 0
    [0x8_0000_000c, 0, 0, 0],                       // INV 8, 0
];
/// The guest requests table pages of 4 KiB, but the page size is fixed at 64 KiB. Therefore, its
/// 128 pages of device table extend beyond the end of memory, and bits 15:12 of the collection
/// table's address are interpreted as bits 51:48.
const TABLES: [(FaultReason, u64, FaultDetail); 2] = [
    (FaultReason::ItsTable, ITS + 0x100, FaultDetail::Memory(0x4040_0000)),
    (FaultReason::UnalignedItsTable, ITS + 0x108, FaultDetail::Value(0xbce7_0000_4000_4600)),
];

fn parts(fault: &GuestFault) -> (FaultReason, u64, FaultDetail) {
    (fault.reason, fault.address, fault.detail)
}

/// Boots the guest up to its message. Returns how the message was delivered, and the faults so far.
fn boot(queue: u64) -> (Delivery, Vec<GuestFault>, Machine) {
    let config = VgicConfig::new(1).with_lpi_id_bits(Some(16)).with_its(vec![ItsConfig::new(ITS)]);
    let machine = Machine::running(config);
    machine.gic.events().drain(drop); // `running` writes registers of absent SPIs
    machine.ram.write(0x4001_0000, &[0xa1]).unwrap();
    machine.write_gicr(0, gicr::PROPBASER, gicr::Propbaser::from(0x0700_0000_4001_038f));
    machine.write_gicr(0, gicr::PENDBASER, gicr::Pendbaser::from(0x0700_0000_0000_0380 | PENDING));
    machine.write(machine.frame(0), AccessWidth::Word, 3);
    let write = |offset: u32, value| {
        machine.write(ITS + u64::from(offset), AccessWidth::Double, value);
    };
    write(gits::CBASER.offset(), CBASER | queue);
    write(gits::BASER.get(0).unwrap().offset(), 0xb9e7_0000_4008_047f);
    write(gits::BASER.get(1).unwrap().offset(), 0xbce7_0000_4000_4400);
    machine.write(ITS, AccessWidth::Word, 0x8000_0001);
    for (command, at) in COMMANDS.iter().zip((0..).step_by(32)) {
        let bytes: Vec<u8> = command.iter().flat_map(|word| word.to_le_bytes()).collect();
        machine.ram.write(queue + at, &bytes).unwrap();
        write(gits::CWRITER.offset(), at + 32);
    }
    let message = MsiMessage { address: ItsConfig::new(ITS).doorbell(), data: 0 };
    let delivery = machine.gic.its(0).unwrap().signal_msi(DeviceId::new(8), message);
    let mut faults = Vec::new();
    machine.gic.events().drain(|fault| faults.push(fault));
    (delivery, faults, machine)
}

#[test]
fn arceos_receives_a_message_with_an_aligned_queue() {
    let (delivery, faults, mut machine) = boot(PENDING + 0x1_0000);
    assert_eq!(delivery, Delivery::Pending);
    assert_eq!(faults.iter().map(parts).collect::<Vec<_>>(), TABLES);
    assert_eq!(machine.acknowledge(0), 8192);
}

#[test]
fn an_unaligned_queue_is_reported_at_the_cbaser_write() {
    // The queue is 8 KiB above the pending table. The model clears the low address bits, so it
    // would use the address of the pending table.
    let queue = PENDING + 0x2000;

    let (delivery, faults, _) = boot(queue);

    assert_eq!(delivery, Delivery::Blocked);
    let unaligned = (
        FaultReason::UnalignedQueue,
        ITS + u64::from(gits::CBASER.offset()),
        FaultDetail::Value(CBASER | queue),
    );
    let expected = [unaligned, TABLES[0], TABLES[1]];
    assert_eq!(faults.iter().take(3).map(parts).collect::<Vec<_>>(), expected);
    assert_eq!(
        faults[0].to_string(),
        "its@8080000: GITS_CBASER = 0xb8e0000040022401: the command queue is not aligned to \
         64 KiB: bits 15:12 are treated as zero"
    );
    assert_eq!(
        faults[3].to_string(),
        "its@8080000: command at 0x40020000 (opcode 0x00, unknown): no physical ITS command has \
         this opcode"
    );
}

#[test]
fn two_redistributors_sharing_a_pending_table_record_a_fault() {
    let config = VgicConfig::new(2).with_lpi_id_bits(Some(16)).with_its(vec![ItsConfig::new(ITS)]);
    let machine = Machine::running(config);
    machine.gic.events().drain(drop);
    for cpu in [0, 1] {
        machine.write_gicr(cpu, gicr::PROPBASER, gicr::Propbaser::from(0x0700_0000_4001_038f));
        let pending = gicr::Pendbaser::from(0x0700_0000_0000_0380 | PENDING);
        machine.write_gicr(cpu, gicr::PENDBASER, pending);
        machine.write(machine.frame(cpu), AccessWidth::Word, 1);
    }

    let mut faults = Vec::new();
    machine.gic.events().drain(|fault| faults.push(fault));

    let pendbaser = machine.frame(1) + u64::from(gicr::PENDBASER.offset());
    let of_first = FaultDetail::Redistributor(Cpu::new(0));
    let shared = (FaultReason::SharedPendingTable, pendbaser, of_first);
    assert_eq!(faults.iter().map(parts).collect::<Vec<_>>(), [shared]);
}
