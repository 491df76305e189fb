//! A device in software, for tests that need more vectors or more speed than a real device has. A
//! CPU writes to `GITS_TRANSLATER`, and QEMU's ITS treats the write as a message from DeviceID 0.
//! DeviceID 0 belongs to the host bridge, which never sends messages. A CPU cannot write to a
//! controller inside a host bridge, so it makes such a controller's vectors pending instead.

use crate::machine::Machine;
use crate::report::Verdict;
use crate::smp::PerCpu;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::with_exposed_provenance_mut;
use image_rt::lock::IrqMutex;
use irq_domain::{IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig, MsiVector};
use msi_types::{
    Fit, HwIrq, Masking, MessageStore, MsiMessage, MsiParent, Pending, RequesterId, Rewrite, Shape,
    Storage, StoreError, StoreUpdate,
};

/// The device's messages, by slot.
struct Memory(Vec<IrqMutex<Option<MsiMessage>>>, Storage);

struct Open<'a>(&'a Memory);

impl StoreUpdate for Open<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.0.0[usize::from(slot)].with(|stored| *stored = Some(message));
    }

    fn mask(&mut self, _: u16) {}

    fn unmask(&mut self, _: u16) {}
}

impl MessageStore for Memory {
    fn slots(&self) -> u16 {
        self.0.len() as u16
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Atomic64)
    }

    fn masking(&self) -> Masking {
        Masking::None
    }

    fn storage(&self) -> Storage {
        self.1
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut Open(self));
        Ok(())
    }

    fn set_enabled(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The device's messages, which any CPU may send, even after the device was detached.
#[derive(Clone)]
pub(crate) struct Sender {
    memory: Arc<Memory>,
    /// The controller inside a host bridge, and its vectors.
    chained: Option<(Arc<dyn MsiParent>, Vec<HwIrq>)>,
}

impl Sender {
    /// Sends the message of a slot.
    pub(crate) fn fire(&self, slot: u16) {
        if let Some((controller, vectors)) = &self.chained {
            controller.set_pending(vectors[usize::from(slot)], Pending::Set);
        } else if let Some(message) = self.message(slot) {
            send(message);
        }
    }

    /// Returns the message of a slot.
    pub(crate) fn message(&self, slot: u16) -> Option<MsiMessage> {
        self.memory.0[usize::from(slot)].with(|stored| *stored)
    }
}

/// Sends a message from this CPU.
pub(crate) fn send(message: MsiMessage) {
    let doorbell = with_exposed_provenance_mut::<u32>(message.address as usize);
    // SAFETY: the doorbell is mapped as device memory, and accepts any data.
    unsafe { doorbell.write_volatile(message.data) };
}

/// A software device with its vectors.
pub(crate) struct SoftDevice {
    pub(crate) sender: Sender,
    pub(crate) vectors: Vec<MsiVector>,
    pub(crate) handles: Vec<IrqHandle>,
    msi: MsiDevice,
}

impl SoftDevice {
    /// Creates a device with this number of vectors. `handler` is called with the slot of the
    /// interrupt. A CPU sends the messages, so a hypervisor can trap them.
    pub(crate) fn new(
        machine: &Machine,
        vectors: u16,
        handler: impl Fn(u16, &IrqContext<'_>) + Clone + Send + Sync + 'static,
    ) -> Result<Self, Verdict> {
        Self::with_storage(machine, Storage::Emulated, vectors, handler)
    }

    /// Creates a device that counts its handlers' runs.
    pub(crate) fn counting(
        machine: &Machine,
        vectors: u16,
    ) -> Result<(Self, Arc<PerCpu>), Verdict> {
        let runs = Arc::<PerCpu>::default();
        let counts = runs.clone();
        let count = move |_, context: &IrqContext<'_>| counts.count(context.cpu());
        Ok((Self::new(machine, vectors, count)?, runs))
    }

    /// Like [`new`](Self::new), with another kind of storage.
    pub(crate) fn with_storage(
        machine: &Machine,
        storage: Storage,
        vectors: u16,
        handler: impl Fn(u16, &IrqContext<'_>) + Clone + Send + Sync + 'static,
    ) -> Result<Self, Verdict> {
        let parent =
            machine.controller.clone().ok_or(Verdict::Skipped("no MSI controller".into()))?;
        let memory = (0..vectors).map(|_| IrqMutex::new(None)).collect();
        let memory = Arc::new(Memory(memory, storage));
        let requester = RequesterId::pci(0, 0, 0);
        let chained = machine.is_chained().then(|| parent.clone());
        let config = MsiDeviceConfig::new("soft", requester, parent, memory.clone());
        let msi = MsiDevice::attach(&machine.interrupts, config)?;
        let vectors = msi.allocate(Shape::Independent, vectors..=vectors)?;
        let mut serving = Vec::new();
        for slot in 0..vectors.len() as u16 {
            let handler = handler.clone();
            serving.push(msi.request(slot, "soft", move |context| handler(slot, context))?);
        }
        let chained =
            chained.map(|parent| (parent, vectors.iter().map(|vector| vector.hwirq).collect()));
        Ok(Self { sender: Sender { memory, chained }, vectors, handles: serving, msi })
    }

    /// Sends the message of a slot.
    pub(crate) fn fire(&self, slot: u16) {
        self.sender.fire(slot);
    }

    /// Releases the vectors and detaches the device.
    pub(crate) fn tear_down(self) -> Result<(), Verdict> {
        drop(self.handles);
        Ok(self.msi.tear_down()?)
    }
}
