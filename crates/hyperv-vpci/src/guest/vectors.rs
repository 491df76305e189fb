//! The root controller's vectors, as a bus allocates them: GIC SPIs, or local APIC vectors. Each
//! attachment of a function has its own entry in the table of attachments.

use super::function_table::FunctionId;
use super::{SpiDomain, VpciError};
use crate::protocol::{DeviceKey, Retarget, RetargetInput, Slot};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use msi_types::{
    Attachment, BlockRequest, ControllerFault, Cpu, Fit, HwIrq, HwIrqBlock, Move, MoveOutcome,
    MsiError, MsiMessage, MsiParent, Pending, RequesterId, Rewrite, Shape,
};

/// An x86 guest's hypercall interface.
pub trait Hypercall: Send + Sync {
    /// Makes the hypercall with this input's [control word](RetargetInput::control) and
    /// [bytes](RetargetInput::bytes). Returns the low 16 bits of the result, which are 0 on
    /// success.
    ///
    /// Context: any.
    fn retarget(&self, input: &RetargetInput) -> u16;
}

/// Source of a bus's vectors.
#[derive(Clone, Debug)]
pub enum Vectors {
    /// SPIs on arm64. Several buses may share a domain.
    Spis(Arc<SpiDomain>),
    /// Local APIC vectors on x86.
    Apic(ApicVectors),
}

/// Local APIC vectors, and the hypercall that retargets them.
#[derive(Clone)]
#[non_exhaustive]
pub struct ApicVectors {
    /// The kernel's vector allocator. The allocator composes messages in the local APIC format. The
    /// bus uses only the vector in such a message, and never stores the message in a function.
    pub(crate) parent: Arc<dyn MsiParent>,
    /// The hypercall interface.
    pub(crate) hypercall: Arc<dyn Hypercall>,
    /// The bus's instance GUID, in memory order.
    pub(crate) instance: [u8; 16],
}

impl ApicVectors {
    /// Creates the vectors for the bus with this instance GUID. `parent` allocates them, and
    /// `hypercall` retargets them.
    pub fn new(
        parent: Arc<dyn MsiParent>,
        hypercall: Arc<dyn Hypercall>,
        instance: [u8; 16],
    ) -> Self {
        Self { parent, hypercall, instance }
    }
}

/// An interrupt's target: a vector at one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VectorTarget {
    pub(super) vector: u32,
    pub(super) cpu: Cpu,
}

/// Reason for refusing a CPU that the protocol cannot encode.
pub(super) const UNNAMED: &str = "the protocol cannot name its VP index";

/// Vector in an x86 request for a group. The group's vectors are retargeted one by one afterwards.
const GROUP_VECTOR: u32 = 0x20;

