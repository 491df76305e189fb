//! Sizing and placement of base address registers (PCI Express Base §7.5.1.2.1).

use super::ConfigSpace;
use super::capabilities::{BAR0, COMMAND, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY};
use super::windows::{Bar, BarRequest, BarWidth, WindowPools, halves};

/// Number of base address registers in an endpoint.
pub(super) const MAX_BARS: u8 = 6;

/// Flag for an I/O port register.
const IO: u32 = 1;
/// Mask for a memory register's type, bits 2:1.
const TYPE: u32 = 0x6;
const TYPE_32: u32 = 0x0;
const TYPE_64: u32 = 0x4;
/// Flag for a prefetchable memory register: reads have no side effects.
const PREFETCHABLE: u32 = 0x8;
/// Mask for a memory register's bits below the address.
const FLAGS: u32 = 0xf;

/// A function's memory regions, by register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BarSet {
    pub(super) placed: [Option<Bar>; MAX_BARS as usize],
    /// First register whose region has no address.
    pub(super) unplaced: Option<u8>,
}

impl BarSet {
    /// Sizes the first `count` registers and places their memory regions. On return, the function
    /// neither decodes accesses nor sends messages.
    pub(super) fn place(config: &dyn ConfigSpace, count: u8, windows: &mut WindowPools) -> Self {
        let command = config.read16(COMMAND);
        config.write16(COMMAND, command & !(COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER));
        let mut bars = Self { placed: [None; MAX_BARS as usize], unplaced: None };
        let mut index = 0;
        while index < count {
            let register = register(index);
            let (step, request) = size(config, register, count - index);
            if let Some(request) = request {
                let bar = windows.take(request);
                set(config, register, request.width, bar.map_or(0, |bar| bar.bus_base));
                if let Some(place) = bars.placed.get_mut(usize::from(index)) {
                    *place = bar;
                }
                if bar.is_none() {
                    bars.unplaced = bars.unplaced.or(Some(index));
                }
            }
            index += step;
        }
        bars
    }

    /// Writes the addresses to the base address registers again after the function lost them.
    pub(super) fn restore(&self, config: &dyn ConfigSpace) {
        for (index, bar) in (0..).zip(&self.placed) {
            if let Some(bar) = bar {
                set(config, register(index), bar.width, bar.bus_base);
            }
        }
    }
}

/// Returns how many registers the region at `register` occupies (`left` remain), and the request
/// for its address. The function controls all values that are read here, so they must be validated.
fn size(config: &dyn ConfigSpace, register: u16, left: u8) -> (u8, Option<BarRequest>) {
    let flags = config.read32(register);
    let width = match flags & TYPE {
        _ if flags & IO != 0 => return (1, None),
        TYPE_32 => BarWidth::Bits32,
        TYPE_64 if left >= 2 => BarWidth::Bits64,
        _ => return (1, None),
    };
    config.write32(register, u32::MAX);
    let mut kept = u64::from(config.read32(register) & !FLAGS);
    let mut step = 1;
    if width == BarWidth::Bits64 {
        step = 2;
        config.write32(register + 4, u32::MAX);
        kept |= u64::from(config.read32(register + 4)) << 32;
    }
    set(config, register, width, 0);
    // The lowest writable address bit is the region's size.
    let size = kept & kept.wrapping_neg();
    let prefetchable = flags & PREFETCHABLE != 0;
    (step, (size != 0).then_some(BarRequest { size, width, prefetchable }))
}

fn set(config: &dyn ConfigSpace, register: u16, width: BarWidth, address: u64) {
    let [low, high] = halves(address);
    config.write32(register, low);
    if width == BarWidth::Bits64 {
        config.write32(register + 4, high);
    }
}

fn register(index: u8) -> u16 {
    BAR0 + 4 * u16::from(index)
}
