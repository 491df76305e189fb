//! A device's interrupt domain, between its message store and its controller, and the attachment
//! that all of a device's domains share.

use super::allocation::{Relocation, Site, Transaction, compose};
use super::endpoint::{Endpoint, StoreEnable, require};
use super::vector_table::{Counts, DeviceVector, MsiVector, VectorTable};
use crate::error::{MoveError, MsiDeviceError};
use crate::irq::control::HandlerPhase;
use crate::irq::descriptor::{Descriptor, IrqSource};
use crate::irq::registry::IrqRegistry;
use crate::name::{Irq, Name};
use crate::request::root_controller::IrqCore;
use crate::runtime::{Host, Runtime};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use doorbell_fallible::Shared;
use doorbell_fallible::lock::TaskLock;
use msi_types::explain::{Explanation, Fact, Obstacle, Unexamined};
use msi_types::{
    Attachment, Capability, Cpu, DmaIsolated, HwIrq, HwIrqBlock, InterruptIsolated, Isolation,
    MsiError, MsiParent, NotDmaIsolated, NotIsolated, Pending, RequesterId, Shape, StoreError,
    Trigger,
};

/// State shared by a device and its interrupts.
pub(super) struct IrqDomain {
    pub(super) name: Name,
    pub(super) attachment: Shared<SharedAttachment>,
    endpoint: Endpoint,
    state: TaskLock<DomainState>,
}

#[derive(Default)]
struct DomainState {
    /// `true` once the domain has been torn down.
    gone: bool,
    enable: StoreEnable,
    table: VectorTable,
}

impl IrqDomain {
    pub(super) fn new(
        name: Name,
        attachment: Shared<SharedAttachment>,
        endpoint: Endpoint,
    ) -> Self {
        let state = TaskLock::new(DomainState::default());
        Self { name, attachment, endpoint, state }
    }

    fn parent(&self) -> &dyn MsiParent {
        &*self.attachment.parent
    }

    /// Calls `read` with the vector table.
    ///
    /// Context: task; may sleep.
    pub(super) fn with_table<R>(&self, host: &dyn Host, read: impl FnOnce(&VectorTable) -> R) -> R {
        read(&self.state.lock(host).table)
    }

    /// Grants vectors at the lowest free slots.
    ///
    /// Context: task; may sleep.
    pub(super) fn allocate(
        this: &Shared<Self>,
        core: &IrqCore,
        shape: Shape,
        wanted: RangeInclusive<u16>,
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        let plan = |table: &VectorTable| {
            let free = table.vacant(this.endpoint.slots())?;
            let mut counts = Counts::new(shape, wanted, table, free.len())?;
            if shape == Shape::AlignedGroup && this.endpoint.trigger() == Trigger::Level {
                return Err(MsiError::NoLevels.into());
            }
            if shape == Shape::AlignedGroup && counts.most > 1 {
                match require(this.parent(), Capability::Groups) {
                    // A group with a single vector doesn't need the capability.
                    Err(_) if counts.least <= 1 => counts.most = 1,
                    other => other?,
                }
            }
            Ok((counts, free))
        };
        Self::grant(this, core, shape, plan, |transaction, (counts, free)| match shape {
            Shape::Independent => transaction.independent(counts, &free),
            Shape::AlignedGroup => transaction.group(counts),
        })
    }

    /// Grants a vector at each slot in `slots`.
    ///
    /// Context: task; may sleep.
    pub(super) fn allocate_at(
        this: &Shared<Self>,
        core: &IrqCore,
        slots: &[u16],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        let plan = |table: &VectorTable| table.check_vacant(this.endpoint.slots(), slots);
        Self::grant(this, core, Shape::Independent, plan, |transaction, ()| {
            transaction.spread(slots)
        })
    }

    /// Grants a vector at `slot` that may only target CPUs of `among`.
    ///
    /// Context: task; may sleep.
    pub(super) fn allocate_managed(
        this: &Shared<Self>,
        core: &IrqCore,
        slot: u16,
        among: &[Cpu],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        let plan = |table: &VectorTable| table.check_vacant(this.endpoint.slots(), &[slot]);
        Self::grant(this, core, Shape::Independent, plan, |transaction, ()| {
            transaction.allocate_managed(slot, among)
        })
    }

