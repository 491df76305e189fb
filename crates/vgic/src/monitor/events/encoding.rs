//! Encodes faults as words that can be stored separately.

use super::command_fault::{CommandFault, FailedCommand};
use super::fault::{FaultDetail, FaultReason, GuestFault, RegisterFrame};
use gic_arch::IntId;
use gic_arch::its::CommandErrorReason::{
    self, CollectionOutOfRange, DeviceOutOfRange, EntryInvalid, EventOutOfRange, IttSizeOutOfRange,
    PhysicalIdOutOfRange, ProcessorNumberOutOfRange, UnmappedCollection, UnmappedDevice,
    UnmappedInterrupt,
};
use gic_arch::its::{CommandError, Opcode, UnknownOpcode};
use msi_types::{Cpu, DeviceId, EventId};

/// A fault without its kind. The first word holds the frame type and the detail type, and the
/// register's offset in its upper half. The second word holds the frame's base, and the remaining
/// words hold the detail.
pub(super) type Words = [u64; 4];

/// Reasons of command errors, indexed by number.
const COMMAND_REASONS: [CommandErrorReason; 10] = [
    DeviceOutOfRange,
    IttSizeOutOfRange,
    ProcessorNumberOutOfRange,
    CollectionOutOfRange,
    UnmappedDevice,
    EventOutOfRange,
    PhysicalIdOutOfRange,
    UnmappedInterrupt,
    UnmappedCollection,
    EntryInvalid,
];

pub(super) fn to_words(fault: &GuestFault) -> Words {
    let frame: u8 = match fault.frame {
        RegisterFrame::Distributor(_) => 0,
        RegisterFrame::MbiAlias(_) => 1,
        RegisterFrame::Redistributor(_) => 2,
        RegisterFrame::Its(_) => 3,
        RegisterFrame::V2m(_) => 4,
    };
    let (form, first, second): (u8, u64, u64) = match fault.detail {
        FaultDetail::None => (0, 0, 0),
        FaultDetail::Value(value) => (1, value, 0),
        FaultDetail::Interrupt(intid) => (2, intid.get().into(), 0),
        FaultDetail::Memory(address) => (3, address, 0),
        FaultDetail::Message { device, event } => (4, device.get().into(), event.get().into()),
        FaultDetail::Command(FailedCommand { address, fault }) => (5, address, code_of(fault)),
        FaultDetail::Redistributor(cpu) => (6, cpu.get().into(), 0),
    };
    let kinds = u64::from(u16::from_le_bytes([form, frame]));
    [kinds | fault.offset() << 32, fault.frame.base(), first, second]
}

pub(super) fn from_words(reason: FaultReason, words: Words) -> GuestFault {
    let [kinds, base, first, second] = words;
    let [form, frame, ..] = kinds.to_le_bytes();
    let frame = match frame {
        0 => RegisterFrame::Distributor(base),
        1 => RegisterFrame::MbiAlias(base),
        2 => RegisterFrame::Redistributor(base),
        3 => RegisterFrame::Its(base),
        _ => RegisterFrame::V2m(base),
    };
    let detail = match form {
        1 => FaultDetail::Value(first),
        2 => FaultDetail::Interrupt(IntId::new(low(first))),
        3 => FaultDetail::Memory(first),
        4 => FaultDetail::Message {
            device: DeviceId::new(low(first)),
            event: EventId::new(low(second)),
        },
        5 => FaultDetail::Command(FailedCommand { address: first, fault: fault_of(second) }),
        6 => FaultDetail::Redistributor(Cpu::new(low(first))),
        _ => FaultDetail::None,
    };
    GuestFault::new(reason, (frame, low(kinds >> 32)), detail)
}

fn code_of(fault: CommandFault) -> u64 {
    let (kind, opcode, reason) = match fault {
        CommandFault::Refused(error) => (0, error.opcode.number(), error.reason as u8),
        CommandFault::Unknown(UnknownOpcode(opcode)) => (1, opcode, 0),
        CommandFault::NoRoom(opcode) => (2, opcode.number(), 0),
        CommandFault::OutOfMemory(opcode) => (3, opcode.number(), 0),
        CommandFault::Unreadable => (4, 0, 0),
    };
    u32::from_le_bytes([kind, opcode, reason, 0]).into()
}

fn fault_of(code: u64) -> CommandFault {
    let [kind, number, reason, ..] = code.to_le_bytes();
    let reason = COMMAND_REASONS.get(usize::from(reason)).copied().unwrap_or(EntryInvalid);
    match (kind, Opcode::from_number(number)) {
        (0, Some(opcode)) => CommandFault::Refused(CommandError { opcode, reason }),
        (2, Some(opcode)) => CommandFault::NoRoom(opcode),
        (3, Some(opcode)) => CommandFault::OutOfMemory(opcode),
        (4, _) => CommandFault::Unreadable,
        _ => CommandFault::Unknown(UnknownOpcode(number)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the word was converted from 32 bits")]
const fn low(word: u64) -> u32 {
    word as u32
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use gic_arch::gits;

    fn details() -> Vec<FaultDetail> {
        let refused = Opcode::ALL.into_iter().flat_map(|opcode| {
            COMMAND_REASONS.map(|reason| CommandFault::Refused(CommandError { opcode, reason }))
        });
        let short = Opcode::ALL
            .into_iter()
            .flat_map(|opcode| [CommandFault::NoRoom(opcode), CommandFault::OutOfMemory(opcode)]);
        let faults = refused
            .chain(short)
            .chain([CommandFault::Unknown(UnknownOpcode(0xff)), CommandFault::Unreadable]);
        let commands =
            faults.map(|fault| FaultDetail::Command(FailedCommand { address: 1 << 51, fault }));
        let (device, event) = (DeviceId::new(u32::MAX), EventId::new(0x8000_0001));
        commands
            .chain([
                FaultDetail::None,
                FaultDetail::Value(u64::MAX),
                FaultDetail::Interrupt(IntId::new(u32::MAX)),
                FaultDetail::Memory(0xffff_ffff_ffff_fff8),
                FaultDetail::Message { device, event },
                FaultDetail::Redistributor(Cpu::new(511)),
            ])
            .collect()
    }

    #[test]
    fn a_fault_round_trips_through_its_words() {
        let base = 0xf_ffff_ffff_0000;
        let frames = [
            RegisterFrame::Distributor(base),
            RegisterFrame::MbiAlias(base),
            RegisterFrame::Redistributor(base),
            RegisterFrame::Its(base),
            RegisterFrame::V2m(base),
        ];
        for detail in details() {
            for frame in frames {
                let at = (frame, gits::TRANSLATER.offset());
                let fault = GuestFault::new(FaultReason::Budget, at, detail);
                assert_eq!(from_words(fault.reason, to_words(&fault)), fault);
            }
        }
    }
}
