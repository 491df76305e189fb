//! The vector domain as the MSI parent of endpoints, without remapping.

use super::{FreedVectors, HELD, MessageKeeper, PENDING, VectorDomain};
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use core::sync::atomic::Ordering;
use doorbell_fallible::try_collect;
use msi_types::{
    Attachment, BlockRequest, Capabilities, Capability, Cpu, DoorbellPage, Granule, HwIrq,
    HwIrqBlock, Isolation, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated,
    Pending, RequesterId, Shape, Tier,
};

/// MSI parent of endpoints that write directly to the local APICs.
///
/// Groups (MultiMSI) are refused: their vectors would have to be consecutive, aligned and on one
/// CPU, and couldn't move independently. Use a remapping layer if you need groups.
impl MsiParent for VectorDomain {
    fn isolation(&self, _: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::SharedDoorbell(
            "the local APICs' doorbells (0xfee00000)",
        ))
    }

    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        self.quotas.with(self.apic(), |quotas| quotas.attach(device, max))
    }

    fn detach(&self, device: Attachment) {
        self.quotas.with(self.apic(), |quotas| quotas.detach(&device));
    }

    fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        check_shape(request)?;
        self.allocate_block(device, request, MessageKeeper::Endpoint(request.fit), Vec::new())
    }

    /// Allocates vectors for managed interrupts. Refuses an endpoint that cannot change its data,
    /// because the vectors reserved on the CPUs have different numbers.
    fn allocate_managed(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        check_shape(request)?;
        self.allocate_block(
            device,
            request,
            MessageKeeper::Endpoint(request.fit),
            for_each(request.count, among)?,
        )
    }

    fn free(&self, device: &Attachment, block: HwIrqBlock) {
        self.free_block(device, &block, FreedVectors::Reusable);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.message(block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?)
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let first = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let begun = self.begin_vector_move(first, to)?;
        let count = NonZeroU16::MIN;
        Ok(Move { first, count, message: begun.message, from: begun.from.cpu, to: begun.to.cpu })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if moved.from == moved.to {
            return Ok(());
        }
        self.end_vector_move(moved.first, outcome)
    }

    /// Holds the interrupt back at the trap entry: see [Masking](crate::vector_domain#masking).
    fn mask(&self, hwirq: HwIrq) {
        if let Some(irq) = self.irq(hwirq) {
            irq.flags.fetch_or(HELD, Ordering::SeqCst);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        let Some(irq) = self.irq(hwirq) else { return };
        irq.flags.fetch_and(!HELD, Ordering::SeqCst);
        self.with_core(|core| self.send_pending(core, irq));
    }

    /// Sets or clears an interrupt's pending state. Setting the state sends an interprocessor
    /// interrupt to the present vector. Clearing the state drops an interrupt that is held back by
    /// the mask, but not one that the local APIC has already accepted.
    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        let Some(irq) = self.irq(hwirq) else { return };
        match pending {
            Pending::Set => _ = self.with_core(|core| self.send_again(core, irq)),
            Pending::Clear => _ = irq.flags.fetch_and(!PENDING, Ordering::SeqCst),
        }
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        let irq = self.irq(hwirq)?;
        if irq.flags.load(Ordering::SeqCst) & PENDING != 0 {
            return Some(true);
        }
        self.with_core(|_| {
            let cpu_vectors = irq.cpu_vector().into_iter().chain(irq.former());
            let mut answers = cpu_vectors
                .map(|cpu_vector| self.apic().is_requested(cpu_vector.cpu, cpu_vector.vector));
            answers.try_fold(false, |any, answer| answer.map(|requested| any | requested))
        })
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        if let Some(hypervisor) = self.surroundings.hypervisor() {
            visit(&hypervisor.tier());
        }
        let groups = Capabilities::NONE.with(Capability::Groups);
        let provides = Capabilities::ALL.without(Capability::Groups);
        visit(&Tier::new("x86-vector").with_provides(provides).with_blocks(groups));
    }

    /// Returns [`DoorbellPage::Alone`], because a device's write to this page is always a message,
    /// regardless of the registers that a CPU sees at the same address.
    fn doorbell_page(&self, _: Granule) -> DoorbellPage {
        DoorbellPage::Alone
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let Some((irq, cpu_vector)) =
            self.irq(hwirq).and_then(|irq| Some((irq, irq.cpu_vector()?)))
        else {
            return writeln!(out, "x86: irq {hwirq} is not allocated");
        };
        if let Some(hypervisor) = self.surroundings.hypervisor() {
            writeln!(out, "hypervisor: {hypervisor:?}")?;
        }
        write!(out, "x86: {cpu_vector}")?;
        if let Some(id) = self.apic_id(cpu_vector.cpu) {
            write!(out, " (APIC {id})")?;
        }
        match irq.former().count() {
            0 => writeln!(out),
            left => writeln!(out, ", {left} former vectors are not cleaned up yet"),
        }
    }
}

fn check_shape(request: &BlockRequest) -> Result<(), MsiError> {
    let group = request.shape == Shape::AlignedGroup && request.count != NonZeroU16::MIN;
    if group { Err(MsiError::NoGroups) } else { Ok(()) }
}

/// Returns a separate list of CPUs for each of `count` managed interrupts. Duplicates in `among`
/// are removed, so that each interrupt has one vector reserved per CPU.
pub(crate) fn for_each(count: NonZeroU16, among: &[Cpu]) -> Result<Vec<Vec<Cpu>>, MsiError> {
    let no_memory = |_| MsiError::NoMemory("the CPUs of managed interrupts");
    let mut lists = Vec::new();
    lists.try_reserve_exact(count.get().into()).map_err(no_memory)?;
    for _ in 0..count.get() {
        let mut cpus = try_collect(among.iter().copied()).map_err(no_memory)?;
        cpus.sort_unstable();
        cpus.dedup();
        lists.push(cpus);
    }
    Ok(lists)
}
