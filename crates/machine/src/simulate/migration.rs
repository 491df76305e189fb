//! The model of the interrupt controller is saved, sent as bytes, and restored.

use crate::cpu::CpuCore;
use std::sync::Arc;
use vgic::Vgic;
use vgic::saved_state::SavedState;

/// Whether the machine is saved and restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Migrations {
    /// It is not.
    None,
    /// Now and then.
    Random,
}

/// Saves the model and restores it from the bytes. A model that is restored is reset first: what is not in them is lost.
/// Saved again, it must say the same.
pub(super) fn migrate(vgic: &Vgic, cores: &[Arc<CpuCore>]) -> Result<(), String> {
    let mut vcpus: Vec<_> = cores.iter().map(|core| core.vcpu()).collect();
    let mut frozen =
        vgic.freeze(vcpus.iter_mut().map(|vcpu| &mut **vcpu)).map_err(|error| error.to_string())?;
    let saved = frozen.save();
    let sent = postcard::to_allocvec(&saved).map_err(|error| error.to_string())?;
    let received: SavedState = postcard::from_bytes(&sent).map_err(|error| error.to_string())?;
    frozen.restore(&received).map_err(|error| error.to_string())?;
    if frozen.save() == saved { Ok(()) } else { Err("a restored machine saves as another one".to_owned()) }
}
