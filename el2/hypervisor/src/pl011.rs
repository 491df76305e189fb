//! An emulated PL011 (DDI 0183) for guests that share the machine's UART. A guest's output is
//! printed line by line, prefixed with the guest's number. Input is passed to every guest.

use alloc::collections::VecDeque;
use alloc::string::String;
use image_rt::lock::IrqMutex;
use image_rt::println;
use msi_types::{Level, Line, SetLine};
use vgic::Vgic;

const DATA: u64 = 0x000;
const FLAGS: u64 = 0x018;
const MASK: u64 = 0x038;
const RAW_STATUS: u64 = 0x03c;
const MASKED_STATUS: u64 = 0x040;
const CLEAR: u64 = 0x044;
/// Registers for baud rate, line control, control and FIFO levels, which have no effect here.
const SETTINGS: core::ops::Range<u64> = 0x024..0x038;
const IDENTIFICATION: u64 = 0xfe0;

/// `UARTPeriphID<n>` and `UARTPCellID<n>` of revision r1p4.
const IDENTIFIERS: [u8; 8] = [0x11, 0x10, 0x24, 0, 0x0d, 0xf0, 0x05, 0xb1];
const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_EMPTY: u32 = 1 << 7;
const RECEIVE_INTERRUPT: u32 = 1 << 4;
const TRANSMIT_INTERRUPT: u32 = 1 << 5;

const FIFO: usize = 16;
const LONGEST_LINE: usize = 256;

/// The UART of a guest.
pub(crate) struct Pl011 {
    guest: usize,
    intid: u32,
    state: IrqMutex<State>,
}

struct State {
    line: String,
    received: VecDeque<u8>,
    settings: [u32; 5],
    mask: u32,
    raw: u32,
}

impl Pl011 {
    /// Creates a UART of a guest with this number, whose interrupt is the SPI with this INTID.
    pub(crate) fn new(guest: usize, intid: u32) -> Self {
        let state = State {
            line: String::with_capacity(LONGEST_LINE),
            received: VecDeque::with_capacity(FIFO),
            settings: [0; 5],
            mask: 0,
            raw: 0,
        };
        Self { guest, intid, state: IrqMutex::new(state) }
    }

    /// Reads the register at an offset.
    pub(crate) fn read(&self, vgic: &Vgic, offset: u64) -> u64 {
        let value = self.change(vgic, |state| match offset {
            DATA => state.receive(),
            FLAGS if state.received.is_empty() => TRANSMIT_EMPTY | RECEIVE_EMPTY,
            FLAGS => TRANSMIT_EMPTY,
            MASK => state.mask,
            RAW_STATUS => state.raw,
            MASKED_STATUS => state.raw & state.mask,
            IDENTIFICATION.. => {
                let index = (offset - IDENTIFICATION) / 4;
                IDENTIFIERS.get(index as usize).copied().unwrap_or(0).into()
            }
            _ => state.setting(offset).map_or(0, |setting| *setting),
        });
        value.into()
    }

    /// Writes the register at an offset.
    pub(crate) fn write(&self, vgic: &Vgic, offset: u64, value: u64) {
        let value = value as u32;
        self.change(vgic, |state| match offset {
            DATA => state.send(self.guest, value as u8),
            MASK => state.mask = value,
            CLEAR => state.raw &= !value,
            _ => {
                if let Some(setting) = state.setting(offset) {
                    *setting = value;
                }
            }
        });
    }

    /// Receives a byte of input. The byte is lost if the FIFO is full.
    pub(crate) fn type_in(&self, vgic: &Vgic, byte: u8) {
        self.change(vgic, |state| {
            if state.received.len() < FIFO {
                state.received.push_back(byte);
                state.raw |= RECEIVE_INTERRUPT;
            }
        });
    }

    /// Changes the state, and updates the interrupt line.
    fn change<R>(&self, vgic: &Vgic, change: impl FnOnce(&mut State) -> R) -> R {
        self.state.with(|state| {
            let result = change(state);
            let is_high = state.raw & state.mask != 0;
            vgic.set_line(Line::Spi(self.intid), if is_high { Level::High } else { Level::Low });
            result
        })
    }
}

impl State {
    fn receive(&mut self) -> u32 {
        let byte = self.received.pop_front();
        if self.received.is_empty() {
            self.raw &= !RECEIVE_INTERRUPT;
        }
        byte.map_or(0, u32::from)
    }

    fn send(&mut self, guest: usize, byte: u8) {
        if byte != b'\n' && byte != b'\r' {
            self.line.push(if byte.is_ascii() { char::from(byte) } else { '?' });
        }
        if byte == b'\n' || self.line.len() == LONGEST_LINE {
            println!("[{guest}] {}", self.line);
            self.line.clear();
        }
        self.raw |= TRANSMIT_INTERRUPT;
    }

    fn setting(&mut self, offset: u64) -> Option<&mut u32> {
        let index = offset.checked_sub(SETTINGS.start)? / 4;
        self.settings.get_mut(index as usize)
    }
}
