//! A function's configuration space, presented in a way that a guest's PCI core can probe.

use super::{ConfigWindow, Width, WindowMemory};
use crate::protocol::{BARS, DeviceDescription};

/// Offset of the command register.
const COMMAND: u16 = 0x04;

/// Offset of the first base address register.
const BAR0: u16 = 0x10;

/// Command register bit that enables decoding of the base addresses.
const MEMORY_ENABLE: u16 = 1 << 1;

/// Bits of a base address register that describe the register's kind.
const BAR_KIND: u32 = 0xf;

/// The configuration space of a function behind the window, for a PCI core to probe.
///
/// Hyper-V doesn't answer some reads consistently, so guests avoid them. Following Linux, we read
/// the ID, class and subsystem registers from the function's description, and return zeros for the
/// expansion ROM, interrupt line and interrupt pin registers. Following OpenVMM's client, we keep
/// base address registers here and write them to the function when memory accesses are enabled
/// (Hyper-V ignores writes while they are enabled); the enable bit reads back as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionConfig {
    description: DeviceDescription,
    /// Values that the base address registers return after all ones were written to them.
    masks: [u32; BARS],
    bars: [u32; BARS],
    command: u16,
}

impl FunctionConfig {
    /// Creates the configuration space for a function with this description and these base address
    /// registers, as returned by [`Bus::functions`](crate::guest::Bus::functions) and
    /// [`Bus::bars`](crate::guest::Bus::bars). Memory accesses must be disabled.
    pub const fn new(description: DeviceDescription, masks: [u32; BARS]) -> Self {
        let mut config = Self { description, masks, bars: [0; BARS], command: 0 };
        let mut index = 0;
        while index < BARS {
            config.set_bar(index, 0);
            index += 1;
        }
        config
    }

    /// Writes configuration space. Ignores writes past the end of the space, writes at an unaligned
    /// offset, and writes to the subsystem and expansion ROM registers.
    pub fn write<M: WindowMemory>(
        &mut self,
        window: &mut ConfigWindow<M>,
        offset: u16,
        width: Width,
        value: u32,
    ) {
        if !offset.is_multiple_of(width.bytes()) {
            return;
        }
        let slot = self.description.slot;
        let aligned = offset & !3;
        match aligned {
            0x2c | 0x30 => {}
            COMMAND if offset == COMMAND => {
                let [low, high, ..] = value.to_le_bytes();
                let high = if width == Width::Byte { self.command.to_le_bytes()[1] } else { high };
                let command = u16::from_le_bytes([low, high]);
                if command & !self.command & MEMORY_ENABLE != 0 {
                    for (index, bar) in (0u16..).zip(self.bars) {
                        window.write(slot, BAR0 + 4 * index, Width::Word, bar);
                    }
                }
                self.command = command;
                window.write(slot, offset, width, value);
            }
            _ => match bar_index(aligned) {
                Some(index) => {
                    let shift = u32::from(offset & 3) * 8;
                    let mask = u32::MAX >> (32 - 8 * width.bytes()) << shift;
                    let old = self.bars.get(index).copied().unwrap_or(0);
                    self.set_bar(index, old & !mask | value << shift & mask);
                }
                None => window.write(slot, offset, width, value),
            },
        }
    }

    /// Reads configuration space. A read past the end of the space or at an unaligned offset
    /// returns all ones.
    pub fn read<M: WindowMemory>(
        &self,
        window: &mut ConfigWindow<M>,
        offset: u16,
        width: Width,
    ) -> u32 {
        let slot = self.description.slot;
        let is_aligned = offset.is_multiple_of(width.bytes());
        match self.known(offset & !3).filter(|_| is_aligned) {
            Some((known, mask)) => {
                let shift = u32::from(offset & 3) * 8;
                let width_mask = u32::MAX >> (32 - 8 * width.bytes());
                let (known, mask) = (known >> shift & width_mask, mask >> shift & width_mask);
                if mask == width_mask {
                    return known;
                }
                window.read(slot, offset, width) & !mask | known & mask
            }
            None => window.read(slot, offset, width),
        }
    }

    /// Returns those bits of the register at `offset` (a multiple of 4) that are not read from the
    /// window, and their mask.
    fn known(&self, offset: u16) -> Option<(u32, u32)> {
        let of = &self.description;
        let halves = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        match offset {
            0x00 => Some((halves(of.vendor, of.device), u32::MAX)),
            COMMAND => Some((self.command.into(), MEMORY_ENABLE.into())),
            0x08 => {
                let class = [of.revision, of.interface, of.subclass, of.class];
                Some((u32::from_le_bytes(class), u32::MAX))
            }
            0x2c => Some((halves(of.subsystem_vendor, of.subsystem), u32::MAX)),
            // Expansion ROM; interrupt line and pin.
            0x30 => Some((0, u32::MAX)),
            0x3c => Some((0, 0xffff)),
            _ => Some((self.bars.get(bar_index(offset)?).copied()?, u32::MAX)),
        }
    }