impl Vectors {
    pub(super) fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        match self {
            Self::Spis(_) => Ok(Attachment::new(device, 0)),
            Self::Apic(apic) => apic.parent.attach(device, max),
        }
    }

    pub(super) fn detach(&self, device: Attachment) {
        match self {
            Self::Spis(_) => {}
            Self::Apic(apic) => apic.parent.detach(device),
        }
    }

    pub(super) fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: Option<&[Cpu]>,
        highest: u32,
    ) -> Result<HwIrqBlock, MsiError> {
        match self {
            Self::Spis(spis) => spis.allocate(request, highest),
            Self::Apic(apic) => {
                // A hypercall changes a single vector's whole target atomically.
                let fit = Fit::new(Rewrite::Atomic64);
                let request = request.with_shape(Shape::Independent).with_fit(fit);
                match among {
                    Some(among) => apic.parent.allocate_managed(device, &request, among),
                    None => apic.parent.allocate(device, &request),
                }
            }
        }
    }

    pub(super) fn free(&self, device: &Attachment, block: HwIrqBlock) {
        match self {
            Self::Spis(spis) => spis.free(&block),
            Self::Apic(apic) => apic.parent.free(device, block),
        }
    }

    /// Returns the target for a vector that was allocated on `cpu`.
    pub(super) fn target(
        &self,
        block: &HwIrqBlock,
        index: u16,
        cpu: Cpu,
    ) -> Result<VectorTarget, MsiError> {
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let vector = match self {
            Self::Spis(_) => hwirq.get(),
            Self::Apic(apic) => vector_of(apic.parent.compose(block, index)?)?,
        };
        Ok(VectorTarget { vector, cpu })
    }

    /// Returns the vector to put in a request for a group or single vector.
    pub(super) const fn requested(&self, first: VectorTarget, count: u16) -> u32 {
        match self {
            Self::Apic(_) if count > 1 => GROUP_VECTOR,
            Self::Spis(_) | Self::Apic(_) => first.vector,
        }
    }

    /// Moves a vector at the root. Returns the new target and the root's record of the move.
    pub(super) fn begin_move(
        &self,
        block: &HwIrqBlock,
        index: u16,
        old: VectorTarget,
        to: Cpu,
    ) -> Result<(VectorTarget, Move), MsiError> {
        let first = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        match self {
            Self::Spis(spis) => {
                let from = spis.retarget(first, to)?;
                let count = NonZeroU16::MIN;
                let moved = Move { first, count, message: None, from, to };
                Ok((VectorTarget { cpu: to, ..old }, moved))
            }
            Self::Apic(apic) => {
                let moved = apic.parent.begin_move(block, index, to)?;
                let vector = moved.message.map_or(Ok(old.vector), vector_of);
                match vector {
                    Ok(vector) => Ok((VectorTarget { vector, cpu: moved.to }, moved)),
                    Err(error) => {
                        apic.parent.end_move(moved, MoveOutcome::RolledBack)?;
                        Err(error)
                    }
                }
            }
        }
    }

    pub(super) fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        match (self, outcome) {
            (Self::Spis(_), MoveOutcome::Written) => Ok(()),
            (Self::Spis(spis), MoveOutcome::RolledBack) => {
                spis.retarget(moved.first, moved.from).map(|_| ())
            }
            (Self::Apic(apic), outcome) => apic.parent.end_move(moved, outcome),
        }
    }

    /// Retargets a message by hypercall on x86. A no-op on arm64, where the SPI's route determines
    /// the target.
    ///
    /// Context: any.
    pub(super) fn retarget(
        &self,
        slot: Slot,
        message: MsiMessage,
        target: VectorTarget,
        processor: u16,
    ) -> Result<(), MsiError> {
        let Self::Apic(apic) = self else { return Ok(()) };
        let device = DeviceKey::new(apic.instance, slot);
        let retarget = Retarget { device, message, vector: target.vector, processor };
        let unreachable = |_| MsiError::NotReachable(target.cpu, UNNAMED);
        let input = RetargetInput::new(&retarget).map_err(unreachable)?;
        match apic.hypercall.retarget(&input) {
            0 => Ok(()),
            _ => Err(fault("retarget", "the hypervisor refused")),
        }
    }

    pub(super) fn mask(&self, hwirq: HwIrq) {
        match self {
            Self::Spis(spis) => {
                if let Some(wired) = spis.wired(hwirq) {
                    wired.mask(hwirq);
                }
            }
            Self::Apic(apic) => apic.parent.mask(hwirq),
        }
    }

    pub(super) fn unmask(&self, hwirq: HwIrq) {
        match self {
            Self::Spis(spis) => {
                if let Some(wired) = spis.wired(hwirq) {
                    wired.unmask(hwirq);
                }
            }
            Self::Apic(apic) => apic.parent.unmask(hwirq),
        }
    }

    pub(super) fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        match self {
            Self::Spis(spis) => {
                if let Some(wired) = spis.wired(hwirq) {
                    wired.set_pending(hwirq, pending);
                }
            }
            Self::Apic(apic) => apic.parent.set_pending(hwirq, pending),
        }
    }

    pub(super) fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        match self {
            Self::Spis(spis) => spis.wired(hwirq).map(|wired| wired.is_pending(hwirq)),
            Self::Apic(apic) => apic.parent.is_pending(hwirq),
        }
    }

    pub(super) fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            Self::Spis(spis) => match spis.target(hwirq) {
                Some(cpu) => writeln!(out, "gic: SPI {hwirq} at CPU {cpu}"),
                None => writeln!(out, "gic: SPI {hwirq} is not allocated"),
            },
            Self::Apic(apic) => apic.parent.describe(hwirq, out),
        }
    }
}