    /// Plans and makes an allocation, composes and writes its messages, and commits it. If a step
    /// fails, all previous ones are rolled back.
    fn grant<P>(
        this: &Shared<Self>,
        core: &IrqCore,
        shape: Shape,
        plan: impl FnOnce(&VectorTable) -> Result<P, MsiDeviceError>,
        take: impl FnOnce(&mut Transaction<'_>, P) -> Result<(), MsiDeviceError>,
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        // Keep the chosen CPU from going offline until hotplug can see that the interrupt targets
        // it.
        let online = core.pool.online_cpus(core.host());
        let mut state = this.state.lock(core.host());
        let state = &mut *state;
        this.check_present(state)?;
        let plan = plan(&state.table)?;
        this.attachment.with(core.host(), |attachment| {
            let make_source = |slot| {
                let slot = Slot { domain: this.clone(), number: slot };
                Shared::<dyn IrqSource>::try_unsized(slot, |block| block)
            };
            let mut transaction = Transaction::new(Site {
                core,
                device: &this.name,
                parent: this.parent(),
                attachment,
                endpoint: &this.endpoint,
                make_source: &make_source,
                online: &online,
            });
            take(&mut transaction, plan)?;
            transaction.compose()?;
            let taken = transaction.taken();
            let granted = taken.granted()?;
            state.table.reserve_for(taken)?;
            this.endpoint.write(taken, shape, state.enable).inspect_err(|_| {
                // Report the first error.
                let _ = this.endpoint.quieten(taken.slots(), state.enable);
            })?;
            state.enable = StoreEnable::On;
            state.table.absorb(transaction.commit());
            Ok(granted)
        })
    }

    /// Checks that the domain has not been torn down and may allocate more vectors.
    fn check_present(&self, state: &DomainState) -> Result<(), MsiDeviceError> {
        if state.gone {
            return Err(MsiDeviceError::Gone);
        }
        match state.enable {
            StoreEnable::Off => Ok(()),
            StoreEnable::On => Ok(require(self.parent(), Capability::LateAllocation)?),
        }
    }

    /// Frees the vector at `slot` together with its handler.
    ///
    /// Context: task; may sleep.
    pub(super) fn free(&self, registry: &IrqRegistry, slot: u16) -> Result<(), MsiDeviceError> {
        let (vector, quiet) = self.remove_vector(registry, slot)?;
        // Free the handler without holding the device's lock, because this drops everything that
        // the handler owns.
        registry.free_handler(&vector.descriptor);
        registry.leave_line(&vector.descriptor);
        registry.retire(&vector.descriptor);
        let mut state = self.state.lock(registry.host());
        if let Some(allocation) = state.table.allocations.remove(vector.first) {
            self.attachment.free(registry.host(), allocation.block);
        }
        Ok(quiet?)
    }

    /// Closes the vector at `slot` and clears its slot. Turns the store off if this was the last
    /// vector. Returns the vector, and the result of the writes to the store.
    fn remove_vector(
        &self,
        registry: &IrqRegistry,
        slot: u16,
    ) -> Result<(DeviceVector, Result<(), StoreError>), MsiDeviceError> {
        let mut state = self.state.lock(registry.host());
        let vector = state.table.remove(slot)?;
        registry.interrupt(&vector.descriptor).close(HandlerPhase::Gone);
        if state.table.vectors.is_empty() {
            state.enable = StoreEnable::Off;
        }
        let quiet = self.endpoint.quieten(core::iter::once(slot), state.enable);
        Ok((vector, quiet))
    }

    /// Removes the handlers, turns the store off, and frees vectors, numbers and the attachment.
    /// The order prevents stray messages. Later calls are no-ops.
    ///
    /// Context: task; may sleep.
    pub(super) fn tear_down(&self, registry: &IrqRegistry) -> Result<(), StoreError> {
        let (table, enable) = {
            let mut state = self.state.lock(registry.host());
            if core::mem::replace(&mut state.gone, true) {
                return Ok(());
            }
            (core::mem::take(&mut state.table), core::mem::take(&mut state.enable))
        };
        for (_, vector) in table.vectors.iter() {
            registry.interrupt(&vector.descriptor).close(HandlerPhase::Gone);
        }
        let quiet = match enable {
            StoreEnable::Off => Ok(()),
            StoreEnable::On => self.endpoint.quieten(table.slots(), StoreEnable::Off),
        };
        let (allocations, vectors) = table.into_parts();
        for vector in vectors {
            registry.free_handler(&vector.descriptor);
            registry.leave_line(&vector.descriptor);
            registry.retire(&vector.descriptor);
        }
        let mut blocks = allocations.map(|allocation| allocation.block);
        self.attachment.leave(registry.host(), &mut blocks);
        quiet
    }

    /// Writes the store's whole contents to the device again. A parent that was suspended may have
    /// other messages for the same vectors, as Hyper-V's host has, so edges are composed again.
    ///
    /// Context: task; may sleep.
    pub(super) fn restore(&self, registry: &IrqRegistry) -> Result<(), MsiDeviceError> {
        let mut state = self.state.lock(registry.host());
        self.endpoint.forget();
        if state.enable == StoreEnable::Off {
            return Ok(());
        }
        if self.endpoint.trigger() == Trigger::Edge {
            compose(self.parent(), &self.endpoint, &mut state.table)?;
        }
        let descriptors = || state.table.vectors.iter().map(|(_, vector)| &vector.descriptor);
        // If an interrupt is enabled or disabled during the rewrite, `end_rewrite` applies the
        // change to the endpoint's mask.
        let masks_itself = self.endpoint.mask().is_some();
        if masks_itself {
            descriptors().for_each(|one| one.control.lock(registry.host()).begin_rewrite());
        }
        let written = self.endpoint.write(&state.table, state.table.shape(), StoreEnable::Off);
        if masks_itself {
            descriptors().for_each(|one| one.end_rewrite(registry.runtime()));
        }
        Ok(written?)
    }
}

/// A slot in a device's domain, as an interrupt source.
struct Slot {
    domain: Shared<IrqDomain>,
    number: u16,
}

impl Slot {
    /// Returns another slot that is masked and has its pending bit set. Examines the first 64
    /// slots.
    fn other_pending_slot(&self) -> Option<u16> {
        let Self { domain, number } = self;
        let mask = domain.endpoint.mask()?;
        let mut slots = 0..domain.endpoint.slots().min(64);
        slots.find(|slot| slot != number && mask.is_pending(*slot))
    }
}

impl IrqSource for Slot {
    fn mask(&self, hwirq: HwIrq) {
        match self.domain.endpoint.mask() {
            Some(endpoint) => endpoint.mask(self.number),
            None => self.domain.parent().mask(hwirq),
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        match self.domain.endpoint.mask() {
            Some(endpoint) => endpoint.unmask(self.number),
            None => self.domain.parent().unmask(hwirq),
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.domain.parent().set_pending(hwirq, pending);
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        let endpoint = self.domain.endpoint.mask();
        let waiting = endpoint.is_some_and(|endpoint| endpoint.is_pending(self.number));
        if waiting { Some(true) } else { self.domain.parent().is_pending(hwirq) }
    }

    fn slot(&self) -> (&Name, RequesterId, u16) {
        (&self.domain.name, self.domain.attachment.requester, self.number)
    }

    fn relocate(
        &self,
        runtime: &Runtime,
        descriptor: &Descriptor,
        to: Cpu,
        others: Option<&mut Vec<Irq>>,
    ) -> Result<bool, MoveError> {
        let mut state = self.domain.state.lock(runtime.host());
        let relocation = Relocation {
            runtime,
            parent: self.domain.parent(),
            endpoint: &self.domain.endpoint,
            enable: state.enable,
            table: &mut state.table,
        };
        relocation.run((descriptor, self.number), to, others)
    }

    fn settled_target(&self, host: &dyn Host, descriptor: &Descriptor) -> Cpu {
        let _state = self.domain.state.lock(host);
        descriptor.target()
    }

    fn explain(&self, host: &dyn Host, hwirq: HwIrq) -> Explanation {
        let IrqDomain { attachment, endpoint, .. } = &*self.domain;
        // Take the device's lock, so that the message is not rewritten concurrently.
        let (read, expected) = self.domain.with_table(host, |table| {
            (endpoint.read_back(self.number), table.sent_message(self.number))
        });
        let requester = read.and_then(|read| read.requester).unwrap_or(attachment.requester);
        const UNREAD: Explanation = Explanation::new()
            .with_unexamined(Unexamined::StoredMessage)
            .with_unexamined(Unexamined::Requester);
        let mut device = read.map_or(UNREAD, |read| {
            let differs =
                read.message.zip(expected).filter(|(stored, expected)| stored != expected);
            let differs = differs.map_or(Explanation::new(), |(stored, expected)| {
                Explanation::stopped(Obstacle::MessageDiffers { stored, expected })
            });
            differs.merge(read.explanation)
        });
        // The store must not be read while messages are disabled.
        if device.obstacle().is_none()
            && let Some(slot) = self.other_pending_slot()
        {
            device = device.with_fact(Fact::OtherVectorPending(slot));
        }
        let all = device.merge(self.domain.parent().explain(hwirq, requester));
        let is_mapped = all.facts().any(|fact| matches!(fact, Fact::Mapped { .. }));
        if is_mapped { all } else { all.with_unexamined(Unexamined::Iommu) }
    }

    fn describe(&self, host: &dyn Host, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let IrqDomain { name, attachment, endpoint, .. } = &*self.domain;
        let (message, shape) = self.domain.with_table(host, |table| {
            let found = table.find(self.number);
            let message = found.and_then(|(vector, _)| vector.message());
            (message, found.map(|(_, allocation)| allocation.shape))
        });
        write!(out, "device {name}: requester {}, slot {}", attachment.requester, self.number)?;
        if shape == Some(Shape::AlignedGroup) {
            write!(out, " of a group")?;
        }
        if let Some(message) = message {
            write!(out, ", address {:#x}, data {:#x}", message.address, message.data)?;
        }
        let (maskable_at, isolation) = (endpoint.maskable_at(), attachment.isolation());
        writeln!(out, ", can be masked at {maskable_at}, {isolation}")?;
        self.domain.parent().describe(hwirq, out)
    }
}

/// A device's attachment, with a user count. The last user detaches the device.
pub(crate) struct SharedAttachment {
    pub(crate) parent: Arc<dyn MsiParent>,
    pub(crate) requester: RequesterId,
    users: TaskLock<Users>,
}

struct Users {
    /// `None` before the device is attached, and again after the last user has detached it.
    attachment: Option<Attachment>,
    count: u32,
}

impl SharedAttachment {
    /// Creates the attachment for a device that is not attached yet. The caller becomes its first
    /// user.
    ///
    /// Context: task; may sleep.
    pub(super) fn try_new(
        parent: Arc<dyn MsiParent>,
        requester: RequesterId,
    ) -> Result<Shared<Self>, TryReserveError> {
        let users = TaskLock::new(Users { attachment: None, count: 1 });
        Shared::try_new(Self { parent, requester, users })
    }

    /// Attaches the device.
    ///
    /// Context: task; may sleep.
    pub(super) fn attach(&self, host: &dyn Host, vectors: u32) -> Result<(), MsiDeviceError> {
        let attachment = self.parent.attach(self.requester, vectors)?;
        self.users.lock(host).attachment = Some(attachment);
        Ok(())
    }

    /// Adds a user.
    ///
    /// Context: task; may sleep.
    pub(super) fn join(&self, host: &dyn Host) -> Result<(), MsiDeviceError> {
        let mut users = self.users.lock(host);
        if users.attachment.is_none() {
            return Err(MsiDeviceError::Gone);
        }
        users.count += 1;
        Ok(())
    }

    /// Removes a user and frees its blocks. The last user also detaches the device, in the same
    /// controller operation.
    ///
    /// Context: task; may sleep.
    pub(crate) fn leave(&self, host: &dyn Host, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        let mut users = self.users.lock(host);
        users.count = users.count.saturating_sub(1);
        match users.attachment.take() {
            Some(attachment) if users.count == 0 => {
                self.parent.release(attachment, blocks);
            }
            Some(attachment) => {
                for block in blocks {
                    self.parent.free(&attachment, block);
                }
                users.attachment = Some(attachment);
            }
            None => {}
        }
    }

    /// Frees one block.
    ///
    /// Context: task; may sleep.
    pub(super) fn free(&self, host: &dyn Host, block: HwIrqBlock) {
        if let Some(attachment) = &self.users.lock(host).attachment {
            self.parent.free(attachment, block);
        }
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts.
    ///
    /// Context: any.
    pub(super) fn isolation(&self) -> Isolation {
        self.parent.isolation(self.requester)
    }

    /// Returns a proof that the device cannot trigger other devices' interrupts.
    ///
    /// Context: any.
    pub(super) fn prove_isolated(&self) -> Result<InterruptIsolated<'_>, NotIsolated> {
        InterruptIsolated::prove(&*self.parent, self.requester)
    }

    /// Returns a proof that the device cannot access memory that does not belong to it.
    ///
    /// Context: any.
    pub(super) fn prove_dma_isolated(&self) -> Result<DmaIsolated<'_>, NotDmaIsolated> {
        DmaIsolated::prove(&*self.parent, self.requester)
    }

    /// Calls `act` with the attachment.
    ///
    /// Context: task; may sleep.
    pub(super) fn with<T>(
        &self,
        host: &dyn Host,
        act: impl FnOnce(&Attachment) -> Result<T, MsiDeviceError>,
    ) -> Result<T, MsiDeviceError> {
        act(self.users.lock(host).attachment.as_ref().ok_or(MsiDeviceError::Gone)?)
    }
}

msi_types::debug_by!(SharedAttachment as "SharedAttachment", |it| {requester: it.requester});
