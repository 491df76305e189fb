//! The configuration window: 8 KiB of guest physical address space through which a guest selects a
//! function and accesses its configuration space.
//!
//! | offset | contents |
//! |---|---|
//! | 0 | the selected slot, 32 bits |
//! | 0x1000 | 4 KiB of configuration space of the selected function |

mod function_config;

pub use function_config::FunctionConfig;

use crate::protocol::{ProtocolError, Slot};

/// Length of the window in bytes.
pub const WINDOW_LENGTH: u64 = 0x2000;

/// Offset of the configuration space in the window.
const CONFIG_SPACE: u64 = 0x1000;

/// Access width.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits, at an even offset.
    Half,
    /// 32 bits, at a multiple of 4.
    Word,
}

impl Width {
    const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }

    /// Returns the width for an access of this many bytes, or `None` if the size is unsupported.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Half),
            4 => Some(Self::Word),
            _ => None,
        }
    }
}

/// The guest's mapping of the window. Implementations must complete each access before they begin
/// the next.
pub trait WindowMemory {
    /// Reads from `offset` in the window.
    fn read(&mut self, offset: u64, width: Width) -> u32;
    /// Writes to `offset` in the window.
    fn write(&mut self, offset: u64, width: Width, value: u32);
}

/// The guest's end of the window. Methods take `&mut self` because no other access may intervene
/// between the selection of a function and the access to its registers. A slot may since have been
/// taken by another function: once a function is [gone](crate::guest::BusEvent::Gone), its driver
/// must not access the slot, otherwise it changes the successor's registers.
#[derive(Debug)]
pub struct ConfigWindow<M>(M);

impl<M: WindowMemory> ConfigWindow<M> {
    /// Wraps the window with which the bus was [turned on](crate::protocol::Request::D0Entry).
    pub const fn new(memory: M) -> Self {
        Self(memory)
    }

    /// Reads configuration space. A read past the end of the space or at an unaligned offset
    /// returns all ones.
    pub fn read(&mut self, slot: Slot, offset: u16, width: Width) -> u32 {
        match place(offset, width) {
            Some(place) => {
                self.0.write(0, Width::Word, slot.to_wire());
                self.0.read(place, width)
            }
            None => u32::MAX,
        }
    }

    /// Writes configuration space. Ignores a write past the end of the space or at an unaligned
    /// offset.
    pub fn write(&mut self, slot: Slot, offset: u16, width: Width, value: u32) {
        if let Some(place) = place(offset, width) {
            self.0.write(0, Width::Word, slot.to_wire());
            self.0.write(place, width, value);
        }
    }
}

fn place(offset: u16, width: Width) -> Option<u64> {
    let fits = offset.is_multiple_of(width.bytes()) && offset <= 0x1000 - width.bytes();
    fits.then(|| CONFIG_SPACE + u64::from(offset))
}

/// A function's configuration space, emulated by the host.
pub trait ConfigSpace {
    /// Reads from `offset` below 4096, aligned to `width`.
    fn read(&mut self, offset: u16, width: Width) -> u32;
    /// Writes to `offset` below 4096, aligned to `width`.
    fn write(&mut self, offset: u16, width: Width, value: u32);
}

/// The host's end of the window.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HostWindow {
    /// The last slot number that the guest wrote, which is not validated.
    selected: u32,
}

impl HostWindow {
    /// Handles a guest write. A write that doesn't address a function's register is ignored.
    pub fn write<'a>(
        &mut self,
        offset: u64,
        width: Width,
        value: u32,
        find: impl FnOnce(Slot) -> Option<&'a mut dyn ConfigSpace>,
    ) {
        if offset == 0 && width == Width::Word {
            self.selected = value;
        } else if let Some(offset) = config_offset(offset, width)
            && let Some(function) = self.slot().ok().and_then(find)
        {
            function.write(offset, width, value);
        }
    }

    /// Handles a guest read. `find` returns the configuration space of the function in a slot. A
    /// read that doesn't address a function's register returns all ones.
    pub fn read<'a>(
        &self,
        offset: u64,
        width: Width,
        find: impl FnOnce(Slot) -> Option<&'a mut dyn ConfigSpace>,
    ) -> u32 {
        if offset == 0 && width == Width::Word {
            return self.selected;
        }
        let all_ones = u32::MAX >> (32 - 8 * width.bytes());
        let Some(offset) = config_offset(offset, width) else { return all_ones };
        let function = self.slot().ok().and_then(find);
        function.map_or(all_ones, |function| function.read(offset, width) & all_ones)
    }

    /// Returns the selected slot.
    ///
    /// # Errors
    /// Returns [`ProtocolError::BadSlot`] if the guest's selection is not a valid slot.
    pub const fn slot(self) -> Result<Slot, ProtocolError> {
        Slot::from_wire(self.selected)
    }
}

fn config_offset(offset: u64, width: Width) -> Option<u16> {
    let offset = u16::try_from(offset.checked_sub(CONFIG_SPACE)?).ok()?;
    place(offset, width).map(|_| offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Space(u32);

    impl ConfigSpace for Space {
        fn read(&mut self, offset: u16, _: Width) -> u32 {
            self.0 ^ u32::from(offset)
        }
        fn write(&mut self, _: u16, _: Width, value: u32) {
            self.0 = value;
        }
    }

    struct Host {
        window: HostWindow,
        slot: Slot,
        space: Space,
    }

    impl WindowMemory for Host {
        fn read(&mut self, offset: u64, width: Width) -> u32 {
            let (slot, space) = (self.slot, &mut self.space);
            self.window.read(offset, width, |at| (at == slot).then_some(space as _))
        }
        fn write(&mut self, offset: u64, width: Width, value: u32) {
            let (slot, space) = (self.slot, &mut self.space);
            self.window.write(offset, width, value, |at| (at == slot).then_some(space as _));
        }
    }

    fn guest(slot: Slot) -> ConfigWindow<Host> {
        ConfigWindow::new(Host { window: HostWindow::default(), slot, space: Space(0x8086_1234) })
    }

    #[test]
    fn accesses_reach_the_selected_function() {
        let slot = Slot::new(3, 1);
        let mut window = guest(slot);
        assert_eq!(window.read(slot, 0, Width::Word), 0x8086_1234);
        assert_eq!(window.read(slot, 4, Width::Half), 0x1230);
        window.write(slot, 0x10, Width::Word, 7);
        assert_eq!(window.read(slot, 0, Width::Byte), 7);
    }

    #[test]
    fn an_empty_slot_reads_ones() {
        let mut window = guest(Slot::new(3, 1));
        window.write(Slot::new(3, 0), 0, Width::Word, 7);
        assert_eq!(window.read(Slot::new(3, 0), 0, Width::Half), 0xffff);
        assert_eq!(window.0.space.0, 0x8086_1234);
    }

    #[test]
    fn invalid_accesses_read_ones_and_write_nothing() {
        let slot = Slot::default();
        let mut window = guest(slot);
        for (offset, width) in [(1, Width::Half), (2, Width::Word), (0x1000, Width::Byte)] {
            assert_eq!(window.read(slot, offset, width), u32::MAX);
            window.write(slot, offset, width, 0);
        }
        for offset in [2, 0x800, 0xfff, 0x1001, 0x2000, u64::MAX] {
            assert_eq!(window.0.read(offset, Width::Half), 0xffff);
            window.0.write(offset, Width::Half, 0);
        }
        window.0.write(0, Width::Word, 0x100);
        assert_eq!(window.0.read(0x1000, Width::Word), u32::MAX);
        assert_eq!(window.0.space.0, 0x8086_1234);
    }
}
