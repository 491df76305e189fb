//! The bus's [`MsiParent`] implementation.

use super::VpciError;
use super::bus::Bus;
use super::composition::CREATE;
use super::function_table::{FunctionId, FunctionState};
use super::interrupt_table::{Answer, Interrupt};
use super::link::Link;
use super::vectors::VectorTarget;
use crate::protocol::{MAX_GROUP, Slot, TranslatedInterrupt};
use core::fmt;
use core::sync::atomic::Ordering;
use msi_types::{
    Attachment, BlockRequest, Capabilities, Capability, Cpu, DoorbellPage, Granule, HwIrq,
    HwIrqBlock, Isolation, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated,
    Pending, RequesterId, Shape, Tier,
};

impl MsiParent for Bus {
    fn isolation(&self, _: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::SharedDoorbell(
            "an address that only the hypervisor interprets",
        ))
    }

    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        let slot = Slot::of(device);
        let no_route = MsiError::NoRoute(device);
        if device.pci_bus() != self.config.number {
            return Err(no_route);
        }
        self.with_link(|link| {
            let ready = link
                .functions
                .get(slot)
                .filter(|function| matches!(function.state, FunctionState::Ready(_)));
            let function = ready.ok_or(no_route)?.id;
            let no_memory = |_| MsiError::NoMemory("an attachment");
            let cookie = link.devices.reserve().map_err(no_memory)?;
            let root = self.vectors.attach(device, max)?;
            link.devices.insert(cookie, function, root, max);
            Ok(Attachment::new(device, cookie))
        })
    }

    fn detach(&self, device: Attachment) {
        self.with_link(|link| link.devices.detach(&self.vectors, device.cookie()));
    }

    fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        allocate_block(self, device, request, None)
    }

    fn allocate_managed(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        allocate_block(self, device, request, Some(among))
    }

    /// Frees vectors after asking the host to delete their messages. A vector stays allocated until
    /// the host has confirmed that its message is deleted.
    fn free(&self, device: &Attachment, block: HwIrqBlock) {
        let (cookie, first) = (device.cookie(), block.first());
        let group = self.with_interrupts(|interrupts| interrupts.get(first).map(|of| of.count));
        for index in 0..block.count().get() {
            if let Some(hwirq) = block.hwirq(index) {
                self.vectors.mask(hwirq);
            }
        }
        if group == Some(block.count().get()) {
            self.free_block(cookie, block);
        } else {
            block.split().for_each(|vector| self.free_block(cookie, vector));
        }
    }

    /// Requests the message from the host on the first call, which the caller must make in a
    /// context that may wait. Later calls return the same message.
    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        let unknown = MsiError::UnknownVector(block.first());
        let hwirq = block.hwirq(index).ok_or(unknown)?;
        let interrupt = self.with_interrupts(|interrupts| {
            let interrupt = interrupts.get_mut(hwirq).filter(|of| of.first == hwirq);
            let interrupt = interrupt.ok_or(unknown)?;
            let before = *interrupt;
            if matches!(before.answer, Answer::None | Answer::Lost) {
                interrupt.answer = Answer::Asked;
            }
            Ok(before)
        })?;
        match interrupt.answer {
            Answer::Known(answer) => return Ok(answer.message),
            Answer::Asked => return Err(fault(self, CREATE, "a request is already in progress")),
            Answer::None | Answer::Lost => {}
        }
        let answer = self.create(hwirq, &interrupt);
        if answer.is_err() {
            self.with_interrupts(|interrupts| {
                if let Some(asked) = interrupts.get_mut(hwirq) {
                    asked.answer = interrupt.answer;
                }
            });
        }
        answer.map(|answer| answer.message)
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let unknown = MsiError::UnknownVector(block.first());
        let hwirq = block.hwirq(index).ok_or(unknown)?;
        let (old, answer) = self
            .with_interrupts(|interrupts| {
                Some((interrupts.get(hwirq)?.target, interrupts.message(hwirq)))
            })
            .ok_or(unknown)?;
        self.processor(to)?;
        let (new, moved) = self.vectors.begin_move(block, index, old, to)?;
        let told = tell(self, hwirq, answer, new);
        if let Err(error) = told {
            self.vectors.end_move(moved, MoveOutcome::RolledBack)?;
            return Err(error);
        }
        self.with_interrupts(|interrupts| {
            if let Some(interrupt) = interrupts.get_mut(hwirq) {
                interrupt.target = new;
                interrupt.previous = Some(old);
            }
        });
        // The function keeps the host's message unchanged.
        Ok(Move { message: None, ..moved })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        let hwirq = moved.first;
        let restored = self.with_interrupts(|interrupts| {
            let answer = interrupts.message(hwirq);
            let interrupt = interrupts.get_mut(hwirq)?;
            let old = interrupt.previous.take()?;
            (outcome == MoveOutcome::RolledBack).then(|| {
                interrupt.target = old;
                (answer, old)
            })
        });
        let told = restored.map_or(Ok(()), |(answer, old)| tell(self, hwirq, answer, old));
        self.vectors.end_move(moved, outcome).and(told)
    }

    fn mask(&self, hwirq: HwIrq) {
        self.vectors.mask(hwirq);
    }

    /// Unmasks a vector. On x86, retargets the vector first, because its target may have changed
    /// while the vector was masked. If the hypervisor refuses, the vector is unmasked anyway, with
    /// its previous target. [`Faults`](super::Faults) counts the refusal, and
    /// [`describe`](Self::describe) shows it.
    fn unmask(&self, hwirq: HwIrq) {
        let known = self.with_interrupts(|interrupts| {
            Some((interrupts.get(hwirq)?.target, interrupts.message(hwirq)))
        });
        let Some((target, answer)) = known else { return };
        let was_refused = tell(self, hwirq, answer, target).is_err();
        if was_refused {
            self.refused_unmasks.fetch_add(1, Ordering::SeqCst);
        }
        self.with_interrupts(|interrupts| {
            if let Some(interrupt) = interrupts.get_mut(hwirq) {
                interrupt.unmask_was_refused = was_refused;
            }
        });
        self.vectors.unmask(hwirq);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.vectors.set_pending(hwirq, pending);
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.vectors.is_pending(hwirq)
    }

    /// Visits a tier that blocks message storage in devices, because the host grants messages only
    /// for the registers of the bus's functions. A granted message is the host's own, so drivers
    /// may copy it.
    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        let device = Capability::DeviceStorage;
        let provides = Capabilities::ALL.without(device);
        let blocks = Capabilities::NONE.with(device);
        visit(&Tier::new("hyperv-vpci").with_provides(provides).with_blocks(blocks));
    }

    fn doorbell_page(&self, _: Granule) -> DoorbellPage {
        DoorbellPage::Unknown
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let (known, was_refused) = self.with_interrupts(|interrupts| {
            let interrupt = interrupts.get(hwirq);
            let known = interrupt.map(|of| (of.function.slot, interrupts.message(hwirq)));
            (known, interrupt.is_some_and(|of| of.unmask_was_refused))
        });
        let base = self.config.window;
        match known {
            Some((slot, Some(TranslatedInterrupt { message, .. }))) => {
                let MsiMessage { address, data } = message;
                writeln!(out, "hyperv-vpci@{base:x}: {slot}, message {data:#x} to {address:#x}")?;
            }
            Some((slot, None)) => writeln!(out, "hyperv-vpci@{base:x}: {slot}, no message yet")?,
            None => writeln!(out, "hyperv-vpci@{base:x}: vector {hwirq} is not allocated")?,
        }
        if was_refused {
            writeln!(out, "hyperv-vpci@{base:x}: the hypervisor refused the last unmask")?;
        }
        self.vectors.describe(hwirq, out)
    }
}

