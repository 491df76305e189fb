//! ITS commands, typed by hand from the figures in IHI 0069 §5.3 as four little-endian words each.

use gic_arch::its::{
    CollectionId, Command, CommandError, CommandErrorReason, MapAction, Opcode, RdBase,
    VirtualCommand, VpeId,
};
use msi_types::{DeviceId, EventId};

const DEVICE: DeviceId = DeviceId::new(0x89AB_CDEF);
const EVENT: EventId = EventId::new(0x0123_4567);
const COLLECTION: CollectionId = CollectionId::new(0xBEEF);

/// The first word of a command for [`DEVICE`], without the opcode.
const OF_DEVICE: u64 = 0x89AB_CDEF_0000_0000;

#[test]
fn commands_encode_as_specified() {
    let (device, event, collection) = (DEVICE, EVENT, COLLECTION);
    let target = RdBase::from_address(0x000F_EDCB_0000_0000);
    let [from, to] = [0xFFFF, 0x0102].map(RdBase::from_processor_number);
    let mapd = |itt, event_bits_minus_one, action| Command::Mapd {
        device,
        itt,
        event_bits_minus_one,
        action,
    };
    for (command, words) in [
        (Command::Movi { device, event, collection }, [OF_DEVICE | 1, 0x0123_4567, 0xBEEF, 0]),
        (Command::Int { device, event }, [OF_DEVICE | 3, 0x0123_4567, 0, 0]),
        (Command::Clear { device, event }, [OF_DEVICE | 4, 0x0123_4567, 0, 0]),
        (Command::Sync { target: to }, [5, 0, 0x0102_0000, 0]),
        (Command::Sync { target }, [5, 0, 0x000F_EDCB_0000_0000, 0]),
        (
            mapd(0x000F_1234_5678_9A00, 0x1F, MapAction::Map),
            [OF_DEVICE | 8, 0x1F, 0x800F_1234_5678_9A00, 0],
        ),
        (mapd(0, 0, MapAction::Unmap), [OF_DEVICE | 8, 0, 0, 0]),
        (
            Command::Mapc { collection, target, action: MapAction::Map },
            [9, 0, 0x800F_EDCB_0000_BEEF, 0],
        ),
        (
            Command::Mapti { device, event, intid: 0x2001, collection },
            [OF_DEVICE | 0xA, 0x0000_2001_0123_4567, 0xBEEF, 0],
        ),
        (Command::Mapi { device, event, collection }, [OF_DEVICE | 0xB, 0x0123_4567, 0xBEEF, 0]),
        (Command::Inv { device, event }, [OF_DEVICE | 0xC, 0x0123_4567, 0, 0]),
        (Command::Invall { collection }, [0xD, 0, 0xBEEF, 0]),
        (Command::Movall { from, to }, [0xE, 0, 0xFFFF_0000, 0x0102_0000]),
        (Command::Discard { device, event }, [OF_DEVICE | 0xF, 0x0123_4567, 0, 0]),
    ] {
        assert_eq!(command.encode(), words, "{command:?}");
        assert_eq!(Command::decode(words), Ok(command));
    }
}

/// Commands for virtual LPIs, as Linux 7.3 encodes them (`irq-gic-v3-its.c`, `its_build_vmapp_cmd`
/// and its neighbors).
#[test]
fn virtual_commands_encode_as_in_linux() {
    let vpe = VpeId::new(0xCAFE);
    let target = RdBase::from_address(0x000F_EDCB_0000_0000);
    let vmapp = VirtualCommand::Vmapp {
        vpe,
        target,
        pending_table: 0x000A_BCDE_F123_0000,
        id_bits_minus_one: 15,
        action: MapAction::Map,
    };
    let vmovp = VirtualCommand::Vmovp { vpe, target, its_list: 0x8001, sequence: 0x1234 };
    let (device, event, intid) = (DEVICE, EVENT, 0x2001);
    let vmapti = |doorbell| VirtualCommand::Vmapti { device, event, vpe, intid, doorbell };
    let event_moved = |doorbell| VirtualCommand::Vmovi { device, event, vpe, doorbell };
    for (command, words) in [
        (vmapp, [0x29, 0xCAFE_0000_0000, 0x800F_EDCB_0000_0000, 0x000A_BCDE_F123_000F]),
        (vmapti(None), [OF_DEVICE | 0x2A, 0xCAFE_0123_4567, 0x3FF_0000_2001, 0]),
        (vmapti(Some(0x2345)), [OF_DEVICE | 0x2A, 0xCAFE_0123_4567, 0x2345_0000_2001, 0]),
        (event_moved(None), [OF_DEVICE | 0x21, 0xCAFE_0123_4567, 0, 0]),
        (event_moved(Some(0x2345)), [OF_DEVICE | 0x21, 0xCAFE_0123_4567, 0x2345_0000_0001, 0]),
        (vmovp, [0x1234_0000_0022, 0xCAFE_0000_8001, 0x000F_EDCB_0000_0000, 0]),
        (VirtualCommand::Vsync { vpe }, [0x25, 0xCAFE_0000_0000, 0, 0]),
        (VirtualCommand::Vinvall { vpe }, [0x2D, 0xCAFE_0000_0000, 0, 0]),
    ] {
        assert_eq!(command.encode(), words, "{command:?}");
        assert_eq!(VirtualCommand::decode(words), Ok(command));
    }
}

/// Error codes that are published in the technical reference manuals of implementations.
#[test]
fn command_errors_have_the_published_codes() {
    use CommandErrorReason as Reason;
    for (opcode, reason, code) in [
        (Opcode::Movi, Reason::DeviceOutOfRange, 0x01_0101),
        (Opcode::Movi, Reason::UnmappedInterrupt, 0x01_0107),
        (Opcode::Movi, Reason::UnmappedCollection, 0x01_0109),
        (Opcode::Int, Reason::EventOutOfRange, 0x01_0305),
        (Opcode::Int, Reason::EntryInvalid, 0x01_0310),
        (Opcode::Clear, Reason::DeviceOutOfRange, 0x01_0501),
        (Opcode::Clear, Reason::UnmappedInterrupt, 0x01_0507),
        (Opcode::Mapd, Reason::DeviceOutOfRange, 0x01_0801),
        (Opcode::Mapd, Reason::IttSizeOutOfRange, 0x01_0802),
        (Opcode::Mapc, Reason::ProcessorNumberOutOfRange, 0x01_0902),
        (Opcode::Mapc, Reason::CollectionOutOfRange, 0x01_0903),
        (Opcode::Mapti, Reason::UnmappedDevice, 0x01_0A04),
        (Opcode::Mapti, Reason::EventOutOfRange, 0x01_0A05),
        (Opcode::Mapti, Reason::PhysicalIdOutOfRange, 0x01_0A06),
        (Opcode::Inv, Reason::UnmappedDevice, 0x01_0C04),
        (Opcode::Invall, Reason::CollectionOutOfRange, 0x01_0D03),
        (Opcode::Invall, Reason::UnmappedCollection, 0x01_0D09),
        (Opcode::Movall, Reason::ProcessorNumberOutOfRange, 0x01_0E01),
        (Opcode::Discard, Reason::UnmappedInterrupt, 0x01_0F07),
    ] {
        assert_eq!(CommandError { opcode, reason }.code(), code, "{opcode:?} {reason}");
    }
}
