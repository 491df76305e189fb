//! The remapping layer as the MSI parent of endpoints.

use super::{
    Entries, Format, RemapMemory, RemappableMessage, RemappedVectors, Source, SourceCheck,
};
use crate::vector_domain::{FreedVectors, MessageKeeper, for_each};
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use msi_types::{
    Attachment, BlockRequest, Capabilities, Capability, Cpu, DoorbellPage, Granule, HwIrq,
    HwIrqBlock, IsolatingMechanism, Isolation, Move, MoveOutcome, MsiError, MsiMessage, MsiParent,
    NotIsolated, Pending, RequesterId, Shape, Tier,
};

/// Maximum size of a group. The function writes the low bits of the 16-bit data.
const MOST_SUBHANDLES: u16 = 1 << 15;

const NO_MEMORY: MsiError = MsiError::NoMemory("the remapping layer's records");

impl<M: RemapMemory> MsiParent for RemappedVectors<M> {
    fn isolation(&self, of: RequesterId) -> Isolation {
        match (self.sources)(of) {
            None => Isolation::NotIsolated(NotIsolated::NoController),
            Some(source)
                if source.check != SourceCheck::None
                    && self.table.blocks_compatibility_format() =>
            {
                Isolation::Isolated(IsolatingMechanism::InterruptRemapping)
            }
            Some(_) => Isolation::NotIsolated(NotIsolated::SharedDoorbell(
                "a remapping unit that does not check every message",
            )),
        }
    }

    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        self.source(device)?;
        self.vectors.attach(device, max)
    }

    fn detach(&self, device: Attachment) {
        self.vectors.detach(device);
    }

    fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        self.allocate_entries(device, request, Vec::new())
    }

    fn allocate_managed(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        among.iter().try_for_each(|cpu| self.check_reachable(*cpu))?;
        self.allocate_entries(device, request, for_each(request.count, among)?)
    }

    fn free(&self, device: &Attachment, block: HwIrqBlock) {
        self.with_records(|records| {
            if let Some(entries) = records.remove(&block) {
                self.give_back(records, device, &block, &entries);
            }
        });
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        let vector = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let (entries, entry) = self.entries(vector)?;
        Ok(entries.message(entry))
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let first = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        self.check_reachable(to)?;
        let (entries, entry) = self.entries(first)?;
        let begun = self.vectors.begin_vector_move(first, to)?;
        if begun.from != begun.to
            && let Err(error) = self.retarget(&entries, entry, begun.to)
        {
            // Return the first error. If the entry cannot be restored either, the interrupt still
            // owns the new vector until that vector is cleaned up.
            let _ = self.retarget(&entries, entry, begun.from);
            self.vectors.end_vector_move(first, MoveOutcome::RolledBack)?;
            return Err(error);
        }
        let count = NonZeroU16::MIN;
        Ok(Move { first, count, message: None, from: begun.from.cpu, to: begun.to.cpu })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if moved.from == moved.to {
            return Ok(());
        }
        let undone = match outcome {
            MoveOutcome::Written => Ok(()),
            MoveOutcome::RolledBack => {
                let (entries, entry) = self.entries(moved.first)?;
                let old = self
                    .vectors
                    .cpu_vector(moved.first)
                    .ok_or(MsiError::UnknownVector(moved.first))?;
                self.retarget(&entries, entry, old)
            }
        };
        self.vectors.end_vector_move(moved.first, outcome).and(undone)
    }

    fn mask(&self, hwirq: HwIrq) {
        self.vectors.mask(hwirq);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.vectors.unmask(hwirq);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.vectors.set_pending(hwirq, pending);
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.vectors.is_pending(hwirq)
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        visit(&Tier::new("remapping").with_provides(Capabilities::NONE.with(Capability::Groups)));
        self.vectors.tiers(visit);
    }

    fn doorbell_page(&self, granule: Granule) -> DoorbellPage {
        self.vectors.doorbell_page(granule)
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.entries(hwirq) {
            Ok((entries, entry)) => {
                let source = entries.source;
                writeln!(
                    out,
                    "remapping@{:x}: entry {entry}, source {:#06x}",
                    self.base, source.id
                )?;
            }
            Err(_) => writeln!(out, "remapping@{:x}: vector {hwirq} has no entry", self.base)?,
        }
        self.vectors.describe(hwirq, out)
    }
}

impl<M: RemapMemory> RemappedVectors<M> {
    fn source(&self, device: RequesterId) -> Result<Source, MsiError> {
        (self.sources)(device).ok_or(MsiError::NoRoute(device))
    }

    fn allocate_entries(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        managed: Vec<Vec<Cpu>>,
    ) -> Result<HwIrqBlock, MsiError> {
        let count = request.count;
        let format = match request.shape {
            Shape::Independent => Format::Handles,
            Shape::AlignedGroup if count.is_power_of_two() && count.get() <= MOST_SUBHANDLES => {
                Format::Subhandles
            }
            Shape::AlignedGroup => return Err(MsiError::NoGroups),
        };
        // A function whose vectors form a group adds a number below the group's count to the data.
        request.fit.check(MsiMessage {
            data: u32::from(count.get() - 1),
            ..RemappableMessage::HIGHEST.encode()
        })?;
        self.check_reachable(request.cpu)?;
        let source = self.source(device.requester())?;
        self.with_records(|records| {
            records.reserve(format, count).map_err(|_| NO_MEMORY)?;
            let block =
                self.vectors.allocate_block(device, request, MessageKeeper::Nowhere, managed)?;
            let Some(first) = records.handles.allocate(count) else {
                self.vectors.free_block(device, &block, FreedVectors::Reusable);
                return Err(MsiError::NoVectors { wanted: count.get() });
            };
            let entries = Entries { first, count, source, format };
            if let Err(error) = self.write_all(&entries, block.first()) {
                self.give_back(records, device, &block, &entries);
                return Err(error);
            }
            records.insert(&block, entries);
            Ok(block)
        })
    }

    fn entries(&self, hwirq: HwIrq) -> Result<(Entries, u16), MsiError> {
        self.with_records(|records| records.entries_of(hwirq)).ok_or(MsiError::UnknownVector(hwirq))
    }

    /// Frees entries and vectors. If the unit may still use some of the entries, both entries and
    /// vectors are leaked and never reused.
    fn give_back(
        &self,
        records: &mut super::Records,
        device: &Attachment,
        block: &HwIrqBlock,
        entries: &Entries,
    ) {
        let freed = match self.clear_all(entries) {
            Ok(()) => {
                records.handles.free(entries.first, entries.count);
                FreedVectors::Reusable
            }
            Err(_) => FreedVectors::Retired,
        };
        self.vectors.free_block(device, block, freed);
    }
}

impl Entries {
    fn message(&self, entry: u16) -> MsiMessage {
        let named = match self.format {
            Format::Handles => RemappableMessage { handle: entry, subhandle: None },
            Format::Subhandles => {
                RemappableMessage { handle: self.first, subhandle: Some(entry - self.first) }
            }
        };
        named.encode()
    }
}

impl RemappableMessage {
    /// Message with the widest address.
    const HIGHEST: Self = Self { handle: u16::MAX, subhandle: Some(0) };
}
