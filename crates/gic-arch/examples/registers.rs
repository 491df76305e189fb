//! Locates an interrupt's enable bit, encodes an ITS command and decodes a register.

use gic_arch::its::{CollectionId, Command};
use gic_arch::{IntId, gicd, gits};
use msi_types::{DeviceId, EventId};

fn main() {
    let bit = gicd::ISENABLER.locate(IntId::new(42)).expect("the distributor has SPI 42");
    println!("SPI 42 is enabled by bit {} at {:#x}", bit.shift(), bit.register().offset());
    assert_eq!((bit.register().offset(), bit.shift()), (0x104, 10));

    let command = Command::Mapti {
        device: DeviceId::new(0x12),
        event: EventId::new(9),
        intid: 8200,
        collection: CollectionId::new(3),
    };
    println!("{command:?} is {:x?}", command.encode());
    assert_eq!(Command::decode(command.encode()), Ok(command));

    let typer = gits::Typer::from(0x1f_0001_efb1);
    println!("an ITS with {} bits of EventIDs", typer.event_id_bits());
    assert_eq!((typer.event_id_bits(), typer.itt_entry_bytes()), (16, 12));
}
