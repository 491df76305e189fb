//! ArceOS's MSIs on `gic-driver`. Replaces `somehal`'s file of the same name.

mod doorbells;
mod v2m;

use alloc::{collections::BTreeMap, format, sync::Arc, vec::Vec};
use core::fmt::Display;
use core::num::NonZeroU16;

use gic_driver::gic_arch::Lpi;
use gic_driver::its::IdMap;
use gic_driver::lpi::PendingLpis;
use gic_driver::msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, Initially, MsiError, MsiParent,
    RequesterId, Rewrite,
};
use gic_driver::{DirectLpi, Its, ItsConfig, ItsMsiParent};
use irq_framework::{IrqAffinity, IrqDomainId, IrqError, IrqId};
use kernutil::StaticCell;
use rdif_msi::{
    Interface, Msi, MsiAllocation, MsiDeviceId, MsiEventId, MsiMessage, MsiProviderId, MsiRequest,
    MsiVector, MsiVectorIndex,
};
use rdrive::register::{FdtInfo, ProbeFdt};
use rdrive::{DeviceId, PlatformDevice, module_driver, probe::OnProbeError};

use super::v3::{ArceOs, gic, irq_error};
use crate::irq::IrqDomainKind;

pub(super) use doorbells::probe as probe_gic_messages;

pub(super) const LPI_INTID_BASE: u32 = 8192;
/// Number of events reserved for a device, because ArceOS may allocate its vectors in several
/// requests.
const EVENTS_PER_DEVICE: u32 = 32;

static SENDER: StaticCell<LpiSender> = StaticCell::uninit();

/// The controller whose messages become LPIs. A GIC has at most one.
enum LpiSender {
    Its(Arc<Its<ArceOs>>),
    Direct(Arc<DirectLpi<ArceOs>>),
}

module_driver!(
    name: "GICv3 ITS",
    level: ProbeLevel::PreKernel,
    priority: ProbePriority::MSI,
    probe_kinds: &[
        ProbeKind::Fdt {
            compatibles: &["arm,gic-v3-its"],
            on_probe: probe_its
        }
    ],
);

fn probe_its(probe: ProbeFdt<'_>) -> Result<(), OnProbeError> {
    let (info, dev) = probe.into_parts();
    let base = first_reg(&info)?;
    let gic = gic().ok_or_else(|| OnProbeError::other("the GICv3 is not registered"))?;
    let config = ItsConfig::new(base, gic.cpus().count() as u32);
    let its = Arc::new(Its::new(gic.clone(), &config).map_err(probe_error)?);
    SENDER.init(LpiSender::Its(its.clone()));
    gic.cpus().filter(|cpu| gic.is_on(*cpu)).for_each(|cpu| cpu_on(cpu, PendingLpis::Kept));
    register(&dev, Arc::new(ItsMsiParent::new(its, IdMap::identity())))
}

/// Returns the address of a node's first frame.
fn first_reg(info: &FdtInfo<'_>) -> Result<u64, OnProbeError> {
    let no_reg = || OnProbeError::other(format!("[{}] has no reg", info.node.name()));
    info.node.regs().first().map(|reg| reg.address).ok_or_else(no_reg)
}

/// Registers an MSI controller as a device of ArceOS.
fn register(dev: &PlatformDevice, parent: Arc<dyn MsiParent>) -> Result<(), OnProbeError> {
    let id = dev.descriptor.device_id();
    dev.register(Msi::new(MsiProviderId(u64::from(id)), Provider::new(id, parent)?));
    Ok(())
}

fn probe_error(error: impl Display) -> OnProbeError {
    OnProbeError::other(format!("{error}"))
}

fn gic_domain() -> Result<IrqDomainId, OnProbeError> {
    crate::irq::domain_by_kind_fast(IrqDomainKind::AArch64Gic)
        .ok_or_else(|| OnProbeError::other("the GIC has no IRQ domain"))
}

fn sender() -> Option<&'static LpiSender> {
    SENDER.is_init().then(|| &*SENDER)
}

/// Makes a CPU a target of LPIs. The CPU must already be on at the GIC. `pending` states what
/// happens to LPIs that were pending at the CPU before.
pub(super) fn cpu_on(cpu: Cpu, pending: PendingLpis) {
    let on = match sender() {
        Some(LpiSender::Its(its)) => its.cpu_on(cpu).map_err(MsiError::from),
        Some(LpiSender::Direct(direct)) => direct.cpu_on(cpu, pending).map(drop),
        None => Ok(()),
    };
    if let Err(error) = on {
        warn!("CPU {cpu}: {error}");
    }
}

