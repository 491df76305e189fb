//! The flash of a guest: two banks at the start of its address space, as on `virt`. Each bank
//! consists of two chips of 16 bits that share the addresses of 32-bit words, and has Intel's
//! command set (JESD68.01; JEP137, command set 1).
//!
//! The firmware is in the first bank. The first sectors of the second bank keep what the guest
//! programs until the machine ends; elsewhere, the status register says that erasing and
//! programming fail. The flash of a guest that does not start from firmware is read-only, and reads
//! as zeros.
//!
//! While a bank shows its contents, stage 2 maps their pages, read-only: a store traps. Afterwards,
//! every access traps.

use core::ops::Range;
use el2_vm::Ram;
use image_rt::lock::IrqMutex;
use vgic::{AccessWidth, GuestMemory as _};

/// Addresses of a bank's first byte and of both banks.
pub(crate) const BANK: u64 = 64 << 20;
pub(crate) const FLASH: Range<u64> = 0..2 * BANK;
/// Size of a sector, which is erased as a whole.
const SECTOR: u64 = 256 << 10;
/// Bytes of the second bank that the guest may program.
pub(crate) const WRITABLE: u64 = 4 * SECTOR;

/// Status register: ready; erasing and programming failed.
const READY: u8 = 0x80;
const ERASE_FAILED: u8 = 0x20;
const PROGRAM_FAILED: u8 = 0x10;
/// Second cycle of a command.
const CONFIRM: u8 = 0xd0;
/// Manufacturer and device.
const IDENTIFIERS: [u8; 2] = [0x89, 0x18];
/// First word and contents of the query structure: command set 1 with its table at 0x31; voltages;
/// timeouts; 32 MiB per chip, 16 bits wide, with a buffer of 2 KiB; 256 sectors of 128 KiB per
/// chip; and the table itself, without optional features.
const QUERY: (u64, [u8; 48]) = (
    0x10,
    [
        b'Q', b'R', b'Y', 1, 0, 0x31, 0, 0, 0, 0, 0, 0x45, 0x55, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0, 25,
        2, 0, 11, 0, 1, 255, 0, 0, 2, b'P', b'R', b'I', b'1', b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ],
);

/// Kind of data that a bank's reads return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    Contents,
    Status,
    Identifiers,
    Query,
}

/// Meaning of the next store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Command,
    Word,
    /// Words of a buffer that follow the next one.
    Words(u16),
    Count,
    /// The end of a buffer, or of a change of a sector's lock, which has no effect.
    Confirmation,
    EraseConfirmation,
}

/// State of a bank.
#[derive(Debug)]
struct Bank {
    shown: Shown,
    expected: Expected,
    errors: u8,
}

#[repr(align(4096))]
struct Page([u8; 4096]);

/// Returns the physical address of each page in the flash of a guest that does not start from it,
/// where a kernel may have an empty translation table at address zero. As on QEMU's `virt` without
/// an image for its flash, all bytes are zero.
fn empty_page() -> u64 {
    static EMPTY: Page = Page([0; 4096]);
    EMPTY.0.as_ptr().addr() as u64
}

/// The flash of a guest.
#[derive(Debug)]
pub(crate) struct Flash {
    firmware: Ram,
    writable: Ram,
    banks: [IrqMutex<Bank>; 2],
}

impl Flash {
    /// Creates the flash, whose contents are at these physical addresses: the firmware, then
    /// [`WRITABLE`] bytes. Both begin and end at the boundary of a page.
    pub(crate) fn new(firmware: Range<u64>) -> Self {
        let bytes = firmware.end - firmware.start;
        let writable = Ram { guest: BANK..BANK + WRITABLE, physical: firmware.end };
        let firmware = Ram { guest: 0..bytes, physical: firmware.start };
        let flash = Self { firmware, writable, ..Self::without_image() };
        (BANK..BANK + WRITABLE).step_by(SECTOR as usize).for_each(|sector| _ = flash.erase(sector));
        flash
    }

    /// Creates the flash of a guest that does not start from it.
    pub(crate) fn without_image() -> Self {
        let none = || Ram::new(0, 0..0);
        let bank = || Bank { shown: Shown::Contents, expected: Expected::Command, errors: 0 };
        let banks = [(); 2].map(|()| IrqMutex::new(bank()));
        Self { firmware: none(), writable: none(), banks }
    }

    /// Returns `true` if the flash has no memory.
    fn is_empty(&self) -> bool {
        self.firmware.guest.is_empty()
    }

    /// Returns the physical address of a page, if the guest may read it without trapping.
    pub(crate) fn page(&self, page: u64) -> Option<u64> {
        let shows = self.bank(page)?.with(|bank| bank.shown == Shown::Contents);
        let mut parts = [&self.firmware, &self.writable].into_iter();
        let page = parts.find_map(|part| part.translate(page, 1));
        page.or_else(|| self.is_empty().then(empty_page)).filter(|_| shows)
    }

