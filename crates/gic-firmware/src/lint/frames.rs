//! Checks the sizes and addresses of register frames, and whether each CPU has a redistributor.

use crate::controller::{ControllerKind, Gic, GicVersion};
use crate::description::{ConfigAccess, Description};
use crate::finding::{Fact, FindingList, NodeId, Origin, Region, Rule};
use alloc::format;
use alloc::vec::Vec;
use msi_types::DeviceId;

/// Bytes of a redistributor: two frames, or four with virtual LPIs (IHI 0069H §12.10).
const REDISTRIBUTOR_V3_BYTES: u64 = 0x2_0000;
const REDISTRIBUTOR_V4_BYTES: u64 = 0x4_0000;
/// Bytes of a frame of a GICv3 (IHI 0069H §12.8), which is aligned to its size.
const FRAME_BYTES: u64 = 0x1_0000;
/// Bytes of register pages 0 and 1 of an SMMUv3, whose base is aligned to 64 KiB (IHI 0070 §6).
const SMMU_V3_BYTES: u64 = 0x2_0000;
/// Bytes of a GICv2m frame up to its last register, `MSI_IIDR` (SBSA 3.1 §F).
const MSI_FRAME_BYTES: u64 = 0xfd0;
const GIC_400: &str = "arm,gic-400";
/// Bytes of a GIC-400's CPU interface, whose `GICC_DIR` is at 0x1000 (DDI 0471B §3.1).
const GIC_400_BYTES: u64 = 0x2000;
const PAGE_BYTES: u64 = 0x1000;
/// Bytes of configuration space per bus.
const BUS_BYTES: u64 = 1 << 20;

const PCI_WINDOW: &str = "the PCI window";
const ECAM_WINDOW: &str = "the ECAM window";
/// Name of the CPU interface of a GICv3 or later, which Linux does not use.
const UNUSED_INTERFACE: &str = "the unused CPU interface";

pub(super) fn check(description: &Description, findings: &mut FindingList) {
    let mut frames = frames(description);
    for frame in &frames {
        shape(frame, findings);
    }
    // A base that is not aligned is wrong, and has been reported.
    let is_aligned = |frame: &Frame<'_>| frame.region.base().is_multiple_of(frame.alignment);
    frames.retain(|frame| frame.region.size() > 0 && is_aligned(frame));
    frames.sort_by_key(|frame| frame.region);
    overlapping(&frames, Rule::UnusedInterfaceOverlap, findings);
    frames.retain(|frame| frame.name != UNUSED_INTERFACE);
    overlapping(&frames, Rule::RegistersOverlap, findings);
    doorbells(description, findings);
    redistributors(description, findings);
}

/// Registers or configuration space that the interrupt system uses.
struct Frame<'d> {
    region: Region,
    origin: &'d Origin,
    /// Name of the frame, with an article.
    name: &'static str,
    owner: &'d NodeId,
    /// Alignment of the base; 1 if the architecture does not state it.
    alignment: u64,
    /// Minimum size.
    least: u64,
}

/// Returns the frames that a machine uses.
fn frames(description: &Description) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    let usable = |gic: &&Gic| gic.status.is_enabled() && gic.version.value != GicVersion::V2;
    for gic in description.gics().filter(usable) {
        let frame = |region: &'_ Fact<Region>| (region.value, FRAME_BYTES, FRAME_BYTES);
        push(&mut frames, &gic.distributor, "the distributor", &gic.id, frame(&gic.distributor));
        for region in &gic.redistributors {
            let shape = (region.value, FRAME_BYTES, 0);
            push(&mut frames, region, "the redistributor region", &gic.id, shape);
        }
    }
    for gic in description.gics().filter(|gic| gic.status.is_enabled()) {
        let Some(region) = &gic.cpu_interface else { continue };
        let is_gic_400 = gic.compatible.iter().any(|name| name == GIC_400);
        let least = if is_gic_400 { GIC_400_BYTES } else { 0 };
        let is_used = gic.version.value == GicVersion::V2;
        let name = if is_used { "the CPU interface" } else { UNUSED_INTERFACE };
        push(&mut frames, region, name, &gic.id, (region.value, 1, least));
    }
    for controller in description.controllers.iter().filter(|one| one.status.is_enabled()) {
        let (name, alignment, least) = match controller.kind {
            // `doorbells` compares the size with the address of the doorbell.
            ControllerKind::Its => ("the ITS", FRAME_BYTES, 0),
            ControllerKind::V2m => ("the MSI frame", PAGE_BYTES, MSI_FRAME_BYTES),
            _ => continue,
        };
        if let Some(region) = &controller.registers {
            let shape = (region.value, alignment, least);
            push(&mut frames, region, name, &controller.id, shape);
        }
    }
    for iommu in description.iommus.iter().filter(|one| one.status.is_enabled()) {
        let is_v3 = iommu.compatible.iter().any(|name| name == "arm,smmu-v3");
        let (alignment, least) = if is_v3 { (FRAME_BYTES, SMMU_V3_BYTES) } else { (1, 0) };
        if let Some(region) = &iommu.registers {
            push(&mut frames, region, "the IOMMU", &iommu.id, (region.value, alignment, least));
        }
    }
    for host in description.hosts.iter().filter(|one| one.status.is_enabled()) {
        let Some(config) = &host.config else { continue };
        if let ConfigAccess::Ecam(ecam) = config.value {
            push(&mut frames, config, ECAM_WINDOW, &host.id, (ecam, BUS_BYTES, 0));
        }
        for window in &host.windows {
            push(&mut frames, window, PCI_WINDOW, &host.id, (window.cpu(), 1, 0));
        }
    }
    frames
}

