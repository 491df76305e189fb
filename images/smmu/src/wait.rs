//! Waits for the SMMU, with a timeout.

use crate::error::SmmuError;
use gic_driver::{Platform, Wait};
use image_rt::platform::Kernel;

/// Waits until `done` returns `true`. Fails when the platform gives up.
pub(crate) fn wait_for(
    what: &'static str,
    mut done: impl FnMut() -> bool,
) -> Result<(), SmmuError> {
    let mut turn = 0;
    while !done() {
        if Kernel.wait(turn) == Wait::GiveUp {
            return Err(SmmuError::Timeout(what));
        }
        turn += 1;
    }
    Ok(())
}
