//! Test rig: an MSI capability on a controller that records its inputs.

use crate::controller::Controller;
use irq_routing::msi::{MsiCapability, MsiLayout};
use irq_routing::{GsiSpace, Router, Sender};
use msi_types::DeviceId;
use std::sync::Arc;

pub(super) const DEVICE: DeviceId = DeviceId::new(8);
/// Offset of the next capability.
pub(super) const NEXT: u8 = 0x70;
/// Layout with a 64-bit address, mask bits and 4 vectors.
pub(super) const WIDE: MsiLayout =
    MsiLayout { log2_vectors: 2, address_64: true, per_vector_masking: true };
/// Layout with a 32-bit address, no mask bits and 32 vectors.
pub(super) const NARROW: MsiLayout =
    MsiLayout { log2_vectors: 5, address_64: false, per_vector_masking: false };

pub(super) struct Rig {
    pub(super) msi: MsiCapability,
    pub(super) controller: Arc<Controller>,
}

impl Rig {
    pub(super) fn new(layout: MsiLayout) -> Self {
        let controller = Arc::new(Controller::default());
        let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
        let sender = Sender::Device(DEVICE);
        let msi = MsiCapability::new(layout, NEXT, sender, Arc::new(router)).unwrap();
        Self { msi, controller }
    }

    pub(super) fn read<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut bytes = [0xa5; N];
        self.msi.read(offset, &mut bytes);
        bytes
    }
}