    const fn set_bar(&mut self, index: usize, value: u32) {
        if index < BARS {
            // The upper half of a 64-bit register has no kind bits.
            let is_upper = index > 0 && self.is_wide(index - 1);
            let kind = if is_upper { 0 } else { self.masks[index] & BAR_KIND };
            self.bars[index] = value & self.masks[index] & !kind | kind;
        }
    }

    /// Returns `true` if this is the lower half of a 64-bit register.
    const fn is_wide(&self, index: usize) -> bool {
        let mut at = 0;
        while at < index {
            at += if self.masks[at] & 0x6 == 4 { 2 } else { 1 };
        }
        at == index && self.masks[index] & 0x6 == 4
    }
}

/// Returns the index of the base address register at `offset`, a multiple of 4.
fn bar_index(offset: u16) -> Option<usize> {
    let index = usize::from(offset.checked_sub(BAR0)? / 4);
    (index < BARS).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Slot;
    use alloc::vec;
    use alloc::vec::Vec;

    /// A host that answers every read with the same value and logs writes.
    struct Host(u32, Vec<(u64, u32)>);

    impl WindowMemory for Host {
        fn read(&mut self, _: u64, width: Width) -> u32 {
            self.0 & u32::MAX >> (32 - 8 * width.bytes())
        }
        fn write(&mut self, offset: u64, _: Width, value: u32) {
            if offset != 0 {
                self.1.push((offset - 0x1000, value));
            }
        }
    }

    const MASKS: [u32; BARS] = [0xffff_f004, 0xffff_ffff, 0xfff0_0000, 0, 0, 0];

    fn config() -> (FunctionConfig, ConfigWindow<Host>) {
        let description = DeviceDescription {
            vendor: 0x1414,
            device: 0x0007,
            revision: 1,
            interface: 2,
            subclass: 3,
            class: 4,
            subsystem_vendor: 0x5555,
            subsystem: 0x6666,
            slot: Slot::new(2, 0),
            ..DeviceDescription::default()
        };
        let window = ConfigWindow::new(Host(u32::MAX, vec![]));
        (FunctionConfig::new(description, MASKS), window)
    }

    #[test]
    fn described_registers_are_answered_without_the_host() {
        let (config, mut window) = config();
        let mut read = |offset, width| config.read(&mut window, offset, width);
        assert_eq!(read(0, Width::Word), 0x0007_1414);
        assert_eq!((read(2, Width::Half), read(9, Width::Byte)), (7, 2));
        assert_eq!((read(8, Width::Word), read(0x2c, Width::Word)), (0x0403_0201, 0x6666_5555));
        assert_eq!((read(0x30, Width::Word), read(0x3c, Width::Half)), (0, 0));
        // The latencies, the capabilities and all other registers are read from the host.
        assert_eq!((read(0x3c, Width::Word), read(0x34, Width::Byte)), (0xffff_0000, 0xff));
        assert_eq!(read(0x40, Width::Word), u32::MAX);
        assert_eq!((read(1, Width::Half), read(0x11, Width::Word)), (u32::MAX, u32::MAX));
    }

    #[test]
    fn bar_sizes_are_probed_without_the_host() {
        let (mut config, mut window) = config();
        let sizes: Vec<_> = (0..6u16)
            .map(|index| {
                let offset = BAR0 + 4 * index;
                let before = config.read(&mut window, offset, Width::Word);
                config.write(&mut window, offset, Width::Word, u32::MAX);
                let probed = config.read(&mut window, offset, Width::Word);
                config.write(&mut window, offset, Width::Word, before);
                (before, probed)
            })
            .collect();
        let wanted = [(4, 0xffff_f004), (0, u32::MAX), (0, 0xfff0_0000), (0, 0), (0, 0), (0, 0)];
        assert_eq!(sizes, wanted);
        assert!(window.0.1.is_empty());
    }

    #[test]
    fn bars_reach_the_host_only_once_memory_is_enabled() {
        let (mut config, mut window) = config();
        config.write(&mut window, 0x10, Width::Word, 0x8000_0000);
        config.write(&mut window, 0x14, Width::Half, 0x0012);
        config.write(&mut window, 0x1b, Width::Byte, 0xc0);
        config.write(&mut window, 0x2c, Width::Word, 1);
        config.write(&mut window, 0x30, Width::Word, 1);
        assert!(window.0.1.is_empty());
        // The host does not return the enable bit.
        window.0.0 = 0;
        config.write(&mut window, COMMAND, Width::Half, 0x0406);
        let bars = [0x8000_0004, 0x12, 0xc000_0000, 0, 0, 0];
        let mut wanted: Vec<_> = (0x10u64..).step_by(4).zip(bars).collect();
        wanted.push((4, 0x0406));
        assert_eq!(window.0.1, wanted);
        assert_eq!(config.read(&mut window, COMMAND, Width::Half), 2);
        // The base address registers must be written only once.
        config.write(&mut window, COMMAND, Width::Byte, 6);
        assert_eq!(window.0.1.len(), 8);
        config.write(&mut window, COMMAND, Width::Half, 0);
        assert_eq!(config.read(&mut window, COMMAND, Width::Half), 0);
    }
}