/// Adds a frame, given as (region, alignment, minimum size).
fn push<'d, T>(
    frames: &mut Vec<Frame<'d>>,
    fact: &'d Fact<T>,
    name: &'static str,
    owner: &'d NodeId,
    (region, alignment, least): (Region, u64, u64),
) {
    frames.push(Frame { region, origin: &fact.origin, name, owner, alignment, least });
}

fn shape(frame: &Frame<'_>, findings: &mut FindingList) {
    let Frame { region, origin, name, alignment, least, .. } = frame;
    if !region.base().is_multiple_of(*alignment) {
        let message = format!("{name} {region} does not start at a multiple of {alignment:#x}");
        let is_ecam = *name == ECAM_WINDOW;
        let rule = if is_ecam { Rule::EcamAlignment } else { Rule::FrameAlignment };
        findings.add(rule, (*origin).clone(), message);
    }
    if region.size() < *least {
        let size = region.size();
        let message = format!("{name} at {:#x} has {size:#x} bytes, not {least:#x}", region.base());
        findings.add(Rule::FrameSize, (*origin).clone(), message);
    }
}

/// Reports sorted frames that overlap and break this rule.
fn overlapping(frames: &[Frame<'_>], rule: Rule, findings: &mut FindingList) {
    let mut furthest: Option<&Frame<'_>> = None;
    for frame in frames {
        let region = frame.region;
        let before = furthest.filter(|before| before.region.last() >= Some(region.base()));
        // Windows of one host may overlap each other and its configuration space.
        let is_fault = |before: &&Frame<'_>| {
            let names = [before.name, frame.name];
            let is_of_rule = names.contains(&UNUSED_INTERFACE) || rule == Rule::RegistersOverlap;
            is_of_rule && (!names.contains(&PCI_WINDOW) || before.owner != frame.owner)
        };
        if let Some(before) = before.filter(is_fault) {
            let message = format!(
                "{} {region} overlaps {} {} of {}",
                frame.name, before.name, before.region, before.owner
            );
            findings.add(rule, frame.origin.clone(), message);
        }
        furthest = furthest.filter(|before| before.region.last() >= region.last()).or(Some(frame));
    }
}

fn doorbells(description: &Description, findings: &mut FindingList) {
    for controller in description.controllers.iter().filter(|one| one.status.is_enabled()) {
        // Devices do not write to the registers behind a window, nor to those of a MIP.
        let is_direct = controller.pre_its.is_none() && controller.message.is_none();
        let Some(registers) = controller.registers.as_ref().filter(|_| is_direct) else {
            continue;
        };
        if let Some(doorbell) = controller.doorbell(DeviceId::new(0))
            && !registers.contains(doorbell)
        {
            let message = format!("the doorbell {doorbell:#x} is not in {}", registers.value);
            findings.add(Rule::DoorbellOutsideRegisters, registers.origin.clone(), message);
        }
    }
}

/// Compares the redistributor regions with the number of CPUs. A devicetree doesn't state whether
/// the GIC is a GICv4, whose redistributors are larger. The regions of a GICv4 have room for fewer
/// CPUs than computed here.
fn redistributors(description: &Description, findings: &mut FindingList) {
    let usable = |gic: &&Gic| gic.status.is_enabled() && gic.version.value != GicVersion::V2;
    let Some(gic) = description.gic.as_ref().filter(usable) else { return };
    let stated = gic.redistributor_stride.as_ref().map(|stride| stride.value);
    let stride = stated.unwrap_or(match gic.version.value {
        GicVersion::V4 => REDISTRIBUTOR_V4_BYTES,
        GicVersion::V2 | GicVersion::V3 => REDISTRIBUTOR_V3_BYTES,
    });
    // QEMU's `virt` has the same region for both versions, which leaves half of a GICv4's
    // redistributor at its end.
    let unit = stated.unwrap_or(REDISTRIBUTOR_V3_BYTES);
    let is_whole = |region: &&Fact<Region>| {
        let size = region.size();
        size.is_multiple_of(unit) && (size == 0 || size >= stride)
    };
    for region in gic.redistributors.iter().filter(|region| !is_whole(region)) {
        let is_swapped = gic.distributor.size() > FRAME_BYTES && region.size() == FRAME_BYTES;
        let hint = if is_swapped { ": are the distributor and the region swapped?" } else { "" };
        let message = format!(
            "the redistributor region {} has {:#x} bytes, which are {} redistributors of \
             {stride:#x} bytes and {:#x} bytes more{hint}",
            region.value,
            region.size(),
            region.size() / stride,
            region.size() % stride
        );
        findings.add(Rule::RedistributorSize, region.origin.clone(), message);
    }
    let room = gic.redistributors.iter().fold(0u64, |room, region| {
        room.saturating_add(region.size().checked_div(stride).unwrap_or(0))
    });
    // The size of such a region has already been reported.
    if gic.redistributors.iter().any(|region| !is_whole(&region)) {
        return;
    }
    let cpus = description.enabled_cpus().count();
    if u64::try_from(cpus).is_ok_and(|cpus| cpus > room) {
        let origin = gic.redistributors.first().unwrap_or(&gic.distributor).origin.clone();
        let message = format!(
            "the redistributor regions have room for {room} of {cpus} CPUs, at {stride:#x} bytes \
             each"
        );
        findings.add(Rule::TooFewRedistributors, origin, message);
    }
}