fn allocate_block(
    bus: &Bus,
    device: &Attachment,
    request: &BlockRequest,
    among: Option<&[Cpu]>,
) -> Result<HwIrqBlock, MsiError> {
    let count = request.count.get();
    let group = match request.shape {
        Shape::Independent => 1,
        Shape::AlignedGroup if count.is_power_of_two() && count <= MAX_GROUP => count,
        Shape::AlignedGroup => return Err(MsiError::NoGroups),
    };
    bus.processor(request.cpu)?;
    let highest = bus.version.interrupts().highest_vector();
    bus.with_link(|link| {
        let has_room = has_room(bus, link, count);
        if let Some(of) = link.devices.get(device.cookie()) {
            let gone = |error: VpciError| error.as_msi_error(bus.config.window);
            link.check_present(Some(of.function)).map_err(gone)?;
        }
        let device_of = link.devices.take(device.cookie(), count)?;
        let (function, root) = (device_of.function, &device_of.root);
        let allocated = if has_room {
            bus.vectors.allocate(root, request, among, highest)
        } else {
            Err(MsiError::NoVectors { wanted: count })
        };
        let noted = allocated.and_then(|block| match note(bus, &block, request, group, function) {
            Ok(()) => Ok(block),
            Err(error) => {
                bus.vectors.free(root, block);
                Err(error)
            }
        });
        if noted.is_err() {
            link.devices.give_back(&bus.vectors, device.cookie(), count);
        }
        noted
    })
}

/// Returns `true` if `count` more vectors can be allocated. Freed vectors count as allocated
/// while the host may still send their messages.
fn has_room(bus: &Bus, link: &Link, count: u16) -> bool {
    let count = count.saturating_add(link.deletions.vectors());
    bus.with_interrupts(|interrupts| interrupts.has_room(count))
}

/// Records the vectors of a new block. The caller must have checked that the table has room.
fn note(
    bus: &Bus,
    block: &HwIrqBlock,
    request: &BlockRequest,
    group: u16,
    function: FunctionId,
) -> Result<(), MsiError> {
    for index in 0..block.count().get() {
        bus.vectors.target(block, index, request.cpu)?;
    }
    for index in 0..block.count().get() {
        let target = bus.vectors.target(block, index, request.cpu)?;
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let interrupt = Interrupt {
            function,
            first: if group == 1 { hwirq } else { block.first() },
            count: group,
            fit: request.fit,
            target,
            previous: None,
            unmask_was_refused: false,
            answer: Answer::None,
        };
        bus.with_interrupts(|interrupts| interrupts.insert(hwirq, interrupt));
    }
    Ok(())
}

/// Tells the hypervisor a vector's target, if the host has granted its message.
fn tell(
    bus: &Bus,
    hwirq: HwIrq,
    answer: Option<TranslatedInterrupt>,
    target: VectorTarget,
) -> Result<(), MsiError> {
    let Some(answer) = answer else { return Ok(()) };
    let slot = bus.with_interrupts(|interrupts| interrupts.get(hwirq).map(|of| of.function.slot));
    let slot = slot.ok_or(MsiError::UnknownVector(hwirq))?;
    let processor = bus.processor(target.cpu)?;
    bus.vectors.retarget(slot, answer.message, target, processor)
}

fn fault(bus: &Bus, operation: &'static str, reason: &'static str) -> MsiError {
    VpciError::BadAnswer { operation, reason }.as_msi_error(bus.config.window)
}
