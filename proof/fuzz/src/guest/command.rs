//! ITS commands (IHI 0069 §5.3) built from small numbers, so that they often refer to the same
//! mappings.

use libfuzzer_sys::arbitrary::{self, Arbitrary};

use crate::memory::layout;

/// Arbitrary 256 bits.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct RawCommand(pub [u64; 4]);

/// A command that a driver could send.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Command {
    opcode: Opcode,
    device: u8,
    event: u8,
    lpi: u8,
    collection: u8,
    redistributor: u8,
    bits: u8,
    valid: bool,
}

/// Opcode of a command.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Opcode {
    Movi = 0x01,
    Int = 0x03,
    Clear = 0x04,
    Sync = 0x05,
    Mapd = 0x08,
    Mapc = 0x09,
    Mapti = 0x0a,
    Mapi = 0x0b,
    Inv = 0x0c,
    Invall = 0x0d,
    Movall = 0x0e,
    Discard = 0x0f,
}

impl Command {
    /// Returns a command with device 1, its event 2, the first LPI, collection 0 and the second
    /// redistributor.
    #[cfg(test)]
    pub fn about(opcode: Opcode) -> Self {
        Self {
            opcode,
            device: 1,
            event: 2,
            lpi: 0,
            collection: 0,
            redistributor: 1,
            bits: 4,
            valid: true,
        }
    }

    /// Encodes the command; `name` returns the RDbase of a redistributor.
    pub fn encode(self, name: impl Fn(u64) -> u64) -> [u64; 4] {
        let device = u64::from(self.device % 8);
        let collection = u64::from(self.collection % 6);
        // The range includes a redistributor that does not exist.
        let redistributor = name(u64::from(self.redistributor % 3));
        let valid = u64::from(self.valid) << 63;
        let second = match self.opcode {
            Opcode::Mapd => u64::from(self.bits % 32),
            Opcode::Mapti => u64::from(self.event % 64) | (8192 + u64::from(self.lpi)) << 32,
            Opcode::Mapi => 8192 + u64::from(self.event),
            _ => u64::from(self.event % 64),
        };
        let third = match self.opcode {
            Opcode::Mapd => valid | layout::translation_table(device),
            Opcode::Mapc => valid | redistributor | collection,
            Opcode::Sync | Opcode::Movall => redistributor,
            _ => collection,
        };
        [self.opcode as u64 | device << 32, second, third, name(u64::from(self.collection % 3))]
    }
}
