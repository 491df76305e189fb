//! Exhaustive codec tests. The tests check that each bit of a command, table entry or configuration
//! byte belongs to exactly the field that the manual specifies, and that bits don't influence each
//! other. Together, these properties prove that the codecs are correct for every value. The bit
//! positions are typed from the manual, not taken from the crate.

use doorbell_test_support::{EntryField, check_entry};
use gic_arch::Priority;
use gic_arch::its::{Command, Level1Entry, MapAction, Opcode, RawCommand};
use gic_arch::lpi::Config;
use std::collections::BTreeMap;

/// A field, with its name, doubleword, and highest and lowest bit.
type Field = (&'static str, usize, u32, u32);

const DEVICE: Field = ("device", 0, 63, 32);
const EVENT: Field = ("event", 1, 31, 0);
const COLLECTION: Field = ("collection", 2, 15, 0);
const TARGET: Field = ("target", 2, 51, 16);
const VALID: Field = ("valid", 2, 63, 63);

/// Returns the fields of a command (IHI 0069 §5.3).
fn fields_of(opcode: Opcode) -> Vec<Field> {
    match opcode {
        Opcode::Mapd => vec![DEVICE, ("size", 1, 4, 0), ("itt", 2, 51, 8), VALID],
        Opcode::Mapc => vec![COLLECTION, TARGET, VALID],
        Opcode::Mapti => vec![DEVICE, EVENT, ("intid", 1, 63, 32), COLLECTION],
        Opcode::Mapi | Opcode::Movi => vec![DEVICE, EVENT, COLLECTION],
        Opcode::Discard | Opcode::Int | Opcode::Clear | Opcode::Inv => vec![DEVICE, EVENT],
        Opcode::Invall => vec![COLLECTION],
        Opcode::Movall => vec![TARGET, ("to", 3, 51, 16)],
        Opcode::Sync => vec![TARGET],
    }
}

type Values = BTreeMap<&'static str, u64>;

/// Returns the decoded command's fields that are not zero.
fn values(command: Command) -> Values {
    let valid = |action| u64::from(action == MapAction::Map);
    let mut values = match command {
        Command::Mapd { device, itt, event_bits_minus_one, action } => vec![
            ("device", u64::from(device.get())),
            ("size", event_bits_minus_one.into()),
            ("itt", itt >> 8),
            ("valid", valid(action)),
        ],
        Command::Mapc { collection, target, action } => vec![
            ("collection", u64::from(collection.get())),
            ("target", target.address() >> 16),
            ("valid", valid(action)),
        ],
        Command::Mapti { device, event, intid, collection } => vec![
            ("device", u64::from(device.get())),
            ("event", event.get().into()),
            ("intid", intid.into()),
            ("collection", collection.get().into()),
        ],
        Command::Mapi { device, event, collection }
        | Command::Movi { device, event, collection } => vec![
            ("device", u64::from(device.get())),
            ("event", event.get().into()),
            ("collection", collection.get().into()),
        ],
        Command::Discard { device, event }
        | Command::Int { device, event }
        | Command::Clear { device, event }
        | Command::Inv { device, event } => {
            vec![("device", u64::from(device.get())), ("event", event.get().into())]
        }
        Command::Invall { collection } => vec![("collection", u64::from(collection.get()))],
        Command::Movall { from, to } => {
            vec![("target", from.address() >> 16), ("to", to.address() >> 16)]
        }
        Command::Sync { target } => vec![("target", target.address() >> 16)],
    };
    values.retain(|(_, value)| *value != 0);
    values.into_iter().collect()
}

fn with_bit(mut raw: RawCommand, bit: u32) -> RawCommand {
    raw[(bit / 64) as usize] |= 1 << (bit % 64);
    raw
}

fn decoded(raw: RawCommand) -> Values {
    values(Command::decode(raw).expect("the opcode is valid"))
}

/// All bits except the opcode.
const BITS: std::ops::Range<u32> = 8..256;

#[test]
fn each_command_bit_belongs_to_one_field() {
    for opcode in Opcode::ALL {
        let bare = [u64::from(opcode.number()), 0, 0, 0];
        assert_eq!(decoded(bare), Values::new(), "{opcode:?}");
        for bit in BITS {
            let (word, bit_in_word) = ((bit / 64) as usize, bit % 64);
            let fields = fields_of(opcode);
            let field = fields
                .iter()
                .find(|(_, at, high, low)| *at == word && (*low..=*high).contains(&bit_in_word));
            let expected = field.map(|(name, _, _, low)| (*name, 1 << (bit_in_word - low)));
            assert_eq!(
                decoded(with_bit(bare, bit)),
                expected.into_iter().collect(),
                "{opcode:?}, bit {bit}"
            );
        }
    }
}

#[test]
fn each_command_bit_decodes_independently_of_the_others() {
    for opcode in Opcode::ALL {
        let bare = [u64::from(opcode.number()), 0, 0, 0];
        let alone: Vec<_> = BITS.map(|bit| decoded(with_bit(bare, bit))).collect();
        for (one, first) in BITS.zip(&alone) {
            for (other, second) in BITS.zip(&alone).skip((one - BITS.start) as usize + 1) {
                let mut both = first.clone();
                for (name, value) in second {
                    *both.entry(name).or_default() |= value;
                }
                let raw = with_bit(with_bit(bare, one), other);
                assert_eq!(decoded(raw), both, "{opcode:?}, bits {one} and {other}");
            }
        }
    }
}

#[test]
fn first_level_entry_bits_match_the_layout() {
    let fields = [
        EntryField::<Level1Entry> {
            high: 51,
            low: 12,
            read: |entry| entry.address() >> 12,
            write: |entry, value| entry.with_address(value << 12),
        },
        EntryField {
            high: 63,
            low: 63,
            read: |entry| entry.valid().into(),
            write: |e, v| e.with_valid(v != 0),
        },
    ];
    check_entry(Level1Entry::from_bits, Level1Entry::into_bits, &fields);
}

#[test]
fn an_lpi_configuration_byte_holds_priority_and_enable() {
    for byte in 0..=u8::MAX {
        let config = Config::from_bits(byte);

        assert_eq!(
            (config.enable(), config.priority()),
            (byte & 1 != 0, Priority::new(byte & 0xfc))
        );
        for priority in (0..=u8::MAX).map(Priority::new) {
            let changed = config.with_priority(priority).with_enable(!config.enable()).into_bits();
            assert_eq!(changed, priority.get() & 0xfc | byte & 2 | (byte & 1 ^ 1));
        }
    }
}
