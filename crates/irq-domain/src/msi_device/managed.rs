//! Vectors that follow certain CPUs.

use super::allocation::Draft;
use super::{Domain, MsiVector};
use crate::error::MsiDeviceError;
use crate::interrupts::Interrupts;
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::{Cpu, Shape};

impl Domain {
    pub(super) fn allocate_managed(
        self: &Arc<Self>,
        core: &Interrupts,
        slot: u16,
        among: &[Cpu],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        let _placing = core.hotplug.read(core.host());
        let mut state = self.state.lock(core.host());
        self.check_present(&state)?;
        self.check_slots(&state, &[slot])?;
        self.share.with(core.host(), |attachment| {
            let mut draft = Draft::new(self, core, attachment, state.next_allocation);
            draft.allocate_managed(slot, among)?;
            self.establish(&mut state, draft, Shape::Independent)
        })
    }
}
