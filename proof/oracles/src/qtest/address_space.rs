//! The address space: RAM, the GIC's frames, and unclaimed addresses.

use super::request::MemoryRange;
use doorbell_hardware::bus::AccessWidth;
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::gits;
use gic_firmware::Region;
use msi_types::{DeviceId, MsiMessage};
use std::ops::Range;
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::{GuestMemory, Progress, Vgic};

/// Base of RAM.
pub const RAM_BASE: u64 = 0x4000_0000;
/// Size of RAM.
pub const RAM_BYTES: u64 = 128 << 20;
/// DeviceID of the messages that a script writes, which have no requester.
const SENDER: DeviceId = DeviceId::new(0);

/// The machine's physical address space.
pub(super) struct AddressSpace {
    gic: Arc<Vgic>,
    ram: Arc<Ram>,
    /// The ITS translation frame, if the GIC has an ITS.
    translation: Range<u64>,
    /// `GITS_TRANSLATER`.
    doorbell: Option<u64>,
}

pub(super) fn ram() -> Ram {
    Ram::new(Region::new(RAM_BASE, RAM_BYTES).as_slice(), Caches::Snooped)
}

impl AddressSpace {
    pub(super) fn new(gic: Arc<Vgic>, ram: Arc<Ram>) -> Self {
        let its = gic.config().its.first();
        let translation =
            its.map_or(0..0, |its| its.base + gits::FRAME_SIZE..its.base + gits::SIZE);
        let doorbell = its.map(ItsConfig::doorbell);
        Self { gic, ram, translation, doorbell }
    }

    pub(super) fn gic(&self) -> &Arc<Vgic> {
        &self.gic
    }

    /// Loads a little-endian number of up to 8 bytes.
    pub(super) fn load(&self, address: u64, bytes: usize) -> u64 {
        let mut number = [0; 8];
        self.fill(address, &mut number[..bytes]);
        u64::from_le_bytes(number)
    }

    pub(super) fn read(&self, place: MemoryRange) -> Vec<u8> {
        let mut data = vec![0; place.bytes];
        self.fill(place.address, &mut data);
        data
    }

    fn fill(&self, address: u64, bytes: &mut [u8]) {
        for piece in self.pieces(address, bytes.len()) {
            let bytes = &mut bytes[piece.range.clone()];
            match piece.width {
                // Bytes outside RAM stay zero.
                None => drop(self.ram.read(piece.address, bytes)),
                Some(width) => {
                    let value = self.gic.read(piece.address, width).unwrap_or(0);
                    bytes.copy_from_slice(&value.to_le_bytes()[..bytes.len()]);
                }
            }
        }
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        for piece in self.pieces(address, bytes.len()) {
            let bytes = &bytes[piece.range.clone()];
            match piece.width {
                None => self.write_memory(piece.address, bytes),
                Some(width) => {
                    let mut value = [0; 8];
                    value[..bytes.len()].copy_from_slice(bytes);
                    self.write_register(piece.address, width, u64::from_le_bytes(value));
                }
            }
        }
    }

    /// Writes whole words where possible, because scripts clear large areas. Ignores writes outside
    /// RAM.
    fn write_memory(&self, address: u64, bytes: &[u8]) {
        let before = usize::try_from(address.wrapping_neg() % 8).unwrap_or(0).min(bytes.len());
        let (unaligned, aligned) = bytes.split_at(before);
        let (words, rest) = aligned.as_chunks::<8>();
        let (first, last) = (address + before as u64, address + (bytes.len() - rest.len()) as u64);
        _ = self.ram.write(address, unaligned);
        for (word, at) in words.iter().zip((first..).step_by(8)) {
            _ = self.ram.write_u64(at, u64::from_le_bytes(*word));
        }
        _ = self.ram.write(last, rest);
    }

    fn write_register(&self, address: u64, width: AccessWidth, value: u64) {
        let rings = self.doorbell == Some(address) && width >= AccessWidth::Half;
        match self.gic.its(0).filter(|_| rings).zip(u32::try_from(value).ok()) {
            Some((its, data)) => drop(its.signal_msi(SENDER, MsiMessage { address, data })),
            // The GIC rejects only writes outside its regions, and such writes have no effect.
            None => drop(self.gic.write_until_done(address, width, value)),
        }
        // Executes all commands, as QEMU's ITS does on a write, because no vCPU is running that
        // could resume them later.
        while self.gic.poll() == Progress::Unfinished {}
    }

    /// Splits an access into pieces, in order of address.
    fn pieces(&self, address: u64, bytes: usize) -> impl Iterator<Item = Piece> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let left = bytes.checked_sub(start).filter(|left| *left > 0)?;
            let piece = self.piece(address.wrapping_add(start as u64), start, left);
            start = piece.range.end;
            Some(piece)
        })
    }

    fn piece(&self, address: u64, start: usize, left: usize) -> Piece {
        if (RAM_BASE..RAM_BASE + RAM_BYTES).contains(&address) {
            let room = usize::try_from(RAM_BASE + RAM_BYTES - address).unwrap_or(usize::MAX);
            return Piece { address, range: start..start + left.min(room), width: None };
        }
        let most = if self.translation.contains(&address) { 4 } else { 8 };
        let aligned = [8, 4, 2, 1].into_iter();
        let bytes = aligned
            .filter(|bytes| *bytes <= left.min(most) && address.is_multiple_of(*bytes as u64))
            .max()
            .unwrap_or(1);
        Piece { address, range: start..start + bytes, width: AccessWidth::try_from(bytes).ok() }
    }
}

/// A piece of an access, which a single device performs as one access.
struct Piece {
    address: u64,
    /// The range of bytes within the access.
    range: Range<usize>,
    /// The width of a register access; `None` in RAM.
    width: Option<AccessWidth>,
}
