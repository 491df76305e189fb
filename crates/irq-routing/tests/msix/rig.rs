//! A table over a router that counts its changes.

use crate::controller::{Controller, Heard};
use irq_routing::msix::MsixTable;
use irq_routing::{Change, Changes, GsiSpace, RouteError, Router, Routing, Sender, SignalError};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, Gsi};
use std::sync::{Arc, Mutex};

pub(super) const DEVICE: DeviceId = DeviceId::new(8);
pub(super) const ENABLED: Control = Control::new().with_enable(true);
pub(super) const HELD_BACK: Control = ENABLED.with_function_mask(true);
pub(super) const MASKED: u32 = 1;

/// A router that counts its changes.
pub(super) struct Counting {
    pub(super) router: Router,
    commits: Mutex<Vec<Changes>>,
}

impl Counting {
    /// The changes of each commit since the last time.
    pub(super) fn commits(&self) -> Vec<u32> {
        std::mem::take(&mut *self.commits.lock().unwrap())
            .iter()
            .map(|changes| changes.made)
            .collect()
    }

    /// Returns the number of free GSIs.
    pub(super) fn free(&self) -> usize {
        let free: Vec<_> = std::iter::from_fn(|| self.router.allocate().ok()).collect();
        self.router.release(&free).unwrap();
        free.len()
    }
}

impl Routing for Counting {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.router.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        self.router.release(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        let changes = self.router.commit(changes)?;
        self.commits.lock().unwrap().push(changes);
        Ok(changes)
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        self.router.signal(gsi)
    }
}

pub(super) struct Rig {
    pub(super) table: MsixTable,
    pub(super) routing: Arc<Counting>,
    pub(super) controller: Arc<Controller>,
}

pub(super) fn routing(space: GsiSpace) -> (Arc<Counting>, Arc<Controller>) {
    let controller = Arc::new(Controller::default());
    let router = Router::new(space, controller.inputs()).unwrap();
    (Arc::new(Counting { router, commits: Mutex::default() }), controller)
}

pub(super) fn table(vectors: u16, routing: &Arc<Counting>) -> MsixTable {
    MsixTable::new(vectors, Sender::Device(DEVICE), routing.clone()).unwrap()
}

impl Rig {
    pub(super) fn new(vectors: u16) -> Self {
        let (routing, controller) = routing(GsiSpace::default());
        Self { table: table(vectors, &routing), routing, controller }
    }
}

/// As a driver does: message first, then the mask bit.
pub(super) fn program(
    table: &MsixTable,
    vector: u16,
    data: u32,
    control: u32,
) -> Result<(), RouteError> {
    let entry = u64::from(vector) * 16;
    table.write(entry, &Controller::ITS.to_le_bytes())?;
    table.write(entry + 8, &data.to_le_bytes())?;
    table.write(entry + 12, &control.to_le_bytes())
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