/// Masks or unmasks an LPI. Takes no lock of ArceOS, so it can't fail because another CPU holds it.
pub(super) fn set_lpi_enabled(hwirq: HwIrq, enabled: bool) -> Result<(), IrqError> {
    let lpi = Lpi::try_from(hwirq.get()).map_err(|_| IrqError::InvalidIrq)?;
    let changed = match (sender().ok_or(IrqError::Unsupported)?, enabled) {
        (LpiSender::Its(its), true) => its.unmask(lpi).map_err(MsiError::from),
        (LpiSender::Its(its), false) => its.mask(lpi).map_err(MsiError::from),
        (LpiSender::Direct(direct), _) => {
            if enabled {
                direct.unmask(hwirq)
            } else {
                direct.mask(hwirq)
            }
            direct.take_fault().map_or(Ok(()), Err)
        }
    };
    changed.map_err(irq_error)
}

/// Moves an LPI to a CPU, or to the boot CPU if it may be delivered to any. Refuses to move a
/// direct LPI, because a direct LPI's message selects the CPU, and ArceOS can't return a new
/// message to the endpoint's driver.
pub(super) fn set_lpi_affinity(hwirq: HwIrq, cpu: Option<Cpu>) -> Result<(), IrqError> {
    let lpi = Lpi::try_from(hwirq.get()).map_err(|_| IrqError::InvalidIrq)?;
    let cpu = cpu.unwrap_or(Cpu::new(0));
    match sender().ok_or(IrqError::Unsupported)? {
        LpiSender::Its(its) => {
            its.move_event(lpi, cpu).map(drop).map_err(|error| irq_error(error.into()))
        }
        LpiSender::Direct(direct) if direct.target(lpi) == Some(cpu) => Ok(()),
        LpiSender::Direct(_) => {
            warn!("LPI {hwirq} stays at its CPU: the endpoint's message would have to change");
            Err(IrqError::Unsupported)
        }
    }
}

/// A controller's vectors, as ArceOS's PCI layer allocates them.
struct Provider {
    parent: Arc<dyn MsiParent>,
    gic_domain: IrqDomainId,
    msix_domain: IrqDomainId,
    devices: BTreeMap<u32, Device>,
}

/// A device with vectors.
struct Device {
    attachment: Attachment,
    blocks: Vec<HwIrqBlock>,
}

impl Provider {
    fn new(owner: DeviceId, parent: Arc<dyn MsiParent>) -> Result<Self, OnProbeError> {
        let child = |of, kind| {
            crate::irq::alloc_child_irq_domain(owner, of, kind)
                .map_err(|error| OnProbeError::other(format!("no IRQ domain: {error:?}")))
        };
        let gic_domain = gic_domain()?;
        let msix_domain =
            child(child(gic_domain, IrqDomainKind::MsiParent)?, IrqDomainKind::PciMsix)?;
        Ok(Self { parent, gic_domain, msix_domain, devices: BTreeMap::new() })
    }

    /// Returns the block that holds a vector, and the vector's index in it.
    fn find(&self, vector: &MsiVector) -> Option<(&HwIrqBlock, u16)> {
        let hwirq = HwIrq::new(vector.parent_irq.hwirq.0);
        let mut blocks = self.devices.values().flat_map(|device| &device.blocks);
        blocks.find_map(|block| Some((block, block.index_of(hwirq)?)))
    }

    /// Allocates a block for a device, and attaches the device if this is its first block.
    fn allocate(&mut self, id: u32, count: NonZeroU16, cpu: Cpu) -> Result<HwIrqBlock, MsiError> {
        if !self.devices.contains_key(&id) {
            let events = u32::from(count.get()).max(EVENTS_PER_DEVICE);
            let attachment = self.parent.attach(RequesterId::new(id), events)?;
            self.devices.insert(id, Device { attachment, blocks: Vec::new() });
        }
        let device = self.devices.get(&id).ok_or(MsiError::NoRoute(RequesterId::new(id)))?;
        let fit = Fit::new(Rewrite::Masked);
        let request = BlockRequest::new(count, fit, cpu).with_initially(Initially::Masked);
        self.parent.allocate(&device.attachment, &request)
    }

