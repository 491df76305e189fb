//! Names of interrupts and of ITS commands.

use serde_json::{Value, json};

/// Returns the name of an ITS command from its first word (IHI 0069 §5.3).
pub(super) const fn command_name(word: u64) -> &'static str {
    match word & 0xff {
        0x01 => "MOVI",
        0x03 => "INT",
        0x04 => "CLEAR",
        0x05 => "SYNC",
        0x08 => "MAPD",
        0x09 => "MAPC",
        0x0a => "MAPTI",
        0x0b => "MAPI",
        0x0c => "INV",
        0x0d => "INVALL",
        0x0e => "MOVALL",
        0x0f => "DISCARD",
        _ => "unknown command",
    }
}

/// Returns the name and the arguments of an instant for an ITS command.
pub(super) fn command(words: [u64; 4]) -> (&'static str, Value) {
    (command_name(words[0]), json!({ "words": words.map(|word| format!("{word:#x}")) }))
}

/// Returns the name of an interrupt from its INTID.
pub(super) fn interrupt_name(intid: u32) -> String {
    let class = match intid {
        0..16 => "SGI",
        16..32 | 1056..1120 => "PPI",
        8192.. => "LPI",
        _ => "SPI",
    };
    format!("{class} {intid}")
}
