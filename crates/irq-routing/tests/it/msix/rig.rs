//! Test rig: an MSI-X table on a router.

use crate::controller::{Controller, Heard};
use irq_routing::msix::MsixTable;
use irq_routing::{GsiSpace, Router, Sender};
use msi_types::DeviceId;
use msi_types::pci::msix::Control;
use std::sync::Arc;

pub(super) const DEVICE: DeviceId = DeviceId::new(8);
pub(super) const ENABLED: Control = Control::new().with_enable(true);
pub(super) const HELD_BACK: Control = ENABLED.with_function_mask(true);
pub(super) const MASKED: u32 = 1;

pub(super) struct Rig {
    pub(super) table: MsixTable,
    pub(super) router: Arc<Router>,
    pub(super) controller: Arc<Controller>,
}

pub(super) fn router(space: GsiSpace) -> (Arc<Router>, Arc<Controller>) {
    let controller = Arc::new(Controller::default());
    (Arc::new(Router::new(space, controller.inputs()).unwrap()), controller)
}

pub(super) fn table(vectors: u16, router: &Arc<Router>) -> MsixTable {
    MsixTable::new(vectors, Sender::Device(DEVICE), router.clone()).unwrap()
}

impl Rig {
    pub(super) fn new(vectors: u16) -> Self {
        let (router, controller) = router(GsiSpace::default());
        Self { table: table(vectors, &router), router, controller }
    }
}

/// Programs a vector as a driver does: the message first, then the mask bit.
pub(super) fn program(table: &MsixTable, vector: u16, data: u32, control: u32) {
    let entry = u64::from(vector) * 16;
    table.write(entry, &Controller::ITS.to_le_bytes());
    table.write(entry + 8, &data.to_le_bytes());
    table.write(entry + 12, &control.to_le_bytes());
}

pub(super) fn read32(table: &MsixTable, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    table.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

pub(super) fn pending(table: &MsixTable, word: u64) -> u32 {
    let mut bytes = [0; 4];
    table.read_pending(word * 4, &mut bytes);
    u32::from_le_bytes(bytes)
}

pub(super) fn event(data: u32) -> Heard {
    Heard::Event(DEVICE, data)
}
