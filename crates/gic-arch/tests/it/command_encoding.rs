//! Property tests for encoding and decoding ITS commands.
use gic_arch::its::{
    CollectionId, Command, CommandError, CommandErrorReason, MapAction, Opcode, RawCommand, RdBase,
    VirtualCommand, VpeId,
};
use gic_arch::{Affinity, IntId, Lpi};
use msi_types::{DeviceId, EventId};
use proptest::prelude::*;

fn raw_commands() -> impl Strategy<Value = RawCommand> {
    // Give half of the patterns a valid opcode, because nearly all random opcodes are invalid.
    (any::<RawCommand>(), any::<bool>(), 0..Opcode::ALL.len()).prop_map(
        |(mut raw, known, which)| {
            if known {
                raw[0] = (raw[0] & !0xff) | u64::from(Opcode::ALL[which].number());
            }
            raw
        },
    )
}

fn commands() -> impl Strategy<Value = Command> {
    let ids = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u16>());
    let places = (0u64..1 << 36, 0u64..1 << 36, 0u64..1 << 44, 0u8..32, any::<bool>());
    (0..Opcode::ALL.len(), ids, places).prop_map(
        |(which, (device, event, intid, icid), (from, to, itt, event_bits_minus_one, map))| {
            let device = DeviceId::new(device);
            let event = EventId::new(event);
            let collection = CollectionId::new(icid);
            let target = RdBase::from_field(from);
            let action = if map { MapAction::Map } else { MapAction::Unmap };
            match Opcode::ALL[which] {
                Opcode::Movi => Command::Movi { device, event, collection },
                Opcode::Int => Command::Int { device, event },
                Opcode::Clear => Command::Clear { device, event },
                Opcode::Sync => Command::Sync { target },
                Opcode::Mapd => {
                    Command::Mapd { device, itt: itt << 8, event_bits_minus_one, action }
                }
                Opcode::Mapc => Command::Mapc { collection, target, action },
                Opcode::Mapti => Command::Mapti { device, event, intid, collection },
                Opcode::Mapi => Command::Mapi { device, event, collection },
                Opcode::Inv => Command::Inv { device, event },
                Opcode::Invall => Command::Invall { collection },
                Opcode::Movall => Command::Movall { from: target, to: RdBase::from_field(to) },
                Opcode::Discard => Command::Discard { device, event },
            }
        },
    )
}

fn virtual_commands() -> impl Strategy<Value = VirtualCommand> {
    let ids = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u32>(), any::<u32>());
    let vmapp = (0u64..1 << 36, 0u64..1 << 36, 0u8..32, any::<bool>());
    (0..6, ids, vmapp).prop_map(
        |(which, (device, event, vpe, intid, doorbell), (target, table, id_bits, map))| {
            let (device, event) = (DeviceId::new(device), EventId::new(event));
            let vpe = VpeId::new(vpe);
            match which {
                0 => VirtualCommand::Vmapp {
                    vpe,
                    target: RdBase::from_field(target),
                    pending_table: table << 16,
                    id_bits_minus_one: id_bits,
                    action: if map { MapAction::Map } else { MapAction::Unmap },
                },
                1 => {
                    let doorbell = Some(doorbell).filter(|doorbell| *doorbell != 1023);
                    VirtualCommand::Vmapti { device, event, vpe, intid, doorbell }
                }
                2 => {
                    let doorbell = Some(doorbell).filter(|_| map);
                    VirtualCommand::Vmovi { device, event, vpe, doorbell }
                }
                3 => VirtualCommand::Vsync { vpe },
                4 => VirtualCommand::Vmovp {
                    vpe,
                    target: RdBase::from_field(target),
                    its_list: !vpe.get(),
                    sequence: vpe.get().rotate_left(3),
                },
                _ => VirtualCommand::Vinvall { vpe },
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn decoding_keeps_exactly_the_defined_bits(raw in raw_commands()) {
        if let Ok(command) = Command::decode(raw) {
            let defined = command.opcode().defined_bits();
            let expected: Vec<u64> =
                raw.iter().zip(defined).map(|(word, bits)| word & bits).collect();
            prop_assert_eq!(command.encode().to_vec(), expected);
        } else {
            prop_assert_eq!(Opcode::from_number(raw[0].to_le_bytes()[0]), None);
        }
    }

    #[test]
    fn every_command_decodes_to_itself_after_encoding(command in commands()) {
        prop_assert_eq!(Command::decode(command.encode()), Ok(command));
    }

    #[test]
    fn every_virtual_command_decodes_to_itself_after_encoding(command in virtual_commands()) {
        prop_assert_eq!(VirtualCommand::decode(command.encode()), Ok(command));
        prop_assert!(Command::decode(command.encode()).is_err());
    }

    #[test]
    fn reserved_bits_do_not_change_the_decoded_command(
        command in commands(),
        noise in any::<RawCommand>(),
    ) {
        let defined = command.opcode().defined_bits();
        let mut raw = command.encode();
        for ((word, bits), noise) in raw.iter_mut().zip(defined).zip(noise) {
            *word |= noise & !bits;
        }
        prop_assert_eq!(Command::decode(raw), Ok(command));
    }

    #[test]
    fn display_names_the_command_and_its_device(command in commands()) {
        let text = command.to_string();
        prop_assert!(text.starts_with(command.opcode().name()));
        if let Some(device) = command.device() {
            prop_assert!(text.contains(&format!("device {device}")), "{text}");
        }
    }
}

#[test]
fn unknown_opcodes_are_errors() {
    for number in 0..=u8::MAX {
        let decoded = Command::decode([u64::from(number), 0, 0, 0]);
        match Opcode::from_number(number) {
            Some(opcode) => assert_eq!(decoded.map(Command::opcode), Ok(opcode)),
            None => assert_eq!(decoded.unwrap_err().0, number),
        }
    }
}

#[test]
fn error_codes_are_distinct_within_a_command() {
    use CommandErrorReason as Reason;
    let reasons = [
        Reason::DeviceOutOfRange,
        Reason::IttSizeOutOfRange,
        Reason::CollectionOutOfRange,
        Reason::UnmappedDevice,
        Reason::EventOutOfRange,
        Reason::PhysicalIdOutOfRange,
        Reason::UnmappedInterrupt,
        Reason::UnmappedCollection,
        Reason::EntryInvalid,
    ];
    for opcode in Opcode::ALL {
        let mut codes: Vec<u32> =
            reasons.iter().map(|&reason| CommandError { opcode, reason }.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), reasons.len(), "{opcode:?}");
    }
}

#[test]
fn display_prefixes_a_mapped_intid_with_its_class_once() {
    let text = |intid| {
        let (device, event) = (DeviceId::new(0x12), EventId::new(3));
        Command::Mapti { device, event, intid, collection: CollectionId::new(1) }.to_string()
    };
    assert_eq!(text(8192), "MAPTI device 0x12 event 0x3 to LPI 8192 in collection 1");
    assert_eq!(text(40), "MAPTI device 0x12 event 0x3 to SPI 40 in collection 1");
}

#[test]
fn hex_formats_print_identifiers_with_prefix_and_padding() {
    let lpi = Lpi::try_from(8192).unwrap();
    assert_eq!(format!("{lpi} {lpi:#x} {:04X}", IntId::new(0x2b)), "LPI 8192 0x2000 002B");
    assert_eq!(format!("{:#010x}", Affinity::new(0, 1, 0, 0xa)), "0x0001000a");
}
