//! VMIDs, by which TLBs tell the address spaces of guests apart.

use core::num::NonZeroU8;

/// A VMID of 8 bits (DDI 0487, `VTCR_EL2.VS`). A guest's is never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vmid(NonZeroU8);

impl Vmid {
    /// Returns the VMID of a guest, counted from 0. Returns `None` if 8 bits do not suffice.
    pub fn of_guest(guest: usize) -> Option<Self> {
        NonZeroU8::MIN.checked_add(u8::try_from(guest).ok()?).map(Self)
    }

    /// Returns the number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_beyond_the_vmids_is_refused() {
        let vmid = |guest| Vmid::of_guest(guest).map(Vmid::get);
        assert_eq!([0, 254].map(vmid), [Some(1), Some(255)]);
        assert_eq!([255, 256, usize::MAX].map(vmid), [None; 3]);
    }
}