    /// Routes a vector to a new IRQ of ArceOS.
    fn vector(&self, block: &HwIrqBlock, index: u16) -> Result<MsiVector, IrqError> {
        let hwirq = block.hwirq(index).ok_or(IrqError::InvalidIrq)?;
        let event = MsiEventId(self.parent.compose(block, index).map_err(irq_error)?.data);
        let number = irq_framework::HwIrq(hwirq.get());
        let parent_irq = IrqId::new(self.gic_domain, number);
        let irq = IrqId::new(self.msix_domain, number);
        crate::irq::map_irq_route(parent_irq, irq)?;
        Ok(MsiVector::with_parent(MsiVectorIndex(index), event, irq, parent_irq))
    }

    /// Frees a block, and detaches the device if this was its last block.
    fn free(&mut self, id: u32, block: Option<HwIrqBlock>) {
        let Some(device) = self.devices.get(&id) else { return };
        if let Some(block) = block {
            self.parent.free(&device.attachment, block);
        }
        if device.blocks.is_empty()
            && let Some(device) = self.devices.remove(&id)
        {
            self.parent.detach(device.attachment);
        }
    }
}

impl rdif_msi::DriverGeneric for Provider {
    fn name(&self) -> &str {
        "gic-driver: MSIs"
    }
}

impl Interface for Provider {
    fn allocate_vectors(&mut self, request: &MsiRequest) -> Result<Vec<MsiVector>, IrqError> {
        let MsiRequest { device: MsiDeviceId(id), vector_count, affinity } = *request;
        let count = NonZeroU16::new(vector_count).ok_or(IrqError::InvalidIrq)?;
        let allocated = self.allocate(id, count, cpu_of(affinity));
        let block = allocated.map_err(|error| {
            self.free(id, None);
            irq_error(error)
        })?;
        let mut vectors = Vec::with_capacity(usize::from(vector_count));
        for index in 0..vector_count {
            match self.vector(&block, index) {
                Ok(vector) => vectors.push(vector),
                Err(error) => {
                    let unmapped = unmap(&vectors);
                    self.free(id, Some(block));
                    return unmapped.and(Err(error));
                }
            }
        }
        let device = self.devices.get_mut(&id).ok_or(IrqError::NotFound)?;
        device.blocks.push(block);
        Ok(vectors)
    }

    fn compose_message(&self, vector: &MsiVector) -> Result<MsiMessage, IrqError> {
        let (block, index) = self.find(vector).ok_or(IrqError::InvalidIrq)?;
        let message = self.parent.compose(block, index).map_err(irq_error)?;
        Ok(MsiMessage::new(message.address, message.data))
    }

    fn set_vector_enabled(&mut self, vector: &MsiVector, enabled: bool) -> Result<(), IrqError> {
        super::irq_set_enable(vector.parent_irq, enabled)
    }

    fn set_vector_affinity(
        &mut self,
        vector: &MsiVector,
        affinity: IrqAffinity,
    ) -> Result<(), IrqError> {
        super::irq_set_affinity(
            vector.parent_irq,
            crate::irq::IrqAffinity::Fixed { cpu_id: cpu_of(affinity).index() },
        )
    }

    fn free_vectors(&mut self, allocation: MsiAllocation) -> Result<(), IrqError> {
        let MsiDeviceId(id) = allocation.device();
        let device = self.devices.get_mut(&id).ok_or(IrqError::NotFound)?;
        let first = allocation.vectors().first().ok_or(IrqError::InvalidIrq)?.parent_irq.hwirq.0;
        let found = device.blocks.iter().position(|block| {
            block.first().get() == first
                && usize::from(block.count().get()) == allocation.vectors().len()
        });
        let block = device.blocks.swap_remove(found.ok_or(IrqError::InvalidIrq)?);
        // Unmap the routes last, because the vectors may become pending until they are freed.
        self.free(id, Some(block));
        unmap(allocation.vectors())
    }
}

/// Removes the routes of vectors to IRQs of ArceOS. Tries all of them, and returns the first error.
fn unmap(vectors: &[MsiVector]) -> Result<(), IrqError> {
    let unmap = |vector: &MsiVector| crate::irq::unmap_irq_route(vector.parent_irq, vector.irq);
    vectors.iter().map(unmap).fold(Ok(()), Result::and)
}

fn cpu_of(affinity: IrqAffinity) -> Cpu {
    match affinity {
        IrqAffinity::Any => Cpu::new(0),
        IrqAffinity::Fixed(cpu) => Cpu::new(cpu.0 as u32),
    }
}