    /// Reads from the flash. Returns `None` if the address isn't in the flash.
    pub(crate) fn read(&self, address: u64, width: AccessWidth) -> Option<u64> {
        let (shown, errors) = self.bank(address)?.with(|bank| (bank.shown, bank.errors));
        let word = address % BANK / 4;
        let byte = match shown {
            Shown::Contents => return Some(self.contents(address, width)),
            Shown::Status => Some(READY | errors),
            Shown::Identifiers => IDENTIFIERS.get(word as usize).copied(),
            Shown::Query => {
                let (first, bytes) = &QUERY;
                word.checked_sub(*first).and_then(|index| bytes.get(index as usize).copied())
            }
        };
        // Both chips answer.
        let words = u64::from(byte.unwrap_or(0)) * 0x0001_0001_0001_0001;
        Some(words >> (8 * (address & 3)) & width.mask())
    }

    fn contents(&self, address: u64, width: AccessWidth) -> u64 {
        let mut bytes = [if self.is_empty() { 0 } else { 0xff }; 8];
        let part = &mut bytes[..width.bytes() as usize];
        // Sectors without memory read as erased.
        if self.firmware.read(address, part).is_err() {
            _ = self.writable.read(address, part);
        }
        u64::from_le_bytes(bytes) & width.mask()
    }

    /// Writes to the flash. Returns `None` if the address isn't in the flash. Calls `unmap` if the
    /// bank no longer shows its contents.
    pub(crate) fn write(
        &self,
        address: u64,
        width: AccessWidth,
        value: u64,
        unmap: impl FnOnce(),
    ) -> Option<()> {
        let hides = self.bank(address)?.with(|bank| {
            let before = bank.shown;
            bank.write(self, address, &value.to_le_bytes()[..width.bytes() as usize]);
            before == Shown::Contents && bank.shown != before
        });
        if hides {
            unmap();
        }
        Some(())
    }

    fn bank(&self, address: u64) -> Option<&IrqMutex<Bank>> {
        self.banks.get((address / BANK) as usize)
    }

    /// Erases a sector. Returns the error bits.
    fn erase(&self, address: u64) -> u8 {
        let start = address & !(SECTOR - 1);
        let mut pages = (start..start + SECTOR).step_by(0x1000);
        let erased = pages.all(|page| self.writable.place(page, &[0xff; 0x1000]).is_ok());
        if erased { 0 } else { ERASE_FAILED }
    }

    /// Programs bits, which only clears them. Returns the error bits.
    fn program(&self, address: u64, bytes: &[u8]) -> u8 {
        let mut cells = [0; 8];
        let cells = &mut cells[..bytes.len()];
        let mut programmed = self.writable.read(address, cells).is_ok();
        cells.iter_mut().zip(bytes).for_each(|(cell, byte)| *cell &= byte);
        programmed = programmed && self.writable.place(address, cells).is_ok();
        if programmed { 0 } else { PROGRAM_FAILED }
    }
}

impl Bank {
    fn write(&mut self, flash: &Flash, address: u64, bytes: &[u8]) {
        let command = bytes.first().copied().unwrap_or(0);
        let expected = core::mem::replace(&mut self.expected, Expected::Command);
        if expected != Expected::Command {
            self.shown = Shown::Status;
        }
        match expected {
            Expected::Command => self.command(command),
            Expected::Word => self.errors |= flash.program(address, bytes),
            Expected::Words(more) => {
                self.errors |= flash.program(address, bytes);
                let next = more.checked_sub(1).map(Expected::Words);
                self.expected = next.unwrap_or(Expected::Confirmation);
            }
            Expected::Count => {
                let more = bytes.get(1).map_or(0, |high| u16::from(*high) << 8);
                self.expected = Expected::Words(more | u16::from(command));
            }
            Expected::EraseConfirmation if command == CONFIRM => {
                self.errors |= flash.erase(address);
            }
            Expected::EraseConfirmation => self.errors |= ERASE_FAILED | PROGRAM_FAILED,
            Expected::Confirmation => {}
        }
    }

    fn command(&mut self, command: u8) {
        (self.shown, self.expected) = match command {
            0x10 | 0x40 => (Shown::Status, Expected::Word),
            0x20 => (Shown::Status, Expected::EraseConfirmation),
            0x60 => (Shown::Status, Expected::Confirmation),
            0xe8 => (Shown::Status, Expected::Count),
            0x70 => (Shown::Status, Expected::Command),
            0x90 => (Shown::Identifiers, Expected::Command),
            0x98 => (Shown::Query, Expected::Command),
            _ => (Shown::Contents, Expected::Command),
        };
        if command == 0x50 {
            self.errors = 0;
        }
    }
}
