//! ITS commands, typed by hand from the figures in IHI 0069 §5.3 as four little-endian words each.

use gic_arch::its::{
    CollectionId, Command, CommandError, CommandErrorReason, MapAction, Opcode, RdBase,
    VirtualCommand, VpeId,
};
use msi_types::{DeviceId, EventId};

const DEVICE: DeviceId = DeviceId::new(0x89AB_CDEF);
const EVENT: EventId = EventId::new(0x0123_4567);
const COLLECTION: CollectionId = CollectionId::new(0xBEEF);

#[track_caller]
fn same(command: Command, words: [u64; 4]) {
    assert_eq!(command.encode().map(|w| format!("{w:016x}")), words.map(|w| format!("{w:016x}")));
    assert_eq!(Command::decode(words), Ok(command));
}

#[test]
fn movi_encodes_as_specified() {
    same(
        Command::Movi { device: DEVICE, event: EVENT, collection: COLLECTION },
        [0x89AB_CDEF_0000_0001, 0x0123_4567, 0xBEEF, 0],
    );
}

#[test]
fn int_encodes_as_specified() {
    same(Command::Int { device: DEVICE, event: EVENT }, [0x89AB_CDEF_0000_0003, 0x0123_4567, 0, 0]);
}

#[test]
fn clear_encodes_as_specified() {
    same(
        Command::Clear { device: DEVICE, event: EVENT },
        [0x89AB_CDEF_0000_0004, 0x0123_4567, 0, 0],
    );
}

#[test]
fn sync_by_address_encodes_as_specified() {
    let target = RdBase::from_address(0x0008_080A_0000);
    same(Command::Sync { target }, [0x05, 0, 0x0008_080A_0000, 0]);
}

#[test]
fn sync_by_processor_number_encodes_as_specified() {
    same(Command::Sync { target: RdBase::from_processor_number(3) }, [0x05, 0, 0x3_0000, 0]);
}

#[test]
fn mapd_encodes_as_specified() {
    same(
        Command::Mapd {
            device: DEVICE,
            itt: 0x000F_1234_5678_9A00,
            event_bits_minus_one: 0x1F,
            action: MapAction::Map,
        },
        [0x89AB_CDEF_0000_0008, 0x1F, 0x800F_1234_5678_9A00, 0],
    );
}

#[test]
fn mapd_that_unmaps_encodes_as_specified() {
    same(
        Command::Mapd { device: DEVICE, itt: 0, event_bits_minus_one: 0, action: MapAction::Unmap },
        [0x89AB_CDEF_0000_0008, 0, 0, 0],
    );
}

#[test]
fn mapc_encodes_as_specified() {
    same(
        Command::Mapc {
            collection: COLLECTION,
            target: RdBase::from_address(0x000F_EDCB_0000_0000),
            action: MapAction::Map,
        },
        [0x09, 0, 0x800F_EDCB_0000_BEEF, 0],
    );
}

#[test]
fn mapti_encodes_as_specified() {
    same(
        Command::Mapti { device: DEVICE, event: EVENT, intid: 0x0000_2001, collection: COLLECTION },
        [0x89AB_CDEF_0000_000A, 0x0000_2001_0123_4567, 0xBEEF, 0],
    );
}

#[test]
fn mapi_encodes_as_specified() {
    same(
        Command::Mapi { device: DEVICE, event: EVENT, collection: COLLECTION },
        [0x89AB_CDEF_0000_000B, 0x0123_4567, 0xBEEF, 0],
    );
}

#[test]
fn inv_encodes_as_specified() {
    same(Command::Inv { device: DEVICE, event: EVENT }, [0x89AB_CDEF_0000_000C, 0x0123_4567, 0, 0]);
}

#[test]
fn invall_encodes_as_specified() {
    same(Command::Invall { collection: COLLECTION }, [0x0D, 0, 0xBEEF, 0]);
}

#[test]
fn movall_encodes_as_specified() {
    same(
        Command::Movall {
            from: RdBase::from_processor_number(0xFFFF),
            to: RdBase::from_processor_number(0x0102),
        },
        [0x0E, 0, 0xFFFF_0000, 0x0102_0000],
    );
}

#[test]
fn discard_encodes_as_specified() {
    same(
        Command::Discard { device: DEVICE, event: EVENT },
        [0x89AB_CDEF_0000_000F, 0x0123_4567, 0, 0],
    );
}

/// Commands for virtual LPIs, as Linux 7.3 encodes them (`irq-gic-v3-its.c`, `its_build_vmapp_cmd`
/// and its neighbors).
#[test]
fn virtual_commands_encode_as_in_linux() {
    let vpe = VpeId::new(0xCAFE);
    let vmapp = VirtualCommand::Vmapp {
        vpe,
        target: RdBase::from_address(0x000F_EDCB_0000_0000),
        pending_table: 0x000A_BCDE_F123_0000,
        id_bits_minus_one: 15,
        action: MapAction::Map,
    };
    let target = RdBase::from_address(0x000F_EDCB_0000_0000);
    let vmovp = VirtualCommand::Vmovp { vpe, target, its_list: 0x8001, sequence: 0x1234 };
    let (device, event, intid) = (DEVICE, EVENT, 0x2001);
    let vmapti = |doorbell| VirtualCommand::Vmapti { device, event, vpe, intid, doorbell };
    let event_moved = |doorbell| VirtualCommand::Vmovi { device, event, vpe, doorbell };
    for (command, words) in [
        (vmapp, [0x29, 0xCAFE_0000_0000, 0x800F_EDCB_0000_0000, 0x000A_BCDE_F123_000F]),
        (vmapti(None), [0x89AB_CDEF_0000_002A, 0xCAFE_0123_4567, 0x3FF_0000_2001, 0]),
        (vmapti(Some(0x2345)), [0x89AB_CDEF_0000_002A, 0xCAFE_0123_4567, 0x2345_0000_2001, 0]),
        (event_moved(None), [0x89AB_CDEF_0000_0021, 0xCAFE_0123_4567, 0, 0]),
        (event_moved(Some(0x2345)), [0x89AB_CDEF_0000_0021, 0xCAFE_0123_4567, 0x2345_0000_0001, 0]),
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
