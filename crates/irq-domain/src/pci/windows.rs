//! Allocates addresses for memory regions from the windows of a host bridge and of the bridges
//! below it, and sizes and places base address registers (PCI Express Base §7.5.1.2.1).

use super::{
    BAR0, COMMAND, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, MEMORY,
    PREFETCHABLE_BASE, PREFETCHABLE_BASE_UPPER, PREFETCHABLE_LIMIT_UPPER,
};
use msi_types::Region;
use msi_types::pci::{PciSpace, PciWindow};

/// Minimum alignment of a region, which keeps two regions from sharing a page.
const PAGE: u64 = 0x1000;
/// Bridge window granularity.
const BRIDGE: u64 = 1 << 20;
/// End of the addresses that fit a 32-bit register.
const END_32: u64 = 1 << 32;

/// A function's memory region and its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// CPU physical addresses, which the kernel must map as device memory.
    pub cpu: Region,
    /// Bus address, as the register holds it.
    pub bus_base: u64,
    /// Width of the register.
    pub width: BarWidth,
}

/// Base address register width.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BarWidth {
    /// 32 bits.
    Bits32,
    /// 64 bits: this register and the next one.
    Bits64,
}

/// A function's request for a memory region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BarRequest {
    /// Size in bytes: a power of two, at least 16.
    pub(super) size: u64,
    pub(super) width: BarWidth,
    pub(super) prefetchable: bool,
}

/// Free addresses in two windows. 32-bit registers are always placed in `low`. 64-bit registers are
/// placed in `high` if it is reachable, and either the register is prefetchable or `low` has no
/// room. Below bridges, `high` is the prefetchable window, which PCI Express permits for all 64-bit
/// regions (PCI Express Base §7.5.1.2.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowPools {
    low: Pool,
    high: Pool,
    /// `true` if the bridges above forward 64-bit addresses.
    high_reachable: bool,
}

/// First addresses in the windows of a bridge that is being enumerated.
#[derive(Clone, Copy, Debug)]
pub(super) struct BridgeWindows {
    low: u64,
    high: u64,
    high_reachable_above: bool,
    /// `true` if the bridge implements the upper prefetchable window registers.
    wide: bool,
}

impl WindowPools {
    /// Selects the largest 32-bit memory window and the largest 64-bit one.
    pub(super) fn of_host(windows: &[PciWindow]) -> Self {
        let largest = |space| {
            let windows = windows.iter().filter(|window| window.space() == space);
            windows.max_by_key(|window| window.cpu().size()).map_or(Pool::EMPTY, Pool::of)
        };
        let mut low = largest(PciSpace::Memory32);
        low.end = low.end.min(END_32);
        Self { low, high: largest(PciSpace::Memory64), high_reachable: true }
    }

    /// Allocates addresses for a region.
    pub(super) fn take(&mut self, request: BarRequest) -> Option<Bar> {
        let wide = request.width == BarWidth::Bits64 && self.high_reachable;
        let Self { low, high, .. } = self;
        match (wide, request.prefetchable) {
            (false, _) => low.take(request),
            (true, true) => high.take(request).or_else(|| low.take(request)),
            (true, false) => low.take(request).or_else(|| high.take(request)),
        }
    }

    /// Opens a bridge's windows.
    pub(super) fn open(&mut self, config: &dyn ConfigSpace) -> BridgeWindows {
        self.low.align();
        self.high.align();
        let high_reachable_above = self.high_reachable;
        // Bits 3:0 of the prefetchable base are 1 if the bridge has the upper registers. Without a
        // prefetchable window, the whole register reads as zero.
        let wide = config.read16(PREFETCHABLE_BASE) & 0xf == 1;
        self.high_reachable = high_reachable_above && wide;
        BridgeWindows { low: self.low.next, high: self.high.next, high_reachable_above, wide }
    }

    /// Closes a bridge's windows after all regions below it were placed.
    pub(super) fn close(&mut self, config: &dyn ConfigSpace, begin: BridgeWindows) {
        self.low.align();
        self.high.align();
        let [low_base, low_limit] = ends(begin.low, self.low.next);
        config.write32(MEMORY, field(low_limit) << 16 | field(low_base));
        let [base, limit] = ends(begin.high, self.high.next);
        config.write32(PREFETCHABLE_BASE, field(limit) << 16 | field(base));
        if begin.wide {
            config.write32(PREFETCHABLE_BASE_UPPER, halves(base)[1]);
            config.write32(PREFETCHABLE_LIMIT_UPPER, halves(limit)[1]);
        }
        self.high_reachable = begin.high_reachable_above;
    }
}

/// Returns the first and last address in a bridge's window. If the window is empty, the first one
/// is higher.
fn ends(begin: u64, end: u64) -> [u64; 2] {
    if begin < end { [begin, end - 1] } else { [0xfff0_0000, 0] }
}

/// Returns bits 31:20 of an address as a window register holds them, in bits 15:4.
fn field(address: u64) -> u32 {
    halves(address)[0] >> 16 & 0xfff0
}

/// The free addresses of a window, as bus addresses.
#[derive(Clone, Copy, Debug)]
struct Pool {
    next: u64,
    end: u64,
    /// The window's first bus address and first CPU address.
    bus_base: u64,
    cpu_base: u64,
}

impl Pool {
    const EMPTY: Self = Self { next: 0, end: 0, bus_base: 0, cpu_base: 0 };

    fn of(window: &PciWindow) -> Self {
        let (bus_base, cpu) = (window.bus_base(), window.cpu());
        // A window doesn't wrap, but loses its last byte if it extends to the very end of the
        // address space.
        let end = bus_base.saturating_add(cpu.size());
        // In a register, address 0 means "unassigned".
        Self { next: bus_base.max(PAGE), end, bus_base, cpu_base: cpu.base() }
    }

    fn take(&mut self, request: BarRequest) -> Option<Bar> {
        let bus_base = self.next.checked_next_multiple_of(request.size.max(PAGE))?;
        let end = bus_base.checked_add(request.size).filter(|end| *end <= self.end)?;
        let cpu = Region::new(self.cpu_base + (bus_base - self.bus_base), request.size)?;
        self.next = end;
        Some(Bar { cpu, bus_base, width: request.width })
    }

    /// Aligns the next address to a bridge window boundary. If the aligned address is outside the
    /// pool, the pool is exhausted.
    fn align(&mut self) {
        let aligned = self.next.checked_next_multiple_of(BRIDGE);
        self.next = aligned.filter(|next| *next <= self.end).unwrap_or(self.end);
    }
}

/// Returns an address as its low and high words.
pub(super) fn halves(address: u64) -> [u32; 2] {
    [address & 0xffff_ffff, address >> 32].map(|half| u32::try_from(half).unwrap_or(0))
}

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