/// Returns the vector in a local APIC message with fixed delivery (SDM vol. 3A §11.11).
fn vector_of(message: MsiMessage) -> Result<u32, MsiError> {
    let plain = message.address >> 20 == 0xfee && message.address & 1 << 4 == 0;
    if plain && message.data & 0x700 == 0 {
        Ok(message.data & 0xff)
    } else {
        Err(fault("compose", "the root's message does not name a local APIC vector"))
    }
}

pub(super) const fn fault(operation: &'static str, reason: &'static str) -> MsiError {
    let kind = "hyperv-vpci";
    MsiError::Controller(ControllerFault {
        kind,
        base: 0,
        operation,
        device: None,
        event: None,
        reason,
    })
}

msi_types::debug_by!(ApicVectors as "ApicVectors", |it| {instance: it.instance});

/// One attachment of a function.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) function: FunctionId,
    /// The function's attachment at the root.
    pub(super) root: Attachment,
    limit: u32,
    /// Number of vectors that are allocated, or freed but still waiting for the host to confirm the
    /// deletion.
    used: u32,
    is_detached: bool,
}

/// All attachments, by cookie.
#[derive(Default, Debug)]
pub(super) struct DeviceTable(Vec<Option<Device>>);

impl DeviceTable {
    /// Reserves an entry for another attachment and returns its cookie.
    pub(super) fn reserve(&mut self) -> Result<u32, VpciError> {
        let free = self.0.iter().position(Option::is_none);
        let index = if let Some(index) = free {
            index
        } else {
            self.0.try_reserve(1).map_err(|_| VpciError::NoMemory)?;
            self.0.push(None);
            self.0.len() - 1
        };
        u32::try_from(index).map_err(|_| VpciError::NoMemory)
    }

    /// Fills a reserved entry.
    pub(super) fn insert(
        &mut self,
        cookie: u32,
        function: FunctionId,
        root: Attachment,
        limit: u32,
    ) {
        if let Some(entry) = self.0.get_mut(cookie as usize) {
            let is_detached = false;
            *entry = Some(Device { function, root, limit, used: 0, is_detached });
        }
    }

    pub(super) fn get(&self, cookie: u32) -> Option<&Device> {
        self.0.get(cookie as usize)?.as_ref()
    }

    /// Counts vectors as used, up to the attachment's limit.
    pub(super) fn take(&mut self, cookie: u32, count: u16) -> Result<&Device, MsiError> {
        let gone = MsiError::DeviceFull { wanted: count, limit: 0 };
        let device = self.0.get_mut(cookie as usize).and_then(Option::as_mut).ok_or(gone)?;
        let used = device.used.saturating_add(count.into());
        if used > device.limit {
            return Err(MsiError::DeviceFull { wanted: count, limit: device.limit });
        }
        device.used = used;
        Ok(device)
    }

    /// Reverses [`take`](Self::take), because the vectors were not allocated after all.
    pub(super) fn give_back(&mut self, vectors: &Vectors, cookie: u32, count: u16) {
        if let Some(Some(device)) = self.0.get_mut(cookie as usize) {
            device.used = device.used.saturating_sub(count.into());
        }
        self.finish(vectors, cookie);
    }

    /// Frees vectors at the root.
    pub(super) fn release(&mut self, vectors: &Vectors, cookie: u32, block: HwIrqBlock) {
        let count = block.count().get();
        if let Some(device) = self.get(cookie) {
            vectors.free(&device.root, block);
        }
        self.give_back(vectors, cookie, count);
    }

    /// Detaches a function. The attachment's entry is removed once all of its vectors have been
    /// released.
    pub(super) fn detach(&mut self, vectors: &Vectors, cookie: u32) {
        if let Some(Some(device)) = self.0.get_mut(cookie as usize) {
            device.is_detached = true;
        }
        self.finish(vectors, cookie);
    }

    fn finish(&mut self, vectors: &Vectors, cookie: u32) {
        let Some(entry) = self.0.get_mut(cookie as usize) else { return };
        let over = entry.as_ref().is_some_and(|device| device.is_detached && device.used == 0);
        if let Some(device) = entry.take_if(|_| over) {
            vectors.detach(device.root);
        }
    }
}
