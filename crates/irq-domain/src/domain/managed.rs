//! Vectors that follow certain CPUs.

use super::allocation::Transaction;
use super::{Domain, MsiVector};
use crate::error::MsiDeviceError;
use crate::request::parts::IrqCore;
use alloc::vec::Vec;
use doorbell_fallible::Shared;
use msi_types::{Cpu, Shape};

impl Domain {
    pub(super) fn allocate_managed(
        this: &Shared<Self>,
        core: &IrqCore,
        slot: u16,
        among: &[Cpu],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        let online = core.placement.online_cpus(core.host());
        let mut state = this.state.lock(core.host());
        this.check_present(&state)?;
        this.check_slots(&state, &[slot])?;
        this.attachment.with(core.host(), |attachment| {
            let mut transaction = Transaction::new(this, core, attachment, &online);
            transaction.allocate_managed(slot, among)?;
            this.establish(&mut state, transaction, Shape::Independent)
        })
    }
}
