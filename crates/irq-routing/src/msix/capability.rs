//! The function's configuration space, as far as it concerns the table: the MSI-X capability and
//! Bus Master Enable.

use super::MsixTable;
use crate::config_space::{BusMaster, MsixLayout};
use msi_types::pci::msix::{self, BarOffset, Control};

/// The capability's three words.
type Registers = [[u8; 4]; msix::LENGTH as usize / 4];

impl MsixTable {
    /// Sets what the guest reads in the capability. By default, the table is at the start of BAR 0
    /// and directly followed by the pending bits, and no capability follows.
    #[must_use]
    pub fn with_layout(mut self, layout: MsixLayout) -> Self {
        self.layout = layout;
        self
    }

    /// Reads the capability in configuration space for the guest. The access may have any size, and
    /// `offset` is relative to the capability. Bytes in `bytes` that are outside the capability are
    /// left unchanged.
    pub fn read_capability(&self, offset: u16, bytes: &mut [u8]) {
        let registers = self.registers(self.control());
        let registers = registers.as_flattened().iter().skip(offset.into());
        bytes.iter_mut().zip(registers).for_each(|(byte, register)| *byte = *register);
    }

    /// Writes the capability in configuration space for the guest. The access may have any size,
    /// and `offset` is relative to the capability. Ignores bytes outside the capability and
    /// read-only bits: the guest can only write the enable bit and the function mask. Like
    /// [`write`](Self::write), waits for threads that are sending a masked vector's message.
    pub fn write_capability(&self, offset: u16, bytes: &[u8]) {
        let mut guest = self.guest.lock();
        let before = guest.control;
        let mut registers = self.registers(before);
        let written = registers.as_flattened_mut().iter_mut().skip(offset.into()).zip(bytes);
        written.for_each(|(register, byte)| *register = *byte);
        let [[_, _, low, high], ..] = registers;
        guest.write_control(Control::from_bits(u16::from_le_bytes([low, high])));
        if guest.control != before {
            self.apply_all(&mut guest);
        }
    }

    /// Follows Bus Master Enable in the function's Command register, which is set
    /// ([`BusMaster::Enabled`]) unless the VMM calls this method. While it is clear, the function
    /// sends no message, and the messages of its vectors become pending, whether or not they are
    /// masked. They are sent once it is set. Waits for threads that are sending a message.
    ///
    /// A message is a memory write, and a function that is not a bus master must not send memory
    /// requests (PCI Express Base §7.5.1.1.3). The specification does not say what becomes of a
    /// message that would have been sent; we keep it, so that a driver that sets the bit late loses
    /// nothing.
    ///
    /// [`reset`](Self::reset) does not change the setting, because the table does not contain the
    /// Command register. A VMM that resets the register must call this method, too.
    pub fn set_bus_master(&self, bus_master: BusMaster) {
        let mut guest = self.guest.lock();
        guest.bus_master = bus_master;
        self.apply_all(&mut guest);
    }

    /// Returns the last setting of [`set_bus_master`](Self::set_bus_master).
    pub(crate) fn bus_master(&self) -> BusMaster {
        self.guest.lock().bus_master
    }

    fn registers(&self, control: Control) -> Registers {
        let [low, high] = control.into_bits().to_le_bytes();
        let head = [msix::CAPABILITY_ID, self.layout.next, low, high];
        let place = |at: BarOffset| at.into_bits().to_le_bytes();
        [head, place(self.layout.table), place(self.layout.pending)]
    }
}
